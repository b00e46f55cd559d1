"""Time series with a state that nobody sees: a volatility, a level with its slope.

The arguments have no types, as in a notebook, so that the code reads as it is shown in `docs/rosetta.md`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist

from ...ppl import model, rv, scan


@model
def stochastic_volatility(returns):
    """Stochastic volatility: the log scale of daily returns is a random walk, their tails are heavy."""
    step = rv("step", dist.Exponential(50.0))
    nu = rv("nu", dist.Exponential(0.1))
    log_scale = rv("log_scale", dist.GaussianRandomWalk(step, num_steps=len(returns)), dims="day")
    rv("returns", dist.StudentT(nu, 0.0, jnp.exp(log_scale)), obs=returns)


@model
def local_linear_trend(y):
    """State space (local linear trend): a level that moves by a slope that moves itself, seen through noise."""
    start = rv("start", dist.Normal(0.0, 5.0))
    sd_level = rv("sd_level", dist.Gamma(2.0, 4.0))
    sd_slope = rv("sd_slope", dist.Gamma(2.0, 4.0))
    sigma = rv("sigma", dist.Gamma(2.0, 4.0))

    def step(state, y):
        level, slope = state
        level = rv("level", dist.Normal(level + slope, sd_level))
        slope = rv("slope", dist.Normal(slope, sd_slope))
        rv("y", dist.Normal(level, sigma), obs=y)
        return (level, slope), None

    scan("time", step, (start, 0.0), y)
