"""The figures of a study's report: what they show is right, and they can be drawn of whatever a study comes to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES
from handmade import role_of
from matplotlib.colors import to_hex
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score, precision_recall_curve

from hirise_imb.data import HIRISE, SPLITS
from hirise_imb.metrics.classification import Predictions
from hirise_imb.reporting import Arm, Results, html, tables
from hirise_imb.reporting.figures import gallery, style, svg
from hirise_imb.reporting.records import Origin, Selection
from hirise_imb.reporting.verdict import verdict

SUPPORT = (60, 24, 9, 5, 8, 3, 4, 2)
SOURCES = (9, 8, 1, 2, 3, 1, 2, 1)

Floats = NDArray[np.float64]


def landmarks(support: Sequence[int] = SUPPORT, sources: Sequence[int] = SOURCES) -> pd.DataFrame:
    """So many landmarks of each class, from its sources in turn."""
    labels = np.repeat(np.arange(8), support)
    turns = [n % sources[label] for label, count in enumerate(support) for n in range(count)]
    names = [f"ESP_00000{turn}_1000" for turn in turns]
    images = [f"{name}_RED-{n:04}.jpg" for n, name in enumerate(names)]
    return pd.DataFrame({"image": images, "landmark": [i[:-4] for i in images], "source": names, "label": labels})


def guess(labels: NDArray[np.int64], seed: int, sure: float = 2.0) -> Floats:
    """Probabilities that know something of the labels, some of them equal."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), 8)) + sure * np.eye(8)[labels]
    rounded = np.round(softmax(1.5 * logits, axis=1), 2) + 0.001
    return np.asarray(rounded / rounded.sum(axis=1, keepdims=True))


def certain(predicted: NDArray[np.int64]) -> Floats:
    return np.asarray(0.9 * np.eye(8)[predicted] + 0.0125)


TRIALS: list[dict[str, str | float | None]] = [
    {"state": "fail", "value": None, "error": "no memory"},
    {"state": "complete", "value": 0.31},
    {"state": "complete", "value": 0.25},
    {"state": "fail", "value": 0.99},
    {"state": "complete", "value": 0.42},
    {"state": "complete", "value": 0.40},
]


def arm_of(name: str, test: pd.DataFrame, fits: Sequence[Floats], trained: bool = True) -> Arm:
    seeds = range(len(fits))
    history = pd.DataFrame({"epoch": [1, 2, 3]})
    for split in SPLITS:
        history = history.assign(**{f"{split}_loss": [2.0, 1.5, 1.25], f"{split}_accuracy": [0.5, 0.625, 0.75]})
    history["train_loss"] += sum(map(ord, name)) / 2**16  # each arm has curves of its own
    return Arm(
        name=name,
        role=role_of(name),
        summary="what it does",
        selections=(Selection("given split", {}, {}, 0.5, TRIALS if name != "baseline" else []),),
        seeds=tuple(seeds),
        predictions=tuple(Predictions(tuple(test["image"]), fit.astype(np.float32)) for fit in fits),
        histories=tuple(history if trained else pd.DataFrame() for _ in seeds),
        best_epochs=tuple((2 if trained else 0,) for _ in seeds),
        capped=tuple((False,) for _ in seeds),
        temperatures=tuple((1.5 - 0.75 * seed,) for seed in seeds),
        seconds=1.0,
    )


def results_of(test: pd.DataFrame, fits: Mapping[str, Sequence[Floats]], computed: Sequence[str] = ()) -> Results:
    data = pd.DataFrame({"split": np.repeat(SPLITS, 8), "class": CLASSES * 3, "landmarks": range(1, 25)})
    arms = tuple(arm_of(name, test, found, name not in computed) for name, found in fits.items())
    return Results("by-hand", "Made up.", "", HIRISE.classes, test, data, arms, {})


def usual(seeds: int = 2, test: pd.DataFrame | None = None, names: Sequence[str] = ("plain", "remedy")) -> Results:
    test = landmarks() if test is None else test
    labels = test["label"].to_numpy(np.int64)
    arms = {
        name: [guess(labels, 10 * n + seed, 1.0 + 0.5 * n) for seed in range(seeds)]
        for n, name in enumerate(("baseline", *names))
    }
    return results_of(test, arms)


@pytest.fixture(scope="module")
def results() -> Results:
    return usual()


def data(results: Results, name: str) -> pd.DataFrame:
    return gallery.of_study(results)[f"figures/{name}"]().data


def words(results: Results, name: str) -> list[str]:
    return [text.get_text() for text in gallery.of_study(results)[name]().figure.findobj(Text)]


def labels_of(arm: Arm) -> list[NDArray[np.int64]]:
    return [fit.probabilities.argmax(axis=1) for fit in arm.predictions]


# What they show


def test_macro_f1_is_that_of_scikit_learn_with_its_range_and_its_difference(results: Results) -> None:
    table = data(results, "macro_f1").set_index("arm")
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
    forest = data(results, "macro_f1").set_index("arm")
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


# Searches and fits of single arms


def search_of(n: int, division: str = "given split") -> Selection:
    """So many trials of which only the value of `rate` matters; `power` applies to half of them."""
    rng = np.random.default_rng(n)
    trials: list[dict[str, Any]] = []
    for place in range(n):
        params = {"rate": float(10 ** rng.uniform(-4, -1)), "kind": ("a", "b")[place % 2], "fixed": 1}
        params |= {"power": float(rng.uniform())} if place % 2 else {}
        trials.append({"state": "complete", "value": 0.5 + 0.1 * np.log10(params["rate"]) / 4, "params": params})
    trials.append({"state": "fail", "value": None, "error": "no memory", "params": trials[0]["params"]})
    space: dict[str, dict[str, Any]] = {"kind": {"choices": ["a", "b"]}}
    space |= {"rate": {"low": 1e-4, "high": 0.1, "log": True, "integer": False}}
    space |= {"power": {"low": 0.0, "high": 1.0, "log": False, "integer": False}}
    space |= {"fixed": {"low": 1, "high": 1, "log": False, "integer": True}}
    return Selection(division, {}, {}, 0.5, trials, space=space)


def with_searches(results: Results, *selections: Selection) -> Results:
    return replace(results, arms=tuple(replace(arm, selections=selections) for arm in results.arms))


def test_each_trial_is_drawn_against_its_hyperparameters(results: Results) -> None:
    selection = search_of(40)
    searched = with_searches(results, selection)
    drawing = gallery.of_study(searched)["figures/hyperparameters-remedy"]()
    table = drawing.data
    # The failed trial and what no trial varies are not there.
    assert set(table["hyperparameter"]) == {"rate", "kind", "power"}
    assert table.groupby("hyperparameter").size().to_dict() == {"rate": 40, "kind": 40, "power": 20}
    for row in table.to_dict("records"):
        trial = selection.trials[row["trial"] - 1]
        assert (row["setting"], row["value"]) == (trial["params"][row["hyperparameter"]], trial["value"])
    best = max(range(40), key=lambda place: selection.trials[place]["value"])
    assert set(table.loc[table["chosen"], "trial"]) == {best + 1}
    shares = table.groupby("hyperparameter")["importance"].first()
    assert shares.sum() == pytest.approx(1)
    assert shares.idxmax() == "rate"
    axes = drawing.figure.axes[0]
    assert axes.get_title(loc="left") == f"rate, {100 * shares['rate']:.0f} %"
    assert axes.get_xscale() == "log"
    drawn = np.sort(np.concatenate([np.asarray(line.get_xdata(), float) for line in axes.lines]))
    assert drawn == pytest.approx(np.sort(table.loc[table["hyperparameter"] == "rate", "setting"].astype(float)))


def test_scores_of_several_searches_are_differences_from_the_mean_of_each(results: Results) -> None:
    searched = with_searches(divided(results), search_of(5, "fold 1"), search_of(6, "fold 2"))
    table = data(searched, "hyperparameters-remedy")
    rates = table[table["hyperparameter"] == "rate"]
    assert rates.groupby("division")["difference"].mean().to_numpy() == pytest.approx([0, 0])
    means = rates.groupby("division")["value"].transform("mean")
    assert (rates["value"] - means).tolist() == pytest.approx(rates["difference"].tolist())
    # Ten trials are needed in a search.
    assert table["importance"].isna().all()
    written = words(searched, "figures/hyperparameters-remedy")
    assert any("too few to estimate importance" in text for text in written)


def test_searches_without_hyperparameters_have_no_figure_of_them(results: Results) -> None:
    assert not [name for name in gallery.of_study(results) if "hyperparameters" in name]
    few = with_searches(results, search_of(2))
    assert not [name for name in gallery.of_study(few) if "hyperparameters" in name]


def test_arms_that_share_fits_share_a_file_of_curves(results: Results) -> None:
    first, plain, remedy = results.arms
    twin = replace(remedy, name="twin", histories=plain.histories)
    other = replace(twin, name="other", seeds=(7, 8))  # other seeds are other fits
    shared = replace(results, arms=(first, plain, remedy, twin, other))
    owners = tables.share_curves(shared.arms)
    assert owners == {"baseline": "baseline", "plain": "plain", "remedy": "remedy", "twin": "plain", "other": "other"}
    drawn = gallery.of_study(shared)
    assert {name for name in drawn if "curves-" in name} == {f"figures/curves-{name}" for name in set(owners.values())}
    assert "plain, twin" in words(shared, "figures/curves-plain")


def test_curves_show_macro_f1_and_what_early_stopping_monitored(results: Results) -> None:
    *others, arm = results.arms
    history = arm.histories[0].assign(val_macro_f1=[0.2, 0.3, 0.35])
    [selection] = arm.selections
    monitored = replace(selection, recipe={"monitor": "val_macro_f1"})
    monitored_arm = replace(arm, histories=(history, history), selections=(monitored,))
    changed = replace(results, arms=(*others, monitored_arm))
    figure = gallery.of_study(changed)["figures/curves-remedy"]().figure
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["cross-entropy (nats)", "accuracy", "macro F1, monitored by early stopping"]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [0.2, 0.3, 0.35]  # type: ignore[union-attr]
    low, high = figure.axes[1].get_ylim()
    assert 0.4 < low < 0.5
    assert 0.75 < high < 0.85


# Classes of which little is known


def divided(results: Results) -> Results:
    """The same as results of a nested cross-validation with two outer folds, the second of which is hotter."""
    sources = sorted(set(results.test["source"]))
    rows = [(1, 1 + place % 2, source) for place, source in enumerate(sources)]
    arms = []
    for arm in results.arms:
        [selection] = arm.selections
        selections = tuple(replace(selection, division=f"fold {n}") for n in (1, 2))
        pairs = tuple((temperature, temperature + 1) for [temperature] in arm.temperatures)
        epochs = tuple(2 * of_seed for of_seed in arm.best_epochs)
        arms.append(replace(arm, selections=selections, temperatures=pairs, best_epochs=epochs))
    return replace(results, arms=tuple(arms), outer_folds=pd.DataFrame(rows, columns=["repeat", "fold", "source"]))


def test_figures_of_a_nested_cross_validation_speak_of_outer_folds(results: Results) -> None:
    nested = divided(results)
    for name in gallery.of_study(nested):
        written = " ".join(words(nested, name)).replace("cross-validation", "")
        if name != "figures/class_distribution":
            for word in ("test", "validation", "best epoch"):
                assert word not in written.replace("latest", "").replace("one test", "").replace("all tests", ""), name
    assert "macro F1 in the outer folds" in words(nested, "figures/macro_f1")
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
    table = data(results, "macro_f1")
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
            style.fix_layout(canvas)
            style.write_png(canvas, tmp_path / f"{run}.png")
            svg.write_svg(canvas, tmp_path / f"{run}.svg")
        for suffix in ("png", "svg"):
            one, two = ((tmp_path / f"{run}.{suffix}").read_bytes() for run in ("one", "two"))
            assert one == two, f"{name}.{suffix}"


@pytest.mark.parametrize("name", ["macro_f1", "f1_per_class"])
def test_a_fixed_layout_is_the_one_that_drawing_finds(name: str, results: Results) -> None:
    fixed, drawn = (gallery.of_study(results)[f"figures/{name}"]().figure for _ in range(2))
    style.fix_layout(fixed)
    assert fixed.get_layout_engine() is None
    for canvas in (fixed, drawn):
        canvas.draw_without_rendering()
    for one, other in zip(fixed.axes, drawn.axes, strict=True):
        np.testing.assert_allclose(one.get_position().bounds, other.get_position().bounds, atol=1e-12)


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


# Figures in a page


@pytest.fixture(scope="module")
def parts(results: Results) -> dict[str, str]:
    """The figures of a page with searches, as parts of it, by name."""
    drawn = gallery.of_study(with_searches(results, search_of(12)))
    figures = {name: draw().figure for name, draw in drawn.items() if not name.startswith("confusion/")}
    for canvas in figures.values():
        style.fix_layout(canvas)
    return {name: svg.embed(svg.draw_svg(canvas), name) for name, canvas in figures.items()}


def test_figures_of_a_page_have_no_style_attributes_and_no_common_ids(parts: Mapping[str, str]) -> None:
    ids: list[str] = []
    for name, part in parts.items():
        root = ElementTree.fromstring(part)
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert all(reference in own for reference in re.findall(r"url\(#([^)]*)\)", part)), name
        ids += own
        assert not [element for element in root.iter() if "style" in element.attrib or element.tag == "style"], name
        assert not re.search(r"href|<image|\bon[a-z]+=", part), name
    assert len(ids) == len(set(ids)) > 5


def test_colours_of_figures_are_those_of_the_page(parts: Mapping[str, str]) -> None:
    defined: dict[str, list[str]] = {}
    css = (Path(html.__file__).parent / "templates" / "figures.css.jinja").read_text(encoding="utf-8")
    for name, colour in re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]+);", css):
        defined.setdefault(name, []).append(colour)
    of_page = {"--paper", "--soft", "--line"}
    for name, part in parts.items():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', part)) - {"none", "currentColor"}
        assert all(colour.startswith("var(--") for colour in colours), name
        used = {colour[4:-1] for colour in colours} - of_page
        # A light and a dark one.
        assert all(len(defined[colour]) == 2 for colour in used), name


def test_marks_have_text_under_the_pointer(parts: Mapping[str, str], results: Results) -> None:
    for name, part in parts.items():
        assert "<title>" in part, name
    [plain] = [text for text in titles_of(parts["figures/macro_f1"]) if text.startswith("plain: macro F1")][:1]
    assert f"{results.macro('plain').mean:.3f}, 95 % confidence interval" in plain
    assert len(titles_of(parts["figures/f1_per_class"])) == len(results.arms) * len(CLASSES)
    sources = titles_of(parts["figures/sources"])
    assert sum("recall" in text for text in sources) == len(data(results, "sources"))


def titles_of(part: str) -> list[str]:
    return [str(title.text) for title in ElementTree.fromstring(part).iter("title")]


def test_a_mark_keeps_its_place_in_a_page() -> None:
    canvas = style.figure(4, 3, (0.5, 0.5, 0.5, 0.5))
    axes = canvas.subplots()
    axes.plot([0, 0.25, 0.5, 0.75, 1], [0.1, 0.9, 0.2, 0.2, 0.8], color=style.BLUE)
    [squares] = axes.plot([0.25], [0.9], "s", color=style.ORANGE)
    style.add_hover_text(squares, "a <b> & c")
    part = svg.embed(svg.draw_svg(canvas), "figures/some figure")
    root = ElementTree.fromstring(part)
    assert root.attrib["viewBox"] == "0 0 288 216"
    assert (root.attrib["width"], root.attrib["height"]) == ("384", "288")
    [line] = [path.attrib["d"] for path in root.iter("path") if path.get("stroke") == "var(--blue)"]
    steps = np.array(re.findall(r"-?[0-9.]+", line.replace("h", "l").split("l", 1)[0][1:]), float)
    places = axes.transData.transform(np.array([[0, 0.1], [0.25, 0.9]])) * 72 / canvas.dpi
    assert steps == pytest.approx([places[0, 0], 216 - places[0, 1]], abs=0.011)
    [square] = [path for path in root.iter("path") if path.get("fill") == "var(--orange)"]
    corners = np.array(re.findall(r"-?[0-9.]+", square.attrib["d"].replace("H", " H").replace("V", " V")), float)
    assert corners[0] == pytest.approx(places[1, 0] - 3, abs=0.011)
    assert titles_of(part) == ["a <b> & c"]
