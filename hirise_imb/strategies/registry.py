"""The strategies by name: those of this package, and those that other installed packages provide.

A package provides a strategy by an entry point of the group `hirise_imb.strategies` that names an instance:

    [project.entry-points."hirise_imb.strategies"]
    my_remedy = "my_package.my_remedy:MY_REMEDY"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points

from hirise_imb.config import CONTROL, Override, check_known
from hirise_imb.features.inputs import MAP, TOP_MEAN
from hirise_imb.strategies.base import Strategy
from hirise_imb.strategies.parameters import Categorical
from hirise_imb.strategies.spaces import search_space
from hirise_imb.utils.errors import UserError

_PLACEHOLDERS = ("a", "b", "c")
"""Names for the layers and cuts of any backbone, when only the kind of features that a strategy needs matters."""

ENTRY_POINT_GROUP = "hirise_imb.strategies"


class StrategyRegistry(MutableMapping[str, Strategy]):
    """Strategies by name; a strategy comes after those it depends on.

    Strategies of other packages are loaded at the first use, not at import, since those packages import this one.
    """

    def __init__(self, strategies: Iterable[Strategy]) -> None:
        """Registers the strategies of this package."""
        self._strategies = {strategy.name: strategy for strategy in strategies}
        self._complete = False

    def __getitem__(self, name: str) -> Strategy:
        """Returns the strategy of this name."""
        return self._all()[name]

    def __setitem__(self, name: str, strategy: Strategy) -> None:
        """Registers a strategy."""
        self._all()[name] = strategy

    def __delitem__(self, name: str) -> None:
        """Removes a strategy."""
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self._all())

    def __len__(self) -> int:
        """Returns the number of strategies."""
        return len(self._all())

    def _all(self) -> dict[str, Strategy]:
        """Returns all strategies; those of other packages are loaded first.

        Raises:
            UserError: one of those can't be used; the message names its package.
        """
        if not self._complete:
            self._strategies |= _load_plugins(self._strategies)
            self._complete = True
        return self._strategies


def select_strategies(
    registry: Mapping[str, Strategy], names: Sequence[str], overrides: Mapping[str, Mapping[str, Override]]
) -> list[Strategy]:
    """Returns the named strategies, the control, and what they depend on, narrowed by the overrides.

    They come in the order of the registry: a strategy after those it depends on.

    Raises:
        UserError: a strategy is unknown, or an override does not agree with the declared parameters.
    """
    selected = [CONTROL, *(check_known("strategy", name, registry) for name in names)]
    for name in selected:  # grows during the iteration, so that bases of bases are selected too
        selected += [base for base in registry[name].depends_on if base not in selected]
    return [strategy.narrow(overrides.get(name, {})) for name, strategy in registry.items() if name in selected]


def check_vectors_suffice(strategies: Sequence[Strategy], names: Sequence[str]) -> None:
    """Checks that strategies need nothing but one vector for each image, which is what a table of features has.

    Args:
        strategies: strategies of a study, each after those it depends on.
        names: names in the study definition, which does not name all bases.

    Raises:
        UserError: some need more; the message names them, and says for each of them what.
    """
    reasons: dict[str, str] = {}
    for strategy in strategies:
        bases = [base for base in strategy.depends_on if base in reasons]
        if reason := _further_needs(strategy) or (f"depends on {bases[0]}" if bases else ""):
            reasons[strategy.name] = reason
    if refused := [f"{name} ({reasons[name]})" for name in names if name in reasons]:
        others = ",".join(name for name in names if name not in reasons)
        hint = f" (--strategies {others})" if others else ""
        raise UserError(
            f"A table of features has one vector for each image, which is not enough for {', '.join(refused)}: leave "
            f"{'it' if len(refused) == 1 else 'them'} out of strategies{hint}, or leave out features to use a backbone."
        )


def _further_needs(strategy: Strategy) -> str:
    """Describes what a strategy needs in addition to a vector for each image; an empty string if nothing."""
    required = strategy.required_features(_PLACEHOLDERS, _PLACEHOLDERS)
    keys = {*required.images, *required.canonical_images} - {TOP_MEAN}
    needs = []
    if any(key.statistic == MAP for key in keys):
        needs.append("a backbone to fine-tune")
    if any(not key.is_trunk_output for key in keys):
        needs.append("feature maps of a backbone")
    if any(key.view != TOP_MEAN.view for key in keys):
        needs.append("other views of the images")
    if not needs:
        return ""
    return f"needs {' and '.join(needs)}{_suggest_override(strategy)}"


def _suggest_override(strategy: Strategy) -> str:
    """Returns a remark on a choice that lets a strategy do with a vector for each image, if there is one."""
    for parameter in search_space(strategy.parameters):
        for value in parameter.values or () if isinstance(parameter, Categorical) else ():
            with suppress(UserError):  # other overrides need another choice
                narrowed = strategy.narrow({**strategy.overrides, parameter.name: value})
                required = narrowed.required_features(_PLACEHOLDERS, _PLACEHOLDERS)
                if {*required.images, *required.canonical_images} == {TOP_MEAN}:
                    return f' unless [strategies.{strategy.name}] has {parameter.name} = "{value}"'
    return ""


def _load_plugins(known: Mapping[str, Strategy]) -> dict[str, Strategy]:
    """Returns the strategies of other packages by name, each after those it depends on."""
    owners = dict.fromkeys(known, "hirise-imb")
    pending: dict[str, Strategy] = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (_package(point), point.name)):
        package, strategy = _package(point), _load(point)
        if strategy.name in owners:
            raise UserError(
                f"The package {package} has a strategy {strategy.name}, but {owners[strategy.name]} already has one of "
                f"this name: rename it, or uninstall that package."
            )
        owners[strategy.name] = package
        pending[strategy.name] = strategy
    loaded: dict[str, Strategy] = {}
    while pending:
        ready = [s for s in pending.values() if all(base in known or base in loaded for base in s.depends_on)]
        if not ready:
            strategy = next(iter(pending.values()))
            raise UserError(
                f"The strategy {strategy.name} of the package {owners[strategy.name]} depends on "
                f"{', '.join(strategy.depends_on)}, not all of which are installed: install the missing ones, or "
                f"uninstall that package."
            )
        for strategy in ready:
            loaded[strategy.name] = pending.pop(strategy.name)
    return loaded


def _load(point: EntryPoint) -> Strategy:
    try:
        strategy = point.load()
    except Exception as error:  # whatever a module may raise when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"The strategy {point.name} of the package {_package(point)} can't be loaded ({reason}): fix or uninstall "
            f"that package."
        ) from error
    if not isinstance(strategy, Strategy):
        raise UserError(
            f"The entry point {point.name} of the package {_package(point)} names {point.value}, which is not an "
            f"instance of hirise_imb.strategies.Strategy: fix or uninstall that package."
        )
    return strategy


def _package(point: EntryPoint) -> str:
    return "?" if point.dist is None else point.dist.name
