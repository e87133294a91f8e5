"""Tables of a report with a row for each class, strategy or hyperparameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hirise_imb.reporting.formatting import MISSING, count, percent, score, signed
from hirise_imb.reporting.html.parts import (
    Cell,
    Heading,
    Row,
    Table,
    breakable,
    columns,
    number,
    p_cell,
    share_cell,
    signed_interval,
    text_table,
)
from hirise_imb.reporting.summary.records import ArmRecord, Content, ParameterRecord, StudyContent


def operating_point_table(content: Content, arms: Sequence[ArmRecord]) -> Table:
    """Returns the coverage and precision of each class if only confident predictions are shown."""
    support = content["support"]
    first_row = [
        Heading("class", "text", "name", rows=2),
        Heading("n", column=1, rows=2),
        *(Heading(breakable(arm["name"]), "", "group edge", columns=2) for arm in arms),
    ]
    pairs = [heading for _ in arms for heading in (Heading("coverage, %", css="edge"), Heading("precision, %"))]
    no_predictions = ("none shown",)
    rows = []
    for k, name in enumerate(content["classes"]):
        cells = [number(support[k])]
        for arm in arms:
            point = arm["decided"]
            cells.append(share_cell(point["landmarks"][k], support[k]).edge())
            cells.append(share_cell(point["right"][k], point["shown"][k], no_predictions))
        rows.append(Row(name, tuple(cells)))
    foot = [Cell(str(sum(support)))]
    for arm in arms:
        point, total = arm["decided"], sum(support)
        foot.append(Cell(percent(point["coverage"]), notes=(f"{count(sum(point['landmarks']))} of {total}",)).edge())
        counts = f"{count(sum(point['right']))} of {count(sum(point['shown']))}"
        accuracy = point["accuracy"]
        foot.append(Cell() if accuracy is None else Cell(percent(accuracy), notes=(counts,)))
    head = (tuple(first_row), columns(*pairs, start=2))
    return Table("Operating point", "sort sticky", head, tuple(rows), foot=(Row("all", tuple(foot)),))


def data_table(content: Content) -> Table:
    """Returns the numbers of sources, landmarks, images and rows of each class and split."""
    keys = ("sources", "landmarks", "images", "rows")
    splits = list(dict.fromkeys(row["split"] for row in content["data"]))
    rows_by_place: dict[tuple[str, str], Mapping[str, Any]] = {
        (row["split"], row["class"]): row for row in content["data"]
    }
    first = [Heading("class", "text", "name", rows=2)]
    first += [Heading(split, "", "group edge", columns=len(keys)) for split in splits]
    second = columns(*(Heading(key) for _ in splits for key in keys), start=1)
    rows = []
    for name in content["classes"]:
        cells = []
        for split in splits:
            row = rows_by_place.get((split, name))
            part = [Cell(count(row[key]), row[key]) if row else Cell() for key in keys]
            cells += [part[0].edge(), *part[1:]]
        rows.append(Row(name, tuple(cells)))
    return Table("Data", "sort sticky", (tuple(first), second), tuple(rows))


def given_split_table(content: StudyContent) -> Table | None:
    """Returns the scores of the arms on the given split next to those in the outer folds; None without them."""
    given = content["given_split"]
    if given is None:
        return None
    other = "its control" if content["control"] else content["reference"]
    here, label = {arm["name"] for arm in content["arms"]}, content["metric"]["label"]
    head = columns(
        Heading("arm", "text"),
        Heading("validation"),
        Heading(f"test {label}"),
        Heading("difference from " + breakable(other), notes=("95 % interval",), css="edge"),
        Heading("adjusted p", notes=(f"of {given['tests']}",), ascending=True),
        Heading(f"outer {label}", css="edge"),
    )
    rows = []
    for arm in given["arms"]:
        notes = (signed_interval(arm["interval"]),) if arm["interval"] else ()
        cells = (
            Cell(score(arm["val_score"]), arm["val_score"]),
            Cell(score(arm["score"]), arm["score"]),
            Cell(signed(arm["difference"]), arm["difference"], notes=notes).edge(),
            p_cell(arm["p_holm"]),
            Cell(score(arm["outer_score"]), arm["outer_score"]).edge(),
        )
        rows.append(Row(breakable(arm["name"]), cells, arm=arm["name"] if arm["name"] in here else ""))
    return Table("The given split", "sort sticky loose", (head,), tuple(rows))


def strategies_table(content: StudyContent) -> Table | None:
    """Returns the declared strategies; None without a strategy."""
    titles = ("strategy", "what it does", "starts from", "source")
    rows = [
        (breakable(s["name"]), s["summary"], ", ".join(s["starts_from"]) or MISSING, s["source"])
        for s in content["strategies"]
    ]
    return text_table("Strategies", titles, rows, (1, 3)) if rows else None


def parameters_table(content: StudyContent) -> Table | None:
    """Returns the search space; None without a strategy."""
    titles = ("strategy", "parameter", "range", "default", "only where", "what it does", "source")
    named = [(f"{len(p.get('strategies', []))} strategies", p) for p in content["shared_parameters"]]
    named += [(strategy["name"], p) for strategy in content["strategies"] for p in strategy["parameters"]]
    rows = [
        (
            breakable(n),
            breakable(p["name"]),
            p["range"],
            str(p["default"]),
            p["when"] or MISSING,
            p["help"],
            p["source"],
        )
        for n, p in named
    ]
    return text_table("Parameters", titles, rows, (5, 6)) if content["strategies"] else None


def shared_words(parameters: Sequence[ParameterRecord]) -> tuple[str, ...]:
    """Returns a sentence for each group of strategies about the hyperparameters that they search in common."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for parameter in parameters:
        groups.setdefault(tuple(parameter.get("strategies", [])), []).append(parameter["name"])
    return tuple(
        f"{' and '.join(group)}, in the first rows, {'is' if len(group) == 1 else 'are'} tuned over the same range by "
        f"{', '.join(names)}."
        for names, group in sorted(groups.items())
    )
