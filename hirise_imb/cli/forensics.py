"""The command that examines a published table: forensics."""

from __future__ import annotations

import argparse
from pathlib import Path

from hirise_imb.cli.parsing import Subparsers, add_command
from hirise_imb.cli.tables import make_console
from hirise_imb.utils.errors import UserError

_FORENSICS = """\
Find the counts behind a published table of precision, recall and F1, and decide
whether it can come from a classifier at all. TABLE.csv has a column `class` and
any of `precision`, `recall`, `f1`, as printed: trailing zeros count. Figures
may be rounded half up or half to even; a precision without predictions is taken
to be printed as 0.

The verdict is one of: inconsistent with these supports, no better than a
shuffled pairing, better than chance, undecided; with its reason.
"""

_AVERAGES = ("accuracy", "macro-precision", "macro-recall", "macro-f1")


def add_commands(subparsers: Subparsers) -> None:
    """Adds the command of this module."""
    summary = "examine a published per-class table"
    parser = add_command(subparsers, "forensics", _forensics, summary, _FORENSICS)
    parser.add_argument("table", type=Path, metavar="TABLE.csv")
    parser.add_argument(
        "--supports",
        metavar="N,N,...",
        help="number of test labels of each class, in the table's order, unless it has a column `support`",
    )
    parser.add_argument(
        "--decimals",
        type=int,
        help="number of decimals of all figures as printed, if trailing zeros were lost (default: as in the file)",
    )
    for average in _AVERAGES:
        parser.add_argument(f"--{average}", metavar="X", help=f"the {average.replace('-', ' ')} printed with it")


def _forensics(options: argparse.Namespace) -> int:
    from hirise_imb import forensics
    from hirise_imb.cli.forensics_table import print_finding

    averages = {}
    for name in forensics.AVERAGES:
        if (text := getattr(options, name)) is not None:
            try:
                averages[name] = forensics.Rounded.read(text.strip())
            except ValueError as error:
                raise UserError(f"--{name.replace('_', '-')} is {text!r}: it {error}.") from error
    table = forensics.read(options.table, options.supports, options.decimals)
    print_finding(forensics.examine(table, averages), make_console())
    return 0
