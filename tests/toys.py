"""A learning task that every strategy can be run on in a second: features of all views at two cuts, made of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from worlds import LATE, WIDTH, make_task

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.hirise import CLASSES
from hirise_imb.data.splits import DataSplits, Fold, ImageTable
from hirise_imb.features.arrays import Features
from hirise_imb.features.views import DIHEDRAL, VIEWS
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import STRATEGIES, RecipeContext, Settings, Strategy, complete_settings
from hirise_imb.training.trainer import Trainer

CUTS = ("late", "early")
"""Of the toy backbone, as a context has them."""

VARIANTS = 2
"""Images of a landmark."""

GIVEN: Mapping[str, Settings] = {
    # Four landmarks of the rarest class are left in some folds.
    "synthetic": {"neighbours": 1},
    # The rest saves time.
    "undersampling": {"members": 2},
    "ensemble": {"kind": "heads", "members": 2},
    "ldam_drw": {"reweight_after": 3},
}
FAST: Settings = {"learning_rate": 1e-2}
"""The toy's epochs have few steps."""


def recipe_of(strategy: Strategy, given: Settings | None = None) -> Recipe:
    """The recipe of some settings and defaults; what it starts from has its defaults."""
    settings = complete_settings(strategy.parameters, given or {})
    return strategy.recipe(
        settings, RecipeContext(CUTS, {base: recipe_of(STRATEGIES[base]) for base in strategy.after})
    )


def quick_recipe(strategy: Strategy, given: Settings | None = None) -> Recipe:
    """The same with what suits so few rows; what it starts from likewise.

    Moving averages of batch normalisation take some hundred steps to come near what they average.
    """
    suited = {name: value for name, value in FAST.items() if name in {p.name for p in strategy.parameters}}
    settings = complete_settings(strategy.parameters, {**suited, **GIVEN.get(strategy.name, {}), **(given or {})})
    recipe = strategy.recipe(
        settings, RecipeContext(CUTS, {base: quick_recipe(STRATEGIES[base]) for base in strategy.after})
    )
    return replace(recipe, batch_size=8) if recipe.trained else recipe


@dataclass(frozen=True)
class Toy:
    """A task and the features of its images."""

    task: DataSplits
    features: Mapping[tuple[str, str], Features]
    """By cut and view."""

    def trainer(self, backbone: Backbone) -> Trainer:
        """A fresh one."""
        return Trainer(backbone, self.task, self.features)

    def moved(self, order: np.ndarray) -> Toy:
        """The same images at other places: image `order[i]` comes to place i, and rows name the new places."""
        images, places = self.task.images, np.argsort(order)
        there = ImageTable(
            names=tuple(images.names[i] for i in order),
            labels=images.labels[order],
            copies=images.copies[order],
            sources=images.sources[order],
            is_canonical=images.is_canonical[order],
        )
        task = replace(
            self.task,
            images=there,
            split=_placed(self.task.split, places),
            folds=tuple(_placed(fold, places) for fold in self.task.folds),
            test=places[self.task.test],
        )
        return Toy(task, {key: Features.of(own.take(order)) for key, own in self.features.items()})

    def untaught(self, label: int) -> Toy:
        """No image of a class to learn from in the split and in the first of two folds, but some to predict."""
        of_class = self.task.images.labels == label

        def lacking(fold: Fold) -> Fold:
            return replace(fold, train=fold.train[~of_class[fold.train]])

        folds = (lacking(self.task.folds[0]), self.task.folds[1])
        return replace(self, task=replace(self.task, split=lacking(self.task.split), folds=folds))


def make_toy(backbone: Backbone, noise: float, *, shift: float = 0.0, seed: int = 0) -> Toy:
    """Eight clusters, `VARIANTS` images a landmark.

    Features at the top are what the toy backbone makes of those at `late`; those of the photometric view are clusters
    of their own. Views that only serve prediction differ little from the plain one, and are right for the images that
    stand for a landmark alone: others have NaN, since the package must not look at them.

    Args:
        backbone: the toy one.
        noise: standard deviation around the centres, whose own is 2.
        shift: that of what the images of a source have in common beside it.
        seed: of all draws.
    """
    task = make_task(variants=VARIANTS)
    rng = np.random.default_rng(seed)
    labels, sources = task.images.labels, task.images.sources

    def clusters(width: int) -> np.ndarray:
        centres = 2 * rng.normal(size=(len(CLASSES), width))[labels]
        common = rng.normal(size=(sources.max() + 1, width))[sources]
        return np.asarray(centres + shift * common + noise * rng.normal(size=centres.shape), np.float32)

    # Features there come out of a rectifier; all pixels alike, so that pooling them averages nothing away.
    late = np.broadcast_to(np.maximum(clusters(LATE[-1]), 0)[:, None, None], (len(labels), *LATE)).copy()
    top = np.asarray(backbone.tail("late")(late, training=False))
    features = {("late", "plain"): late, (TOP, "plain"): top, (TOP, "photometric"): clusters(WIDTH)}
    for view in DIHEDRAL[1:]:
        turned = top + 0.1 * noise * rng.normal(size=top.shape)
        features[TOP, view] = np.where(task.images.is_canonical[:, None], turned, np.nan).astype(np.float32)
    assert {view for cut, view in features if cut == TOP} == set(VIEWS)
    return Toy(task, {key: Features.of(values) for key, values in features.items()})


def _placed(fold: Fold, places: np.ndarray) -> Fold:
    return Fold(places[fold.train], places[fold.heldout])
