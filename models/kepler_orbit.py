"""Kepler orbit: the radial velocity of a star that a planet of known period pulls on an eccentric orbit.

Where the planet is at a time follows from Kepler's equation, which has no closed solution. It is solved here by
Newton's method in a `lax.while_loop`, until it has converged. Forward mode differentiates such a loop; reverse mode
cannot, because the number of steps to store is unknown before it runs.

The orbit is written in elements without a singularity: with the eccentricity e, the argument of periastron ω and the
mean longitude λ,

    h = e sin ω,   k = e cos ω,   λ(t) = λ₀ + 2π t / P
    λ = F + h cos F − k sin F                                   Kepler's equation for the eccentric longitude F
    v(t) = γ + K (cos L + k)                                    with the true longitude L, below as a function of F

so that nothing is undefined for a circular orbit (e = 0), and no angle wraps around while it is sampled.

Sources: Murray and Correia (2010), "Keplerian orbits and dynamics of exoplanets", in Seager (ed.), "Exoplanets", for
the radial velocity; Broucke and Cefola (1972), "On the equinoctial orbit elements", Celestial Mechanics 5, 303-310, for
Kepler's equation in F. The data are synthetic: see `simulate`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ..ppl import deterministic, model, plate, rv

PERIOD = 12.5  # days; known, as for a planet that passes in front of its star
TRUTH = MappingProxyType(
    {
        "amplitude": 55.0,  # K, m/s
        "eccentricity": 0.4,
        "periastron": 0.7,  # ω, radians
        "longitude": 2.2,  # λ₀, radians
        "offset": -8.0,  # γ, m/s
        "noise": 4.0,  # standard deviation of a measurement, m/s
    }
)
# fmt: off
DAYS = np.array([  # since the epoch
    0.30, 3.16, 4.30, 4.40, 5.01, 5.35, 5.94, 7.30, 8.04, 16.23, 16.80, 17.83, 18.11, 19.80, 24.55,
    26.92, 27.67, 28.05, 28.08, 31.36, 33.06, 36.78, 37.06, 38.41, 41.64, 42.15, 48.45, 48.80, 55.10, 59.18,
])
VELOCITY = np.array([  # m/s
    -46.91, -34.22, -22.65, -31.78, -12.25, -3.78, 0.77, 24.38, 44.57, -39.71, -21.43, -4.44, -3.70, 15.36, -44.18,
    -42.73, -39.73, -30.85, -41.72, 3.71, 49.95, -35.75, -41.89, -41.65, -22.96, -23.57, -17.20, -33.72, -20.16, 63.47,
])
# fmt: on
MAX_STEPS = 50


def eccentric_longitude(longitude: jax.Array, h: jax.Array, k: jax.Array) -> jax.Array:
    """Solve λ = F + h cos F − k sin F for F by Newton's method.

    Args:
        longitude: λ, radians, any shape.
        h: e sin ω, a scalar.
        k: e cos ω, a scalar; h² + k² < 1.

    Returns:
        F, radians, of the shape of `longitude`, in the same turn.
    """
    # Newton's method squares the error, but the derivative that passes through it lags behind by one step: it is as
    # exact as the last step was short. So the loop runs on until a step no longer matters for gradients either.
    tolerance = jnp.finfo(longitude.dtype).eps ** 0.75

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, step, count = state
        return (jnp.max(jnp.abs(step)) > tolerance) & (count < MAX_STEPS)

    def newton(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        difference, _, count = state  # F − λ, which is at most e
        sine, cosine = jnp.sin(longitude + difference), jnp.cos(longitude + difference)
        step = -(difference + h * cosine - k * sine) / (1.0 - h * sine - k * cosine)
        # The bound matters for orbits close to a parabola alone, where a first step can leap far away.
        step = jnp.clip(step, -1.0, 1.0)
        return difference + step, step, count + 1

    start = k * jnp.sin(longitude) - h * jnp.cos(longitude)
    difference, _, _ = lax.while_loop(unfinished, newton, (start, jnp.full_like(start, jnp.inf), jnp.asarray(0)))
    return longitude + difference


def radial_velocity(days: Any, amplitude: Any, longitude: Any, h: Any, k: Any) -> jax.Array:
    """The velocity of the star along the line of sight, without that of the whole system.

    Args:
        days: times since the epoch, shape (observations,).
        amplitude: K, m/s.
        longitude: mean longitude λ₀ at the epoch, radians.
        h: e sin ω.
        k: e cos ω.

    Returns:
        K (cos L + k), m/s, of the shape of `days`.
    """
    f = eccentric_longitude(longitude + 2.0 * jnp.pi * jnp.asarray(days) / PERIOD, h, k)
    beta = 1.0 / (1.0 + jnp.sqrt(1.0 - h**2 - k**2))
    x = (1.0 - h**2 * beta) * jnp.cos(f) + h * k * beta * jnp.sin(f) - k
    r = 1.0 - k * jnp.cos(f) - h * jnp.sin(f)
    velocity: jax.Array = amplitude * (x / r + k)
    return velocity


@model
def kepler_orbit(days: Any, velocity: Any) -> None:
    """One planet on an eccentric orbit; observed radial velocities of its star.

    What is sampled has no bounds but that of the noise: the vector K (cos λ₀, sin λ₀), and a vector whose direction
    is that of periastron and whose length ρ gives the eccentricity ρ / √(1 + ρ²) < 1. What it means is recorded
    beside it.

    Args:
        days: times since the epoch, shape (observations,).
        velocity: m/s, shape (observations,).
    """
    swing = rv("swing", dist.Normal(0.0, 50.0).expand([2]), dims="axis")
    shape = rv("shape", dist.Normal(0.0, 0.5).expand([2]), dims="axis")
    offset = rv("offset", dist.Normal(0.0, 50.0))
    noise = rv("noise", dist.HalfNormal(10.0))

    k, h = shape / jnp.sqrt(1.0 + jnp.sum(shape**2))
    amplitude = deterministic("amplitude", jnp.hypot(swing[0], swing[1]))
    longitude = deterministic("longitude", jnp.arctan2(swing[1], swing[0]))
    deterministic("eccentricity", jnp.hypot(h, k))
    deterministic("periastron", jnp.arctan2(h, k))

    with plate("observation", len(days)):
        mean = offset + radial_velocity(days, amplitude, longitude, h, k)
        rv("velocity", dist.Normal(mean, noise), obs=velocity)


def simulate(seed: int = 20, observations: int = 30) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Make observations of `TRUTH`: times spread over 60 days, Gaussian noise. `DAYS` and `VELOCITY` are the defaults.

    Args:
        seed: of NumPy's generator.
        observations: how many.

    Returns:
        Days since the epoch and velocities in m/s, both of shape (observations,) and with two decimals.
    """
    rng = np.random.default_rng(seed)
    days = np.sort(rng.uniform(0.0, 60.0, observations)).round(2)
    h = TRUTH["eccentricity"] * np.sin(TRUTH["periastron"])
    k = TRUTH["eccentricity"] * np.cos(TRUTH["periastron"])
    with jax.enable_x64(True):
        clean = np.asarray(radial_velocity(days, TRUTH["amplitude"], TRUTH["longitude"], h, k))
    return days, (TRUTH["offset"] + clean + rng.normal(0.0, TRUTH["noise"], observations)).round(2)
