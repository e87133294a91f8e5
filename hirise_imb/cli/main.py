"""The command line `hirise-imb`: its parser, and how errors become messages and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hirise_imb.cli import completion, dashboard, data, export, forensics, init, predict, reports, review, studies
from hirise_imb.cli.parsing import PROGRAM, Command, Parser
from hirise_imb.utils import interruption
from hirise_imb.utils.errors import describe_user_error
from hirise_imb.utils.process import prepare_process
from hirise_imb.utils.progress import log_to_stderr
from hirise_imb.utils.terminal import write_line

# Nothing heavy is imported by the command groups until a command runs: `--help` must answer at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for an error that the user can fix, 130 for an interruption."""
    prepare_process()
    options = build_parser().parse_args(arguments)
    log_to_stderr(quiet=getattr(options, "quiet", False))
    command: Command = options.command
    try:
        return command(options)
    except (Exception, KeyboardInterrupt) as error:
        if interruption.is_interruption(error):
            interruption.acknowledge()
            interruption.report(options.saved)
            return interruption.EXIT_CODE
        if (sentence := describe_user_error(error)) is None:
            raise
        write_line(f"error: {sentence}", sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    parser = Parser(PROGRAM, description="Experiments on class imbalance for landmarks in orbital images of Mars.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (init, studies, reports, predict, review, export, data, forensics, dashboard):
        group.add_commands(subparsers)
    completion.add_commands(subparsers, build_parser)
    return parser
