"""Coins and regressions: one linear predictor, and likelihoods for heads, numbers, classes, grades and counts.

The arguments have no types, as in a notebook, so that the code reads as it is shown in `docs/rosetta.md`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist

from ...ppl import model, plate, rv


@model
def coin_flip(flips):
    """Coin flip: how likely are heads?"""
    p = rv("p", dist.Beta(1.0, 1.0))
    with plate("flip", len(flips)):
        rv("heads", dist.Bernoulli(p), obs=flips)


@model
def linear_regression(X, y):
    """Linear regression: a plane through points, with normal errors of unknown size."""
    intercept = rv("intercept", dist.Normal(0.0, 10.0))
    with plate("feature", X.shape[1]):
        slope = rv("slope", dist.Normal(0.0, 2.5))
    sigma = rv("sigma", dist.Exponential(1.0))
    rv("y", dist.Normal(intercept + X @ slope, sigma), obs=y)


@model
def logistic_regression(X, y):
    """Logistic regression: the log odds of one of two classes are linear."""
    intercept = rv("intercept", dist.Normal(0.0, 2.5))
    with plate("feature", X.shape[1]):
        slope = rv("slope", dist.Normal(0.0, 1.0))
    rv("y", dist.Bernoulli(logits=intercept + X @ slope), obs=y)


@model
def ordered_logit(X, grade, grades):
    """Ordered logit: grades 0, 1, ... divide a latent scale at cut points; the prior on their shares is uniform."""
    with plate("feature", X.shape[1]):
        slope = rv("slope", dist.Normal(0.0, 1.0))
    shares = dist.Dirichlet(jnp.ones(grades))
    to_cutpoints = dist.transforms.SimplexToOrderedTransform()
    cutpoints = rv("cutpoints", dist.TransformedDistribution(shares, to_cutpoints))
    rv("grade", dist.OrderedLogistic(X @ slope, cutpoints), obs=grade)


@model
def zero_inflated_counts(X, counts):
    """Zero-inflated counts: a zero is either no event among many possible ones, or no possibility of any."""
    never = rv("never", dist.Beta(1.0, 1.0))
    intercept = rv("intercept", dist.Normal(0.0, 2.0))
    with plate("feature", X.shape[1]):
        slope = rv("slope", dist.Normal(0.0, 1.0))
    rate = jnp.exp(intercept + X @ slope)
    rv("counts", dist.ZeroInflatedPoisson(never, rate), obs=counts)
