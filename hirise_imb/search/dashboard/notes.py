"""The note of a study in the dashboard: a Markdown description of its search."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.search.dashboard.pictures import PICTURE
from hirise_imb.search.identifiers import TrialNumber
from hirise_imb.search.result import SearchResult
from hirise_imb.search.search import Search
from hirise_imb.strategies import Strategy
from hirise_imb.training.outcome import Outcome
from hirise_imb.utils.errors import FitFailed

SEPARATOR = "*The search rewrites everything above this line; your notes below it are kept.*"

_MIN_TRIALS_FOR_IMPORTANCE = 8
"""Number of complete trials from which hyperparameter importances are shown."""

_RELIABLE_TRIALS = 50
"""Number of complete trials from which importances are more than a hint; from experience, not theory."""

_MIN_VALUE_RANGE = 1e-4
"""Range of values below which settings do not differ, and fANOVA's trees find no split."""

_MAX_REASONS = 10
"""Largest number of reasons for failures in a note."""


def write_study_note(search: Search) -> None:
    """Describes a search in the note of its study: trials, best trial, hyperparameters and their importance.

    It covers the same trials as `search.choose`. What a user has written below its last line is kept. If nothing is
    new, the note stays as it is.

    Args:
        search: a search, complete or not.
    """
    from optuna_dashboard import get_note, save_note

    study = search.trial_store.study
    note = get_note(study)
    user_part = note.partition(SEPARATOR)[2] if SEPARATOR in note else f"\n\n{note}" if note else ""
    # The order matters: trials that finish in between are only listed, so the best trial is always among the listed
    # ones.
    result = search.choose()
    trials = list(search.finished_trials().values())
    description = "\n\n".join(_describe_search(search, result, trials))
    # Importances take seconds. They follow from the trials that are described, so they need not be computed again.
    if note.startswith(f"{description}\n\n"):
        return
    importance = "\n\n".join(_describe_importance(search.strategy, trials))
    sections = (description, f"## Importance of parameters\n\n{importance}", "---", f"{SEPARATOR}{user_part}")
    save_note(study, "\n\n".join(sections))


def _describe_search(search: Search, result: Outcome[SearchResult], trials: Sequence[FrozenTrial]) -> list[str]:
    """Returns the paragraphs of the note, except the importances."""
    strategy = search.strategy
    summary = strategy.summary[:1].upper() + strategy.summary[1:]
    paragraphs = [
        f"# {_escape(strategy.name)}",
        f"{_escape(summary)}. Source: {_escape(strategy.source)}.",
        f"The best trial is the one with the highest {search.trial_store.label} on held-out folds, each made "
        "of complete observations; it is the mean over the seeds of a trial.",
        "## Trials",
        *_describe_trials(search, trials),
    ]
    settings: Mapping[str, object] = {}
    try:
        best_result = result.get()
        settings = best_result.settings
        [best] = [trial for trial in trials if trial.user_attrs["place"] == best_result.place]
        paragraphs += ["## Best trial", *_describe_best_trial(search, best)]
    except FitFailed as failure:
        paragraphs.append(f"There is no best trial: {_escape(str(failure))}.")
    return [*paragraphs, "## Parameters", _describe_parameters(strategy, settings)]


def _describe_trials(search: Search, trials: Sequence[FrozenTrial]) -> list[str]:
    """Returns paragraphs on how many trials are complete, failed or interrupted, and why they failed."""
    states = Counter(trial.state for trial in trials)
    words = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}
    counts = ", ".join(f"{states[state]} {word}" for state, word in words.items())
    paragraphs = [f"{len(trials)} of {search.n_trials} are finished: {counts}."]
    if search.n_trials < search.max_trials:
        paragraphs[0] += f" There are no more distinct settings; {search.max_trials} trials were asked for."
    reasons = Counter(trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs)
    if reasons:
        lines = [f"- {count} failed: {_escape(reason)}" for reason, count in reasons.most_common(_MAX_REASONS)]
        if len(reasons) > _MAX_REASONS:
            lines.append(f"- and {len(reasons) - _MAX_REASONS} more reasons")
        paragraphs.append("\n".join(lines))
    failed = search.trial_store.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    interrupted = sum("error" not in trial.user_attrs for trial in failed)
    if interrupted:
        paragraphs.append(f"{interrupted} more ended unfinished, since their process was interrupted or died.")
    return paragraphs


def _describe_best_trial(search: Search, trial: FrozenTrial) -> list[str]:
    """Returns paragraphs with the scores of the best trial and its confusion matrix."""
    study_id = search.trial_store.study_id
    trial_id = search.trial_store.trial_id(TrialNumber(trial.number))
    link = f"[Trial {trial.number}](/dashboard/studies/{study_id}/trials?numbers={trial.number})"
    epochs = " + ".join(map(str, trial.user_attrs["epochs"]))
    length = f", with {epochs} epochs" if epochs else ""  # closed-form heads have none
    if trial.user_attrs["capped"]:
        length += " (the most that are allowed)"
    remarks = [f"Note: {_escape(trial.user_attrs['note'])}."] if "note" in trial.user_attrs else []
    scores = [(_escape(name), f"{trial.user_attrs[f'f1/{name}']:.3f}") for name in search.classes.names]
    artifacts = get_all_artifact_meta(trial, storage=search.trial_store.storage)
    # The dashboard has no public function for the address of an artifact of a finished trial.
    pictures = [
        f"![confusion matrix](/artifacts/{study_id}/{trial_id}/{artifact.artifact_id})"
        for artifact in artifacts
        if artifact.filename == PICTURE
    ]
    summary = f"{link}: {search.trial_store.label} {trial.values[0]:.3f}{length}."
    return [summary, *remarks, _format_table(("class", "F1"), scores), *pictures]


def _describe_parameters(strategy: Strategy, best_settings: Mapping[str, object]) -> str:
    """Returns a table of the strategy's parameters with their values in the best trial."""
    rows = []
    for parameter in strategy.space:
        condition = ""
        if parameter.when is not None:
            name, values = parameter.when
            condition = f" (with {name} = {' or '.join(map(str, values))})"
        value = best_settings.get(parameter.name, "–")
        best = f"{value:.4g}" if isinstance(value, float) else str(value)
        cells = (parameter.name, best, parameter.describe_range() + condition, parameter.help, parameter.source)
        rows.append([_escape(cell) for cell in cells])
    return _format_table(("parameter", "best", "range", "what it is", "source"), rows) if rows else "It has none."


def _describe_importance(strategy: Strategy, trials: Sequence[FrozenTrial]) -> list[str]:
    """Returns paragraphs on the importance of each parameter by fANOVA, or on why there is none."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE:
        return [f"Left out: it takes at least {_MIN_TRIALS_FOR_IMPORTANCE} complete trials."]
    if np.ptp([trial.values[0] for trial in complete]) < _MIN_VALUE_RANGE:
        return ["Left out: all trials have the same value."]
    obstacles = {parameter.name: _importance_obstacle(parameter.name, complete) for parameter in strategy.space}
    covered = [name for name, obstacle in obstacles.items() if obstacle is None]
    paragraphs = []
    if covered:
        # A separate study, since importances cover all trials of a study. fANOVA, because Optuna's
        # default hides the effect of categorical parameters next to that of numerical ones.
        complete_study = optuna.create_study(direction="maximize")
        complete_study.add_trials(complete)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(complete_study, evaluator=evaluator, params=covered)
        caution = " With so few trials, take them as a hint." if len(complete) < _RELIABLE_TRIALS else ""
        paragraphs.append(
            f"Share of the variance between {len(complete)} complete trials that each parameter explains alone "
            f"(fANOVA; Hutter et al. 2014).{caution}"
        )
        rows = [(_escape(name), f"{share:.2f}") for name, share in shares.items()]
        paragraphs.append(_format_table(("parameter", "share"), rows))
    missing = [f"{_escape(name)} ({obstacle})" for name, obstacle in obstacles.items() if obstacle is not None]
    return [*paragraphs, f"Not covered: {', '.join(missing)}."] if missing else paragraphs


def _importance_obstacle(name: str, complete: Sequence[FrozenTrial]) -> str | None:
    """Returns why fANOVA can't cover a hyperparameter, or None if it can."""
    if any(name not in trial.params for trial in complete):
        return "not part of every trial"
    if len({trial.params[name] for trial in complete}) == 1:
        return "the same in all trials"
    if len({trial.distributions[name] for trial in complete}) > 1:
        return "its range was changed"
    return None


def _format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; the cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Returns Markdown that shows a string as it is, in one line."""
    return re.sub(r"([\\`*_~\[\]<>|$#&])", r"\\\1", " ".join(text.split()))
