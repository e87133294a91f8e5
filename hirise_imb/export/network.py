"""A saved model as one Keras network, from pixels to calibrated probabilities.

The network consists of layers and operations of Keras alone, without classes or functions of this package, so that it
can be loaded where the package is not installed, and in Keras' safe mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.export.pixel_views import transform_pixels
from hirise_imb.features.extraction import GEM_FLOOR
from hirise_imb.features.inputs import GEM_EXPONENT, MAP, FeatureKey, FeatureSpec
from hirise_imb.models.linear import MIN_SQUARED_LENGTH, LinearClassifier
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.training.fitted import FittedHead, FittedModel
from hirise_imb.training.tail_network import build_tail

if TYPE_CHECKING:
    from keras import KerasTensor, Model

Floats = NDArray[np.float64]


def build_network(model: SavedModel, backbone: Backbone) -> Model:
    """Builds the network of a model.

    It maps pixels, float32 in 0..255 of shape (n, rows, columns, channels), to calibrated probabilities, float32 of
    shape (n, n_classes).

    Args:
        model: saved model.
        backbone: backbone with the weights that the model was trained on.

    Raises:
        UserError: the model has a view that predictions do not use.
    """
    import keras
    from keras import ops

    spec = model.features
    pixels = keras.Input(model.image_shape, name="pixels")
    features = _extract_features(backbone, spec.keys, pixels)
    heads = None
    by_view = []
    for view in spec.views:
        parts = [features[key] for key in spec.keys_of(view)]
        joined = ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        heads = heads or _build_heads(model.fits, backbone, spec, joined.shape[1:])
        by_view.append(heads(joined))
    log_probabilities = ops.mean(ops.stack(by_view), axis=0) if len(by_view) > 1 else by_view[0]
    weights, offsets = _average_heads(model.fits)
    logits = ops.matmul(weights.astype(np.float32), log_probabilities) + offsets.astype(np.float32)
    return keras.Model(pixels, ops.mean(ops.softmax(logits), axis=1), name="model")


def _extract_features(
    backbone: Backbone, keys: Sequence[FeatureKey], pixels: KerasTensor
) -> Mapping[FeatureKey, KerasTensor]:
    """Returns the symbolic features of each key."""
    import keras

    outputs = {f"{key.layer}.{key.statistic}": _compute_features(backbone, key) for key in keys}
    # A single trunk for all views: weights that several nested models share are lost when a network is saved.
    trunk = keras.Model(backbone.network.input, outputs, name="trunk")
    by_view = {view: trunk(transform_pixels(pixels, view)) for view in dict.fromkeys(key.view for key in keys)}
    return {key: by_view[key.view][f"{key.layer}.{key.statistic}"] for key in keys}


def _compute_features(backbone: Backbone, key: FeatureKey) -> KerasTensor:
    """Returns the symbolic features of a key in the backbone, as `features.extraction` computes them."""
    from keras import ops

    if key.is_trunk_output:
        output = backbone.trunk(key.layer).output
        return _round_to_float16(output) if key.statistic == MAP else output
    feature_map = backbone.network.output if key.layer == TOP else backbone.network.get_layer(key.layer).output
    match key.statistic:
        case "mean":
            return ops.mean(feature_map, axis=(1, 2))
        case "std":
            return ops.std(feature_map, axis=(1, 2))
        case "max":
            return ops.max(feature_map, axis=(1, 2))
        case "gem":
            powers = ops.maximum(feature_map, GEM_FLOOR) ** GEM_EXPONENT
            return ops.mean(powers, axis=(1, 2)) ** (1 / GEM_EXPONENT)
    raise ValueError(f"there is no statistic {key.statistic!r}")


def _round_to_float16(x: KerasTensor) -> KerasTensor:
    """Returns float32 numbers rounded to the 11 significant bits of float16, as feature maps are when they are cached.

    This is the splitting of Dekker (1971), in float32. ONNX and OpenVINO leave out a conversion to float16 and back.
    """
    shifted = x * (2.0**13 + 1)
    return shifted - (shifted - x)


def _build_heads(fits: Sequence[FittedModel], backbone: Backbone, spec: FeatureSpec, shape: tuple[int, ...]) -> Model:
    """Builds the network from the features of one view to the log probabilities of each head.

    Args:
        fits: fits of the model.
        backbone: backbone of the model.
        spec: features of the model.
        shape: shape of one image's features.

    Returns:
        A network whose output has the shape (n, n_heads, n_classes), with heads in the order of `_heads_of`.
    """
    import keras
    from keras import ops

    features = keras.Input(shape, name="features")
    logits = []
    for number, head in enumerate(head for fit in fits for head in _heads_of(fit)):
        pooled = features
        if head.tail is not None:
            tail = build_tail(backbone, spec.cut, spec.trainable)
            for variable, values in zip(tail.trainable_variables, head.tail, strict=True):
                variable.assign(values)
            tail.trainable = False
            tail.name = f"tail_{number}"
            pooled = tail(features)
        logits.append(_compute_logits(head.classifier, pooled))
    return keras.Model(features, ops.log_softmax(ops.stack(logits, axis=1)), name="heads")


def _heads_of(fit: FittedModel) -> list[FittedHead]:
    """Returns the heads of a fit by kind and member."""
    return [head for kind in fit.heads for head in kind]


def _compute_logits(classifier: LinearClassifier, features: KerasTensor) -> KerasTensor:
    """Returns the symbolic logits of a classifier, shape (n, n_classes)."""
    from keras import ops

    preparation, kernel, bias = classifier.preparation, classifier.kernel, classifier.bias
    standardisation, directions = preparation.standardisation, preparation.directions
    if not classifier.unit:
        # An affine map, computed in float64. A centre is subtracted first, since differences between large features
        # would be lost in float32; it may be any vector, and the bias is the map of that vector.
        centre = (standardisation or classifier).centre.astype(np.float32)
        kernel = preparation.project(kernel * classifier.gain)
        if standardisation is not None:
            kernel = kernel * standardisation.gain
        return _multiply(_scale(features, centre), kernel, classifier.logits(centre[None])[0])
    x = features
    if standardisation is not None:
        x = _scale(x, standardisation.centre, standardisation.gain)
    if directions is not None:
        x = x - _multiply(_multiply(x, directions.T), directions)
    x = _scale(x, classifier.centre, classifier.gain)
    x = x / ops.sqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), MIN_SQUARED_LENGTH))
    return _multiply(x, kernel, bias)


def _scale(x: KerasTensor, centre: NDArray[np.floating], gain: Floats | None = None) -> KerasTensor:
    """Returns (x - centre) * gain, shape (n, width)."""
    import keras

    x = keras.layers.Rescaling(1.0, offset=-centre.astype(np.float32))(x)
    return x if gain is None else keras.layers.Rescaling(gain.astype(np.float32))(x)


def _multiply(x: KerasTensor, kernel: Floats, bias: Floats | None = None) -> KerasTensor:
    """Returns x kernel^T + bias.

    Args:
        x: shape (n, width).
        kernel: shape (n_outputs, width).
        bias: shape (n_outputs,).
    """
    import keras

    layer = keras.layers.Dense(len(kernel), use_bias=bias is not None)
    output = layer(x)
    layer.set_weights([kernel.T] if bias is None else [kernel.T, bias])
    return output


def _average_heads(fits: Sequence[FittedModel]) -> tuple[Floats, Floats]:
    """Returns the affine map from the log probabilities of all heads to the calibrated logits of each fit.

    Log probabilities need not be normalised again between averages, since softmax ignores a sum over classes.

    Returns:
        Weights, shape (n_fits, n_heads), and offsets, shape (n_fits, n_classes).
    """
    n_heads = [len(_heads_of(fit)) for fit in fits]
    weights = np.zeros((len(fits), sum(n_heads)))
    column = 0
    for row, (fit, count) in enumerate(zip(fits, n_heads, strict=True)):
        for kind, temperature in zip(fit.heads, fit.temperatures, strict=True):
            weight = fit.correction.scale / (fit.temperature * temperature * count)
            weights[row, column : (column := column + len(kind))] = weight
    return weights, np.stack([fit.correction.offsets / fit.temperature for fit in fits])
