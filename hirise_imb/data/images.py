"""Decodes landmark images: one decoder for features, checks and thumbnails; and encodes them for pages."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.utils.errors import UserError, bullet_list
from hirise_imb.utils.files import check_regular_file
from hirise_imb.utils.progress import track

_MAX_SHOWN = 20
"""Number of broken files that one message names; the others are counted."""

FORMATS = ("JPEG", "PNG")
"""Formats that are decoded; the name of a file does not matter."""

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes of image files, in lower case."""

MAX_BYTES = 64 << 20
"""Largest size of an image file; an official image has about 14 kB."""

MAX_SIDE = 2048
"""Largest width and height of images; a batch of larger ones does not fit into the memory of most machines."""

_QUALITY = 80
"""JPEG quality of images on pages."""

_MODES = {1: ("L", "one grey channel"), 3: ("RGB", "three colour channels")}
"""Pillow's mode and a description, by number of channels."""


class UnusableImage(Exception):
    """An image can't be used; the message is the end of a sentence that begins with the image, such as `is empty`."""


def decode_content(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decodes the content of an image file to an array of this shape: rows, columns, and 1 (grey) or 3 (RGB) channels.

    Raises:
        UnusableImage: the content is not a complete JPEG or PNG image of this size and number of channels.
    """
    rows, columns, channels = shape
    mode, description = _MODES[channels]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # The header is checked first: a file that claims an absurd size is never decoded.
            if image.size == (columns, rows) and image.mode == mode:
                return np.asarray(image).reshape(shape)
            declared = f"{image.size[0]} x {image.size[1]} image of mode {image.mode}"
    # Pillow's readers of damaged files raise errors of many kinds: SyntaxError, ValueError, struct.error and others.
    except Exception as error:
        reason = str(error).split(" <_io")[0]  # without the name of the buffer
        raise UnusableImage(f"is not a complete JPEG or PNG image ({reason})") from error
    raise UnusableImage(f"is a {declared}, but landmark images are {columns} x {rows} with {description}")


def decode_image(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decodes one landmark image; `shape` as in `decode_content`.

    Raises:
        UserError: the file can't be read, or is not a complete JPEG or PNG of this size and number of channels.
    """
    check_regular_file(path)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UnusableImage(f"has {size:,} bytes, over the limit of {MAX_BYTES:,}")
        return decode_content(path.read_bytes(), shape)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}): import the data again.") from error
    except UnusableImage as error:
        raise UserError(f"{path} {error}: import the data again.") from error


def encode_data_url(pixels: NDArray[np.uint8], size: int) -> str:
    """Returns an image as a `data:` URL of a JPEG.

    Args:
        pixels: image, shape (rows, columns, channels).
        size: largest width and height; a larger image is reduced, a smaller one stays as it is.
    """
    # Pillow accepts grey images only without a channel axis.
    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        image.save(buffer, "JPEG", quality=_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Format:
    """Size and colours of an image, as its header declares them."""

    width: int
    height: int
    mode: str
    """Pillow's mode, such as `L` (grey) or `RGB`."""

    def __str__(self) -> str:
        """Returns the format in words, such as `64 x 64 pixels of mode RGB`."""
        return f"{self.width} x {self.height} pixels of mode {self.mode}"

    @property
    def channels(self) -> int | None:
        """Number of channels, or None if images of this mode can't be used."""
        return next((channels for channels, (mode, _) in _MODES.items() if mode == self.mode), None)


def read_formats(paths: Sequence[Path]) -> list[Format | None]:
    """Reads the headers of image files; None for a file that is neither a JPEG nor a PNG."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_read_format, paths))


def _read_format(path: Path) -> Format | None:
    check_regular_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            return Format(*image.size, image.mode)
    except Exception:  # of any kind, as above
        return None


def check_images(paths: Sequence[Path], shape: tuple[int, int, int]) -> list[str]:
    """Checks that every file can be decoded; returns the SHA-256 of the pixels of each. `shape` as in `decode_image`.

    Raises:
        UserError: some files can't be decoded; one message names all of them.
    """
    digests, broken = [], []
    with ThreadPoolExecutor() as pool, track("checking", len(paths), "images") as show:
        for done, (digest, fault) in enumerate(pool.map(partial(_check_image, shape=shape), paths), 1):
            show(done)
            digests.append(digest)
            broken += [fault] if fault else []
    if broken:
        raise UserError(f"{len(broken)} of {len(paths)} images can't be used:{bullet_list(broken, _MAX_SHOWN)}")
    return digests


def _check_image(path: Path, shape: tuple[int, int, int]) -> tuple[str, str]:
    """Returns the digest of the pixels, and what is wrong with the file; one of them is empty."""
    try:
        return hashlib.sha256(np.ascontiguousarray(decode_image(path, shape)).data).hexdigest(), ""
    except UserError as error:
        return "", str(error)
