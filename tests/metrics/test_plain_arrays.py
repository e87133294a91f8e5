"""Scores and uncertainty of plain arrays: the numbers of the example report again, from its predictions alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handmade import EXAMPLE
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from hirise_imb.metrics import (
    calibration_error,
    class_scores,
    classification,
    macro_f1_score,
    minimum_detectable_difference,
    paired_source_bootstrap,
    source_bootstrap,
    source_swap_test,
)
from hirise_imb.metrics.detectable import simulate_detectable_difference

Array = NDArray[Any]
T_QUANTILE = 1.363430
"""The .9 quantile of the t distribution with 11 degrees of freedom."""

ARMS = ("combined", "baseline")


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((EXAMPLE / "summary.json").read_text())
    return summary


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(EXAMPLE / "predictions" / f"{name}.parquet") for name in ARMS}


def rows(table: pd.DataFrame) -> tuple[Array, Array, Array]:
    """True classes, predicted classes of each seed, and sources, as a user reads them from the file."""
    fits = [fit for _, fit in table.groupby("seed", sort=False)]
    first = fits[0]
    return (
        first["true_class"].to_numpy(),
        np.stack([fit["predicted_class"].to_numpy(object) for fit in fits]),
        first["source"].to_numpy(),
    )


def arm(summary: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in summary["arms"] if entry["name"] == name)
    return found


def test_the_interval_is_that_of_the_report(summary: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    for name in ARMS:
        interval = source_bootstrap(*rows(tables[name]), labels=summary["classes"])
        expected = arm(summary, name)["uncertainty"]["score"]
        assert (interval.low, interval.high) == pytest.approx((expected["low"], expected["high"]), abs=1e-12)
        assert interval.estimate == pytest.approx(arm(summary, name)["scores"]["macro_f1"]["mean"], abs=1e-12)
        assert interval.n_sources == summary["inference"]["sources"]


def test_difference_and_p_value_are_those_of_the_report(
    summary: dict[str, Any], tables: dict[str, pd.DataFrame]
) -> None:
    y_true, combined, sources = rows(tables["combined"])
    baseline = rows(tables["baseline"])[1]
    expected = arm(summary, "combined")["vs_baseline"]
    difference = paired_source_bootstrap(y_true, combined, baseline, sources)
    assert difference.estimate == pytest.approx(expected["scores"]["macro_f1"], abs=1e-12)
    assert (difference.low, difference.high) == pytest.approx(
        (expected["interval"]["low"], expected["interval"]["high"]), abs=1e-12
    )
    test = source_swap_test(y_true, combined, baseline, sources)
    assert test.p == pytest.approx(expected["test"]["p"], abs=1e-12)
    assert test.min_detectable_difference == pytest.approx(expected["test"]["resolvable"], abs=1e-12)


def coins(n_sources: int = 12, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """True classes, two classifiers with three fits each, and sources."""
    rng = np.random.default_rng(seed)
    sources = np.repeat([f"s{k}" for k in range(n_sources)], 8)
    y_true = rng.integers(0, 3, len(sources))
    a, b = (
        np.where(rng.random((3, len(y_true))) < right, y_true, rng.integers(0, 3, (3, len(y_true))))
        for right in (0.8, 0.5)
    )
    return y_true, a, b, sources


def test_a_function_of_confusion_matrices_is_resampled_as_named_scores_are() -> None:
    y_true, a, b, sources = coins()
    for metric in ("accuracy", "balanced_accuracy", "weighted_f1", "kappa"):
        named = source_bootstrap(y_true, a, sources, metric=metric, n_resamples=200)
        assert named.low < named.estimate < named.high
    # Where every resample draws all classes, macro F1 of the confusion matrix is macro F1 of the counts.
    by_name, by_function = (
        paired_source_bootstrap(y_true, a, b, sources, metric=metric, n_resamples=500)
        for metric in ("macro_f1", classification.macro_f1)
    )
    assert (by_name.estimate, by_name.low, by_name.high) == pytest.approx(
        (by_function.estimate, by_function.low, by_function.high), abs=1e-12
    )


@pytest.mark.parametrize("n_resamples", [2, 300, 1100])
def test_resamples_of_accuracy_are_those_of_numpy(n_resamples: int) -> None:
    y_true, a, _, sources = coins()
    interval = source_bootstrap(y_true, a, sources, metric="accuracy", n_resamples=n_resamples, seed=3, level=0.8)
    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), n_resamples)
    shares = np.random.default_rng(4).multinomial(3, np.full(3, 1 / 3), n_resamples) / 3
    hits = (a == y_true).reshape(3, 12, 8).sum(axis=2)
    values = (draws @ hits.T / (8 * 12) * shares).sum(axis=1)
    # Hesterberg's expanded percentiles: those of the t distribution, at the scale of twelve sources.
    tail = NormalDist().cdf((12 / 11) ** 0.5 * -T_QUANTILE)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [tail, 1 - tail])), abs=1e-6)


def test_a_fit_or_a_metric_without_a_score_is_left_out_of_the_interval() -> None:
    y_true, a, _, sources = coins()
    fits = np.vstack([a[:2], np.zeros((1, len(y_true)), int)])

    def accuracy_if_all_are_predicted(confusion: Array) -> float:
        assert confusion.dtype == np.int64
        return float(np.trace(confusion) / confusion.sum() if confusion.any(axis=0).all() else np.nan)

    found = source_bootstrap(y_true, fits, sources, metric=accuracy_if_all_are_predicted, n_resamples=300)
    assert np.isnan(found.estimate)
    # Resamples that do not draw the third fit are defined.
    assert 0.5 < found.low < found.high < 1
    never = source_bootstrap(y_true, a, sources, metric=lambda _: np.nan, n_resamples=10)
    assert np.isnan([never.estimate, never.low, never.high]).all()


def test_a_class_that_only_labels_name_counts_as_zero_in_differences() -> None:
    y_true, a, b, sources = coins()
    for function in (paired_source_bootstrap, source_swap_test):
        found, more = (vars(function(y_true, a, b, sources, labels=labels)) for labels in (None, [0, 1, 2, 7]))
        for name in {"estimate", "low", "high", "difference", "min_detectable_difference"} & set(found):
            assert more[name] == pytest.approx(found[name] * 3 / 4)


def test_random_exchanges_of_plain_arrays_follow_the_seed_which_is_zero_by_default() -> None:
    y_true, a, _, sources = coins(20)
    default, zero, one = (
        source_swap_test(y_true, a[0], a[1], sources, n_permutations=500, **seed)
        for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    assert default == zero
    assert not zero.exact
    assert zero.p != one.p


def test_another_seed_draws_other_sources() -> None:
    y_true, a, _, sources = coins()
    one, same, other = (source_bootstrap(y_true, a, sources, n_resamples=200, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.low != other.low


def test_labels_and_sources_of_any_type_give_the_same_numbers() -> None:
    y_true, a, b, sources = coins()
    names = np.array(["x", "y", "z"])
    expected = source_swap_test(y_true, a, b, sources)
    assert source_swap_test(pd.Series(names[y_true]), names[a].tolist(), names[b], pd.Series(sources)) == expected
    interval = source_bootstrap(y_true, a[0], sources, n_resamples=100)
    assert source_bootstrap(y_true > 0, a[0] > 0, sources, n_resamples=100).n_sources == interval.n_sources == 12


def test_five_sources_have_no_interval() -> None:
    y_true, a, _, sources = coins(5)
    interval = source_bootstrap(y_true, a, sources, n_resamples=100)
    assert np.isnan([interval.low, interval.high]).all()
    assert 0.5 < interval.estimate < 1


def test_scores_of_plain_arrays() -> None:
    y_true, a, _, _ = coins()
    table = class_scores(y_true, a[0], labels=[2, 1, 0, 7])
    assert table.index.tolist() == [2, 1, 0, 7]
    np.testing.assert_allclose(table["f1"], f1_score(y_true, a[0], labels=[2, 1, 0, 7], average=None, zero_division=0))
    assert table["support"].tolist() == [*np.bincount(y_true)[::-1], 0]
    assert macro_f1_score(y_true, a[0], labels=[0, 1, 2, 7]) == pytest.approx(table["f1"].sum() / 4)


def test_calibration_error_of_plain_arrays() -> None:
    probabilities = [[0.9, 0.1], [0.6, 0.4]]
    # In two bins or more, each prediction has a bin of its own; in one, their mistakes cancel in part.
    assert calibration_error(["b", "a"], probabilities, labels=["a", "b"]) == pytest.approx((0.9 + 0.4) / 2)
    assert calibration_error(["b", "a"], probabilities, labels=["a", "b"], n_bins=1) == pytest.approx(1.5 / 2 - 0.5)
    assert calibration_error(["b", "b"], probabilities, labels=["b", "a"]) == pytest.approx((0.1 + 0.4) / 2)
    assert calibration_error([0, 1], np.eye(2, dtype=int)) == 0


SHAPE = r"^y_true and y_pred must have one label for each row, got "
COLUMNS = r"^probabilities must have the shape \(n, n_classes\), here "


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([0, None], [0, 1], "^y_true has a missing value"),
        ([0, 1], [0, None], "^y_pred has a missing value"),
        ([0, 1], [0], SHAPE + r"\(2,\) and \(1,\)$"),
        ([], [], SHAPE + r"\(0,\) and \(0,\)$"),
        ([[0, 1]], [[0, 1]], SHAPE + r"\(1, 2\) and \(1, 2\)$"),
    ],
)
def test_scores_refuse_labels_that_are_not_one_for_each_row(y_true: ArrayLike, y_pred: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_scores(y_true, y_pred)


@pytest.mark.parametrize(
    ("y_true", "probabilities", "options", "message"),
    [
        ([0, None], [[0.5, 0.5]] * 2, {}, "^y_true has a missing value"),
        ([0, 1], [[0.5, 0.5]], {}, COLUMNS + r"\(2, 2\), got \(1, 2\)$"),
        ([0, 1], [[1.0], [1.0]], {}, COLUMNS + r"\(2, 2\), got \(2, 1\)$"),
        ([], np.ones((0, 2)), {"labels": [0, 1]}, COLUMNS + r"\(0, 2\), got \(0, 2\)$"),
        ([[0, 1]], [[0.5, 0.5]], {}, COLUMNS + r"\(2, 2\), got \(1, 2\)$"),
        ([0, 1], [[0.5, 0.5], [-0.5, 0.5]], {}, r"^probabilities must be in \[0, 1\]$"),
        ([0, 1], [[0.5, 0.5], [1.5, 0.5]], {}, r"^probabilities must be in \[0, 1\]$"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], {}, r"^probabilities must be in \[0, 1\]$"),
        ([0, 1], [["low", "high"]] * 2, {}, "^could not convert string to float"),
        ([0, 1], [[0.5, 0.5]] * 2, {"n_bins": 0}, "^n_bins must be positive, got 0$"),
    ],
)
def test_calibration_error_refuses_what_are_no_probabilities_of_the_rows(
    y_true: ArrayLike, probabilities: ArrayLike, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        calibration_error(y_true, probabilities, **options)


def test_the_minimum_detectable_difference_falls_with_the_number_of_sources() -> None:
    few, many = (np.tile([0, 0, 0, 1], 2 * n) for n in (8, 60))
    sizes = [
        minimum_detectable_difference(y, np.repeat(np.arange(len(y) // 8), 8), majority=0, n_fits=1).all_classes
        for y in (few, many)
    ]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("options", [{}, {"majority": "b"}, {"majority": "c", "n_fits": 2}])
def test_the_minimum_detectable_difference_is_that_of_the_counts_in_each_source(options: dict[str, Any]) -> None:
    classes = ["c", "b", "a"]
    y_true, sources = np.tile(["b", "b", "b", "c"], 8), np.repeat(np.arange(8), 4)
    found = minimum_detectable_difference(y_true, sources, labels=classes, **options)
    support = pd.crosstab(sources, y_true).reindex(columns=classes, fill_value=0).to_numpy()
    majority = classes.index(options["majority"]) if options else None
    assert found == simulate_detectable_difference(support, majority, options.get("n_fits", 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"majority": 3}, "^majority must be one of the classes, got 3$"),
        ({"n_fits": 0}, "^n_fits must be positive, got 0$"),
    ],
)
def test_a_simulation_refuses_an_unknown_majority_class_and_no_fits(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minimum_detectable_difference([0, 1], ["a", "b"], **options)


@pytest.mark.parametrize("function", [paired_source_bootstrap, source_swap_test])
@pytest.mark.parametrize("name", ["y_pred_a", "y_pred_b"])
def test_the_classifier_with_wrong_predictions_is_named(function: Callable[..., Any], name: str) -> None:
    arguments = {"y_true": [0, 1], "y_pred_a": [0, 1], "y_pred_b": [0, 1], "sources": ["a", "b"], name: [0]}
    with pytest.raises(ValueError, match=rf"^{name} must have the shape \(2,\), or \(n_fits, 2\), got \(1, 1\)$"):
        function(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_true": [], "y_pred": [], "sources": []}, r"^y_true must be one class for each row, got shape \(0,\)$"),
        ({"y_true": [[0, 1, 0]]}, r"^y_true must be one class for each row, got shape \(1, 3\)$"),
        ({"y_pred": np.ones((0, 3))}, r"^y_pred must have the shape .*, got \(0, 3\)$"),
        ({"y_pred": [[[0], [1], [2]]]}, r"^y_pred must have the shape .*, got \(1, 3, 1\)$"),
        ({"y_pred": [0, 1]}, r"y_pred must have the shape \(3,\), or \(n_fits, 3\), got \(1, 2\)"),
        ({"sources": ["a", None, "b"]}, "sources must be one source for each of 3 rows, none of them missing"),
        ({"sources": ["a", "b"]}, "sources must be one source for each of 3 rows"),
        ({"labels": [0, 1]}, "y_pred has the class 2, which labels do not name"),
        ({"labels": [0, 1, 2, 2]}, "labels must not name a class twice"),
        ({"y_true": ["a", None, "b"]}, "y_true has a missing value"),
        ({"y_true": ["a", "b", "c"]}, "y_true and y_pred must have labels of one type"),
        ({"metric": "f1"}, "metric must be a function or one of macro_f1, weighted_f1"),
        ({"level": 95}, "^level must be between 0 and 1, got 95$"),
        ({"level": 0}, "^level must be between 0 and 1, got 0$"),
        ({"level": 1}, "^level must be between 0 and 1, got 1$"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"y_true": [0, 1, 0], "y_pred": [0, 1, 2], "sources": ["a", "b", "b"], **changes}
    with pytest.raises(ValueError, match=message):
        source_bootstrap(**arguments, n_resamples=10)
