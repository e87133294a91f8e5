"""Tables and figure of nested cross-validation in docs/uncertainty.md, from results of `tools.nested_inference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.config import GIVEN_SPLIT, NESTED_CV
from hirise_imb.metrics.bootstrap import LEVEL, SourceCounts, bootstrap_sources, expanded_percentile_interval
from hirise_imb.metrics.permutation import ALPHA, swap_test
from hirise_imb.reporting.figures.style import BLUE, ORANGE, ROLE_COLOURS, figure
from tools.nested_arms import N_SEEDS, Sample
from tools.nested_simulation import REPEATED

DOCS = Path(__file__).parents[1] / "docs"
DRAWS = 2000
"""Number of resamples or exchanges for each pair of arms on the real sample."""
POWER = 0.8
"""Probability with which a difference is to be detected."""

Ints = NDArray[np.int64]


def write_tables(sample: Sample, results: Mapping[str, pd.DataFrame]) -> None:
    """Writes the tables and the figure, and prints the tables.

    Args:
        sample: the real sample.
        results: results of each kind of job.
    """
    sources = np.unique(sample.images.sources[sample.landmarks], return_inverse=True)[1]
    labels = sample.images.labels[sample.landmarks]
    real = []
    for kind in ("fixed", "chosen"):
        arms = dict(zip(results[kind]["arm"], results[kind]["predicted"], strict=True))
        real += [{"settings": kind, **row} for row in summarise_real(labels, sources, arms)]
    power = summarise_power(results["power"], results["truth"])
    tables = {
        "nested-real": pd.DataFrame(real),
        "nested-simulated": summarise_equal(results["simulated"]),
        "power": power,
    }
    for name, table in tables.items():
        table.to_csv(DOCS / f"{name}.csv", index=False, float_format="%.4g", lineterminator="\n")
        print(name, table.to_string(index=False, float_format="{:.3f}".format), "", sep="\n")
    for (own, design), part in power.groupby(["own", "design"], sort=False):
        value, low, high = interpolate_power(part["truth"], part["detected"], part["sets"])
        print(f"{POWER:.0%} power, own errors {own}, {design}: {value:.3f} ({low:.3f} to {high:.3f})")
    draw_power(power)


def list_pairs(arms: Sequence[int]) -> dict[str, list[tuple[int, int]]]:
    """Returns pairs of arms with the same and with other outer folds; each arm is in one pair of each kind.

    Args:
        arms: numbers of the arms; arms 2k and 2k + 1 have the same outer folds.
    """
    first, second = sorted(arm for arm in arms if arm % 2 == 0), sorted(arm for arm in arms if arm % 2)
    return {
        "same": list(zip(first, second, strict=True)),
        "other": list(zip(first, second[1:] + second[:1], strict=True)),
    }


def summarise_real(labels: Ints, sources: Ints, arms: Mapping[int, NDArray[np.uint8]]) -> list[dict[str, Any]]:
    """Compares equal arms on the real sample in pairs, with all of their fits and with the first one alone.

    Args:
        labels: class of each landmark, shape (n,).
        sources: number of the source of each landmark, shape (n,).
        arms: predicted classes of each arm, shape (n_fits, n).

    Returns:
        A row for each number of fits and kind of pair.
    """
    rows = []
    for fits in (N_SEEDS, 1):
        n_classes = int(labels.max()) + 1
        counts = {
            arm: SourceCounts.of(labels, predicted[:fits].astype(np.int64), sources, n_classes)
            for arm, predicted in arms.items()
        }
        resamples = {arm: bootstrap_sources(of_arm, DRAWS) for arm, of_arm in counts.items()}
        for folds, pairs in list_pairs(list(arms)).items():
            tests = [swap_test(counts[one], counts[other], DRAWS) for one, other in pairs]
            intervals = [
                expanded_percentile_interval(resamples[one].gain_over(resamples[other]), len(counts[one].support))
                for one, other in pairs
            ]
            excluded = [one is not None and (one.low > 0 or one.high < 0) for one in intervals]
            rows.append(
                {
                    "folds": folds,
                    "fits": fits,
                    "pairs": len(pairs),
                    **_rate("rejected", [test.p <= ALPHA for test in tests]),
                    "excludes_0": np.mean(excluded),
                    "sd_difference": np.std([test.difference for test in tests]),
                    "detectable": np.median([test.min_detectable_difference or np.inf for test in tests]),
                }
            )
    return rows


def summarise_equal(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns how often simulated equal arms are called different, for each strength of sources and over all.

    Args:
        rows: a comparison of two arms for each data set and design.
    """
    rows = rows.assign(arms=rows["case"].str.rpartition("/")[0], between=rows["case"].str.rpartition("/")[2])
    parts = [*rows.groupby(["arms", "design", "between"], sort=False)]
    parts += [((*key, "all"), part) for key, part in rows.groupby(["arms", "design"], sort=False)]
    table = []
    for (arms, design, between), part in parts:
        rejected = part["p"] <= ALPHA
        rates = _rate("rejected", rejected)
        if between == "all":
            # Sets with one number have the same random draws, whatever the strength, so they are not independent.
            rate, error = rejected.mean(), 1.96 * rejected.groupby(part["number"]).mean().sem()
            rates = {"rejected": rate, "rejected_low": rate - error, "rejected_high": rate + error}
        excludes = ((part["low"] > 0) | (part["high"] < 0)).mean()
        row = {"arms": arms, "between": between, "design": design, "sets": len(part), **rates}
        table.append({**row, "excludes_0": excludes, "p_at_most_.01": (part["p"] <= 0.01).mean()})
    return pd.DataFrame(table)


def summarise_power(rows: pd.DataFrame, truths: pd.DataFrame) -> pd.DataFrame:
    """Returns how often simulated arms that differ are called different, with their true difference.

    Args:
        rows: a comparison of two arms for each data set and design.
        truths: true difference for each case and training set.
    """
    wide = truths.pivot_table("difference", "number", "case")
    table = []
    for (case, design), part in rows.groupby(["case", "design"], sort=False):
        own, _, gain = str(case).partition("/")
        # Without a gain, the arms are equal and only chance makes a difference, nearly the same one for all gains.
        gains = (wide[case] - wide[f"{own}/0.0"]).dropna()
        table.append(
            {
                "own": float(own),
                "gain": float(gain),
                "truth": gains.mean(),
                "truth_error": gains.sem(),
                "design": design,
                "sets": len(part),
                **_rate("detected", part["p"] <= ALPHA),
                "detectable": part["detectable"].median(),
            }
        )
    return pd.DataFrame(table).sort_values(["own", "design", "gain"], ignore_index=True)


def interpolate_power(truths: pd.Series, detected: pd.Series, sets: pd.Series) -> tuple[float, float, float]:
    """Interpolates the true difference that is detected with a probability of `POWER`.

    Args:
        truths: true differences, ascending.
        detected: shares of the data sets in which each was detected.
        sets: numbers of data sets.

    Returns:
        The difference, and the ends of its 95 % interval by binomial draws of the shares; infinite above the largest
        true difference.
    """
    draws = np.random.default_rng(0).binomial(sets, detected, (1000, len(sets))) / sets.to_numpy()
    # Power does not decrease; chance alone lets a rate do so.
    rates = np.maximum.accumulate(np.vstack([detected, draws]), axis=1)
    values = [np.interp(POWER, rate, truths, right=np.inf) for rate in rates]
    # An order statistic, since infinite values can't be interpolated.
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return float(values[0]), float(low), float(high)


def draw_power(power: pd.DataFrame) -> None:
    """Draws power against the true difference, a panel for each share of own errors."""
    looks = {
        GIVEN_SPLIT: ("given split, 33 test sources", ROLE_COLOURS["baseline"], ":", "D"),
        NESTED_CV: ("nested cross-validation, 141 sources", BLUE, "-", "o"),
        REPEATED: ("the same, 3 repeats", ORANGE, "--", "s"),
    }
    page = figure(10, 4.3, (0.7, 0.2, 0.6, 0.4))
    owns = sorted(power["own"].unique())
    for axes, own in zip(page.subplots(1, len(owns)), owns, strict=True):
        axes.axhline(POWER, color="black", linewidth=1)
        axes.axhline(ALPHA, color="black", linewidth=1)
        for design, (words, colour, line, mark) in looks.items():
            part = power[(power["own"] == own) & (power["design"] == design)]
            axes.plot(part["truth"], part["detected"], color=colour, linestyle=line, marker=mark, label=words)
        axes.set(title=f"{own:.0%} of the variance is each arm's own", ylim=(0, 1.03))
        axes.set(xlabel="true difference in macro F1", ylabel="detected with p ≤ .05")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    page.legend(*page.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(looks))
    page.savefig(DOCS / "power.png")


def _rate(name: str, happened: Sequence[bool] | pd.Series) -> dict[str, float]:
    """Returns a share and the ends of its 95 % interval (Wilson 1927)."""
    from scipy.stats import binomtest

    test = binomtest(int(np.sum(happened)), len(happened))
    interval = test.proportion_ci(LEVEL, method="wilson")
    return {name: test.statistic, f"{name}_low": interval.low, f"{name}_high": interval.high}
