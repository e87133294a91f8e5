"""Measures how often `hirise-imb forensics` reaches each verdict if the truth is known (see docs/published-table.md).

Simulated predictions know a given share of the labels and guess the rest; their rounded table is examined. The supports
are those of the official test split.

    python tools/verdict_rates.py [TABLES]
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from hirise_imb.data import HIRISE
from hirise_imb.forensics import METRICS, PublishedTable, Rounded, Verdict, examine
from hirise_imb.metrics.classification import confusion_matrix, per_class_scores

CLASSES = HIRISE.classes.names
SUPPORTS = (1482, 89, 66, 49, 16, 7, 42, 42)


def printed(labels: np.ndarray, predicted: np.ndarray, decimals: int) -> PublishedTable:
    """Returns the rounded table of the predictions."""
    scores = per_class_scores(confusion_matrix(labels, predicted, len(HIRISE.classes)))
    figures = {m: tuple(Rounded.read(f"{value:.{decimals}f}") for value in scores[m]) for m in METRICS}
    return PublishedTable(HIRISE.classes.names, figures, SUPPORTS)


def main() -> None:
    """Prints verdicts by number of decimals and share of known labels."""
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    labels = np.repeat(np.arange(len(SUPPORTS)), SUPPORTS)
    print("| agreement | decimals | mean kappa |", " | ".join(Verdict), "|")
    print("|---|---:|---:|" + "---:|" * len(Verdict))
    for known in (0.0, 0.05, 0.1, 0.2, 0.5):
        for decimals in (2, 3, 4):
            rng = np.random.default_rng(0)
            verdicts: Counter[Verdict] = Counter()
            kappas = []
            for _ in range(tables):
                # Guesses have the frequencies of the labels, so with 0 known labels the pairing is a shuffled one.
                knows = rng.random(len(labels)) < known
                predicted = np.where(knows, labels, rng.permutation(labels))
                finding = examine(printed(labels, predicted, decimals))
                verdicts[finding.verdict] += 1
                agreement = (labels == predicted).mean()
                chance = np.bincount(labels) @ np.bincount(predicted, minlength=len(CLASSES)) / len(labels) ** 2
                kappas.append((agreement - chance) / (1 - chance))
            counts = " | ".join(str(verdicts[verdict]) for verdict in Verdict)
            name = "shuffled" if known == 0 else f"{known:.0%} known"
            print(f"| {name} | {decimals} | {np.mean(kappas):.3f} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
