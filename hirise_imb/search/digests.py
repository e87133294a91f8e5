"""Digests of finished trials, by which a changed value in the database is noticed.

A trial is stored with the SHA-256 of everything that its search, its report and the dashboard's curves take from it.
The digest is a system attribute, which the dashboard does not show. A trial that does not agree with its digest is
damaged: it does not count, and its place is tried again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Final

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.search.database import Storage
from hirise_imb.search.failures import refuse_damaged_rows
from hirise_imb.utils.progress import warn

DIGEST: Final = "hirise_imb:digest"
"""System attribute of a finished trial."""

_EARLIER_DIGESTS: Final = "hirise_imb:earlier_digests"
"""System attribute of a study: digests, by number, of trials from versions of this program that did not store any."""


def compute_digest(trial: FrozenTrial) -> str:
    """Returns the digest of a finished trial."""
    content = {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": {name: distribution_to_json(one) for name, one in trial.distributions.items()},
        "intermediate_values": sorted(map(str, trial.intermediate_values.items())),
        # A process that believes this worker to be dead may add `lost` at the moment at which the trial is closed.
        "user_attrs": {key: value for key, value in trial.user_attrs.items() if key != "lost"},
    }
    # A damaged value may be of any type, also of one that JSON does not have.
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def is_finished(trial: FrozenTrial) -> bool:
    """Returns whether a trial is complete, or failed because of its recipe; others were interrupted or lost."""
    return trial.state is TrialState.COMPLETE or (trial.state is TrialState.FAIL and "error" in trial.user_attrs)


def store_earlier_digests(study: optuna.Study, storage: Storage) -> None:
    """Stores digests of the trials of a study that was begun by a version without digests; does so once."""
    study_id = storage.get_study_id_from_name(study.study_name)
    if _EARLIER_DIGESTS not in storage.get_study_system_attrs(study_id):
        trials = study.get_trials(deepcopy=False)
        digests = {str(t.number): compute_digest(t) for t in trials if is_finished(t) and DIGEST not in t.system_attrs}
        storage.set_study_system_attr(study_id, _EARLIER_DIGESTS, digests)


class DigestCheck:
    """Tells damaged trials of a study from others, and remembers the answers, since finished trials do not change."""

    def __init__(self, study: optuna.Study, storage: Storage) -> None:
        """Takes a study of this program, in the database that it is stored in."""
        study_id = storage.get_study_id_from_name(study.study_name)
        self._earlier: dict[str, str] = storage.get_study_system_attrs(study_id).get(_EARLIER_DIGESTS, {})
        self._damaged: dict[int, bool] = {}

    def is_damaged(self, trial: FrozenTrial) -> bool:
        """Returns whether a finished trial does not agree with its digest."""
        if trial.number not in self._damaged:
            stored = trial.system_attrs.get(DIGEST, self._earlier.get(str(trial.number)))
            self._damaged[trial.number] = stored != compute_digest(trial)
        return self._damaged[trial.number]


def warn_of_damaged_trials(storage: Storage) -> None:
    """Names the damaged trials of a database that is only shown; studies of other programs have no digests.

    Raises:
        UserError: a row can't be decoded.
    """
    for name in optuna.get_all_study_names(storage):
        with refuse_damaged_rows(storage, name):
            study = optuna.load_study(study_name=name, storage=storage)
            if _EARLIER_DIGESTS not in storage.get_study_system_attrs(storage.get_study_id_from_name(name)):
                continue
            check, trials = DigestCheck(study, storage), study.get_trials(deepcopy=False)
            if damaged := [str(trial.number) for trial in trials if is_finished(trial) and check.is_damaged(trial)]:
                warn(
                    f"Study {name}: damaged in the database: trial{'s' if len(damaged) > 1 else ''} "
                    f"{', '.join(damaged)}; the same run command trains what is damaged again."
                )


def close_as_interrupted(storage: Storage, trial_ids: Iterable[int]) -> None:
    """Closes damaged trials as if they had been interrupted, so that the dashboard takes none of them for the best."""
    # Optuna changes no finished trial.
    with storage.engine.begin() as connection:
        for trial_id in trial_ids:
            for statement in (
                "UPDATE trials SET state = 'FAIL' WHERE trial_id = :trial",
                "DELETE FROM trial_user_attributes WHERE trial_id = :trial AND key = 'error'",
            ):
                connection.execute(sqlalchemy.text(statement), {"trial": trial_id})
