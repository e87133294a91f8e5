"""The queue of a file of predictions: which rows it uses, where it finds images, and what they resemble."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import IMAGE_FOLDER, names
from review_files import (
    CLASSES,
    encode_noise,
    image_names,
    make_review,
    write_images,
    write_predictions,
)

from hirise_imb.backbones import Backbone
from hirise_imb.data import SPLITS
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.load import load_data
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.features.extraction import extract_features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.features.neighbours import pooled_features
from hirise_imb.review import Review, build_review, write_review
from hirise_imb.review.images import read_images
from hirise_imb.review.queue import TrainingData
from hirise_imb.utils.errors import UserError


def review_of(predictions: Path, images: Path, backbone: Backbone, data: Path | None = None) -> Review:
    training = (
        None if data is None else TrainingData("base", read_manifest(data, HIRISE), ("train", "val"), is_of_model=True)
    )
    return build_review(predictions, [str(images)], backbone, training, 40, 3)


def test_every_image_is_proposed_once_and_for_no_majority_class(tmp_path: Path, backbone: Backbone) -> None:
    review = make_review(tmp_path, backbone)
    assert sorted(one.id.rsplit("/", 1)[-1] for one in review.proposals) == image_names()
    assert {one.label for one in review.proposals} == set(CLASSES.rare_ids)
    assert [one.label for one in review.proposals] == sorted(one.label for one in review.proposals)


def test_the_same_predictions_give_the_same_queue(tmp_path: Path, backbone: Backbone) -> None:
    one, other = (make_review(tmp_path / name, backbone) for name in "ab")
    short = make_review(tmp_path / "c", backbone, per_class=1)
    assert one.digest != other.digest  # the ids are paths, which differ
    assert one.digest == review_of(tmp_path / "a" / "p.parquet", tmp_path / "a" / "new", backbone).digest
    assert len(short.proposals) == len(CLASSES.rare_ids)


def test_images_without_a_prediction_are_counted_and_left_out(tmp_path: Path, backbone: Backbone) -> None:
    ids = image_names(3)
    images = write_images(tmp_path / "new", ids)
    predictions = write_predictions(tmp_path / "p.parquet", ids, errors=[None, "is empty", None])
    review = review_of(predictions, images, backbone)
    assert (review.images, review.errors) == (2, 1)
    assert ids[1] not in {one.id for one in review.proposals}


def test_images_of_unknown_source_are_sources_of_their_own(tmp_path: Path, backbone: Backbone) -> None:
    ids = [f"photo-{k}.jpg" for k in range(5)]
    images = write_images(tmp_path / "new", ids)
    p = np.tile(np.eye(len(CLASSES))[1] * 0.92 + 0.01, (5, 1))
    predictions = write_predictions(tmp_path / "p.parquet", ids, p, sources=[None] * 5)
    review = build_review(predictions, [str(images)], backbone, None, 40, 1)
    assert [one.label for one in review.proposals] == [1] * 5
    assert {one.source for one in review.proposals} == {""}


def test_equal_images_are_shown_once(tmp_path: Path, backbone: Backbone) -> None:
    ids = image_names(4)
    images = write_images(tmp_path / "new", ids)
    shutil.copyfile(images / ids[0], images / ids[3])
    review = review_of(write_predictions(tmp_path / "p.parquet", ids), images, backbone)
    assert sorted(one.id for one in review.proposals) == ids[:3]


def test_variants_of_a_landmark_are_shown_once(tmp_path: Path, backbone: Backbone) -> None:
    ids = [*image_names(2), image_names(1)[0].replace(".jpg", "-fv.jpg")]
    images = write_images(tmp_path / "new", ids)
    review = review_of(write_predictions(tmp_path / "p.parquet", ids), images, backbone)
    assert sorted(one.id for one in review.proposals) == ids[:2]


def test_images_of_the_training_data_are_left_out(tmp_path: Path, backbone: Backbone, small_data: Path) -> None:
    known = read_manifest(small_data, HIRISE)
    old = known.table["image"].iloc[0]
    images = write_images(tmp_path / "new", image_names(2))
    shutil.copyfile(known.path(old), images / old)
    predictions = write_predictions(tmp_path / "p.parquet", [*image_names(2), old])
    review = review_of(predictions, images, backbone, small_data)
    assert (review.labelled, len(review.proposals)) == (1, 2)
    alone = write_predictions(tmp_path / "q.parquet", [old])
    with pytest.raises(UserError, match="is in the training data already"):
        review_of(alone, images, backbone, small_data)


def write_table(folder: Path, places: Sequence[str]) -> Manifest:
    """An annotation table whose images are at these places, of all classes and splits."""
    rows = [(place, CLASSES[k % len(CLASSES)], SPLITS[k // len(CLASSES)]) for k, place in enumerate(places)]
    for seed, place in enumerate(places):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(encode_noise(100 + seed))
    table = pd.DataFrame(rows, columns=["file", "label", "split"])
    table.to_csv(folder / "table.csv", index=False)
    return load_data(str(folder / "table.csv"), HIRISE)


def test_without_a_grammar_images_of_the_training_data_are_known_by_their_paths(
    tmp_path: Path, backbone: Backbone
) -> None:
    base = write_table(tmp_path / "base", [f"first/{k:04}.jpg" for k in range(3 * len(CLASSES))])
    training = TrainingData("base", base, ("train", "val"), is_of_model=True)
    write_images(tmp_path / "new" / "first", ["0001.jpg"])
    write_images(tmp_path / "new" / "second", ["0001.jpg", "0002.jpg"])
    write_images(tmp_path / "new" / "at-first", ["0001.jpg"])
    ids = [f"new/{name}" for name in ("first/0001.jpg", "second/0001.jpg", "second/0002.jpg", "at-first/0001.jpg")]
    ids.append("first/0000.jpg")
    predictions = write_predictions(tmp_path / "p.parquet", ids)
    review = build_review(predictions, [str(tmp_path / "new")], backbone, training, 40, 3)
    assert (review.labelled, review.images) == (2, 3)
    assert not any("/first/" in one.id for one in review.proposals)


def test_names_in_a_grammar_are_known_in_any_folder(tmp_path: Path, backbone: Backbone, small_data: Path) -> None:
    base = read_manifest(small_data, HIRISE)
    nested = replace(base, folder=small_data, table=base.table.assign(image=f"{IMAGE_FOLDER}/" + base.table["image"]))
    training = TrainingData("base", nested, ("train", "val"), is_of_model=True)
    images = write_images(tmp_path / "new", image_names(2))
    ids = [*image_names(2), f"elsewhere/{base.table['image'].iloc[0]}"]
    predictions = write_predictions(tmp_path / "p.parquet", ids)
    assert build_review(predictions, [str(images)], backbone, training, 40, 3).labelled == 1


def test_the_neighbours_are_the_nearest_training_landmarks_of_the_class(
    tmp_path: Path, backbone: Backbone, small_data: Path, cache: Path
) -> None:
    manifest = read_manifest(small_data, HIRISE)
    landmarks = pd.concat([manifest.canonical_images(split) for split in ("train", "val")])
    paths = [manifest.path(image) for image in landmarks["image"]]
    features = extract_features(backbone, [TOP_MEAN], paths, cache)[TOP_MEAN].take(np.arange(len(paths)))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for one in make_review(tmp_path, backbone, small_data).proposals:
        own = pooled_features(backbone, [one.pixels])[0]
        similarity = pd.Series(unit @ (own / np.linalg.norm(own)), index=landmarks["image"])
        of_class = landmarks[landmarks["label"] == one.label].set_index("image")["source"]
        best = similarity[of_class.index].groupby(of_class).max().sort_values(ascending=False)
        shown = one.neighbours
        assert 1 <= len(shown) <= 3
        expected = best.iloc[: len(shown)]
        first_of_each = shown[: of_class.nunique()]
        assert [neighbour.source for neighbour in first_of_each] == expected.index.tolist()[: len(first_of_each)]
        assert [n.similarity for n in first_of_each] == pytest.approx(expected.tolist()[: len(first_of_each)], abs=1e-5)
        assert all(np.array_equal(n.pixels, decode_image(manifest.path(n.image), HIRISE.image_shape)) for n in shown)


def test_features_of_pixels_are_those_of_the_cache(backbone: Backbone, small_data: Path, cache: Path) -> None:
    manifest = read_manifest(small_data, HIRISE)
    paths = [manifest.path(image) for image in manifest.table["image"][:40]]
    cached = extract_features(backbone, [TOP_MEAN], paths, cache)[TOP_MEAN].take(np.arange(40))
    computed = pooled_features(backbone, [decode_image(path, HIRISE.image_shape) for path in paths])
    np.testing.assert_allclose(computed, cached, rtol=1e-5, atol=1e-6)


def test_missing_and_broken_images_are_named(tmp_path: Path, backbone: Backbone) -> None:
    ids = image_names(3)
    images = write_images(tmp_path / "new", ids)
    (images / ids[0]).unlink()
    (images / ids[1]).write_bytes(encode_noise(1, size=64))
    predictions = write_predictions(tmp_path / "p.parquet", ids)
    with pytest.raises(UserError, match="2 of 3 images") as caught:
        review_of(predictions, images, backbone)
    assert f"{ids[0]} is missing" in str(caught.value)
    assert f"{ids[1]} is a 64 x 64 image" in str(caught.value)


def test_images_that_moved_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / "moved" / folder).mkdir(parents=True)
        (tmp_path / "moved" / folder / "x.jpg").write_bytes(encode_noise(seed))
    found = read_images(["before/a/x.jpg", "before/b/x.jpg", "y.jpg"], [str(tmp_path / "moved")])
    assert found == {"before/a/x.jpg": encode_noise(1), "before/b/x.jpg": encode_noise(2)}


def test_the_image_at_the_very_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, seed in (("a", 1), ("b/a", 2)):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "x.jpg").write_bytes(encode_noise(seed))
    assert read_images(["a/x.jpg"], ["b", "a"]) == {"a/x.jpg": encode_noise(1)}


def test_two_images_that_fit_equally_well_are_refused_unless_they_are_equal(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(encode_noise(seed))
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(UserError, match=r"can't be told from others.*\n  x.jpg: .*a/x.jpg, .*b/x.jpg"):
        read_images(["x.jpg"], places)
    (tmp_path / "b" / "x.jpg").write_bytes(encode_noise(1))
    assert read_images(["x.jpg"], places) == {"x.jpg": encode_noise(1)}


def test_images_are_found_in_zips_and_tables(tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside/x.jpg", encode_noise(1))
    rows = pd.DataFrame({"id": ["row 1", "row 2"], "image": [encode_noise(2), encode_noise(3)]})
    rows.to_parquet(tmp_path / "table.parquet")
    places = [str(archive), str(tmp_path / "table.parquet")]
    assert read_images([f"{archive}/inside/x.jpg", "row 2"], places) == {
        f"{archive}/inside/x.jpg": encode_noise(1),
        "row 2": encode_noise(3),
    }


def test_the_page_comes_with_a_table_of_the_queue(tmp_path: Path, backbone: Backbone) -> None:
    review = make_review(tmp_path, backbone)
    page = write_review(review, tmp_path / "reports" / "review")
    assert names(page.parent) == ["queue.csv", "review.html"]
    table = pd.read_csv(page.parent / "queue.csv")
    assert table["id"].tolist() == [one.id for one in review.proposals]
    assert table["candidate_for"].tolist() == [CLASSES[one.label] for one in review.proposals]
