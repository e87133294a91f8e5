"""Deep feature reweighting: a last layer fitted on subsets of the training images balanced over class and source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.models.closed_form import expand_to_classes, power_shares, present_classes, solve_logistic, standardise
from hirise_imb.models.linear import LinearClassifier

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DeepFeatureReweighting:
    """The mean of logistic regressions on balanced subsets (Kirichenko et al. 2023), which is one linear classifier.

    The paper subsamples every group, a class in an environment, to the size of the smallest, and averages the weights
    over ten draws. Where sources are the environments, most groups are empty, since a source seldom has images of more
    than one or two classes, and the smallest has a single image. So all classes get the same number of rows here, each
    spread as evenly as possible over the sources of its class: one row from each source in random order, then a second
    one, until the number is reached. A class with fewer rows is used whole, weighted to the same total. Features are
    standardised on all training images, as in the paper; the penalty is squared, as in `Logistic`, where the paper
    has the absolute values.

    Draws are seeded by their number, so they are the same for all seeds of a study, and don't depend on the order of
    the training images.
    """

    c: float
    """scikit-learn's C, a factor of the summed loss of a subset. Positive."""
    subset_size: float
    """s in [0, 1]: a subset has n_min^(1 - s) n_max^s rows of each class, with n_min and n_max the number of images of
    the smallest and the largest class; 0 is the paper's choice, and at 1 the subset is all images."""
    draws: int = 10
    """Number of subsets; positive."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 < self.c < np.inf:
            raise ValueError(f"c must be positive and finite, got {self.c}")
        if not 0 <= self.subset_size <= 1:
            raise ValueError(f"subset_size must be in [0, 1], got {self.subset_size}")
        if not isinstance(self.draws, int) or self.draws < 1:
            raise ValueError(f"draws must be a positive integer, got {self.draws}")

    def prior(self, counts: Ints) -> Floats:
        """Returns the class prior under which logits are learnt, the same for all present classes."""
        return power_shares(counts, 0.0)

    def fit(self, training: TrainingFeatures) -> LinearClassifier:
        """Fits all subsets and averages their weights.

        Raises:
            NotApplicable: there are images of fewer than two classes, or the solver did not converge.
        """
        counts = training.counts()
        present = present_classes(counts)
        x, centre, gain = standardise(training.features)
        subsets = self.subsets(training)
        weights = np.zeros((len(present), x.shape[1]))
        solution = None  # that of the draw before, which is close
        for rows, row_weights in subsets:
            solution = solve_logistic(x[rows], training.labels[rows], present, self.c, row_weights, solution)
            weights += solution / len(subsets)
        return expand_to_classes(present, len(counts), weights[:, :-1], weights[:, -1], centre, gain)

    def subsets(self, training: TrainingFeatures) -> list[tuple[Ints, Floats]]:
        """Returns the rows of each draw and their weights, which have the same sum in each present class.

        There is one draw only where subsets have all rows.
        """
        labels, sources, counts = training.labels, training.sources, training.counts()
        present = counts[counts > 0]
        size = round(present.min() ** (1 - self.subset_size) * present.max() ** self.subset_size)
        # Random numbers are given to rows in an order that their content determines.
        order = np.lexsort((training.features.sum(axis=1, dtype=np.float64), sources, labels))
        labels, sources = labels[order], sources[order]
        weights = size / np.minimum(counts, size)[labels]
        subsets = []
        for number in range(1 if size >= counts.max() else self.draws):
            rng = np.random.default_rng(number)
            in_source = _rank(rng.random(len(order)), labels, sources)
            # Other random numbers here: a source's lowest of a few is higher than another's lowest of many.
            chosen = _rank(in_source + rng.random(len(order)), labels) < size
            subsets.append((order[chosen], weights[chosen]))
        return subsets


def _rank(values: Floats, *groups: Ints) -> Ints:
    """Returns the rank of each value among those of its group, from 0."""
    order = np.lexsort((values, *groups))
    places = np.arange(len(values))
    begins = places.copy()  # the place where a value's group begins; 0 where the one before is of the same group
    begins[1:][np.all([group[order][1:] == group[order][:-1] for group in groups], axis=0)] = 0
    ranks = np.empty_like(places)
    ranks[order] = places - np.maximum.accumulate(begins)
    return ranks
