"""The given split and the folds of a data set, as row numbers of its images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from builders import MINERALS, write_data

from hirise_imb.data import splits
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.data.splits import make_outer_split, make_outer_splits, make_splits
from hirise_imb.utils.errors import UserError


@pytest.fixture(scope="module")
def images(small_data: Path) -> Manifest:
    return read_manifest(small_data, HIRISE)


def test_the_task_is_the_table_row_by_row(images: Manifest) -> None:
    task, table = make_splits(images, 2), images.table
    assert task.images.names == tuple(table["image"])
    np.testing.assert_array_equal(task.images.labels, table["label"])
    np.testing.assert_array_equal(task.images.copies, table["copies"])
    same = table["source"].to_numpy()[:, None] == table["source"].to_numpy()[None, :]
    np.testing.assert_array_equal(task.images.sources[:, None] == task.images.sources[None, :], same)


def test_every_image_is_learnt_from_and_one_of_a_landmark_is_scored(images: Manifest) -> None:
    task, table = make_splits(images, 2), images.table
    np.testing.assert_array_equal(task.split.train, np.flatnonzero(table["split"] == "train"))
    for split, rows in (("val", task.split.heldout), ("test", task.test)):
        own = table.iloc[rows]
        assert set(own["split"]) == {split}
        assert sorted(own["landmark"]) == sorted(set(table.loc[table["split"] == split, "landmark"]))
    canonical = table[task.images.is_canonical]
    assert sorted(canonical["landmark"]) == sorted(set(table["landmark"]))
    originals = set(table.loc[table["variant"] == "", "landmark"])
    assert set(canonical.loc[canonical["variant"] != "", "landmark"]).isdisjoint(originals)


def test_folds_divide_the_landmarks_of_training_and_validation_by_source(images: Manifest) -> None:
    task, table = make_splits(images, 3), images.table
    pool = set(np.flatnonzero(table["split"] != "test").tolist())
    assert task.pool.tolist() == sorted(pool)
    canonical = pool & set(np.flatnonzero(task.images.is_canonical).tolist())
    assert task.landmarks.tolist() == sorted(canonical)
    assert len(task.assignments) == 3
    for folds in task.assignments:
        held = np.concatenate([fold.heldout for fold in folds])
        assert sorted(held.tolist()) == sorted(canonical)
        for fold in folds:
            sources = set(table["source"].iloc[fold.heldout])
            others = set(table["source"].iloc[fold.train])
            assert not sources & others
            left_out = pool - set(fold.train.tolist())
            assert {table["source"][row] for row in left_out} == sources


def test_assignments_differ_and_do_not_depend_on_their_number(images: Manifest) -> None:
    def groups(number: int) -> list[frozenset[frozenset[int]]]:
        task = make_splits(images, number)
        return [frozenset(frozenset(fold.heldout.tolist()) for fold in folds) for folds in task.assignments]

    three = groups(3)
    assert len(set(three)) == 3
    assert groups(1) == three[:1]
    assert groups(2) == three[:2]


def test_a_landmark_has_its_position_in_the_pool(images: Manifest) -> None:
    task = make_splits(images, 2)
    rows = np.random.default_rng(0).permutation(task.landmarks)[:20]
    np.testing.assert_array_equal(task.landmarks[task.landmark_positions(rows)], rows)
    for folds in task.assignments:
        positions = np.concatenate([task.landmark_positions(fold.heldout) for fold in folds])
        assert sorted(positions.tolist()) == list(range(len(task.landmarks)))


def test_what_the_folds_lack_is_told(images: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    table = images.table.copy()
    rare = table["label"] == 7
    table.loc[rare, "source"] = "ESP_000009_1000"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "say", said.append)
        make_splits(dataclasses.replace(images, table=table), 3)
    assert len(said) == 1
    assert "Not every fold of the cross-validation contains " in said[0]
    assert "(1 source)" in said[0]


def test_sources_of_a_column_divide_the_data_too(tmp_path: Path) -> None:
    lines = [
        f"{split}{n}.jpg {n % 3} {split} {split}-{n // 3}" for split in ("train", "val", "test") for n in range(12)
    ]
    task = make_splits(read_manifest(write_data(tmp_path, lines, spec=MINERALS), MINERALS), 2)
    assert task.images.classes is MINERALS.classes
    assert task.images.is_canonical.all()  # every image is a landmark of its own
    names = np.array(task.images.names)
    assert sorted(names[task.split.heldout]) == sorted(f"val{n}.jpg" for n in range(12))
    assert len(set(task.images.sources.tolist())) == 12
    for folds in task.assignments:
        for fold in folds:
            assert not set(task.images.sources[fold.train]) & set(task.images.sources[fold.heldout])
    assert task.images.pool(task.split.train).counts().tolist() == [4, 4, 4]


# --- outer folds ---


def test_each_landmark_is_in_one_outer_fold_with_its_source(images: Manifest) -> None:
    table = images.table
    for repeat in range(2):
        outer = make_outer_splits(images, 3, repeat, 2)
        assert len(outer) == 3
        tested = np.concatenate([fold.test for fold in outer])
        assert sorted(tested.tolist()) == np.flatnonzero(outer[0].images.is_canonical).tolist()
        for fold in outer:
            sources = set(table["source"].iloc[fold.test])
            # All images of all other sources, whatever their split, and none of the fold's.
            assert fold.pool.tolist() == np.flatnonzero(~table["source"].isin(sources)).tolist()
            assert len(fold.assignments) == 2
            for folds in fold.assignments:
                held = np.concatenate([inner.heldout for inner in folds])
                assert sorted(held.tolist()) == fold.landmarks.tolist()
                assert all(set(inner.train.tolist()) <= set(fold.pool.tolist()) for inner in folds)
            assert fold.split is fold.assignments[0][0]


def test_outer_folds_have_every_class_that_their_sources_allow(images: Manifest) -> None:
    for repeat in range(3):
        outer = make_outer_splits(images, 3, repeat, 1)
        labels, sources = outer[0].images.labels, outer[0].images.sources
        canonical = np.flatnonzero(outer[0].images.is_canonical)
        for label in np.unique(labels):
            n_sources = len(np.unique(sources[canonical[labels[canonical] == label]]))
            n_folds = sum(label in labels[fold.test] for fold in outer)
            assert n_folds == min(3, n_sources)


def test_repeats_divide_the_sources_otherwise(images: Manifest) -> None:
    def folds(repeat: int) -> set[frozenset[int]]:
        return {frozenset(fold.test.tolist()) for fold in make_outer_splits(images, 3, repeat, 1)}

    assert folds(0) == folds(0)
    assert folds(0) != folds(1)


def test_inner_folds_do_not_depend_on_labels_of_the_outer_fold(images: Manifest) -> None:
    first = make_outer_splits(images, 3, 0, 2)[0]
    labels = first.images.labels.copy()
    labels[np.isin(first.images.sources, first.images.sources[first.test])] = 0
    other = make_outer_split(dataclasses.replace(first.images, labels=labels), first.test, 2)
    np.testing.assert_array_equal(other.pool, first.pool)
    for one, two in zip(first.assignments, other.assignments, strict=True):
        for mine, theirs in zip(one, two, strict=True):
            np.testing.assert_array_equal(mine.train, theirs.train)
            np.testing.assert_array_equal(mine.heldout, theirs.heldout)


def test_too_few_sources_for_the_outer_folds_are_a_sentence(images: Manifest) -> None:
    n = images.table["source"].nunique()
    with pytest.raises(UserError, match=f"^The landmarks have {n} sources, too few for {n + 1} outer folds: "):
        make_outer_splits(images, n + 1, 0, 1)
