"""The table of all arms: scores, differences from the control and F1 of each class, grouped by family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hirise_imb.reporting.formatting import count_range, join_words, p_digits, plural, score, signed
from hirise_imb.reporting.html.panels import name_twin
from hirise_imb.reporting.html.parts import (
    SHOWN_P,
    Cell,
    Difference,
    Fold,
    Group,
    Heading,
    Row,
    Span,
    Table,
    breakable,
    columns,
    common_scale,
    interval_cell,
    p_cell,
    signed_interval,
    spread_cell,
)
from hirise_imb.reporting.results import CONTRASTS, Contrast
from hirise_imb.reporting.summary.records import AgainstRecord, ArmRecord, StudyContent, SwapTestRecord
from hirise_imb.reporting.terms import Terms, choose_terms

_CHANCE = "not distinguishable from chance"

# The page shows a part of the columns at a time: those of the main view, those of the rare classes, or all.
_MAIN, _RARE, _ALL = "c-main", "c-rare", "c-all"


@dataclass(frozen=True)
class ArmTable:
    """The table of all arms of a study or a comparison."""

    content: StudyContent
    arms: tuple[ArmRecord, ...]
    """The arms in the order of the tables."""
    reference_name: str
    """Name of the reference in sentences and headings."""

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The comparisons that have columns: that with the control, if there is one, and that with the reference."""
        return CONTRASTS if self.content["control"] else ("vs_baseline",)

    @property
    def _primary(self) -> Contrast:
        return self.contrasts[0]

    @property
    def _terms(self) -> Terms:
        return choose_terms(nested=self.content["outer_folds"] is not None)

    def build(self) -> Table:
        """Returns the table; arms that are identical to what they are compared with share a line at its end."""
        rows = {arm["name"]: self._row(arm) for arm in self.arms if not self._is_folded(arm)}
        groups = tuple(
            Group(title, self._describe_group(arms), tuple(rows[arm["name"]] for arm in arms))
            for title, arms in self._groups()
        )
        return Table(
            "All strategies",
            "sort sticky loose arms",
            (columns(*self._headings()),),
            groups=groups,
            folds=self._folds(),
        )

    def describe_chance(self) -> str:
        """Returns how many strategies are distinguishable from the control, in a sentence; empty if none is tested."""
        tests = {arm["name"]: test for arm in self.arms if (test := _test(arm, self._primary))}
        alpha = self.content["inference"]["alpha"]
        other = "the control" if self._primary == "vs_control" else self.reference_name
        if not tests:
            return ""
        clear = [name for name, test in tests.items() if test["p_holm"] <= alpha]
        if clear:
            others = " All others are not." if len(clear) < len(tests) else ""
            return f"{join_words(clear)}: distinguishable from chance (adjusted p <= {alpha:g}).{others}"
        least = min(tests, key=lambda name: tests[name]["p_holm"])
        return (
            f"No difference from {other} is distinguishable from chance; the smallest adjusted p is "
            f"{p_digits(tests[least]['p_holm'])} ({least}, {plural(len(tests), 'comparison')})."
        )

    def _name_other(self) -> str:
        return "its control" if self._primary == "vs_control" else self.reference_name

    def _is_folded(self, arm: ArmRecord) -> bool:
        return arm["identical_to"] is not None

    def _folds(self) -> tuple[Fold, ...]:
        names: dict[str, list[str]] = {}
        for arm in self.arms:
            if arm["identical_to"] is not None:
                names.setdefault(arm["identical_to"], []).append(arm["name"])
        return tuple(Fold(f"Identical to {name_twin(self.content, twin)}", tuple(arms)) for twin, arms in names.items())

    def _groups(self) -> Iterator[tuple[str, list[ArmRecord]]]:
        """Yields the groups with their arms: by report in a comparison, otherwise by role and family."""
        arms = [arm for arm in self.arms if not self._is_folded(arm)]
        if self.content["kind"] == "comparison":
            titles = {name: origin["name"] for origin in self.content["origins"] for name in origin["arms"]}
            titles[self.content["reference"]] = "Reference"
        else:
            families = {record["name"]: record.get("family", "") for record in self.content["strategies"]}
            titles = {arm["name"]: self._title(arm, families.get(arm["name"], "")) for arm in arms}
        # The strategies as declared give the order of families, which does not depend on the results.
        declared = {record["name"]: place for place, record in enumerate(self.content["strategies"])}
        first = dict.fromkeys(titles.values(), _LAST)
        for name, place in declared.items():
            if name in titles:
                first[titles[name]] = min(first[titles[name]], place)
        order = list(dict.fromkeys(titles[arm["name"]] for arm in arms))
        if self.content["kind"] == "study":
            order.sort(key=lambda title: (title == _AVERAGED, title != _REFERENCES, first[title]))
        for title in order:
            yield title, [arm for arm in arms if titles[arm["name"]] == title]

    def _title(self, arm: ArmRecord, family: str) -> str:
        if arm["role"] == "control" and max(arm["members"]) > 1:
            return _AVERAGED
        if arm["role"] != "strategy":
            return _REFERENCES
        return f"{family[0].upper()}{family[1:]}" if family else "Strategies"

    def _describe_group(self, arms: Sequence[ArmRecord]) -> str:
        tests = [test for arm in arms if arm["role"] == "strategy" and (test := _test(arm, self._primary))]
        if not tests or any(test["p_holm"] <= self.content["inference"]["alpha"] for test in tests):
            return ""
        return _CHANCE

    def _headings(self) -> Iterator[Heading]:
        content, terms = self.content, self._terms
        low, high = self._scale(self._primary)
        n_tests = content["inference"][self._primary]["tests"]
        yield Heading("strategy" if content["kind"] == "study" else "arm", "text")
        label = content["metric"]["label"]
        yield Heading(f"{terms.inner} score", css=_MAIN, notes=(label,))
        yield Heading(
            f"{terms.outer} score",
            notes=(label, "range over seeds") if any(len(arm["seeds"]) > 1 for arm in self.arms) else (label,),
        )
        yield Heading(
            "difference from " + breakable(self._name_other()),
            notes=("95 % interval", f"bars from {signed(low)} to {signed(high)}") if high > low else (),
        )
        yield Heading("adjusted p", css=_MAIN, notes=(f"of {n_tests}", f"n.s.: above {SHOWN_P:g}"), ascending=True)
        yield Heading("minimum detectable difference", css=_MAIN, ascending=True)
        if content["majority"] is not None:
            yield Heading("rare classes", css=_RARE, notes=("mean F1",))
        for name, n, sources in zip(content["classes"], content["support"], content["sources"], strict=True):
            yield Heading(name, css=_RARE, notes=(f"n = {n}", plural(sources, "source")))
        yield Heading(f"{terms.outer} score, 95 % interval", css=_ALL, notes=("over sources",))
        yield Heading("p, one test", css=_ALL, ascending=True)
        if self._primary == "vs_control":
            n_tests = content["inference"]["vs_baseline"]["tests"]
            yield Heading(f"difference from {self.reference_name}", css=_ALL, notes=("95 % interval",))
            yield Heading("adjusted p", css=_ALL, notes=(f"of {n_tests}", "baseline"), ascending=True)
            yield Heading("minimum detectable difference", css=_ALL, notes=("baseline",), ascending=True)

    def _scale(self, contrast: Contrast) -> tuple[float, float]:
        return common_scale(against["interval"] for arm in self.arms if (against := _compared(arm, contrast)))

    def _row(self, arm: ArmRecord) -> Row:
        content, name = self.content, arm["name"]
        choice = content["verdict"]["choice"]
        tags = []
        if name == content["reference"]:
            tags.append("reference" if content["kind"] == "comparison" else "baseline")
        elif content["control"] and arm["role"] == "control":
            tags.append("control" if name == content["control"] else f"mean of {count_range(arm['members'])} fits")
        if name == choice:
            tags.append("choice")
        elif name in {origin["chosen"] for origin in content["origins"]}:
            tags.append("choice of its report")
        css = "choice" if name == choice else "control" if name == content["control"] else ""
        return Row(breakable(name), tuple(self._cells(arm)), arm=name, tags=tuple(tags), css=css)

    def _cells(self, arm: ArmRecord) -> Iterator[Cell]:
        content, test = self.content, _test(arm, self._primary)
        yield Cell(score(arm["val_score"]), arm["val_score"], _MAIN)
        yield spread_cell(arm["scores"][content["metric"]["key"]], len(arm["seeds"]))
        yield self._difference(arm, self._primary, self._scale(self._primary))
        yield p_cell(test["p_holm"] if test else None, _MAIN)
        yield Cell(score(test["resolvable"]), test["resolvable"], _MAIN) if test else Cell(css=_MAIN)
        if content["majority"] is not None:
            spread = arm["scores"].get("macro_f1_rare")
            yield Cell(score(spread["mean"]), spread["mean"], _RARE) if spread else Cell(css=_RARE)
        for label in range(len(content["classes"])):
            yield self._class_cell(arm, label)
        interval = interval_cell(arm["uncertainty"]["score"])
        yield Cell(interval.text, interval.value, _ALL)
        yield Cell(p_digits(test["p"]), test["p"], _ALL) if test else Cell(css=_ALL)
        if self._primary == "vs_control":
            other = _test(arm, "vs_baseline")
            yield self._difference(arm, "vs_baseline", None, _ALL)
            yield p_cell(other["p_holm"] if other else None, _ALL)
            yield Cell(score(other["resolvable"]), other["resolvable"], _ALL) if other else Cell(css=_ALL)

    def _difference(self, arm: ArmRecord, contrast: Contrast, scale: tuple[float, float] | None, css: str = "") -> Cell:
        """Returns the difference in macro F1; emphasised by its test, or by its interval where nothing is tested."""
        against = _compared(arm, contrast)
        if against is None:
            return Cell(css=css)
        gain, interval, test = against["scores"][self.content["metric"]["key"]], against["interval"], against["test"]
        difference = Difference.with_interval(gain, interval)
        if test is not None:
            difference = Difference.of(gain, test["p_holm"] <= self.content["inference"]["alpha"])
        span = Span.of(interval, gain, scale) if scale else None
        notes = (signed_interval(interval),) if interval else ()
        return Cell("", gain, f"{css} gap".strip(), notes=notes, difference=difference, span=span)

    def _class_cell(self, arm: ArmRecord, label: int) -> Cell:
        if not self.content["support"][label]:
            return Cell(css=_RARE)
        mean, against = arm["per_class"]["f1"][label]["mean"], _compared(arm, self._primary)
        difference = None
        if against is not None:
            difference = Difference.with_interval(
                against["per_class"]["f1"][label], against["per_class_interval"][label]
            )
        # With fewer sources, the highest mean says little about other sources.
        enough_sources = self.content["sources"][label] >= self.content["inference"]["least_sources"]
        best = max(other["per_class"]["f1"][label]["mean"] for other in self.arms)
        is_best = enough_sources and len(self.arms) > 1 and mean == best
        return Cell(score(mean), mean, f"{_RARE} best" if is_best else _RARE, difference=difference)


_REFERENCES, _AVERAGED = "Baseline and control", "Controls that average several fits"
"""Titles of the first and of the last group."""

_LAST = 1_000_000
"""Place of a group without a declared strategy."""


def _compared(arm: ArmRecord, contrast: Contrast) -> AgainstRecord | None:
    """Returns the comparison of an arm; None if it would be with itself, or without a control."""
    against = arm[contrast]
    return None if against is None or against["arm"] == arm["name"] else against


def _test(arm: ArmRecord, contrast: Contrast) -> SwapTestRecord | None:
    """Returns the test of a comparison; None if the comparison is not tested."""
    against = _compared(arm, contrast)
    return against["test"] if against else None
