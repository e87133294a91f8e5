"""Passes through epochs: deferred weights, folds in step, and what comes out of a head."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from plain import weights_of
from sklearn.metrics import f1_score, log_loss
from worlds import WIDTH, make_features, make_fold_data, make_task

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import ClassSampling, EveryImage
from hirise_imb.models import heads
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.training import epoch_loop
from hirise_imb.training.epoch_loop import EvaluationSet, FoldData, Job, Snapshot, TrainingResult, batch_key
from hirise_imb.training.train_step import Network

QUICK = Recipe(learning_rate=1e-2, max_epochs=3)
MARGIN = dataclasses.replace(QUICK, head=Cosine(8.0), loss=LabelDistributionAwareMargin())


@pytest.fixture(scope="module")
def task() -> DataSplits:
    return make_task()


@pytest.fixture(scope="module")
def network(backbone: Backbone) -> Network:
    return Network(backbone, TOP, WIDTH, 8)


def train(network: Network, data: list[FoldData], *recipes: Recipe, **options: Any) -> list[TrainingResult]:  # noqa: ANN401
    outcomes = epoch_loop.train_heads(network, [Job(recipe, 3) for recipe in recipes], data, **options)
    return [outcome.get() for outcome in outcomes]


# --- deferred re-weighting ---


@pytest.mark.parametrize(
    "base",
    [dataclasses.replace(QUICK, max_epochs=6), dataclasses.replace(MARGIN, max_epochs=6)],
    ids=["linear", "ldam"],
)
def test_class_weights_come_in_after_their_epoch(base: Recipe, network: Network, task: DataSplits) -> None:
    given = [make_fold_data(task, task.split)]
    weighted = dataclasses.replace(base, class_weights=EffectiveNumber(0.95))
    late = dataclasses.replace(weighted, reweight_after=4)
    plain, early, deferred = train(network, given, base, weighted, late)
    theirs, mine = plain.history.to_numpy(), deferred.history.to_numpy()
    np.testing.assert_array_equal(mine[:4], theirs[:4])
    assert not np.isclose(mine[4:, 1:4], theirs[4:, 1:4]).all(axis=1).any()
    assert not np.isclose(mine[:, 1], early.history.to_numpy()[:, 1]).any()


@pytest.mark.parametrize("after", [0, 1, 6])
def test_a_run_with_deferred_weights_does_not_end_before_them(after: int, network: Network, task: DataSplits) -> None:
    # A learning rate of 0 improves nothing after the first epochs, in which moving averages settle.
    still = Recipe(learning_rate=0.0, monitor="val_macro_f1", patience=2, max_epochs=15)
    weighted = dataclasses.replace(still, class_weights=InversePower(1.0), reweight_after=after)
    noisy = dataclasses.replace(
        make_fold_data(task, task.split), heldout=EvaluationSet(Features.of(np.zeros((9, WIDTH))), np.arange(9) % 8)
    )
    plain, deferred = train(network, [noisy], still, weighted)
    assert (plain.best_epoch, len(plain.history)) == (1, 3)
    assert (deferred.best_epoch, len(deferred.history)) == (1, max(1, after) + 2)


# --- folds ---


def test_folds_are_scored_as_one(network: Network, task: DataSplits) -> None:
    """By the best epoch's snapshots, each on what was held out of its own fold."""
    given = [make_fold_data(task, fold) for fold in task.folds]
    for outcome in train(network, given, QUICK, MARGIN):
        assert len(outcome.snapshots) == len(given)
        logits = np.concatenate([s.logits(e.heldout.features) for s, e in zip(outcome.snapshots, given, strict=True)])
        labels = np.concatenate([each.heldout.labels for each in given])
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        best = outcome.history.iloc[outcome.best_epoch - 1]
        assert best["val_loss"] == pytest.approx(log_loss(labels, chances, labels=range(8)), rel=1e-4)
        assert best["val_accuracy"] == pytest.approx((chances.argmax(axis=1) == labels).mean())
        f1 = f1_score(labels, chances.argmax(axis=1), average="macro", labels=range(8), zero_division=0)
        assert best["val_macro_f1"] == pytest.approx(f1)


def test_a_fold_learns_as_it_would_alone(network: Network, task: DataSplits) -> None:
    given = [make_fold_data(task, fold) for fold in task.folds]
    still = dataclasses.replace(QUICK, monitor="val_macro_f1", max_epochs=1)
    [whole] = train(network, given, still)
    for place, each in enumerate(given):
        [alone] = train(network, [each], still)
        mine, theirs = whole.snapshots[place].classifier(), alone.snapshots[0].classifier()
        np.testing.assert_array_equal(mine.kernel, theirs.kernel)
        np.testing.assert_array_equal(mine.centre, theirs.centre)
    sizes = [len(each.pool.labels) for each in given]
    losses = [train(network, [each], still)[0].history["train_loss"][0] for each in given]
    assert whole.history["train_loss"][0] == pytest.approx(np.average(losses, weights=sizes), rel=1e-6)


def test_each_fold_counts_its_own_landmarks(network: Network, task: DataSplits) -> None:
    """Weights of a fold that lacks a class leave its loss finite, and are not those of another fold."""
    first, *others = task.folds
    without = Fold(first.train[task.images.labels[first.train] != 7], first.heldout)
    folds = [without, *others]
    given = [make_fold_data(task, fold) for fold in folds]
    recipes = [
        dataclasses.replace(QUICK, class_weights=InversePower(1.0)),
        dataclasses.replace(QUICK, loss=LogitAdjustedCrossEntropy()),
        dataclasses.replace(QUICK, loss=Focal(2.0, 1.0)),
        MARGIN,
    ]
    for outcome in train(network, given, *recipes):
        assert np.isfinite(outcome.history.to_numpy()).all()
    once = dataclasses.replace(recipes[0], max_epochs=1)
    [weighted] = train(network, given, once)
    for place, each in enumerate(given):
        [alone] = train(network, [each], once)
        mine, theirs = weighted.snapshots[place].classifier(), alone.snapshots[0].classifier()
        np.testing.assert_array_equal(mine.kernel, theirs.kernel)


def test_counts_are_of_landmarks_sources_and_rows_as_sampled(task: DataSplits) -> None:
    given = make_fold_data(task, task.split)
    counts = given.counts(ClassSampling(0.0))
    np.testing.assert_array_equal(counts.landmarks, [60, 24, 12, 9, 8, 7, 6, 5])
    np.testing.assert_array_equal(counts.sources, [12, 12, 12, 9, 8, 7, 6, 5])
    np.testing.assert_allclose(counts.shares, np.full(8, 1 / 8))
    np.testing.assert_allclose(given.counts(EveryImage()).shares, np.array([60, 24, 12, 9, 8, 7, 6, 5]) / 131)


# --- what comes out ---


@pytest.mark.parametrize("recipe", [QUICK, MARGIN], ids=["linear", "cosine"])
def test_a_snapshot_is_the_head_at_its_best_epoch(recipe: Recipe, network: Network, task: DataSplits) -> None:
    given = make_fold_data(task, task.split)
    others = [dataclasses.replace(QUICK, learning_rate=rate) for rate in (1e-4, 1e-3)]
    found = train(network, [given], *others, recipe)[2]
    snapshot = found.snapshots[0]
    x = given.heldout.features
    logits = snapshot.logits(x)
    scales = np.array([0, 0, snapshot.scale, *[0] * 5], np.float32)
    assert (snapshot.head, snapshot.scale) == (2, 8.0 if recipe is MARGIN else 0.0)
    np.testing.assert_allclose(logits, network.logits(snapshot.state, x, scales)[2], rtol=1e-4, atol=1e-4)
    one = heads.extract_classifier(snapshot.state.heads, snapshot.state.moving.average, 2, snapshot.scale)
    np.testing.assert_array_equal(one.logits(x.take(np.arange(len(x)))), logits)
    # The same run ended at its best epoch.
    short = dataclasses.replace(recipe, max_epochs=found.best_epoch)
    again = train(network, [given], *[dataclasses.replace(o, max_epochs=found.best_epoch) for o in others], short)[2]
    np.testing.assert_array_equal(again.snapshots[0].logits(x), logits)


def test_a_classifier_is_the_head_by_hand(network: Network, task: DataSplits) -> None:
    """Batch normalisation in inference and a dense layer, in float64."""
    given = make_fold_data(task, task.split)
    snapshot: Snapshot = train(network, [given], QUICK)[0].snapshots[0]
    gamma, beta, mean, variance, kernel, bias = (np.float64(part) for part in weights_of(snapshot.state, 0))
    x = given.heldout.features.take(np.arange(len(given.heldout.labels))).astype(np.float64)
    expected = ((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta) @ kernel + bias
    np.testing.assert_allclose(snapshot.logits(given.heldout.features), expected, rtol=1e-9, atol=1e-9)
    assert np.abs(bias).max() > 1e-3
    assert np.abs(beta).max() > 1e-3


def test_a_probe_is_one_head_that_training_goes_on_from(backbone: Backbone, network: Network, task: DataSplits) -> None:
    given = make_fold_data(task, task.split)
    snapshot = train(network, [given], QUICK, MARGIN)[0].snapshots[0]
    late = make_fold_data(task, task.split, make_features(task, "late"))
    below = Network(backbone, "late", WIDTH, 8)
    state = below.start([9], snapshot.probe())
    for mine, theirs in zip(weights_of(state, 0), weights_of(snapshot.state, 0), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    deeper = dataclasses.replace(QUICK, cut="late", max_epochs=1)
    [found] = train(below, [late], deeper, probes=[snapshot.probe()])
    assert len(found.snapshots[0].state.moving.parameters) == 4
    pooled = below.pooled(found.snapshots[0].state, late.heldout.features)
    classifier = found.snapshots[0].classifier()
    np.testing.assert_array_equal(found.snapshots[0].logits(late.heldout.features), classifier.logits(pooled))


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"learning_rate": 1.0}, True),
        ({"loss": Focal()}, True),
        ({"head": Cosine()}, True),
        ({"weight_decay": 0.1}, True),
        ({"reweight_after": 1}, True),
        ({"monitor": "val_macro_f1", "patience": 1}, True),
        ({"inputs": ("photometric",)}, False),
        ({"sampling": ClassSampling(0.5)}, False),
        ({"max_epochs": 4}, False),
        ({"batch_size": 8}, False),
        ({"dropout": 0.0}, False),
        ({"cut": "late"}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_runs_of_one_pass_share(changes: dict[str, Any], same: bool) -> None:
    other = dataclasses.replace(QUICK, **changes)
    assert (batch_key(Job(QUICK, 0)) == batch_key(Job(other, 0))) is same
    assert batch_key(Job(QUICK, 0)) != batch_key(Job(QUICK, 1))
