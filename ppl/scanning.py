"""The steps of a time series: a step of the model is run inside a compiled loop, its sites collected along time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import Distribution

from .holes import Holes
from .interpreter import Dims, Plate, interpreting, open_plates
from .missing import missing_in
from .programs.program import Program
from .sources import AtOrigin
from .trace import Site, Trace

if TYPE_CHECKING:
    from .recorder import Recorder

Step = Callable[[Any, Any], tuple[Any, Any]]


def run_steps(
    recorder: Recorder, time: Plate, step: Step, carry: Any, xs: Any, plates: tuple[Plate, ...]
) -> tuple[Any, Any]:
    """Run the steps of a series, and note what they declare; see `dualtape.scan`.

    Raises:
        TypeError, ValueError: where a step returns no pair, or a carry of another shape, or a site inside has a value
            given for another number of steps.
    """
    xs = jax.tree.map(_as_data, xs)
    names = _looked_at(recorder, time, step, carry, xs, {}, {}).trace.names_of()
    conditions = _along(time, recorder.conditions, names)
    interventions = _along(time, recorder.interventions, names)
    look = _looked_at(recorder, time, step, carry, xs, conditions, interventions)
    found, carry = look.trace, look.carry
    latent = [site.name for site in found.sites.values() if site.is_latent]
    holes = list(_holes(look, time, xs, conditions))
    plausible = conditions | {hole.name: hole.completed(hole.inside) for hole in holes}
    known = _observed_of(recorder, time, step, carry, xs, (plausible, interventions)) | interventions
    known |= {hole.name: hole.data for hole in holes}
    hidden = {hole.name: hole.completed(recorder.entries(hole.label, hole.entries, hole.labels)) for hole in holes}
    given = (conditions | hidden, interventions)
    element_dims: dict[str, Dims] = {}

    def body(carry: Any, entry: Any) -> tuple[Any, Any]:
        x, (observed, fixed), own = entry
        part = recorder.part(recorder.source.at(own), observed, fixed)
        part.pointwise = recorder.pointwise or bool(holes)
        after, returned = _step(part, time, step, carry, x)
        trace = part.trace
        element_dims.update(trace.element_dims)
        kept = (
            trace.values,
            trace.terms,
            trace.elements,
            {name: value for name, (value, _) in trace.deterministics.items()},
            {name: site.obs for name, site in trace.sites.items() if not site.is_latent},
            part.source.produced,
        )
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, carry), (returned, kept)

    source = recorder.source.over_time(latent, time.size)
    last, (returned, kept) = lax.scan(body, carry, (xs, given, source), time.size)
    found.element_dims |= element_dims
    _collect(recorder, time, found, kept, known, plates)
    for hole in holes:
        hole.split_terms(recorder)
    if not recorder.pointwise:
        recorder.trace.elements.clear()
    return last, returned


def _step(part: Recorder, time: Plate, step: Step, carry: Any, x: Any) -> tuple[Any, Any]:
    with interpreting(part, open_plates()):
        result = step(carry, x)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"scan '{time.name}': a step must return the next carry and what is to be returned, got {result!r}; "
            f"write `return carry, None`."
        )
    return result


@dataclass(frozen=True)
class _Look:
    """What is seen of a step before the loop.

    Args:
        trace: what it declares.
        carry: the first carry, in the dtypes that steps return.
        observes: by observed site, which leaf of the data it observes, and its support; None where it computes them.
    """

    trace: Trace
    carry: Any
    observes: dict[str, tuple[int | None, Any]]


def _looked_at(
    recorder: Recorder, time: Plate, step: Step, carry: Any, xs: Any, conditions: Any, interventions: Any
) -> _Look:
    found: list[Trace] = []
    observes: dict[str, tuple[int | None, Any]] = {}

    def look(carry: Any, entry: Any, zero: Any) -> Any:
        x, observed, fixed = entry
        part = recorder.part(AtOrigin(zero), observed, fixed)
        numbers = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves((x, observed)))}

        def note(title: str, name: str, distribution: Distribution, value: Any) -> None:
            del title
            observes[name] = numbers.get(id(value)), distribution.support

        part.with_terms, part.inspect = False, note
        after, _ = _step(part, time, step, carry, x)
        found.append(part.trace)
        return after

    carry = jax.tree.map(jnp.asarray, carry)
    entry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (xs, conditions, interventions))
    after = jax.eval_shape(look, carry, entry, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    returned, wanted = str(jax.tree.structure(after)), str(jax.tree.structure(carry))
    if returned != wanted:
        raise TypeError(
            f"scan '{time.name}': a step returns a carry of structure {returned}, and gets one of {wanted}; return "
            f"what it gets."
        )
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(carry), strict=True):
        if new.shape != old.shape:
            raise ValueError(
                f"scan '{time.name}': a step returns a carry of shape {new.shape}, and gets one of shape {old.shape}; "
                f"give the first carry the shape of the later ones."
            )
    carry = jax.tree.map(lambda new, old: jnp.asarray(old, jnp.promote_types(new.dtype, old.dtype)), after, carry)
    return _Look(found[-1], carry, observes)


def _holes(look: _Look, time: Plate, xs: Any, conditions: Mapping[str, Any]) -> Iterator[Holes]:
    """The observed sites of a step some of whose data are missing."""
    leaves = jax.tree.leaves((xs, dict(conditions)))
    for name, (number, support) in look.observes.items():
        site = look.trace.sites.get(name)
        if number is None or site is None or site.is_latent:
            continue
        missing = missing_in(leaves[number])
        if missing is not None:
            inner = site.dims or (None,) * len(site.shape)
            plates = look.trace.plates
            along = [time.coords, *(plates[dim].coords if dim in plates else None for dim in inner)]
            yield Holes(name, np.asarray(leaves[number]), missing, support, along)


def _observed_of(recorder: Recorder, time: Plate, step: Step, carry: Any, xs: Any, given: Any) -> dict[str, Any]:
    """The observed values that data alone determine, with time first, once they have been looked at."""
    if recorder.inspect is None or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((xs, given))):
        return {}
    inspect = recorder.inspect

    def values(carry: Any, entry: Any) -> dict[str, Any]:
        x, (conditions, interventions) = entry
        part = recorder.part(AtOrigin(jnp.zeros(())), conditions, interventions)
        part.with_terms, part.inspect = False, None
        _step(part, time, step, carry, x)
        return {name: jnp.asarray(site.obs) for name, site in part.trace.sites.items() if not site.is_latent}

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (xs, given))
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), carry)
    with jax.ensure_compile_time_eval():
        leaves, structure = jax.tree.flatten((abstract, shapes))
        program, closed, result = Program.trace(lambda *flat: values(*jax.tree.unflatten(structure, flat)), *leaves)
        first = len(closed) + len(jax.tree.leaves(abstract))
        entries = {first + i: leaf for i, leaf in enumerate(jax.tree.leaves((xs, given)))}
        outer = {i: array for i, array in enumerate(closed) if not isinstance(array, jax.core.Tracer)}
        found = {}
        for i, (name, needs) in enumerate(zip(result, program.dependencies(), strict=True)):
            if needs <= entries.keys() | outer.keys():
                needed = sorted(needs & entries.keys())
                found[name] = _by_entry(program.select([i]), needed, entries, outer, time.size)

    def show(carry: Any, entry: Any) -> Any:
        x, (conditions, interventions) = entry
        part = recorder.part(AtOrigin(jnp.zeros(())), conditions, interventions)
        part.with_terms = False
        part.inspect = lambda title, name, distribution, value: inspect(
            title, name, distribution, found.get(name, value)
        )
        _step(part, time, step, carry, x)
        return None

    jax.eval_shape(show, abstract, shapes)
    return found


def _by_entry(
    program: Program, needed: list[int], entries: Mapping[int, Any], outer: Mapping[int, Any], length: int
) -> np.ndarray[Any, Any]:
    """A result of a step for every entry of the data that it needs."""
    if not program.equations and needed and program.outputs[0] in program.inputs:
        return np.asarray(entries[needed[0]])

    def one(*own: Any) -> Any:
        values = dict(outer) | dict(zip(needed, own, strict=True))
        return program(*(values.get(i, jnp.zeros(())) for i in range(len(program.inputs))))[0]

    if not needed:
        return np.asarray(jnp.broadcast_to(one(), (length, *np.shape(one()))))
    return np.asarray(jax.vmap(one)(*(entries[i] for i in needed)))


def _collect(
    recorder: Recorder, time: Plate, found: Trace, kept: Any, known: Mapping[str, Any], plates: tuple[Plate, ...]
) -> None:
    """Note in the trace of the model what the steps declared."""
    values, terms, elements, deterministics, data, produced = kept
    trace = recorder.trace
    for name in (*found.sites, *found.deterministics, *found.fixed):
        trace.claim(name, (time, *plates))
    for plate in found.plates.values():
        trace.plates.setdefault(plate.name, plate)
    for site in found.sites.values():
        obs = None if site.is_latent else known.get(site.name, data[site.name])
        trace.sites[site.name] = _over_time(site, time, obs)
    trace.values |= values
    trace.terms |= {name: jnp.sum(term) for name, term in terms.items()}
    trace.elements |= elements
    trace.element_dims |= {
        name: _dims(name, time, found.element_dims.get(name), np.ndim(value)) for name, value in elements.items()
    }
    trace.likelihood |= found.likelihood
    trace.submodels |= found.submodels
    trace.conditioned |= found.conditioned & recorder.conditions.keys()
    for name, (_, dims) in found.deterministics.items():
        trace.deterministics[name] = (deterministics[name], _dims(name, time, dims, np.ndim(deterministics[name])))
    for name, (_, dims) in found.fixed.items():
        trace.fixed[name] = (known[name], _dims(name, time, dims, np.ndim(known[name])))
    recorder.source.produced |= produced


def _over_time(site: Site, time: Plate, obs: Any) -> Site:
    return dataclasses.replace(
        site,
        shape=(time.size, *site.shape),
        unconstrained_shape=(time.size, *site.unconstrained_shape),
        index_shape=(time.size, *site.index_shape),
        obs=obs,
        dims=_dims(site.name, time, site.dims, len(site.shape) + 1),
    )


def _dims(name: str, time: Plate, dims: tuple[str, ...] | None, rank: int) -> tuple[str, ...]:
    return (time.name, *(dims if dims is not None else (f"{name}_dim_{i}" for i in range(1, rank))))


def _along(time: Plate, values: Mapping[str, Any], names: Mapping[str, None]) -> dict[str, Any]:
    """The values that are given to sites of the series, with time first."""
    chosen = {name: _as_data(value) for name, value in values.items() if name in names}
    for name, value in chosen.items():
        if np.ndim(value) == 0 or np.shape(value)[0] != time.size:
            raise ValueError(
                f"site '{name}' stands in scan '{time.name}' of {time.size} steps, so a value for it needs a first "
                f"dimension of that length, got shape {np.shape(value)}."
            )
    return chosen


def _as_data(leaf: Any) -> Any:
    if np.ma.isMaskedArray(leaf):
        leaf = np.ma.filled(leaf.astype(float), np.nan)
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype)) if array.dtype.kind in "biuf" else array
