"""The unconstrained log density of a model, by term: what samplers see of it.

For latent variables θ = T(q) with bijections T onto their supports and data y,

    log π(q) = Σ_sites log p(site | others) + Σ_latents log |det ∂T/∂q| + Σ_factors.

A bijection is built from the distribution as it stands, so where a support depends on other variables, the bijection
and its Jacobian do too, and the terms say so.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from ..ad.errors import NEEDS_NUMBERS
from ..ad.host import at_numbers
from ..ad.preparation import shapes_of
from .blocks.block import Block, block_of
from .blocks.coordinates import Array, Coordinates, Part
from .checking.indices import check_indices
from .interpreter import Dims, Plate
from .interpreters import evaluate
from .model import BoundModel
from .programs.cones import merged
from .programs.program import Program
from .programs.rolling import lifted
from .trace import Trace
from .transforms import is_discrete
from .views.priors import innermost
from .views.templates import Template, number, take_apart

# Terms, constrained values with deterministics, and what distributions are made of.
Results = tuple[list[Any], list[Any], list[Any]]


@dataclass(frozen=True)
class ModelDensity:
    """The log density of all latent sites of a model, given data; the target from which blocks are taken.

    Args:
        coordinates: of the latent sites.
        index_shapes: by site, of the leading dimensions whose entries can be put into different blocks.
        discrete: the discrete ones among the sites.
        program: from the sites' unconstrained arrays, then the data, to everything that is known of the model.
        terms: which results of the program (by number) are terms of the log density; by name of the term.
        values: likewise the values of latent and observed sites and of deterministics, constrained.
        distributions: of latent and observed sites; without those whose parts are not arrays.
        data: what the model closes over: the data, as arrays.
    """

    coordinates: Coordinates
    index_shapes: dict[str, tuple[int, ...]]
    discrete: tuple[str, ...]
    program: Program
    terms: dict[str, int]
    values: dict[str, int]
    distributions: dict[str, Template]
    data: Sequence[Any]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of their coordinates."""
        return tuple(self.coordinates.shapes)

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""
        return self.coordinates.dimension

    @property
    def sizes(self) -> dict[str, int]:
        """By site, how many coordinates it has."""
        return self.coordinates.sizes

    def log_density(self, position: Array, *data: Any) -> Array:
        """The sum of all terms, shape ()."""
        return functools.reduce(jnp.add, self.by_term(position, *data).values())

    def by_term(self, position: Any, *data: Any) -> dict[str, Array]:
        """Each term, shape (): one for each site, its bijection (`log|J| site`) and each factor."""
        return dict(zip(self.terms, self._terms(*self.coordinates.split(position), *data), strict=True))

    @functools.cached_property
    def _terms(self) -> Program:
        return self.program.select(tuple(self.terms.values()))

    def restrict(self, block: Iterable[str] | Mapping[str, Part]) -> Block:
        """A block of sites or parts of sites given all others: only the terms that depend on it."""
        return block_of(self, block)


@dataclass(frozen=True)
class TracedModel:
    """A model, traced: its log density, its constrained values, and what is known of its sites.

    Args:
        density: of all latent sites.
        names: of what a result holds: the latent sites and the deterministics.
        dims: dimension names by site; None where unknown.
        plates: by name.
        observed: observed values by site, where the model does not compute them from latent variables.
        likelihood: names of the terms that count to the likelihood; the others are the prior's and Jacobians.
    """

    density: ModelDensity
    names: tuple[str, ...]
    dims: dict[str, Dims]
    plates: dict[str, Plate]
    observed: dict[str, Any]
    likelihood: tuple[str, ...]

    @property
    def data(self) -> tuple[Any, ...]:
        """What the model closes over, as arrays."""
        return tuple(self.density.data)

    def constrained(self, position: Array, *data: Any) -> dict[str, Array]:
        """Values of the latent sites and deterministics at a flat position."""
        return dict(zip(self.names, self._values(*self.density.coordinates.split(position), *data), strict=True))

    @functools.cached_property
    def _values(self) -> Program:
        return self.density.program.select([self.density.values[name] for name in self.names])


def trace_model(model: BoundModel, found: Trace) -> TracedModel:
    """Trace the log density of a model.

    Of a model that looks at the values of its random variables (`if theta > 0:`) the trace is one operation, the
    model's run at numbers: every term depends on every site, and only `AutoTape` and finite differences can
    differentiate it.

    Args:
        model: with data bound.
        found: what `discover` found.

    Raises:
        ValueError: if the model declares other sites this time.
    """
    dtype = jnp.result_type(float)
    latent = {site.name: site for site in found.sites.values() if site.is_latent}
    shapes = {name: site.unconstrained_shape for name, site in latent.items()}
    kept: list[tuple[Trace, dict[str, Any]]] = []

    def run(*arrays: Array) -> Results:
        trace = evaluate(model, dict(zip(shapes, arrays, strict=True)))
        _check_declared(found.sites.keys(), trace.sites.keys())
        if kept:
            first = kept[0][0]
            _check_declared(first.terms.keys() | first.deterministics, trace.terms.keys() | trace.deterministics)
        parts, structures = take_apart(trace.distributions)
        if not kept:
            kept.append((trace, structures))
        values = [jnp.asarray(value) for value in _values(trace).values()]
        return [jnp.asarray(term, dtype) for term in trace.terms.values()], values, parts

    def run_at_numbers(*arrays: Array) -> Results:
        results: Results = at_numbers(run, shapes_of_results, *arrays)
        return results

    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes.values()]
    opaque = False
    try:
        program, data, _ = Program.trace(run, *arrays)
    except NEEDS_NUMBERS:
        opaque = True
        shapes_of_results = shapes_of(run(*(jnp.zeros(shape, dtype) for shape in shapes.values())))
        program, data, _ = Program.trace(run_at_numbers, *arrays)
    trace, structures = kept[0]
    # Closed-over data come first in a traced program; here they follow the sites, as constants.
    inputs = (*program.inputs[len(data) :], *program.inputs[: len(data)])
    program, numbers = lifted(Program(inputs, program.equations, program.outputs))
    values = _values(trace)
    first_part = len(trace.terms) + len(values)
    # What a model that looks at values is made of holds for one run only.
    templates = {} if opaque else number(structures, first_part)
    if not opaque:
        results = dict(enumerate([*trace.terms, *values]))
        sites = dict(enumerate(shapes))
        known = dict(enumerate((*data, *numbers), len(sites)))
        for ends in _ends_of_supports(trace, shapes):
            check_indices(program, sites, known | ends, results)
    density = ModelDensity(
        Coordinates(shapes),
        {name: site.index_shape for name, site in latent.items()},
        tuple(name for name, site in latent.items() if site.discrete),
        merged(program),
        {name: i for i, name in enumerate(trace.terms)},
        {name: i for i, name in enumerate(values, len(trace.terms))},
        templates,
        (*data, *numbers),
    )
    names = (*trace.values, *trace.deterministics)
    dims = {name: site.dims for name, site in trace.sites.items()} | {
        name: where for name, (_, where) in trace.deterministics.items()
    }
    observed = {
        name: site.obs
        for name, site in found.sites.items()
        if site.obs is not None and not isinstance(site.obs, jax.core.Tracer)
    }
    traced = TracedModel(density, names, dims, found.plates, observed, tuple(trace.likelihood))
    if not found.marginalized:
        return traced
    from .views.marginal import summed_out

    return summed_out(traced, tuple(found.marginalized))


def _ends_of_supports(trace: Trace, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[dict[int, Any]]:
    """The smallest and the largest values of discrete sites, by number; an index that they make is checked at both."""
    bounds: dict[int, tuple[Any, Any]] = {}
    for i, (name, shape) in enumerate(shapes.items()):
        distribution = trace.distributions.get(name)
        if distribution is None or not is_discrete(distribution):
            continue
        support: Any = innermost(distribution).support
        low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
        if support is constraints.boolean:
            low, high = 0, 1
        if isinstance(low, (int, np.integer, np.ndarray)) and isinstance(high, (int, np.integer, np.ndarray)):
            bounds[i] = (np.broadcast_to(low, shape), np.broadcast_to(high, shape))
    for side in (0, 1) if bounds else (0,):
        yield {i: ends[side] for i, ends in bounds.items()}


def _values(trace: Trace) -> dict[str, Any]:
    """The values of latent sites, deterministics and observed sites."""
    observed = {name: site.obs for name, site in trace.sites.items() if site.obs is not None}
    return trace.values | {name: value for name, (value, _) in trace.deterministics.items()} | observed


def _check_declared(before: Set[str], now: Set[str]) -> None:
    for name in sorted(before ^ now):
        what = "has vanished: the model declared it before and did not now" if name in before else "appeared only now"
        raise ValueError(
            f"site '{name}' {what}. The sites of a model must not depend on values or change between calls."
        )
