"""Weights of backbones: damaged files, files of others, and a `keras.json` that would change what they compute."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from unittest import mock

import h5py
import numpy as np

from hirise_imb.backbones import BACKBONES, Backbone, efficientnet_lite0
from hirise_imb.backbones.efficientnet_lite0 import EMBEDDED_WEIGHTS
from hirise_imb.backbones.weights_file import DIGEST_SUFFIX, read_weights
from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.errors import UserError
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import DEADLINE, environment
from torture.damage import damage

if TYPE_CHECKING:
    import keras

LITE0 = BACKBONES["efficientnet-lite0"]


@functools.cache
def _network() -> keras.Model:
    """A network whose weights attacks replace."""
    return LITE0.load("random", HIRISE.image_shape).network


@functools.cache
def _embedded_digest() -> str:
    return LITE0.load("imagenet", HIRISE.image_shape).digest


def _file(attempt: Attempt) -> Path:
    """Returns a weights file of the user's, with plain numbers, in which a flipped bit has no other sign."""

    def make(folder: Path) -> None:
        folder.mkdir()
        LITE0.load("imagenet", HIRISE.image_shape).network.save_weights(folder / "plain.weights.h5")

    return attempt.prepare("weights", make) / "plain.weights.h5"


@attack(Area.DISK, "The embedded weights are damaged: one bit, a block, the end", tries=300, quick=20)
def damage_embedded_weights(attempt: Attempt) -> Outcome:
    content = EMBEDDED_WEIGHTS.read_bytes()
    path = attempt.folder / EMBEDDED_WEIGHTS.name
    path.write_bytes(changed := damage(attempt.random, content))
    with mock.patch.object(efficientnet_lite0, "EMBEDDED_WEIGHTS", path):
        try:
            LITE0.load("imagenet", HIRISE.image_shape)
        except UserError as error:
            refusal = str(error)
        else:
            assert changed == content
            return Outcome.CORRECT
    assert "install the package again" in refusal, refusal
    return Outcome.REFUSED


@attack(Area.DISK, "A file of `--weights` with its SHA-256 next to it is damaged", tries=100, quick=5)
def damage_weights_with_digest(attempt: Attempt) -> Outcome:
    content = _file(attempt).read_bytes()
    path = attempt.folder / "own.weights.h5"
    listing = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    path.with_name(path.name + DIGEST_SUFFIX).write_text(listing, encoding="utf-8")
    path.write_bytes(changed := damage(attempt.random, content))
    try:
        read_weights(_network(), path)
    except UserError as error:
        assert path.name in str(error), error  # noqa: PT017
        return Outcome.REFUSED
    assert changed == content
    return Outcome.CORRECT


@attack(Area.DISK, "A file of `--weights` is damaged: refused, or the report gives another digest", tries=60)
def damage_weights_without_digest(attempt: Attempt) -> Outcome:
    path = attempt.folder / "own.weights.h5"
    path.write_bytes(damage(attempt.random, _file(attempt).read_bytes()))
    try:
        read_weights(_network(), path)
    except ValueError:
        return Outcome.REFUSED
    weights = _network().get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)
    # The report, the feature cache and the stored fits tell weights apart by this digest.
    return Outcome.CORRECT if Backbone(LITE0, _network()).digest == _embedded_digest() else Outcome.NAMED


def _lack(rng: Random, file: h5py.File, name: str) -> None:
    del file[name]


def _add(rng: Random, file: h5py.File, name: str) -> None:
    file[f"{name}-more"] = file[name][...]


def _reshape(rng: Random, file: h5py.File, name: str) -> None:
    values = file[name][...]
    del file[name]
    file[name] = values[..., np.newaxis] if rng.random() < 0.5 else values.ravel()[1:]


def _spoil(rng: Random, file: h5py.File, name: str) -> None:
    values = file[name][...]
    values.ravel()[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf])
    file[name][...] = values


def _negate_variance(rng: Random, file: h5py.File, name: str) -> None:
    [*names] = [name for name in _names(file) if name.endswith("vars/3")]
    values = file[name := rng.choice(names)][...]
    values[rng.randrange(len(values))] *= -1
    file[name][...] = values


def _retype(rng: Random, file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, dtype=rng.choice(["S8", "c8", "?"]))


def _link(rng: Random, file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = h5py.ExternalLink("/etc/passwd", "/") if rng.random() < 0.5 else h5py.SoftLink(f"/{name}")


def _read_another_file(rng: Random, file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, "f4", external=[(sys.executable, 0, h5py.h5f.UNLIMITED)])


def _claim_much(rng: Random, file: h5py.File, name: str) -> None:
    del file[name]
    file.create_dataset(name, (1 << 40, 1 << 10), "f4", chunks=(1 << 10, 1 << 10))


_FORGERIES: tuple[Callable[[Random, h5py.File, str], None], ...] = (
    *(_lack, _add, _reshape, _spoil, _negate_variance, _retype, _link, _read_another_file, _claim_much),
)


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


@attack(
    Area.DISK,
    "A file of `--weights` lacks an array, has one more, another shape, NaN, negative variances, links to other files",
    tries=60,
    quick=3,
)
def forge_weights(attempt: Attempt) -> Outcome:
    path = attempt.folder / "own.weights.h5"
    shutil.copyfile(_file(attempt), path)
    with h5py.File(path, "r+") as file:
        attempt.random.choice(_FORGERIES)(attempt.random, file, attempt.random.choice(_names(file)))
    try:
        read_weights(_network(), path)
    except ValueError:
        return Outcome.REFUSED
    raise AssertionError("the file was accepted")


_PROGRAM = """
import hashlib, sys
import numpy as np
from hirise_imb.backbones import BACKBONES
backbone = BACKBONES["efficientnet-lite0"].load("imagenet", (64, 64, 1))
pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 1)).astype("float32")
cut = backbone.trunk("block7")(pixels)
features = [np.asarray(backbone.trunk("top")(pixels)), np.asarray(backbone.tail("block7")(cut))]
print(backbone.digest, *(hashlib.sha256(values.tobytes()).hexdigest() for values in features), features[0].dtype)
"""


@attack(Area.DISK, "Another `keras.json` or KERAS_BACKEND: number format, epsilon, order of dimensions", tries=8)
def change_keras_settings(attempt: Attempt) -> Outcome:
    def run(settings: str | None, **variables: str) -> subprocess.CompletedProcess[str]:
        home = attempt.folder / f"home-{len(list(attempt.folder.iterdir()))}"
        home.mkdir()
        if settings is not None:
            (home / "keras.json").write_text(settings, encoding="utf-8")
        env = environment(KERAS_HOME=str(home), **variables)
        command = [sys.executable, "-c", _PROGRAM]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "features").write_text(run(None).stdout, encoding="utf-8")

    expected = (attempt.prepare("keras-settings", make) / "features").read_text(encoding="utf-8")
    assert len(expected) > 100
    rng = attempt.random
    choices = {
        "floatx": rng.choice(["float16", "float32", "float64", "float16", "int8"]),
        "epsilon": rng.choice([1e-7, 0.1, 1.0, 1]),
        "backend": rng.choice(["tensorflow", "jax", "torch", "numpy"]),
        "image_data_format": rng.choice(["channels_last", "channels_first"]),
    }
    settings = {name: choices[name] for name in rng.sample(list(choices), rng.randint(1, len(choices)))}
    variables = {"KERAS_BACKEND": rng.choice(["jax", "torch", "nonsense"])} if rng.random() < 0.5 else {}
    ended = run(rng.choice([json.dumps(settings)] * 5 + ["{", ""]), **variables)
    if ended.returncode:
        assert "UserError: Keras can't be imported" in ended.stderr, ended.stderr
        return Outcome.REFUSED
    assert ended.stdout == expected, (settings, ended.stdout, expected)
    return Outcome.CORRECT
