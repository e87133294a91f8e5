"""A published table of precision, recall and F1 as printed: rounded figures, and the supports of the classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hirise_imb.utils.errors import UserError, bullet_list
from hirise_imb.utils.files import check_regular_file

METRICS = ("precision", "recall", "f1")

MOST_DECIMALS = 10
"""Most decimals of a figure that are used; no count of images needs more, and scaled figures must fit 64 bits."""

_NAMES = {"": "class", "label": "class", "f1-score": "f1", "f1_score": "f1", "f1 score": "f1"}
"""Other spellings of column names, such as scikit-learn's."""

_AVERAGES = ("accuracy", "micro avg", "macro avg", "weighted avg", "samples avg")
"""Rows of a scikit-learn report that are not classes."""

_LISTED_FAULTS = 10
"""Most faults that one message lists."""

_LONGEST_CELL = 200
"""Most characters of a name or a figure, which messages repeat."""

MOST_CLASSES = 150
"""Most classes of a table: the time of random pairings grows with their square, to minutes for more."""

_DIGITS = 20
"""Digits of a support that are read; a number with that many is too large, whatever follows."""

MOST_LABELS = 1_000_000
"""Largest test set that is accepted; beyond this, the sums would take minutes and gigabytes."""


@dataclass(frozen=True)
class Rounded:
    """A share as printed, in `units` of its last decimal."""

    units: int
    decimals: int

    @classmethod
    def read(cls, text: str, decimals: int | None = None) -> Rounded:
        """Reads a share from 0 to 1.

        Args:
            text: the share as printed, such as `0.840`; trailing zeros count as decimals.
            decimals: number of decimals that the share was printed with; by default those in the text.

        Raises:
            ValueError: the text is not such a share; the message continues a sentence that names it.
        """
        if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", text):
            raise ValueError("is not a number; give a share such as 0.840")
        whole, _, part = text.partition(".")
        if decimals is not None and len(part) > decimals:
            raise ValueError(f"has more than {decimals} decimals")
        given = len(part)
        units = int((whole or "0") + part)
        if units > 10**given:
            raise ValueError("is above 1; give shares, not percentages")
        if given > MOST_DECIMALS:
            return cls(round(units / 10 ** (given - MOST_DECIMALS)), MOST_DECIMALS)
        places = given if decimals is None else decimals
        return cls(units * 10 ** (places - given), places)

    @property
    def value(self) -> float:
        """The share as a number."""
        return float(self.units / 10**self.decimals)

    @property
    def scale(self) -> int:
        """Number of units of `low` and `high` in 1; these units are halves of the last decimal."""
        return 2 * int(10**self.decimals)

    @property
    def low(self) -> int:
        """Smallest share that is printed like this, times `scale`; closed, because ties may round either way."""
        return 2 * self.units - 1

    @property
    def high(self) -> int:
        """Largest share that is printed like this, times `scale`."""
        return 2 * self.units + 1

    def holds(self, low: float, high: float) -> bool:
        """Checks whether some share from `low` to `high` is printed like this, up to rounding errors of floats."""
        slack = 1e-12
        return low <= self.high / self.scale + slack and high >= self.low / self.scale - slack

    def __str__(self) -> str:
        """Returns the share as printed, with a digit before the point."""
        return f"{self.value:.{self.decimals}f}"


@dataclass(frozen=True)
class PublishedTable:
    """The classes in the order of the table, with their printed figures and their supports."""

    classes: tuple[str, ...]
    figures: Mapping[str, tuple[Rounded | None, ...]]
    """Printed figures by metric, one entry for each class; None where nothing was printed."""
    support: tuple[int, ...]
    """Number of labels of each class in the test set."""

    @property
    def decimals(self) -> tuple[int, int]:
        """Fewest and most decimals of any figure."""
        decimals = [figure.decimals for column in self.figures.values() for figure in column if figure is not None]
        return min(decimals, default=0), max(decimals, default=0)

    @property
    def total(self) -> int:
        """Number of images in the test set."""
        return sum(self.support)


def read(path: Path, supports: str | None = None, decimals: int | None = None) -> PublishedTable:
    """Reads a CSV file with the columns class, precision, recall, f1 (any of the three) and optionally support.

    Args:
        path: path of the file.
        supports: number of labels of each class in the order of the file, such as `1482,89`; None if the file has them.
        decimals: number of decimals that all figures were printed with, if a program has dropped trailing zeros; by
            default each figure is taken literally.

    Raises:
        UserError: the file or the supports are wrong; one message lists all faults.
    """
    if decimals is not None and not 0 <= decimals <= MOST_DECIMALS:
        raise UserError(f"The number of decimals is {decimals}: use one from 0 to {MOST_DECIMALS}.")
    rows = _rows(path)
    columns = set(rows[0])
    if strange := sorted(columns - {"class", *METRICS, "support"}):
        known = f"class, {', '.join(METRICS)}, support"
        raise UserError(f"{path} has a column {strange[0]!r}: rename or remove it; the known columns are {known}.")
    given = [metric for metric in METRICS if metric in columns]
    if "class" not in columns or not given:
        raise UserError(f"{path} needs a column `class` and one or more of {', '.join(METRICS)}.")
    if "support" in columns and supports is not None:
        raise UserError(f"{path} has a column `support`: leave out --supports, or remove the column.")
    if "support" not in columns and supports is None:
        raise UserError(f"{path} has no column `support`: give the test labels with --supports 1482,89,...")
    classes = [row["class"] for row in rows]
    faults = _class_faults(classes)
    figures: dict[str, tuple[Rounded | None, ...]] = {}
    for metric in METRICS:
        cells: list[Rounded | None] = []
        for row in rows:
            text = row.get(metric)
            try:
                cells.append(Rounded.read(text, decimals) if text else None)
            except ValueError as error:
                faults.append(f"the {metric} of {row['class']!r}, {text!r}, {error}")
        figures[metric] = tuple(cells)
    support = _supports(supports, classes, faults) if supports is not None else _column(rows, faults)
    if not faults and not 2 <= sum(support) <= MOST_LABELS:
        faults.append(f"the supports add up to {sum(support):,}; they must be 2 to {MOST_LABELS:,} together")
    if faults:
        raise UserError(f"{path} can't be used: {bullet_list(faults, _LISTED_FAULTS).strip()}.")
    return PublishedTable(tuple(classes), figures, tuple(support))


def _rows(path: Path) -> list[dict[str, str]]:
    check_regular_file(path)
    try:
        reader = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        lines = [(reader.line_num, line) for line in reader if any(line)]
    except FileNotFoundError as error:
        raise UserError(f"There is no table {path}: name a CSV file.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is not a CSV file in UTF-8 ({reason}): name another file.") from error
    if len(lines) < 3:
        raise UserError(f"{path} needs a line of column names and two or more classes.")
    header = [_NAMES.get(name.strip().lower(), name.strip().lower()) for name in lines[0][1]]
    for number, line in lines:
        if max(map(len, line)) > _LONGEST_CELL:
            raise UserError(f"{path} has a cell of more than {_LONGEST_CELL} characters in line {number}: shorten it.")
    if len(set(header)) < len(header):
        raise UserError(f"{path} names a column twice: {', '.join(header)}.")
    if len(lines) - 1 > MOST_CLASSES:
        raise UserError(
            f"{path} has {len(lines) - 1:,} classes, and a table may have up to {MOST_CLASSES}: merge classes of few "
            "labels."
        )
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise UserError(f"{path} has {len(line)} cells in line {number}, but {len(header)} columns: fix the line.")
    return [{name: cell.strip() for name, cell in zip(header, line, strict=True)} for _, line in lines[1:]]


def _class_faults(classes: Sequence[str]) -> list[str]:
    faults = ["a class has no name"] if "" in classes else []
    faults += [f"the class {name!r} appears twice" for name in dict.fromkeys(classes) if classes.count(name) > 1]
    averages = [name for name in classes if name.lower().replace("_", " ") in _AVERAGES]
    return faults + [f"{name!r} is not a class: remove the row, and give its figures as options" for name in averages]


def _supports(supports: str, classes: Sequence[str], faults: list[str]) -> list[int]:
    texts = [text.strip() for text in supports.split(",")]
    wrong = [text for text in texts if not text.isdecimal()]
    if wrong:
        faults.append(f"--supports has {wrong[0]!r}; give counts of labels such as 1482,89,66")
        return []
    if len(texts) != len(classes):
        names = ", ".join(classes)
        faults.append(f"it has {len(classes)} classes but --supports gives {len(texts)}; give one for each: {names}")
    return [int(text[:_DIGITS]) for text in texts]


def _column(rows: Sequence[Mapping[str, str]], faults: list[str]) -> list[int]:
    support = []
    for row in rows:
        text = row["support"]
        # Some programs print supports as 89.0.
        if re.fullmatch(r"[0-9]+(\.0*)?", text):
            support.append(int(text.partition(".")[0][:_DIGITS]))
        else:
            faults.append(f"the support of {row['class']!r} is {text!r}; give a count of images")
    return support
