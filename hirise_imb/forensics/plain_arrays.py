"""The audit of a published table, and the check of predictions against their labels, for plain arrays and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hirise_imb.forensics.examine import AVERAGES, LEVEL, Finding, examine
from hirise_imb.forensics.null import DRAWS, PermutationNull, Statistic
from hirise_imb.forensics.table import MOST_CLASSES, MOST_DECIMALS, MOST_LABELS, PublishedTable, Rounded
from hirise_imb.utils.labels import encode_labels

Figure = str | float | None
"""A printed share: a string such as `0.840`, a number, or None where nothing was printed."""


def examine_table(
    precision: Sequence[Figure] | None,
    recall: Sequence[Figure] | None,
    f1: Sequence[Figure] | None,
    supports: Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    decimals: int | None = None,
    averages: Mapping[str, str | float] | None = None,
    seed: int = 0,
) -> Finding:
    """Finds the counts behind a published per-class table, and judges whether it can come from a classifier.

    Rounded precision, recall and F1 with the number of labels of each class leave few possible counts of hits and
    predictions. If even the best of them has no more hits than shuffled labels would give, the predictions were
    probably paired with the wrong labels.

    Source: Brown and Heathers 2017, "The GRIM test", extended from a mean to precision, recall and F1 together; the
    permutation null of Mielke and Berry 2007. Error rates are in `docs/published-table.md`.

    Args:
        precision: precision of each class as printed, shape (n_classes,); None if the table has no such column.
        recall: recall of each class, likewise.
        f1: F1 of each class, likewise.
        supports: number of labels of each class, shape (n_classes,).
        classes: names of the classes, for messages; None for numbers from 0.
        decimals: number of decimals of all figures as printed. Needed where numbers have lost trailing zeros; None to
            take strings literally, and numbers with as many decimals as the longest has.
        averages: overall scores printed with the table, by names in `hirise_imb.forensics.AVERAGES`.
        seed: seed of the random pairings.

    Returns:
        The verdict with its reason, and the ranges of counts behind the table.

    Raises:
        ValueError: columns differ in length, a figure is not a share from 0 to 1, or a support is not a count.
        UserError: there are too many possible counts to examine, because hardly any figures are given.

    Example:
        >>> from hirise_imb.forensics import examine_table
        >>> table = examine_table(["0.95", "0.80"], ["0.97", "0.70"], ["0.96", "0.75"], supports=[900, 150])
        >>> print(table.verdict)
        better than chance
        >>> print(examine_table(None, ["0.33", "0.50"], None, supports=[7, 10]).reason)
        0: recall 0.33 is not a possible share of 7 labels; the nearest are 0.29 and 0.43
    """
    names = tuple(map(str, range(len(supports)) if classes is None else classes))
    columns = {"precision": precision, "recall": recall, "f1": f1}
    _check_columns(names, columns, supports)
    if decimals is not None and not 0 <= decimals <= MOST_DECIMALS:
        raise ValueError(f"decimals must be from 0 to {MOST_DECIMALS}, got {decimals}")
    for name in averages or {}:
        if name not in AVERAGES:
            raise ValueError(f"averages must be among {', '.join(AVERAGES)}, got {name!r}")
    given = [figure for values in columns.values() if values is not None for figure in values]
    numbers = [figure for figure in given if not isinstance(figure, str | None)]
    places = max((_count_decimals(number) for number in numbers), default=0) if decimals is None else decimals
    figures = {
        metric: tuple(
            None if figure is None else _read(f"the {metric} of class {name}", figure, places, decimals)
            for name, figure in zip(names, [None] * len(names) if values is None else values, strict=True)
        )
        for metric, values in columns.items()
    }
    overall = {name: _read(name, figure, _count_decimals(figure)) for name, figure in (averages or {}).items()}
    return examine(PublishedTable(names, figures, tuple(int(support) for support in supports)), overall, seed)


@dataclass(frozen=True)
class AlignmentTest:
    """Whether predictions agree with their labels better than with shuffled ones."""

    kappa: float
    """Cohen's kappa; 0 on average if labels are shuffled."""
    hits: Statistic
    """Correct predictions of all classes, next to those with shuffled labels."""
    rare_hits: Statistic
    """The same without the class that has most labels."""

    @property
    def is_aligned(self) -> bool:
        """Whether there are clearly more hits than with shuffled labels (p < 0.001), of all or of the rare classes."""
        return min(self.hits.p_above, self.rare_hits.p_above) < LEVEL


def alignment_test(
    y_true: ArrayLike, y_pred: ArrayLike, *, labels: ArrayLike | None = None, n_permutations: int = DRAWS, seed: int = 0
) -> AlignmentTest:
    """Tests whether predictions belong to their labels, against pairings with shuffled labels.

    A generator that shuffles, or a table sorted by another column, pairs predictions with labels of other rows. Scores
    then look like those of a bad classifier, and with a frequent class not even very bad. The test keeps how often each
    class occurs and is predicted, and shuffles which prediction meets which label.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales"; Mielke and Berry 2007, "Permutation methods".

    Args:
        y_true: true classes, shape (n,), of any type.
        y_pred: predicted classes, shape (n,).
        labels: all classes; None for those that occur.
        n_permutations: number of random pairings; p < 0.001 takes 1,000 or more.
        seed: seed of the random pairings.

    Raises:
        ValueError: there are fewer than two rows, shapes differ, or a label is not one of the classes.

    Example:
        >>> from hirise_imb.forensics import alignment_test
        >>> y_true = ["crater", "other", "other", "other"] * 25
        >>> alignment_test(y_true, y_true).is_aligned
        True
        >>> alignment_test(y_true, y_true[1:] + y_true[:1]).is_aligned  # predictions of the row after
        False
    """
    classes, (true, predicted) = encode_labels({"y_true": y_true, "y_pred": y_pred}, labels)
    if true.ndim != 1 or true.shape != predicted.shape or len(true) < 2:
        raise ValueError(f"y_true and y_pred must have the shape (n,), n >= 2, got {true.shape} and {predicted.shape}")
    support, predictions = (np.bincount(ids, minlength=len(classes)) for ids in (true, predicted))
    hits: NDArray[np.int64] = np.bincount(true[true == predicted], minlength=len(classes))
    null = PermutationNull(support, predictions)
    return AlignmentTest(
        null.kappa(float(hits.sum())),
        null.compare(hits, draws=n_permutations, seed=seed),
        null.compare(hits, null.rare, n_permutations, seed),
    )


def _check_columns(
    names: Sequence[str], columns: Mapping[str, Sequence[Figure] | None], supports: Sequence[int]
) -> None:
    """Checks lengths, names and supports."""
    for name, values in {"classes": names, **columns}.items():
        if values is not None and len(values) != len(supports):
            raise ValueError(f"{name} must have one entry for each of {len(supports)} supports, got {len(values)}")
    if all(values is None for values in columns.values()):
        raise ValueError("Give at least one of precision, recall and f1.")
    if len(names) > MOST_CLASSES:
        raise ValueError(f"a table may have up to {MOST_CLASSES} classes, got {len(names):,}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("classes must be two or more different names")
    for name, support in zip(names, supports, strict=True):
        if support != int(support) or support < 0:
            raise ValueError(f"the support of class {name} must be a count of labels, got {support}")
    if not 2 <= sum(supports) <= MOST_LABELS:
        raise ValueError(f"supports must add up to 2 to {MOST_LABELS:,} labels, got {sum(supports):,}")


def _count_decimals(figure: str | float) -> int:
    text = figure if isinstance(figure, str) else np.format_float_positional(figure)
    return len(text.partition(".")[2])


def _read(what: str, figure: str | float, places: int, decimals: int | None = None) -> Rounded:
    """Returns a figure as printed: a string as it is, a number with this many places."""
    if not isinstance(figure, str):
        if _count_decimals(figure) > places:
            raise ValueError(f"{what}, {figure}, has more than {places} decimals")
        figure = f"{figure:.{places}f}"
    try:
        return Rounded.read(figure.strip(), decimals)
    except ValueError as error:
        raise ValueError(f"{what}, {figure!r}, {error}") from error
