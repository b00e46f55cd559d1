"""Metrics: the linear map L between whitened momenta and velocities, and how it is estimated from draws.

L Lᵀ is the inverse mass matrix of the textbooks. With L = chol(Σ) for the covariance Σ of the target, the
trajectory runs in coordinates where the target is isotropic.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .base import Array
from .mass_matrix import Moments, init_moments, regularized_covariance

HostArray = np.ndarray[Any, Any]


class AbstractMetric(abc.ABC):
    """A family of metrics; the scale L itself is an array that travels with the tuning."""

    @abc.abstractmethod
    def init_scale(self, dimension: int, dtype: Any) -> HostArray:
        """The scale before anything is known: the identity."""

    @abc.abstractmethod
    def colour(self, scale: Array, whitened: Array) -> Array:
        """L u, shape (dimension,): from a whitened momentum to a velocity."""

    @abc.abstractmethod
    def whiten(self, scale: Array, gradient: Array) -> Array:
        """Lᵀ g, shape (dimension,): from a gradient to a whitened force."""

    @abc.abstractmethod
    def init_moments(self, dimension: int, dtype: Any) -> Moments | None:
        """An empty estimate of what this metric needs to know of the target; None if it learns nothing."""

    @abc.abstractmethod
    def scale_from(self, moments: Moments) -> HostArray:
        """The scale that an estimate suggests; on the host."""


@dataclass(frozen=True)
class UnitMetric(AbstractMetric):
    """The identity: every unconstrained coordinate on its own scale. Nothing is adapted."""

    def init_scale(self, dimension: int, dtype: Any) -> HostArray:
        """See `AbstractMetric.init_scale`; a scalar stands for the identity."""
        return np.ones((), dtype)

    def colour(self, scale: Array, whitened: Array) -> Array:
        """See `AbstractMetric.colour`."""
        return whitened

    def whiten(self, scale: Array, gradient: Array) -> Array:
        """See `AbstractMetric.whiten`."""
        return gradient

    def init_moments(self, dimension: int, dtype: Any) -> None:
        """See `AbstractMetric.init_moments`."""
        return

    def scale_from(self, moments: Moments) -> HostArray:
        """See `AbstractMetric.scale_from`."""
        raise AssertionError("a unit metric has no moments to learn from")


@dataclass(frozen=True)
class DiagonalMetric(AbstractMetric):
    """One scale for each coordinate, its standard deviation; the usual choice."""

    def init_scale(self, dimension: int, dtype: Any) -> HostArray:
        """See `AbstractMetric.init_scale`; shape (dimension,)."""
        return np.ones(dimension, dtype)

    def colour(self, scale: Array, whitened: Array) -> Array:
        """See `AbstractMetric.colour`."""
        return scale * whitened

    def whiten(self, scale: Array, gradient: Array) -> Array:
        """See `AbstractMetric.whiten`."""
        return scale * gradient

    def init_moments(self, dimension: int, dtype: Any) -> Moments:
        """See `AbstractMetric.init_moments`."""
        return init_moments(dimension, dtype, dense=False)

    def scale_from(self, moments: Moments) -> HostArray:
        """See `AbstractMetric.scale_from`."""
        return np.sqrt(regularized_covariance(moments))


@dataclass(frozen=True)
class DenseMetric(AbstractMetric):
    """The full covariance: for strongly correlated targets of up to a few hundred coordinates.

    Memory and time grow with the square of the dimension in every leapfrog step, with its cube at each of the
    few updates during warm-up.
    """

    def init_scale(self, dimension: int, dtype: Any) -> HostArray:
        """See `AbstractMetric.init_scale`; shape (dimension, dimension), lower triangular."""
        return np.eye(dimension, dtype=dtype)

    def colour(self, scale: Array, whitened: Array) -> Array:
        """See `AbstractMetric.colour`."""
        return jnp.dot(scale, whitened)

    def whiten(self, scale: Array, gradient: Array) -> Array:
        """See `AbstractMetric.whiten`."""
        return jnp.dot(gradient, scale)

    def init_moments(self, dimension: int, dtype: Any) -> Moments:
        """See `AbstractMetric.init_moments`."""
        return init_moments(dimension, dtype, dense=True)

    def scale_from(self, moments: Moments) -> HostArray:
        """See `AbstractMetric.scale_from`."""
        return np.linalg.cholesky(regularized_covariance(moments))
