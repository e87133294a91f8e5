"""Reads and checks the text files of a data set: one table with a row for each image."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import (
    SPLITS,
    ClassSet,
    DataCard,
    DatasetSpec,
    ImageName,
    NameGrammar,
    NoSources,
    SourceColumn,
)
from hirise_imb.utils.errors import UserError, bullet_list
from hirise_imb.utils.files import check_regular_file

_MAX_SHOWN = 50
"""Number of mistakes that one message lists; the others are counted."""


@dataclass(frozen=True)
class Manifest:
    """The images of a data set, one row each, sorted by file name.

    Columns of `table`: image (file name, or path below `folder`), landmark, source, variant ('' for an original), label
    (class id), split, copies (number of lines in the split file; more than one is the official up-sampling).
    """

    spec: DatasetSpec
    folder: Path
    table: pd.DataFrame

    def split(self, name: str) -> pd.DataFrame:
        """Returns all images of one split; the index is the row number in `table`."""
        return self.table[self.table["split"] == name]

    def canonical_images(self, split: str) -> pd.DataFrame:
        """Returns the canonical image of each landmark: the original, or the first available variant if it is missing.

        Scores are computed on these, since the variants of a landmark are not independent evidence.
        """
        order = {variant: rank for rank, variant in enumerate(("", *self.spec.identity.variants))}
        images = self.split(split)
        ranked = images.assign(rank=images["variant"].map(order)).sort_values(["landmark", "rank"])
        return images.loc[ranked.drop_duplicates("landmark").index.sort_values()]

    def landmark_counts(self, split: str) -> NDArray[np.int64]:
        """Returns the number of landmarks of each class, shape (n_classes,)."""
        labels = self.split(split).drop_duplicates("landmark")["label"]
        return np.bincount(labels, minlength=len(self.spec.classes))

    def path(self, image: str) -> Path:
        """Returns the path of an image file."""
        return self.folder / image

    def summary(self) -> pd.DataFrame:
        """Returns counts by split and class: columns split, label, class, sources, landmarks, images and rows."""
        classes = self.spec.classes
        groups = self.table.groupby(["split", "label"])
        counts = groups.agg(
            sources=("source", "nunique"),
            landmarks=("landmark", "nunique"),
            images=("image", "size"),
            rows=("copies", "sum"),
        )
        index = pd.MultiIndex.from_product([SPLITS, range(len(classes))], names=["split", "label"])
        summary = counts.reindex(index, fill_value=0).reset_index()
        summary.insert(2, "class", [classes[label] for label in summary["label"]])
        return summary

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, labels, splits, copies and sources; it does not cover the content of the images."""
        columns = ["image", "label", "split", "copies"]
        if not isinstance(self.spec.identity, NameGrammar):  # otherwise the name of an image includes its source
            columns.append("source")
        text = self.table[columns].to_csv(index=False, lineterminator="\n")
        if not isinstance(self.spec, DataCard):  # the name of a card stands for its classes
            text += "\n".join([*self.spec.classes, str(self.spec.classes.majority)])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def has_sources(self) -> bool:
        """Whether the data set names the sources of its images; otherwise each image is its own."""
        return not isinstance(self.spec.identity, NoSources)


def read_manifest(data_folder: Path, spec: DataCard) -> Manifest:
    """Reads and checks the text files in `data_folder`.

    Raises:
        UserError: a file is missing or contains mistakes; one message lists all mistakes of that file.
    """
    layout = spec.layout
    _check_classes(data_folder / layout.class_file, spec)
    labels = read_label_file(data_folder / layout.label_file, spec.classes)
    table = _read_split(data_folder / layout.split_file, labels, spec)
    folder = data_folder / layout.image_folder
    _check_files(folder, table, layout.split_file)
    check_splits(data_folder / layout.split_file, table, spec.classes)
    return Manifest(spec, folder, table)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns the non-empty lines, without blanks around them, with their numbers, counted from 1."""
    check_regular_file(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows programs begin a text file with a byte-order mark
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: name a folder or zip in the official layout.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): fetch or import the data again.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): fetch or import the data again.") from error
    # Not splitlines, which also ends lines at characters that editors and the unpacking of zips do not end them at.
    lines = enumerate(io.StringIO(text, newline=None), 1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]


def raise_mistakes(path: Path, mistakes: list[str]) -> None:
    """Raises a UserError that lists the mistakes of a file, if there are any."""
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        listing = bullet_list(mistakes, _MAX_SHOWN)
        raise UserError(f"{path} contains {count}; fix the file or import the data again:{listing}")


def find_invisible(name: str) -> str:
    """Returns the code of the first control or invisible character of a name, such as `U+202E`; empty if it has none.

    Such a name can't be told from others, and can change what a terminal or a page shows.
    """
    hidden = (char for char in name if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    return next((f"U+{ord(char):04X}" for char in hidden), "")


def _check_classes(path: Path, spec: DataCard) -> None:
    expected = [f"{number},{name}" for number, name in enumerate(spec.classes)]
    lines = _lines(path)
    mistakes = [
        f"line {number} is `{line}`, expected `{expected_line}`"
        for (number, line), expected_line in zip(lines, expected, strict=False)
        if line != expected_line
    ]
    mistakes += [f"unexpected line {number}: `{line}`" for number, line in lines[len(expected) :]]
    mistakes += [f"missing line: `{line}`" for line in expected[len(lines) :]]
    if mistakes:
        raise UserError(
            f"{path} does not list the classes of {spec.name}; fix the file, or choose data of this data set:"
            f"{bullet_list(mistakes, _MAX_SHOWN)}"
        )


def _parse_class_id(text: str, classes: ClassSet) -> int | None:
    # Compared as text, so that "01", "+1" and digits of other scripts are refused.
    return int(text) if text in map(str, range(len(classes))) else None


def read_label_file(path: Path, classes: ClassSet) -> dict[str, int]:
    """Returns class ids by file name, from lines `filename class_id`.

    Raises:
        UserError: the file is missing or contains mistakes.
    """
    labels: dict[str, int] = {}
    mistakes = []
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 2:
            mistakes.append(f"line {number}: expected `filename class_id`, found {line!r}")
        elif (label := _parse_class_id(fields[1], classes)) is None:
            mistakes.append(f"line {number}: unknown class id {fields[1]!r}")
        elif labels.setdefault(fields[0], label) != label:
            mistakes.append(f"line {number}: {fields[0]} has class {label}, but class {labels[fields[0]]} earlier")
    raise_mistakes(path, mistakes)
    return labels


def _parse_name(fields: list[str], spec: DataCard) -> ImageName | None:
    """Returns landmark and source of the image in a line of the split file, or None if its name has another form."""
    if isinstance(spec.identity, SourceColumn):
        return ImageName(landmark=fields[0], source=fields[3], variant="")
    return spec.identity.parse(fields[0])


def _line_mistakes(fields: list[str], line: str, spec: DataCard) -> list[str]:
    """Returns the mistakes that show in one line without looking at the others."""
    by_column = isinstance(spec.identity, SourceColumn)
    if len(fields) != (4 if by_column else 3):
        return [f"expected `filename class_id set{' source' if by_column else ''}`, found {line!r}"]
    mistakes = []
    if isinstance(spec.identity, SourceColumn):
        if code := find_invisible(fields[0] + fields[3]):
            names = f"file name {fields[0]!r} or source {fields[3]!r}"
            mistakes.append(f"the {names} contains the invisible character {code}")
    elif spec.identity.parse(fields[0]) is None:
        mistakes.append(f"file name {fields[0]!r} is not {spec.identity.form}")
    if _parse_class_id(fields[1], spec.classes) is None:
        mistakes.append(f"unknown class id {fields[1]!r}")
    if fields[2] not in SPLITS:
        mistakes.append(f"unknown set name {fields[2]!r}, expected one of {', '.join(SPLITS)}")
    return mistakes


def _read_split(path: Path, labels: dict[str, int], spec: DataCard) -> pd.DataFrame:
    """Reads the table of a `Manifest`; each line is checked against all lines before it."""
    classes = spec.classes
    mistakes: list[str] = []
    copies: Counter[str] = Counter()
    images: dict[str, tuple[ImageName, str, int]] = {}
    # The first value of each quantity of an owner: class and set of each image and landmark, source of each image, and
    # set of each source.
    first_values: dict[tuple[str, str], str] = {}
    for number, line in _lines(path):
        fields = line.split()
        line_mistakes = _line_mistakes(fields, line, spec)
        name = None if line_mistakes else _parse_name(fields, spec)
        if name is not None:
            image, label, split = fields[:3]
            claims = {
                ("class", image): classes[int(label)],
                ("class", name.landmark): classes[int(label)],
                ("source", image): name.source,
                ("set", image): split,
                ("set", name.landmark): split,
                ("set", name.source): split,
            }
            # Only the first contradiction is reported: a file in two sets contradicts its landmark and source as well.
            for (quantity, owner), value in claims.items():
                if (first := first_values.setdefault((quantity, owner), value)) != value:
                    line_mistakes.append(f"{owner} has {quantity} {value!r}, but {quantity} {first!r} earlier")
                    break
            if not line_mistakes and labels.get(image) != int(label):
                listed_label = labels.get(image, "no class")
                line_mistakes.append(f"{image} has class {label}, but {listed_label} in {spec.layout.label_file}")
            copies[image] += 1
            images[image] = (name, split, int(label))
        mistakes += [f"line {number}: {mistake}" for mistake in line_mistakes]
    raise_mistakes(path, mistakes)
    rows = [
        (image, name.landmark, name.source, name.variant, label, split, copies[image])
        for image, (name, split, label) in sorted(images.items())
    ]
    return pd.DataFrame(rows, columns=["image", "landmark", "source", "variant", "label", "split", "copies"])


def _check_files(folder: Path, table: pd.DataFrame, split_file: str) -> None:
    if not folder.is_dir():
        raise UserError(f"The image folder {folder} is missing: import the complete archive again.")
    present = {entry.name for entry in folder.iterdir()}
    missing = [image for image in table["image"] if image not in present]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(table)} images named in {split_file} are missing from {folder} "
            f"(first: {', '.join(missing[:5])}): import the data again, or remove their lines."
        )


def check_splits(path: Path, table: pd.DataFrame, classes: ClassSet) -> None:
    """Checks that every split has images and that every class has something to train on.

    Raises:
        UserError: otherwise; `path` is the file that lists the images.
    """
    present = set(table["split"])
    mistakes = [f"set {split!r} is empty" for split in SPLITS if split not in present]
    if "train" in present:
        trained = set(table.loc[table["split"] == "train", "label"])
        mistakes += [f"class {name!r} has no training landmark" for k, name in enumerate(classes) if k not in trained]
    raise_mistakes(path, mistakes)
