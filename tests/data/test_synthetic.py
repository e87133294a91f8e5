"""What `synthetic.write` promises to everything that reads the sample."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from builders import CLASSES, parse_name
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.hirise import HIRISE, VARIANTS
from hirise_imb.data.synthetic import write

IMAGES = "map-proj-v3_2"
LABELS = "labels-map-proj_v3_2.txt"
SPLIT_ROWS = "labels-map-proj_v3_2_train_val_test.txt"
CLASS_MAP = "landmarks_map-proj-v3_2_classmap.csv"
JPEG_ERROR = 5.0
"""Mean absolute difference, in grey levels, that coding the same picture in two orientations stays below."""


@pytest.fixture(scope="module")
def sample(whole_sample: Path) -> Path:
    return whole_sample


@pytest.fixture(scope="module")
def labels(sample: Path) -> dict[str, int]:
    rows = [line.split(" ") for line in (sample / LABELS).read_text().splitlines()]
    assert len({name for name, _ in rows}) == len(rows), "the label file names a file twice"
    return {name: int(label) for name, label in rows}


@pytest.fixture(scope="module")
def rows(sample: Path) -> list[tuple[str, int, str]]:
    lines = [line.split(" ") for line in (sample / SPLIT_ROWS).read_text().splitlines()]
    return [(name, int(label), split) for name, label, split in lines]


def pixels(sample: Path, name: str) -> NDArray[np.float64]:
    with Image.open(sample / IMAGES / name) as image:
        return np.asarray(image, float)


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def source_of(name: str) -> str:
    parts = parse_name(name)
    assert parts is not None, name
    return parts.source


def landmark_of(name: str) -> str:
    parts = parse_name(name)
    assert parts is not None, name
    return parts.landmark


def variant_of(name: str) -> str:
    parts = parse_name(name)
    assert parts is not None, name
    return parts.variant


def variants(labels: dict[str, int], variant: str) -> list[tuple[str, str]]:
    """Pairs of original and variant."""
    return [(f"{landmark_of(name)}.jpg", name) for name in labels if variant_of(name) == variant]


def test_the_layout_is_the_official_one(sample: Path) -> None:
    assert sample.name == "hirise-map-proj-v3_2"
    assert [path.name for path in sample.parent.iterdir()] == [sample.name]
    assert {path.name for path in sample.iterdir()} == {IMAGES, LABELS, SPLIT_ROWS, CLASS_MAP}


def test_the_class_map_names_the_official_classes(sample: Path) -> None:
    assert (sample / CLASS_MAP).read_text().splitlines() == [f"{i},{name}" for i, name in enumerate(CLASSES)]


def test_every_file_is_labelled_and_named_by_the_grammar(sample: Path, labels: dict[str, int]) -> None:
    files = {path.name for path in (sample / IMAGES).iterdir()}
    assert files == set(labels)
    assert [name for name in files if parse_name(name) is None] == []
    assert 1800 <= len(files) <= 2300


def test_the_split_file_agrees_with_the_label_file(labels: dict[str, int], rows: list[tuple[str, int, str]]) -> None:
    assert {(name, label) for name, label, _ in rows} == set(labels.items())
    assert {split for _, _, split in rows} == set(SPLITS)
    assert len({(name, split) for name, _, split in rows}) == len(labels)


def test_no_source_is_in_two_splits(rows: list[tuple[str, int, str]]) -> None:
    splits = defaultdict(set)
    for name, _, split in rows:
        splits[source_of(name)].add(split)
    assert [source for source, where in splits.items() if len(where) > 1] == []
    counts = Counter(next(iter(where)) for where in splits.values())
    assert 25 <= counts["train"] <= 40
    assert 10 <= counts["val"] <= 14
    assert 20 <= counts["test"] <= 29


@pytest.mark.parametrize("split", SPLITS)
def test_other_is_four_fifths_of_every_split(split: str, rows: list[tuple[str, int, str]]) -> None:
    images = {name: label for name, label, where in rows if where == split}
    landmarks = {landmark_of(name): label for name, label in images.items()}
    for group in (images, landmarks):
        assert 0.78 <= list(group.values()).count(0) / len(group) <= 0.84


@pytest.mark.parametrize(("split", "least"), [("train", 7), ("val", 4), ("test", 6)])
def test_every_class_has_landmarks_in_every_split(split: str, least: int, rows: list[tuple[str, int, str]]) -> None:
    landmarks = {(landmark_of(name), label) for name, label, where in rows if where == split}
    counts = Counter(label for _, label in landmarks)
    assert set(counts) == set(range(len(CLASSES)))
    assert min(counts.values()) >= least


def test_rare_classes_come_from_few_sources_and_craters_from_many(rows: list[tuple[str, int, str]]) -> None:
    sources = defaultdict(set)
    for name, label, split in rows:
        sources[split, label].add(source_of(name))
    for split in SPLITS:
        assert all(len(sources[split, CLASSES.index(name)]) <= 3 for name in ("bright dune", "swiss cheese", "spider"))
    assert len(sources["train", 1]) >= 10


def test_a_landmark_keeps_its_class_and_its_original(labels: dict[str, int]) -> None:
    classes = defaultdict(set)
    for name, label in labels.items():
        classes[landmark_of(name)].add(label)
    assert all(len(found) == 1 for found in classes.values())
    assert all(f"{landmark}.jpg" in labels for landmark in classes)


def test_repeated_rows_up_sample_rare_classes_outside_the_test_split(rows: list[tuple[str, int, str]]) -> None:
    repeated = {row: count for row, count in Counter(rows).items() if count > 1}
    assert {label for _, label, _ in repeated} <= set(HIRISE.classes.rare_ids)
    assert {split for _, _, split in repeated} == {"train", "val"}
    assert max(repeated.values()) <= 8


def test_test_images_are_originals_and_the_others_have_variants(rows: list[tuple[str, int, str]]) -> None:
    found = defaultdict(set)
    for name, _, split in rows:
        found[split].add(variant_of(name))
    assert found["test"] == {""}
    assert found["train"] == found["val"] == {"", *VARIANTS}


def test_images_are_grey_squares_that_show_something(sample: Path, labels: dict[str, int]) -> None:
    for name in labels:
        with Image.open(sample / IMAGES / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "L", (227, 227)), name
            grey = np.asarray(image)
        assert grey[grey > 8].std() > 1.5, name


def test_some_crops_have_a_black_border_and_most_have_none(sample: Path, labels: dict[str, int]) -> None:
    originals = [name for name in labels if variant_of(name) == ""]
    black = [float((pixels(sample, name) <= 2).mean()) for name in originals]
    assert 0.05 < np.mean([share > 0.02 for share in black]) < 0.4
    assert max(black) < 0.6


@pytest.mark.parametrize(
    ("variant", "transpose"),
    [
        ("r90", Image.Transpose.ROTATE_270),  # Pillow turns counter-clockwise
        ("r180", Image.Transpose.ROTATE_180),
        ("r270", Image.Transpose.ROTATE_90),
        ("fh", Image.Transpose.FLIP_LEFT_RIGHT),
        ("fv", Image.Transpose.FLIP_TOP_BOTTOM),
    ],
)
def test_turned_variants_show_the_original_turned(
    variant: str, transpose: Image.Transpose, sample: Path, labels: dict[str, int]
) -> None:
    pairs = variants(labels, variant)
    assert len(pairs) > 20
    for original, turned in pairs:
        with Image.open(sample / IMAGES / original) as image:
            expected = np.asarray(image.transpose(transpose), float)
        assert np.abs(expected - pixels(sample, turned)).mean() < JPEG_ERROR, turned


def test_turns_differ_by_far_more_than_the_coding_error(sample: Path, labels: dict[str, int]) -> None:
    """Guards the test above: the wrong turn would not pass it."""
    unturned = [np.abs(pixels(sample, a) - pixels(sample, b)).mean() for a, b in variants(labels, "r90")]
    assert np.median(unturned) > 2 * JPEG_ERROR


def test_brightness_variants_scale_the_original(sample: Path, labels: dict[str, int]) -> None:
    ratios = []
    for original, changed in variants(labels, "brt"):
        before, after = pixels(sample, original), pixels(sample, changed)
        unclipped = (before > 20) & (before < 150)
        ratios.append(float(np.median(after[unclipped] / before[unclipped])))
        assert np.abs(after - np.clip(before * ratios[-1], 0, 255)).mean() < JPEG_ERROR, changed
    assert min(ratios) < 0.8
    assert max(ratios) > 1.2


def test_sources_differ_in_brightness_more_than_crops_of_one_source(sample: Path, labels: dict[str, int]) -> None:
    levels = defaultdict(list)
    for name, label in labels.items():
        if label == 0 and variant_of(name) == "":
            levels[source_of(name)].append(float(np.median(pixels(sample, name))))
    groups = [values for values in levels.values() if len(values) >= 8]
    assert len(groups) >= 20
    assert np.std([np.median(values) for values in groups]) > np.median([np.std(values) for values in groups])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(sample: Path, tmp_path: Path) -> None:
    first = digests(sample)
    assert digests(write(tmp_path / "again", seed=0)) == first
    other = write(tmp_path / "other", seed=1)
    assert set(first.values()) & set(digests(other).values()) == {first[CLASS_MAP]}
    assert {path.name for path in (sample / IMAGES).iterdir()}.isdisjoint(
        path.name for path in (other / IMAGES).iterdir()
    )
