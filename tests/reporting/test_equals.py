"""Comparisons between equals: controls that average as many fits, identical arms, and two families of tests."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handmade import exchange_sources, make_arm, make_catalogue, make_results, p_of, summary_of, with_selection
from scipy.stats import spearmanr
from terminal import print_end

from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.permutation import holm
from hirise_imb.reporting import Arm, Results, write_report
from hirise_imb.reporting.html.index import write_index
from hirise_imb.reporting.inference import rank_correlation
from hirise_imb.reporting.narrative import caution, headline
from hirise_imb.reporting.protocol import protocol
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.records import Origin

pytestmark = pytest.mark.usefixtures("blank_figures")

SUPPORT = (16, 12, 4, 4, 0, 0, 0, 0)
"""Twelve test sources: six of crater, two of each other class."""
Mistakes = Mapping[int, int]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"), SUPPORT)


def predict(catalogue: Manifest, wrong: Mistakes) -> list[int]:
    """The true classes, except for so many sources of each class, which are predicted as the next class."""
    test = catalogue.canonical_images("test")
    labels = test["label"].to_numpy().copy()
    for label, count in wrong.items():
        names = sorted(set(test.loc[test["label"] == label, "source"]))[:count]
        labels[test["source"].isin(names)] = (label + 1) % 4
    return [int(label) for label in labels]


def arm(catalogue: Manifest, name: str, val: float, *fits: Mistakes, **changes: Any) -> Arm:  # noqa: ANN401
    predicted = [predict(catalogue, wrong) for wrong in (fits if len(fits) > 1 else fits * 2)]
    return make_arm(catalogue, name, predicted, val, **changes)


@pytest.fixture(scope="module")
def results(catalogue: Manifest) -> Results:
    """Two strategies average four members; tau_norm predicts like the control, ensemble like the control of four."""
    return make_results(
        catalogue,
        arm(catalogue, "baseline", 0.40, {1: 5, 2: 2}),
        arm(catalogue, "plain-x4", 0.55, {1: 2, 2: 1}, members=4, trials=[]),
        arm(catalogue, "tau_norm", 0.50, {1: 3, 2: 1}, {1: 4}),
        arm(catalogue, "undersampling", 0.60, {1: 1}, members=4, notes=("neighbours limited to 3 for crater",)),
        arm(catalogue, "plain", 0.50, {1: 3, 2: 1}, {1: 4}),
        arm(catalogue, "ensemble", 0.56, {1: 2, 2: 1}, members=4),
        arm(catalogue, "focal_loss", 0.52, {1: 3}, {1: 4, 2: 1}),
        arm(catalogue, "baseline_to_the_end", 0.45, {1: 4, 2: 1}, capped=((True,), (False,)), trials=[], settings={}),
    )


ORDER = [
    "baseline",
    "baseline_to_the_end",
    "plain",
    "plain-x4",
    "undersampling",
    "ensemble",
    "focal_loss",
    "tau_norm",
]
STRATEGIES = ORDER[4:]
CONTROLS = {"undersampling": "plain-x4", "ensemble": "plain-x4", "focal_loss": "plain", "tau_norm": "plain"}
IDENTICAL = {"ensemble": "plain-x4", "tau_norm": "plain"}


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that no test may change."""
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


def fits_of(results: Results) -> dict[str, list[np.ndarray]]:
    return {arm.name: [fit.labels() for fit in arm.predictions] for arm in results.arms}


# --- rows and roles ---


def test_every_table_has_the_baselines_and_the_controls_before_the_strategies(results: Results, folder: Path) -> None:
    assert [arm.name for arm in results.ordered] == ORDER
    assert [arm.name for arm in results.strategies] == STRATEGIES
    assert pd.read_csv(folder / "per_class.csv")["arm"].unique().tolist() == ORDER
    assert pd.read_csv(folder / "figures/arms.csv")["arm"].tolist() == ORDER
    assert summary_of(folder)["order"] == ORDER
    page = re.sub("<wbr>", "", (folder / "report.html").read_text(encoding="utf-8"))
    tables = [re.findall(r'<th scope="row"[^>]*>(?:<a [^>]*>)?([\w-]+)', table) for table in page.split("</table>")]
    assert tables.count(ORDER) == 3  # intervals, all scores, selection
    [families] = [rows for rows in tables if sorted(rows) == sorted(set(ORDER) - set(IDENTICAL))]
    assert families[:3] == ORDER[:3]
    assert families[-1] == "plain-x4"  # controls that average several fits come last
    rows = [line.split("|")[1].strip() for line in (folder / "report.md").read_text().splitlines() if line[:2] == "| "]
    assert rows.count("plain-x4") == rows.count("baseline_to_the_end") == 7


def test_a_strategy_is_compared_with_the_control_that_averages_as_many(results: Results, folder: Path) -> None:
    arms = {arm["name"]: arm for arm in summary_of(folder)["arms"]}
    f1 = {name: arm["scores"]["macro_f1"]["mean"] for name, arm in arms.items()}
    others = {name: CONTROLS.get(name, "plain") for name in ORDER}
    assert {name: arm["vs_control"]["arm"] for name, arm in arms.items()} == others
    assert {arm["vs_baseline"]["arm"] for arm in arms.values()} == {"baseline"}
    for name, other in others.items():
        assert arms[name]["vs_control"]["scores"]["macro_f1"] == pytest.approx(f1[name] - f1[other])
    assert (arms["undersampling"]["members"], arms["plain-x4"]["role"]) == ([4], "control")
    assert arms["baseline_to_the_end"]["role"] == "baseline_to_the_end"
    table = pd.read_csv(folder / "figures/arms.csv").set_index("arm")
    assert {name: table.loc[name, "vs_control_arm"] for name in STRATEGIES} == CONTROLS


def test_a_strategy_without_an_equal_control_is_not_tested_against_another(results: Results) -> None:
    fewer = replace(results, arms=tuple(arm for arm in results.arms if arm.name != "plain-x4"))
    assert set(fewer.families["vs_control"].tests) == {"focal_loss"}
    assert set(fewer.families["vs_baseline"].tests) == {"plain", "undersampling", "ensemble", "focal_loss"}
    assert "No control averages as many fits as undersampling and ensemble average, so no test against" in caution(
        fewer
    )
    assert "No control averages" not in caution(results)
    assert headline(fewer).startswith("undersampling, the best strategy on validation, reaches macro F1 ")
    assert " for the baseline: " in headline(fewer)


# --- families and identical arms ---


def test_each_family_counts_the_distinct_strategies_once(results: Results, folder: Path) -> None:
    fits = fits_of(results)
    summary = summary_of(folder)
    stored = {arm["name"]: arm for arm in summary["arms"]}
    families: dict[str, dict[str, str]] = {
        "vs_control": {"undersampling": "plain-x4", "focal_loss": "plain"},
        "vs_baseline": dict.fromkeys(("plain", "undersampling", "focal_loss"), "baseline"),
    }
    for contrast, pairs in families.items():
        tests = {name: arm[contrast]["test"] for name, arm in stored.items() if arm[contrast]["test"]}
        assert set(tests) == set(pairs)
        assert summary["inference"][contrast]["tests"] == len(pairs)
        p = [p_of(exchange_sources(results.test, fits[name], fits[other])) for name, other in pairs.items()]
        assert [tests[name]["p"] for name in pairs] == pytest.approx(p)
        assert [tests[name]["p_holm"] for name in pairs] == pytest.approx(holm(p))
    assert len({stored[name]["vs_control"]["test"]["p"] for name in ("undersampling", "focal_loss")}) == 2


def test_identical_arms_are_shown_as_such(results: Results, folder: Path) -> None:
    assert results.identical == IDENTICAL
    assert {a["name"]: a["identical_to"] for a in summary_of(folder)["arms"] if a["identical_to"]} == IDENTICAL
    page = re.sub("<wbr>", "", (folder / "report.html").read_text(encoding="utf-8"))
    line = 'Identical to {}: <a data-arm="{}">{}</a></td>'
    assert page.count(line.format("the control", "tau_norm", "tau_norm")) == 1
    assert page.count(line.format("plain-x4", "ensemble", "ensemble")) == 1
    assert page.count("Identical to the control: both predict the same class for every test landmark and seed") == 1
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert len(re.findall(r"\| tau_norm \|.*\| identical \| – \| – \|", text)) == 1
    assert (
        " ensemble is identical to the control plain-x4: every test landmark gets the same class. tau_norm is "
        "identical to the control: every test landmark gets the same class. "
    ) in caution(results)


def test_one_other_prediction_of_one_seed_is_a_difference(results: Results, catalogue: Manifest) -> None:
    fits = [predict(catalogue, {1: 3, 2: 1}), predict(catalogue, {1: 4})]
    fits[1][0] = 1
    other = make_arm(catalogue, "tau_norm", fits, 0.5)
    arms = tuple(other if arm.name == "tau_norm" else arm for arm in results.arms)
    found = replace(results, arms=arms)
    assert found.identical == {"ensemble": "plain-x4"}
    assert set(found.families["vs_control"].tests) == {"undersampling", "focal_loss", "tau_norm"}


def test_an_arm_that_is_identical_to_the_baseline_is_in_no_family(catalogue: Manifest) -> None:
    found = make_results(
        catalogue,
        arm(catalogue, "baseline", 0.4, {1: 5}),
        arm(catalogue, "plain", 0.5, {1: 3}),
        arm(catalogue, "focal_loss", 0.6, {1: 5}),
        arm(catalogue, "tta", 0.55, {1: 2}),
    )
    assert found.identical == {"focal_loss": "baseline"}
    assert set(found.families["vs_control"].tests) == {"tta"}
    assert set(found.families["vs_baseline"].tests) == {"plain", "tta"}
    told = headline(found)
    assert "which is not tested, since it is identical to the baseline. Against the baseline, which reaches" in told
    assert "since it predicts the same classes as the baseline." in told
    assert "focal_loss is identical to the baseline: every test landmark gets the same class." in caution(found)


def test_a_comparison_tests_no_longer_baseline_and_no_control_that_averages(results: Results) -> None:
    names = [f"x/{arm.name}" for arm in results.ordered]
    arms = [replace(arm, name=name) for arm, name in zip(results.ordered, names, strict=True)]
    origins = (Origin("x", "x", "", tuple(names[:4]), None), Origin("y", "y", "", tuple(names[4:]), None))
    found = replace(results, arms=tuple(arms), origins=origins)
    assert found.control is None
    assert found.rank_correlation is None
    assert not found.families["vs_control"].tests
    assert list(found.families["vs_baseline"].tests) == [names[2], *names[4:]]
    told = " ".join(protocol(found))
    assert "The protocol of each, and its tests against its own control, are in its own report." in told
    assert "the primary contrast" not in told


# --- sentences ---


def test_the_headline_leads_with_the_control_and_names_both_baselines(results: Results) -> None:
    f1 = {arm.name: results.main_score(arm.name).mean for arm in results.arms}
    told = headline(results)
    gain = f1["undersampling"] - f1["plain-x4"]
    assert told.startswith(
        f"undersampling, the best strategy on validation, reaches macro F1 {f1['undersampling']:.3f} on the test "
        f"split, against {f1['plain-x4']:.3f} for the control that averages 4 fits, plain-x4: {gain:+.3f} ("
    )
    to_baseline = f1["undersampling"] - f1["baseline"]
    assert f"Against the baseline, which reaches {f1['baseline']:.3f}, the difference is {to_baseline:+.3f} (" in told
    longer = f1["baseline_to_the_end"] - f1["baseline"]
    assert (
        f"The recipe of the baseline reaches {f1['baseline_to_the_end']:.3f} ({longer:+.3f}) if it is trained to the "
        "end, on training and validation landmarks."
    ) in told
    above = [
        sum(f1[name] > f1[CONTROLS[name]] for name in STRATEGIES),
        sum(f1[name] > f1["baseline"] for name in STRATEGIES),
    ]
    assert f"{above[0]} of 4 strategies score above their control on the test split, {above[1]} above the" in told
    for other in ("the control", "the baseline"):
        assert f"the minimum detectable difference in macro F1 to {other} (one test" in caution(results) or (
            f"No difference to {other} could be statistically significant" in caution(results)
        )


def test_the_protocol_says_what_is_compared_with_what(results: Results) -> None:
    told = " ".join(protocol(results))
    assert (
        "undersampling and ensemble average several fits or heads in each prediction and are compared with plain-x4, a "
        "control that averages as many fits"
    ) in told
    assert "baseline_to_the_end has the recipe of the baseline without a limit on the epochs that binds" in told
    assert "which is the primary contrast, and with the baseline by the source-level swap test" in told
    assert "with Holm's (1979) correction in each of the two families." in told
    assert "is not tested, and not counted in a correction." in told
    alone = " ".join(protocol(replace(results, arms=(results.arms[0], results.arms[6]))))
    for word in ("plain-x4", "baseline_to_the_end", "control", "not counted", "families"):
        assert word not in alone


def test_notes_and_members_are_in_the_details(folder: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count("Each prediction averages 4 members. ") == 3
        assert text.count("Neighbours limited to 3 for crater.") == 1
    page = (folder / "report.html").read_text(encoding="utf-8")
    told = "Curves of validation come from the cross-validation, mean over folds and seeds;"
    assert page.count(told) == page.count("The curves of the test split were computed afterwards") - 1  # the baseline


def test_fits_that_end_at_the_last_epoch_are_those_that_say_so(results: Results) -> None:
    assert caution(results).endswith("and which might gain from more: baseline_to_the_end (1 of 2).")


# --- validation and test scores ---


def distinct(results: Results) -> tuple[list[float], list[float]]:
    arms = [arm for arm in results.ordered if arm.name not in IDENTICAL]
    return [arm.val_score for arm in arms], [results.main_score(arm.name).mean for arm in arms]


def test_the_rank_correlation_is_that_of_scipy_over_distinct_arms(results: Results, folder: Path) -> None:
    validation, test = distinct(results)
    expected = spearmanr(validation, test)
    found = summary_of(folder)["rank_correlation"]
    assert found["arms"] == 6
    assert found["rho"] == pytest.approx(expected.statistic)
    assert (
        f"Validation and test macro F1 of 6 distinct arms have the rank correlation {expected.statistic:+.2f} "
        "(Spearman, "
    ) in caution(results)
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    assert "have the rank correlation" in page


def test_its_p_value_is_the_share_of_orders_that_correlate_as_much() -> None:
    first, second = [0.1, 0.2, 0.2, 0.4, 0.5, 0.6], [0.3, 0.1, 0.5, 0.4, 0.2, 0.6]  # with a tie
    found = rank_correlation(first, second)
    expected = spearmanr(first, second).statistic
    assert found.rho == pytest.approx(expected)
    every = np.array([spearmanr(order, second).statistic for order in itertools.permutations(first)])
    share = (abs(every) >= abs(expected) - 1e-9).mean()
    assert 0.2 < share < 0.8
    assert found.p == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "so arms with higher validation scores tend to have higher test scores."),
        ((0.6, 0.5, 0.4, 0.3, 0.2, 0.1), "so arms with higher validation scores tend to have lower test scores."),
        ((0.3, 0.6, 0.1, 0.5, 0.4, 0.2), "which chance alone could give, so a higher validation score is no evidence"),
        ((0.5,) * 6, "No rank correlation between validation and test scores can be given for 6 distinct arms."),
    ],
)
def test_the_meaning_of_the_rank_correlation_is_said(results: Results, scores: Sequence[float], told: str) -> None:
    arms = [arm for arm in results.arms if arm.name not in IDENTICAL]
    ranks = np.argsort(np.argsort([results.main_score(arm.name).mean for arm in arms], kind="stable"))
    changed = [with_selection(arm, val_score=scores[rank]) for arm, rank in zip(arms, ranks, strict=True)]
    found = replace(results, arms=tuple(changed))
    assert told in caution(found)


def test_two_arms_have_no_rank_correlation(results: Results) -> None:
    two = replace(results, arms=results.arms[:2])
    assert two.rank_correlation is not None
    assert (two.rank_correlation.arms, two.rank_correlation.rho, two.rank_correlation.p) == (2, None, None)
    assert "No rank correlation between validation and test scores can be given for 2 distinct arms." in caution(two)


# --- intervals ---


def test_both_rules_for_undrawn_classes_are_shown(results: Results, folder: Path) -> None:
    summary = summary_of(folder)
    assert 0 < summary["inference"]["complete_share"] < 1
    text, page = ((folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    differ = False
    for stored in summary["arms"]:
        resamples = results.inference.resamples[stored["name"]]
        both = stored["uncertainty"]["macro_f1_undrawn"]
        for rule in ("others_mean", "own_f1"):
            interval = resamples.interval(rule)
            assert interval is not None
            assert both[rule] == pytest.approx({"low": interval.low, "high": interval.high})
        assert stored["uncertainty"]["score"] == both[summary["inference"]["undrawn"]]
        cells = [f"{ends['low']:.3f} to {ends['high']:.3f}" for ends in (both["others_mean"], both["own_f1"])]
        assert f"| {stored['name']} | {' | '.join(cells)} |" in text
        table = page[page.index('aria-label="Intervals of macro F1"') :].split("</table>")[0]
        assert all(cell in table for cell in cells)
        differ = differ or cells[0] != cells[1]
    assert differ


# --- other places ---


def test_a_report_is_read_with_its_roles(results: Results, folder: Path) -> None:
    found = read_report(folder)
    for mine, theirs in zip(results.arms, found.arms, strict=True):
        assert (mine.name, mine.role, mine.members) == (theirs.name, theirs.role, theirs.members)
        assert (mine.capped, mine.notes) == (theirs.capped, theirs.notes)
    assert found.families.keys() == results.families.keys()
    assert found.trial_seeds == 3


def test_the_list_of_reports_shows_both_differences(folder: Path) -> None:
    page = write_index(folder.parent).read_text(encoding="utf-8")
    best = next(arm for arm in summary_of(folder)["arms"] if arm["name"] == "undersampling")
    for contrast in ("vs_control", "vs_baseline"):
        gain = f"{best[contrast]['scores']['macro_f1']:+.3f}"
        p = f"{best[contrast]['test']['p_holm']:.2f}"
        assert re.search(rf"<td[^>]*>{re.escape(gain)} <div.*?</div></td> <td[^>]*>{p}", page), (gain, p)


def test_the_terminal_shows_the_best_strategy_with_both_references(results: Results) -> None:
    lines = print_end(results)
    shown = [line.split()[0] for line in lines if re.search(r" 0\.\d{3} ", line)]
    assert shown[:2] == ["baseline", "plain"]
    assert results.chosen is not None
    assert shown[2:] == [results.chosen.name]
