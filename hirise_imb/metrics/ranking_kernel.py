"""Precision-recall curves of many weighted draws of the same landmarks, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.compilation import compile_function


@compile_function()
def score_curves(
    positive: NDArray[np.bool_],
    is_threshold: NDArray[np.bool_],
    groups: NDArray[np.int64],
    weights: NDArray[np.float64],
    precision: float,
) -> NDArray[np.float64]:
    """Returns the score of a class in each draw, shape (n_draws,); NaN where no landmark of the class is drawn.

    Args:
        positive: whether each landmark, the most probable first, belongs to the class, shape (n,).
        is_threshold: whether a threshold follows the landmark: it is the last of equally probable ones, shape (n,).
        groups: index of the group of each landmark, shape (n,).
        weights: how often each group counts in each draw, shape (n_draws, n_groups).
        precision: the score is the highest recall at a threshold with at least this precision; for 0, the average
            precision.
    """
    scores = np.empty(len(weights))
    for draw in range(len(weights)):
        shown, hits, before, total, best = 0.0, 0.0, 0.0, 0.0, 0.0
        for place in range(len(positive)):
            weight = weights[draw, groups[place]]
            shown += weight
            if positive[place]:
                hits += weight
            if is_threshold[place] and shown > 0.0:
                reached = hits / shown
                total += (hits - before) * reached
                before = hits
                if reached >= precision:
                    best = max(best, hits)
        if hits == 0.0:
            scores[draw] = np.nan
        elif precision > 0.0:
            scores[draw] = best / hits
        else:
            scores[draw] = total / hits
    return scores
