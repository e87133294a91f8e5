"""Plans the landmarks of the sample, their variants and rows, and writes the files."""

from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.hirise import HIRISE, VARIANTS
from hirise_imb.data.synthetic.scene import Pixels, Scene, Source
from hirise_imb.data.synthetic.terrain import KINDS, TERRAINS

VERSION: int = 1
"""Incremented whenever the same seed gives other bytes."""

# How many landmarks and home sources a class has, by class id. Other is 81 % of every split, and occurs everywhere;
# craters occur in the homes of other too; the remaining classes in their homes alone.
_LANDMARKS = {
    "train": (503, 40, 14, 22, 14, 7, 13, 8),
    "val": (166, 12, 4, 7, 4, 4, 4, 4),
    "test": (405, 30, 12, 16, 9, 7, 11, 10),
}
_HOMES = {"train": (12, 6, 3, 4, 2, 3, 2, 2), "val": (4, 1, 1, 2, 1, 1, 1, 1), "test": (9, 5, 2, 3, 1, 2, 1, 1)}
# The numbers of variants that a landmark may get, and the mean number of repeated rows of a train or val image.
_VARIANTS = {"train": (0, 1, 1, 2), "val": (0, 1), "test": (0,)}
_COPIES = (0.0, 0.2, 0.3, 0.15, 0.2, 0.6, 0.5, 0.7)


def _plan(seed: int) -> Iterator[tuple[str, Source, int, str]]:
    """Yields name, source, class and split of every landmark, source by source."""
    rng = default_rng(seed)
    orbits = iter(rng.choice(np.arange(1900, 60000), sum(map(sum, _HOMES.values())), replace=False).tolist())
    for split in SPLITS:
        homes = [label for label, count in enumerate(_HOMES[split]) for _ in range(count)]
        for home, counts in zip(homes, _counts(rng, split, homes), strict=True):
            source = Source(rng, next(orbits), home, len(TERRAINS))
            labels = rng.permutation(np.repeat(np.arange(len(HIRISE.classes)), counts)).tolist()
            numbers = np.sort(rng.choice(2 * len(labels) + 20, len(labels), replace=False)).tolist()
            for label, number in zip(labels, numbers, strict=True):
                yield f"{source.name}_RED-{number:04d}", source, label, split


def _counts(rng: Generator, split: str, homes: list[int]) -> NDArray[np.int64]:
    """Draws the number of landmarks of each source (row) and class (column), one each at least if there are enough."""
    counts = np.zeros((len(homes), len(HIRISE.classes)), np.int64)
    for label, count in enumerate(_LANDMARKS[split]):
        hosts = [i for i, home in enumerate(homes) if label in (0, home) or (label == 1 and home == 0)]
        each = int(count >= len(hosts))
        counts[hosts, label] = each + rng.multinomial(count - each * len(hosts), rng.dirichlet([1.3] * len(hosts)))
    return counts


def _draw(source: Source, label: int, rng: Generator) -> Pixels:
    """Draws one original. Its ground, for `other`, is one or two of the kinds that its source shows, seldom another."""
    scene, kinds = Scene(source, rng), rng.integers(len(KINDS[label]), size=1)
    if label == 0 and not scene.chance(0.08):
        kinds = rng.choice(source.terrains, rng.integers(1, 3), replace=False)
    for kind in kinds.tolist():
        KINDS[label][kind](scene)
    return scene.pixels()


def _vary(pixels: Pixels, variant: str, rng: Generator) -> Pixels:
    """Returns one of the official variants; rotations are clockwise."""
    if variant == "brt":
        return np.asarray(np.clip(pixels * rng.uniform(0.5, 1.5), 0, 255), np.uint8)
    if variant in ("fh", "fv"):
        return np.flip(pixels, 1 if variant == "fh" else 0)
    return np.asarray(np.rot90(pixels, -(int(variant[1:]) // 90)))


def _images(name: str, original: Pixels, split: str, rng: Generator) -> Iterator[tuple[str, Pixels]]:
    """Yields a landmark's files: the original and, except in the test split, some of its variants."""
    yield f"{name}.jpg", original
    for variant in rng.choice(VARIANTS, rng.choice(_VARIANTS[split]), replace=False).tolist():
        yield f"{name}-{variant}.jpg", _vary(original, variant, rng)


def draw_originals(n: int, seed: int = 0) -> Pixels:
    """Draws landmarks of each class in turn, every one from a source of its own, shape (n, rows, columns)."""
    rng = default_rng(seed)
    labels = [number % len(HIRISE.classes) for number in range(n)]
    return np.stack([_draw(Source(rng, 1900 + i, label, len(TERRAINS)), label, rng) for i, label in enumerate(labels)])


def write(folder: Path, seed: int = 0) -> Path:
    """Writes the sample under `folder` as folder/hirise-map-proj-v3_2/... and returns that inner folder."""
    root = folder / "hirise-map-proj-v3_2"
    images = root / HIRISE.layout.image_folder
    images.mkdir(parents=True, exist_ok=True)
    labels, rows = [], []
    for name, source, label, split in _plan(seed):
        rng = default_rng(
            (seed, crc32(name.encode()))
        )  # one for each landmark, so that it does not depend on the others
        for file, pixels in _images(name, _draw(source, label, rng), split, rng):
            Image.fromarray(pixels).save(images / file, "JPEG", quality=92)
            labels.append(f"{file} {label}\n")
            rows += [f"{file} {label} {split}\n"] * (1 + rng.poisson(_COPIES[label] if split != "test" else 0))
    for table, lines in (
        (HIRISE.layout.label_file, sorted(labels)),
        (HIRISE.layout.split_file, rows),
        (HIRISE.layout.class_file, [f"{label},{name}\n" for label, name in enumerate(HIRISE.classes)]),
    ):
        (root / table).write_text("".join(lines), encoding="utf-8", newline="\n")
    return root
