"""Landmark image files: one decoder for everything."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.data.hirise import IMAGE_SIZE
from hirise_imb.utils.errors import UserError, bullet_list
from hirise_imb.utils.progress import track

_SHOWN = 20
"""Broken files named in one message; the rest is counted."""


def decode_image(path: Path) -> NDArray[np.uint8]:
    """The grey values of one landmark image, shape (227, 227).

    Raises:
        UserError: the file is no whole one-channel JPEG of 227 x 227 pixels.
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["JPEG"]) as image:
            # The header is looked at first: a file that claims an absurd size is never decoded.
            if image.size != (IMAGE_SIZE, IMAGE_SIZE) or image.mode != "L":
                raise UserError(
                    f"{path} is a {image.size[0]} x {image.size[1]} image of mode {image.mode}: landmark images are "
                    f"{IMAGE_SIZE} x {IMAGE_SIZE} with one grey channel; import the data again."
                )
            return np.asarray(image)
    # Pillow reports some broken headers as SyntaxError, and has an error of its own for an absurd size.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).split(" <_io")[0]  # Pillow names the buffer, which tells nobody anything
        raise UserError(f"{path} is no whole JPEG image ({reason}): import the data again.") from error


def check_images(paths: Sequence[Path]) -> None:
    """Decode every file.

    Raises:
        UserError: some can't be decoded; one message names them.
    """
    broken = []
    with ThreadPoolExecutor() as pool, track("checking", len(paths), "images") as show:
        for done, fault in enumerate(pool.map(_fault, paths), 1):
            show(done)
            broken += [fault] if fault else []
    if broken:
        raise UserError(f"{len(broken)} of {len(paths)} images can't be used:{bullet_list(broken, _SHOWN)}")


def _fault(path: Path) -> str:
    try:
        decode_image(path)
    except UserError as error:
        return str(error)
    return ""
