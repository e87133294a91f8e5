"""Small things to run the package on: a data folder, features and trainers for the toy task of `hirise_imb.testing`."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cut_features import cut_key

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data import manifest
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.recipe import Recipe
from hirise_imb.search import connect, lock_study
from hirise_imb.search.database import Storage
from hirise_imb.testing.toy import LATE, SIZES, TOY, WIDTH, make_task
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.learners import EvaluationSet, FoldData
from hirise_imb.training.tail_network import Network
from hirise_imb.training.trainer import CrossValidation, Run, Trainer

__all__ = ["LATE", "SIZES", "TOY", "WIDTH", "make_task"]


def small_copy(whole: Path, folder: Path, most: int, *, of_source: int | None = None) -> Path:
    """The official files of `whole` with at most `most` landmarks of each class and split, one source each at least.

    With `of_source`, at most so many of them are from one source.
    """
    table = manifest.read_manifest(whole, HIRISE).table
    landmarks = table.drop_duplicates("landmark")
    if of_source is not None:
        landmarks = landmarks.groupby(["split", "label", "source"]).head(of_source)
    few = landmarks.groupby(["split", "label"]).head(most)["landmark"]
    kept = set(table.loc[table["landmark"].isin(set(few)), "image"])
    layout = HIRISE.layout
    (folder / layout.image_folder).mkdir(parents=True)
    for image in kept:
        shutil.copyfile(whole / layout.image_folder / image, folder / layout.image_folder / image)
    for name in (layout.label_file, layout.split_file):
        lines = (whole / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(line for line in lines if line.split()[0] in kept), encoding="utf-8")
    shutil.copyfile(whole / layout.class_file, folder / layout.class_file)
    return folder


def change_split_file(data: Path, old: str, new: str) -> None:
    """Replace the first `old` of the split file."""
    path = data / HIRISE.layout.split_file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def make_features(task: DataSplits, cut: str = TOP, *, noise: float = 1.0, seed: int = 0) -> Features:
    """Of all images of a task: eight noisy clusters, in the shape that the toy backbone has at the cut."""
    rng = np.random.default_rng(seed)
    shape = {TOP: (WIDTH,), "late": LATE}[cut]
    centres = rng.normal(size=(len(HIRISE.classes), *shape))
    values = centres[task.images.labels] + noise * rng.normal(size=(len(task.images.labels), *shape))
    return Features.of((values if cut == TOP else np.abs(values)).astype(np.float32))


_NETWORKS: dict[int, tuple[Backbone, dict[str, Network]]] = {}


def make_trainer(backbone: Backbone, task: DataSplits, *cuts: str, fresh: bool = False) -> Trainer:
    """A trainer on the plain features at these cuts, `top` among them.

    What networks have compiled is shared by all trainers that are not `fresh`: it takes most of a test's time.
    """
    return quick_start(Trainer(backbone, task, {cut_key(cut): make_features(task, cut) for cut in (TOP, *cuts)}), fresh)


def quick_start(trainer: Trainer, fresh: bool = False) -> Trainer:
    """The trainer, with the networks that others have compiled."""
    if not fresh:
        backbone = trainer._stages._backbone
        assert backbone is not None
        trainer._stages.networks = _NETWORKS.setdefault(id(backbone), (backbone, {}))[1]
    return trainer


def make_fold_data(task: DataSplits, fold: Fold, features: Features | None = None) -> FoldData:
    """Training and held-out data of a fold; features at the cut `top` unless others are given."""
    features = make_features(task) if features is None else features
    landmarks = task.images.canonical(fold.train)
    labels, sources = task.images.labels[landmarks], task.images.sources[landmarks]
    pairs = {(int(y), int(s)) for y, s in zip(labels, sources, strict=True)}
    return FoldData(
        features.select(fold.train),
        task.images.pool(fold.train),
        np.array([(labels == k).sum() for k in range(len(task.images.classes))]),
        np.array([sum(y == k for y, _ in pairs) for k in range(len(task.images.classes))]),
        EvaluationSet(features.select(fold.heldout), task.images.labels[fold.heldout]),
    )


def fit_final(trainer: Trainer, recipe: Recipe, seed: int = 0, seeds: Sequence[int] = (0, 1)) -> Run:
    """A final fit after a cross-validation with some seeds, of which each has an assignment of its own."""
    return trainer.fit_final(recipe, seed, trainer.cross_validate(recipe, seeds))


def probabilities_of(run: Run) -> np.ndarray:
    """Probabilities of the test split, shape (n_test, n_classes)."""
    return run.test.probabilities


def replace_labels(task: DataSplits, rows: np.ndarray, labels: np.ndarray) -> DataSplits:
    """The same task with other labels in some rows."""
    new = task.images.labels.copy()
    new[rows] = labels
    return dataclasses.replace(task, images=dataclasses.replace(task.images, labels=new))


def shift_validation_labels(task: DataSplits) -> DataSplits:
    """Validation labels are those of the next class: the better the fit, the worse the validation loss."""
    return replace_labels(task, task.split.heldout, (task.images.labels[task.split.heldout] + 1) % len(HIRISE.classes))


@contextmanager
def storage(path: Path) -> Iterator[Storage]:
    """A study's database, locked as a run locks it."""
    with lock_study(path):
        yield connect(path)


def count_work(monkeypatch: pytest.MonkeyPatch, name_fit: Callable[[Recipe], str]) -> Counter[str]:
    """Counts, from now on, decoded images, trials, other cross-validations, and fits by the name of their recipe.

    Args:
        name_fit: the name under which a fit of a recipe is counted.
    """
    counts: Counter[str] = Counter()
    cross_validate, fit_finals, fit_reference = Trainer.cross_validate, Trainer.fit_finals, Trainer.fit_reference

    def count_decoded(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        counts["decoded"] += 1
        return decode_image(path, shape)

    def count_validations(
        self: Trainer,
        recipe: Recipe,
        seeds: Sequence[int],
        on_epoch: OnEpoch | None = None,
        first_assignment: int = 0,
    ) -> CrossValidation:
        counts["trial" if on_epoch else "validation"] += 1
        return cross_validate(self, recipe, seeds, on_epoch, first_assignment)

    def count_finals(self: Trainer, recipe: Recipe, seeds: Sequence[int], validation: CrossValidation) -> list[Run]:
        counts[name_fit(recipe)] += len(seeds)
        return fit_finals(self, recipe, seeds, validation)

    def count_reference(self: Trainer, recipe: Recipe, seed: int) -> Run:
        counts[name_fit(recipe)] += 1
        return fit_reference(self, recipe, seed)

    monkeypatch.setattr("hirise_imb.features.extraction.decode_image", count_decoded)
    monkeypatch.setattr(Trainer, "cross_validate", count_validations)
    monkeypatch.setattr(Trainer, "fit_finals", count_finals)
    monkeypatch.setattr(Trainer, "fit_reference", count_reference)
    return counts
