"""Time series: an autoregression, a GARCH(1, 1) process, and Brownian motion observed with a gap.

Stan's flat priors are `ImproperUniform`, over the support that the Stan program declares.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ...ppl import model, plate, rv


@model
def autoregression(y: Any, K: int) -> None:
    """A linear regression of each value on the K before it, given the first K.

    Args:
        y: shape (times,).
        K: the order.
    """
    alpha = rv("alpha", dist.Normal(0.0, 10.0))
    with plate("lag", range(1, K + 1)):
        beta = rv("beta", dist.Normal(0.0, 10.0))
    sigma = rv("sigma", dist.HalfCauchy(2.5))
    lagged = np.stack([y[K - lag : -lag] for lag in range(1, K + 1)], axis=1)
    rv("y", dist.Normal(alpha + lagged @ beta, sigma), obs=y[K:])


@model
def garch11(y: Any, sigma1: float) -> None:
    """Noise whose variance follows its own past and that of the noise.

    Args:
        y: shape (times,).
        sigma1: the standard deviation at the first time.

    Source: Bollerslev (1986), "Generalized autoregressive conditional heteroskedasticity", Journal of Econometrics 31.
    """
    mu = rv("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    alpha0 = rv("alpha0", dist.ImproperUniform(dist.constraints.positive, (), ()))
    alpha1 = rv("alpha1", dist.Uniform(0.0, 1.0))
    # Flat where the process is stationary. Uniform(0, 1 - alpha1) has this support too, but also the density
    # 1 / (1 - alpha1), and so another posterior.
    beta1 = rv("beta1", dist.ImproperUniform(dist.constraints.interval(0.0, 1.0 - alpha1), (), ()))

    def following(variance: Any, shock: Any) -> Any:
        variance = alpha0 + alpha1 * shock**2 + beta1 * variance
        return variance, variance

    first = jnp.square(sigma1)
    _, later = lax.scan(following, first, y[:-1] - mu)
    rv("y", dist.Normal(mu, jnp.sqrt(jnp.append(first, later))), obs=y)


@model
def brownian_motion(observed: Any, observations: Any, num_timesteps: int) -> None:
    """Brownian motion from 0, observed with noise at some of its times; both scales are unknown.

    Args:
        observed: at which times there is an observation, from 0, shape (observations,).
        observations: shape (observations,).
        num_timesteps: how many times there are.

    Source: Sountsov, Radul and contributors (2020), "Inference Gym".
    """
    innovation_noise_scale = rv("innovation_noise_scale", dist.LogNormal(0.0, 2.0))
    observation_noise_scale = rv("observation_noise_scale", dist.LogNormal(0.0, 2.0))
    loc = rv("loc", dist.GaussianRandomWalk(innovation_noise_scale, num_steps=num_timesteps), dims="time")
    rv("observations", dist.Normal(loc[observed], observation_noise_scale), obs=observations)
