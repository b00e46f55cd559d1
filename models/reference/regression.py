"""Regressions: test scores of children, a correlated design, dogs that learn, radon in houses.

Stan's flat priors are `ImproperUniform`, over the support that the Stan program declares.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...ppl import model, plate, rv


@model
def kidscore_interaction(kid_score: Any, mom_iq: Any, mom_hs: Any) -> None:
    """Test scores on the mother's IQ, whether she finished high school, and their product.

    Args:
        kid_score: shape (children,).
        mom_iq: shape (children,).
        mom_hs: 0 or 1, shape (children,).

    Source: Gelman and Hill (2007), "Data Analysis Using Regression and Multilevel/Hierarchical Models", chapter 3.
    """
    X = np.stack([np.ones(len(mom_hs)), mom_hs, mom_iq, mom_hs * mom_iq], axis=1)
    beta = rv("beta", dist.ImproperUniform(dist.constraints.real_vector, (), (4,)))
    sigma = rv("sigma", dist.HalfCauchy(2.5))
    rv("kid_score", dist.Normal(X @ beta, sigma), obs=kid_score)


@model
def linear_regression(X: Any, y: Any) -> None:
    """Linear regression with wide priors.

    Args:
        X: design, shape (rows, predictors).
        y: shape (rows,).
    """
    with plate("predictor", X.shape[1]):
        beta = rv("beta", dist.Normal(0.0, 10.0))
    sigma = rv("sigma", dist.HalfNormal(10.0))
    rv("y", dist.Normal(X @ beta, sigma), obs=y)


@model
def dogs(y: Any) -> None:
    """Dogs learn to avoid a shock; whether one does depends on the shocks and the avoidances before.

    Args:
        y: 1 for a shock, 0 where it was avoided, shape (dogs, trials).

    Source: Gelman and Hill (2007), section 24.2.
    """
    avoided = np.cumsum(1 - y, axis=1) - (1 - y)
    shocked = np.cumsum(y, axis=1) - y
    X = np.stack([np.ones(y.size), avoided.ravel(), shocked.ravel()], axis=1)
    beta = rv("beta", dist.Normal(0.0, 100.0).expand([3]).to_event(1))
    rv("y", dist.Bernoulli(logits=X @ beta), obs=y.ravel())


@model
def radon_contextual_effects(county: Any, log_uranium: Any, floor: Any, floor_by_county: Any, log_radon: Any) -> None:
    """Radon in houses, with an effect of each county, centred.

    Args:
        county: of each house, from 0, shape (houses,).
        log_uranium: in the soil of its county, shape (houses,).
        floor: where it was measured: 0 in the basement, 1 on the first floor, shape (houses,).
        floor_by_county: the mean of `floor` in the county, shape (houses,).
        log_radon: what was measured, shape (houses,).

    Source: Gelman and Hill (2007), section 12.6; the priors are those of the Inference Gym.
    """
    mean = rv("county_effect_mean", dist.Normal(0.0, 1.0))
    scale = rv("county_effect_scale", dist.Uniform(0.0, 100.0))
    with plate("county", int(np.max(county)) + 1):
        effect = rv("county_effect", dist.Normal(mean, scale))
    with plate("predictor", ("log uranium", "floor", "floor by county")):
        weight = rv("weight", dist.Normal(0.0, 1.0))
    noise = rv("log_radon_scale", dist.Uniform(0.0, 100.0))
    X = jnp.stack([log_uranium, floor, floor_by_county], axis=1)
    rv("log_radon", dist.Normal(effect[county] + X @ weight, noise), obs=log_radon)
