"""Errors whose message is for the user, and the format of lists in messages."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_LENGTH = 400
"""Largest number of characters of an item that are shown."""


def bullet_list(items: Sequence[str], limit: int) -> str:
    """Returns the first `limit` items as indented lines of a message, and counts the others."""
    remainder = f"\n  ... and {len(items) - limit} more" if len(items) > limit else ""
    shown = [item if len(item) <= _MAX_LENGTH else f"{item[:_MAX_LENGTH]} ..." for item in items[:limit]]
    return "".join(f"\n  {item}" for item in shown) + remainder


class UserError(Exception):
    """An error that the user can fix: the message says what is wrong, where, and what to do.

    The command line prints it as one sentence and exits with code 2.
    """


class FitFailed(Exception):
    """A recipe could not be fitted; the message gives the reason. Raised within a trial, it fails that trial alone."""


class NotApplicable(FitFailed):
    """A recipe can't be fitted to this data set, whatever the seed; the message gives the reason."""
