"""What bad disks and copies do to files."""

from __future__ import annotations

import random


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
