"""Log densities of a model at given values: `log_likelihood`, `log_prior`, `log_density`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...ad.errors import NEEDS_NUMBERS
from ..arguments import check_model
from ..checking.indices import check_indices
from ..checks import check_given
from ..interpreter import Dims
from ..interpreters import discover, unconstrain
from ..log_density import trace_model
from ..model import BoundModel
from ..programs.program import Program
from ..recorder import Recorder
from ..sources import Drawn
from ..trace import Trace
from .draws import PosteriorDraws
from .replay import replay


def log_likelihood(model: BoundModel, idata: Any) -> Any:
    """The pointwise log likelihood at every draw of the posterior, as `az.loo` and `az.compare` want it.

    For each observed site, log p(y_i | θ) of each independent observation y_i; of missing entries there is none. A
    factor that counts to the likelihood is there with the shape that it was given. Of a model with summed-out sites it
    is the marginal likelihood by entry of these, log Σ_z p(z) p(y_i | z, θ), unless `recover` has drawn them: then it
    is that given their values, which is not what models are compared by.

    Args:
        model: with its data.
        idata: what `sample` returned.

    Returns:
        A copy of `idata` with the group `log_likelihood`: by site, with the dimensions (chain, draw) and those of the
        observations.

    Raises:
        ValueError: where nothing is observed, or the posterior lacks a latent site.
        TypeError: on what is no model with data, or no ArviZ object with a posterior.

    Example:
        `az.loo(log_likelihood(schools(y, sigma), idata))`

    Source: Vehtari, Gelman and Gabry (2017), "Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC".
    """
    return _pointwise("log_likelihood", model, idata, likelihood=True)


def log_prior(model: BoundModel, idata: Any) -> Any:
    """The log prior density at every draw of the posterior, site by site.

    Args:
        model: with its data.
        idata: what `sample` returned.

    Returns:
        A copy of `idata` with the group `log_prior`: by latent site (and factor that counts to the prior), with the
        dimensions (chain, draw) and those of its independent entries. Without Jacobians: the density of the values.

    Raises:
        ValueError: where the posterior lacks a latent site.
        TypeError: on what is no model with data, or no ArviZ object with a posterior.
    """
    return _pointwise("log_prior", model, idata, likelihood=False)


def log_density(model: BoundModel, values: Mapping[str, Any]) -> Any:
    """The log of the joint density of latent variables and data, at values in the supports.

        log p(θ, y) = Σ_sites log p(site | others) + Σ_factors

    Args:
        model: with its data.
        values: of all latent sites, by name.

    Returns:
        A number; under a transformation of JAX, such as `jax.grad`, an array of shape ().

    Raises:
        ValueError: where a latent site has no value, one of another shape, or one that the model does not know.
        TypeError: on what is no model with data, or no dict.

    Example:
        `log_density(gdemo(1.5, 2.0), {"s": 1.0, "m": 0.5})`
    """
    check_model("log_density", model)
    if not isinstance(values, Mapping):
        raise TypeError(f"log_density: expected a dict from site names to values, got {values!r}.")
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(dict(values)))
    # Inside a transformation the precision is the caller's.
    precision: AbstractContextManager[Any] = nullcontext() if traced else jax.enable_x64(True)
    with precision:
        found = discover(model, check_given)
        latent = [site.name for site in found.sites.values() if site.is_latent and site.name not in found.marginalized]
        check_values("log_density", latent, values)
        if found.marginalized:
            return _of_summed(model, found, values)
        names = tuple(values)

        def total(*arrays: Any) -> Any:
            source = Drawn(dict(zip(names, arrays, strict=True)), None)
            terms = Recorder(model, source, with_terms=True).run().terms.values()
            return functools.reduce(jnp.add, terms, jnp.zeros(()))

        arrays = [values[name] for name in names]
        if traced:
            return total(*arrays)
        with suppress(*NEEDS_NUMBERS):
            program, data, _ = Program.trace(total, *(jnp.asarray(array) for array in arrays))
            check_indices(program, dict(enumerate(names, len(data))), dict(enumerate(data)), {0: model.name})
            return float(program(*data, *map(jnp.asarray, arrays))[0])
        return float(total(*arrays))


def _of_summed(model: BoundModel, found: Trace, values: Mapping[str, Any]) -> Any:
    """The log density of a model without its summed-out sites: all terms but those of bijections."""
    traced = trace_model(model, found)
    arrays = unconstrain(model, values, {})
    position = traced.density.coordinates.join([arrays[name] for name in traced.density.sites])
    terms = traced.density.by_term(position, *traced.data)
    total = sum(term for name, term in terms.items() if not name.startswith("log|J| "))
    return total if isinstance(total, jax.core.Tracer) else float(total)


def check_values(caller: str, latent: list[str], values: Mapping[str, Any]) -> None:
    """Refuse values that are not those of all latent sites.

    Raises:
        ValueError: naming the site.
    """
    known = ", ".join(f"'{name}'" for name in latent)
    for name in latent:
        if name not in values:
            raise ValueError(f"{caller}: the latent site '{name}' has no value; give one for each of {known}.")
    for name in values:
        if name not in latent:
            raise ValueError(f"{caller}: '{name}' is no latent site of the model; these are {known or 'none'}.")


def _pointwise(caller: str, model: BoundModel, idata: Any, *, likelihood: bool) -> Any:
    check_model(caller, model)
    posterior = PosteriorDraws.of(caller, idata)

    def read(trace: Trace) -> dict[str, tuple[Any, Dims]]:
        return {
            name: (elements, trace.element_dims.get(name))
            for name, elements in trace.elements.items()
            if (name in trace.likelihood) == likelihood
        }

    with jax.enable_x64(True):
        found = discover(model, check_given)
        if likelihood and found.marginalized and not any(name in posterior.group for name in found.marginalized):
            from .summed_likelihood import summed_likelihood

            others = {name: site for name, site in found.sites.items() if name not in found.marginalized}
            values = posterior.values_of_all(caller, dataclasses.replace(found, sites=others))
            outcome = summed_likelihood(model, found, posterior, values)
        else:
            values = posterior.values_of_all(caller, found)
            outcome = replay(model, values, posterior.rows, 0, read, pointwise=True)
    if not outcome.values:
        what = "observed sites" if likelihood else "latent sites"
        raise ValueError(f"{caller}: model '{model.name}' has no {what}.")
    for name, array in outcome.values.items():
        outcome.values[name] = np.asarray(array, float)
    return posterior.with_group({caller: outcome}, {caller: list(outcome.values)})
