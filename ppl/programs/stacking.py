"""Loops that a model has written out, with their results side by side in arrays.

As in `rolling`, what is the same function of different inputs is evaluated at once; here the results are wanted one by
one, and the inputs may be the rows of an array themselves, as the states of a chain are that has a name for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import Literal, Var

from ...ad.equations import shaped
from .cones import Alike, alike_cones, merged
from .program import Atom, Program
from .rolling import _SCALAR, FEWEST, Array, _pays, _primitives, _Values


def stacked(program: Program, groups: Sequence[Sequence[int]]) -> Program:
    """The program with inputs that are alike, and results that are alike, as the rows of arrays.

    Args:
        program: a traced program.
        groups: inputs (by number), all of a group of one shape.

    Returns:
        A program from an array for each group, whose rows are its inputs, followed by the other inputs in their order;
        to arrays that hold the results: each is one result, or has several of one shape as its rows. Their order is
        not that of the results.
    """
    program = merged(program)
    alike = alike_cones(program)

    def results(values: _Rows) -> list[Any]:
        for cones in alike:
            if _pays(cones) or _is_free(cones, values):
                values.evaluate_together(cones)
            else:
                values.evaluate_each(cones)
        together, alone = _by_array(values, program.outputs)
        return [*(values.stack(column) for column in together), *map(values.read, alone)]

    return _with_rows(program, groups, results)


def with_rows(program: Program, groups: Sequence[Sequence[int]]) -> Program:
    """As `stacked`, with the equations and the results as they were."""

    def results(values: _Rows) -> list[Any]:
        return program(*(values.read(var) for var in program.inputs))

    return _with_rows(program, groups, results)


def _with_rows(program: Program, groups: Sequence[Sequence[int]], results: Callable[[_Rows], list[Any]]) -> Program:
    """A program whose inputs are the groups, then the others."""
    grouped = {i for group in groups for i in group}
    others = [var for i, var in enumerate(program.inputs) if i not in grouped]

    def run(*arrays: Any) -> list[Any]:
        values = _Rows(dict(zip(others, arrays[len(groups) :], strict=True)))
        for group, array in zip(groups, arrays, strict=False):
            values.rows |= {program.inputs[i]: (array, k) for k, i in enumerate(group)}
        return results(values)

    first = [shaped(program.inputs[group[0]]) for group in groups]
    shapes = [jax.ShapeDtypeStruct((len(g), *shape), dtype) for g, (shape, dtype) in zip(groups, first, strict=True)]
    return Program.trace(run, *shapes, *(jax.ShapeDtypeStruct(*shaped(var)) for var in others))[0]


class _Rows(_Values):
    """As what it is made from, with the stretches of a stack taken whole where not all of it is one stretch."""

    def stack(self, column: Sequence[Atom]) -> Array:
        """The values of atoms as the rows of an array, which may exist already."""
        key = tuple(map(id, column))
        if key not in self.stacks:
            runs = [self._run(run) for run in self._runs(column)]
            self.stacks[key] = runs[0] if len(runs) == 1 else lax.concatenate(runs, 0)
        return self.stacks[key]

    def _runs(self, column: Sequence[Atom]) -> list[list[Atom]]:
        """A column cut into stretches of successive rows of one array, and single values."""
        runs: list[list[Atom]] = []
        before: tuple[int, int] | None = None
        for atom in column:
            array, row = self.rows[atom] if isinstance(atom, Var) and atom in self.rows else (None, 0)
            place = None if array is None else (id(array), row)
            if before is not None and place == (before[0], before[1] + 1):
                runs[-1].append(atom)
            else:
                runs.append([atom])
            before = place
        return runs

    def _run(self, run: Sequence[Atom]) -> Array:
        stretch = self._stretch(run)
        return lax.expand_dims(self.read(run[0]), (0,)) if stretch is None else stretch


def _is_free(group: Alike, values: _Values) -> bool:
    """Whether cones that are alike can be evaluated at once without putting anything side by side for it."""
    columns = [column for column, differs in zip(group.columns, group.differing, strict=True) if differs]
    names = {name for equation in group.body.equations for name in _primitives(equation)}
    enough = len(group.cones) >= FEWEST and bool(columns) and not names & _SCALAR
    return enough and all(values._stretch(column) is not None for column in columns)


def _by_array(values: _Values, outputs: Sequence[Atom]) -> tuple[list[list[Atom]], list[Atom]]:
    """Results that are rows of one array, in their order there; and the rest."""
    found: dict[int, list[tuple[int, Var]]] = {}
    alone: list[Atom] = []
    for atom in outputs:
        if isinstance(atom, Literal) or atom not in values.rows:
            alone.append(atom)
        else:
            array, row = values.rows[atom]
            found.setdefault(id(array), []).append((row, atom))
    return [[atom for _, atom in sorted(rows, key=lambda pair: pair[0])] for rows in found.values()], alone
