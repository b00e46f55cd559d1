"""Running means and covariances of the draws of a warm-up window, and of whatever else is seen beside them.

Source: Welford (1962), "Note on a method for calculating corrected sums of squares and products"; Chan, Golub and
LeVeque (1983), "Algorithms for computing the sample variance", for joining two windows; the shrinkage is after
Stan's (Reference Manual, "HMC algorithm parameters").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .base import Array, on_host


class Moments(NamedTuple):
    """Sufficient statistics of the vectors seen so far, of one kind of vector or of several at once.

    Args:
        draws: how many, shape ().
        mean: their mean, shape (..., dimension).
        scatter: sum of squared deviations, shape (..., dimension), or of their outer products, shape
            (..., dimension, dimension).
    """

    draws: Array
    mean: Array
    scatter: Array


def init_moments(shape: tuple[int, ...], dtype: Any, *, dense: bool) -> Moments:
    """The statistics of nothing, as NumPy arrays; `shape` is that of what will be seen."""
    scatter = (*shape, shape[-1]) if dense else shape
    return Moments(*(on_host(np.zeros(size), dtype) for size in ((), shape, scatter)))


def update_moments(moments: Moments, seen: Array) -> Moments:
    """The statistics with one more vector of each kind, shape (..., dimension)."""
    draws = moments.draws + 1
    before = seen - moments.mean
    mean = moments.mean + before / draws
    after = seen - mean
    dense = moments.scatter.ndim > moments.mean.ndim
    product = before[..., :, None] * after[..., None, :] if dense else before * after
    return Moments(draws, mean, moments.scatter + product)


def join_moments(one: Moments, other: Moments) -> Moments:
    """The statistics of two windows together; on the host."""
    if not float(one.draws):
        return other
    draws = one.draws + other.draws
    share = other.draws / max(float(draws), 1.0)
    apart = np.asarray(other.mean) - np.asarray(one.mean)
    dense = np.ndim(one.scatter) > np.ndim(one.mean)
    product = apart[..., :, None] * apart[..., None, :] if dense else apart * apart
    scatter = one.scatter + other.scatter + one.draws * share * product
    return Moments(*(on_host(entry, one.mean.dtype) for entry in (draws, one.mean + share * apart, scatter)))


def no_moments(like: Moments) -> Moments:
    """The statistics of nothing, in the shapes of others; on the host."""
    return Moments(*(on_host(np.zeros_like(entry), entry.dtype) for entry in like))


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
