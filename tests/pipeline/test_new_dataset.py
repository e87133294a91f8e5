"""Other data goes through the whole path: a data card added in this file, and data that brings its own classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from layouts import LETTERS, ROCKS, letters, relabel, rocks, write_csv, write_images, write_shards
from PIL import Image

from hirise_imb.backbones import BACKBONES
from hirise_imb.cli.main import main
from hirise_imb.config import default_definition
from hirise_imb.data import DATASETS, HIRISE
from hirise_imb.data.dataset import ClassSet, DataCard, Layout, SourceColumn
from hirise_imb.pipeline.cost import images_per_second
from hirise_imb.pipeline.plan import plan_study
from hirise_imb.reporting.terms import NO_SOURCES

pytestmark = pytest.mark.usefixtures("blank_figures")

TILES = DataCard(
    name="tiles",
    title="Coloured tiles",
    classes=ClassSet(("grass", "sand", "water"), majority="grass"),
    image_size=64,
    channels=3,
    identity=SourceColumn(),
    layout=Layout(label_file="labels.txt", split_file="splits.txt", class_file="classes.csv", image_folder="tiles"),
    citation="Drawn for a test.",
    licence="CC0",
)

COLOURS = {"grass": (60, 150, 60), "sand": (200, 180, 110), "water": (40, 80, 180)}
COUNTS = {"train": (48, 16, 12), "val": (24, 8, 8), "test": (24, 9, 8)}
"""Images of each class."""
SOURCES = {"train": 8, "val": 6, "test": 7}


def draw_tiles(folder: Path) -> Path:
    """Tiles of one colour with noise; each source has its own brightness."""
    rng = np.random.default_rng(0)
    (folder / "tiles").mkdir(parents=True)
    labels, splits = [], []
    for split, counts in COUNTS.items():
        brightness = rng.normal(0, 15, SOURCES[split])
        for label, (name, count) in enumerate(zip(TILES.classes, counts, strict=True)):
            for number in range(count):
                source = number % SOURCES[split]
                pixels = np.array(COLOURS[name]) + brightness[source] + rng.normal(0, 40, (64, 64, 3))
                file = f"{split}-{name}-{number}.jpg"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "tiles" / file, quality=90)
                labels.append(f"{file} {label}\n")
                splits.append(f"{file} {label} {split} {split}-{source}\n")
    (folder / "labels.txt").write_text("".join(labels))
    (folder / "splits.txt").write_text("".join(splits))
    (folder / "classes.csv").write_text("".join(f"{k},{name}\n" for k, name in enumerate(TILES.classes)))
    return folder


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_tiles(tmp_path_factory.mktemp("tiles") / "data")


def run(out: Path, data: Path, toy: str, strategies: str, name: str = "t") -> Path:
    """Runs a small study on the tiles; returns the folder of its report."""
    where = ["--dataset", "tiles", "--data", str(data), "--name", name, "--out", str(out)]
    how = ["--backbone", toy, "--weights", "random", "--strategies", strategies, "--trials", "1", "--refits", "1"]
    how += ["--evaluation", "given-split"]
    assert main(["run", *where, *how]) == 0
    return out / "reports" / name


def test_it_is_checked_studied_rebuilt_and_compared(
    tiles: Path, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, TILES.name, TILES)
    assert main(["data", "check", str(tiles), "--dataset", "tiles"]) == 0
    assert "water" in capsys.readouterr().out

    # One strategy for each place that needs the classes or the pixels: synthetic rows, the majority class, the tail of
    # the backbone, logits, closed-form heads, views.
    strategies = "smote,undersampling,partial_unfreeze,class_bias,prototypes,photometric"
    report = run(tmp_path, tiles, toy, strategies)
    printed = capsys.readouterr().out
    assert all(name in printed for name in TILES.classes if name != "grass")  # the rare classes
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert summary["classes"] == ["grass", "sand", "water"]
    assert summary["majority"] == "grass"
    assert summary["support"] == list(COUNTS["test"])
    assert summary["omitted"] == []
    names = {"baseline", "baseline_to_the_end", "plain", "plain-x4", *strategies.split(",")}  # undersampling averages 4
    assert {arm["name"] for arm in summary["arms"]} == names
    for arm in summary["arms"]:
        assert np.array(arm["confusion"]).shape == (3, 3)
        f1 = [spread["mean"] for spread in arm["per_class"]["f1"]]
        assert arm["scores"]["macro_f1"]["mean"] == pytest.approx(np.mean(f1))
        assert arm["scores"]["macro_f1_rare"]["mean"] == pytest.approx(np.mean(f1[1:]))
    # Colour separates the classes, even through random weights.
    [prototypes] = [arm for arm in summary["arms"] if arm["name"] == "prototypes"]
    assert prototypes["scores"]["macro_f1"]["mean"] > 0.8
    predictions = pd.read_parquet(report / "predictions" / "smote.parquet")
    assert [name for name in map(str, predictions) if name.startswith("p_")] == ["p_grass", "p_sand", "p_water"]
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "water" in page
    assert not any(name in page for name in HIRISE.classes.names if name != HIRISE.classes.majority)

    before = summary["arms"]
    assert main(["report", str(report), "--pictures", "yes"]) == 0
    rebuilt = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert rebuilt["arms"] == before
    assert "data:image/jpeg" in (report / "report.html").read_text(encoding="utf-8")
    other = run(tmp_path, tiles, toy, "logistic", "u")
    assert main(["compare", str(report), str(other), "--name", "c", "--out", str(tmp_path)]) == 0
    compared = json.loads((tmp_path / "reports" / "c" / "summary.json").read_text(encoding="utf-8"))
    assert compared["classes"] == ["grass", "sand", "water"]
    assert main(["baseline", "--dataset", "tiles", "--data", str(tiles), "--out", str(tmp_path)]) == 2
    assert "The published table has the classes other, crater" in capsys.readouterr().err


def test_without_a_majority_class_all_classes_count_as_rare(
    tiles: Path, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ClassSet(TILES.classes.names)
    monkeypatch.setitem(DATASETS, TILES.name, replace(TILES, classes=classes))
    report = run(tmp_path, tiles, toy, "class_weights,undersampling,nuisance_projection")
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert summary["majority"] is None
    for arm in summary["arms"]:
        assert arm["scores"]["macro_f1_rare"] == arm["scores"]["macro_f1"]
    reasons = {strategy["name"]: strategy["reason"] for strategy in summary["omitted"]}
    assert set(reasons) == {"undersampling", "nuisance_projection"}
    assert all("needs a majority class, and this data set names none" in reason for reason in reasons.values())
    assert "None" not in (report / "report.md").read_text(encoding="utf-8")


def test_data_of_another_data_set_is_refused(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, TILES.name, TILES)
    assert main(["run", "--dataset", "tiles", "--out", str(tmp_path)]) == 2
    assert "The data `synthetic` belongs to the data set hirise-v3_2, not to tiles" in capsys.readouterr().err
    assert main(["data", "check", str(tiles)]) == 2
    assert "name a folder in the official layout" in capsys.readouterr().err
    assert main(["data", "check", str(tiles), "--dataset", "tile"]) == 2
    assert "There is no data set 'tile': did you mean tiles?" in capsys.readouterr().err


def study(path: Path, out: Path, toy: str, *more: str) -> Path:
    """Runs a small study on data in another layout; returns the folder of its report."""
    how = ["--backbone", toy, "--weights", "random", "--strategies", "class_bias,prototypes", "--trials", "1"]
    how += ["--refits", "1", "--trial-seeds", "1", "--name", "t", "--out", str(out)]
    assert main(["run", "--data", str(path), *how, *more]) == 0
    return out / "reports" / "t"


def test_an_annotation_table_is_studied_in_both_designs(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = write_images(tmp_path / "pictures", rocks())
    path = write_csv(tmp_path / "rocks", rocks(), ROCKS)
    path.write_text(path.read_text().replace("images/", ""))
    where = ["--images", str(elsewhere)]
    assert main(["data", "check", str(path), *where]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"No mistakes in {path}. Run a study on it with --data {path} --images {elsewhere}\n")
    assert NO_SOURCES not in " ".join(printed.split())
    report = study(path, tmp_path, toy, *where, "--outer-folds", "2")
    capsys.readouterr()
    for folder in (report, report / "given-split"):
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["classes"] == list(ROCKS)
        assert summary["majority"] == "dust"
        assert "no_sources" not in summary["inference"]
        assert "over its sources" in summary["caution"]
        assert "names no sources" not in (folder / "report.html").read_text(encoding="utf-8")
    assert summary["inference"]["sources"] == 4
    assert summary["support"] == [8, 24, 8]
    assert f'images = "{elsewhere}"' in (report / "study.toml").read_text(encoding="utf-8")
    assert main(["report", str(report), "--pictures", "yes"]) == 0
    assert "data:image/jpeg" in (report / "report.html").read_text(encoding="utf-8")


def test_shards_of_fifteen_classes_without_sources_are_studied(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_shards(tmp_path / "letters", letters(), LETTERS)
    for command in (["data", "check", str(path)], ["plan", "--data", str(path), "--outer-folds", "2"]):
        assert main(command) == 0
        assert NO_SOURCES in " ".join(capsys.readouterr().out.split())
    plan = plan_study(default_definition({"data": str(path), "backbone": toy, "evaluation": ["given-split"]}))
    speed = images_per_second(BACKBONES[toy])
    assert plan.features.seconds == pytest.approx(plan.features.n_views / speed * (64 / 227) ** 2)
    report = study(path, tmp_path, toy, "--evaluation", "given-split", "--pictures", "yes")
    assert NO_SOURCES in (report / "report.md").read_text(encoding="utf-8")
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert summary["classes"] == list(LETTERS)
    assert summary["majority"] is None
    assert summary["support"] == [5] * 15
    assert summary["inference"]["no_sources"] == NO_SOURCES
    assert NO_SOURCES in summary["caution"]
    assert "source observation" not in summary["caution"]
    for name in ("report.md", "report.html"):
        assert NO_SOURCES in (report / name).read_text(encoding="utf-8")
    for arm in summary["arms"]:
        assert np.array(arm["confusion"]).shape == (15, 15)
    assert len(pd.read_csv(report / "confusion" / "prototypes.csv")) >= 15
    assert main(["baseline", "--data", str(path), "--out", str(tmp_path)]) == 2
    assert "The published table has the classes other, crater" in capsys.readouterr().err


def test_mistakes_of_a_table_end_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "rocks", relabel(rocks(), "test", "train-1"), ROCKS)
    for command in (["data", "check", str(path)], ["run", "--data", str(path), "--out", str(tmp_path)]):
        assert main(command) == 2
        assert "source train-1 is in split test, but in split train earlier" in capsys.readouterr().err
