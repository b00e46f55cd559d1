"""Metrics: the linear map L between whitened momenta and velocities, and how it is learned.

L Lᵀ is the inverse mass matrix of the textbooks. Where L Lᵀ is the covariance of the target, the trajectory runs in
coordinates where the target is isotropic.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array
from .estimators import AbstractEstimator, FisherDivergence
from .mass_matrix import Moments, init_moments, join_moments, no_moments, update_moments

HostArray = np.ndarray[Any, Any]

# Up to here a product with a matrix is quickest as a sum of its columns, which XLA joins with the operations around it;
# beyond, as a call of BLAS.
_JOINED = 64
# A dense metric and what is learned of it beyond this size are five matrices of more than 80 MB each.
LARGEST_DENSE = 3_000


class AbstractMetric(abc.ABC):
    """A family of metrics. The scale, L itself, and the memory, what is being learned of it, travel with the tuning."""

    def check(self, dimension: int, subject: str) -> None:
        """Refuse more coordinates than this metric is for.

        Raises:
            ValueError: beginning with the subject.
        """
        return

    @abc.abstractmethod
    def init_scale(self, dimension: int, dtype: Any) -> Any:
        """The scale before anything is known: the identity. A pytree of NumPy arrays."""

    @abc.abstractmethod
    def colour(self, scale: Any, whitened: Array) -> Array:
        """L u, shape (dimension,): from a whitened momentum to a velocity."""

    @abc.abstractmethod
    def whiten(self, scale: Any, gradient: Array) -> Array:
        """Lᵀ g, shape (dimension,): from a gradient to a whitened force."""

    @abc.abstractmethod
    def init_memory(self, dimension: int, dtype: Any) -> Any:
        """A memory of nothing, a pytree of NumPy arrays; None if this metric learns nothing."""

    @abc.abstractmethod
    def remember(self, memory: Any, position: Array, gradient: Array, keep: Array) -> Any:
        """The memory with one more draw and its score, shape (dimension,) each, where `keep` says so, shape ()."""

    @abc.abstractmethod
    def learn(self, memory: Any, scale: Any) -> Any:
        """The scale that a memory suggests, given the scale so far; on the host."""

    @abc.abstractmethod
    def close(self, memory: Any, *, overlap: bool) -> Any:
        """The memory at the beginning of a new window; on the host.

        Args:
            memory: at the end of the window before.
            overlap: whether that window is to count in what is learned at the end of the new one, too.
        """


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

    def init_memory(self, dimension: int, dtype: Any) -> None:
        """See `AbstractMetric.init_memory`."""
        return

    def remember(self, memory: None, position: Array, gradient: Array, keep: Array) -> None:
        """See `AbstractMetric.remember`."""
        return

    def learn(self, memory: None, scale: HostArray) -> HostArray:
        """See `AbstractMetric.learn`."""
        return scale

    def close(self, memory: None, *, overlap: bool) -> None:
        """See `AbstractMetric.close`."""
        return


class Windows(NamedTuple):
    """Moments of draws and scores, stacked in this order.

    Args:
        older: of the window before the open one.
        current: of the open window.
    """

    older: Moments
    current: Moments


def remember_moments(memory: Windows, position: Array, gradient: Array, keep: Array) -> Windows:
    """Moments with one more draw and its score."""
    seen = update_moments(memory.current, jnp.stack([position, gradient]))
    return memory._replace(
        current=Moments(*(jnp.where(keep, new, old) for new, old in zip(seen, memory.current, strict=True)))
    )


def close_moments(memory: Windows, *, overlap: bool) -> Windows:
    """The moments at the beginning of a new window."""
    nothing = no_moments(memory.current)
    return Windows(memory.current if overlap else nothing, nothing)


@dataclass(frozen=True)
class DiagonalMetric(AbstractMetric):
    """One scale for each coordinate.

    Args:
        estimator: how the scales are learned.
    """

    estimator: AbstractEstimator = field(default_factory=FisherDivergence)

    def init_scale(self, dimension: int, dtype: Any) -> HostArray:
        """See `AbstractMetric.init_scale`; shape (dimension,)."""
        return np.ones(dimension, dtype)

    def colour(self, scale: Array, whitened: Array) -> Array:
        """See `AbstractMetric.colour`."""
        return scale * whitened

    def whiten(self, scale: Array, gradient: Array) -> Array:
        """See `AbstractMetric.whiten`."""
        return scale * gradient

    def init_memory(self, dimension: int, dtype: Any) -> Windows:
        """See `AbstractMetric.init_memory`."""
        nothing = init_moments((2, dimension), dtype, dense=False)
        return Windows(nothing, nothing)

    def remember(self, memory: Windows, position: Array, gradient: Array, keep: Array) -> Windows:
        """See `AbstractMetric.remember`."""
        return remember_moments(memory, position, gradient, keep)

    def learn(self, memory: Windows, scale: HostArray) -> HostArray:
        """See `AbstractMetric.learn`."""
        return self.estimator.scales(join_moments(*memory), scale)

    def close(self, memory: Windows, *, overlap: bool) -> Windows:
        """See `AbstractMetric.close`."""
        return close_moments(memory, overlap=overlap)


@dataclass(frozen=True)
class DenseMetric(AbstractMetric):
    """The full covariance: for strongly correlated targets of up to a few hundred coordinates.

    Memory and time grow with the square of the dimension in every leapfrog step, with its cube at each of the
    few updates during warm-up.

    Args:
        estimator: how the covariance is learned.
    """

    estimator: AbstractEstimator = field(default_factory=FisherDivergence)

    def check(self, dimension: int, subject: str) -> None:
        """See `AbstractMetric.check`."""
        if dimension > LARGEST_DENSE:
            raise ValueError(
                f"{subject}: a dense metric for {dimension} coordinates would take {8e-9 * dimension**2:.1f} GB, and "
                f"four times as much to learn it. Use metric=LowRankMetric() or DiagonalMetric() beyond "
                f"{LARGEST_DENSE} coordinates."
            )

    def init_scale(self, dimension: int, dtype: Any) -> HostArray:
        """See `AbstractMetric.init_scale`; shape (dimension, dimension)."""
        return np.eye(dimension, dtype=dtype)

    def colour(self, scale: Array, whitened: Array) -> Array:
        """See `AbstractMetric.colour`."""
        return multiply(scale, whitened)

    def whiten(self, scale: Array, gradient: Array) -> Array:
        """See `AbstractMetric.whiten`."""
        return multiply(scale.T, gradient)

    def init_memory(self, dimension: int, dtype: Any) -> Windows:
        """See `AbstractMetric.init_memory`."""
        nothing = init_moments((2, dimension), dtype, dense=True)
        return Windows(nothing, nothing)

    def remember(self, memory: Windows, position: Array, gradient: Array, keep: Array) -> Windows:
        """See `AbstractMetric.remember`."""
        return remember_moments(memory, position, gradient, keep)

    def learn(self, memory: Windows, scale: HostArray) -> HostArray:
        """See `AbstractMetric.learn`."""
        return self.estimator.factor(join_moments(*memory), scale)

    def close(self, memory: Windows, *, overlap: bool) -> Windows:
        """See `AbstractMetric.close`."""
        return close_moments(memory, overlap=overlap)


def multiply(matrix: Array, vector: Array) -> Array:
    """A matrix times a vector."""
    if matrix.shape[0] <= _JOINED:
        return jnp.sum(matrix * vector[None, :], axis=1)
    return jnp.dot(matrix, vector)
