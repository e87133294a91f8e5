"""Stored fits: damaged, left unfinished, or written by an earlier version."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hirise_imb.metrics.classification import Predictions
from hirise_imb.recipe import Recipe
from hirise_imb.training.run_store import RunStore
from hirise_imb.training.trainer import CrossValidation, Run


class Fits:
    """Makes runs and counts them."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def fit(self, seeds: Sequence[int]) -> list[Run]:
        self.seeds += seeds
        return [make_run(seed) for seed in seeds]


def make_run(seed: int) -> Run:
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [0.5, 0.25 + seed]})
    probabilities = np.full((2, 4), 0.25, np.float32)
    return Run(seed, history, 2, Predictions(("a.jpg", "b.jpg"), probabilities), 1.5, ("few landmarks",), 0.1)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path, {"data": "abc"})


@pytest.fixture
def fits() -> Fits:
    return Fits()


def load(store: RunStore, fits: Fits) -> list[Run]:
    runs = store.load_or_fit("final", Recipe(), [0, 1], fits.fit)
    for seed, run in enumerate(runs):
        pd.testing.assert_frame_equal(run.history, make_run(seed).history)
        assert run.test.images == ("a.jpg", "b.jpg")
        assert run.notes == ("few landmarks",)
    return runs


def test_a_damaged_fit_is_named_repeated_and_counted_once(
    store: RunStore, fits: Fits, caplog: pytest.LogCaptureFixture
) -> None:
    load(store, fits)
    first, second = sorted(store.folder.iterdir())
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    assert store.test_accesses()["predictions"] == 1
    assert store.test_accesses()["unreadable"] == 1
    before = second.read_bytes()
    with caplog.at_level(logging.WARNING, "hirise_imb"):
        load(store, fits)
    assert len(fits.seeds) == 3
    assert caplog.messages == [f"The stored fit {first} is damaged (its digest is another one); it is repeated."]
    assert second.read_bytes() == before
    assert store.test_accesses()["predictions"] == 2
    assert "unreadable" not in store.test_accesses()


def test_a_fit_without_its_digest_is_damaged(store: RunStore, fits: Fits) -> None:
    load(store, fits)
    first, _ = sorted(store.folder.iterdir())
    first.write_bytes(first.read_bytes()[:-64])  # a whole zip, but for the comment that it announces
    load(store, fits)
    assert len(fits.seeds) == 3


def test_the_file_of_another_fit_is_damage(store: RunStore, fits: Fits) -> None:
    load(store, fits)
    first, second = sorted(store.folder.iterdir())
    shutil.copy(first, second)
    load(store, fits)
    assert len(fits.seeds) == 3


def test_a_damaged_cross_validation_is_repeated(store: RunStore, caplog: pytest.LogCaptureFixture) -> None:
    history = pd.DataFrame({"epoch": [1]})
    logs, confusions = np.zeros((1, 2, 4), np.float32), np.eye(4, dtype=np.int64)[None]
    validation = CrossValidation((0,), (7,), False, history, logs, (1.0,), confusions, 0.5, (), 0.1)
    store.load_or_validate(Recipe(), [0], lambda: validation)
    (path,) = store.folder.iterdir()
    path.write_bytes(b"garbage")
    assert store.load_or_validate(Recipe(), [0], lambda: validation).epochs == (7,)
    assert f"{path} is damaged" in caplog.text
    assert store.load_or_validate(Recipe(), [0], pytest.fail).score == 0.5


def test_files_of_killed_processes_are_no_fits(store: RunStore, fits: Fits) -> None:
    load(store, fits)
    accesses = store.test_accesses()
    path = sorted(store.folder.iterdir())[0]
    shutil.copy(path, path.with_name(f".{path.stem}.123.part.npz"))
    path.with_name(".0123456789abcdef.9.part.npz").write_bytes(b"PK")
    assert store.test_accesses() == accesses


def test_fits_of_earlier_versions_are_read(store: RunStore, fits: Fits) -> None:
    """They have no digest at their end."""
    load(store, fits)
    for path in store.folder.iterdir():
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        np.savez(path, allow_pickle=False, **arrays)
        with zipfile.ZipFile(path) as archive:
            assert archive.comment == b""
    load(store, fits)
    assert fits.seeds == [0, 1]
    path.write_bytes(path.read_bytes()[:200])
    load(store, fits)
    assert len(fits.seeds) == 3


def test_pickled_objects_are_not_read(store: RunStore, fits: Fits) -> None:
    load(store, fits)
    path = sorted(store.folder.iterdir())[0]
    np.savez(path, seed=np.array([print], dtype=object))
    load(store, fits)
    assert len(fits.seeds) == 3
