"""Loops that a model has written out, rolled up again: what is the same function of different inputs is done at once.

A model with a Python loop over 64 groups gives a program with 64 copies of each term, and XLA compiles them one by
one. Here, copies become one vectorised evaluation over stacks of what they read.

Source: Larsen and Amarasinghe (2000), "Exploiting superword level parallelism with multimedia instruction sets", for
the packing of what is alike in straight-line code.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import shaped
from .cones import Alike, alike_cones, merged
from .program import Atom, Program

Array = jax.Array

# Fewer copies than these compile as quickly one by one.
FEWEST = 4

# With a leading axis these would be something else: both branches of a condition, a loop until its last row is done,
# a call of the host for every row.
_SCALAR = frozenset({"cond", "while", "custom_vjp_call", "pure_callback", "io_callback", "at_numbers"})

# What only moves elements is not worth a stack.
_MOVEMENTS = {"slice", "dynamic_slice", "gather", "broadcast_in_dim", "reshape", "squeeze", "convert_element_type"}


def rolled(program: Program, terms: int) -> Program:
    """The program with the sum of its first results as one, and everything that is alike evaluated at once.

    Args:
        program: whose first outputs are terms, of shape ().
        terms: how many, at least one.

    Returns:
        A program from the same inputs to Σ terms, followed by the other outputs. Where nothing is alike four times, it
        has the equations of `program`, each once. Terms that read the steps of a running sum stay apart.
    """
    program = merged(program)
    groups = alike_cones(program)

    def results(*arrays: Any) -> list[Any]:
        values = _Values(dict(zip(program.inputs, arrays, strict=True)))
        for group in groups:
            if _pays(group):
                values.evaluate_together(group)
            else:
                values.evaluate_each(group)
        return [values.total(program.outputs[:terms]), *map(values.read, program.outputs[terms:])]

    return Program.trace(results, *(jax.ShapeDtypeStruct(*shaped(var)) for var in program.inputs))[0]


def lifted(program: Program) -> tuple[Program, tuple[Any, ...]]:
    """The program with numbers that differ between copies as inputs.

    The groups of a loop, each with its own number out of a NumPy array, then differ in nothing but what they read.

    Returns:
        The program, with further inputs at the end; and their values.
    """
    places: dict[tuple[int, int], Literal] = {}
    for group in alike_cones(program):
        if len(group.cones) < FEWEST:
            continue
        for cone in group.cones:
            first = len(cone.atoms) - len(cone.places)
            for place, atom, differs in zip(cone.places, cone.atoms[first:], group.differing[first:], strict=True):
                if differs and isinstance(atom, Literal):
                    places[place] = atom
    shapes = [jax.ShapeDtypeStruct(*shaped(literal)) for literal in places.values()]
    variables = Program.trace(lambda *numbers: numbers, *shapes)[0].inputs
    operands = [list(equation.invars) for equation in program.equations]
    for (number, operand), var in zip(places, variables, strict=True):
        operands[number][operand] = var
    equations = tuple(e.replace(invars=own) for e, own in zip(program.equations, operands, strict=True))
    values = tuple(np.asarray(literal.val, shaped(literal)[1]) for literal in places.values())
    return Program((*program.inputs, *variables), equations, program.outputs), values


class _Values:
    """What has been evaluated of a program: by variable a value, or a row of an array."""

    def __init__(self, known: dict[Var, Any]) -> None:
        self.known = known
        self.rows: dict[Var, tuple[Array, int]] = {}
        self.stacks: dict[tuple[int, ...], Array] = {}
        self.together: list[tuple[Array, list[Var]]] = []

    def evaluate_each(self, group: Alike) -> None:
        """Evaluate cones one by one."""
        for cone in group.cones:
            self.known.update(zip(cone.results, cone.body(*map(self.read, cone.atoms)), strict=True))

    def evaluate_together(self, group: Alike) -> None:
        """Evaluate cones that are alike by one call of their function, over stacks where they differ."""
        arguments = [
            self.stack(column) if differs else self.read(column[0])
            for column, differs in zip(group.columns, group.differing, strict=True)
        ]
        axes = [0 if differs else None for differs in group.differing]
        for k, array in enumerate(jax.vmap(group.body, axes)(*arguments)):
            results = [cone.results[k] for cone in group.cones]
            self.rows |= {var: (array, i) for i, var in enumerate(results)}
            self.together.append((array, results))

    def read(self, atom: Atom) -> Any:
        """The value of an atom."""
        if isinstance(atom, Literal):
            return atom.val
        if atom not in self.known:
            array, i = self.rows[atom]
            self.known[atom] = lax.index_in_dim(array, i, keepdims=False)
        return self.known[atom]

    def stack(self, column: Sequence[Atom]) -> Array:
        """The values of atoms as the rows of an array, which may exist already."""
        key = tuple(map(id, column))
        if key not in self.stacks:
            stretch = self._stretch(column)
            if stretch is None:
                stretch = lax.concatenate([lax.expand_dims(self.read(atom), (0,)) for atom in column], 0)
            self.stacks[key] = stretch
        return self.stacks[key]

    def _stretch(self, column: Sequence[Atom]) -> Array | None:
        """Successive rows of one array, if that is what atoms are."""
        rows = [self.rows[atom] for atom in column if isinstance(atom, Var) and atom in self.rows]
        if len(rows) < len(column):
            return None
        array, first = rows[0]
        if any(own is not array or i != first + k for k, (own, i) in enumerate(rows)):
            return None
        return lax.slice_in_dim(array, first, first + len(rows))

    def total(self, terms: Sequence[Atom]) -> Array:
        """The sum of terms."""
        counts = Counter(atom for atom in terms if isinstance(atom, Var))
        sums: list[Any] = []
        for array, results in self.together:
            if all(counts[var] == 1 for var in results):
                sums.append(jnp.sum(array))
                for var in results:
                    del counts[var]
        sums += [self.read(atom) for atom in terms if isinstance(atom, Literal) or atom in counts]
        total: Array = functools.reduce(jnp.add, sums)
        return total


def _pays(group: Alike) -> bool:
    names = {name for equation in group.body.equations for name in _primitives(equation)}
    return len(group.cones) >= FEWEST and any(group.differing) and not names <= _MOVEMENTS and not names & _SCALAR


def _primitives(equation: JaxprEqn) -> Iterator[str]:
    """The names of an equation's primitive and of those in the programs that it holds."""
    yield equation.primitive.name
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
        for inner in getattr(value, "eqns", ()):
            yield from _primitives(inner)
