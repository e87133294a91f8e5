"""Newton's method for multinomial logistic regression with a squared penalty on the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.errors import NotApplicable

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_MAX_ITERATIONS = 100
_MAX_PRODUCTS = 500
"""Most products with the Hessian in one step of Newton's method."""
_TOLERANCE = 1e-6
"""Length of the gradient that counts as converged. The penalty gives the kernel a curvature of at least 1, so it is
about as close to the exact optimum; biases, which have no penalty, less so."""
_SHORTEST_STEP = 1e-6
_CHUNK = 512
"""Rows that are multiplied at once: few enough to stay in the processor's cache between two products."""
_PRECONDITIONER_AGE = 2
"""Steps of Newton's method with the same preconditioner."""
_PRECONDITIONER_SHARE = 0.95
"""Share of the curvature that the preconditioner accounts for. Where most rows are classified with certainty, few rows
have nearly all of it."""


@dataclass(frozen=True, eq=False)
class PenalisedLoss:
    """The function sum_i w_i L_i + |kernel|^2 / 2 of weights (kernel, bias), shape (n_classes, width + 1).

    L_i is the cross-entropy of row i. Rows are kept in single precision; the loss and its gradient are summed in double
    precision, products with the Hessian in single precision.
    """

    x: Singles
    """Rows, each with a 1 at the end for the bias, shape (n, width + 1)."""
    one_hot: Floats
    """1 for the class of each row, shape (n, n_classes)."""
    row_weights: Floats
    """w_i, shape (n,)."""

    def evaluate(self, weights: Floats) -> tuple[float, Floats, Floats]:
        """Returns the loss, its gradient, and the probabilities of the rows, shape (n, n_classes)."""
        gradient = weights.copy()
        gradient[:, -1] = 0
        loss = float((gradient**2).sum()) / 2
        probabilities = np.empty_like(self.one_hot)
        for part in self._chunks():
            x, w, one_hot = self.x[part].astype(np.float64), self.row_weights[part, None], self.one_hot[part]
            logits = x @ weights.T
            logits -= logits.max(axis=1, keepdims=True)
            odds = np.exp(logits)
            sums = odds.sum(axis=1, keepdims=True)
            probabilities[part] = odds / sums
            loss -= float((w * one_hot * (logits - np.log(sums))).sum())
            gradient += (w * (probabilities[part] - one_hot)).T @ x
        return loss, gradient, probabilities

    def multiply_hessian(self, probabilities: Singles, factors: Singles, direction: Singles) -> Singles:
        """Returns the product of the Hessian with a direction, in the shape of the weights.

        Args:
            probabilities: p, shape (n, n_classes).
            factors: w p, shape (n, n_classes).
            direction: shape (n_classes, width + 1).
        """
        product = direction.copy()
        product[:, -1] = 0
        for part in self._chunks():
            x = self.x[part]
            change = x @ direction.T
            change -= (probabilities[part] * change).sum(axis=1, keepdims=True)
            change *= factors[part]
            product += change.T @ x
        return product

    def precondition(self, probabilities: Floats) -> Callable[[Singles], Singles]:
        """Returns a function that divides by an approximate Hessian: the same for each class, with its mean curvature.

        Args:
            probabilities: shape (n, n_classes).
        """
        from scipy.linalg import cho_factor, cho_solve

        curvature = self.row_weights * (probabilities * (1 - probabilities)).mean(axis=1)
        order = np.argsort(-curvature, kind="stable")
        sums = np.cumsum(curvature[order])
        rows = np.sort(order[: int(np.searchsorted(sums, _PRECONDITIONER_SHARE * sums[-1])) + 1])
        scaled = self.x[rows] * np.sqrt(curvature[rows]).astype(np.float32)[:, None]
        matrix = scaled.T @ scaled
        diagonal = matrix.reshape(-1)[:: len(matrix) + 1]
        diagonal[:-1] += 1
        # The bias has no penalty; a little more than its curvature keeps the matrix positive definite when rounded.
        diagonal[-1] = 1.001 * diagonal[-1] + 1e-6
        factor = cho_factor(matrix, overwrite_a=True, check_finite=False)
        return lambda residual: np.ascontiguousarray(cho_solve(factor, residual.T, check_finite=False).T)

    def _chunks(self) -> Iterator[slice]:
        return (slice(start, start + _CHUNK) for start in range(0, len(self.x), _CHUNK))


def minimise(objective: PenalisedLoss, start: Floats | None = None) -> Floats:
    """Returns the weights of least loss, by Newton's method with preconditioned conjugate gradients.

    Each step solves its linear system the more closely, the shorter the gradient is (Nocedal & Wright 2006, chapter 7).

    Args:
        objective: the loss.
        start: weights to begin at, such as those of a similar problem; zeros if None.

    Raises:
        NotApplicable: the method did not converge.
    """
    # The products are short. Threads of several processes on the same cores wait for each other many times longer.
    with _blas_libraries().limit(limits=1, user_api="blas"):
        return _minimise(objective, start)


@functools.cache
def _blas_libraries() -> ThreadpoolController:
    """Returns the libraries that compute products here; finding them takes longer than a small problem."""
    import scipy.linalg  # noqa: F401  (it has a library of its own, which must be loaded to be found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _minimise(objective: PenalisedLoss, start: Floats | None) -> Floats:
    weights = np.zeros((objective.one_hot.shape[1], objective.x.shape[1])) if start is None else start.copy()
    loss, gradient, probabilities = objective.evaluate(weights)
    first_length = float(np.linalg.norm(gradient))
    for iteration in range(_MAX_ITERATIONS):
        length = float(np.linalg.norm(gradient))
        if length <= _TOLERANCE:
            return weights
        if iteration % _PRECONDITIONER_AGE == 0:
            precondition = objective.precondition(probabilities)
        accuracy = min(0.3, (length / first_length) ** 0.5)
        step = _solve_newton(objective, probabilities, gradient, precondition, accuracy)
        slope = float((gradient * step).sum())
        size = 1.0
        while True:
            trial_loss, trial_gradient, trial_probabilities = objective.evaluate(weights + size * step)
            # Near the optimum, rounding hides the decrease.
            if trial_loss <= loss + 1e-4 * size * slope + 1e-12 * abs(loss):
                break
            size /= 2
            if size < _SHORTEST_STEP:
                raise NotApplicable(f"no step of Newton's method lowers the loss; its gradient is {length:.1e} long")
        weights += size * step
        loss, gradient, probabilities = trial_loss, trial_gradient, trial_probabilities
    raise NotApplicable(f"after {_MAX_ITERATIONS} steps of Newton's method the gradient is {length:.1e} long")


def _solve_newton(
    objective: PenalisedLoss,
    probabilities: Floats,
    gradient: Floats,
    precondition: Callable[[Singles], Singles],
    accuracy: float,
) -> Floats:
    """Returns an approximate solution of Hessian x step = -gradient, by conjugate gradients.

    Args:
        objective: the loss.
        probabilities: those of the current weights, shape (n, n_classes).
        gradient: that of the current weights.
        precondition: divides by an approximate Hessian.
        accuracy: largest remaining error relative to the gradient, in the norm of the preconditioner.
    """
    p = probabilities.astype(np.float32)
    factors = (objective.row_weights[:, None] * probabilities).astype(np.float32)
    residual = -gradient.astype(np.float32)
    step = np.zeros_like(residual)
    direction = precondition(residual)
    first_error = error = float((residual * direction).sum())
    for _ in range(_MAX_PRODUCTS):
        product = objective.multiply_hessian(p, factors, direction)
        size = error / float((direction * product).sum())
        step += size * direction
        residual -= size * product
        preconditioned = precondition(residual)
        previous, error = error, float((residual * preconditioned).sum())
        if error <= accuracy**2 * first_error:
            break
        direction = preconditioned + (error / previous) * direction
    return step.astype(np.float64)
