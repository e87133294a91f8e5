"""Topic `extraction`: files to cached features, against the bare network; and its memory."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures
from hirise_imb.data.hirise import HIRISE

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS = {"efficientnet-lite0": "imagenet", "resnet50v2": "random"}
"""Backbone to weights."""


def run(bench: BenchmarkRun) -> Report:
    """Throughput of both backbones, then peak memory over the number of images."""
    counts = {"efficientnet-lite0": bench.size(1024, 64), "resnet50v2": bench.size(256, 32)}
    found: dict[str, list[Figures]] = {}
    rows, targets = [], []
    for name, weights in NETWORKS.items():
        cases: dict[str, Case] = {
            f"{name}, ours": partial(ours, name=name, weights=weights, count=counts[name]),
            f"{name}, bare": partial(bare, name=name, weights=weights, count=counts[name]),
        }
        measured = bench.by_turns(cases)
        speeds, bare_speeds = (values(figures, "speed") for figures in measured.values())
        share = ratios(speeds, bare_speeds)
        first = values(measured[f"{name}, ours"], "first")
        rows.append([name, str(counts[name]), spread(speeds, 1), spread(bare_speeds, 1), spread(share), spread(first)])
        targets.append(Target(f"{name}: throughput in that of the bare network", middle(share), 0.95, least=True))
        found |= measured
    many = bench.by_turns(
        {
            "one representation": partial(representations, layers=0, count=counts["efficientnet-lite0"]),
            "ten representations": partial(representations, layers=3, count=counts["efficientnet-lite0"]),
        }
    )
    one, ten = (values(figures, "seconds") for figures in many.values())
    targets.append(Target("time for ten representations in that for one", middle(ratios(ten, one)), 1.15))
    found |= many
    sizes = [300, 600, 1200] if bench.quick else [4_000, 16_000, 65_000]
    flat = {f"{size:,} images": bench.once(partial(memory, count=size)) for size in sizes}
    peaks = [
        [name, f"{one['seconds']:,.0f}", f"{one['peak_mb']:,.0f}", f"{one['private_mb']:,.0f}"]
        for name, one in flat.items()
    ]
    first_peak, last_peak = (list(flat.values())[place]["peak_mb"] for place in (0, -1))
    targets.append(Target(f"peak memory at {sizes[-1]:,} images in that at {sizes[0]:,}", last_peak / first_peak, 1.25))
    return Report(
        title="Extraction: from files to cached features",
        text="`ours` reads, digests and decodes the files and writes an empty cache; `bare` runs the compiled network "
        "on the same batches, decoded and in memory. Memory is that of a very small network on distinct files; private "
        "memory leaves out mapped files, which the system can drop at any time.",
        tables=[
            Table("Throughput", ["", "images", "ours, images/s", "bare, images/s", "ratio", "first batch, s"], rows),
            Table(
                "Representations, EfficientNet-Lite0",
                ["images", "one, s", "ten, s", "ratio"],
                [[str(counts["efficientnet-lite0"]), spread(one), spread(ten), spread(ratios(ten, one))]],
            ),
            Table("Memory", ["", "s", "peak MB", "private MB"], peaks),
        ],
        targets=targets,
        figures=found | flat,
    )


def ours(name: str, weights: str, count: int, seed: int) -> Figures:  # noqa: ARG001
    """`extract` into an empty cache; its compilation is taken off by a run of one batch."""
    import tempfile
    from pathlib import Path

    from benchmarks.data import landmarks
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.features.extraction import BATCH, extract_features
    from hirise_imb.features.inputs import TOP_MEAN

    paths, _ = landmarks(count + BATCH)
    backbone = BACKBONES[name].load(weights, HIRISE.image_shape)

    def seconds(some: list[Path]) -> float:
        with tempfile.TemporaryDirectory() as cache:
            begin = time.perf_counter()
            extract_features(backbone, [TOP_MEAN], some, Path(cache))
            return time.perf_counter() - begin

    first = seconds(paths[:BATCH])
    one_batch = seconds(paths[:BATCH])
    return {"speed": (len(paths) - BATCH) / (seconds(paths) - one_batch), "first": first}


def bare(name: str, weights: str, count: int, seed: int) -> Figures:  # noqa: ARG001
    """The compiled network on tensors that are there."""
    import numpy as np
    import tensorflow as tf

    from benchmarks.data import landmarks
    from hirise_imb.backbones import BACKBONES, TOP
    from hirise_imb.data.images import decode_image
    from hirise_imb.features.extraction import BATCH

    paths, _ = landmarks(count + BATCH)
    pixels = np.stack([decode_image(path, HIRISE.image_shape) for path in paths])[..., None].astype(np.float32)
    batches = [tf.constant(pixels[start : start + BATCH]) for start in range(0, len(pixels) - BATCH + 1, BATCH)]
    trunk = BACKBONES[name].load(weights, HIRISE.image_shape).trunk(TOP)
    forward = tf.function(lambda batch: trunk(batch, training=False))
    begin = time.perf_counter()
    forward(batches[0]).numpy()
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for batch in batches[1:]:
        forward(batch).numpy()
    return {"speed": BATCH * (len(batches) - 1) / (time.perf_counter() - begin), "first": first}


def representations(layers: int, count: int, seed: int) -> Figures:  # noqa: ARG001
    """The means of the top, and of some layers mean, standard deviation and maximum; compilation is taken off."""
    import tempfile
    from pathlib import Path

    from benchmarks.data import landmarks
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.features.extraction import BATCH, extract_features
    from hirise_imb.features.inputs import PLAIN, Input, feature_keys

    paths, _ = landmarks(count + BATCH)
    backbone = BACKBONES["efficientnet-lite0"].load("imagenet", HIRISE.image_shape)
    names = list(backbone.card.layers)[:layers]
    keys = feature_keys((*PLAIN, *(Input(layer=name, pooling="mean_std_max") for name in names)))

    def seconds(some: list[Path]) -> float:
        with tempfile.TemporaryDirectory() as cache:
            begin = time.perf_counter()
            extract_features(backbone, keys, some, Path(cache))
            return time.perf_counter() - begin

    seconds(paths[:BATCH])
    one_batch = seconds(paths[:BATCH])
    return {"seconds": seconds(paths) - one_batch}


def memory(count: int, seed: int) -> Figures:  # noqa: ARG001
    """`extract` on so many distinct files."""
    import tempfile
    from pathlib import Path

    from benchmarks.networks import small
    from hirise_imb.features.extraction import extract_features
    from hirise_imb.features.inputs import TOP_MEAN

    with tempfile.TemporaryDirectory() as folder:
        files = _copies(Path(folder), count)
        begin = time.perf_counter()
        extract_features(small(64).load("random", HIRISE.image_shape), [TOP_MEAN], files, Path(folder) / "cache")
        return {"seconds": time.perf_counter() - begin}


def _copies(folder: Path, count: int) -> list[Path]:
    """Files with the same pixels as some landmarks, each with a comment segment of its own."""
    from benchmarks.data import landmarks

    images = [path.read_bytes() for path in landmarks(500)[0]]
    files = []
    for number in range(count):
        content, comment = images[number % len(images)], f"{number:08}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        files.append(folder / f"{number}.jpg")
        files[-1].write_bytes(content[:2] + segment + content[2:])
    return files
