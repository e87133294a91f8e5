"""The trials of one search in the database: how they are started, finished, failed, and read back by place.

User attributes of a trial: `place` and `recipe` from its start; `seconds`, `epochs` (of each stage in a final fit),
`capped`, `f1/<class>` (mean over seeds) and, where the trainer has something to remark, `note` when it has finished;
`error`, the reason, when its recipe failed; `lost` when its worker died. A failed trial without `error` was interrupted
or lost: it does not count, and its place is tried again. The same holds for a trial that disagrees with its digest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.classification import per_class_scores
from hirise_imb.metrics.targets import MACRO_F1
from hirise_imb.search.database import Storage
from hirise_imb.search.digests import (
    DIGEST,
    DigestCheck,
    close_as_interrupted,
    compute_digest,
    is_finished,
    store_earlier_digests,
)
from hirise_imb.search.failures import refuse_damaged_rows
from hirise_imb.search.identifiers import SearchPlace, TrialId, TrialNumber
from hirise_imb.search.proposals import Proposal
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import warn

PublishTrial = Callable[[FrozenTrial, CrossValidation], None]
"""Publishes a trial's pictures; called while the trial is still running in the database."""

VERSION = 4
"""Version of how trials are proposed and stored; a study of another version can't be continued."""


@dataclass(frozen=True)
class TrialStore:
    """The trials of one search, in a study that `open_trial_store` returned."""

    study: optuna.Study
    storage: Storage
    label: str
    """Name of the target metric, which is the value of a trial."""
    _check: DigestCheck = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reads the digests of trials from earlier versions."""
        object.__setattr__(self, "_check", DigestCheck(self.study, self.storage))

    @property
    def study_id(self) -> int:
        """Key of the study in the database."""
        return self.storage.get_study_id_from_name(self.study.study_name)

    def trial_id(self, number: TrialNumber) -> TrialId:
        """Returns the key of the trial that Optuna has given a number."""
        return TrialId(self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number))

    def finished_trials(self) -> dict[SearchPlace, FrozenTrial]:
        """Returns the complete and failed trials in the order of their places, without damaged ones."""
        trials = {
            SearchPlace(trial.user_attrs["place"]): trial
            for trial in self._read_trials(TrialState.COMPLETE, TrialState.FAIL)
            if is_finished(trial) and not self._check.is_damaged(trial)
        }
        return dict(sorted(trials.items()))

    def close_damaged_trials(self) -> None:
        """Closes trials that disagree with their digests as interrupted, so that their places are tried again."""
        trials = self._read_trials(TrialState.COMPLETE, TrialState.FAIL)
        damaged = [trial.number for trial in trials if is_finished(trial) and self._check.is_damaged(trial)]
        if damaged:
            numbers = ", ".join(map(str, damaged))
            warn(
                f"Study {self.study.study_name}: damaged in the database, and trained again: "
                f"trial{'s' if len(damaged) > 1 else ''} {numbers}."
            )
            close_as_interrupted(self.storage, [self.trial_id(TrialNumber(number)) for number in damaged])

    def _read_trials(self, *states: TrialState) -> list[FrozenTrial]:
        with refuse_damaged_rows(self.storage, self.study.study_name):
            return self.study.get_trials(deepcopy=False, states=states)

    def start_trial(self, place: SearchPlace, proposal: Proposal) -> TrialId:
        """Writes a running trial to the database."""
        # In one transaction: a process that dies here leaves a complete trial or none.
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(proposal.settings),
            distributions=dict(proposal.distributions),
            user_attrs={"place": place, "recipe": proposal.recipe.to_dict()},
        )
        return TrialId(self.storage.create_new_trial(self.study_id, trial))

    def report_epoch(self, trial: TrialId, epoch: int, best_score: float) -> None:
        """Writes the best validation score up to an epoch, which the dashboard draws as the trial's curve.

        Raises:
            UpdateFinishedTrialError: another process has finished the trial.
        """
        self.storage.set_trial_intermediate_value(trial, epoch, best_score)

    def finish_trial(
        self, trial: TrialId, validation: CrossValidation, classes: ClassSet, publish: PublishTrial | None
    ) -> None:
        """Writes the scores of a recipe, publishes them, then closes its trial as complete.

        Raises:
            UpdateFinishedTrialError: another process has finished the trial.
        """
        attributes: dict[str, Any] = {
            "seconds": round(validation.seconds, 2),
            "epochs": list(validation.epochs),
            "capped": validation.capped,
        }
        if validation.notes:
            attributes["note"] = "; ".join(validation.notes)
        scores = np.mean([per_class_scores(confusion)["f1"] for confusion in validation.confusions], axis=0)
        attributes |= {f"f1/{name}": float(f1) for name, f1 in zip(classes.names, scores, strict=True)}
        for key, value in attributes.items():
            self.storage.set_trial_user_attr(trial, key, value)
        if publish is not None:
            publish(self.storage.get_trial(trial), validation)
        self._close_trial(trial, TrialState.COMPLETE, [validation.score])

    def fail_trial(self, trial: TrialId, reason: str) -> None:
        """Closes a trial whose recipe failed; it counts as finished.

        Raises:
            UpdateFinishedTrialError: another process has finished the trial.
        """
        self.storage.set_trial_user_attr(trial, "error", reason)
        self._close_trial(trial, TrialState.FAIL, None)

    def _close_trial(self, trial_id: TrialId, state: TrialState, values: list[float] | None) -> None:
        trial = self.storage.get_trial(trial_id)
        trial.state, trial.values = state, values
        self.storage.set_trial_system_attr(trial_id, DIGEST, compute_digest(trial))
        self.storage.set_trial_state_values(trial_id, state, values)

    def interrupt_trial(self, trial: TrialId) -> None:
        """Closes a trial if it is still running; its place is tried again."""
        if not self.storage.get_trial(trial).state.is_finished():
            self.storage.set_trial_state_values(trial, TrialState.FAIL)

    def reap_dead_trials(self, place: SearchPlace) -> int:
        """Closes the trial that a dead worker has left running, and counts the workers that have died at a place.

        Args:
            place: place whose lease this process has; any other process that started a trial there is dead.
        """
        deaths = 0
        for trial in self._read_trials(TrialState.RUNNING, TrialState.FAIL):
            if trial.user_attrs.get("place") != place or "error" in trial.user_attrs:
                continue
            if trial.state is TrialState.RUNNING:
                # A worker that was suspended rather than dead may finish the trial at this very moment: then it counts.
                with suppress(UpdateFinishedTrialError):
                    trial_id = self.trial_id(TrialNumber(trial.number))
                    self.storage.set_trial_user_attr(trial_id, "lost", "its worker died")
                    self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
                    deaths += 1
            else:
                deaths += "lost" in trial.user_attrs
        return deaths


def open_trial_store(
    storage: Storage, name: str, facts: Mapping[str, str | int], label: str = MACRO_F1.label
) -> TrialStore:
    """Creates the study `name`, or opens it to continue it.

    Args:
        storage: database of all searches.
        name: name of the study in the database.
        facts: what the trials depend on in addition to their settings.
        label: name of the target metric, for the dashboard.

    Raises:
        UserError: the study exists and was begun with other facts, or with another version of the program, or a row of
            it can't be decoded.
    """
    with refuse_damaged_rows(storage, name):
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        if "facts" in study.user_attrs or study.get_trials(deepcopy=False):
            _check_facts(name, study.user_attrs.get("facts", {}), facts)
        study.set_user_attr("facts", {"search": VERSION, **facts})
        # The upper bound on Optuna's version guards against changes of its experimental parts; users need no warning.
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names([f"validation {label}"])  # shown by the dashboard
        store_earlier_digests(study, storage)
        trial_store = TrialStore(study, storage, label)
    trial_store.close_damaged_trials()
    return trial_store


def _check_facts(name: str, stored: Mapping[str, Any], facts: Mapping[str, str | int]) -> None:
    """Refuses to continue a study whose trials could not be compared with those of this run."""
    remedy = "give this study another --name, or choose another folder with --out."
    version = stored.get("search", 0)
    if version != VERSION:
        age = "an earlier" if version < VERSION else "a later"
        raise UserError(
            f"The study {name} was begun with {age} version of this program and can't be continued: {remedy}"
        )
    # Studies that name no metric were made with macro F1.
    default: dict[str, str | int] = {"metric": MACRO_F1.name}
    stored = default | dict(stored)
    for key, value in (default | dict(facts)).items():
        if stored.get(key) != value:
            begun_with = f"{key} {stored[key]}" if key in stored else f"no {key}"
            raise UserError(f"The study {name} was begun with {begun_with}, not with {key} {value}: {remedy}")
