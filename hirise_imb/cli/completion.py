"""The command that prints a completion script for a shell."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from hirise_imb.cli.parsing import PROGRAM, Subparsers, add_command
from hirise_imb.utils.terminal import write_line

_DESCRIPTION = f"""\
Print a script that lets a shell complete commands, options and file names with
the Tab key. Send the output to this file, again after an update:

  bash: ~/.local/share/bash-completion/completions/{PROGRAM}
  zsh:  a folder of $fpath, as _{PROGRAM}
  fish: ~/.config/fish/completions/{PROGRAM}.fish
"""

_SHELLS = ("bash", "zsh", "fish")
_DIRECTORIES = ("DIR", "FOLDER", "REPORT", "MODEL")
"""Names of values in the help that stand for folders."""


def add_commands(subparsers: Subparsers, build_parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Adds the command of this module.

    Args:
        subparsers: place of the command.
        build_parser: builds the parser of all commands, which are completed.
    """
    parser = add_command(subparsers, "completion", _print_script, "print a completion script for a shell", _DESCRIPTION)
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    parser.set_defaults(build_parser=build_parser)


def _print_script(options: argparse.Namespace) -> int:
    import shtab

    parser = options.build_parser()
    for action in _list_actions(parser):
        if action.metavar in _DIRECTORIES or action.dest == "out":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is Path or action.metavar in ("FILE", "PATH", "INPUT") or action.dest == "data":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    write_line(shtab.complete(parser, options.shell))
    return 0


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the options and arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _list_actions(command)
        else:
            yield action
