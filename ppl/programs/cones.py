"""The fanout-free cones of a traced program, and which of them are the same function.

A program falls apart into cones: a result that is wanted in more than one place, or by nothing else in the program,
with the equations that are there for this result alone. Copies of one computation, of which a Python loop makes many,
are cones that differ in the variables and numbers that they read.

Source: Cong and Ding (1994), "On area/depth trade-off in LUT-based FPGA technology mapping", for the cones.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import shaped
from .canonical import canonical
from .program import Atom, Program

# What reads some elements of an array. Where others read the array too, cones may differ in which elements they read.
_SELECTIONS = frozenset({"slice", "dynamic_slice", "gather"})


@dataclass(frozen=True)
class Cone:
    """The results of one equation, with the equations that are there for these alone.

    Args:
        body: from `atoms` to the results.
        atoms: what is read: variables, in the order of their first use, then literals.
        places: of the literals: the number of the equation in the whole program, and of the operand.
        results: the variables of the whole program that are computed.
    """

    body: Program
    atoms: tuple[Atom, ...]
    places: tuple[tuple[int, int], ...]
    results: tuple[Var, ...]

    @functools.cached_property
    def identity(self) -> Hashable:
        """Equal for two cones only if they are the same function of their atoms."""
        return canonical(self.body.inputs, self.body.equations, self.body.outputs)


@dataclass(frozen=True)
class Alike:
    """Cones that are the same function of their atoms, of which none reads a result of another."""

    cones: tuple[Cone, ...]

    @property
    def body(self) -> Program:
        """The function."""
        return self.cones[0].body

    @functools.cached_property
    def columns(self) -> tuple[tuple[Atom, ...], ...]:
        """For each atom of a cone, what stands there in each of the cones."""
        return tuple(zip(*(cone.atoms for cone in self.cones), strict=True))

    @functools.cached_property
    def differing(self) -> tuple[bool, ...]:
        """For each column, whether the cones differ in it."""
        return tuple(any(not _same(column[0], atom) for atom in column) for column in self.columns)


def alike_cones(program: Program) -> list[Alike]:
    """All cones of a program, those that are alike together, in an order in which they can be evaluated."""
    depths: dict[Var, int] = {}
    groups: dict[tuple[int, Hashable], list[Cone]] = {}
    for cone in _cones(program):
        depth = 1 + max((depths.get(atom, 0) for atom in cone.atoms if isinstance(atom, Var)), default=0)
        depths |= dict.fromkeys(cone.results, depth)
        # Of a running sum each step is deeper than the one before, and so are the terms that read it: these stay apart
        # too. Stacked, XLA would write out the whole sum anew for every row.
        groups.setdefault((depth, cone.identity), []).append(cone)
    return [Alike(tuple(groups[key])) for key in sorted(groups, key=lambda key: key[0])]


def merged(program: Program) -> Program:
    """The program without equations that compute what an earlier one has computed."""
    seen: dict[Hashable, JaxprEqn] = {}
    renamed: dict[Var, Var] = {}

    def new(atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else renamed.get(atom, atom)

    kept = []
    for equation in program.equations:
        current = equation.replace(invars=[new(atom) for atom in equation.invars])
        operands = tuple(atom for atom in current.invars if isinstance(atom, Var))
        first = seen.setdefault((canonical((), [current], ()), operands), current)
        if first is current or current.effects:
            kept.append(current)
        else:
            renamed.update(zip(equation.outvars, first.outvars, strict=True))
    return Program(program.inputs, tuple(kept), tuple(new(atom) for atom in program.outputs))


def _stand_in(number: int, atom: Atom) -> Var:
    """A variable like an atom that belongs to no program; the same for the same number."""
    shape, dtype = shaped(atom)
    return _variable(number, shape, dtype)


@functools.cache
def _variable(number: int, shape: tuple[int, ...], dtype: Any) -> Var:
    return Program.trace(lambda x: x, jax.ShapeDtypeStruct(shape, dtype))[0].inputs[0]


def _cones(program: Program) -> Iterator[Cone]:
    """The cones, in the order of their last equations."""
    inputs = set(program.inputs)
    uses = Counter(var for e in program.equations for var in {v for v in e.invars if isinstance(v, Var)})
    # By variable, the cones that read it, each by the number of its last equation; -1 for the outputs.
    readers: dict[Var, set[int]] = {atom: {-1} for atom in program.outputs if isinstance(atom, Var)}
    members: dict[int, list[int]] = {}
    for number, equation in reversed(list(enumerate(program.equations))):
        owners = set[int]().union(*(readers.get(var, ()) for var in equation.outvars))
        if not owners:
            continue
        source = equation.invars[0] if equation.primitive.name in _SELECTIONS else None
        selects = isinstance(source, Var) and (source in inputs or uses[source] > 1)
        owner = number if len(owners) > 1 or -1 in owners or selects else owners.pop()
        members.setdefault(owner, []).append(number)
        for atom in equation.invars:
            if isinstance(atom, Var):
                readers.setdefault(atom, set()).add(owner)
    return (_cone(program, members[last][::-1]) for last in sorted(members))


def _cone(program: Program, numbers: list[int]) -> Cone:
    inside = {var for number in numbers for var in program.equations[number].outvars}
    atoms: dict[Var, None] = {}
    literals: dict[tuple[int, int], Literal] = {}

    def read(place: tuple[int, int], atom: Atom) -> Atom:
        if isinstance(atom, Literal):
            literals[place] = atom
            return _stand_in(len(literals), atom)
        if atom not in inside:
            atoms.setdefault(atom)
        return atom

    equations = []
    for number in numbers:
        equation = program.equations[number]
        operands = [read((number, operand), atom) for operand, atom in enumerate(equation.invars)]
        equations.append(equation.replace(invars=operands))
    results = tuple(equations[-1].outvars)
    stand_ins = (_stand_in(i, literal) for i, literal in enumerate(literals.values(), 1))
    body = Program((*atoms, *stand_ins), tuple(equations), results)
    return Cone(body, (*atoms, *literals.values()), tuple(literals), results)


def _same(one: Atom, other: Atom) -> bool:
    if isinstance(one, Literal) and isinstance(other, Literal):
        return np.asarray(one.val).tobytes() == np.asarray(other.val).tobytes()
    return one is other
