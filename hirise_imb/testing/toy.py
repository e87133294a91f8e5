"""A small learning task on which any strategy trains in a second, and a backbone of three layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from hirise_imb.backbones import TOP, Backbone, BackboneCard
from hirise_imb.backbones.base import InputShape
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.splits import DataSplits, Fold, ImageTable
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import MAP, FeatureKey, Input, Pooling, feature_keys
from hirise_imb.features.views import DIHEDRAL, JITTERED, VIEWS
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    import keras

    from hirise_imb.training.trainer import Trainer

WIDTH = 16
"""Number of features of the toy backbone."""
LATE = (12, 12, 12)
"""Shape of its features at the cut `late`, for images of the HiRISE landmarks."""
CUTS = ("late", "early")
"""Its cut points; the one that leaves the fewest weights to train comes first."""
LAYERS = {"late": 12, "middle": 12, "early": 6}
"""Its layers for representations, with their number of channels."""
SIZES = np.array([60, 24, 12, 9, 8, 7, 6, 5])
"""Number of training landmarks of each HiRISE class; validation has half as many, the test split a third."""
VARIANTS = 2
"""Number of images of each landmark in `make_toy`."""


@dataclass(frozen=True)
class ToyClasses:
    """The classes of a toy task."""

    classes: ClassSet
    sizes: tuple[int, ...]
    """Number of training landmarks of each class; validation has half as many, the test split a third."""


EIGHT = ToyClasses(HIRISE.classes, tuple(SIZES.tolist()))
"""The HiRISE landmarks."""
THREE = ToyClasses(ClassSet(("dust", "olivine", "pyroxene"), majority="dust"), (60, 12, 5))
FIFTEEN = ToyClasses(
    ClassSet(tuple(f"terrain {number}" for number in range(1, 16)), majority="terrain 1"),
    (60, 24, 16, 12, 10, 9, 8, 7, 6, *[5] * 6),
)

_SEEDS = {"random": 0, "imagenet": 1}


def build_toy(weights: str, input_shape: InputShape) -> keras.Model:
    """Builds three convolutions with batch normalisation in between; every variable is random, none has its default.

    Raises:
        UserError: the weights are neither `random` nor `imagenet`.
    """
    import keras

    if weights not in _SEEDS:
        raise UserError(f"{weights} does not contain weights of toy.")
    pixels = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = keras.layers.Conv2D(6, 9, strides=9, activation="relu", name="early")(x)
    x = keras.layers.Conv2D(12, 3, strides=2, use_bias=False, name="middle")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu", name="late")(x)
    x = keras.layers.Conv2D(WIDTH, 3, strides=2)(x)
    x = keras.layers.BatchNormalization()(x)
    network = keras.Model(pixels, keras.layers.Activation("relu")(x), name="toy")
    rng = np.random.default_rng(_SEEDS[weights])
    for layer in network.layers:
        drawn = []
        for weight in layer.get_weights():
            fan_in = max(1, int(np.prod(weight.shape[:-1])))
            drawn.append(rng.normal(0, fan_in**-0.5, weight.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            drawn = [rng.uniform(0.5, 1.5, values.shape) for values in drawn]
        layer.set_weights(drawn)
    return network


TOY = BackboneCard(
    name="toy",
    summary="three layers, for tests",
    feature_width=WIDTH,
    cuts={cut: cut for cut in CUTS},
    layers=LAYERS,
    preprocessing="x / 127.5 - 1",
    build=build_toy,
)


@dataclass(frozen=True)
class Toy:
    """A learning task and the features of its images."""

    task: DataSplits
    features: Mapping[FeatureKey, Features]

    def make_trainer(self, backbone: Backbone) -> Trainer:
        """Returns a trainer that has fitted nothing yet."""
        from hirise_imb.training.trainer import Trainer

        return Trainer(backbone, self.task, self.features)

    def move(self, order: np.ndarray) -> Toy:
        """Returns the same task with its images at other positions: image `order[i]` moves to position i."""
        images, positions = self.task.images, np.argsort(order)
        moved = ImageTable(
            names=tuple(images.names[i] for i in order),
            labels=images.labels[order],
            copies=images.copies[order],
            sources=images.sources[order],
            is_canonical=images.is_canonical[order],
            classes=images.classes,
        )

        def follow(fold: Fold) -> Fold:
            return Fold(positions[fold.train], positions[fold.heldout])

        task = replace(
            self.task,
            images=moved,
            split=follow(self.task.split),
            pool=positions[self.task.pool],
            assignments=tuple(tuple(map(follow, folds)) for folds in self.task.assignments),
            test=positions[self.task.test],
        )
        return Toy(task, {key: Features.of(values.take(order)) for key, values in self.features.items()})

    def drop_training_class(self, label: int) -> Toy:
        """Returns the task without training images of a class in the split and in the first fold; two folds remain of
        one assignment."""
        of_class = self.task.images.labels == label

        def drop(fold: Fold) -> Fold:
            return replace(fold, train=fold.train[~of_class[fold.train]])

        first, second = self.task.assignments[0][:2]
        held_out = np.concatenate([first.heldout, second.heldout])
        sources = np.unique(self.task.images.sources[held_out])
        pool = self.task.pool[np.isin(self.task.images.sources[self.task.pool], sources)]
        changed = replace(self.task, split=drop(self.task.split), pool=pool, assignments=((drop(first), second),))
        return replace(self, task=changed)


def make_task(*, variants: int = 1, seed: int = 0, classes: ToyClasses = EIGHT) -> DataSplits:
    """Returns images of unequal classes, those of a split in random order; each split has sources of its own.

    Args:
        variants: images of a landmark; they are adjacent, and the first is the canonical one.
        seed: random seed of the order.
        classes: the classes and their sizes.
    """
    sizes = np.array(classes.sizes)
    rng = np.random.default_rng(seed)
    labels, sources, rows, begin = [], [], {}, 0
    for split, counts, first, observations in (
        ("train", sizes, 0, 12),
        ("val", sizes // 2, 12, 6),
        ("test", sizes // 3, 18, 3),
    ):
        drawn = rng.permutation(np.repeat(np.arange(len(sizes)), counts))
        rank = np.array([np.sum(drawn[:i] == drawn[i]) for i in range(len(drawn))])  # among those of its class
        labels.append(np.repeat(drawn, variants))
        sources.append(np.repeat(first + rank % observations, variants))
        rows[split] = begin + np.arange(len(drawn) * variants)
        begin += len(drawn) * variants
    label, source = np.concatenate(labels), np.concatenate(sources)
    canonical = np.arange(len(label)) % variants == 0
    names = tuple(f"image{i}" for i in range(len(label)))
    images = ImageTable(names, label, np.ones_like(label), source, canonical, classes.classes)
    pool = np.concatenate([rows["train"], rows["val"]])
    val, test = (rows[split][canonical[rows[split]]] for split in ("val", "test"))
    assignments = tuple(
        tuple(Fold(pool[fold_of != k], pool[(fold_of == k) & canonical[pool]]) for k in range(4))
        for fold_of in (source[pool] % 4, source[pool] // 3 % 4)
    )
    return DataSplits(images, Fold(rows["train"], val), pool, assignments, test)


def make_toy(
    backbone: Backbone, noise: float, *, shift: float = 0.0, seed: int = 0, classes: ToyClasses = EIGHT
) -> Toy:
    """Returns a task whose classes are clusters, with `VARIANTS` images of a landmark and features of all views.

    Features at the top are computed from those at `late` by the toy backbone; those of the photometric view are other
    clusters. Symmetries and jitter differ little from the plain view. Those at the top that only serve prediction have
    numbers for canonical images alone: others have NaN, since the package must not look at them.

    Args:
        backbone: backbone loaded by `TOY`.
        noise: standard deviation of features around the class centres, whose standard deviation is 2.
        shift: standard deviation of the offset that all images of a source share.
        seed: random seed of all draws.
        classes: the classes and their sizes.
    """
    task = make_task(variants=VARIANTS, classes=classes)
    rng = np.random.default_rng(seed)
    labels, sources = task.images.labels, task.images.sources

    def draw_clusters(width: int) -> np.ndarray:
        centres = 2 * rng.normal(size=(len(classes.sizes), width))[labels]
        common = rng.normal(size=(sources.max() + 1, width))[sources]
        return np.asarray(centres + shift * common + noise * rng.normal(size=centres.shape), np.float32)

    # Features at that cut come from a rectifier; all pixels are equal, so that pooling loses nothing.
    late = np.broadcast_to(np.maximum(draw_clusters(LATE[-1]), 0)[:, None, None], (len(labels), *LATE)).copy()
    top = np.asarray(backbone.tail("late")(late, training=False))
    features = {
        FeatureKey("plain", "late", MAP): late,
        FeatureKey("plain", TOP, "mean"): top,
        FeatureKey("photometric", TOP, "mean"): draw_clusters(WIDTH),
    }
    for view in DIHEDRAL[1:]:
        turned = top + 0.1 * noise * rng.normal(size=top.shape)
        canonical = np.where(task.images.is_canonical[:, None], turned, np.nan)
        features[FeatureKey(view, TOP, "mean")] = canonical.astype(np.float32)
    for view in (*DIHEDRAL[1:], *JITTERED):
        offsets = 0.1 * noise * rng.normal(size=(len(labels), 1, 1, LATE[-1]))
        features[FeatureKey(view, "late", MAP)] = np.maximum(late + offsets, 0).astype(np.float32)
    for view in JITTERED:
        top = np.asarray(backbone.tail("late")(features[FeatureKey(view, "late", MAP)], training=False))
        features[FeatureKey(view, TOP, "mean")] = top
    if missing := set(VIEWS) - {key.view for key in features if key.layer == TOP}:
        raise ValueError(f"the toy task has no features of the views {', '.join(sorted(missing))}")
    for layer, width in {TOP: WIDTH, **LAYERS}.items():
        for key in feature_keys([Input(layer=layer, pooling=pooling) for pooling in get_args(Pooling)]):
            if key not in features:
                features[key] = draw_clusters(width)
    return Toy(task, {key: Features.of(values) for key, values in features.items()})
