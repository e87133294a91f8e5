"""Tables of a report with a row for each arm, apart from the main one in `arm_table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hirise_imb.metrics.registry import METRICS
from hirise_imb.reporting.formatting import duration, p_digits, percent, score
from hirise_imb.reporting.html.parts import (
    Cell,
    Difference,
    Heading,
    Row,
    Table,
    arm_row,
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
from hirise_imb.reporting.summary.records import ArmRecord, StudyContent
from hirise_imb.reporting.terms import Terms, choose_terms


@dataclass(frozen=True)
class ArmTables:
    """The tables about the arms of a study or a comparison."""

    content: StudyContent
    arms: tuple[ArmRecord, ...]
    """The arms in the order of the tables."""

    @property
    def terms(self) -> Terms:
        """Words of the design."""
        return choose_terms(nested=self.content["outer_folds"] is not None)

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
            undrawn, by_image = arm["uncertainty"]["macro_f1_undrawn"], arm["uncertainty"]["macro_f1_by_image"]
            others_mean = self.content["inference"]["undrawn"] == "others_mean"
            by_source = undrawn["others_mean"] if others_mean else undrawn["own_f1"]
            narrow = Cell(interval_text(by_image), by_image["low"], css="soft") if by_image else Cell()
            width = Cell()
            if by_source and by_image:
                share = (by_image["high"] - by_image["low"]) / (by_source["high"] - by_source["low"])
                width = Cell(f"{percent(share)} %", share)
            cells = (
                spread_cell(arm["scores"]["macro_f1"], 1),
                interval_cell(undrawn["others_mean"]).edge(),
                interval_cell(undrawn["own_f1"]),
                narrow.edge(),
                width,
            )
            rows.append(arm_row(arm, cells))
        return Table("Intervals of macro F1", "sort sticky loose", (head,), tuple(rows))

    def searches(self) -> Table | None:
        """Returns the trials of each search and the chosen hyperparameters; None without a search."""
        label = self.content["metric"]["label"]
        head = columns(
            Heading("strategy", "text"),
            *(Heading(title) for title in ("trials", "complete", "failed", "best trial", f"its {label}")),
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
            rows.append(arm_row(arm, cells))
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
            rows.append(arm_row(arm, cells))
        counts = [sum(n_trials.values()), sum(n_fits.values())]
        every = Row("all", (*(Cell(str(n)) for n in counts), Cell(duration(total)), Cell("")))
        return Table("Cost", "sort sticky", (head,), tuple(rows), foot=(every,))


def reports_compared(content: StudyContent, arms: Sequence[ArmRecord]) -> Table:
    """Returns the reports of a comparison with the arm that each of them advises."""
    terms = choose_terms(nested=content["outer_folds"] is not None)
    head = (
        *(Heading(title, "", "name") for title in ("report", "study")),
        Heading("arms", ""),
        Heading("choice of the report", "", "name"),
        Heading(f"{content['metric']['label']}, {terms.outer}", ""),
        Heading("difference from " + breakable(content["reference"]), "", notes=("95 % interval",)),
        Heading("adjusted p", ""),
    )
    arms_by_name = {arm["name"]: arm for arm in arms}
    rows = []
    for origin in content["origins"]:
        arm = arms_by_name.get(origin["chosen"] or "")
        cells = [Cell(breakable(origin["study"]), css="name"), number(len(origin["arms"]))]
        if arm is None:
            cells += [Cell(css="name"), Cell(), Cell(), Cell()]
        else:
            against, test = arm["vs_baseline"], arm["vs_baseline"]["test"]
            notes = (signed_interval(against["interval"]),) if against["interval"] else ()
            clear = test is not None and test["p_holm"] <= content["inference"]["alpha"]
            difference = Difference.of(against["scores"][content["metric"]["key"]], clear)
            cells += [
                Cell(breakable(arm["name"]), css="name"),
                Cell(score(arm["scores"][content["metric"]["key"]]["mean"])),
                Cell() if against["arm"] == arm["name"] else Cell("", notes=notes, difference=difference),
                Cell(p_digits(test["p_holm"])) if test else Cell(),
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
        arm_row(arm, tuple(spread_cell(arm["scores"].get(metric.name), len(arm["seeds"])) for metric in metrics))
        for arm in arms
    ]
    return Table("Scores", "sort sticky loose", (head,), tuple(rows))
