"""The command that writes a study definition: init."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hirise_imb.cli.parsing import PROGRAM, Subparsers, add_command
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.terminal import write_line

_INIT = """\
Write a study definition in which every key is explained. Two questions are asked
unless options answer them: which data, and how long the study may run. From the
second follow the strategies, the designs of the evaluation and the numbers of
trials and fits. Change what you like afterwards; `hirise-imb plan FILE` shows
what it takes.
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the command of this module."""
    parser = add_command(subparsers, "init", _init, "write a study definition with an explanation of every key", _INIT)
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="file to write (default: named after the data)"
    )
    parser.add_argument("--data", help="synthetic, hirise, or the path of a zip, folder or annotation table")
    parser.add_argument("--hours", type=float, metavar="H", help="hours that the study may run, such as 0.5")


def _init(options: argparse.Namespace) -> int:
    from hirise_imb.cli.plan_tables import format_time
    from hirise_imb.config import default_definition
    from hirise_imb.pipeline.definition_file import fit_definition, write_definition

    data = options.data
    if data is None:
        data = _ask("Which data? synthetic, hirise, or the path of a zip, folder or annotation table", "synthetic")
    hours = options.hours
    if hours is None:
        answer = _ask("How many hours may the study run?", "1")
        try:
            hours = float(answer)
        except ValueError as error:
            raise UserError(f"{answer!r} is not a number of hours: answer with a number such as 0.5.") from error
    if not hours > 0:
        raise UserError(f"A study can't run for {hours:g} hours: give a number above 0.")
    path = options.file or Path(f"{default_definition({'data': data}).name}.toml")
    if path.exists():
        raise UserError(f"{path} exists: name another file, or remove it.")
    definition, seconds = fit_definition(data, hours * 3600, path)
    write_definition(definition, path)
    if seconds > hours * 3600:
        write_line(f"The smallest study takes longer than {hours:g} h on these data.")
    write_line(f"Expected time on two cores: {format_time(seconds)}. Run it with: {PROGRAM} run {path}")
    write_line(f"Definition: {path}")
    return 0


def _ask(question: str, default: str) -> str:
    """Returns the answer to a question, or the default for an empty one.

    Raises:
        UserError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UserError("Standard input is not a terminal, so nothing can be asked: give --data and --hours.")
    return input(f"{question} [{default}]: ").strip() or default
