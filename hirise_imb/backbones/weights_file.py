"""Reads the weights of a network from a file, which may be damaged, or belong to another network."""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.utils.errors import UserError, first_line
from hirise_imb.utils.files import check_regular_file, digest_of

if TYPE_CHECKING:
    import keras

DIGEST_SUFFIX = ".sha256"
"""Suffix of a file with the SHA-256 of the weights file next to it, as `sha256sum` writes it."""
_LONGEST = 160
"""Longest reason that a message gives: some of Keras' have pages."""


def read_weights(network: keras.Model, path: Path) -> None:
    """Loads all weights of `network` from a Keras weights file, and checks them.

    A flipped bit in a plain number can't be noticed by itself: hence the file with a digest, if there is one.

    Raises:
        UserError: the file does not have the digest that is given next to it.
        ValueError: the file can't be read, contains the weights of another network, or impossible ones.
    """
    _check_digest(path)
    with warnings.catch_warnings():
        # When layers keep their random weights because the file lacks them, Keras only warns.
        warnings.filterwarnings("error", message="Skipping nested container")
        try:
            _check_arrays(network, path)
            network.load_weights(path)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, UserWarning) as error:
            raise ValueError(first_line(error)[:_LONGEST]) from error
    _check_numbers(network)


def _check_digest(path: Path) -> None:
    listing = path.with_name(path.name + DIGEST_SUFFIX)
    check_regular_file(listing)
    if listing.is_file():
        expected, *_ = [*listing.read_text(encoding="utf-8", errors="replace").split(), ""]
        if (digest := digest_of(path, "sha256")) != expected.lower():
            raise UserError(
                f"{path} has the SHA-256 {digest}, and {listing.name} next to it gives {expected[:64] or 'none'}: "
                f"copy or download the weights again, or correct that file."
            )


def _check_arrays(network: keras.Model, path: Path) -> None:
    """Checks that an HDF5 file has as many arrays of each shape as the network, before any of them is read."""
    import h5py

    if not h5py.is_hdf5(path):
        return
    shapes: Counter[tuple[int, ...]] = Counter()

    def count(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            # Neither may name other files, and a declared size is allocated before anything is read.
            if item.dtype.kind not in "fiu" or item.external or item.is_virtual:
                raise ValueError(f"{name} is not an array of numbers")
            shapes[item.shape] += 1

    with h5py.File(path) as file:
        file.visititems(count)
    needed, allowed = (
        Counter(tuple(weight.shape) for weight in weights) for weights in (network.weights, network.variables)
    )
    # Keras saves the states of random generators, too, but its published files lack them.
    if not needed <= shapes <= allowed:
        raise ValueError(f"it has {shapes.total()} arrays, and {network.name} has {needed.total()}")


def _check_numbers(network: keras.Model) -> None:
    """Checks that weights are finite and variances not negative.

    Raises:
        ValueError: some are not.
    """
    import keras
    import numpy as np

    for layer in network.layers:
        for weight in layer.weights:
            values = keras.ops.convert_to_numpy(weight)
            is_variance = weight.name.endswith("variance")
            if not np.isfinite(values).all() or (is_variance and (values < 0).any()):
                raise ValueError(f"{weight.path} has values that are not finite{', or negative' * is_variance}")
