"""Topic `reports`: resampling sources from their counts, and writing the report of a full comparison."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures
from hirise_imb.data import HIRISE, SPLITS
from hirise_imb.metrics.classification import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hirise_imb.reporting import Arm, Results

CLASSES = HIRISE.classes.names
ARMS, SEEDS = 22, 5
SOURCES = 29
OF_CLASS = (25, 17, 4, 5, 1, 5, 1, 1)
"""Sources of each class in the official test split."""


def run(bench: BenchmarkRun) -> Report:
    """Time resamples ours and by scikit-learn, and a whole report."""
    draws, few = bench.size(10_000, 1_000), bench.size(200, 20)
    cases: dict[str, Case] = {
        "bootstrap, from counts": partial(bootstrap, draws=draws),
        "bootstrap, scikit-learn on images": partial(bootstrap_images, draws=few),
        "swap test, from counts": partial(swap, draws=draws),
        "swap test, scikit-learn on images": partial(swap_images, draws=few),
    }
    found = bench.by_turns(cases)
    rates = {name: values(figures, "ms_a_draw") for name, figures in found.items()}
    rows = []
    for name in cases:
        own = rates[f"{name.split(',')[0]}, from counts"]
        rows.append([name, spread(rates[name]), spread(ratios(rates[name], own)) if "images" in name else "1"])
    whole = [bench.once(partial(report, arms=bench.size(ARMS, 3)), seed=seed) for seed in range(bench.repeats)]
    seconds, page = (values(whole, name) for name in ("seconds", "page_mb"))
    split = "1,793 test landmarks of 29 sources"
    return Report(
        title="Reports: resampling, and writing one",
        text=f"Macro F1 over {SEEDS} fits on {split}, as in the official split, drawn by source. The report has {ARMS} "
        f"arms of {SEEDS} seeds with 30 epochs and 20 trials each; time is from results in memory to the last file.",
        tables=[
            Table("", ["", "ms a resample", "ratio to ours"], rows),
            Table(
                "Writing a report",
                ["s", "page MB", "folder MB"],
                [[spread(seconds), spread(page), spread(values(whole, "folder_mb"))]],
            ),
        ],
        targets=[
            Target(
                f"{draws:,} resamples of 29 sources by 8 classes take",
                draws * middle(rates["bootstrap, from counts"]) / 1e3,
                1,
                " s",
            ),
            Target("a report is written in", middle(seconds), 20, " s"),
            Target("its page has", middle(page), 6, " MB"),
        ],
        figures=found | {"report": whole},
    )


def bootstrap(draws: int, seed: int) -> Figures:  # noqa: ARG001
    """Ours, counting included; its draws are always the same."""
    from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources

    labels, sources = landmarks()
    predicted = np.stack([probabilities(labels, 0, fit).argmax(axis=1) for fit in range(SEEDS)])
    begin = time.perf_counter()
    bootstrap_sources(SourceCounts.of(labels, predicted, sources, len(HIRISE.classes)), draws).interval()
    return {"ms_a_draw": 1e3 * (time.perf_counter() - begin) / draws}


def bootstrap_images(draws: int, seed: int) -> Figures:
    """What one would write first: put the images of the drawn sources together and score them."""
    from sklearn.metrics import f1_score

    labels, sources = landmarks()
    predicted = np.stack([probabilities(labels, 0, fit).argmax(axis=1) for fit in range(SEEDS)])
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(sources == source) for source in range(SOURCES)]
    begin = time.perf_counter()
    for _ in range(draws):
        rows = np.concatenate([members[source] for source in rng.integers(SOURCES, size=SOURCES)])
        for fit in predicted[rng.integers(SEEDS, size=SEEDS)]:
            f1_score(labels[rows], fit[rows], average="macro", zero_division=0.0)
    return {"ms_a_draw": 1e3 * (time.perf_counter() - begin) / draws}


def swap(draws: int, seed: int) -> Figures:
    """Ours, counting included."""
    from hirise_imb.metrics.bootstrap import SourceCounts
    from hirise_imb.metrics.permutation import swap_test

    labels, sources = landmarks()
    arms = [np.stack([probabilities(labels, arm, fit).argmax(axis=1) for fit in range(SEEDS)]) for arm in range(2)]
    begin = time.perf_counter()
    one, other = (SourceCounts.of(labels, arm, sources, len(HIRISE.classes)) for arm in arms)
    swap_test(one, other, draws, seed)
    return {"ms_a_draw": 1e3 * (time.perf_counter() - begin) / draws}


def swap_images(draws: int, seed: int) -> Figures:
    """Exchange the predictions of images and score them."""
    from sklearn.metrics import f1_score

    labels, sources = landmarks()
    one, other = (
        np.stack([probabilities(labels, arm, fit).argmax(axis=1) for fit in range(SEEDS)]) for arm in range(2)
    )
    rng = np.random.default_rng(seed)
    begin = time.perf_counter()
    for _ in range(draws):
        swapped = (rng.integers(2, size=SOURCES) == 1)[sources]
        for first, second in zip(one, other, strict=True):
            for fit in (np.where(swapped, second, first), np.where(swapped, first, second)):
                f1_score(labels, fit, average="macro", zero_division=0.0)
    return {"ms_a_draw": 1e3 * (time.perf_counter() - begin) / draws}


def report(arms: int, seed: int) -> Figures:
    """Write a report into a temporary folder."""
    import tempfile
    from pathlib import Path

    from hirise_imb.reporting import write_report

    results = made_up(arms, seed)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        page = write_report(results, Path(folder) / "report")
        seconds = time.perf_counter() - begin
        sizes = [path.stat().st_size for path in page.parent.rglob("*") if path.is_file()]
        return {"seconds": seconds, "page_mb": page.stat().st_size / 1e6, "folder_mb": sum(sizes) / 1e6}


def landmarks() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class and source of each test landmark in the official numbers, shape (1793,) each."""
    from benchmarks.data import TEST

    labels = np.repeat(np.arange(len(HIRISE.classes)), TEST)
    # Classes of one source take the last sources, which have few or no others, as in the official split.
    first = (0, 0, 3, 8, 27, 12, 28, 26)
    sources = [start + np.arange(n) % c for n, c, start in zip(TEST, OF_CLASS, first, strict=True)]
    return labels, np.concatenate(sources).astype(np.int64)


def probabilities(labels: NDArray[np.int64], arm: int, fit: int) -> NDArray[np.float32]:
    """Of a made-up fit, right for most landmarks, shape (n, 8)."""
    rng = np.random.default_rng((arm, fit))
    logits = (
        rng.normal(0, 1.2, (len(labels), len(HIRISE.classes)))
        + (2.5 + 0.05 * arm) * np.eye(len(HIRISE.classes))[labels]
    )
    logits[:, 0] += 1
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def made_up(arms: int, seed: int) -> Results:
    """A study of so many arms, named after strategies."""
    from hirise_imb.pipeline.appendix import describe_strategies
    from hirise_imb.reporting import Results
    from hirise_imb.strategies import STRATEGIES

    labels, sources = landmarks()
    names = [f"ESP_{source:06}_2000" for source in sources]
    images = [f"{name}_RED-{place:04}.jpg" for place, name in enumerate(names)]
    test = pd.DataFrame({"image": images, "landmark": images, "source": names, "label": labels})
    counts = np.bincount(labels, minlength=len(HIRISE.classes)).tolist()
    data = pd.DataFrame(
        [
            {"split": split, "class": name, "sources": c, "landmarks": n, "images": n, "rows": n}
            for split in SPLITS
            for name, c, n in zip(HIRISE.classes, OF_CLASS, counts, strict=True)
        ]
    )
    chosen = list(STRATEGIES)[: arms - 1]
    return Results(
        name="made-up",
        setting="Nothing here was measured.",
        study_toml='name = "made-up"\n',
        classes=HIRISE.classes,
        test=test,
        data=data,
        arms=tuple(_arm(name, place, tuple(images), labels) for place, name in enumerate(["baseline", *chosen])),
        environment={"seed": seed, "seconds": {}},
        trial_seeds=3,
        appendix=describe_strategies(STRATEGIES[name] for name in chosen),
    )


def _arm(name: str, place: int, images: tuple[str, ...], labels: NDArray[np.int64]) -> Arm:
    from hirise_imb.recipe import Recipe
    from hirise_imb.reporting import Arm
    from hirise_imb.reporting.records import Selection
    from hirise_imb.strategies import CONTROL

    rng = np.random.default_rng(place)
    columns = [
        "epoch",
        *(f"{s}_{what}" for s in ("train", "val", "test") for what in ("loss", "accuracy")),
        "val_macro_f1",
    ]
    histories = tuple(
        pd.DataFrame(rng.random((30, len(columns))), columns=columns).assign(epoch=range(1, 31)) for _ in range(SEEDS)
    )
    selection = Selection(
        division="given split",
        recipe=Recipe().to_dict(),
        settings={"learning_rate": 0.001, "weight_decay": 0.01} if place else {},
        val_score=float(rng.random()),
        trials=[{"state": "complete", "value": float(value)} for value in rng.random(20)] if place else [],
    )
    return Arm(
        name=name,
        role="baseline" if not place else "control" if name == CONTROL else "strategy",
        summary=f"what {name} does",
        selections=(selection,),
        seeds=tuple(range(SEEDS)),
        predictions=tuple(Predictions(images, probabilities(labels, place, fit)) for fit in range(SEEDS)),
        histories=histories,
        best_epochs=((20,),) * SEEDS,
        capped=((False,),) * SEEDS,
        temperatures=((1.2,),) * SEEDS,
        seconds=10.0,
    )
