"""Disks that are full or read-only, damaged files, and paths that are something else than expected."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from cut_features import extract_at

from hirise_imb.backbones import BACKBONES, TOP, Backbone
from hirise_imb.data.hirise import HIRISE
from hirise_imb.testing.toy import TOY
from hirise_imb.utils import files
from hirise_imb.utils.errors import UserError
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import Finished, call
from torture.damage import damage

IMAGES = 40
CUTS = (TOP, "late")
LONGEST = 240
"""Seconds after which a command in this process counts as hanging."""


# --- the feature cache ---


@functools.cache
def _backbone() -> Backbone:
    return TOY.load("random", HIRISE.image_shape)


def _images(attempt: Attempt) -> list[Path]:
    data = small_study.data(attempt)
    return sorted((data / HIRISE.layout.image_folder).iterdir())[:IMAGES]


def _cache(attempt: Attempt) -> Path:
    """Returns a cache with features of some images. Not to be changed."""
    return attempt.prepare("features", lambda folder: extract_at(_backbone(), CUTS, _images(attempt), folder))


def _features(attempt: Attempt, cache: Path) -> dict[str, bytes]:
    """Returns the features in a cache, which are computed where it lacks them."""
    found = extract_at(_backbone(), CUTS, _images(attempt), cache)
    return {cut: features.take(np.arange(len(features))).tobytes() for cut, features in found.items()}


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@attack(Area.DISK, "Files of the feature cache are damaged, lost, exchanged or of another time", tries=150, quick=3)
def damage_feature_cache(attempt: Attempt) -> Outcome:
    cache = Path(shutil.copytree(_cache(attempt), attempt.folder / "features"))
    expected = _features(attempt, cache)
    rng = attempt.random
    paths = sorted(path for path in cache.rglob("*") if path.is_file())
    for path in rng.sample(paths, rng.randint(1, 3)):
        match rng.randrange(5):
            case 0:
                path.unlink()
            case 1:
                other = rng.choice(paths)
                path.write_bytes(other.read_bytes() if other.exists() else b"")
            case _:
                path.write_bytes(damage(rng, path.read_bytes()))
        if path.exists():
            os.utime(path, (when := rng.choice([0, 1, 2**31, 2**33]), when))
    assert _features(attempt, cache) == expected
    assert _features(attempt, cache) == expected  # what was repaired is stored
    return Outcome.REPAIRED


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Makes a folder read-only: by a mount where this process may, and otherwise by permissions or by pretence."""
    mounted = run_program("mount", "--bind", folder, folder)
    if mounted:
        assert run_program("mount", "-o", "remount,ro,bind", folder)
    try:
        if mounted or os.getuid():
            for path in [] if mounted else [*folder.rglob("*"), folder]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            yield
        else:
            with mock.patch.object(files, "_try_to_write", side_effect=PermissionError(13, "Permission denied")):
                yield
    finally:
        if mounted:
            assert run_program("umount", folder)
        elif os.getuid():
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)


def run_program(*command: object) -> bool:
    """Returns whether a program exists and succeeds."""
    try:
        return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@attack(Area.DISK, "The feature cache is on a read-only disk: complete, incomplete or damaged", tries=60, quick=2)
def read_only_feature_cache(attempt: Attempt) -> Outcome:
    cache = Path(shutil.copytree(_cache(attempt), attempt.folder / "features"))
    expected = _features(attempt, cache)
    is_complete = attempt.random.random() < 0.5
    if not is_complete:
        path = attempt.random.choice([path for path in sorted(cache.rglob("*.bin")) if path.stat().st_size])
        with path.open("r+b") as file:
            file.truncate(attempt.random.randrange(path.stat().st_size))
    before = _content(cache)
    refusal = ""
    with _read_only(cache):
        try:
            assert _features(attempt, cache) == expected
        except UserError as error:
            refusal = str(error)
        assert _content(cache) == before
    assert bool(refusal) != is_complete, refusal
    assert not refusal or "can't be written to" in refusal
    return Outcome.REFUSED if refusal else Outcome.CORRECT


# --- what is not a file ---


@contextmanager
def known_toy() -> Iterator[None]:
    """The toy backbone is known to commands in this process."""
    with mock.patch.dict(BACKBONES, {TOY.name: TOY}):
        yield


@contextmanager
def deadline() -> Iterator[None]:
    """Fails if the block hangs."""

    def stop(*_: object) -> None:
        raise AssertionError("the command hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _replace(path: Path, kind: str) -> Path:
    """Puts something else in the place of a file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:  # paths of sockets are short
                one.bind(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()
        case "file":
            path.write_bytes(b"a file")
    return path


def _report(attempt: Attempt) -> Path:
    return Path(shutil.copytree(small_study.undisturbed(attempt) / "reports" / small_study.NAME, attempt.folder / "r"))


def undisturbed_model(attempt: Attempt) -> Path:
    """Returns the folder of a saved model of the undisturbed study."""
    return next((small_study.undisturbed(attempt) / "reports" / small_study.NAME / "models").iterdir())


def _data(attempt: Attempt) -> Path:
    return Path(shutil.copytree(small_study.data(attempt), attempt.folder / "data"))


def _inputs(attempt: Attempt) -> dict[str, Callable[[str], Finished]]:
    """Returns commands by name; each gets the kind of thing that takes the place of one of its inputs."""
    folder, rng, layout, data_ = attempt.folder, attempt.random, HIRISE.layout, small_study.data(attempt)

    def data(name: str) -> Callable[[str], Finished]:
        def run(kind: str) -> Finished:
            place = _data(attempt)
            image = rng.choice(sorted((place / layout.image_folder).iterdir()))
            _replace(image if name == "image" else place / name, kind)
            return call("data", "check", place)

        return run

    def report(name: str) -> Callable[[str], Finished]:
        def run(kind: str) -> Finished:
            place = _report(attempt)
            _replace(next(place.glob(name)), kind)
            return call("report", place)

        return run

    def model(name: str) -> Callable[[str], Finished]:
        def run(kind: str) -> Finished:
            place = Path(shutil.copytree(undisturbed_model(attempt), folder / "model"))
            _replace(place / name, kind)
            return call("predict", place, data_, "--out", folder / "p.parquet")

        return run

    def path(name: str, *words: object) -> Callable[[str], Finished]:
        return lambda kind: call(*words, _replace(folder / name, kind))

    return {
        **{name: data(name) for name in (*layout.files, layout.image_folder, "image")},
        **{name: path(name, "data", "check") for name in ("data.zip", "table.csv", "table.parquet")},
        "definition": path("study.toml", "plan"),
        "summary": report("summary.json"),
        "predictions": report("predictions/*.parquet"),
        "published table": path("table.csv", "forensics"),
        **{f"model: {name}": model(name) for name in ("SHA256SUMS", "model.json", "weights.npz")},
        "images": path("images.jpg", "predict", undisturbed_model(attempt), "--out", folder / "p.parquet"),
        "image table": path("images.parquet", "predict", undisturbed_model(attempt), "--out", folder / "p.parquet"),
        "predicted images": path("p.parquet", "review", "--images", data_, "--out", folder / "review"),
        "weights": path("w.h5", "run", "--data", data_, "--out", folder / "out", "--trials", 1, "--weights"),
    }


@attack(
    Area.DISK,
    "A pipe, socket, device, folder, or link to itself in the place of an input: definition, data, images, weights, "
    "report, model, tables",
    tries=150,
    quick=3,
)
def replace_input(attempt: Attempt) -> Outcome:
    inputs = _inputs(attempt)
    name = attempt.random.choice(sorted(inputs))
    kind = attempt.random.choice(["pipe", "socket", "device", "folder", "loop"])
    with known_toy(), deadline():
        finished = inputs[name](kind)
    assert finished.code == 2, (name, kind, finished)
    if name == "image":  # one message names all images that can't be used
        assert "error: 1 of" in finished.err, finished
    else:
        finished.expect_sentence()
    return Outcome.REFUSED


@attack(
    Area.DISK, "A file in the place of a folder that is written to, or a folder in that of a file", tries=60, quick=2
)
def replace_output(attempt: Attempt) -> Outcome:
    folder, rng = attempt.folder, attempt.random
    model, data = undisturbed_model(attempt), small_study.data(attempt)
    place = _replace(folder / "place", kind := rng.choice(["file", "folder", "loop", "pipe"]))
    if kind == "folder":
        (place / "something").touch()
    target = place if kind == "folder" or rng.random() < 0.5 else place / "below"
    predictions = place / "below.parquet"
    if kind == "folder":
        (predictions := folder / "a-folder.parquet").mkdir()
    study = ["run", "--data", data, "--backbone", TOY.name, "--weights", "random", "--strategies", "tau_norm"]
    commands: list[list[object]] = [
        ["data", "draw", "--seed", 1, "--out", target],
        ["predict", model, data / HIRISE.layout.image_folder, "--out", predictions],
        ["export", model, "--format", "keras", "--out", target],
        ["init", target],
    ]
    if kind != "folder":
        commands += [[*study, "--out", target], ["compare", *[_report(attempt)] * 2, "--out", target]]
    command = rng.choice(commands)
    with known_toy(), deadline():
        call(*command).expect_sentence()
    return Outcome.REFUSED
