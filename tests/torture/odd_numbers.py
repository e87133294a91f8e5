"""Numbers that are infinite, NaN, constant, huge or tiny, and fits that diverge."""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
import pandas as pd
from handmade import without_figures
from markupsafe import escape
from optuna.trial import TrialState

from hirise_imb.backbones import TOP
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.features.arrays import Features
from hirise_imb.recipe import Recipe
from hirise_imb.search import connect
from hirise_imb.search.database import database_path
from hirise_imb.strategies import STRATEGIES, RecipeContext, Strategy
from hirise_imb.strategies.parameters import Categorical, Float, Integer, Value
from hirise_imb.testing.strategies import make_quick_recipe, noisy_fits
from hirise_imb.testing.toy import CUTS, LAYERS, TOY, Toy
from hirise_imb.training import epoch_loop, head_kernel, stages
from hirise_imb.training.epoch_loop import Learners, TrainingResult
from hirise_imb.training.learners import HeadLearner
from hirise_imb.training.tail_network import Network
from hirise_imb.utils.errors import FitFailed
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import Finished, call

Array = np.ndarray[Any, np.dtype[np.float32]]

WIDTH = 24
"""Features in the tables of the studies."""

DISTURBANCES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "as they are": lambda values, rng: values,
    "zero": lambda values, rng: 0 * values,
    "constant": lambda values, rng: np.where(np.isfinite(values), np.float32(7.5), values),
    "five constant": lambda values, rng: _with(values, np.s_[..., :5], 3e5),
    "1e30 times as large": lambda values, rng: values * np.float32(1e30),
    "1e-40 times as large": lambda values, rng: values * np.float32(1e-40),
    "largest in float32": lambda values, rng: np.sign(values) * np.float32(3.4e38),
    "of all magnitudes": lambda values, rng: values * np.float32(10) ** rng.integers(-38, 37, values.shape),
    "huge in one row": lambda values, rng: _with(values, rng.integers(len(values)), 1e38),
    "infinite in one row": lambda values, rng: _with(values, (rng.integers(len(values)), ..., 0), np.inf),
    "NaN in one row": lambda values, rng: _with(values, rng.integers(len(values)), np.nan),
}
"""What happens to features, by how it is described."""


def _with(values: Array, place: Any, value: float) -> Array:  # noqa: ANN401
    changed = values.copy()
    changed[place] = value
    return changed


def disturb(values: Array, kind: str, rng: np.random.Generator) -> Array:
    """Returns features after one of `DISTURBANCES`, in float32."""
    with np.errstate(all="ignore"):
        return np.asarray(DISTURBANCES[kind](values, rng), np.float32)


# --- recipes at the ends of their spaces ---


@functools.cache
def networks() -> dict[str, Network]:
    """Returns the networks that all attempts in this process share: compiling them takes most of the time."""
    return {}


def draw_extreme(strategy: Strategy, rng: random.Random) -> dict[str, Value]:
    """Draws settings from the ends of the strategy's search space."""
    settings: dict[str, Value] = {}
    for parameter in strategy.space:
        if parameter.applies(settings):
            if isinstance(parameter, Categorical):
                settings[parameter.name] = rng.choice(parameter.choices)
            else:
                assert isinstance(parameter, Float | Integer)
                settings[parameter.name] = rng.choice((parameter.low, parameter.high))
    return settings


def make_extreme_recipe(strategy: Strategy, rng: random.Random) -> Recipe:
    """Returns a recipe with settings from the ends of the space, which trains for few epochs."""
    context = RecipeContext(
        CUTS, {name: make_quick_recipe(STRATEGIES[name]) for name in strategy.depends_on}, tuple(LAYERS)
    )
    recipe = strategy.recipe(draw_extreme(strategy, rng), context)
    while recipe.cut not in (TOP, CUTS[0]):  # the task has no features at other cuts
        recipe = strategy.recipe(draw_extreme(strategy, rng), context)
    return replace(recipe, max_epochs=min(recipe.max_epochs, 10)) if recipe.trained else recipe


def fit_or_give_reason(toy: Toy, recipe: Recipe) -> str:
    """Fits a recipe on a task; returns why it failed, and an empty string if it did not.

    Raises:
        AssertionError: numbers of a fit that did not fail are not finite, or no probabilities.
    """
    trainer = toy.make_trainer(TOY.load("random", HIRISE.image_shape))
    trainer._stages.networks = networks()
    try:
        validation = trainer.cross_validate(recipe, (5, 6))
        run = trainer.fit_final(recipe, 5, validation)
    except FitFailed as failure:
        return str(failure)
    assert np.isfinite(validation.log_probabilities).all()
    assert 0 <= validation.score <= 1
    assert run.test.probabilities.min() >= 0
    np.testing.assert_allclose(run.test.probabilities.sum(axis=1), 1, rtol=1e-4)
    return ""


@attack(
    Area.NUMBERS, "Settings at the ends of their spaces, on zero, constant, huge, infinite or NaN features", tries=60
)
def extreme_settings(attempt: Attempt) -> Outcome:
    toy, kind = noisy_fits().toy, attempt.random.choice(list(DISTURBANCES))
    rng = np.random.default_rng(attempt.seed)
    rows = np.arange(len(toy.task.images.labels))
    toy = replace(toy, features={k: Features.of(disturb(v.take(rows), kind, rng)) for k, v in toy.features.items()})
    # Fine-tuning takes as long as all the others.
    frozen = [strategy for strategy in STRATEGIES.values() if not strategy.trains_backbone]
    tuned = [strategy for strategy in STRATEGIES.values() if strategy.trains_backbone]
    chosen = attempt.random.sample(tuned, 1) if attempt.seed % 12 == 11 else attempt.random.sample(frozen, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        reasons = [fit_or_give_reason(toy, make_extreme_recipe(strategy, attempt.random)) for strategy in chosen]
    return Outcome.RECORDED if any(reasons) else Outcome.CORRECT


# --- whole studies on a table of features ---


def write_features(data: Path, path: Path, kind: str, rng: np.random.Generator) -> None:
    """Writes a table of features of a data folder: noisy clusters, after one of `DISTURBANCES`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = read_manifest(data, HIRISE).table
    centres = 3 * rng.normal(size=(len(HIRISE.classes), WIDTH))
    values = centres[table["label"].to_numpy()] + rng.normal(size=(len(table), WIDTH))
    disturbed = disturb(values.astype(np.float32), kind, rng)
    pq.write_table(pa.table({"image": list(table["image"]), "vector": disturbed.tolist()}), path)


def run_study(data: Path, features: Path, out: Path, strategies: str, trials: int = 4) -> Finished:
    """Runs a study on a table of features in this process, without figures."""
    options: dict[str, object] = {
        **{"name": small_study.NAME, "data": data, "features": features, "out": out, "strategies": strategies},
        **{"trials": trials, "refits": 2, "evaluation": "given-split"},
    }
    with without_figures():
        return call("run", *(word for option, value in options.items() for word in (f"--{option}", value)))


ARMS = ("class_weights", "focal_loss", "logit_adjustment", "prototypes")
TRIALS = 4


def is_chosen(share: float, seed: int, what: str, rate: float) -> bool:
    """Draws, with the given share, whether something happens to all fits of a learning rate but the baseline's."""
    return (
        np.float32(rate) != np.float32(Recipe().learning_rate)
        and random.Random(f"{seed} {what} {rate}").random() < share
    )


@contextmanager
def diverging_fits(seed: int, share: float) -> Iterator[None]:
    """Weights become NaN in the trials, and others in the final fits, of a share of learning rates.

    Args:
        seed: of the choice of learning rates.
        share: share of the learning rates whose trials diverge, and of those whose final fits do.
    """
    train_epoch, train_epochs = head_kernel.train_epoch, epoch_loop.train_epochs

    def train_and_diverge(*arguments: Any) -> Any:  # noqa: ANN401
        sums = train_epoch(*arguments)
        if is_chosen(share, seed, "trial", float(arguments[17])) and arguments[-1] > 0:
            arguments[4][:] = np.nan
        return sums

    def diverge_and_train(learners: Learners, *arguments: Any) -> TrainingResult:  # noqa: ANN401
        for learner in (learner for folds in learners for learner in folds):
            assert isinstance(learner, HeadLearner)
            if is_chosen(share, seed, "final", float(learner._schedule.options(1).learning_rate)):
                learner._state.stacked[:] = np.nan
        return train_epochs(learners, *arguments)

    with (
        mock.patch.object(head_kernel, "train_epoch", train_and_diverge),
        mock.patch.object(stages, "train_epochs", diverge_and_train),
    ):
        yield


def expect_failures_in_report(out: Path, strategies: Sequence[str]) -> int:
    """Fails unless the report counts all failed trials of the database with their reasons; returns their number."""
    folder = out / "reports" / small_study.NAME
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    arms = {arm["name"]: arm for arm in summary["arms"]}
    omitted = {one["name"]: one["reason"] for one in summary["omitted"]}
    storage = connect(database_path(out))
    failed = 0
    try:
        for name in ("plain", *strategies):
            assert (name in arms) != (name in omitted), name
            studies = [s for s in optuna.get_all_study_names(storage) if s.startswith(f"{small_study.NAME}/{name}")]
            trials = [t for s in studies for t in optuna.load_study(study_name=s, storage=storage).trials]
            reasons = Counter(trial.user_attrs["error"] for trial in trials if trial.state is TrialState.FAIL)
            failed += reasons.total()
            if name in omitted:
                assert escape(omitted[name]) in page
                assert (
                    "plain" in omitted or not trials or reasons.total() in (0, len(trials)) or "epoch" in omitted[name]
                )
            else:
                assert {one["reason"]: one["trials"] for one in arms[name]["failures"]} == reasons, name
                [selection] = arms[name]["selections"]
                assert selection["search"]["failed"] == reasons.total()
                assert all(escape(reason) in page for reason in reasons)
    finally:
        storage.engine.dispose()
    return failed


@attack(Area.NUMBERS, "Weights become NaN in some trials and final fits of a study", tries=6)
def diverging_training(attempt: Attempt) -> Outcome:
    data, features, out = small_study.data(attempt), attempt.folder / "features.parquet", attempt.folder / "out"
    write_features(data, features, "as they are", np.random.default_rng(attempt.seed))
    with diverging_fits(attempt.seed, attempt.random.choice((0.3, 0.6, 1.0))):
        run_study(data, features, out, ",".join(ARMS), TRIALS).expect_success()
    return Outcome.RECORDED if expect_failures_in_report(out, ARMS) else Outcome.CORRECT


def choose_landmarks(table: pd.DataFrame, rng: random.Random) -> set[str]:
    """Returns the names of the images that a data set of odd counts has."""
    label, split = rng.randrange(len(HIRISE.classes)), rng.choice(("train", "val", "test"))
    of_class, in_split = table["label"] == label, table["split"] == split
    # The last four are refused.
    chosen = {
        "all": of_class | ~of_class,
        "one landmark of a class": ~of_class | (table["landmark"] == table.loc[of_class, "landmark"].iloc[0]),
        "a class in training alone": ~of_class | (table["split"] == "train"),
        "a class without validation": ~of_class | (table["split"] != "val"),
        "a class without tests": ~of_class | (table["split"] != "test"),
        "a class without training": ~of_class | (table["split"] != "train"),
        "a single class": of_class,
        "a split is empty": ~in_split,
        "one source in each split": table.groupby("split")["source"].transform("first") == table["source"],
    }
    return set(table.loc[chosen[rng.choice(list(chosen))], "image"])


def write_chosen(data: Path, folder: Path, kept: set[str]) -> Path:
    """Writes a data folder with some images of another one."""
    layout = HIRISE.layout
    folder.mkdir()
    (folder / layout.image_folder).symlink_to(data / layout.image_folder)
    for name in (layout.label_file, layout.split_file):
        lines = (data / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(line for line in lines if line.split()[0] in kept), encoding="utf-8")
    shutil.copyfile(data / layout.class_file, folder / layout.class_file)
    return folder


@attack(
    Area.NUMBERS, "Studies on odd features, or without a class, a split or more than one landmark or source", tries=10
)
def odd_study(attempt: Attempt) -> Outcome:
    whole, features, out = small_study.data(attempt), attempt.folder / "features.parquet", attempt.folder / "out"
    data = write_chosen(
        whole, attempt.folder / "data", choose_landmarks(read_manifest(whole, HIRISE).table, attempt.random)
    )
    odd = attempt.random.choice(("as they are", attempt.random.choice(list(DISTURBANCES))))
    write_features(whole, features, odd, np.random.default_rng(attempt.seed))
    strategies = attempt.random.sample(ARMS, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        finished = run_study(data, features, out, ",".join(strategies), 2)
    if finished.code:
        # Mistakes of a file follow their sentence, each in an indented line.
        finished = replace(finished, err=re.sub(r"(\n  .*)+\Z", "", finished.err.rstrip()))
        finished.expect_sentence()
        return Outcome.REFUSED
    finished.expect_success()
    return Outcome.RECORDED if expect_failures_in_report(out, strategies) else Outcome.CORRECT
