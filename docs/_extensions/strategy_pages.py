"""Directives that write the generated parts of the pages about strategies.

`{strategy-parameters} NAME` and `{strategy-papers} NAME` are made from the declarations in the registry,
`{strategy-results} NAME` from the summary of the example study, and `{strategy-table} NAME ...` from both, so that no
page can name a range or a figure that is not that of the code or of the study. `{citations} TEXT` turns the papers in
a string such as "Lin et al. 2017; Cui et al. 2019" into references.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from hirise_imb.strategies import STRATEGIES, Parameter
from hirise_imb.strategies.spaces import search_space

EXAMPLE = Path(__file__).parents[2] / "reports" / "real-sample" / "summary.json"
PAPER = re.compile(r"(?P<author>[A-Z][\w-]+)(?: (?:et al\.|& [A-Z][\w-]+|and [A-Z][\w-]+))? (?P<year>(?:19|20)\d\d)")


def link_papers(text: str) -> str:
    """Returns a string with every "Author et al. 2017" as a reference to the bibliography."""
    return PAPER.sub(lambda paper: f"{{cite:t}}`{citation_key(paper)}`", text)


def citation_key(paper: re.Match[str]) -> str:
    """Returns the key of a paper in references.bib: the first author and the year."""
    return paper["author"].lower() + paper["year"]


def describe_parameters(name: str) -> list[str]:
    """Returns a table of the hyperparameters of a strategy, in Markdown."""
    parameters = list(search_space(STRATEGIES[name].parameters))
    rows = [_parameter_row(parameter) for parameter in parameters]
    return ["| parameter | range | default | effect |", "|---|---|---|---|", *rows]


def _parameter_row(parameter: Parameter) -> str:
    effect = parameter.help
    if parameter.when is not None:
        effect += f" (with `{parameter.when[0]}` {' or '.join(f'`{value}`' for value in parameter.when[1])})"
    cells = (f"`{parameter.name}`", parameter.describe_range(), f"`{parameter.default}`", effect)
    return f"| {' | '.join(cells)}. *Source:* {link_papers(parameter.source)}. |"


def describe_results(name: str) -> list[str]:
    """Returns what a strategy did in the example study, in Markdown."""
    arm = _arms().get(name)
    if arm is None:
        return ["The [example study](../example-study.md) does not contain this strategy."]
    if arm["role"] == "control":
        return [_describe_control(arm)]
    difference, interval, test = arm["vs_control"], arm["vs_control"]["interval"], arm["vs_control"]["test"]
    cost, other = arm["selection_cost"], difference["arm"]
    if arm["identical_to"]:
        return [
            f"In the [example study](../example-study.md) (real landmarks, {_summary()['inference']['sources']} "
            f"sources), its chosen settings predict the same classes as `{arm['identical_to']}`, so its scores are the "
            f"same: macro F1 {arm['scores']['macro_f1']['mean']:.3f}."
        ]
    gain = difference["scores"]["macro_f1"]
    control = "the control" if other == "plain" else f"the control that averages as many fits (`{other}`)"
    verdict = "significantly different from" if test["p_holm"] <= 0.05 else "not distinguishable from"
    sentences = [
        f"In the [example study](../example-study.md) (real landmarks, {_summary()['inference']['sources']} sources, "
        f"nested cross-validation) it is **{verdict} {control}**: macro F1 {arm['scores']['macro_f1']['mean']:.3f}, "
        f"{gain:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}), p = {_p(test['p'])}, {_p(test['p_holm'])} "
        f"after Holm. The minimum detectable difference is {test['resolvable']:.3f}.",
        *_describe_classes(difference),
        f"The validation score inside the folds was {cost['inner']:.3f}. Classes with fewer than "
        f"{_summary()['inference']['least_sources']} sources have no interval.",
    ]
    return [" ".join(sentences)]


def _describe_control(arm: dict[str, Any]) -> str:
    baseline = arm["vs_baseline"]
    return (
        f"In the [example study](../example-study.md), tuning alone gives macro F1 "
        f"{arm['scores']['macro_f1']['mean']:.3f}: {baseline['scores']['macro_f1']:+.3f} over the published recipe "
        f"({baseline['interval']['low']:+.3f} to {baseline['interval']['high']:+.3f}, p = "
        f"{_p(baseline['test']['p_holm'])} after Holm)."
    )


def _describe_classes(difference: dict[str, Any]) -> list[str]:
    """Returns a sentence on the classes whose F1 has an interval without 0."""
    gains: dict[str, list[str]] = {"Gains": [], "Losses": []}
    values = zip(_summary()["classes"], difference["per_class"]["f1"], difference["per_class_interval"], strict=True)
    for label, change, interval in values:
        if interval is not None and (interval["low"] > 0 or interval["high"] < 0):
            gains["Gains" if change > 0 else "Losses"].append(f"{label} {change:+.3f}")
    found = [
        f"{kind} of F1 whose 95 % interval excludes 0: {', '.join(which)}." for kind, which in gains.items() if which
    ]
    return found or ["No class has a difference of F1 whose 95 % interval excludes 0."]


def describe_strategies(names: list[str]) -> list[str]:
    """Returns a table of strategies with links to their pages, in Markdown."""
    rows = []
    for name in names:
        arm = _arms().get(name)
        here = "not in the study"
        if arm is not None and arm["role"] == "control":
            here = "the control"
        elif arm is not None and arm["identical_to"]:
            here = f"identical to `{arm['identical_to']}`"
        elif arm is not None:
            interval = arm["vs_control"]["interval"]
            here = f"{arm['vs_control']['scores']['macro_f1']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f})"
        rows.append(f"| [`{name}`]({name}.md) | {STRATEGIES[name].summary} | {here} |")
    return ["| strategy | in a line | macro F1 minus that of its control |", "|---|---|---|", *rows]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


@cache
def _summary() -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return summary


@cache
def _arms() -> dict[str, dict[str, Any]]:
    return {arm["name"]: arm for arm in _summary()["arms"]}


class Generated(Directive):
    """Parses generated Markdown in the place of the directive."""

    has_content = False
    required_arguments = 1
    final_argument_whitespace = True

    def lines(self, argument: str) -> list[str]:
        """Returns the Markdown for the argument of the directive."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Returns the parsed nodes."""
        self.state.document.settings.env.note_dependency(str(EXAMPLE))
        container = nodes.container(classes=["generated"])
        self.state.nested_parse(StringList(self.lines(self.arguments[0])), self.content_offset, container)
        return container.children


class StrategyParameters(Generated):
    """`{strategy-parameters} NAME`."""

    def lines(self, argument: str) -> list[str]:
        """Returns the table of hyperparameters."""
        return describe_parameters(argument)


class StrategyResults(Generated):
    """`{strategy-results} NAME`."""

    def lines(self, argument: str) -> list[str]:
        """Returns the results in the example study."""
        return describe_results(argument)


class StrategyPapers(Generated):
    """`{strategy-papers} NAME`."""

    def lines(self, argument: str) -> list[str]:
        """Returns the papers of a strategy."""
        return [link_papers(STRATEGIES[argument].source) + "."]


class StrategyTable(Generated):
    """`{strategy-table} NAME ...`."""

    def lines(self, argument: str) -> list[str]:
        """Returns the table of strategies."""
        return describe_strategies(argument.split())


class Citations(Generated):
    """`{citations} TEXT`."""

    def lines(self, argument: str) -> list[str]:
        """Returns the text with references."""
        return [link_papers(argument)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    app.add_directive("strategy-parameters", StrategyParameters)
    app.add_directive("strategy-results", StrategyResults)
    app.add_directive("strategy-papers", StrategyPapers)
    app.add_directive("strategy-table", StrategyTable)
    app.add_directive("citations", Citations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
