"""Examines a published table: can it come from a classifier that knows anything about the labels?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hirise_imb.forensics.joint import JointSolutions, Solution, Value
from hirise_imb.forensics.margins import ClassMargins, class_margins
from hirise_imb.forensics.null import Statistic
from hirise_imb.forensics.sums import Floats, Ints
from hirise_imb.forensics.table import METRICS, PublishedTable, Rounded
from hirise_imb.utils.errors import UserError

AVERAGES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
"""Names of the overall scores that may be printed with a table."""

LEVEL = 0.001
"""Significance level: a pairing is better than chance if a smaller share of random pairings has as many hits."""

SMALL_KAPPA = 0.1
"""Largest absolute kappa of a table that is called no better than a shuffled pairing.

There must also be enough images for the kappa of shuffled pairings to stay within this limit (two standard deviations).
"""

MOST_COUNTS = 4_000_000
"""Most possible numbers of predictions of all classes together: more take minutes and gigabytes."""

_ROUNDING = 1e-6
"""Tolerance when a share of the images is converted to a count."""


class Verdict(StrEnum):
    """What a table implies about its predictions."""

    INCONSISTENT = "inconsistent with these supports"
    SHUFFLED = "no better than a shuffled pairing"
    BETTER = "better than chance"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class ExtremeSolution:
    """The joint solution with the lowest or the highest kappa, compared with random pairings with its margins."""

    solution: Solution
    kappa: float
    kappa_deviation: float
    """Standard deviation of kappa over random pairings."""
    trace: Statistic
    """Hits of all classes."""
    rare: Statistic
    """Hits of all classes but the largest, for the solution in which they exceed chance by least or by most."""


@dataclass(frozen=True)
class JointRanges:
    """Ranges that every joint solution lies in."""

    margins: tuple[ClassMargins, ...]
    hits: tuple[int, int]
    rare_hits: tuple[int, int]
    """Hits of all classes but the one with most labels."""
    chance: tuple[float, float]
    """Mean number of hits of random pairings."""
    rare_chance: tuple[float, float]
    """The same for all classes but the one with most labels."""
    kappa: tuple[float, float]
    macro_recall: tuple[float, float]
    lowest: ExtremeSolution
    highest: ExtremeSolution


@dataclass(frozen=True)
class Finding:
    """The verdict on a table, and the evidence for it."""

    table: PublishedTable
    margins: tuple[ClassMargins, ...]
    """Counts that each row allows by itself."""
    joint_ranges: JointRanges | None
    """Ranges over all joint solutions; None if no counts fit the rows."""
    verdict: Verdict
    reason: str


def examine(table: PublishedTable, averages: Mapping[str, Rounded] | None = None, seed: int = 0) -> Finding:
    """Examines what a published table implies, and judges whether its predictions were paired with shuffled labels.

    Args:
        table: the table as printed.
        averages: overall scores printed with it, by names in `AVERAGES`. Some joint solution must agree with each;
            accuracy and macro recall then narrow the ranges. Macro F1 may be the mean of F1 or the F1 of mean precision
            and mean recall (Opitz and Burst 2019).
        seed: seed of the random pairings.

    Raises:
        UserError: the figures allow too many counts to examine.
    """
    margins = _list_margins(table)
    impossible = [_impossible(table, k) for k, entry in enumerate(margins) if not len(entry.predicted)]
    if impossible:
        return Finding(table, margins, None, Verdict.INCONSISTENT, "; ".join(impossible))
    joint = JointSolutions.of(margins, table.total)
    if joint is None:
        return Finding(table, margins, None, Verdict.INCONSISTENT, _unequal(table, margins))
    figures = averages or {}
    faults = [fault for name, figure in figures.items() if (fault := _out_of_reach(joint, table, name, figure))]
    ranges = _joint_ranges(joint, table, {} if faults else figures, seed)
    verdict, reason = _judge(ranges)
    if faults:
        alone = (
            f"the rows alone are {verdict}" if verdict is not Verdict.UNDECIDED else "the rows alone are inconclusive"
        )
        verdict, reason = Verdict.INCONSISTENT, f"{'; '.join(faults)}; {alone}"
    return Finding(table, margins, ranges, verdict, reason)


def _list_margins(table: PublishedTable) -> tuple[ClassMargins, ...]:
    margins: list[ClassMargins] = []
    n_counts = 0
    for label in range(len(table.classes)):
        margins.append(class_margins(table, label))
        n_counts += len(margins[-1].predicted)
        if n_counts > MOST_COUNTS:
            raise UserError(
                f"The table allows more than {MOST_COUNTS:,} numbers of predictions of its {len(table.classes)} "
                f"classes with {table.total:,} labels: add the precision or F1 of more classes, as printed."
            )
    return tuple(margins)


def _out_of_reach(joint: JointSolutions, table: PublishedTable, name: str, figure: Rounded) -> str:
    """Returns why no joint solution agrees with a printed average; empty if one does."""
    scores = _scores(table)
    span = joint.span(scores[name])
    text = f"{name.replace('_', ' ')} {figure} is out of reach: the rows allow {_span(span, 6)}"
    if name == "accuracy":
        low, high = _hits(span, figure, table.total)
        if figure.holds(*span) and low > high:
            return f"accuracy {figure} is not a possible share of {table.total} images"
    if name == "macro_f1":
        means = _f1_of_means(*(joint.span(scores[mean]) for mean in ("macro_precision", "macro_recall")))
        if figure.holds(*means):
            return ""
        text += f" as the mean of F1, {_span(means, 6)} as the F1 of mean precision and recall"
    return "" if figure.holds(*span) else text


def _hits(accuracy: tuple[float, float], figure: Rounded | None, total: int) -> tuple[int, int]:
    """Returns the fewest and the most hits whose accuracy lies in a range and is printed as `figure`."""
    low, high = _narrow(accuracy, figure)
    return math.ceil(low * total - _ROUNDING), math.floor(high * total + _ROUNDING)


def _joint_ranges(
    joint: JointSolutions, table: PublishedTable, averages: Mapping[str, Rounded], seed: int
) -> JointRanges:
    scores = _scores(table)
    hits = _hits(joint.span(scores["accuracy"]), averages.get("accuracy"), table.total)
    lowest, highest = (_extreme_solution(joint, sign, hits, seed) for sign in (-1, 1))
    rare = joint.null(highest.solution).rare
    fewest, most = joint.span(lambda k, t, _: t * float(k in rare))
    return JointRanges(
        margins=joint.margins,
        hits=hits,
        rare_hits=(round(fewest), round(most)),
        chance=joint.span(lambda k, _, m: table.support[k] * m / table.total),
        rare_chance=joint.span(lambda k, _, m: (k in rare) * table.support[k] * m / table.total),
        kappa=(lowest.kappa, highest.kappa),
        macro_recall=_narrow(joint.span(scores["macro_recall"]), averages.get("macro_recall")),
        lowest=lowest,
        highest=highest,
    )


def _scores(table: PublishedTable) -> dict[str, Value]:
    """Returns each average as a sum over classes, by name."""
    classes = len(table.classes)
    support = table.support

    def share(part: Ints, total: Ints | int) -> Floats:
        return np.divide(part, total, out=np.zeros(len(part)), where=np.asarray(total) > 0)

    return {
        "accuracy": lambda _, t, __: t / table.total,
        "macro_precision": lambda _, t, m: share(t, m) / classes,
        "macro_recall": lambda k, t, _: share(t, support[k]) / classes,
        "macro_f1": lambda k, t, m: share(2 * t, support[k] + m) / classes,
    }


def _f1_of_means(precision: tuple[float, float], recall: tuple[float, float]) -> tuple[float, float]:
    low, high = (2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True))
    return low, high


def _extreme_solution(joint: JointSolutions, sign: int, hits: tuple[int, int], seed: int) -> ExtremeSolution:
    """Returns the solution with the highest kappa (`sign` 1) or the lowest (-1) whose hits lie in a range."""
    extreme = joint.highest_kappa(sign)
    kappa, limit = joint.kappa(extreme), hits[(sign + 1) // 2]
    if sign * extreme.hits.sum() > sign * limit:
        # The extreme solution contradicts the printed accuracy. Kappa grows with the hits and falls with the hits
        # expected by chance, so their limits together bound the kappa of every solution that agrees with the accuracy.
        least = joint.highest(lambda k, _, m: -sign * float(joint.margins[k].support) * m)[1]
        kappa = sign * min(sign * kappa, sign * joint.null(least).kappa(limit))
        extreme = joint.within(extreme, *hits)
    rare = joint.null(extreme).rare
    beyond = joint.highest(lambda k, t, m: sign * (k in rare) * (t - joint.margins[k].support * m / joint.total))[1]
    null = joint.null(extreme)
    return ExtremeSolution(
        solution=extreme,
        kappa=kappa,
        kappa_deviation=null.kappa_deviation(),
        trace=null.compare(extreme.hits, seed=seed),
        rare=joint.null(beyond).compare(beyond.hits, rare, seed=seed),
    )


def _narrow(span: tuple[float, float], figure: Rounded | None) -> tuple[float, float]:
    """Returns the part of a range that is printed as `figure`; the range itself without a figure."""
    if figure is None:
        return span
    return max(span[0], figure.low / figure.scale), min(span[1], figure.high / figure.scale)


def _judge(ranges: JointRanges) -> tuple[Verdict, str]:
    """Returns the verdict and the reason for it; `docs/published-table.md` reports the error rates."""
    low, high = ranges.lowest, ranges.highest
    kappa = f"kappa {_span(ranges.kappa, 3)}"
    # A table is better than chance only if even its least favourable solution is; the hits of the rare classes are a
    # test of their own because those of the largest class can drown them.
    if low.trace.p_above < LEVEL or low.rare.p_above < LEVEL:
        what = "hits" if low.trace.p_above < LEVEL else "hits of the rare classes"
        return Verdict.BETTER, f"every joint solution has more {what} than random pairings give ({kappa})"
    if high.trace.p_below < LEVEL:
        return Verdict.UNDECIDED, (
            f"every joint solution has fewer hits than random pairings give ({kappa}): the classes of predictions and "
            "labels may be numbered differently"
        )
    if high.trace.p_above < LEVEL or high.rare.p_above < LEVEL:
        return Verdict.UNDECIDED, (
            f"the figures allow a shuffled pairing and a better one ({kappa}): more decimals or columns would decide"
        )
    scatter = max(low.kappa_deviation, high.kappa_deviation)
    if max(abs(value) for value in ranges.kappa) > SMALL_KAPPA or 2 * scatter > SMALL_KAPPA:
        return Verdict.UNDECIDED, (
            f"nothing distinguishes it from a shuffled pairing, but there are too few images or figures to be sure "
            f"({kappa}; standard deviation over shuffled pairings {scatter:.3f})"
        )
    return Verdict.SHUFFLED, (
        "no joint solution has clearly more hits than random pairings of the same predictions and labels give (p >= "
        f"{min(high.trace.p_above, high.rare.p_above):.3f}; {kappa})"
    )


def _impossible(table: PublishedTable, label: int) -> str:
    """Returns why a row has no solution, with the figure that is impossible by itself if there is one."""
    name, support = table.classes[label], table.support[label]
    recall = table.figures["recall"][label]
    if recall is not None and support:
        near = {Rounded(round(10**recall.decimals * t / support), recall.decimals) for t in _near(recall, support)}
        if not any(recall.holds(t / support, t / support) for t in _near(recall, support)):
            nearest = " and ".join(sorted(map(str, near)))
            return f"{name}: recall {recall} is not a possible share of {support} labels; the nearest are {nearest}"
    printed = ", ".join(f"{metric} {f}" for metric in METRICS if (f := table.figures[metric][label]) is not None)
    return f"{name}: no counts of hits and predictions give {printed} with {support} labels"


def _near(recall: Rounded, support: int) -> list[int]:
    """Returns the numbers of hits whose shares are next below and above a recall."""
    below = recall.units * support // 10**recall.decimals
    return [t for t in (below, below + 1) if t <= support]


def _unequal(table: PublishedTable, margins: tuple[ClassMargins, ...]) -> str:
    """Returns why the predictions of the rows can't add up to the number of labels."""
    low = sum(entry.predictions[0] for entry in margins)
    high = sum(entry.predictions[1] for entry in margins)
    if low <= table.total <= high:
        return f"the rows allow no predictions that add up to {table.total}, the number of labels"
    return f"the rows imply {_span((low, high), 0)} predictions in total, but there are {table.total} labels"


def _span(span: tuple[float, float], decimals: int) -> str:
    low, high = (f"{value:z.{decimals}f}" for value in span)
    return low if low == high else f"{low} to {high}"
