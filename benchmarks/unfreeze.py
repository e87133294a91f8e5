"""Topic `unfreeze`: training the backbone's end from cached features, against the same from pixels."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, cast

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import Bench, Case, Figures

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from hirise_imb.backbones import Backbone
    from hirise_imb.features import Features

NAME = "efficientnet-lite0"
CUTS = ("head_conv", "block7", "block6d")


def run(bench: Bench) -> Report:
    """One epoch from each cut, by turns with one from pixels."""
    count = bench.size(384, 64)
    found: dict[str, list[Figures]] = {}
    rows, targets = [], []
    for cut in CUTS:
        cases: dict[str, Case] = {
            f"{cut}, {way}": partial(epoch, cut=cut, count=count, cached=way == "cached")
            for way in ("cached", "pixels")
        }
        measured = bench.by_turns(cases)
        cached, pixels = (values(figures, "seconds") for figures in measured.values())
        losses = [middle(values(figures, "loss")) for figures in measured.values()]
        factor = ratios(pixels, cached)
        rows.append([cut, spread(cached), spread(pixels), spread(factor, 1), *(f"{loss:.4f}" for loss in losses)])
        targets.append(Target(f"time from pixels in that from the cache, {cut}", middle(factor), 3, " x", least=True))
        targets.append(
            Target(f"training losses differ, {cut}, by", 100 * abs(losses[1] / losses[0] - 1), 1, " %", digits=3)
        )
        found |= measured
    return Report(
        title="Partial unfreezing: an epoch from the cached cut",
        text=f"{count} training images, an eighth as many for validation, {NAME}. From pixels, each step decodes its "
        "images and runs the frozen layers, then the same trained end; the losses show that both learn the same.",
        tables=[
            Table(
                "",
                ["cut", "cached, s an epoch", "pixels, s an epoch", "ratio", "loss, cached", "loss, pixels"],
                rows,
            )
        ],
        targets=targets,
        figures=found,
    )


class _Pixels:
    """In place of stored features: computed from the files each time they are asked for."""

    def __init__(self, backbone: Backbone, cut: str, paths: list[Path]) -> None:
        """Compile the frozen layers."""
        import tensorflow as tf

        trunk = backbone.trunk(cut)
        self.shape = tuple(trunk.output.shape[1:])
        self._forward = tf.function(lambda pixels: trunk(pixels, training=False), reduce_retracing=True)
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode files and run the frozen layers, a batch at a time as `extract` does."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np
        import tensorflow as tf

        from hirise_imb.features import BATCH
        from hirise_imb.images import decode

        with ThreadPoolExecutor() as pool:
            pixels = np.stack(list(pool.map(decode, [self._paths[place] for place in positions])))[..., None]
        starts = range(0, len(pixels), BATCH)
        return np.concatenate([self._forward(tf.constant(pixels[s : s + BATCH], tf.float32)).numpy() for s in starts])


def epoch(cut: str, count: int, cached: bool, seed: int) -> Figures:
    """The second epoch's time: a fit of one epoch compiles, another one is timed."""
    import numpy as np

    from benchmarks.data import landmarks
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.features import extract
    from hirise_imb.files import cache_root
    from hirise_imb.recipe import Recipe
    from hirise_imb.training import Examples, Task, Trainer

    paths, labels = landmarks(count + count // 8)
    backbone = BACKBONES[NAME].load("imagenet")

    def examples(part: slice) -> Examples:
        features = (
            extract(backbone, [cut], paths[part], cache_root() / "benchmarks")[cut]
            if cached
            else cast("Features", _Pixels(backbone, cut, paths[part]))
        )
        return Examples(tuple(map(str, paths[part])), features, labels[part], np.ones(len(labels[part]), np.int64))

    train, val = examples(slice(0, count)), examples(slice(count, None))
    counts = np.maximum(1, np.bincount(train.labels, minlength=8))
    fit = Trainer(backbone, {cut: Task(train, val, val, counts)}).fit
    recipe = Recipe(cut=cut, max_epochs=1)
    begin = time.perf_counter()
    fit(recipe, seed)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    run = fit(recipe, seed)
    return {
        "first": first,
        "seconds": time.perf_counter() - begin,
        "loss": float(run.history["train_loss"].iloc[0]),
    }
