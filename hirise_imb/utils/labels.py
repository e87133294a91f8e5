"""Class ids of labels of any type, for the functions that take plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


def encode_labels(arrays: Mapping[str, ArrayLike], labels: ArrayLike | None) -> tuple[list[Any], list[Ints]]:
    """Returns the classes, and for each array the positions of its values among them, in the same shape.

    Args:
        arrays: labels by the name that messages give them.
        labels: all classes, in order; None for the values in the arrays, sorted.

    Raises:
        ValueError: a value is missing or not among the classes, classes are repeated, or types can't be compared.
    """
    import pandas as pd

    values = {name: np.asarray(array) for name, array in arrays.items()}
    if missing := [name for name, array in values.items() if pd.isna(array).any()]:
        raise ValueError(f"{missing[0]} has a missing value: give every row a class.")
    if labels is None:
        try:
            classes = sorted({value for array in values.values() for value in array.ravel().tolist()})
        except TypeError as error:
            raise ValueError(f"{' and '.join(values)} must have labels of one type: {error}.") from error
    else:
        classes = np.asarray(labels).tolist()
    numbers = {name: number for number, name in enumerate(classes)}
    if len(numbers) < len(classes):
        raise ValueError("labels must not name a class twice.")
    encoded = []
    for name, array in values.items():
        try:
            ids = [numbers[value] for value in array.ravel().tolist()]
        except KeyError as error:
            raise ValueError(f"{name} has the class {error.args[0]!r}, which labels do not name.") from error
        encoded.append(np.array(ids, np.int64).reshape(array.shape))
    return classes, encoded
