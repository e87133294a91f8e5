"""What selection cost: inner and outer scores, gains, and how the chosen settings differ between outer folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import summary_of, without_figures
from matplotlib.collections import PathCollection
from matplotlib.text import Text
from nested_results import FOLDS, LUCK, SEEDS, Ints, guess, make_arm, make_landmarks, make_results
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from hirise_imb.reporting import Arm, Results, selection, write_report
from hirise_imb.reporting.figures import gallery
from hirise_imb.reporting.html.selection_tables import selection_view
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.records import Origin
from hirise_imb.reporting.selection import selection_cost
from hirise_imb.reporting.summary.content import of_study

LABELS = make_landmarks()["label"].to_numpy(np.int64)
REPEATS = 2
DIVISIONS = REPEATS * FOLDS


def fits(right: float, seed: int) -> list[Ints]:
    return [guess(LABELS, right, 10 * seed + fit) for fit in range(REPEATS * len(SEEDS))]


CONTROL = fits(0.7, 1)


@pytest.fixture(scope="module")
def results() -> Results:
    """Two repeats of three folds with two seeds.

    `shift` predicts as the control in fold 3 of the first repeat, and for a single seed in fold 1 of the second one.
    """
    plain = make_results(make_arm("baseline", "baseline", CONTROL, scores=[0.1] * DIVISIONS), repeats=REPEATS)
    shifted = fits(0.8, 2)
    first, second = plain.fold_of_landmark
    for fit in (0, 1):
        shifted[fit][first == 2] = CONTROL[fit][first == 2]
    shifted[2][second == 0] = CONTROL[2][second == 0]
    settings: list[dict[str, str | float | int]] = [
        {"tau": tau, "kind": "a"} for tau in (0.5, 1.0, 0.5, 0.5, 0.25, 1.0)
    ]
    arms = [
        make_arm("baseline", "baseline", fits(0.4, 3), scores=[0.30, 0.40, 0.50, 0.30, 0.40, 0.50]),
        make_arm("baseline_to_the_end", "baseline_to_the_end", fits(0.5, 4), scores=[0.5] * DIVISIONS),
        make_arm(
            "plain",
            "control",
            CONTROL,
            scores=[0.60, 0.61, 0.62, 0.63, 0.64, 0.65],
            settings=[{"rate": 0.1}] * DIVISIONS,
            first_trials=[0.60, 0.60, 0.60, 0.60, 0.60, 0.60],
        ),
        make_arm(
            "shift",
            "strategy",
            shifted,
            scores=[0.70, 0.71, 0.72, 0.73, 0.74, 0.75],
            settings=settings,
            first_trials=[0.69, 0.69, 0.69, 0.69, 0.69, 0.69],
        ),
        make_arm(
            "twin",
            "strategy",
            CONTROL,
            scores=[0.6] * DIVISIONS,
            settings=[{"tau": 0.0}] * 5 + [{"gamma": 1.0}],
            first_trials=[0.5, None, 0.5, 0.5, 0.5, 0.5],
        ),
    ]
    return make_results(*arms, repeats=REPEATS)


def arm_of(results: Results, name: str) -> Arm:
    return next(arm for arm in results.arms if arm.name == name)


def outer(results: Results, name: str) -> float:
    """Macro F1 of all landmarks together, mean over fits."""
    predictions = arm_of(results, name).predictions
    return float(np.mean([f1_score(LABELS, fit.labels(), average="macro") for fit in predictions]))


def test_inner_and_outer_scores_with_their_gap_and_gains(results: Results) -> None:
    cost = selection_cost(results, arm_of(results, "shift"))
    assert cost.inner == pytest.approx(0.725)
    assert cost.outer == pytest.approx(outer(results, "shift"))
    assert cost.gap == pytest.approx(0.725 - outer(results, "shift"))
    assert cost.best_trial == pytest.approx(0.725 + LUCK)
    assert cost.luck == pytest.approx(LUCK)
    # Between trials, which have the same seeds and folds.
    assert cost.tuning_gain == pytest.approx(0.035 + LUCK)
    assert cost.control_gain_inner == pytest.approx(0.1)
    assert cost.control_gain_outer == pytest.approx(outer(results, "shift") - outer(results, "plain"))
    baseline = selection_cost(results, results.arms[0])
    assert (baseline.best_trial, baseline.luck, baseline.tuning_gain) == (None, None, None)
    assert baseline.control_gain_inner == pytest.approx(0.4 - 0.625)


def test_the_control_is_compared_with_nothing(results: Results) -> None:
    cost = selection_cost(results, arm_of(results, "plain"))
    assert cost.tuning_gain == pytest.approx(0.025 + LUCK)
    assert (cost.control_gain_inner, cost.control_gain_outer, cost.divisions_as_control) == (None, None, None)


def test_a_failed_first_trial_leaves_no_gain_of_tuning(results: Results) -> None:
    assert selection_cost(results, arm_of(results, "twin")).tuning_gain is None


def test_chosen_settings_are_counted_over_the_outer_folds(results: Results) -> None:
    cost = selection_cost(results, arm_of(results, "shift"))
    assert cost.distinct_settings == 3
    assert {one.name: one.counts for one in cost.stability} == {
        "tau": ((0.5, 3), (1.0, 2), (0.25, 1)),
        "kind": (("a", 6),),
    }
    twin = selection_cost(results, arm_of(results, "twin"))
    assert twin.distinct_settings == 2
    assert {one.name: one.counts for one in twin.stability} == {"tau": ((0.0, 5),), "gamma": ((1.0, 1),)}
    assert selection_cost(results, results.arms[0]).stability == ()


def test_a_fold_counts_as_the_control_only_if_all_its_fits_predict_the_same(results: Results) -> None:
    assert selection_cost(results, arm_of(results, "shift")).divisions_as_control == 1
    assert selection_cost(results, arm_of(results, "twin")).divisions_as_control == DIVISIONS
    assert selection_cost(results, results.arms[0]).divisions_as_control == 0


def test_the_report_stores_and_shows_what_selection_cost(results: Results, tmp_path: Path) -> None:
    with without_figures():
        write_report(results, tmp_path)
    stored = {arm["name"]: arm["selection_cost"] for arm in summary_of(tmp_path)["arms"]}
    table = pd.read_csv(tmp_path / "selection.csv").set_index("arm")
    assert list(table.index) == [arm.name for arm in results.ordered]
    for arm in results.arms:
        cost = selection_cost(results, arm)
        for key in (
            "best_trial",
            "inner",
            "outer",
            "luck",
            "gap",
            "tuning_gain",
            "control_gain_inner",
            "control_gain_outer",
        ):
            value = getattr(cost, key)
            assert stored[arm.name][key] == value
            assert table.loc[arm.name, key] == pytest.approx(np.nan if value is None else value, nan_ok=True)
        assert stored[arm.name]["distinct_settings"] == table.loc[arm.name, "distinct_settings"]
    assert stored["shift"]["stability"][0] == {"name": "tau", "values": [0.5, 1.0, 0.25], "divisions": [3, 2, 1]}
    assert table.loc["shift", "settings"] == "tau: 0.5 (3), 1.0 (2), 0.25 (1); kind: a (6)"
    # Its data are those of the figure, and the same after reading.
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures" / "selection_scores.csv"), table.reset_index())
    pd.testing.assert_frame_equal(selection.table(read_report(tmp_path)), selection.table(results))
    row = f"| shift | 0.745 | 0.725 | {outer(results, 'shift'):.3f} | +0.020 |"
    assert row in (tmp_path / "report.md").read_text(encoding="utf-8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<details class="fold" id="selection">' in page
    assert "tau = 0.5 (3), 1 (2), 0.25 (1); kind = a" in page


def test_sentences_say_what_is_left_of_the_gains(results: Results) -> None:
    content = of_study(results)
    by_name = {arm["name"]: arm for arm in content["arms"]}
    view = selection_view(content, [by_name[name] for name in content["order"]])
    assert view is not None
    text = " ".join(view.words)
    gain = outer(results, "shift") - outer(results, "plain")
    assert f"shift, differs from its control by +0.100 on the inner and {gain:+.3f} on the outer score" in text
    assert "choice changes no prediction of the control: shift (1 of 6) and twin (6 of 6)." in text
    assert "With other seeds and other folds, their recipes score -0.020: that much of it was the luck" in text
    gap = 0.5 - outer(results, "baseline_to_the_end")
    assert f"The gap of baseline_to_the_end, {gap:+.3f}," in text


def test_a_comparison_of_reports_shows_no_selection(results: Results) -> None:
    """Its reports may have chosen on different landmarks."""
    origin = Origin("a", "nested", "Tiles.", tuple(arm.name for arm in results.arms), "shift")
    compared = replace(results, origins=(origin, replace(origin, name="b")))
    content = of_study(compared)
    assert selection_view(content, content["arms"]) is None
    assert "figures/selection_scores" not in gallery.of_study(compared)


def test_the_figure_has_a_mark_for_each_arm_and_the_rank_correlation(results: Results) -> None:
    drawing = gallery.of_study(results)["figures/selection_scores"]()
    (axes,) = drawing.figure.axes
    marks = [part for part in axes.collections if isinstance(part, PathCollection)]
    points = np.concatenate([np.asarray(part.get_offsets()) for part in marks])
    expected = drawing.data[["inner", "outer"]].to_numpy(float)
    np.testing.assert_allclose(sorted(points.tolist()), sorted(expected.tolist()))
    assert axes.get_xlim() == axes.get_ylim()
    # `twin` predicts as the control, and is not counted.
    distinct = drawing.data[drawing.data["arm"] != "twin"]
    rho = spearmanr(distinct["inner"], distinct["outer"]).statistic
    assert any(f"Spearman rank correlation {rho:.2f}" in text.get_text() for text in drawing.figure.texts)
    assert axes.get_xlabel().startswith("inner score")
    names = {text.get_text() for text in axes.findobj(Text)}
    assert {"baseline", "baseline_to_the_end", "plain", "shift", "twin"} <= names


def test_the_given_split_has_validation_and_test_scores(results: Results) -> None:
    def first_division(arm: Arm) -> Arm:
        n_fits = len(arm.seeds)
        return replace(
            arm,
            selections=arm.selections[:1],
            best_epochs=((0,),) * n_fits,
            capped=((False,),) * n_fits,
            temperatures=((1.0,),) * n_fits,
        )

    given = replace(results, outer_folds=None, arms=tuple(first_division(arm) for arm in results.arms))
    assert selection_cost(given, arm_of(given, "shift")).inner == 0.70
    assert selection_cost(given, arm_of(given, "twin")).divisions_as_control == 1
    drawing = gallery.of_study(given)["figures/selection_scores"]()
    assert drawing.figure.axes[0].get_xlabel().startswith("validation score")
    content = of_study(given)
    view = selection_view(content, content["arms"])
    assert view is not None
    assert (view.inner, view.outer) == ("validation", "test")
    assert [heading.text for heading in view.table.head[0]] == [
        "arm",
        "macro F1",
        "difference",
        "gain of tuning",
        "gain over its control",
    ]
