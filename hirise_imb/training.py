"""Recipes and cached features give fitted runs.

A recipe goes through stages: heads are trained or computed on the features of each fold, the end of the backbone is
trained from there, a head is trained anew, and what is done to logits comes last. Whatever two recipes have in common
up to a stage is done once: recipes that differ in what is done to their logits share one fit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb import epochs, posthoc
from hirise_imb.backbones import TOP, Backbone
from hirise_imb.classifiers import Classifier
from hirise_imb.epochs import TOGETHER, Failed, Job, Lesson, OnEpoch, Scored, Snapshot, Trained, shared
from hirise_imb.errors import NotApplicable
from hirise_imb.evaluation import confusion, macro_f1
from hirise_imb.features import Features, joined
from hirise_imb.landmarks import CLASSES
from hirise_imb.network import Network
from hirise_imb.recipe import PLAIN, Cosine, Inputs, Linear, Recipe
from hirise_imb.sampling import Pool

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Selection = Literal["val", "grouped-cv"]

_KEPT = 32
"""Fits kept for recipes that share them."""


@dataclass(frozen=True)
class Images:
    """What is known of the images of a data set, one entry each."""

    names: tuple[str, ...]
    labels: Ints
    copies: Ints
    """Lines of the split file."""
    sources: Ints
    """As numbers."""
    firsts: NDArray[np.bool_]
    """Whether the image stands for its landmark: landmarks are counted and scored by these."""

    def pool(self, rows: Ints) -> Pool:
        """What a sampling chooses from."""
        return Pool(self.labels[rows], self.copies[rows], self.sources[rows])


@dataclass(frozen=True)
class Fold:
    """Rows of images to learn from, and rows that are predicted, one a landmark."""

    train: Ints
    held: Ints


@dataclass(frozen=True)
class Task:
    """The parts of a data set, as rows of its images."""

    images: Images
    split: Fold
    """The given one: training images, and validation."""
    groups: Ints
    """Fold of each validation landmark, for what is learnt on validation, shape (n_val,)."""
    folds: tuple[Fold, ...]
    """Of a cross-validation over training and validation."""
    test: Ints

    def selected(self, selection: Selection) -> tuple[Fold, ...]:
        """The folds by which recipes are chosen."""
        return (self.split,) if selection == "val" else self.folds


@dataclass(frozen=True)
class Run:
    """A fitted recipe.

    `history` has one row an epoch: loss and accuracy of train, val and test, and val_macro_f1, of the trained head as
    it is, before anything is done to its logits; of an ensemble, those of the first member. The loss is cross-entropy
    in nats whatever loss was trained; the training figures are running means over the epoch, with dropout, as Keras
    reports them. Test columns are there only where the test split was asked for. A head that is computed has no row.
    """

    seed: int
    history: pd.DataFrame
    best_epoch: int
    """Counted from 1; its weights gave the probabilities. 0 for a head that is computed."""
    val_confusion: Ints
    """Counts on validation, shape (8, 8); what is learnt on validation was learnt on other sources of it."""
    test: NDArray[np.float32] | None
    """Class probabilities, shape (n_test, 8), where the test split was asked for."""
    seconds: float
    """Its share of the wall time."""
    cut_short: bool = False
    """Whether its `on_epoch` ended it, before its stopping rule did."""

    @property
    def val_macro_f1(self) -> float:
        """Macro F1 on validation at the best epoch."""
        return macro_f1(self.val_confusion)


class _Model(Protocol):
    """Gives logits."""

    def logits(self, features: Features) -> Floats: ...


@dataclass(frozen=True)
class _OnTop:
    """A classifier on pooled features of a frozen backbone."""

    classifier: Classifier

    def logits(self, features: Features) -> Floats:
        return self.classifier.logits(features.take(np.arange(len(features))))


@dataclass(frozen=True)
class _Stacked:
    """A classifier on what a trained end of the backbone makes of features."""

    end: Snapshot
    classifier: Classifier

    def logits(self, features: Features) -> Floats:
        return self.classifier.logits(self.end.network.pooled(self.end.state, features))


@dataclass(frozen=True)
class _Fitted:
    """One head of a recipe, fitted on each fold, and what there is to tell."""

    models: tuple[_Model, ...]
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
class _Request:
    """A fit to be made; `test` records the test split in its history."""

    recipe: Recipe
    seed: int
    selection: Selection
    test: bool
    on_epoch: OnEpoch | None = None

    @property
    def key(self) -> tuple[object, ...]:
        return self.recipe, self.seed, self.selection, self.test


class Trainer:
    """Fits recipes on one data set. Networks and the last fits are kept between runs."""

    def __init__(self, backbone: Backbone, task: Task, features: Mapping[tuple[str, str], Features]) -> None:
        """Take the data and its features.

        Args:
            backbone: whose end recipes may train.
            task: the data.
            features: by cut and view, of all images of the task in order, of every cut and view that recipes name;
                views that only serve prediction need be right for the images that stand for a landmark alone.
        """
        import tensorflow as tf

        # Same seed, same machine, same numbers: without it, parallel reductions add in any order.
        tf.config.experimental.enable_op_determinism()
        self._backbone = backbone
        self.task = task
        self._features = dict(features)
        self._networks: dict[tuple[str, int], Network] = {}
        self._kept: OrderedDict[tuple[object, ...], _Fitted | Failed] = OrderedDict()

    def select(self, jobs: Sequence[Job], selection: Selection) -> list[Run | Failed]:
        """Fit each job on the folds by which recipes are chosen; the test split plays no part.

        Jobs that go through the same rows in the same order train in one pass. A run's numbers do not depend on the
        others: there are always `TOGETHER` heads in a pass, some of them idle. A run that comes to nothing says why.
        """
        return self._runs(jobs, selection, False)

    def refit(self, recipe: Recipe, seed: int) -> Run | Failed:
        """Fit on the training split, stopped and adjusted by validation, and predict the test split."""
        return self._runs([Job(recipe, seed)], "val", True)[0]

    # --- from fits to runs ---

    def _runs(self, jobs: Sequence[Job], selection: Selection, test: bool) -> list[Run | Failed]:
        requests = [_requests(job, selection, test) for job in jobs]
        fits = iter(self._fits([request for some in requests for request in some]))
        runs: list[Run | Failed] = []
        for job, some in zip(jobs, requests, strict=True):
            runs.append(self._run(job, selection, test, [next(fits) for _ in some]))
        return runs

    def _run(self, job: Job, selection: Selection, test: bool, fits: Sequence[_Fitted | Failed]) -> Run | Failed:
        begin = time.monotonic()
        members = []
        for fit in fits:
            if isinstance(fit, Failed):
                return fit
            members.append(fit)
        recipe, folds = job.recipe, self.task.selected(selection)
        labels = np.concatenate([self.task.images.labels[fold.held] for fold in folds])
        groups = np.repeat(np.arange(len(folds)), [len(fold.held) for fold in folds])
        priors = np.stack(members[0].priors)
        if selection == "val":
            groups = self.task.groups
            priors = np.repeat(priors, groups.max() + 1, axis=0)
        if recipe.adjustment.learns and len(np.unique(groups)) < 2:
            return Failed("validation has landmarks of one source: nothing learnt there can be judged on another")
        tested = None
        try:
            held = [self._logits(recipe, members, place, fold.held) for place, fold in enumerate(folds)]
            logits = np.concatenate(held)
            found = posthoc.cross_fitted(recipe.adjustment, logits, labels, priors, groups)
            if test:
                correction = recipe.adjustment.fitted(logits, labels, priors[0])
                tested = posthoc.softmax(correction(self._logits(recipe, members, 0, self.task.test)))
        except NotApplicable as error:
            return Failed(str(error))
        return Run(
            seed=job.seed,
            history=members[0].history,
            best_epoch=members[0].best_epoch,
            val_confusion=confusion(labels, found.argmax(axis=1)),
            test=None if tested is None else tested.astype(np.float32),
            seconds=sum(fit.seconds for fit in members) + time.monotonic() - begin,
            cut_short=members[0].cut_short,
        )

    def _logits(self, recipe: Recipe, members: Sequence[_Fitted], fold: int, rows: Ints) -> Floats:
        """Mean log probabilities over members, heads and views, shape (n_rows, 8)."""
        parts = []
        for view in recipe.views:
            inputs = recipe.inputs if recipe.inputs != PLAIN else (view,)
            features = self._at(recipe.cut, inputs).select(rows)
            models = [_normed(fit.models[fold], recipe) for fit in members]
            parts += [posthoc.log_softmax(model.logits(features)) for model in models]
        return np.asarray(np.mean(parts, axis=0))

    # --- fits ---

    def _fits(self, requests: Sequence[_Request]) -> list[_Fitted | Failed]:
        """The fit of each request, made or kept; those that can train together do."""
        made: dict[int, _Fitted | Failed] = {}
        groups: dict[object, list[int]] = {}
        first: dict[object, int] = {}
        for place, request in enumerate(requests):
            if request.key in self._kept:
                self._kept.move_to_end(request.key)
                made[place] = self._kept[request.key]
            elif request.on_epoch is None and first.setdefault(request.key, place) != place:
                continue
            elif request.recipe.trained and request.recipe.cut == TOP:
                groups.setdefault(_together(request), []).append(place)
            else:
                groups.setdefault(place, []).append(place)
        for places in groups.values():
            for start in range(0, len(places), TOGETHER):
                some = places[start : start + TOGETHER]
                asked = [requests[place] for place in some]
                try:
                    found = self._pass(asked)
                except NotApplicable as error:
                    found = [Failed(str(error))] * len(asked)
                for place, fit in zip(some, found, strict=True):
                    made[place] = self._keep(requests[place], fit)
        return [made[place if place in made else first[request.key]] for place, request in enumerate(requests)]

    def _keep(self, request: _Request, fit: _Fitted | Failed) -> _Fitted | Failed:
        """Keep a whole fit; one that was cut short is nothing another recipe could build on."""
        if isinstance(fit, Failed) or not fit.cut_short:
            kept = replace(fit, seconds=0.0) if isinstance(fit, _Fitted) else fit
            self._kept[request.key] = kept
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return fit

    def _pass(self, requests: Sequence[_Request]) -> list[_Fitted | Failed]:
        """Requests that train together: heads on features of the frozen backbone, or one that goes below."""
        first = requests[0].recipe
        if not first.trained:
            return [self._computed(requests[0])]
        if first.retraining is not None:
            return [self._retrained(requests[0])]
        if first.cut != TOP:
            return [self._deeper(requests[0])]
        begin = time.monotonic()
        folds = self.task.selected(requests[0].selection)
        lessons = [self._lesson(first, fold, requests[0].seed) for fold in folds]
        test = self._scored(first, self.task.test) if requests[0].test else None
        if test is not None:
            test = replace(test, features=_without(test.features, self._directions(first, folds[0])))
        network = self._network(TOP, lessons[0].features.shape[0])
        jobs = [Job(request.recipe, request.seed, request.on_epoch) for request in requests]
        found = epochs.train(network, jobs, lessons, test)
        seconds = (time.monotonic() - begin) / len(requests)
        return [
            fit if isinstance(fit, Failed) else self._on_top(request, lessons, fit, seconds)
            for request, fit in zip(requests, found, strict=True)
        ]

    def _on_top(self, request: _Request, lessons: Sequence[Lesson], fit: Trained, seconds: float) -> _Fitted:
        """Trained heads as classifiers."""
        folds = self.task.selected(request.selection)
        ends = zip(fit.snapshots, folds, strict=True)
        models = [
            _OnTop(replace(end.classifier(), directions=self._directions(request.recipe, fold))) for end, fold in ends
        ]
        priors = _priors(request.recipe, lessons)
        return _Fitted(tuple(models), priors, fit.history, fit.best_epoch, fit.cut_short, seconds, fit.snapshots)

    def _computed(self, request: _Request) -> _Fitted:
        """A head that is computed, on each fold."""
        begin = time.monotonic()
        folds = self.task.selected(request.selection)
        models = tuple(self._direct(request.recipe, fold, request.seed) for fold in folds)
        counts = [np.bincount(self.task.images.labels[self._landmarks(fold)], minlength=len(CLASSES)) for fold in folds]
        priors = tuple(own / own.sum() for own in counts)
        return _Fitted(models, priors, pd.DataFrame(), 0, False, time.monotonic() - begin)

    def _direct(self, recipe: Recipe, fold: Fold, seed: int) -> _Model:
        """A head that is computed from one image a landmark."""
        assert not isinstance(recipe.head, Linear | Cosine)
        rows = self._landmarks(fold)
        directions = self._directions(recipe, fold)
        features = _without(self._at(TOP, recipe.inputs).select(rows), directions).take(np.arange(len(rows)))
        labels, sources = self.task.images.labels[rows], self.task.images.sources[rows]
        if recipe.synthesis is not None:
            features, labels = recipe.synthesis.extended(features, labels, seed)
            sources = np.concatenate([sources, np.full(len(labels) - len(sources), -1)])
        return _OnTop(replace(recipe.head.fit(features, labels, sources), directions=directions))

    def _landmarks(self, fold: Fold) -> Ints:
        """The training rows that stand for landmarks."""
        return fold.train[self.task.images.firsts[fold.train]]

    def _deeper(self, request: _Request) -> _Fitted | Failed:
        """The end of the backbone, trained from a head that was trained before it."""
        recipe = request.recipe
        above = replace(recipe, cut=TOP, backbone_learning_rate=_DEFAULT.backbone_learning_rate)
        probe = self._fits([replace(request, recipe=above, on_epoch=None)])[0]
        if isinstance(probe, Failed):
            return probe
        begin = time.monotonic()
        lessons = [self._lesson(recipe, fold, request.seed) for fold in self.task.selected(request.selection)]
        test = self._scored(recipe, self.task.test) if request.test else None
        network = self._network(recipe.cut, self._backbone.card.feature_width)
        before = len(probe.history)
        job = Job(recipe, request.seed, _later(request.on_epoch, before))
        fit = epochs.train(network, [job], lessons, test, [end.probe() for end in probe.ends])[0]
        if isinstance(fit, Failed):
            return fit
        models = tuple(_Stacked(end, end.classifier()) for end in fit.snapshots)
        # One history: the head's epochs, then those of the backbone's end.
        history = pd.concat([probe.history, fit.history.assign(epoch=fit.history["epoch"] + before)])
        seconds = probe.seconds + time.monotonic() - begin
        best = before + fit.best_epoch
        history = history.reset_index(drop=True)
        return _Fitted(models, _priors(recipe, lessons), history, best, fit.cut_short, seconds, fit.snapshots)

    def _retrained(self, request: _Request) -> _Fitted | Failed:
        """A new head on features of a trained end of the backbone."""
        recipe = request.recipe
        assert recipe.retraining is not None
        base = self._fits([replace(request, recipe=replace(recipe, retraining=None), on_epoch=None)])[0]
        if isinstance(base, Failed):
            return base
        begin = time.monotonic()
        folds = self.task.selected(request.selection)
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
            held = replace(lesson.held, features=_pooled(end, lesson.held.features))
            lessons.append(replace(lesson, features=_pooled(end, lesson.features), held=held))
        test = self._scored(recipe, self.task.test) if request.test else None
        if test is not None:
            test = replace(test, features=_pooled(base.ends[0], test.features))
        network = self._network(TOP, self._backbone.card.feature_width)
        fit = epochs.train(network, [Job(second, request.seed, request.on_epoch)], lessons, test)[0]
        if isinstance(fit, Failed):
            return fit
        ends = zip(base.ends, fit.snapshots, strict=True)
        models = tuple(_Stacked(end, snapshot.classifier()) for end, snapshot in ends)
        seconds = base.seconds + time.monotonic() - begin
        return _Fitted(models, _priors(second, lessons), fit.history, fit.best_epoch, fit.cut_short, seconds, base.ends)

    # --- what fits are made from ---

    def _lesson(self, recipe: Recipe, fold: Fold, seed: int) -> Lesson:
        images = self.task.images
        features = self._at(recipe.cut, recipe.inputs)
        firsts = self._landmarks(fold)
        pairs = np.unique(np.stack([images.labels[firsts], images.sources[firsts]]), axis=1)
        landmarks = np.bincount(images.labels[firsts], minlength=len(CLASSES))
        directions = self._directions(recipe, fold)
        held = Scored(_without(features.select(fold.held), directions), images.labels[fold.held])
        train, pool = _without(features.select(fold.train), directions), images.pool(fold.train)
        if recipe.synthesis is not None:
            one_each = _without(features.select(firsts), directions).take(np.arange(len(firsts)))
            made, labels = recipe.synthesis.extended(one_each, images.labels[firsts], seed)
            none = np.full(len(labels), -1)
            train, pool = Features.of(made), Pool(labels, np.ones_like(labels), none)
        return Lesson(train, pool, landmarks, np.bincount(pairs[0], minlength=len(CLASSES)), held)

    def _scored(self, recipe: Recipe, rows: Ints) -> Scored:
        return Scored(self._at(recipe.cut, recipe.inputs).select(rows), self.task.images.labels[rows])

    def _at(self, cut: str, inputs: Inputs) -> Features:
        """Features of all images at a cut; those of several views side by side."""
        if len(inputs) == 1:
            return self._features[cut, inputs[0]]
        name = "+".join(inputs)
        if (cut, name) not in self._features:
            self._features[cut, name] = joined([self._features[cut, view] for view in inputs])
        return self._features[cut, name]

    def _directions(self, recipe: Recipe, fold: Fold) -> NDArray[np.float64] | None:
        """What a recipe takes out of the features, learnt from one image a landmark of the fold."""
        if recipe.projection is None:
            return None
        rows = self._landmarks(fold)
        features = self._at(TOP, recipe.inputs).select(rows).take(np.arange(len(rows)))
        return recipe.projection.directions(features, self.task.images.labels[rows], self.task.images.sources[rows])

    def _network(self, cut: str, width: int) -> Network:
        if (cut, width) not in self._networks:
            self._networks[cut, width] = Network(self._backbone, cut, width)
        return self._networks[cut, width]


_DEFAULT = Recipe()


def _requests(job: Job, selection: Selection, test: bool) -> list[_Request]:
    """The fits whose log probabilities a job averages: members, then the heads that are computed beside them."""
    recipe = replace(job.recipe.training(), members=1, also=())
    seeds = [job.seed, *(_member(job.seed, place) for place in range(1, job.recipe.members))]
    # Epochs of one fit of several, or before something is done to the logits, tell little of the whole.
    watch = job.on_epoch if job.recipe == recipe else None
    heads = [replace(Recipe(), **_seen(recipe), head=head) for head in job.recipe.also]
    fits = [(recipe, seed, watch) for seed in seeds] + [(head, job.seed, None) for head in heads]
    requests = []
    for one, seed, on_epoch in fits:
        # What is computed has no epochs to record and, from landmarks alone, no chance in it: one fit serves all.
        settled = not one.trained and one.synthesis is None
        recorded = test and one.trained
        requests.append(_Request(one, 0 if settled else seed, selection, recorded, on_epoch))
    return requests


def _seen(recipe: Recipe) -> dict[str, Any]:
    """The fields that say what a head sees."""
    return {name: getattr(recipe, name) for name in ("inputs", "projection", "synthesis")}


def _member(seed: int, place: int) -> int:
    """The seed of a further member of an ensemble."""
    return int(np.random.SeedSequence((seed, place)).generate_state(1)[0])


def _priors(recipe: Recipe, lessons: Sequence[Lesson]) -> tuple[Floats, ...]:
    """By lesson: shares of classes among the rows as sampled, times their weight in the loss."""
    priors = []
    for lesson in lessons:
        counts = lesson.counts(recipe.sampling)
        prior = counts.shares * recipe.class_weights.weights(counts)
        priors.append(prior / prior.sum())
    return tuple(priors)


def _together(request: _Request) -> tuple[object, ...]:
    return request.selection, request.test, shared(Job(request.recipe, request.seed))


def _later(on_epoch: OnEpoch | None, before: int) -> OnEpoch | None:
    """Tell of epochs as those after `before` others."""
    if on_epoch is None:
        return None
    return lambda epoch, best: on_epoch(epoch + before, best)


def _normed(model: _Model, recipe: Recipe) -> _Model:
    if recipe.weight_norm == 0:
        return model
    assert isinstance(model, _OnTop)  # what a recipe allows
    return _OnTop(model.classifier.weight_normalised(recipe.weight_norm, keep_bias=recipe.keep_bias))


def _without(features: Features, directions: NDArray[np.float64] | None) -> Features:
    """The features with some directions taken out."""
    if directions is None:
        return features
    values = features.take(np.arange(len(features)))
    kept = directions.astype(np.float32)
    return Features.of(values - (values @ kept) @ kept.T)


def _pooled(end: Snapshot, features: Features) -> Features:
    return Features.of(end.network.pooled(end.state, features))
