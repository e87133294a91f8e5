"""The tables that a report stores as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.forensics import METRICS
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import CONTRASTS, Contrast, Results


def probability_columns(classes: ClassSet) -> list[str]:
    """Returns the column names of the probabilities in stored predictions, in the order of the classes."""
    columns = [f"p_{name.replace(' ', '_')}" for name in classes]
    # Classes such as `a b` and `a_b` would share a column, so their names stay as they are.
    return columns if len(set(columns)) == len(columns) else [f"p_{name}" for name in classes]


def per_class(results: Results) -> pd.DataFrame:
    """Returns a row for each arm and class: scores, ranges over seeds, differences from baseline and control.

    The intervals over sources of the differences in F1 are empty for a class with too few sources.
    """
    rows = []
    for arm in results.ordered:
        for k, name in enumerate(results.classes):
            row: dict[str, Any] = {
                "arm": arm.name,
                "class": name,
                "support": int(results.support[k]),
                "sources": int(results.sources[k]),
            }
            for metric in METRICS:
                spread = results.per_class(arm.name, metric)[k]
                row |= {metric: spread.mean, f"{metric}_low": spread.low, f"{metric}_high": spread.high}
                for contrast in CONTRASTS:
                    if (other := results.other_of(arm, contrast)) is not None:
                        row[f"{metric}_{contrast}"] = float(results.difference(arm.name, metric, other)[k])
            rows.append(row)
    table = pd.DataFrame(rows)
    for contrast in CONTRASTS:
        ends = [_difference_ends(results, arm, contrast) for arm in results.ordered]
        table[[f"f1_{contrast}_low", f"f1_{contrast}_high"]] = np.concatenate(ends)
    return table


def _difference_ends(results: Results, arm: Arm, contrast: Contrast) -> NDArray[np.float64]:
    """Returns the interval of the difference in F1 from another arm, shape (n_classes, 2); NaN without one."""
    other = results.other_of(arm, contrast)
    if other is None:
        return np.full((len(results.classes), 2), np.nan)
    intervals = results.inference.class_differences(arm.name, other)
    return np.array([(np.nan, np.nan) if one is None else (one.low, one.high) for one in intervals])


def confusion(results: Results, arm: str) -> pd.DataFrame:
    """Returns a row for each pair of classes: mean count and share of the true class (0 for one without images)."""
    counts = results.confusion(arm)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    true, predicted = np.meshgrid(results.classes.names, results.classes.names, indexing="ij")
    return pd.DataFrame(
        {
            "true_class": true.ravel(),
            "predicted_class": predicted.ravel(),
            "count": counts.ravel(),
            "share_of_true": (counts / totals).ravel(),
        }
    )


def confusion_difference(results: Results, arm: str) -> pd.DataFrame:
    """Returns a row for each pair of classes: share of the true class for the reference and an arm, and the change."""
    counts, base = confusion(results, arm), confusion(results, results.reference)
    shares = {"reference": base["share_of_true"], "arm": counts["share_of_true"]}
    table = counts[["true_class", "predicted_class"]].assign(**shares)
    return table.assign(difference=table["arm"] - table["reference"])


def predictions(results: Results, arm: Arm) -> pd.DataFrame:
    """Returns a row for each test image and seed: names, true class, predicted class and probabilities."""
    names, columns = np.array(results.classes.names), probability_columns(results.classes)
    parts = []
    for seed, predicted in zip(arm.seeds, arm.predictions, strict=True):
        part = results.test[["image", "landmark", "source"]].reset_index(drop=True)
        part["true_class"] = names[results.test["label"]]
        part["predicted_class"] = names[predicted.labels()]
        part[columns] = predicted.probabilities
        part["seed"] = seed
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def write_predictions(results: Results, arm: Arm, path: Path) -> None:
    """Writes the predictions of an arm as a Parquet file."""
    columns = probability_columns(results.classes)
    # Probabilities hardly compress as they are; split into streams of their bytes, the file is a third smaller.
    predictions(results, arm).to_parquet(
        path,
        compression="zstd",
        use_dictionary=["image", "landmark", "source", "true_class", "predicted_class", "seed"],
        column_encoding=dict.fromkeys(columns, "BYTE_STREAM_SPLIT"),
    )


def curves(arm: Arm) -> pd.DataFrame:
    """Returns a row for each seed and epoch: loss (cross-entropy in nats) and accuracy of each split."""
    parts = [history.assign(seed=seed) for seed, history in zip(arm.seeds, arm.histories, strict=True)]
    return pd.concat(parts, ignore_index=True)


def share_curves(arms: Sequence[Arm]) -> dict[str, str]:
    """Returns the name of the first arm with the same curves by the name of each arm that is trained in epochs.

    Arms that differ only in what happens after training share their fits, and so their curves.
    """
    owners: dict[str, str] = {}
    first: list[Arm] = []
    for arm in arms:
        if not arm.has_epochs:
            continue
        owner = next((other for other in first if _have_equal_curves(arm, other)), None)
        if owner is None:
            first.append(arm)
        owners[arm.name] = arm.name if owner is None else owner.name
    return owners


def _have_equal_curves(arm: Arm, other: Arm) -> bool:
    return (
        arm.seeds == other.seeds
        and arm.best_epochs == other.best_epochs
        and all(one.equals(two) for one, two in zip(arm.histories, other.histories, strict=True))
    )
