"""Every command and every option that a help text, a message or a page of the documentation names exists."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import hirise_imb
from hirise_imb.cli.main import build_parser
from hirise_imb.cli.parsing import PROGRAM

PACKAGE = Path(hirise_imb.__file__).parent
ROOT = PACKAGE.parent
COMMAND = re.compile(rf"{PROGRAM}((?: +[^\s`]+)+)")
COMMAND_LINE = re.compile(rf"^ *(?:srun (?:.* -- +)?)?{PROGRAM}( .*)", re.MULTILINE)
OLD_NAMES = re.compile(r"python -m hirise_imb\.study \w|`study ")


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yields a parser and those of all its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from walk(inner)


def strings_in(node: ast.AST) -> Iterator[str]:
    """Yields the literals below a node, with X in place of what is formatted into them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join("".join(strings_in(part)) or "X" for part in node.values)
    elif not isinstance(node, ast.FormattedValue):
        for child in ast.iter_child_nodes(node):
            yield from strings_in(child)


def package_texts() -> list[tuple[str, str]]:
    """Returns the strings of the package, each with the file that has it."""
    return [
        (path.relative_to(ROOT).as_posix(), text)
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in strings_in(ast.parse(path.read_text(encoding="utf-8")))
    ]


def help_texts() -> list[tuple[str, str]]:
    return [(parser.prog, parser.format_help()) for parser in walk(build_parser())]


def commands(texts: list[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(place, match.group(1)) for place, text in texts for match in COMMAND.finditer(text)}


def check(command: str) -> None:
    """Checks that a command can be parsed, up to the file that its output goes to."""
    words = shlex.split(command.partition(" > ")[0], comments=True)
    # Texts refer to these commands without what they require.
    if words not in (["work"], ["models"], ["predict"], ["export"]) and words[-1] != "--help":
        build_parser().parse_args(words)


def test_commands_in_messages_can_be_given() -> None:
    found = commands(package_texts())
    assert {" data fetch", " strategies"} < {command for _, command in found}
    for _, command in found:
        check(command)


def test_commands_in_the_help_can_be_given() -> None:
    # A usage line shows the options in brackets.
    found = {(place, command) for place, command in commands(help_texts()) if "[" not in command}
    addresses = [command for place, command in found if place == f"{PROGRAM} work" and "--storage" in command]
    assert {address.split()[0] for address in addresses} == {"run", "work"}
    for _, command in found:
        check(command)


PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts
)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_commands_in_the_documentation_can_be_given(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", "")
    for command in COMMAND_LINE.findall(text):
        check(command)


def test_commands_in_job_scripts_are_among_them() -> None:
    text = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8").replace("\\\n", "")
    assert [command.split()[0] for command in COMMAND_LINE.findall(text)] == [
        "data",
        "run",
        "work",
        "predict",
        "predict",
    ]


def test_options_that_messages_name_exist() -> None:
    actions = [action for parser in walk(build_parser()) for action in parser._actions]
    known = {option for action in actions for option in action.option_strings}
    named = {
        option
        for place, text in package_texts()
        # The first calls git, the second names variables of style sheets.
        if place not in ("hirise_imb/utils/environment.py", "hirise_imb/reporting/figures/style.py")
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
    }
    assert {"--trials", "--replace", "--pictures"} < named
    assert named <= known, sorted(named - known)


def test_nothing_names_the_command_by_its_old_name() -> None:
    texts = package_texts() + help_texts()
    assert [(place, text) for place, text in texts if OLD_NAMES.search(text)] == []
