"""Small inputs that several test files build on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hypothesis import settings

from hirise_imb.data.hirise import CLASS_FILE, CLASSES, HIRISE, IMAGE_FOLDER, LABEL_FILE, SPLIT_FILE, SPLITS
from hirise_imb.features.landmarks import LandmarkFeatures
from hirise_imb.metrics.classification import Predictions

SOURCES = dict(zip(SPLITS, ("ESP_000001_1000", "ESP_000002_1000", "PSP_000003_1000"), strict=True))
CLASS_IDS = tuple(map(str, range(len(CLASSES))))
CLASS_LINES = tuple(f"{k},{name}" for k, name in enumerate(CLASSES))

quick = settings(deadline=None, max_examples=40)
"""For properties: a time limit for each example would fail on a busy machine."""


def image(source: str, number: int, variant: str = "") -> str:
    """A file name inside the grammar."""
    return f"{source}_RED-{number:04}{'-' if variant else ''}{variant}.jpg"


def valid_lines() -> list[str]:
    """A split file with one landmark of each class in each split."""
    return [f"{image(SOURCES[split], k)} {k} {split}" for split in SPLITS for k in range(len(CLASSES))]


def write_data(
    folder: Path,
    lines: Iterable[str],
    *,
    labels: Iterable[str] | None = None,
    images: Iterable[str] | None = None,
    classes: Iterable[str] = CLASS_LINES,
) -> Path:
    """The official layout with these lines; labels and images follow the first right line of each file by default.

    The catalogue looks at names only, so the images are empty.
    """
    lines = list(lines)
    right = [words for line in reversed(lines) if len(words := line.split()) == 3 and words[1] in CLASS_IDS]
    first = {words[0]: words[1] for words in right}
    labels = [f"{name} {label}" for name, label in first.items()] if labels is None else labels
    images = first if images is None else images
    (folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    for name in images:
        (folder / IMAGE_FOLDER / name).touch()
    for name, content in ((SPLIT_FILE, lines), (LABEL_FILE, labels), (CLASS_FILE, classes)):
        (folder / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return folder


def as_landmarks(features: np.ndarray, labels: np.ndarray, sources: np.ndarray) -> LandmarkFeatures:
    """Landmarks of the eight classes; sources may be names."""
    return LandmarkFeatures(features, labels, np.unique(sources, return_inverse=True)[1], HIRISE.classes)


def predict(images: Iterable[str], predicted: Iterable[int], confidence: float = 0.9) -> Predictions:
    """Predictions of these classes, each with the same confidence, the rest spread evenly."""
    chosen = np.eye(len(CLASSES))[list(predicted)]
    rest = (1 - confidence) / (len(CLASSES) - 1)
    return Predictions(tuple(images), (rest + (confidence - rest) * chosen).astype(np.float32))


def names(folder: Path) -> list[str]:
    """What a folder holds, but for the locks of those who work on it."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
