"""Hierarchical models: scales that multiply their effects, and effects gathered by group."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from .scenario import Scenario, exact

Array = jax.Array


def normal(x: Array, mean: Any = 0.0, scale: Any = 1.0) -> Array:
    """The sum of normal log densities, without the constant."""
    return jnp.sum(-0.5 * ((x - mean) / scale) ** 2 - jnp.log(scale))


def half_cauchy(log_scale: Array) -> Array:
    """The sum of half-Cauchy log densities of exp(log_scale), with the Jacobian of the exponential."""
    return jnp.sum(log_scale - jnp.log1p(jnp.exp(2.0 * log_scale)))


def eight_schools_centred(p: dict[str, Array], y: Array, sigma: Array) -> Array:
    """θ ~ N(μ, τ), y ~ N(θ, σ). Source: Rubin (1981)."""
    tau = jnp.exp(p["log_tau"])
    prior = normal(p["mu"], 0.0, 5.0) + half_cauchy(p["log_tau"] - jnp.log(5.0))
    return prior + normal(p["theta"], p["mu"], tau * jnp.ones_like(y)) + normal(y, p["theta"], sigma)


def eight_schools_non_centred(p: dict[str, Array], y: Array, sigma: Array) -> Array:
    """θ = μ + τ z with z ~ N(0, 1)."""
    theta = p["mu"] + jnp.exp(p["log_tau"]) * p["z"]
    prior = normal(p["mu"], 0.0, 5.0) + half_cauchy(p["log_tau"] - jnp.log(5.0))
    return prior + normal(p["z"]) + normal(y, theta, sigma)


def funnel(x: Array) -> Array:
    """x[0] ~ N(0, 3), the rest ~ N(0, exp(x[0]/2)). Source: Neal (2003)."""
    rest = x[1:]
    return -(x[0] ** 2) / 18.0 - 0.5 * jnp.sum(rest**2) * jnp.exp(-x[0]) - 0.5 * rest.size * x[0]


def radon(p: dict[str, Array], county: Array, floor: Array, y: Array) -> Array:
    """Varying intercepts, a common slope; the intercepts are gathered by county."""
    intercept = p["mu"] + jnp.exp(p["log_tau"]) * p["z"]
    mean = intercept[county] + p["slope"] * floor
    prior = normal(p["mu"]) + normal(p["slope"]) + normal(p["log_tau"]) + normal(p["log_sigma"]) + normal(p["z"])
    return prior + normal(y, mean, jnp.exp(p["log_sigma"]) * jnp.ones_like(y))


def horseshoe(p: dict[str, Array], X: Array, y: Array) -> Array:
    """Coefficients z λ τ with half-Cauchy local and global scales. Source: Carvalho, Polson and Scott (2010)."""
    coefficients = p["z"] * jnp.exp(p["log_lambda"] + p["log_tau"])
    prior = normal(p["z"]) + half_cauchy(p["log_lambda"]) + half_cauchy(p["log_tau"])
    return prior + normal(y, X @ coefficients, 0.5)


def item_response(p: dict[str, Array], person: Array, item: Array, y: Array) -> Array:
    """Two-parameter logistic model: logit P(y = 1) = a[item] (θ[person] - b[item])."""
    logits = jnp.exp(p["log_a"])[item] * (p["theta"][person] - p["b"][item])
    prior = normal(p["theta"]) + normal(p["b"]) + normal(p["log_a"], 0.0, 0.5)
    return prior + jnp.sum(jnp.where(y, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))


def mixture(p: dict[str, Array], y: Array) -> Array:
    """A mixture of three normals with stick-breaking weights, the allocation summed out."""
    stick = jax.nn.sigmoid(p["stick"])
    one = jnp.ones_like(stick[:1])
    weights = jnp.concatenate([stick, one]) * jnp.concatenate([one, jnp.cumprod(1.0 - stick)])
    scale = jnp.exp(p["log_scale"])
    terms = jnp.log(weights) - 0.5 * ((y[:, None] - p["mean"]) / scale) ** 2 - jnp.log(scale)
    return jnp.sum(logsumexp(terms, axis=1)) + normal(p["mean"], 0.0, 3.0) + normal(p["log_scale"])


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(3)

    def one(name: str, f: Any, x: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        return Scenario(name, "hierarchical", f, x, jax.tree.map(np.zeros_like, x), special, constants, **expected)

    def draw(**sizes: Any) -> dict[str, Any]:
        return {name: exact(0.5 * rng.normal(size=size)) for name, size in sizes.items()}

    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    county = rng.integers(0, 20, size=200)
    person, item = np.divmod(np.arange(120), 8)
    x = draw(x=10)["x"]
    square = np.sum(x[1:] ** 2) * np.exp(-x[0])
    value = -(x[0] ** 2) / 18.0 - 0.5 * square - 4.5 * x[0]
    slope = np.concatenate([[-x[0] / 9.0 + 0.5 * square - 4.5], -x[1:] * np.exp(-x[0])])
    X = exact(rng.normal(size=(50, 10)))
    return (
        one(
            "eight schools, centred",
            eight_schools_centred,
            draw(mu=(), log_tau=(), theta=8),
            "a scale that multiplies its effects",
            y,
            sigma,
        ),
        one(
            "eight schools, non-centred",
            eight_schools_non_centred,
            draw(mu=(), log_tau=(), z=8),
            "the program of the eight schools that is sampled",
            y,
            sigma,
        ),
        one("funnel", funnel, x, "one scale for all", value=value, gradient=slope),
        one(
            "radon",
            radon,
            draw(mu=(), slope=(), log_tau=(), log_sigma=(), z=20),
            "a gather with repeated indices",
            county,
            rng.integers(0, 2, size=200),
            exact(rng.normal(size=200)),
        ),
        one(
            "horseshoe",
            horseshoe,
            draw(z=10, log_lambda=10, log_tau=()),
            "products of scales",
            X,
            exact(X[:, 0] + rng.normal(size=50)),
        ),
        one(
            "item response",
            item_response,
            draw(theta=15, b=8, log_a=8),
            "two gathers from 31 parameters",
            person,
            item,
            rng.integers(0, 2, size=120).astype(bool),
        ),
        one(
            "mixture",
            mixture,
            draw(stick=2, mean=3, log_scale=3),
            "logsumexp over components",
            exact(rng.normal(size=60) + rng.choice([-2.0, 0.0, 3.0], size=60)),
        ),
    )
