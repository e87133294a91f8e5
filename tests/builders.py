"""Small inputs that several test files build on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hypothesis import settings

from hirise_imb.data.dataset import SPLITS, ClassSet, DataCard, ImageName, Layout, NameGrammar, SourceColumn
from hirise_imb.data.hirise import HIRISE
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.metrics.classification import Predictions

CLASSES = HIRISE.classes.names
LABEL_FILE, SPLIT_FILE, CLASS_FILE = HIRISE.layout.files
IMAGE_FOLDER = HIRISE.layout.image_folder

SOURCES = dict(zip(SPLITS, ("ESP_000001_1000", "ESP_000002_1000", "PSP_000003_1000"), strict=True))
CLASS_LINES = tuple(f"{k},{name}" for k, name in enumerate(CLASSES))

MINERALS = DataCard(
    name="minerals",
    title="Three minerals in colour",
    classes=ClassSet(("dust", "olivine", "pyroxene"), majority="dust"),
    image_size=64,
    channels=3,
    identity=SourceColumn(),
    layout=Layout("labels.txt", "split.txt", "classes.csv", "images"),
    citation="",
    licence="",
)
"""A data set that differs from HiRISE in everything: colour, three classes, sources in a column."""

quick = settings(deadline=None, max_examples=40)
"""For properties: a time limit for each example would fail on a busy machine."""


def image(source: str, number: int, variant: str = "") -> str:
    """A file name inside the grammar."""
    return f"{source}_RED-{number:04}{'-' if variant else ''}{variant}.jpg"


def parse_name(file_name: str) -> ImageName | None:
    """The parts of a file name of the HiRISE grammar."""
    assert isinstance(HIRISE.identity, NameGrammar)
    return HIRISE.identity.parse(file_name)


def valid_lines() -> list[str]:
    """A split file with one landmark of each class in each split."""
    return [f"{image(SOURCES[split], k)} {k} {split}" for split in SPLITS for k in range(len(CLASSES))]


def write_data(
    folder: Path,
    lines: Iterable[str],
    *,
    labels: Iterable[str] | None = None,
    images: Iterable[str] | None = None,
    classes: Iterable[str] | None = None,
    spec: DataCard = HIRISE,
) -> Path:
    """Writes a data folder with these lines in the split file, whose images are empty: a manifest reads only names.

    Labels and images are those of the first valid line of each file, and classes those of the data set, unless given.
    """
    lines, layout = list(lines), spec.layout
    n_fields, class_ids = 4 if isinstance(spec.identity, SourceColumn) else 3, set(map(str, range(len(spec.classes))))
    valid = [words for line in reversed(lines) if len(words := line.split()) == n_fields and words[1] in class_ids]
    first = {words[0]: words[1] for words in valid}
    labels = [f"{name} {label}" for name, label in first.items()] if labels is None else labels
    images = first if images is None else images
    classes = [f"{label},{name}" for label, name in enumerate(spec.classes)] if classes is None else classes
    (folder / layout.image_folder).mkdir(parents=True, exist_ok=True)
    for name in images:
        (folder / layout.image_folder / name).touch()
    for name, content in ((layout.split_file, lines), (layout.label_file, labels), (layout.class_file, classes)):
        (folder / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return folder


def as_landmarks(
    features: np.ndarray, labels: np.ndarray, sources: np.ndarray, classes: ClassSet = HIRISE.classes
) -> TrainingFeatures:
    """Training images with these features; sources may be names."""
    return TrainingFeatures(features, labels, np.unique(sources, return_inverse=True)[1], classes)


def predict(images: Iterable[str], predicted: Iterable[int], confidence: float = 0.9) -> Predictions:
    """Predictions of these classes, each with the same confidence, the rest spread evenly."""
    chosen = np.eye(len(CLASSES))[list(predicted)]
    rest = (1 - confidence) / (len(CLASSES) - 1)
    return Predictions(tuple(images), (rest + (confidence - rest) * chosen).astype(np.float32))


def names(folder: Path) -> list[str]:
    """What a folder holds, but for the locks of those who work on it."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
