"""Compares criteria by which a search could choose settings, on repeated halves of the sources (see docs/selection.md).

The sources of all splits are pooled and divided into a development and an evaluation half, again and again. Settings
that searches would try are scored by cross-validation on the development half, fitted on all of it, and evaluated on
the other half. A criterion is good if what it chooses scores high there.

    HIRISE_SAMPLE=... python -m tools.compare_criteria FITS [DIVISIONS]

FITS is a folder for predictions; those that are already there are not computed again. Writes docs/selection.csv and
prints the tables of docs/selection.md.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import BACKBONES, TOP
from hirise_imb.config import load_definition
from hirise_imb.data.folds import assign_folds
from hirise_imb.data.splits import DataSplits, Fold, ImageTable, make_splits
from hirise_imb.features.extraction import extract_features
from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources, macro_f1_bound
from hirise_imb.metrics.classification import confusion_matrix, macro_f1, macro_f1_with_sources
from hirise_imb.metrics.ranking import mean_average_precision
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import STRATEGIES, RecipeContext, Settings
from hirise_imb.training.context import load_manifest
from hirise_imb.training.trainer import Trainer
from hirise_imb.utils import environment
from hirise_imb.utils.files import cache_root
from tools.criteria import REPEATED, print_noise, print_tables, repeated_f1

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TRAINED = ("plain", "class_weights", "logit_adjusted_loss", "oversampling", "focal_loss")
CLOSED_FORM = ("logistic", "prototypes")
N_TRAINED, N_CLOSED_FORM = 3, 5
"""Numbers of settings of a strategy: the defaults, its first initial point, and random ones."""
CV_SEEDS = (0, 1, 2, 1, 2)
CV_ASSIGNMENTS = (0, 1, 2, 0, 0)
"""Seed and assignment of each cross-validation; `criteria.REPEATED` and `SAME_FOLDS` refer to them."""
FINAL_SEEDS = (10, 11)
RESAMPLES = 1000


@dataclass(frozen=True)
class Candidate:
    """One setting of a strategy."""

    strategy: str
    place: int
    """Position in the order of proposals, from 0; the defaults come first."""
    settings: Settings
    recipe: Recipe


@dataclass(frozen=True)
class Fits:
    """Predictions of one candidate in one division."""

    out_of_fold: NDArray[np.float32]
    """Log probabilities of the development landmarks, shape (n_cv_seeds, n_landmarks, n_classes)."""
    evaluation: NDArray[np.float32]
    """Probabilities of the evaluation landmarks, shape (n_final_seeds, n_landmarks, n_classes)."""
    epochs: Ints
    """Number of epochs of the final fits; empty for a closed-form head."""


def list_candidates() -> list[Candidate]:
    """Returns the settings of all strategies, in the order of proposals."""
    context = RecipeContext(cuts=())
    candidates = []
    for name in (*TRAINED, *CLOSED_FORM):
        strategy = STRATEGIES[name]
        sampler = optuna.samplers.RandomSampler(seed=zlib.crc32(name.encode()))
        study = optuna.create_study(sampler=sampler)
        settings = [s for s in strategy.initial_settings() if s.get("scheme") != "progressive"][:2]
        while len(settings) < (N_TRAINED if name in TRAINED else N_CLOSED_FORM):
            # Progressive sampling needs a fixed number of epochs, which is a choice of its own.
            if (random := strategy.space.suggest(study.ask())).get("scheme") != "progressive":
                settings.append(random)
        for place, one in enumerate(settings):
            recipe = strategy.recipe(one, context)
            if recipe.trained:
                recipe = replace(recipe, max_epochs=100, patience=10)
            candidates.append(Candidate(name, place, one, recipe))
    return candidates


def halve_sources(labels: Ints, sources: Ints, number: int) -> NDArray[np.bool_]:
    """Divides the sources at random into halves that both contain every class with two sources or more.

    Args:
        labels: class id of each landmark, shape (n,).
        sources: number of the source of each landmark, shape (n,).
        number: seed of the division.

    Returns:
        Whether each landmark is in the development half, shape (n,).

    Raises:
        ValueError: no such division was found.
    """
    rng = np.random.default_rng(number)
    unique = np.unique(sources)
    divisible = [label for label in np.unique(labels) if len(np.unique(sources[labels == label])) > 1]
    for _ in range(1000):
        chosen = rng.permutation(unique)[: len(unique) // 2]
        development = np.isin(sources, chosen)
        if all(len(np.unique(development[labels == label])) == 2 for label in divisible):
            return development
    raise ValueError(f"no division of {len(unique)} sources contains all classes in both halves")


def make_division(images: ImageTable, number: int) -> DataSplits:
    """Returns splits whose pool is the development half and whose test split is the evaluation half."""
    canonical = np.flatnonzero(images.is_canonical)
    in_development = halve_sources(images.labels[canonical], images.sources[canonical], number)
    development_sources = np.unique(images.sources[canonical[in_development]])
    pool = np.flatnonzero(np.isin(images.sources, development_sources))
    landmarks = images.canonical(pool)
    folds = []
    for assignment in CV_ASSIGNMENTS:
        labels, sources = images.labels[landmarks], images.sources[landmarks]
        fold_of = assign_folds(labels, sources, images.classes, number=assignment).folds
        folds.append(
            tuple(
                Fold(pool[~np.isin(images.sources[pool], sources[fold_of == fold])], landmarks[fold_of == fold])
                for fold in range(int(fold_of.max()) + 1)
            )
        )
    return DataSplits(images, folds[0][0], pool, tuple(folds), canonical[~in_development])


def fit(trainer: Trainer, candidate: Candidate) -> Fits:
    """Cross-validates a candidate on the development half, and fits it on all of it."""
    # A closed form has no seed, so assignments that repeat would give the same predictions again.
    trained = candidate.recipe.trained
    validation = trainer.cross_validate(candidate.recipe, CV_SEEDS if trained else CV_SEEDS[:3])
    runs = [trainer.fit_final(candidate.recipe, seed, validation) for seed in FINAL_SEEDS[: 2 if trained else 1]]
    return Fits(
        validation.log_probabilities if trained else validation.log_probabilities[list(CV_ASSIGNMENTS)],
        np.stack([run.test.probabilities for run in runs]),
        np.array(validation.epochs, np.int64),
    )


def fit_missing(candidates: Sequence[Candidate], divisions: int, folder: Path) -> ImageTable:
    """Stores the predictions of all candidates in all divisions, one file each, unless they are there.

    Returns:
        The images of the data set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    definition = load_definition(ROOT / "studies" / "sample.toml", {})
    manifest = load_manifest(definition)
    images = make_splits(manifest, 1).images
    missing = [
        (number, one)
        for number in range(divisions)
        for one in candidates
        if not _fits_path(folder, number, one).exists()
    ]
    if not missing:
        return images
    paths = [manifest.path(image) for image in manifest.table["image"]]
    environment.load_tensorflow()
    backbone = BACKBONES[definition.backbone].load(definition.weights, manifest.spec.image_shape, definition.precision)
    features = {(TOP, "plain"): extract_features(backbone, [TOP], paths, cache_root())[TOP]}
    begin = time.monotonic()
    for number, group in groupby(missing, key=itemgetter(0)):
        trainer = Trainer(backbone, make_division(images, number), features)
        for _, candidate in group:
            path = _fits_path(folder, number, candidate)
            partial = path.with_suffix(".tmp")
            with partial.open("wb") as file:
                np.savez_compressed(file, **vars(fit(trainer, candidate)))
            partial.rename(path)
            print(f"{time.monotonic() - begin:6.0f} s {path.stem}", file=sys.stderr, flush=True)
    return images


def measure_overlap(images: ImageTable, divisions: int) -> float:
    """Returns the mean adjusted Rand index between the assignments of a division: 1 for the same folds, 0 by chance."""
    from sklearn.metrics import adjusted_rand_score

    indices = []
    for number in range(divisions):
        splits = make_division(images, number)
        fold_of = np.zeros((len(REPEATED), len(splits.landmarks)), np.int64)
        for i in REPEATED:
            for fold, rows in enumerate(splits.assignments[i]):
                fold_of[i, splits.landmark_positions(rows.heldout)] = fold
        indices += [adjusted_rand_score(one, other) for one, other in combinations(fold_of, 2)]
    return float(np.mean(indices))


def _fits_path(folder: Path, number: int, candidate: Candidate) -> Path:
    return folder / f"{number:02}-{candidate.strategy}-{candidate.place}.npz"


def score_fits(candidate: Candidate, number: int, fits: Fits, splits: DataSplits) -> dict[str, str | float | None]:
    """Returns one row of results: what the criteria are computed from, and the evaluation."""
    images = splits.images
    labels = images.labels[splits.landmarks]
    sources = np.unique(images.sources[splits.landmarks], return_inverse=True)[1]
    n_classes = len(images.classes)
    confusions = [confusion_matrix(labels, fit.argmax(axis=1), n_classes) for fit in fits.out_of_fold]
    repeated = fits.out_of_fold[REPEATED].astype(np.float64)
    counts = SourceCounts.of(labels, repeated.argmax(axis=2), sources, n_classes)
    losses = -np.take_along_axis(repeated, labels[None, :, None], axis=2)[..., 0].mean(axis=0)
    n_of_class = np.bincount(labels, minlength=n_classes)
    evaluation_labels = images.labels[splits.test]
    return {
        "division": number,
        "strategy": candidate.strategy,
        "place": candidate.place,
        "settings": json.dumps(candidate.settings),
        "epochs": int(fits.epochs[0]) if len(fits.epochs) else None,
        **{f"f1_fit{i}": macro_f1(confusion) for i, confusion in enumerate(confusions)},
        "average_precision": float(np.mean([mean_average_precision(labels, np.exp(fit)) for fit in repeated])),
        **{
            f"f1_sources{minimum}": float(
                np.mean([macro_f1_with_sources(confusions[i], counts.sources, minimum) for i in REPEATED])
            )
            for minimum in (3, 6)
        },
        "bound": macro_f1_bound(counts, 0.1, RESAMPLES),
        "bound_own_f1": macro_f1_bound(counts, 0.1, RESAMPLES, "own_f1"),
        "log_loss": float(losses.mean()),
        "balanced_log_loss": float((np.bincount(labels, losses, n_classes) / np.maximum(n_of_class, 1)).mean()),
        **{
            f"evaluation{i}": macro_f1(confusion_matrix(evaluation_labels, fit.argmax(axis=1), n_classes))
            for i, fit in enumerate(fits.evaluation)
        },
    }


def resample_scores(fits: Fits, splits: DataSplits) -> Floats:
    """Returns the macro F1 of repeated assignments in resamples of the sources, shape (RESAMPLES,)."""
    images = splits.images
    sources = np.unique(images.sources[splits.landmarks], return_inverse=True)[1]
    predicted = fits.out_of_fold[REPEATED].argmax(axis=2)
    counts = SourceCounts.of(images.labels[splits.landmarks], predicted, sources, len(images.classes))
    return bootstrap_sources(counts, RESAMPLES).macro_f1()


def collect(candidates: Sequence[Candidate], images: ImageTable, divisions: int, folder: Path) -> pd.DataFrame:
    """Returns the results of all candidates in all divisions, one row each."""
    frames = []
    for number in range(divisions):
        splits = make_division(images, number)
        rows, resamples = [], []
        for candidate in candidates:
            with np.load(_fits_path(folder, number, candidate)) as file:
                fits = Fits(**file)
            rows.append(score_fits(candidate, number, fits, splits))
            resamples.append(resample_scores(fits, splits))
        frame = pd.DataFrame(rows)
        frame["error"] = np.std(resamples, axis=1)
        # The error of the difference to the best setting of the strategy, which is smaller: they share most mistakes.
        best = repeated_f1(frame).groupby(frame["strategy"]).transform("idxmax").astype(int)
        frame["error_of_gap"] = [np.std(one - resamples[i]) for one, i in zip(resamples, best, strict=True)]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def main() -> None:
    """Fits what is missing, writes docs/selection.csv and prints the tables."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder, divisions = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
    candidates = list_candidates()
    images = fit_missing(candidates, divisions, folder)
    results = collect(candidates, images, divisions, folder)
    results.to_csv(DOCS / "selection.csv", index=False, float_format="%.4f")
    print_tables(results)
    print_noise(results)
    print(f"adjusted Rand index between assignments: {measure_overlap(images, divisions):.2f}")


if __name__ == "__main__":
    main()
