"""What bad disks and copies do to files."""

from __future__ import annotations

import random


def change_bytes(
    rng: random.Random, content: bytes, favoured: slice, *, share: float = 0.5, longest: int = 20
) -> bytes:
    """Returns bytes of which some are changed, removed or repeated, in up to five places.

    Args:
        rng: where random choices come from.
        content: bytes, at least one.
        favoured: part of the content that more places are in than chance would have.
        share: probability that a place is in that part for this reason.
        longest: largest number of bytes that are removed or repeated in one place.
    """
    changed = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        first, end, _step = favoured.indices(len(changed)) if rng.random() < share else (0, len(changed), 1)
        place = rng.randrange(first, end)
        match rng.randrange(4):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                changed[place] ^= 1 << rng.randrange(8)
            case 2:
                del changed[place : place + rng.randint(1, longest)]
            case 3:
                changed[place:place] = changed[place : place + rng.randint(1, longest)]
    return bytes(changed)


def damage(rng: random.Random, content: bytes) -> bytes:
    """Returns other bytes: a bit flipped, the end missing, bytes added, a block of zeros, or two blocks exchanged."""
    changed = bytearray(content or b"\0")
    size = len(changed)
    block = rng.choice([1, 4, 64, 512, 4096])
    begin, other = rng.randrange(size), rng.randrange(size)
    match rng.choice(["flip", "flip", "flip", "cut", "add", "zero", "exchange", "empty"]):
        case "flip":
            changed[begin] ^= 1 << rng.randrange(8)
        case "cut":
            del changed[begin:]
        case "add":
            changed[begin:begin] = rng.randbytes(block)
        case "zero":
            changed[begin : begin + block] = bytes(len(changed[begin : begin + block]))
        case "exchange":
            changed[begin : begin + block], changed[other : other + block] = (
                changed[other : other + block],
                changed[begin : begin + block],
            )
        case "empty":
            changed.clear()
    return bytes(changed)
