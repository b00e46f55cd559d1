"""Groups that learn from each other: counties, cafés, persons and items.

The arguments have no types, as in a notebook, so that the code reads as it is shown in `docs/rosetta.md`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
import numpyro.distributions as dist

from ...ppl import deterministic, model, plate, rv


@model
def hierarchical_radon(log_radon, floor, county, counties):
    """Hierarchical radon: intercepts and slopes that vary by county around a common mean."""
    mean_intercept = rv("mean_intercept", dist.Normal(0.0, 2.0))
    mean_slope = rv("mean_slope", dist.Normal(0.0, 2.0))
    sd_intercept = rv("sd_intercept", dist.HalfNormal(1.0))
    sd_slope = rv("sd_slope", dist.HalfNormal(1.0))
    with plate("county", counties):
        intercept = rv("intercept", dist.Normal(mean_intercept, sd_intercept))
        slope = rv("slope", dist.Normal(mean_slope, sd_slope))
    sigma = rv("sigma", dist.Exponential(1.0))
    rv("log_radon", dist.Normal(intercept[county] + slope[county] * floor, sigma), obs=log_radon)


@model
def varying_effects(wait, afternoon, cafe, cafes):
    """LKJ multivariate hierarchy: waiting times, whose level and afternoon effect vary by café and are correlated."""
    with plate("effect", ("level", "change")):
        mean = rv("mean", dist.Normal(np.array([5.0, -1.0]), np.array([2.0, 0.5])))
        sd = rv("sd", dist.Exponential(1.0))
    L = rv("L", dist.LKJCholesky(2, concentration=2.0))
    deterministic("correlation", (L @ L.T)[0, 1])
    with plate("cafe", cafes):
        effects = rv("effects", dist.MultivariateNormal(mean, scale_tril=sd[:, None] * L))
    sigma = rv("sigma", dist.Exponential(1.0))
    level, change = effects[cafe].T
    rv("wait", dist.Normal(level + change * afternoon, sigma), obs=wait)


@model
def item_response(correct):
    """Item response (2PL): persons with abilities, items with difficulties and discriminations."""
    persons, items = correct.shape
    with plate("person", persons):
        ability = rv("ability", dist.Normal(0.0, 1.0))
    with plate("item", items):
        difficulty = rv("difficulty", dist.Normal(0.0, 2.0))
        discrimination = rv("discrimination", dist.LogNormal(0.0, 0.5))
    logits = discrimination * (ability[:, None] - difficulty)
    rv("correct", dist.Bernoulli(logits=logits), obs=correct, dims=("person", "item"))
