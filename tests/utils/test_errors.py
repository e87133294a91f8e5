"""Which errors are the user's, and what is said of them."""

from __future__ import annotations

import errno

import pytest

from hirise_imb.utils.errors import UserError, bullet_list, describe_user_error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("There is no strategy 'smoot'."), "There is no strategy 'smoot'."),
        (
            BrokenPipeError(errno.EPIPE, "Broken pipe"),
            "the output has no reader any more; let it read on, and run the command again.",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk: No space left on device; fix that and run the command again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "one.part", None, "one.csv"),
            "one.csv: Permission denied; fix that and run the command again.",
        ),
    ],
    ids=["message", "pipe", "disk", "renaming"],
)
def test_an_error_that_the_user_can_fix_is_told_in_a_sentence(error: BaseException, sentence: str) -> None:
    assert describe_user_error(error) == sentence


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError("without a number"),
        ValueError("wrong"),
        KeyboardInterrupt(),
    ],
    ids=["descriptor", "no number", "value", "interruption"],
)
def test_an_error_of_the_program_is_not_the_users(error: BaseException) -> None:
    assert describe_user_error(error) is None


def test_a_list_is_cut_after_its_limit_and_so_are_its_items() -> None:
    assert bullet_list(["one", "two"], 2) == "\n  one\n  two"
    assert bullet_list(["one", "two", "three", "four"], 2) == "\n  one\n  two\n  ... and 2 more"
    assert bullet_list([401 * "x", 400 * "y"], 2) == f"\n  {400 * 'x'} ...\n  {400 * 'y'}"
