"""Trajectories of isokinetic dynamics: the gradient turns the velocity and leaves the speed as it is.

In whitened coordinates x, q = L x, with velocities v of length √d in d dimensions, as long as whitened momenta are:

    dx/dt = v,   dv/dt = (1 − v vᵀ/d) g · d/(d − 1),   g = Lᵀ∇log π(q)

A particle at constant speed stays for longer where the density is higher, just long enough that its positions have
the density π and its directions are uniform. While the gradient keeps its value the second equation has an exact
solution, so that the flow is split as the leapfrog integrator splits Hamilton's.

Source: Robnik, De Luca, Silverstein and Seljak (2023), "Microcanonical Hamiltonian Monte Carlo"; Ver Steeg and Galstyan
(2021), "Hamiltonian dynamics with non-Newtonian momentum for rapid sampling"; the change of volume is that of Robnik,
Cohn-Gordon and Seljak (2025), "Metropolis adjusted microcanonical Hamiltonian Monte Carlo".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import Array
from .integrators import Leapfrog, Point


class Flight(NamedTuple):
    """A point on a trajectory with what has happened since its start.

    Args:
        position: q, shape (dimension,).
        velocity: v, whitened, shape (dimension,).
        log_density: log π(q), shape ().
        gradient: ∇log π(q), shape (dimension,).
        log_volume: the logarithm of the change of volume in the space of positions and directions, shape (). In
            Hamiltonian dynamics, where momenta have a density themselves, its logarithm, less that at the start.
        displacement: sum of the velocities of all drifts, shape (dimension,).
    """

    position: Array
    velocity: Array
    log_density: Array
    gradient: Array
    log_volume: Array
    displacement: Array


def turn(velocity: Array, force: Array, time: Array) -> tuple[Array, Array]:
    """Turn a velocity towards a force, exactly.

        v ← √d (w + e (sinh φ + (e·w)(cosh φ − 1))) / (cosh φ + (e·w) sinh φ)
        log|∂v′/∂v| = −(d − 1) log(cosh φ + (e·w) sinh φ)
        w = v / √d,   e = g / |g|,   φ = t |g| √d / (d − 1)

    Args:
        velocity: v of length √d, shape (d,), d ≥ 2.
        force: g, shape (d,).
        time: t ≥ 0, shape ().

    Returns:
        The new velocity, and the logarithm of the change of volume on the sphere, shape ().
    """
    speed, freedom = math.sqrt(velocity.size), velocity.size - 1
    tiny = float(np.finfo(velocity.dtype).tiny)
    size = jnp.sqrt(jnp.dot(force, force))
    towards, unit = force / jnp.maximum(size, tiny), velocity / speed
    angle = time * size * (speed / freedom)
    along = jnp.clip(jnp.dot(towards, unit), -1.0, 1.0)
    # Everything times 2 exp(−φ), so that no exponential overflows.
    decay = jnp.exp(-angle)
    turned = 2.0 * decay * unit + (1.0 - decay) * (1.0 + decay + along * (1.0 - decay)) * towards
    stretch = 0.5 * (1.0 + along + (1.0 - along) * decay * decay)
    # Its length is known but for rounding, which would add up.
    turned = turned * (speed / jnp.sqrt(jnp.dot(turned, turned)))
    return turned, -freedom * (angle + jnp.log(jnp.maximum(stretch, tiny)))


def fly(flow: Leapfrog, start: Point, step_size: Array, count: Array, hamiltonian: Array) -> Flight:
    """`count` steps from a point with a normal momentum, whose direction is that of the first velocity.

    Run backwards, from its end with the opposite velocity, a trajectory comes by the same points. A proposal that is
    made by it is accepted with probability min(1, exp(log π(q′) − log π(q) + log_volume)).

    Args:
        flow: the metric, its scale, and the gradient.
        start: where it begins.
        step_size: ε > 0, shape ().
        count: how many steps, at least 1, shape (); each costs one gradient.
        hamiltonian: whether the momentum is kept as it is and follows Hamilton's equations instead, shape ().
    """

    def kick(flight: Flight, time: Array) -> Flight:
        force = flow.metric.whiten(flow.scale, flight.gradient)
        turned, log_volume = turn(flight.velocity, force, time)
        kicked = flight.velocity + time * force
        log_momenta = 0.5 * (jnp.dot(flight.velocity, flight.velocity) - jnp.dot(kicked, kicked))
        return flight._replace(
            velocity=jnp.where(hamiltonian, kicked, turned),
            log_volume=flight.log_volume + jnp.where(hamiltonian, log_momenta, log_volume),
        )

    def step(i: Any, flight: Flight) -> Flight:
        position = flow.drift(flight.position, flight.velocity, step_size)
        log_density, gradient = flow.value_and_gradient(position)
        moved = flight._replace(
            position=position,
            log_density=log_density,
            gradient=gradient,
            displacement=flight.displacement + flight.velocity,
        )
        # The half kicks at the end of this step and at the beginning of the next are one.
        return kick(moved, jnp.where(i == count - 1, 0.5, 1.0) * step_size)

    momentum = start.momentum
    velocity = momentum * (math.sqrt(momentum.size) / jnp.sqrt(jnp.dot(momentum, momentum)))
    first = Flight(
        position=start.position,
        velocity=jnp.where(hamiltonian, momentum, velocity),
        log_density=start.log_density,
        gradient=start.gradient,
        log_volume=jnp.zeros_like(start.log_density),
        displacement=jnp.zeros_like(start.position),
    )
    flown: Flight = lax.fori_loop(0, count, step, kick(first, 0.5 * step_size))
    return flown
