"""Unknown functions: a Gaussian process, a neural network, the solution of a differential equation.

The arguments have no types, as in a notebook, so that the code reads as it is shown in `docs/rosetta.md`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ...ppl import deterministic, model, plate, rv


@model
def gaussian_process(x, y):
    """Gaussian process: a smooth function of unknown height and length scale, seen with noise."""
    height = rv("height", dist.LogNormal(0.0, 1.0))
    length = rv("length", dist.InverseGamma(5.0, 5.0))
    noise = rv("noise", dist.HalfNormal(1.0))
    distance = (x[:, None] - x) / length
    covariance = height**2 * jnp.exp(-0.5 * distance**2) + noise**2 * jnp.eye(len(x))
    rv("y", dist.MultivariateNormal(covariance_matrix=covariance), obs=y)


@model
def neural_network(X, y, width):
    """Bayesian neural network: two hidden layers tell two classes apart; every weight has a distribution."""
    with plate("input", X.shape[1]), plate("unit", width):
        w1 = rv("w1", dist.Normal(0.0, 1.0))
    with plate("unit", width), plate("unit_above", width):
        w2 = rv("w2", dist.Normal(0.0, 1.0))
    with plate("unit_above", width):
        w3 = rv("w3", dist.Normal(0.0, 1.0))
    logits = jnp.tanh(jnp.tanh(X @ w1) @ w2) @ w3
    rv("y", dist.Bernoulli(logits=logits), obs=y)


def runge_kutta(slope, state, times, steps=10):
    """The solution of state' = slope(state) at times 1, 2, ..., by the classical method with fixed steps."""
    h = 1.0 / steps

    def step(state, _):
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state, state

    _, path = lax.scan(step, state, length=times * steps)
    return path[steps - 1 :: steps]


@model
def epidemic(in_bed, population):
    """Differential equation (SIR): an epidemic in a school, from the number of boys in bed each day."""
    beta = rv("beta", dist.TruncatedNormal(2.0, 1.0, low=0.0))
    gamma = rv("gamma", dist.TruncatedNormal(0.4, 0.5, low=0.0))
    dispersion = rv("dispersion", dist.Exponential(5.0))
    deterministic("R0", beta / gamma)

    def slope(state):
        susceptible, infected = state
        infections = beta * susceptible * infected / population
        return jnp.stack([-infections, infections - gamma * infected])

    infected = runge_kutta(slope, jnp.array([population - 1.0, 1.0]), len(in_bed))[:, 1]
    rv("in_bed", dist.NegativeBinomial2(infected, 1.0 / dispersion), obs=in_bed)
