"""Files that contain code: nothing of it runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from saved_models import write_toy_model

from hirise_imb.backbones import BACKBONES
from hirise_imb.data.hirise import HIRISE
from hirise_imb.prediction.model_file import read_model
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.testing.toy import TOY
from hirise_imb.utils.errors import UserError
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import call

MARKUP = (
    "<script>touch('executed')</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](https://evil.example/pixel.png)",
    "<https://evil.example>",
    "&lt;b&gt; &#60;i&#62;",
    "a | b | c",
    "`code` **bold** _it_ ~~no~~ # head $x$",
    "\n\n# Heading\n\n---\n\n<iframe src='/artifacts/1/1'></iframe>",
    "[1]: javascript:alert(1)",
    "\\<b>\\\\<b>",
    "\u202eelbaliava\u200b",
)
"""Strings that are markup where nobody escapes them."""


class Harm:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


# --- saved models ---


def sign(folder: Path) -> None:
    """Writes the digests that fit the files of a model, as somebody who means harm would."""
    names = ("model.json", "weights.npz")
    digests = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(digests), encoding="ascii")


def to_npy(array: np.ndarray[Any, Any]) -> bytes:
    """Returns an array as numpy stores it, with pickle where it has objects."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def make_npy(header: str, content: bytes = b"") -> bytes:
    """Returns a file of an array with any header."""
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line) % 65536) + line + content


def change_arrays(folder: Path, harm: Harm, rng: random.Random) -> None:
    """Replaces an array of a model by something else."""
    path = folder / "weights.npz"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(entries))
    array = np.load(io.BytesIO(entries[name]))
    shape = rng.choice((f"({10**12},)", f"({2**62}, 4)", "(-1,)", "()", "(" * 300 + ")" * 300, "(1.5,)", "('a',)"))
    descr = rng.choice(("'<f8'", "'|O'", "'|V0'", "[('a', '<f8', (2, 2))]", "'nonsense'", "'|S1000000'", "None"))
    with np.errstate(all="ignore"):
        replacements: Sequence[Callable[[], bytes]] = (
            lambda: to_npy(np.array([harm], object)),
            lambda: pickle.dumps(harm),
            lambda: make_npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", pickle.dumps(harm)),
            lambda: make_npy(
                rng.choice(("__import__('os').mkdir('executed')", "[" * 5000, "-" * 9000 + "1", "{'a': 1"))
            ),
            lambda: to_npy(array.astype(rng.choice(("f2", "f4", ">f8", "c16", "i8", "U9")))),
            lambda: to_npy(np.full_like(array, rng.choice((np.nan, np.inf, 1e308, -1e308, 1e-320, 0)))),
            lambda: to_npy(np.resize(array, rng.choice(((0,), (1,), (3, 0), (2, 2, 2), (17, 5))))),
            lambda: entries[name][: rng.randrange(len(entries[name]))],
            lambda: entries[name] + b"more",
        )
    entries[name] = rng.choice(replacements)()
    compression = rng.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two entries with one name
        for entry, content in entries.items():
            archive.writestr(entry, content)
        if rng.random() < 0.3:
            extra = rng.choice(
                ("../../outside.npy", "/tmp/outside.npy", name, "fits.0.extra.npy", "fits.0.extra", "é.npy")
            )
            archive.writestr(extra, rng.choice((pickle.dumps(harm), bytes(30_000_000), entries[name])))


def change_bytes(folder: Path, harm: Harm, rng: random.Random) -> None:
    """Changes or cuts off bytes of the file of arrays."""
    path = folder / "weights.npz"
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 6)):
        # Most of the file are numbers; its structure is in headers and at the end.
        place = rng.choice((rng.randrange(len(content)), rng.randrange(150), -1 - rng.randrange(400)))
        content[place] = rng.randrange(256)
    path.write_bytes(content[: rng.choice((len(content),) * 3 + (rng.randrange(len(content)),))])


def change_facts(folder: Path, harm: Harm, rng: random.Random) -> None:
    """Replaces a value of `model.json`."""
    path = folder / "model.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    holders = [facts]
    for holder in holders:
        values = holder.values() if isinstance(holder, dict) else holder
        holders += [value for value in values if isinstance(value, dict | list) and value]
    holder = rng.choice([holder for holder in holders if holder])
    key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    values = [
        *MARKUP,
        10**30,
        -1,
        0,
        2.5,
        True,
        None,
        [],
        {},
        "",
        "/dev/zero",
        "../../../etc/passwd",
        "x" * 10**5,
        10**7,
    ]
    holder[key] = rng.choice(values)
    text = json.dumps(facts)
    if rng.random() < 0.1:
        text = rng.choice(
            (text.replace(": 0", ": NaN", 1), "[" * 10**5, text[:-1], "9" * 5000, text + text, f"\ufeff{text}")
        )
    path.write_text(text, encoding="utf-8")


def change_files(folder: Path, harm: Harm, rng: random.Random) -> None:
    """Replaces files of a model by links, pipes and digests of other files; they are not signed again."""
    secret = folder.parent / "secret"
    secret.write_bytes(pickle.dumps(harm))
    path = folder / rng.choice(("model.json", "weights.npz", "SHA256SUMS"))
    path.unlink()
    rng.choice(
        (
            lambda: path.symlink_to(secret),
            lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to(path),
            lambda: os.mkfifo(path),
            lambda: path.mkdir(),
            lambda: path.write_bytes(bytes(5_000_000)),
            lambda: path.write_text(f"{hashlib.sha256(secret.read_bytes()).hexdigest()}  ../secret\n" * 2),
        )
    )()


def make_toy_model(folder: Path) -> None:
    """Writes a report folder with a model on the toy backbone."""
    write_toy_model(folder / "models" / "arm", TOY.load("random", HIRISE.image_shape))
    (folder / "summary.json").write_text("{}", encoding="utf-8")


@attack(
    Area.SECURITY, "A saved model with other arrays, facts, links or pickles, whose digests fit", tries=200, quick=3
)
def hostile_model(attempt: Attempt) -> Outcome:
    report = attempt.folder / "report"
    shutil.copytree(attempt.prepare("toy-model", make_toy_model), report)
    folder, harm = report / "models" / "arm", Harm(attempt.folder / "executed")
    change = attempt.random.choice(
        (change_arrays, change_arrays, change_bytes, change_facts, change_facts, change_files)
    )
    change(folder, harm, attempt.random)
    if change is not change_files:
        sign(folder)
    outcome = Outcome.HARMLESS
    with mock.patch.dict(BACKBONES, {TOY.name: TOY}):
        listed = call("models", report)
        assert "Traceback" not in listed.err
        try:
            model = read_model(folder)
            pixels = np.random.default_rng(0).integers(256, size=(2, *HIRISE.image_shape)).astype(np.uint8)
            if model.image_shape == HIRISE.image_shape:
                output = Predictor.load(model).predict(pixels)
                np.testing.assert_allclose(output.probabilities.sum(axis=1), 1, rtol=1e-6)
                np.testing.assert_allclose(output.calibrated.sum(axis=1), 1, rtol=1e-6)
        except UserError:
            outcome = Outcome.REFUSED
    assert not (attempt.folder / "executed").exists()
    assert sorted(path.name for path in attempt.folder.iterdir() if path.name != "secret") == ["report"]
    return outcome


# --- files that contain code ---


def write_code(path: Path, kind: str, harm: Harm) -> None:
    """Writes a file that would run code in a reader that trusts it."""
    if kind == "keras lambda":
        import keras

        source = keras.Input((2,))
        # The name of a function in another module, so that the layer needs no pickle either.
        network = keras.Model(source, keras.layers.Lambda(lambda x: x + 1)(source))
        network.save(path.with_suffix(".keras"))
        path.with_suffix(".keras").replace(path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(harm))
    elif kind == "object array":
        path.write_bytes(to_npy(np.array([harm], object)))
    elif kind == "zip of pickles":
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("kind.npy", "seed.npy", "data.pkl", "config.json", "metadata.json", "model.weights.h5"):
                archive.writestr(name, to_npy(np.array([harm], object)) if name == "kind.npy" else pickle.dumps(harm))
    elif kind == "HDF5 with a link":
        import h5py

        with h5py.File(path, "w") as file:
            file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
            file.attrs["model_config"] = pickle.dumps(harm).hex()
    else:
        path.write_text("!!python/object/apply:os.mkdir [executed]\n__import__('os').mkdir('executed')\n")


KINDS = ("keras lambda", "pickle", "object array", "zip of pickles", "HDF5 with a link", "expression")


@attack(Area.SECURITY, "Pickles, Keras lambdas and expressions in place of every input file", tries=40)
def planted_code(attempt: Attempt) -> Outcome:
    folder, kind = attempt.folder, attempt.random.choice(KINDS)
    harm, out, reports = Harm(folder / "executed"), folder / "out", [folder / "one", folder / "other"]
    for report in reports:
        (report / "models" / "arm").mkdir(parents=True)
        for name in ("summary.json", "models/arm/model.json", "models/arm/weights.npz"):
            write_code(report / name, kind, harm)
        sign(report / "models" / "arm")
    model = attempt.prepare("toy-model", make_toy_model) / "models" / "arm"
    fitting = ("--data", small_study.data(attempt), "--out", out, "--strategies", "class_weights")

    def plant(name: str) -> Path:
        write_code(folder / name, kind, harm)
        return folder / name

    commands: Sequence[Callable[[], Sequence[object]]] = (
        lambda: ("run", plant("a.toml")),
        lambda: ("run", "--data", plant("a.zip")),
        lambda: ("run", "--features", plant("a.parquet"), *fitting),
        lambda: ("run", "--weights", plant("a.weights.h5"), *fitting),
        lambda: ("data", "check", plant("a.zip")),
        lambda: ("data", "import", plant("a.csv")),
        lambda: ("data", "add", plant("a.csv"), "--data", small_study.data(attempt), "--images", folder, "--out", out),
        lambda: ("predict", model, plant("a.jpg"), "--out", folder / "out.parquet"),
        lambda: ("predict", model, plant("a.parquet"), "--out", folder / "out.parquet"),
        lambda: ("predict", reports[0] / "models" / "arm", plant("a.jpg"), "--out", folder / "out.parquet"),
        lambda: ("export", reports[0] / "models" / "arm", "--format", "keras"),
        lambda: ("models", reports[0]),
        lambda: ("compare", *reports, "--out", out),
        lambda: ("report", reports[0]),
        lambda: ("forensics", plant("a.csv")),
        lambda: ("review", plant("a.parquet"), "--images", folder, "--out", out),
    )
    # The folder of the process, where an expression would leave its trace.
    before = set(Path().iterdir())
    with mock.patch.dict(BACKBONES, {TOY.name: TOY}):
        finished = call(*attempt.random.choice(commands)()).expect_sentence()
    assert not finished.err.startswith("usage:"), finished.err
    assert not (folder / "executed").exists()
    assert set(Path().iterdir()) == before
    return Outcome.HARMLESS
