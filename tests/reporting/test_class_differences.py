"""Differences in F1 of each class between two arms: their intervals computed again with numpy, and where they show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from handmade import summary_of, without_figures
from matplotlib.colors import to_hex
from nested_results import CLASSES, FOLDS, SEEDS, Ints, guess, make_arm, make_landmarks, make_results
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.figures import gallery
from hirise_imb.reporting.figures.style import BAD, GOOD

TABLE = make_landmarks()
LABELS = TABLE["label"].to_numpy(np.int64)
T_QUANTILES = {8: 2.364624, 21: 2.085963}
"""The .975 quantiles of the t distribution with one degree of freedom less than the number of sources."""


def fits(right: float, seed: int) -> list[Ints]:
    return [guess(LABELS, right, 10 * seed + fit) for fit in range(len(SEEDS))]


@pytest.fixture(scope="module")
def results() -> Results:
    """`better` is right far more often than the control; `twin` predicts as it does."""
    scores = [0.5] * FOLDS
    control = fits(0.5, 2)
    return make_results(
        make_arm("baseline", "baseline", fits(0.4, 1), scores=scores),
        make_arm("plain", "control", control, scores=scores),
        make_arm("better", "strategy", fits(0.97, 3), scores=scores),
        make_arm("similar", "strategy", fits(0.5, 4), scores=scores),
        make_arm("twin", "strategy", control, scores=scores),
    )


def predicted(results: Results, name: str) -> list[Ints]:
    arm = next(arm for arm in results.arms if arm.name == name)
    return [fit.labels() for fit in arm.predictions]


def f1_of_resamples(label: int, predictions: list[Ints]) -> NDArray[np.float64]:
    """F1 of a class in 10,000 resamples of sources and fits, drawn as docs/uncertainty.md says."""
    sources = TABLE["source"].to_numpy()
    names = list(dict.fromkeys(sources))
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), 10_000)
    shares = np.random.default_rng(1).multinomial(len(SEEDS), np.full(len(SEEDS), 1 / len(SEEDS)), 10_000) / len(SEEDS)
    f1 = np.zeros(10_000)
    for fit, share in zip(predictions, shares.T, strict=True):
        true, said = np.equal(LABELS, label), np.equal(fit, label)
        counts = [np.array([flags[sources == name].sum() for name in names]) for flags in (true & said, true, said)]
        hits, positives, claims = (draws @ count for count in counts)
        with np.errstate(invalid="ignore"):
            f1 += share * np.where(positives > 0, 2 * hits / (positives + claims), np.nan)
    return f1


def expand(gains: NDArray[np.float64], n_sources: int) -> tuple[float, float]:
    """The expanded percentile interval of Hesterberg (2015)."""
    tail = NormalDist().cdf(-np.sqrt(n_sources / (n_sources - 1)) * T_QUANTILES[n_sources])
    low, high = np.quantile(gains[np.isfinite(gains)], [tail, 1 - tail])
    return float(low), float(high)


@pytest.mark.parametrize(("label", "n_sources"), [(0, 8), (1, 21)])
@pytest.mark.parametrize(("arm", "other"), [("better", "plain"), ("similar", "baseline")])
def test_the_interval_is_that_of_the_same_resamples_of_both_arms(
    results: Results, label: int, n_sources: int, arm: str, other: str
) -> None:
    gains = f1_of_resamples(label, predicted(results, arm)) - f1_of_resamples(label, predicted(results, other))
    interval = results.inference.class_differences(arm, other)[label]
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(expand(gains, n_sources), abs=1e-6)


def test_no_interval_for_few_sources_or_equal_predictions(results: Results) -> None:
    lake = CLASSES.names.index("lake")
    assert results.inference.class_differences("better", "plain")[lake] is None
    assert results.inference.class_differences("twin", "plain") == [None, None, None]


def test_summary_and_table_have_the_intervals_of_both_contrasts(results: Results, tmp_path: Path) -> None:
    with without_figures():
        write_report(results, tmp_path)
    table = pd.read_csv(tmp_path / "per_class.csv").set_index(["arm", "class"])
    drawn = pd.read_csv(tmp_path / "figures" / "class_differences.csv").set_index(["arm", "class"])
    for stored in summary_of(tmp_path)["arms"]:
        for contrast, other in (("vs_control", "plain"), ("vs_baseline", "baseline")):
            intervals = results.inference.class_differences(stored["name"], other)
            expected = [None if one is None else {"low": one.low, "high": one.high} for one in intervals]
            assert stored[contrast]["per_class_interval"] == expected
            for name, interval in zip(CLASSES, intervals, strict=True):
                ends = [np.nan, np.nan] if interval is None else [interval.low, interval.high]
                row = table.loc[(stored["name"], name)]
                found = [row[f"f1_{contrast}_{end}"] for end in ("low", "high")]
                assert found == pytest.approx(ends, nan_ok=True)
                if contrast == "vs_control" and stored["name"] != other:
                    drawn_row = drawn.loc[(stored["name"], name)]
                    assert [drawn_row["low"], drawn_row["high"]] == pytest.approx(ends, nan_ok=True)
    assert "plain" not in drawn.reset_index()["arm"].tolist()


def test_the_page_emphasises_intervals_without_zero_and_shows_the_cost_first(results: Results, tmp_path: Path) -> None:
    with without_figures():
        write_report(results, tmp_path)
    gains = [
        np.mean([f1_score(LABELS, fit, average=None)[0] for fit in predicted(results, name)])
        for name in ("better", "plain")
    ]
    interval = results.inference.class_differences("better", "plain")[0]
    assert interval is not None
    assert interval.low > 0
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## Which classes gain, and which lose")
    assert "not corrected for the number of classes and arms" in lines[start + 2]
    assert lines[start + 4] == "| arm | flat | hill | lake |"
    rows = [line.split(" | ") for line in lines[start + 6 : start + 10]]
    assert [row[0] for row in rows] == ["| baseline", "| better", "| similar", "| twin"]
    assert rows[1][2] == f"**{gains[0] - gains[1]:+.3f}** ({interval.low:+.3f} to {interval.high:+.3f})"
    assert rows[1][3].count("to") == 0
    assert [cell.strip(" |") for cell in rows[3][1:]] == ["+0.000"] * 3
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f'<span class="diff up">{gains[0] - gains[1]:+.3f}</span>' in page.split('id="class-differences"')[1]


def test_the_figure_has_a_panel_for_each_class_with_enough_sources(results: Results) -> None:
    drawing = gallery.of_study(results)["figures/class_differences"]()
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    assert titles == ["flat (the cost)", "hill"]
    counts = [{text.get_text() for text in axes.texts} for axes in drawing.figure.axes]
    assert counts == [{"84 from 21 sources"}, {"15 from 8 sources"}]
    assert any("Own scale: flat." in text.get_text() for text in drawing.figure.texts)
    assert [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()] == [
        "baseline",
        "better",
        "similar",
        "twin",
    ]
    for axes, name in zip(drawing.figure.axes, ("flat", "hill"), strict=True):
        rows = drawing.data[drawing.data["class"] == name]
        points = [line for line in axes.lines if line.get_marker() == "o"]
        assert [np.ravel(point.get_xdata()).item() for point in points] == rows["difference"].tolist()
        for point, row in zip(points, rows.to_dict("records"), strict=True):
            emphasised = to_hex(point.get_color()) in {GOOD, BAD}
            assert emphasised == (row["low"] > 0 or row["high"] < 0)


def test_without_a_class_of_enough_sources_there_is_no_figure(results: Results) -> None:
    """The table still shows the differences."""
    few = results.test.assign(source=["S0" if n % 2 else "S1" for n in range(len(results.test))])
    folds = pd.DataFrame({"repeat": 1, "fold": [1, 2], "source": ["S0", "S1"]})
    assert "figures/class_differences" not in gallery.of_study(replace(results, test=few, outer_folds=folds))
