"""Saved models with random weights, of every kind that prediction knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from saved_models import DIGEST, describe_model

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.features.arrays import Features
from hirise_imb.features.extraction import Trunk
from hirise_imb.features.inputs import PLAIN, FeatureSpec, Input
from hirise_imb.features.views import DIHEDRAL, VIEWS
from hirise_imb.imbalance.logit_adjustment import Correction
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation, Standardisation
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.training.fitted import FittedHead, FittedModel
from hirise_imb.training.tail_network import Network, build_tail

N_CLASSES = len(HIRISE.classes)


Arrays = NDArray[np.float32]
ModelMaker = Callable[[Backbone], SavedModel]


def make_spec(inputs: tuple[Input, ...] = PLAIN, views: tuple[str, ...] = ("plain",), cut: str = TOP) -> FeatureSpec:
    return FeatureSpec(inputs, views, cut, "all")


def make_head(
    features: Arrays,
    rng: Generator,
    *,
    unit: bool = False,
    standardised: bool = False,
    rank: int = 0,
    tail: tuple[Arrays, ...] | None = None,
) -> FittedHead:
    """Returns a random head whose logits spread over some units on these features."""
    width = features.shape[1]
    spread = features.std(axis=0, dtype=np.float64)
    standardisation = directions = None
    if standardised:
        standardisation = Standardisation.of(features + 0.1 * spread * rng.normal(size=features.shape))
    if rank:
        directions = np.linalg.qr(rng.normal(size=(width, rank)))[0]
    preparation = Preparation(standardisation, directions)
    rows = preparation.apply(features.astype(np.float64))
    gain = 1 / np.maximum(rows.std(axis=0), 1e-3 * max(rows.std(), 1e-9))
    classifier = LinearClassifier(
        kernel=rng.normal(size=(N_CLASSES, width)) * (6 if unit else 3 / np.sqrt(width)),
        bias=rng.normal(size=N_CLASSES),
        centre=rows.mean(axis=0) + 0.1 * rows.std(axis=0),
        gain=gain * rng.uniform(0.5, 1.5, width),
        unit=unit,
        preparation=preparation,
    )
    return FittedHead(classifier, cast("Any", tail))


def make_fit(
    heads: tuple[tuple[FittedHead, ...], ...],
    *,
    temperatures: tuple[float, ...] = (1.0,),
    scale: float = 1.0,
    offsets: NDArray[np.float64] | None = None,
    temperature: float = 1.0,
) -> FittedModel:
    offsets = np.zeros(N_CLASSES) if offsets is None else offsets
    return FittedModel(heads, temperatures, Correction(scale, offsets), temperature)


def make_tail(backbone: Backbone, cut: str, rng: Generator) -> tuple[Arrays, ...]:
    """Returns weights of the tail after some training, so to speak."""
    weights = [np.asarray(variable) for variable in build_tail(backbone, cut, "all").trainable_variables]
    return tuple((w + 0.1 * w.std() * rng.normal(size=w.shape)).astype(np.float32) for w in weights)


def make_model(backbone: Backbone, spec: FeatureSpec, *fits: FittedModel) -> SavedModel:
    return SavedModel(describe_model(backbone, spec, range(len(fits))), fits, DIGEST)


def compute_features(backbone: Backbone, spec: FeatureSpec) -> Arrays:
    """Computes the features of some landmarks in the first view, shape (n, ...)."""
    pixels = draw_originals(16, seed=1)[..., None]
    parts = []
    for key in spec.keys_of(spec.views[0]):
        viewed = np.stack([VIEWS[key.view](image) for image in pixels]).astype(np.float32)
        parts.append(np.asarray(Trunk(backbone, [key]).compile()(viewed)[key]))
    return np.concatenate(parts, axis=-1)


def _pooled_model(spec: FeatureSpec, make_head: Callable[..., FittedHead] = make_head) -> ModelMaker:
    """Returns a maker of models with two fits of one head, both fitted to the same features."""

    def make(backbone: Backbone) -> SavedModel:
        rng, features = default_rng(0), compute_features(backbone, spec)
        return make_model(backbone, spec, *(make_fit(((make_head(features, rng),),)) for _ in range(2)))

    return make


def _tail_model(spec: FeatureSpec, make_head: Callable[..., FittedHead] = make_head) -> ModelMaker:
    """Returns a maker of models with two fits of two members, each with a tail of its own."""

    def make(backbone: Backbone) -> SavedModel:
        rng, maps = default_rng(0), Features.of(compute_features(backbone, spec))
        network = Network(backbone, spec.cut, "all")

        def make_member() -> FittedHead:
            tail = make_tail(backbone, spec.cut, rng)
            return make_head(network.pooled(tail, maps), rng, tail=tail)

        return make_model(backbone, spec, *(make_fit(((make_member(), make_member()),)) for _ in range(2)))

    return make


def _several_kinds(backbone: Backbone) -> SavedModel:
    """Makes a model with an ensemble of three members and two other kinds of heads, adjusted and calibrated."""
    spec = make_spec(views=("plain", "fh"))
    rng, features = default_rng(0), compute_features(backbone, spec)

    def make() -> FittedModel:
        members = tuple(make_head(features, rng) for _ in range(3))
        others = (make_head(features, rng, unit=True),), (make_head(features, rng, standardised=True),)
        return make_fit(
            (members, *others),
            temperatures=(1.5, 0.7, 2.5),
            scale=1.3,
            offsets=rng.normal(size=N_CLASSES),
            temperature=float(rng.uniform(1.5, 2)),
        )

    return make_model(backbone, spec, make(), make())


_STATISTICS = (Input(), Input(layer="middle", pooling="mean_std_max"), Input(layer="early", pooling="gem"))
_PHOTOMETRIC = (Input(), Input(view="photometric"), Input(view="photometric", layer="early", pooling="mean_std"))

KINDS: Mapping[str, ModelMaker] = {
    "linear": _pooled_model(make_spec()),
    "cosine": _pooled_model(make_spec(), partial(make_head, unit=True)),
    "statistics": _pooled_model(make_spec(_STATISTICS), partial(make_head, standardised=True)),
    "statistics_cosine": _pooled_model(make_spec(_STATISTICS), partial(make_head, standardised=True, unit=True)),
    "projection": _pooled_model(make_spec(_STATISTICS), partial(make_head, standardised=True, rank=3)),
    "projection_cosine": _pooled_model(make_spec(), partial(make_head, rank=3, unit=True)),
    "symmetries": _pooled_model(make_spec(views=DIHEDRAL)),
    "photometric": _pooled_model(make_spec(_PHOTOMETRIC), partial(make_head, standardised=True)),
    "several_kinds": _several_kinds,
    "tail": _tail_model(make_spec(cut="late")),
    "long_tail_cosine": _tail_model(make_spec(cut="early"), partial(make_head, unit=True)),
    "tail_symmetries": _tail_model(make_spec(views=("plain", "r90", "fv"), cut="late")),
}
"""Makers of models for the toy backbone."""
