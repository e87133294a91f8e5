"""Strategies and their parameters in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from hirise_imb.strategies import STRATEGIES, Parameter, Strategy


def print_strategies(console: Console) -> None:
    """Prints each strategy with its summary and its papers."""
    table = Table(box=None, pad_edge=False)
    table.add_column("strategy", no_wrap=True)
    table.add_column("what it does")
    table.add_column("source")
    for strategy in STRATEGIES.values():
        table.add_row(strategy.name, strategy.summary, strategy.source)
    console.print(table)


def print_strategy(strategy: Strategy, console: Console) -> None:
    """Prints one strategy with its parameters."""
    console.print(f"{strategy.name}: {strategy.summary}")
    console.print(f"Source: {strategy.source}")
    if strategy.depends_on:
        console.print(f"Starts from the chosen recipe of: {', '.join(strategy.depends_on)}")
    for line in describe_parameters(strategy.space):
        console.print(line)


def describe_parameters(parameters: Iterable[Parameter]) -> list[str]:
    """Returns the lines that describe each parameter: name and range, help, source."""
    lines = []
    for parameter in parameters:
        condition = ""
        if parameter.when is not None:
            condition = f", with {parameter.when[0]} {' or '.join(parameter.when[1])}"
        lines.append(f"\n{parameter.name}: {parameter.describe_range()} (default {parameter.default}){condition}")
        lines.append(f"  {parameter.help}")
        lines.append(f"  Source: {parameter.source}")
    return lines
