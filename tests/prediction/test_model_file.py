"""The model file: what is read is what was written, and anything else is refused with one sentence."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_models import describe_model, save_fits

from hirise_imb.backbones import Backbone
from hirise_imb.cli.main import main
from hirise_imb.features.inputs import FeatureSpec, Input
from hirise_imb.imbalance.logit_adjustment import Correction
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation, Standardisation
from hirise_imb.prediction.model_file import read_model, write_model
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.testing.toy import TOY, WIDTH
from hirise_imb.training.fitted import FittedHead, FittedModel
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import file_mask

VERIFIED = ("model.json", "weights.npz", "SHA256SUMS")


def make_head(seed: int, width: int = WIDTH, n_classes: int = 8) -> FittedHead:
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(width, 2)))[0]
    return FittedHead(
        LinearClassifier(
            kernel=rng.normal(size=(n_classes, width)),
            bias=rng.normal(size=n_classes),
            centre=rng.normal(size=width),
            gain=rng.uniform(0.5, 1.5, width),
            preparation=Preparation(Standardisation(rng.normal(size=width), rng.uniform(1, 2, width)), directions),
        )
    )


def make_fit(seed: int, width: int = WIDTH, n_classes: int = 8) -> FittedModel:
    """Two kinds of heads with everything that a model can have, except a tail."""
    heads = (make_head(seed, width, n_classes), make_head(seed + 1, width, n_classes))
    cosine = replace(make_head(seed + 2, width, n_classes).classifier, unit=True, preparation=Preparation())
    offsets = np.random.default_rng(seed).normal(size=n_classes)
    return FittedModel((heads, (FittedHead(cosine),)), (1.5, 0.5), Correction(2.0, offsets), 3.0)


@pytest.fixture
def folder(backbone: Backbone, tmp_path: Path) -> Path:
    save_fits(tmp_path / "model", backbone, [make_fit(0), make_fit(10)])
    return tmp_path / "model"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the facts, with digests that fit: as somebody who means harm would, or another version."""
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    change(facts)
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    sign(folder)


def sign(folder: Path) -> None:
    digests = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in VERIFIED[:2]]
    (folder / "SHA256SUMS").write_text("".join(digests), encoding="ascii")


def refusal(folder: Path) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(UserError) as refused:
        read_model(folder)
    message = str(refused.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert str(folder) in message
    return message


class TestRoundTrip:
    def test_what_is_read_is_what_was_written(self, folder: Path, backbone: Backbone) -> None:
        model = read_model(folder)
        assert model.facts == describe_model(backbone, seeds=(0, 1))
        for fit, expected in zip(model.fits, (make_fit(0), make_fit(10)), strict=True):
            found, wanted = fit.to_arrays(), expected.to_arrays()
            assert found.keys() == wanted.keys()
            for name, array in wanted.items():
                np.testing.assert_array_equal(found[name], array)
                assert found[name].dtype == array.dtype

    def test_the_digest_stands_for_the_model(self, folder: Path, backbone: Backbone, tmp_path: Path) -> None:
        """Equal models have equal files, so that their predictions can be told to be of one model."""
        save_fits(tmp_path / "again", backbone, [make_fit(0), make_fit(10)])
        save_fits(tmp_path / "other", backbone, [make_fit(0), make_fit(11)])
        digest = read_model(folder).digest
        assert read_model(tmp_path / "again").digest == digest != read_model(tmp_path / "other").digest

    def test_common_tools_verify_it(self, folder: Path) -> None:
        """The file of digests has the form that `sha256sum --check` reads."""
        for line in (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest

    def test_the_card_may_be_edited(self, folder: Path) -> None:
        (folder / "README.md").write_text("# mine\n", encoding="utf-8")
        read_model(folder)

    def test_the_same_model_leaves_an_edited_card(self, folder: Path, backbone: Backbone) -> None:
        (folder / "README.md").write_text("# mine\n", encoding="utf-8")
        save_fits(folder, backbone, [make_fit(0), make_fit(10)])
        assert (folder / "README.md").read_text(encoding="utf-8") == "# mine\n"
        (folder / "weights.npz").write_bytes(b"damaged")
        save_fits(folder, backbone, [make_fit(0), make_fit(10)])
        read_model(folder)
        assert (folder / "README.md").read_text(encoding="utf-8") != "# mine\n"

    def test_a_new_model_takes_the_place_of_an_earlier_one(self, folder: Path, backbone: Backbone) -> None:
        before = read_model(folder).digest
        save_fits(folder, backbone, [make_fit(5)])
        assert read_model(folder).digest != before
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_others_may_read_it(self, folder: Path) -> None:
        assert folder.stat().st_mode & 0o777 == 0o777 & ~file_mask()

    def test_a_write_that_fails_leaves_the_earlier_model(
        self, folder: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: object, **options: object) -> None:
            raise OSError(28, "No space left on device")

        before = read_model(folder).digest
        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            save_fits(folder, backbone, [make_fit(5)])
        assert read_model(folder).digest == before
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_facts_that_violate_their_schema_are_never_written(self, backbone: Backbone, tmp_path: Path) -> None:
        facts = describe_model(backbone)
        facts["classes"] = ["alone"]
        with pytest.raises(ValueError, match="schema"):
            write_model(tmp_path / "model", facts, {0: make_fit(0)}, "")
        assert list(tmp_path.iterdir()) == []


class TestDamage:
    @pytest.mark.parametrize("name", VERIFIED)
    def test_a_flipped_byte_anywhere_is_noticed(self, folder: Path, name: str) -> None:
        path = folder / name
        content = path.read_bytes()
        rng = np.random.default_rng(0)
        places = {0, len(content) - 1, *rng.integers(len(content), size=40).tolist()}
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            refusal(folder)
        path.write_bytes(content)
        read_model(folder)

    @pytest.mark.parametrize("name", VERIFIED)
    def test_a_missing_or_shortened_file_is_noticed(self, folder: Path, name: str) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        refusal(folder)
        (folder / name).unlink()
        refusal(folder)

    def test_no_folder(self, tmp_path: Path) -> None:
        assert "hirise-imb models" in refusal(tmp_path / "none")

    def test_another_version(self, folder: Path) -> None:
        rewrite(folder, lambda facts: facts.update(format=2))
        assert "format 2" in refusal(folder)

    def test_another_list_of_classes(self, folder: Path) -> None:
        rewrite(folder, lambda facts: facts["classes"].append("dune"))
        assert "8 classes, but 9 names" in refusal(folder)

    @pytest.mark.parametrize(
        "change",
        [
            lambda facts: facts.pop("backbone"),
            lambda facts: facts.update(classes=["a", "a"]),
            lambda facts: facts.update(classes=3),
            lambda facts: facts.update(seeds=[]),
            lambda facts: facts.update(seeds=[0]),
            lambda facts: facts.update(majority="none of them"),
            lambda facts: facts.update(surplus=1),
            lambda facts: facts["features"].update(views=["sideways"]),
            lambda facts: facts["features"].update(trainable="some"),
            lambda facts: facts["features"]["inputs"][0].update(pooling="median"),
            lambda facts: facts["backbone"].update(digest="short"),
        ],
    )
    def test_facts_that_do_not_fit(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        rewrite(folder, change)
        refusal(folder)

    def test_facts_that_are_not_json(self, folder: Path) -> None:
        for text in ("", "[" * 100_000, "{", "\ud83d"):
            (folder / "model.json").write_bytes(text.encode("utf-8", "surrogatepass"))
            sign(folder)
            refusal(folder)

    @pytest.mark.parametrize("name", ["fits.0.heads.0.0.kernel", "fits.1.temperature", "fits.0.heads.1.0.unit"])
    def test_arrays_that_do_not_fit(self, folder: Path, name: str) -> None:
        original = dict(np.load(folder / "weights.npz"))
        for change in ("missing", "renamed", "of text", "not finite", "of another shape"):
            arrays = dict(original)
            array = arrays.pop(name)
            if change == "renamed":
                arrays[f"{name}s"] = array
            elif change == "of text":
                arrays[name] = np.full(array.shape, "text")
            elif change == "not finite":
                arrays[name] = np.full(array.shape, np.nan)
            elif change == "of another shape":
                arrays[name] = np.concatenate([np.atleast_1d(array)] * 2)
            np.savez(folder / "weights.npz", **arrays)
            sign(folder)
            refusal(folder)

    def test_no_pickle_is_executed(self, folder: Path, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "executed",)

        with zipfile.ZipFile(folder / "weights.npz", "a") as archive:
            archive.writestr("fits.0.extra.npy", pickle.dumps(Harm()))
        sign(folder)
        refusal(folder)
        assert not (tmp_path / "executed").exists()


class TestBackbone:
    def test_other_weights(self, folder: Path, toy: str) -> None:
        model = read_model(folder)
        with pytest.raises(UserError, match="other weights") as refused:
            Predictor.load(model, "imagenet")
        assert "--weights" in str(refused.value)
        Predictor.load(model)

    def test_a_backbone_that_this_version_does_not_have(self, folder: Path) -> None:
        with pytest.raises(UserError, match="backbone toy"):
            Predictor.load(read_model(folder))

    def test_another_preprocessing(self, folder: Path, backbone: Backbone) -> None:
        rewrite(folder, lambda facts: facts["backbone"].update(preprocessing="x / 255"))
        with pytest.raises(UserError, match="preprocessing"):
            Predictor(read_model(folder), backbone)

    def test_another_precision(self, folder: Path, toy: str) -> None:
        rewrite(folder, lambda facts: facts["backbone"].update(precision="bfloat16"))
        with pytest.raises(UserError, match="precision"):
            Predictor(read_model(folder), TOY.load("random", (227, 227, 1)))

    @pytest.mark.parametrize(
        "spec",
        [
            FeatureSpec((Input(layer="none"),), ("plain",), "top", "all"),
            FeatureSpec((Input(),), ("plain",), "none", "all"),
            FeatureSpec((Input(layer="early"),), ("plain",), "top", "all"),
            FeatureSpec((Input(),), ("plain",), "late", "all"),
        ],
        ids=["unknown layer", "unknown cut", "other width", "no tail"],
    )
    def test_layers_that_do_not_fit(self, backbone: Backbone, tmp_path: Path, spec: FeatureSpec) -> None:
        save_fits(tmp_path / "model", backbone, [make_fit(0)], spec)
        with pytest.raises(UserError, match="backbone toy"):
            Predictor(read_model(tmp_path / "model"), backbone)


def test_the_command_line_refuses_with_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    (report / "models").mkdir(parents=True)
    (report / "summary.json").write_text("{}", encoding="utf-8")
    assert main(["models", str(report)]) == 2
    shutil.copytree(folder, report / "models" / "arm")
    assert main(["models", str(report)]) == 0
    (report / "models" / "arm" / "weights.npz").write_bytes(b"damaged")
    capsys.readouterr()
    assert main(["models", str(report)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert message.count("\n") == 1
