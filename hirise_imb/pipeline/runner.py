"""Runs a complete study: data, features, baseline, searches, refits and report. Finished steps are not repeated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hirise_imb.config import StudyDefinition, check_known
from hirise_imb.data.resolve import SYNTHETIC
from hirise_imb.imbalance.sampling import SplitFileRows
from hirise_imb.pipeline.appendix import describe_strategies
from hirise_imb.pipeline.run_store import RunStore
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Baseline, Omitted, Results, write_baseline, write_report
from hirise_imb.reporting.baseline import check_comparable
from hirise_imb.reporting.html.index import write_index
from hirise_imb.reporting.html.thumbnails import make_thumbnails
from hirise_imb.reporting.records import Role
from hirise_imb.reporting.results import BASELINE, BASELINE_TO_THE_END
from hirise_imb.search import SearchResult, lock_study, open_scheduler, strategies_to_search, worker_pool
from hirise_imb.strategies import CONTROL, Strategy
from hirise_imb.training.context import TrainingContext, load_manifest
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils import environment
from hirise_imb.utils.errors import FitFailed, UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.progress import track

REFERENCE_RECIPES = {"unique": Recipe(), "split-file": Recipe(sampling=SplitFileRows())}
"""Recipes of the reference run, by rows of an epoch: each image once, or as often as the split file lists it."""

_NO_CAP = 1000
"""Epochs that the reference run's recipe does not need on any data."""

_ROW_NAMES = {"unique": "unique images", "split-file": "the repeated rows of the split file"}


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
    thumbnails: bool = False
    """Whether the page shows images of landmarks."""
    replace: bool = False
    """Whether this run may replace a report with more trials or more refits."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.workers < 1:
            raise UserError(f"--workers is {self.workers}: use 1 or more.")
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
    if not options.replace:
        _check_larger_report(definition, out)
    with _lock(definition, out):
        with open_scheduler(definition, manifest, strategies, out, options.storage) as scheduler:
            context = scheduler.context
            store = _run_store(context, out)
            arms = [_fit_baseline(context, "unique", store), _fit_baseline_to_the_end(context, store)]
            if options.storage is None:
                # This process has the lock of the study, so leases in the file belong to processes that ended.
                scheduler.leases.clear(f"{definition.name}/")
            logs = out / "studies" / definition.name
            with worker_pool(options.workers - 1, logs, join_study, definition, out, scheduler.database):
                scheduler.run(options.timeout)
            search_results = scheduler.choose_results()
        omitted = []
        recipes: dict[str, Recipe] = {}
        for strategy in strategies:
            try:
                result = search_results[strategy.name].get()
                arms.append(_fit_strategy(context, strategy, result, store))
                recipes[strategy.name] = result.recipe
            except FitFailed as error:
                omitted.append(Omitted(strategy.name, strategy.summary, str(error)))
        for name, summary, recipe in _equal_controls(recipes):
            try:
                arms.append(_fit_arm(context, name, "control", summary, recipe, store))
            except FitFailed as error:
                omitted.append(Omitted(name, summary, str(error)))
    counts = (
        f"up to {definition.trials} trials a strategy, {definition.trial_seeds} seeds a trial, {definition.refits} "
        "seeds a fit"
    )
    results = _build_results(context, arms, omitted, counts, definition.to_toml(), store, strategies)
    pictures = make_thumbnails(results, manifest) if options.thumbnails else None
    page = write_report(results, _report_folder(definition, out), pictures)
    write_index(out / "reports")
    return results, page


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
    with open_scheduler(definition, manifest, strategies, out, address) as scheduler:
        scheduler.run(None)


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
    with _lock(definition, out):
        context = TrainingContext.prepare(definition, manifest, [])
        store = _run_store(context, out)
        arm = _fit_baseline(context, rows, store)
    header = f"# The reference run of this study alone: hirise-imb baseline --rows {rows}\n"
    seeds = f"{definition.refits} seed{'s' if definition.refits > 1 else ''}"
    results = _build_results(context, [arm], [], f"{arm.summary}, {seeds}", header + definition.to_toml(), store)
    folder = BASELINE if rows == "unique" else f"{BASELINE}-{rows}"
    baseline = Baseline(results)
    page = write_baseline(baseline, _report_folder(definition, out) / folder)
    write_index(out / "reports")
    return baseline, page


def _report_folder(definition: StudyDefinition, out: Path) -> Path:
    return out / "reports" / definition.name


def _check_larger_report(definition: StudyDefinition, out: Path) -> None:
    """Checks that this run would not replace a report that has more trials or refits.

    Raises:
        UserError: it would.
    """
    folder = _report_folder(definition, out)
    try:
        earlier = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return  # There is no report, or nothing that the report writer would accept as one.
    for key in ("trials", "refits"):
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


def _run_store(context: TrainingContext, out: Path) -> RunStore:
    """Returns the store of the finished fits of the study."""
    return RunStore(ensure_folder(out / "studies" / f"{context.definition.name}.runs"), context.facts)


def _fit_baseline(context: TrainingContext, rows: str, store: RunStore) -> Arm:
    """Fits the reference run as published."""
    summary = f"the reference run: cross-entropy on {_ROW_NAMES[rows]}, frozen backbone"
    return _fit_untuned(context, BASELINE, "baseline", summary, REFERENCE_RECIPES[rows], store)


def _fit_baseline_to_the_end(context: TrainingContext, store: RunStore) -> Arm:
    """Fits the recipe of the reference run in the way of the strategies: as long as it gains, on all training data."""
    summary = "the reference run's recipe, trained until it gains no more, on training and validation"
    recipe = replace(Recipe(), max_epochs=_NO_CAP)
    return _fit_untuned(context, BASELINE_TO_THE_END, "baseline_to_the_end", summary, recipe, store)


def _fit_untuned(context: TrainingContext, name: str, role: Role, summary: str, recipe: Recipe, store: RunStore) -> Arm:
    """Fits an arm without which there is no report.

    Raises:
        UserError: it can't be fitted.
    """
    try:
        return _fit_arm(context, name, role, summary, recipe, store)
    except FitFailed as error:
        raise UserError(f"The baseline can't be fitted ({error}): check the weights and the images.") from error


def _fit_strategy(context: TrainingContext, strategy: Strategy, result: SearchResult, store: RunStore) -> Arm:
    role: Role = "control" if strategy.name == CONTROL else "strategy"
    arm = _fit_arm(context, strategy.name, role, strategy.summary, result.recipe, store)
    return replace(arm, settings=result.settings, trials=result.history, seconds=arm.seconds + result.seconds)


def _equal_controls(recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str, Recipe]]:
    """Yields name, summary and recipe of a further control for each number of fits that some strategy averages.

    Averaging alone removes chance differences between fits, so a strategy that averages is compared with a control that
    averages as many.
    """
    if CONTROL in recipes:
        for members in sorted({recipe.n_averaged for recipe in recipes.values()} - {1}):
            recipe = replace(recipes[CONTROL], members=members)
            yield f"{CONTROL}-x{members}", f"the control: the mean of {members} fits", recipe


def _fit_arm(context: TrainingContext, name: str, role: Role, summary: str, recipe: Recipe, store: RunStore) -> Arm:
    """Scores a recipe, fits it with each seed and predicts the test split; returns an arm without trials."""
    definition, trainer = context.definition, context.trainer
    seeds = tuple(range(definition.seed, definition.seed + definition.refits))
    # A reference run that is stopped on the validation split is another fit than a final one of the same recipe.
    kind = "reference" if role == "baseline" else "final"
    stored = sum(store.has(kind, recipe, seed) for seed in seeds)
    runs = []
    with track(f"{name} fits", len(seeds), "fits", already=stored) as show:
        validation = _validate(context, recipe, store)
        for done, seed in enumerate(seeds, 1):
            fit = partial(trainer.fit_final, recipe, seed, validation)
            if role == "baseline":
                fit = partial(trainer.fit_reference, recipe, seed)
            try:
                runs.append(store.load_or_fit(kind, recipe, seed, fit))
            except FitFailed as error:
                raise FitFailed(f"with seed {seed}: {error}") from error
            show(max(done, stored))
    at_last = [role == "baseline" and 0 < run.best_epoch == recipe.max_epochs for run in runs]
    return Arm(
        name=name,
        role=role,
        summary=summary,
        recipe=recipe.to_dict(),
        settings={},
        members=recipe.n_averaged,
        val_macro_f1=validation.score,
        trials=[],
        seeds=seeds,
        predictions=tuple(run.test for run in runs),
        histories=tuple(run.history for run in runs),
        best_epochs=tuple(run.best_epoch for run in runs),
        capped=tuple(at_last) if role == "baseline" else (validation.capped,) * len(runs),
        temperatures=tuple(run.temperature for run in runs),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        seconds=validation.seconds + sum(run.seconds for run in runs),
    )


def _validate(context: TrainingContext, recipe: Recipe, store: RunStore) -> CrossValidation:
    """Returns the cross-validation of a recipe, by which all arms are compared."""
    definition = context.definition
    seeds = range(definition.seed, definition.seed + definition.trial_seeds)
    return store.load_or_validate(recipe, seeds, lambda: context.trainer.cross_validate(recipe, seeds))


def _build_results(
    context: TrainingContext,
    arms: list[Arm],
    omitted: list[Omitted],
    counts: str,
    study_toml: str,
    store: RunStore,
    strategies: Sequence[Strategy] = (),
) -> Results:
    """Returns the results that a report shows; `counts` completes the sentence that says what was run."""
    definition, manifest = context.definition, context.manifest
    data = f"Landmarks: {definition.data}."
    if definition.data == SYNTHETIC:
        data = "Landmarks: synthetic, drawn by this program. Nothing here is a result about Mars."
    # Rounded as environment.json stores them, so that a report rebuilt from its folder is the same.
    arms = [replace(arm, seconds=round(arm.seconds, 2)) for arm in arms]
    seconds = {"features": context.seconds} | {arm.name: arm.seconds for arm in arms}
    names = [arm.name for arm in arms if arm.name != BASELINE]
    facts = {"digests": context.facts, "seconds": seconds, "test_access": store.test_accesses()}
    test = manifest.canonical_images("test")[["image", "landmark", "source", "label"]]
    return Results(
        name=definition.name,
        classes=manifest.spec.classes,
        setting=f"{data} {context.description}; {counts}.",
        study_toml=study_toml,
        test=test.reset_index(drop=True),
        data=manifest.summary().drop(columns="label"),
        arms=tuple(arms),
        omitted=tuple(omitted),
        trial_seeds=definition.trial_seeds,
        appendix=describe_strategies(strategy for strategy in strategies if strategy.name in names),
        environment=environment.describe() | facts,
    )
