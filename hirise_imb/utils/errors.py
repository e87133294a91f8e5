"""The one error a user can cause; the command line prints it as a sentence and exits with code 2."""

from collections.abc import Sequence


def bullet_list(faults: Sequence[str], most: int) -> str:
    """Faults as lines of a message, the first `most` of them; the rest is counted."""
    more = f"\n  ... and {len(faults) - most} more" if len(faults) > most else ""
    return "".join(f"\n  {fault}" for fault in faults[:most]) + more


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


class NotApplicable(Exception):
    """A recipe can't work on this data; the message says why."""
