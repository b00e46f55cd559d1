"""Running mean and covariance of the draws of a warm-up window.

Source: Welford (1962), "Note on a method for calculating corrected sums of squares and products"; the shrinkage
is after Stan's (Reference Manual, "HMC algorithm parameters").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array, on_host


class Moments(NamedTuple):
    """Sufficient statistics of the draws seen so far.

    Args:
        draws: how many, shape ().
        mean: their mean, shape (dimension,).
        scatter: sum of squared deviations, shape (dimension,), or of their outer products, shape
            (dimension, dimension).
    """

    draws: Array
    mean: Array
    scatter: Array


def init_moments(dimension: int, dtype: Any, *, dense: bool) -> Moments:
    """The statistics of no draws, as NumPy arrays."""
    shape = (dimension, dimension) if dense else (dimension,)
    return Moments(*(on_host(np.zeros(size), dtype) for size in ((), dimension, shape)))


def update_moments(moments: Moments, position: Array) -> Moments:
    """The statistics with one more draw, shape (dimension,)."""
    draws = moments.draws + 1
    before = position - moments.mean
    mean = moments.mean + before / draws
    after = position - mean
    product = before * after if moments.scatter.ndim == 1 else jnp.outer(before, after)
    return Moments(draws, mean, moments.scatter + product)


def regularized_covariance(moments: Moments) -> np.ndarray[Any, Any]:
    """The covariance of the draws, shrunk a little towards its own diagonal; on the host.

    With n draws of covariance C and variances D it is (n C + 5·10⁻³ D) / (n + 5), so that a short window never gives
    a singular metric. Stan has the identity for D, which hides correlations between coordinates whose scale is far
    below one. A coordinate that has not moved, or is not finite, counts as of scale one.
    """
    draws = float(moments.draws)
    scatter = np.asarray(moments.scatter)
    covariance = np.where(np.isfinite(scatter), scatter, 0.0) / max(draws - 1.0, 1.0)
    variances = covariance if scatter.ndim == 1 else np.diag(covariance)
    variances = np.where(variances > 0, variances, 1.0)
    own = variances if scatter.ndim == 1 else np.diag(variances)
    return np.asarray((draws * covariance + 5e-3 * own) / (draws + 5.0), scatter.dtype)
