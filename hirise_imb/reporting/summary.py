"""What the pages of a report show, as plain values: the content of `summary.json`."""

from __future__ import annotations

from typing import Any

from hirise_imb.forensics import METRICS
from hirise_imb.landmarks import CLASSES
from hirise_imb.reporting import searches, words
from hirise_imb.reporting.appendix import appendix
from hirise_imb.reporting.arms import Arm
from hirise_imb.reporting.results import Results

SCHEMA_VERSION = 2


def of_study(results: Results) -> dict[str, Any]:
    """Everything the page of a study shows; without times, so that equal results are equal files."""
    told = {
        "headline": words.headline(results),
        "caution": words.caution(results),
        "protocol": words.protocol(results),
    }
    return facts(results) | told | appendix(results)


def facts(results: Results) -> dict[str, Any]:
    """What every page shows, whatever it compares."""
    return {
        "schema_version": SCHEMA_VERSION,
        "study": results.name,
        "setting": results.setting,
        "pairing": results.pairing(),
        "classes": list(CLASSES),
        "support": results.support.tolist(),
        "sources": results.sources.tolist(),
        "data": results.catalogue.summary().drop(columns="label").to_dict("records"),
        "control": results.references["vs_control"],
        "order": [arm.name for arm in results.ordered],
        "arms": [_arm(results, arm) for arm in results.arms],
        "omitted": [vars(strategy) for strategy in results.omitted],
    }


def _arm(results: Results, arm: Arm) -> dict[str, Any]:
    scores = results.headline_scores(arm.name)
    return {
        "name": arm.name,
        "summary": arm.summary,
        "settings": arm.settings,
        "recipe": arm.recipe.to_dict(),
        "seeds": list(arm.seeds),
        "has_epochs": arm.has_epochs,
        "best_epochs": list(arm.best_epochs),
        "at_last_epoch": arm.at_last_epoch,
        "selection": arm.selection if arm.trials else None,
        "val_macro_f1": arm.val_macro_f1,
        "trials": arm.trials,
        "search": searches.tally(arm),
        "failures": searches.failures(arm),
        "scores": {name: vars(spread) for name, spread in scores.items()},
        "per_class": {m: [vars(spread) for spread in results.per_class(arm.name, m)] for m in METRICS},
        **{key: _against(results, arm.name, other) for key, other in results.references.items()},
        "pairing": [vars(found) for found in results.pairings[arm.name]],
        "confusion": results.confusion(arm.name).tolist(),
    }


def _against(results: Results, arm: str, other: str | None) -> dict[str, Any] | None:
    """Differences of an arm's means to another's, and whether the ranges over seeds lie apart."""
    if other is None:
        return None
    names = results.headline_scores(arm)
    return {
        "scores": {name: results.gain(arm, name, other) for name in names},
        "scores_clear": {name: results.gain_is_clear(arm, name, other) for name in names},
        "per_class": {m: results.difference(arm, m, other).tolist() for m in METRICS},
        "per_class_clear": {m: results.clear(arm, m, other) for m in METRICS},
    }
