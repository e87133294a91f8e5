"""A whole study: data, features, baseline, searches, refits, report. Whatever was finished before is not done again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
import pandas as pd

from hirise_imb import catalogue, datasets, environment, search
from hirise_imb.backbones import BACKBONES, PRECISIONS, TOP, Backbone
from hirise_imb.catalogue import Catalogue
from hirise_imb.definition import Definition, known
from hirise_imb.errors import UserError
from hirise_imb.evaluation import Predictions
from hirise_imb.features import BATCH, Features, difference, extract, image_digests
from hirise_imb.files import cache_root, make_folder
from hirise_imb.progress import track
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Baseline, Results, write_baseline, write_report
from hirise_imb.reporting.results import BASELINE
from hirise_imb.runs import RunStore
from hirise_imb.sampling import SplitFileRows
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training import Examples, Task, Trainer

REFERENCES = {"unique": Recipe(), "split-file": Recipe(sampling=SplitFileRows())}
"""The reference run by the rows an epoch goes through: each unique image once, or as often as the split file has it."""


def run_study(definition: Definition, out: Path) -> tuple[Results, Path]:
    """Run or continue a study; return what it found and the path of its page.

    Args:
        definition: what to do.
        out: folder that holds `studies/` (databases and finished runs) and `reports/`.

    Raises:
        UserError: the definition can't be run here; nothing was written then that a later run would not use.
    """
    strategies = [STRATEGIES[known("strategy", name, STRATEGIES)] for name in definition.strategies]
    with _Bench.held(definition, strategies, out) as bench:
        store = search.connect(_database(definition, out))
        searches = {s: search.open_study(store, f"{definition.name}/{s.name}", bench.facts) for s in strategies}
        runs = bench.runs(out)
        arms = [_baseline(bench, "unique", runs)]
        arms += [_searched(bench, study, runs, strategy) for strategy, study in searches.items()]
    counts = f"{definition.trials} trials a strategy, {definition.refits} seeds a fit"
    results = bench.results(arms, counts, definition.to_toml())
    return results, write_report(results, _report(definition, out))


def run_baseline(definition: Definition, rows: str, out: Path) -> tuple[Baseline, Path]:
    """Fit the reference run of a study alone, and set it beside the published table.

    What the study has fitted is used, and the study will use what is fitted here.

    Args:
        definition: of the study; its strategies and trials play no part.
        rows: that an epoch goes through, one of `REFERENCES`.
        out: as for `run_study`.

    Raises:
        UserError: the definition can't be run here, or the test split has a single landmark.
    """
    known("kind of rows", rows, REFERENCES)
    with _Bench.held(definition, [], out) as bench:
        if len(bench.images.one_per_landmark("test")) < 2:
            raise UserError(f"{definition.data} has one test landmark: a shuffled pairing takes two, use other data.")
        arm = _baseline(bench, rows, bench.runs(out))
    head = f"# The reference run of this study alone: study baseline --rows {rows}\n"
    seeds = f"{definition.refits} seed{'s' if definition.refits > 1 else ''}"
    results = bench.results([arm], f"{arm.summary}, {seeds}", head + definition.to_toml())
    folder = BASELINE if rows == "unique" else f"{BASELINE}-{rows}"
    baseline = Baseline(results)
    return baseline, write_baseline(baseline, _report(definition, out) / folder)


def _database(definition: Definition, out: Path) -> Path:
    return out / "studies" / f"{definition.name}.db"


def _report(definition: Definition, out: Path) -> Path:
    return out / "reports" / definition.name


@dataclass(frozen=True)
class _Bench:
    """Everything that runs of one study share."""

    definition: Definition
    images: Catalogue
    trainer: Trainer
    about: str
    """The backbone, in words."""
    cuts: tuple[str, ...]
    facts: dict[str, str | int]
    """What every number depends on beside the recipe."""
    seconds: float
    """Wall time of the features in this process; what was cached takes hardly any."""

    @classmethod
    @contextmanager
    def held(cls, definition: Definition, strategies: list[Strategy], out: Path) -> Iterator[_Bench]:
        """Keep other processes out of the study below `out`, and make everything ready for its runs."""
        card = BACKBONES[known("backbone", definition.backbone, BACKBONES)]
        known("precision", definition.precision, PRECISIONS)
        images = catalogue.read(datasets.locate(definition.data))
        # What can't be written is found out before the hours of work; what can't be computed, before anything is.
        make_folder(out / "reports")
        make_folder(out / "studies")
        with search.held(_database(definition, out)):
            environment.load_tensorflow()
            yield cls.prepare(definition, images, card.load(definition.weights, definition.precision), strategies)

    @classmethod
    def prepare(
        cls, definition: Definition, images: Catalogue, backbone: Backbone, strategies: list[Strategy]
    ) -> _Bench:
        cuts = tuple(backbone.card.cuts)
        needed = [TOP, *(cuts if any(strategy.trains_backbone for strategy in strategies) else ())]
        paths = [images.path(image) for image in images.table["image"]]
        begin = time.monotonic()
        digests = image_digests(paths)
        cached = extract(backbone, needed, paths, cache_root(), digests)
        seconds = round(time.monotonic() - begin, 1)
        content = hashlib.sha256("".join([images.digest, *digests]).encode())
        facts: dict[str, str | int] = {
            "data": content.hexdigest()[:16],
            "backbone": backbone.card.name,
            "weights": backbone.digest[:16],
            "precision": definition.precision,
            "seed": definition.seed,
        }
        about = f"Backbone: {definition.backbone} with weights {definition.weights}"
        if definition.precision != "float32":
            apart = difference(backbone, backbone.card.load(definition.weights), paths[:BATCH])
            about += f", in {definition.precision} (its features are {apart:.2%} from those in float32, median)"
        tasks = {cut: task(images, features) for cut, features in cached.items()}
        return cls(definition, images, Trainer(backbone, tasks), about, cuts, facts, seconds)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.definition.seed, self.definition.seed + self.definition.refits))

    def runs(self, out: Path) -> RunStore:
        """The finished fits of the study."""
        return RunStore(make_folder(_database(self.definition, out).with_suffix(".runs")), self.facts)

    def results(self, arms: list[Arm], counts: str, study_toml: str) -> Results:
        """What a report is made from; `counts` ends the sentence that says what was run."""
        definition = self.definition
        data = f"Landmarks: {definition.data}."
        if definition.data == "synthetic":
            data = "Landmarks: synthetic, drawn by this program. Nothing here is a result about Mars."
        seconds = {"features": self.seconds} | {arm.name: round(arm.seconds, 1) for arm in arms}
        return Results(
            name=definition.name,
            setting=f"{data} {self.about}; {counts}.",
            study_toml=study_toml,
            catalogue=self.images,
            arms=tuple(arms),
            environment=environment.describe() | {"digests": self.facts, "seconds": seconds},
        )

    def arm(self, name: str, summary: str, recipe: Recipe, chosen: search.Chosen | None, store: RunStore) -> Arm:
        """Fit and predict a recipe for the report; `chosen` is None for the baseline."""
        there = sum(store.has(recipe, seed) for seed in self.seeds)
        runs = []
        with track(f"{name} fits", len(self.seeds), "fits", already=there) as show:
            for done, seed in enumerate(self.seeds, 1):
                runs.append(store.get(recipe, seed, partial(self.trainer.fit, recipe, seed, score_test=True)))
                show(max(done, there))
        names = self.trainer.tasks[recipe.cut].test.images
        return Arm(
            name=name,
            summary=summary,
            recipe=recipe,
            settings=chosen.settings if chosen else {},
            val_macro_f1=chosen.val_macro_f1 if chosen else runs[0].val_macro_f1,
            trials=chosen.history if chosen else [],
            seeds=self.seeds,
            predictions=tuple(Predictions(names, run.test) for run in runs if run.test is not None),
            histories=tuple(run.history for run in runs),
            best_epochs=tuple(run.best_epoch for run in runs),
            seconds=(chosen.seconds if chosen else 0.0) + sum(run.seconds for run in runs),
        )


def task(images: Catalogue, features: Features) -> Task:
    """What runs at one cut learn from and are scored on; `features` has the rows of the catalogue's table."""

    def examples(table: pd.DataFrame) -> Examples:
        return Examples(
            images=tuple(table["image"]),
            features=features.select(table.index.to_numpy()),
            labels=table["label"].to_numpy(),
            copies=table["copies"].to_numpy(),
        )

    return Task(
        train=examples(images.split("train")),
        val=examples(images.one_per_landmark("val")),
        test=examples(images.one_per_landmark("test")),
        landmark_counts=images.landmark_counts("train"),
    )


def _baseline(bench: _Bench, rows: str, runs: RunStore) -> Arm:
    through = {"unique": "unique images", "split-file": "the repeated rows of the split file"}
    summary = f"the reference run: cross-entropy on {through[rows]}, frozen backbone"
    return bench.arm(BASELINE, summary, REFERENCES[rows], None, runs)


def _searched(bench: _Bench, study: optuna.Study, runs: RunStore, strategy: Strategy) -> Arm:
    definition = bench.definition

    there = len(search.finished(study))
    with track(strategy.name, definition.trials, "trials", already=min(there, definition.trials)) as show:
        fit = bench.trainer.fit_together
        search.run_trials(study, strategy, bench.cuts, definition.trials, definition.seed, fit, show)
    chosen = search.choose(study, strategy, bench.cuts, definition.trials)
    return bench.arm(strategy.name, strategy.summary, chosen.recipe, chosen, runs)
