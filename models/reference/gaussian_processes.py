"""Gaussian processes: regression, with Poisson counts, and a log-Gaussian Cox process on a grid."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...ppl import deterministic, model, plate, rv


@model
def gp_regression(x: Any, y: Any) -> None:
    """Regression with the function summed out.

    Args:
        x: shape (points,).
        y: shape (points,).
    """
    rho = rv("rho", dist.Gamma(25.0, 4.0))
    alpha = rv("alpha", dist.HalfNormal(2.0))
    sigma = rv("sigma", dist.HalfNormal(1.0))
    # The noise has variance sigma, not sigma squared: so it stands in the Stan program.
    covariance = squared_exponential(x, alpha, rho) + sigma * jnp.eye(len(x))
    rv("y", dist.MultivariateNormal(0.0, covariance_matrix=covariance), obs=y)


@model
def gp_poisson(x: Any, k: Any) -> None:
    """Counts whose log rate is a Gaussian process, in terms of independent normals.

    Args:
        x: shape (points,).
        k: counts, shape (points,).
    """
    rho = rv("rho", dist.Gamma(25.0, 4.0))
    alpha = rv("alpha", dist.HalfNormal(2.0))
    covariance = squared_exponential(x, alpha, rho) + 1e-10 * np.eye(len(x))
    with plate("point", len(x)):
        f_tilde = rv("f_tilde", dist.Normal(0.0, 1.0))
        f = deterministic("f", jnp.linalg.cholesky(covariance) @ f_tilde)
        rv("k", dist.Poisson(jnp.exp(f)), obs=k)


@model
def log_gaussian_cox(locations: Any, extents: Any, counts: Any) -> None:
    """Counts in cells whose log intensity is a Gaussian process in the plane.

    Args:
        locations: of the cells, shape (cells, 2).
        extents: their areas, shape (cells,).
        counts: shape (cells,).

    Source: Møller, Syversveen and Waagepetersen (1998), "Log Gaussian Cox processes", Scandinavian Journal of
    Statistics 25(3); the data and the priors are those of the Inference Gym.
    """
    amplitude = rv("amplitude", dist.LogNormal(-1.0, 0.5))
    length_scale = rv("length_scale", dist.LogNormal(-1.0, 1.0))
    distance = np.linalg.norm(locations[:, None] - locations, axis=-1)
    mean = np.mean(np.log(counts / extents))
    covariance = matern32(distance, amplitude + 0.001, length_scale + 0.001) + 1e-6 * np.eye(len(counts))
    loc = np.full(len(counts), mean)
    log_intensity = rv("log_intensity", dist.MultivariateNormal(loc, covariance_matrix=covariance), dims="cell")
    with plate("cell", len(counts)):
        rv("counts", dist.Poisson(extents * jnp.exp(log_intensity)), obs=counts)


def squared_exponential(x: Any, amplitude: Any, length_scale: Any) -> Any:
    """The covariance a² exp(−(x − x')² / 2ℓ²), shape (points, points)."""
    return amplitude**2 * jnp.exp(-0.5 * ((x[:, None] - x) / length_scale) ** 2)


def matern32(distance: Any, amplitude: Any, length_scale: Any) -> Any:
    """The covariance a² (1 + √3 r/ℓ) exp(−√3 r/ℓ) at distances r, of their shape."""
    scaled = np.sqrt(3.0) * distance / length_scale
    return amplitude**2 * (1.0 + scaled) * jnp.exp(-scaled)
