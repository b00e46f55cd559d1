"""The leapfrog integrator of Hamilton's equations, in whitened momenta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from .base import Array
from .metrics import AbstractMetric

ValueAndGradient = Callable[[Array], tuple[Array, Array]]


class Point(NamedTuple):
    """A point of phase space with what is known there.

    Args:
        position: q, shape (dimension,).
        momentum: u, whitened, shape (dimension,).
        log_density: log π(q), shape ().
        gradient: ∇log π(q), shape (dimension,).
        record: what an integrator keeps of its way from the start to here, a pytree; None where it keeps nothing.
    """

    position: Array
    momentum: Array
    log_density: Array
    gradient: Array
    record: Any = None


@dataclass(frozen=True)
class Leapfrog:
    """The leapfrog integrator of one target under one metric.

    Args:
        scale: L of the metric.
        metric: how L acts.
        value_and_gradient: of the log density.

    Source: Neal (2011), "MCMC using Hamiltonian dynamics", section 2.3.
    """

    scale: Array
    metric: AbstractMetric
    value_and_gradient: ValueAndGradient

    def kick(self, momentum: Array, gradient: Array, time: Array) -> Array:
        """The momentum u + t Lᵀ∇log π(q)."""
        return momentum + time * self.metric.whiten(self.scale, gradient)

    def drift(self, position: Array, momentum: Array, time: Array) -> Array:
        """The position q + t L u."""
        return position + time * self.metric.colour(self.scale, momentum)

    def step(self, point: Point, step_size: Array) -> Point:
        """One leapfrog step; a negative step size goes back in time, exactly.

            u ← u + ε/2 Lᵀ∇log π(q);   q ← q + ε L u;   u ← u + ε/2 Lᵀ∇log π(q)

        The gradient at the start is the one that the step before left in `point`, so a step costs one evaluation.
        """
        half = 0.5 * step_size
        momentum = self.kick(point.momentum, point.gradient, half)
        position = self.drift(point.position, momentum, step_size)
        log_density, gradient = self.value_and_gradient(position)
        return Point(position, self.kick(momentum, gradient, half), log_density, gradient)

    def steps(self, point: Point, step_size: Array, count: int) -> Point:
        """`count` leapfrog steps, with the two half kicks between them as one.

        What is known of the points between is not computed but for the gradient, which loses nothing to a small loop.
        """

        def move(_: Any, now: tuple[Array, Array]) -> tuple[Array, Array]:
            position = self.drift(*now, step_size)
            return position, self.kick(now[1], self.value_and_gradient(position)[1], step_size)

        first = (point.position, self.kick(point.momentum, point.gradient, 0.5 * step_size))
        position, momentum = lax.fori_loop(0, count - 1, move, first)
        position = self.drift(position, momentum, step_size)
        log_density, gradient = self.value_and_gradient(position)
        return Point(position, self.kick(momentum, gradient, 0.5 * step_size), log_density, gradient)


def energy(point: Point) -> Array:
    """H = −log π(q) + ½ uᵀu, shape (); +∞ where it is not a number, so that such a point is never taken."""
    value = 0.5 * jnp.dot(point.momentum, point.momentum) - point.log_density
    return jnp.where(jnp.isnan(value), jnp.inf, value)
