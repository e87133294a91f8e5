"""Errors whose message is for the user, and the format of lists in messages."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

_MAX_LENGTH = 400
"""Largest number of characters of an item that are shown."""
_USER_ERRNOS: Final = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EIO, errno.ESTALE),  # a bad disk, or one that a network has lost
}
"""Errors of the file system that the user can fix; any other OSError is an error of the program."""


def bullet_list(items: Sequence[str], limit: int) -> str:
    """Returns the first `limit` items as indented lines of a message, and counts the others."""
    remainder = f"\n  ... and {len(items) - limit} more" if len(items) > limit else ""
    shown = [item if len(item) <= _MAX_LENGTH else f"{item[:_MAX_LENGTH]} ..." for item in items[:limit]]
    return "".join(f"\n  {item}" for item in shown) + remainder


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its class if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class UserError(Exception):
    """An error that the user can fix: the message says what is wrong, where, and what to do.

    The command line prints it as one sentence and exits with code 2.
    """


def describe_user_error(error: BaseException) -> str | None:
    """Returns the sentence for an error that the user can fix; None for an error of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BrokenPipeError):
        return "the output has no reader any more; let it read on, and run the command again."
    if isinstance(error, OSError) and error.errno in _USER_ERRNOS:
        place = error.filename2 or error.filename or "the disk"
        return f"{place}: {error.strerror}; fix that and run the command again."
    return None


class FitFailed(Exception):
    """A recipe could not be fitted; the message gives the reason. Raised within a trial, it fails that trial alone."""


class NotFinite(FitFailed, ValueError):
    """A number became infinite or NaN, in a fit or in arrays that are given; the message says which one.

    Within a trial it is a reason to fail, and for a caller who has given the arrays an error in a value.
    """


class NotApplicable(FitFailed):
    """A recipe can't be fitted to this data set, whatever the seed; the message gives the reason."""
