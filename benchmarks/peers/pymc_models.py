"""The models as users of PyMC write them. Names of what is scored are Stan's.

Left out: the hidden Markov model and the ODE. PyMC has no forward algorithm and no integrator that its compiled
backend can differentiate; nested loops of `scan` stand in for neither at a useful speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

Data = dict[str, Any]


def eight_schools(data: Data) -> None:
    """Non-centred."""
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    theta_trans = pm.Normal("theta_trans", 0.0, 1.0, shape=data["J"])
    theta = pm.Deterministic("theta", mu + tau * theta_trans)
    pm.Normal("y", theta, data["sigma"], observed=data["y"])


def kidiq(data: Data) -> None:
    """Flat coefficients."""
    hs, iq = data["mom_hs"], data["mom_iq"]
    beta = pm.Flat("beta", shape=4)
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("score", beta[0] + beta[1] * hs + beta[2] * iq + beta[3] * hs * iq, sigma, observed=data["kid_score"])


def sblrc(data: Data) -> None:
    """Linear regression."""
    beta = pm.Normal("beta", 0.0, 10.0, shape=data["D"])
    sigma = pm.HalfNormal("sigma", 10.0)
    pm.Normal("y", data["X"] @ beta, sigma, observed=data["y"])


def autoregression(data: Data) -> None:
    """AR(K) as a regression."""
    y, K = data["y"], data["K"]
    lagged = np.stack([y[K - k : len(y) - k] for k in range(1, K + 1)], axis=1)
    alpha = pm.Normal("alpha", 0.0, 10.0)
    beta = pm.Normal("beta", 0.0, 10.0, shape=K)
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("y", alpha + lagged @ beta, sigma, observed=y[K:])


def garch(data: Data) -> None:
    """With beta1 as a share of what alpha1 leaves; the potential keeps its prior flat."""
    y, first = data["y"], np.array([data["sigma1"]], float) ** 2
    mu = pm.Flat("mu")
    alpha0 = pm.HalfFlat("alpha0")
    alpha1 = pm.Uniform("alpha1", 0.0, 1.0)
    beta1 = pm.Deterministic("beta1", pm.Uniform("share", 0.0, 1.0) * (1.0 - alpha1))
    pm.Potential("flat", pt.log1p(-alpha1))

    def following(before: Any, variance: Any, mu: Any, alpha0: Any, alpha1: Any, beta1: Any) -> Any:
        return alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variance

    later = pytensor.scan(
        following,
        sequences=[pt.as_tensor(y[:-1])],
        outputs_info=[pt.as_tensor(first[0])],
        non_sequences=[mu, alpha0, alpha1, beta1],
        strict=True,
        return_updates=False,
    )
    pm.Normal("y", mu, pt.sqrt(pt.concatenate([first, later])), observed=y)


def gaussian_mixture(data: Data) -> None:
    """By the distribution for mixtures."""
    ordered = pm.distributions.transforms.ordered
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=np.array([-1.0, 1.0]))
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    theta = pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", pt.stack([theta, 1.0 - theta]), mu, sigma=sigma, observed=data["y"])


def dogs(data: Data) -> None:
    """Logistic regression."""
    y = data["y"]
    shocked, avoided = np.cumsum(y, axis=1) - y, np.cumsum(1 - y, axis=1) - (1 - y)
    beta = pm.Normal("beta", 0.0, 100.0, shape=3)
    pm.Bernoulli("y", logit_p=beta[0] + beta[1] * avoided + beta[2] * shocked, observed=y)


def gp_regression(data: Data) -> None:
    """Marginal."""
    squares, y = (data["x"][:, None] - data["x"]) ** 2, data["y"]
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    covariance = alpha**2 * pt.exp(-0.5 * squares / rho**2) + sigma * pt.eye(len(y))
    pm.MvNormal("y", np.zeros(len(y)), cov=covariance, observed=y)


def gp_poisson(data: Data) -> None:
    """Latent, whitened."""
    squares, k = (data["x"][:, None] - data["x"]) ** 2, data["k"]
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    f_tilde = pm.Normal("f_tilde", 0.0, 1.0, shape=len(k))
    covariance = alpha**2 * pt.exp(-0.5 * squares / rho**2) + 1e-10 * pt.eye(len(k))
    f = pm.Deterministic("f", pt.linalg.cholesky(covariance) @ f_tilde)
    pm.Poisson("k", pt.exp(f), observed=k)


def brownian(data: Data) -> None:
    """Centred, as in the Stan program."""
    innovation = pm.LogNormal("innovation_noise_scale", 0.0, 2.0)
    noise = pm.LogNormal("observation_noise_scale", 0.0, 2.0)
    first = pm.Normal.dist(0.0, innovation)
    loc = pm.GaussianRandomWalk("loc", 0.0, innovation, init_dist=first, steps=data["num_timesteps"] - 1)
    pm.Normal("observations", loc[data["observation_indices"] - 1], noise, observed=data["observations"])


def radon(data: Data) -> None:
    """Centred."""
    mean = pm.Normal("county_effect_mean", 0.0, 1.0)
    scale = pm.Uniform("county_effect_scale", 0.0, 100.0)
    effect = pm.Normal("county_effect", mean, scale, shape=data["num_counties"])
    weight = pm.Normal("weight", 0.0, 1.0, shape=3)
    noise = pm.Uniform("log_radon_scale", 0.0, 100.0)
    expected = effect[data["county"]] + weight[0] * data["log_uranium"]
    expected += weight[1] * data["which_floor"] + weight[2] * data["floor_by_county"]
    pm.Normal("log_radon", expected, noise, observed=data["log_radon"])


def log_gaussian_cox(data: Data) -> None:
    """Centred, as in the Stan program."""
    locations, counts, extents = data["locations"], data["counts"], data["extents"]
    distances = np.sqrt(3.0 * np.sum((locations[:, None] - locations) ** 2, axis=-1))
    mean = np.full(len(counts), np.mean(np.log(counts / extents)))
    amplitude = pm.LogNormal("amplitude", -1.0, 0.5)
    length_scale = pm.LogNormal("length_scale", -1.0, 1.0)
    scaled = distances / (length_scale + 0.001)
    covariance = (amplitude + 0.001) ** 2 * (1.0 + scaled) * pt.exp(-scaled) + 1e-6 * pt.eye(len(counts))
    f = pm.MvNormal("log_intensity", mean, cov=covariance)
    pm.Poisson("counts", extents * pt.exp(f), observed=counts)


def logistic(data: Data) -> None:
    """Bernoulli-logit regression."""
    alpha = pm.Normal("alpha", 0.0, 1.0)
    beta = pm.Normal("beta", 0.0, 1.0, shape=data["D"])
    pm.Bernoulli("y", logit_p=alpha + data["X"] @ beta, observed=data["y"])


def stochastic_volatility(data: Data) -> None:
    """With standardised innovations."""
    mu = pm.Cauchy("mu", 0.0, 10.0)
    phi = pm.Uniform("phi", -1.0, 1.0)
    sigma = pm.HalfCauchy("sigma", 5.0)
    h_std = pm.Normal("h_std", 0.0, 1.0, shape=data["T"])
    first = sigma * h_std[0] / pt.sqrt(1.0 - phi**2)
    later = pytensor.scan(
        lambda z, h, phi, sigma: phi * h + sigma * z,
        sequences=[h_std[1:]],
        outputs_info=[first],
        non_sequences=[phi, sigma],
        strict=True,
        return_updates=False,
    )
    h = mu + pt.concatenate([first[None], later])
    pm.Normal("y", 0.0, pt.exp(h / 2.0), observed=data["y"])


def item_response(data: Data) -> None:
    """Two-parameter logistic."""
    sigma_theta = pm.HalfCauchy("sigma_theta", 2.0)
    theta = pm.Normal("theta", 0.0, sigma_theta, shape=data["J"])
    sigma_a = pm.HalfCauchy("sigma_a", 2.0)
    a = pm.LogNormal("a", 0.0, sigma_a, shape=data["I"])
    mu_b = pm.Normal("mu_b", 0.0, 5.0)
    sigma_b = pm.HalfCauchy("sigma_b", 2.0)
    b = pm.Normal("b", mu_b, sigma_b, shape=data["I"])
    pm.Bernoulli("y", logit_p=a[:, None] * (theta - b[:, None]), observed=data["y"])


MODELS: dict[str, Callable[[Data], None]] = {
    "eight_schools": eight_schools,
    "kidiq": kidiq,
    "sblrc": sblrc,
    "arK": autoregression,
    "garch": garch,
    "gauss_mix": gaussian_mixture,
    "dogs": dogs,
    "gp_regr": gp_regression,
    "gp_pois": gp_poisson,
    "brownian": brownian,
    "radon": radon,
    "lgcp": log_gaussian_cox,
    "logistic": logistic,
    "volatility": stochastic_volatility,
    "irt": item_response,
}
