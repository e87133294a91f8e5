"""Results made by hand, for reports of them: a catalogue without pictures and predictions to choose."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from builders import image, predict, valid_lines, write_data
from PIL import Image

from hirise_imb.data.dataset import SPLITS, ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.metrics.classification import Predictions
from hirise_imb.pipeline.appendix import describe_strategies
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Omitted, Results, write_report
from hirise_imb.reporting.figures import (
    class_differences,
    curves,
    differences,
    forest,
    hyperparameters,
    inner_outer,
    matrices,
    overview,
    probabilities,
    scores,
    sources,
    style,
    svg,
)
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.records import Role, Selection
from hirise_imb.strategies import CONTROL, STRATEGIES
from hirise_imb.training.epoch_loop import Learners, StoppingRule, TrainingResult, train_validated

EXAMPLE = Path(__file__).resolve().parents[1] / "reports" / "real-sample"
"""The committed report."""
Fits = Sequence[Sequence[int]] | Sequence[np.ndarray]
"""Predicted classes of each fit."""
SEEDS = (3, 4)
TEMPERATURES = (1.5, 0.75)
"""One a seed."""
TEST_SUPPORT = (1482, 89, 66, 49, 16, 7, 42, 0)
"""The official one, but without spiders; nothing is ever predicted as impact ejecta."""
NEVER = 5


def make_catalogue(folder: Path, supports: Sequence[int] = TEST_SUPPORT) -> Manifest:
    """One landmark of each class in training and validation, and so many in the test split."""
    lines = [line for line in valid_lines() if not line.endswith("test")]
    for label, support in enumerate(supports):
        # Crater has six test sources, every other class two or one.
        sources = 6 if label == 1 else 2
        lines += [f"{image(f'ESP_1{label:03}{n % sources:02}_2000', n)} {label} test" for n in range(support)]
    return read_manifest(write_data(folder, lines), HIRISE)


def guesses(truth: Sequence[int], right: float | np.ndarray, seed: int) -> list[int]:
    """The truth for a share of the images and any class for the rest, but never class `NEVER`.

    With one share for each image, each is right with its own probability.
    """
    rng = np.random.default_rng(seed)
    kept = rng.random(len(truth)) < right
    guessed = np.where(kept, truth, rng.integers(0, 8, len(truth)))
    return [0 if k == NEVER else int(k) for k in guessed]


TRIALS: list[dict[str, str | float | None]] = [
    {"state": "complete", "value": 0.31},
    {"state": "fail", "value": 0.99, "error": "stopped"},
    {"state": "fail", "value": None, "error": "val_loss became inf in epoch 3"},
    {"state": "complete", "value": 0.42},
    {"state": "complete", "value": 0.37},
    {"state": "fail", "value": None, "error": "val_loss became inf in epoch 3"},
    {"state": "complete", "value": 0.42},
]
"""Of a search: a trial that failed looks best, and the best value is reached twice."""


def make_arm(
    catalogue: Manifest,
    name: str,
    predicted: Sequence[Sequence[int]],
    val: float = 0.5,
    recipe: Recipe | None = None,
    *,
    trials: list[dict[str, str | float | None]] = TRIALS,
    settings: dict[str, str | float | int] | None = None,
    members: int = 1,
    **changes: Any,  # noqa: ANN401
) -> Arm:
    """An arm with these predictions of the test landmarks, one row a seed; of a computed head without epochs."""
    test = catalogue.canonical_images("test")
    strategy = name != "baseline"
    history = pd.DataFrame({"epoch": [1, 2, 3]} | {"val_macro_f1": [0.1, val, 0.2]})
    for split in ("train", "val", "test"):
        history = history.assign(**{f"{split}_loss": [2.0, 1.5, 1.25], f"{split}_accuracy": [0.5, 0.625, 0.75]})
    recipe = recipe or Recipe()
    histories = (history, history.iloc[:2]) if recipe.trained else (pd.DataFrame(), pd.DataFrame())
    if settings is None:
        settings = {"gamma": 2.5, "scheme": "random", "layers": 3} if strategy else {}
    selection = Selection("given split", recipe.to_dict(), settings, val, trials if strategy else [], members)
    made = Arm(
        name=name,
        role=role_of(name),
        summary=f"what {name} does",
        selections=(selection,),
        seeds=SEEDS[: len(predicted)],
        predictions=tuple(predict(test["image"], labels) for labels in predicted),
        histories=histories[: len(predicted)],
        best_epochs=(((2,), (1,)) if recipe.trained else ((0,), (0,)))[: len(predicted)],
        capped=((False,), (False,))[: len(predicted)],
        temperatures=tuple((temperature,) for temperature in TEMPERATURES[: len(predicted)]),
        seconds=2.5,
    )
    return replace(made, **changes)


def with_selection(arm: Arm, **changes: Any) -> Arm:  # noqa: ANN401
    """The arm with other values in each of its selections, such as another `val_score`."""
    return replace(arm, selections=tuple(replace(selection, **changes) for selection in arm.selections))


def role_of(name: str) -> Role:
    """The role of an arm by its name."""
    if name in ("baseline", "baseline_to_the_end"):
        return cast("Role", name)
    return "control" if name.startswith(CONTROL) else "strategy"


def make_results(catalogue: Manifest, *arms: Arm, omitted: Sequence[Omitted] = ()) -> Results:
    """Results of these arms, the baseline first."""
    names = [arm.name for arm in arms]
    return Results(
        name="by-hand",
        setting="Landmarks: made up.",
        study_toml='name = "by-hand"\n',
        classes=HIRISE.classes,
        test=catalogue.canonical_images("test")[["image", "landmark", "source", "label"]].reset_index(drop=True),
        data=catalogue.summary().drop(columns="label"),
        arms=arms,
        trial_seeds=3,
        appendix=describe_strategies(STRATEGIES[name] for name in names if name in STRATEGIES),
        environment={
            "python": "3.11",
            "seconds": {"baseline": 1.5},
            "test_access": {
                "predictions": 2,
                "first": "2026-01-01T00:00:00+00:00",
                "last": "2026-01-02T00:00:00+00:00",
            },
        },
        omitted=tuple(omitted),
    )


def list_landmarks(catalogue: Manifest) -> pd.DataFrame:
    """The landmarks of all splits, which a nested cross-validation tests."""
    rows = pd.concat([catalogue.canonical_images(split) for split in SPLITS]).sort_index()
    return rows[["image", "landmark", "source", "label"]].reset_index(drop=True)


def make_nested_results(
    catalogue: Manifest,
    right: Mapping[str, float | np.ndarray],
    *,
    folds: int = 3,
    repeats: int = 1,
    given_split: Results | None = None,
) -> Results:
    """Results of a nested cross-validation whose arms are right so often, the baseline first.

    Fits have probabilities and temperatures that differ. A share may be one for each class.
    """
    test = list_landmarks(catalogue)
    sources = sorted(set(test["source"]))
    rows = [
        (repeat + 1, (place + repeat * (place // folds)) % folds + 1, source)
        for repeat in range(repeats)
        for place, source in enumerate(sources)
    ]
    outer_folds = pd.DataFrame(rows, columns=["repeat", "fold", "source"])
    seeds = tuple(range(3, 3 + repeats * len(SEEDS)))
    arms = []
    for place, (name, share) in enumerate(right.items()):
        rng = np.random.default_rng(place)
        fits = []
        for seed in seeds:
            shares = np.broadcast_to(share, 8)[test["label"]]
            predicted = guesses(test["label"].tolist(), shares, seed + 100 * place)
            p = predict(test["image"], predicted).probabilities * rng.uniform(0.2, 1, (len(test), 8))
            p = np.where(np.eye(8, dtype=bool)[predicted], 1.0, p) + 0.01
            fits.append(Predictions(tuple(test["image"]), (p / p.sum(axis=1, keepdims=True)).astype(np.float32)))
        arm = make_arm(catalogue, name, [[0]] * 0, 0.5, Recipe())
        [selection] = arm.selections
        vals = 0.3 + 0.3 * float(np.mean(share)) + rng.uniform(0, 0.1, (repeats, folds))
        history = pd.DataFrame({"epoch": [1, 2], "val_macro_f1": [0.1, 0.5]})
        for split in SPLITS:
            history = history.assign(**{f"{split}_loss": [2.0, 1.5], f"{split}_accuracy": [0.5, 0.625]})
        selections = tuple(
            replace(
                selection,
                division=f"fold {fold + 1}" if repeats == 1 else f"repeat {repeat + 1}, fold {fold + 1}",
                val_score=float(vals[repeat, fold]),
                settings=selection.settings and selection.settings | {"layers": fold},
            )
            for repeat in range(repeats)
            for fold in range(folds)
        )
        arms.append(
            replace(
                arm,
                selections=selections,
                seeds=seeds,
                predictions=tuple(fits),
                histories=(history,) * len(seeds),
                best_epochs=((2,) * folds,) * len(seeds),
                capped=((False,) * folds,) * len(seeds),
                temperatures=tuple(tuple(rng.uniform(0.5, 3, folds).round(3).tolist()) for _ in seeds),
            )
        )
    made = make_results(catalogue, *arms)
    return replace(
        made,
        test=test,
        outer_folds=outer_folds,
        given_split=given_split,
        trial_seeds=1,
        environment={"python": "3.11", "seconds": {arm.name: arm.seconds for arm in arms}},
    )


def three_classes(majority: str | None = None) -> Results:
    """Two arms on landmarks of three classes, one with six sources, one with two and one with one."""
    sources = [f"{k}-{n % count}" for k, count in enumerate((6, 2, 1)) for n in range(12)]
    labels = np.repeat(range(3), 12)
    images = [f"{n}.png" for n in range(36)]
    test = pd.DataFrame({"image": images, "landmark": images, "source": sources, "label": labels})
    names = ("flat", "hill", "lake")
    counts = {"sources": (6, 2, 1) * 3, "landmarks": 12, "images": 12, "rows": 12}
    data = pd.DataFrame({"split": np.repeat(("train", "val", "test"), 3), "class": names * 3} | counts)
    arms = []
    for place, name in enumerate(("baseline", "plain")):
        rng = np.random.default_rng(place)
        fits = [rng.dirichlet((0.4, 0.4, 0.4), 36) + (0.5 + place) * np.eye(3)[labels] for _ in SEEDS]
        shares = [(fit / fit.sum(axis=1, keepdims=True)).astype(np.float32) for fit in fits]
        arms.append(
            Arm(
                name=name,
                role=role_of(name),
                summary=f"what {name} does",
                selections=(Selection("given split", Recipe().to_dict(), {}, 0.5, TRIALS if place else []),),
                seeds=SEEDS,
                predictions=tuple(Predictions(tuple(images), share) for share in shares),
                histories=(pd.DataFrame(), pd.DataFrame()),
                best_epochs=((0,), (0,)),
                capped=((False,), (False,)),
                temperatures=tuple((temperature,) for temperature in TEMPERATURES),
                seconds=1.0,
            )
        )
    return Results(
        name="three",
        setting="Tiles: made up.",
        study_toml='name = "three"\n',
        classes=ClassSet(names, majority),
        test=test,
        data=data,
        arms=tuple(arms),
        environment={"seconds": {"baseline": 1.0, "plain": 1.0}},
    )


DRAWINGS: dict[ModuleType, Sequence[str]] = {
    class_differences: ["class_differences"],
    curves: ["curves"],
    differences: ["differences"],
    forest: ["scores_of_arms"],
    hyperparameters: ["hyperparameters"],
    inner_outer: ["inner_outer"],
    matrices: ["confusion", "confusion_difference"],
    overview: ["best_so_far", "f1_per_class"],
    probabilities: ["calibration", "precision_recall", "risk_coverage"],
    scores: ["class_distribution", "published", "scores_per_class"],
    sources: ["sources"],
}
"""What draws the figures of reports."""


@contextmanager
def without_figures() -> Iterator[None]:
    """Nothing is drawn: the files of all figures are the same small ones. Their data is written as always.

    For tests that look at no figure: drawing takes nine tenths of the time in which a report is written.
    """
    with io.BytesIO() as buffer:
        Image.new("L", (1, 1)).save(buffer, "PNG")
        png = buffer.getvalue()
    empty = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>\n'
    with pytest.MonkeyPatch.context() as patch:
        for module, names in DRAWINGS.items():
            for name in names:
                patch.setattr(module, name, lambda *_, **__: None)
        patch.setattr(style, "write_png", lambda _, path: path.write_bytes(png))
        patch.setattr(svg, "write_svg", lambda _, path: path.write_text(empty, encoding="utf-8"))
        patch.setattr(svg, "draw_svg", lambda _: empty)
        yield


@contextmanager
def short_training() -> Iterator[None]:
    """Fits end after five epochs at the latest, for tests of what happens to fits, whatever they learn."""

    def train_shortly(learners: Learners, data: Any, held_out: Any, rule: StoppingRule, *rest: Any) -> TrainingResult:  # noqa: ANN401
        return train_validated(learners, data, held_out, replace(rule, max_epochs=min(5, rule.max_epochs)), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirise_imb.training.stages.train_validated", train_shortly)
        yield


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary of a report as it is stored."""
    stored: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return stored


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for the locks of those who write it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def rewrite_report(folder: Path) -> Path:
    """Write a report again from its files, whatever scores its summary has; nothing is drawn."""
    with pytest.MonkeyPatch.context() as patch, without_figures():
        patch.setattr("hirise_imb.reporting.read.find_contradiction", lambda *_: None)
        return write_report(read_report(folder), folder).parent


def check_files(folder: Path) -> dict[str, str]:
    """See that a report lists exactly the files it has, with their digests, and that every figure has its three.

    Models in the folder have digests of their own.

    Returns:
        The list of the summary, digests by name.
    """
    found = {name: content for name, content in contents(folder).items() if not name.startswith("models/")}
    summary = json.loads(found.pop("summary.json"))
    listed: dict[str, str] = summary["files"]
    if summary["given_split"] is not None:
        # A report of its own, which is not listed here.
        check_files(folder / "given-split")
        found = {name: content for name, content in found.items() if not name.startswith("given-split/")}
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert list(listed) == sorted(listed)
    assert {"report.html", "report.md", "study.toml", "environment.json"} < set(listed)
    stems = {suffix: {name[:-4] for name in found if name.endswith(suffix)} for suffix in (".png", ".svg", ".csv")}
    assert stems[".png"] == stems[".svg"]
    assert stems[".png"] == {name for name in stems[".csv"] if name.startswith(("figures/", "confusion/"))}
    assert all(found[f"{stem}.png"].startswith(b"\x89PNG\r\n\x1a\n") for stem in stems[".png"])
    assert all(b"<svg" in found[f"{stem}.svg"] for stem in stems[".svg"])
    assert all(found.values())
    return listed


def exchange_sources(test: pd.DataFrame, one: Fits, other: Fits) -> np.ndarray:
    """Differences in macro F1 of two arms, one row a fit, whatever sources they exchange; first as they are.

    Written as a person would, for few sources.
    """
    labels, sources = test["label"].to_numpy(), test["source"].to_numpy()
    names = sorted(set(sources))
    found = []
    for chosen in itertools.product((False, True), repeat=len(names)):
        swapped = np.isin(sources, [name for name, swap in zip(names, chosen, strict=True) if swap])
        gains = []
        for mine, theirs in zip(np.array(one), np.array(other), strict=True):
            pair = np.where(swapped, theirs, mine), np.where(swapped, mine, theirs)
            gains.append(macro_f1(labels, pair[0]) - macro_f1(labels, pair[1]))
        found.append(np.mean(gains))
    return np.array(found)


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Of all eight classes, from sums of hits."""
    hits = [np.sum((labels == k) & (predicted == k)) for k in range(8)]
    sizes = [np.sum(labels == k) + np.sum(predicted == k) for k in range(8)]
    return float(np.mean([2 * hit / max(size, 1) for hit, size in zip(hits, sizes, strict=True)]))


def p_of(differences: np.ndarray) -> float:
    """Share of exchanges with a difference as large as that of the arms as they are, which comes first."""
    return float((abs(differences) >= abs(differences[0]) - 1e-12).mean())


def shuffle_hits(truth: np.ndarray, predicted: np.ndarray, times: int = 2000) -> np.ndarray:
    """Hits of shuffled pairings."""
    rng = np.random.default_rng(9)
    return np.array([np.count_nonzero(rng.permutation(truth) == predicted) for _ in range(times)])
