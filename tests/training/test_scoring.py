"""Scores of held-out landmarks, and the epoch chosen for each part of them, against oracles in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
from builders import quick
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from hirise_imb.features.arrays import Features
from hirise_imb.recipe import Monitor
from hirise_imb.training.epoch_loop import StoppingRule, TrainingResult, train_epochs, train_validated
from hirise_imb.training.learners import EpochSums, EvaluationSet, Snapshot
from hirise_imb.training.scoring import HeldOut, score_epoch
from hirise_imb.utils.errors import FitFailed

N_CLASSES = 4
MONITORS: tuple[Monitor, ...] = ("val_loss", "val_macro_f1")
SEEDS = st.integers(0, 2**32 - 1)


def draw_held_out(rng: np.random.Generator, n: int = 40, seeds: int = 3, folds: int = 4) -> HeldOut:
    """Landmarks whose seeds have folds of their own."""
    labels = rng.choice(N_CLASSES, n, p=(0.6, 0.2, 0.15, 0.05))
    parts = tuple(tuple(np.sort(part) for part in np.array_split(rng.permutation(n), folds)) for _ in range(seeds))
    return HeldOut(labels, parts, N_CLASSES)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def plain_f1(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean over seeds of the mean over classes of 2 TP / (labels + predictions)."""
    total = 0.0
    for predicted in logits.argmax(axis=2):
        for k in range(N_CLASSES):
            size = np.sum(labels == k) + np.sum(predicted == k)
            total += 2 * np.sum((labels == k) & (predicted == k)) / max(size, 1)
    return float(total / len(logits) / N_CLASSES)


def plain_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean over seeds and landmarks."""
    return -float(np.log(softmax(logits.astype(float))[:, np.arange(len(labels)), labels]).mean())


def plain_choice(labels: np.ndarray, logits: np.ndarray, monitor: Monitor) -> float:
    return -plain_loss(labels, logits) if monitor == "val_loss" else plain_f1(labels, logits)


# --- one epoch ---


@quick
@given(SEEDS, st.sampled_from(("val_loss", "val_macro_f1", "none")))
def test_an_epoch_is_scored_on_all_landmarks_and_without_each_part(seed: int, monitor: Monitor) -> None:
    rng = np.random.default_rng(seed)
    held_out = draw_held_out(rng)
    logits = rng.normal(size=(3, 40, N_CLASSES)).astype(np.float32)
    scores = score_epoch(held_out, logits, monitor)
    labels = held_out.labels
    assert scores.loss == pytest.approx(plain_loss(labels, logits))
    assert scores.accuracy == pytest.approx(np.mean(logits.argmax(axis=2) == labels))
    assert scores.macro_f1 == pytest.approx(plain_f1(labels, logits))
    predicted, names = logits.argmax(axis=2), range(N_CLASSES)
    f1 = [f1_score(labels, y, labels=names, average="macro", zero_division=0) for y in predicted]
    assert scores.macro_f1 == pytest.approx(np.mean(f1))
    assert scores.loss == pytest.approx(np.mean([log_loss(labels, softmax(z), labels=names) for z in logits]))
    assert scores.choice == pytest.approx(plain_choice(labels, logits, monitor))
    assert held_out.cross_fitted
    for folds, values in zip(held_out.parts, scores.part_choices, strict=True):
        for part, value in zip(folds, values, strict=True):
            others = np.setdiff1d(np.arange(40), part)  # for every seed
            assert value == pytest.approx(plain_choice(labels[others], logits[:, others], monitor))


@pytest.mark.parametrize("monitor", MONITORS)
def test_a_single_part_is_scored_on_itself(monitor: Monitor) -> None:
    """As in the published run, where nothing else is held out."""
    rng = np.random.default_rng(0)
    held_out = draw_held_out(rng, seeds=1, folds=1)
    scores = score_epoch(held_out, rng.normal(size=(1, 40, N_CLASSES)), monitor)
    assert not held_out.cross_fitted
    assert scores.part_choices == ((scores.choice,),)


# --- the epochs that are chosen ---


@dataclass
class ScriptedLearner:
    """Predicts what it is given, epoch by epoch; its weights are the number of the epoch."""

    logits_by_epoch: np.ndarray
    """Shape (n_epochs, n_landmarks, n_classes)."""
    epoch: int = 0

    def train_epoch(self, epoch: int) -> EpochSums:
        assert epoch == self.epoch + 1
        self.epoch = epoch
        return EpochSums(2.0 * epoch, 3.0, 4)

    def logits(self, features: Features) -> np.ndarray:
        return np.asarray(self.logits_by_epoch[self.epoch - 1, features.rows], np.float32)

    def snapshot(self) -> Snapshot:
        return cast(Snapshot, self.epoch)


def train(
    held_out: HeldOut,
    logits: np.ndarray,
    rule: StoppingRule,
    **others: Any,  # noqa: ANN401
) -> TrainingResult:
    """Trains on scripted logits of shape (n_epochs, n_seeds, n_landmarks, n_classes)."""
    stored = Features.of(np.zeros((len(held_out.labels), 1), np.float32))
    learners = [[ScriptedLearner(logits[:, seed]) for _ in folds] for seed, folds in enumerate(held_out.parts)]
    data = [[EvaluationSet(stored.select(part), held_out.labels[part]) for part in folds] for folds in held_out.parts]
    return train_validated(learners, data, held_out, rule, **others)


def chosen(result: TrainingResult) -> tuple[tuple[int, ...], ...]:
    """The epoch of each part."""
    return cast(tuple[tuple[int, ...], ...], result.snapshots)


def first_best(values: Sequence[float], patience: int | None) -> int:
    """The best epoch of a training that ends after `patience` epochs without improvement, or never."""
    best = 1
    for epoch in range(2, len(values) + 1):
        if patience is not None and epoch - 1 - best >= patience:
            break
        if values[epoch - 1] > values[best - 1] + 1e-12:
            best = epoch
    return best


def draw_logits(rng: np.random.Generator, held_out: HeldOut, epochs: int) -> np.ndarray:
    """Logits that know something of the labels, by epoch and seed."""
    strength = rng.uniform(0, 2, (epochs, len(held_out.parts), 1, 1))
    noise = rng.normal(size=(epochs, len(held_out.parts), len(held_out.labels), N_CLASSES))
    return np.asarray(noise + strength * np.eye(N_CLASSES)[held_out.labels], np.float32)


@quick
@given(SEEDS, st.sampled_from(MONITORS), st.integers(1, 6))
def test_each_part_is_predicted_at_the_best_epoch_of_all_other_landmarks(
    seed: int, monitor: Monitor, patience: int
) -> None:
    rng = np.random.default_rng(seed)
    held_out = draw_held_out(rng)
    labels, logits = held_out.labels, draw_logits(rng, held_out, 12)
    result = train(held_out, logits, StoppingRule(monitor, 12, patience))
    for folds, epochs in zip(held_out.parts, chosen(result), strict=True):
        for part, epoch in zip(folds, epochs, strict=True):
            others = np.setdiff1d(np.arange(40), part)
            values = [plain_choice(labels[others], z[:, others], monitor) for z in logits]
            assert epoch == first_best(values, patience)
    values = [plain_choice(labels, z, monitor) for z in logits]
    assert result.epochs == first_best(values, patience)
    assert result.capped == (result.epochs == 12)
    every = [result.epochs, *np.ravel(chosen(result))]
    assert len(result.histories[0]) == min(12, max(every) + patience)


@quick
@given(SEEDS, st.sampled_from(MONITORS), st.integers(1, 6), st.integers(0, 2), st.integers(0, 3))
def test_the_labels_of_a_part_do_not_change_the_epoch_chosen_for_it(
    seed: int, monitor: Monitor, patience: int, of_seed: int, fold: int
) -> None:
    """Neither by its scores, nor by the end of training; those of other parts may change."""
    rng = np.random.default_rng(seed)
    held_out = draw_held_out(rng)
    logits, rule = draw_logits(rng, held_out, 15), StoppingRule(monitor, 15, patience)
    part = held_out.parts[of_seed][fold]
    labels = held_out.labels.copy()
    labels[part] = rng.integers(0, N_CLASSES, len(part))
    one, other = train(held_out, logits, rule), train(replace(held_out, labels=labels), logits, rule)
    assert chosen(one)[of_seed][fold] == chosen(other)[of_seed][fold]


@quick
@given(SEEDS, st.sampled_from(MONITORS))
def test_the_labels_of_all_others_do_change_it(seed: int, monitor: Monitor) -> None:
    rng = np.random.default_rng(seed)
    held_out = draw_held_out(rng)
    logits, rule = draw_logits(rng, held_out, 15), StoppingRule(monitor, 15, 15)
    part = held_out.parts[0][0]
    best = chosen(train(held_out, logits, rule))[0][0]
    # In another epoch, all others are predicted rightly.
    right = 1 + best % 15
    assume(right != best)
    others = np.setdiff1d(np.arange(40), part)
    logits[right - 1][:, others] = 20 * np.eye(N_CLASSES)[held_out.labels[others]]
    assert chosen(train(held_out, logits, rule))[0][0] == right


@quick
@given(SEEDS, st.integers(1, 9))
def test_without_a_monitor_all_epochs_are_trained_and_the_last_is_kept(seed: int, epochs: int) -> None:
    rng = np.random.default_rng(seed)
    held_out = draw_held_out(rng)
    result = train(held_out, draw_logits(rng, held_out, epochs), StoppingRule("none", epochs, 1))
    assert set(np.ravel(chosen(result))) == {epochs} == {result.epochs}
    assert len(result.histories[0]) == epochs
    assert not result.capped  # the length was chosen beforehand


def curve(values: Sequence[float]) -> tuple[HeldOut, np.ndarray]:
    """One part of landmarks of two classes, whose macro F1 over four classes is half of these values."""
    n = 20
    held_out = HeldOut(np.repeat([0, 1], n // 2), ((np.arange(n),),), N_CLASSES)
    logits = np.zeros((len(values), 1, n, N_CLASSES), np.float32)
    for epoch, value in enumerate(values):
        # The same share of both classes is predicted as the other.
        wrong = round((1 - value) * n / 2)
        predicted = held_out.labels.copy()
        predicted[:wrong], predicted[n // 2 : n // 2 + wrong] = 1, 0
        logits[epoch, 0] = 5 * np.eye(N_CLASSES)[predicted]
    return held_out, logits


@pytest.mark.parametrize(
    ("values", "cap", "best", "length"),
    [
        ([0.2, 0.5, 0.5, 0.4], 30, 2, 4),  # the first of equals
        ([0.1, 0.2, 0.1, 0.3, 0.2, 0.2], 30, 4, 6),  # a bad epoch does not end it
        ([0.1, 0.2, 0.3], 3, 3, 3),  # the cap is smaller than the curve needs
        ([0.4, 0.1, 0.1, 0.9], 30, 1, 3),  # what comes after the end is not seen
    ],
)
@pytest.mark.parametrize("monitor", MONITORS)
def test_the_stopping_rule(values: list[float], cap: int, best: int, length: int, monitor: Monitor) -> None:
    held_out, logits = curve([*values, *[0.0] * 9])
    result = train(held_out, logits, StoppingRule(monitor, cap, 2))
    assert (result.epochs, len(result.histories[0])) == (best, length)
    assert result.capped == (best == cap)
    assert chosen(result) == ((best,),)
    np.testing.assert_allclose(result.histories[0]["val_macro_f1"], np.array(values[:length]) / 2)


# --- the history, and what is reported ---


def test_the_history_has_sums_over_rows_and_scores_of_the_pool() -> None:
    rng = np.random.default_rng(2)
    held_out = draw_held_out(rng)
    logits = draw_logits(rng, held_out, 3)
    history = train(held_out, logits, StoppingRule("val_loss", 3, 3)).histories[0]
    assert list(history) == ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"]
    assert history["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(history["train_loss"], [0.5, 1.0, 1.5])
    np.testing.assert_allclose(history["train_accuracy"], 0.75)
    np.testing.assert_allclose(history["val_loss"], [plain_loss(held_out.labels, z) for z in logits])
    np.testing.assert_allclose(history["val_macro_f1"], [plain_f1(held_out.labels, z) for z in logits])
    np.testing.assert_allclose(history["val_accuracy"], (logits.argmax(axis=3) == held_out.labels).mean(axis=(1, 2)))


@pytest.mark.parametrize("monitor", [*MONITORS, "none"])
def test_a_callback_gets_each_epoch_and_the_best_score_so_far(monitor: Monitor) -> None:
    rng = np.random.default_rng(4)
    held_out = draw_held_out(rng)
    calls: list[tuple[int, float]] = []
    logits = draw_logits(rng, held_out, 12)
    rule = StoppingRule(monitor, 12, 4)
    result = train(held_out, logits, rule, on_epoch=lambda epoch, best: calls.append((epoch, best)))
    assert [epoch for epoch, _ in calls] == result.histories[0]["epoch"].tolist()
    scores = result.histories[0]["val_macro_f1"]
    for epoch, best in calls:
        until = train(held_out, logits[:epoch], replace(rule, max_epochs=epoch))
        assert best == scores[until.epochs - 1]


def test_the_test_split_is_recorded_and_decides_nothing() -> None:
    rng = np.random.default_rng(5)
    held_out = draw_held_out(rng)
    logits, rule = draw_logits(rng, held_out, 8), StoppingRule("val_macro_f1", 8, 3)
    rows = np.arange(7)
    test = EvaluationSet(Features.of(np.zeros((40, 1))).select(rows), rng.integers(0, N_CLASSES, 7))
    blind, seen = train(held_out, logits, rule), train(held_out, logits, rule, test=test)
    assert (chosen(seen), seen.epochs) == (chosen(blind), blind.epochs)
    assert list(seen.histories[0]) == [*blind.histories[0], "test_loss", "test_accuracy"]
    np.testing.assert_array_equal(seen.histories[0][list(blind.histories[0])], blind.histories[0])
    for epoch, (loss, accuracy) in enumerate(seen.histories[0][["test_loss", "test_accuracy"]].to_numpy()):
        first = logits[epoch, :1][:, rows]  # of the first seed
        assert loss == pytest.approx(plain_loss(test.labels, first))
        assert accuracy == pytest.approx(np.mean(first.argmax(axis=2) == test.labels))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("monitor", [*MONITORS, "none"])
def test_logits_that_are_no_numbers_end_training(monitor: Monitor, value: float) -> None:
    rng = np.random.default_rng(6)
    held_out = draw_held_out(rng)
    logits = draw_logits(rng, held_out, 5)
    logits[2, 1, 7, 0] = value
    calls: list[int] = []
    with pytest.raises(FitFailed, match=r"^val_loss became infinite or NaN in epoch 3$"):
        train(held_out, logits, StoppingRule(monitor, 5, 5), on_epoch=lambda epoch, _: calls.append(epoch))
    assert calls == [1, 2]


# --- a number of epochs ---


def test_a_number_of_epochs_is_trained_without_held_out_landmarks() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(6, 2, 10, N_CLASSES)).astype(np.float32)
    test = EvaluationSet(Features.of(np.zeros((10, 1))), rng.integers(0, N_CLASSES, 10))
    learners = [[ScriptedLearner(logits[:, 0])], [ScriptedLearner(logits[:, 1])]]
    result = train_epochs(learners, 4, test)
    assert chosen(result) == ((4,), (4,))
    assert (result.epochs, result.capped) == (4, False)
    assert list(result.histories[0]) == ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    np.testing.assert_allclose(result.histories[0]["test_loss"], [plain_loss(test.labels, z[:1]) for z in logits[:4]])
    np.testing.assert_allclose(result.histories[0]["train_loss"], [0.5, 1.0, 1.5, 2.0])
