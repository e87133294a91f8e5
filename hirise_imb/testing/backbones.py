"""Checks of a backbone: cuts, features, frozen weights, digests."""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from hirise_imb.backbones import TOP, Backbone, BackboneCard
from hirise_imb.backbones.base import InputShape
from hirise_imb.data.hirise import HIRISE
from hirise_imb.strategies.representation import MAX_DEPTH
from hirise_imb.testing.checks import Check, expect, run_checks
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    import keras


def backbone_checks(
    card: BackboneCard, weights: str = "random", input_shape: InputShape = HIRISE.image_shape
) -> list[Check]:
    """Returns the checks that a backbone must pass, each with its name; the network is built once, by the first.

    Args:
        card: card of the backbone.
        weights: weights to load; features of random ones may be too unlike real features to be trained on.
        input_shape: shape of one image.
    """
    load = functools.cache(lambda: card.load(weights, input_shape))
    checks = [Check(card.name, "describes_itself", partial(describes_itself, card))]
    checks += [Check(card.name, run.__name__, partial(lambda run: run(load()), run)) for run in _NETWORK_CHECKS]
    for run in (random_weights_are_repeatable, missing_weights_are_refused):
        checks.append(Check(card.name, run.__name__, partial(run, card, input_shape)))
    return checks


def check_backbone(card: BackboneCard, weights: str = "random", input_shape: InputShape = HIRISE.image_shape) -> None:
    """Runs all `backbone_checks`.

    Raises:
        AssertionError: some failed; the message lists them.
    """
    run_checks(backbone_checks(card, weights, input_shape))


def make_images(backbone: Backbone) -> np.ndarray:
    """Returns three images of the backbone's input shape, values 0..255: noise, a ramp, a constant."""
    shape = backbone.input_shape
    noise = np.random.default_rng(5).integers(0, 256, shape)
    ramp = np.broadcast_to(np.linspace(0, 255, shape[0])[:, np.newaxis, np.newaxis], shape)
    return np.stack([noise, ramp, np.full(shape, 90)]).astype(np.float32)


def describes_itself(card: BackboneCard) -> None:
    """Checks that the card has a name, a summary, preprocessing and at least one cut."""
    expect(card.name.strip() and card.summary.strip(), "there is no name or summary")
    expect(card.preprocessing.strip(), "preprocessing, a part of the cache key, is empty")
    expect(card.cuts and TOP not in card.cuts, f"there is no cut, or one is called {TOP}")


def trunk_and_tail_equal_the_network(backbone: Backbone) -> None:
    """Checks that trunk and tail together, at each cut, give the pooled features of the complete network."""
    images = make_images(backbone)
    expected = _run(backbone.trunk(TOP), images)
    expect(expected.shape == (len(images), backbone.card.feature_width), "pooled features have another width")
    expect(np.abs(expected).max() > 0, "all features are 0")
    np.testing.assert_array_equal(_run(backbone.tail(TOP), expected), expected)
    for cut in backbone.card.cuts:
        joined = _run(backbone.tail(cut), _run(backbone.trunk(cut), images))
        # Relative to the largest feature: many features are 0 after a rectifier, and rounding leaves them near it.
        np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def every_path_passes_the_cut(backbone: Backbone) -> None:
    """Checks that each tail has one input: one that reached around its cut would have the pixels as a second input."""
    for cut in backbone.card.cuts:
        tail = backbone.tail(cut)
        expect(len(tail.inputs) == 1, f"the tail at {cut} has more than one input")
        expect(tail.inputs[0].shape == backbone.trunk(cut).output.shape, f"trunk and tail do not meet at {cut}")
        expect(tail.output.shape == (None, backbone.card.feature_width), f"the tail at {cut} has another width")


def cuts_are_ordered(backbone: Backbone) -> None:
    """Checks that each cut leaves more to train than the one before it."""
    counts = [
        sum(int(np.prod(weight.shape)) for weight in backbone.tail(cut).trainable_weights)
        for cut in (TOP, *backbone.card.cuts)
    ]
    expect(counts == sorted(set(counts)), "cuts are not in the order of what they leave to train")


def declared_shapes_are_those_of_the_cuts(backbone: Backbone) -> None:
    """Checks the stride and the channels that the card declares for its cuts."""
    rows, columns, _ = backbone.input_shape
    for cut, (stride, channels) in backbone.card.cut_shapes.items():
        expect(cut in backbone.card.cuts, f"cut_shapes has {cut}, which is not a cut")
        shape = tuple(backbone.trunk(cut).output.shape[1:])
        declared = (-(-rows // stride), -(-columns // stride), channels)
        expect(shape == declared, f"the cut {cut} has the shape {shape}, but cut_shapes declares {declared}")


def layers_are_described(backbone: Backbone) -> None:
    """Checks that there are as many layers as strategies choose from, each with a feature map of these channels."""
    layers = backbone.card.layers
    expect(len(layers) >= MAX_DEPTH, f"there are fewer than {MAX_DEPTH} layers for representations")
    for layer, channels in layers.items():
        shape = backbone.network.get_layer(layer).output.shape
        expect(len(shape) == 4 and shape[-1] == channels, f"{layer} has the shape {shape}, not {channels} channels")


def network_is_frozen(backbone: Backbone) -> None:
    """Checks that nothing of the network itself can be trained."""
    expect(not backbone.network.trainable_weights, "the network has weights that can be trained")


def training_leaves_backbone_and_statistics(backbone: Backbone) -> None:
    """Checks that training a tail changes neither the backbone nor the statistics of batch normalisation."""
    import keras

    cut = next(iter(backbone.card.cuts))
    backbone_weights = backbone.network.get_weights()
    tail = backbone.tail(cut)
    frozen = {weight.path: np.array(weight) for weight in tail.non_trainable_weights}
    initial = [np.array(weight) for weight in tail.trainable_weights]
    model = keras.Sequential([tail, keras.layers.Dense(3)])
    # Lion uses only the signs of gradients: those of random weights can be too small for a step of plain SGD.
    model.compile(keras.optimizers.Lion(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(_run(backbone.trunk(cut), make_images(backbone)), np.arange(3))
    is_frozen = all((np.array(weight) == frozen[weight.path]).all() for weight in tail.non_trainable_weights)
    expect(is_frozen, "a training step changes frozen weights")
    has_trained = any((np.array(w) != old).any() for w, old in zip(tail.trainable_weights, initial, strict=True))
    expect(has_trained, "a training step changes nothing")
    for weight, old in zip(backbone.network.get_weights(), backbone_weights, strict=True):
        np.testing.assert_array_equal(weight, old)


def random_weights_are_repeatable(card: BackboneCard, input_shape: InputShape) -> None:
    """Checks that random weights are the same at each load: otherwise no study on them could be continued."""
    expect(
        len({card.load("random", input_shape).digest for _ in range(2)}) == 1, "random weights differ from load to load"
    )


def missing_weights_are_refused(card: BackboneCard, input_shape: InputShape) -> None:
    """Checks that a file that does not exist gives a message for the user."""
    with TemporaryDirectory() as folder:
        try:
            card.load(str(Path(folder) / "absent.weights.h5"), input_shape)
        except UserError:
            return
    raise AssertionError("a missing weights file is not refused with a UserError")


_NETWORK_CHECKS = (
    trunk_and_tail_equal_the_network,
    every_path_passes_the_cut,
    cuts_are_ordered,
    declared_shapes_are_those_of_the_cuts,
    layers_are_described,
    network_is_frozen,
    training_leaves_backbone_and_statistics,
)


def _run(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return np.asarray(model(batch, training=False))
