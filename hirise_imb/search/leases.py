"""Leases of trials: several processes, on one or more machines, agree through a database on which of them trains what.

A trial has at most one row in the table, with its owner and a counter of beats. While a process has the lease, one of
its threads keeps counting. A process that sees the same owner and the same count for longer than the grace concludes
that the owner is dead and takes the trial over. Two rules make this safe:

* Signs of life are counts, not times. The clocks of machines may differ by minutes and may jump; a count either has
  changed since the last look or it has not, and each process measures how long with its own monotonic clock.
* Whoever changes a row names the state that it expects there (compare-and-swap): an owner its own name; a process
  that takes over, the owner and the beats that it has seen. If the row has changed since, nothing matches and nothing
  is written, so of any number of processes that try at once, at most one succeeds.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from dataclasses import dataclass
from types import TracebackType

import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

MAX_NAME_LENGTH = 255
"""Characters of a trial's name; MySQL takes no longer keys."""

_TABLE = sqlalchemy.Table(
    "hirise_imb_leases",
    sqlalchemy.MetaData(),
    # Named `unit` in the database, where tables of earlier versions of this program have that column.
    sqlalchemy.Column("unit", sqlalchemy.String(MAX_NAME_LENGTH), key="trial", primary_key=True),
    sqlalchemy.Column("owner", sqlalchemy.String(32), nullable=False),
    sqlalchemy.Column("beats", sqlalchemy.Integer, nullable=False),
)
_COLUMNS = _TABLE.c


class Lease:
    """The right to train a trial, while the `with` block lasts and the process is not suspended for long.

    It is created by `Leases.acquire`. A thread renews it periodically, which other processes take as a sign of life.
    """

    def __init__(self, engine: Engine, trial: str, owner: str, interval: float) -> None:
        """Takes the name of a trial and of its owner; see `Leases.acquire`."""
        self.trial = trial
        self._engine = engine
        self._interval = interval
        self._row_is_ours = (_COLUMNS.trial == trial) & (_COLUMNS.owner == owner)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of {trial}", daemon=True)

    def renew(self) -> bool:
        """Counts one beat up, and returns whether the lease is still ours.

        To be called before a result is stored: after True, no other process takes the trial over within its grace.
        The answer is False if the process was suspended, or cut off from the database, for longer than that.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not answer.
        """
        # One statement both checks and renews. Between two, another process could take the trial over.
        statement = _TABLE.update().where(self._row_is_ours).values(beats=_COLUMNS.beats + 1)
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def _beat(self) -> None:
        while not self._released.wait(self._interval):
            try:
                if not self.renew():
                    return  # lost for good: the owner of each lease is unique, so the row can't become ours again
            except SQLAlchemyError:
                # The database is away for the moment. The next beat may reach it in time; if not, the process learns
                # from `renew`, before it stores anything, that it has lost the trial.
                continue

    def __enter__(self) -> Lease:
        """Starts to beat."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the trial, if it is still ours."""
        self._released.set()
        self._thread.join()
        with self._engine.begin() as connection:
            connection.execute(_TABLE.delete().where(self._row_is_ours))


@dataclass(frozen=True)
class _Observation:
    """The lease of another process, as this process last saw it."""

    owner: str
    beats: int
    since: float
    """When these owner and beats were first seen, in seconds of this process's monotonic clock."""


class Leases:
    """The leases in a database, as one process sees them."""

    def __init__(self, engine: Engine, *, interval: float = 5.0, grace: float = 30.0) -> None:
        """Creates the table if there is none.

        Args:
            engine: engine of a storage from `database.connect`.
            interval: seconds from beat to beat.
            grace: seconds without a beat after which an owner counts as dead. It should span several intervals: a
                late beat costs a trial that is trained twice.

        Raises:
            ValueError: not 0 < interval < grace < infinity.
        """
        if not 0 < interval < grace < math.inf:
            raise ValueError(f"0 < interval < grace < infinity is needed, got interval {interval} and grace {grace}")
        self._engine = engine
        self._interval = interval
        self._grace = grace
        self._observations: dict[str, _Observation] = {}
        """Observations by trial, for trials of other processes."""
        try:
            _TABLE.create(engine, checkfirst=True)
        except DBAPIError:
            # Another process has created it between the check and our attempt; a second check finds it.
            _TABLE.create(engine, checkfirst=True)

    def acquire(self, trial: str) -> Lease | None:
        """Acquires the lease of a trial that is free, or whose owner has shown no sign of life during the grace.

        To be called again and again: only a process that has looked at a trial before can tell that its owner is dead.
        The lease must be entered at once, since it beats only inside its `with` block.

        Args:
            trial: name of the trial, the same in all processes; some databases ignore the case of letters.

        Returns:
            The lease, or None while another process has it.

        Raises:
            ValueError: the name is empty or too long.
        """
        if not 0 < len(trial) <= MAX_NAME_LENGTH:
            raise ValueError(f"the name of a trial must have 1 to {MAX_NAME_LENGTH} characters, got {len(trial)}")
        owner = uuid.uuid4().hex  # of this lease, not of the process: a lease that was lost stays lost
        return Lease(self._engine, trial, owner, self._interval) if self._claim(trial, owner) else None

    def clear(self, prefix: str) -> None:
        """Deletes the leases of all trials whose names start with `prefix`.

        Only for a process that knows that no other one works on these trials. Otherwise the trials of a killed run
        would have to wait for the grace to pass.
        """
        with self._engine.begin() as connection:
            # Not with LIKE, which SQLite applies without regard to case.
            start = sqlalchemy.func.substr(_COLUMNS.trial, 1, len(prefix))
            connection.execute(_TABLE.delete().where(start == prefix))
        self._observations.clear()

    def _claim(self, trial: str, owner: str) -> bool:
        """Writes a new owner into the row of a trial; returns whether that succeeded."""
        # The clock is read before the row: the count stood still at least until then. The other way round, a slow
        # answer of the database would lengthen the silence that we believe to have observed.
        now = time.monotonic()
        query = sqlalchemy.select(_COLUMNS.owner, _COLUMNS.beats).where(_COLUMNS.trial == trial)
        with self._engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            self._observations.pop(trial, None)
            return self._insert(trial, owner)
        observation = self._observations.get(trial)
        if observation is None or (observation.owner, observation.beats) != (row.owner, row.beats):
            # A new owner or a new beat: the silence is measured from now on. Here the clock is read after the row, for
            # the same reason: it must never seem longer than it was.
            self._observations[trial] = _Observation(row.owner, row.beats, since=time.monotonic())
            return False
        if now - observation.since < self._grace:
            return False
        # Several processes may come to this point together. The first one changes the row; for the others the row is
        # no longer what they have seen. The same is true if the owner gives a sign of life at the last moment.
        is_unchanged = (_COLUMNS.trial == trial) & (_COLUMNS.owner == row.owner) & (_COLUMNS.beats == row.beats)
        with self._engine.begin() as connection:
            result = connection.execute(_TABLE.update().where(is_unchanged).values(owner=owner, beats=0))
        self._observations.pop(trial, None)
        return result.rowcount == 1

    def _insert(self, trial: str, owner: str) -> bool:
        try:
            with self._engine.begin() as connection:
                connection.execute(_TABLE.insert().values(trial=trial, owner=owner, beats=0))
        except IntegrityError:
            return False  # the name is the primary key, and another process was faster
        return True
