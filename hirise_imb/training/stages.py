"""The stages of a recipe up to its logits, each fitted once for all recipes that have it in common."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.splits import DataSplits, Fold, TrainingPool
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.smote import NO_SOURCE
from hirise_imb.models.projection import project_out
from hirise_imb.recipe import Cosine, Inputs, Linear, Recipe
from hirise_imb.training import epoch_loop
from hirise_imb.training.epoch_loop import (
    HEADS_PER_BATCH,
    EvaluationSet,
    FoldData,
    Job,
    OnEpoch,
    Snapshot,
    TrainingResult,
    batch_key,
)
from hirise_imb.training.outcome import Outcome, attempt
from hirise_imb.training.stage_fit import FitRequest, PooledModel, StageFit, TailModel
from hirise_imb.training.train_step import Network
from hirise_imb.utils.errors import FitFailed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CACHE_SIZE = 12
"""Number of latest fits that are kept for recipes that share them."""


class StageRunner:
    """Fits stages of recipes on one data set. Networks and the latest fits are kept for reuse."""

    def __init__(self, backbone: Backbone, splits: DataSplits, features: Mapping[tuple[str, str], Features]) -> None:
        """Takes the arguments of `trainer.Trainer`."""
        self._backbone = backbone
        self.splits = splits
        self._features = dict(features)
        self.networks: dict[tuple[str, int], Network] = {}
        self.cache: OrderedDict[tuple[object, ...], Outcome[StageFit]] = OrderedDict()

    def fit_all(self, requests: Sequence[FitRequest]) -> list[Outcome[StageFit]]:
        """Fits each request, or takes it from the cache; requests that can train together are trained together."""
        outcomes: dict[int, Outcome[StageFit]] = {}
        batches: dict[object, list[int]] = {}
        first_position: dict[object, int] = {}
        for position, request in enumerate(requests):
            # A run with a callback is always trained, so that its callback sees every epoch and may end it.
            if request.on_epoch is None and request.key in self.cache:
                self.cache.move_to_end(request.key)
                outcomes[position] = self.cache[request.key]
            elif request.on_epoch is None and first_position.setdefault(request.key, position) != position:
                continue
            elif request.recipe.trained and request.recipe.cut == TOP:
                batches.setdefault(_batch_key(request), []).append(position)
            else:
                batches.setdefault(position, []).append(position)
        for positions in batches.values():
            for start in range(0, len(positions), HEADS_PER_BATCH):
                part = positions[start : start + HEADS_PER_BATCH]
                fits = self._fit_batch([requests[position] for position in part])
                for position, outcome in zip(part, fits, strict=True):
                    outcomes[position] = outcome
                    self._store(requests[position], outcome)
        return [
            outcomes[position if position in outcomes else first_position[request.key]]
            for position, request in enumerate(requests)
        ]

    def _store(self, request: FitRequest, outcome: Outcome[StageFit]) -> None:
        """Keeps a finished fit for reuse; no other recipe could build on a pruned one."""
        if outcome.value is None or not outcome.value.pruned:
            # Its time counts only once, for the recipe that it was fitted for.
            self.cache[request.key] = outcome.then(lambda fit: replace(fit, seconds=0.0))
            while len(self.cache) > _CACHE_SIZE:
                self.cache.popitem(last=False)

    def _fit_batch(self, requests: Sequence[FitRequest]) -> list[Outcome[StageFit]]:
        """Fits requests that train together; those that do not train heads at `top` are given one at a time."""
        first = requests[0]
        if not first.recipe.trained:
            return [attempt(lambda: self._fit_closed_form(first))]
        if first.recipe.retraining is not None:
            return [attempt(lambda: self._retrain_head(first))]
        if first.recipe.cut != TOP:
            return [attempt(lambda: self._train_tail(first))]
        try:
            return self._train_heads(requests)
        except FitFailed as error:  # in the data, which all of them share
            return [Outcome(failure=error)] * len(requests)

    def _train_heads(self, requests: Sequence[FitRequest]) -> list[Outcome[StageFit]]:
        """Trains heads on features of the frozen backbone."""
        begin = time.monotonic()
        first = requests[0]
        folds = self.splits.selection_folds(first.selection)
        data = [self._fold_data(first.recipe, fold, first.seed) for fold in folds]
        directions = [self._directions(first.recipe, fold) for fold in folds]  # the projection is part of `batch_key`
        test = self._test_set(first)
        if test is not None:
            test = replace(test, features=_project(test.features, directions[0]))
        network = self._network(TOP, data[0].features.shape[0])
        jobs = [Job(request.recipe, request.seed, request.on_epoch) for request in requests]
        outcomes = epoch_loop.train_heads(network, jobs, data, test)
        seconds = (time.monotonic() - begin) / len(requests)

        def to_fit(request: FitRequest, result: TrainingResult) -> StageFit:
            classifiers = [
                replace(snapshot.classifier(), directions=projected)
                for snapshot, projected in zip(result.snapshots, directions, strict=True)
            ]
            models = tuple(PooledModel(classifier) for classifier in classifiers)
            priors = _learnt_priors(request.recipe, data)
            return StageFit(models, priors, result.history, result.best_epoch, result.pruned, seconds, result.snapshots)

        return [
            outcome.then(lambda result, request=request: to_fit(request, result))  # type: ignore[misc]
            for request, outcome in zip(requests, outcomes, strict=True)
        ]

    def _fit_closed_form(self, request: FitRequest) -> StageFit:
        """Computes a closed-form head on each fold."""
        begin = time.monotonic()
        recipe = request.recipe
        assert not isinstance(recipe.head, Linear | Cosine)
        models, priors = [], []
        for fold in self.splits.selection_folds(request.selection):
            directions = self._directions(recipe, fold)
            training = self._training_features(recipe, fold.train, directions)
            if recipe.synthesis is not None:
                canonical = self._training_features(recipe, self.splits.images.canonical(fold.train), directions)
                new = recipe.synthesis.resample(canonical, training.counts(), request.seed)
                training = TrainingFeatures(
                    features=np.concatenate([training.features, new.features]),
                    labels=np.concatenate([training.labels, new.labels]),
                    sources=np.concatenate([training.sources, np.full(len(new.labels), NO_SOURCE)]),
                    classes=training.classes,
                )
            models.append(PooledModel(replace(recipe.head.fit(training), directions=directions)))
            priors.append(recipe.head.prior(training.counts()))
        return StageFit(tuple(models), tuple(priors), pd.DataFrame(), 0, False, time.monotonic() - begin)

    def _train_tail(self, request: FitRequest) -> StageFit:
        """Trains the backbone's tail, starting from a trained head (Kumar et al. 2022)."""
        recipe = request.recipe
        head_recipe = replace(recipe, cut=TOP, backbone_learning_rate=Recipe().backbone_learning_rate)
        probe = self.fit_all([replace(request, recipe=head_recipe, on_epoch=None)])[0].get()
        begin = time.monotonic()
        folds = self.splits.selection_folds(request.selection)
        data = [self._fold_data(recipe, fold, request.seed) for fold in folds]
        network = self._network(recipe.cut, self._backbone.card.feature_width)
        head_epochs = len(probe.history)
        job = Job(recipe, request.seed, _shift_epochs(request.on_epoch, head_epochs))
        probes = [snapshot.probe() for snapshot in probe.snapshots]
        result = epoch_loop.train_heads(network, [job], data, self._test_set(request), probes)[0].get()
        # One history: the epochs of the head, then those of the tail.
        tail_history = result.history.assign(epoch=result.history["epoch"] + head_epochs)
        return StageFit(
            models=tuple(TailModel(snapshot, snapshot.classifier()) for snapshot in result.snapshots),
            priors=_learnt_priors(recipe, data),
            history=pd.concat([probe.history, tail_history]).reset_index(drop=True),
            best_epoch=head_epochs + result.best_epoch,
            pruned=result.pruned,
            seconds=probe.seconds + time.monotonic() - begin,
            snapshots=result.snapshots,
        )

    def _retrain_head(self, request: FitRequest) -> StageFit:
        """Trains a new head on the output of a trained tail (cRT; Kang et al. 2020)."""
        recipe = request.recipe
        assert recipe.retraining is not None
        base_recipe = replace(recipe, retraining=None)
        base = self.fit_all([replace(request, recipe=base_recipe, on_epoch=None)])[0].get()
        begin = time.monotonic()
        head_recipe = replace(
            Recipe(),
            sampling=recipe.retraining.sampling,
            learning_rate=recipe.retraining.learning_rate,
            weight_decay=recipe.retraining.weight_decay,
            monitor=recipe.monitor,
        )
        data = []
        for tail, fold in zip(base.snapshots, self.splits.selection_folds(request.selection), strict=True):
            fold_data = self._fold_data(recipe, fold, request.seed)
            heldout = replace(fold_data.heldout, features=_pool(tail, fold_data.heldout.features))
            data.append(replace(fold_data, features=_pool(tail, fold_data.features), heldout=heldout))
        test = self._test_set(request)
        if test is not None:
            test = replace(test, features=_pool(base.snapshots[0], test.features))
        network = self._network(TOP, self._backbone.card.feature_width)
        job = Job(head_recipe, request.seed, request.on_epoch)
        result = epoch_loop.train_heads(network, [job], data, test)[0].get()
        pairs = zip(base.snapshots, result.snapshots, strict=True)
        return StageFit(
            models=tuple(TailModel(tail, snapshot.classifier()) for tail, snapshot in pairs),
            priors=_learnt_priors(head_recipe, data),
            history=result.history,
            best_epoch=result.best_epoch,
            pruned=result.pruned,
            seconds=base.seconds + time.monotonic() - begin,
            snapshots=base.snapshots,
        )

    # --- inputs of the stages ---

    def features(self, cut: str, inputs: Inputs) -> Features:
        """Returns the features of all images at a cut; those of several views are concatenated."""
        if len(inputs) == 1:
            return self._features[cut, inputs[0]]
        name = "+".join(inputs)
        if (cut, name) not in self._features:
            self._features[cut, name] = concatenate_features([self._features[cut, view] for view in inputs])
        return self._features[cut, name]

    def _fold_data(self, recipe: Recipe, fold: Fold, seed: int) -> FoldData:
        images = self.splits.images
        n_classes = len(images.classes)
        features = self.features(recipe.cut, recipe.inputs)
        directions = self._directions(recipe, fold)
        canonical = images.canonical(fold.train)
        pairs = np.unique(np.stack([images.labels[canonical], images.sources[canonical]]), axis=1)
        train, pool = _project(features.select(fold.train), directions), images.pool(fold.train)
        if recipe.synthesis is not None:
            new = recipe.synthesis.resample(self._training_features(recipe, canonical, directions), pool.counts(), seed)
            train = Features.of(np.concatenate([train.take(np.arange(len(train))), new.features]))
            pool = TrainingPool(
                labels=np.concatenate([pool.labels, new.labels]),
                copies=np.concatenate([pool.copies, np.ones_like(new.labels)]),
                sources=np.concatenate([pool.sources, np.full(len(new.labels), NO_SOURCE)]),
                classes=images.classes,
            )
        return FoldData(
            features=train,
            pool=pool,
            landmarks=np.bincount(images.labels[canonical], minlength=n_classes),
            sources=np.bincount(pairs[0], minlength=n_classes),
            heldout=EvaluationSet(_project(features.select(fold.heldout), directions), images.labels[fold.heldout]),
        )

    def _training_features(self, recipe: Recipe, rows: Ints, directions: Floats | None) -> TrainingFeatures:
        """Returns the pooled features of the training images in these rows."""
        images = self.splits.images
        features = _project(self.features(TOP, recipe.inputs).select(rows), directions).take(np.arange(len(rows)))
        return TrainingFeatures(features, images.labels[rows], images.sources[rows], images.classes)

    def _directions(self, recipe: Recipe, fold: Fold) -> Floats | None:
        """Returns the directions that a recipe projects out, fitted on the training images of the fold."""
        if recipe.projection is None:
            return None
        return recipe.projection.directions(self._training_features(recipe, fold.train, None))

    def _test_set(self, request: FitRequest) -> EvaluationSet | None:
        if not request.record_test:
            return None
        rows, recipe = self.splits.test, request.recipe
        return EvaluationSet(self.features(recipe.cut, recipe.inputs).select(rows), self.splits.images.labels[rows])

    def _network(self, cut: str, width: int) -> Network:
        if (cut, width) not in self.networks:
            self.networks[cut, width] = Network(self._backbone, cut, width, len(self.splits.images.classes))
        return self.networks[cut, width]


def _learnt_priors(recipe: Recipe, data: Sequence[FoldData]) -> tuple[Floats, ...]:
    """Returns, for each fold, class shares among the rows as sampled, times their weight in the loss, normalised.

    Offsets that the loss adds to the logits are divided out: the logits need not learn that part of the prior.
    """
    priors = []
    for fold in data:
        counts = fold.counts(recipe.sampling)
        terms = recipe.loss.terms(counts)
        prior = counts.shares * recipe.class_weights.weights(counts) * terms.weights * np.exp(-terms.offsets)
        priors.append(prior / prior.sum())
    return tuple(priors)


def _batch_key(request: FitRequest) -> tuple[object, ...]:
    return request.selection, request.record_test, batch_key(Job(request.recipe, request.seed))


def _shift_epochs(on_epoch: OnEpoch | None, epochs: int) -> OnEpoch | None:
    """Returns a callback that counts epochs after `epochs` earlier ones."""
    if on_epoch is None:
        return None
    return lambda epoch, best: on_epoch(epoch + epochs, best)


def _project(features: Features, directions: Floats | None) -> Features:
    """Returns the features without the directions, if there are any."""
    if directions is None:
        return features
    return Features.of(project_out(features.take(np.arange(len(features))), directions))


def _pool(tail: Snapshot, features: Features) -> Features:
    return Features.of(tail.network.pooled(tail.state, features))
