"""The stages of a recipe up to its logits, each fitted once for all recipes that have it in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone, Trainable
from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import FeatureKey
from hirise_imb.models.heads import HeadState, class_mean_state
from hirise_imb.models.preparation import Preparation
from hirise_imb.models.weight_scaling import WeightScaling
from hirise_imb.recipe import (
    FINE_TUNING_EPOCHS,
    FINE_TUNING_FIELDS,
    FINE_TUNING_PATIENCE,
    Cosine,
    Linear,
    Recipe,
    Retraining,
)
from hirise_imb.training.epoch_loop import Learners, StoppingRule, TrainingResult, train_epochs, train_validated
from hirise_imb.training.fitted import FittedHead
from hirise_imb.training.inputs import BySeed, StageInputs, prepare
from hirise_imb.training.learners import EvaluationSet, FoldData, HeadLearner, Learner, Snapshot, TailLearner
from hirise_imb.training.stage_fit import FitRequest, StageFit
from hirise_imb.training.tail_network import Network

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
T = TypeVar("T")

_CACHE_SIZE, _TAIL_CACHE_SIZE = 12, 2
"""Numbers of latest fits that are kept for recipes that share them: of heads alone, and of tails, whose weights are
large."""

_CLOSED_FORM_THREADS = 2
"""Closed-form heads that are fitted at once; each holds a few copies of its features."""


class StageRunner:
    """Fits stages of recipes on one data set. Networks and the latest fits are kept for reuse."""

    def __init__(self, backbone: Backbone | None, splits: DataSplits, features: Mapping[FeatureKey, Features]) -> None:
        """Takes the arguments of `trainer.Trainer`."""
        self._backbone = backbone
        self.inputs = StageInputs(splits, features)
        self.networks: dict[str, Network] = {}
        self.cache: OrderedDict[tuple[object, ...], StageFit] = OrderedDict()
        self._pooled: tuple[tuple[object, ...], BySeed] | None = None
        """Key of the latest base of a second stage, and its data: the trials of a search share them."""

    def fit(self, request: FitRequest) -> StageFit:
        """Fits the request, or takes it from the cache.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        # A fit with a callback is always made, so that the callback sees every epoch.
        if request.on_epoch is None and request.key in self.cache:
            self.cache.move_to_end(request.key)
            return self.cache[request.key]
        fit = self.cache[request.key] = self._fit(request)
        for keys, size in (
            ([key for key, kept in self.cache.items() if not _has_tails(kept)], _CACHE_SIZE),
            ([key for key, kept in self.cache.items() if _has_tails(kept)], _TAIL_CACHE_SIZE),
        ):
            for key in keys[:-size]:
                del self.cache[key]
        return fit

    def _fit(self, request: FitRequest) -> StageFit:
        if not request.recipe.trained:
            return self._fit_closed_form(request)
        if isinstance(request.recipe.retraining, WeightScaling):
            return self._scale_weights(request, request.recipe.retraining)
        if request.recipe.retraining is not None:
            return self._retrain_head(request, request.recipe.retraining)
        if request.recipe.cut != TOP:
            return self._train_tail(request)
        return self._train_heads(request)

    def _train_heads(self, request: FitRequest) -> StageFit:
        """Trains heads on features of the frozen backbone."""
        recipe = request.recipe
        data, notes = self.inputs.data(request)
        learners = _by_fold(data, lambda seed, fold: HeadLearner(recipe, request.seeds[seed], data[seed][fold]))
        test = self.inputs.test_set(request)
        if test is not None:
            test = replace(test, features=prepare(test.features, data[0][0].preparation))
        result = self._train(request, learners, data, _head_rule(recipe), 0, test)
        heads = tuple(
            tuple(
                FittedHead(replace(snapshot.classifier(), preparation=fold.preparation))
                for snapshot, fold in zip(snapshots, folds, strict=True)
            )
            for snapshots, folds in zip(result.snapshots, data, strict=True)
        )
        return _to_fit(result, heads, data, recipe, notes)

    def _fit_closed_form(self, request: FitRequest) -> StageFit:
        """Computes a closed-form head on each fold."""
        from threadpoolctl import threadpool_limits

        recipe = request.recipe
        head = recipe.head
        assert not isinstance(head, Linear | Cosine)

        def fit(part: tuple[int, Fold]) -> tuple[FittedHead, Floats, tuple[str, ...]]:
            seed, fold = part
            preparation = self.inputs.preparation(recipe, fold)
            training, notes = self.inputs.training_features(recipe, fold, preparation, seed)
            fitted = FittedHead(replace(head.fit(training), preparation=preparation))
            return fitted, head.prior(training.counts()), notes

        folds = self.inputs.folds(request)
        keys = [(seed, id(fold)) for seed, parts in zip(request.seeds, folds, strict=True) for fold in parts]
        # Seeds of a deterministic head are equal: in a final fit, one fit serves all of them.
        distinct = dict(zip(keys, ((key[0], fold) for key, fold in zip(keys, chain(*folds), strict=True)), strict=True))
        # One BLAS thread for each fit: their products are short. The limit also keeps the rounding of a fit independent
        # of the others.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(_CLOSED_FORM_THREADS) as executor:
            by_key = dict(zip(distinct, executor.map(fit, distinct.values()), strict=True))
        fits = [by_key[key] for key in keys]
        sizes = [len(parts) for parts in folds]
        return StageFit(
            heads=tuple(_divide([fitted for fitted, _, _ in fits], sizes)),
            priors=tuple(_divide([prior for _, prior, _ in fits], sizes)),
            histories=(pd.DataFrame(),) * (len(request.seeds) if request.protocol == "final" else 1),
            epochs=(),
            capped=False,
            notes=tuple(dict.fromkeys(note for _, _, notes in fits for note in notes)),
        )

    def _train_tail(self, request: FitRequest) -> StageFit:
        """Trains the backbone's tail, starting from a trained head (Kumar et al. 2022) or from class means."""
        recipe = request.recipe
        data, _ = self.inputs.data(request)
        network = self.network(recipe.cut, recipe.trainable)
        probe = self._fit_probe(request) if recipe.start == "trained" else None
        heads = (
            self._class_mean_heads(request)
            if probe is None
            else tuple(tuple(one.head for one in folds) for folds in probe.snapshots)
        )

        def learner(seed: int, fold: int) -> TailLearner:
            return TailLearner(recipe, request.seeds[seed], data[seed][fold], network, heads[seed][fold])

        epochs, patience = min(recipe.max_epochs, FINE_TUNING_EPOCHS), min(recipe.patience, FINE_TUNING_PATIENCE)
        rule = StoppingRule(recipe.monitor, epochs, patience)
        learners = _by_fold(data, learner)
        epochs_before = 0 if probe is None else len(probe.histories[0])
        result = self._train(request, learners, data, rule, 1, self.inputs.test_set(request), epochs_before)
        fitted = tuple(
            tuple(_head_on_tail(snapshot, snapshot) for snapshot in snapshots) for snapshots in result.snapshots
        )
        fit = _to_fit(result, fitted, data, recipe, ())
        return replace(fit, epochs=(0, *fit.epochs)) if probe is None else probe.append(fit)

    def _fit_probe(self, request: FitRequest) -> StageFit:
        """Trains the head from which the tail continues, on the frozen backbone."""
        default = Recipe()
        names = (*FINE_TUNING_FIELDS, "backbone_learning_rate")
        head_recipe = replace(request.recipe, cut=TOP, **{name: getattr(default, name) for name in names})
        return self.fit(replace(request, recipe=head_recipe, epochs=request.epochs[:1], on_epoch=None))

    def _class_mean_heads(self, request: FitRequest) -> tuple[tuple[HeadState, ...], ...]:
        """Computes the cosine head of each seed and fold from which the tail continues."""
        recipe = request.recipe
        assert isinstance(recipe.head, Cosine)
        scale = recipe.head.scale

        def compute(seed: int, fold: Fold) -> HeadState:
            training, _ = self.inputs.training_features(recipe, fold, Preparation(), seed)
            return class_mean_state(training.features, training.labels, len(training.classes), seed, scale)

        pairs = zip(request.seeds, self.inputs.folds(request), strict=True)
        return tuple(tuple(compute(seed, fold) for fold in folds) for seed, folds in pairs)

    def _retrain_head(self, request: FitRequest, second: Retraining) -> StageFit:
        """Trains a new head on the output of a trained tail (cRT; Kang et al. 2020)."""
        recipe = request.recipe
        base = self._fit_base(request)
        head_recipe = replace(
            Recipe(),
            sampling=second.sampling,
            learning_rate=second.learning_rate,
            weight_decay=second.weight_decay,
            monitor=recipe.monitor,
            max_epochs=recipe.max_epochs,
            patience=recipe.patience,
        )
        data = self._pooled_data(request, base)
        learners = _by_fold(data, lambda seed, fold: HeadLearner(head_recipe, request.seeds[seed], data[seed][fold]))
        test = self.inputs.test_set(request)
        if test is not None:
            test = replace(test, features=self._pool(recipe, base.snapshots[0][0], test.features))
        result = self._train(request, learners, data, _head_rule(recipe), 2, test)
        fitted = tuple(
            tuple(_head_on_tail(tail, head) for tail, head in zip(tails, heads, strict=True))
            for tails, heads in zip(base.snapshots, result.snapshots, strict=True)
        )
        retrained = _to_fit(result, fitted, data, head_recipe, ())
        return replace(retrained, epochs=base.epochs + retrained.epochs, capped=base.capped or retrained.capped)

    def _scale_weights(self, request: FitRequest, scaling: WeightScaling) -> StageFit:
        """Scales the weights of each class of a trained head (LWS; Kang et al. 2020)."""
        base = self._fit_base(request)
        data = self._pooled_data(request, base)

        def scale(tail: Snapshot, fold: FoldData) -> FittedHead:
            head = _head_on_tail(tail, tail)
            logits = FittedHead(head.classifier).logits(fold.features, None)
            factors = scaling.fit(logits, fold.pool.labels, fold.pool.counts())
            return replace(head, classifier=head.classifier.scale_logits(factors))

        return replace(
            base,
            heads=tuple(
                tuple(scale(tail, fold) for tail, fold in zip(tails, folds, strict=True))
                for tails, folds in zip(base.snapshots, data, strict=True)
            ),
            priors=tuple(tuple(scaling.prior(fold.pool.counts()) for fold in folds) for folds in data),
        )

    def _fit_base(self, request: FitRequest) -> StageFit:
        """Fits the recipe without its second stage."""
        base_recipe = replace(request.recipe, retraining=None)
        return self.fit(replace(request, recipe=base_recipe, epochs=request.epochs[:2], on_epoch=None))

    def _train(
        self,
        request: FitRequest,
        learners: Learners,
        data: BySeed,
        rule: StoppingRule,
        stage: int,
        test: EvaluationSet | None,
        epochs_before: int = 0,
    ) -> TrainingResult:
        """Trains the learners of one stage in the way that the request asks for."""
        if request.protocol == "final":
            assert test is not None
            return train_epochs(learners, request.epochs[stage], test)
        on_epoch = request.on_epoch
        shifted = None if on_epoch is None else lambda epoch, best: on_epoch(epoch + epochs_before, best)
        sets = [[fold.heldout for fold in folds] for folds in data]
        result = train_validated(learners, sets, self.inputs.held_out(request), rule, test, shifted)
        if request.protocol == "reference":
            return result
        # Up to the best epoch: a final fit of these epochs then has the same rows.
        return replace(result, histories=tuple(history.iloc[: result.epochs] for history in result.histories))

    def _pooled_data(self, request: FitRequest, base: StageFit) -> BySeed:
        """Returns the data of each seed and fold on the output of its trained tail."""
        key = replace(request, recipe=replace(request.recipe, retraining=None)).key
        if self._pooled is not None and self._pooled[0] == key:
            return self._pooled[1]
        data, _ = self.inputs.data(request)

        def pool(snapshot: Snapshot, fold: FoldData) -> FoldData:
            heldout = replace(fold.heldout, features=self._pool(request.recipe, snapshot, fold.heldout.features))
            return replace(fold, features=self._pool(request.recipe, snapshot, fold.features), heldout=heldout)

        pooled = tuple(
            tuple(pool(snapshot, fold) for snapshot, fold in zip(snapshots, folds, strict=True))
            for snapshots, folds in zip(base.snapshots, data, strict=True)
        )
        self._pooled = key, pooled
        return pooled

    def _pool(self, recipe: Recipe, snapshot: Snapshot, features: Features) -> Features:
        assert snapshot.tail is not None
        return Features.of(self.network(recipe.cut, recipe.trainable).pooled(snapshot.tail.tail, features))

    def network(self, cut: str, trainable: Trainable = "all") -> Network:
        """Returns the network of the backbone's tail above a cut below the top."""
        key = cut if trainable == "all" else f"{cut}: {trainable}"
        if key not in self.networks:
            assert self._backbone is not None  # strategies that train it are refused where there is none
            self.networks[key] = Network(self._backbone, cut, trainable)
        return self.networks[key]


def _by_fold(data: BySeed, make: Callable[[int, int], Learner]) -> Learners:
    """Returns a learner for each seed and fold, made from their numbers."""
    return [[make(seed, fold) for fold in range(len(folds))] for seed, folds in enumerate(data)]


def _has_tails(fit: StageFit) -> bool:
    return fit.heads[0][0].tail is not None


def _head_rule(recipe: Recipe) -> StoppingRule:
    return StoppingRule(recipe.monitor, recipe.max_epochs, recipe.patience)


def _head_on_tail(tail: Snapshot, head: Snapshot) -> FittedHead:
    assert tail.tail is not None
    return FittedHead(head.classifier(), tuple(map(np.asarray, tail.tail.tail)))


def _to_fit(
    result: TrainingResult,
    heads: tuple[tuple[FittedHead, ...], ...],
    data: BySeed,
    recipe: Recipe,
    notes: tuple[str, ...],
) -> StageFit:
    return StageFit(
        heads=heads,
        priors=tuple(tuple(_learnt_prior(recipe, fold) for fold in folds) for folds in data),
        histories=result.histories,
        epochs=(result.epochs,),
        capped=result.capped,
        notes=notes,
        snapshots=result.snapshots,
    )


def _divide(values: Sequence[T], sizes: Sequence[int]) -> Iterator[tuple[T, ...]]:
    """Divides values into parts of these sizes."""
    start = 0
    for size in sizes:
        yield tuple(values[start : start + size])
        start += size


def _learnt_prior(recipe: Recipe, fold: FoldData) -> Floats:
    """Returns class shares among the rows as sampled, times their weight in the loss, normalised.

    Offsets that the loss adds to the logits are divided out: the logits need not learn that part of the prior.
    """
    counts = fold.counts(recipe.sampling)
    terms = recipe.loss.terms(counts)
    prior = counts.shares * recipe.class_weights.weights(counts) * terms.weights * np.exp(-terms.offsets)
    return np.asarray(prior / prior.sum(), np.float64)
