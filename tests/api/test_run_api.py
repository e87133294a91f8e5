"""Studies that are run from Python: definitions of all kinds, the report, and what stays as it was in the process."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from worlds import TOY

import hirise_imb as hi
from hirise_imb.api import studies
from hirise_imb.backbones import BACKBONES
from hirise_imb.config import Range
from hirise_imb.utils.files import CACHE_VARIABLE

pytestmark = pytest.mark.usefixtures("blank_figures", "few_epochs")


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    """The toy backbone is known, and the cache is the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, TOY.name, TOY)
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def keys(small_data: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": small_data,
        "backbone": "toy",
        "weights": "random",
        "strategies": ["prototypes"],
        "evaluation": ["given-split"],
        "trial_seeds": 1,
        "refits": 1,
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def study(patched: None, keys: dict[str, Any], out: Path) -> hi.Report:
    return hi.run({**keys, "data": str(keys["data"])}, trials=1, out=out)


def test_a_run_returns_its_report(study: hi.Report, out: Path) -> None:
    assert study.page == out / "reports" / "tiny" / "report.html"
    assert study.page.is_file()
    assert list(study.arms) == ["baseline", "baseline_to_the_end", "plain", "prototypes"]
    assert study.definition["trials"] == 1
    assert study.design == "given-split"
    stored = hi.read_report(out / "reports" / "tiny")
    pd.testing.assert_frame_equal(stored.arms.frame(), study.arms.frame())


def test_a_run_leaves_the_process_as_it_was(
    study: hi.Report,
    keys: dict[str, Any],
    out: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, handler = dict(mpl.rcParams), signal.getsignal(signal.SIGTERM)
    handlers = logging.getLogger("hirise_imb").handlers[:]
    with caplog.at_level(logging.INFO, "hirise_imb"):
        again = hi.run(hi.StudyDefinition(**keys_of(keys)), out=out, trials=1)
    assert again.arms.frame().equals(study.arms.frame())
    assert caplog.records
    assert capsys.readouterr() == ("", "")
    assert dict(mpl.rcParams) == settings
    assert signal.getsignal(signal.SIGTERM) == handler
    assert logging.getLogger("hirise_imb").handlers == handlers


def keys_of(keys: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else str(v) if isinstance(v, Path) else v for name, v in keys.items()}


def test_a_definition_may_be_a_file_a_mapping_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("trials = 7\n[strategies.focal_loss]\ngamma = {low = 1, high = 3}\n", encoding="utf-8")
    read = studies._read_definition
    of_file = read(path, {})
    assert (of_file.name, of_file.trials, of_file.strategies) == ("mine", 7, ("focal_loss",))
    assert read(str(path), {"trials": 9}).trials == 9
    mapping = {"name": "mine", "trials": 7, "strategies": {"focal_loss": {"gamma": {"low": 1, "high": 3}}}}
    assert read(mapping, {}) == of_file
    assert read(of_file, {}) == of_file
    assert read(of_file, {"trials": 9}) == read(path, {"trials": 9})
    assert read(None, {}) == hi.StudyDefinition()
    assert read(None, {"strategies": {"smote": {}, "focal_loss": {"gamma": 2.0}}}).overrides == {
        "focal_loss": {"gamma": 2.0}
    }
    assert read(of_file, {"strategies": ["smote", "focal_loss"]}).overrides == {"focal_loss": {"gamma": Range(1, 3)}}
    assert read(None, {"data": Path("some/where.zip")}).name == "where"
    assert read({"data": "other.zip"}, {}).name == "other"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trails": 3}, r"no key 'trails': did you mean trials\?"),
        ({"trials": "many"}, 'trials is "many": it must be an integer'),
        ({"definition": "missing.toml"}, "no study definition missing.toml"),
        ({"definition": {"strategies": {"smote": 3}}}, "strategies.smote is 3"),
        ({"strategies": ["smotte"]}, "'smotte'"),
        ({"workers": 0}, "use 1 or more"),
    ],
)
def test_wrong_definitions_are_errors(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(hi.UserError, match=message):
        hi.run(**arguments, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- models ---


@pytest.fixture(scope="module")
def model(study: hi.Report) -> hi.Model:
    return study.load_model("prototypes")


def test_a_model_predicts_what_its_study_predicted(study: hi.Report, model: hi.Model, keys: dict[str, Any]) -> None:
    stored = study.predictions("prototypes", average=True).set_index("image")
    [folder] = {path.parent for path in Path(keys["data"]).rglob(str(stored.index[0]))}
    rows = model.predict([folder / name for name in stored.index])
    names = [name for name in stored.columns.astype(str) if name.startswith("p_")]
    np.testing.assert_allclose(rows[names], stored[names], atol=1e-5)
    assert rows["class"].tolist() == stored["predicted_class"].tolist()
    assert rows["source"].tolist() == stored["source"].tolist()

    pixels = np.stack([np.asarray(Image.open(path)) for path in rows["id"]])
    from_pixels = model.predict(pixels)
    pd.testing.assert_frame_equal(from_pixels[names], rows[names], atol=1e-5)
    assert from_pixels["id"].tolist() == [str(place) for place in range(len(rows))]
    assert model.predict(pixels[:2, ..., None], threshold=0)["shown"].tolist() == [True, True]
    assert model.predict(folder / str(stored.index[0]))["class"].tolist() == rows["class"].tolist()[:1]


def test_a_model_says_what_it_is(study: hi.Report, model: hi.Model) -> None:
    assert (model.name, model.classes) == ("prototypes", study.classes)
    assert repr(model).startswith("Model prototypes: 8 classes, images of ")
    assert model.facts["origin"]["arm"] == "prototypes"
    assert study.folder is not None
    assert hi.load_model(study.folder / "models" / "prototypes").name == "prototypes"


def test_what_a_model_cannot_predict_is_an_error(model: hi.Model, tmp_path: Path) -> None:
    with pytest.raises(
        hi.UserError, match="array of 2 x 5 x 5 values of type uint8, but the model prototypes takes n x"
    ):
        model.predict(np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(hi.UserError, match="float64"):
        model.predict(np.zeros((1, *model.image_shape)))  # type: ignore[arg-type]
    with pytest.raises(hi.UserError, match="does not exist"):
        model.predict(tmp_path / "missing.jpg")
    with pytest.raises(hi.UserError, match="threshold is 2"):
        model.predict(np.zeros((1, *model.image_shape), np.uint8), threshold=2)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    broken = model.predict(tmp_path)
    assert broken["error"].notna().all()
    assert broken["confidence"].isna().all()
