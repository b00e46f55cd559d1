"""The models as users of NumPyro write them. Names of what is scored are Stan's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import constraints

from .densities.series import log_variances, populations

Data = dict[str, Any]
NumPyroModel = Callable[[], None]
sample = numpyro.sample


def eight_schools(data: Data) -> NumPyroModel:
    """Non-centred."""

    def model() -> None:
        mu = sample("mu", dist.Normal(0.0, 5.0))
        tau = sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("school", data["J"]):
            theta_trans = sample("theta_trans", dist.Normal(0.0, 1.0))
            theta = numpyro.deterministic("theta", mu + tau * theta_trans)
            sample("y", dist.Normal(theta, data["sigma"]), obs=data["y"])

    return model


def kidiq(data: Data) -> NumPyroModel:
    """Flat coefficients."""
    hs, iq = data["mom_hs"], data["mom_iq"]

    def model() -> None:
        beta = sample("beta", dist.ImproperUniform(constraints.real_vector, (), (4,)))
        sigma = sample("sigma", dist.HalfCauchy(2.5))
        mean = beta[0] + beta[1] * hs + beta[2] * iq + beta[3] * hs * iq
        sample("kid_score", dist.Normal(mean, sigma), obs=data["kid_score"])

    return model


def sblrc(data: Data) -> NumPyroModel:
    """Linear regression."""

    def model() -> None:
        beta = sample("beta", dist.Normal(0.0, 10.0).expand([data["D"]]).to_event(1))
        sigma = sample("sigma", dist.HalfNormal(10.0))
        sample("y", dist.Normal(data["X"] @ beta, sigma), obs=data["y"])

    return model


def autoregression(data: Data) -> NumPyroModel:
    """AR(K) as a regression."""
    y, K = data["y"], data["K"]
    lagged = np.stack([y[K - k : len(y) - k] for k in range(1, K + 1)], axis=1)

    def model() -> None:
        alpha = sample("alpha", dist.Normal(0.0, 10.0))
        beta = sample("beta", dist.Normal(0.0, 10.0).expand([K]).to_event(1))
        sigma = sample("sigma", dist.HalfCauchy(2.5))
        sample("y", dist.Normal(alpha + lagged @ beta, sigma), obs=y[K:])

    return model


def garch(data: Data) -> NumPyroModel:
    """With beta1 as a share of what alpha1 leaves; the factor keeps its prior flat."""
    y, first = data["y"], float(data["sigma1"]) ** 2

    def model() -> None:
        mu = sample("mu", dist.ImproperUniform(constraints.real, (), ()))
        alpha0 = sample("alpha0", dist.ImproperUniform(constraints.positive, (), ()))
        alpha1 = sample("alpha1", dist.Uniform(0.0, 1.0))
        share = sample("share", dist.Uniform(0.0, 1.0))
        beta1 = numpyro.deterministic("beta1", share * (1.0 - alpha1))
        numpyro.factor("flat", jnp.log1p(-alpha1))

        def following(variance: Any, shock: Any) -> Any:
            variance = alpha0 + alpha1 * shock**2 + beta1 * variance
            return variance, variance

        _, later = lax.scan(following, jnp.asarray(first), y[:-1] - mu)
        sample("y", dist.Normal(mu, jnp.sqrt(jnp.append(first, later))), obs=y)

    return model


def gaussian_mixture(data: Data) -> NumPyroModel:
    """By the distribution for mixtures."""

    def model() -> None:
        mu = sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
        numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
        sigma = sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
        theta = sample("theta", dist.Beta(5.0, 5.0))
        which = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
        sample("y", dist.MixtureSameFamily(which, dist.Normal(mu, sigma)), obs=data["y"])

    return model


def dogs(data: Data) -> NumPyroModel:
    """Logistic regression."""
    y = data["y"]
    shocked, avoided = np.cumsum(y, axis=1) - y, np.cumsum(1 - y, axis=1) - (1 - y)

    def model() -> None:
        beta = sample("beta", dist.Normal(0.0, 100.0).expand([3]).to_event(1))
        sample("y", dist.Bernoulli(logits=beta[0] + beta[1] * avoided + beta[2] * shocked), obs=y)

    return model


def hidden_markov(data: Data) -> NumPyroModel:
    """The forward algorithm as a factor."""
    y = data["y"]

    def model() -> None:
        theta1 = sample("theta1", dist.Dirichlet(jnp.ones(2)))
        theta2 = sample("theta2", dist.Dirichlet(jnp.ones(2)))
        mu = sample("mu", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
        numpyro.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
        log_theta = jnp.log(jnp.stack([theta1, theta2]))
        emissions = dist.Normal(mu, 1.0).log_prob(y[:, None])

        def forward(alpha: Any, emission: Any) -> Any:
            return jax.nn.logsumexp(alpha[:, None] + log_theta, axis=0) + emission, None

        alpha, _ = lax.scan(forward, emissions[0], emissions[1:])
        numpyro.factor("y", jax.nn.logsumexp(alpha))

    return model


def lotka_volterra(data: Data) -> NumPyroModel:
    """With the same integrator as the hand-written density."""

    def model() -> None:
        mean, sd = jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05])
        theta = sample("theta", dist.TruncatedNormal(mean, sd, low=0.0).to_event(1))
        z_init = sample("z_init", dist.LogNormal(np.log(10.0), 1.0).expand([2]).to_event(1))
        sigma = sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
        sample("y_init", dist.LogNormal(jnp.log(z_init), sigma), obs=data["y_init"])
        z = populations(theta, z_init, data["N"])
        sample("y", dist.LogNormal(jnp.log(z), sigma), obs=data["y"])

    return model


def gp_regression(data: Data) -> NumPyroModel:
    """Marginal."""
    squares, y = (data["x"][:, None] - data["x"]) ** 2, data["y"]

    def model() -> None:
        rho = sample("rho", dist.Gamma(25.0, 4.0))
        alpha = sample("alpha", dist.HalfNormal(2.0))
        sigma = sample("sigma", dist.HalfNormal(1.0))
        covariance = alpha**2 * jnp.exp(-0.5 * squares / rho**2) + sigma * jnp.eye(len(y))
        sample("y", dist.MultivariateNormal(0.0, covariance_matrix=covariance), obs=y)

    return model


def gp_poisson(data: Data) -> NumPyroModel:
    """Latent, whitened."""
    squares, k = (data["x"][:, None] - data["x"]) ** 2, data["k"]

    def model() -> None:
        rho = sample("rho", dist.Gamma(25.0, 4.0))
        alpha = sample("alpha", dist.HalfNormal(2.0))
        f_tilde = sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(k)]).to_event(1))
        covariance = alpha**2 * jnp.exp(-0.5 * squares / rho**2) + 1e-10 * jnp.eye(len(k))
        f = numpyro.deterministic("f", jnp.linalg.cholesky(covariance) @ f_tilde)
        sample("k", dist.Poisson(jnp.exp(f)), obs=k)

    return model


def brownian(data: Data) -> NumPyroModel:
    """Centred, as in the Stan program."""
    where = data["observation_indices"] - 1

    def model() -> None:
        innovation = sample("innovation_noise_scale", dist.LogNormal(0.0, 2.0))
        noise = sample("observation_noise_scale", dist.LogNormal(0.0, 2.0))
        loc = sample("loc", dist.GaussianRandomWalk(innovation, num_steps=data["num_timesteps"]))
        sample("observations", dist.Normal(loc[where], noise), obs=data["observations"])

    return model


def radon(data: Data) -> NumPyroModel:
    """Centred."""

    def model() -> None:
        mean = sample("county_effect_mean", dist.Normal(0.0, 1.0))
        scale = sample("county_effect_scale", dist.Uniform(0.0, 100.0))
        with numpyro.plate("county", data["num_counties"]):
            effect = sample("county_effect", dist.Normal(mean, scale))
        weight = sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        noise = sample("log_radon_scale", dist.Uniform(0.0, 100.0))
        expected = effect[data["county"]] + weight[0] * data["log_uranium"]
        expected += weight[1] * data["which_floor"] + weight[2] * data["floor_by_county"]
        sample("log_radon", dist.Normal(expected, noise), obs=data["log_radon"])

    return model


def log_gaussian_cox(data: Data) -> NumPyroModel:
    """Centred, as in the Stan program."""
    locations, counts, extents = data["locations"], data["counts"], data["extents"]
    distances = np.sqrt(3.0 * np.sum((locations[:, None] - locations) ** 2, axis=-1))
    mean = np.full(len(counts), np.mean(np.log(counts / extents)))

    def model() -> None:
        amplitude = sample("amplitude", dist.LogNormal(-1.0, 0.5))
        length_scale = sample("length_scale", dist.LogNormal(-1.0, 1.0))
        scaled = distances / (length_scale + 0.001)
        covariance = (amplitude + 0.001) ** 2 * (1.0 + scaled) * jnp.exp(-scaled) + 1e-6 * jnp.eye(len(counts))
        f = sample("log_intensity", dist.MultivariateNormal(mean, covariance_matrix=covariance))
        sample("counts", dist.Poisson(extents * jnp.exp(f)), obs=counts)

    return model


def logistic(data: Data) -> NumPyroModel:
    """Bernoulli-logit regression."""

    def model() -> None:
        alpha = sample("alpha", dist.Normal(0.0, 1.0))
        beta = sample("beta", dist.Normal(0.0, 1.0).expand([data["D"]]).to_event(1))
        sample("y", dist.Bernoulli(logits=alpha + data["X"] @ beta), obs=data["y"])

    return model


def stochastic_volatility(data: Data) -> NumPyroModel:
    """With standardised innovations."""

    def model() -> None:
        mu = sample("mu", dist.Cauchy(0.0, 10.0))
        phi = sample("phi", dist.Uniform(-1.0, 1.0))
        sigma = sample("sigma", dist.HalfCauchy(5.0))
        h_std = sample("h_std", dist.Normal(0.0, 1.0).expand([data["T"]]).to_event(1))
        h = mu + log_variances(phi, sigma, h_std)
        sample("y", dist.Normal(0.0, jnp.exp(h / 2.0)), obs=data["y"])

    return model


def item_response(data: Data) -> NumPyroModel:
    """Two-parameter logistic."""

    def model() -> None:
        sigma_theta = sample("sigma_theta", dist.HalfCauchy(2.0))
        theta = sample("theta", dist.Normal(0.0, sigma_theta).expand([data["J"]]).to_event(1))
        sigma_a = sample("sigma_a", dist.HalfCauchy(2.0))
        a = sample("a", dist.LogNormal(0.0, sigma_a).expand([data["I"]]).to_event(1))
        mu_b = sample("mu_b", dist.Normal(0.0, 5.0))
        sigma_b = sample("sigma_b", dist.HalfCauchy(2.0))
        b = sample("b", dist.Normal(mu_b, sigma_b).expand([data["I"]]).to_event(1))
        sample("y", dist.Bernoulli(logits=a[:, None] * (theta - b[:, None])), obs=data["y"])

    return model


MODELS: dict[str, Callable[[Data], NumPyroModel]] = {
    "eight_schools": eight_schools,
    "kidiq": kidiq,
    "sblrc": sblrc,
    "arK": autoregression,
    "garch": garch,
    "gauss_mix": gaussian_mixture,
    "dogs": dogs,
    "hmm": hidden_markov,
    "lotka_volterra": lotka_volterra,
    "gp_regr": gp_regression,
    "gp_pois": gp_poisson,
    "brownian": brownian,
    "radon": radon,
    "lgcp": log_gaussian_cox,
    "logistic": logistic,
    "volatility": stochastic_volatility,
    "irt": item_response,
}
