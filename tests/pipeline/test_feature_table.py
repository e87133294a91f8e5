"""Studies on a table of features: the numbers are those of the backbone that made it, and no backbone is built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cut_features import extract_at
from worlds import TOY

from examples.extract_features import main as extract_with_keras
from hirise_imb.backbones import BACKBONES, TOP, Backbone, BackboneCard
from hirise_imb.cli.main import main
from hirise_imb.config import StudyDefinition
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.pipeline.landmark_pictures import choose_pictures
from hirise_imb.pipeline.plan import plan_study
from hirise_imb.pipeline.runner import run_baseline, run_study
from hirise_imb.reporting import Results
from hirise_imb.training.context import TrainingContext
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures", "few_epochs")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(small_data: Path) -> Manifest:
    return read_manifest(small_data, HIRISE)


@pytest.fixture(scope="module")
def table(images: Manifest, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the toy backbone's own means at the top, in another order. Not to be changed."""
    folder = tmp_path_factory.mktemp("table")
    names = list(images.table["image"])
    features = extract_at(backbone, [TOP], [images.path(name) for name in names], folder)[TOP]
    order = np.random.default_rng(0).permutation(len(names))
    vectors = features.take(np.arange(len(names)))
    content = {"image": [names[row] for row in order], "vector": vectors[order].tolist()}
    about = {"made_by": "the toy <backbone>", "pixels": "227"}
    pq.write_table(pa.table(content).replace_schema_metadata(about), folder / "toy.parquet")
    return folder / "toy.parquet"


@pytest.fixture(scope="module")
def definition(small_data: Path, table: Path) -> StudyDefinition:
    return StudyDefinition(
        name="t",
        data=str(small_data),
        features=str(table),
        strategies=("focal_loss", "logit_adjustment", "prototypes", "combined"),
        overrides={"combined": {"features": "plain"}},
        trials=1,
        trial_seeds=1,
        refits=1,
        evaluation=("given-split",),
    )


def forbid_backbones(patch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        pytest.fail("a backbone is built")

    patch.setattr(BackboneCard, "load", build)


@pytest.fixture(scope="module")
def on_table(definition: StudyDefinition, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """The results of a study on the table, and the folder of its report."""
    with pytest.MonkeyPatch.context() as patch:
        forbid_backbones(patch)
        results, page = run_study(definition, tmp_path_factory.mktemp("study"))
    return results, page.parent


def test_results_are_those_of_the_backbone_that_made_the_table(
    on_table: tuple[Results, Path], definition: StudyDefinition, toy: str, tmp_path: Path
) -> None:
    results, folder = on_table
    other, _ = run_study(replace(definition, features="", backbone=toy, weights="random"), tmp_path)
    assert [arm.name for arm in results.arms] == [arm.name for arm in other.arms]
    assert {"plain", "focal_loss", "logit_adjustment", "prototypes", "combined"} < {arm.name for arm in other.arms}
    for arm in other.arms:
        file = f"predictions/{arm.name}.parquet"
        mine, theirs = pd.read_parquet(folder / file), pd.read_parquet(tmp_path / "reports" / "t" / file)
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_report_says_where_features_come_from(
    on_table: tuple[Results, Path], table: Path, definition: StudyDefinition
) -> None:
    results, folder = on_table
    line = f"Features: {table} (made by the toy <backbone>), {TOY.feature_width} for each image"
    assert line in results.setting
    assert "Backbone" not in results.setting
    assert line.replace("<", "&lt;").replace(">", "&gt;") in (folder / "report.html").read_text(encoding="utf-8")
    assert f'features = "{table}"' in (folder / "study.toml").read_text(encoding="utf-8")
    environment: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    features = environment["features"]
    assert features["file"] == str(table)
    assert features["width"] == TOY.feature_width
    assert features["metadata"] == {"made_by": "the toy <backbone>", "pixels": "227"}
    assert environment["digests"]["features"] == features["digest"][:16]
    assert not {"backbone", "weights", "precision"} & environment["digests"].keys()


def test_neighbours_on_the_page_are_nearest_in_the_table(
    on_table: tuple[Results, Path], definition: StudyDefinition, table: Path, images: Manifest, tmp_path: Path
) -> None:
    results, _ = on_table
    maker = choose_pictures("yes", definition.data, definition.dataset, lambda: images)
    assert maker is not None
    shown = maker(results)
    assert shown is not None
    content = pq.read_table(table).to_pydict()
    vectors = dict(zip(content["image"], np.array(content["vector"]), strict=True))
    first = shown.errors[0]
    own = vectors[first.picture.image]
    for group in first.groups:
        for picture in group.pictures:
            other = vectors[picture.image]
            similarity = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
            assert float(picture.note) == pytest.approx(similarity, abs=1e-3)
    moved = results.environment | {"features": results.environment["features"] | {"file": str(tmp_path / "gone")}}
    without = maker(replace(results, environment=moved))
    assert without is not None
    assert all(one.groups == () for one in without.errors)
    assert "gone is not the table of features that this study used" in without.caption


def test_trials_and_fits_are_tied_to_the_content_of_the_table(
    on_table: tuple[Results, Path], definition: StudyDefinition, table: Path, tmp_path: Path
) -> None:
    out = on_table[1].parents[1]
    content = pq.read_table(table)
    # The same vectors in another file go on with the study; others do not.
    pq.write_table(content.replace_schema_metadata({}).slice(0).take(list(range(len(content)))[::-1]), tmp_path / "a")
    again, _ = run_study(replace(definition, features=str(tmp_path / "a")), out)
    assert "(the file does not say how they were made)" in again.setting
    vectors = content["vector"].to_pylist()
    vectors[0][0] += 1
    pq.write_table(pa.table({"image": content["image"], "vector": vectors}), tmp_path / "b")
    with pytest.raises(UserError, match=r"was begun with features .*, not with features"):
        run_study(replace(definition, features=str(tmp_path / "b")), out)
    with pytest.raises(UserError, match="was begun with no backbone, not with backbone"):
        run_study(replace(definition, features="", weights="random"), out)


def test_facts_of_a_table_are_its_own(
    definition: StudyDefinition, images: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_backbones(monkeypatch)
    context = TrainingContext.prepare(definition, images, [])
    assert set(context.given_split.facts) == {"dataset", "data", "features", "trial_seeds", "seed"}
    assert (context.cuts, context.layers, context.card.feature_width) == ((), (), TOY.feature_width)
    assert context.table is not None
    with pytest.raises(UserError, match="the network that made it can't be built here"):
        context.card.build("imagenet", HIRISE.image_shape)


def test_the_reference_run_takes_a_table_too(definition: StudyDefinition, tmp_path: Path) -> None:
    baseline, _ = run_baseline(definition, "unique", tmp_path)
    assert "Features: " in baseline.results.setting


def test_a_plan_knows_the_width_of_the_table_and_extracts_nothing(
    definition: StudyDefinition, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, other = plan_study(definition), plan_study(replace(definition, features=""))
    assert (plan.features.n_views, plan.features.bytes, plan.features.seconds) == (0, 0, 0)
    assert plan.designs[0].fits == other.designs[0].fits
    assert plan.designs[0].seconds < other.designs[0].seconds  # the toy has 12 features, the embedded backbone 1,280
    command = ["plan", "--data", definition.data, "--features", definition.features, "--strategies", "focal_loss"]
    assert main([*command, "--trials", "1", "--evaluation", "given-split"]) == 0
    printed = capsys.readouterr().out
    assert "features, from a table" in printed
    assert "xtraction" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--strategies", "tta,focal_loss"],
            "which is not enough for tta (needs other views of the images): leave it out",
        ),
        (["--strategies", "partial_unfreeze"], "partial_unfreeze (needs a backbone to fine-tune): leave it out"),
        (["--backbone", "efficientnet-lite0"], "but backbone is given too: leave out either"),
        (["--precision", "bfloat16"], "but precision is given too"),
        ([], "representation (needs feature maps of a backbone)"),
        (["--data", "synthetic", "--strategies", "focal_loss"], "images of the data set ("),
    ],
)
def test_a_run_that_a_table_can_not_serve_is_refused_at_once(
    options: list[str],
    message: str,
    definition: StudyDefinition,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    command = ["run", "--data", definition.data, "--features", definition.features, "--out", str(tmp_path)]
    assert main([*command, *options]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") or "\nerror: " in printed
    assert message in printed
    assert not (tmp_path / "reports" / definition.name).exists()


# --- the example ---


def test_the_example_is_independent_of_the_package() -> None:
    lines = (ROOT / "examples" / "extract_features.py").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.lstrip().startswith(("import hirise", "from hirise"))]


def test_a_study_runs_on_the_table_of_the_example(
    definition: StudyDefinition, images: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mobile.parquet"
    extract_with_keras([str(images.folder), "MobileNet", str(path), "--weights", "random", "--size", "32"])
    assert f"{len(images.table)} images, 1024 numbers for each" in capsys.readouterr().out
    assert set(pq.read_schema(path).names) == {"image", "vector", "digest"}
    small = replace(definition, name="mobile", features=str(path), strategies=("prototypes",), overrides={})
    results, _ = run_study(small, tmp_path)
    assert {"plain", "prototypes"} < {arm.name for arm in results.arms}
    assert "(made by keras.applications.MobileNet, weights random, mean over the last feature map)" in results.setting


def test_the_example_names_a_network_that_keras_lacks(images: Manifest, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"keras\.applications has no network NoNet"):
        extract_with_keras([str(images.folder), "NoNet", str(tmp_path / "x.parquet")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="There is no image in"):
        extract_with_keras([str(tmp_path / "empty"), "MobileNet", str(tmp_path / "x.parquet")])
    assert TOY.name not in BACKBONES
