"""Blocks whose sites are the states of a Markov chain, in their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...ad.equations import shaped
from ...samplers.random import chain_key
from ..blocks.coordinates import Array, IntArray, Part
from ..blocks.density import AbstractBlockDensity, programs_of, terms_of
from ..blocks.given import Given
from ..programs.program import Atom
from ..transforms import describe
from .priors import known_distribution
from .steps import Cut, Cutter, GivenSteps, Steps, merge, placeholder
from .templates import Template

if TYPE_CHECKING:
    from ..log_density import ModelDensity

# Where one of these reads from what the other sites determine, steps may differ in where it reads: its result is taken
# for an array that is given.
_SELECTIONS = frozenset({"slice", "dynamic_slice", "gather"})


@dataclass(frozen=True)
class StateSpaceDensity(AbstractBlockDensity):
    """The density of a block whose sites form a Markov chain.

    Args:
        steps: all of them, by kind; the first is that of the first step alone.
    """

    steps: tuple[Steps, ...]

    @property
    def length(self) -> int:
        """T, the number of states."""
        return len(self.sites)

    @functools.cached_property
    def signature(self) -> Hashable:
        """Equal for two densities only if they are the same function of position and constants."""
        return type(self), self.identity()

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return tuple(self.coordinates.shapes.values()), tuple(steps.identity for steps in self.steps)

    def draw_state(self, key: Array, time: Array | int, previous: Array, *constants: Any) -> Array:
        """See `samplers.base.StateSpaceTarget.draw_state`."""
        return self._at(time, constants, lambda steps, own: steps.draw(key, previous, *own))

    def log_transition(self, time: Array | int, previous: Array, state: Array, *constants: Any) -> Array:
        """See `samplers.base.StateSpaceTarget.log_transition`."""
        return self._at(time, constants, lambda steps, own: steps.log_transition(previous, state, *own))

    def log_weight(self, time: Array | int, previous: Array, state: Array, *constants: Any) -> Array:
        """See `samplers.base.StateSpaceTarget.log_weight`."""
        return self._at(time, constants, lambda steps, own: steps.log_weight(previous, state, *own))

    def log_density(self, position: Array, *constants: Any) -> Array:
        """The sum of all terms, shape ()."""
        states = position.reshape(self.length, -1)
        before = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
        total = jnp.zeros((), position.dtype)
        for steps, given in self._by_kind(constants):

            def terms(previous: Array, state: Array, *own: Any, steps: Steps = steps) -> Array:
                return steps.log_transition(previous, state, *own) + steps.log_weight(previous, state, *own)

            axes = [0] * (2 + len(steps.own)) + [None] * (len(given) - len(steps.own))
            total += jnp.sum(jax.vmap(terms, axes)(before[steps.times], states[steps.times], *given))
        return total

    def _at(self, time: Array | int, constants: Sequence[Any], function: Callable[[Steps, list[Any]], Array]) -> Array:
        """A function of the steps of the kind that there is at a time, and of their constants at that time."""
        number, row = (jnp.asarray(table)[time] for table in (self._kind, self._row))

        def apply(steps: Steps, given: list[Any]) -> Array:
            own = len(steps.own)
            return function(steps, [*(rows[row] for rows in given[:own]), *given[own:]])

        kinds = list(self._by_kind(constants))
        if isinstance(time, int):
            return apply(*kinds[self._kind[time]])
        # The first step is never of the kind of another; where it is the only one, a loop over none is still traced.
        branches = [functools.partial(apply, *kind) for kind in kinds[1:] or kinds]
        result: Array = branches[0]() if len(branches) == 1 else lax.switch(number - 1, branches)
        return result

    def _by_kind(self, constants: Sequence[Any]) -> Iterator[tuple[Steps, list[Any]]]:
        """The constants that belong to each kind of steps."""
        left = iter(constants)
        for steps in self.steps:
            yield steps, [next(left) for _ in steps.constants]

    @functools.cached_property
    def _kind(self) -> IntArray:
        """The number of the kind of each step."""
        return self._scattered([np.full(len(steps.times), i) for i, steps in enumerate(self.steps)])

    @functools.cached_property
    def _row(self) -> IntArray:
        """The number of each step among those of its kind."""
        return self._scattered([np.arange(len(steps.times)) for steps in self.steps])

    def _scattered(self, values: Sequence[IntArray]) -> IntArray:
        return np.concatenate(values)[np.argsort(np.concatenate([steps.times for steps in self.steps]))]


def state_space(whole: ModelDensity, parts: Mapping[str, Part]) -> StateSpaceDensity:
    """A block whose sites, in their order, are the states of a Markov chain.

    Raises:
        ValueError: naming the term or site, where they do not form a Markov chain, have different numbers of
            coordinates, or a distribution that is not known or cannot be drawn from.
    """
    _check_sites(whole, parts)
    priors, weights = _terms_by_time(whole, parts)
    templates = [whole.distributions[site] for site in parts]
    leaves = [i for template in templates for i in template.outputs]
    coordinates, discrete, given, terms = programs_of(whole, parts, leaves)
    steps = _steps(list(parts), given, dict(zip(terms, given.after.outputs, strict=False)), priors, weights, templates)
    given = GivenSteps(given.static, given.indices, given.sources, given.before, given.after, steps)
    for kind in steps:
        _check_drawable(whole, kind)
    return StateSpaceDensity(coordinates, discrete, given, terms, steps)


def _steps(
    sites: Sequence[str],
    given: Given,
    results: Mapping[str, Atom],
    priors: Sequence[Sequence[str]],
    weights: Sequence[Sequence[str]],
    templates: Sequence[Template],
) -> tuple[Steps, ...]:
    """The steps by kind, from the results of the program for each term, followed by the leaves of distributions."""
    selected = {v for e in given.before.equations if e.primitive.name in _SELECTIONS for v in e.outvars}
    cutter = Cutter((*given.before.equations, *given.after.equations), selected)
    states = given.after.inputs[: len(sites)]
    shapes = [shaped(state)[0] for state in states]
    leaves = iter(given.after.outputs[len(results) :])
    kinds: dict[Hashable, list[tuple[int, Cut]]] = {}
    for time, template in enumerate(templates):
        outputs = [results[term] for term in (*priors[time], *weights[time])]
        outputs += [next(leaves) for _ in template.outputs]
        # Something has to stand for the state before the first.
        before = states[time - 1] if time else placeholder(0, *shaped(states[0]))
        cut = cutter.cut((before, states[time]), outputs)
        kind = (time == 0, len(priors[time]), len(weights[time]), template.structure, cut.identity)
        kinds.setdefault(kind, []).append((time, cut))
    steps = []
    for members in kinds.values():
        early, late, own = merge([cut for _, cut in members])
        first = members[0][0]
        counts = len(priors[first]), len(weights[first])
        template = templates[first].shifted(sum(counts))
        times = np.array([time for time, _ in members])
        around = shapes[max(first - 1, 0)], shapes[first]
        steps.append(Steps(times, sites[first], around, late, *counts, template, own, early))
    return tuple(steps)


def _terms_by_time(whole: ModelDensity, parts: Mapping[str, Part]) -> tuple[list[list[str]], list[list[str]]]:
    """For each state its own terms, and those others that are known when it is.

    Raises:
        ValueError: where a term or the distribution of a state depends on more than two consecutive states.
    """
    sites = list(parts)
    dependencies = whole.program.dependencies()
    number = {whole.sites.index(site): time for time, site in enumerate(sites)}

    def states(outputs: Sequence[int]) -> list[int]:
        return sorted({number[i] for output in outputs for i in dependencies[output] if i in number})

    def check(what: str, found: Sequence[int], allowed: Sequence[int]) -> None:
        if not set(found) <= set(allowed):
            raise ValueError(
                f"ParticleGibbs: {what} depends on {_listed([sites[i] for i in found])}; the states must form a Markov "
                f"chain in the order of the sites, in which a term depends on one state or on one and the next. "
                f"Declare observations one by one, make one vector site of states that act together, or give them "
                f"another sampler."
            )

    priors: list[list[str]] = [[] for _ in sites]
    weights: list[list[str]] = [[] for _ in sites]
    own = {name: time for time, site in enumerate(sites) for name in (site, f"log|J| {site}")}
    for term in terms_of(whole, parts):
        found = states([whole.terms[term]])
        time = own.get(term, max(found, default=0))
        check(f"term '{term}'", found, (time - 1, time))
        (priors if term in own else weights)[time].append(term)
    for time, site in enumerate(sites):
        check(f"the distribution of site '{site}'", states(whole.distributions[site].outputs), (time - 1,))
    return priors, weights


def _check_sites(whole: ModelDensity, parts: Mapping[str, Part]) -> None:
    sizes = {label: len(whole.coordinates.positions(part)) for label, part in parts.items()}
    first = next(iter(parts))
    for label, (site, inside) in parts.items():
        known_distribution(whole, label, site)
        if inside is not None:
            raise ValueError(
                f"ParticleGibbs: site '{label}' is a part of '{site}', and states are whole sites; declare them in "
                f"a loop, with a name for each."
            )
        if sizes[label] != sizes[first]:
            raise ValueError(
                f"ParticleGibbs: site '{label}' has {sizes[label]} coordinates and '{first}' {sizes[first]}; states "
                f"must have equally many. Put nothing else than states into this block."
            )


def _check_drawable(whole: ModelDensity, steps: Steps) -> None:
    own = [jax.ShapeDtypeStruct(*shaped(var)) for var in steps.late.inputs]
    try:
        jax.eval_shape(steps.draw, chain_key(0, 0), own[0], *own[2:])
    except NotImplementedError:
        family = describe(known_distribution(whole, steps.site, steps.site))
        raise ValueError(
            f"ParticleGibbs: site '{steps.site}' is {family}, which cannot be drawn from, and particles are proposed "
            f"from the distributions of the states; give it a proper one, or another sampler."
        ) from None


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; the middle of many is left out."""
    shown = [*names[:2], "...", names[-1]] if len(names) > 4 else list(names)
    return " and ".join(shown) if len(shown) < 3 else f"{', '.join(shown[:-1])} and {shown[-1]}"
