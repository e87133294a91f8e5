"""A whole study: data, features, baseline, searches, refits, report. Whatever was finished before is not done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hirise_imb.config import StudyDefinition, check_known
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.splits import Selection
from hirise_imb.imbalance.sampling import SplitFileRows
from hirise_imb.metrics.classification import Predictions
from hirise_imb.pipeline.run_store import RunStore
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Baseline, Omitted, Results, write_baseline, write_report
from hirise_imb.reporting.appendix import appendix
from hirise_imb.reporting.baseline import check_comparable
from hirise_imb.reporting.html.index import write_index
from hirise_imb.reporting.html.thumbnails import thumbnails
from hirise_imb.reporting.results import BASELINE
from hirise_imb.search import search
from hirise_imb.search.scheduler import open_scheduler, selection_of, strategies_to_search
from hirise_imb.search.search import SearchResult
from hirise_imb.search.workers import worker_pool
from hirise_imb.strategies import CONTROL, Strategy
from hirise_imb.training.context import TrainingContext, load_manifest
from hirise_imb.training.epoch_loop import Failed, Job
from hirise_imb.utils import environment
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.progress import track

REFERENCE_RECIPES = {"unique": Recipe(), "split-file": Recipe(sampling=SplitFileRows())}
"""The reference run by the rows an epoch goes through: each unique image once, or as often as the split file has it."""


@dataclass(frozen=True)
class RunOptions:
    """How a study is run; no result depends on it but by a time that ran out."""

    storage: str | None = None
    """Address of the database; None is the file below `out`."""
    workers: int = 1
    """Processes on this machine."""
    timeout: float | None = None
    """Seconds after which no further trials are begun."""
    thumbnails: bool = False
    """Whether the page shows landmarks."""

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        if self.workers < 1:
            raise UserError(f"--workers is {self.workers}: use 1 or more.")
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"--timeout is {self.timeout:g}: give seconds, more than 0.")


def run_study(definition: StudyDefinition, out: Path, effort: RunOptions = RunOptions()) -> tuple[Results, Path]:
    """Run or continue a study; return what it found and the path of its page.

    Args:
        definition: what to do.
        out: folder that holds `studies/` (databases and finished runs) and `reports/`.
        effort: who searches, and for how long.

    Raises:
        UserError: the definition can't be run here; nothing was written then that a later run would not use.
    """
    strategies = strategies_to_search(definition)
    images = load_manifest(definition)
    with _held(definition, out):
        with open_scheduler(definition, images, strategies, out, effort.storage) as searches:
            bench = searches.bench
            runs = _runs(bench, out)
            arms = [_baseline(bench, "unique", runs)]
            if effort.storage is None:
                searches.leases.clear(f"{definition.name}/")  # whoever held one is gone: this process has the lock
            with worker_pool(
                effort.workers - 1, out / "studies" / definition.name, join_study, definition, out, searches.place
            ):
                searches.work(effort.timeout)
            found = searches.found()
        omitted = []
        for strategy in strategies:
            chosen = found[strategy.name]
            arm = _of_strategy(bench, strategy, chosen, runs) if isinstance(chosen, SearchResult) else chosen
            if isinstance(arm, Failed):
                omitted.append(Omitted(strategy.name, strategy.summary, arm.reason))
            else:
                arms.append(arm)
    counts = f"{definition.trials} trials a strategy, {definition.refits} seeds a fit"
    results = _results(bench, arms, omitted, counts, definition.to_toml(), runs)
    pictures = thumbnails(results, images.path) if effort.thumbnails else None
    page = write_report(results, _report(definition, out), pictures)
    write_index(out / "reports")
    return results, page


def join_study(definition: StudyDefinition, out: Path, place: Path | str) -> None:
    """Work on the searches of a study that runs elsewhere, until there is nothing left to do.

    Args:
        definition: of the study.
        out: for what a worker writes beside its trials, the dashboard's pictures.
        place: the database, a file or an address.

    Raises:
        UserError: the definition can't be run here, or the study was made with other data or weights.
    """
    strategies = strategies_to_search(definition)
    images = load_manifest(definition)
    address = None if isinstance(place, Path) else place
    with open_scheduler(definition, images, strategies, out, address) as searches:
        searches.work(None)


def run_baseline(definition: StudyDefinition, rows: str, out: Path) -> tuple[Baseline, Path]:
    """Fit the reference run of a study alone, and set it beside the published table.

    What the study has fitted is used, and the study will use what is fitted here.

    Args:
        definition: of the study; its strategies and trials play no part.
        rows: that an epoch goes through, one of `REFERENCE_RECIPES`.
        out: as for `run_study`.

    Raises:
        UserError: the definition can't be run here, or the test split has a single landmark.
    """
    check_known("kind of rows", rows, REFERENCE_RECIPES)
    images = load_manifest(definition)
    check_comparable(HIRISE.classes)
    if len(images.canonical_images("test")) < 2:
        raise UserError(f"{definition.data} has one test landmark: a shuffled pairing takes two, use other data.")
    with _held(definition, out):
        bench = TrainingContext.of(definition, images, [])
        runs = _runs(bench, out)
        arm = _baseline(bench, rows, runs)
    head = f"# The reference run of this study alone: study baseline --rows {rows}\n"
    seeds = f"{definition.refits} seed{'s' if definition.refits > 1 else ''}"
    results = _results(bench, [arm], [], f"{arm.summary}, {seeds}", head + definition.to_toml(), runs)
    folder = BASELINE if rows == "unique" else f"{BASELINE}-{rows}"
    baseline = Baseline(results)
    page = write_baseline(baseline, _report(definition, out) / folder)
    write_index(out / "reports")
    return baseline, page


def _report(definition: StudyDefinition, out: Path) -> Path:
    return out / "reports" / definition.name


@contextmanager
def _held(definition: StudyDefinition, out: Path) -> Iterator[None]:
    """Keep other processes out of the study below `out`."""
    # What can't be written is found out before the hours of work; what can't be computed, before anything is.
    ensure_folder(out / "reports")
    ensure_folder(out / "studies")
    with search.lock_study(out / "studies" / definition.name):
        yield


def _runs(bench: TrainingContext, out: Path) -> RunStore:
    """The finished fits of the study."""
    return RunStore(ensure_folder(out / "studies" / f"{bench.definition.name}.runs"), bench.facts)


def _seeds(bench: TrainingContext) -> tuple[int, ...]:
    return tuple(range(bench.definition.seed, bench.definition.seed + bench.definition.refits))


def _baseline(bench: TrainingContext, rows: str, runs: RunStore) -> Arm:
    through = {"unique": "unique images", "split-file": "the repeated rows of the split file"}
    summary = f"the reference run: cross-entropy on {through[rows]}, frozen backbone"
    arm = _arm(bench, BASELINE, summary, REFERENCE_RECIPES[rows], runs)
    judged = arm if isinstance(arm, Failed) else _judged(bench, REFERENCE_RECIPES[rows], runs)
    if isinstance(arm, Failed) or isinstance(judged, Failed):
        failure = arm if isinstance(arm, Failed) else judged
        raise UserError(f"The baseline can't be fitted ({failure}): check the weights and the images.")
    return replace(arm, val_macro_f1=judged)


def _of_strategy(bench: TrainingContext, strategy: Strategy, chosen: SearchResult, runs: RunStore) -> Arm | Failed:
    selection = selection_of(bench.definition, strategy)
    arm = _arm(bench, strategy.name, strategy.summary, chosen.recipe, runs)
    if isinstance(arm, Failed):
        return arm
    same = selection == _yardstick(bench.definition)
    judged = chosen.val_macro_f1 if same else _judged(bench, chosen.recipe, runs)
    if isinstance(judged, Failed):
        return judged
    return replace(
        arm,
        selection=selection,
        settings=chosen.settings,
        val_macro_f1=judged,
        trials=chosen.history,
        seconds=arm.seconds + chosen.seconds,
    )


def _yardstick(definition: StudyDefinition) -> Selection:
    """How all arms are compared before the test split is looked at."""
    return "val" if definition.selection == "val" else "grouped-cv"


def _judged(bench: TrainingContext, recipe: Recipe, runs: RunStore) -> float | Failed:
    """Macro F1 of a recipe by the common yardstick."""
    by = _yardstick(bench.definition)
    job = Job(recipe, bench.definition.seed)
    run = runs.get(by, recipe, job.seed, lambda: bench.trainer.select([job], by)[0])
    return run if isinstance(run, Failed) else run.val_macro_f1


def _arm(bench: TrainingContext, name: str, summary: str, recipe: Recipe, store: RunStore) -> Arm | Failed:
    """Fit a recipe with each seed and predict the test split, as an arm without a search."""
    seeds = _seeds(bench)
    there = sum(store.has("test", recipe, seed) for seed in seeds)
    runs = []
    with track(f"{name} fits", len(seeds), "fits", already=there) as show:
        for done, seed in enumerate(seeds, 1):
            run = store.get("test", recipe, seed, partial(bench.trainer.refit, recipe, seed))
            if isinstance(run, Failed):
                return Failed(f"with seed {seed}: {run.reason}")
            runs.append(run)
            show(max(done, there))
    images = bench.trainer.task.images.names
    names = tuple(images[row] for row in bench.trainer.task.test)
    return Arm(
        name=name,
        summary=summary,
        recipe=recipe.to_dict(),
        settings={},
        val_macro_f1=runs[0].val_macro_f1,
        trials=[],
        seeds=seeds,
        predictions=tuple(Predictions(names, run.test) for run in runs if run.test is not None),
        histories=tuple(run.history for run in runs),
        best_epochs=tuple(run.best_epoch for run in runs),
        temperatures=tuple(run.temperature for run in runs if run.temperature is not None),
        seconds=sum(run.seconds for run in runs),
    )


def _results(
    bench: TrainingContext, arms: list[Arm], omitted: list[Omitted], counts: str, study_toml: str, runs: RunStore
) -> Results:
    """What a report is made from; `counts` ends the sentence that says what was run."""
    definition = bench.definition
    data = f"Landmarks: {definition.data}."
    if definition.data == "synthetic":
        data = "Landmarks: synthetic, drawn by this program. Nothing here is a result about Mars."
    # As environment.json keeps them, so that a report is the same when it is written again from its folder.
    arms = [replace(arm, seconds=round(arm.seconds, 1)) for arm in arms]
    seconds = {"features": bench.seconds} | {arm.name: arm.seconds for arm in arms}
    named = [arm.name for arm in arms if arm.name != BASELINE]
    about = environment.describe() | {"digests": bench.facts, "seconds": seconds, "test_access": runs.accesses()}
    return Results(
        name=definition.name,
        setting=f"{data} {bench.about}; {counts}.",
        study_toml=study_toml,
        classes=HIRISE.classes,
        test=bench.images.canonical_images("test")[["image", "landmark", "source", "label"]].reset_index(drop=True),
        data=bench.images.summary().drop(columns="label"),
        arms=tuple(arms),
        omitted=tuple(omitted),
        control_name=CONTROL if CONTROL in named else None,
        appendix=appendix(named),
        environment=about,
    )
