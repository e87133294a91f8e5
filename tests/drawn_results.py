"""Results made by hand for figures: probabilities that know something of the labels, and searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from builders import CLASSES
from handmade import role_of
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy.special import softmax

from hirise_imb.data import HIRISE, SPLITS
from hirise_imb.metrics.classification import Predictions
from hirise_imb.reporting import Arm, Results
from hirise_imb.reporting.figures import gallery
from hirise_imb.reporting.records import Selection

SUPPORT = (60, 24, 9, 5, 8, 3, 4, 2)
SOURCES = (9, 8, 1, 2, 3, 1, 2, 1)

Floats = NDArray[np.float64]


def landmarks(support: Sequence[int] = SUPPORT, sources: Sequence[int] = SOURCES) -> pd.DataFrame:
    """So many landmarks of each class, from its sources in turn."""
    labels = np.repeat(np.arange(8), support)
    turns = [n % sources[label] for label, count in enumerate(support) for n in range(count)]
    names = [f"ESP_00000{turn}_1000" for turn in turns]
    images = [f"{name}_RED-{n:04}.jpg" for n, name in enumerate(names)]
    return pd.DataFrame({"image": images, "landmark": [i[:-4] for i in images], "source": names, "label": labels})


def guess(labels: NDArray[np.int64], seed: int, sure: float = 2.0) -> Floats:
    """Probabilities that know something of the labels, some of them equal."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), 8)) + sure * np.eye(8)[labels]
    rounded = np.round(softmax(1.5 * logits, axis=1), 2) + 0.001
    return np.asarray(rounded / rounded.sum(axis=1, keepdims=True))


def certain(predicted: NDArray[np.int64]) -> Floats:
    return np.asarray(0.9 * np.eye(8)[predicted] + 0.0125)


TRIALS: list[dict[str, str | float | None]] = [
    {"state": "fail", "value": None, "error": "no memory"},
    {"state": "complete", "value": 0.31},
    {"state": "complete", "value": 0.25},
    {"state": "fail", "value": 0.99},
    {"state": "complete", "value": 0.42},
    {"state": "complete", "value": 0.40},
]


def arm_of(name: str, test: pd.DataFrame, fits: Sequence[Floats], trained: bool = True) -> Arm:
    seeds = range(len(fits))
    history = pd.DataFrame({"epoch": [1, 2, 3]})
    for split in SPLITS:
        history = history.assign(**{f"{split}_loss": [2.0, 1.5, 1.25], f"{split}_accuracy": [0.5, 0.625, 0.75]})
    history["train_loss"] += sum(map(ord, name)) / 2**16  # each arm has curves of its own
    return Arm(
        name=name,
        role=role_of(name),
        summary="what it does",
        selections=(Selection("given split", {}, {}, 0.5, TRIALS if name != "baseline" else []),),
        seeds=tuple(seeds),
        predictions=tuple(Predictions(tuple(test["image"]), fit.astype(np.float32)) for fit in fits),
        histories=tuple(history if trained else pd.DataFrame() for _ in seeds),
        best_epochs=tuple((2 if trained else 0,) for _ in seeds),
        capped=tuple((False,) for _ in seeds),
        temperatures=tuple((1.5 - 0.75 * seed,) for seed in seeds),
        seconds=1.0,
    )


def results_of(test: pd.DataFrame, fits: Mapping[str, Sequence[Floats]], computed: Sequence[str] = ()) -> Results:
    data = pd.DataFrame({"split": np.repeat(SPLITS, 8), "class": CLASSES * 3, "landmarks": range(1, 25)})
    arms = tuple(arm_of(name, test, found, name not in computed) for name, found in fits.items())
    return Results("by-hand", "Made up.", "", HIRISE.classes, test, data, arms, {})


def usual(seeds: int = 2, test: pd.DataFrame | None = None, names: Sequence[str] = ("plain", "remedy")) -> Results:
    test = landmarks() if test is None else test
    labels = test["label"].to_numpy(np.int64)
    arms = {
        name: [guess(labels, 10 * n + seed, 1.0 + 0.5 * n) for seed in range(seeds)]
        for n, name in enumerate(("baseline", *names))
    }
    return results_of(test, arms)


def data(results: Results, name: str) -> pd.DataFrame:
    return gallery.of_study(results)[f"figures/{name}"]().data


def words(results: Results, name: str) -> list[str]:
    return [text.get_text() for text in gallery.of_study(results)[name]().figure.findobj(Text)]


def labels_of(arm: Arm) -> list[NDArray[np.int64]]:
    return [fit.probabilities.argmax(axis=1) for fit in arm.predictions]


def divided(results: Results) -> Results:
    """The same as results of a nested cross-validation with two outer folds, the second of which is hotter."""
    sources = sorted(set(results.test["source"]))
    rows = [(1, 1 + place % 2, source) for place, source in enumerate(sources)]
    arms = []
    for arm in results.arms:
        [selection] = arm.selections
        selections = tuple(replace(selection, division=f"fold {n}") for n in (1, 2))
        pairs = tuple((temperature, temperature + 1) for [temperature] in arm.temperatures)
        epochs = tuple(2 * of_seed for of_seed in arm.best_epochs)
        arms.append(replace(arm, selections=selections, temperatures=pairs, best_epochs=epochs))
    return replace(results, arms=tuple(arms), outer_folds=pd.DataFrame(rows, columns=["repeat", "fold", "source"]))


def search_of(n: int, division: str = "given split") -> Selection:
    """So many trials of which only the value of `rate` matters; `power` applies to half of them."""
    rng = np.random.default_rng(n)
    trials: list[dict[str, Any]] = []
    for place in range(n):
        params = {"rate": float(10 ** rng.uniform(-4, -1)), "kind": ("a", "b")[place % 2], "fixed": 1}
        params |= {"power": float(rng.uniform())} if place % 2 else {}
        trials.append({"state": "complete", "value": 0.5 + 0.1 * np.log10(params["rate"]) / 4, "params": params})
    trials.append({"state": "fail", "value": None, "error": "no memory", "params": trials[0]["params"]})
    space: dict[str, dict[str, Any]] = {"kind": {"choices": ["a", "b"]}}
    space |= {"rate": {"low": 1e-4, "high": 0.1, "log": True, "integer": False}}
    space |= {"power": {"low": 0.0, "high": 1.0, "log": False, "integer": False}}
    space |= {"fixed": {"low": 1, "high": 1, "log": False, "integer": True}}
    return Selection(division, {}, {}, 0.5, trials, space=space)


def with_searches(results: Results, *selections: Selection) -> Results:
    return replace(results, arms=tuple(replace(arm, selections=selections) for arm in results.arms))
