"""Runs a complete study: data, features, baseline, searches, refits and report. Finished steps are not repeated."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hirise_imb.config import GIVEN_SPLIT, MAX_WORKERS, NESTED_CV, StudyDefinition, check_count, check_known
from hirise_imb.data.resolve import ARCHIVE, SYNTHETIC, expand_variable
from hirise_imb.pipeline.appendix import describe_strategies
from hirise_imb.pipeline.division_fits import REFERENCE_RECIPES, DivisionFits, DivisionFitter, fit_divisions
from hirise_imb.pipeline.landmark_pictures import check_pictures, choose_pictures
from hirise_imb.pipeline.pooling import list_omitted, list_outer_folds, pool_arms, tested_landmarks
from hirise_imb.pipeline.progress import (
    count_earlier_work,
    end_fits,
    expect_fits,
    expect_searches,
    open_progress,
)
from hirise_imb.pipeline.rebuild import WRITING
from hirise_imb.pipeline.saved_models import SaveModels, check_option, find_obstacle, save_models
from hirise_imb.reporting import Baseline, Results, write_baseline, write_report
from hirise_imb.reporting.baseline import check_comparable
from hirise_imb.reporting.formatting import plural
from hirise_imb.reporting.html.index import write_index
from hirise_imb.reporting.results import BASELINE, BASELINE_TO_THE_END
from hirise_imb.search import SearchResult, lock_study, open_scheduler, strategies_to_search, worker_pool
from hirise_imb.strategies import Strategy
from hirise_imb.training.context import Division, TrainingContext, load_manifest
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.run_store import RunStore, open_run_store
from hirise_imb.utils import environment
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.progress import say, show_stage, warn


@dataclass(frozen=True)
class RunOptions:
    """How a study is run. Results do not depend on it, unless a timeout leaves out trials.

    Raises:
        UserError: a value is out of range.
    """

    storage: str | None = None
    """Address of the database; None means a file in `out`."""
    workers: int = 1
    """Number of processes on this machine."""
    timeout: float | None = None
    """Seconds after which no further trials are started."""
    pictures: str = "auto"
    """Whether the page shows landmarks: `auto` (if the licence of the images is known), `yes` or `no`."""
    replace: bool = False
    """Whether this run may replace a report with more trials or more refits."""
    save_models: str | None = None
    """Which models are saved: `none`, `chosen` (those of the baseline and of the arms that validation chose), or `all`;
    None means `chosen` where the study has models."""

    def __post_init__(self) -> None:
        """Checks the values."""
        check_pictures(self.pictures)
        check_count("--workers", self.workers, 1, MAX_WORKERS)
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"--timeout is {self.timeout:g}: give a number of seconds above 0.")


def run_study(definition: StudyDefinition, out: Path, options: RunOptions = RunOptions()) -> tuple[Results, Path]:
    """Runs or continues a study; returns its results and the path of its page.

    Args:
        definition: definition of the study.
        out: folder that contains `studies/` (databases and finished runs) and `reports/`.
        options: number of workers, time limit, and what may be written.

    Raises:
        UserError: the definition can't be run here; a later run can use everything that was written before.
    """
    strategies = strategies_to_search(definition)
    manifest = load_manifest(definition)
    models = check_options(definition, out, options)
    by_design: dict[str, Results] = {}
    fits: dict[str, list[DivisionFits]] = {}
    with (
        _lock(definition, out),
        open_progress(definition, manifest, strategies) as progress,
        open_scheduler(definition, manifest, strategies, out, options.storage) as scheduler,
    ):
        context = scheduler.context
        expect_fits(progress, context, scheduler.divisions, strategies)

        def open_store(division: Division) -> RunStore:
            keeps_models = models != "none" and division.key == GIVEN_SPLIT
            return open_run_store(out, definition.name, division, keeps_models=keeps_models)

        count_earlier_work(progress, scheduler, open_store)
        if options.storage is None:
            # This process has the lock of the study, so leases in the file belong to processes that ended.
            scheduler.leases.clear(f"{definition.name}/")
        logs = out / "studies" / definition.name
        deadline = None if options.timeout is None else time.monotonic() + options.timeout

        def search(division: Division) -> Mapping[str, Outcome[SearchResult]]:
            scheduler.run(progress, deadline, division)
            return scheduler.choose_results(division)

        with worker_pool(options.workers - 1, logs, join_study, definition, out, scheduler.database):
            for design in definition.evaluation:
                fits[design] = fit_divisions(context.divisions(design), open_store, strategies, search, progress)
                by_design[design] = _build_results(context, design, fits[design], strategies, out)
        # Still under the lock: two processes must not write one report.
        results = by_design.get(NESTED_CV, by_design.get(GIVEN_SPLIT))
        assert results is not None  # a definition has a design
        if len(by_design) > 1:
            results = replace(results, given_split=by_design[GIVEN_SPLIT])
        end_fits(progress)
        with show_stage(WRITING):
            pictures = choose_pictures(options.pictures, definition.data, definition.dataset, lambda: manifest)
            page = write_report(results, _report_folder(definition, out), pictures)
            write_index(out / "reports")
        if models != "none":
            (given,) = fits[GIVEN_SPLIT]
            with show_stage("Saving models"):
                save_models(models, context, given, open_store(given.division), by_design, page.parent)
        elif options.save_models is None:
            say(f"No model is saved: {find_obstacle(definition)}.")
    return results, page


def check_options(definition: StudyDefinition, out: Path, options: RunOptions) -> SaveModels:
    """Checks that a run may write what it would; returns which models it saves.

    Raises:
        UserError: it would replace a larger report, or save models that the study does not have.
    """
    if not options.replace:
        _check_larger_report(definition, out)
    return check_option(options.save_models, definition)


def join_study(definition: StudyDefinition, out: Path, place: Path | str) -> None:
    """Works on the searches of a study that runs elsewhere, until none is left.

    Args:
        definition: definition of the study.
        out: folder for the images of the dashboard, which a worker writes in addition to its trials.
        place: path or address of the database.

    Raises:
        UserError: the definition can't be run here, or the study uses other data or weights.
    """
    strategies = strategies_to_search(definition)
    manifest = load_manifest(definition)
    address = None if isinstance(place, Path) else place
    with (
        open_progress(definition, manifest, strategies) as progress,
        open_scheduler(definition, manifest, strategies, out, address) as scheduler,
    ):
        expect_searches(progress, scheduler)
        scheduler.count_finished(progress)
        scheduler.run(progress)


def run_baseline(definition: StudyDefinition, rows: str, out: Path) -> tuple[Baseline, Path]:
    """Fits only the reference run of a study, and compares it with the published table.

    Fits of the study are reused here, and the study will reuse these.

    Args:
        definition: definition of the study; its strategies and trials are ignored.
        rows: rows of an epoch, a key of `REFERENCE_RECIPES`.
        out: folder that contains `studies/` and `reports/`.

    Raises:
        UserError: the definition can't be run here, or the test split has a single landmark.
    """
    check_known("kind of rows", rows, REFERENCE_RECIPES)
    manifest = load_manifest(definition)
    check_comparable(manifest.spec.classes)
    if len(manifest.canonical_images("test")) < 2:
        raise UserError(
            f"{definition.data} has only one test landmark, but a shuffled pairing needs two: use other data."
        )
    given_split = replace(definition, evaluation=(GIVEN_SPLIT,))
    with _lock(definition, out), open_progress(given_split, manifest, []) as progress:
        with show_stage("Preparing the features"):
            context = TrainingContext.prepare(definition, manifest, [])
        division = context.given_split
        expect_fits(progress, context, [division], [])
        progress.skip(division.fits_step(BASELINE_TO_THE_END))
        # The study of the same name saves the model of the baseline, and reuses the fits of this command.
        store = open_run_store(out, definition.name, division, keeps_models=True)
        arm = DivisionFitter(division, store, progress).fit_baseline(rows)
        fits = [DivisionFits(division, {arm.name: arm}, {})]
    header = f"# The reference run of this study alone: hirise-imb baseline --rows {rows}\n"
    seeds = f"{definition.refits} seed{'s' if definition.refits > 1 else ''}"
    results = _build_results(context, GIVEN_SPLIT, fits, (), out)
    results = replace(
        results,
        setting=f"{_describe_data(context)}; {arm.summary}, {seeds}.",
        study_toml=header + definition.to_toml(),
    )
    folder = BASELINE if rows == "unique" else f"{BASELINE}-{rows}"
    baseline = Baseline(results)
    with show_stage(WRITING):
        page = write_baseline(baseline, _report_folder(definition, out) / folder)
        write_index(out / "reports")
    return baseline, page


def _report_folder(definition: StudyDefinition, out: Path) -> Path:
    return out / "reports" / definition.name


def _check_larger_report(definition: StudyDefinition, out: Path) -> None:
    """Checks that this run would not replace a report that has more trials, refits, repeats or designs.

    Raises:
        UserError: it would.
    """
    folder = _report_folder(definition, out)
    try:
        earlier = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return  # There is no report, or nothing that the report writer would accept as one.
    if lost := [design for design in earlier.get("evaluation", []) if design not in definition.evaluation]:
        raise UserError(
            f"{folder} has a report with the evaluation {' and '.join(lost)}, and this run would replace it with one "
            f"without: add it to evaluation, choose another --name, or confirm with --replace."
        )
    for key in ("trials", "refits", "repeats"):
        before, now = earlier.get(key), getattr(definition, key)
        if isinstance(before, int) and before > now:
            raise UserError(
                f"{folder} has a report with {before} {key}, and this run would replace it with a report of {now}: ask "
                f"for --{key} {before}, choose another --name, or confirm with --replace."
            )


@contextmanager
def _lock(definition: StudyDefinition, out: Path) -> Iterator[None]:
    """Locks a study in `out` against other processes."""
    # Folders that can't be written are reported now, instead of after hours of work.
    ensure_folder(out / "reports")
    ensure_folder(out / "studies")
    with lock_study(out / "studies" / definition.name):
        yield


def _build_results(
    context: TrainingContext, design: str, fits: Sequence[DivisionFits], strategies: Sequence[Strategy], out: Path
) -> Results:
    """Returns the results of a design."""
    definition, manifest = context.definition, context.manifest
    divisions = context.divisions(design)
    is_nested = design == NESTED_CV
    repeats = definition.repeats if is_nested else 1
    seeds = definition.inner_seeds if is_nested else definition.trial_seeds
    test = tested_landmarks(divisions, manifest)
    arms = pool_arms(fits, repeats, list(test["image"]))
    omitted = list_omitted(fits)
    for one in omitted:
        warn(f"{design}: {one.name} has no result, since {one.reason.rstrip('.')}.")
    folds = ""
    if is_nested:
        folds = f"{definition.outer_folds} outer folds, "
        if repeats > 1:
            folds = f"{repeats} repeats of {folds}"
    counts = (
        f"{folds}up to {definition.trials} trials per strategy, {plural(seeds, 'seed')} per trial, "
        f"{plural(definition.refits, 'seed')} per configuration"
    )
    names = [arm.name for arm in arms if arm.name != BASELINE]
    per_division = {"repeat", "outer_fold"}
    facts: dict[str, Any] = {
        "digests": {key: value for key, value in divisions[0].facts.items() if key not in per_division},
        "seconds": {"features": context.seconds} | {arm.name: arm.seconds for arm in arms},
    }
    if context.table is not None:
        facts["features"] = context.table.describe()
    if not is_nested:
        facts["test_access"] = open_run_store(out, definition.name, divisions[0]).test_accesses()
    return Results(
        name=definition.name,
        classes=manifest.spec.classes,
        setting=f"{_describe_data(context)}; {counts}.",
        study_toml=definition.to_toml(),
        test=test,
        data=manifest.summary().drop(columns="label"),
        arms=tuple(arms),
        omitted=tuple(omitted),
        trial_seeds=seeds,
        appendix=describe_strategies(strategy for strategy in strategies if strategy.name in names),
        environment=environment.describe() | facts,
        outer_folds=list_outer_folds(divisions, repeats, manifest) if is_nested else None,
        target=context.trainer.target,
        costs=definition.costs,
    )


def _describe_data(context: TrainingContext) -> str:
    """Returns sentences about data and features, without the final full stop."""
    name, title = context.definition.data, context.manifest.spec.title
    data = f"Landmarks: {title}."
    if name == SYNTHETIC:
        data = "Landmarks: synthetic, drawn by this program. Nothing here is a result about Mars."
    elif name != ARCHIVE and (path := expand_variable(name)).stem != title:
        data = f"Landmarks: {title} ({path.name})."
    if context.duplicates:
        counts = context.duplicates.describe_counts()
        data += f" {counts}: a landmark that is tested and trained on makes scores too high."
    return f"{data} {context.description}"
