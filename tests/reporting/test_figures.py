"""The figures of a study's report: what they show is right, and they can be drawn of whatever a study comes to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from builders import CLASSES
from drawn_results import (
    SOURCES,
    SUPPORT,
    certain,
    data,
    divided,
    guess,
    labels_of,
    landmarks,
    results_of,
    usual,
    words,
)
from matplotlib.colors import to_hex
from matplotlib.text import Text
from scipy.special import softmax
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score, precision_recall_curve

from hirise_imb.reporting import Results
from hirise_imb.reporting.figures import gallery, style, svg
from hirise_imb.reporting.records import Origin
from hirise_imb.reporting.verdict import verdict


@pytest.fixture(scope="module")
def results() -> Results:
    return usual()


# What they show


def test_macro_f1_is_that_of_scikit_learn_with_its_range_and_its_difference(results: Results) -> None:
    table = data(results, "arms").set_index("arm")
    assert list(table.index) == [arm.name for arm in results.ordered]
    reached = {
        arm.name: [
            f1_score(results.labels, fit, labels=range(8), average="macro", zero_division=0) for fit in labels_of(arm)
        ]
        for arm in results.arms
    }
    for name, scores in reached.items():
        row = table.loc[str(name)]
        expected = np.mean(scores), min(scores), max(scores)
        assert (row["macro_f1"], row["seeds_low"], row["seeds_high"]) == pytest.approx(expected)
        assert row["sources_low"] < row["macro_f1"] < row["sources_high"]
        if name != "baseline":
            check_difference(row, "vs_baseline", np.mean(scores) - np.mean(reached["baseline"]))
        if name == "remedy":
            check_difference(row, "vs_control", np.mean(scores) - np.mean(reached["plain"]))
    assert table.loc["baseline", "vs_control_difference"] == pytest.approx(
        np.mean(reached["baseline"]) - np.mean(reached["plain"])
    )
    assert table["vs_control_p"].isna().tolist() == [True, True, False]
    assert table["vs_control_difference"].isna().tolist() == [False, True, False]


def check_difference(row: Any, contrast: str, expected: float) -> None:  # noqa: ANN401
    """Checks the columns of a comparison of an arm with another."""
    columns = ("difference", "resolvable", "p", "p_holm")
    difference, resolvable, p, p_holm = (row[f"{contrast}_{name}"] for name in columns)
    assert difference == pytest.approx(expected)
    assert row[f"{contrast}_low"] < difference < row[f"{contrast}_high"]
    # The resolvable difference is the one where a single test says so.
    assert (abs(difference) >= resolvable) == (p <= 0.05)
    assert p_holm >= p


def test_every_source_is_shown_with_its_recall(results: Results) -> None:
    table = data(results, "sources").set_index(["arm", "source", "class"])
    assert table.index.is_unique
    seen = 0
    for arm in results.arms:
        for source in results.test["source"].unique():
            for label, name in enumerate(CLASSES):
                mask = ((results.test["source"] == source) & (results.test["label"] == label)).to_numpy()
                if mask.any():
                    row = table.xs((arm.name, source, name))
                    hits = [int((fit[mask] == label).sum()) for fit in labels_of(arm)]
                    found = row["landmarks"], row["hits"], row["recall"]
                    assert found == pytest.approx((mask.sum(), np.mean(hits), np.mean(hits) / mask.sum()))
                    seen += 1
    assert seen == len(table)


def test_precision_at_each_recall_is_that_of_scikit_learn() -> None:
    results = usual(seeds=1)
    table = data(results, "precision_recall")
    for arm in results.shown:
        scores = arm.predictions[0].probabilities
        for label, name in enumerate(CLASSES):
            part = table[(table["arm"] == arm.name) & (table["class"] == name)]
            truth = results.labels == label
            precision, recall, _ = precision_recall_curve(truth, scores[:, label])
            expected = [precision[np.flatnonzero(recall >= wanted - 1e-9)[-1]] for wanted in part["recall"]]
            assert part["recall"].tolist() == pytest.approx(np.arange(1, truth.sum() + 1) / truth.sum())
            assert part["precision"].tolist() == pytest.approx(expected)
            assert part["precision"].mean() == pytest.approx(average_precision_score(truth, scores[:, label]))


def test_average_precision_stands_next_to_the_curves_of_a_class(results: Results) -> None:
    figure = gallery.of_study(results)["figures/precision_recall"]().figure
    written = " ".join(text.get_text() for text in [*figure.axes[1].findobj(Text), *figure.legends[0].get_texts()])
    for arm in results.shown:
        expected = np.mean(
            [average_precision_score(results.labels == 1, f.probabilities[:, 1]) for f in arm.predictions]
        )
        assert f"{expected:.2f}" in written
        assert arm.name in written


def test_calibration_counts_the_predictions_of_all_seeds_in_each_bin(results: Results) -> None:
    table = data(results, "calibration")
    for arm in results.arms:
        for hot in (False, True):
            bins: dict[int, list[tuple[float, bool]]] = {}
            for fit, [temperature] in zip(arm.predictions, arm.temperatures, strict=True):
                logits = np.log(fit.probabilities.astype(float))
                shares = softmax(logits / temperature, axis=1) if hot else fit.probabilities
                for row, truth in zip(shares, results.labels, strict=True):
                    place = min(int(float(row.max()) * 15), 14) + 1
                    bins.setdefault(place, []).append((float(row.max()), bool(row.argmax() == truth)))
            part = table[(table["arm"] == arm.name) & (table["tempered"] == hot)].set_index("bin")
            assert sorted(bins) == part.index.tolist()
            for place, members in bins.items():
                expected = len(members), *np.mean(members, axis=0)
                found = part.loc[place]
                assert (found["count"], found["confidence"], found["accuracy"]) == pytest.approx(expected)


def test_risk_is_the_share_of_mistakes_among_the_most_confident() -> None:
    test = landmarks()
    rng = np.random.default_rng(5)
    # No two confidences are equal.
    fits = [softmax(rng.normal(size=(len(test), 8)), axis=1) for _ in range(2)]
    results = results_of(test, {"baseline": fits})
    table = data(results, "risk_coverage")
    expected = np.zeros(len(test))
    for fit in results.arms[0].predictions:
        order = np.argsort(-fit.probabilities.max(axis=1))
        wrong = (fit.probabilities.argmax(axis=1) != results.labels)[order]
        expected += [wrong[: n + 1].mean() / 2 for n in range(len(test))]
    assert table["coverage"].tolist() == pytest.approx(np.arange(1, len(test) + 1) / len(test))
    assert table["risk"].tolist() == pytest.approx(expected)
    accuracy = np.mean([accuracy_score(results.labels, fit) for fit in labels_of(results.arms[0])])
    assert table["risk"].iloc[-1] == pytest.approx(1 - accuracy)


def test_the_confusion_difference_is_that_of_shares_to_the_chosen_strategy(results: Results) -> None:
    assert results.chosen is not None
    table = data(results, "confusion_difference")
    base, mine = (
        np.mean([confusion_matrix(results.labels, fit, normalize="true") for fit in labels_of(arm)], axis=0)
        for arm in (results.arms[0], results.chosen)
    )
    assert table["reference"].tolist() == pytest.approx(base.ravel().tolist())
    assert table["arm"].tolist() == pytest.approx(mine.ravel().tolist())
    assert table["difference"].tolist() == pytest.approx((mine - base).ravel().tolist())
    changed = round(100 * (mine - base)[1, 1])
    assert changed > 0
    assert f"+{changed}" in words(results, "figures/confusion_difference")


def test_the_line_of_a_search_rises_where_a_complete_trial_is_the_best_so_far(results: Results) -> None:
    figure = gallery.of_study(results)["figures/best_so_far"]().figure
    axes = next(axes for axes in figure.axes if axes.get_title() == "remedy" or axes.get_title(loc="left") == "remedy")
    line = max(axes.lines, key=lambda line: line.get_linewidth())
    corners = np.column_stack([line.get_xdata(), line.get_ydata()]).tolist()
    # Nothing before the second trial, the first complete one; what failed is no best value.
    assert corners == [[2, 0.31], [5, 0.31], [5, 0.42], [6, 0.42]]


def test_differences_are_from_the_control_and_sorted_and_say_which_arm_is_advised(results: Results) -> None:
    table = data(results, "differences")
    assert table["arm"].tolist() == ["remedy", "baseline"]
    forest = data(results, "arms").set_index("arm")
    for row in table.to_dict("records"):
        assert row["other"] == "plain"
        expected = forest.loc[row["arm"]]
        found = [row[name] for name in ("difference", "low", "high")]
        assert found == pytest.approx([expected[f"vs_control_{name}"] for name in ("difference", "low", "high")])
    assert table["p_holm"].tolist()[0] == pytest.approx(forest.loc["remedy", "vs_control_p_holm"])
    assert table["advised"].tolist() == [name == verdict(results).choice for name in table["arm"]]
    drawing = gallery.of_study(results)["figures/differences"]()
    assert drawing.narrow is not None
    for figure in (drawing.figure, drawing.narrow):
        marks = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "s")]
        places = np.concatenate([np.asarray(line.get_xdata(), float) for line in marks])
        assert places == pytest.approx(table["difference"].tolist())
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names == table["arm"].tolist()


def test_arms_that_equal_the_control_share_one_row_of_differences() -> None:
    test = landmarks()
    labels = test["label"].to_numpy(np.int64)
    fits = {"baseline": [guess(labels, 1)], "plain": [guess(labels, 2)], "remedy": [guess(labels, 3)]}
    results = results_of(test, fits | {"twin": fits["plain"], "other_twin": fits["plain"]})
    table = data(results, "differences")
    assert table.loc[table["identical"], "arm"].tolist() == ["twin", "other_twin"]
    figure = gallery.of_study(results)["figures/differences"]().figure
    assert "twin" not in {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert "identical to the control: twin and other_twin" in words(results, "figures/differences")


def test_only_classes_with_ten_landmarks_have_a_precision_recall_curve(results: Results) -> None:
    figure = gallery.of_study(results)["figures/precision_recall"]().figure
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["other (n = 60)", "crater (n = 24)"]
    [omitted] = [text for text in words(results, "figures/precision_recall") if text.startswith("Too few for a curve")]
    assert all(f"{name} ({n})" in omitted for name, n in zip(CLASSES[2:], SUPPORT[2:], strict=True))


def test_risk_is_drawn_from_a_tenth_of_the_predictions_on(results: Results) -> None:
    [axes] = gallery.of_study(results)["figures/risk_coverage"]().figure.axes
    drawn = [places for line in axes.lines if len(places := np.asarray(line.get_xdata(), float)) > 1]
    assert len(drawn) == len(results.shown)
    assert all(0.1 <= places.min() < 0.12 for places in drawn)


def cell_colours(results: Results, name: str, panel: int) -> list[str]:
    """The colours of the cells of a matrix, row by row."""
    [cells] = gallery.of_study(results)[name]().figure.axes[panel].collections
    return [to_hex(colour) for colour in np.atleast_2d(cells.get_facecolor())]


def test_fewer_errors_are_blue_and_fewer_hits_are_orange(results: Results) -> None:
    changes = data(results, "confusion_difference")
    colours = cell_colours(results, "figures/confusion_difference", 2)
    assert len(colours) == len(changes) == 64
    for colour, row in zip(colours, changes.to_dict("records"), strict=True):
        is_hit = row["true_class"] == row["predicted_class"]
        if abs(row["difference"]) >= 0.005:
            better = (row["difference"] > 0) == is_hit
            assert colour in (style.BETTER if better else style.WORSE)
        else:
            assert colour == style.PAPER


def test_a_difference_that_may_be_chance_is_faint_whatever_its_size(results: Results) -> None:
    colours = iter(cell_colours(results, "figures/f1_per_class", 0))
    strong = 0
    for arm in results.ordered:
        intervals = results.inference.class_differences(arm.name, results.reference)
        for interval in intervals:
            excludes_zero = interval is not None and (interval.low > 0 or interval.high < 0)
            is_strong = next(colours) in (*style.BETTER[1:], *style.WORSE[1:])
            assert excludes_zero or not is_strong
            strong += is_strong
    assert strong > 0


# Classes of which little is known


def test_figures_of_a_nested_cross_validation_speak_of_outer_folds(results: Results) -> None:
    nested = divided(results)
    for name in gallery.of_study(nested):
        written = " ".join(words(nested, name)).replace("cross-validation", "")
        if name != "figures/class_distribution":
            for word in ("test", "validation", "best epoch"):
                assert word not in written.replace("latest", "").replace("one test", "").replace("all tests", ""), name
    assert "macro F1 in the outer folds" in words(nested, "figures/arms")
    assert {"inner folds", "outer fold"} < set(words(nested, "figures/curves-plain"))
    assert {"validation", "test", "best epoch"} < set(words(results, "figures/curves-plain"))
    assert any("mean over outer folds" in text for text in words(nested, "figures/best_so_far"))
    assert any("Bold: best by inner score" in text for text in words(nested, "figures/f1_per_class"))


def test_calibration_of_a_nested_cross_validation_has_the_temperature_of_each_fold(results: Results) -> None:
    nested = divided(results)
    assert nested.outer_folds is not None
    folds = dict(zip(nested.outer_folds["source"], nested.outer_folds["fold"], strict=True))
    is_second = np.array([folds[source] == 2 for source in nested.test["source"]])
    table = data(nested, "calibration")
    for arm in nested.arms:
        hottest = []
        for fit, (first, second) in zip(arm.predictions, arm.temperatures, strict=True):
            temperature = np.where(is_second, second, first)[:, None]
            hottest.append(softmax(np.log(fit.probabilities.astype(float)) / temperature, axis=1).max(axis=1))
        part = table[(table["arm"] == arm.name) & table["tempered"]]
        expected = np.bincount(np.minimum((np.concatenate(hottest) * 15).astype(int), 14), minlength=15)
        assert part["count"].tolist() == expected[expected > 0].tolist()


def test_what_cannot_be_estimated_is_said_in_the_panel_of_the_class() -> None:
    results = usual(test=landmarks((60, 24, 9, 0, 8, 3, 4, 1), SOURCES))
    written = words(results, "figures/sources")
    assert written.count("no test landmark") == 1
    # Other and crater have sources enough, slope streak has no landmark.
    assert written.count("no interval can be estimated") == 5
    [omitted] = [text for text in words(results, "figures/precision_recall") if text.startswith("Too few for a curve")]
    assert omitted.count("no test landmark") == 1
    assert words(results, "figures/f1_per_class").count("–") == len(results.arms)
    assert words(results, "confusion/baseline").count("no test landmark") == 1
    assert "slope streak" not in set(data(results, "precision_recall")["class"])
    assert "slope streak" not in set(data(results, "sources")["class"])


def test_two_sources_have_no_interval() -> None:
    results = usual(test=landmarks(SUPPORT, (2, 2, 1, 2, 2, 1, 2, 1)))
    table = data(results, "arms")
    assert table[["sources_low", "sources_high", "vs_baseline_low", "vs_baseline_high"]].isna().to_numpy().all()
    assert table["vs_baseline_resolvable"].isna().all()
    assert table["images_low"].notna().all()


def comparison(of: int) -> Results:
    """So many reports, each with a chosen strategy of a long name."""
    names = [f"real-landmarks-{n}/a_strategy_with_a_long_name" for n in range(of)]
    results = usual(names=names)
    origins = [Origin(name.split("/")[0], "study", "setting", (name,), name) for name in names]
    return replace(results, origins=tuple(origins))


def test_no_arm_of_a_comparison_is_left_out_of_a_panel() -> None:
    results = comparison(7)
    assert len(results.shown) == 8
    figure = gallery.of_study(results)["figures/precision_recall"]().figure
    lines = [line for line in figure.axes[1].lines if not str(line.get_label()).startswith("_")]
    looks = {(str(line.get_color()), str(line.get_linestyle())) for line in lines}
    assert len(lines) == len(looks) == 8


def test_more_arms_than_there_are_looks_are_all_drawn() -> None:
    results = comparison(27)
    figure = gallery.of_study(results)["figures/risk_coverage"]().figure
    legend = figure.axes[0].get_legend()
    assert legend
    assert len(legend.get_texts()) == len(results.shown) == 28


# Whatever a study comes to


def edge(name: str) -> Results:
    test = landmarks()
    labels = test["label"].to_numpy(np.int64)
    if name == "one seed":
        return usual(seeds=1)
    if name == "a class is absent, another has one landmark":
        return usual(test=landmarks((60, 24, 9, 0, 8, 3, 4, 1), SOURCES))
    if name == "a class is never predicted":
        found = np.where(labels == 5, 0, labels)
        return results_of(test, {"baseline": [guess(labels, 1)], "remedy": [certain(found)]})
    if name == "no mistake":
        return results_of(test, {"baseline": [np.eye(8)[labels]] * 2, "remedy": [certain(labels)] * 2})
    if name == "all are other":
        return results_of(test, {"baseline": [certain(0 * labels)] * 2, "remedy": [guess(labels, 1)] * 2})
    if name == "two sources":
        return usual(test=landmarks(SUPPORT, (2, 2, 1, 2, 2, 1, 2, 1)))
    if name == "no strategy":
        return usual(names=())
    if name == "a computed head":
        fits = {"baseline": [guess(labels, 1)], "plain": [guess(labels, 2)], "computed": [guess(labels, 3)]}
        return results_of(test, fits, computed=["computed"])
    return comparison(3)


EDGES = (
    "one seed",
    "a class is absent, another has one landmark",
    "a class is never predicted",
    "no mistake",
    "all are other",
    "two sources",
    "no strategy",
    "a computed head",
    "a comparison",
)


@pytest.mark.parametrize("name", EDGES)
def test_every_figure_can_be_drawn(name: str) -> None:
    results = edge(name)
    drawn = gallery.of_study(results)
    assert ("figures/confusion_difference" in drawn) == (results.chosen is not None)
    curves = {figure.removeprefix("figures/curves-") for figure in drawn if "/curves-" in figure}
    assert curves == {arm.name for arm in results.arms if arm.name != "computed"}
    # The arms have the same curves: they are drawn of one.
    for figure in drawn.keys() - {f"figures/curves-{arm}" for arm in sorted(curves)[1:]}:
        drawing = drawn[figure]()
        assert len(drawing.data)
        assert not drawing.data.select_dtypes("number").isin([np.inf, -np.inf]).to_numpy().any(), figure
        # Warnings of the layout, of empty axes or of missing letters are errors here.
        drawing.figure.draw_without_rendering()


# Files


@pytest.mark.slow
def test_the_same_results_are_the_same_bytes(results: Results, tmp_path: Path) -> None:
    drawn = {name: draw for name, draw in gallery.of_study(results).items() if not name.endswith(("plain", "remedy"))}
    assert {"confusion/baseline", "figures/curves-baseline", "figures/best_so_far"} < set(drawn)
    for name, draw in drawn.items():
        for run in ("one", "two"):
            canvas = draw().figure
            style.write_png(canvas, tmp_path / f"{run}.png")
            svg.write_svg(canvas, tmp_path / f"{run}.svg")
        for suffix in ("png", "svg"):
            one, two = ((tmp_path / f"{run}.{suffix}").read_bytes() for run in ("one", "two"))
            assert one == two, f"{name}.{suffix}"


def test_a_file_has_short_coordinates_and_keeps_what_is_drawn(tmp_path: Path) -> None:
    canvas = style.figure(4, 3, (0.5, 0.5, 0.5, 0.5))
    axes = canvas.subplots()
    axes.plot([0, 1 / 3, 1], [0, 2 / 3, 1], "o-", gid="drawn")
    assert axes.get_position().bounds == pytest.approx((0.125, 1 / 6, 0.75, 2 / 3))
    svg.write_svg(canvas, tmp_path / "short.svg")
    text = (tmp_path / "short.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    path = re.search(r'<g id="drawn">\s*<path d="([^"]*)"', text)
    assert path is not None
    points = np.array(re.findall(r"-?[0-9.]+", path[1]), float).reshape(-1, 2)
    places = axes.transData.transform(np.array([[0, 0], [1 / 3, 2 / 3], [1, 1]])) * 72 / canvas.dpi
    assert points == pytest.approx(np.column_stack([places[:, 0], 3 * 72 - places[:, 1]]), abs=0.011)
    assert not re.search(r' (?:d|x|y)="[^"]*\.[0-9]{3}', text)
