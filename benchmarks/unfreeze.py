"""Topic `unfreeze`: training the backbone's end from cached features, against the same from pixels."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures
from hirise_imb.data.hirise import HIRISE

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from hirise_imb.backbones import Backbone
    from hirise_imb.features.arrays import Features

NAME = "efficientnet-lite0"
CUTS = ("head_conv", "block7", "block6d")


def run(bench: BenchmarkRun) -> Report:
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

    def __init__(self, forward: Any, shape: tuple[int, ...], paths: list[Path]) -> None:  # noqa: ANN401
        """Take the compiled frozen layers and the shape of what they give."""
        self.shape = shape
        self._forward = forward
        self._paths = paths

    @classmethod
    def at(cls, backbone: Backbone, cut: str, paths: list[Path]) -> _Pixels:
        """Compile the frozen layers."""
        import tensorflow as tf

        trunk = backbone.trunk(cut)
        forward = tf.function(lambda pixels: trunk(pixels, training=False), reduce_retracing=True)
        return cls(forward, tuple(trunk.output.shape[1:]), paths)

    def __len__(self) -> int:
        return len(self._paths)

    def select(self, positions: NDArray[np.int64]) -> _Pixels:
        """The same for some of the images."""
        return _Pixels(self._forward, self.shape, [self._paths[place] for place in positions])

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode files and run the frozen layers, a batch at a time as `extract` does."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np
        import tensorflow as tf

        from hirise_imb.data.images import decode_image
        from hirise_imb.features.extraction import BATCH

        with ThreadPoolExecutor() as pool:
            decode = partial(decode_image, shape=HIRISE.image_shape)
            pixels = np.stack(list(pool.map(decode, [self._paths[place] for place in positions])))
        starts = range(0, len(pixels), BATCH)
        return np.concatenate([self._forward(tf.constant(pixels[s : s + BATCH], tf.float32)).numpy() for s in starts])


def epoch(cut: str, count: int, cached: bool, seed: int) -> Figures:
    """The second epoch's time: a fit of one epoch compiles, another one is timed."""
    import numpy as np

    from benchmarks.data import landmarks
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.data.splits import DataSplits, Fold, ImageTable
    from hirise_imb.features.extraction import extract_features
    from hirise_imb.features.inputs import MAP, TOP_MEAN, FeatureKey
    from hirise_imb.recipe import Recipe
    from hirise_imb.training.trainer import Trainer
    from hirise_imb.utils.files import cache_root

    paths, labels = landmarks(count + count // 8)
    rows = np.arange(len(paths))
    ones = np.ones_like(rows)
    images = ImageTable(tuple(map(str, paths)), labels, ones, rows, ones > 0, HIRISE.classes)
    task = DataSplits(images, Fold(rows[:count], rows[count:]), rows, (), rows[:0])
    backbone = BACKBONES[NAME].load("imagenet", HIRISE.image_shape)
    at_cut = FeatureKey("plain", cut, MAP)
    features = extract_features(backbone, [TOP_MEAN, at_cut], paths, cache_root() / "benchmarks")
    below = features[at_cut] if cached else cast("Features", _Pixels.at(backbone, cut, paths))
    fit = Trainer(backbone, task, {TOP_MEAN: features[TOP_MEAN], at_cut: below}).fit_reference
    begin = time.perf_counter()
    # Another rate, so that what is timed is trained anew; the head it starts from is the same, and is kept.
    fit(Recipe(cut=cut, max_epochs=1, backbone_learning_rate=2e-5), seed)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    run = fit(Recipe(cut=cut, max_epochs=1), seed)
    return {
        "first": first,
        "seconds": time.perf_counter() - begin,
        "loss": float(run.history["train_loss"].iloc[-1]),
    }
