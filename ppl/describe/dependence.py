"""What depends on what in a model: the direct parents of its sites, read off a traced program.

The model is traced with an input for every site. In the program of its terms and values, the value of a site or of a
deterministic is a variable, and what is computed from it depends on that variable and not on what it was computed from
in turn: the parents of a site are the names that its term reaches first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...ad.errors import NEEDS_NUMBERS
from ..interpreters import evaluate
from ..model import BoundModel
from ..programs.program import Program
from ..trace import Trace
from .ancestry import Ancestry
from .notation import write_atom, write_distribution, write_support

_ONE_RUN = (
    "the model looks at values, so the arrows are those of one run, at the origin of unconstrained space; what `if` "
    "decides on and what comes through whole numbers is not among them"
)
_NOT_FROM_DATA = "the model looks at the values of its data, so arrows from observed and fixed sites are not found"

# After the name of a factor, its part that counts to the prior.
_PRIOR = " (prior)"


@dataclass(frozen=True)
class Dependence:
    """What the sites of a model are made of.

    Args:
        parents: by name of a site, deterministic or factor: the names whose values it depends on directly.
        distributions: in writing, by site.
        supports: likewise.
        note: what could not be seen, or empty.
    """

    parents: dict[str, tuple[str, ...]]
    distributions: dict[str, str]
    supports: dict[str, str]
    note: str = ""


def dependence(model: BoundModel, found: Trace) -> Dependence:
    """Find the direct parents of everything that a model declares.

    Args:
        model: with data bound.
        found: what `discover` found.
    """
    given = _given(found)
    attempts = [(given, "")] if not given else [(given, ""), ({}, _NOT_FROM_DATA)]
    for inputs, note in attempts:
        try:
            return _traced(model, found, inputs, note)
        except NEEDS_NUMBERS:
            continue
    return _at_numbers(model, found, given)


@dataclass(frozen=True)
class _Run:
    """One run of the model, as arrays.

    Args:
        terms: of the sites and factors.
        values: of everything that has a name and is computed.
        distributions, supports: templates by site; a placeholder `{i}` stands for `parts[i]`.
        parts: arrays.
    """

    terms: dict[str, Any]
    values: dict[str, Any]
    distributions: dict[str, str]
    supports: dict[str, str]
    parts: list[Any]


def _run(model: BoundModel, found: Trace, inputs: Mapping[str, Any]) -> _Run:
    """Run the model with the given inputs for its latent, observed and fixed sites."""
    latent = {name: array for name, array in inputs.items() if name in found.sites and found.sites[name].is_latent}
    fixed = {name: array for name, array in inputs.items() if name in found.fixed}
    observed = {name: array for name, array in inputs.items() if name not in latent and name not in fixed}
    trace = evaluate(model.condition(observed).fix(fixed), latent)
    parts: list[Any] = []

    def note(array: Any) -> str:
        parts.append(array)
        return f"{{{len(parts) - 1}}}"

    terms = {name: term for name, term in trace.terms.items() if name in found.sites or name in found.terms}
    computed = {name: site.obs for name, site in trace.sites.items() if site.obs is not None and name not in observed}
    derived = {name: value for name, (value, _) in trace.deterministics.items()}
    values = {name: jnp.asarray(value) for name, value in (trace.values | computed | derived).items()}
    distributions = trace.distributions
    return _Run(
        terms,
        values,
        {name: write_distribution(distribution, note) for name, distribution in distributions.items()},
        {name: write_support(distribution.support, note) for name, distribution in distributions.items()},
        parts,
    )


def _traced(model: BoundModel, found: Trace, given: Mapping[str, Any], note: str) -> Dependence:
    """With placeholders for all inputs."""
    dtype = jnp.result_type(float)
    shapes = {
        name: jax.ShapeDtypeStruct(site.unconstrained_shape, dtype)
        for name, site in found.sites.items()
        if site.is_latent
    } | {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in given.items()}
    runs: list[_Run] = []

    def traced(*arrays: Any) -> list[Any]:
        runs.append(_run(model, found, dict(zip(shapes, arrays, strict=True))))
        return [*runs[-1].terms.values(), *runs[-1].values.values(), *runs[-1].parts]

    program, constants, _ = Program.trace(traced, *shapes.values())
    run = runs[-1]
    graph = Ancestry.of(program, tuple(shapes), run.terms, run.values)
    known = dict(zip(program.inputs, constants, strict=False))
    atoms = program.outputs[len(run.terms) + len(run.values) :]
    producers = {out: equation for equation in program.equations for out in equation.outvars}
    texts = [write_atom(atom, producers, graph.names, graph.reach, known) for atom in atoms]
    return Dependence(
        _parents(graph, found),
        {name: template.format(*texts) for name, template in run.distributions.items()},
        {name: template.format(*texts) for name, template in run.supports.items()},
        note,
    )


def _at_numbers(model: BoundModel, found: Trace, given: Mapping[str, Any]) -> Dependence:
    """With numbers for all inputs: what depends on what is read off the derivative there."""
    dtype = jnp.result_type(float)
    arrays = {
        name: jnp.zeros(site.unconstrained_shape, dtype) for name, site in found.sites.items() if site.is_latent
    } | {name: jnp.asarray(value) for name, value in given.items() if jnp.issubdtype(value.dtype, jnp.inexact)}
    runs: list[tuple[_Run, tuple[str, ...]]] = []

    def at(*inputs: Any) -> list[Any]:
        run = _run(model, found, dict(zip(arrays, inputs, strict=True)))
        values = {name: value for name, value in run.values.items() if jnp.issubdtype(value.dtype, jnp.inexact)}
        runs.append((run, tuple(values)))
        return [*run.terms.values(), *values.values()]

    _, derivative = jax.linearize(at, *arrays.values())
    program, _, _ = Program.trace(derivative, *arrays.values())
    run, values = runs[-1]
    graph = Ancestry.of(program, tuple(arrays), run.terms, values)
    unseen = ["…"] * len(run.parts)
    return Dependence(
        _parents(graph, found),
        {name: template.format(*unseen) for name, template in run.distributions.items()},
        {name: template.format(*unseen) for name, template in run.supports.items()},
        _ONE_RUN,
    )


def _given(found: Trace) -> dict[str, np.ndarray[Any, Any]]:
    """The values of observed and fixed sites that can be inputs: those that do not depend on latent ones, complete."""
    values = {name: site.obs for name, site in found.sites.items() if site.obs is not None}
    values |= {name: value for name, (value, _) in found.fixed.items()}
    arrays = {name: np.asarray(value) for name, value in values.items() if not isinstance(value, jax.core.Tracer)}
    return {name: array for name, array in arrays.items() if array.dtype.kind != "f" or not np.isnan(array).any()}


def factors_of(found: Trace) -> tuple[str, ...]:
    """Names of the factors; one that has a part for the prior and one for the likelihood is one."""
    return tuple(
        name
        for name in found.terms
        if name.removesuffix(_PRIOR) == name or name.removesuffix(_PRIOR) not in found.terms
    )


def _parents(graph: Ancestry, found: Trace) -> dict[str, tuple[str, ...]]:
    """By name: of sites and factors those of the term, of deterministics and computed data those of the value."""
    declared = (*found.sites, *found.fixed, *found.deterministics, *factors_of(found))
    result = {}
    for name in declared:
        reached = graph.of_term(name) | graph.of_term(f"{name}{_PRIOR}")
        if not (name in found.sites and found.sites[name].is_latent):
            reached |= graph.of_value(name)
        # The entries of a site that are missing and those that are not are of one distribution.
        apart = {f"{name}_missing"} if name in found.sites else set()
        result[name] = tuple(other for other in declared if other in reached - apart)
    return result
