"""The leapfrog integrator of Hamilton's equations, in whitened momenta."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

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
    """

    position: Array
    momentum: Array
    log_density: Array
    gradient: Array


def leapfrog(
    point: Point, step_size: Array, scale: Array, metric: AbstractMetric, value_and_gradient: ValueAndGradient
) -> Point:
    """One leapfrog step; a negative step size goes back in time, exactly.

        u ← u + ε/2 Lᵀ∇log π(q);   q ← q + ε L u;   u ← u + ε/2 Lᵀ∇log π(q)

    The gradient at the start is the one that the step before left in `point`, so a step costs one evaluation.

    Source: Neal (2011), "MCMC using Hamiltonian dynamics", section 2.3.
    """
    half = 0.5 * step_size
    momentum = point.momentum + half * metric.whiten(scale, point.gradient)
    position = point.position + step_size * metric.colour(scale, momentum)
    log_density, gradient = value_and_gradient(position)
    momentum = momentum + half * metric.whiten(scale, gradient)
    return Point(position, momentum, log_density, gradient)


def energy(point: Point) -> Array:
    """H = −log π(q) + ½ uᵀu, shape (); +∞ where it is not a number, so that such a point is never taken."""
    value = 0.5 * jnp.dot(point.momentum, point.momentum) - point.log_density
    return jnp.where(jnp.isnan(value), jnp.inf, value)
