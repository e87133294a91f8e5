"""Reports set side by side: what may be compared, that pairing is by image, and the list of all reports."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES
from handmade import (
    SEEDS,
    check_files,
    exchange_sources,
    guesses,
    make_arm,
    make_catalogue,
    make_nested_results,
    make_results,
    p_of,
    rewrite_report,
    summary_of,
)
from sklearn import metrics

from hirise_imb.cli.main import main
from hirise_imb.data import HIRISE
from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.classification import Predictions
from hirise_imb.models.closed_form import NearestMean
from hirise_imb.pipeline.compare import merge_reports
from hirise_imb.pipeline.rebuild import compare_reports, rebuild_report
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Baseline, Results, write_baseline, write_report
from hirise_imb.reporting.html.index import write_index
from hirise_imb.reporting.inference import Inference
from hirise_imb.reporting.narrative import caution, headline
from hirise_imb.reporting.read import read_report

pytestmark = pytest.mark.usefixtures("blank_figures")

FEW = (8, 12, 4, 0, 0, 0, 0, 0)
"""Ten test sources, so that all exchanges can be looked at."""

COMPUTED = Recipe(head=NearestMean("none", 0.5))
"""Without curves, which take time to draw."""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"), FEW)


def study(catalogue: Manifest, name: str, right: dict[str, float], seeds: Sequence[int] = SEEDS) -> Results:
    """Arms that are right so often; the last is the best on validation."""
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = []
    for n, (arm, share) in enumerate(right.items()):
        # Where the share is the same, so are the guesses.
        predicted = [guesses(truth, share, seed + round(100 * share)) for seed in seeds]
        arms.append(replace(make_arm(catalogue, arm, predicted, 0.3 + n / 10, COMPUTED), seeds=tuple(seeds)))
    made = make_results(catalogue, *arms)
    return replace(made, name=name, setting=f"Setting of {name}.", study_toml=f'name = "{name}"\n')


def reverse_test(results: Results) -> Results:
    """The same with the test landmarks the other way round."""
    arms = []
    for arm in results.arms:
        fits = tuple(Predictions(fit.images[::-1], fit.probabilities[::-1]) for fit in arm.predictions)
        arms.append(replace(arm, predictions=fits))
    return replace(results, test=results.test.iloc[::-1].reset_index(drop=True), arms=tuple(arms))


@pytest.fixture(scope="module")
def out(catalogue: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two halves of a study, the second in another order, and a baseline of another backbone; not to be changed."""
    out = tmp_path_factory.mktemp("out")
    first = study(catalogue, "half", {"baseline": 0.4, "tta": 0.45, "focal_loss": 0.9})
    other = study(catalogue, "other-half", {"baseline": 0.4, "plain": 0.5, "class_weights": 0.55})
    alone = study(catalogue, "big", {"baseline": 0.8}, [7])
    write_report(first, out / "reports" / "half")
    write_report(reverse_test(other), out / "reports" / "other-half")
    write_report(alone, out / "reports" / "big")
    return out


@pytest.fixture(scope="module")
def three(out: Path) -> Path:
    """The comparison of all three."""
    reports = [out / "reports" / name for name in ("half", "other-half", "big")]
    results, page = compare_reports(reports, "three", out)
    assert page == out / "reports" / "three" / "report.html"
    assert results.name == "three"
    return page.parent


ARMS = (
    "half/baseline",
    "half/focal_loss",
    "half/tta",
    "other-half/plain",
    "other-half/class_weights",
    "big/baseline",
)
"""The best of a report on validation first, after its baseline and its control."""


def read_predictions(out: Path) -> dict[str, list[pd.DataFrame]]:
    """Predictions of each arm from its own report, in the order of the first one's test, one table a seed."""
    order = pd.read_parquet(out / "reports/half/predictions/baseline.parquet").drop_duplicates("image")["image"]
    found = {}
    for arm in ARMS:
        report, name = arm.split("/")
        table = pd.read_parquet(out / "reports" / report / "predictions" / f"{name}.parquet")
        found[arm] = [part.set_index("image").loc[order].reset_index() for _, part in table.groupby("seed")]
    return found


# --- what is compared ---


def test_every_arm_stands_under_the_name_of_its_report(three: Path) -> None:
    check_files(three)
    summary = summary_of(three)
    assert summary["kind"] == "comparison"
    assert [arm["name"] for arm in summary["arms"]] == summary["order"] == list(ARMS)
    assert (summary["reference"], summary["control"], summary["chosen"]) == ("half/baseline", None, None)
    assert summary["inference"]["vs_baseline"]["tests"] == len(ARMS) - 1
    origins = [(origin["name"], origin["arms"], origin["chosen"]) for origin in summary["origins"]]
    assert origins == [
        ("half", ["half/baseline", "half/focal_loss", "half/tta"], "half/focal_loss"),
        ("other-half", ["other-half/plain", "other-half/class_weights"], "other-half/class_weights"),
        ("big", ["big/baseline"], None),
    ]
    assert summary["setting"] == (
        "half: Setting of half. other-half: Setting of other-half. Its baseline is the same as that of half, to the "
        "last bit, and is listed here once. big: Setting of big."
    )
    assert summary["shown"] == ["half/baseline", "half/focal_loss", "other-half/class_weights"]


def test_predictions_are_paired_by_image(out: Path, three: Path) -> None:
    own = read_predictions(out)
    orders = [
        tuple(pd.read_parquet(out / "reports" / name / "predictions/baseline.parquet")["image"][:24])
        for name in ("half", "other-half")
    ]
    assert orders[0] == orders[1][::-1]
    for arm in summary_of(three)["arms"]:
        fits = own[arm["name"]]
        assert len(arm["seeds"]) == len(fits)
        table = [
            metrics.precision_recall_fscore_support(
                fit["true_class"], fit["predicted_class"], labels=CLASSES, zero_division=0
            )[:3]
            for fit in fits
        ]
        for n, metric in enumerate(("precision", "recall", "f1")):
            found = [spread["mean"] for spread in arm["per_class"][metric]]
            np.testing.assert_allclose(found, np.mean([fit[n] for fit in table], axis=0), atol=1e-12)
        macro = [fit[2].mean() for fit in table]
        assert arm["scores"]["macro_f1"] == pytest.approx(
            {"mean": np.mean(macro), "low": min(macro), "high": max(macro)}
        )


def test_all_other_arms_are_one_family_of_tests(out: Path, three: Path) -> None:
    own = {
        arm: [[CLASSES.index(name) for name in fit["predicted_class"]] for fit in fits]
        for arm, fits in read_predictions(out).items()
    }
    first = read_predictions(out)["half/baseline"][0]
    test = pd.DataFrame({"source": first["source"], "label": [CLASSES.index(name) for name in first["true_class"]]})
    p = {}
    for name, fits in own.items():
        if name != "half/baseline":
            fits = fits * (2 // len(fits))  # the one of two seeds against one twice
            p[name] = p_of(exchange_sources(test, fits, own["half/baseline"]))
    arms = {arm["name"]: arm for arm in summary_of(three)["arms"]}
    assert arms["half/baseline"]["vs_baseline"]["test"] is None
    ascending = sorted(p, key=lambda name: p[name])
    highest = 0.0
    for place, name in enumerate(ascending):
        assert arms[name]["vs_baseline"]["test"]["exact"]
        assert arms[name]["vs_baseline"]["test"]["p"] == pytest.approx(p[name], abs=1e-12)
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        assert arms[name]["vs_baseline"]["test"]["p_holm"] == pytest.approx(highest, abs=1e-12)
    assert len(set(p.values())) > 2


def test_the_headline_has_a_sentence_for_each_report(out: Path, three: Path) -> None:
    summary = summary_of(three)
    macro = {arm["name"]: arm["scores"]["macro_f1"]["mean"] for arm in summary["arms"]}
    base = macro["half/baseline"]
    starts = [
        "half/focal_loss, the arm that half advises, reaches",
        "other-half/class_weights, the arm that other-half advises, reaches",
        "big/baseline reaches",
    ]
    places = [summary["headline"].index(start) for start in starts]
    assert places == sorted(places)
    assert places[0] == 0
    for start in starts:
        name = start.split()[0].rstrip(",")
        assert (
            f"{start} macro F1 {macro[name]:.3f} on the test split, against {base:.3f} for half/baseline: "
            f"{macro[name] - base:+.3f} (95 % confidence interval "
        ) in summary["headline"]
    assert summary["headline"].count("after Holm over 5 comparisons") == 3
    told = " ".join(summary["protocol"])
    assert "All arms are compared with half/baseline on the same 24 test landmarks" in told
    alone = merge_reports([out / "reports" / "half", out / "reports" / "big"], "c")
    assert [arm.name for arm in alone.arms] == [name for name in ARMS if not name.startswith("other")]


def change_predictions(folder: Path, place: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A copy of a report whose predictions are changed, as if it had been written so."""
    shutil.copytree(folder, place)
    summary = summary_of(place)
    for name in summary["files"]:
        if name.endswith(".parquet"):
            table = change(pd.read_parquet(place / name))
            table.to_parquet(place / name, index=False)
            summary["files"][name] = hashlib.sha256((place / name).read_bytes()).hexdigest()
            first = table[table["seed"] == table["seed"].iloc[0]]
            summary["support"] = [int((first["true_class"] == known).sum()) for known in CLASSES]
    (place / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return rewrite_report(place)


def test_a_baseline_that_differs_in_a_bit_is_an_arm_of_its_own(out: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        shares = table["p_other"].to_numpy(copy=True)
        shares[0] = np.nextafter(shares[0], np.float32(1))
        return table.assign(p_other=shares)

    first, second = out / "reports" / "half", change_predictions(out / "reports" / "half", tmp_path / "near", change)
    found = merge_reports([first, second], "c")
    assert len(found.arms) == 6
    assert "to the last bit" not in found.setting


def test_a_resample_without_a_difference_is_not_counted_as_one() -> None:
    """Means over one fit and over five differ in their last digit."""
    sources, labels = np.repeat(np.arange(12), 16), np.tile(np.arange(8), 24)
    rng = np.random.default_rng(0)
    base = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(0, 8, len(labels)))
    base[sources == 4] = 0
    better = np.where(sources == 4, labels, base)
    found = Inference(
        labels,
        pd.Series([f"s{n}" for n in sources]),
        {"base": base[None], "arm": np.stack([better] * 5)},
        HIRISE.classes,
    )
    assert found.against("arm", "base").share_above == pytest.approx(1 - (11 / 12) ** 12, abs=0.02)


def test_an_arm_that_two_reports_have_stands_once(catalogue: Manifest, out: Path, tmp_path: Path) -> None:
    """A study that was extended has the arms it had; to count them twice would make the family of tests larger."""
    right = {"baseline": 0.4, "tta": 0.45, "focal_loss": 0.9}
    write_report(study(catalogue, "more", right | {"class_weights": 0.2}), tmp_path / "more")
    shutil.copytree(out / "reports" / "half", tmp_path / "copy")
    folders = [out / "reports" / "half", tmp_path / "more", tmp_path / "copy"]
    results = merge_reports(folders, "both")
    assert [arm.name for arm in results.arms] == ["half/baseline", "half/focal_loss", "half/tta", "more/class_weights"]
    assert len(results.families["vs_baseline"]) == 3
    assert (
        "Its baseline, focal_loss and tta are the same as those of half, to the last bit, and are listed here once."
        in results.setting
    )
    # Validation prefers class_weights in the second report, whose own verdict advises the one that beats its baseline.
    assert [origin.chosen for origin in results.origins] == ["half/focal_loss"] * 3
    assert "half/focal_loss, the arm that copy advises, reaches" in headline(results)


def test_a_report_without_an_arm_of_its_own_says_so(catalogue: Manifest, out: Path, tmp_path: Path) -> None:
    alone = write_report(study(catalogue, "alone", {"baseline": 0.4}), tmp_path / "alone").parent
    found = merge_reports([out / "reports" / "half", alone], "c")
    assert found.origins[1].arms == ()
    assert headline(found).endswith(" alone has no other arm.")


def test_other_data_for_training_is_reported(out: Path, tmp_path: Path) -> None:
    first = out / "reports" / "half"
    other = Path(shutil.copytree(first, tmp_path / "cleaned"))
    summary = summary_of(other)
    summary["data"][0]["landmarks"] += 3
    (other / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    found = merge_reports([first, other], "c")
    assert "Its training data differs from that of half, which is shown below." in found.setting
    assert found.data.equals(merge_reports([first, out / "reports" / "big"], "c").data)
    assert "training data differs" not in merge_reports([first, out / "reports" / "big"], "c").setting


def test_reports_of_the_same_folder_name_are_numbered(out: Path, tmp_path: Path) -> None:
    folders = [
        Path(shutil.copytree(out / "reports" / "big", tmp_path / place))
        for place in ("x/same", "y/same", "z/same-1", "z/my läst report!", "z/--")
    ]
    found = merge_reports(folders, "c")
    assert [origin.name for origin in found.origins] == ["same-2", "same-3", "same-1", "my-l-st-report", "report"]
    assert found.reference == "same-2/baseline"


def test_the_command_names_the_comparison_after_its_folders(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [str(out / "reports" / name) for name in ("big", "half")]
    assert main(["compare", *reports, "--out", str(tmp_path)]) == 0
    folder = tmp_path / "reports" / "big-vs-half"
    printed = capsys.readouterr().out
    assert printed.endswith(f"Report: {folder / 'report.html'}\n")
    check_files(folder)
    assert summary_of(folder)["verdict"]["headline"] in " ".join(printed.split())
    assert summary_of(folder)["headline"].startswith("big has no other arm. half/focal_loss, the arm that half advises")
    assert (tmp_path / "reports" / "index.html").exists()


# --- what may not be compared ---


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Compare what must be refused: exit code 2, one sentence, nothing written. Return the sentence."""

    def call(*words: object) -> str:
        assert main(["compare", *map(str, words), "--out", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert list(tmp_path.glob("out/reports/*/*")) == []
        return printed.err.removeprefix("error: ").strip()

    return call


def test_other_test_landmarks_are_refused(refused: Callable[..., str], out: Path, tmp_path: Path) -> None:
    first = out / "reports" / "half"
    image = pd.read_parquet(first / "predictions/tta.parquet")["image"][3]

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(image=table["image"].replace(image, "ESP_999999_1000_RED-0001.jpg"))

    def one_class(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(true_class=table["true_class"].where(table["image"] != image, "spider"))

    def one_source(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(source=table["source"].where(table["image"] != image, "ESP_999999_1000"))

    second = change_predictions(first, tmp_path / "a", renamed)
    assert refused(first, second) == (
        f"{second} was tested on other landmarks than {first} (24 and 24, 23 in both; {image} is in only one): scores "
        "can be compared only on the same test landmarks."
    )
    for change in (one_class, one_source):
        second = change_predictions(first, tmp_path / change.__name__, change)
        assert refused(first, second) == (
            f"{second} and {first} name different classes or sources for 1 of 24 test landmarks (first: {image}): "
            "compare reports of the same version of the test labels."
        )
    second = change_predictions(first, tmp_path / "fewer", lambda table: table[table["image"] != image])
    assert "(23 and 24, 23 in both;" in refused(first, second)


def test_what_cannot_be_compared_is_refused(
    refused: Callable[..., str], out: Path, three: Path, tmp_path: Path
) -> None:
    first, second = out / "reports" / "half", out / "reports" / "big"
    few = "A comparison takes two or more different reports: name their folders."
    assert refused(first) == few
    assert refused(first, first) == few
    assert refused(first, second, first.parent / "." / "big") == few
    assert refused(first, three) == f"{three} is itself a comparison: name the reports that it compares instead."
    assert refused(first, tmp_path) == f"There is no report in {tmp_path}: name a folder that contains summary.json."
    for name in ("../up", "a/b", "", ".hidden", "x" * 101, "a b"):
        assert refused(first, second, "--name", name).startswith(f"The name {name!r} can't name a folder: use")
    place = Path(shutil.copytree(second, tmp_path / "odd name"))
    assert refused(first, place).startswith("The name 'half-vs-odd name' can't name a folder: use")


def test_a_name_that_holds_a_study_is_refused(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(shutil.copytree(out, tmp_path / "out"))
    reports = [str(place / "reports" / name) for name in ("half", "big")]
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert main(["compare", *reports, "--name", "half", "--out", str(place)]) == 2
    _, last = capsys.readouterr().err.splitlines()  # after that it is written
    assert last == (
        f"error: {place / 'reports' / 'half'} contains the report of a study: give this comparison another name."
    )
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


# --- nested cross-validations ---

SHARES = {"baseline": 0.4, "plain": 0.6, "tta": 0.9}


@pytest.fixture(scope="module")
def nested(catalogue: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of nested cross-validations: `first` with a given split, `second` with other arms, and others."""
    root = tmp_path_factory.mktemp("nested")
    given = study(catalogue, "first", {"baseline": 0.4, "tta": 0.5})
    every = {
        "first": make_nested_results(catalogue, SHARES, repeats=2, given_split=replace(given, name="by-hand")),
        "second": make_nested_results(catalogue, {"baseline": 0.4, "focal_loss": 0.2}, repeats=2),
        "once": make_nested_results(catalogue, SHARES),
    }
    second = every["second"]
    assert second.outer_folds is not None
    numbers = second.outer_folds["fold"].tolist()
    numbers[3] = numbers[3] % 3 + 1
    every["moved"] = replace(second, outer_folds=second.outer_folds.assign(fold=numbers))
    for name, results in every.items():
        write_report(results, root / name)
    return root


def test_nested_reports_with_the_same_outer_folds_are_compared(nested: Path, tmp_path: Path) -> None:
    results, page = compare_reports([nested / "first", nested / "second"], None, tmp_path)
    check_files(page.parent)
    assert page.parent.name == "first-vs-second"
    first = read_report(nested / "first")
    assert first.outer_folds is not None
    assert results.outer_folds is not None
    pd.testing.assert_frame_equal(results.outer_folds, first.outer_folds)
    assert (results.repeats, results.given_split) == (2, None)
    # The baselines are the same.
    assert [arm.name for arm in results.arms] == ["first/baseline", "first/plain", "first/tta", "second/focal_loss"]
    for arm in first.arms:
        assert results.headline_scores(f"first/{arm.name}") == first.headline_scores(arm.name)
    assert headline(results).startswith(
        f"first/tta, the arm that first advises, reaches macro F1 {first.main_score('tta').mean:.3f} in the outer "
        "folds, "
    )
    told = " ".join(summary_of(page.parent)["protocol"])
    assert f"on the same {len(first.test)} landmarks, with the same classes and outer folds;" in told
    assert rebuild_report(page.parent) == page


def test_the_given_splits_of_nested_reports_are_compared_under_the_names_of_their_studies(
    nested: Path, out: Path
) -> None:
    found = merge_reports([nested / "first" / "given-split", out / "reports" / "half"], "c")
    assert [origin.name for origin in found.origins] == ["first-given-split", "half"]
    assert found.outer_folds is None
    assert found.reference == "first-given-split/baseline"


def test_designs_and_outer_folds_that_differ_are_refused(refused: Callable[..., str], nested: Path, out: Path) -> None:
    first, second, given = nested / "first", nested / "second", out / "reports" / "half"
    for pair in ((first, given), (given, first)):
        assert refused(*pair) == (
            f"{first} is the report of a nested cross-validation, and {given} is one of the given split: scores can be "
            f"compared only within one design, so name {first / 'given-split'} instead of {first}."
        )
    assert refused(given, second).endswith(f"so name another report of a nested cross-validation instead of {given}.")
    assert refused(first, nested / "once") == (
        f"{nested / 'once'} has 1 repeat of the nested cross-validation, and {first} has 2: scores can be compared "
        "only with the same outer folds, so run both with the same --repeats."
    )
    source = read_report(second).outer_folds
    assert source is not None
    _, fold, name = source.to_numpy().tolist()[3]
    assert refused(second, nested / "moved") == (
        f"{nested / 'moved'} has other outer folds than {second} (first: {name} is in fold {fold % 3 + 1} instead of "
        f"{fold}): scores can be compared only with the same outer folds, so run both on the same data with the same "
        "--outer-folds."
    )


# --- the list of reports ---


class Links(HTMLParser):
    """Where the links of a page lead, and its words."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.targets = [page.parent / unquote(link) for link in self.found if not link.startswith("#")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for key, value in attrs if key in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_list_leads_to_every_report(catalogue: Manifest, out: Path, three: Path, tmp_path: Path) -> None:
    reports = Path(shutil.copytree(out / "reports", tmp_path / "reports"))
    assert (reports / "index.html").exists()  # the comparison wrote it
    alone = study(catalogue, "half", {"baseline": 0.4})
    write_baseline(Baseline(alone), reports / "half" / "baseline")
    hostile = "<img src=x onerror=alert(1)> \"&'#%41?"
    shutil.copytree(reports / "big", reports / hostile)
    summary = summary_of(reports / hostile)
    summary["verdict"]["headline"] = "<script>alert(2)</script>"
    (reports / hostile / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    for name, text in (("older", '{"schema_version": 2, "files": []}'), ("broken", "{")):
        (reports / name).mkdir()
        (reports / name / "summary.json").write_text(text)
    (reports / "no-report").mkdir()

    page = write_index(reports)
    links = Links(page)
    names = ["big", "half", "half/baseline", "other-half", "three", hostile]
    assert {reports / name / "report.html" for name in names} <= set(links.targets)
    assert all(target.is_file() for target in links.targets)
    assert "img" not in links.tags
    text = " ".join(links.text.split())
    for name in names:
        told = summary_of(reports / name)
        assert told.get("verdict", told)["headline"] in text
    assert "older/summary.json is not a summary that this program can read (it has schema version 2" in text
    assert "broken/summary.json is not JSON" in text
    assert str(tmp_path) not in text
    assert "no-report" not in text

    for gone, written in (("older", "big"), ("broken", "half/baseline")):
        shutil.rmtree(reports / gone)
        rebuild_report(reports / written)
        assert gone not in Links(page).text


def test_the_list_is_written_again_from_within_and_no_page_of_somebody_else(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "reports" / "big"
    shutil.copytree(out / "reports" / "big", place)
    page = write_index(place.parent)
    before = page.read_bytes()
    (place.parent / "broken").mkdir()
    (place.parent / "broken" / "summary.json").write_text("{")
    own = tmp_path / "index.html"
    own.write_text("<title>My site, with reports of hirise_imb</title>")
    monkeypatch.chdir(place)
    rebuild_report(Path())
    assert page.read_bytes() != before
    assert own.read_text() == "<title>My site, with reports of hirise_imb</title>"


def test_where_seeds_are_of_different_number_the_caution_says_which_arms_have_no_range(
    catalogue: Manifest, out: Path, tmp_path: Path
) -> None:
    single = study(catalogue, "single", {"baseline": 0.3}, [5])
    write_report(single, tmp_path / "single")
    results, _ = compare_reports([tmp_path / "single", out / "reports" / "half"], "mixed", tmp_path)
    assert results.gain("half/focal_loss", "macro_f1", "single/baseline") > 0.1
    told = caution(results)
    assert told.startswith(
        "Ranges are over seeds, confidence intervals over sources. Arms that were fitted with one seed have no"
    )
