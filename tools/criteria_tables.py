"""Tables of docs/selection.md: how good the choices of each criterion are on landmarks that took no part in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.splits import ImageTable
from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources
from hirise_imb.strategies import CONTROL
from tools.candidate_fits import JOINT, NO_EPOCHS, ONE_SEED, POSTHOC
from tools.criteria import CRITERIA, DEFAULTS, REFERENCE, RESAMPLES, Criterion, add_error_of_gap

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 1000
"""Resamples of the sources for the standard errors of outer scores."""
KEY = ["strategy", "place", "base", "epochs_by"]
"""Columns that name a row within an outer fold."""


@dataclass(frozen=True)
class Results:
    """Results of all settings in complete repeats."""

    rows: pd.DataFrame
    """One row for each setting in each outer fold; see `tools.criteria`."""
    outer: NDArray[np.uint8]
    """Predicted classes of the landmarks of the outer fold, 255 for all others, shape (n_rows, n_seeds, n)."""
    labels: Ints
    """Class id of each landmark, shape (n,)."""
    sources: Ints
    """Number of the source of each landmark, from 0, shape (n,)."""
    n_classes: int

    @cached_property
    def repeats(self) -> list[int]:
        """Numbers of the repeats."""
        return sorted(self.rows["repeat"].unique().tolist())

    @cached_property
    def _weights(self) -> Floats:
        """How often each source counts: once, and then in resamples, shape (1 + DRAWS, n_sources)."""
        n = int(self.sources.max()) + 1
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS)
        return np.concatenate([np.ones((1, n)), drawn])

    @cached_property
    def _known_scores(self) -> dict[tuple[int, ...], Floats]:
        return {}

    def score(self, chosen: Sequence[int]) -> Floats:
        """Returns macro F1 of predictions pooled over outer folds, mean over seeds, shape (1 + DRAWS,).

        The first value is that of all sources, the others are those of resamples, the same for all choices.

        Args:
            chosen: numbers of rows, one for each outer fold of a repeat.
        """
        key = tuple(chosen)
        if key not in self._known_scores:
            predicted = self.outer[list(key)].min(axis=0).astype(np.int64)
            counts = SourceCounts.of(self.labels, predicted, self.sources, self.n_classes)
            self._known_scores[key] = np.nanmean(counts.f1(self._weights), axis=(0, 2))
        return self._known_scores[key]


def read_results(out: Path, images: ImageTable, landmarks: Ints) -> Results:
    """Reads the results of complete repeats.

    Args:
        out: folder that `compare_criteria run` wrote.
        images: images of the data set.
        landmarks: canonical images, in the order of predictions.
    """
    rows = pd.read_csv(out / "scores.csv", keep_default_na=False, na_values={"f1_seed1": [""], "f1_seed2": [""]})
    with np.load(out / "predictions.npz") as file:
        inner, outer = file["inner"], file["outer"]
    sizes = pd.crosstab(rows["repeat"], rows["fold"])
    complete = sizes.index[(sizes == sizes.to_numpy().max()).all(axis=1)]
    # Results arrive in the order in which processes finish.
    rows = rows[rows["repeat"].isin(complete)].sort_values(["repeat", "fold", *KEY])
    order = rows.index.to_numpy()
    rows = rows.reset_index(drop=True)
    labels = images.labels[landmarks]
    sources = np.unique(images.sources[landmarks], return_inverse=True)[1]
    n_classes = len(images.classes)
    resamples = np.stack([_resample(one, labels, sources, n_classes) for one in inner[order]])
    return Results(add_error_of_gap(rows, resamples), outer[order], labels, sources, n_classes)


def _resample(predicted: NDArray[np.uint8], labels: Ints, sources: Ints, n_classes: int) -> Floats:
    """Returns the macro F1 of out-of-fold predictions in resamples of the sources, as `criteria.measure` does."""
    seeds = predicted[(predicted < n_classes).any(axis=1)]
    part = (seeds < n_classes).all(axis=0)
    part_sources = np.unique(sources[part], return_inverse=True)[1]
    counts = SourceCounts.of(labels[part], seeds[:, part].astype(np.int64), part_sources, n_classes)
    return bootstrap_sources(counts, RESAMPLES).macro_f1()


@dataclass(frozen=True)
class Choice:
    """What a criterion chose among the settings of one strategy, or among strategies."""

    chosen: NDArray[np.int64]
    """Number of the row of each repeat and outer fold, shape (n_repeats, n_folds)."""
    inner: Floats
    """Inner score, mean over outer folds, shape (n_repeats,)."""
    outer: Floats
    """Outer score on all sources and in resamples, shape (n_repeats, 1 + DRAWS)."""


def choose(results: Results, criterion: Criterion, strategy: str | None) -> Choice:
    """Applies a criterion in every outer fold.

    Args:
        results: results of all settings.
        criterion: criterion.
        strategy: strategy among whose settings it chooses; None for all strategies with heads of their own. An
            adjustment starts from the control's setting that the same criterion chose.
    """
    rows = criterion.select(results.rows)
    own_heads = rows.loc[rows["base"] < 0, "strategy"].unique().tolist()
    chosen = []
    for _, in_fold in rows.groupby(["repeat", "fold"]):
        if strategy is None:
            best = [criterion.choose(in_fold[in_fold["strategy"] == name]) for name in own_heads]
            chosen.append(best[int(np.argmax(criterion.values(in_fold.loc[best])))])
            continue
        base = -1
        if strategy in POSTHOC:
            base = in_fold["place"][criterion.choose(in_fold[in_fold["strategy"] == CONTROL])]
        chosen.append(criterion.choose(in_fold[(in_fold["strategy"] == strategy) & (in_fold["base"] == base)]))
    return describe(results, np.reshape(chosen, (len(results.repeats), -1)), criterion.inner)


def choose_place(results: Results, criterion: Criterion, strategy: str, place: int) -> Choice:
    """Takes the same setting of a strategy in every outer fold, with the epochs of a criterion."""
    rows = criterion.select(results.rows)
    rows = rows[(rows["strategy"] == strategy) & (rows["place"] == place)].sort_values(["repeat", "fold"])
    return describe(results, rows.index.to_numpy().reshape(len(results.repeats), -1), criterion.inner)


def describe(results: Results, chosen: Ints, inner: str) -> Choice:
    """Returns a choice with its scores."""
    return Choice(
        chosen,
        results.rows[inner].to_numpy()[chosen].mean(axis=1),
        np.stack([results.score(rows) for rows in chosen.tolist()]),
    )


def correlate(results: Results, criterion: Criterion, strategies: Sequence[str]) -> float:
    """Returns Spearman's correlation of inner values and outer scores over settings, mean over repeats.

    Inner values are means over outer folds, so that each setting has one value and one score in a repeat.
    """
    rows = criterion.select(results.rows)
    rows = rows[rows["strategy"].isin(strategies)]
    correlations = []
    for _, of_repeat in rows.groupby("repeat"):
        settings = [group for _, group in of_repeat.groupby(["strategy", "place"])]
        values = pd.Series([criterion.values(one).mean() for one in settings])
        scores = pd.Series([results.score(one.sort_values("fold").index.tolist())[0] for one in settings])
        correlations.append(values.corr(scores, method="spearman"))
    return float(np.mean(correlations))


def format_value(draws: Floats) -> str:
    """Returns a mean over repeats with its standard error over sources; if there are several, their spread in brackets.

    Args:
        draws: values on all sources and in resamples, shape (n_repeats, 1 + DRAWS).
    """
    text = f"{_number(draws[:, 0].mean())} ± {_number(draws[:, 1:].mean(axis=0).std())}"
    return f"{text} ({_number(draws[:, 0].std(ddof=1))})" if len(draws) > 1 else text


def _number(value: float, digits: int = 3) -> str:
    """Returns a rounded number with a true minus, without one if it is zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def print_tables(results: Results) -> pd.DataFrame:
    """Prints the tables of the sample; returns what criteria chose, one row for each repeat and strategy."""
    rows = results.rows
    strategies = rows.loc[rows["base"] < 0, "strategy"].unique().tolist()
    names = [name for name, one in CRITERIA.items() if one.epochs_by in rows["epochs_by"].unique()]
    within = {name: {s: choose(results, CRITERIA[name], s) for s in strategies} for name in names}
    print(f"Complete repeats: {len(results.repeats)}\n")
    across = {name: choose(results, CRITERIA[name], None) for name in names}
    _print_criteria(results, within, across, strategies)
    _print_strategies(results, within)
    _print_epochs(results)
    posthoc = _print_posthoc(results, within)
    return pd.DataFrame(
        [
            {
                "repeat": repeat,
                "criterion": name,
                "strategy": strategy,
                "places": " ".join(map(str, rows["place"].to_numpy()[one.chosen[i]])),
                "inner": one.inner[i],
                "outer": one.outer[i, 0],
            }
            for name in names
            for strategy, one in (within[name] | posthoc.get(name, {})).items()
            for i, repeat in enumerate(results.repeats)
        ]
    )


def _print_criteria(
    results: Results, within: dict[str, dict[str, Choice]], across: dict[str, Choice], strategies: Sequence[str]
) -> None:
    """Prints how good the choices of each criterion are, first among the settings of a strategy, then across them."""
    print("| criterion | within: outer gain | difference | inner gain | rank correlation |", end="")
    print(" across: outer score | difference | inner − outer | rank correlation |")
    print("|---|" + "---:|" * 8)
    outer = {name: np.mean([one.outer for one in by.values()], axis=0) for name, by in within.items()}
    for name, by_strategy in within.items():
        criterion, best = CRITERIA[name], across[name]
        inner = float(np.mean([one.inner.mean() for one in by_strategy.values()]))
        default = float(np.mean([choose_place(results, criterion, s, 0).inner.mean() for s in strategies]))
        correlation = float(np.mean([correlate(results, criterion, [s]) for s in strategies]))
        is_first = name == REFERENCE
        cells = [
            format_value(outer[name] - outer[DEFAULTS]),
            "–" if is_first else format_value(outer[name] - outer[REFERENCE]),
            _number(inner - default),
            _number(correlation, 2),
            format_value(best.outer),
            "–" if is_first else format_value(best.outer - across[REFERENCE].outer),
            _number(best.inner.mean() - best.outer[:, 0].mean()),
            _number(correlate(results, criterion, strategies), 2),
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def _print_strategies(results: Results, within: dict[str, dict[str, Choice]]) -> None:
    """Prints what tuning gains for each strategy by the first criterion, and how much choices differ."""
    print("| strategy | defaults, outer | tuned, outer | outer gain | inner gain | different settings in five folds |")
    print("|---|---:|---:|---:|---:|---:|")
    places = results.rows["place"].to_numpy()
    for strategy, tuned in within[REFERENCE].items():
        default = within[DEFAULTS][strategy]
        cells = [
            _number(default.outer[:, 0].mean()),
            _number(tuned.outer[:, 0].mean()),
            format_value(tuned.outer - default.outer),
            _number(tuned.inner.mean() - default.inner.mean()),
            _number(float(np.mean([len(np.unique(places[one])) for one in tuned.chosen])), 1),
        ]
        print(f"| {strategy} | {' | '.join(cells)} |")
    print()


def _print_epochs(results: Results) -> None:
    """Prints how rules for epochs change the scores of all trained settings, without a choice among settings."""
    print("| rule for epochs | inner score, change | outer score, change |")
    print("|---|---:|---:|")
    reference = score_trained(results, REFERENCE)
    for name, criterion in CRITERIA.items():
        if criterion.epochs_by not in (JOINT, ONE_SEED):
            one = score_trained(results, name)
            change = format_value(one.outer - reference.outer)
            print(f"| {name} | {_number(float((one.inner - reference.inner).mean()))} | {change} |")
    print()


def score_trained(results: Results, name: str) -> Choice:
    """Returns mean scores of all trained settings with the epochs of a criterion."""
    rows = CRITERIA[name].select(results.rows)
    settings = rows.loc[(rows["base"] < 0) & (rows["epochs_by"] != NO_EPOCHS), ["strategy", "place"]].drop_duplicates()
    all_scores = [choose_place(results, CRITERIA[name], *one) for one in settings.itertuples(index=False)]
    return Choice(
        np.stack([one.chosen for one in all_scores]),
        np.mean([one.inner for one in all_scores], axis=0),
        np.mean([one.outer for one in all_scores], axis=0),
    )


def _print_posthoc(results: Results, within: dict[str, dict[str, Choice]]) -> dict[str, dict[str, Choice]]:
    """Prints what adjustments gain over the control that the same criterion chose, and over that without a choice."""
    rows = results.rows
    chosen: dict[str, dict[str, Choice]] = {}
    print("| criterion |" + "".join(f" {name}: outer gain | inner gain | without effect |" for name in POSTHOC))
    print("|---|" + "---:|" * 3 * len(POSTHOC))
    for name, by_strategy in within.items():
        if CRITERIA[name].epochs_by not in rows.loc[rows["base"] >= 0, "epochs_by"].unique():
            continue
        control = by_strategy[CONTROL]
        chosen[name] = {strategy: choose(results, CRITERIA[name], strategy) for strategy in POSTHOC}
        cells = []
        for one in chosen[name].values():
            cells += [format_value(one.outer - control.outer), _number(one.inner.mean() - control.inner.mean())]
            cells.append(f"{(rows['place'].to_numpy()[one.chosen] == 0).mean():.0%}")
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| always the same adjustment | outer gain | inner gain |\n|---|---:|---:|")
    control = within[REFERENCE][CONTROL]
    bases = rows["place"].to_numpy()[control.chosen]
    for strategy, settings in POSTHOC.items():
        for place, (values, _) in enumerate(settings[1:], 1):
            fixed = _adjusted(results, bases, strategy, place)
            gain, inner = format_value(fixed.outer - control.outer), _number(fixed.inner.mean() - control.inner.mean())
            setting = ", ".join(f"{key} {value}" for key, value in values.items())
            print(f"| {strategy}, {setting} | {gain} | {inner} |")
    print()
    return chosen


def _adjusted(results: Results, bases: Ints, strategy: str, place: int) -> Choice:
    """Takes the same adjustment of the given settings of the control in every outer fold."""
    reference = CRITERIA[REFERENCE]
    rows = reference.select(results.rows)
    rows = rows[(rows["strategy"] == strategy) & (rows["place"] == place)]
    by_fold = rows.reset_index().set_index(["repeat", "fold", "base"])["index"].sort_index()
    chosen = [
        [by_fold[repeat, fold, base] for fold, base in enumerate(of)]
        for repeat, of in zip(results.repeats, bases, strict=True)
    ]
    return describe(results, np.array(chosen), reference.inner)
