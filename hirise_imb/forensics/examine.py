"""The question to a published table: can it come from a classifier at all?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hirise_imb.forensics.joint import Joint, Solution, Value
from hirise_imb.forensics.margins import ClassMargins, class_margins
from hirise_imb.forensics.null import Statistic
from hirise_imb.forensics.sums import Floats, Ints
from hirise_imb.forensics.table import METRICS, PublishedTable, Rounded

AVERAGES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")

LEVEL = 0.001
"""Significance level: a pairing differs from a shuffled one if fewer random pairings than this have as many hits."""

SMALL_KAPPA = 0.1
"""A table is called no better than a shuffled pairing only where it allows no kappa beyond this, whatever the p, and
where there are images enough for the kappa of shuffled pairings to stay within it (two standard deviations)."""


class Verdict(StrEnum):
    """What a table says of its predictions."""

    INCONSISTENT = "inconsistent with these supports"
    SHUFFLED = "no better than a shuffled pairing"
    BETTER = "better than chance"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Side:
    """The joint solution with the lowest or the highest kappa, against random pairings with its margins."""

    solution: Solution
    kappa: float
    kappa_deviation: float
    """Standard deviation of kappa over random pairings."""
    trace: Statistic
    """Hits of all classes."""
    rare: Statistic
    """Hits of all classes but the largest, of the solution with fewest or most of them beyond chance."""


@dataclass(frozen=True)
class Joined:
    """What all joint solutions have in common; a range holds for every one of them."""

    margins: tuple[ClassMargins, ...]
    hits: tuple[int, int]
    rare_hits: tuple[int, int]
    """Of all classes but the one with most labels."""
    chance: tuple[float, float]
    """Mean hits of random pairings."""
    rare_chance: tuple[float, float]
    kappa: tuple[float, float]
    macro_recall: tuple[float, float]
    lowest: Side
    highest: Side


@dataclass(frozen=True)
class Finding:
    """The answer, with all that it rests on."""

    table: PublishedTable
    margins: tuple[ClassMargins, ...]
    """What each row allows by itself."""
    joined: Joined | None
    """None where no counts fit the rows."""
    verdict: Verdict
    reason: str


def examine(table: PublishedTable, averages: Mapping[str, Rounded] | None = None, seed: int = 0) -> Finding:
    """Find what a published table implies, and say whether it is that of a shuffled pairing.

    Args:
        table: as printed.
        averages: scores printed with it, by names of `AVERAGES`. Each must be met by some joint solution; accuracy
            and macro recall then narrow the ranges. Macro F1 may be the mean of F1 or the F1 of mean precision and
            recall (Opitz and Burst 2019).
        seed: of the random pairings.
    """
    margins = tuple(class_margins(table, label) for label in range(len(table.classes)))
    impossible = [_impossible(table, k) for k, entry in enumerate(margins) if not len(entry.predicted)]
    if impossible:
        return Finding(table, margins, None, Verdict.INCONSISTENT, "; ".join(impossible))
    joint = Joint.of(margins, table.total)
    if joint is None:
        return Finding(table, margins, None, Verdict.INCONSISTENT, _unequal(table, margins))
    figures = averages or {}
    faults = [fault for name, figure in figures.items() if (fault := _out_of_reach(joint, table, name, figure))]
    joined = _join(joint, table, {} if faults else figures, seed)
    verdict, reason = _judge(joined)
    if faults:
        alone = f"the rows alone are {verdict}" if verdict is not Verdict.UNDECIDED else "the rows alone decide nothing"
        verdict, reason = Verdict.INCONSISTENT, f"{'; '.join(faults)}; {alone}"
    return Finding(table, margins, joined, verdict, reason)


def _out_of_reach(joint: Joint, table: PublishedTable, name: str, figure: Rounded) -> str:
    """Why no joint solution meets a printed average; empty where one does."""
    scores = _scores(table)
    span = joint.span(scores[name])
    text = f"{name.replace('_', ' ')} {figure} is out of reach: the rows allow {_span(span, 6)}"
    if name == "accuracy":
        low, high = _hits(span, figure, table.total)
        if figure.holds(*span) and low > high:
            return f"accuracy {figure} is no share of {table.total} images"
    if name == "macro_f1":
        means = _f1_of_means(*(joint.span(scores[mean]) for mean in ("macro_precision", "macro_recall")))
        if figure.holds(*means):
            return ""
        text += f" as the mean of F1, {_span(means, 6)} as the F1 of mean precision and recall"
    return "" if figure.holds(*span) else text


def _hits(accuracy: tuple[float, float], figure: Rounded | None, total: int) -> tuple[int, int]:
    """The fewest and the most hits with these accuracies that print as `figure`."""
    low, high = _narrow(accuracy, figure)
    return math.ceil(low * total - 1e-6), math.floor(high * total + 1e-6)


def _join(joint: Joint, table: PublishedTable, averages: Mapping[str, Rounded], seed: int) -> Joined:
    scores = _scores(table)
    hits = _hits(joint.span(scores["accuracy"]), averages.get("accuracy"), table.total)
    lowest, highest = (_side(joint, sign, hits, seed) for sign in (-1, 1))
    rare = joint.null(highest.solution).rare
    fewest, most = joint.span(lambda k, t, _: t * float(k in rare))
    return Joined(
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
    """Each average as a sum over classes."""
    classes = len(table.classes)
    support = table.support

    def share(part: Ints, whole: Ints | int) -> Floats:
        return np.divide(part, whole, out=np.zeros(len(part)), where=np.asarray(whole) > 0)

    return {
        "accuracy": lambda _, t, __: t / table.total,
        "macro_precision": lambda _, t, m: share(t, m) / classes,
        "macro_recall": lambda k, t, _: share(t, support[k]) / classes,
        "macro_f1": lambda k, t, m: share(2 * t, support[k] + m) / classes,
    }


def _f1_of_means(precision: tuple[float, float], recall: tuple[float, float]) -> tuple[float, float]:
    low, high = (2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True))
    return low, high


def _side(joint: Joint, sign: int, hits: tuple[int, int], seed: int) -> Side:
    extreme = joint.highest_kappa(sign)
    kappa, limit = joint.kappa(extreme), hits[(sign + 1) // 2]
    if sign * extreme.hits.sum() > sign * limit:
        # Kappa grows with the hits and falls with A, the hits that chance gives, so this holds for every solution that
        # meets the accuracy.
        least = joint.highest(lambda k, _, m: -sign * float(joint.margins[k].support) * m)[1]
        kappa = sign * min(sign * kappa, sign * joint.null(least).kappa(limit))
        extreme = joint.within(extreme, *hits)
    rare = joint.null(extreme).rare
    beyond = joint.highest(lambda k, t, m: sign * (k in rare) * (t - joint.margins[k].support * m / joint.total))[1]
    null = joint.null(extreme)
    return Side(
        solution=extreme,
        kappa=kappa,
        kappa_deviation=null.kappa_deviation(),
        trace=null.compare(extreme.hits, seed=seed),
        rare=joint.null(beyond).compare(beyond.hits, rare, seed=seed),
    )


def _narrow(span: tuple[float, float], figure: Rounded | None) -> tuple[float, float]:
    """The part of a range that is printed as `figure`."""
    if figure is None:
        return span
    return max(span[0], figure.low / figure.scale), min(span[1], figure.high / figure.scale)


def _judge(joined: Joined) -> tuple[Verdict, str]:
    """The verdict and its reason; `docs/published-table.md` gives its error rates."""
    low, high = joined.lowest, joined.highest
    kappa = f"kappa {_span(joined.kappa, 3)}"
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
            f"the figures allow a shuffled pairing and a better one ({kappa}): more decimals or columns would tell"
        )
    scatter = max(low.kappa_deviation, high.kappa_deviation)
    if max(abs(value) for value in joined.kappa) > SMALL_KAPPA or 2 * scatter > SMALL_KAPPA:
        return Verdict.UNDECIDED, (
            f"nothing tells it from a shuffled pairing, but so few images or figures say little ({kappa}; shuffled "
            f"pairings scatter by {scatter:.3f})"
        )
    return Verdict.SHUFFLED, (
        "no joint solution has clearly more hits than random pairings of the same predictions and labels give (p >= "
        f"{min(high.trace.p_above, high.rare.p_above):.3f}; {kappa})"
    )


def _impossible(table: PublishedTable, label: int) -> str:
    """Why a row has no solution, naming a figure that is impossible by itself where there is one."""
    name, support = table.classes[label], table.support[label]
    recall = table.figures["recall"][label]
    if recall is not None and support:
        near = {Rounded(round(10**recall.decimals * t / support), recall.decimals) for t in _near(recall, support)}
        if not any(recall.holds(t / support, t / support) for t in _near(recall, support)):
            texts = " and ".join(sorted(map(str, near)))
            return f"{name}: recall {recall} is no share of {support} labels; near it are {texts}"
    printed = ", ".join(f"{metric} {f}" for metric in METRICS if (f := table.figures[metric][label]) is not None)
    return f"{name}: no counts of hits and predictions give {printed} with {support} labels"


def _near(recall: Rounded, support: int) -> list[int]:
    """The hits whose share is next below and above a recall."""
    below = recall.units * support // 10**recall.decimals
    return [t for t in (below, below + 1) if t <= support]


def _unequal(table: PublishedTable, margins: tuple[ClassMargins, ...]) -> str:
    low = sum(entry.predictions[0] for entry in margins)
    high = sum(entry.predictions[1] for entry in margins)
    if low <= table.total <= high:
        return f"the rows allow no predictions that add up to {table.total}, the number of labels"
    return f"the rows need {_span((low, high), 0)} predictions together, and there are {table.total} labels"


def _span(span: tuple[float, float], decimals: int) -> str:
    low, high = (f"{value:.{decimals}f}" for value in span)
    return low if low == high else f"{low} to {high}"
