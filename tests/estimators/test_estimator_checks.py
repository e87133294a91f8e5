"""Every public estimator passes scikit-learn's own checks; every sampler those of imbalanced-learn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from imblearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.estimator_checks import parametrize_with_checks

from hirise_imb import estimators, samplers

Estimator = Any
ESTIMATORS = [
    *(getattr(estimators, name)() for name in estimators.__all__),
    estimators.NearestMeanClassifier("centred_unit", 0.0),
    estimators.TauNormalisedClassifier(tau=0.5, keep_bias=False),
    estimators.TemperatureScalingClassifier(bias=True, cv=3),
]


@parametrize_with_checks(ESTIMATORS)  # type: ignore[untyped-decorator]
def test_scikit_learn_checks(estimator: Estimator, check: Callable[[Estimator], None]) -> None:
    check(estimator)


SAMPLERS = [getattr(samplers, name)(random_state=0) for name in samplers.__all__]


@parametrize_with_checks(SAMPLERS)  # type: ignore[untyped-decorator]
def test_scikit_learn_checks_of_samplers(estimator: Estimator, check: Callable[[Estimator], None]) -> None:
    check(estimator)


def name_part(part: object) -> str:
    """The name of a sampler or of a check, without its address, which differs between the processes of a test run."""
    return part.func.__name__ if isinstance(part, functools.partial) else str(part)


# imbalanced-learn's own decorator hands pytest a generator, which pytest refuses.
@pytest.mark.parametrize(
    ("estimator", "check"),
    [pair for sampler in SAMPLERS for pair in estimator_checks_generator(sampler)],
    ids=name_part,
)
def test_imbalanced_learn_checks(estimator: Estimator, check: Callable[[Estimator], None]) -> None:
    check(estimator)
