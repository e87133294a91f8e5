"""Simulated data sets on which arms are evaluated by nested cross-validation or on one split, with known truth.

Features are a centre for each class, an effect of each source, an effect of each class in each source, and noise, in
the layout of the real sample: which source has how many landmarks of which class. Heads are linear discriminants,
fitted from the counts, sums and second moments of the training sources, so that an arm takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.config import GIVEN_SPLIT, NESTED_CV
from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources, expanded_percentile_interval
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.metrics.permutation import swap_test
from tools.nested_layout import N_CLASSES, Layout, outer_folds, sample_layout

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

N_INNER = 4
"""Folds of an inner cross-validation."""
WIDTH = 16
"""Number of features."""
SIGNAL = 0.7
"""Standard deviation of the class centres, relative to that of effects and noise together."""
RIDGE = 0.1
"""Added to the variances, relative to their mean."""
TAUS = (0.0, 0.25, 0.5, 1.0)
"""Weights of the log prior from which an arm chooses that chooses."""

DRAWS = 1000
"""Number of resamples or exchanges for each data set."""
MOST_REPEATS = 3
REPEATED = f"{NESTED_CV}, {MOST_REPEATS} repeats"
DESIGNS = {GIVEN_SPLIT: 1, NESTED_CV: 1, REPEATED: MOST_REPEATS}
"""Number of predictions of each landmark under each design."""
COPIES = 20
"""Data sets of fresh sources on which a true difference is measured."""


@dataclass(frozen=True)
class Law:
    """How features are drawn."""

    between: float
    """Standard deviation of the effects of sources, relative to noise."""
    own: float = 0.3
    """Share of the variance of effects and noise that each arm has by itself."""

    def centres(self) -> Floats:
        """Returns the class centres, shape (n_classes, WIDTH)."""
        scale = SIGNAL * np.sqrt(1 + self.between**2)
        return np.random.default_rng(0).normal(0, scale, (N_CLASSES, WIDTH))

    def errors(self, rng: np.random.Generator, layout: Layout) -> Floats:
        """Draws effects of sources and noise, shape (n, WIDTH)."""
        sources, labels = layout.cells
        effects = rng.normal(0, self.between / np.sqrt(2), (len(layout.counts), N_CLASSES + 1, WIDTH))
        noise = rng.normal(size=(len(labels), WIDTH))
        return np.asarray(effects[sources, labels] + effects[sources, -1] + noise)

    def draw(self, rng: np.random.Generator, layout: Layout, gains: tuple[float, ...]) -> list[Floats]:
        """Draws a data set as each arm sees it.

        Args:
            rng: source of randomness.
            layout: sources and classes of its landmarks.
            gains: by how much larger the class centres are in the features of each arm, relative to all others.

        Returns:
            Features of each arm, shape (n, WIDTH).
        """
        shared = self.errors(rng, layout)
        centres = self.centres()[layout.cells[1]]
        weights = np.sqrt(1 - self.own), np.sqrt(self.own)
        return [(1 + gain) * centres + weights[0] * shared + weights[1] * self.errors(rng, layout) for gain in gains]


@dataclass(frozen=True)
class Moments:
    """Counts, sums and second moments of features, from which heads are fitted; one entry for each source or set."""

    counts: Floats
    """Shape (n, n_classes)."""
    sums: Floats
    """Shape (n, n_classes, WIDTH)."""
    squares: Floats
    """Sums of outer products, shape (n, WIDTH, WIDTH)."""

    @classmethod
    def of(cls, layout: Layout, features: Floats) -> Moments:
        """Computes the moments of each source."""
        sources, labels = layout.cells
        size = len(layout.counts)
        sums = np.zeros((size, N_CLASSES, WIDTH))
        np.add.at(sums, (sources, labels), features)
        # Landmarks are in the order of their sources.
        parts = np.split(features, np.searchsorted(sources, np.arange(1, size)))
        squares = np.stack([part.T @ part for part in parts])
        return cls(layout.counts.astype(float), sums, squares)

    def add(self, weights: Floats) -> Moments:
        """Returns the moments of sets of sources.

        Args:
            weights: how often each source is in each set, shape (n_sets, n_sources).
        """
        flat = (weights @ values.reshape(len(values), -1) for values in (self.counts, self.sums, self.squares))
        counts, sums, squares = flat
        return Moments(counts, sums.reshape(-1, N_CLASSES, WIDTH), squares.reshape(-1, WIDTH, WIDTH))


@dataclass(frozen=True)
class Heads:
    """Linear discriminants, one for each training set."""

    kernel: Floats
    """Shape (n_heads, n_classes, WIDTH)."""
    bias: Floats
    """Without the log prior, shape (n_heads, n_classes)."""
    log_prior: Floats
    """-inf for a class without training landmarks, shape (n_heads, n_classes)."""

    @classmethod
    def fit(cls, moments: Moments) -> Heads:
        """Fits a head on each set of sources."""
        counts = moments.counts
        total = counts.sum(axis=1)
        means = moments.sums / np.maximum(counts, 1)[..., None]
        within = moments.squares - np.einsum("hk,hki,hkj->hij", counts, means, means, optimize=True)
        covariance = within / total[:, None, None]
        size = np.trace(covariance, axis1=1, axis2=2) / WIDTH
        covariance += RIDGE * size[:, None, None] * np.eye(WIDTH)
        kernel = np.linalg.solve(covariance, means.swapaxes(1, 2)).swapaxes(1, 2)
        with np.errstate(divide="ignore"):
            log_prior = np.log(counts / total[:, None])
        return cls(kernel, -(kernel * means).sum(axis=2) / 2, log_prior)

    def predict(self, features: Floats, heads: Ints, taus: Sequence[Floats]) -> Ints:
        """Predicts each landmark by the head of its number.

        Args:
            features: shape (n, WIDTH).
            heads: head of each landmark, shape (n,); landmarks with a negative number are not predicted.
            taus: weights of the log prior that each head subtracts, each of shape (n_heads,).

        Returns:
            Predicted classes for each entry of `taus`, shape (len(taus), n); 0 for landmarks that are not predicted.
        """
        predicted = np.zeros((len(taus), len(features)), np.int64)
        present = np.isfinite(self.log_prior)
        for head in range(len(self.kernel)):
            rows = np.flatnonzero(heads == head)
            logits = features[rows] @ self.kernel[head].T + self.bias[head]
            for i, tau in enumerate(taus):
                # An absent class is never predicted; subtracting its prior would make it the most probable one.
                prior = np.where(
                    present[head], (1 - tau[head]) * np.where(present[head], self.log_prior[head], 0), -np.inf
                )
                predicted[i, rows] = (logits + prior).argmax(axis=1)
        return predicted


@dataclass(frozen=True)
class Arm:
    """How an arm is fitted on a data set as it sees it."""

    tau: float | None = 0.0
    """Weight of the subtracted log prior; None if it is chosen by an inner cross-validation."""
    resamples: bool = False
    """Whether each fit draws its training sources with replacement: the randomness of training."""

    def predict_folds(self, rng: np.random.Generator, layout: Layout, features: Floats, fold_of: Ints) -> Ints:
        """Predicts each landmark by a head that was fitted on the sources of other folds, shape (n,).

        Args:
            rng: source of the randomness of training and of inner assignments.
            layout: sources and classes of the landmarks.
            features: their features, shape (n, WIDTH).
            fold_of: fold of each source from 0, or -1 if it is only trained on, shape (n_sources,).
        """
        n_folds = int(fold_of.max()) + 1
        sources, _ = layout.cells
        moments = Moments.of(layout, features)
        weights = (fold_of != np.arange(n_folds)[:, None]).astype(float)
        taus = np.zeros(n_folds) if self.tau is None else np.full(n_folds, self.tau)
        if self.tau is None:
            taus = np.array([self._choose(rng, layout, features, moments, chosen) for chosen in weights > 0])
        heads = Heads.fit(moments.add(self._training_weights(rng, weights)))
        predicted: Ints = heads.predict(features, fold_of[sources], [taus])[0]
        return predicted

    def _choose(
        self, rng: np.random.Generator, layout: Layout, features: Floats, moments: Moments, pool: NDArray[np.bool_]
    ) -> float:
        """Returns the tau of the highest macro F1 in an inner cross-validation of the sources of the pool."""
        sources, labels = layout.cells
        inside = pool[sources]
        inner_of = np.full(len(pool), -1)
        inner_of[pool] = rng.permutation(np.arange(pool.sum()) % N_INNER)
        weights = self._training_weights(rng, (pool & (inner_of != np.arange(N_INNER)[:, None])).astype(float))
        heads = Heads.fit(moments.add(weights))
        predicted = heads.predict(features[inside], inner_of[sources[inside]], [np.full(N_INNER, tau) for tau in TAUS])
        scores = [macro_f1(confusion_matrix(labels[inside], one, N_CLASSES)) for one in predicted]
        return TAUS[int(np.argmax(scores))]

    def _training_weights(self, rng: np.random.Generator, weights: Floats) -> Floats:
        """Returns how often each training source counts, shape (n_sets, n_sources)."""
        if not self.resamples:
            return weights
        return rng.multinomial(weights.sum(axis=1).astype(int), weights / weights.sum(axis=1, keepdims=True)).astype(
            float
        )


@dataclass(frozen=True)
class Case:
    """Two arms, and how their data is drawn."""

    law: Law
    gains: tuple[float, float] = (0.0, 0.0)
    """By how much larger the class centres are in the features of each arm."""
    arms: tuple[Arm, Arm] = (Arm(), Arm())
    shares_folds: bool = True
    """Whether both arms have the same outer folds."""


@dataclass(frozen=True)
class Outcome:
    """The comparison of two arms on one data set."""

    difference: float
    p: float
    low: float
    """Lower end of the confidence interval of the difference."""
    high: float
    detectable: float
    """Minimum detectable difference; infinite if there is none."""


def evaluate(
    arm: Arm, rng: np.random.Generator, layout: Layout, features: Floats, folds: Sequence[Ints]
) -> SourceCounts:
    """Counts the predictions of an arm; each assignment of sources to folds is one fit.

    Args:
        arm: the arm.
        rng: source of its randomness.
        layout: sources and classes of the landmarks.
        features: their features, shape (n, WIDTH).
        folds: assignments, each as `Arm.predict_folds` takes it; they test the same sources.
    """
    sources, labels = layout.cells
    tested = (folds[0] >= 0)[sources]
    predicted = np.stack([arm.predict_folds(rng, layout, features, fold_of) for fold_of in folds])
    numbers = np.unique(sources[tested], return_inverse=True)[1]
    return SourceCounts.of(labels[tested], predicted[:, tested], numbers, N_CLASSES)


def assign(design: str, layout: Layout, number: int) -> list[Ints]:
    """Returns the assignments of sources to folds under a design, one for each repeat."""
    if design == GIVEN_SPLIT:
        return [np.where(layout.is_test, 0, -1)]
    return [outer_folds(number * MOST_REPEATS + repeat) for repeat in range(DESIGNS[design])]


def compare(case: Case, designs: Sequence[str], number: int) -> dict[str, Outcome]:
    """Compares two arms on a simulated data set, under several designs.

    Args:
        case: the arms.
        designs: some of `DESIGNS`.
        number: number of the data set.
    """
    layout = sample_layout()
    data = case.law.draw(np.random.default_rng((0, number)), layout, case.gains)
    outcomes = {}
    for design in designs:
        counts = []
        for i, (arm, features) in enumerate(zip(case.arms, data, strict=True)):
            assignment = number if case.shares_folds else 2 * number + i
            rng = np.random.default_rng((1, number, i))
            counts.append(evaluate(arm, rng, layout, features, assign(design, layout, assignment)))
        swap = swap_test(counts[1], counts[0], DRAWS)
        resamples = [bootstrap_sources(one, DRAWS) for one in counts]
        interval = expanded_percentile_interval(resamples[1].gain_over(resamples[0]), len(counts[0].support))
        low, high = (interval.low, interval.high) if interval else (0.0, 0.0)
        detectable = np.inf if swap.min_detectable_difference is None else swap.min_detectable_difference
        outcomes[design] = Outcome(swap.difference, swap.p, low, high, float(detectable))
    return outcomes


def true_difference(case: Case, number: int, copies: int = COPIES) -> float:
    """Returns the difference between arms fitted on the sources of four outer folds, on very many fresh sources.

    Args:
        case: the arms.
        number: number of the simulated training set.
        copies: number of fresh data sets in the layout of the sample, which are pooled.
    """
    sample = sample_layout()
    training = sample.counts[outer_folds(number) != 0]
    fresh = sample.repeat(copies).counts
    counts = np.concatenate([training, fresh])
    layout = Layout(counts, np.arange(len(counts)) >= len(training))
    data = case.law.draw(np.random.default_rng((2, number)), layout, case.gains)
    scores = []
    for i, (arm, features) in enumerate(zip(case.arms, data, strict=True)):
        rng = np.random.default_rng((3, number, i))
        tested = evaluate(arm, rng, layout, features, assign(GIVEN_SPLIT, layout, 0))
        scores.append(float(tested.f1(np.ones((1, len(fresh))))[0, 0].mean()))
    return scores[1] - scores[0]
