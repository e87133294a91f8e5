"""The content of `summary.json`: everything that the pages of a report show, as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

from hirise_imb.forensics import Statistic
from hirise_imb.metrics.bootstrap import LEVEL, MIN_SOURCES, N_RESAMPLES, Interval
from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting import narrative, search_summary
from hirise_imb.reporting.records import Arm, Spread
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.summary.records import (
    SCHEMA_VERSION,
    AgainstRecord,
    ArmRecord,
    ClassDifferencesRecord,
    ClassFlagsRecord,
    ClassScoresRecord,
    DataRecord,
    Facts,
    InferenceRecord,
    OperatingPointRecord,
    OriginRecord,
    StatisticRecord,
    StudyContent,
    SwapTestRecord,
    TrialRecord,
    UncertaintyRecord,
)
from hirise_imb.reporting.summary.values import FreeSpreadRecord, IntervalRecord, SpreadRecord


def of_study(results: Results) -> StudyContent:
    """Returns everything the page of a study or comparison shows; without times, so that equal results are equal."""
    return {
        "kind": "comparison" if results.origins else "study",
        **facts(results),
        "headline": narrative.headline(results),
        "caution": narrative.caution(results),
        "protocol": narrative.protocol(results),
        "strategies": results.appendix["strategies"],
        "shared_parameters": results.appendix["shared_parameters"],
    }


def facts(results: Results) -> Facts:
    """Returns what every page shows, whatever it compares."""
    return {
        "schema_version": SCHEMA_VERSION,
        "study": results.name,
        "setting": results.setting,
        "pairing": results.pairing(),
        "classes": list(results.classes),
        "majority": results.classes.majority,
        "support": results.support.tolist(),
        "sources": results.sources.tolist(),
        "data": cast("list[DataRecord]", results.data.to_dict("records")),
        "reference": results.reference,
        "control": results.control.name if results.control else None,
        "chosen": results.chosen.name if results.chosen else None,
        "order": [arm.name for arm in results.ordered],
        "shown": [arm.name for arm in results.shown],
        "inference": _inference(results),
        "arms": [_arm(results, arm) for arm in results.arms],
        "omitted": [{"name": s.name, "summary": s.summary, "reason": s.reason} for s in results.omitted],
        "origins": [cast("OriginRecord", asdict(origin) | {"arms": list(origin.arms)}) for origin in results.origins],
    }


def _inference(results: Results) -> InferenceRecord:
    return {
        "level": LEVEL,
        "alpha": ALPHA,
        "draws": N_RESAMPLES,
        "sources": results.inference.total,
        "least_sources": MIN_SOURCES,
        "family": results.inference.family,
        "resolvable": _interval(results.inference.min_detectable_difference),
    }


def _arm(results: Results, arm: Arm) -> ArmRecord:
    baseline = _against(results, arm.name, results.reference)
    return {
        "name": arm.name,
        "summary": arm.summary,
        "settings": dict(arm.settings),
        "recipe": arm.recipe,
        "seeds": list(arm.seeds),
        "has_epochs": arm.has_epochs,
        "best_epochs": list(arm.best_epochs),
        "at_last_epoch": arm.at_last_epoch,
        "temperatures": list(arm.temperatures),
        "selection": arm.selection if arm.trials else None,
        "val_macro_f1": arm.val_macro_f1,
        "trials": cast("list[TrialRecord]", arm.trials),
        "search": search_summary.tally(arm),
        "failures": search_summary.failures(arm),
        "scores": {name: _free_spread(spread) for name, spread in results.headline_scores(arm.name).items()},
        "per_class": _class_scores(results, arm.name),
        "average_precision": [
            None if spread is None else _spread(spread) for spread in results.average_precision(arm.name)
        ],
        "uncertainty": _uncertainty(results, arm.name),
        "decided": _decided(results, arm),
        "vs_baseline": baseline,
        "vs_control": _against(results, arm.name, results.control.name) if results.control else None,
        "test": _tested(results, arm.name),
        "pairing": [_statistic(found) for found in results.pairings[arm.name]],
        "confusion": results.confusion(arm.name).tolist(),
    }


def _spread(spread: Spread) -> SpreadRecord:
    return {"mean": spread.mean, "low": spread.low, "high": spread.high}


def _free_spread(spread: Spread) -> FreeSpreadRecord:
    return {"mean": spread.mean, "low": spread.low, "high": spread.high}


def _interval(interval: Interval | None) -> IntervalRecord | None:
    return None if interval is None else {"low": interval.low, "high": interval.high}


def _statistic(found: Statistic) -> StatisticRecord:
    return {
        "observed": found.observed,
        "mean": found.mean,
        "deviation": found.deviation,
        "p_above": found.p_above,
        "p_below": found.p_below,
    }


def _class_scores(results: Results, arm: str) -> ClassScoresRecord:
    def of(metric: str) -> list[SpreadRecord]:
        return [_spread(spread) for spread in results.per_class(arm, metric)]

    return {"precision": of("precision"), "recall": of("recall"), "f1": of("f1")}


def _uncertainty(results: Results, arm: str) -> UncertaintyRecord:
    found = results.inference
    return {
        "macro_f1": _interval(found.resamples[arm].interval()),
        "macro_f1_by_image": _interval(found.by_image[arm]),
        "f1": [_interval(interval) for interval in found.class_intervals(arm)],
        "f1_without_each_source": [_interval(interval) for interval in found.leave_one_out(arm)],
    }


def _decided(results: Results, arm: Arm) -> OperatingPointRecord:
    """Returns what is left at the operating point, means over seeds."""
    found = results.decided(arm)
    return {
        "confidence": CONFIDENCE_THRESHOLD,
        "coverage": float(found.decided.sum() / len(results.test)),
        "accuracy": float(found.right.sum() / found.shown.sum()) if found.shown.sum() else None,
        "landmarks": found.decided.tolist(),
        "shown": found.shown.tolist(),
        "right": found.right.tolist(),
    }


def _against(results: Results, arm: str, other: str) -> AgainstRecord:
    """Returns differences to the means of another arm, and how far other sources could change them."""
    mine, theirs = results.headline_scores(arm), results.headline_scores(other)
    names = [name for name in mine if name in theirs]
    there = None if arm == other else results.inference.against(arm, other)

    def gains(metric: str) -> list[float]:
        return [float(gain) for gain in results.difference(arm, metric, other)]

    differences: ClassDifferencesRecord = {
        "precision": gains("precision"),
        "recall": gains("recall"),
        "f1": gains("f1"),
    }
    flags: ClassFlagsRecord = {
        "precision": results.clear(arm, "precision", other),
        "recall": results.clear(arm, "recall", other),
        "f1": results.clear(arm, "f1", other),
    }
    return {
        "scores": {name: results.gain(arm, name, other) for name in names},
        "scores_clear": {name: results.gain_is_clear(arm, name, other) for name in names},
        "per_class": differences,
        "per_class_clear": flags,
        "interval": _interval(there.interval) if there else None,
        "share_above": there.share_above if there else None,
    }


def _tested(results: Results, arm: str) -> SwapTestRecord | None:
    """Returns the swap test against the reference; None for the reference itself."""
    tested = results.inference.tests.get(arm)
    if tested is None:
        return None
    swap = tested.swap
    return {
        "p": swap.p,
        "p_holm": tested.p_holm,
        "resolvable": swap.min_detectable_difference,
        "informative_sources": swap.informative_sources,
        "exact": swap.exact,
    }
