"""Reports written again from their folders: the same to the last byte, or refused; and reports of odd results."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
)

from hirise_imb.cli.main import main
from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.classification import Predictions
from hirise_imb.models.closed_form import NearestMean
from hirise_imb.pipeline.rebuild import compare_reports, rebuild_report
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Baseline, Omitted, Results, write_baseline, write_report
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.summary.content import of_study
from hirise_imb.utils.errors import UserError

FEW = (12, 12, 6, 4, 0, 3, 4, 2)
"""Eighteen test sources; no bright dune."""
EVERY = (12, 12, 6, 4, 2, 3, 4, 2)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"), FEW)


def arm(
    catalogue: Manifest,
    name: str,
    right: float,
    recipe: Recipe | None = None,
    *,
    members: int = 1,
    **changes: Any,  # noqa: ANN401
) -> Arm:
    """With probabilities that are not the same everywhere."""
    truth = catalogue.canonical_images("test")["label"].tolist()
    predicted = [guesses(truth, right, seed) for seed in SEEDS]
    made = make_arm(catalogue, name, predicted, 0.3 + right / 2, recipe, members=members)
    rng = np.random.default_rng(len(name))
    fits = []
    for fit in made.predictions:
        p = fit.probabilities * rng.uniform(0.2, 1, fit.probabilities.shape).astype(np.float32)
        fits.append(Predictions(fit.images, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)))
    return replace(made, predictions=tuple(fits), **changes)


def timed(results: Results) -> Results:
    """The same with the arms' times in the environment, as a study has them."""
    return replace(
        results, environment=results.environment | {"seconds": {arm.name: arm.seconds for arm in results.arms}}
    )


@pytest.fixture(scope="module")
def study(catalogue: Manifest) -> Results:
    return timed(
        replace(
            make_results(
                catalogue,
                arm(catalogue, "baseline", 0.5),
                arm(catalogue, "plain", 0.6, Recipe(monitor="val_macro_f1"), seconds=4000.1),
                arm(catalogue, "prototypes", 0.9, Recipe(head=NearestMean("none", 0.5)), seconds=61.5),
                arm(catalogue, "partial_unfreeze", 0.7, Recipe(cut="stage"), members=4, notes=("a note",)),
                omitted=[Omitted("synthetic", "makes up rows", "<b>no</b>")],
            ),
            study_toml='name = "Änderung"\n',
        )
    )


@pytest.fixture(scope="module")
def folders(study: Results, catalogue: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of each kind, which no test may change."""
    root = tmp_path_factory.mktemp("out")
    reports = root / "reports"
    found = {"study": write_report(study, reports / "by-hand").parent}
    alone = timed(replace(study, arms=study.arms[:1], omitted=()))
    found["baseline"] = write_baseline(Baseline(alone), reports / "by-hand" / "baseline").parent
    less = timed(make_results(catalogue, arm(catalogue, "baseline", 0.4), arm(catalogue, "tta", 0.8)))
    write_report(less, reports / "less")
    nested = make_nested_results(catalogue, {"baseline": 0.4, "plain": 0.6, "tta": 0.8}, repeats=2)
    nested = replace(nested, given_split=timed(replace(study, arms=study.arms[:3])), name=study.name)
    found["nested"] = write_report(nested, reports / "nested").parent
    found["given split"] = found["nested"] / "given-split"
    found["comparison"] = compare_reports([reports / "less", found["baseline"]], "both", root)[1].parent
    return found


def copy_report(folder: Path, place: Path) -> Path:
    """A copy that a test may change, without reports below it."""
    shutil.copytree(folder, place)
    shutil.rmtree(place / "baseline", ignore_errors=True)
    return place


# --- the same again ---


@pytest.mark.parametrize("kind", ["study", "baseline", "comparison", "nested", "given split"])
def test_a_report_is_written_again_to_the_last_byte(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_report(folders[kind], tmp_path / "else where" / "other name")
    before = contents(folder)
    check_files(folder)
    for name in before:  # what pages and figures are made from stays
        own = name.removeprefix("given-split/")
        if not own.startswith(("predictions/", "figures/curves-", "environment.json", "study.toml", "summary.json")):
            (folder / name).unlink()
    assert rebuild_report(folder) == folder / "report.html"
    after = contents(folder)
    assert set(after) == set(before)
    assert [name for name in before if before[name] != after[name]] == []
    assert not (folder.parent / "index.html").exists()  # where there was none


@pytest.mark.slow
def test_what_a_report_is_made_from_stays_as_it_is_even_where_writing_is_interrupted(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of a library would write the same tables in other bytes."""
    folder = copy_report(folders["study"], tmp_path / "study")
    stored = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for path in [*folder.glob("predictions/*"), *folder.glob("figures/curves-*.csv")]:
        if path.suffix == ".parquet":
            pd.read_parquet(path).to_parquet(path, compression="gzip")
        else:
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        stored["files"][path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "summary.json").write_text(json.dumps(stored), encoding="utf-8")
    before = contents(folder)

    with monkeypatch.context() as patch:
        patch.setattr("hirise_imb.reporting.write.render", stopped)
        with pytest.raises(KeyboardInterrupt):
            rebuild_report(folder)
    rebuild_report(folder)
    check_files(folder)
    after = contents(folder)
    kept = [name for name in before if name.startswith(("predictions/", "figures/curves-")) and name[-4:] != ".png"]
    assert [name for name in kept if before[name] != after[name]] == []


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("place", [1, 2])
def test_an_interrupted_rebuild_of_either_report_can_be_repeated(
    place: int, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another version of the program, whose summaries say something else; it stops inside the page of a report."""
    folder = copy_report(folders["nested"], tmp_path / "nested")
    written = dict.fromkeys([*folder.glob("predictions/*"), *folder.glob("given-split/predictions/*")], 0)
    for path in written:
        written[path] = path.stat().st_mtime_ns
    pages: list[object] = []

    def stop_later(template: str, view: object) -> str:
        pages.append(view)
        if len(pages) == 2 * place:
            raise KeyboardInterrupt
        return "another page\n"

    with monkeypatch.context() as patch:
        patch.setattr("hirise_imb.reporting.write.render", stop_later)
        with pytest.raises(KeyboardInterrupt):
            rebuild_report(folder)
    assert len(pages) == 2 * place
    found = read_report(folder)
    assert found.given_split is not None
    rebuild_report(folder)
    check_files(folder)
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "folder", "told"),
    [
        ("report.html", True, "Is a directory"),
        ("figures/macro_f1.png", True, "Is a directory"),
        ("confusion", False, "File exists"),
    ],
)
def test_what_stands_in_the_way_of_a_file_is_reported(
    name: str, folder: bool, told: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = copy_report(folders["study"], tmp_path / "study")
    path = report / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.mkdir() if folder else path.write_text("mine")
    assert main(["report", str(report)]) == 2
    _, last = capsys.readouterr().err.splitlines()  # after that it is written
    assert last == f"error: {path}: {told}; fix that and run the command again."
    shutil.rmtree(path) if folder else path.unlink()
    assert main(["report", str(report)]) == 0


def stopped(*_: object) -> str:
    raise KeyboardInterrupt


def test_all_that_a_report_was_made_from_is_read_back(study: Results, folders: dict[str, Path]) -> None:
    found = read_report(folders["study"])
    for field in ("name", "setting", "study_toml", "environment", "omitted", "trial_seeds", "appendix", "origins"):
        assert getattr(found, field) == getattr(study, field), field
    for table in ("test", "data"):
        assert getattr(found, table).equals(getattr(study, table)), table
    for mine, theirs in zip(study.arms, found.arms, strict=True):
        for field in ("predictions", "histories"):
            pairs = zip(getattr(mine, field), getattr(theirs, field), strict=True)
            for one, other in pairs:
                if field == "histories":
                    assert one.reset_index(drop=True).equals(other)
                else:
                    assert one.images == other.images
                    assert one.probabilities.dtype == other.probabilities.dtype == np.float32
                    np.testing.assert_array_equal(one.probabilities, other.probabilities)
        fields = ("name", "role", "summary", "selections", "seeds", "best_epochs")
        for field in (*fields, "capped", "members", "val_macro_f1", "notes"):
            assert getattr(mine, field) == getattr(theirs, field), field
        assert (mine.temperatures, mine.seconds, mine.has_epochs) == (
            theirs.temperatures,
            theirs.seconds,
            mine.has_epochs,
        )


# --- refusals ---


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "changed predictions": ("predictions/plain.parquet", change, "is not the file that was written with the report"),
    "missing predictions": ("predictions/baseline.parquet", Path.unlink, "is missing: restore it, or run its study"),
    "changed environment": ("environment.json", change, "is not the file that was written with the report"),
    "changed definition": ("study.toml", change, "is not the file that was written with the report"),
    "missing definition": ("study.toml", Path.unlink, "is missing: restore it, or run its study again"),
    "changed curves": ("figures/curves-plain.csv", change, "is not the file that was written with the report"),
    "missing curves": ("figures/curves-baseline.csv", Path.unlink, "is missing: restore it, or run its study"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_changed_or_missing_file_is_refused(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    name, damage, told = REFUSED[case]
    folder = copy_report(folders["study"], tmp_path / "report")
    damage(folder / name)
    before = contents(folder)
    with pytest.raises(UserError, match=re.escape(f"{folder / name} {told}")) as refused:
        rebuild_report(folder)
    assert str(refused.value).endswith("run its study again to rewrite it.")
    assert contents(folder) == before


def test_predictions_of_other_landmarks_than_the_first_arm_has_are_refused(
    study: Results, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_report(folders["study"], tmp_path / "report")
    name = "predictions/plain.parquet"

    table = pd.read_parquet(folder / name)
    table["source"] = table["source"].str.replace("ESP", "PSP")
    table.to_parquet(folder / name)
    stored = json.loads((folder / "summary.json").read_text(encoding="utf-8"))

    stored["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "summary.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UserError, match="the predictions of plain are not for the test landmarks of the report"):
        rebuild_report(folder)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("error: ")
        return printed.err.removeprefix("error: ").strip()

    return call


def test_what_is_no_report_is_refused_in_a_sentence(
    refused: Callable[..., str], folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    for name in ("empty", "file", "nowhere"):
        assert refused("report", tmp_path / name) == (
            f"There is no report in {tmp_path / name}: name a folder that contains summary.json."
        )
    path = tmp_path / "empty" / "summary.json"
    for text in ("{", "", "\xff", '{"a": NaN}', "[" * 100_000):
        path.write_text(text, encoding="latin-1")
        assert refused("report", path.parent).startswith(f"{path} is not JSON (")
    path.unlink()
    path.mkdir()
    assert refused("report", path.parent).startswith(f"There is no report in {path.parent}")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "summary.json").symlink_to("summary.json")
    assert refused("report", tmp_path / "loop").startswith(f"{tmp_path / 'loop' / 'summary.json'} can't be read (")
    told = refused("report", folders["study"], "--data", "synthetic", "--pictures", "no")
    assert told == "--data is the place of the landmarks for --pictures, which is no: leave out one of them."
    told = refused("report", folders["baseline"], "--pictures", "yes")
    assert "which shows no landmarks: leave out --pictures." in told
    told = refused("report", folders["study"], "--pictures", "maybe")
    assert told.startswith("There is no choice of pictures 'maybe'")


# --- the command ---


def test_it_needs_nothing_heavy(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_report(folders["baseline"], tmp_path / "report")
    before = contents(folder)
    script = (
        "import json, sys\nfrom hirise_imb.study import main\n"
        "assert main(['report', sys.argv[1]]) == 0\n"
        "heavy = {'tensorflow', 'keras', 'optuna', 'sklearn', 'imblearn', 'torch', 'jax'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    said, heavy = done.stdout.splitlines()
    assert said == f"Report: {folder / 'report.html'}"
    assert json.loads(heavy) == []
    assert contents(folder) == before


# --- odd results ---


def predict_classes(classes: Sequence[int] | np.ndarray, confidence: float = 0.9) -> np.ndarray:
    rest = (1 - confidence) / 7
    return (rest + (confidence - rest) * np.eye(8)[list(classes)]).astype(np.float32)


def odd(catalogue: Manifest, *fits: np.ndarray, sources: Callable[[int], str] | None = None) -> Results:
    """A baseline that guesses and an arm with these probabilities; `sources` names them by the landmark's number."""
    test = catalogue.canonical_images("test")
    images = tuple(test["image"])
    guessed = [guesses(test["label"].tolist(), 0.4, seed) for seed in SEEDS[: len(fits)]]
    done: list[dict[str, str | float | None]] = [{"state": "complete", "value": 0.5}]
    arms = [make_arm(catalogue, name, guessed, 0.5, trials=done) for name in ("baseline", "tta")]
    arms[1] = replace(arms[1], predictions=tuple(Predictions(images, fit) for fit in fits))
    made = timed(make_results(catalogue, *arms))
    if sources:
        made = replace(made, test=made.test.assign(source=[sources(n) for n in range(len(made.test))]))
    return made


def truth_of(catalogue: Manifest) -> np.ndarray:
    return catalogue.canonical_images("test")["label"].to_numpy()


def perfect(folder: Path) -> Results:
    """One seed, surely right, on every class."""
    images = make_catalogue(folder, EVERY)
    return odd(images, predict_classes(truth_of(images), 1.0))


def all_other(folder: Path) -> Results:
    """Seven classes are never predicted, and one is absent."""
    images = make_catalogue(folder, FEW)
    return odd(images, *[predict_classes(0 * truth_of(images))] * 2)


def all_equal(folder: Path) -> Results:
    """Probabilities without any order, in two sources."""
    images = make_catalogue(folder, FEW)
    return odd(images, *[np.full((sum(FEW), 8), 0.125, np.float32)] * 2, sources=lambda n: f"ESP_00000{n % 2}_1000")


def one_source(folder: Path) -> Results:
    """Half right, so that something varies, but nothing over sources."""
    images = make_catalogue(folder, FEW)
    half = np.where(np.arange(sum(FEW)) % 2, truth_of(images), 0)
    return odd(images, predict_classes(half), sources=lambda _: "ESP_000001_1000")


def two_classes(folder: Path) -> Results:
    """Each in a source of its own."""
    images = make_catalogue(folder, (0, 0, 5, 0, 0, 0, 0, 5))
    fits = [predict_classes(truth_of(images)), predict_classes([2] * 10)]
    return odd(images, *fits, sources=lambda n: f"ESP_00000{n // 5}_1000")


def two_landmarks(folder: Path) -> Results:
    images = make_catalogue(folder, (1, 1, 0, 0, 0, 0, 0, 0))
    return odd(images, predict_classes([1, 0]))


def as_the_baseline(folder: Path) -> Results:
    """To the last bit."""
    made = all_other(folder)
    return replace(made, arms=(made.arms[0], replace(made.arms[1], predictions=made.arms[0].predictions)))


def with_the_counts_of_the_baseline(folder: Path) -> Results:
    """Two landmarks of one class and source have exchanged their predictions, one of them wrong."""
    images = make_catalogue(folder, FEW)
    test = images.canonical_images("test").reset_index(drop=True)
    pair = next(list(rows) for rows in test.groupby(["label", "source"]).groups.values() if len(rows) > 1)[:2]
    predicted = [truth_of(images).copy() for _ in pair]
    for fit, row in zip(predicted, pair, strict=True):
        fit[row] = (fit[row] + 1) % 8
    fits = [Predictions(tuple(test["image"]), predict_classes(fit)) for fit in predicted]
    made = odd(images, fits[0].probabilities)
    return replace(made, arms=tuple(replace(a, predictions=(f,)) for a, f in zip(made.arms, fits, strict=True)))


def underflow(folder: Path) -> Results:
    """Surely wrong: the true class has no probability left."""
    images = make_catalogue(folder, FEW)
    return odd(images, *[predict_classes((truth_of(images) + 1) % 8, 1.0)] * 2)


Make = Callable[[Path], Results]
"""Makes results on data in a folder."""

ODD: tuple[Make, ...] = (
    perfect,
    all_other,
    all_equal,
    one_source,
    two_classes,
    two_landmarks,
    as_the_baseline,
    underflow,
)


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def intervals(value: object, path: str = "$") -> Iterator[tuple[str, dict[str, float]]]:
    """All pairs of low and high, and where they are; those without each source are no intervals."""
    if isinstance(value, dict):
        if set(value) == {"low", "high"} and not path.endswith("resolvable"):
            yield path, value
        for key, part in value.items():
            if key != "f1_without_each_source":
                yield from intervals(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            yield from intervals(part, path)


@pytest.fixture(scope="module")
def write_odd(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Path]:
    """Gives the report of odd results, which no test may change; each is written once."""
    reports: dict[Make, Path] = {}

    def call(make: Make) -> Path:
        if make not in reports:
            root = tmp_path_factory.mktemp(make.__name__)
            reports[make] = write_report(make(root / "data"), root / "report").parent
        return reports[make]

    return call


@pytest.mark.slow
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_odd_results_have_whole_reports(make: Make, write_odd: Callable[[Make], Path]) -> None:
    folder = write_odd(make)
    check_files(folder)
    before = contents(folder)
    stored = json.loads(before["summary.json"], parse_constant=no_constant)
    found = dict(intervals(stored))
    assert [path for path, interval in found.items() if interval["low"] >= interval["high"]] == []
    if stored["inference"]["sources"] < 6:
        assert [path for path in found if not path.endswith("by_image")] == []
    page = before["report.html"].decode()
    for text in (re.sub(r'(?s)<(script|style).*?</\1>|"data:[^"]*"', "", page), before["report.md"].decode()):
        assert not re.search(r"(?i:\b(nan|inf|infinity|undefined)\b)|\bNone\b|[-+]0\.000 to [-+]0\.000", text)
    again = json.loads(json.dumps(of_study(read_report(folder))))
    assert again | {"files": stored["files"]} == stored


@pytest.mark.slow
@pytest.mark.parametrize("make", [perfect, two_landmarks], ids=lambda make: make.__name__)
def test_odd_results_are_written_again(make: Make, write_odd: Callable[[Make], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(write_odd(make), tmp_path / "report"))
    before = contents(folder)
    rebuild_report(folder)
    after = contents(folder)
    assert [name for name in before if before[name] != after.get(name)] == []


def test_odd_results_are_reported_as_what_they_are(tmp_path: Path) -> None:

    found = of_study(perfect(tmp_path / "perfect"))["arms"][1]
    assert found["uncertainty"]["macro_f1"] is None
    assert found["uncertainty"]["macro_f1_by_image"] is None
    assert found["scores"]["macro_f1"] == {"mean": 1, "low": 1, "high": 1}
    assert found["decided"]["accuracy"] == 1
    found = of_study(all_equal(tmp_path / "equal"))["arms"][1]
    assert (found["decided"]["coverage"], found["decided"]["accuracy"]) == (0, None)
    assert found["average_precision"][4] is None  # bright dune is absent
    crater = found["average_precision"][1]
    assert crater is not None
    assert crater["mean"] == pytest.approx(FEW[1] / sum(FEW))  # that of guessing
    results = as_the_baseline(tmp_path / "same")
    alike = of_study(results)
    name = results.arms[1].name
    assert f"{name} is identical to the baseline: every test landmark gets the same class." in alike["caution"]
    same = alike["arms"][1]
    assert (same["identical_to"], same["vs_baseline"]["test"]) == ("baseline", None)
    # Sources and seeds are drawn alike for both, so there is nothing to vary.
    assert same["vs_baseline"]["interval"] is None
    assert same["vs_baseline"]["scores"]["macro_f1"] == 0
    counted = of_study(with_the_counts_of_the_baseline(tmp_path / "counts"))
    assert "All tested arms have the same counts as the baseline in every source" in counted["caution"]
    test = counted["arms"][1]["vs_baseline"]["test"]
    assert test == {"p": 1, "p_holm": 1, "resolvable": None, "informative_sources": 0, "exact": True}
    assert counted["arms"][1]["identical_to"] is None
