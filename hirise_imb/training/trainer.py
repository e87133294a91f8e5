"""Recipes and cached features give fitted runs.

A recipe goes through stages: heads are trained or computed on the features of each fold, the end of the backbone is
trained from there, a head is trained anew, and what is done to logits comes last. Whatever two recipes have in common
up to a stage is done once: recipes that differ in what is done to their logits share one fit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone
from hirise_imb.data.splits import DataSplits, Selection
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance import logit_adjustment
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.recipe import PLAIN, Recipe
from hirise_imb.training.epoch_loop import Failed, Job
from hirise_imb.training.stages import FitRequest, Model, PooledModel, StageFit, StageRunner
from hirise_imb.utils.errors import NotApplicable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
    temperature: float | None
    """The T of log p / T with the least negative log likelihood on validation (Guo et al. 2017), where the test split
    was asked for. It is not applied: a report uses it to show what calibration would do."""
    seconds: float
    """Its share of the wall time."""
    cut_short: bool = False
    """Whether its `on_epoch` ended it, before its stopping rule did."""

    @property
    def val_macro_f1(self) -> float:
        """Macro F1 on validation at the best epoch."""
        return macro_f1(self.val_confusion)


class Trainer:
    """Fits recipes on one data set. Networks and the last fits are kept between runs."""

    def __init__(self, backbone: Backbone, task: DataSplits, features: Mapping[tuple[str, str], Features]) -> None:
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
        self.task = task
        self._fits = StageRunner(backbone, task, features)

    def select(self, jobs: Sequence[Job], selection: Selection) -> list[Run | Failed]:
        """Fit each job on the folds by which recipes are chosen; the test split plays no part.

        Jobs that go through the same rows in the same order train in one pass. A run's numbers do not depend on the
        others: there are always `HEADS_PER_BATCH` heads in a pass, some of them idle. A failed run
        gives its reason.
        """
        return self._runs(jobs, selection, False)

    def refit(self, recipe: Recipe, seed: int) -> Run | Failed:
        """Fit on the training split, stopped and adjusted by validation, and predict the test split."""
        return self._runs([Job(recipe, seed)], "val", True)[0]

    def _runs(self, jobs: Sequence[Job], selection: Selection, test: bool) -> list[Run | Failed]:
        requests = [_requests(job, selection, test) for job in jobs]
        fits = iter(self._fits.of([request for some in requests for request in some]))
        runs: list[Run | Failed] = []
        for job, some in zip(jobs, requests, strict=True):
            runs.append(self._run(job, selection, test, [next(fits) for _ in some]))
        return runs

    def _run(self, job: Job, selection: Selection, test: bool, fits: Sequence[StageFit | Failed]) -> Run | Failed:
        begin = time.monotonic()
        members = []
        for fit in fits:
            if isinstance(fit, Failed):
                return fit
            members.append(fit)
        recipe, folds = job.recipe, self.task.selection_folds(selection)
        labels = np.concatenate([self.task.images.labels[fold.heldout] for fold in folds])
        groups = np.repeat(np.arange(len(folds)), [len(fold.heldout) for fold in folds])
        priors = np.stack(members[0].priors)
        if selection == "val":
            groups = self.task.val_groups
            priors = np.repeat(priors, groups.max() + 1, axis=0)
        if recipe.adjustment.learns and len(np.unique(groups)) < 2:
            return Failed("validation has landmarks of one source: nothing learnt there can be judged on another")
        tested, temperature = None, None
        try:
            held = [self._logits(recipe, members, place, fold.heldout) for place, fold in enumerate(folds)]
            logits = np.concatenate(held)
            found = logit_adjustment.cross_fit_adjustment(recipe.adjustment, logits, labels, priors, groups)
            if test:
                correction = recipe.adjustment.fit(logits, labels, priors[0])
                corrected = correction(self._logits(recipe, members, 0, self.task.test))
                tested = logit_adjustment.softmax(corrected).astype(np.float32)
                temperature = 1 / logit_adjustment.Temperature().fit(found, labels, priors[0]).scale
        except NotApplicable as error:
            return Failed(str(error))
        return Run(
            seed=job.seed,
            history=members[0].history,
            best_epoch=members[0].best_epoch,
            val_confusion=confusion_matrix(labels, found.argmax(axis=1), found.shape[1]),
            test=tested,
            temperature=temperature,
            seconds=sum(fit.seconds for fit in members) + time.monotonic() - begin,
            cut_short=members[0].cut_short,
        )

    def _logits(self, recipe: Recipe, members: Sequence[StageFit], fold: int, rows: Ints) -> Floats:
        """Mean log probabilities over members, heads and views, shape (n_rows, 8)."""
        parts = []
        for view in recipe.views:
            inputs = recipe.inputs if recipe.inputs != PLAIN else (view,)
            features = self._fits.features(recipe.cut, inputs).select(rows)
            models = [_normed(fit.models[fold], recipe) for fit in members]
            parts += [logit_adjustment.log_softmax(model.logits(features)) for model in models]
        return np.asarray(np.mean(parts, axis=0))


def _requests(job: Job, selection: Selection, test: bool) -> list[FitRequest]:
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
        requests.append(FitRequest(one, 0 if settled else seed, selection, recorded, on_epoch))
    return requests


def _seen(recipe: Recipe) -> dict[str, Any]:
    """The fields that say what a head sees."""
    return {name: getattr(recipe, name) for name in ("inputs", "projection", "synthesis")}


def _member(seed: int, place: int) -> int:
    """The seed of a further member of an ensemble."""
    return int(np.random.SeedSequence((seed, place)).generate_state(1)[0])


def _normed(model: Model, recipe: Recipe) -> Model:
    if recipe.weight_norm == 0:
        return model
    assert isinstance(model, PooledModel)  # what a recipe allows
    return PooledModel(model.classifier.weight_normalised(recipe.weight_norm, keep_bias=recipe.keep_bias))
