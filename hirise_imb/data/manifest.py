"""The three official files, read into one checked table of images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.hirise import (
    CLASS_FILE,
    CLASSES,
    IMAGE_FOLDER,
    LABEL_FILE,
    SPLIT_FILE,
    SPLITS,
    VARIANTS,
    parse_name,
)
from hirise_imb.utils.errors import UserError, bullet_list

_SHOWN = 50
"""Mistakes listed in one message; the rest is counted."""


@dataclass(frozen=True)
class Manifest:
    """The images that the split file names, one row each, in the order of their names.

    Columns of `table`: image (file name), landmark, source, variant ('' for an original), label (class id), split,
    copies (lines of the split file; more than one is the official up-sampling).
    """

    folder: Path
    table: pd.DataFrame

    def split(self, name: str) -> pd.DataFrame:
        """All images of one split; the index is the row number in `table`."""
        return self.table[self.table["split"] == name]

    def canonical_images(self, split: str) -> pd.DataFrame:
        """One image a landmark: the original where it exists, else the first variant in the order of `VARIANTS`.

        Scores are taken on these, since the variants of a landmark are no independent evidence.
        """
        order = {variant: rank for rank, variant in enumerate(("", *VARIANTS))}
        images = self.split(split)
        first = images.assign(rank=images["variant"].map(order)).sort_values(["landmark", "rank"], kind="stable")
        return images.loc[first.drop_duplicates("landmark").index.sort_values()]

    def landmark_counts(self, split: str) -> NDArray[np.int64]:
        """Landmarks of each class, shape (8,)."""
        labels = self.split(split).drop_duplicates("landmark")["label"]
        return np.bincount(labels, minlength=len(CLASSES)).astype(np.int64)

    def path(self, image: str) -> Path:
        """Where the file of an image is."""
        return self.folder / image

    def summary(self) -> pd.DataFrame:
        """Class by split: sources, landmarks, images, rows. Columns split, label, class and those four."""
        groups = self.table.groupby(["split", "label"])
        counts = groups.agg(
            sources=("source", "nunique"),
            landmarks=("landmark", "nunique"),
            images=("image", "size"),
            rows=("copies", "sum"),
        )
        every = pd.MultiIndex.from_product([SPLITS, range(len(CLASSES))], names=["split", "label"])
        summary = counts.reindex(every, fill_value=0).reset_index()
        summary.insert(2, "class", [CLASSES[label] for label in summary["label"]])
        return summary

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, labels, splits and copies; the content of the images is not in it."""
        columns = self.table[["image", "label", "split", "copies"]]
        return hashlib.sha256(columns.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def read_manifest(data_folder: Path) -> Manifest:
    """Read and check the official files in `data_folder`.

    Raises:
        UserError: a file is missing or holds mistakes; one message lists all mistakes of that file.
    """
    _check_classes(data_folder / CLASS_FILE)
    labels = _read_labels(data_folder / LABEL_FILE)
    table = _read_split(data_folder / SPLIT_FILE, labels)
    folder = data_folder / IMAGE_FOLDER
    _check_files(folder, table)
    _check_splits(data_folder / SPLIT_FILE, table)
    return Manifest(folder, table)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: name a folder or zip in the official layout.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text (byte {error.start}): fetch or import the data again.") from error
    return ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _refuse(path: Path, mistakes: list[str]) -> None:
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UserError(f"{path} holds {count}; mend the file or import the data again:{bullet_list(mistakes, _SHOWN)}")


def _check_classes(path: Path) -> None:
    expected = [f"{number},{name}" for number, name in enumerate(CLASSES)]
    found = [line.strip() for _, line in _lines(path)]
    if found != expected:
        raise UserError(f"{path} names other classes than version 3.2: expected {expected}, found {found}.")


def _class_id(text: str) -> int | None:
    return int(text) if text in map(str, range(len(CLASSES))) else None


def _read_labels(path: Path) -> dict[str, int]:
    """File name to class id, from lines `filename class_id`."""
    labels: dict[str, int] = {}
    mistakes = []
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 2:
            mistakes.append(f"line {number}: expected `filename class_id`, found {line!r}")
        elif (label := _class_id(fields[1])) is None:
            mistakes.append(f"line {number}: unknown class id {fields[1]!r}")
        elif labels.setdefault(fields[0], label) != label:
            mistakes.append(f"line {number}: {fields[0]} has class {label}, and class {labels[fields[0]]} before")
    _refuse(path, mistakes)
    return labels


def _split_line_mistakes(fields: list[str], line: str) -> list[str]:
    """What is wrong with one line by itself."""
    if len(fields) != 3:
        return [f"expected `filename class_id set`, found {line!r}"]
    mistakes = []
    if parse_name(fields[0]) is None:
        mistakes.append(f"file name {fields[0]!r} is not <SOURCE>_RED-<NNNN>[-<variant>].jpg")
    if _class_id(fields[1]) is None:
        mistakes.append(f"unknown class id {fields[1]!r}")
    if fields[2] not in SPLITS:
        mistakes.append(f"unknown set name {fields[2]!r}, expected one of {', '.join(SPLITS)}")
    return mistakes


def _read_split(path: Path, labels: dict[str, int]) -> pd.DataFrame:
    """The table of a `Manifest`, from lines `filename class_id set`, each line checked against all before it."""
    mistakes: list[str] = []
    copies: Counter[str] = Counter()
    seen: dict[str, tuple[str, int]] = {}
    # Of each image its class and set, of each landmark and source its set.
    facts: dict[tuple[str, str], str] = {}
    for number, line in _lines(path):
        fields = line.split()
        wrong = _split_line_mistakes(fields, line)
        name = parse_name(fields[0])
        if not wrong and name is not None:
            image, label, split = fields
            claims = {
                ("class", image): CLASSES[int(label)],
                ("class", name.landmark): CLASSES[int(label)],
                ("set", image): split,
                ("set", name.landmark): split,
                ("set", name.source): split,
            }
            # A file in two sets drags its landmark and its source along: the first contradiction says enough.
            for (what, owner), value in claims.items():
                if (before := facts.setdefault((what, owner), value)) != value:
                    wrong.append(f"{owner} has {what} {value!r}, and {what} {before!r} before")
                    break
            if not wrong and labels.get(image) != int(label):
                wrong.append(f"{image} has class {label}, and {labels.get(image, 'no class')} in {LABEL_FILE}")
            copies[image] += 1
            seen[image] = (split, int(label))
        mistakes += [f"line {number}: {mistake}" for mistake in wrong]
    _refuse(path, mistakes)
    return _table(seen, copies)


def _table(seen: dict[str, tuple[str, int]], copies: Counter[str]) -> pd.DataFrame:
    rows = []
    for image in sorted(seen):
        name = parse_name(image)
        assert name is not None  # only names inside the grammar are in `seen`
        split, label = seen[image]
        rows.append((image, name.landmark, name.source, name.variant, label, split, copies[image]))
    return pd.DataFrame(rows, columns=["image", "landmark", "source", "variant", "label", "split", "copies"])


def _check_files(folder: Path, table: pd.DataFrame) -> None:
    if not folder.is_dir():
        raise UserError(f"The image folder {folder} is missing: import the whole archive again.")
    there = {entry.name for entry in folder.iterdir()}
    missing = [image for image in table["image"] if image not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(table)} images named in {SPLIT_FILE} are missing from {folder} "
            f"(first: {', '.join(missing[:5])}): import the data again, or remove their lines."
        )


def _check_splits(path: Path, table: pd.DataFrame) -> None:
    """See that every split has images and that every class can be learnt."""
    present = set(table["split"])
    mistakes = [f"set {split!r} is empty" for split in SPLITS if split not in present]
    if "train" in present:
        learnt = set(table.loc[table["split"] == "train", "label"])
        mistakes += [f"class {name!r} has no training landmark" for k, name in enumerate(CLASSES) if k not in learnt]
    _refuse(path, mistakes)
