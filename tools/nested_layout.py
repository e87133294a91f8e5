"""The layout of the real sample: which source has how many landmarks of which class, and its outer folds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data import HIRISE
from hirise_imb.data.folds import assign_folds

Ints = NDArray[np.int64]

N_CLASSES = len(HIRISE.classes)
N_FOLDS = 5
"""Outer folds."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The classes and sources of all landmarks, and the given split."""

    counts: Ints
    """Number of landmarks of each source and class, shape (n_sources, n_classes)."""
    is_test: NDArray[np.bool_]
    """Whether each source is in the given test split, shape (n_sources,)."""

    def repeat(self, times: int) -> Layout:
        """Returns a layout with this many sources for each source."""
        return Layout(np.tile(self.counts, (times, 1)), np.tile(self.is_test, times))

    @cached_property
    def cells(self) -> tuple[Ints, Ints]:
        """Source and class of each landmark, each of shape (n,)."""
        sources, labels = np.nonzero(self.counts)
        repeats = self.counts[sources, labels]
        return np.repeat(sources, repeats), np.repeat(labels, repeats)


@lru_cache
def sample_layout() -> Layout:
    """Returns the layout of the real sample."""
    table = pd.read_csv(Path(__file__).with_name("sample_layout.csv"))
    return Layout(table.iloc[:, 1:].to_numpy(np.int64), (table["split"] == "test").to_numpy())


@lru_cache(maxsize=4)
def outer_folds(number: int) -> Ints:
    """Returns the outer fold of each source of the sample in an assignment, shape (n_sources,)."""
    layout = sample_layout()
    sources, labels = layout.cells
    fold_of = np.zeros(len(layout.counts), np.int64)
    fold_of[sources] = assign_folds(labels, sources, HIRISE.classes, N_FOLDS, number).folds
    return fold_of
