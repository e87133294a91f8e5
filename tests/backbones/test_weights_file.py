"""Weights files that were damaged or forged are refused with the reason, before a network is used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from hirise_imb.backbones.weights_file import DIGEST_SUFFIX, read_weights
from hirise_imb.utils.errors import UserError

Change = Callable[[h5py.File], object]

KERNEL, GAMMA, MEAN, VARIANCE = "layers/dense/vars/0", *(f"layers/batch_normalization/vars/{k}" for k in (0, 2, 3))


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A network with every kind of weight, which each test loads again."""
    layers = [keras.layers.Dense(2, name="dense"), keras.layers.BatchNormalization(name="norm")]
    return keras.Sequential([keras.Input((3,)), *layers], name="small")


@pytest.fixture(scope="module")
def written(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a file with its weights: ones in the kernel."""
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    network.layers[0].set_weights([np.ones((3, 2)), np.zeros(2)])
    network.save_weights(path)
    return path.read_bytes()


@pytest.fixture
def path(written: bytes, tmp_path: Path) -> Path:
    """A file that a test may change."""
    path = tmp_path / "own.weights.h5"
    path.write_bytes(written)
    return path


def retype(dtype: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, (3, 2), dtype)

    return change


def read_another_file(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (3, 2), "f4", external=[("/etc/passwd", 0, 24)])


def map_another_file(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (3, 2))
    file.create_virtual_dataset(KERNEL, layout)


def put(name: str, value: float) -> Change:
    """Replaces the last number of an array."""

    def change(file: h5py.File) -> None:
        values = file[name][...]
        values.flat[-1] = value
        file[name][...] = values

    return change


def claim_much(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (1 << 40, 2), "f4", chunks=(1 << 10, 2))


def add_array(file: h5py.File) -> None:
    file["layers/dense/vars/2"] = np.zeros(2)


def remove_array(file: h5py.File) -> None:
    del file[MEAN]


NO_ARRAY = f"{KERNEL} is not an array of numbers"

REFUSED: dict[str, tuple[Change, str]] = {
    "text": (retype("S8"), NO_ARRAY),
    "complex numbers": (retype("c8"), NO_ARRAY),
    "bytes of another file": (read_another_file, NO_ARRAY),
    "an array of another file": (map_another_file, NO_ARRAY),
    "an array less": (remove_array, "it has 5 arrays, and small has 6"),
    "an array more": (add_array, "it has 7 arrays, and small has 6"),
    "an array beyond any memory": (claim_much, "it has 6 arrays, and small has 6"),
    "NaN": (put(KERNEL, np.nan), "small/dense/kernel has values that are not finite"),
    "infinity": (put(GAMMA, -np.inf), "small/norm/gamma has values that are not finite"),
    "a negative variance": (put(VARIANCE, -0.5), "small/norm/moving_variance has values that are not finite, or neg"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_no_network_has_are_refused(case: str, network: keras.Model, path: Path) -> None:
    change, reason = REFUSED[case]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        read_weights(network, path)


def test_negative_means_are_weights_like_others(network: keras.Model, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        put(MEAN, -0.5)(file)
    read_weights(network, path)
    gamma, beta, mean, variance = (values.tolist() for values in network.layers[1].get_weights())
    assert (gamma, beta, mean, variance) == ([1, 1], [0, 0], [0, -0.5], [1, 1])
    assert network.layers[0].get_weights()[0].tolist() == [[1, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize("spelling", ["{}  own.weights.h5\n", "{}"])
def test_weights_with_their_digest_are_read(spelling: str, network: keras.Model, path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + DIGEST_SUFFIX).write_text(spelling.format(digest.upper()), encoding="utf-8")
    read_weights(network, path)


@pytest.mark.parametrize(("listing", "given"), [("0" * 70 + "  own.weights.h5\n", "0" * 64), ("\n", "none")])
def test_weights_with_another_digest_are_refused(listing: str, given: str, network: keras.Model, path: Path) -> None:
    path.with_name(path.name + DIGEST_SUFFIX).write_text(listing, encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    message = f"{path} has the SHA-256 {digest}, and own.weights.h5.sha256 next to it gives {given}: copy or download"
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        read_weights(network, path)
