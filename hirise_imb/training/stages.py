"""Fits: the stages of a recipe up to its logits, each done once for all recipes that have it in common."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.hirise import CLASSES
from hirise_imb.data.splits import DataSplits, Fold, Selection
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.imbalance.sampling import Pool
from hirise_imb.models.closed_form import Classifier
from hirise_imb.models.projection import without
from hirise_imb.recipe import Cosine, Inputs, Linear, Recipe
from hirise_imb.training import epoch_loop
from hirise_imb.training.epoch_loop import (
    HEADS_PER_BATCH,
    EvaluationSet,
    Failed,
    FoldData,
    Job,
    OnEpoch,
    Snapshot,
    TrainingResult,
    batch_key,
)
from hirise_imb.training.train_step import Network
from hirise_imb.utils.errors import NotApplicable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_KEPT = 12
"""Fits kept for recipes that share them."""


class Model(Protocol):
    """Gives logits."""

    def logits(self, features: Features) -> Floats:
        """Shape (n, 8)."""
        ...


@dataclass(frozen=True)
class PooledModel:
    """A classifier on pooled features of a frozen backbone."""

    classifier: Classifier

    def logits(self, features: Features) -> Floats:
        """Shape (n, 8)."""
        return self.classifier.logits(features.take(np.arange(len(features))))


@dataclass(frozen=True)
class TailModel:
    """A classifier on what a trained end of the backbone makes of features."""

    end: Snapshot
    classifier: Classifier

    def logits(self, features: Features) -> Floats:
        """Shape (n, 8)."""
        return self.classifier.logits(self.end.network.pooled(self.end.state, features))


@dataclass(frozen=True)
class StageFit:
    """One head of a recipe, fitted on each fold, and what there is to tell."""

    models: tuple[Model, ...]
    """By fold."""
    priors: tuple[Floats, ...]
    """By fold: the shares of classes, shape (8,), under which logits were learnt."""
    history: pd.DataFrame
    best_epoch: int
    cut_short: bool
    seconds: float
    ends: tuple[Snapshot, ...] = ()
    """By fold, of a recipe that goes through epochs."""


@dataclass(frozen=True)
class FitRequest:
    """A fit to be made; `test` records the test split in its history."""

    recipe: Recipe
    seed: int
    selection: Selection
    test: bool
    on_epoch: OnEpoch | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What its fit depends on."""
        return self.recipe, self.seed, self.selection, self.test


class StageRunner:
    """Makes fits on one data set. Networks and the last fits are kept."""

    def __init__(self, backbone: Backbone, task: DataSplits, features: Mapping[tuple[str, str], Features]) -> None:
        """Take the data and its features, as `training.Trainer` does."""
        self._backbone = backbone
        self.task = task
        self._features = dict(features)
        self.networks: dict[tuple[str, int], Network] = {}
        self.kept: OrderedDict[tuple[object, ...], StageFit | Failed] = OrderedDict()

    def of(self, requests: Sequence[FitRequest]) -> list[StageFit | Failed]:
        """The fit of each request, made or kept; those that can train together do."""
        made: dict[int, StageFit | Failed] = {}
        groups: dict[object, list[int]] = {}
        first: dict[object, int] = {}
        for place, request in enumerate(requests):
            # A run that is watched is made anew, so that it ends where it would have ended without the others.
            if request.on_epoch is None and request.key in self.kept:
                self.kept.move_to_end(request.key)
                made[place] = self.kept[request.key]
            elif request.on_epoch is None and first.setdefault(request.key, place) != place:
                continue
            elif request.recipe.trained and request.recipe.cut == TOP:
                groups.setdefault(_together(request), []).append(place)
            else:
                groups.setdefault(place, []).append(place)
        for places in groups.values():
            for start in range(0, len(places), HEADS_PER_BATCH):
                some = places[start : start + HEADS_PER_BATCH]
                asked = [requests[place] for place in some]
                try:
                    found = self._pass(asked)
                except NotApplicable as error:
                    found = [Failed(str(error))] * len(asked)
                for place, fit in zip(some, found, strict=True):
                    made[place] = self._keep(requests[place], fit)
        return [made[place if place in made else first[request.key]] for place, request in enumerate(requests)]

    def _keep(self, request: FitRequest, fit: StageFit | Failed) -> StageFit | Failed:
        """Keep a whole fit; one that was cut short is nothing another recipe could build on."""
        if isinstance(fit, Failed) or not fit.cut_short:
            kept = replace(fit, seconds=0.0) if isinstance(fit, StageFit) else fit
            self.kept[request.key] = kept
            while len(self.kept) > _KEPT:
                self.kept.popitem(last=False)
        return fit

    def _pass(self, requests: Sequence[FitRequest]) -> list[StageFit | Failed]:
        """Requests that train together: heads on features of the frozen backbone, or one that goes below."""
        first = requests[0].recipe
        if not first.trained:
            return [self._computed(requests[0])]
        if first.retraining is not None:
            return [self._retrained(requests[0])]
        if first.cut != TOP:
            return [self._deeper(requests[0])]
        begin = time.monotonic()
        folds = self.task.selection_folds(requests[0].selection)
        lessons = [self._lesson(first, fold, requests[0].seed) for fold in folds]
        test = self._scored(first, self.task.test) if requests[0].test else None
        if test is not None:
            test = replace(test, features=_without(test.features, self._directions(first, folds[0])))
        network = self._network(TOP, lessons[0].features.shape[0])
        jobs = [Job(request.recipe, request.seed, request.on_epoch) for request in requests]
        found = epoch_loop.train_heads(network, jobs, lessons, test)
        seconds = (time.monotonic() - begin) / len(requests)
        return [
            fit if isinstance(fit, Failed) else self._on_top(request, lessons, fit, seconds)
            for request, fit in zip(requests, found, strict=True)
        ]

    def _on_top(
        self, request: FitRequest, lessons: Sequence[FoldData], fit: TrainingResult, seconds: float
    ) -> StageFit:
        """Trained heads as classifiers."""
        folds = self.task.selection_folds(request.selection)
        ends = zip(fit.snapshots, folds, strict=True)
        models = [
            PooledModel(replace(end.classifier(), directions=self._directions(request.recipe, fold)))
            for end, fold in ends
        ]
        priors = _priors(request.recipe, lessons)
        return StageFit(tuple(models), priors, fit.history, fit.best_epoch, fit.cut_short, seconds, fit.snapshots)

    def _computed(self, request: FitRequest) -> StageFit:
        """A head that is computed, on each fold."""
        begin = time.monotonic()
        folds = self.task.selection_folds(request.selection)
        found = [self._direct(request.recipe, fold, request.seed) for fold in folds]
        models, priors = zip(*found, strict=True)
        return StageFit(models, priors, pd.DataFrame(), 0, False, time.monotonic() - begin)

    def _direct(self, recipe: Recipe, fold: Fold, seed: int) -> tuple[Model, Floats]:
        """A head that is computed from one image a landmark, and the prior of its logits."""
        assert not isinstance(recipe.head, Linear | Cosine)
        rows = self._landmarks(fold)
        directions = self._directions(recipe, fold)
        features = _without(self.features(TOP, recipe.inputs).select(rows), directions).take(np.arange(len(rows)))
        labels, sources = self.task.images.labels[rows], self.task.images.sources[rows]
        if recipe.synthesis is not None:
            features, labels = recipe.synthesis.resample(features, labels, seed)
            sources = np.concatenate([sources, np.full(len(labels) - len(sources), -1)])
        prior = recipe.head.prior(np.bincount(labels, minlength=len(CLASSES)))
        return PooledModel(replace(recipe.head.fit(features, labels, sources), directions=directions)), prior

    def _landmarks(self, fold: Fold) -> Ints:
        """The training rows that stand for landmarks."""
        return fold.train[self.task.images.is_canonical[fold.train]]

    def _deeper(self, request: FitRequest) -> StageFit | Failed:
        """The end of the backbone, trained from a head that was trained before it."""
        recipe = request.recipe
        above = replace(recipe, cut=TOP, backbone_learning_rate=_DEFAULT.backbone_learning_rate)
        probe = self.of([replace(request, recipe=above, on_epoch=None)])[0]
        if isinstance(probe, Failed):
            return probe
        begin = time.monotonic()
        lessons = [self._lesson(recipe, fold, request.seed) for fold in self.task.selection_folds(request.selection)]
        test = self._scored(recipe, self.task.test) if request.test else None
        network = self._network(recipe.cut, self._backbone.card.feature_width)
        before = len(probe.history)
        job = Job(recipe, request.seed, _later(request.on_epoch, before))
        fit = epoch_loop.train_heads(network, [job], lessons, test, [end.probe() for end in probe.ends])[0]
        if isinstance(fit, Failed):
            return fit
        models = tuple(TailModel(end, end.classifier()) for end in fit.snapshots)
        # One history: the head's epochs, then those of the backbone's end.
        history = pd.concat([probe.history, fit.history.assign(epoch=fit.history["epoch"] + before)])
        seconds = probe.seconds + time.monotonic() - begin
        best = before + fit.best_epoch
        history = history.reset_index(drop=True)
        return StageFit(models, _priors(recipe, lessons), history, best, fit.cut_short, seconds, fit.snapshots)

    def _retrained(self, request: FitRequest) -> StageFit | Failed:
        """A new head on features of a trained end of the backbone."""
        recipe = request.recipe
        assert recipe.retraining is not None
        base = self.of([replace(request, recipe=replace(recipe, retraining=None), on_epoch=None)])[0]
        if isinstance(base, Failed):
            return base
        begin = time.monotonic()
        folds = self.task.selection_folds(request.selection)
        second = replace(
            Recipe(),
            sampling=recipe.retraining.sampling,
            learning_rate=recipe.retraining.learning_rate,
            weight_decay=recipe.retraining.weight_decay,
            monitor=recipe.monitor,
        )
        lessons = []
        for end, fold in zip(base.ends, folds, strict=True):
            lesson = self._lesson(recipe, fold, request.seed)
            held = replace(lesson.heldout, features=_pooled(end, lesson.heldout.features))
            lessons.append(replace(lesson, features=_pooled(end, lesson.features), heldout=held))
        test = self._scored(recipe, self.task.test) if request.test else None
        if test is not None:
            test = replace(test, features=_pooled(base.ends[0], test.features))
        network = self._network(TOP, self._backbone.card.feature_width)
        fit = epoch_loop.train_heads(network, [Job(second, request.seed, request.on_epoch)], lessons, test)[0]
        if isinstance(fit, Failed):
            return fit
        ends = zip(base.ends, fit.snapshots, strict=True)
        models = tuple(TailModel(end, snapshot.classifier()) for end, snapshot in ends)
        seconds = base.seconds + time.monotonic() - begin
        return StageFit(
            models, _priors(second, lessons), fit.history, fit.best_epoch, fit.cut_short, seconds, base.ends
        )

    # --- what fits are made from ---

    def _lesson(self, recipe: Recipe, fold: Fold, seed: int) -> FoldData:
        images = self.task.images
        features = self.features(recipe.cut, recipe.inputs)
        canonical = self._landmarks(fold)
        pairs = np.unique(np.stack([images.labels[canonical], images.sources[canonical]]), axis=1)
        landmarks = np.bincount(images.labels[canonical], minlength=len(CLASSES))
        directions = self._directions(recipe, fold)
        held = EvaluationSet(_without(features.select(fold.heldout), directions), images.labels[fold.heldout])
        train, pool = _without(features.select(fold.train), directions), images.pool(fold.train)
        if recipe.synthesis is not None:
            one_each = _without(features.select(canonical), directions).take(np.arange(len(canonical)))
            made, labels = recipe.synthesis.resample(one_each, images.labels[canonical], seed)
            none = np.full(len(labels), -1)
            train, pool = Features.of(made), Pool(labels, np.ones_like(labels), none)
        return FoldData(train, pool, landmarks, np.bincount(pairs[0], minlength=len(CLASSES)), held)

    def _scored(self, recipe: Recipe, rows: Ints) -> EvaluationSet:
        return EvaluationSet(self.features(recipe.cut, recipe.inputs).select(rows), self.task.images.labels[rows])

    def features(self, cut: str, inputs: Inputs) -> Features:
        """Features of all images at a cut; those of several views side by side."""
        if len(inputs) == 1:
            return self._features[cut, inputs[0]]
        name = "+".join(inputs)
        if (cut, name) not in self._features:
            self._features[cut, name] = concatenate_features([self._features[cut, view] for view in inputs])
        return self._features[cut, name]

    def _directions(self, recipe: Recipe, fold: Fold) -> NDArray[np.float64] | None:
        """What a recipe takes out of the features, learnt from one image a landmark of the fold."""
        if recipe.projection is None:
            return None
        rows = self._landmarks(fold)
        features = self.features(TOP, recipe.inputs).select(rows).take(np.arange(len(rows)))
        return recipe.projection.directions(features, self.task.images.labels[rows], self.task.images.sources[rows])

    def _network(self, cut: str, width: int) -> Network:
        if (cut, width) not in self.networks:
            self.networks[cut, width] = Network(self._backbone, cut, width)
        return self.networks[cut, width]


_DEFAULT = Recipe()


def _priors(recipe: Recipe, lessons: Sequence[FoldData]) -> tuple[Floats, ...]:
    """By lesson: shares of classes among the rows as sampled, times their weight in the loss.

    What the loss adds to the logits, the logits need not learn.
    """
    priors = []
    for lesson in lessons:
        counts = lesson.counts(recipe.sampling)
        terms = recipe.loss.terms(counts)
        prior = counts.shares * recipe.class_weights.weights(counts) * terms.weights * np.exp(-terms.offsets)
        priors.append(prior / prior.sum())
    return tuple(priors)


def _together(request: FitRequest) -> tuple[object, ...]:
    return request.selection, request.test, batch_key(Job(request.recipe, request.seed))


def _later(on_epoch: OnEpoch | None, before: int) -> OnEpoch | None:
    """Tell of epochs as those after `before` others."""
    if on_epoch is None:
        return None
    return lambda epoch, best: on_epoch(epoch + before, best)


def _without(features: Features, directions: NDArray[np.float64] | None) -> Features:
    """The features with some directions taken out."""
    if directions is None:
        return features
    return Features.of(without(features.take(np.arange(len(features))), directions))


def _pooled(end: Snapshot, features: Features) -> Features:
    return Features.of(end.network.pooled(end.state, features))
