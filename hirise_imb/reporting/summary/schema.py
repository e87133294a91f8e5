"""The schema of `summary.json`: generated from the records, shipped with the package, and checked on write and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from hirise_imb.metrics.registry import CLASS_METRICS
from hirise_imb.reporting.summary.json_schema import Schema, schema_of
from hirise_imb.reporting.summary.records import SCHEMA_VERSION, WHOLE_TABLE, Summary
from hirise_imb.reporting.summary.values import PER_CLASS_COMMENT

_LONGEST = 160
"""Most characters of a message about a value."""


def generate_schema() -> Schema:
    """Returns the JSON Schema of `summary.json`; `tools/write_summary_schema.py` writes it to the package."""
    head = {
        "title": "summary.json of a report",
        "description": "The content of the pages of a report as plain values, without times. Lists over classes are in "
        "the order of the classes, and lists over seeds in that of the seeds of the arm. Values that can't be "
        "estimated are null.",
    }
    return schema_of(Summary) | head | {"allOf": _kinds()}


def _kinds() -> list[Schema]:
    """Returns rules for the keys that each kind of report must have and must not have."""
    study = ("verdict", "protocol", "strategies", "shared_parameters")
    baseline = ("reading", "comparison")
    alone = dict.fromkeys(study, False) | {"arms": {"maxItems": 1}}
    return [
        _if_kind(("study", "comparison"), {"required": list(study), "properties": dict.fromkeys(baseline, False)}),
        _if_kind(("baseline",), {"required": list(baseline), "properties": alone}),
        _if_kind(("comparison",), {"properties": {"origins": {"minItems": 2}}}),
        _if_kind(("study", "baseline"), {"properties": {"origins": {"maxItems": 0}}}),
    ]


def _if_kind(kinds: tuple[str, ...], then: Schema) -> Schema:
    return {"if": {"required": ["kind"], "properties": {"kind": {"enum": list(kinds)}}}, "then": then}


@cache
def load_schema() -> dict[str, Any]:
    """Returns the JSON Schema of `summary.json` (draft 2020-12), as it comes with the package."""
    text = (files("hirise_imb.reporting") / "summary.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def find_fault(summary: object) -> str | None:
    """Returns where and how a summary violates its schema, as a phrase for a message; None if it is valid."""
    from jsonschema.exceptions import best_match

    if isinstance(summary, Mapping) and summary.get("schema_version") != SCHEMA_VERSION:
        return f"it has schema version {summary.get('schema_version')}, but this program reads {SCHEMA_VERSION}"
    if (fault := _find_class_fault(summary)) is not None:
        return fault
    error = best_match(_validator(_n_classes(summary)).iter_errors(summary))
    if error is not None:
        return f"at {error.json_path}: {_shortened(error.message)}"
    assert isinstance(summary, Mapping)
    return _find_arm_fault(summary) or _find_length_fault(summary)


def _n_classes(summary: object) -> int:
    classes = summary.get("classes") if isinstance(summary, Mapping) else None
    return len(classes) if isinstance(classes, list) else 0


def _find_class_fault(summary: object) -> str | None:
    """Checks that the classes are those of the data, in the same order; leaves malformed data to the schema."""
    try:
        classes, rows = list(summary["classes"]), list(summary["data"])  # type: ignore[index]
        splits = dict.fromkeys(row["split"] for row in rows)
        class_lists = [[row["class"] for row in rows if row["split"] == split] for split in splits]
        majority = summary["majority"]  # type: ignore[index]
    except (KeyError, TypeError):
        return None
    if majority is not None and majority not in classes:
        return "at $.majority: it is not one of the classes"
    return None if all(names == classes for names in class_lists) else "at $.classes: they are not those of $.data"


@cache
def _validator(n_classes: int) -> Any:  # noqa: ANN401
    """Returns a validator that also checks the length of lists over classes."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(_with_counts(load_schema(), n_classes))


def _with_counts(part: Any, n_classes: int) -> Any:  # noqa: ANN401
    """Returns a part of the schema in which lists over classes have a fixed length."""
    if isinstance(part, list):
        return [_with_counts(entry, n_classes) for entry in part]
    if not isinstance(part, dict):
        return part
    length = {"minItems": n_classes, "maxItems": n_classes} if part.get("$comment") == PER_CLASS_COMMENT else {}
    return {key: _with_counts(entry, n_classes) for key, entry in part.items()} | length


def _shortened(message: str) -> str:
    """Shortens a message, which begins with a value and ends with the fault, by the middle of a long value."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"


def _find_arm_fault(summary: Mapping[str, Any]) -> str | None:
    """Checks the names of arms across the summary, which a JSON Schema can't do."""
    names = [arm["name"] for arm in summary["arms"]]
    if sorted(summary["order"]) != sorted(set(names)) or len(set(names)) < len(names):
        return "at $.order: it does not name each arm once"
    if summary["reference"] != names[0]:
        return "at $.reference: it is not the first arm"
    named_arms = {key: [summary[key]] for key in ("control", "chosen")} | {"shown": summary["shown"]}
    if "verdict" in summary:
        named_arms["verdict.choice"] = [summary["verdict"]["choice"]]
    for key, named in named_arms.items():
        if unknown := set(named) - {*names, None}:
            return f"at $.{key}: {min(unknown)!r} is not one of the arms"
    for place, arm in enumerate(summary["arms"]):
        others = {arm[contrast]["arm"] for contrast in ("vs_control", "vs_baseline") if arm[contrast]}
        if unknown := {arm["identical_to"], *others} - {*names, None}:
            return f"at $.arms[{place}]: {min(unknown)!r} is not one of the arms"
    for place, origin in enumerate(summary["origins"]):
        if unknown := {origin["chosen"], *origin["arms"]} - {*names, None}:
            return f"at $.origins[{place}]: {min(unknown)!r} is not one of the arms"
    return None


def _find_length_fault(summary: Mapping[str, Any]) -> str | None:
    """Checks that lists over seeds have equal lengths, and that the comparison has all its rows."""
    for place, arm in enumerate(summary["arms"]):
        if not len(arm["seeds"]) == len(arm["best_epochs"]) == len(arm["capped"]) == len(arm["temperatures"]):
            return f"at $.arms[{place}]: it does not have as many best_epochs, capped and temperatures as seeds"
        fits = [values for key in ("best_epochs", "capped", "temperatures") for values in arm[key]]
        repeats = max([row["repeat"] for row in summary["outer_folds"] or []], default=1)
        if (
            len(arm["members"]) != len(arm["selections"])
            or len(arm["seeds"]) % repeats
            or any(len(values) * repeats != len(arm["selections"]) for values in fits)
        ):
            return f"at $.arms[{place}]: its fits and selections do not have one entry for each division"
    if summary["given_split"] is not None and summary["outer_folds"] is None:
        return "at $.given_split: only the report of a nested cross-validation has one"
    rows = summary.get("comparison")
    if rows is not None and len(rows) != len(CLASS_METRICS) * len(summary["classes"]) + len(WHOLE_TABLE):
        return "at $.comparison: it does not have each score once"
    return None
