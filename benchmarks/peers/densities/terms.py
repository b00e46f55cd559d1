"""Log densities summed over arrays, without their constants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def normal(x: Any, mean: Any, sd: Any) -> Array:
    """Σ log Normal(x | mean, sd): the logs of sd are taken once, not once an entry of x."""
    z: Array = (x - mean) / sd
    return -0.5 * jnp.sum(z * z) - z.size / jnp.size(sd) * jnp.sum(jnp.log(sd))


def lognormal(x: Any, mean: Any, sd: Any) -> Array:
    """Σ log LogNormal(x | mean, sd)."""
    log_x = jnp.log(x)
    return normal(log_x, mean, sd) - jnp.sum(log_x)


def cauchy(x: Any, scale: float) -> Array:
    """Σ log Cauchy(x | 0, scale)."""
    return -jnp.sum(jnp.log1p((x / scale) ** 2))


def gamma(x: Any, shape: float, rate: float) -> Array:
    """Σ log Gamma(x | shape, rate)."""
    return jnp.sum((shape - 1.0) * jnp.log(x) - rate * x)


def bernoulli_logit(y: Any, logits: Any) -> Array:
    """Σ log Bernoulli(y | σ(logits))."""
    return jnp.sum(y * logits - jax.nn.softplus(logits))


def poisson_log(y: Any, log_rate: Array) -> Array:
    """Σ log Poisson(y | exp(log_rate))."""
    return jnp.sum(y * log_rate - jnp.exp(log_rate))
