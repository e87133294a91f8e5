"""Small pictures of landmarks for a page, where the user's data is at hand: surest mistakes, and the rare classes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.images import decode_image
from hirise_imb.reporting.results import Results

MISTAKES = 24
"""Surest mistakes that are shown."""

OF_CLASS = 8
"""Landmarks of a rare class that are shown."""

SIZE = 96
"""Width and height in pixels."""

_QUALITY = 70


def thumbnails(results: Results, path_of: Callable[[str], Path]) -> dict[str, Any]:
    """What a page shows of the images, as data addresses: `arm`, `mistakes` and `rare`.

    They belong to the strategy that validation prefers, in a comparison the first such, or else to the baseline.
    Probabilities are means over its fits.

    Args:
        results: of the report.
        path_of: tells where the file of an image is.

    Raises:
        UserError: an image is missing or broken.
    """
    arm = next((arm for arm in results.ordered if arm.name in results.preferred), results.arms[0])
    p = np.mean([fit.probabilities for fit in arm.predictions], axis=0)
    return {
        "arm": arm.name,
        "mistakes": [_shown(results, path_of, p, row) for row in _mistakes(results, p)],
        "rare": {
            results.classes[label]: [_shown(results, path_of, p, row) for row in _of_class(results, label)]
            for label in results.classes.rare_ids
            if results.support[label]
        },
    }


def _mistakes(results: Results, p: NDArray[np.floating]) -> list[int]:
    """Rows of the surest mistakes, the surest first."""
    wrong = np.flatnonzero(p.argmax(axis=1) != results.labels)
    surest = np.argsort(-p.max(axis=1)[wrong], kind="stable")[:MISTAKES]
    return [int(row) for row in wrong[surest]]


def _of_class(results: Results, label: int) -> list[int]:
    """Rows of landmarks of a class: the first of each source, then the second of each, and so on."""
    rows = results.test.reset_index(drop=True)[results.labels == label]
    turns = rows.groupby("source").cumcount().sort_values(kind="stable")
    return [int(row) for row in turns.index[:OF_CLASS]]


def _shown(results: Results, path_of: Callable[[str], Path], p: NDArray[np.floating], row: int) -> dict[str, Any]:
    landmark = results.test.iloc[row]
    return {
        "image": landmark["image"],
        "source": landmark["source"],
        "true_class": results.classes[landmark["label"]],
        "predicted_class": results.classes[int(p[row].argmax())],
        "confidence": float(p[row].max()),
        "p_true": float(p[row, landmark["label"]]),
        "address": _address(path_of(landmark["image"])),
    }


def _address(path: Path) -> str:
    from PIL import Image

    small = Image.fromarray(decode_image(path)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        small.save(buffer, "JPEG", quality=_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
