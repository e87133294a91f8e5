"""What can be compared, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.strategies.parameters import Parameter


def print_strategies(console: Console) -> None:
    """Each strategy in one line, with its papers."""
    table = Table(box=None, pad_edge=False)
    table.add_column("strategy", no_wrap=True)
    table.add_column("what it does")
    table.add_column("source")
    for strategy in STRATEGIES.values():
        table.add_row(strategy.name, strategy.summary, strategy.source)
    console.print(table)


def print_strategy(strategy: Strategy, console: Console) -> None:
    """One strategy with its parameters."""
    console.print(f"{strategy.name}: {strategy.summary}", highlight=False)
    console.print(f"Source: {strategy.source}", highlight=False)
    if strategy.after:
        console.print(f"Starts from the chosen recipe of: {', '.join(strategy.after)}", highlight=False)
    for line in described(strategy.parameters):
        console.print(line, highlight=False)


def described(parameters: Iterable[Parameter]) -> list[str]:
    """Each parameter in a few lines."""
    lines = []
    for parameter in parameters:
        condition = ""
        if parameter.when is not None:
            condition = f", with {parameter.when[0]} {' or '.join(map(str, parameter.when[1]))}"
        lines.append(f"\n{parameter.name}: {parameter.range()} (default {parameter.default}){condition}")
        lines.append(f"  {parameter.help}")
        lines.append(f"  Source: {parameter.source}")
    return lines
