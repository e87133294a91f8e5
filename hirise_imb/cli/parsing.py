"""Shared by the command groups: adding a command to the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from hirise_imb.utils import interruption
from hirise_imb.utils.terminal import escape_controls

PROGRAM = "hirise-imb"
"""The console script; `python -m hirise_imb.study` is the same."""

Command = Callable[[argparse.Namespace], int]
"""Runs a command with its parsed options; returns the exit code."""

Subparsers = Any
"""argparse keeps this type private."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors show arguments with their control characters escaped."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and an error, and exits with code 2."""
        super().error(escape_controls(message))


def add_command(
    subparsers: Subparsers,
    name: str,
    command: Command,
    summary: str,
    description: str | None = None,
    saved: str = interruption.CONTINUES,
) -> argparse.ArgumentParser:
    """Adds a command.

    Args:
        subparsers: where it is added.
        name: name of the command.
        command: function that runs it.
        summary: what it does, in the list of all commands.
        description: what its help shows, with its line breaks; default: the summary.
        saved: what is saved when it is interrupted, and how to go on.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=description or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command, saved=saved)
    return parser


def add_quiet_option(*parsers: argparse.ArgumentParser) -> None:
    """Adds the option that leaves out progress and messages."""
    for parser in parsers:
        parser.add_argument("--quiet", action="store_true", help="print only errors, warnings and the final result")
