"""Measures how reliable intervals and tests are on simulated test sets (see docs/uncertainty.md).

Writes docs/uncertainty.csv and docs/coverage.png. The simulation is the one that the tests use:

    PYTHONPATH=tests python tools/simulate_uncertainty.py [SETS]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from simulated import CRATER, EJECTA, OFFICIAL, SAMPLE, SPIDER, SPREAD, Law, Layout, with_few_craters

from hirise_imb.data import HIRISE
from hirise_imb.metrics.bootstrap import (
    LEVEL,
    MIN_SOURCES,
    Interval,
    SourceCounts,
    UndrawnClasses,
    bootstrap_sources,
    expanded_percentile_interval,
    image_interval,
)
from hirise_imb.metrics.permutation import ALPHA, swap_test
from hirise_imb.reporting.figures.style import BLUE, GREEN, ORANGE, ROLE_COLOURS, figure

CLASSES = HIRISE.classes.names
DOCS = Path(__file__).parents[1] / "docs"
DRAWS = 1000
"""Number of resamples or exchanges for each test set."""
BETWEEN = (0.0, 0.3, 0.6, 1.2, 2.0)
"""Standard deviations between sources, in log odds."""
OWN = (0.0, 0.3, 0.6, 1.2)
"""Standard deviations of the effects of each arm, in log odds."""
GAINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Advantages of the better arm, in log odds."""
SOURCE_COUNTS = (6, 8, 10, 12, 17)
"""Numbers of sources of one class."""
USUAL = Law(between=1.2, own=0.6)
"""Simulation that is used unless stated otherwise."""
LAYOUTS: dict[str, tuple[Layout, tuple[int, ...]]] = {
    "official": (OFFICIAL, ()),
    "official, F1 0": (OFFICIAL, (EJECTA, SPIDER)),
    "sample": (SAMPLE, ()),
    "sample, F1 0": (SAMPLE, (EJECTA, SPIDER)),
    "spread": (SPREAD, ()),
}
"""Layouts of test splits, and the classes that no arm ever predicts correctly."""
RULES: dict[str, UndrawnClasses] = {"": "others_mean", ", own F1": "own_f1"}
"""Rules for undrawn classes by what they add to the name of an interval."""


@dataclass(frozen=True)
class Row:
    """A rate over simulated test sets, or the mean of a quantity over them."""

    question: str
    what: str
    layout: str
    between: float
    """Standard deviation of the log odds between sources."""
    own: float
    """Standard deviation of the effects of each arm, in log odds."""
    gain: float
    """Advantage of the better arm, in log odds."""
    truth: float
    """True score, or true difference."""
    value: float
    sets: int


def coverage(name: str, between: float, sets: int) -> Iterator[Row]:
    """Yields how often intervals of macro F1 contain the expected score over new sources.

    Where classes have one source, also how often they contain the score that is expected if these classes keep it.
    """
    layout, never = LAYOUTS[name]
    law = Law(between, layout=layout, never=never)
    truth = float(law.truth().mean())
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(sets):
        rng = np.random.default_rng((2, number))
        effects = law.effects(rng)
        predicted = law.predict(rng, effects)
        given = float(law.truth(60, seed=number, given=effects).mean()) if len(layout.single) else None
        counts = layout.count(predicted)
        resamples = bootstrap_sources(counts, DRAWS)
        smooth = counts.f1(rng.dirichlet(np.ones(layout.n_sources), DRAWS)).mean(axis=(0, 2))
        intervals = {"Dirichlet": expanded_percentile_interval(smooth, layout.n_sources)}
        means = {"Dirichlet": smooth.mean()}
        for suffix, rule in RULES.items():
            intervals[f"sources{suffix}"] = resamples.interval(rule)
            intervals[f"images{suffix}"] = image_interval(layout.labels, predicted[None], 8, DRAWS, rule)
            means[f"sources{suffix}"] = resamples.macro_f1(rule).mean()
        for what, interval in intervals.items():
            values["coverage", what].append(_contains(interval, truth))
            values["width", what].append(_width(interval))
            if given is not None:
                values["coverage given single sources", what].append(_contains(interval, given))
        for what, mean in means.items():
            values["shift", what].append(mean - layout.f1(predicted).mean())
        values["all classes drawn", "share of resamples"].append(resamples.complete_share)
        values["score", "standard deviation"].append(layout.f1(predicted).mean())
    for (question, what), numbers in values.items():
        summary = np.std(numbers) if question == "score" else np.mean(numbers)
        yield Row(question, what, name, between, 0.0, 0.0, truth, float(summary), sets)


def class_coverage(law: Law, sets: int) -> Iterator[Row]:
    """Yields how often class intervals contain the expected F1, including those that reports do not give."""
    truth = law.truth()
    covered, widths = np.zeros((2, len(CLASSES), sets))
    for number in range(sets):
        counts = law.layout.count(law.draw(np.random.default_rng((2, number)))[0])
        resamples = bootstrap_sources(counts, DRAWS)
        for label in range(len(CLASSES)):
            if counts.sources[label] >= MIN_SOURCES:
                interval = resamples.class_interval(label)
            else:  # Reports give no interval here; this is what it would be.
                drawn = resamples.f1[np.isfinite(resamples.f1[:, label]), label]
                interval = expanded_percentile_interval(drawn, law.layout.n_sources)
            covered[label, number] = _contains(interval, truth[label])
            widths[label, number] = _width(interval)
    for label, name in enumerate(CLASSES):
        common = "official", law.between, law.own, 0.0, float(truth[label])
        yield Row("coverage of a class", name, *common, float(covered[label].mean()), sets)
        yield Row("width of a class", name, *common, float(widths[label].mean()), sets)


def few_sources(between: float, sources: int, lopsided: bool, sets: int) -> Iterator[Row]:
    """Yields how often the interval of craters contains their expected F1 if only so many sources have craters."""
    law = Law(between, layout=with_few_craters(sources, lopsided=lopsided))
    truth = float(law.truth()[CRATER])
    covered, widths = [], []
    for number in range(sets):
        predicted = law.draw(np.random.default_rng((4, number)))[0]
        interval = bootstrap_sources(law.layout.count(predicted), DRAWS).class_interval(CRATER)
        covered.append(_contains(interval, truth))
        widths.append(_width(interval))
    what = f"{sources} sources{', lopsided' if lopsided else ''}"
    for question, values in (("coverage of craters", covered), ("width of craters", widths)):
        yield Row(question, what, "official", between, 0.0, 0.0, truth, float(np.mean(values)), sets)


def rejections(name: str, own: float, gain: float, sets: int) -> Iterator[Row]:
    """Yields how often tests call two arms different, and the minimum detectable difference."""
    layout, never = LAYOUTS[name]
    law = replace(USUAL, own=own, layout=layout, never=never)
    difference = float((law.truth(gain=gain) - law.truth()).mean())
    rejected: defaultdict[str, list[bool]] = defaultdict(list)
    covered: defaultdict[str, list[bool]] = defaultdict(list)
    resolvable, observed = [], []
    for number in range(sets):
        base, better = law.draw(np.random.default_rng((3, number)), (0.0, gain))
        one, other = layout.count(better), layout.count(base)
        swap = swap_test(one, other, DRAWS)
        rejected["swap sources"].append(swap.p <= ALPHA)
        arms = bootstrap_sources(one, DRAWS), bootstrap_sources(other, DRAWS)
        for suffix, rule in RULES.items():
            interval = expanded_percentile_interval(arms[0].gain_over(arms[1], rule), layout.n_sources)
            rejected[f"bootstrap sources{suffix}"].append(interval is not None and not _contains(interval, 0.0))
            covered[f"difference{suffix}"].append(_contains(interval, difference))
        if name == "official":
            rejected["swap images"].append(swap_test(_by_image(better), _by_image(base), DRAWS).p <= ALPHA)
            rejected["McNemar"].append(_mcnemar(better, base) <= ALPHA)
        resolvable.append(swap.min_detectable_difference)
        observed.append(layout.f1(better).mean() - layout.f1(base).mean())
    common = name, law.between, own, gain, difference
    for question, rates in (("rejected", rejected), ("coverage of a difference", covered)):
        for what, values in rates.items():
            yield Row(question, what, *common, float(np.mean(values)), sets)
    yield Row("resolvable", "median", *common, float(np.median([np.inf if r is None else r for r in resolvable])), sets)
    yield Row("difference", "mean", *common, float(np.mean(observed)), sets)
    yield Row("difference", "standard deviation", *common, float(np.std(observed)), sets)


def _contains(interval: Interval | None, value: float) -> bool:
    return interval is not None and bool(interval.low <= value <= interval.high)


def _width(interval: Interval | None) -> float:
    return interval.high - interval.low if interval else 0.0


def _by_image(predicted: NDArray[np.int64]) -> SourceCounts:
    labels = OFFICIAL.labels
    return SourceCounts.of(labels, predicted[None], np.arange(len(labels)), len(CLASSES))


def _mcnemar(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Returns the exact p value of McNemar's test (1947)."""
    from scipy.stats import binomtest

    only_one = int(((one == OFFICIAL.labels) & (other != OFFICIAL.labels)).sum())
    only_other = int(((one != OFFICIAL.labels) & (other == OFFICIAL.labels)).sum())
    return float(binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def draw(rows: pd.DataFrame) -> None:
    """Draws the figure of docs/uncertainty.md."""
    # Label, colour, line style and marker.
    looks = {
        "sources": ("over sources, as in reports", BLUE, "-", "o"),
        "sources, own F1": ("over sources, own F1", GREEN, "-.", "^"),
        "images": ("over images", ORANGE, "--", "s"),
        "swap sources": ("swap of sources", ROLE_COLOURS["baseline"], ":", "D"),
        "bootstrap sources": ("intervals, as in reports", BLUE, "-", "o"),
        "bootstrap sources, own F1": ("intervals, own F1", GREEN, "-.", "^"),
        "swap images": ("swap of images", ORANGE, "--", "s"),
    }
    intervals, tests = (rows[rows["question"] == question] for question in ("coverage", "rejected"))
    official = tests[tests["layout"] == "official"]
    arms = ("swap sources", "bootstrap sources", "bootstrap sources, own F1")
    between = "standard deviation between sources, log odds"
    panels = (
        ("Intervals that contain the expected score: official layout", between, "between"),
        ("The same: layout of the sample, two classes with F1 0", between, "between"),
        ("Equally good arms called different", "standard deviation of the effects of each arm", "own"),
        ("Better arms detected", "true difference in macro F1", "truth"),
    )
    contents = (
        (intervals[intervals["layout"] == "official"], ("sources", "sources, own F1", "images"), LEVEL),
        (intervals[intervals["layout"] == "sample, F1 0"], ("sources", "sources, own F1", "images"), LEVEL),
        (official[official["gain"] == 0], (*arms, "swap images"), ALPHA),
        (official[official["own"] == USUAL.own], arms, ALPHA),
    )
    page = figure(10, 7.6, (0.7, 0.2, 0.6, 0.4))
    page.subplots_adjust(wspace=0.25, hspace=0.4)
    for axes, panel, content in zip(page.subplots(2, 2).flat, panels, contents, strict=True):
        (title, axis_name, across), (data, names, nominal) = panel, content
        axes.axhline(nominal, color="black", linewidth=1, label=f"nominal, {nominal:.0%}")
        for name in names:
            words, colour, line, mark = looks[name]
            part = data[data["what"] == name].sort_values(across)
            axes.plot(part[across], part["value"], color=colour, linestyle=line, marker=mark, label=words)
        axes.set(title=title, xlabel=axis_name, ylim=(0, 1.03))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="lower left" if nominal == LEVEL else "upper left")
    page.savefig(DOCS / "coverage.png")


def main() -> None:
    """Runs the simulations, writes their rates and the figure, and prints tables."""
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    results: list[Row] = []
    for name, between in product(LAYOUTS, BETWEEN):
        results += coverage(name, between, sets)
    for between in BETWEEN:
        results += class_coverage(Law(between), sets)
        for sources, lopsided in product(SOURCE_COUNTS, (False, True)):
            results += few_sources(between, sources, lopsided, sets)
    for name, own in product(("official", "sample, F1 0", "spread"), OWN):
        results += rejections(name, own, 0.0, sets)
    for gain in GAINS[1:]:
        results += rejections("official", USUAL.own, gain, sets)
    rows = pd.DataFrame([asdict(row) for row in results])
    rows.to_csv(DOCS / "uncertainty.csv", index=False, float_format="%.4g", lineterminator="\n")
    draw(rows)
    for question, part in rows.groupby("question", sort=False):
        of_two = question in ("rejected", "resolvable", "difference", "coverage of a difference")
        across = ["own", "gain", "truth"] if of_two else ["between"]
        table = part.pivot_table("value", ["layout", "what"], across, sort=False)
        print(question, table.to_string(float_format="{:.3f}".format), "", sep="\n")


if __name__ == "__main__":
    main()
