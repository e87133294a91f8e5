"""Thumbnails of landmarks for a page: the most confident mistakes, and landmarks of the rare classes.

They need the images of the data set, which a report does not contain.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import Manifest
from hirise_imb.reporting.results import Results

MISTAKES = 24
"""Number of mistakes that are shown."""

OF_CLASS = 8
"""Number of landmarks that are shown for each rare class."""

SIZE = 96
"""Width and height of a thumbnail in pixels."""

_QUALITY = 70
"""JPEG quality of a thumbnail."""


def make_thumbnails(results: Results, manifest: Manifest) -> dict[str, Any]:
    """Returns thumbnails of landmarks for a page as data addresses, with the keys `arm`, `mistakes` and `rare`.

    The predictions are those of the best arm on validation (in a comparison, of the first such arm), or of the baseline
    if there is none, averaged over fits.

    Args:
        results: results of the report.
        manifest: manifest of the landmarks.

    Raises:
        UserError: an image is missing or broken.
    """
    arm = next((arm for arm in results.ordered if arm.name in results.preferred), results.arms[0])
    p = np.mean([fit.probabilities for fit in arm.predictions], axis=0)
    return {
        "arm": arm.name,
        "mistakes": [_describe(results, manifest, p, row) for row in _most_confident_mistakes(results, p)],
        "rare": {
            results.classes[label]: [
                _describe(results, manifest, p, row) for row in _landmarks_of_class(results, label)
            ]
            for label in results.classes.rare_ids
            if results.support[label]
        },
    }


def _most_confident_mistakes(results: Results, p: NDArray[np.floating]) -> list[int]:
    """Returns the rows of the mistakes with the highest confidence, in descending order."""
    wrong = np.flatnonzero(p.argmax(axis=1) != results.labels)
    most_confident = np.argsort(-p.max(axis=1)[wrong], kind="stable")[:MISTAKES]
    return [int(row) for row in wrong[most_confident]]


def _landmarks_of_class(results: Results, label: int) -> list[int]:
    """Returns rows of landmarks of a class: the first of each source, then the second of each, and so on.

    Landmarks of one source resemble each other, so a mix of sources shows more of the class.
    """
    rows = results.test.reset_index(drop=True)[results.labels == label]
    turns = rows.groupby("source").cumcount().sort_values(kind="stable")
    return [int(row) for row in turns.index[:OF_CLASS]]


def _describe(results: Results, manifest: Manifest, p: NDArray[np.floating], row: int) -> dict[str, Any]:
    landmark = results.test.iloc[row]
    return {
        "image": landmark["image"],
        "source": landmark["source"],
        "true_class": results.classes[landmark["label"]],
        "predicted_class": results.classes[int(p[row].argmax())],
        "confidence": float(p[row].max()),
        "p_true": float(p[row, landmark["label"]]),
        "address": _encode(manifest, landmark["image"]),
    }


def _encode(manifest: Manifest, image: str) -> str:
    """Returns a small JPEG of an image as a data address."""
    from PIL import Image

    # Pillow accepts grey images only without a channel axis.
    pixels = decode_image(manifest.path(image), manifest.spec.image_shape).squeeze()
    small = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        small.save(buffer, "JPEG", quality=_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
