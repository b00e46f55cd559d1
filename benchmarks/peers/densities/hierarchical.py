"""Hierarchical models: many parameters that share a few scales."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..transforms import Density, Interval, Positive, Real
from .terms import bernoulli_logit, cauchy, lognormal, normal

Data = dict[str, Any]
Array = jax.Array


def eight_schools(data: Data) -> Density:
    """Eight schools, non-centred."""
    y, sigma = data["y"].astype(float), data["sigma"].astype(float)

    def effects(v: dict[str, Array]) -> Array:
        return v["mu"] + v["tau"] * v["theta_trans"]

    return Density(
        (Real("theta_trans", (data["J"],)), Real("mu"), Positive("tau")),
        lambda v: (
            normal(v["theta_trans"], 0.0, 1.0)
            + normal(v["mu"], 0.0, 5.0)
            + cauchy(v["tau"], 5.0)
            + normal(y, effects(v), sigma)
        ),
        lambda v: {"theta": effects(v)},
    )


def radon(data: Data) -> Density:
    """Radon in houses, with an effect a county, centred."""
    county = data["county"]
    X = np.stack([data["log_uranium"], data["which_floor"], data["floor_by_county"]], axis=1)

    def log_joint(v: dict[str, Array]) -> Array:
        mean = v["county_effect"][county] + X @ v["weight"]
        prior = normal(v["county_effect_mean"], 0.0, 1.0) + normal(v["weight"], 0.0, 1.0)
        prior += normal(v["county_effect"], v["county_effect_mean"], v["county_effect_scale"])
        return prior + normal(data["log_radon"], mean, v["log_radon_scale"])

    return Density(
        (
            Real("county_effect", (data["num_counties"],)),
            Real("weight", (3,)),
            Real("county_effect_mean"),
            Interval("county_effect_scale", high=100.0),
            Interval("log_radon_scale", high=100.0),
        ),
        log_joint,
    )


def brownian(data: Data) -> Density:
    """Brownian motion, of which the middle was not observed."""
    where, y = data["observation_indices"] - 1, data["observations"]

    def log_joint(v: dict[str, Array]) -> Array:
        innovation, noise = v["innovation_noise_scale"], v["observation_noise_scale"]
        prior = lognormal(innovation, 0.0, 2.0) + lognormal(noise, 0.0, 2.0)
        steps = jnp.diff(v["loc"], prepend=0.0)
        return prior + normal(steps, 0.0, innovation) + normal(y, v["loc"][where], noise)

    return Density(
        (
            Positive("innovation_noise_scale"),
            Positive("observation_noise_scale"),
            Real("loc", (data["num_timesteps"],)),
        ),
        log_joint,
    )


def item_response(data: Data) -> Density:
    """Two-parameter logistic item-response model."""
    y = data["y"].astype(float)

    def log_joint(v: dict[str, Array]) -> Array:
        prior = cauchy(v["sigma_theta"], 2.0) + cauchy(v["sigma_a"], 2.0) + cauchy(v["sigma_b"], 2.0)
        prior += normal(v["mu_b"], 0.0, 5.0) + normal(v["theta"], 0.0, v["sigma_theta"])
        prior += lognormal(v["a"], 0.0, v["sigma_a"]) + normal(v["b"], v["mu_b"], v["sigma_b"])
        return prior + bernoulli_logit(y, v["a"][:, None] * (v["theta"] - v["b"][:, None]))

    return Density(
        (
            Positive("sigma_theta"),
            Real("theta", (data["J"],)),
            Positive("sigma_a"),
            Positive("a", (data["I"],)),
            Real("mu_b"),
            Positive("sigma_b"),
            Real("b", (data["I"],)),
        ),
        log_joint,
    )
