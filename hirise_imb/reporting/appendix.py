"""The strategies of a study as they are declared: what each does, and what its search could choose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hirise_imb.strategies.parameters import Parameter


def appendix(names: Iterable[str]) -> dict[str, Any]:
    """Strategies by name, and the parameters that several of them share.

    Keys: `strategies`, each with name, summary, source and the parameters of its own; `shared_parameters`, named once,
    with the strategies that have them.
    """
    from hirise_imb.strategies import STRATEGIES

    strategies = []
    shared: dict[str, dict[str, Any]] = {}
    for name in names:
        strategy = STRATEGIES[name]
        own = [_declared(parameter) for parameter in strategy.own]
        about = {"name": strategy.name, "summary": strategy.summary, "source": strategy.source}
        strategies.append(about | {"starts_from": list(strategy.after), "parameters": own})
        for parameter in strategy.parameters:
            if parameter not in strategy.own:
                entry = shared.setdefault(parameter.name, _declared(parameter) | {"strategies": []})
                entry["strategies"].append(strategy.name)
    return {"strategies": strategies, "shared_parameters": list(shared.values())}


def _declared(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "range": parameter.range(),
        "default": parameter.default,
        "help": parameter.help,
        "source": parameter.source,
        "when": f"{parameter.when[0]} is {' or '.join(map(str, parameter.when[1]))}" if parameter.when else None,
    }
