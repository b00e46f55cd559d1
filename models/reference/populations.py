"""Lynxes and hares: populations that follow differential equations."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ...ppl import model, plate, rv

STEPS = 40  # a year: twice as many change the log density by less than 1e-9 of itself, its gradient by 2e-6


@model
def lotka_volterra(y_init: Any, y: Any) -> None:
    """Prey and predators, counted once a year with multiplicative errors.

        u' = (α − β v) u,    v' = (−γ + δ u) v

    Args:
        y_init: counts of prey and predators in year 0, shape (2,).
        y: counts in the years 1, 2, ..., shape (years, 2).

    Source: Carpenter (2018), "Predator-prey population dynamics: the Lotka-Volterra model in Stan".
    """
    mean, sd = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
    with plate("rate", ("alpha", "beta", "gamma", "delta")):
        theta = rv("theta", dist.TruncatedNormal(mean, sd, low=0.0))
    with plate("species", ("prey", "predator")):
        z_init = rv("z_init", dist.LogNormal(np.log(10.0), 1.0))
        sigma = rv("sigma", dist.LogNormal(-1.0, 1.0))
        rv("y_init", dist.LogNormal(jnp.log(z_init), sigma), obs=y_init)
    z = integrate(z_init, theta, len(y))
    rv("y", dist.LogNormal(jnp.log(z), sigma), obs=y)


def integrate(initial: Any, theta: Any, years: int) -> Any:
    """The populations at the end of each year, by the classical Runge-Kutta method with fixed steps.

    Args:
        initial: populations at the beginning, shape (2,).
        theta: α, β, γ, δ, shape (4,).
        years: how many.

    Returns:
        Shape (years, 2).
    """
    alpha, beta, gamma, delta = theta
    h = 1.0 / STEPS

    def slope(u: Any, v: Any) -> Any:
        return (alpha - beta * v) * u, (delta * u - gamma) * v

    def step(state: Any, _: None) -> Any:
        u, v = state
        u1, v1 = slope(u, v)
        u2, v2 = slope(u + 0.5 * h * u1, v + 0.5 * h * v1)
        u3, v3 = slope(u + 0.5 * h * u2, v + 0.5 * h * v2)
        u4, v4 = slope(u + h * u3, v + h * v3)
        state = u + h / 6 * (u1 + 2 * u2 + 2 * u3 + u4), v + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        return state, state

    _, (u, v) = lax.scan(step, (initial[0], initial[1]), length=years * STEPS)
    return jnp.stack([u, v], axis=1)[STEPS - 1 :: STEPS]
