"""The whole path on real landmarks; `HIRISE_SAMPLE` names their zip."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from builders import CLASS_FILE, CLASSES, IMAGE_FOLDER, LABEL_FILE, SPLIT_FILE
from cut_features import cut_key, extract_at

from hirise_imb.backbones import BACKBONES, TOP
from hirise_imb.cli.main import main
from hirise_imb.data import HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.data.resolve import import_data
from hirise_imb.data.splits import make_splits
from hirise_imb.metrics.registry import Evaluation, evaluate
from hirise_imb.models.heads import initial_state
from hirise_imb.recipe import Recipe
from hirise_imb.training.trainer import Trainer

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.real,
    pytest.mark.skipif("HIRISE_SAMPLE" not in os.environ, reason="HIRISE_SAMPLE names no zip of real landmarks"),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_data(Path(os.environ["HIRISE_SAMPLE"]), tmp_path_factory.mktemp("real"), HIRISE.layout)


def subset(real: Path, folder: Path, wanted: dict[str, int]) -> Path:
    """Up to so many images of each class and split, in the official layout."""
    table = read_manifest(real, HIRISE).table
    parts = [table[table["split"] == split].groupby("label").head(count) for split, count in wanted.items()]
    chosen = pd.concat(parts)
    (folder / IMAGE_FOLDER).mkdir()
    for image in chosen["image"]:
        (folder / IMAGE_FOLDER / image).symlink_to(real / IMAGE_FOLDER / image)
    rows = list(chosen[["image", "label", "split"]].itertuples(index=False))
    (folder / LABEL_FILE).write_text("".join(f"{image} {label}\n" for image, label, _ in rows))
    (folder / SPLIT_FILE).write_text("".join(f"{image} {label} {split}\n" for image, label, split in rows))
    (folder / CLASS_FILE).write_text((real / CLASS_FILE).read_text())
    return folder


@pytest.fixture(scope="module")
def few(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return subset(real, tmp_path_factory.mktemp("few"), {"train": 4, "val": 2, "test": 2})


@pytest.mark.slow
def test_the_reference_backbone_runs_the_whole_path(few: Path, tmp_path: Path) -> None:
    assert len(read_manifest(few, HIRISE).table) == 64
    options = "--backbone resnet50v2 --weights random --trials 2 --refits 1 --name few "
    options += "--evaluation given-split --trial-seeds 1 --fine-tuning-trials 1 "
    options += "--strategies class_weights,oversampling,partial_unfreeze"
    assert main(["run", *options.split(), "--data", str(few), "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "reports/few/summary.json").read_text())
    names = ["baseline", "baseline_to_the_end", "plain", "oversampling", "class_weights", "partial_unfreeze"]
    assert [arm["name"] for arm in summary["arms"]] == names
    for name in names:
        predictions = pd.read_parquet(tmp_path / f"reports/few/predictions/{name}.parquet")
        assert len(predictions) == 16
        assert set(predictions["true_class"]) == set(CLASSES)


def test_the_head_of_the_reference_run_has_the_published_number_of_parameters() -> None:
    backbone = BACKBONES["resnet50v2"].load("random", HIRISE.image_shape)
    # Gamma, beta, kernel and bias of the head; its moving mean and variance, and all of the backbone.
    state = initial_state(backbone.card.feature_width, len(CLASSES), 0)
    assert state.stacked.size + state.bias.size == 20_488
    assert state.average.size + backbone.network.count_params() == 23_568_896


def test_predictions_belong_to_their_landmarks(real: Path, tmp_path: Path) -> None:
    """Paired with the wrong labels, agreement beyond chance would be nil."""
    (tmp_path / "data").mkdir()
    data = subset(real, tmp_path / "data", {"train": 60, "val": 15, "test": 25})
    images = read_manifest(data, HIRISE)
    paths = [images.path(image) for image in images.table["image"]]
    backbone = BACKBONES["efficientnet-lite0"].load("imagenet", HIRISE.image_shape)
    features = extract_at(backbone, [TOP], paths, tmp_path)
    trainer = Trainer(backbone, make_splits(images, 1), {cut_key(TOP): features[TOP]})
    run = trainer.fit_reference(Recipe(learning_rate=1e-3), 0)
    test = images.canonical_images("test")
    assert evaluate(Evaluation.of(run.test, test, HIRISE.classes.rare_ids))["kappa"] > 0.5


def test_a_model_predicts_the_test_split_as_its_report_and_its_card_say(real: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = subset(real, tmp_path / "data", {"train": 40, "val": 15, "test": 30})
    options = "--name small --evaluation given-split --strategies combined --trials 2 --trial-seeds 1 --refits 2"
    assert main(["run", *options.split(), "--data", str(data), "--out", str(tmp_path)]) == 0
    report = tmp_path / "reports/small"
    models = sorted((report / "models").iterdir())
    assert [model.name for model in models] == ["baseline", "combined"]
    for model in models:
        out = tmp_path / f"{model.name}.parquet"
        assert main(["predict", str(model), str(data), "--split", "test", "--out", str(out)]) == 0
        predicted = pd.read_parquet(out).set_index("id")
        reported = pd.read_parquet(report / "predictions" / f"{model.name}.parquet").groupby("image")
        columns = [column for column in predicted if str(column).startswith("p_")]
        expected = reported[columns].mean()
        assert set(expected.index) == set(predicted.index)
        assert (predicted.loc[expected.index, columns] - expected).abs().to_numpy().max() < 1e-5
        card = json.loads((model / "model.json").read_text())["operating_point"]
        assert predicted["shown"].mean() == pytest.approx(card["coverage"])
        shown = predicted[predicted["shown"].astype(bool)]
        truth = reported["true_class"].first()[shown.index]
        assert (shown["class"] == truth).mean() == pytest.approx(card["precision"])
