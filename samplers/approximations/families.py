"""Families of normal distributions for variational inference, x = μ + M z with z ~ N(0, I)."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from ..base import Array

# Location and scale of a member of a family, as arrays without constraints.
Parameters = dict[str, Array]


class AbstractFamily(abc.ABC):
    """A family of normal distributions as the user writes it: a frozen value.

    To add one, implement these five functions of its parameters.
    """

    @abc.abstractmethod
    def init(self, location: Any, scale: float) -> Parameters:
        """The member with mean `location`, shape (dimension,), and M = `scale` I."""

    @abc.abstractmethod
    def draw(self, parameters: Parameters, noise: Array) -> Array:
        """The draw x = μ + M z, shape (dimension,), from z of the same shape; differentiable in the parameters."""

    @abc.abstractmethod
    def whiten(self, parameters: Parameters, slope: Array) -> Array:
        """Mᵀ v: a gradient in the units of the standard deviations, shape (dimension,)."""

    @abc.abstractmethod
    def unwhiten(self, parameters: Parameters, noise: Array) -> Array:
        """M⁻ᵀ z, shape (dimension,); minus it is the gradient of log q at the draw from z."""

    @abc.abstractmethod
    def log_scale(self, parameters: Parameters) -> Array:
        """The log of |det M|, shape ()."""


@dataclass(frozen=True)
class MeanField(AbstractFamily):
    """Independent coordinates: M is diagonal. Variances come out too small where the posterior is correlated."""

    def init(self, location: Any, scale: float) -> Parameters:
        """See `AbstractFamily.init`."""
        location = jnp.asarray(location)
        return {"location": location, "log_diagonal": jnp.full_like(location, jnp.log(scale))}

    def draw(self, parameters: Parameters, noise: Array) -> Array:
        """See `AbstractFamily.draw`."""
        return parameters["location"] + jnp.exp(parameters["log_diagonal"]) * noise

    def whiten(self, parameters: Parameters, slope: Array) -> Array:
        """See `AbstractFamily.whiten`."""
        return jnp.exp(parameters["log_diagonal"]) * slope

    def unwhiten(self, parameters: Parameters, noise: Array) -> Array:
        """See `AbstractFamily.unwhiten`."""
        return jnp.exp(-parameters["log_diagonal"]) * noise

    def log_scale(self, parameters: Parameters) -> Array:
        """See `AbstractFamily.log_scale`."""
        return jnp.sum(parameters["log_diagonal"])


@dataclass(frozen=True)
class FullRank(AbstractFamily):
    """Any covariance: M is lower triangular with a positive diagonal. For up to some hundred coordinates."""

    def init(self, location: Any, scale: float) -> Parameters:
        """See `AbstractFamily.init`."""
        location = jnp.asarray(location)
        below = jnp.zeros((location.size, location.size), location.dtype)
        return {"location": location, "log_diagonal": jnp.full_like(location, jnp.log(scale)), "below": below}

    def draw(self, parameters: Parameters, noise: Array) -> Array:
        """See `AbstractFamily.draw`."""
        return parameters["location"] + self._matrix(parameters) @ noise

    def whiten(self, parameters: Parameters, slope: Array) -> Array:
        """See `AbstractFamily.whiten`."""
        return slope @ self._matrix(parameters)

    def unwhiten(self, parameters: Parameters, noise: Array) -> Array:
        """See `AbstractFamily.unwhiten`."""
        solved: Array = solve_triangular(self._matrix(parameters), noise, lower=True, trans="T")
        return solved

    def log_scale(self, parameters: Parameters) -> Array:
        """See `AbstractFamily.log_scale`."""
        return jnp.sum(parameters["log_diagonal"])

    def _matrix(self, parameters: Parameters) -> Array:
        return jnp.tril(parameters["below"], -1) + jnp.diag(jnp.exp(parameters["log_diagonal"]))
