"""Time series: recursions by `scan` with 2 to 33 parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from .scenario import Scenario, exact

Array = jax.Array


def autoregression(x: Array, y: Array) -> Array:
    """AR(2) with unit errors, vectorised: y[t] ~ N(c + φ1 y[t-1] + φ2 y[t-2], 1)."""
    return -0.5 * jnp.sum((y[2:] - x[0] - x[1] * y[1:-1] - x[2] * y[:-2]) ** 2)


def autoregression_by_scan(x: Array, y: Array) -> Array:
    """The same, one observation after another."""

    def step(carry: tuple[Array, Array], now: Array) -> tuple[tuple[Array, Array], Array]:
        last, before = carry
        return (now, last), -0.5 * (now - x[0] - x[1] * last - x[2] * before) ** 2

    return jnp.sum(lax.scan(step, (y[1], y[0]), y[2:])[1])


def moving_average(x: Array, y: Array) -> Array:
    """MA(1): the error of one observation enters the mean of the next."""

    def step(error: Array, now: Array) -> tuple[Array, Array]:
        new = now - x[0] - jnp.tanh(x[1]) * error
        return new, -0.5 * (new * jnp.exp(-x[2])) ** 2 - x[2]

    return jnp.sum(lax.scan(step, jnp.zeros_like(x[0]), y)[1])


def garch(x: Array, y: Array) -> Array:
    """GARCH(1, 1): h[t] = ω + α e[t-1]² + β h[t-1]. Source: Bollerslev (1986)."""
    mean, omega = x[0], jnp.exp(x[1])
    alpha, beta = jax.nn.softmax(jnp.stack([x[2], x[3], jnp.zeros_like(x[3])]))[:2]

    def step(carry: tuple[Array, Array], now: Array) -> tuple[tuple[Array, Array], Array]:
        variance, error = carry
        variance = omega + alpha * error**2 + beta * variance
        error = now - mean
        return (variance, error), -0.5 * (jnp.log(variance) + error**2 / variance)

    return jnp.sum(lax.scan(step, (omega, y[0] - mean), y[1:])[1])


def hidden_markov(p: dict[str, Array], y: Array) -> Array:
    """The forward algorithm of a hidden Markov model with three states and normal emissions, in logarithms."""
    transition = jax.nn.log_softmax(p["transition"], axis=1)
    emission = -0.5 * (y[:, None] - p["mean"]) ** 2

    def step(log_alpha: Array, log_likelihood: Array) -> tuple[Array, None]:
        return logsumexp(log_alpha[:, None] + transition, axis=0) + log_likelihood, None

    return logsumexp(lax.scan(step, emission[0], emission[1:])[0])


def stochastic_volatility(p: dict[str, Array], y: Array) -> Array:
    """Log volatilities as an AR(1) of standard normal innovations. Source: Kim, Shephard and Chib (1998)."""
    phi, sigma = jnp.tanh(p["phi"]), jnp.exp(p["log_sigma"])

    def step(h: Array, z: Array) -> tuple[Array, Array]:
        h = p["mu"] + phi * (h - p["mu"]) + sigma * z
        return h, h

    _, h = lax.scan(step, p["mu"], p["z"])
    return -0.5 * jnp.sum(p["z"] ** 2) - 0.5 * jnp.sum(h + y**2 * jnp.exp(-h)) - p["mu"] ** 2 - p["log_sigma"] ** 2


def local_level(x: Array, y: Array) -> Array:
    """The Kalman filter of a random walk observed with noise; log standard deviations of both."""
    level_variance, noise_variance = jnp.exp(2.0 * x[0]), jnp.exp(2.0 * x[1])

    def step(carry: tuple[Array, Array], now: Array) -> tuple[tuple[Array, Array], Array]:
        mean, variance = carry
        variance = variance + level_variance
        total = variance + noise_variance
        error, gain = now - mean, variance / total
        return (mean + gain * error, variance * (1.0 - gain)), -0.5 * (jnp.log(total) + error**2 / total)

    return jnp.sum(lax.scan(step, (y[0], jnp.ones_like(x[0])), y[1:])[1])


def kalman(x: Array, y: Array) -> Array:
    """The Kalman filter of a local linear trend: two states, matrices inside the loop."""
    F = jnp.array([[1.0, 1.0], [0.0, 1.0]], x.dtype)
    Q, r = jnp.diag(jnp.exp(x[:2])), jnp.exp(x[2])

    def step(carry: tuple[Array, Array], now: Array) -> tuple[tuple[Array, Array], Array]:
        mean, cov = F @ carry[0], F @ carry[1] @ F.T + Q
        total = cov[0, 0] + r
        error, gain = now - mean[0], cov[:, 0] / total
        return (mean + gain * error, cov - jnp.outer(gain, cov[0])), -0.5 * (jnp.log(total) + error**2 / total)

    start = (jnp.stack([x[3], x[4]]), jnp.eye(2, dtype=x.dtype))
    return jnp.sum(lax.scan(step, start, y)[1])


def random_walk(x: Array, y: Array) -> Array:
    """A latent random walk of standardised steps, as a cumulative sum: 32 steps and a log scale."""
    path = jnp.exp(x[0]) * jnp.cumsum(x[1:])
    return -0.5 * jnp.sum(x**2) - 0.5 * jnp.sum((y - path) ** 2)


def random_walk_gradient(x: Any, y: Any) -> Any:
    """The gradient of `random_walk`, in NumPy."""
    scale, walk = np.exp(x[0]), np.cumsum(x[1:])
    error = y - scale * walk
    return -x + np.concatenate([[scale * error @ walk], scale * np.cumsum(error[::-1])[::-1]])


def seasonal_smoothing(x: Array, y: Array) -> Array:
    """Holt-Winters smoothing: the seasonal states move through a ring of four, 4 + 5 parameters."""
    a, b, c = jax.nn.sigmoid(x[:3])

    def step(carry: tuple[Array, Array, Array], now: Array) -> tuple[tuple[Array, Array, Array], Array]:
        level, trend, season = carry
        error = now - level - trend - season[0]
        new = level + trend + a * error, trend + b * error, jnp.roll(season.at[0].add(c * error), -1)
        return new, error**2

    errors = lax.scan(step, (x[3], x[4], x[5:9]), y)[1]
    return -0.5 * errors.size * jnp.log(jnp.sum(errors))


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(4)

    def one(name: str, f: Any, x: Any, special: str, y: Any, **expected: Any) -> Scenario:
        return Scenario(name, "time series", f, x, jax.tree.map(np.zeros_like, x), special, (y,), **expected)

    y, short = exact(np.cumsum(rng.normal(size=60)) / 4.0), exact(rng.normal(size=32))
    ar, lags = exact([0.25, 0.5, -0.25]), np.stack([np.ones(58), y[1:-1], y[:-2]])
    slope = lags @ (y[2:] - ar @ lags)
    chain = {"transition": exact(rng.normal(size=(3, 3))), "mean": exact([-1.0, 0.25, 1.5])}
    states = {"mu": exact(-0.5), "phi": exact(1.25), "log_sigma": exact(-1.0), "z": exact(rng.normal(size=30))}
    walk = exact(0.5 * rng.normal(size=33))
    ring = np.append(exact([0.5, -0.5, 0.25, 0.1, 0.05]), exact(rng.normal(size=4)))
    return (
        one("ar(2)", autoregression, ar, "lagged slices", y, gradient=slope),
        one("ar(2) by scan", autoregression_by_scan, ar, "a carry that is not differentiated", y, gradient=slope),
        one("ma(1)", moving_average, exact([0.25, 0.5, -0.25]), "a scan over errors", y),
        one("garch(1, 1)", garch, exact([0.1, -1.0, -0.5, 0.75]), "a scan with two carries", y),
        one("hidden markov model", hidden_markov, chain, "logsumexp inside a scan", y),
        one("stochastic volatility", stochastic_volatility, states, "33 parameters, scanned over", short[:30]),
        one("local level", local_level, exact([-0.5, 0.25]), "a scalar Kalman filter", y),
        one("kalman", kalman, exact([-1.0, -2.0, 0.25, 0.5, 0.1]), "matrices inside a scan", y),
        one("random walk", random_walk, walk, "cumsum", short, gradient=random_walk_gradient(walk, short)),
        one("holt-winters", seasonal_smoothing, ring, "scatter and roll inside a scan", y[:40]),
    )
