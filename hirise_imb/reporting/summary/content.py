"""Computes the content of `summary.json`: everything that the pages of a report show, as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

from hirise_imb.forensics import Statistic
from hirise_imb.metrics.bootstrap import LEVEL, MIN_SOURCES, N_RESAMPLES, UNDRAWN, Interval
from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting import narrative, search_summary, tables
from hirise_imb.reporting.inference import AdjustedTest, Family
from hirise_imb.reporting.protocol import protocol
from hirise_imb.reporting.records import Arm, Selection, Spread
from hirise_imb.reporting.results import Contrast, Results
from hirise_imb.reporting.selection import SelectionCost, Stability, selection_cost
from hirise_imb.reporting.summary.given_split import describe_given_split
from hirise_imb.reporting.summary.records import (
    SCHEMA_VERSION,
    AgainstRecord,
    ArmRecord,
    ClassDifferencesRecord,
    ClassScoresRecord,
    DataRecord,
    Facts,
    FamilyRecord,
    InferenceRecord,
    OperatingPointRecord,
    OriginRecord,
    OuterFoldRecord,
    RankCorrelationRecord,
    SelectionCostRecord,
    SelectionRecord,
    SpaceRecord,
    StabilityRecord,
    StatisticRecord,
    StudyContent,
    SwapTestRecord,
    TrialRecord,
    UncertaintyRecord,
    VerdictRecord,
)
from hirise_imb.reporting.summary.values import FreeIntervalRecord, FreeSpreadRecord, IntervalRecord, SpreadRecord
from hirise_imb.reporting.terms import NO_SOURCES
from hirise_imb.reporting.verdict import Verdict, verdict


def of_study(results: Results) -> StudyContent:
    """Returns the content of the page of a study or comparison, without times, so that equal results are equal."""
    return {
        "kind": "comparison" if results.origins else "study",
        **facts(results),
        "verdict": _verdict(verdict(results)),
        "headline": narrative.headline(results),
        "caution": narrative.caution(results),
        "protocol": protocol(results),
        "strategies": results.appendix["strategies"],
        "shared_parameters": results.appendix["shared_parameters"],
    }


def _verdict(answer: Verdict) -> VerdictRecord:
    return {
        "outcome": answer.outcome,
        "headline": answer.headline,
        "advice": answer.advice,
        "choice": answer.choice,
        "cards": [{"title": card.title, "text": card.text} for card in answer.cards],
    }


def facts(results: Results) -> Facts:
    """Returns the content that all kinds of pages have in common."""
    curves = tables.share_curves(results.arms)
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
        "metric": {
            "key": results.target.key,
            "name": results.target.name,
            "label": results.target.label,
            "costs": list(results.costs),
        },
        "reference": results.reference,
        "control": results.control.name if results.control else None,
        "chosen": results.chosen.name if results.chosen else None,
        "order": [arm.name for arm in results.ordered],
        "shown": [arm.name for arm in results.shown],
        "outer_folds": None
        if results.outer_folds is None
        else cast("list[OuterFoldRecord]", results.outer_folds.to_dict("records")),
        "given_split": describe_given_split(results),
        "trial_seeds": results.trial_seeds,
        "inference": _inference(results),
        "rank_correlation": cast("RankCorrelationRecord", asdict(results.rank_correlation))
        if results.rank_correlation
        else None,
        "arms": [_arm(results, arm, curves.get(arm.name)) for arm in results.arms],
        "omitted": [{"name": s.name, "summary": s.summary, "reason": s.reason} for s in results.omitted],
        "origins": [cast("OriginRecord", asdict(origin) | {"arms": list(origin.arms)}) for origin in results.origins],
    }


def _inference(results: Results) -> InferenceRecord:
    record: InferenceRecord = {
        "level": LEVEL,
        "alpha": ALPHA,
        "draws": N_RESAMPLES,
        "sources": results.inference.total,
        "least_sources": MIN_SOURCES,
        "undrawn": UNDRAWN,
        "complete_share": results.inference.resamples[results.reference].complete_share,
        "vs_control": _family(results.families["vs_control"]),
        "vs_baseline": _family(results.families["vs_baseline"]),
    }
    if not results.has_sources:
        record["no_sources"] = NO_SOURCES
    return record


def _family(family: Family) -> FamilyRecord:
    return {"tests": len(family), "resolvable": _free_interval(family.min_detectable_difference)}


def _arm(results: Results, arm: Arm, curves: str | None) -> ArmRecord:
    """Returns the record of an arm; `curves` is the arm whose file has its learning curves, None without epochs."""
    control = results.other_of(arm, "vs_control")
    record: ArmRecord = {
        "name": arm.name,
        "role": arm.role,
        "members": list(arm.members),
        "identical_to": results.identical.get(arm.name),
        "summary": arm.summary,
        "selections": [_selection(selection) for selection in arm.selections],
        "seeds": list(arm.seeds),
        "has_epochs": arm.has_epochs,
        "best_epochs": [list(epochs) for epochs in arm.best_epochs],
        "capped": [list(flags) for flags in arm.capped],
        "notes": list(arm.notes),
        "temperatures": [list(values) for values in arm.temperatures],
        "val_score": arm.val_score,
        "selection_cost": _selection_cost(selection_cost(results, arm)),
        "failures": search_summary.failures(arm),
        "scores": {name: _free_spread(spread) for name, spread in results.headline_scores(arm.name).items()},
        "per_class": _class_scores(results, arm.name),
        "average_precision": [
            None if spread is None else _spread(spread) for spread in results.average_precision(arm.name)
        ],
        "uncertainty": _uncertainty(results, arm.name),
        "decided": _operating_point(results, arm),
        "vs_control": _against(results, arm.name, control, "vs_control") if control else None,
        "vs_baseline": _against(results, arm.name, results.reference, "vs_baseline"),
        "pairing": [_statistic(statistic) for statistic in results.pairings[arm.name]],
        "confusion": results.confusion(arm.name).tolist(),
    }
    if curves is not None:
        record["curves"] = curves
    return record


def _selection(selection: Selection) -> SelectionRecord:
    return {
        "division": selection.division,
        "settings": dict(selection.settings),
        "recipe": selection.recipe,
        "val_score": selection.val_score,
        "trials": cast("list[TrialRecord]", list(selection.trials)),
        "space": cast("dict[str, SpaceRecord]", dict(selection.space)),
        "search": search_summary.tally(selection),
    }


def _selection_cost(cost: SelectionCost) -> SelectionCostRecord:
    settings = {
        "distinct_settings": cost.distinct_settings,
        "divisions_as_control": cost.divisions_as_control,
        "stability": [_stability(one) for one in cost.stability],
    }
    return cast("SelectionCostRecord", cost.scores() | settings)


def _stability(stability: Stability) -> StabilityRecord:
    return {
        "name": stability.name,
        "values": [value for value, _ in stability.counts],
        "divisions": [count for _, count in stability.counts],
    }


def _spread(spread: Spread) -> SpreadRecord:
    return {"mean": spread.mean, "low": spread.low, "high": spread.high}


def _free_spread(spread: Spread) -> FreeSpreadRecord:
    return {"mean": spread.mean, "low": spread.low, "high": spread.high}


def _interval(interval: Interval | None) -> IntervalRecord | None:
    return None if interval is None else {"low": interval.low, "high": interval.high}


def _free_interval(interval: Interval | None) -> FreeIntervalRecord | None:
    return None if interval is None else {"low": interval.low, "high": interval.high}


def _statistic(statistic: Statistic) -> StatisticRecord:
    return {
        "observed": statistic.observed,
        "mean": statistic.mean,
        "deviation": statistic.deviation,
        "p_above": statistic.p_above,
        "p_below": statistic.p_below,
    }


def _class_scores(results: Results, arm: str) -> ClassScoresRecord:
    def of(metric: str) -> list[SpreadRecord]:
        return [_spread(spread) for spread in results.per_class(arm, metric)]

    return {"precision": of("precision"), "recall": of("recall"), "f1": of("f1")}


def _uncertainty(results: Results, arm: str) -> UncertaintyRecord:
    inference, resamples = results.inference, results.inference.resamples[arm]
    return {
        "score": _free_interval(inference.interval(arm)),
        "macro_f1_undrawn": {
            "others_mean": _interval(resamples.interval("others_mean")),
            "own_f1": _interval(resamples.interval("own_f1")),
        },
        "macro_f1_by_image": _interval(inference.by_image[arm]),
        "f1": [_interval(interval) for interval in inference.class_intervals(arm)],
        "f1_without_each_source": [_interval(interval) for interval in inference.leave_one_out(arm)],
    }


def _operating_point(results: Results, arm: Arm) -> OperatingPointRecord:
    """Returns the mean counts over seeds at the operating point."""
    point = results.operating_point(arm)
    return {
        "confidence": CONFIDENCE_THRESHOLD,
        "coverage": float(point.decided.sum() / len(results.test)),
        "accuracy": float(point.right.sum() / point.shown.sum()) if point.shown.sum() else None,
        "landmarks": point.decided.tolist(),
        "shown": point.shown.tolist(),
        "right": point.right.tolist(),
    }


def _against(results: Results, arm: str, other: str, contrast: Contrast) -> AgainstRecord:
    """Returns the differences from another arm, with the confidence interval and the test for the target metric."""
    # A score may be undefined for one of the arms.
    names = [name for name in results.headline_scores(arm) if name in results.headline_scores(other)]
    difference = None if arm == other else results.inference.against(arm, other)

    def gains(metric: str) -> list[float]:
        return [float(gain) for gain in results.difference(arm, metric, other)]

    differences: ClassDifferencesRecord = {
        "precision": gains("precision"),
        "recall": gains("recall"),
        "f1": gains("f1"),
    }
    return {
        "arm": other,
        "scores": {name: results.gain(arm, name, other) for name in names},
        "per_class": differences,
        "per_class_interval": [_interval(interval) for interval in results.inference.class_differences(arm, other)],
        "interval": _free_interval(difference.interval) if difference else None,
        "share_above": difference.share_above if difference else None,
        "test": _swap_test(results.families[contrast].tests.get(arm)),
    }


def _swap_test(test: AdjustedTest | None) -> SwapTestRecord | None:
    if test is None:
        return None
    swap = test.swap
    return {
        "p": swap.p,
        "p_holm": test.p_holm,
        "resolvable": swap.min_detectable_difference,
        "informative_sources": swap.informative_sources,
        "exact": swap.exact,
    }
