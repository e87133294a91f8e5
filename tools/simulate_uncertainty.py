"""Measures how reliable intervals and tests are on simulated test sets (see docs/uncertainty.md).

Writes docs/uncertainty.csv and docs/coverage.png. The simulation is the one that the tests use:

    PYTHONPATH=tests python tools/simulate_uncertainty.py [SETS]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from simulated import CRATER, LABELS, SOURCES, Law, count_sources, f1, fewer

from hirise_imb.data import HIRISE
from hirise_imb.metrics.bootstrap import (
    LEVEL,
    MIN_SOURCES,
    Interval,
    SourceCounts,
    bootstrap_sources,
    expanded_percentile_interval,
    image_interval,
)
from hirise_imb.metrics.permutation import ALPHA, swap_test
from hirise_imb.reporting.figures.style import COLOURS, ROLE_COLOURS, figure

CLASSES = HIRISE.classes.names
DOCS = Path(__file__).parents[1] / "docs"
DRAWS = 2000
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


@dataclass(frozen=True)
class Row:
    """A rate over simulated test sets, or the mean of a quantity over them."""

    question: str
    what: str
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


def coverage(law: Law, sets: int) -> Iterator[Row]:
    """Yields how often intervals contain the expected score, including class intervals that reports do not give."""
    truth = law.truth()
    targets = {"sources": truth.mean(), "images": truth.mean(), "Dirichlet": truth.mean()}
    targets |= dict(zip(HIRISE.classes, truth, strict=True))
    covered: dict[str, list[bool]] = {name: [] for name in targets}
    widths: dict[str, list[float]] = {name: [] for name in targets}
    shifts: dict[str, list[float]] = {name: [] for name in ("sources", "Dirichlet")}
    for number in range(sets):
        rng = np.random.default_rng((2, number))
        predicted = law.draw(rng)[0]
        intervals, means = _intervals(predicted, rng)
        for name, mean in means.items():
            shifts[name].append(mean - f1(predicted).mean())
        for name, interval in intervals.items():
            covered[name].append(interval is not None and interval.low <= targets[name] <= interval.high)
            widths[name].append(interval.high - interval.low if interval else 0.0)
    for name, target in targets.items():
        common = law.between, law.own, 0.0, float(target)
        yield Row("coverage", name, *common, float(np.mean(covered[name])), sets)
        yield Row("width", name, *common, float(np.mean(widths[name])), sets)
        if name in shifts:
            yield Row("shift", name, *common, float(np.mean(shifts[name])), sets)


def few_sources(law: Law, sources: int, lopsided: bool, sets: int) -> Iterator[Row]:
    """Yields how often the interval of craters contains their expected F1 if only so many sources have craters."""
    subset = fewer(sources, lopsided=lopsided)
    truth = float(law.truth(there=subset)[CRATER])
    covered, widths = [], []
    for number in range(sets):
        predicted = law.draw(np.random.default_rng((4, number)))[0]
        interval = bootstrap_sources(count_sources(predicted, subset), DRAWS).class_interval(CRATER)
        covered.append(interval is not None and interval.low <= truth <= interval.high)
        widths.append(interval.high - interval.low if interval else 0.0)
    what = f"{sources} sources{', lopsided' if lopsided else ''}"
    for question, values in (("coverage of a class", covered), ("width of a class", widths)):
        yield Row(question, what, law.between, law.own, 0.0, truth, float(np.mean(values)), sets)


def _intervals(predicted: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, Interval | None], dict[str, float]]:
    """Returns all kinds of intervals, and the means of the resamples of macro F1."""
    counts = count_sources(predicted)
    resamples = bootstrap_sources(counts, DRAWS)
    smooth = counts.f1(rng.dirichlet(np.ones(SOURCES), DRAWS)).mean(axis=(0, 2))
    intervals = {
        "sources": resamples.interval(),
        "images": image_interval(LABELS, predicted[None], 8, DRAWS),
        "Dirichlet": expanded_percentile_interval(smooth, SOURCES),
    }
    for label, name in enumerate(HIRISE.classes):
        if counts.sources[label] >= MIN_SOURCES:
            intervals[name] = resamples.class_interval(label)
        else:  # Reports give no interval here; this is what it would be.
            f1_values = resamples.f1[np.isfinite(resamples.f1[:, label]), label]
            intervals[name] = expanded_percentile_interval(f1_values, SOURCES)
    return intervals, {"sources": float(resamples.macro_f1().mean()), "Dirichlet": float(smooth.mean())}


def rejections(law: Law, gain: float, sets: int) -> Iterator[Row]:
    """Yields how often tests call two arms different, and the minimum detectable difference."""
    difference = float((law.truth(gain=gain) - law.truth()).mean())
    names = ("swap sources", "bootstrap sources", "swap images", "McNemar")
    rejected: dict[str, list[bool]] = {name: [] for name in names}
    resolvable, observed = [], []
    for number in range(sets):
        base, better = law.draw(np.random.default_rng((3, number)), (0.0, gain))
        one, other = count_sources(better), count_sources(base)
        swap = swap_test(one, other, DRAWS)
        rejected["swap sources"].append(swap.p <= ALPHA)
        interval = expanded_percentile_interval(
            bootstrap_sources(one, DRAWS).gain_over(bootstrap_sources(other, DRAWS)), SOURCES
        )
        rejected["bootstrap sources"].append(interval is not None and not interval.low <= 0 <= interval.high)
        rejected["swap images"].append(swap_test(_by_image(better), _by_image(base), DRAWS).p <= ALPHA)
        rejected["McNemar"].append(_mcnemar(better, base) <= ALPHA)
        resolvable.append(swap.min_detectable_difference)
        observed.append(f1(better).mean() - f1(base).mean())
    common = law.between, law.own, gain, difference
    for name, values in rejected.items():
        yield Row("rejected", name, *common, float(np.mean(values)), sets)
    yield Row("resolvable", "median", *common, float(np.median([np.inf if r is None else r for r in resolvable])), sets)
    yield Row("difference", "mean", *common, float(np.mean(observed)), sets)
    yield Row("difference", "standard deviation", *common, float(np.std(observed)), sets)


def _by_image(predicted: np.ndarray) -> SourceCounts:
    return SourceCounts.of(LABELS, predicted[None], np.arange(len(LABELS)), len(HIRISE.classes))


def _mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the exact p value of McNemar's test (1947)."""
    from scipy.stats import binomtest

    only_one = int(((one == LABELS) & (other != LABELS)).sum())
    only_other = int(((one != LABELS) & (other == LABELS)).sum())
    return float(binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def draw(rows: pd.DataFrame) -> None:
    """Draws the figure of docs/uncertainty.md."""
    # Label, colour, line style and marker.
    looks = {
        "sources": ("over sources", COLOURS[0], "-", "o"),
        "Dirichlet": ("Dirichlet weights", COLOURS[2], "-.", "^"),
        "images": ("over images", COLOURS[1], "--", "s"),
        "swap sources": ("swap of sources", COLOURS[0], "-", "o"),
        "bootstrap sources": ("bootstrap of sources", COLOURS[2], "-.", "^"),
        "swap images": ("swap of images", COLOURS[1], "--", "s"),
        "McNemar": ("McNemar", ROLE_COLOURS["baseline"], ":", "D"),
    }
    tests = rows[rows["question"] == "rejected"]
    null, power = tests[tests["gain"] == 0], tests[tests["own"] == USUAL.own]
    panels = (
        (rows[rows["question"] == "coverage"], "between", ("sources", "Dirichlet", "images"), LEVEL),
        (null, "own", ("swap sources", "bootstrap sources", "swap images", "McNemar"), ALPHA),
        (power, "truth", ("swap sources", "bootstrap sources"), ALPHA),
    )
    titles = ("Intervals that contain the truth", "Equally good arms called different", "Better arms detected")
    axis_names = (
        "standard deviation between sources, log odds",
        "standard deviation of the effects of each arm",
        "true difference in macro F1",
    )
    page = figure(12, 3.9)
    for axes, panel, title, axis_name in zip(page.subplots(1, 3), panels, titles, axis_names, strict=True):
        data, across, names, nominal = panel
        axes.axhline(nominal, color="black", linewidth=1, label=f"nominal, {nominal:.0%}")
        for name in names:
            words, colour, line, mark = looks[name]
            part = data[data["what"] == name].sort_values(across)
            axes.plot(part[across], part["value"], color=colour, linestyle=line, marker=mark, label=words)
        axes.set(title=title, xlabel=axis_name, ylim=(0, 1))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="lower left" if nominal == LEVEL else "upper left")
    page.savefig(DOCS / "coverage.png")


def main() -> None:
    """Runs the simulations, writes their rates and the figure, and prints tables."""
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    results: list[Row] = []
    for between in BETWEEN:
        results += coverage(Law(between), sets)
        for sources, lopsided in product(SOURCE_COUNTS, (False, True)):
            results += few_sources(Law(between), sources, lopsided, sets)
    for own in OWN:
        results += rejections(Law(USUAL.between, own), 0.0, sets)
    for gain in GAINS[1:]:
        results += rejections(USUAL, gain, sets)
    rows = pd.DataFrame([asdict(row) for row in results])
    rows.to_csv(DOCS / "uncertainty.csv", index=False, float_format="%.4g", lineterminator="\n")
    draw(rows)
    for question, part in rows.groupby("question", sort=False):
        of_two = question in ("rejected", "resolvable", "difference")
        across = ["own", "gain", "truth"] if of_two else ["between"]
        table = part.pivot_table("value", "what", across, sort=False)
        print(question, table.to_string(float_format="{:.3f}".format), "", sep="\n")


if __name__ == "__main__":
    main()
