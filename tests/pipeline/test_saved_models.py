"""The models that a study saves with its report, and what they say about themselves."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support
from worlds import TOY, count_work

from hirise_imb.backbones import BACKBONES
from hirise_imb.cli.main import main
from hirise_imb.config import StudyDefinition
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import read_manifest
from hirise_imb.features.extraction import data_digest
from hirise_imb.pipeline.model_card import write_card
from hirise_imb.pipeline.runner import RunOptions, run_baseline, run_study
from hirise_imb.pipeline.saved_models import list_models
from hirise_imb.prediction.model_file import read_model
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import CACHE_VARIABLE

pytestmark = pytest.mark.usefixtures("blank_figures", "few_epochs", "toy")


@dataclasses.dataclass(frozen=True)
class Finished:
    definition: StudyDefinition
    out: Path

    @property
    def report(self) -> Path:
        return self.out / "reports" / self.definition.name

    def run(self, save_models: str | None = None, **changes: object) -> None:
        definition = dataclasses.replace(self.definition, **changes)  # type: ignore[arg-type]
        run_study(definition, self.out, RunOptions(save_models=save_models, replace=True))


@pytest.fixture(scope="module")
def original(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study of both designs. Not to be changed."""
    root = tmp_path_factory.mktemp("study")
    definition = StudyDefinition(
        name="t",
        data=str(small_data),
        backbone="toy",
        weights="random",
        strategies=("focal_loss", "partial_unfreeze", "logit_adjustment"),
        trials=1,
        trial_seeds=1,
        outer_folds=2,
        refits=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, TOY.name, TOY)
        patch.setenv(CACHE_VARIABLE, str(root / "cache"))
        run_study(definition, root / "out", RunOptions(save_models="all"))
    return Finished(definition, root / "out")


@pytest.fixture
def finished(original: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A copy of that study, its cache in use, to go on with."""
    shutil.copytree(original.out, tmp_path / "out")
    shutil.copytree(original.out.parent / "cache", tmp_path / "cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return dataclasses.replace(original, out=tmp_path / "out")


def summary(report: Path) -> dict[str, object]:
    found = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_models_predict_the_test_split_as_in_the_report(original: Finished, small_data: Path) -> None:
    manifest = read_manifest(small_data, HIRISE)
    names = [path.name for path in sorted((original.report / "models").iterdir())]
    assert set(names) >= {"baseline", "baseline_to_the_end", "plain", "focal_loss", "partial_unfreeze"}
    for name in names:
        table = pd.read_parquet(original.report / "given-split" / "predictions" / f"{name}.parquet")
        columns = [column for column in table if str(column).startswith("p_")]
        expected = table.groupby("image", sort=False)[columns].mean()
        pixels = [decode_image(manifest.path(image), HIRISE.image_shape) for image in expected.index]
        output = Predictor.load(read_model(original.report / "models" / name)).predict(np.stack(pixels))
        np.testing.assert_allclose(output.probabilities, expected, rtol=0, atol=1e-5)


def test_models_name_the_digest_of_their_training_data(original: Finished, small_data: Path) -> None:
    digest = data_digest(read_manifest(small_data, HIRISE))
    assert read_model(original.report / "models" / "plain").facts["training_data"]["digest"] == digest


def test_scores_are_those_of_mean_probabilities(original: Finished) -> None:
    """Recomputed from the predictions of the report by scikit-learn and pandas."""
    facts = read_model(original.report / "models" / "focal_loss").facts
    table = pd.read_parquet(original.report / facts["origin"]["predictions"])
    columns = [column for column in table if str(column).startswith("p_")]
    by_image = table.groupby("image", sort=False).agg({**dict.fromkeys(columns, "mean"), "true_class": "first"})
    predicted = by_image[columns].to_numpy().argmax(axis=1)
    truth = [facts["classes"].index(name) for name in by_image["true_class"]]
    labels = range(len(facts["classes"]))
    assert facts["scores"]["macro_f1"] == pytest.approx(f1_score(truth, predicted, labels=labels, average="macro"))
    scores = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for k, row in enumerate(facts["scores"]["classes"].values()):
        assert (row["precision"], row["recall"], row["f1"], row["landmarks"]) == pytest.approx([s[k] for s in scores])

    arms = {arm["name"]: arm for arm in summary(original.report / "given-split")["arms"]}  # type: ignore[attr-defined]
    temperatures = [values[0] for values in arms["focal_loss"]["temperatures"]]
    powers = []
    for (_, rows), temperature in zip(table.groupby("seed", sort=False), temperatures, strict=True):
        power = rows[columns].to_numpy(float) ** (1 / temperature)
        powers.append(power / power.sum(axis=1, keepdims=True))
    confidence = np.mean(powers, axis=0)[np.arange(len(truth)), predicted]
    point = facts["operating_point"]
    assert point["coverage"] == pytest.approx(np.mean(confidence >= 0.9))
    shown = [row["shown"] for row in point["classes"].values()]
    assert shown == np.bincount(predicted[confidence >= 0.9], minlength=len(labels)).tolist()


def test_by_default_the_baseline_and_the_chosen_arms_are_saved(finished: Finished) -> None:
    shutil.rmtree(finished.report / "models")
    finished.run()
    chosen = {summary(folder)["chosen"] for folder in (finished.report, finished.report / "given-split")}
    assert {path.name for path in (finished.report / "models").iterdir()} == {"baseline", *chosen}


def test_none_saves_none_and_leaves_those_of_an_earlier_run(finished: Finished) -> None:
    before = {path: path.read_bytes() for path in (finished.report / "models").rglob("*") if path.is_file()}
    finished.run("none")
    assert {path: path.read_bytes() for path in (finished.report / "models").rglob("*") if path.is_file()} == before
    shutil.rmtree(finished.report / "models")
    finished.run("none")
    assert not (finished.report / "models").exists()


def test_the_same_run_gives_the_same_models_without_fitting(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {entry.model.name: entry.model.digest for entry in list_models(finished.report)[0]}
    work = count_work(monkeypatch, lambda _: "refit")
    finished.run("all")
    assert work == Counter()
    assert {entry.model.name: entry.model.digest for entry in list_models(finished.report)[0]} == before


def test_a_fit_without_its_model_is_made_again_and_gives_the_same(finished: Finished) -> None:
    """As after a study that ran with --save-models none, or with an older version."""
    before = {entry.model.name: entry.model.digest for entry in list_models(finished.report)[0]}
    shutil.rmtree(finished.out / "studies" / "t.runs" / "models")
    finished.run("all")
    assert {entry.model.name: entry.model.digest for entry in list_models(finished.report)[0]} == before


def test_the_fits_of_the_baseline_command_are_reused(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(finished.out / "studies" / "t.runs")
    run_baseline(finished.definition, "unique", finished.out)
    models = list((finished.out / "studies" / "t.runs" / "models").iterdir())
    assert len(models) == finished.definition.refits


def test_a_damaged_stored_model_is_named_and_fitted_again(finished: Finished, caplog: pytest.LogCaptureFixture) -> None:
    before = {entry.model.name: entry.model.digest for entry in list_models(finished.report)[0]}
    paths = list((finished.out / "studies" / "t.runs" / "models").iterdir())
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    finished.run("all")
    for path in paths:
        assert f"{path} is damaged" in caplog.text
    assert {entry.model.name: entry.model.digest for entry in list_models(finished.report)[0]} == before


def test_a_model_of_an_earlier_report_is_marked(finished: Finished) -> None:
    assert all(entry.is_current for entry in list_models(finished.report)[0])
    finished.run("none", refits=1)
    assert not any(entry.is_current for entry in list_models(finished.report)[0])


def test_the_list_fits_80_columns(
    original: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models", str(original.report)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("baseline_to_the_end", "partial_unfreeze", "logit_adjustment"):
        assert any(line.startswith(name) and line.rstrip().endswith("this one") for line in lines)
    assert all(len(line) <= 80 for line in lines if not line.startswith("Folder"))


def test_the_card_tells_what_the_model_is(original: Finished) -> None:
    facts = read_model(original.report / "models" / "partial_unfreeze").facts
    card = (original.report / "models" / "partial_unfreeze" / "README.md").read_text(encoding="utf-8")
    for heading in ("Training data", "Scores", "Confident predictions", "Known failures", "Sources", "Licence"):
        assert f"\n## {heading}\n" in card
    for name, row in facts["scores"]["classes"].items():
        assert f"| {name} | {row['landmarks']} | {row['sources']} | {row['precision']:.3f} |" in card
    for source in facts["training_data"]["sources"]:
        assert source in card
    assert "licence of the training data is not known" in card
    assert f"macro F1 of {facts['scores']['nested_macro_f1']:.3f} (mean over single fits)" in card
    assert not [line for line in card.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize(
    ("data", "expected"),
    [("synthetic", "nothing in this model is about Mars"), ("hirise", "CC BY 4.0"), ("mine.zip", "is not known")],
)
def test_the_licence_is_that_of_the_data(original: Finished, data: str, expected: str) -> None:
    facts = copy.deepcopy(read_model(original.report / "models" / "plain").facts)
    facts["training_data"]["data"] = data
    card = write_card(facts, read_report(original.report / "given-split"), None)
    assert expected in card
    assert ("CC BY" in card) == (data == "hirise")


def test_the_card_of_data_without_sources_claims_none(original: Finished) -> None:
    given = read_report(original.report / "given-split")
    given = dataclasses.replace(given, test=given.test.assign(source=given.test["landmark"]))
    facts = copy.deepcopy(read_model(original.report / "models" / "plain").facts)
    for row in facts["scores"]["classes"].values():
        row["sources"] = None
    card = write_card(facts, given, None)
    assert "intervals (95 %) are over images" in card
    assert "| other | 4 | – |" in card


def test_the_card_says_if_no_prediction_is_confident(original: Finished) -> None:
    facts = copy.deepcopy(read_model(original.report / "models" / "plain").facts)
    facts["operating_point"] |= {"precision": None, "coverage": 0.0}
    card = write_card(facts, read_report(original.report / "given-split"), None)
    assert "No test landmark has a prediction with a calibrated probability of 0.9 or more." in card


def test_the_card_says_if_the_nested_cross_validation_chose_the_arm(original: Finished) -> None:
    nested, given = read_report(original.report), read_report(original.report / "given-split")
    assert nested.chosen is not None
    name = nested.chosen.name
    others = tuple(arm for arm in given.arms if arm.name != name)
    other_choice = dataclasses.replace(given, arms=(*others, dataclasses.replace(_arm(given, name), role="control")))
    facts = read_model(original.report / "models" / name).facts
    assert ("scores may be" in write_card(facts, other_choice, nested)) is True
    assert ("scores may be" in write_card(facts, nested, nested)) is False


def _arm(results: Results, name: str) -> Arm:
    return next(arm for arm in results.arms if arm.name == name)


def test_a_damaged_model_does_not_hide_the_others(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    with (finished.report / "models" / "plain" / "model.json").open("ab") as file:
        file.write(b" ")
    assert main(["models", str(finished.report)]) == 2
    output = capsys.readouterr()
    assert "focal_loss" in output.out
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert "plain/model.json" in output.err


def test_a_path_is_no_markup(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.out / "reports")
    finished.report.rename("rep[bold]")
    (finished.out / "reports" / "rep[bold]").rename("[x]")
    assert main(["models", "[x]"]) == 0
    output = capsys.readouterr().out
    assert "Models in [x]" in output
    assert "Folder: [x]/models/MODEL" in output


class TestStudiesWithoutModels:
    def test_a_nested_cross_validation_alone(self, finished: Finished, caplog: pytest.LogCaptureFixture) -> None:
        definition = dataclasses.replace(finished.definition, name="n", evaluation=("nested-cv",))
        for choice in ("chosen", "all"):
            with pytest.raises(UserError, match="given split"):
                run_study(definition, finished.out, RunOptions(save_models=choice))
        assert not (finished.out / "reports" / "n").exists()

    def test_an_unknown_choice(self, finished: Finished) -> None:
        with pytest.raises(UserError, match="some"):
            finished.run("some")


def test_a_report_without_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", str(tmp_path)]) == 2
    assert "no report" in capsys.readouterr().err
