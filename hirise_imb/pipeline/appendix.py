"""Appendix of a report: what each strategy does, and the parameters that its search chose from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hirise_imb.strategies import Parameter, Strategy


def describe_strategies(strategies: Iterable[Strategy]) -> dict[str, Any]:
    """Returns the strategies as they were searched, and the parameters that several of them share.

    Keys: `strategies`, each with name, summary, source and its own parameters; `shared_parameters`, the optimiser's,
    each with the names of the strategies that search it in its declared range. A range that the study definition
    narrows is listed with the strategy, next to the declared one.
    """
    from hirise_imb.strategies import OptimiserParameters, search_space

    optimiser = search_space(OptimiserParameters)
    described = []
    shared: dict[str, dict[str, Any]] = {}
    for strategy in strategies:
        declared = search_space(strategy.parameters)
        own = []
        for parameter in strategy.space:
            if parameter in optimiser:
                entry = shared.setdefault(parameter.name, _describe(parameter) | {"strategies": []})
                entry["strategies"].append(strategy.name)
                continue
            entry = _describe(parameter)
            if parameter != declared[parameter.name]:
                entry["range"] += f" (declared: {declared[parameter.name].describe_range()})"
            own.append(entry)
        about = {"name": strategy.name, "summary": strategy.summary, "source": strategy.source}
        described.append(about | {"starts_from": list(strategy.depends_on), "parameters": own})
    return {"strategies": described, "shared_parameters": list(shared.values())}


def _describe(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "range": parameter.describe_range(),
        "default": parameter.default,
        "help": parameter.help,
        "source": parameter.source,
        "when": f"{parameter.when[0]} is {' or '.join(parameter.when[1])}" if parameter.when else None,
    }
