"""A recipe and cached features give a fitted run.

There is one training loop. What is trained stands above a cut of the backbone: at the cut `top` the head alone, below
it the end of the backbone too. A `Network` is built and compiled once for each cut and used by all runs from it;
what recipes vary enters its step as tensors, so a further run costs its steps and no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone
from hirise_imb.evaluation import confusion, log_loss, macro_f1
from hirise_imb.features import Features
from hirise_imb.landmarks import CLASSES
from hirise_imb.losses import Loss
from hirise_imb.recipe import Recipe

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Examples:
    """Images of one split, with their features at one cut."""

    images: tuple[str, ...]
    features: Features
    labels: NDArray[np.int64]
    copies: NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What a run learns from and is scored on, at one cut; validation and test hold one image a landmark."""

    train: Examples
    val: Examples
    test: Examples
    landmark_counts: NDArray[np.int64]
    """Training landmarks of each class, shape (8,)."""


@dataclass(frozen=True)
class Run:
    """A fitted recipe.

    `history` has one row an epoch: loss and accuracy of train, val and test, and val_macro_f1. The loss is
    cross-entropy in nats whatever loss was trained; the training figures are running means over the epoch, with
    dropout, as Keras reports them. Test columns are there only where the test split was asked for.
    """

    seed: int
    history: pd.DataFrame
    best_epoch: int
    """Counted from 1; its weights gave the probabilities."""
    val_confusion: NDArray[np.int64]
    """Counts on validation, shape (8, 8)."""
    test: NDArray[np.float32] | None
    """Class probabilities, shape (n_test, 8), where the test split was asked for."""
    seconds: float
    """Wall time of the fit."""

    @property
    def val_macro_f1(self) -> float:
        """Macro F1 on validation at the best epoch."""
        return macro_f1(self.val_confusion)


OnEpoch = Callable[[int, float], None]
"""Called after each epoch with its number from 1 and the validation macro F1 of the best epoch so far."""


class Network:
    """The trained part above one cut: the backbone's tail, batch normalisation, dropout, a dense layer of 8 logits."""

    def __init__(self, backbone: Backbone, cut: str, dropout: float) -> None:
        """Build the layers; `start` gives them their values."""
        import keras

        self.tail = backbone.tail(cut)
        self.dropout = keras.layers.Dropout(dropout, seed=0)
        self.norm = keras.layers.BatchNormalization()
        self.dense = keras.layers.Dense(len(CLASSES))
        self.model = keras.Sequential([self.tail, self.norm, self.dropout, self.dense])
        self._pretrained = self.tail.get_weights()
        self._head_variables = [*self.norm.trainable_variables, *self.dense.trainable_variables]
        self._tail_variables = self.tail.trainable_variables
        self._head_optimizer = keras.optimizers.Adam()
        self._tail_optimizer = keras.optimizers.Adam()
        self._head_optimizer.build(self._head_variables)
        self._tail_optimizer.build(self._tail_variables)
        self._steps: dict[str, Any] = {}
        self._forward: Any = None

    def start(self, recipe: Recipe, seed: int) -> None:
        """Put all variables and both optimisers in their first state."""
        import keras

        self.tail.set_weights(self._pretrained)
        width = self.norm.gamma.shape[0]
        self.norm.set_weights([np.ones(width), np.zeros(width), np.zeros(width), np.ones(width)])
        kernel = np.asarray(keras.initializers.GlorotUniform(seed)((width, len(CLASSES))))
        self.dense.set_weights([kernel, np.zeros(len(CLASSES))])
        if recipe.dropout:  # Keras gives the layer no generator at rate 0
            self.dropout.seed_generator.state.assign(np.array([seed, 0], np.uint32))
        for optimizer, rate in (
            (self._head_optimizer, recipe.learning_rate),
            (self._tail_optimizer, recipe.backbone_learning_rate),
        ):
            for variable in optimizer.variables:
                variable.assign(np.zeros(variable.shape))
            optimizer.learning_rate.assign(rate)

    def step(self, loss: type[Loss]) -> Any:  # noqa: ANN401  (a TensorFlow function, untyped)
        """The compiled training step of a loss.

        It takes features (n, ...), one-hot labels (n, 8), row weights (n,) and the loss's tensors by name, and returns
        the batch's sums of cross-entropy and of hits.
        """
        if loss.name not in self._steps:
            self._steps[loss.name] = self._compile(loss)
        return self._steps[loss.name]

    def _compile(self, loss: type[Loss]) -> Any:  # noqa: ANN401
        import keras
        import tensorflow as tf

        variables = [*self._head_variables, *self._tail_variables]

        def step(features: Any, one_hot: Any, weights: Any, values: dict[str, Any]) -> tuple[Any, Any]:  # noqa: ANN401
            with tf.GradientTape() as tape:
                logits = self.model(features, training=True)
                # The mean is over rows, not over the sum of weights, as Keras' class_weight has it.
                mean = tf.reduce_mean(weights * loss.rowwise(one_hot, logits, values))
            gradients = tape.gradient(mean, [variable.value for variable in variables])
            head = len(self._head_variables)
            self._head_optimizer.apply(gradients[:head], self._head_variables)
            if self._tail_variables:
                self._tail_optimizer.apply(gradients[head:], self._tail_variables)
            entropy = keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True)
            hits = tf.argmax(logits, axis=1) == tf.argmax(one_hot, axis=1)
            return tf.reduce_sum(entropy), tf.reduce_sum(tf.cast(hits, tf.float32))

        return tf.function(step, reduce_retracing=True)

    def probabilities(self, features: Features) -> NDArray[np.float32]:
        """Class probabilities, shape (n, 8), with everything in inference mode."""
        import tensorflow as tf

        if self._forward is None:
            self._forward = tf.function(lambda x: tf.nn.softmax(self.model(x, training=False)), reduce_retracing=True)
        positions = np.arange(len(features))
        starts = range(0, len(features), EVALUATION_BATCH)
        return np.concatenate([self._forward(features.take(positions[s : s + EVALUATION_BATCH])) for s in starts])


class Trainer:
    """Fits recipes on one data set. Networks and features of each cut are kept between runs."""

    def __init__(self, backbone: Backbone, tasks: dict[str, Task]) -> None:
        """Take the task at every cut that recipes will name."""
        import tensorflow as tf

        # Same seed, same machine, same numbers: without it, parallel reductions add in any order.
        tf.config.experimental.enable_op_determinism()
        self._backbone = backbone
        self.tasks = tasks
        self._networks: dict[tuple[str, float], Network] = {}

    def fit(self, recipe: Recipe, seed: int, *, on_epoch: OnEpoch | None = None, score_test: bool = False) -> Run:
        """Train until the recipe's stopping rule says so, then predict with the weights of the best epoch.

        Args:
            recipe: what to do.
            seed: of initial weights, order of rows, dropout and sampling.
            on_epoch: called after each epoch; what it raises ends the run.
            score_test: whether to record and predict the test split, which no choice depends on.
        """
        begin = time.monotonic()
        task = self.tasks[recipe.cut]
        network = self._network(recipe)
        network.start(recipe, seed)
        epochs = _Epochs(recipe, task, network, seed)
        keep = _Best(recipe)
        history = []
        for epoch in range(1, recipe.max_epochs + 1):
            figures = epochs.train() | _figures("val", task.val.labels, val := network.probabilities(task.val.features))
            figures["val_macro_f1"] = macro_f1(confusion(task.val.labels, val.argmax(axis=1)))
            if score_test:
                figures |= _figures("test", task.test.labels, network.probabilities(task.test.features))
            history.append({"epoch": epoch} | figures)
            keep.see(epoch, figures, network)
            if on_epoch is not None:
                on_epoch(epoch, history[keep.epoch - 1]["val_macro_f1"])
            if epoch - keep.epoch >= recipe.patience:
                break
        network.model.set_weights(keep.weights)
        return Run(
            seed=seed,
            history=pd.DataFrame(history),
            best_epoch=keep.epoch,
            val_confusion=confusion(task.val.labels, network.probabilities(task.val.features).argmax(axis=1)),
            test=network.probabilities(task.test.features) if score_test else None,
            seconds=time.monotonic() - begin,
        )

    def _network(self, recipe: Recipe) -> Network:
        key = (recipe.cut, recipe.dropout)
        if key not in self._networks:
            self._networks[key] = Network(self._backbone, recipe.cut, recipe.dropout)
        return self._networks[key]


class _Epochs:
    """The training rows of a run, in a new order each epoch."""

    def __init__(self, recipe: Recipe, task: Task, network: Network, seed: int) -> None:
        train = task.train
        self._rng = np.random.default_rng(seed)
        self._rows = recipe.sampling.rows(train.labels, train.copies, seed)
        self._features = train.features
        self._labels = train.labels
        self._one_hot = np.eye(len(CLASSES), dtype=np.float32)
        self._class_weights = recipe.class_weights.weights(task.landmark_counts).astype(np.float32)
        self._values = recipe.loss.tensors(task.landmark_counts)
        self._step = network.step(type(recipe.loss))
        self._batch_size = recipe.batch_size

    def train(self) -> dict[str, float]:
        """Go through all rows once; return the running means of loss and accuracy."""
        import tensorflow as tf

        values = {name: tf.constant(value) for name, value in self._values.items()}
        order = self._rng.permutation(self._rows)
        loss = hits = 0.0
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            labels = self._labels[rows]
            features = tf.constant(self._features.take(rows))
            weights = tf.constant(self._class_weights[labels])
            batch_loss, batch_hits = self._step(features, tf.constant(self._one_hot[labels]), weights, values)
            loss += float(batch_loss)
            hits += float(batch_hits)
        return {"train_loss": loss / len(order), "train_accuracy": hits / len(order)}


class _Best:
    """The best epoch so far and its weights."""

    def __init__(self, recipe: Recipe) -> None:
        self._monitor = recipe.monitor
        self._sign = -1.0 if recipe.monitor == "val_loss" else 1.0
        self._value = -np.inf
        self.epoch = 0
        self.weights: list[NDArray[np.float32]] = []

    def see(self, epoch: int, figures: dict[str, float], network: Network) -> None:
        """Keep this epoch if it is better than all before it."""
        value = self._sign * figures[self._monitor]
        if not np.isfinite(value):
            raise FloatingPointError(f"{self._monitor} became {value} in epoch {epoch}")
        if value > self._value:
            self._value, self.epoch, self.weights = value, epoch, network.model.get_weights()


def _figures(split: str, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, float]:
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return {f"{split}_loss": log_loss(labels, probabilities), f"{split}_accuracy": float(accuracy)}
