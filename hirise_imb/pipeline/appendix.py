"""The appendix of a report: what each strategy does, and which hyperparameters were tuned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hirise_imb.strategies import Parameter, Strategy


def describe_strategies(strategies: Iterable[Strategy]) -> dict[str, Any]:
    """Returns the strategies as they were tuned, and the hyperparameters that they share.

    Keys: `strategies`, each with its name, summary, source, family and own hyperparameters; `shared_parameters`, those
    of the optimiser, each with the names of the strategies that search it in its declared range. If the study
    definition narrows a range, it is listed with the strategy, together with the declared range.
    """
    from hirise_imb.strategies import OptimiserParameters, search_space

    optimiser = search_space(OptimiserParameters)
    entries = []
    shared: dict[str, dict[str, Any]] = {}
    for strategy in strategies:
        declared = search_space(strategy.parameters)
        own_parameters = []
        for parameter in strategy.space:
            if parameter in optimiser:
                entry = shared.setdefault(parameter.name, _describe(parameter) | {"strategies": []})
                entry["strategies"].append(strategy.name)
                continue
            entry = _describe(parameter)
            if parameter != declared[parameter.name]:
                entry["range"] += f" (declared: {declared[parameter.name].describe_range()})"
            own_parameters.append(entry)
        about = {key: getattr(strategy, key) for key in ("name", "summary", "source", "family")}
        entries.append(about | {"starts_from": list(strategy.depends_on), "parameters": own_parameters})
    return {"strategies": entries, "shared_parameters": list(shared.values())}


def _describe(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "range": parameter.describe_range(),
        "default": parameter.default,
        "help": parameter.help,
        "source": parameter.source,
        "when": f"{parameter.when[0]} is {' or '.join(parameter.when[1])}" if parameter.when else None,
    }
