"""Reports of a nested cross-validation: their words, their headline, and the report of the given split inside."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import (
    SEEDS,
    check_files,
    contents,
    guesses,
    make_arm,
    make_catalogue,
    make_nested_results,
    make_results,
    summary_of,
    with_selection,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from terminal import print_end

from hirise_imb.data.manifest import Manifest
from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.figures import gallery
from hirise_imb.reporting.html.index import write_index
from hirise_imb.reporting.narrative import caution, headline
from hirise_imb.reporting.nested_narrative import OVERLAP
from hirise_imb.reporting.protocol import protocol
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.summary.content import of_study
from hirise_imb.reporting.summary.schema import find_fault
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

EVERY = (60, 24, 12, 10, 8, 6, 8, 6)
RIGHT = {"baseline": 0.3, "plain": 0.55, "focal_loss": 0.5, "class_weights": 0.9, "tta": 0.56}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"), EVERY)


@pytest.fixture(scope="module")
def given_split(catalogue: Manifest) -> Results:
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = [
        make_arm(catalogue, name, [guesses(truth, share, seed) for seed in SEEDS], 0.3 + share / 2)
        for name, share in RIGHT.items()
    ]
    return replace(make_results(catalogue, *arms), environment={"seconds": {arm.name: arm.seconds for arm in arms}})


@pytest.fixture(scope="module")
def results(catalogue: Manifest, given_split: Results) -> Results:
    return make_nested_results(catalogue, RIGHT, repeats=2, given_split=given_split)


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


def read_texts(folder: Path) -> dict[str, str]:
    """The page without figures and the Markdown, as a reader sees them."""
    page = re.sub(r'src="data:[^"]*"', "", (folder / "report.html").read_text(encoding="utf-8"))
    page = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return {"html": html.unescape(page), "md": html.unescape((folder / "report.md").read_text(encoding="utf-8"))}


# --- scores ---


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(orders=st.tuples(st.permutations(range(3)), st.permutations(range(3))))
def test_scores_do_not_depend_on_the_numbers_of_the_outer_folds(
    results: Results, orders: tuple[list[int], list[int]]
) -> None:
    """Fold k of a repeat becomes fold `order[k]`, with its selections and temperatures."""
    assert results.outer_folds is not None
    folds = results.outer_folds.copy()
    folds["fold"] = [orders[r - 1][f - 1] + 1 for r, f in zip(folds["repeat"], folds["fold"], strict=True)]
    sources = np.argsort(orders, axis=1)  # which fold has a number now
    arms = []
    for arm in results.arms:
        selections = [arm.selections[3 * r + int(k)] for r in range(2) for k in sources[r]]
        temperatures = [tuple(of[int(k)] for k in sources[fit // 2]) for fit, of in enumerate(arm.temperatures)]
        arms.append(replace(arm, selections=tuple(selections), temperatures=tuple(temperatures)))
    permuted = replace(results, arms=tuple(arms), outer_folds=folds)
    for arm in results.arms:
        assert permuted.headline_scores(arm.name) == results.headline_scores(arm.name)
        assert permuted.inference.resamples[arm.name].interval() == results.inference.resamples[arm.name].interval()
    assert permuted.families == results.families
    assert [arm.name for arm in permuted.ordered] == [arm.name for arm in results.ordered]
    assert headline(permuted) == headline(results)


def test_each_landmark_has_the_temperature_of_its_outer_fold_and_repeat(results: Results) -> None:
    assert results.outer_folds is not None
    rows = results.outer_folds.to_numpy().tolist()
    folds = {(repeat, source): fold for repeat, fold, source in rows}
    moved = [source for repeat, source in folds if repeat == 1 and folds[1, source] != folds[2, source]]
    assert moved
    for arm in results.arms:
        for fit, temperatures in enumerate(results.landmark_temperatures(arm)):
            expected = [arm.temperatures[fit][folds[1 + fit // 2, source] - 1] for source in results.test["source"]]
            np.testing.assert_array_equal(temperatures, expected)


# --- words ---


def test_nothing_speaks_of_a_test_split(results: Results, tmp_path: Path) -> None:
    alone = replace(results, given_split=None)
    texts = read_texts(write_report(alone, tmp_path / "alone").parent)
    texts["summary"] = " ".join([*protocol(alone), headline(alone), caution(alone), alone.pairing()])
    for place, text in texts.items():
        told = text.replace(OVERLAP, "").replace("cross-validation", "").replace("validation loss", "")
        for word in ("test split", "test landmark", "test source", "validation", "given split"):
            assert word not in told, (place, word, told[max(0, told.find(word) - 80) : told.find(word) + 80])
        assert "outer folds" in told, place
    terminal = " ".join(print_end(alone))
    assert not any(word in terminal for word in ("test split", "validation", "given split"))
    for text in (texts["html"], texts["md"]):
        assert "Fitted on all other outer folds; epochs of seeds 3, 4, 5, 6: (2, 2, 2), (2, 2, 2)" in text
    assert "inner score" in texts["html"]
    assert "outer score" in texts["html"]
    assert "chosen from 7 trials in each outer fold." in texts["md"]


@pytest.mark.usefixtures("undrawn")
def test_the_given_split_keeps_its_words(results: Results, folder: Path) -> None:
    given = results.given_split
    assert given is not None
    for text in read_texts(folder / "given-split").values():
        assert headline(given) in text
        for word in ("outer fold", "inner", "nested"):
            assert word not in text
    assert "the best strategy on validation, reaches macro F1" in headline(given)


def test_the_protocol_says_what_is_done_inside_an_outer_fold(results: Results, folder: Path) -> None:
    told = " ".join(protocol(results))
    n_sources = results.test["source"].nunique()
    assert told.startswith(
        f"This is a nested cross-validation. The {len(results.test)} landmarks of all splits are divided into 3 outer "
        f"folds of whole sources ({n_sources}), balanced by class, in 2 repeats with other divisions, whose scores are "
        "averaged. For each outer fold, everything is done on all other outer folds alone: searches, choices, numbers "
        "of epochs, class priors, post-hoc adjustments, temperatures, projections and synthetic rows. Then the fold is "
        "predicted once."
    )
    assert OVERLAP in told
    assert "Every search has 7 finished trials in each outer fold." in told
    assert (
        "The baseline is the published recipe without a search: fitted on all other outer folds but one inner fold, "
        "with early stopping on validation loss of that fold and at most 30 epochs, with 2 seeds in each repeat."
    ) in told
    assert "fitted on all other outer folds, with 2 seeds in each repeat, for the number of epochs" in told
    once = make_protocol_of_one_repeat(results)
    assert "balanced by class. For each" in once
    assert "with 2 seeds, for" not in told
    for text in read_texts(folder).values():
        assert all(sentence in text for sentence in protocol(results))


def make_protocol_of_one_repeat(results: Results) -> str:
    assert results.outer_folds is not None
    folds = results.outer_folds[results.outer_folds["repeat"] == 1]
    arms = tuple(
        replace(
            arm,
            selections=arm.selections[:3],
            seeds=arm.seeds[:2],
            predictions=arm.predictions[:2],
            temperatures=arm.temperatures[:2],
        )
        for arm in results.arms
    )
    return " ".join(protocol(replace(results, arms=arms, outer_folds=folds)))


# --- the headline ---


def test_the_headline_names_the_strategies_that_beat_the_control(results: Results, folder: Path) -> None:
    summary = summary_of(folder)
    arms = {arm["name"]: arm for arm in summary["arms"]}
    against = arms["class_weights"]["vs_control"]
    p = {name: arm["vs_control"]["test"]["p_holm"] for name, arm in arms.items() if arm["vs_control"]["test"]}
    assert p["class_weights"] < 0.01
    assert min(p["tta"], p["focal_loss"]) > 0.05
    gain, interval = against["scores"]["macro_f1"], against["interval"]
    control, base = (arms[name]["scores"]["macro_f1"]["mean"] for name in ("plain", "baseline"))
    told = headline(results)
    assert told == summary["headline"]
    assert told.startswith(
        f"In a nested cross-validation over {results.inference.total} sources, 1 of 3 strategies beats the tuned "
        f"control (plain, macro F1 {control:.3f}) by a difference that is statistically significant after correction "
        f"for 3 comparisons: class_weights by {gain:+.3f} (95 % confidence interval {interval['low']:+.3f} to "
        f"{interval['high']:+.3f}, p < 0.001, adjusted "
    )
    assert told.endswith(f"over the published recipe, which reaches {base:.3f}.")
    assert f"Tuning alone gives {control - base:+.3f} (" in told
    assert " Significantly worse" not in told
    assert told.count(". ") <= 3


def test_the_headline_lists_classes_whose_interval_excludes_zero(results: Results) -> None:
    results = divide_sources(results, 4)
    [_, classes, *_] = headline(results).split(". ")
    intervals = results.inference.class_differences("class_weights", "plain")
    gains = results.difference("class_weights", "f1", "plain")
    expected = [
        f"{name} ({gains[k]:+.3f})"
        for k, name in enumerate(results.classes)
        if k and (interval := intervals[k]) is not None and interval.low > 0
    ]
    assert len(expected) > 1
    assert classes.startswith("With class_weights, F1 rises in ")
    named = sorted(expected, key=lambda text: text.rpartition("(")[2], reverse=True)[:3]
    assert all(text in classes for text in named)
    more = f" and {len(expected) - 3} more" if len(expected) > 3 else ""
    assert f"{more} (95 % intervals exclude 0); other" in classes
    other = intervals[0]
    assert other is not None
    assert classes.endswith(
        f"other, the majority class, changes by {gains[0]:+.3f} ({other.low:+.3f} to {other.high:+.3f})"
    )


def divide_sources(results: Results, parts: int) -> Results:
    """Results with several sources instead of each one, so that more classes have intervals."""
    assert results.outer_folds is not None
    folds = pd.concat(
        [results.outer_folds.assign(source=results.outer_folds["source"] + f"-{part}") for part in range(parts)]
    )
    sources = [f"{source}-{place % parts}" for place, source in enumerate(results.test["source"])]
    used = folds["source"].isin(sources)
    return replace(results, test=results.test.assign(source=sources), outer_folds=folds[used].reset_index(drop=True))


def test_the_headline_says_which_strategies_are_worse_and_that_none_is_better(catalogue: Manifest) -> None:
    found = make_nested_results(catalogue, {"baseline": 0.3, "plain": 0.7, "focal_loss": 0.7, "class_weights": 0.2})
    told = headline(found)
    gain = found.gain("focal_loss", "macro_f1", "plain")
    assert "none of 2 strategies beats the tuned control (plain, macro F1 " in told
    assert (
        "by a difference that is statistically significant after correction for 2 comparisons. The highest difference "
        f"is that of focal_loss, {gain:+.3f} (95 % confidence interval "
    ) in told
    worse = found.gain("class_weights", "macro_f1", "plain")
    assert f"Significantly worse is class_weights by {worse:+.3f} (" in told
    assert (
        "With focal_loss, no rare class gains or loses clearly (95 % intervals include 0); other, the majority class"
        in told
    )


def test_without_a_control_the_baseline_is_named_and_without_a_strategy_nothing_is_compared(
    catalogue: Manifest,
) -> None:
    found = make_nested_results(catalogue, {"baseline": 0.3, "class_weights": 0.9})
    base = found.main_score("baseline").mean
    assert (
        f"the only strategy beats the baseline (macro F1 {base:.3f}) by a difference that is statistically "
        "significant: class_weights by +"
    ) in headline(found)
    alone = make_nested_results(catalogue, {"baseline": 0.3, "plain": 0.7})
    assert headline(alone).startswith(
        f"No strategy gave a result here. The baseline reaches macro F1 {base:.3f} in the outer folds. Tuning alone "
    )
    same = make_nested_results(catalogue, {"baseline": 0.3, "plain": 0.7, "tta": 0.3})
    same = replace(same, arms=(*same.arms[:2], replace(same.arms[2], predictions=same.arms[1].predictions)))
    assert "no strategy could be tested against the tuned control (plain, macro F1 " in headline(same)


def test_the_caution_names_what_is_out_of_reach(results: Results) -> None:
    size = results.families["vs_control"].min_detectable_difference
    assert size is not None
    told = caution(results)
    assert f"to the control (one test, p <= 0.05) is {size.low:.3f} to {size.high:.3f}, depending on the arm" in told
    assert "On these sources, smaller differences are not distinguishable from chance." in told
    assert "Inner and outer macro F1 of 5 distinct arms have the rank correlation" in told
    assert results.given_split is not None
    assert "smaller differences" not in caution(results.given_split)


def test_the_page_leads_with_the_verdict_and_the_forest_plot(results: Results, folder: Path) -> None:
    verdict = summary_of(folder)["verdict"]
    texts = read_texts(folder)
    parts = [verdict["headline"], verdict["advice"], *(card["text"] for card in verdict["cards"])]
    assert len(parts) > 3
    for name, text in texts.items():
        places = [text.index(part) for part in parts]
        assert places == sorted(places), name
        assert places[-1] < text.index("All strategies</h2>" if name == "html" else "## All strategies"), name
    assert texts["html"].index(verdict["advice"]) < texts["html"].index("figures/") < texts["html"].index(parts[2])
    assert "class_weights: distinguishable from chance (adjusted p <= 0.05). All others are not." in texts["html"]


# --- the given split inside ---


def test_both_reports_are_complete_and_the_main_one_lists_the_other(results: Results, folder: Path) -> None:
    listed = check_files(folder)
    assert "outer_folds.csv" in listed
    assert results.outer_folds is not None
    pd.testing.assert_frame_equal(pd.read_csv(folder / "outer_folds.csv"), results.outer_folds)
    assert not (folder / "given-split" / "outer_folds.csv").exists()
    inside = summary_of(folder / "given-split")
    assert inside["given_split"] is None
    stored = summary_of(folder)["given_split"]
    assert [arm["name"] for arm in stored["arms"]] == inside["order"]
    assert (stored["sources"], stored["landmarks"]) == (inside["inference"]["sources"], sum(inside["support"]))
    assert stored["tests"] == inside["inference"]["vs_control"]["tests"] == 3
    outer = {arm["name"]: arm["scores"]["macro_f1"]["mean"] for arm in summary_of(folder)["arms"]}
    arms = {arm["name"]: arm for arm in inside["arms"]}
    for row in stored["arms"]:
        arm = arms[row["name"]]
        against = arm["vs_control"] if row["name"] != "plain" else None
        assert row == {
            "name": arm["name"],
            "val_score": arm["val_score"],
            "score": arm["scores"]["macro_f1"]["mean"],
            "difference": against["scores"]["macro_f1"] if against else None,
            "interval": against["interval"] if against else None,
            "p_holm": against["test"]["p_holm"] if against and against["test"] else None,
            "outer_score": outer[arm["name"]],
        }
    assert [row["p_holm"] is None for row in stored["arms"]] == [True, True, False, False, False]


def test_the_page_and_the_text_show_the_given_split(results: Results, folder: Path) -> None:
    texts = read_texts(folder)
    assert '<a href="given-split/report.html">' in texts["html"]
    assert "[its own report](given-split/report.md)" in texts["md"]
    row = summary_of(folder)["given_split"]["arms"][2]
    scores = [f"{row[key]:.3f}" for key in ("val_score", "score", "outer_score")]
    difference, ends = f"{row['difference']:+.3f}", [f"{row['interval'][end]:+.3f}" for end in ("low", "high")]
    for name, text in texts.items():
        part = text[text.index("The published protocol: the given split") :]
        assert OVERLAP in " ".join(part.split()), name
        assert all(number in part for number in (*scores, difference, *ends)), name


def test_what_is_read_back_is_what_was_written(results: Results, folder: Path) -> None:
    found = read_report(folder)
    assert found.given_split is not None
    assert results.given_split is not None
    for mine, theirs in ((results, found), (results.given_split, found.given_split)):
        assert of_study(theirs) == of_study(mine)
        assert (theirs.repeats, theirs.terms) == (mine.repeats, mine.terms)
    assert found.given_split.given_split is None


def test_a_later_run_without_the_given_split_removes_it(results: Results, tmp_path: Path) -> None:
    folder = write_report(results, tmp_path / "report").parent
    (folder / "given-split" / "notes.txt").write_text("mine")
    alone = replace(results, given_split=None)
    write_report(alone, folder)
    assert contents(folder / "given-split") == {"notes.txt": b"mine"}
    assert [path.name for path in (folder / "given-split").iterdir()] == ["notes.txt"]
    (folder / "given-split" / "notes.txt").unlink()
    check_files(folder)
    for text in read_texts(folder).values():
        assert "The published protocol" not in text
        assert "given-split/" not in text

    assert results.given_split is not None
    write_report(results, folder)
    write_report(results.given_split, folder)  # now the only design
    assert not (folder / "given-split").exists()
    assert "outer_folds.csv" not in check_files(folder)


def test_a_kill_between_the_two_reports_leaves_one_that_can_be_read(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that was extended writes both reports again: other predictions in all files."""
    folder = write_report(results, tmp_path / "report").parent
    assert results.given_split is not None
    first = results.given_split.arms[1]
    other = replace(first, predictions=first.predictions[::-1])
    given = replace(results.given_split, arms=(results.given_split.arms[0], other, *results.given_split.arms[2:]))
    fewer = replace(results, arms=results.arms[:3], given_split=given)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hirise_imb.reporting.write.gallery.of_study", once(gallery.of_study, stop))
        with pytest.raises(KeyboardInterrupt):
            write_report(fewer, folder)
    found = read_report(folder)
    assert len(found.arms) == 5  # as before
    assert found.given_split is not None
    assert of_study(found.given_split) == of_study(given)  # the new one
    write_report(fewer, folder)
    check_files(folder)
    assert len(read_report(folder).arms) == 3


def once(function: object, later: object) -> object:
    """The function at the first call, and another at all later ones."""
    calls: list[object] = []

    def call(*args: object) -> object:
        calls.append(args)
        return (function if len(calls) == 1 else later)(*args)  # type: ignore[operator]

    return call


@pytest.mark.parametrize("name", ["predictions/plain.parquet", "study.toml"])
def test_a_changed_file_of_the_given_split_is_refused(name: str, results: Results, tmp_path: Path) -> None:
    folder = write_report(results, tmp_path / "report").parent
    path = folder / "given-split" / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UserError, match=re.escape(f"{path} is not the file that was written with the report")):
        read_report(folder)
    path.unlink()
    with pytest.raises(UserError, match=re.escape(f"{path} is missing")):
        read_report(folder)


def test_another_report_in_its_place_is_refused(results: Results, tmp_path: Path) -> None:
    folder = write_report(results, tmp_path / "report").parent
    assert results.given_split is not None
    for wrong in (replace(results.given_split, name="other"), replace(results, given_split=None)):
        write_report(wrong, folder / "given-split")
        with pytest.raises(UserError, match="is not the report of the given split of by-hand: run its study again"):
            read_report(folder)


def test_a_given_split_belongs_into_a_nested_report_alone(folder: Path) -> None:
    summary = summary_of(folder)
    assert find_fault(summary) is None
    wrong = summary_of(folder / "given-split") | {"given_split": summary["given_split"]}
    assert find_fault(wrong) == "at $.given_split: only the report of a nested cross-validation has one"
    wrong = json.loads(json.dumps(summary))
    wrong["given_split"]["folder"] = "../elsewhere"
    assert (find_fault(wrong) or "").startswith("at $.given_split")


def test_a_folder_of_another_kind_is_refused_before_anything_is_written(results: Results, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"kind": "comparison", "files": {}}')
    before = contents(tmp_path)
    with pytest.raises(UserError, match="contains the report of a comparison: give this study another name"):
        write_report(results, tmp_path)
    assert contents(tmp_path) == before


def test_the_list_has_both_reports(results: Results, tmp_path: Path) -> None:
    write_report(results, tmp_path / "by-hand")
    page = write_index(tmp_path).read_text(encoding="utf-8")
    rows = re.findall(r'<tr><th scope="row"><a href="(.*?)">.*?</th> <td class="name wrap">(.*?)</td>', page)
    assert rows == [
        ("by-hand/report.html", "study, nested cross-validation"),
        ("by-hand/given-split/report.html", "study"),
    ]


def test_the_order_is_by_inner_score(results: Results) -> None:
    tuned = [with_selection(arm, val_score=0.99) if arm.name == "tta" else arm for arm in results.arms]
    found = replace(results, arms=tuple(tuned))
    assert found.chosen is not None
    assert found.chosen.name == "tta"
    assert headline(found) == headline(results)  # which is about all strategies, whichever is chosen
