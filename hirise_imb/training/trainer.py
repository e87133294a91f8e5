"""The trainer, which turns recipes and cached features into fitted runs.

A recipe goes through stages: heads are trained or computed on the features of each fold, the backbone's tail is trained
from these, a head is retrained, and logits are adjusted last. Stages that recipes have in common are fitted once:
recipes that differ only in the treatment of their logits share one fit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone
from hirise_imb.data.splits import DataSplits, Selection
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.logit_adjustment import cross_fit_adjustment, log_softmax, softmax
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.metrics.classification import Predictions, confusion_matrix, macro_f1
from hirise_imb.recipe import PLAIN, Recipe
from hirise_imb.training.epoch_loop import Job
from hirise_imb.training.outcome import Outcome, attempt
from hirise_imb.training.stage_fit import FitRequest, Model, PooledModel, StageFit
from hirise_imb.training.stages import StageRunner
from hirise_imb.utils.errors import FitFailed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
OnEpoch = Callable[[int, float], None]
"""Called after each epoch with its number, from 1, and the best validation score so far."""


@dataclass(frozen=True)
class CrossValidation:
    """A recipe's scores by grouped cross-validation over the sources of training and validation."""

    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    """Number of epochs of each stage in a final fit; empty for a closed-form head."""
    capped: bool
    """Whether the best epoch is the last one allowed."""
    history: pd.DataFrame
    confusions: Ints
    """Out-of-fold confusion matrix of each seed, shape (n_seeds, n_classes, n_classes)."""
    score: float
    """Validation score: mean over seeds of the macro F1 of the out-of-fold predictions."""
    log_probabilities: NDArray[np.float32]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Run:
    """A fitted recipe.

    `history` has one row per epoch: loss and accuracy of train, val and test, and val_macro_f1, of the trained head
    before its logits are treated; of an ensemble, those of the first member. The loss is cross-entropy in nats
    whichever loss was trained; the training columns are running means over the epoch, with dropout, as Keras reports
    them. Test columns exist only where the test split was requested. A closed-form head has no rows.
    """

    seed: int
    history: pd.DataFrame
    best_epoch: int
    """The epoch whose weights were kept, counted from 1; 0 for a closed-form head."""
    val_confusion: Ints
    """Confusion matrix on validation, shape (n_classes, n_classes); adjustments were cross-fitted over sources."""
    test: Predictions | None
    """Predictions on the canonical images of the test split, if requested."""
    temperature: float | None
    """The T of log p / T with the lowest negative log-likelihood on validation (Guo et al. 2017), where the test split
    was requested. It is not applied: a report uses it to show the effect of calibration."""
    seconds: float
    """Share of the run in the wall time."""
    pruned: bool = False
    """Whether its `on_epoch` ended it before its stopping rule did."""

    @property
    def val_macro_f1(self) -> float:
        """Validation score: macro F1 at the best epoch."""
        return macro_f1(self.val_confusion)


class Trainer:
    """Fits recipes on one data set. Networks and the latest fits are kept between runs."""

    def __init__(self, backbone: Backbone, splits: DataSplits, features: Mapping[tuple[str, str], Features]) -> None:
        """Takes the data and its features.

        Args:
            backbone: backbone; recipes may train its tail.
            splits: splits of the data set.
            features: features of all images in order, by cut and view, for every cut and view that recipes name. Views
                that serve only prediction need rows for canonical images alone.
        """
        import tensorflow as tf

        # Same seed, same machine, same numbers: without it, parallel reductions add up in any order.
        tf.config.experimental.enable_op_determinism()
        self.splits = splits
        self._stages = StageRunner(backbone, splits, features)

    def select(self, jobs: Sequence[Job], selection: Selection) -> list[Outcome[Run]]:
        """Fits each job on the folds on which recipes are selected; the test split is not used.

        Jobs that use the same rows in the same order train in one pass. A run's numbers do not depend on the others:
        there are always `HEADS_PER_BATCH` heads in a pass, some of them idle.
        """
        return self._fit_jobs(jobs, selection, predict_test=False)

    def cross_validate(self, recipe: Recipe, seeds: Sequence[int], on_epoch: OnEpoch | None = None) -> CrossValidation:
        """Stands in for the method of the new trainer, so that searches run on this branch."""

        def report(epoch: int, best_f1: float) -> bool:
            if on_epoch is not None:
                on_epoch(epoch, best_f1)
            return True

        jobs = [Job(recipe, seed, report if seed == seeds[0] else None) for seed in seeds]
        runs = [outcome.get() for outcome in self.select(jobs, "grouped-cv")]
        return CrossValidation(
            seeds=tuple(seeds),
            epochs=(runs[0].best_epoch,) if recipe.trained else (),
            capped=False,
            history=runs[0].history,
            confusions=np.stack([run.val_confusion for run in runs]),
            score=float(np.mean([run.val_macro_f1 for run in runs])),
            log_probabilities=np.zeros((len(seeds), 0, 0), np.float32),
            notes=(),
            seconds=sum(run.seconds for run in runs),
        )

    def refit(self, recipe: Recipe, seed: int) -> Run:
        """Fits on the training split, stopped and adjusted on validation, and predicts the test split.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        return self._fit_jobs([Job(recipe, seed)], "val", predict_test=True)[0].get()

    def _fit_jobs(self, jobs: Sequence[Job], selection: Selection, predict_test: bool) -> list[Outcome[Run]]:
        requests = [_member_requests(job, selection, predict_test) for job in jobs]
        outcomes = iter(self._stages.fit_all([request for members in requests for request in members]))
        by_job = [[next(outcomes) for _ in members] for members in requests]

        def combine(job: Job, members: list[Outcome[StageFit]]) -> Run:
            return self._combine(job, selection, predict_test, [member.get() for member in members])

        return [
            attempt(lambda job=job, members=members: combine(job, members))  # type: ignore[misc]
            for job, members in zip(jobs, by_job, strict=True)
        ]

    def _combine(self, job: Job, selection: Selection, predict_test: bool, members: Sequence[StageFit]) -> Run:
        """Averages the members, adjusts their logits, and scores them."""
        begin = time.monotonic()
        recipe, images = job.recipe, self.splits.images
        folds = self.splits.selection_folds(selection)
        labels = np.concatenate([images.labels[fold.heldout] for fold in folds])
        groups = np.repeat(np.arange(len(folds)), [len(fold.heldout) for fold in folds])
        priors = np.stack(members[0].priors)
        if selection == "val":
            # One classifier predicted all of validation, so adjustments are cross-fitted over groups of its sources.
            groups = self.splits.val_groups
            priors = np.repeat(priors, groups.max() + 1, axis=0)
        if recipe.adjustment.learns and len(np.unique(groups)) < 2:
            raise FitFailed(
                "validation has landmarks of only one source: what is fitted there can't be scored on another"
            )
        by_fold = [self._mean_log_probabilities(recipe, members, i, fold.heldout) for i, fold in enumerate(folds)]
        logits = np.concatenate(by_fold)
        adjusted = cross_fit_adjustment(recipe.adjustment, logits, labels, priors, groups)
        test, temperature = None, None
        if predict_test:
            correction = recipe.adjustment.fit(logits, labels, priors[0])
            test_logits = correction(self._mean_log_probabilities(recipe, members, 0, self.splits.test))
            names = tuple(images.names[row] for row in self.splits.test)
            test = Predictions(names, softmax(test_logits).astype(np.float32))
            temperature = 1 / Temperature().fit(adjusted, labels, priors[0]).scale
        return Run(
            seed=job.seed,
            history=members[0].history,
            best_epoch=members[0].best_epoch,
            val_confusion=confusion_matrix(labels, adjusted.argmax(axis=1), len(images.classes)),
            test=test,
            temperature=temperature,
            seconds=sum(fit.seconds for fit in members) + time.monotonic() - begin,
            pruned=members[0].pruned,
        )

    def _mean_log_probabilities(self, recipe: Recipe, members: Sequence[StageFit], fold: int, rows: Ints) -> Floats:
        """Returns mean log-probabilities over members, heads and views, shape (n_rows, n_classes)."""
        parts = []
        for view in recipe.views:
            inputs = recipe.inputs if recipe.inputs != PLAIN else (view,)
            features = self._stages.features(recipe.cut, inputs).select(rows)
            models = [self._normalise_weights(fit.models[fold], recipe) for fit in members]
            parts += [log_softmax(model.logits(features)) for model in models]
        return np.asarray(np.mean(parts, axis=0))

    def _normalise_weights(self, model: Model, recipe: Recipe) -> Model:
        if recipe.weight_norm == 0:
            return model
        assert isinstance(model, PooledModel)  # a recipe allows it for no other
        classes = self.splits.images.classes
        return PooledModel(model.classifier.normalise_weights(recipe.weight_norm, classes, keep_bias=recipe.keep_bias))


def _member_requests(job: Job, selection: Selection, record_test: bool) -> list[FitRequest]:
    """Returns the fits whose log-probabilities a job averages: ensemble members, then additional closed-form heads."""
    recipe = replace(job.recipe.training(), members=1, also=())
    seeds = [job.seed, *(_member_seed(job.seed, member) for member in range(1, job.recipe.members))]
    # The epochs of one fit of several, or of a fit whose logits are adjusted, say little about the run as a whole: it
    # can't be pruned by them.
    on_epoch = job.on_epoch if job.recipe == recipe else None
    heads = [
        replace(Recipe(), inputs=recipe.inputs, projection=recipe.projection, synthesis=recipe.synthesis, head=head)
        for head in job.recipe.also
    ]
    fits = [(recipe, seed, on_epoch) for seed in seeds] + [(head, job.seed, None) for head in heads]
    requests = []
    for fit_recipe, seed, callback in fits:
        # A closed form has no epochs to record and, without synthetic rows, no randomness: one fit serves all seeds.
        deterministic = not fit_recipe.trained and fit_recipe.synthesis is None
        record = record_test and fit_recipe.trained
        requests.append(FitRequest(fit_recipe, 0 if deterministic else seed, selection, record, callback))
    return requests


def _member_seed(seed: int, member: int) -> int:
    """Returns the seed of a further member of an ensemble."""
    return int(np.random.SeedSequence((seed, member)).generate_state(1)[0])
