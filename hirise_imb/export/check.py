"""The check of an export: its own runtime must give the probabilities that the model gives in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import SUFFIXES, decode_image
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.export.formats import Runtime
from hirise_imb.utils.errors import UserError

Pixels = NDArray[np.uint8]

N_IMAGES = 64
"""Number of images that an export is checked on."""
TOLERANCE = 1e-3
"""Largest difference in a probability."""

_BATCH = 48
"""Images in a batch. It does not divide `N_IMAGES`, so that batches of two sizes are tested."""
_CERTAIN = 0.99
_MIN_UNCERTAIN = 8
"""Images whose confidence is above the first number show few errors; of others, at least the second are wanted."""


@dataclass(frozen=True)
class CheckImages:
    """The images that an export is checked on."""

    pixels: Pixels
    """Shape (n, rows, columns, channels)."""
    description: str
    """What they are, in the plural."""

    @classmethod
    def of(cls, shape: tuple[int, int, int], folder: Path | None = None) -> CheckImages:
        """Returns images of a shape: of a folder, else synthetic landmarks if they have that shape, else random ones.

        Raises:
            UserError: the folder has no images, or one of them has another shape or can't be decoded.
        """
        if folder is not None:
            paths = _choose_evenly(sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()))
            if not paths:
                raise UserError(f"{folder} is not a folder with JPEG or PNG images: name another one with --images.")
            return cls(np.stack([decode_image(path, shape) for path in paths]), f"images of {folder}")
        if shape == HIRISE.image_shape:
            return cls(draw_originals(N_IMAGES).reshape(N_IMAGES, *shape), "synthetic landmarks")
        rng = default_rng(0)
        return cls(np.stack([_draw_random(shape, rng) for _ in range(N_IMAGES)]), "random images")


@dataclass(frozen=True)
class Comparison:
    """Probabilities of a runtime compared with those of the model in Keras."""

    images: int
    largest_difference: float
    """Largest absolute difference in a probability; NaN if a probability is."""
    uncertain: int
    """Number of images whose confidence is at most 0.99."""

    @property
    def passes(self) -> bool:
        """Whether the difference is tolerable."""
        return self.largest_difference <= TOLERANCE  # false for NaN

    @property
    def is_informative(self) -> bool:
        """Whether enough images have a confidence that an error would change."""
        return self.uncertain >= min(_MIN_UNCERTAIN, self.images)


def compare(runtime: Runtime, pixels: Pixels, expected: NDArray[np.floating]) -> Comparison:
    """Runs an export, and compares it with the calibrated probabilities of the model.

    Args:
        runtime: the export, loaded.
        pixels: images, shape (n, rows, columns, channels).
        expected: shape (n, n_classes).

    Raises:
        ValueError: the export gives another number of probabilities.
    """
    starts = range(0, len(pixels), _BATCH)
    actual = np.concatenate([runtime(pixels[start : start + _BATCH].astype(np.float32)) for start in starts])
    if actual.shape != expected.shape:
        raise ValueError(f"the export gives probabilities of shape {actual.shape} instead of {expected.shape}")
    return Comparison(
        images=len(pixels),
        largest_difference=float(np.abs(actual - expected).max()),
        uncertain=int((expected.max(axis=1) <= _CERTAIN).sum()),
    )


def _choose_evenly(paths: Sequence[Path]) -> list[Path]:
    """Returns at most `N_IMAGES` of the paths, at equal distances."""
    positions = np.linspace(0, len(paths) - 1, min(N_IMAGES, len(paths))).round().astype(int)
    return [paths[position] for position in positions]


def _draw_random(shape: tuple[int, int, int], rng: Generator) -> Pixels:
    """Draws a smooth image with noise, of random brightness and contrast; some have a black border."""
    rows, columns, channels = shape
    cells = rng.normal(size=(rng.integers(2, 24), rng.integers(2, 24), channels)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(cells[..., channel]).resize((columns, rows), Image.Resampling.BICUBIC))
        for channel in range(channels)
    ]
    noise = rng.uniform(0, 0.3) * rng.normal(size=shape)
    image = rng.uniform(40, 215) + rng.uniform(10, 60) * (np.stack(planes, axis=-1) + noise)
    image[: rng.choice([0, rows // 4])] = 0
    return np.asarray(np.clip(image, 0, 255), np.uint8)
