"""Regressions and a mixture: data enter by matrix products and sums."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..transforms import Density, Interval, Ordered, Positive, Real
from .terms import bernoulli_logit, cauchy, normal

Data = dict[str, Any]


def kidiq(data: Data) -> Density:
    """Test scores of children given their mothers' IQ and schooling."""
    hs, iq, score = data["mom_hs"], data["mom_iq"], data["kid_score"]
    X = np.stack([np.ones_like(iq), hs, iq, hs * iq], axis=1)
    return Density(
        (Real("beta", (4,)), Positive("sigma")),
        lambda v: cauchy(v["sigma"], 2.5) + normal(score, X @ v["beta"], v["sigma"]),
    )


def linear_regression(data: Data) -> Density:
    """Linear regression with normal priors."""
    X, y = data["X"], data["y"]
    return Density(
        (Real("beta", (X.shape[1],)), Positive("sigma")),
        lambda v: normal(v["beta"], 0.0, 10.0) + normal(v["sigma"], 0.0, 10.0) + normal(y, X @ v["beta"], v["sigma"]),
    )


def autoregression(data: Data) -> Density:
    """AR(K), as a regression on the K values before."""
    y, K = data["y"], data["K"]
    lagged = np.stack([y[K - k : len(y) - k] for k in range(1, K + 1)], axis=1)
    return Density(
        (Real("alpha"), Real("beta", (K,)), Positive("sigma")),
        lambda v: (
            normal(v["alpha"], 0.0, 10.0)
            + normal(v["beta"], 0.0, 10.0)
            + cauchy(v["sigma"], 2.5)
            + normal(y[K:], v["alpha"] + lagged @ v["beta"], v["sigma"])
        ),
    )


def dogs(data: Data) -> Density:
    """Shocks that dogs get or avoid, given how many they got and avoided before."""
    y = data["y"].astype(float)
    shocked = np.cumsum(y, axis=1) - y
    avoided = np.cumsum(1.0 - y, axis=1) - (1.0 - y)
    X = np.stack([np.ones(y.size), avoided.ravel(), shocked.ravel()], axis=1)
    return Density(
        (Real("beta", (3,)),),
        lambda v: normal(v["beta"], 0.0, 100.0) + bernoulli_logit(y.ravel(), X @ v["beta"]),
    )


def logistic(data: Data) -> Density:
    """Bernoulli-logit regression."""
    X, y = data["X"], data["y"].astype(float)
    return Density(
        (Real("alpha"), Real("beta", (X.shape[1],))),
        lambda v: (
            normal(v["alpha"], 0.0, 1.0) + normal(v["beta"], 0.0, 1.0) + bernoulli_logit(y, v["alpha"] + X @ v["beta"])
        ),
    )


def gaussian_mixture(data: Data) -> Density:
    """Two normal components in order of their means."""
    y = data["y"]

    def log_joint(v: dict[str, Any]) -> Any:
        z = (y[:, None] - v["mu"]) / v["sigma"]
        weight = jnp.log(jnp.stack([v["theta"], 1.0 - v["theta"]])) - jnp.log(v["sigma"])
        each = weight - 0.5 * z * z
        prior = normal(v["sigma"], 0.0, 2.0) + normal(v["mu"], 0.0, 2.0)
        prior += 4.0 * (jnp.log(v["theta"]) + jnp.log1p(-v["theta"]))
        return prior + jnp.sum(jnp.logaddexp(each[:, 0], each[:, 1]))

    return Density((Ordered("mu", (2,)), Positive("sigma", (2,)), Interval("theta")), log_joint)
