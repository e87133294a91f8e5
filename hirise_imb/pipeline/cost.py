"""The fits of a study and the time they take, estimated from its strategies before anything is run.

Times were measured on 2 cores of an AMD EPYC with the real sample and the embedded backbone (2,898 images of training
and validation, 1,280 features), and are taken to be proportional to images and features. They were set on a study of
the given split with 16 trials, 4 for fine-tuning, that took 50 minutes. For studies/sample.toml they give 54 minutes
for the given split and 106 for the nested cross-validation; the searches and fits of its reports took 51 and 106,
added up over workers (`seconds` in environment.json).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hirise_imb.backbones import TOP, BackboneCard
from hirise_imb.config import GIVEN_SPLIT, StudyDefinition
from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.folds import N_FOLDS
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.inputs import feature_keys
from hirise_imb.recipe import Recipe
from hirise_imb.reporting.results import BASELINE, BASELINE_TO_THE_END
from hirise_imb.strategies import Categorical, RecipeContext, Strategy
from hirise_imb.training.context import Division

N_CORES = 2
"""Number of processor cores that times are for."""

_IMAGES_PER_SECOND = 77.0
"""Extraction by the embedded backbone. Others are taken to fine-tune as much more slowly as they extract."""
_HEAD_SECONDS = 11e-3 / (2005 * 1280)
"""Core seconds of an epoch of a head for each row and feature."""
_HEAD_EPOCHS = 75
"""Epochs of a head, including those after the best, such that the sample's searches take what they took: preparing the
rows and storing the trial count as epochs."""
_CLOSED_FORM_SECONDS = 0.25 / (2174 * 1280)
"""Seconds of a closed-form head for each row and feature: between prototypes (0.06 s) and logistic regression (0.43 s).
"""
_FINE_TUNING_SECONDS = 17 / 2174
"""Seconds of fine-tuning for each row."""
REPORT_SECONDS = 1.0
"""Seconds of testing an arm and writing its part of the report (benchmarks/results-before.md)."""
AVERAGED_CONTROLS = "averaged controls"
"""Name for progress of the controls of strategies that average fits; which are needed shows after the searches."""
_LEAST_SECONDS = 2.0
"""Seconds of a strategy that shares the fits of another."""


@dataclass(frozen=True)
class Workload:
    """The searches and fits of one strategy, or of all, in the given split or in one outer fold."""

    trials: int
    """Number of trials at most."""
    fits: int
    """Number of fits at most: a strategy that averages fits is counted with the largest number."""
    fine_tuning_fits: int
    """Those of strategies that fine-tune the backbone."""
    seconds: float
    """Expected time."""
    averages: int = 1
    """Largest number of fits and heads that are averaged."""


@dataclass(frozen=True)
class FitSizes:
    """The number and the size of the fits of every recipe."""

    validation: int
    """Number of fits of a cross-validation: folds of all seeds."""
    final: int
    """Number of fits for the report."""
    rows: float
    """Mean number of training images of a fit."""
    backbone: BackboneCard

    def estimate(self, recipe: Recipe) -> float:
        """Returns the seconds of one fit, without fine-tuning."""
        size = self.rows * sum(self.backbone.width(key.layer) for key in feature_keys(recipe.inputs))
        n_closed_form = len(recipe.also) + (not recipe.trained)
        trained = recipe.members * _HEAD_EPOCHS * _HEAD_SECONDS / N_CORES if recipe.trained else 0.0
        return size * (trained + n_closed_form * _CLOSED_FORM_SECONDS)

    def estimate_fine_tuning(self) -> float:
        """Returns the seconds of fine-tuning the backbone once."""
        return self.rows * _FINE_TUNING_SECONDS * _IMAGES_PER_SECOND / images_per_second(self.backbone)


def images_per_second(backbone: BackboneCard) -> float:
    """Returns the speed of extraction; that of the embedded backbone if none was measured."""
    return backbone.images_per_second or _IMAGES_PER_SECOND


def estimate_workload(strategies: Sequence[Strategy], definition: StudyDefinition, sizes: FitSizes) -> Workload:
    """Estimates everything that is fitted in the given split, or in one outer fold.

    Args:
        strategies: strategies to search, each after those it depends on.
        definition: definition of the study.
        sizes: number and size of the fits.
    """
    workloads = list(_estimate_strategies(strategies, definition, sizes).values())
    # The baseline as published and trained to the end, and for each strategy that averages a control that does too.
    averaging = [each.averages for each in workloads if each.averages > 1]
    references = [Recipe(), Recipe(), *(Recipe(members=n) for n in averaging)]
    once = sizes.validation + sizes.final
    return Workload(
        trials=sum(each.trials for each in workloads),
        fits=sum(each.fits for each in workloads) + once * sum(recipe.members for recipe in references),
        fine_tuning_fits=sum(each.fine_tuning_fits for each in workloads),
        seconds=sum(each.seconds for each in workloads) + once * sum(map(sizes.estimate, references)),
    )


def estimate_study(
    strategies: Sequence[Strategy], definition: StudyDefinition, manifest: Manifest, backbone: BackboneCard
) -> float:
    """Estimates the seconds of all searches and fits of a study from the number of its images alone.

    Args:
        strategies: strategies to search, each after those it depends on.
        definition: definition of the study.
        manifest: data of the study.
        backbone: backbone of the study.
    """
    n_images = {split: len(manifest.split(split)) for split in SPLITS}
    seconds = 0.0
    for design in definition.evaluation:
        if design == GIVEN_SPLIT:
            n_divisions, n_seeds, pool = 1, definition.trial_seeds, float(n_images["train"] + n_images["val"])
        else:
            n_divisions, n_seeds = definition.outer_folds * definition.repeats, definition.inner_seeds
            pool = sum(n_images.values()) * (1 - 1 / definition.outer_folds)
        sizes = FitSizes(n_seeds * N_FOLDS, definition.refits, pool * (1 - 1 / N_FOLDS), backbone)
        seconds += n_divisions * estimate_workload(strategies, definition, sizes).seconds
    return seconds


def estimate_steps(
    strategies: Sequence[Strategy], definition: StudyDefinition, divisions: Sequence[Division], backbone: BackboneCard
) -> dict[str, float]:
    """Estimates the seconds of each step of a study by its name, for the time left that is shown.

    Args:
        strategies: strategies to search, each after those it depends on.
        definition: definition of the study.
        divisions: divisions of the data.
        backbone: backbone of the study.
    """
    seconds = {}
    for division in divisions:
        splits = division.trainer.splits
        sizes = FitSizes(
            validation=len(division.trial_seeds) * len(splits.assignments[0]),
            final=len(division.refit_seeds),
            rows=len(splits.pool) * (1 - 1 / N_FOLDS),
            backbone=backbone,
        )
        once = sizes.validation + sizes.final
        for name in (BASELINE, BASELINE_TO_THE_END):
            seconds[division.fits_step(name)] = once * sizes.estimate(Recipe())
        workloads = _estimate_strategies(strategies, definition, sizes)
        averages = {workload.averages for workload in workloads.values()} - {1}
        seconds[division.fits_step(AVERAGED_CONTROLS)] = once * sum(sizes.estimate(Recipe(members=n)) for n in averages)
        for name, workload in workloads.items():
            expected = max(workload.seconds, _LEAST_SECONDS)
            searched = workload.trials * sizes.validation
            share = searched / (searched + once)
            seconds[division.search_step(name)] = share * expected
            seconds[division.fits_step(name)] = (1 - share) * expected
    return seconds


def _estimate_strategies(
    strategies: Sequence[Strategy], definition: StudyDefinition, sizes: FitSizes
) -> dict[str, Workload]:
    """Estimates the searches and fits of each strategy by name."""
    cuts, layers = tuple(sizes.backbone.cuts), tuple(sizes.backbone.layers)
    defaults: dict[str, Recipe] = {}
    workloads = {}
    for strategy in strategies:
        context = RecipeContext(cuts, {name: defaults[name] for name in strategy.depends_on}, layers)
        defaults[strategy.name] = strategy.recipe({}, context)
        trials = strategy.space.count_settings(strategy.max_trials(definition))
        workloads[strategy.name] = _estimate_strategy(strategy, context, trials, sizes)
    return workloads


def count_arms(strategies: Sequence[Strategy]) -> int:
    """Returns the number of arms of a report without further controls: the strategies and the two references."""
    return len(strategies) + 2


def _estimate_strategy(strategy: Strategy, context: RecipeContext, trials: int, sizes: FitSizes) -> Workload:
    recipes = [strategy.recipe({}, context), *_extreme_recipes(strategy, context)]
    bases = [base.training() for base in context.bases.values()]
    # Recipes that differ from the control in the treatment of logits alone share its fits.
    new = [recipe for recipe in recipes if recipe.training() not in bases]
    n_fits = (trials + 1) * sizes.validation + sizes.final  # the selected recipe is scored once more
    seconds = 0.0
    for recipe in new:
        seconds += n_fits * sizes.estimate(recipe)
        if recipe.cut != TOP:
            # Trials that only retrain the head share the tails of one cross-validation; the score has another.
            n_tails = n_fits if recipe.retraining is None else 2 * sizes.validation + sizes.final
            seconds += n_tails * sizes.estimate_fine_tuning()
    fits = n_fits * max((recipe.n_averaged for recipe in new), default=0)
    return Workload(
        trials=trials,
        fits=fits,
        fine_tuning_fits=fits if strategy.trains_backbone else 0,
        seconds=seconds / len(recipes),
        averages=max(recipe.n_averaged for recipe in recipes),
    )


def _extreme_recipes(strategy: Strategy, context: RecipeContext) -> Iterator[Recipe]:
    """Yields the recipes of all combinations of choices, with every number at its low end and at its high end."""
    space = strategy.space
    for end in ("low", "high"):
        numbers = [parameter for parameter in space if not isinstance(parameter, Categorical)]
        corner = space.narrow({parameter.name: getattr(parameter, end) for parameter in numbers})
        for settings in corner.distinct_settings() or ():
            with suppress(ValueError):  # settings that can't be combined, which a search records as a failed trial
                yield strategy.recipe(settings, context)
