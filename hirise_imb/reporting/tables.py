"""The tables that a report keeps next to its pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hirise_imb.data.dataset import ClassSet
from hirise_imb.forensics import METRICS
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results


def probability_columns(classes: ClassSet) -> list[str]:
    """Names of the columns of the stored predictions that hold the probabilities, in the order of the classes."""
    columns = [f"p_{name.replace(' ', '_')}" for name in classes]
    # Names such as `a b` and `a_b` would share a column.
    return columns if len(set(columns)) == len(columns) else [f"p_{name}" for name in classes]


def per_class(results: Results) -> pd.DataFrame:
    """One row for each arm and class: scores, their range over seeds, differences to the baseline and the control."""
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
                for column, other in results.references.items():
                    if other is not None:
                        row[f"{metric}_{column}"] = float(results.difference(arm.name, metric, other)[k])
            rows.append(row)
    return pd.DataFrame(rows)


def confusion(results: Results, arm: str) -> pd.DataFrame:
    """One row for each pair of classes: mean count, and its share of the true class (0 where it has no image)."""
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
    """One row for each pair of classes: its share of the true class for the reference and an arm, and the change."""
    table, base = confusion(results, arm), confusion(results, results.reference)
    shares = {"reference": base["share_of_true"], "arm": table["share_of_true"]}
    found = table[["true_class", "predicted_class"]].assign(**shares)
    return found.assign(difference=found["arm"] - found["reference"])


def predictions(results: Results, arm: Arm) -> pd.DataFrame:
    """One row for each test image and seed: who it is, what it is, what was predicted and how surely."""
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


def curves(arm: Arm) -> pd.DataFrame:
    """One row for each seed and epoch: loss (cross-entropy, nats) and accuracy of each split."""
    parts = [history.assign(seed=seed) for seed, history in zip(arm.seeds, arm.histories, strict=True)]
    return pd.concat(parts, ignore_index=True)
