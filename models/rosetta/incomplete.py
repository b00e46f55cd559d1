"""Data that are not all there: covariates that were not measured, and times that were not waited for.

The arguments have no types, as in a notebook, so that the code reads as it is shown in `docs/rosetta.md`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist

from ...ppl import factor, model, plate, rv


@model
def missing_covariates(x, y):
    """Missing data: a regression on a covariate with gaps, NaN, which become parameters of the model."""
    mean = rv("mean", dist.Normal(0.0, 2.0))
    spread = rv("spread", dist.Exponential(1.0))
    x = rv("x", dist.Normal(mean, spread), obs=x)  # gaps filled with the site "x_missing"
    intercept = rv("intercept", dist.Normal(0.0, 2.0))
    slope = rv("slope", dist.Normal(0.0, 1.0))
    sigma = rv("sigma", dist.Exponential(1.0))
    rv("y", dist.Normal(intercept + slope * x, sigma), obs=y)


@model
def censored_survival(X, time, died):
    """Censored survival: Weibull times to death; of those still alive at the end it is known that theirs is longer."""
    intercept = rv("intercept", dist.Normal(0.0, 2.0))
    with plate("feature", X.shape[1]):
        slope = rv("slope", dist.Normal(0.0, 1.0))
    shape = rv("shape", dist.Gamma(2.0, 1.0))
    scale = jnp.exp(intercept + X @ slope)
    rv("time", dist.Weibull(scale[died], shape), obs=time[died])
    factor("alive", -((time[~died] / scale[~died]) ** shape))
