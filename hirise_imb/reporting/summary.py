"""What the pages of a report show, as plain values: the content of `summary.json`, and its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from hirise_imb.forensics import METRICS
from hirise_imb.metrics.bootstrap import LEVEL, MIN_SOURCES, N_RESAMPLES, Interval
from hirise_imb.metrics.calibration import CONFIDENCE_THRESHOLD
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting import narrative, search_summary
from hirise_imb.reporting.records import Arm, Spread
from hirise_imb.reporting.results import Results

SCHEMA_VERSION = 3

_LONGEST = 160
"""Characters of a message about a value."""


def of_study(results: Results) -> dict[str, Any]:
    """Everything the page of a study, or of a comparison, shows; without times, so that equal results are equal."""
    told = {
        "headline": narrative.headline(results),
        "caution": narrative.caution(results),
        "protocol": narrative.protocol(results),
    }
    kind = "comparison" if results.origins else "study"
    return {"kind": kind} | facts(results) | told | dict(results.appendix)


def facts(results: Results) -> dict[str, Any]:
    """What every page shows, whatever it compares."""
    return {
        "schema_version": SCHEMA_VERSION,
        "study": results.name,
        "setting": results.setting,
        "pairing": results.pairing(),
        "classes": list(results.classes),
        "majority": results.classes.majority,
        "support": results.support.tolist(),
        "sources": results.sources.tolist(),
        "data": results.data.to_dict("records"),
        "reference": results.reference,
        "control": results.control.name if results.control else None,
        "chosen": results.chosen.name if results.chosen else None,
        "order": [arm.name for arm in results.ordered],
        "shown": [arm.name for arm in results.shown],
        "inference": _inference(results),
        "arms": [_arm(results, arm) for arm in results.arms],
        "omitted": [vars(strategy) for strategy in results.omitted],
        "origins": [asdict(origin) | {"arms": list(origin.arms)} for origin in results.origins],
    }


def refused(summary: object) -> str | None:
    """Where a summary breaks its schema, in a sentence without an end; None where it keeps it."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if isinstance(summary, Mapping) and summary.get("schema_version") != SCHEMA_VERSION:
        return f"it has schema version {summary.get('schema_version')}, this program knows {SCHEMA_VERSION}"
    error = best_match(Draft202012Validator(schema()).iter_errors(summary))
    if error is not None:
        return f"at {error.json_path}: {_shortened(error.message)}"
    assert isinstance(summary, Mapping)
    return _unknown_arm(summary) or _uneven(summary)


def _shortened(message: str) -> str:
    """A message without the middle of a long value: it begins with the value and ends with what is wrong about it."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"


def _unknown_arm(summary: Mapping[str, Any]) -> str | None:
    """What the names of its arms break, which no JSON Schema can say."""
    names = [arm["name"] for arm in summary["arms"]]
    if sorted(summary["order"]) != sorted(set(names)) or len(set(names)) < len(names):
        return "at $.order: it does not name each arm once"
    if summary["reference"] != names[0]:
        return "at $.reference: it is not the first arm"
    for key, named in (("control", [summary["control"]]), ("chosen", [summary["chosen"]]), ("shown", summary["shown"])):
        if unknown := set(named) - {*names, None}:
            return f"at $.{key}: {min(unknown)!r} is none of the arms"
    for place, origin in enumerate(summary["origins"]):
        if unknown := {origin["chosen"], *origin["arms"]} - {*names, None}:
            return f"at $.origins[{place}]: {min(unknown)!r} is none of the arms"
    return None


def _uneven(summary: Mapping[str, Any]) -> str | None:
    """Where an arm has more of one thing a fit than of another."""
    for place, arm in enumerate(summary["arms"]):
        if not len(arm["seeds"]) == len(arm["best_epochs"]) == len(arm["temperatures"]):
            return f"at $.arms[{place}]: it has not as many best_epochs and temperatures as seeds"
    return None


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of `summary.json` (draft 2020-12)."""
    text = (files("hirise_imb.reporting") / "summary.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _inference(results: Results) -> dict[str, Any]:
    return {
        "level": LEVEL,
        "alpha": ALPHA,
        "draws": N_RESAMPLES,
        "sources": results.inference.total,
        "least_sources": MIN_SOURCES,
        "family": results.inference.family,
        "resolvable": _interval(results.inference.resolvable),
    }


def _arm(results: Results, arm: Arm) -> dict[str, Any]:
    scores = results.headline_scores(arm.name)
    return {
        "name": arm.name,
        "summary": arm.summary,
        "settings": arm.settings,
        "recipe": arm.recipe,
        "seeds": list(arm.seeds),
        "has_epochs": arm.has_epochs,
        "best_epochs": list(arm.best_epochs),
        "at_last_epoch": arm.at_last_epoch,
        "temperatures": list(arm.temperatures),
        "selection": arm.selection if arm.trials else None,
        "val_macro_f1": arm.val_macro_f1,
        "trials": arm.trials,
        "search": search_summary.tally(arm),
        "failures": search_summary.failures(arm),
        "scores": {name: vars(spread) for name, spread in scores.items()},
        "per_class": {m: _spreads(results.per_class(arm.name, m)) for m in METRICS},
        "average_precision": _spreads(results.average_precision(arm.name)),
        "uncertainty": _uncertainty(results, arm.name),
        "decided": _decided(results, arm),
        **{key: _against(results, arm.name, other) for key, other in results.references.items()},
        "test": _tested(results, arm.name),
        "pairing": [vars(found) for found in results.pairings[arm.name]],
        "confusion": results.confusion(arm.name).tolist(),
    }


def _spreads(spreads: Sequence[Spread | None]) -> list[dict[str, float] | None]:
    return [None if spread is None else vars(spread) for spread in spreads]


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else vars(interval)


def _uncertainty(results: Results, arm: str) -> dict[str, Any]:
    found = results.inference
    return {
        "macro_f1": _interval(found.resamples[arm].interval()),
        "macro_f1_by_image": _interval(found.by_image[arm]),
        "f1": [_interval(interval) for interval in found.class_intervals(arm)],
        "f1_without_each_source": [_interval(interval) for interval in found.leave_one_out(arm)],
    }


def _decided(results: Results, arm: Arm) -> dict[str, Any]:
    """Means over seeds of what is left at the operating point."""
    found = results.decided(arm)
    return {
        "confidence": CONFIDENCE_THRESHOLD,
        "coverage": float(found.decided.sum() / len(results.test)),
        "accuracy": float(found.right.sum() / found.shown.sum()) if found.shown.sum() else None,
        "landmarks": found.decided.tolist(),
        "shown": found.shown.tolist(),
        "right": found.right.tolist(),
    }


def _against(results: Results, arm: str, other: str | None) -> dict[str, Any] | None:
    """Differences of an arm's means to another's, whether ranges over seeds lie apart, and how other sources matter."""
    if other is None:
        return None
    mine, theirs = results.headline_scores(arm), results.headline_scores(other)
    names = [name for name in mine if name in theirs]
    there = None if arm == other else results.inference.against(arm, other)
    return {
        "scores": {name: results.gain(arm, name, other) for name in names},
        "scores_clear": {name: results.gain_is_clear(arm, name, other) for name in names},
        "per_class": {m: results.difference(arm, m, other).tolist() for m in METRICS},
        "per_class_clear": {m: results.clear(arm, m, other) for m in METRICS},
        "interval": _interval(there.interval) if there else None,
        "share_above": there.share_above if there else None,
    }


def _tested(results: Results, arm: str) -> dict[str, Any] | None:
    """The swap test against the reference; None for the reference itself."""
    tested = results.inference.tests.get(arm)
    if tested is None:
        return None
    swap = tested.swap
    return {
        "p": swap.p,
        "p_holm": tested.p_holm,
        "resolvable": swap.resolvable,
        "informative_sources": swap.informative,
        "exact": swap.exact,
    }
