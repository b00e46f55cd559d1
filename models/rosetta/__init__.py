"""The classic models of the tutorials of Turing, PyMC and NumPyro; `docs/rosetta.md` shows them beside NumPyro's."""

from typing import TYPE_CHECKING

from ...ad.lazy import import_lazily

if TYPE_CHECKING:
    from .functions import epidemic, gaussian_process, neural_network
    from .hierarchies import hierarchical_radon, item_response, varying_effects
    from .incomplete import censored_survival, missing_covariates
    from .mixtures import (
        capture_recapture,
        change_point,
        gaussian_mixture,
        hidden_markov_model,
        latent_dirichlet_allocation,
    )
    from .regression import coin_flip, linear_regression, logistic_regression, ordered_logit, zero_inflated_counts
    from .series import local_linear_trend, stochastic_volatility

__all__ = [
    "capture_recapture",
    "censored_survival",
    "change_point",
    "coin_flip",
    "epidemic",
    "gaussian_mixture",
    "gaussian_process",
    "hidden_markov_model",
    "hierarchical_radon",
    "item_response",
    "latent_dirichlet_allocation",
    "linear_regression",
    "local_linear_trend",
    "logistic_regression",
    "missing_covariates",
    "neural_network",
    "ordered_logit",
    "stochastic_volatility",
    "varying_effects",
    "zero_inflated_counts",
]

import_lazily(
    __name__,
    {
        "functions": (
            "epidemic",
            "gaussian_process",
            "neural_network",
        ),
        "hierarchies": (
            "hierarchical_radon",
            "item_response",
            "varying_effects",
        ),
        "incomplete": (
            "censored_survival",
            "missing_covariates",
        ),
        "mixtures": (
            "capture_recapture",
            "change_point",
            "gaussian_mixture",
            "hidden_markov_model",
            "latent_dirichlet_allocation",
        ),
        "regression": (
            "coin_flip",
            "linear_regression",
            "logistic_regression",
            "ordered_logit",
            "zero_inflated_counts",
        ),
        "series": (
            "local_linear_trend",
            "stochastic_volatility",
        ),
    },
)
