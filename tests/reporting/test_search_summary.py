"""Reports of a study with a control, closed-form heads, failed trials and strategies without a result."""

from __future__ import annotations

import html
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES, quick
from handmade import (
    SEEDS,
    TRIALS,
    contents,
    guesses,
    make_arm,
    make_catalogue,
    make_results,
    summary_of,
    with_selection,
)
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.lines import Line2D
from sklearn import metrics

from hirise_imb.data.manifest import Manifest
from hirise_imb.models.closed_form import NearestMean
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Omitted, Results, write_report
from hirise_imb.reporting.figures.overview import best_so_far as figure
from hirise_imb.reporting.narrative import headline
from hirise_imb.reporting.protocol import protocol
from hirise_imb.reporting.records import Selection
from hirise_imb.reporting.search_summary import best_so_far, failures, mean_best_so_far, tally
from hirise_imb.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("blank_figures")

ORDER = ["baseline", "plain", "partial_unfreeze", "focal_loss", "prototypes", "tta", "class_weights"]
REASON = "with seed 3: <b>one</b> landmark | of\nspider"
STOPS_LATE = Recipe(monitor="val_macro_f1")
RECIPES = dict.fromkeys(("plain", "focal_loss", "class_weights", "tta"), STOPS_LATE) | {
    "baseline": Recipe(),
    "partial_unfreeze": Recipe(monitor="val_macro_f1", cut="stage"),
    "prototypes": Recipe(head=NearestMean("none", 0.5)),
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def results(catalogue: Manifest) -> Results:
    truth = catalogue.canonical_images("test")["label"].tolist()

    def arm(name: str, right: float, val: float, trials: list[dict[str, Any]]) -> Arm:
        predicted = [guesses(truth, right, seed) for seed in SEEDS]
        return make_arm(catalogue, name, predicted, val, RECIPES[name], trials=trials)

    done = [{"state": "complete", "value": 0.1 * n} for n in range(1, 8)]
    none = [{"state": "fail", "value": 0.2, "error": "stopped"}] * 7
    return make_results(
        catalogue,
        arm("baseline", 0.5, 0.40, []),
        arm("class_weights", 0.8, 0.45, TRIALS),
        arm("tta", 0.85, 0.46, none),
        arm("prototypes", 0.55, 0.47, done),
        arm("plain", 0.6, 0.44, done[::-1]),
        arm("partial_unfreeze", 0.7, 0.50, TRIALS),
        arm("focal_loss", 0.9, 0.48, TRIALS[:4]),
        omitted=[Omitted("synthetic", "makes up rows", REASON)],
    )


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that no test may change."""
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


def f1_again(folder: Path, arm: str) -> np.ndarray:
    """F1 of each class by scikit-learn, from the stored predictions, shape (seeds, 8)."""
    table = pd.read_parquet(folder / "predictions" / f"{arm}.parquet")
    parts = [table[table["seed"] == seed] for seed in SEEDS]
    return np.array(
        [
            metrics.f1_score(p["true_class"], p["predicted_class"], labels=CLASSES, average=None, zero_division=0)
            for p in parts
        ]
    )


# --- every table: the baseline, the control, the strategies as validation has them ---


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading of a Markdown page, but for its rule."""
    lines = text[text.index(f"\n## {heading}\n") :].splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("|"))
    last = next(n for n, line in enumerate(lines[first:], first) if not line.startswith("|"))
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[first:last]]
    return [[cell.strip() for cell in row] for row in (rows[0], *rows[2:])]


def test_arms_stand_in_the_order_of_validation(results: Results, folder: Path) -> None:
    assert [arm.name for arm in results.ordered] == ORDER
    summary = summary_of(folder)
    assert summary["order"] == ORDER
    assert summary["control"] == "plain"
    assert pd.read_csv(folder / "per_class.csv")["arm"].unique().tolist() == ORDER
    text = (folder / "report.md").read_text(encoding="utf-8")
    for heading in ("All strategies", "Scores"):
        assert [row[0] for row in rows_of(text, heading)[1:]] == ORDER
    assert [row[0] for row in rows_of(text, "The searches")[1:]] == ORDER[1:]
    page = re.sub("<wbr>", "", (folder / "report.html").read_text(encoding="utf-8"))
    tables = [
        re.findall(r'<th scope="row"[^>]*>(?:<a [^>]*>)?(\w+)(?:</a>)?</th>', table) for table in page.split("</table>")
    ]
    assert tables.count(ORDER) >= 2  # of all that have a row for each arm
    assert not any(sorted(rows) == sorted(ORDER) and rows != ORDER for rows in tables)


def test_the_table_of_arms_shows_scores_and_differences(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    title, *rows = rows_of(text, "All strategies")
    assert title[:6] == ["arm", "val", "test macro F1", "vs control", "vs baseline", "rare"]
    f1 = {name: f1_again(folder, name) for name in ORDER}
    macro = {name: found.mean(axis=1) for name, found in f1.items()}
    val = {arm["name"]: arm["val_score"] for arm in summary_of(folder)["arms"]}
    for row in rows:
        name = row[0]
        mean = macro[name].mean()
        assert row[1:3] == [f"{val[name]:.3f}", f"{mean:.3f} ({macro[name].min():.3f} to {macro[name].max():.3f})"]
        for cell, other in zip(row[3:5], ("plain", "baseline"), strict=True):
            assert cell == ("–" if name == other else f"{mean - macro[other].mean():+.3f}")
        assert row[5] == f"{f1[name][:, 1:].mean():.3f}"
        assert row[6:13] == [f"{value:.3f}" for value in f1[name].mean(axis=0)[:7]]
        assert row[13] == "–"  # no spider in the test split


def test_differences_to_the_control_follow_from_the_predictions(folder: Path) -> None:
    control = f1_again(folder, "plain")
    table = pd.read_csv(folder / "per_class.csv").set_index("arm")
    for arm in summary_of(folder)["arms"]:
        mine = f1_again(folder, arm["name"])
        gain = mine.mean(axis=0) - control.mean(axis=0)
        found = arm["vs_control"]
        np.testing.assert_allclose(found["per_class"]["f1"], gain, atol=1e-12)
        np.testing.assert_allclose(table.loc[arm["name"], "f1_vs_control"], gain, atol=1e-12)
        assert found["scores"]["macro_f1"] == pytest.approx(gain.mean(), abs=1e-12)


def test_the_headline_says_what_tuning_alone_gives(results: Results, folder: Path) -> None:
    macro = {name: f1_again(folder, name).mean() for name in ORDER}
    base, control, best = (macro[name] for name in ("baseline", "plain", "partial_unfreeze"))
    above = [sum(macro[name] > least for name in ORDER[2:]) for least in (control, base)]
    told = summary_of(folder)["headline"]
    assert told.startswith(
        f"partial_unfreeze, the best strategy on validation, reaches macro F1 {best:.3f} on the test split, against "
        f"{control:.3f} for the control, plain: {best - control:+.3f} ("
    )
    against = f"Against the baseline, which reaches {base:.3f}, the difference is {best - base:+.3f} (95 % confidence"
    assert f" after Holm over 5 comparisons). {against}" in told
    interval = next(a for a in summary_of(folder)["arms"] if a["name"] == "plain")["vs_baseline"]["interval"]
    low, high = interval["low"], interval["high"]
    assert told.endswith(
        f" after Holm over 6 comparisons). Tuning alone gives {control - base:+.3f} ({low:+.3f} to {high:+.3f}) over "
        f"the baseline: the control, plain, reaches {control:.3f}. {above[0]} of 5 strategies score above their "
        f"control on the test split, {above[1]} above the baseline."
    )
    tuned = [with_selection(arm, val_score=0.6) if arm.name == "plain" else arm for arm in results.arms]
    text = headline(replace(results, arms=tuple(tuned)))
    assert text.startswith("On validation no strategy beats the control; the best one, partial_unfreeze, reaches")
    tuned[0] = with_selection(tuned[0], val_score=0.6)
    text = headline(replace(results, arms=tuple(tuned)))
    assert text.startswith("On validation no strategy beats the baseline or the control; the best one, partial_")


def test_a_study_whose_strategies_failed_is_reported(results: Results, tmp_path: Path) -> None:
    base, control = results.arms[0], results.control
    assert control is not None
    starts = [f"{results.main_score(arm.name).mean:.3f}" for arm in (base, control)]
    text = headline(replace(results, arms=(base,)))
    assert text == f"No strategy gave a result here. The baseline reaches macro F1 {starts[0]} on the test split."
    page = write_report(replace(results, arms=(base,)), tmp_path / "one").read_text(encoding="utf-8")
    assert "The searches" not in page
    assert "Strategies without a result" in page
    assert "figures/best_so_far.png" not in contents(tmp_path / "one")
    text = headline(replace(results, arms=(base, control)))
    gain = results.main_score("plain").mean - results.main_score("baseline").mean
    interval = results.inference.against("plain", "baseline").interval
    assert interval
    assert text == (
        f"No strategy gave a result here. The baseline reaches macro F1 {starts[0]} on the test split. Tuning alone "
        f"gives {gain:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}) over the baseline: the control, plain, "
        f"reaches {starts[1]}."
    )
    page = write_report(replace(results, arms=(base, control)), tmp_path / "two").read_text(encoding="utf-8")
    assert html.escape(text) in page


def test_what_is_not_applicable_is_reported_as_text(folder: Path) -> None:
    assert summary_of(folder)["omitted"] == [{"name": "synthetic", "summary": "makes up rows", "reason": REASON}]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "with seed 3: &lt;b&gt;one&lt;/b&gt; landmark" in page
    text = (folder / "report.md").read_text(encoding="utf-8")
    row = rows_of(text, "Strategies without a result")[1]
    assert row == ["synthetic", "makes up rows", "with seed 3: &lt;b>one&lt;/b> landmark \\| of spider"]


def test_a_computed_head_has_no_curves(folder: Path) -> None:
    files = contents(folder)
    assert {"confusion/prototypes.png", "predictions/prototypes.parquet"} < set(files)
    assert not {name for name in files if "curves-prototypes" in name}
    assert {"figures/curves-tta.png", "figures/curves-tta.csv"} < set(files)
    for name in ("report.html", "report.md"):
        assert files[name].decode().count("Closed-form head, which has no epochs; seeds 3, 4.") == 1


# --- the searches ---

states = st.sampled_from(["complete", "fail"])
trials = st.lists(st.tuples(states, st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])), min_size=1, max_size=30)


@quick
@given(trials)
def test_the_best_so_far_is_the_running_maximum_of_complete_trials(found: list[tuple[str, float]]) -> None:
    entries: list[dict[str, str | float | None]] = [{"state": state, "value": value} for state, value in found]
    selection = replace(BARE.selections[0], trials=entries)
    before = [found[: n + 1] for n in range(len(found))]
    expected = [max((value for state, value in some if state == "complete"), default=math.nan) for some in before]
    np.testing.assert_array_equal(best_so_far(selection), expected)
    np.testing.assert_array_equal(mean_best_so_far(replace(BARE, selections=(selection,))), expected)
    counted = tally(selection)
    assert counted["complete"] + counted["failed"] == counted["trials"] == len(found)
    if math.isnan(expected[-1]):
        assert (counted["best_trial"], counted["best_value"]) == (None, None)
    else:
        assert counted["best_value"] == expected[-1]
        assert counted["best_trial"] is not None
        assert found[counted["best_trial"] - 1] == ("complete", expected[-1])
        assert ("complete", expected[-1]) not in found[: counted["best_trial"] - 1]


BARE = Arm("a", "strategy", "", (Selection("given split", {}, {}, 0.5, []),), (), (), (), (), (), (), 0.0)


def test_the_data_of_the_figure_are_kept(folder: Path) -> None:
    table = pd.read_csv(folder / "figures" / "best_so_far.csv")
    assert table.columns.tolist() == ["arm", "division", "trial", "state", "value", "best_so_far"]
    assert table["arm"].unique().tolist() == ORDER[1:]
    deep = table[table["arm"] == "partial_unfreeze"]
    assert deep["trial"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert deep["state"].tolist() == ["complete", "failed", "failed", "complete", "complete", "failed", "complete"]
    np.testing.assert_array_equal(deep["best_so_far"], [0.31, 0.31, 0.31, 0.42, 0.42, 0.42, 0.42])
    assert table.loc[table["arm"] == "tta", "best_so_far"].isna().all()


def test_the_figure_draws_them(results: Results) -> None:
    canvas = figure(results)
    assert canvas is not None
    panels = {axes.get_title(loc="left"): axes for axes in canvas.axes if axes.get_visible()}
    assert list(panels) == ORDER[1:]
    for arm in results.ordered[1:]:
        axes = panels[arm.name]
        bold = [line for line in axes.get_lines() if line.get_linewidth() == 2]
        assert len(bold) == 1
        [selection] = arm.selections
        np.testing.assert_array_equal(at_each_trial(bold[0], len(selection.trials)), best_so_far(selection))
        behind = [line for line in axes.get_lines() if line.get_linewidth() == 0.8]
        pieces = sum(np.count_nonzero(np.isnan(line.get_ydata())) for line in behind)
        # All searches in one line, with a gap after each.
        assert pieces == len(results.ordered[1:])
    assert len({axes.get_ylim() for axes in panels.values()}) == 1


def at_each_trial(line: Line2D, trials: int) -> np.ndarray:
    """What a line of steps says of trials 1, 2 .. n; NaN before it begins."""
    numbers, values = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    if not len(numbers):
        return np.full(trials, np.nan)
    places = np.searchsorted(numbers, np.arange(1, trials + 1), side="right") - 1
    return np.where(places >= 0, values[places], np.nan)


def test_trials_are_counted_and_failures_explained(folder: Path, results: Results) -> None:
    arms = {arm["name"]: arm for arm in summary_of(folder)["arms"]}
    assert arms["class_weights"]["selections"][0]["search"] == {
        "trials": 7,
        "complete": 4,
        "failed": 3,
        "best_trial": 4,
        "best_value": 0.42,
    }
    assert arms["class_weights"]["failures"] == [
        {"reason": "val_loss became inf in epoch 3", "trials": 2},
        {"reason": "stopped", "trials": 1},
    ]
    assert arms["tta"]["failures"] == [{"reason": "stopped", "trials": 7}]
    assert arms["prototypes"]["failures"] == []
    assert failures(with_selection(BARE, trials=[{"state": "fail", "value": None}])) == [
        {"reason": "no reason is known", "trials": 1}
    ]
    text = (folder / "report.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:6] for row in rows_of(text, "The searches")[1:]}
    assert rows["partial_unfreeze"] == ["7", "4", "3", "4", "0.420"]
    assert rows["tta"] == ["7", "0", "7", "–", "–"]
    assert "| focal_loss | 1 | val_loss became inf in epoch 3 |" in text
    page = re.sub("<wbr>", "", (folder / "report.html").read_text(encoding="utf-8"))
    table = page[page.index('aria-label="Why trials failed"') :].split("</table>")[0]
    assert re.findall(r'<th scope="row">(\w+)</th> <td>(\d)</td>', table) == [
        ("partial_unfreeze", "2"),
        ("partial_unfreeze", "1"),
        ("focal_loss", "1"),
        ("focal_loss", "1"),
        ("tta", "7"),
        ("class_weights", "2"),
        ("class_weights", "1"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"role": "remedy"}, "role must be one of"), ({"trials": [{"state": "COMPLETE"}]}, "got 'COMPLETE'")],
)
def test_words_that_no_table_knows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BARE, **change) if "role" in change else with_selection(BARE, **change)


# --- what was done, and with what ---


def test_the_protocol_tells_why_a_search_is_shorter_and_which_epochs_are_not_selected(results: Results) -> None:
    assert "fine-tune the backbone" not in " ".join(protocol(results))
    assert "schedules" not in " ".join(protocol(results))
    arms = {arm.name: arm for arm in results.arms}
    tuned, other = arms["focal_loss"], next(arm for arm in results.strategies if arm.has_epochs)
    arms[tuned.name] = with_selection(tuned, recipe=tuned.selections[0].recipe | {"cut": "late"})
    arms[other.name] = with_selection(other, recipe=arms[other.name].selections[0].recipe | {"monitor": "none"})
    told = " ".join(protocol(replace(results, arms=tuple(arms.values()))))
    assert "The limit of searches that fine-tune the backbone is lower: focal_loss." in told
    assert f"The schedules of {other.name} are trained to their end instead." in told


def test_the_protocol_follows_from_the_arms(results: Results, folder: Path) -> None:
    told = " ".join(protocol(results))
    assert told.startswith(
        "The validation score of every arm is macro F1 in a cross-validation over the training and validation splits "
        "with folds by source, mean over 3 seeds, each with its own assignment of sources to folds."
    )
    assert "Searches have up to 7 finished trials; fewer have focal_loss (4). A search ends early when all" in told
    assert "4 of the 6 searches share learning_rate (a number from" in told
    assert "tta starts from the recipe selected for plain" in told
    assert (
        "The baseline is fitted as published: on the training split, with early stopping on validation loss of the "
        "given validation split and at most 30 epochs, with 2 seeds."
    ) in told
    assert "fitted on the training and validation splits together, with 2 seeds, for the number of epochs" in told
    assert "environment.json" in told
    for name in ("report.html", "report.md"):
        text = html.unescape((folder / name).read_text(encoding="utf-8"))
        assert all(sentence in text for sentence in protocol(results))
    assert "2026-01-02" not in (folder / "report.md").read_text(encoding="utf-8")  # times differ from run to run
    assert "2026-01-02" not in (folder / "summary.json").read_text(encoding="utf-8")

    same = tuple(with_selection(arm, trials=arm.selections[0].trials[:4]) for arm in results.arms)
    told = " ".join(protocol(replace(results, arms=same, environment={}, trial_seeds=None)))
    assert " with folds by source, mean over the seeds. " in told
    assert "Every search has 4 finished trials. " in told
    assert "environment.json" not in told


def test_the_appendix_lists_what_is_declared(folder: Path) -> None:
    summary = summary_of(folder)
    assert [strategy["name"] for strategy in summary["strategies"]] == [arm["name"] for arm in summary["arms"][1:]]
    shared = {parameter["name"]: parameter for parameter in summary["shared_parameters"]}
    text = (folder / "report.md").read_text(encoding="utf-8")
    for entry in summary["strategies"]:
        declared = STRATEGIES[entry["name"]]
        assert (entry["summary"], entry["source"]) == (declared.summary, declared.source)
        own = {parameter["name"]: parameter for parameter in entry["parameters"]}
        for parameter in declared.space:
            found = own.get(parameter.name) or shared[parameter.name]
            assert found["range"] == parameter.describe_range()
            assert (found["default"], found["help"], found["source"]) == (
                parameter.default,
                parameter.help,
                parameter.source,
            )
            assert (found["when"] is None) == (parameter.when is None)
            if parameter.name in shared:
                assert entry["name"] in found["strategies"]
            else:
                assert f"| {entry['name']} | {parameter.name} | {parameter.describe_range()} |" in text
    assert set(shared) == {"learning_rate", "weight_decay"}
    power = next(p for p in summary["strategies"][0]["parameters"] if p["name"] == "power")
    assert power["when"] == "scheme is inverse_power"
