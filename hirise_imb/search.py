"""One Optuna study a strategy: it starts or goes on to the asked number of trials, and the best is chosen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hirise_imb.errors import UserError
from hirise_imb.evaluation import per_class
from hirise_imb.files import make_folder
from hirise_imb.landmarks import CLASSES
from hirise_imb.progress import Show
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import Strategy
from hirise_imb.training import TOGETHER, Job, OnEpoch, Run

Storage = optuna.storages.RDBStorage

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

Fit = Callable[[Sequence[Job]], list[Run]]
"""Trains jobs, calling back after each epoch."""


@dataclass(frozen=True)
class Chosen:
    """What a search decided."""

    recipe: Recipe
    settings: dict[str, str | float | int]
    trial: int
    """Its place among the finished trials, counted from 0."""
    val_macro_f1: float
    history: list[dict[str, str | float | None]]
    """One entry a finished trial, in order: state and value."""
    seconds: float = field(compare=False)
    """Wall time of the finished trials, those of earlier runs included."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other runs out of the study whose database is `path`, there already or not.

    Raises:
        UserError: another process runs this study.
    """
    make_folder(path.parent)
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path} is in use by another `study run`: wait for it, or give this study another name."
        ) from error
    try:
        yield
    finally:
        lock.release()


def connect(path: Path) -> Storage:
    """Open the SQLite database of a study, made anew where there is none.

    Raises:
        UserError: the file is no Optuna database.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # SQLite answers "database is locked" at once while the dashboard reads, unless it is told to wait.
        store = Storage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    except Exception as error:
        reason = getattr(error, "orig", error)  # SQLAlchemy's own text has line breaks and a link
        if "file is not a database" in str(reason) or isinstance(error, RuntimeError):
            raise UserError(f"{path} is no database of this Optuna version ({reason}): move it away.") from error
        raise
    # A trial writes some fifty times, and waiting for the disk each time takes longer than its training. With a log
    # that is written ahead, a killed process loses nothing; a power failure may lose the last trials, never the file.
    sqlalchemy.event.listen(store.engine, "connect", _write_ahead)
    store.engine.dispose()
    return store


def _write_ahead(connection: Any, _: object) -> None:  # noqa: ANN401  (any database driver's)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_study(store: Storage, name: str, facts: Mapping[str, str | int]) -> optuna.Study:
    """Create the study `name`, or open it to go on.

    Args:
        store: holds all studies of a run.
        name: of the Optuna study.
        facts: what the trials depend on beside their settings.

    Raises:
        UserError: the study exists and was made with other facts.
    """
    # Pruning starts once five trials tell what an epoch is worth, and never in the first five epochs, where slow
    # starters look bad.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=6)
    study = optuna.create_study(
        storage=store, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
    )
    for key, value in facts.items():
        before = study.user_attrs.get(key, value)
        if before != value:
            raise UserError(
                f"The study {name} was made with {key} {before}, not {value}: give this one another --name, or another "
                f"folder with --out."
            )
        study.set_user_attr(key, value)
    with _experimental():
        study.set_metric_names(["validation macro F1"])  # what the dashboard calls the value
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its process is gone: this run holds the lock
    return study


def run_trials(
    study: optuna.Study, strategy: Strategy, cuts: Sequence[str], trials: int, seed: int, fit: Fit, show: Show
) -> None:
    """Bring the study to at least `trials` finished trials, in rounds that train together.

    Trials that are there already are not run again. What a trial tries depends on `seed`, on its place among the
    finished ones and on the rounds before its own, so a search that was interrupted, or asked for more trials later,
    ends as an undisturbed one does.

    Args:
        study: from `open_study`.
        strategy: suggests the recipes.
        cuts: the backbone's cut points.
        trials: finished (complete or pruned) trials to reach.
        seed: of the sampler, and of every fit: what differs between trials is the recipe.
        fit: trains the jobs of a round.
        show: called with the number of finished trials, and shares of those that train, as they grow.
    """
    while (done := len(before := finished(study))) < trials:
        known = before[: done - done % TOGETHER]
        settings = _proposals(known, strategy, cuts, seed)[done - len(known) : trials - len(known)]
        _round(study, known, settings, strategy, cuts, seed, fit, done, show)
        show(len(finished(study)))


def _proposals(
    known: Sequence[FrozenTrial], strategy: Strategy, cuts: Sequence[str], seed: int
) -> list[dict[str, str | float | int]]:
    """What the trials of the round after the `known` ones try: starts of the strategy, then the sampler's ideas.

    They follow from the known trials alone. The sampler keeps them apart by taking each as a bad one until it is told
    better ("constant liar"; Ginsbourger et al. 2010).
    """
    starts = strategy.starts(cuts)
    # A study of its own: the sampler sees the rounds before and nothing that the round under way has found.
    aside = optuna.create_study(direction="maximize")
    aside.add_trials(known)
    settings = []
    for place in range(len(known), len(known) + TOGETHER):
        # A sampler's state is not stored: with one seed for all, a resumed search would repeat its first points.
        state = np.random.SeedSequence((seed, place)).generate_state(1)[0]
        sampler = optuna.samplers.TPESampler(seed=int(state), n_startup_trials=TOGETHER)
        aside.sampler = _fixed(starts[place] if place < len(starts) else {}, sampler)
        trial = aside.ask()
        strategy.recipe(trial, cuts)
        settings.append(trial.params)
    return settings


def _fixed(
    settings: Mapping[str, str | float | int], sampler: optuna.samplers.BaseSampler
) -> optuna.samplers.BaseSampler:
    """The sampler, but for these settings."""
    with _experimental():
        return optuna.samplers.PartialFixedSampler(dict(settings), sampler)


def _round(
    study: optuna.Study,
    known: Sequence[FrozenTrial],
    settings: Sequence[dict[str, str | float | int]],
    strategy: Strategy,
    cuts: Sequence[str],
    seed: int,
    fit: Fit,
    done: int,
    show: Show,
) -> None:
    """Trials with these settings; the value of each is the validation macro F1 of its best epoch, pruned or not."""
    trials = []
    jobs = []
    # Pruning too looks at the rounds before only; which trials of this one end first is chance.
    aside = optuna.create_study(direction="maximize", pruner=study.pruner)
    aside.add_trials(known)
    shares = [0.0] * len(settings)

    def note(place: int, share: float) -> None:
        shares[place] = share
        show(done + sum(shares))

    for place, chosen in enumerate(settings):
        study.sampler = _fixed(chosen, optuna.samplers.RandomSampler(seed=0))
        trials.append(trial := study.ask())
        recipe = strategy.recipe(trial, cuts)
        trial.set_user_attr("recipe", recipe.to_dict())
        jobs.append(Job(recipe, seed, _reporter(trial, aside.ask(), recipe.max_epochs, partial(note, place))))
    try:
        runs = fit(jobs)
    except Exception:
        for trial in trials:
            study.tell(trial, state=TrialState.FAIL)
        raise
    for trial, run in zip(trials, runs, strict=True):
        trial.set_user_attr("seconds", round(run.seconds, 2))
        trial.set_user_attr("best_epoch", run.best_epoch)
        for label, f1 in enumerate(per_class(run.val_confusion)["f1"]):
            trial.set_user_attr(f"f1/{CLASSES[label]}", float(f1))
        if run.cut_short:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, run.val_macro_f1)


def _reporter(trial: optuna.Trial, judged: optuna.Trial, most: int, note: Show) -> OnEpoch:
    """Report to a trial, and end its run when its double among the known trials would be pruned.

    Args:
        trial: of the study.
        judged: its double, beside the trials that it is compared with.
        most: epochs it may take.
        note: told the share of them that is done.
    """

    def on_epoch(epoch: int, best: float) -> bool:
        note(epoch / most)
        trial.report(best, epoch)
        judged.report(best, epoch)
        return not judged.should_prune()

    return on_epoch


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Complete and pruned trials, in order."""
    return study.get_trials(deepcopy=False, states=FINISHED)


@contextmanager
def _experimental() -> Iterator[None]:
    """Use a part of Optuna that may change; the upper bound on its version guards us, the user needs no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def choose(study: optuna.Study, strategy: Strategy, cuts: Sequence[str], trials: int) -> Chosen:
    """The best of the first `trials` finished ones: complete, highest value, earliest of equals.

    Later ones, from a run that asked for more, are left aside, so that a definition always gives the same choice.
    """
    first = finished(study)[:trials]
    complete = [trial for trial in first if trial.state is TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (trial.values[0], -trial.number))
    return Chosen(
        recipe=strategy.recipe(FixedTrial(best.params), cuts),
        settings=best.params,
        trial=first.index(best),
        val_macro_f1=best.values[0],
        history=[{"state": trial.state.name.lower(), "value": trial.value} for trial in first],
        seconds=sum(trial.user_attrs["seconds"] for trial in first),
    )
