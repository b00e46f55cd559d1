"""The models as users of dualtape write them: the library's reference models, and those on simulated data."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from dualtape import BoundModel, model, plate, rv
from dualtape.models.reference.cases import CASES
from jax import lax

from .problems import Posteriordb, Problem


@model
def logistic(X: Any, y: Any) -> None:
    """Bernoulli-logit regression."""
    alpha = rv("alpha", dist.Normal(0.0, 1.0))
    with plate("predictor", X.shape[1]):
        beta = rv("beta", dist.Normal(0.0, 1.0))
    rv("y", dist.Bernoulli(logits=alpha + X @ beta), obs=y)


@model
def stochastic_volatility(y: Any) -> None:
    """Log variances that follow an AR(1) process, with standardised innovations."""
    mu = rv("mu", dist.Cauchy(0.0, 10.0))
    phi = rv("phi", dist.Uniform(-1.0, 1.0))
    sigma = rv("sigma", dist.HalfCauchy(5.0))
    with plate("time", len(y)):
        h_std = rv("h_std", dist.Normal(0.0, 1.0))
    first = sigma * h_std[0] / jnp.sqrt(1.0 - phi**2)

    def following(h: Any, z: Any) -> Any:
        h = phi * h + sigma * z
        return h, h

    _, later = lax.scan(following, first, h_std[1:])
    rv("y", dist.Normal(0.0, jnp.exp((mu + jnp.append(first, later)) / 2.0)), obs=y)


@model
def item_response(y: Any) -> None:
    """Two-parameter logistic: the answers of persons (columns) to items (rows)."""
    items, persons = y.shape
    sigma_theta = rv("sigma_theta", dist.HalfCauchy(2.0))
    sigma_a = rv("sigma_a", dist.HalfCauchy(2.0))
    mu_b = rv("mu_b", dist.Normal(0.0, 5.0))
    sigma_b = rv("sigma_b", dist.HalfCauchy(2.0))
    with plate("person", persons):
        theta = rv("theta", dist.Normal(0.0, sigma_theta))
    with plate("item", items):
        a = rv("a", dist.LogNormal(0.0, sigma_a))
        b = rv("b", dist.Normal(mu_b, sigma_b))
    rv("y", dist.Bernoulli(logits=a[:, None] * (theta - b[:, None])), obs=y)


SIMULATED = {
    "logistic": lambda data: logistic(data["X"], data["y"]),
    "volatility": lambda data: stochastic_volatility(data["y"]),
    "irt": lambda data: item_response(data["y"]),
}


def bind(problem: Problem) -> BoundModel:
    """The model of a problem, with its data."""
    if isinstance(problem.source, Posteriordb):
        case = next(case for case in CASES if case.name == problem.source.posterior)
        return case.bind()
    return SIMULATED[problem.name]({name: np.asarray(value) for name, value in problem.data.items()})
