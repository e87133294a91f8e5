"""Finds cuts and layers for representations in the graph of a convolutional network, whatever its layers are called."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras

N_LAST = 3
"""Number of block ends of the last stage that serve as representations."""


class Articulation(NamedTuple):
    """An operation through whose output every path from the pixels to the last feature map passes."""

    layer: str
    shape: tuple[int, int, int]
    """Rows, columns and channels of the output at the network's input shape."""
    ends_block: bool
    """Whether it is the addition or the concatenation that ends a block, or an activation right after it."""
    n_above: int
    """Number of kernel weights above it; scales and offsets of normalisations are left out."""

    @property
    def size(self) -> int:
        """Number of values of the output."""
        return math.prod(self.shape)


class CutPoints(NamedTuple):
    """What `find_cut_points` finds."""

    cuts: dict[str, Articulation]
    """Articulation at the start of the last block and of the last stage, by name of the cut."""
    layers: tuple[str, ...]
    """Last block ends of the last stage, and the last one of the stage before it; the last one first."""


def find_cut_points(network: keras.Model) -> CutPoints:
    """Finds the cuts `last_block` and `last_stage`, and layers for representations.

    A stage is the part of a network where the feature map has one resolution. Blocks end in the additions or
    concatenations that every path passes, and, for blocks without them, where the feature map is narrowest. In a plain
    chain of layers each layer with a kernel is a block.

    Raises:
        ValueError: fewer than two layers below the top are passed by every path.
    """
    found = _find_articulations(network)
    inner = [each for each in found if each.n_above > 0]
    if not inner:
        raise ValueError(f"No layer of {network.name} below the top is passed by every path.")
    last_resolution = inner[-1].shape[:2]
    ends = [(each, each.shape[:2]) for each in _block_ends(found)]
    if sum(resolution == last_resolution and each.n_above > 0 for each, resolution in ends) < 2:
        ends = _ends_of_chain(found)
    last = [each for each, resolution in ends if resolution == last_resolution]
    before = [each for each, resolution in ends if math.prod(resolution) > math.prod(last_resolution)]
    blocks = [each for each in last if each.n_above > 0]
    # Where paths run around the end of the stage before, training starts as early in the last stage as it can.
    stage = before[-1] if before else blocks.pop(0) if blocks else None
    if not blocks or stage is None:
        raise ValueError(f"Only one layer of {network.name} below the top is passed by every path.")
    top = found[-1].layer
    representations = [each.layer for each in last if each.layer != top][-N_LAST:]
    return CutPoints(
        {"last_block": blocks[-1], "last_stage": stage},
        (*reversed(representations), *(each.layer for each in before[-1:])),
    )


def _find_articulations(network: keras.Model) -> list[Articulation]:
    """Returns the articulations above the first kernel, from the pixels to the top."""
    by_depth = network._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    # An operation is an articulation if the number of paths through it is that of all paths.
    paths_below = {id(network.inputs[0]): 1}
    for node in nodes:
        if node.input_tensors:
            paths_below[id(node.outputs[0])] = sum(paths_below[id(tensor)] for tensor in node.input_tensors)
    paths_above: dict[int, int] = defaultdict(int, {id(network.outputs[0]): 1})
    for node in reversed(nodes):
        for tensor in node.input_tensors:
            paths_above[id(tensor)] += paths_above[id(node.outputs[0])]
    n_paths = paths_below[id(network.outputs[0])]

    n_kernel_weights = [_count_kernel_weights(node.operation) for node in nodes]
    n_above, n_total = sum(n_kernel_weights), sum(n_kernel_weights)
    found: list[Articulation] = []
    follows_end = False
    for node, n_own in zip(nodes, n_kernel_weights, strict=True):
        n_above -= n_own
        output = node.outputs[0]
        if paths_below[id(output)] * paths_above[id(output)] != n_paths:
            continue
        kind = type(node.operation).__name__
        is_merge = len({id(tensor) for tensor in node.input_tensors}) > 1 and kind != "Multiply"
        ends_block = is_merge or (follows_end and kind in ("Activation", "ReLU"))
        if is_merge or not ends_block:
            follows_end = is_merge
        if n_above < n_total:
            rows, columns, channels = output.shape[1:]
            if is_activation_of_last := ends_block and not is_merge:
                # One end for each block: the activation takes the place of the addition.
                found[-1] = found[-1]._replace(ends_block=False)
            follows_end = follows_end and not is_activation_of_last
            found.append(Articulation(node.operation.name, (rows, columns, channels), ends_block, n_above))
    return found


def _count_kernel_weights(operation: keras.Operation) -> int:
    return sum(math.prod(weight.shape) for weight in getattr(operation, "weights", ()) if len(weight.shape) > 1)


def _block_ends(found: list[Articulation]) -> list[Articulation]:
    """Returns the ends of blocks: merges, and the last of each run of outputs smaller than those around it."""
    runs = [list(run) for _, run in groupby(found, key=lambda each: each.size)]
    narrowest = {
        run[-1].layer
        for before, run, after in zip(runs, runs[1:], runs[2:], strict=False)
        if before[0].size > run[0].size < after[0].size
        # A run that has the end of a block needs no other.
        and not any(each.ends_block for each in run)
    }
    return [each for each in found if each.ends_block or each.layer in narrowest]


def _ends_of_chain(found: list[Articulation]) -> list[tuple[Articulation, tuple[int, int]]]:
    """Returns the smallest output below each kernel, with the resolution at which the kernel below it works."""
    ends = []
    for _, group in groupby(found, key=lambda each: each.n_above):
        members = list(group)
        # Of equal sizes the last: it is after the normalisation and the activation.
        ends.append((min(reversed(members), key=lambda each: each.size), members[0].shape[:2]))
    return ends
