"""What learns on one fold: schedules against plain Keras, rows, counts, and snapshots of the weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from plain import PlainHead, kept_in, weights_of
from worlds import SIZES, WIDTH, make_features, make_fold_data, make_task

from hirise_imb.backbones import Backbone
from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.mixing import Mixture, Mixup, Remix
from hirise_imb.imbalance.sampling import (
    ClassSampling,
    EveryImage,
    RandomOversampling,
    Sampling,
    SplitFileRows,
    Undersampling,
)
from hirise_imb.models.heads import initial_state
from hirise_imb.recipe import RATE_DROP, Cosine, Recipe
from hirise_imb.training import learners
from hirise_imb.training.learners import EpochSums, FoldData, HeadLearner, TailLearner
from hirise_imb.training.tail_network import Network, StepBlock

QUICK = Recipe(learning_rate=1e-2, max_epochs=3)
MARGIN = dataclasses.replace(QUICK, head=Cosine(8.0), loss=LabelDistributionAwareMargin())
SCHEDULED = dataclasses.replace(QUICK, max_epochs=8, monitor="none")


@pytest.fixture(scope="module")
def task() -> DataSplits:
    return make_task()


@pytest.fixture(scope="module")
def data(task: DataSplits) -> FoldData:
    return make_fold_data(task, task.split)


@pytest.fixture(scope="module")
def late(task: DataSplits) -> FoldData:
    return make_fold_data(task, task.split, make_features(task, "late"))


@pytest.fixture(scope="module")
def network(backbone: Backbone) -> Network:
    return Network(backbone, "late")


def train(data: FoldData, recipe: Recipe, epochs: int | None = None, seed: int = 3) -> tuple[HeadLearner, np.ndarray]:
    """Trains a head; returns it and the loss of each epoch."""
    learner = HeadLearner(recipe, seed, data)
    sums = [learner.train_epoch(epoch) for epoch in range(1, 1 + (epochs or recipe.max_epochs))]
    return learner, np.array([one.entropy / one.rows for one in sums])


def bits(learner: HeadLearner) -> bytes:
    return b"".join(values.tobytes() for values in weights_of(learner.snapshot().head))


# --- schedules ---


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_a_schedule_is_that_of_plain_keras(head: str, task: DataSplits, data: FoldData) -> None:
    """Class weights from epoch 5 of 8 on; a hundredth of the rate from epoch 4 on, and of that from 7 on."""
    recipe, seed = dataclasses.replace(SCHEDULED, class_weights=InversePower(1.0), weight_decay=0.1, dropout=0.5), 5
    recipe = dataclasses.replace(recipe, reweight_after=0.5, rate_drops=(0.375, 0.75))
    if head == "cosine":
        recipe = dataclasses.replace(recipe, head=Cosine(8.0))
    learner = HeadLearner(recipe, seed, data)
    scale = 8.0 if head == "cosine" else 0.0
    plain = PlainHead(seed, rate=recipe.learning_rate, dropout=0.5, decay=0.1, scale=scale)
    x, y = data.features.take(np.arange(len(data.pool.labels))), data.pool.labels
    rare = SIZES.sum() / (8 * SIZES)
    rng, done, before = np.random.default_rng(seed), 0, [np.zeros(1)]
    for epoch in range(1, 9):
        plain.model.optimizer.learning_rate = 1e-2 * (1 if epoch < 4 else 1e-2 if epoch < 7 else 1e-4)
        batches = np.split(rng.permutation(len(y)), range(32, len(y), 32))
        kept = kept_in((len(batches), 32, WIDTH), 0.5, done, seed)
        sums = np.zeros(2)
        for mask, rows in zip(kept, batches, strict=True):
            sums += plain.step(x[rows], y[rows], mask[: len(rows)], rare if epoch >= 5 else None)
        done += len(batches)
        found = learner.train_epoch(epoch)
        np.testing.assert_allclose(found, [*sums, len(y)], rtol=1e-4)
        mine = weights_of(learner.snapshot().head)
        for one, other in zip(mine, plain.model.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        kernel = mine[2 if scale else 4]
        moved = np.abs(kernel - before[-1]).max()
        before.append(kernel.copy())
        assert (moved > 2e-3) == (epoch < 4)  # five steps of the rate and less
    assert np.abs(before[-1] - before[-2]).max() < 1e-5


@pytest.mark.parametrize(
    "base", [SCHEDULED, dataclasses.replace(SCHEDULED, head=Cosine(8.0))], ids=["linear", "cosine"]
)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_class_weights_come_in_after_their_share_of_the_epochs(base: Recipe, share: float, data: FoldData) -> None:
    weighted = dataclasses.replace(base, class_weights=EffectiveNumber(0.95))
    deferred = dataclasses.replace(weighted, reweight_after=share)
    plain, early, late = (train(data, recipe)[1] for recipe in (base, weighted, deferred))
    first = int(np.ceil(share * 8))  # of the eight epochs come without
    np.testing.assert_array_equal(late[:first], plain[:first])
    assert not np.isclose(late[first:], plain[first:], rtol=1e-5).any()
    assert not np.isclose(late, early, rtol=1e-5).any()


def test_the_weights_of_the_last_epochs_are_never_missed(data: FoldData) -> None:
    """The latest share that leaves an epoch is that of the last epoch."""
    deferred = dataclasses.replace(SCHEDULED, class_weights=InversePower(1.0), reweight_after=7 / 8)
    plain = dataclasses.replace(deferred, reweight_after=0.0, class_weights=InversePower())
    assert bits(train(data, deferred, 7)[0]) == bits(train(data, plain, 7)[0])
    assert bits(train(data, deferred, 8)[0]) != bits(train(data, plain, 8)[0])


def test_the_rate_of_the_backbone_falls_with_that_of_the_head(late: FoldData, network: Network) -> None:
    rate = 1e-2
    recipe = dataclasses.replace(
        SCHEDULED, cut="late", backbone_learning_rate=rate, max_epochs=4, rate_drops=(0.5,), batch_size=1000
    )
    head = HeadLearner(QUICK, 3, make_fold_data(make_task(), make_task().split)).snapshot().head
    learner = TailLearner(recipe, 3, late, network, head)
    steps, before = [], None
    for epoch in range(1, 5):
        tail = learner.snapshot().tail
        assert tail is not None
        before = np.asarray(tail.moving.parameters[2])
        learner.train_epoch(epoch)
        after = learner.snapshot().tail
        assert after is not None
        steps.append(np.abs(np.asarray(after.moving.parameters[2]) - before).max())
    # Adam's first step has the size of the rate; later ones are of its order.
    assert steps[0] == pytest.approx(rate, rel=0.02)
    assert rate / 4 < steps[1] < 2 * rate
    for step in steps[2:]:
        assert RATE_DROP * rate / 4 < step < 2 * RATE_DROP * rate


# --- rows ---


@pytest.fixture
def trained_rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and labels of each epoch that is trained."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    original = learners.head_kernel.train_epoch  # type: ignore[attr-defined]

    def note(features: np.ndarray, rows: np.ndarray, labels: np.ndarray, *others: Any) -> Any:  # noqa: ANN401
        found.append((rows, labels))
        return original(features, rows, labels, *others)

    monkeypatch.setattr("hirise_imb.training.head_kernel.train_epoch", note)
    return found


@pytest.mark.parametrize(
    "sampling",
    [
        EveryImage(),
        SplitFileRows(),
        RandomOversampling(0.5),
        Undersampling(1.0),
        ClassSampling(0.5),
        ClassSampling(0.0, progressive=True),
    ],
    ids=lambda sampling: type(sampling).__name__,
)
def test_every_row_of_the_sampling_is_trained_once_an_epoch(
    sampling: Sampling, trained_rows: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    task = make_task(variants=2)
    data = make_fold_data(task, task.split)
    train(data, dataclasses.replace(SCHEDULED, sampling=sampling, max_epochs=3))
    assert len(trained_rows) == 3
    for epoch, (rows, labels) in enumerate(trained_rows, 1):
        expected = task.split.train[sampling.rows(data.pool, 3, epoch, (epoch - 1) / 2)]
        assert rows.tolist() != sorted(rows)
        np.testing.assert_array_equal(np.sort(rows), np.sort(expected))
        np.testing.assert_array_equal(labels, task.images.labels[rows])
    assert trained_rows[0][0].tolist() != trained_rows[1][0].tolist()


@pytest.mark.parametrize("epochs", [2, 10, 40])
def test_progressive_sampling_reaches_its_end_in_the_last_epoch(
    epochs: int, data: FoldData, trained_rows: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Class by class, it starts from the frequencies of the data, and ends with equal shares."""
    recipe = dataclasses.replace(SCHEDULED, sampling=ClassSampling(0.0, progressive=True), max_epochs=epochs)
    for seed in range(20):
        train(data, recipe, seed=seed)
    labels = np.array([labels for _, labels in trained_rows]).reshape(20, epochs, -1)
    shares = np.stack([(labels == k).mean(axis=(0, 2)) for k in range(8)], axis=1)
    np.testing.assert_allclose(shares[0], SIZES / SIZES.sum(), atol=0.04)
    np.testing.assert_allclose(shares[-1], 1 / 8, atol=0.04)
    ramp = np.linspace(SIZES[0] / SIZES.sum(), 1 / 8, epochs)
    np.testing.assert_allclose(shares[:, 0], ramp, atol=0.05)


# --- folds ---


def test_a_fold_that_lacks_a_class_has_finite_losses(task: DataSplits) -> None:
    """Its weights are not those of another fold."""
    first = task.assignments[0][0]
    without = Fold(first.train[task.images.labels[first.train] != 7], first.heldout)
    data = make_fold_data(task, without)
    for recipe in (
        dataclasses.replace(QUICK, class_weights=InversePower(1.0)),
        dataclasses.replace(QUICK, loss=LogitAdjustedCrossEntropy()),
        dataclasses.replace(QUICK, loss=Focal(2.0, 1.0)),
        MARGIN,
    ):
        learner, losses = train(data, recipe)
        assert np.isfinite(losses).all()
        assert np.isfinite(learner.logits(data.heldout.features)).all()


def test_counts_are_of_landmarks_sources_and_rows_as_sampled(data: FoldData) -> None:
    counts = data.counts(ClassSampling(0.0))
    np.testing.assert_array_equal(counts.landmarks, [60, 24, 12, 9, 8, 7, 6, 5])
    np.testing.assert_array_equal(counts.sources, [12, 12, 12, 9, 8, 7, 6, 5])
    np.testing.assert_allclose(counts.shares, np.full(8, 1 / 8))
    np.testing.assert_allclose(data.counts(EveryImage()).shares, np.array([60, 24, 12, 9, 8, 7, 6, 5]) / 131)


# --- sums ---


def test_the_training_loss_is_unweighted_cross_entropy(data: FoldData) -> None:
    # A frozen classifier (learning rate 0, no dropout) has one loss whatever is trained.
    still = Recipe(dropout=0.0, learning_rate=0.0, max_epochs=1, batch_size=1000)
    _, [plain] = train(data, still)
    for recipe in (
        dataclasses.replace(still, class_weights=InversePower(1.0)),
        dataclasses.replace(still, loss=Focal(2.0, 1.0)),
        dataclasses.replace(still, loss=LogitAdjustedCrossEntropy(1.0)),
    ):
        assert train(data, recipe)[1] == pytest.approx([plain], rel=1e-6)


def test_the_training_loss_of_a_tail_is_unweighted_too(late: FoldData, network: Network) -> None:
    still = Recipe(cut="late", dropout=0.0, learning_rate=0.0, backbone_learning_rate=0.0, batch_size=1000)
    recipes = (
        still,
        dataclasses.replace(still, class_weights=InversePower(1.0), loss=Focal(2.0, 1.0)),
        dataclasses.replace(still, loss=LogitAdjustedCrossEntropy(1.0)),
    )
    head = HeadLearner(QUICK, 3, make_fold_data(make_task(), make_task().split)).snapshot().head
    plain, *others = [TailLearner(recipe, 3, late, network, head).train_epoch(1) for recipe in recipes]
    assert isinstance(plain, EpochSums)
    assert plain.rows == 131
    for sums in others:
        np.testing.assert_allclose(sums, plain, rtol=1e-5)


# --- weights and predictions ---


@pytest.mark.parametrize("recipe", [QUICK, MARGIN], ids=["linear", "cosine"])
def test_a_snapshot_is_the_head_after_its_epoch(recipe: Recipe, data: FoldData) -> None:
    learner, _ = train(data, recipe, 2)
    x = data.heldout.features
    snapshot, logits = learner.snapshot(), learner.logits(x)
    expected = snapshot.classifier().logits(x.take(np.arange(len(x))))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert snapshot.head.scale == (8.0 if recipe is MARGIN else 0.0)
    assert snapshot.tail is None
    learner.train_epoch(3)
    np.testing.assert_array_equal(snapshot.classifier().logits(x.take(np.arange(len(x)))), expected)
    assert np.abs(learner.logits(x) - logits).max() > 1e-3
    # The same run ended at that epoch.
    np.testing.assert_array_equal(train(data, recipe, 2)[0].logits(x), logits)


def test_a_tail_goes_on_from_a_head(data: FoldData, late: FoldData, network: Network) -> None:
    probe = train(data, QUICK)[0].snapshot()
    learner = TailLearner(dataclasses.replace(QUICK, cut="late"), 9, late, network, probe.head)
    for mine, theirs in zip(weights_of(learner.snapshot().head), weights_of(probe.head), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    learner.train_epoch(1)
    snapshot, x = learner.snapshot(), late.heldout.features
    assert snapshot.tail is not None
    assert len(snapshot.tail.moving.parameters) == 4
    logits = learner.logits(x)
    expected = snapshot.classifier().logits(network.pooled(snapshot.tail.tail, x))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    learner.train_epoch(2)
    np.testing.assert_array_equal(snapshot.classifier().logits(network.pooled(snapshot.tail.tail, x)), expected)


def test_a_tail_trains_in_blocks_of_any_size(
    data: FoldData, late: FoldData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, whose masks are drawn block by block."""
    probe = train(data, QUICK)[0].snapshot()
    recipe = dataclasses.replace(QUICK, cut="late", dropout=0.0)
    ends = []
    for steps in (1, 2, 64):
        monkeypatch.setattr(learners, "_BLOCK_STEPS", steps)
        learner = TailLearner(recipe, 9, late, network, probe.head)
        sums = [learner.train_epoch(epoch) for epoch in (1, 2)]
        assert [one.rows for one in sums] == [131, 131]
        ends.append((learner.logits(late.heldout.features), np.array(sums)))
    for logits, values in ends[1:]:
        np.testing.assert_allclose(logits, ends[0][0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(values, ends[0][1], rtol=1e-5)


# --- augmentation ---


class Blocks:
    """The rows of blocks that learners train on, epoch by epoch, without padding."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.features: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        original = StepBlock.of

        def note(**arrays: Any) -> StepBlock:  # noqa: ANN401
            valid = arrays["valid"][..., 0] > 0
            self.features.append(arrays["features"][valid])
            self.labels.append(arrays["one_hot"][valid])
            return original(**arrays)

        monkeypatch.setattr(StepBlock, "of", note)

    def train_epochs(self, learner: TailLearner, epochs: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns features and labels of the rows of each epoch, in the order of training."""
        found = []
        for epoch in range(1, 1 + epochs):
            self.features.clear()
            self.labels.clear()
            learner.train_epoch(epoch)
            found.append((np.concatenate(self.features), np.concatenate(self.labels)))
        return found


def with_views(late: FoldData, factors: tuple[float, ...] = (1.0, 2.0, 5.0)) -> FoldData:
    """Data whose views are multiples of the plain features."""
    views = tuple(Features(np.float32(factor) * late.features.stored, late.features.rows) for factor in factors)
    return dataclasses.replace(late, training_views=views)


def test_rows_draw_a_view_each_epoch(late: FoldData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, head = Blocks(monkeypatch), initial_state(WIDTH, 8, 3)
    recipe = dataclasses.replace(QUICK, cut="late", training_views=("plain", "fh", "r90"))

    def train_epochs(data: FoldData, seed: int = 9) -> list[tuple[np.ndarray, np.ndarray]]:
        return blocks.train_epochs(TailLearner(recipe, seed, data, network, head))

    plain, drawn, again, other = (
        train_epochs(late),
        train_epochs(with_views(late)),
        train_epochs(with_views(late)),
        train_epochs(with_views(late), 10),
    )
    numbers = []
    for (x, labels), (viewed, same_labels) in zip(plain, drawn, strict=True):
        np.testing.assert_array_equal(same_labels, labels)  # rows come in the order they would have without views
        factors = (viewed / x).reshape(len(x), -1)
        np.testing.assert_allclose(factors, np.tile(factors[:, :1], factors.shape[1]), rtol=1e-6)
        numbers.append(factors[:, 0].round(3))
        assert set(numbers[-1]) == {1, 2, 5}
        assert min((numbers[-1] == factor).sum() for factor in (1, 2, 5)) > len(x) / 5
    assert (numbers[0] != numbers[1]).any()
    for one, two in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert (drawn[0][0] != other[0][0]).any()


@pytest.mark.parametrize("mixing", [Mixup(0.5), Remix(1.0)], ids=str)
def test_rows_are_mixed_within_their_mini_batch(
    mixing: Mixup | Remix, late: FoldData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, head = Blocks(monkeypatch), initial_state(WIDTH, 8, 3)
    recipe = dataclasses.replace(QUICK, cut="late")
    mixed_recipe = dataclasses.replace(recipe, mixing=mixing)
    plain = blocks.train_epochs(TailLearner(recipe, 9, late, network, head))
    mixed = blocks.train_epochs(TailLearner(mixed_recipe, 9, late, network, head))
    rng = np.random.default_rng((9, 2))
    for (x, one_hot), (found, labels) in zip(plain, mixed, strict=True):
        mixture = Mixture.draw(mixing, one_hot.argmax(axis=1), SIZES, 32, rng)
        np.testing.assert_array_equal(found, mixture.mix_features(x))
        np.testing.assert_array_equal(labels, mixture.mix_labels(one_hot))
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
        assert np.abs(found - x).max() > 0.1
    for steps in (1, 2):  # however many steps a block has
        monkeypatch.setattr(learners, "_BLOCK_STEPS", steps)
        again = blocks.train_epochs(TailLearner(mixed_recipe, 9, late, network, head))
        for one, other in zip(mixed, again, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_the_training_loss_of_mixed_rows_is_that_of_their_labels(
    late: FoldData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, head = Blocks(monkeypatch), initial_state(WIDTH, 8, 3)
    recipe = Recipe(cut="late", dropout=0.0, learning_rate=0.0, backbone_learning_rate=0.0, mixing=Mixup())
    learner = TailLearner(dataclasses.replace(recipe, batch_size=1000), 3, late, network, head)
    sums = learner.train_epoch(1)
    [x], [labels] = blocks.features, blocks.labels
    pooled = network.pooled(network.start(head).tail, Features.of(x)).astype(float)
    normalised = (pooled - pooled.mean(axis=0)) / np.sqrt(pooled.var(axis=0) + 1e-3)
    logits = normalised @ head.stacked[2:].T
    entropy = (np.logaddexp.reduce(logits, axis=1)[:, None] - logits) * labels
    assert sums.entropy == pytest.approx(entropy.sum(), rel=1e-4)
    assert sums.hits == (logits.argmax(axis=1) == labels.argmax(axis=1)).sum()


def test_features_are_read_as_they_are_stored(data: FoldData) -> None:
    """Rows of a memory-mapped array are those of a copy."""
    stored = np.array(data.features.stored)
    stored.flags.writeable = False
    copy = dataclasses.replace(data, features=Features(stored, data.features.rows))
    assert bits(train(copy, QUICK)[0]) == bits(train(data, QUICK)[0])


def test_another_seed_gives_another_head(data: FoldData) -> None:
    assert bits(train(data, QUICK, seed=3)[0]) == bits(train(data, QUICK, seed=3)[0])
    assert bits(train(data, QUICK, seed=3)[0]) != bits(train(data, QUICK, seed=4)[0])
