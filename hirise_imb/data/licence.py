"""Origin and licence of images, as far as they follow from the name of the data."""

from __future__ import annotations

from hirise_imb.data.registry import DATASETS
from hirise_imb.data.resolve import ARCHIVE, SYNTHETIC


def state_licence(data: str, dataset: str) -> str:
    """Returns sentences about origin and licence of the images that a study names; empty if they are unknown.

    Only the embedded sample and the published archive are known. A folder, a zip or a table may contain other images,
    even in the official layout.

    Args:
        data: `data` of the study.
        dataset: `dataset` of the study, a name of `DATASETS`.
    """
    if data == SYNTHETIC:
        return "Images: synthetic landmarks, drawn by this program. None of them shows Mars."
    if data == ARCHIVE:
        card = DATASETS[dataset]
        return f"Images: {card.citation}. Licence: {card.licence}. Shown at reduced size."
    return ""
