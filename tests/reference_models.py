"""Models of posteriordb, written as a user of the library would, and what a test must know of each.

Names of variables and of data are Stan's, but for `z`, which the non-centred eight schools call `theta_trans` there.
Stan's flat priors are `ImproperUniform`, over the support that the Stan program declares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from dualtape import NUTS, BoundModel, DenseMetric, Model, UnitMetric, factor, model, plate, rv
from dualtape.models.eight_schools import eight_schools_centered, eight_schools_noncentered
from jax import lax


@model
def kidscore_interaction(kid_score, mom_iq, mom_hs):
    beta = rv("beta", dist.ImproperUniform(dist.constraints.real_vector, (), (4,)))
    sigma = rv("sigma", dist.HalfCauchy(2.5))
    mean = beta[0] + beta[1] * mom_hs + beta[2] * mom_iq + beta[3] * mom_hs * mom_iq
    rv("kid_score", dist.Normal(mean, sigma), obs=kid_score)


@model
def linear_regression(X, y):
    with plate("predictor", X.shape[1]):
        beta = rv("beta", dist.Normal(0.0, 10.0))
    sigma = rv("sigma", dist.HalfNormal(10.0))
    rv("y", dist.Normal(X @ beta, sigma), obs=y)


@model
def autoregression(y, K):
    alpha = rv("alpha", dist.Normal(0.0, 10.0))
    with plate("lag", range(1, K + 1)):
        beta = rv("beta", dist.Normal(0.0, 10.0))
    sigma = rv("sigma", dist.HalfCauchy(2.5))
    lagged = np.stack([y[K - lag : -lag] for lag in range(1, K + 1)], axis=1)
    rv("y", dist.Normal(alpha + lagged @ beta, sigma), obs=y[K:])


@model
def garch11(y, sigma1):
    mu = rv("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    alpha0 = rv("alpha0", dist.ImproperUniform(dist.constraints.positive, (), ()))
    alpha1 = rv("alpha1", dist.Uniform(0.0, 1.0))
    # Flat where the process is stationary. Uniform(0, 1 - alpha1) has this support too, but also the density
    # 1 / (1 - alpha1), and so another posterior.
    beta1 = rv("beta1", dist.ImproperUniform(dist.constraints.interval(0.0, 1.0 - alpha1), (), ()))

    def following(variance, shock):
        variance = alpha0 + alpha1 * shock**2 + beta1 * variance
        return variance, variance

    first = jnp.square(sigma1)
    _, later = lax.scan(following, first, y[:-1] - mu)
    rv("y", dist.Normal(mu, jnp.sqrt(jnp.append(first, later))), obs=y)


@model
def gp_regression(x, y):
    rho = rv("rho", dist.Gamma(25.0, 4.0))
    alpha = rv("alpha", dist.HalfNormal(2.0))
    sigma = rv("sigma", dist.HalfNormal(1.0))
    distance = (x[:, None] - x) / rho
    # The noise has variance sigma, not sigma squared: so it stands in the Stan program.
    covariance = alpha**2 * jnp.exp(-0.5 * distance**2) + sigma * jnp.eye(len(x))
    rv("y", dist.MultivariateNormal(0.0, covariance_matrix=covariance), obs=y)


@model
def gaussian_mixture(y):
    # Without the order, exchanging the components would give a second, identical mode.
    mu = rv("mu", dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)))
    factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu))
    with plate("component", 2):
        sigma = rv("sigma", dist.HalfNormal(2.0))
    theta = rv("theta", dist.Beta(5.0, 5.0))
    which = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
    rv("y", dist.MixtureSameFamily(which, dist.Normal(mu, sigma)), obs=y)


@dataclass(frozen=True)
class Case:
    """A model with what its reference posterior asks for.

    Args:
        name: of the reference posterior.
        model: the same in this library.
        data: names of the model's arguments in the reference data.
        parameters: the latent sites in the order of Stan's unconstrained coordinates.
        half_priors: how many entries have a half-normal or half-Cauchy prior. Each of these densities has a factor
            2 here, for the half that is cut off, and none in Stan.
        sampler: NUTS, as one would set it for this posterior.
        draws: from each of four chains.
        divergent: the largest share of draws that may end in a divergence.
    """

    name: str
    model: Model
    data: tuple[str, ...]
    parameters: tuple[str, ...]
    half_priors: int = 0
    sampler: NUTS = field(default_factory=NUTS)
    draws: int = 2000
    divergent: float = 0.0

    def bind(self, data: Mapping[str, Any]) -> BoundModel:
        """The model with the reference data."""
        values = (data[name] for name in self.data)
        return self.model(*(np.array(value, float) if isinstance(value, list) else value for value in values))


CASES = (
    # Centred, the effects are confined to a funnel that narrows without end as tau goes to 0. The mean acceptance rate
    # hardly feels its neck: a step size adapted even to 0.99 leaves some of it out, or leaves a chain in it for
    # thousands of draws. A fixed step that is short enough for the neck goes in and out; what is left of divergences
    # are a few draws in its last end.
    Case(
        "eight_schools-eight_schools_centered",
        eight_schools_centered,
        ("y", "sigma"),
        ("theta", "mu", "tau"),
        half_priors=1,
        sampler=NUTS(step_size=0.012, metric=UnitMetric(), max_tree_depth=11),
        draws=10_000,
        divergent=0.005,
    ),
    Case(
        "eight_schools-eight_schools_noncentered",
        eight_schools_noncentered,
        ("y", "sigma"),
        ("z", "mu", "tau"),
        half_priors=1,
        sampler=NUTS(target_acceptance=0.95),
    ),
    # Predictors far from zero and an interaction: coefficients correlated beyond 0.99.
    Case(
        "kidiq-kidscore_interaction",
        kidscore_interaction,
        ("kid_score", "mom_iq", "mom_hs"),
        ("beta", "sigma"),
        half_priors=1,
        sampler=NUTS(metric=DenseMetric()),
    ),
    # Coefficients with standard deviations of 0.001 and a correlated design: chains that mix slowly.
    Case("sblrc-blr", linear_regression, ("X", "y"), ("beta", "sigma"), half_priors=1, draws=8000),
    Case("arK-arK", autoregression, ("y", "K"), ("alpha", "beta", "sigma"), half_priors=1),
    Case("garch-garch11", garch11, ("y", "sigma1"), ("mu", "alpha0", "alpha1", "beta1")),
    Case("gp_pois_regr-gp_regr", gp_regression, ("x", "y"), ("rho", "alpha", "sigma"), half_priors=2),
    Case("low_dim_gauss_mix-low_dim_gauss_mix", gaussian_mixture, ("y",), ("mu", "sigma", "theta"), half_priors=2),
)
