"""From unconstrained coordinates to parameters, as Stan does it, and flat log densities made with that.

For parameters θ = T(q) a density is log p(θ, y) + log |det ∂T/∂q|, up to a constant.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Values = Mapping[str, Array]


@dataclass(frozen=True)
class AbstractParameter(abc.ABC):
    """A parameter of a model.

    Args:
        name: Stan's.
        shape: of the constrained value.
    """

    name: str
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many unconstrained coordinates it has."""
        return math.prod(self.shape)

    @abc.abstractmethod
    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """The value and the log of the Jacobian determinant.

        Args:
            x: of shape (size,).
            earlier: values of the parameters before this one, on which its bounds may depend.
        """


@dataclass(frozen=True)
class Real(AbstractParameter):
    """Unbounded."""

    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """As it is."""
        return x.reshape(self.shape), 0.0


@dataclass(frozen=True)
class Positive(AbstractParameter):
    """Above zero: exp(x)."""

    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """Its log Jacobian is x."""
        return jnp.exp(x).reshape(self.shape), jnp.sum(x)


@dataclass(frozen=True)
class Interval(AbstractParameter):
    """Between two bounds: low + (high − low) σ(x).

    Args:
        low: a number.
        high: a number, or a function of the values before.
    """

    low: float = 0.0
    high: float | Callable[[Values], Array] = 1.0

    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """Its log Jacobian is log(high − low) + log σ(x) + log σ(−x)."""
        width = (self.high(earlier) if callable(self.high) else self.high) - self.low
        value = self.low + width * jax.nn.sigmoid(x).reshape(self.shape)
        return value, jnp.sum(jnp.log(width) - jax.nn.softplus(x) - jax.nn.softplus(-x))


@dataclass(frozen=True)
class Ordered(AbstractParameter):
    """Ascending: x_1, x_1 + exp(x_2), ..."""

    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """Its log Jacobian is the sum of all but the first."""
        return jnp.cumsum(jnp.concatenate([x[:1], jnp.exp(x[1:])])), jnp.sum(x[1:])


@dataclass(frozen=True)
class PositiveOrdered(AbstractParameter):
    """Positive and ascending: exp(x_1), exp(x_1) + exp(x_2), ..."""

    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """Its log Jacobian is the sum."""
        return jnp.cumsum(jnp.exp(x)), jnp.sum(x)


@dataclass(frozen=True)
class Pair(AbstractParameter):
    """Two probabilities with sum one: Stan's simplex of two entries, σ(x) and σ(−x)."""

    shape: tuple[int, ...] = (2,)

    @property
    def size(self) -> int:
        """One coordinate."""
        return 1

    def constrain(self, x: Array, earlier: Values) -> tuple[Array, Array | float]:
        """Its log Jacobian is log σ(x) + log σ(−x)."""
        jacobian = -jax.nn.softplus(x[0]) - jax.nn.softplus(-x[0])
        return jax.nn.sigmoid(jnp.concatenate([x, -x])), jacobian


@dataclass(frozen=True)
class Density:
    """A log density over a flat array, written by hand.

    Args:
        parameters: in the order of Stan's program.
        log_joint: from the values of parameters to log p(θ, y), up to a constant.
        derived: what else is to be scored, from the values of parameters.
    """

    parameters: tuple[AbstractParameter, ...]
    log_joint: Callable[[dict[str, Array]], Array]
    derived: Callable[[dict[str, Array]], dict[str, Array]] = lambda _: {}

    @property
    def dimension(self) -> int:
        """How many unconstrained coordinates there are."""
        return sum(parameter.size for parameter in self.parameters)

    def _values(self, q: Array) -> tuple[dict[str, Array], Array]:
        values: dict[str, Array] = {}
        total: Any = 0.0
        first = 0
        for parameter in self.parameters:
            x = q[first : first + parameter.size]
            values[parameter.name], jacobian = parameter.constrain(x, values)
            total += jacobian
            first += parameter.size
        return values, total

    def log_density(self, q: Array) -> Array:
        """At a position of shape (dimension,)."""
        values, jacobian = self._values(q)
        return self.log_joint(values) + jacobian

    def constrain(self, q: Array) -> dict[str, Array]:
        """Values of parameters and what is derived from them."""
        values, _ = self._values(q)
        return values | self.derived(values)
