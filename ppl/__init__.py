"""The modelling language: plain Python functions that declare random variables, turned into log densities.

    from dualtape import model, rv, plate

    @model
    def schools(y, sigma):
        mu = rv("mu", dist.Normal(0.0, 5.0))
        tau = rv("tau", dist.HalfCauchy(5.0))
        with plate("school", len(y)):
            theta = rv("theta", dist.Normal(mu, tau))
            rv("y", dist.Normal(theta, sigma), obs=y)

Calling a model binds data. What a call to `rv` does depends on who runs the function: an *interpreter*
(`interpreters`) that discovers the sites, evaluates the log density, or reads constrained values. Distributions,
supports and bijections are those of `numpyro.distributions`.

Only `inference` knows samplers.
"""

from typing import TYPE_CHECKING

from ..ad.lazy import import_lazily

if TYPE_CHECKING:
    from .inference import sample
    from .language import deterministic, factor, plate, rv, scan, submodel
    from .model import BoundModel, Model, model

__all__ = ["BoundModel", "Model", "deterministic", "factor", "model", "plate", "rv", "sample", "scan", "submodel"]

import_lazily(
    __name__,
    {
        "inference": ("sample",),
        "language": (
            "deterministic",
            "factor",
            "plate",
            "rv",
            "scan",
            "submodel",
        ),
        "model": (
            "BoundModel",
            "Model",
            "model",
        ),
    },
)
