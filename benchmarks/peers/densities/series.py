"""Time series whose log density is a loop: GARCH, a hidden Markov model, an ODE, stochastic volatility."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..transforms import Density, Interval, Pair, Positive, PositiveOrdered, Real
from .terms import cauchy, lognormal, normal

Data = dict[str, Any]
Array = jax.Array

# Steps of the integrator in a year, as many as in the model of dualtape: half as many leave an error of 1e-6.
STEPS_A_YEAR = 40


def garch(data: Data) -> Density:
    """GARCH(1,1): the variance follows the square of the shock before."""
    y, first = data["y"], float(data["sigma1"]) ** 2

    def log_joint(v: dict[str, Array]) -> Array:
        def following(variance: Array, shock: Array) -> tuple[Array, Array]:
            variance = v["alpha0"] + v["alpha1"] * shock * shock + v["beta1"] * variance
            return variance, variance

        shocks = y - v["mu"]
        _, later = lax.scan(following, jnp.asarray(first), shocks[:-1])
        variances = jnp.append(first, later)
        return -0.5 * jnp.sum(jnp.log(variances) + shocks * shocks / variances)

    return Density(
        (Real("mu"), Positive("alpha0"), Interval("alpha1"), Interval("beta1", high=lambda v: 1.0 - v["alpha1"])),
        log_joint,
    )


def hidden_markov(data: Data) -> Density:
    """Two hidden states, by the forward algorithm."""
    y = data["y"]

    def log_joint(v: dict[str, Array]) -> Array:
        log_theta = jnp.log(jnp.stack([v["theta1"], v["theta2"]]))
        emissions = -0.5 * (y[:, None] - v["mu"]) ** 2

        def forward(alpha: Array, emission: Array) -> tuple[Array, None]:
            return jax.nn.logsumexp(alpha[:, None] + log_theta, axis=0) + emission, None

        alpha, _ = lax.scan(forward, emissions[0], emissions[1:])
        prior = normal(v["mu"], jnp.array([3.0, 10.0]), 1.0)
        return prior + jax.nn.logsumexp(alpha)

    return Density((Pair("theta1"), Pair("theta2"), PositiveOrdered("mu", (2,))), log_joint)


def populations(theta: Array, start: Array, years: int) -> Array:
    """Hare and lynx after each year, by Runge and Kutta's method of fourth order; shape (years, 2).

    du/dt = (α − β v) u, dv/dt = (−γ + δ u) v.
    """
    alpha, beta, gamma, delta = theta

    def slope(u: Array, v: Array) -> tuple[Array, Array]:
        return (alpha - beta * v) * u, (delta * u - gamma) * v

    def step(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        h = 1.0 / STEPS_A_YEAR
        u, v = state
        a1, b1 = slope(u, v)
        a2, b2 = slope(u + h / 2 * a1, v + h / 2 * b1)
        a3, b3 = slope(u + h / 2 * a2, v + h / 2 * b2)
        a4, b4 = slope(u + h * a3, v + h * b3)
        return u + h / 6 * (a1 + 2 * (a2 + a3) + a4), v + h / 6 * (b1 + 2 * (b2 + b3) + b4)

    def year(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        state = lax.fori_loop(0, STEPS_A_YEAR, step, state)
        return state, jnp.stack(state)

    _, path = lax.scan(year, (start[0], start[1]), None, length=years)
    return path


def lotka_volterra(data: Data) -> Density:
    """Hare and lynx, measured with lognormal noise."""
    if not np.array_equal(data["ts"], np.arange(1, data["N"] + 1)):
        raise ValueError("lotka_volterra: the measurements must be a year apart.")
    log_y = np.log(np.vstack([data["y_init"], data["y"]]))

    def log_joint(v: dict[str, Array]) -> Array:
        theta, start, sigma = v["theta"], v["z_init"], v["sigma"]
        path = jnp.concatenate([start[None], populations(theta, start, data["N"])])
        prior = normal(theta[::2], 1.0, 0.5) + normal(theta[1::2], 0.05, 0.05)
        prior += lognormal(sigma, -1.0, 1.0) + lognormal(start, np.log(10.0), 1.0)
        return prior + normal(log_y, jnp.log(path), sigma)

    return Density((Positive("theta", (4,)), Positive("z_init", (2,)), Positive("sigma", (2,))), log_joint)


def log_variances(phi: Array, sigma: Array, h_std: Array) -> Array:
    """The deviations h − μ of the stochastic volatility model, from standardised innovations; shape (T,)."""
    first = sigma * h_std[0] / jnp.sqrt(1.0 - phi * phi)

    def following(h: Array, z: Array) -> tuple[Array, Array]:
        h = phi * h + sigma * z
        return h, h

    _, later = lax.scan(following, first, h_std[1:])
    return jnp.append(first, later)


def stochastic_volatility(data: Data) -> Density:
    """Stochastic volatility with standardised innovations."""
    y = data["y"]

    def log_joint(v: dict[str, Array]) -> Array:
        h = v["mu"] + log_variances(v["phi"], v["sigma"], v["h_std"])
        prior = cauchy(v["mu"], 10.0) + cauchy(v["sigma"], 5.0) + normal(v["h_std"], 0.0, 1.0)
        return prior - 0.5 * jnp.sum(h + y * y * jnp.exp(-h))

    parameters = (Real("mu"), Interval("phi", low=-1.0), Positive("sigma"), Real("h_std", (data["T"],)))
    return Density(parameters, log_joint)
