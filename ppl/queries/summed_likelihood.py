"""The pointwise log likelihood of a model whose discrete sites have been summed out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..interpreter import Dims
from ..interpreters import discover
from ..log_density import TracedModel, trace_model
from ..marginalization import by_draw, by_site
from ..model import BoundModel
from ..trace import Trace
from ..views.factors import quoted
from ..views.marginal import Marginal, marginal
from .draws import PosteriorDraws
from .replay import Replay, replay

HostArray = np.ndarray[Any, Any]


def summed_likelihood(
    model: BoundModel, found: Trace, draws: PosteriorDraws, values: Mapping[str, HostArray]
) -> Replay:
    """The log likelihood of each unit that a summed-out entry belongs to, at every draw.

        log p(y_i | θ) = log Σ_z p(z_i = z | θ) p(y_i | z, θ)

    The units are the entries of the site, as the rows of a mixture; entries that are tied together, as the states of a
    hidden Markov model, are one unit. Data that do not depend on the site count by themselves.

    Args:
        model: with sites that are to be summed out.
        found: its sites.
        draws: the posterior.
        values: of the other latent sites, shape (rows, ...).

    Raises:
        ValueError: where a site of the data depends on the summed-out one in part only.
    """
    sites = {name: found.sites[name] for name in found.marginalized}
    kept: list[tuple[list[str], bool]] = []

    def one(given: dict[str, Any]) -> dict[str, Any]:
        conditioned = model.condition(given)
        trace = dataclasses.replace(discover(conditioned), marginalized={})
        traced = trace_model(conditioned, trace)
        summed = marginal(traced, tuple(sites))
        terms = _dependent(traced, tuple(sites), given)
        _check_whole(summed, terms)
        kept.append((terms, summed.forest.is_edgeless))
        sums = jnp.asarray(summed.log_sums(*traced.data))
        if not summed.forest.is_edgeless:
            return {f"marginal {next(iter(sites))}": sums}
        return by_site(summed.sites, sites, sums[summed.order])

    sums = by_draw(one, dict(values), sites)
    terms, by_entry = kept[-1]

    def read(trace: Trace) -> dict[str, tuple[Any, Dims]]:
        return {
            name: (elements, trace.element_dims.get(name))
            for name, elements in trace.elements.items()
            if name in trace.likelihood and name not in terms and name not in values
        }

    # What is drawn for the summed-out sites does not matter to these.
    rest = replay(dataclasses.replace(model, marginalized=frozenset()), values, draws.rows, 0, read, pointwise=True)
    if by_entry and len(terms) == len(sites) == 1:
        names = dict(zip(sites, terms, strict=True))
    else:
        names = {name: name if name.startswith("marginal ") else f"marginal {name}" for name in sums}
    dims = {names[name]: list(sites[name].dims or ()) for name in sums if name in sites and sites[name].dims}
    return Replay(
        rest.values | {names[name]: array for name, array in sums.items()},
        rest.dims | dims,
        rest.coords | {name: plate.labels for name, plate in found.plates.items()},
    )


def _dependent(traced: TracedModel, sites: tuple[str, ...], given: Mapping[str, Any]) -> list[str]:
    """The terms of data that depend on the sites."""
    density = traced.density
    moving = {density.sites.index(site) for site in sites}
    depends = density.program.dependencies()
    return [
        term for term, i in density.terms.items() if depends[i] & moving and term not in given and term not in sites
    ]


def _check_whole(summed: Marginal, terms: list[str]) -> None:
    partial = [term for term in terms if term in summed.partial]
    if partial:
        raise ValueError(
            f"log_likelihood: a part of the data of {quoted(partial)} depends on {quoted(summed.sites)}, so that there "
            f"is no likelihood by unit; declare the other part as a site of its own, or draw the summed-out sites "
            f"first, log_likelihood(model, recover(model, idata)), for the likelihood given them."
        )
