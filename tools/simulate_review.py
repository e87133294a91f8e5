"""Measures how many rare landmarks the review queue finds, on the real sample with hidden labels (see docs/review.md).

The sources of all splits are divided into thirds at random: a model is fitted on one, the labels of the second are
hidden and found by looking at some of its landmarks, and the third tests a model fitted with what was found. Writes
docs/review.csv:

    HIRISE_SAMPLE=FILE python tools/simulate_review.py [DIVISIONS]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import BACKBONES
from hirise_imb.data import HIRISE, SPLITS
from hirise_imb.data.folds import assign_folds
from hirise_imb.data.load import load_data
from hirise_imb.features.extraction import extract_features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.models.closed_form import Logistic
from hirise_imb.review.candidates import choose_candidates, expected_value
from hirise_imb.utils.files import cache_root

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

CLASSES = HIRISE.classes
DOCS = Path(__file__).parents[1] / "docs"
BUDGETS = (28, 100)
"""Numbers of landmarks that are looked at. The smaller one leaves most landmarks of the frequent rare classes unseen,
as in a large archive, where the ranking matters most."""
HEAD = Logistic(c=0.001, power=0.0)
ANY_NUMBER = ALL = 1_000_000
"""No limit to the candidates of a source; all landmarks are looked at."""
RARE = "all rare classes"
"""Name of the rows for their sums, and the mean of their F1."""


def uncertainty(calibrated: Floats) -> Floats:
    """Returns the variance p (1 - p) of the indicator of each class."""
    return np.asarray(calibrated * (1 - calibrated))


QUEUE = "queue"
QUEUES: dict[str, tuple[Callable[[Floats], Floats], int]] = {
    QUEUE: (expected_value, 3),
    "queue, by probability alone": (np.asarray, 3),
    "queue, by uncertainty alone": (uncertainty, 3),
    "queue, 1 of a source": (expected_value, 1),
    "queue, 10 of a source": (expected_value, 10),
    "queue, any number of a source": (expected_value, ANY_NUMBER),
}
"""Value of a candidate, and the largest number of a class that are from one source."""
RANDOM, NOTHING, EVERYTHING = "random order", "nothing", "everything"


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Canonical images of the sample."""

    features: Floats
    labels: Ints
    sources: Ints

    def take(self, rows: Ints) -> TrainingFeatures:
        """Returns some of the landmarks."""
        return TrainingFeatures(self.features[rows], self.labels[rows], self.sources[rows], CLASSES)


def read_landmarks() -> Landmarks:
    """Reads the sample, and extracts its features unless they are cached."""
    manifest = load_data("$HIRISE_SAMPLE", HIRISE)
    table = pd.concat([manifest.canonical_images(split) for split in SPLITS])
    backbone = BACKBONES["efficientnet-lite0"].load("imagenet", HIRISE.image_shape)
    paths = [manifest.path(image) for image in table["image"]]
    features = extract_features(backbone, [TOP_MEAN], paths, cache_root())[TOP_MEAN].take(np.arange(len(table)))
    return Landmarks(features, table["label"].to_numpy(), np.unique(table["source"], return_inverse=True)[1])


def calibrated_probabilities(landmarks: Landmarks, training: Ints, pool: Ints) -> Floats:
    """Returns the probabilities of the pool, with a temperature fitted on out-of-fold logits of the training set."""
    fitted = landmarks.take(training)
    folds = assign_folds(fitted.labels, fitted.sources, CLASSES).folds
    logits = np.empty((len(training), len(CLASSES)))
    for fold in np.unique(folds):
        heldout = folds == fold
        logits[heldout] = HEAD.fit(landmarks.take(training[~heldout])).logits(fitted.features[heldout])
    correction = Temperature().fit(logits, fitted.labels, HEAD.prior(fitted.counts()))
    return softmax(correction(HEAD.fit(fitted).logits(landmarks.features[pool])))


def first_of_queue(landmarks: Landmarks, pool: Ints, values: Floats, per_source: int, number: int) -> Ints:
    """Returns the landmarks that are looked at first if the classes of a queue take turns."""
    candidates = choose_candidates(
        values,
        landmarks.sources[pool],
        np.arange(len(pool)),
        landmarks.features[pool],
        CLASSES,
        -(-number // len(CLASSES.rare_ids)),
        per_source,
    )
    table = pd.DataFrame({"row": [one.row for one in candidates], "label": [one.label for one in candidates]})
    turns = table.groupby("label").cumcount().sort_values(kind="stable").index
    return np.asarray(pool[table.loc[turns, "row"].to_numpy()[:number]])


def measure(landmarks: Landmarks, training: Ints, pool: Ints, test: Ints, seed: int) -> Iterator[dict[str, object]]:
    """Yields a row for each order and class: labels and sources found, and F1 on the test set afterwards."""
    calibrated = calibrated_probabilities(landmarks, training, pool)
    shuffled = np.random.default_rng(seed).permutation(pool)
    orders = {(0, NOTHING): pool[:0], (ALL, EVERYTHING): pool}
    for budget in BUDGETS:
        orders[budget, RANDOM] = shuffled[:budget]
        for name, (value, per_source) in QUEUES.items():
            orders[budget, name] = first_of_queue(landmarks, pool, value(calibrated), per_source, budget)
    labels = landmarks.labels
    for (budget, order), rows in orders.items():
        head = HEAD.fit(landmarks.take(np.concatenate([training, rows])))
        predicted = head.logits(landmarks.features[test]).argmax(axis=1)
        scores = []
        for label in CLASSES.rare_ids:
            is_found, is_true, is_predicted = labels[rows] == label, labels[test] == label, predicted == label
            scores.append(
                {
                    "class": CLASSES[label],
                    "hidden": int((labels[pool] == label).sum()),
                    "found": int(is_found.sum()),
                    "sources_found": len(np.unique(landmarks.sources[rows][is_found])),
                    "f1": 2 * float((is_true & is_predicted).sum()) / max(int(is_true.sum() + is_predicted.sum()), 1),
                }
            )
        of_class = pd.DataFrame(scores)
        sums = {column: int(of_class[column].sum()) for column in ("hidden", "found", "sources_found")}
        for score in (*scores, {"class": RARE, **sums, "f1": float(of_class["f1"].mean())}):
            yield {"looked_at": budget, "order": order, **score}


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns means over all turns, with the tenth and ninetieth percentile of the labels found.

    Differences in F1 from the queue are means over divisions with their standard error; turns of one division share
    their landmarks.
    """
    keys = ["looked_at", "order", "class"]
    groups = rows.groupby(keys, sort=False)
    table = groups[["hidden", "found"]].mean()
    table["found_p10"] = groups["found"].quantile(0.1)
    table["found_p90"] = groups["found"].quantile(0.9)
    table[["sources_found", "f1"]] = groups[["sources_found", "f1"]].mean()
    repeats = ["looked_at", "class", "division", "turn"]
    queue = rows[rows["order"] == QUEUE].set_index(repeats)["f1"].rename("queue")
    paired = rows.join(queue, on=repeats, how="inner")
    paired["difference"] = paired["f1"] - paired["queue"]
    by_division = paired.groupby([*keys, "division"], sort=False)["difference"].mean().groupby(level=keys, sort=False)
    table["f1_minus_queue"], table["standard_error"] = by_division.mean(), by_division.sem()
    return table.reset_index().astype({"looked_at": object}).replace({"looked_at": {ALL: "all"}})


def main(divisions: int = 10) -> None:
    """Runs the simulation and writes its table."""
    landmarks = read_landmarks()
    parts = []
    for division in range(divisions):
        thirds = assign_folds(landmarks.labels, landmarks.sources, CLASSES, 3, division).folds
        for turn in range(3):
            training, pool, test = (np.flatnonzero(thirds == (turn + role) % 3) for role in range(3))
            part = pd.DataFrame(measure(landmarks, training, pool, test, 3 * division + turn))
            parts.append(part.assign(division=division, turn=turn))
        print(f"division {division + 1} of {divisions}", flush=True)
    table = summarise(pd.concat(parts))
    table.to_csv(DOCS / "review.csv", index=False, lineterminator="\n", float_format="%.4f")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
