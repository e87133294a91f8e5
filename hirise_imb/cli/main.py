"""The command line `hirise-imb`: its parser, and how errors become messages and exit codes."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

from hirise_imb.cli import completion, dashboard, data, export, forensics, init, predict, reports, review, studies
from hirise_imb.cli.parsing import PROGRAM, Command, Parser
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import log_to_stderr
from hirise_imb.utils.terminal import write_line

# Nothing heavy is imported by the command groups until a command runs: `--help` must answer at once.

_USER_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
}
"""Errors of the file system that the user can fix; any other OSError is an error of the program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for an error that the user can fix, 130 for an interruption."""
    options = build_parser().parse_args(arguments)
    log_to_stderr(quiet=getattr(options, "quiet", False))
    command: Command = options.command
    try:
        return command(options)
    except UserError as error:
        write_line(f"error: {error}", sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        place = error.filename2 or error.filename or "the disk"
        write_line(f"error: {place}: {error.strerror}; fix that and run the command again.", sys.stderr)
        return 2
    except KeyboardInterrupt:
        write_line("interrupted: the same command continues from here.", sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    parser = Parser(PROGRAM, description="Experiments on class imbalance for landmarks in orbital images of Mars.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (init, studies, reports, predict, review, export, data, forensics, dashboard):
        group.add_commands(subparsers)
    completion.add_commands(subparsers, build_parser)
    return parser
