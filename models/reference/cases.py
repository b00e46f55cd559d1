"""The fifteen reference posteriors.

Source: Magnusson et al. (2025), "posteriordb: testing, benchmarking and developing Bayesian inference algorithms",
AISTATS; Sountsov, Radul and contributors (2020), "Inference Gym" (the names that begin with `ig_`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import log_ndtr

from ..eight_schools import eight_schools_centered, eight_schools_noncentered
from .case import Case
from .gaussian_processes import gp_poisson, gp_regression, log_gaussian_cox
from .mixtures import gaussian_mixture, hidden_markov
from .populations import lotka_volterra
from .regression import dogs, kidscore_interaction, linear_regression, radon_contextual_effects
from .time_series import autoregression, brownian_motion, garch11

# Each of the half-normal and half-Cauchy densities has a factor 2 for the half that is cut off, and none in Stan.
HALF = float(np.log(2.0))

Arguments = Callable[[Mapping[str, Any]], tuple[Any, ...]]


def _real(*names: str) -> Arguments:
    """Arrays and numbers of the reference data, as floating-point numbers."""
    return lambda data: tuple(np.array(data[name], float) for name in names)


def _radon(data: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("log_uranium", "which_floor", "floor_by_county", "log_radon")
    return np.array(data["county"]), *(np.array(data[name], float) for name in names)


def _brownian(data: Mapping[str, Any]) -> tuple[Any, ...]:
    return np.array(data["observation_indices"]) - 1, np.array(data["observations"]), data["num_timesteps"]


def _hidden_markov_coordinates(stan: Any) -> Any:
    # Stan has μ = (exp a, exp a + exp b), here it is (exp a, exp(a + exp b)).
    a, b = stan[2], stan[3]
    return jnp.stack([stan[0], stan[1], a, jnp.log(jnp.log1p(jnp.exp(b - a)))])


CASES = (
    Case(
        "eight_schools-eight_schools_centered",
        eight_schools_centered,
        _real("y", "sigma"),
        ("theta", "mu", "tau"),
        constant=HALF,
    ),
    Case(
        "eight_schools-eight_schools_noncentered",
        eight_schools_noncentered,
        _real("y", "sigma"),
        ("z", "mu", "tau"),
        constant=HALF,
    ),
    Case(
        "kidiq-kidscore_interaction",
        kidscore_interaction,
        _real("kid_score", "mom_iq", "mom_hs"),
        ("beta", "sigma"),
        constant=HALF,
    ),
    Case("sblrc-blr", linear_regression, _real("X", "y"), ("beta", "sigma"), constant=HALF),
    Case("dogs-dogs", dogs, lambda data: (np.array(data["y"]),), ("beta",)),
    Case(
        "ig_radon_contextual_effects_minnesota",
        radon_contextual_effects,
        _radon,
        ("county_effect", "weight", "county_effect_mean", "county_effect_scale", "log_radon_scale"),
        constant=-2 * float(np.log(100.0)),
    ),
    Case(
        "arK-arK",
        autoregression,
        lambda data: (np.array(data["y"]), data["K"]),
        ("alpha", "beta", "sigma"),
        constant=HALF,
    ),
    Case("garch-garch11", garch11, _real("y", "sigma1"), ("mu", "alpha0", "alpha1", "beta1")),
    Case(
        "ig_brownian_motion_unknown_scales_missing_middle_observations",
        brownian_motion,
        _brownian,
        ("innovation_noise_scale", "observation_noise_scale", "loc"),
    ),
    Case(
        "hmm_example-hmm_example",
        hidden_markov,
        _real("y"),
        ("theta1", "theta2", "mu"),
        coordinates=_hidden_markov_coordinates,
    ),
    Case(
        "low_dim_gauss_mix-low_dim_gauss_mix",
        gaussian_mixture,
        _real("y"),
        ("mu", "sigma", "theta"),
        constant=2 * HALF,
    ),
    Case("gp_pois_regr-gp_regr", gp_regression, _real("x", "y"), ("rho", "alpha", "sigma"), constant=2 * HALF),
    Case(
        "gp_pois_regr-gp_pois_regr",
        gp_poisson,
        lambda data: (np.array(data["x"], float), np.array(data["k"])),
        ("rho", "alpha", "f_tilde"),
        constant=HALF,
    ),
    Case(
        "ig_synthetic_log_gaussian_cox_process",
        log_gaussian_cox,
        lambda data: (np.array(data["locations"]), np.array(data["extents"]), np.array(data["counts"])),
        ("amplitude", "length_scale", "log_intensity"),
    ),
    Case(
        "hudson_lynx_hare-lotka_volterra",
        lotka_volterra,
        _real("y_init", "y"),
        ("theta", "z_init", "sigma"),
        constant=-2 * float(log_ndtr(2.0) + log_ndtr(1.0)),
    ),
)
