"""Images that are not what they seem: each is refused by name, or decoded to the pixels that it contains."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from layouts import ROCKS, draw, write_csv
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import FORMATS, UnusableImage, check_images, decode_content, decode_image, read_formats
from hirise_imb.data.load import load_data
from torture.attacks import Area, Attempt, Outcome, attack
from torture.damage import change_bytes
from torture.refusals import read_or_refuse

Pixels = NDArray[np.uint8]

_SHAPE = (64, 64, 3)


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, form, **options)
        return buffer.getvalue()


def _draw(rng: random.Random, size: tuple[int, int] = _SHAPE[:2]) -> Image.Image:
    return Image.fromarray(np.frombuffer(rng.randbytes(3 * size[0] * size[1]), np.uint8).reshape(*size, 3))


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Returns a PNG with these chunks."""
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _claim(rng: random.Random) -> bytes:
    """Returns a PNG that claims an absurd size, or whose metadata unpack to one."""
    side = rng.choice([0, 3000, 13_000, 100_000, 2**31 - 1])
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = zlib.compress(bytes(1 << 23))
    extra = rng.choice([[], [(b"zTXt", b"comment\0\0" + bomb)], [(b"iCCP", b"profile\0\0" + bomb)]])
    if extra:
        header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return _png([(b"IHDR", header), *extra, (b"IDAT", bomb), (b"IEND", b"")])


_REFUSED: dict[str, Callable[[random.Random], bytes]] = {
    "empty": lambda rng: b"",
    "sparse": lambda rng: b"",
    "text": lambda rng: b"<html><script>alert(1)</script></html>",
    "GIF": lambda rng: _encode(_draw(rng), "GIF"),
    "animated GIF": lambda rng: _encode(_draw(rng), "GIF", save_all=True, append_images=[_draw(rng)] * 3),
    "TIFF": lambda rng: _encode(_draw(rng), "TIFF"),
    "WebP": lambda rng: _encode(_draw(rng), "WEBP"),
    "16 bits": lambda rng: _encode(Image.fromarray(np.full(_SHAPE[:2], 40_000, np.uint16)), "PNG"),
    "CMYK": lambda rng: _encode(_draw(rng).convert("CMYK"), "JPEG"),
    "palette": lambda rng: _encode(_draw(rng).convert("P"), "PNG"),
    "1 bit": lambda rng: _encode(_draw(rng).convert("1"), "PNG"),
    "grey": lambda rng: _encode(_draw(rng).convert("L"), "JPEG"),
    "alpha": lambda rng: _encode(_draw(rng).convert(rng.choice(["RGBA", "LA"])), "PNG"),
    "other size": lambda rng: _encode(_draw(rng, rng.choice([(1, 1), (63, 64), (64, 65), (640, 640)])), "PNG"),
    "truncated": lambda rng: (content := _encode(_draw(rng), rng.choice(FORMATS)))[
        : rng.randrange(len(content) * 9 // 10)
    ],
    "absurd size": _claim,
    "header": lambda rng: _encode(_draw(rng), rng.choice(FORMATS))[: rng.randrange(2, 64)] + rng.randbytes(500),
}
_ACCEPTED: dict[str, Callable[[random.Random], tuple[Image.Image, bytes]]] = {
    "animated PNG": lambda rng: (
        (image := _draw(rng)),
        _encode(image, "PNG", save_all=True, append_images=[_draw(rng)] * 2),
    ),
    "rotated by EXIF": lambda rng: (
        (image := _draw(rng)),
        _encode(image, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    ),
    "trailing bytes": lambda rng: ((image := _draw(rng)), _encode(image, "PNG") + rng.randbytes(100)),
    "transparent colour": lambda rng: ((image := _draw(rng)), _encode(image, "PNG", transparency=(1, 2, 3))),
}


@attack(
    Area.DATA,
    "Image that is empty, truncated, animated, CMYK, 16-bit, transparent, of another format or size, or claims to be "
    "huge",
    tries=150,
)
def odd_image(attempt: Attempt) -> Outcome:
    rng = attempt.random
    pictures = draw(ROCKS, (2, 3, 2), colour=True, suffix=".jpg", n_sources=2)
    table = write_csv(attempt.folder, pictures, ROCKS)
    files = sorted((attempt.folder / "images").iterdir())
    victims = files if rng.random() < 0.1 else [rng.choice(files)]
    kind = rng.choice([*_REFUSED, *_ACCEPTED])
    expected = None
    if kind in _REFUSED:
        content = _REFUSED[kind](rng)
    else:
        image, content = _ACCEPTED[kind](rng)
        expected = np.asarray(image)
    for file in victims:  # the suffix .jpg is wrong for most
        file.write_bytes(content)
        if kind == "sparse":
            os.truncate(file, 1 << 40)

    def read() -> list[Pixels]:
        manifest = load_data(str(table), HIRISE)
        paths = [manifest.path(name) for name in manifest.table["image"]]
        check_images(paths, manifest.spec.image_shape)
        return [decode_image(path, manifest.spec.image_shape) for path in paths]

    # A data set of nothing but grey images, or images of another size, is one.
    pixels = read_or_refuse(read, *([victims[0].name] if expected is None and len(victims) == 1 else []))
    if pixels is None:
        assert expected is None, f"{kind} was refused"
        return Outcome.REFUSED
    if expected is None:
        assert len(victims) > 1, f"{kind} was accepted"
        assert kind in ("grey", "other size"), f"{kind} was accepted"
        expected = np.asarray(Image.open(io.BytesIO(content))).reshape(pixels[0].shape)
    assert sum(np.array_equal(found, expected) for found in pixels) == len(victims), kind
    return Outcome.CORRECT


@attack(Area.DATA, "Bytes of a JPEG or PNG changed, removed or repeated at random", tries=400)
def image_bytes_changed(attempt: Attempt) -> Outcome:
    rng = attempt.random
    content = _encode(_draw(rng), rng.choice(FORMATS), quality=rng.randint(10, 95))
    # Mostly in the header, where what is changed has a meaning.
    content = change_bytes(rng, content, slice(0, 700), share=0.7, longest=30)
    path = attempt.folder / "image.jpg"
    path.write_bytes(content)
    read_formats([path])
    pixels = read_or_refuse(lambda: decode_image(path, _SHAPE), "image.jpg")
    if pixels is None:
        with pytest.raises(UnusableImage):
            decode_content(bytes(content), _SHAPE)
        return Outcome.REFUSED
    # A JPEG has no checksum: what it decodes to is all that can be known of it.
    with Image.open(path) as image:
        assert np.array_equal(pixels, np.asarray(image))
    return Outcome.CORRECT
