"""Builds a manifest from annotations: the rows of a table, or of a data set in another layout than the official one.

The facts of the data set (classes, majority class, size and colours of the images) are read from its files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from hirise_imb.data.archive import is_safe
from hirise_imb.data.dataset import SPLITS, ClassSet, DatasetSpec, ImageName, NameGrammar, NoSources, SourceColumn
from hirise_imb.data.images import MAX_SIDE, Format, read_formats
from hirise_imb.data.manifest import Manifest, check_splits, find_invisible, raise_mistakes
from hirise_imb.data.registry import DATASETS
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import is_file

FILE, LABEL, SPLIT, SOURCE = "file", "label", "split", "source"
REQUIRED = (FILE, LABEL, SPLIT)
"""Columns that annotations must have; `source` is optional."""

SPLIT_NAMES: Mapping[str, str] = {split: split for split in SPLITS} | {"valid": "val", "validation": "val"}
"""Names of splits in files, and the names used here."""

RESERVED = "all"
"""Not a name of a class: tables of results use it for the mean over the classes."""


@dataclass(frozen=True)
class Annotations:
    """The labelled images of a data set, as its files list them: nothing is checked yet."""

    path: Path
    """File or folder that lists them, which messages name."""
    folder: Path
    """Folder that the paths of the images start from."""
    table: pd.DataFrame
    """One row per image, all values strings; columns: file, label (name or id of the class), split and, unless the data
    set has none, source. Empty strings stand for missing values."""
    layout: str
    """Name of the layout."""
    class_names: Mapping[int, str] | None = None
    """Names of the classes by their ids, if the data set gives them."""


def build_manifest(annotations: Annotations) -> Manifest:
    """Checks annotations, and returns the manifest of their images with the specification derived from them.

    Raises:
        UserError: they contain mistakes; one message lists all of a kind.
    """
    table = annotations.table
    if missing := [column for column in REQUIRED if column not in table]:
        raise UserError(
            f"{annotations.path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}: it must have "
            f"{', '.join(REQUIRED)} and may have {SOURCE}."
        )
    if table.empty:
        raise UserError(f"{annotations.path} lists no images: add a row for each image.")
    files = [str(PurePosixPath(file)) if file else "" for file in table[FILE]]
    identity, images = _identify(files, table)
    class_of, names = _name_classes(annotations)
    raise_mistakes(annotations.path, list(_find_mistakes(annotations, files, images, class_of)))
    if len(names) < 2:
        raise UserError(f"{annotations.path} has a single class, {names[0]!r}: a classifier needs two or more.")

    rows = [
        (file, image.landmark, image.source, image.variant, class_of[label], SPLIT_NAMES[split], 1)
        for file, image, label, split in zip(files, images, table[LABEL], table[SPLIT], strict=True)
    ]
    columns = ["image", "landmark", "source", "variant", "label", "split", "copies"]
    sorted_table = pd.DataFrame(sorted(rows), columns=columns)
    check_splits(annotations.path, sorted_table, ClassSet(names))
    image_format = _common_format(annotations, sorted_table)
    spec = DatasetSpec(
        name=annotations.layout,
        title=annotations.path.stem,
        classes=ClassSet(names, _majority(names, sorted_table)),
        image_size=image_format.width,
        channels=image_format.channels or 0,
        identity=identity,
    )
    return Manifest(spec, annotations.folder, sorted_table)


def _identify(
    files: Sequence[str], table: pd.DataFrame
) -> tuple[NameGrammar | SourceColumn | NoSources, list[ImageName]]:
    """Returns where landmark and source of the images are found, and those of each image.

    They come from the column with sources or else, where all files are named as those of a data card, from the names:
    copies of the card's images in another layout, such as those of Mars-Bench, keep their sources and variants.
    """
    if SOURCE in table and bool((table[SOURCE] != "").any()):
        return SourceColumn(), [ImageName(file, source, "") for file, source in zip(files, table[SOURCE], strict=True)]
    for card in DATASETS.values():
        if isinstance(card.identity, NameGrammar):
            parsed = [card.identity.parse(PurePosixPath(file).name) for file in files]
            images = [image for image in parsed if image is not None]
            if len(images) == len(files):
                return card.identity, images
    return NoSources(), [ImageName(file, file, "") for file in files]


def _find_mistakes(
    annotations: Annotations, files: Sequence[str], images: Sequence[ImageName], class_of: Mapping[str, int]
) -> Iterator[str]:
    """Yields the mistakes of each row; it is compared with all rows before it."""
    table = annotations.table
    first_row: dict[str, int] = {}
    # The first value of each quantity of an owner: split of each source, label of each landmark.
    first_values: dict[tuple[str, str], str] = {}
    for row, (file, image, label, written) in enumerate(zip(files, images, table[LABEL], table[SPLIT], strict=True), 1):
        problem = _find_problem(annotations.folder, file)
        if not problem and (first := first_row.setdefault(file, row)) != row:
            problem = f"{file} occurs already in row {first}"
        if problem:
            yield f"row {row}: {problem}"
        if label not in class_of:
            yield f"row {row}: unknown class {label!r}" if label else f"row {row}: the label is empty"
        if written not in SPLIT_NAMES:
            yield f"row {row}: unknown split {written!r}, expected one of {', '.join(SPLIT_NAMES)}"
        elif not image.source and not problem:
            yield f"row {row}: the source is empty, but other rows have one"
        elif code := find_invisible(image.source):
            yield f"row {row}: the source {image.source!r} contains the invisible character {code}"
        elif not problem:
            split = SPLIT_NAMES[written]
            if (other := first_values.setdefault(("source", image.source), split)) != split:
                yield f"row {row}: source {image.source} is in split {split}, but in split {other} earlier"
            if (other := first_values.setdefault(("landmark", image.landmark), label)) != label:
                yield f"row {row}: landmark {image.landmark} has label {label!r}, but {other!r} earlier"


def _find_problem(folder: Path, file: str) -> str:
    """Returns what is wrong with the path of an image; empty if nothing is."""
    if not file:
        return "the file is empty"
    if not is_safe(file):
        return f"the path {file!r} leads outside the folder; write it relative to the folder, with `/`"
    if code := find_invisible(file):
        return f"the path {file!r} contains the invisible character {code}; rename the image"
    if not is_file(folder / file):
        return f"{file} is missing from {folder}"
    return ""


def _name_classes(annotations: Annotations) -> tuple[dict[str, int], tuple[str, ...]]:
    """Returns the class id of each label, and the names of the classes in the order of their ids.

    Labels are names of classes or integers. Where the data set gives no names, integers become `class 3`, in ascending
    order, and names are in alphabetical order.

    Raises:
        UserError: a name can't be used or occurs twice.
    """
    present = {label for label in annotations.table[LABEL] if label}
    by_id = annotations.class_names
    if by_id is None and all(is_class_id(label.removeprefix("-")) for label in present):
        # Negative numbers stand for images without a label; they are reported as unknown classes.
        by_id = {number: f"class {number}" for number in map(int, present) if number >= 0}
    names = tuple(sorted(present)) if by_id is None else tuple(by_id[number] for number in sorted(by_id))
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{annotations.path} gives the name {twice!r} to two classes: rename one of them.")
    if invisible := [name for name in names if find_invisible(name)]:
        raise UserError(
            f"{annotations.path} has the class {invisible[0]!r}, which contains the invisible character "
            f"{find_invisible(invisible[0])}: rename it."
        )
    if RESERVED in names:
        raise UserError(f"{annotations.path} has a class {RESERVED!r}, which reports use for the mean: rename it.")
    class_of = {name: place for place, name in enumerate(names)}
    if by_id is not None:
        ids = {number: place for place, number in enumerate(sorted(by_id))}
        class_of |= {label: ids[int(label)] for label in present if is_class_id(label) and int(label) in ids}
    return class_of, names


def is_class_id(label: str) -> bool:
    """Returns whether a label can be the id of a class: up to nine digits."""
    return re.fullmatch(r"[0-9]{1,9}", label) is not None


def _majority(names: tuple[str, ...], images: pd.DataFrame) -> str | None:
    """Returns the class of more than half of the training images, or None."""
    shares = images.loc[images["split"] == "train", "label"].value_counts(normalize=True)
    return names[int(shares.index[0])] if shares.iloc[0] > 0.5 else None


def _common_format(annotations: Annotations, images: pd.DataFrame) -> Format:
    """Returns the format that all images have.

    Raises:
        UserError: they differ, or the format can't be used.
    """
    formats = read_formats([annotations.folder / image for image in images["image"]])
    counts = Counter(found for found in formats if found is not None)
    most = counts.most_common(1)[0][0] if counts else None
    mistakes = [
        f"{image} is not a JPEG or PNG image"
        if found is None
        else f"{image} has {found}, but most images have {most}: all must have one size and mode"
        for image, found in zip(images["image"], formats, strict=True)
        if found is None or found != most
    ]
    raise_mistakes(annotations.path, mistakes)
    assert most is not None  # there are images, and all have been read
    if most.channels is None:
        raise UserError(
            f"The images of {annotations.path} have Pillow's mode {most.mode}: convert them to L (8-bit grey) or RGB."
        )
    if max(most.width, most.height) > MAX_SIDE:
        raise UserError(
            f"The images of {annotations.path} have {most.width} x {most.height} pixels: reduce them, or crop them to "
            f"landmarks, to at most {MAX_SIDE} x {MAX_SIDE}."
        )
    if most.width != most.height:
        raise UserError(
            f"The images of {annotations.path} have {most.width} x {most.height} pixels: crop or pad them to squares."
        )
    return most
