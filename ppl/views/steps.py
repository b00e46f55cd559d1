"""The steps of a model written as a loop over time: each cut out of the traced program, and those alike made one.

A traced loop is one long program. Steps that are the same function, up to the numbers and arrays in it, become one
function of these, so that a loop over time can call it and the compiled program does not grow with time.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import shaped
from ...samplers.random import jax_key
from ..blocks.coordinates import Array, IntArray
from ..blocks.given import Given, Source
from ..programs.canonical import canonical
from ..programs.program import Atom, Program
from ..transforms import unconstrain_value
from .templates import Template


@dataclass(frozen=True)
class Steps:
    """All steps that are the same function of the states before and after and of constants.

    Args:
        times: of the steps.
        site: the state of the first of them, for messages.
        shapes: of the arrays of the states before and after.
        late: from the two states, followed by the constants, to the terms and the leaves of the distribution.
        priors, weights: how many of the terms, which come first, are the states' own and how many are not.
        template: the distribution of the state after.
        own: the constants that differ between steps, one row a step: for each the atoms of the model's program.
        early: from what the steps have in common to the other constants.
    """

    times: IntArray
    site: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    late: Program
    priors: int
    weights: int
    template: Template
    own: tuple[tuple[Atom, ...], ...]
    early: Program

    @functools.cached_property
    def identity(self) -> Hashable:
        """Equal for steps that are the same function at the same times."""
        late = canonical(self.late.inputs, self.late.equations, self.late.outputs)
        return self.times.tobytes(), self.shapes, self.priors, self.weights, self.template, len(self.own), late

    @property
    def constants(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the constants."""
        found = [shaped(var) for var in self.late.inputs[2:]]
        rows = [(len(self.times),)] * len(self.own) + [()] * (len(found) - len(self.own))
        return tuple(jax.ShapeDtypeStruct((*n, *s), dtype) for n, (s, dtype) in zip(rows, found, strict=True))

    def draw(self, key: Array, previous: Array, *constants: Any) -> Array:
        """A state from its distribution given the one before, shape (d,)."""
        nothing = jnp.zeros(self.shapes[1], previous.dtype)
        leaves = self.late.select(self.template.outputs)(previous.reshape(self.shapes[0]), nothing, *constants)
        distribution = self.template.fill(leaves)
        value = distribution.sample(jax_key(key))
        return unconstrain_value(self.site, distribution, value).ravel().astype(previous.dtype)

    def log_transition(self, previous: Array, state: Array, *constants: Any) -> Array:
        """The state's own terms, shape ()."""
        return self._sum(range(self.priors), previous, state, constants)

    def log_weight(self, previous: Array, state: Array, *constants: Any) -> Array:
        """All other terms, shape ()."""
        return self._sum(range(self.priors, self.priors + self.weights), previous, state, constants)

    def _sum(self, terms: Collection[int], previous: Array, state: Array, constants: Sequence[Any]) -> Array:
        states = (previous.reshape(self.shapes[0]), state.reshape(self.shapes[1]))
        found = self.late.select(tuple(terms))(*states, *constants)
        return functools.reduce(jnp.add, found, jnp.zeros((), state.dtype))


@dataclass(frozen=True)
class GivenSteps(Given):
    """The constants of steps, stacked over time where they differ.

    Args:
        steps: all of them, by kind.
    """

    steps: tuple[Steps, ...]

    def prepare(self, data: Sequence[Any]) -> tuple[Any, ...]:
        """See `Given.prepare`: followed by the stacks that the data determine."""
        prepared = super().prepare(data)
        known = dict(zip(self._static, prepared, strict=True))
        columns = [column for steps in self.steps for column in steps.own if self._is_static(column)]
        return (*prepared, *(_stack([_read(atom, known) for atom in column]) for column in columns))

    def constants(self, position: Array, prepared: Sequence[Any]) -> tuple[Any, ...]:
        """See `Given.constants`."""
        known: dict[Var, Any] = dict(zip(self._static, prepared, strict=False))
        stacks = iter(prepared[len(known) :])
        known |= {var: self._sources[var].read(position) for var in self._read_alone}
        selected = self._selected
        results = selected(*(known[var] for var in selected.inputs))
        known |= {var: result for var, result in zip(selected.outputs, results, strict=True) if isinstance(var, Var)}

        def rows(column: Sequence[Atom]) -> Any:
            if self._is_static(column):
                return next(stacks)
            if self._is_in_position(column):
                sources = [self._sources[atom] for atom in column if isinstance(atom, Var)]
                places = np.stack([source.positions for source in sources])
                return position[places].reshape(len(column), *sources[0].shape)
            return _stack([_read(atom, known) for atom in column])

        found: list[Any] = []
        for steps in self.steps:
            found += [rows(column) for column in steps.own]
            found += steps.early(*(known[var] for var in steps.early.inputs))
        return tuple(found)

    @property
    def fixed(self) -> tuple[int | None, ...]:
        """See `Given.fixed`; it is told of none, although stacks of data are prepared."""
        return (None,) * len(self.shapes)

    @functools.cached_property
    def shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """See `Given.shapes`."""
        return tuple(shape for steps in self.steps for shape in steps.constants)

    @functools.cached_property
    def _sources(self) -> dict[Var, Source]:
        return dict(zip(self.before.inputs, self.sources, strict=False))

    @functools.cached_property
    def _static(self) -> dict[Var, None]:
        """What stands for the results of `Given.prepare`, in order."""
        return dict.fromkeys(self.before.inputs[len(self.sources) :])

    def _is_static(self, column: Sequence[Atom]) -> bool:
        return all(isinstance(atom, Literal) or atom in self._static for atom in column)

    def _is_in_position(self, column: Sequence[Atom]) -> bool:
        return all(isinstance(atom, Var) and atom in self._sources for atom in column)

    @functools.cached_property
    def _wanted(self) -> set[Var]:
        """What is needed by itself, not as a row of a stack that is read at once."""
        own = [column for steps in self.steps for column in steps.own]
        mixed = [column for column in own if not self._is_static(column) and not self._is_in_position(column)]
        wanted = {atom for column in mixed for atom in column if isinstance(atom, Var)}
        return wanted.union(*(steps.early.inputs for steps in self.steps))

    @functools.cached_property
    def _selected(self) -> Program:
        """What steps take from results that the other sites determine."""
        outputs = [var for equation in self.before.equations for var in equation.outvars if var in self._wanted]
        program = Program(self.before.inputs, self.before.equations, tuple(outputs)).select(range(len(outputs)))
        used = {atom for equation in program.equations for atom in equation.invars if isinstance(atom, Var)}
        return Program(tuple(var for var in program.inputs if var in used), program.equations, program.outputs)

    @functools.cached_property
    def _read_alone(self) -> list[Var]:
        wanted = self._wanted.union(self._selected.inputs)
        return [var for var in self._sources if var in wanted]


class Cut(NamedTuple):
    """What one step computes, cut out of a longer program.

    Args:
        program: from the states before and after, then `atoms`, to the wanted results.
        atoms: of the longer program: all else that the step needs, and the literals in it.
    """

    program: Program
    atoms: tuple[Atom, ...]

    @property
    def identity(self) -> Hashable:
        """Equal for two steps only if they are the same function of states and atoms."""
        return canonical(self.program.inputs, self.program.equations, self.program.outputs)


class Cutter:
    """Cuts steps out of a program, each in a time that does not depend on the length of the program.

    Args:
        equations: of the program.
        given: variables that are not to be computed.
    """

    def __init__(self, equations: Sequence[JaxprEqn], given: Collection[Var]) -> None:
        self.equations = equations
        # An equation that stands there twice is taken from its first place, where what follows can use it.
        places = reversed(list(enumerate(equations)))
        self.source = {v: i for i, equation in places for v in equation.outvars if v not in given}

    def cut(self, states: tuple[Var, Var], outputs: Sequence[Atom]) -> Cut:
        """The part that some results need."""
        needed: set[int] = set()
        open_ends = list(outputs)
        while open_ends:
            atom = open_ends.pop()
            number = None if isinstance(atom, Literal) else self.source.get(atom)
            if number is not None and number not in needed:
                needed.add(number)
                open_ends += self.equations[number].invars
        literals: list[Literal] = []
        others: dict[Var, None] = {}

        def lifted(atom: Atom) -> Atom:
            if isinstance(atom, Literal):
                literals.append(atom)
                return placeholder(len(literals), *shaped(atom))
            if atom not in states and self.source.get(atom) not in needed:
                others.setdefault(atom)
            return atom

        # In the order of the program, so that steps which are alike number their atoms alike.
        equations = tuple(
            equation.replace(invars=[lifted(atom) for atom in equation.invars])
            for equation in (self.equations[number] for number in sorted(needed))
        )
        results = tuple(lifted(atom) for atom in outputs)
        stand_ins = (placeholder(i, *shaped(literal)) for i, literal in enumerate(literals, 1))
        return Cut(Program((*states, *others, *stand_ins), equations, results), (*others, *literals))


@functools.cache
def placeholder(number: int, shape: tuple[int, ...], dtype: Any) -> Var:
    """A variable that belongs to no program yet."""
    return Program.trace(lambda x: x, jax.ShapeDtypeStruct(shape, dtype))[0].inputs[0]


def merge(cuts: Sequence[Cut]) -> tuple[Program, Program, tuple[tuple[Atom, ...], ...]]:
    """Steps that are alike as one; see `Steps` for what is returned: `early`, `late` and `own`.

    Args:
        cuts: of equal identity.
    """
    columns = list(zip(*(cut.atoms for cut in cuts), strict=True))
    shared = [all(_same(column[0], atom) for atom in column) for column in columns]
    program = cuts[0].program
    # Literals that all have in common go back into the program, where the compiler sees them.
    literals = {i + 2: c[0] for i, c in enumerate(columns) if shared[i] and isinstance(c[0], Literal)}
    places = [i for i in range(len(program.inputs)) if i not in literals]
    program = program.substitute(literals, [program.inputs[i] for i in places], ())
    differing = [k for k, i in enumerate(places) if i >= 2 and not shared[i - 2]]
    early, late = program.split((0, 1, *differing))
    return early, late, tuple(columns[places[k] - 2] for k in differing)


def _read(atom: Atom, known: Mapping[Var, Any]) -> Any:
    """The value of an atom."""
    return np.asarray(atom.val, shaped(atom)[1]) if isinstance(atom, Literal) else known[atom]


def _stack(values: Sequence[Any]) -> Array:
    """Values in the rows of an array."""
    on_host = all(isinstance(value, np.ndarray) for value in values)
    return jnp.asarray(np.stack(values)) if on_host else jnp.stack([jnp.asarray(value) for value in values])


def _same(one: Atom, other: Atom) -> bool:
    if isinstance(one, Literal) and isinstance(other, Literal):
        return np.asarray(one.val).tobytes() == np.asarray(other.val).tobytes()
    return one is other
