"""The statistics of a nested report, computed again from its stored predictions with numpy and scikit-learn alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from handmade import summary_of
from numpy.typing import NDArray
from scipy.stats import norm, t
from sklearn.metrics import f1_score

from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.data.splits import make_outer_splits
from hirise_imb.metrics.classification import Predictions
from hirise_imb.pipeline import pooling
from hirise_imb.pipeline.division_fits import ArmFit, DivisionFits
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.records import Role
from hirise_imb.training.context import Division
from hirise_imb.training.trainer import CrossValidation, Run, Trainer

pytestmark = pytest.mark.usefixtures("blank_figures")

REPEATS, FOLDS, SEEDS = 2, 3, 2
DRAWS = 10_000
ROLES: dict[str, Role] = {"baseline": "baseline", "plain": "control", "broad": "strategy", "narrow": "strategy"}
RIGHT = {"baseline": 0.70, "plain": 0.80, "broad": 0.81, "narrow": 0.85}
"""Share of the landmarks whose true class is predicted in any case."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stored:
    """The stored predictions of an arm as numbers; classes and sources in the order in which they first appear."""

    labels: Ints
    sources: Ints
    predicted: Ints
    """Shape (n_fits, n)."""


@pytest.fixture(scope="module")
def report(whole_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repeats of three outer folds of the synthetic sample, two seeds each, with predictions made by hand.

    `broad` differs from the control everywhere, `narrow` in eight sources alone, so that all exchanges can be counted.
    """
    manifest = read_manifest(whole_sample, HIRISE)
    table = manifest.table
    truth = table["label"].to_numpy(np.int64)
    names = sorted(set(table.loc[truth > 0, "source"]))
    narrow = table["source"].isin(names[:8]).to_numpy()
    fits = []
    for repeat in range(REPEATS):
        for fold, splits in enumerate(make_outer_splits(manifest, FOLDS, repeat, 1)):
            trainer = cast("Trainer", SimpleNamespace(splits=splits))
            seeds = tuple(range(repeat * SEEDS, (repeat + 1) * SEEDS))
            division = Division(f"repeat {repeat + 1}, fold {fold + 1}", "nested-cv", trainer, {}, (0,), seeds)
            # The order of a fit's predictions is its own.
            rows = np.random.default_rng(fold).permutation(splits.test)
            arms = {}
            for name, role in ROLES.items():
                runs = []
                for seed in seeds:
                    predicted = guess(truth, "plain" if name == "narrow" else name, seed)
                    if name == "narrow":
                        predicted = np.where(narrow, guess(truth, name, seed), predicted)
                    runs.append(make_run(seed, tuple(table["image"][rows]), predicted[rows]))
                arms[name] = make_fit(name, role, tuple(runs))
            fits.append(DivisionFits(division, arms, {}))
    divisions = [one.division for one in fits]
    test = pooling.tested_landmarks(divisions, manifest)
    results = Results(
        name="nested",
        setting="Landmarks: synthetic.",
        study_toml='name = "nested"\n',
        classes=HIRISE.classes,
        test=test,
        data=manifest.summary().drop(columns="label"),
        arms=tuple(pooling.pool_arms(fits, REPEATS, list(test["image"]))),
        environment={"seconds": dict.fromkeys(ROLES, 1.0)},
        outer_folds=pooling.list_outer_folds(divisions, REPEATS, manifest),
    )
    folder = tmp_path_factory.mktemp("nested")
    write_report(results, folder)
    return folder


def guess(truth: Ints, arm: str, seed: int) -> Ints:
    """Returns the true class of a share of the images, and any class of the others."""
    rng = np.random.default_rng([seed, list(ROLES).index(arm)])
    return np.where(rng.random(len(truth)) < RIGHT[arm], truth, rng.integers(0, 8, len(truth)))


def make_run(seed: int, images: tuple[str, ...], predicted: Ints) -> Run:
    shares = (0.6 * np.eye(8)[predicted] + 0.05).astype(np.float32)
    return Run(seed, pd.DataFrame(), 0, Predictions(images, shares), 1.0, (), 1.0)


def make_fit(name: str, role: Role, runs: tuple[Run, ...]) -> ArmFit:
    validation = CrossValidation(
        seeds=(0,),
        epochs=(),
        capped=False,
        history=pd.DataFrame(),
        log_probabilities=np.zeros((1, 1, 8), np.float32),
        temperatures=(1.0,),
        confusions=np.eye(8, dtype=np.int64)[None],
        score=1.0,
        notes=(),
        seconds=1.0,
    )
    return ArmFit(name, role, f"what {name} does", Recipe(), validation, runs, {}, (), 0.0)


def read_predictions(report: Path, arm: str) -> Stored:
    table = pd.read_parquet(report / "predictions" / f"{arm}.parquet")
    fits = [fit for _, fit in table.groupby("seed", sort=False)]
    classes = list(dict.fromkeys(table["true_class"]))
    assert len(classes) == sum(str(column).startswith("p_") for column in table) == 8
    for fit in fits:
        assert fit["image"].tolist() == fits[0]["image"].tolist()
        assert fit["landmark"].is_unique
    return Stored(
        np.array([classes.index(name) for name in fits[0]["true_class"]]),
        pd.factorize(fits[0]["source"])[0].astype(np.int64),
        np.array([[classes.index(name) for name in fit["predicted_class"]] for fit in fits]),
    )


def macro_f1(labels: Ints, predicted: Ints) -> float:
    return float(f1_score(labels, predicted, labels=range(8), average="macro", zero_division=0))


def arm_of(report: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(arm for arm in summary_of(report)["arms"] if arm["name"] == name)
    return found


def count_pairs(stored: Stored) -> tuple[Ints, Ints, Ints]:
    """Landmarks of each source and class, and hits and predictions of each fit; shape (..., n_sources, 8)."""
    n_sources = stored.sources.max() + 1

    def count(classes: Ints, kept: NDArray[np.bool_]) -> Ints:
        counts = np.zeros((n_sources, 8), np.int64)
        np.add.at(counts, (stored.sources[kept], classes[kept]), 1)
        return counts

    everything = np.ones(len(stored.labels), bool)
    return (
        count(stored.labels, everything),
        np.stack([count(fit, fit == stored.labels) for fit in stored.predicted]),
        np.stack([count(fit, everything) for fit in stored.predicted]),
    )


@pytest.mark.parametrize("arm", list(ROLES))
def test_macro_f1_is_that_of_all_landmarks_together(report: Path, arm: str) -> None:
    stored, summary = read_predictions(report, arm), summary_of(report)
    assert len(stored.predicted) == REPEATS * SEEDS
    assert len(stored.labels) == sum(summary["support"])
    assert stored.sources.max() + 1 == len({row["source"] for row in summary["outer_folds"]})
    pooled = [macro_f1(stored.labels, fit) for fit in stored.predicted]
    assert arm_of(report, arm)["scores"]["macro_f1"] == pytest.approx(
        {"mean": np.mean(pooled), "low": min(pooled), "high": max(pooled)}
    )
    assert arm_of(report, arm)["selection_cost"]["outer"] == pytest.approx(np.mean(pooled))


def test_pooling_is_not_averaging_over_folds(report: Path) -> None:
    """Otherwise the test above would not tell them apart."""
    table = pd.read_parquet(report / "predictions" / "plain.parquet")
    folds = pd.DataFrame(summary_of(report)["outer_folds"])
    first = table[table["seed"] == table["seed"].iloc[0]].merge(folds[folds["repeat"] == 1], on="source")
    parts = [
        f1_score(part["true_class"], part["predicted_class"], average="macro", zero_division=0)
        for _, part in first.groupby("fold")
    ]
    assert len(parts) == FOLDS
    assert np.mean(parts) != pytest.approx(arm_of(report, "plain")["scores"]["macro_f1"]["mean"], abs=0.005)


@pytest.mark.parametrize(
    ("arm", "other", "contrast"), [("narrow", "plain", "vs_control"), ("broad", "plain", "vs_control")]
)
def test_p_is_the_share_of_exchanges_that_differ_as_much(report: Path, arm: str, other: str, contrast: str) -> None:
    """All exchanges of up to 13 sources, and otherwise 10,000 of seed 0; see `metrics.permutation`."""
    one, two = read_predictions(report, arm), read_predictions(report, other)
    n_sources = one.sources.max() + 1
    unequal = (count_pairs(one)[1] != count_pairs(two)[1]) | (count_pairs(one)[2] != count_pairs(two)[2])
    informative = np.flatnonzero(unequal.any(axis=(0, 2)))
    exact = len(informative) <= 13
    swaps: Any = itertools.product((0, 1), repeat=len(informative))
    if not exact:
        swaps = np.random.default_rng(0).integers(0, 2, (DRAWS, len(informative)))

    def difference(swap: Any) -> float:  # noqa: ANN401
        chosen = np.zeros(n_sources, bool)
        chosen[informative] = swap
        moved = chosen[one.sources]
        first, second = np.where(moved, two.predicted, one.predicted), np.where(moved, one.predicted, two.predicted)
        pairs = zip(first, second, strict=True)
        return sum(quick_macro_f1(one.labels, a) - quick_macro_f1(one.labels, b) for a, b in pairs)

    observed = abs(difference(np.zeros(len(informative), int)))
    as_large = [abs(difference(swap)) >= observed - 1e-9 for swap in swaps]
    p = np.mean(as_large) if exact else (1 + sum(as_large)) / (1 + DRAWS)
    test = arm_of(report, arm)[contrast]["test"]
    assert exact == (arm == "narrow")
    assert 0.001 < p < 0.999
    assert (test["exact"], test["informative_sources"]) == (exact, len(informative))
    assert test["p"] == pytest.approx(p)


def quick_macro_f1(labels: Ints, predicted: Ints) -> float:
    """The same as `macro_f1`, which takes a hundred times as long."""
    hits = np.bincount(labels[labels == predicted], minlength=8)
    return float(np.mean(2 * hits / (np.bincount(labels, minlength=8) + np.bincount(predicted, minlength=8))))


def test_p_values_are_adjusted_after_holm(report: Path) -> None:
    families = {"vs_control": ("broad", "narrow"), "vs_baseline": ("plain", "broad", "narrow")}
    for contrast, family in families.items():
        tests = sorted((arm_of(report, arm)[contrast]["test"] for arm in family), key=lambda test: float(test["p"]))
        adjusted = np.maximum.accumulate([min(1, (len(tests) - n) * test["p"]) for n, test in enumerate(tests)])
        assert [test["p_holm"] for test in tests] == pytest.approx(adjusted.tolist())


@pytest.mark.parametrize(
    ("arm", "other", "contrast"), [("broad", "plain", "vs_control"), ("narrow", "baseline", "vs_baseline")]
)
def test_the_interval_comes_from_the_same_resamples_of_both_arms(
    report: Path, arm: str, other: str, contrast: str
) -> None:
    """Sources drawn with seed 0 and fits with seed 1; an undrawn class counts as the mean of the drawn ones."""
    stored = [read_predictions(report, name) for name in (arm, other)]
    n_sources, n_fits = int(stored[0].sources.max()) + 1, REPEATS * SEEDS
    draws = np.random.default_rng(0).multinomial(n_sources, np.full(n_sources, 1 / n_sources), DRAWS)
    shares = np.random.default_rng(1).multinomial(n_fits, np.full(n_fits, 1 / n_fits), DRAWS) / n_fits
    scores: list[Floats] = []
    for one in stored:
        support, hits, claims = count_pairs(one)
        drawn = draws @ support
        f1 = np.zeros((DRAWS, 8))
        for fit in range(n_fits):
            f1 += shares[:, fit, None] * 2 * (draws @ hits[fit]) / np.maximum(drawn + draws @ claims[fit], 1)
        f1[drawn == 0] = np.nan
        scores.append(np.nanmean(f1, axis=1))
    tail = norm.cdf(np.sqrt(n_sources / (n_sources - 1)) * t.ppf(0.025, n_sources - 1))
    low, high = np.quantile(scores[0] - scores[1], [tail, 1 - tail])
    against = arm_of(report, arm)[contrast]
    assert against["interval"] == pytest.approx({"low": low, "high": high})
    assert against["share_above"] == pytest.approx(np.mean(scores[0] - scores[1] > 1e-12))
