"""The unconstrained log density of a model, by term: what samplers see of it.

For latent variables θ = T(q) with bijections T onto their supports and data y,

    log π(q) = Σ_sites log p(site | others) + Σ_latents log |det ∂T/∂q| + Σ_factors.

A bijection is built from the distribution as it stands, so where a support depends on other variables, the bijection
and its Jacobian do too, and the terms say so.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ad.equations import shaped
from ..ad.errors import NEEDS_NUMBERS
from ..ad.host import at_numbers
from ..ad.preparation import shapes_of
from .interpreters import Dims, Trace, evaluate
from .language import Plate
from .model import BoundModel
from .program import Program

Array = jax.Array
# Terms, and constrained values with deterministics.
Results = tuple[list[Any], list[Any]]


@dataclass(frozen=True)
class Coordinates:
    """Where the unconstrained coordinates of each site stand in a flat position.

    Args:
        shapes: the shape of each site's unconstrained array, in order.
    """

    shapes: dict[str, tuple[int, ...]]

    @functools.cached_property
    def slices(self) -> dict[str, slice]:
        """The stretch of each site."""
        stops = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes.values())]).tolist()
        return {name: slice(a, b) for name, a, b in zip(self.shapes, stops[:-1], stops[1:], strict=True)}

    @property
    def dimension(self) -> int:
        """The length of a position."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def split(self, position: Any) -> list[Array]:
        """A position cut into the unconstrained arrays of its sites."""
        return [position[self.slices[name]].reshape(shape) for name, shape in self.shapes.items()]

    def join(self, arrays: Sequence[Any]) -> Array:
        """The position of which `arrays` are the parts."""
        return jnp.concatenate([jnp.ravel(array) for array in arrays])


@dataclass(frozen=True)
class ModelDensity:
    """The log density of some sites of a model, given constants.

    Args:
        coordinates: of its sites.
        program: from the sites' unconstrained arrays, then the constants, to the terms.
        terms: their names.
        constants: shapes and dtypes of the constants.
    """

    coordinates: Coordinates
    program: Program
    terms: tuple[str, ...]
    constants: tuple[jax.ShapeDtypeStruct, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of their coordinates."""
        return tuple(self.coordinates.shapes)

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""
        return self.coordinates.dimension

    def log_density(self, position: Array, *constants: Any) -> Array:
        """The sum of all terms, shape ()."""
        return functools.reduce(jnp.add, self._terms(position, constants))

    def by_term(self, position: Any, *constants: Any) -> dict[str, Array]:
        """Each term, shape (): one for each site, its bijection (`log|J| site`) and each factor."""
        return dict(zip(self.terms, self._terms(position, constants), strict=True))

    def restrict(self, sites: tuple[str, ...]) -> ModelConditional:
        """The conditional of some of the sites given the others: only the terms that depend on them."""
        block = tuple(i for i, site in enumerate(self.sites) if site in sites)
        rest = set(range(len(self.sites))) - set(block)
        # With no rest this is the whole density again, constant terms included, with its constants worked out.
        needed = [i for i, inputs in enumerate(self.program.dependencies()) if inputs & set(block) or not rest]
        chosen = self.program.select(needed)
        depends = any(inputs & rest for inputs in chosen.dependencies())
        before, after = chosen.split(block)
        shapes = tuple(jax.ShapeDtypeStruct(*shaped(var)) for var in after.inputs[len(block) :])
        density = ModelDensity(
            Coordinates({self.sites[i]: self.coordinates.shapes[self.sites[i]] for i in block}),
            after,
            tuple(self.terms[i] for i in needed),
            shapes,
        )
        return ModelConditional(self, density, before, block, depends)

    def _terms(self, position: Any, constants: Sequence[Any]) -> list[Array]:
        return self.program(*self.coordinates.split(position), *constants)


@dataclass(frozen=True)
class ModelConditional:
    """The density of one block of sites given the rest of a position.

    Args:
        whole: the density that it was taken from.
        target: the block's own density.
        before: from the other sites and the whole's constants to the block's constants.
        block: the block's sites by number.
        depends_on_rest: whether the block's density changes when other sites move.
    """

    whole: ModelDensity
    target: ModelDensity
    before: Program
    block: tuple[int, ...]
    depends_on_rest: bool

    def constants(self, position: Array, constants: Sequence[Any]) -> tuple[Any, ...]:
        """The constants of the block's density, from a whole position and the whole's constants."""
        parts = self.whole.coordinates.split(position)
        rest = [part for i, part in enumerate(parts) if i not in self.block]
        return tuple(self.before(*rest, *constants))

    def take(self, position: Array) -> Array:
        """The block's coordinates out of a whole position."""
        parts = self.whole.coordinates.split(position)
        return self.target.coordinates.join([parts[i] for i in self.block])

    def put(self, position: Array, block: Array) -> Array:
        """A whole position with the block's coordinates replaced."""
        parts: list[Any] = self.whole.coordinates.split(position)
        for i, part in zip(self.block, self.target.coordinates.split(block), strict=True):
            parts[i] = part
        return self.whole.coordinates.join(parts)


@dataclass(frozen=True)
class TracedModel:
    """A model, traced: its log density, its constrained values, and what is known of its sites.

    Args:
        density: of all latent sites; its constants are the arrays in `data`.
        data: what the model closes over: the data, as arrays.
        values: the program from unconstrained arrays and data to the constrained values of the latent sites and
            the deterministics, which are named by `names`.
        names: of these values.
        dims: dimension names by site; None where unknown.
        plates: by name.
        observed: observed values by site, where the model does not compute them from latent variables.
    """

    density: ModelDensity
    data: tuple[Any, ...]
    values: Program
    names: tuple[str, ...]
    dims: dict[str, Dims]
    plates: dict[str, Plate]
    observed: dict[str, Any]

    def constrained(self, position: Array, *data: Any) -> dict[str, Array]:
        """Values of the latent sites and deterministics at a flat position."""
        return dict(zip(self.names, self.values(*self.density.coordinates.split(position), *data), strict=True))


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
    shapes = {
        site.name: site.unconstrained_shape for site in found.sites.values() if site.unconstrained_shape is not None
    }
    kept: list[Trace] = []

    def run(*arrays: Array) -> Results:
        trace = evaluate(model, dict(zip(shapes, arrays, strict=True)))
        _check_declared(found.sites.keys(), trace.sites.keys())
        if kept:
            _check_declared(kept[0].terms.keys() | kept[0].deterministics, trace.terms.keys() | trace.deterministics)
        else:
            kept.append(trace)
        values = [*trace.values.values(), *(value for value, _ in trace.deterministics.values())]
        return [jnp.asarray(term, dtype) for term in trace.terms.values()], [jnp.asarray(value) for value in values]

    def run_at_numbers(*arrays: Array) -> Results:
        results: Results = at_numbers(run, shapes_of_results, *arrays)
        return results

    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes.values()]
    try:
        program, data, _ = Program.trace(run, *arrays)
    except NEEDS_NUMBERS:
        shapes_of_results = shapes_of(run(*(jnp.zeros(shape, dtype) for shape in shapes.values())))
        program, data, _ = Program.trace(run_at_numbers, *arrays)
    trace = kept[0]
    # Closed-over data come first in a traced program; here they follow the sites, as constants.
    reordered = Program(
        (*program.inputs[len(data) :], *program.inputs[: len(data)]), program.equations, program.outputs
    )
    constants = tuple(jax.ShapeDtypeStruct(np.shape(array), array.dtype) for array in data)
    count = len(trace.terms)
    density = ModelDensity(Coordinates(shapes), reordered.select(range(count)), tuple(trace.terms), constants)
    names = (*trace.values, *trace.deterministics)
    dims = {name: site.dims for name, site in trace.sites.items()} | {
        name: where for name, (_, where) in trace.deterministics.items()
    }
    observed = {
        name: site.obs
        for name, site in found.sites.items()
        if site.obs is not None and not isinstance(site.obs, jax.core.Tracer)
    }
    values = reordered.select(range(count, count + len(names)))
    return TracedModel(density, data, values, names, dims, found.plates, observed)


def _check_declared(before: Set[str], now: Set[str]) -> None:
    for name in sorted(before ^ now):
        what = "has vanished: the model declared it before and did not now" if name in before else "appeared only now"
        raise ValueError(
            f"site '{name}' {what}. The sites of a model must not depend on values or change between calls."
        )
