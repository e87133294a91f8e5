"""The progress of a study: which steps it has, how long each is expected to take, and which are done already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hirise_imb.backbones import BACKBONES
from hirise_imb.config import StudyDefinition
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.extraction import name_extraction
from hirise_imb.pipeline.cost import REPORT_SECONDS, count_arms, estimate_steps, estimate_study
from hirise_imb.pipeline.division_fits import DivisionFitter
from hirise_imb.pipeline.plan import plan_features
from hirise_imb.pipeline.rebuild import WRITING
from hirise_imb.search.scheduler import SearchScheduler
from hirise_imb.strategies import Strategy
from hirise_imb.training.context import Division, TrainingContext
from hirise_imb.training.run_store import RunStore
from hirise_imb.utils.study_progress import StudyProgress

_FEATURES, _FITS, _REPORT = "features", "", "report"
"""Parts of a study, whose estimates are corrected independently."""


def open_progress(definition: StudyDefinition, manifest: Manifest, strategies: Sequence[Strategy]) -> StudyProgress:
    """Returns the progress of a study whose features are not ready yet; searches and fits are one step till then."""
    card = BACKBONES[definition.backbone]
    features = {}
    if not definition.features:
        plan = plan_features(card, manifest, strategies)
        features = {name_extraction(view): plan.seconds * n / plan.n_views for view, n in plan.views.items()}
    progress = StudyProgress(
        definition.name, {"searches and fits": estimate_study(strategies, definition, manifest, card)}
    )
    progress.expect(_FEATURES, features)
    progress.expect(_REPORT, {WRITING: REPORT_SECONDS * count_arms(strategies) * len(definition.evaluation)})
    return progress


def expect_fits(
    progress: StudyProgress, context: TrainingContext, divisions: Sequence[Division], strategies: Sequence[Strategy]
) -> None:
    """Replaces the rough estimate of all searches and fits by that of each of them; the features are ready."""
    progress.end_part(_FEATURES)
    progress.expect(_FITS, estimate_steps(strategies, context.definition, divisions, context.card))


def expect_searches(progress: StudyProgress, scheduler: SearchScheduler) -> None:
    """Replaces the rough estimate of a study by that of each of its searches, for a process that does nothing else."""
    context, divisions, strategies = scheduler.context, scheduler.divisions, scheduler.strategies
    progress.end_part(_FEATURES)
    seconds = estimate_steps(strategies, context.definition, divisions, context.card)
    searches = [division.search_step(strategy.name) for division in divisions for strategy in strategies]
    progress.expect(_FITS, {search: seconds[search] for search in searches})
    progress.expect(_REPORT, {})


def count_earlier_work(
    progress: StudyProgress, scheduler: SearchScheduler, open_store: Callable[[Division], RunStore]
) -> None:
    """Counts the finished trials and the stored fits of earlier runs as done."""
    scheduler.count_finished(progress)
    for division in scheduler.divisions:
        recipes = scheduler.chosen_recipes(division)
        DivisionFitter(division, open_store(division), progress).count_stored(recipes)


def end_fits(progress: StudyProgress) -> None:
    """Counts all searches and fits as done: those that were not needed, and those that a time limit left out."""
    progress.end_part(_FITS)
