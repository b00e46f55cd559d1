"""Gaussian processes, by a Cholesky factor at every evaluation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from ..transforms import Density, Positive, Real
from .terms import gamma, lognormal, normal, poisson_log

Data = dict[str, Any]
Array = jax.Array


def _squares(x: Any) -> Any:
    return (x[:, None] - x) ** 2


def _multivariate_normal(x: Array, cholesky: Array) -> Array:
    whitened = solve_triangular(cholesky, x, lower=True)
    return -0.5 * jnp.sum(whitened * whitened) - jnp.sum(jnp.log(jnp.diagonal(cholesky)))


def gp_regression(data: Data) -> Density:
    """GP regression; the noise has variance sigma, not sigma squared, as in the Stan program."""
    squares, y = _squares(data["x"]), data["y"]
    eye = np.eye(len(y))

    def log_joint(v: dict[str, Array]) -> Array:
        covariance = v["alpha"] ** 2 * jnp.exp(-0.5 * squares / v["rho"] ** 2) + v["sigma"] * eye
        prior = gamma(v["rho"], 25.0, 4.0) + normal(v["alpha"], 0.0, 2.0) + normal(v["sigma"], 0.0, 1.0)
        return prior + _multivariate_normal(y, jnp.linalg.cholesky(covariance))

    return Density((Positive("rho"), Positive("alpha"), Positive("sigma")), log_joint)


def gp_poisson(data: Data) -> Density:
    """Poisson regression on a latent GP, whitened."""
    squares, k = _squares(data["x"]), data["k"].astype(float)
    jitter = 1e-10 * np.eye(len(k))

    def latent(v: dict[str, Array]) -> Array:
        covariance = v["alpha"] ** 2 * jnp.exp(-0.5 * squares / v["rho"] ** 2) + jitter
        f: Array = jnp.linalg.cholesky(covariance) @ v["f_tilde"]
        return f

    return Density(
        (Positive("rho"), Positive("alpha"), Real("f_tilde", (len(k),))),
        lambda v: (
            gamma(v["rho"], 25.0, 4.0)
            + normal(v["alpha"], 0.0, 2.0)
            + normal(v["f_tilde"], 0.0, 1.0)
            + poisson_log(k, latent(v))
        ),
        lambda v: {"f": latent(v)},
    )


def log_gaussian_cox(data: Data) -> Density:
    """Counts in cells whose log intensity is a GP with a Matern 3/2 kernel."""
    locations, counts = data["locations"], data["counts"].astype(float)
    log_extents = np.log(data["extents"])
    distances = np.sqrt(3.0 * np.sum((locations[:, None] - locations) ** 2, axis=-1))
    jitter = 1e-6 * np.eye(len(counts))
    mean = np.mean(np.log(counts) - log_extents)

    def log_joint(v: dict[str, Array]) -> Array:
        scaled = distances / (v["length_scale"] + 0.001)
        covariance = (v["amplitude"] + 0.001) ** 2 * (1.0 + scaled) * jnp.exp(-scaled) + jitter
        prior = lognormal(v["amplitude"], -1.0, 0.5) + lognormal(v["length_scale"], -1.0, 1.0)
        prior += _multivariate_normal(v["log_intensity"] - mean, jnp.linalg.cholesky(covariance))
        return prior + poisson_log(counts, log_extents + v["log_intensity"])

    return Density((Positive("amplitude"), Positive("length_scale"), Real("log_intensity", (len(counts),))), log_joint)
