"""Compares criteria on simulated features, where the score on fresh sources is known (see docs/selection.md).

The features of a landmark are the centre of its class, an effect of its source, an effect of its source on this class,
and noise. Labels and sources are those of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.folds import assign_folds
from hirise_imb.data.splits import DataSplits, ImageTable, make_outer_split
from hirise_imb.features.arrays import Features
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.strategies import CONTROL
from tools.candidate_fits import CV_SEEDS, NO_EPOCHS, POSTHOC, Candidate, Fits, adjust, fit_candidate
from tools.criteria import CRITERIA, REFERENCE, add_error_of_gap, measure

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WIDTH = 48
"""Number of features."""
SEPARATION = (6.0, 12.0)
"""Range of the distances of the centres of rare classes to that of the majority; the noise has a standard deviation of
1."""
SOURCE, SOURCE_OF_CLASS = 0.7, 1.5
"""Standard deviations of the effects of sources, and of sources on single classes."""
C, SHRINKAGE = (0.05, 1.0), (0.01, 1.0)
"""Ranges of settings: narrow, so that they differ by as little as those of the sample."""
N_FRESH = 1000
"""Fresh sources, on which the true score is measured."""
N_LAYOUTS = 8
"""Outer folds that the data sets take in turn."""


@dataclass(frozen=True)
class Simulation:
    """Simulated data sets in the layout of another one."""

    divisions: tuple[DataSplits, ...]
    """Outer folds; their test rows are those of the outer fold and of all fresh sources."""
    n_landmarks: int
    """Landmarks of the layout; the rows after them are of fresh sources."""

    @classmethod
    def in_layout(cls, labels: Ints, sources: Ints, classes: ClassSet) -> Simulation:
        """Adds fresh sources to a layout, each with the classes of a random one of its sources."""
        rng = np.random.default_rng(0)
        rows = [np.flatnonzero(sources == one) for one in rng.choice(np.unique(sources), N_FRESH)]
        fresh = np.repeat(np.arange(N_FRESH) + sources.max() + 1, [len(one) for one in rows])
        all_labels = np.concatenate([labels, labels[np.concatenate(rows)]])
        everywhere = np.ones(len(all_labels), bool)
        all_sources = np.unique(np.concatenate([sources, fresh]), return_inverse=True)[1]
        images = ImageTable((), all_labels, everywhere.astype(np.int64), all_sources, everywhere, classes)
        divisions = []
        for number in range(N_LAYOUTS):
            folds = assign_folds(labels, sources, classes, n_folds=5, number=number).folds
            test = np.concatenate([np.flatnonzero(folds == 0), np.arange(len(labels), len(all_labels))])
            divisions.append(make_outer_split(images, test, len(CV_SEEDS)))
        return cls(tuple(divisions), len(labels))

    def compare(self, number: int) -> pd.DataFrame:
        """Returns what each criterion chooses in one data set, one row for each criterion and strategy."""
        splits = self.divisions[number % len(self.divisions)]
        rng = np.random.default_rng((5, number))
        features = Features.of(draw_features(splits.images, rng))
        labels = splits.images.labels
        sources = np.unique(splits.images.sources[splits.landmarks], return_inverse=True)[1]
        n_classes = len(splits.images.classes)
        rows, resamples = [], []
        for fits in fit_all(splits, features, rng):
            columns, drawn = measure(fits.out_of_fold, labels[splits.landmarks], sources, n_classes)
            predicted = fits.test[0].argmax(axis=1)
            is_fresh = splits.test >= self.n_landmarks
            scores = {
                name: macro_f1(confusion_matrix(labels[splits.test[part]], predicted[part], n_classes))
                for name, part in (("truth", is_fresh), ("outer", ~is_fresh))
            }
            rows.append({"repeat": number, "fold": 0, **fits.facts(), **columns, **scores})
            resamples.append(drawn)
        return choose_all(add_error_of_gap(pd.DataFrame(rows), np.stack(resamples)))


def draw_features(images: ImageTable, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws the features of all images, shape (n_images, WIDTH)."""
    n_classes, n_sources = len(images.classes), int(images.sources.max()) + 1
    majority = int(np.bincount(images.labels).argmax())
    centres = rng.normal(size=(n_classes, WIDTH))
    centres *= (rng.uniform(*SEPARATION, n_classes) / np.linalg.norm(centres, axis=1))[:, None]
    centres[majority] = 0
    of_source = rng.normal(scale=SOURCE, size=(n_sources, WIDTH))
    of_pair = rng.normal(scale=SOURCE_OF_CLASS, size=(n_sources, n_classes, WIDTH))
    noise = rng.normal(size=(len(images.labels), WIDTH))
    drawn = centres[images.labels] + of_source[images.sources] + of_pair[images.sources, images.labels] + noise
    return drawn.astype(np.float32)


def fit_all(splits: DataSplits, features: Features, rng: np.random.Generator) -> list[Fits]:
    """Fits settings of closed-form heads, and adjusts the logits of those without class weights, the control."""
    c = [0.2, *_draw_log(rng, *C, 5)]
    weighted = [{"c": 0.2, "power": 1.0}, {"c": 0.2, "power": 0.5}]
    weighted += [{"c": one, "power": rng.uniform(0, 1.5)} for one in _draw_log(rng, *C, 6)]
    discriminants = [{"shrinkage": 0.1, "prior_power": power} for power in (1.0, 0.0)]
    discriminants += [{"shrinkage": one, "prior_power": rng.uniform(0, 2)} for one in _draw_log(rng, *SHRINKAGE, 6)]
    fits = []
    for place, one in enumerate(c):
        candidate = Candidate("logistic", place, {"c": one, "power": 0.0})
        [control] = fit_candidate(splits, features, candidate)
        control = replace(control, strategy=CONTROL)
        fits += [control, *adjust(splits, control, ["logit_adjustment"])]
    for name, settings in (("logistic", weighted), ("prototypes", discriminants)):
        for place, values in enumerate(settings):
            fits += fit_candidate(splits, features, Candidate(name, place, values))
    return fits


def _draw_log(rng: np.random.Generator, low: float, high: float, count: int) -> list[float]:
    """Draws numbers that are uniform on a logarithmic scale."""
    return [float(value) for value in np.exp(rng.uniform(np.log(low), np.log(high), count))]


def choose_all(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the inner and true scores of what each criterion chooses, and of the defaults."""
    chosen = []
    for name, criterion in CRITERIA.items():
        if criterion.epochs_by not in (NO_EPOCHS, CRITERIA[REFERENCE].epochs_by) and name != "macro F1, 1 seed":
            continue  # these heads have no epochs
        base = rows["place"][criterion.choose(rows[rows["strategy"] == CONTROL])]
        for strategy, of_strategy in rows[rows["base"].isin([-1, base])].groupby("strategy"):
            row = of_strategy.loc[criterion.choose(of_strategy)]
            default = of_strategy[of_strategy["place"] == 0].iloc[0]
            chosen.append(
                {
                    "set": row["repeat"],
                    "criterion": name,
                    "strategy": strategy,
                    "place": row["place"],
                    "inner": row[criterion.inner],
                    "truth": row["truth"],
                    "outer": row["outer"],
                    "default_inner": default[criterion.inner],
                    "default_truth": default["truth"],
                    "correlation": criterion.values(of_strategy).corr(of_strategy["truth"], method="spearman"),
                    "best_truth": of_strategy["truth"].max(),
                }
            )
    return pd.DataFrame(chosen)


def print_simulation(chosen: pd.DataFrame) -> pd.DataFrame:
    """Prints what criteria gain on fresh sources; returns the means over data sets by criterion and strategy."""
    table = chosen.assign(
        gain=chosen["truth"] - chosen["default_truth"],
        inner_gain=chosen["inner"] - chosen["default_inner"],
    )
    is_posthoc = table["strategy"].isin(POSTHOC)
    values = ["gain", "truth", "inner_gain", "correlation"]
    parts = [
        part.groupby(["criterion", "set"], sort=False)[values].mean()
        for part in (table[~is_posthoc], table[is_posthoc])
    ]
    print(f"Simulated data sets: {chosen['set'].nunique()}\n\n| criterion |", end="")
    for title in ("heads", "adjustment"):
        print(f" {title}: gain | difference | inner gain | rank correlation |", end="")
    print("\n|---|" + "---:|" * 8)
    for name in chosen["criterion"].unique():
        cells = []
        for part in parts:
            one = part.loc[name]
            difference = one["truth"] - part.loc[REFERENCE]["truth"]
            cells += [_mean_and_error(one["gain"]), "–" if name == REFERENCE else _mean_and_error(difference)]
            cells += [f"{one['inner_gain'].mean():.3f}", f"{one['correlation'].mean():.2f}"]
        print(f"| {name} | {' | '.join(cells)} |".replace("-", "−"))
    return table.groupby(["criterion", "strategy"], sort=False)[["inner", "outer", "truth"]].mean().reset_index()


def _mean_and_error(values: pd.Series[float]) -> str:
    """Returns the mean over data sets, with its standard error."""
    return f"{values.mean():.4f} ± {values.std() / np.sqrt(len(values)):.4f}"
