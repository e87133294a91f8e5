"""Tables of a report with a row for each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hirise_imb.metrics.registry import METRICS
from hirise_imb.reporting.formatting import MISSING, count_range, duration, p_digits, percent, plural, score
from hirise_imb.reporting.html.details import name_twin
from hirise_imb.reporting.html.parts import (
    Cell,
    Difference,
    Heading,
    Row,
    Span,
    Table,
    breakable,
    columns,
    interval_cell,
    interval_text,
    number,
    settings_text,
    signed_interval,
    spread_cell,
    text_table,
)
from hirise_imb.reporting.results import CONTRASTS, Contrast
from hirise_imb.reporting.summary.records import AgainstRecord, ArmRecord, StudyContent
from hirise_imb.reporting.terms import Terms, choose_terms


@dataclass(frozen=True)
class ArmTables:
    """The tables about the arms of a study or a comparison."""

    content: StudyContent
    arms: tuple[ArmRecord, ...]
    """The arms in the order of the tables."""
    reference_name: str
    """Name of the reference in sentences and headings."""

    @property
    def terms(self) -> Terms:
        """Words of the design."""
        return choose_terms(nested=self.content["outer_folds"] is not None)

    @property
    def most_seeds(self) -> int:
        """Largest number of seeds of any arm."""
        return max(len(arm["seeds"]) for arm in self.arms)

    def every_arm(self) -> Table:
        """Returns macro F1 of each arm with its interval, and its differences from its control and the reference."""
        scales = {contrast: self._scale(contrast) for contrast in self.contrasts}
        names = {"vs_control": "its control", "vs_baseline": self.reference_name}
        first_row = [
            Heading("arm", "text", "name", rows=2),
            Heading("macro F1", "", "group edge", columns=3),
            *(
                Heading("macro F1 compared with " + breakable(names[contrast]), "", "group edge", columns=3)
                for contrast in self.contrasts
            ),
        ]
        test_notes = ("range over seeds",) if self.most_seeds > 1 else ()
        second_row = [
            Heading(self.terms.inner, css="edge"),
            Heading(self.terms.outer, notes=test_notes),
            Heading("95 % interval", notes=("over sources",)),
        ]
        for contrast in self.contrasts:
            n_tests = self.content["inference"][contrast]["tests"]
            second_row += [
                Heading("difference", css="edge", notes=("95 % interval",)),
                Heading("p, Holm", notes=(f"of {n_tests}", "one test"), ascending=True),
                Heading("minimum detectable difference", ascending=True),
            ]
        rows = [self._row(place, self._every_arm_cells(arm, scales)) for place, arm in enumerate(self.arms)]
        head = (tuple(first_row), columns(*second_row, start=1))
        return Table("Every arm", "sort sticky loose", head, tuple(rows))

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The comparisons that have columns: that with the control, if there is one, and that with the reference."""
        return CONTRASTS if self.content["control"] else ("vs_baseline",)

    def _scale(self, contrast: Contrast) -> tuple[float, float]:
        """Returns the scale that all bars of a contrast share, which includes 0, so that lengths can be compared."""
        gaps = [gap for arm in self.arms if (against := arm[contrast]) and (gap := against["interval"])]
        return min([0.0, *(gap["low"] for gap in gaps)]), max([0.0, *(gap["high"] for gap in gaps)])

    def _every_arm_cells(self, arm: ArmRecord, scales: Mapping[Contrast, tuple[float, float]]) -> list[Cell]:
        cells = [
            Cell(score(arm["val_macro_f1"]), arm["val_macro_f1"]).edge(),
            spread_cell(arm["scores"]["macro_f1"], len(arm["seeds"])),
            interval_cell(arm["uncertainty"]["macro_f1"]),
        ]
        for contrast in self.contrasts:
            cells += _against_cells(arm, arm[contrast], scales[contrast])
        return cells

    def class_f1(self) -> Table:
        """Returns the F1 of each class and arm, and the mean over the rare classes if there is a majority class."""
        content, rare = self.content, self.content.get("majority") is not None
        classes = [
            Heading(name, css="" if k else "edge", notes=(f"n = {n}", plural(sources, "source")))
            for k, (name, n, sources) in enumerate(
                zip(content["classes"], content["support"], content["sources"], strict=True)
            )
        ]
        mean_heading = [Heading("rare classes", css="edge", notes=("mean",))] if rare else []
        head = columns(Heading("arm", "text"), *mean_heading, *classes)
        best = [max(arm["per_class"]["f1"][k]["mean"] for arm in self.arms) for k in range(len(classes))]
        rows = []
        for place, arm in enumerate(self.arms):
            cells = [self._class_cell(arm, k, best[k]) for k in range(len(classes))]
            cells[0] = cells[0].edge()
            if rare:
                spread, gains = arm["scores"].get("macro_f1_rare"), self._gains(arm)
                difference = _difference(gains, "macro_f1_rare") if gains else None
                cells.insert(0, spread_cell(spread, 1, difference).edge())
            rows.append(self._row(place, cells))
        return Table("F1 of each class", "sort sticky loose", (head,), tuple(rows))

    def _class_cell(self, arm: ArmRecord, label: int, best: float) -> Cell:
        if not self.content["support"][label]:
            return Cell()
        mean, gains = arm["per_class"]["f1"][label]["mean"], self._gains(arm)
        difference = None
        if gains is not None:
            difference = Difference.of(gains["per_class"]["f1"][label], gains["per_class_clear"]["f1"][label])
        # With fewer sources, the highest mean says little about other sources.
        enough_sources = self.content["sources"][label] >= self.content["inference"]["least_sources"]
        is_best = enough_sources and len(self.arms) > 1 and mean == best
        return Cell(score(mean), mean, css="best" if is_best else "", difference=difference)

    def intervals(self) -> Table:
        """Returns intervals over sources under both rules for undrawn classes, and intervals over images."""
        rules = {"others_mean": "mean of the drawn", "own_f1": f"F1 {self.terms.whole_short}"}
        head = columns(
            Heading("arm", "text"),
            Heading(f"macro F1, {self.terms.outer}"),
            *(
                Heading("over sources", notes=(f"undrawn class: {text}",), css="edge" if place == 0 else "")
                for place, text in enumerate(rules.values())
            ),
            Heading(
                "over images", css="edge", notes=(f"undrawn class: {rules[self.content['inference']['undrawn']]}",)
            ),
            Heading("its width", notes=("relative to the one over sources",)),
        )
        rows = []
        for arm in self.arms:
            by_source, by_image = arm["uncertainty"]["macro_f1"], arm["uncertainty"]["macro_f1_by_image"]
            narrow = Cell(interval_text(by_image), by_image["low"], css="soft") if by_image else Cell()
            width = Cell()
            if by_source and by_image:
                share = (by_image["high"] - by_image["low"]) / (by_source["high"] - by_source["low"])
                width = Cell(f"{percent(share)} %", share)
            undrawn = arm["uncertainty"]["macro_f1_undrawn"]
            cells = (
                spread_cell(arm["scores"]["macro_f1"], 1),
                interval_cell(undrawn["others_mean"]).edge(),
                interval_cell(undrawn["own_f1"]),
                narrow.edge(),
                width,
            )
            rows.append(Row(breakable(arm["name"]), cells))
        return Table("Intervals of macro F1", "sort sticky loose", (head,), tuple(rows))

    def searches(self) -> Table | None:
        """Returns the trials of each search and the chosen hyperparameters; None without a search."""
        head = columns(
            Heading("strategy", "text"),
            *(Heading(title) for title in ("trials", "complete", "failed", "best trial", "its macro F1")),
            Heading("chosen hyperparameters", "", "name"),
        )
        rows = []
        for arm in self.arms:
            tallies = [selection["search"] for selection in arm["selections"]]
            if not any(tally["trials"] for tally in tallies):
                continue
            trials, complete, failed = (
                sum(counts)
                for counts in zip(*((t["trials"], t["complete"], t["failed"]) for t in tallies), strict=True)
            )
            # The number of the best trial of several searches would say nothing.
            best = tallies[0]["best_trial"] if len(tallies) == 1 else None
            values = [tally["best_value"] for tally in tallies if tally["best_value"] is not None]
            value = sum(values) / len(values) if len(values) == len(tallies) else None
            cells = (
                *(number(n) for n in (trials, complete, failed)),
                Cell() if best is None else number(best),
                Cell(score(value), value),
                Cell(settings_text(arm), css="settings"),
            )
            rows.append(Row(breakable(arm["name"]), cells))
        return Table("The searches", "sort sticky", (head,), tuple(rows)) if rows else None

    def failures(self) -> Table | None:
        """Returns the reasons why trials failed; None if none failed."""
        rows = [
            (breakable(arm["name"]), str(failure["trials"]), failure["reason"])
            for arm in self.arms
            for failure in arm["failures"]
        ]
        return text_table("Why trials failed", ("strategy", "trials", "reason"), rows, (2,)) if rows else None

    def cost(self, seconds: Mapping[str, float]) -> Table:
        """Returns the wall time of each arm's trials and fits."""
        titles = ("trials", "fits", "wall time", "share, %")
        head = columns(Heading("arm", "text"), *(Heading(title) for title in titles))
        total = sum(seconds.values())
        n_trials = {arm["name"]: sum(len(s["trials"]) for s in arm["selections"]) for arm in self.arms}
        n_fits = {arm["name"]: sum(map(len, arm["best_epochs"])) for arm in self.arms}
        rows = []
        for arm in self.arms:
            arm_seconds = seconds[arm["name"]]
            cells = (
                number(n_trials[arm["name"]]) if n_trials[arm["name"]] else Cell(),
                number(n_fits[arm["name"]]),
                Cell(duration(arm_seconds), arm_seconds),
                Cell(percent(arm_seconds / total), arm_seconds) if total else Cell(),
            )
            rows.append(Row(breakable(arm["name"]), cells))
        counts = [sum(n_trials.values()), sum(n_fits.values())]
        every = Row("all", (*(Cell(str(n)) for n in counts), Cell(duration(total)), Cell("")))
        return Table("Cost", "sort sticky", (head,), tuple(rows), (every,))

    def _row(self, place: int, cells: Sequence[Cell]) -> Row:
        """Returns the row of an arm, with a link to its details and a tag for its role."""
        arm, content = self.arms[place]["name"], self.content
        preferred = {content["chosen"], *(origin["chosen"] for origin in content["origins"])}
        record, css = self.arms[place], "tag"
        tags = []
        if arm == content["reference"]:
            tags.append("reference")
        elif record["role"] == "control" and content["control"]:
            tags.append(
                "control" if arm == content["control"] else f"control, mean of {count_range(record['members'])}"
            )
        elif arm in preferred:
            tags.append(f"best {self.terms.best}")
            css = "tag pick"
        if record["identical_to"] is not None:
            tags.append(f"identical to {name_twin(content, record['identical_to'])}")
        tag = ", ".join(tags)
        # A comparison has a line below its reference alone, since each of its reports has arms of all roles.
        n_before = sum(other["role"] != "strategy" for other in self.arms) if content["kind"] == "study" else 1
        last = place == n_before - 1 and place < len(self.arms) - 1
        return Row(breakable(arm), tuple(cells), f"#arm-{place + 1}", tag, css, last)

    def _gains(self, arm: ArmRecord) -> AgainstRecord | None:
        """Returns the differences between an arm and the reference; None for the reference itself."""
        return None if arm["name"] == self.content["reference"] else arm["vs_baseline"]


def _against_cells(arm: ArmRecord, against: AgainstRecord | None, scale: tuple[float, float]) -> list[Cell]:
    """Returns the cells of a comparison: the difference with its interval, p values and what could be detected."""
    if against is None or against["arm"] == arm["name"]:
        return [Cell().edge(), Cell(), Cell()]
    gap, test, gain = against["interval"], against["test"], against["scores"]["macro_f1"]
    span = Span.of(gap, gain, *scale) if gap else None
    notes = (signed_interval(gap),) if gap else ()
    cells = [Cell("", gain, notes=notes, difference=_difference(against, "macro_f1"), span=span).edge()]
    if test is None:
        return [*cells, Cell("identical" if arm["identical_to"] == against["arm"] else MISSING), Cell()]
    cells.append(Cell(p_digits(test["p_holm"]), test["p_holm"], notes=(p_digits(test["p"]),)))
    return [*cells, Cell(score(test["resolvable"]), test["resolvable"])]


def _difference(gains: AgainstRecord, metric: str) -> Difference | None:
    """Returns the difference in a registered score; None if either arm lacks the score."""
    if metric not in gains["scores"]:
        return None
    return Difference.of(gains["scores"][metric], gains["scores_clear"][metric])


def _gain_cell(gains: AgainstRecord, metric: str) -> Cell:
    return Cell("", gains["scores"][metric], difference=_difference(gains, metric))


def reports_compared(content: StudyContent, arms: Sequence[ArmRecord]) -> Table:
    """Returns the reports of a comparison with the best strategy of each."""
    terms = choose_terms(nested=content["outer_folds"] is not None)
    titles = (
        "report",
        "study",
        "arms",
        f"best strategy {terms.best}",
        f"macro F1, {terms.outer}",
        "difference from " + breakable(content["reference"]),
        "95 % interval",
        "p",
        "p, Holm",
    )
    arms_by_name = {arm["name"]: arm for arm in arms}
    head = tuple(Heading(title, "", "name" if place in (0, 1, 3) else "") for place, title in enumerate(titles))
    rows = []
    for origin in content["origins"]:
        arm = arms_by_name.get(origin["chosen"] or "")
        cells = [Cell(breakable(origin["study"]), css="name"), Cell(str(len(origin["arms"])))]
        if arm is None:
            cells += [Cell(css="name"), *(Cell() for _ in range(5))]
        else:
            test = arm["vs_baseline"]["test"]
            cells += [
                Cell(breakable(arm["name"]), css="name"),
                Cell(score(arm["scores"]["macro_f1"]["mean"])),
                _gain_cell(arm["vs_baseline"], "macro_f1") if test else Cell(),
                Cell(signed_interval(arm["vs_baseline"]["interval"])),
                *(Cell(p_digits(p)) for p in ((test["p"], test["p_holm"]) if test else ())),
                *(Cell() for _ in range(0 if test else 2)),
            ]
        rows.append(Row(breakable(origin["name"]), tuple(cells)))
    return Table("The reports compared", "loose", (head,), tuple(rows), caption="The reports compared")


def all_scores(arms: Sequence[ArmRecord]) -> Table:
    """Returns all registered scores of each arm, with a dash for a score that an arm lacks."""
    metrics = METRICS.values()
    head = columns(
        Heading("arm", "text"), *(Heading(metric.label, ascending=not metric.higher_is_better) for metric in metrics)
    )
    rows = [
        Row(
            breakable(arm["name"]),
            tuple(spread_cell(arm["scores"].get(metric.name), len(arm["seeds"])) for metric in metrics),
        )
        for arm in arms
    ]
    return Table("Scores", "sort sticky loose", (head,), tuple(rows))
