"""Who works on what: units of work that several processes, here or on other machines, take one from another's hands."""

from __future__ import annotations

import math
import threading
import time
import uuid
from types import TracebackType

import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

LONGEST = 255
"""Characters of a unit's name: what MySQL takes as a key."""

_TABLE = sqlalchemy.Table(
    "hirise_imb_leases",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("unit", sqlalchemy.String(LONGEST), primary_key=True),
    sqlalchemy.Column("owner", sqlalchemy.String(32), nullable=False),
    sqlalchemy.Column("beats", sqlalchemy.Integer, nullable=False),
)
_ROW = _TABLE.c


class Lease:
    """A unit that is ours while the block lasts, if the process is not suspended for long.

    Made by `Leases.take`. A thread counts up the lease's beats in the database; others take that as a sign of life.
    """

    def __init__(self, engine: Engine, unit: str, owner: str, every: float) -> None:
        """See `Leases.take`."""
        self.unit = unit
        self._engine = engine
        self._every = every
        self._ours = (_ROW.unit == unit) & (_ROW.owner == owner)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {unit}", daemon=True)

    def is_ours(self) -> bool:
        """Ask the database whether the unit is still ours, and give a sign of life.

        Ask before a result is stored: after True, nobody takes the unit over within the grace of the others. False is
        what a process finds that was suspended, or cut off from the database, for longer than that.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database doesn't answer.
        """
        with self._engine.begin() as connection:
            return connection.execute(_TABLE.update().where(self._ours).values(beats=_ROW.beats + 1)).rowcount == 1

    def _keep(self) -> None:
        while not self._done.wait(self._every):
            try:
                if not self.is_ours():
                    return  # it never comes back: each lease has an owner of its own
            except SQLAlchemyError:
                continue  # the database is away: the next beat may reach it, and who asks `is_ours` is told

    def __enter__(self) -> Lease:
        """Start to beat."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the unit back, if it is still ours."""
        self._done.set()
        self._thread.join()
        with self._engine.begin() as connection:
            connection.execute(_TABLE.delete().where(self._ours))


class Leases:
    """The leases in a database, for one process that takes some of them.

    Whether a holder is dead is judged by the taker's own clock alone: its beats, read again and again, do not change.
    The clocks of machines are never compared.
    """

    def __init__(self, engine: Engine, *, every: float = 5.0, grace: float = 30.0) -> None:
        """Make the table where there is none.

        Args:
            engine: of the storage that `database.connect` opened.
            every: seconds from beat to beat.
            grace: seconds without a beat after which a holder counts as dead.

        Raises:
            ValueError: not 0 < every < grace < infinity.
        """
        if not 0 < every < grace < math.inf:
            raise ValueError(f"every is {every} and grace {grace}: 0 < every < grace < infinity is needed")
        self._engine = engine
        self._every = every
        self._grace = grace
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}
        """Owner and beats of units in other hands, and when they were first seen so, in our monotonic seconds."""
        try:
            _TABLE.create(engine, checkfirst=True)
        except DBAPIError:
            _TABLE.create(engine, checkfirst=True)  # another process made it between our look and our attempt

    def take(self, unit: str) -> Lease | None:
        """Take a unit that is free, or whose holder has given no sign of life for as long as the grace.

        Call it again and again: only a process that has seen a unit before can tell that its holder is dead. The lease
        is to be entered at once; it does not beat before.

        Args:
            unit: its name, the same in all processes; names that differ in case only may count as one.

        Returns:
            The lease, or None while the unit is in other hands.

        Raises:
            ValueError: the name is empty or too long.
        """
        if not 0 < len(unit) <= LONGEST:
            raise ValueError(f"unit has {len(unit)} characters: 1 to {LONGEST} are needed")
        owner = uuid.uuid4().hex
        return Lease(self._engine, unit, owner, self._every) if self._took(unit, owner) else None

    def _took(self, unit: str, owner: str) -> bool:
        now = time.monotonic()  # before the look: the beats stood still until then at least
        with self._engine.begin() as connection:
            row = connection.execute(sqlalchemy.select(_ROW.owner, _ROW.beats).where(_ROW.unit == unit)).one_or_none()
        if row is None:
            self._seen.pop(unit, None)
            return self._added(unit, owner)
        before = (row.owner, row.beats)
        known, since = self._seen.get(unit, (None, now))
        if known != before:
            self._seen[unit] = (before, time.monotonic())
            return False
        if now - since < self._grace:
            return False
        # Of all that come to this end at once, one still finds what all have seen; a beat in between ends it for all.
        seen = (_ROW.unit == unit) & (_ROW.owner == row.owner) & (_ROW.beats == row.beats)
        with self._engine.begin() as connection:
            taken = connection.execute(_TABLE.update().where(seen).values(owner=owner, beats=0)).rowcount == 1
        self._seen.pop(unit, None)
        return taken

    def _added(self, unit: str, owner: str) -> bool:
        try:
            with self._engine.begin() as connection:
                connection.execute(_TABLE.insert().values(unit=unit, owner=owner, beats=0))
        except IntegrityError:
            return False  # another process was faster
        return True

    def clear(self, start: str) -> None:
        """Forget the leases of units whose names begin so, for a process that knows that it is alone with them."""
        with self._engine.begin() as connection:
            connection.execute(_TABLE.delete().where(_ROW.unit.startswith(start, autoescape=True)))
        self._seen.clear()
