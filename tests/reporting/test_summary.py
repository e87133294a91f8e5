"""`summary.json`: its schema, its numbers computed again from the stored predictions, and its sentences."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES
from handmade import (
    EXAMPLE,
    SEEDS,
    TEMPERATURES,
    exchange_sources,
    guesses,
    make_arm,
    make_catalogue,
    make_results,
    p_of,
    summary_of,
    three_classes,
    with_selection,
)
from jsonschema import Draft202012Validator
from sklearn import metrics

from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.bootstrap import SourceCounts
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.permutation import swap_test
from hirise_imb.reporting import Arm, Baseline, Omitted, Results, write_report
from hirise_imb.reporting.narrative import caution, headline
from hirise_imb.reporting.read import read_summary
from hirise_imb.reporting.records import Origin
from hirise_imb.reporting.summary.content import of_study
from hirise_imb.reporting.summary.schema import find_fault, generate_schema, load_schema
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

SUPPORT = (120, 40, 20, 12, 6, 1, 9, 0)
"""Sources: six of crater, one of impact ejecta, none of spider, two of all others."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Probabilities of which no two are alike, but for some ties."""
    catalogue = make_catalogue(tmp_path_factory.mktemp("data"), SUPPORT)
    truth = catalogue.canonical_images("test")["label"].tolist()

    def arm(name: str, right: float) -> Arm:
        made = make_arm(catalogue, name, [guesses(truth, right, seed) for seed in SEEDS], right)
        fits = []
        for seed, fit in enumerate(made.predictions):
            p = fit.probabilities * np.random.default_rng(seed).uniform(0.05, 1, fit.probabilities.shape)
            p = np.round(p / p.sum(axis=1, keepdims=True) + 1e-3, 2)  # rounded, so that there are ties
            fits.append(Predictions(fit.images, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)))
        return replace(made, predictions=tuple(fits))

    arms = arm("baseline", 0.5), arm("plain", 0.55), arm("focal_loss", 0.6), arm("tta", 0.8)
    return make_results(catalogue, *arms, omitted=[Omitted("synthetic", "makes up rows", "too few")])


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that no test may change."""
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return summary_of(folder)


# --- the schema ---


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(load_schema())
    objects = [part for part in parts(load_schema()) if part.get("type") == "object" and "properties" in part]
    assert len(objects) > 20
    open_ones = [part for part in objects if part.get("additionalProperties") is not False]
    assert [part["title"] for part in open_ones] == ["The complete recipe"]  # a recipe
    assert all(set(part.get("required", ())) <= set(part["properties"]) for part in objects)


def test_the_schema_of_the_package_is_the_generated_one() -> None:
    """`python tools/write_summary_schema.py` writes it again."""
    assert load_schema() == generate_schema()


def test_the_example_keeps_it() -> None:
    for folder in (EXAMPLE, EXAMPLE / "baseline"):
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert find_fault(summary) is None
        del summary["majority"]
        assert find_fault(summary) == "at $: 'majority' is a required property"


def test_any_number_of_classes_and_scores_keeps_it(found: dict[str, Any]) -> None:
    three = of_study(three_classes()) | {"files": {}}
    assert find_fault(three) is None
    assert (three["classes"], three["majority"]) == (["flat", "hill", "lake"], None)
    older = copy.deepcopy(found)
    for arm in older["arms"]:
        for scores in (arm["scores"], arm["vs_baseline"]["scores"]):
            del scores["kappa"]
        arm["scores"]["brier"] = {"mean": 2.5, "low": 2, "high": 3}
    assert find_fault(older) is None
    older["arms"][0]["scores"]["brier"] = {"mean": 2.5}
    assert find_fault(older) == "at $.arms[0].scores.brier: 'low' is a required property"


def parts(value: object) -> list[dict[str, Any]]:
    """All objects of a JSON value."""
    if isinstance(value, dict):
        return [value, *(part for entry in value.values() for part in parts(entry))]
    return [part for entry in value for part in parts(entry)] if isinstance(value, list) else []


def test_every_kind_of_summary_keeps_it(results: Results, found: dict[str, Any]) -> None:
    assert find_fault(found) is None
    files = {"files": {"report.html": "0" * 64}}
    for count in (1, 2, 4):  # arms
        assert find_fault(of_study(replace(results, arms=results.arms[:count])) | files) is None
    baseline = Baseline(replace(results, arms=results.arms[:1])).to_dict() | files
    assert find_fault(baseline) is None
    arms = tuple(replace(arm, name=f"x/{arm.name}") for arm in results.arms)
    origins = tuple(Origin(name, name, "", tuple(arm.name for arm in arms), None) for name in ("x", "y"))
    comparison = of_study(replace(results, arms=arms, origins=origins)) | files
    assert comparison["kind"] == "comparison"
    assert find_fault(comparison) is None
    # No kind passes for another.
    for one in (found, baseline, comparison):
        for kind in ("study", "baseline", "comparison"):
            assert (find_fault(one | {"kind": kind}) is None) == (kind == one["kind"])


def test_it_is_checked_in_no_time(found: dict[str, Any]) -> None:
    names = [f"arm{n}" for n in range(40)]
    arms = [found["arms"][0] | {"name": name} for name in names]
    others = {"vs_baseline": arms[0]["vs_baseline"] | {"arm": "arm0"}, "vs_control": None}
    arms = [arm | others for arm in arms]
    many = found | {"arms": arms, "order": names, "reference": "arm0", "chosen": None, "control": None, "shown": []}
    many |= {"verdict": found["verdict"] | {"choice": None}}
    begin = time.process_time()
    assert find_fault(many) is None
    assert time.process_time() - begin < 1


Change = Callable[[dict[str, Any]], Any]

BROKEN: dict[str, tuple[Change, str]] = {
    "a key is missing": (lambda s: s.pop("inference"), "at $: 'inference' is a required property"),
    "a key of an arm is missing": (
        lambda s: s["arms"][1].pop("vs_baseline"),
        "at $.arms[1]: 'vs_baseline' is a required property",
    ),
    "a key is not known": (lambda s: s.update(spice=1), "'spice' was unexpected"),
    "a text for a number": (
        lambda s: s["arms"][0]["scores"]["accuracy"].update(mean="1"),
        "at $.arms[0].scores.accuracy.mean: '1' is not of type 'number'",
    ),
    "a score above one": (lambda s: s["arms"][0].update(val_score=1.5), "at $.arms[0].val_score: 1.5 is greater"),
    "kappa below -1": (lambda s: s["arms"][0]["scores"]["kappa"].update(low=-1.1), "scores.kappa.low: -1.1 is less"),
    "p of 2": (
        lambda s: s["arms"][1]["vs_baseline"]["test"].update(p=2),
        "at $.arms[1].vs_baseline.test.p: 2 is greater than the maximum of 1",
    ),
    "p of 0": (
        lambda s: s["arms"][2]["vs_control"]["test"].update(p_holm=0),
        "at $.arms[2].vs_control.test.p_holm: 0 is less than or equal",
    ),
    "an unknown role": (lambda s: s["arms"][1].update(role="remedy"), "at $.arms[1].role: 'remedy' is not one of"),
    "no members": (
        lambda s: s["arms"][1].update(members=[0]),
        "at $.arms[1].members[0]: 0 is less than the minimum of 1",
    ),
    "a twin that is none": (
        lambda s: s["arms"][1].update(identical_to="smote"),
        "at $.arms[1]: 'smote' is not one of the arms",
    ),
    "a comparison with an arm that is none": (
        lambda s: s["arms"][2]["vs_control"].update(arm="smote"),
        "at $.arms[2]: 'smote' is not one of the arms",
    ),
    "fits without a note on their cap": (
        lambda s: s["arms"][1]["capped"].pop(),
        "at $.arms[1]: it does not have as many best_epochs, capped and temperatures as seeds",
    ),
    "seven classes": (lambda s: s["arms"][2]["per_class"]["f1"].pop(), "at $.arms[2].per_class.f1: "),
    "seven of them named": (lambda s: s["classes"].pop(), "at $.classes: "),
    "classes in another order": (lambda s: s["classes"].reverse(), "at $.classes: "),
    "a matrix with a hole": (lambda s: s["arms"][0]["confusion"][3].pop(), "at $.arms[0].confusion[3]: "),
    "no temperature": (
        lambda s: s["arms"][0].update(temperatures=[[0.0]]),
        "at $.arms[0].temperatures[0][0]: 0.0 is less",
    ),
    "an unknown kind": (lambda s: s.update(kind="survey"), "at $.kind: 'survey' is not one of"),
    "an unknown state": (
        lambda s: s["arms"][1]["selections"][0]["trials"][0].update(state="done"),
        "trials[0].state: 'done' is",
    ),
    "an older version": (lambda s: s.update(schema_version=3), "it has schema version 3, but this program reads 6"),
    "no version": (lambda s: s.pop("schema_version"), "it has schema version None, but this program reads 6"),
    "no arm": (lambda s: s.update(arms=[]), "at $.arms: "),
    "a name that leads away": (lambda s: s["arms"][1].update(name="../../x"), "at $.arms[1].name: '../../x' does not"),
    "a digest that is none": (lambda s: s["files"].update(x="12"), "at $.files.x: '12' does not match"),
    "a temperature too few": (
        lambda s: s["arms"][1]["temperatures"].pop(),
        "at $.arms[1]: it does not have as many best_epochs, capped and temperatures as seeds",
    ),
    "a report that chose an arm that is none": (
        lambda s: s.update(
            kind="comparison",
            chosen=None,
            control=None,
            origins=[
                {"name": name, "study": "a", "setting": "a", "arms": ["baseline"], "chosen": chosen}
                for name, chosen in (("a", "plain"), ("b", "smote"))
            ],
        ),
        "at $.origins[1]: 'smote' is not one of the arms",
    ),
    "an arm named twice": (
        lambda s: s["arms"][2].update(name="plain"),
        "at $.order: it does not name each arm",
    ),
    "an order without an arm": (lambda s: s["order"].pop(), "at $.order: it does not name each arm once"),
    "a reference that is none": (lambda s: s.update(reference="plain"), "at $.reference: it is not the first arm"),
    "a choice that is none": (lambda s: s.update(chosen="smote"), "at $.chosen: 'smote' is not one of the arms"),
    "a verdict for an arm that is none": (
        lambda s: s["verdict"].update(choice="smote"),
        "at $.verdict.choice: 'smote' is not one of the arms",
    ),
    "an outcome that is none": (lambda s: s["verdict"].update(outcome="great"), "at $.verdict.outcome: 'great' is not"),
    "a control that is none": (lambda s: s.update(control="smote"), "at $.control: 'smote' is not one of the arms"),
    "a line that is none": (lambda s: s["shown"].append("smote"), "at $.shown: 'smote' is not one of the arms"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_summary_is_refused_with_its_place(case: str, found: dict[str, Any], tmp_path: Path) -> None:
    change, told = BROKEN[case]
    broken = copy.deepcopy(found)
    change(broken)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_summary(tmp_path)
    text = str(refused.value)
    assert text.startswith(f"{path} is not a summary that this program can read (")
    assert told in text
    assert text.endswith("): run its study again to rewrite it.")
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("text", ["[]", "3", "null", '"summary"'])
def test_what_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"at \$: .* is not of type 'object'"):
        read_summary(tmp_path)


def test_a_summary_that_breaks_it_is_not_written(results: Results, tmp_path: Path) -> None:
    wrong = with_selection(results.arms[1], val_score=1.5)
    with pytest.raises(ValueError, match=r"at \$\.arms\[1\]\.val_score: 1\.5 is greater"):
        write_report(replace(results, arms=(results.arms[0], wrong)), tmp_path)
    assert not (tmp_path / "summary.json").exists()


# --- its numbers, from the stored predictions by scikit-learn and plain code ---

PROBABILITIES = [f"p_{name.replace(' ', '_')}" for name in CLASSES]
ARMS = ("baseline", "plain", "focal_loss", "tta")


def fits_of(folder: Path, arm: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels, predictions and probabilities of each seed."""
    table = pd.read_parquet(folder / "predictions" / f"{arm}.parquet")
    return [
        (
            np.array([CLASSES.index(name) for name in part["true_class"]]),
            np.array([CLASSES.index(name) for name in part["predicted_class"]]),
            part[PROBABILITIES].to_numpy(float),
        )
        for part in (table[table["seed"] == seed] for seed in SEEDS)
    ]


def stored(found: dict[str, Any], arm: str) -> dict[str, Any]:
    return next(entry for entry in found["arms"] if entry["name"] == arm)


def check(spread: dict[str, float], values: list[float]) -> None:
    expected = {"mean": np.mean(values), "low": min(values), "high": max(values)}
    assert spread == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("arm", ARMS)
def test_average_precision_is_that_of_scikit_learn(arm: str, found: dict[str, Any], folder: Path) -> None:
    fits = fits_of(folder, arm)
    told = stored(found, arm)["average_precision"]
    for label, size in enumerate(SUPPORT):
        if size == 0:
            assert told[label] is None
            continue
        check(told[label], [metrics.average_precision_score(y == label, p[:, label]) for y, _, p in fits])


@pytest.mark.parametrize("arm", ARMS)
def test_scores_beyond_counts_follow_from_the_predictions(arm: str, found: dict[str, Any], folder: Path) -> None:
    several: list[float] = []
    errors: dict[str, list[float]] = {"calibration_error": [], "calibration_error_tempered": []}
    areas: list[float] = []
    for (y, predicted, p), temperature in zip(fits_of(folder, arm), TEMPERATURES, strict=True):
        f1 = metrics.f1_score(y, predicted, labels=range(8), average=None, zero_division=0)
        several.append(f1[[0, 1, 2, 3, 4, 6]].mean())  # impact ejecta has one source, spider none
        powers = p ** (1 / temperature)
        for name, q in (("calibration_error", p), ("calibration_error_tempered", powers / powers.sum(1)[:, None])):
            errors[name].append(binned(q.max(axis=1), q.argmax(axis=1) == y))
        areas.append(area(p.max(axis=1), predicted != y))
    scores = stored(found, arm)["scores"]
    check(scores["macro_f1_several"], several)
    check(scores["risk_coverage_area"], areas)
    for name, values in errors.items():
        check(scores[name], values)
    assert stored(found, arm)["temperatures"] == [[temperature] for temperature in TEMPERATURES]
    assert abs(scores["calibration_error"]["mean"] - scores["calibration_error_tempered"]["mean"]) > 0.01


def binned(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in fifteen bins."""
    total = 0.0
    for n in range(15):
        inside = (confidence >= n / 15) & ((confidence < (n + 1) / 15) | (n == 14))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def area(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """Mean share of mistakes among those at least as confident as each, which is how equals are taken together."""
    return float(np.mean([wrong[confidence >= value].mean() for value in confidence]))


@pytest.mark.parametrize("arm", ARMS)
def test_what_is_decided_follows_from_the_predictions(arm: str, found: dict[str, Any], folder: Path) -> None:
    fits = fits_of(folder, arm)
    told = stored(found, arm)["decided"]
    assert told["confidence"] == 0.9
    sure = [np.float32(p.max(axis=1)) >= 0.9 for _, _, p in fits]
    assert told["coverage"] == pytest.approx(np.mean(sure))
    right = sum(int(((y == predicted) & s).sum()) for (y, predicted, _), s in zip(fits, sure, strict=True))
    assert told["accuracy"] == pytest.approx(right / np.sum(sure))
    for label in range(8):
        pairs = list(zip(fits, sure, strict=True))
        assert told["landmarks"][label] == np.mean([((y == label) & s).sum() for (y, _, _), s in pairs])
        assert told["shown"][label] == np.mean([((f == label) & s).sum() for (_, f, _), s in pairs])
        assert told["right"][label] == np.mean([((f == label) & (y == label) & s).sum() for (y, f, _), s in pairs])
    assert 0 < told["coverage"] < 1


@pytest.mark.parametrize("arm", ARMS)
def test_a_class_of_few_sources_has_no_interval(arm: str, found: dict[str, Any], folder: Path) -> None:
    told = stored(found, arm)["uncertainty"]
    assert found["sources"] == [2, 6, 2, 2, 2, 1, 2, 0]
    assert [interval is not None for interval in told["f1"]] == [n >= 6 for n in found["sources"]]
    assert [ends is not None for ends in told["f1_without_each_source"]] == [1 < n < 6 for n in found["sources"]]
    f1 = stored(found, arm)["per_class"]["f1"][1]["mean"]
    assert told["f1"][1]["low"] < f1 < told["f1"][1]["high"]
    macro = stored(found, arm)["scores"]["macro_f1"]["mean"]
    assert told["score"]["low"] < macro < told["score"]["high"]
    assert told["macro_f1_by_image"]["low"] < told["macro_f1_by_image"]["high"]
    # Without each source of other in turn, from the table.
    table = pd.read_parquet(folder / "predictions" / f"{arm}.parquet")
    rest = []
    for source in table.loc[table["true_class"] == "other", "source"].unique():
        parts = [part for _, part in table[table["source"] != source].groupby("seed")]
        rest.append(
            np.mean([metrics.f1_score(p["true_class"] == "other", p["predicted_class"] == "other") for p in parts])
        )
    assert told["f1_without_each_source"][0] == pytest.approx({"low": min(rest), "high": max(rest)})


def test_both_families_of_tests_follow_from_the_predictions(found: dict[str, Any], folder: Path) -> None:
    sources = pd.read_parquet(folder / "predictions/baseline.parquet").query(f"seed == {SEEDS[0]}")["source"]
    numbers = np.unique(sources, return_inverse=True)[1]
    counts = {
        arm: SourceCounts.of(fits[0][0], np.array([fit[1] for fit in fits]), numbers, 8)
        for arm, fits in ((arm, fits_of(folder, arm)) for arm in ARMS)
    }
    for contrast, other, tested in (("vs_baseline", "baseline", ARMS[1:]), ("vs_control", "plain", ARMS[2:])):
        p = {arm: swap_test(counts[arm], counts[other]).p for arm in tested}
        # Sources have other numbers here, so that other exchanges are drawn.
        error = {arm: 5 * (value * (1 - value) / 10_000) ** 0.5 + 1e-4 for arm, value in p.items()}
        highest = 0.0
        for place, arm in enumerate(sorted(p, key=lambda arm: p[arm])):
            told = stored(found, arm)[contrast]["test"]
            assert told["p"] == pytest.approx(p[arm], abs=error[arm])
            highest = max(highest, min(1.0, (len(tested) - place) * told["p"]))
            assert told["p_holm"] == pytest.approx(highest)
            assert stored(found, arm)[contrast]["arm"] == other
        assert found["inference"][contrast]["tests"] == len(tested)
        assert all(stored(found, arm)[contrast]["test"] is None for arm in ARMS if arm not in tested)
        assert len({stored(found, arm)[contrast]["test"]["p"] for arm in tested}) > 1


# --- its sentences ---

FEW = (8, 12, 4, 0, 0, 0, 0, 0)
"""Ten test sources: two of other, six of crater, two of dark dune."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("few"), FEW)


def of_few(few: Manifest, **mistakes: dict[int, int]) -> Results:
    """Arms that are right but for the sources of these classes, so many of each, which they take for other."""
    test = few.canonical_images("test")
    arms = []
    for n, (name, wrong) in enumerate(mistakes.items()):
        labels = test["label"].to_numpy().copy()
        for label, sources in wrong.items():
            names = sorted(set(test.loc[test["label"] == label, "source"]))[:sources]
            labels[test["source"].isin(names)] = 0
        arms.append(make_arm(few, name, [labels.tolist()] * 2, 0.5 - n / 10 if n else 0.1))
    return make_results(few, *arms)


def against_baseline(results: Results, name: str) -> tuple[str, float]:
    """The beginning of a sentence on an arm, with macro F1 by scikit-learn, and the p value of all exchanges."""
    arms = {arm.name: [fit.labels() for fit in arm.predictions] for arm in results.arms}
    labels = results.test["label"]
    f1 = {
        arm: np.mean([metrics.f1_score(labels, fit, labels=range(8), average="macro", zero_division=0) for fit in fits])
        for arm, fits in arms.items()
    }
    interval = results.inference.against(name, "baseline").interval
    between = f"95 % confidence interval {interval.low:+.3f} to {interval.high:+.3f}" if interval else "no interval"
    text = (
        f"{name}, the best strategy on validation, reaches macro F1 {f1[name]:.3f} on the test split, against "
        f"{f1['baseline']:.3f} for the baseline: {f1[name] - f1['baseline']:+.3f} ({between} over 10 sources), "
    )
    return text, p_of(exchange_sources(results.test, arms[name], arms["baseline"]))


def test_a_difference_beyond_chance_is_reported(few: Manifest) -> None:
    found = of_few(few, baseline={1: 6, 2: 2}, good={})
    text, p = against_baseline(found, "good")
    assert p == 2 / 2**8  # all eight sources gain, so only all exchanges together are as large
    assert headline(found) == (
        f"{text}which is statistically significant (swap test p = 0.008). 1 of 1 strategies score above the "
        "baseline on the test split."
    )
    assert ", depending on the arm" not in caution(found)
    resolvable = of_study(found)["inference"]["vs_baseline"]["resolvable"]
    assert resolvable is not None
    least = resolvable["low"]
    assert (
        f"On 10 sources, the minimum detectable difference in macro F1 to the baseline (one test, p <= 0.05) is "
        f"{least:.3f}. Images" in caution(found)
    )


def test_a_difference_that_several_tests_cannot_tell_is_reported(few: Manifest) -> None:
    found = of_few(few, baseline={1: 6}, good={}, also={1: 3}, third={1: 6, 2: 1})
    text, p = against_baseline(found, "good")
    assert p == 2 / 2**6
    assert headline(found) == (
        f"{text}which is statistically significant in this comparison alone, but not after correction for 3 (swap test "
        "p = 0.031, 0.094 after Holm over 3 comparisons). 2 of 3 strategies score above the baseline on the test split."
    )


def test_a_difference_within_chance_is_reported_with_the_least_that_could_be(few: Manifest) -> None:
    found = of_few(few, baseline={1: 3}, good={})
    text, p = against_baseline(found, "good")
    assert p == 2 / 2**3
    assert headline(found).startswith(
        f"{text}which is not statistically significant: no difference could be (swap test p = 0.25). "
    )
    assert "No difference to the baseline could be statistically significant on 10 sources (p <= 0.05)." in caution(
        found
    )

    worse = of_few(few, baseline={1: 5}, mixed={1: 1, 2: 2})
    text, p = against_baseline(worse, "mixed")
    assert p > 0.05
    fits = [[fit.labels() for fit in arm.predictions] for arm in worse.arms]
    sizes = abs(exchange_sources(worse.test, fits[1], fits[0]))
    least = min(size for size in sizes if (sizes >= size - 1e-12).mean() <= 0.05)
    assert headline(worse).startswith(
        f"{text}which is not statistically significant: the minimum detectable difference is {least:.3f} (swap test "
        f"p = {p:.2f})."
    )


def test_the_headline_admits_that_nothing_helped(few: Manifest) -> None:
    found = of_few(few, baseline={1: 2}, same={1: 2}, worse={1: 4})
    text, p = against_baseline(found, "same")
    assert p == 1
    assert "+0.000 (no interval over 10 sources)" in text
    assert headline(found) == (
        f"{text}since it predicts the same classes as the baseline. 0 of 2 strategies score above the baseline on the "
        "test split."
    )
