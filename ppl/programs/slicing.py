"""The part of a traced program that some elements of its outputs need.

A block of a Gibbs sampler that is a part of a site reaches a few rows of each term. The program is walked backwards,
from the wanted elements of its outputs, for the elements that each variable must have, and written anew for these:
every variable is the one-dimensional array of its needed elements, or stays as it was where all are needed or where
an operation is not understood. Which elements are meant is said by indices that are inputs of the new program, so
that blocks that differ in these alone share one compiled program.

Source: Weiser (1981), "Program Slicing".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.dual.elementwise import body_is_elementwise
from ...ad.equations import bind, evaluate, inlined_body, shaped
from .program import Atom, Program
from .reach import CUMULATIVE, MOVEMENTS, REDUCTIONS, Constants, IntArray, Places, is_by_element, reads, spread

# From operands and index arrays to results.
Compute = Callable[[list[Any], list[Any]], list[Any]]


@dataclass(frozen=True)
class Piece:
    """Needed elements of the results of one equation.

    Args:
        equation: of the program.
        wanted: for each operand, the flat numbers of the elements to be read, in an array of the shape that they are
            to have; None for the operand as it is.
        compute: from the operands so read, and the index arrays, to the elements.
        indices: the index arrays.
        results: the variables that are computed.
    """

    equation: JaxprEqn
    wanted: tuple[IntArray | None, ...]
    compute: Compute
    indices: tuple[IntArray, ...] = ()
    results: tuple[Var, ...] = ()


def slice_rows(
    program: Program, wanted: Mapping[int, IntArray], known: Mapping[int, IntArray] | None = None
) -> tuple[Program, tuple[IntArray, ...]]:
    """The program for some elements of its outputs, computing no others.

    Args:
        program: a traced program.
        wanted: for some of the outputs, by number, the flat numbers of the wanted elements.
        known: values of inputs that do not change, by number: data, which indices may be made of.

    Returns:
        A program from the inputs of `program`, followed by index arrays, to the wanted elements of each output in
        `wanted`, shape (n,); and these index arrays, of int32.
    """
    ends = [program.outputs[i] for i in wanted]
    needed = _Needed()
    for out, numbers in zip(ends, wanted.values(), strict=True):
        needed.add(out, np.asarray(numbers, np.int64))
    constants = Constants(program, known or {})
    pieces: list[Piece] = []
    for equation in reversed(program.select(list(wanted)).equations):
        for piece in _pieces(equation, needed, constants):
            for atom, elements in zip(equation.invars, piece.wanted, strict=True):
                needed.add(atom, elements)
            pieces.append(piece)
    return _emitted(program, pieces[::-1], ends, [np.asarray(numbers) for numbers in wanted.values()], needed)


class _Needed:
    """The needed elements of each variable: flat numbers, ascending."""

    def __init__(self) -> None:
        self._of: dict[Var, IntArray] = {}

    def __contains__(self, atom: Atom) -> bool:
        return not isinstance(atom, Literal) and atom in self._of

    def __getitem__(self, var: Var) -> IntArray:
        return self._of[var]

    def add(self, atom: Atom, numbers: IntArray | None) -> None:
        """Need these elements too; None means all."""
        if isinstance(atom, Literal) or (numbers is not None and not numbers.size):
            return
        more = np.arange(_size(atom)) if numbers is None else np.unique(numbers)
        self._of[atom] = np.union1d(self._of[atom], more) if atom in self._of else more

    def all_of(self, atom: Atom) -> bool:
        """Whether all elements are needed, so that the variable stays as it was."""
        return isinstance(atom, Literal) or self._of[atom].size == _size(atom)


def _pieces(equation: JaxprEqn, needed: _Needed, constants: Constants) -> list[Piece]:
    """How to compute what is needed of the results of an equation."""
    parts = [_piece(equation, i, needed, constants) for i, var in enumerate(equation.outvars) if var in needed]
    if not any(part is None for part in parts):
        return [part for part in parts if part is not None]
    for var in equation.outvars:
        needed.add(var, None)
    return [Piece(equation, (None,) * len(equation.invars), _bound(equation), results=tuple(equation.outvars))]


def _bound(equation: JaxprEqn, **changed: Any) -> Compute:
    return lambda operands, _: bind(equation, operands, **changed)


def _piece(equation: JaxprEqn, result: int, needed: _Needed, constants: Constants) -> Piece | None:
    """The needed elements of one result; None where the equation is to stay as it is."""
    var, name = equation.outvars[result], equation.primitive.name
    places = Places(shaped(var)[0], needed[var], result)
    if not places.flat.size:
        return None
    if name in CUMULATIVE and not needed.all_of(var):
        return _lines(equation, places, needed)
    if name == "iota" and not needed.all_of(var):
        values = places.along[equation.params["dimension"]]
        return Piece(equation, (), lambda _, i: [i[0].astype(shaped(var)[1])], (values,), (var,))
    tables = [reads(equation, k, places, constants) for k in range(len(equation.invars))]
    found = [table for table in tables if table is not None]
    if len(found) < len(tables) or (needed.all_of(var) and _cover(equation, found)):
        return None
    if is_by_element(equation):
        compute = _by_element(equation)
        rows = tuple(
            table[:, 0] if shaped(atom)[0] else None for atom, table in zip(equation.invars, found, strict=True)
        )
        return compute and Piece(equation, rows, compute, (), (var,))
    if name in REDUCTIONS:
        return Piece(equation, tuple(found), _bound(equation, axes=(1,)), (), (var,))
    if name == "dot_general":
        return _product(equation, found, var)
    if name == "gather" and found[1].size:
        return _gathered(equation, found, places)
    return _moved(equation, found, var) if name in MOVEMENTS else None


def _cover(equation: JaxprEqn, tables: Sequence[IntArray]) -> bool:
    """Whether all elements of all operands are read."""
    return all(
        np.unique(table[table >= 0]).size == _size(atom) for atom, table in zip(equation.invars, tables, strict=True)
    )


def _moved(equation: JaxprEqn, tables: Sequence[IntArray], var: Var) -> Piece | None:
    """Elements from one operand, or from several put side by side."""
    if any(table.shape[1] > 1 for table in tables):
        return None
    columns = [table[:, 0] if table.size else np.full(len(table), -1) for table in tables]
    used = [np.unique(column[column >= 0]) for column in columns]
    sources = [k for k, numbers in enumerate(used) if numbers.size]
    if np.any(np.max(columns, axis=0) < 0):
        return None  # filled in by the operation itself, for an index out of bounds
    if len(sources) == 1:
        used[sources[0]] = columns[sources[0]]
        return Piece(equation, tuple(used), lambda operands, _: [operands[sources[0]]], (), (var,))
    starts = np.cumsum([0, *(numbers.size for numbers in used)])
    order = np.zeros(len(tables[0]), int)
    for column, numbers, start in zip(columns, used, starts[:-1], strict=True):
        order = np.where(column >= 0, start + np.searchsorted(numbers, column), order)

    def compute(operands: list[Any], indices: list[Any]) -> list[Any]:
        return [_take(lax.concatenate([operands[k] for k in sources], 0), indices[0])]

    return Piece(equation, tuple(used), compute, (order,), (var,))


def _product(equation: JaxprEqn, tables: Sequence[IntArray], var: Var) -> Piece | None:
    """Rows of a matrix times a vector; otherwise sums of products, where these are few."""
    for vector in (1, 0):
        if tables[vector].shape[1] == _size(equation.invars[vector]):
            wanted = list(tables)
            wanted[vector] = tables[vector][0]
            numbers = (((vector,), (1 - vector,)), ((), ()))
            return Piece(equation, tuple(wanted), _bound(equation, dimension_numbers=numbers), (), (var,))
    if tables[0].size > sum(_size(atom) for atom in (*equation.invars, var)):
        return None
    kind = shaped(var)[1]
    return Piece(equation, tuple(tables), lambda o, _: [(o[0].astype(kind) * o[1].astype(kind)).sum(1)], (), (var,))


def _gathered(equation: JaxprEqn, tables: Sequence[IntArray], places: Places) -> Piece:
    """Elements at computed indices, each out of those that its index can lead to."""
    shape, params = shaped(equation.invars[0])[0], equation.params
    axes, mode = params["dimension_numbers"].start_index_map, params["mode"]
    limits = [shape[axis] - 1 for axis in axes]
    strides = np.cumprod([1, *(limit + 1 for limit in limits[:0:-1])])[::-1].tolist()
    first, inverse = np.unique(tables[0][:, 0], return_inverse=True)
    lines = first[:, None] + spread(shape, axes)

    def compute(operands: list[Any], indices: list[Any]) -> list[Any]:
        place, inside = indices[0].astype(operands[1].dtype), jnp.asarray(True)
        for component, (limit, stride) in enumerate(zip(limits, strides, strict=True)):
            index = lax.index_in_dim(operands[1], component, 1, keepdims=False)
            inside = inside & (index >= 0) & (index <= limit)
            place = place + stride * jnp.clip(index, 0, limit)
        if mode == lax.GatherScatterMode.FILL_OR_DROP:
            place = jnp.where(inside, place, lines.size)
        return [_take(lax.reshape(operands[0], (lines.size,)), place, mode=mode, fill_value=params["fill_value"])]

    return Piece(equation, (lines, tables[1]), compute, (inverse.ravel() * lines.shape[1],), (equation.outvars[0],))


def _lines(equation: JaxprEqn, places: Places, needed: _Needed) -> Piece | None:
    """Whole lines of an operation along an axis; more of its result than was needed."""
    (var,), axis = equation.outvars, equation.params["axis"]
    step = int(np.prod(places.shape[axis + 1 :]))
    first = np.unique(places.flat - step * places.along[axis])
    lines = first[:, None] + spread(places.shape, [axis])
    needed.add(var, lines)
    if needed.all_of(var):
        return None

    def compute(operands: list[Any], indices: list[Any]) -> list[Any]:
        (result,) = bind(equation, operands, axis=1)
        return [_take(lax.reshape(result, (lines.size,)), indices[0])]

    return Piece(equation, (lines,), compute, (np.argsort(lines.ravel()),), (var,))


def _by_element(equation: JaxprEqn) -> Compute | None:
    """An elementwise equation for any number of elements; None where it cannot be written for another number."""
    if equation.primitive.name != "custom_jvp_call":
        return _bound(equation)
    # The program inside, and that of its own derivative, are written for the shape that it was traced with.
    body, rule = equation.params["call_jaxpr"], derivative(equation)
    fits = all(body_is_elementwise(part.jaxpr, shaped(equation.outvars[0])[0]) for part in (body, rule))
    if not fits or len(equation.outvars) > 1 or any(np.shape(const) for const in (*body.consts, *rule.consts)):
        return None

    @jax.custom_jvp
    def function(*rows: Any) -> list[Any]:
        return evaluate(body, rows, functools.partial(_apply_to_rows, max(map(np.size, rows))))

    @function.defjvp
    def _(rows: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        moved = [tangents[k] for k in _moving(equation)]
        return function(*rows), evaluate(
            rule, [*rows, *moved], functools.partial(_apply_to_rows, max(map(np.size, rows)))
        )

    return lambda operands, _: function(*operands)


def derivative(equation: JaxprEqn) -> Any:
    """The program (a closed jaxpr) from operands, then tangents of those that are real, to tangents of the results."""
    operands, moving = [jax.ShapeDtypeStruct(*shaped(atom)) for atom in equation.invars], _moving(equation)

    def tangent(*arguments: Any) -> Any:
        def function(*moved: Any) -> list[Any]:
            given = dict(zip(moving, moved, strict=True))
            return bind(equation, [given.get(k, arguments[k]) for k in range(len(operands))])

        return jax.jvp(function, tuple(arguments[k] for k in moving), arguments[len(operands) :])[1]

    return jax.make_jaxpr(tangent)(*operands, *(operands[k] for k in moving))


def _moving(equation: JaxprEqn) -> list[int]:
    return [k for k, atom in enumerate(equation.invars) if jnp.issubdtype(shaped(atom)[1], jnp.inexact)]


def _apply_to_rows(count: int, equation: Any, operands: list[Any]) -> list[Any]:
    """An equation of an elementwise program, where only numbers and one-dimensional arrays of one length occur."""
    body = inlined_body(equation)
    if body is not None:
        return evaluate(body, operands, functools.partial(_apply_to_rows, count))
    if equation.primitive.name == "broadcast_in_dim":
        return [_broadcast(operands[0], (count,) if equation.params["shape"] else ())]
    compute = _by_element(equation)
    if compute is None:
        raise NotImplementedError(
            f"slicing: the derivative of '{equation.params.get('name')}' inside another function's own derivative is "
            f"not elementwise; make the block whole sites instead of parts of them."
        )
    return compute(operands, [])


@dataclass(frozen=True)
class _Values:
    """What a sliced program has computed while it runs: variables, and elements read of them."""

    of: dict[Any, Any]
    indices: Sequence[Any]
    read: dict[Any, Any]


Read = Callable[[_Values], Any]


class _Reads:
    """How elements of variables are read, once it is known what is needed of each; and the indices for it."""

    def __init__(self, needed: _Needed) -> None:
        self.needed = needed
        self.indices: list[IntArray] = []
        self._placed: dict[Any, int] = {}

    def index(self, numbers: IntArray) -> int:
        """A new index array; its number."""
        self.indices.append(np.asarray(numbers, np.int32).ravel())
        return len(self.indices) - 1

    def of(self, atom: Atom, numbers: IntArray | None) -> Read:
        """Elements by their flat numbers, in an array of the shape of these; all of them as they are for None."""
        if isinstance(atom, Literal):
            value = np.asarray(atom.val, shaped(atom)[1])
            return lambda _: atom.val if numbers is None else _broadcast(value, numbers.shape)
        if numbers is None:
            return lambda values: values.of[atom]
        if not numbers.size:
            return lambda _: jnp.zeros(numbers.shape, shaped(atom)[1])
        rows, shape = self.needed[atom], numbers.shape
        place = np.searchsorted(rows, numbers.ravel())
        if np.array_equal(place, np.arange(rows.size)):
            return lambda values: _reshape(values.of[atom], shape)
        if rows.size == 1:
            return lambda values: _broadcast(_reshape(values.of[atom], ()), shape)
        i = self._placed.setdefault((atom, place.tobytes()), len(self.indices))
        if i == len(self.indices):
            self.index(place)

        def read(values: _Values) -> Any:
            if (i, shape) not in values.read:
                values.read[i, shape] = _reshape(
                    _take(_reshape(values.of[atom], (rows.size,)), values.indices[i]), shape
                )
            return values.read[i, shape]

        return read


def _emitted(
    program: Program, pieces: Sequence[Piece], ends: Sequence[Atom], wanted: Sequence[IntArray], needed: _Needed
) -> tuple[Program, tuple[IntArray, ...]]:
    """The program that computes the pieces one after another."""
    reads = _Reads(needed)
    inputs = {var: reads.index(needed[var]) for var in program.inputs if var in needed and not needed.all_of(var)}
    steps = [
        (
            piece,
            [reads.of(atom, numbers) for atom, numbers in zip(piece.equation.invars, piece.wanted, strict=True)],
            [reads.index(numbers) for numbers in piece.indices],
        )
        for piece in pieces
    ]
    last = [reads.of(out, numbers) for out, numbers in zip(ends, wanted, strict=True)]
    count = len(program.inputs)

    def run(*arguments: Any) -> list[Any]:
        values = _Values(dict(zip(program.inputs, arguments, strict=False)), arguments[count:], {})
        for var, i in inputs.items():
            values.of[var] = _take(_reshape(values.of[var], (_size(var),)), values.indices[i], ascending=True)
        for piece, operands, indices in steps:
            results = piece.compute([read(values) for read in operands], [values.indices[i] for i in indices])
            for var, result in zip(piece.results, results, strict=True):
                shape = shaped(var)[0] if var not in needed or needed.all_of(var) else needed[var].shape
                values.of[var] = _reshape(result, shape)
        return [read(values) for read in last]

    shapes = [jax.ShapeDtypeStruct(*shaped(var)) for var in program.inputs]
    new, constants, _ = Program.trace(run, *shapes, *reads.indices)
    inputs_last = (*new.inputs[len(constants) :], *new.inputs[: len(constants)])
    return Program(inputs_last, new.equations, new.outputs), (*reads.indices, *constants)


def _size(atom: Atom) -> int:
    return int(np.prod(shaped(atom)[0]))


def _reshape(array: Any, shape: tuple[int, ...]) -> Any:
    return array if np.shape(array) == shape else lax.reshape(array, shape)


def _broadcast(array: Any, shape: tuple[int, ...]) -> Any:
    return array if np.shape(array) == shape else lax.broadcast(array, shape)


def _take(
    array: Any, index: Any, mode: Any = "promise_in_bounds", fill_value: Any = None, ascending: bool = False
) -> Any:
    """Elements of a one-dimensional array, with nothing around the operation itself."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
    order = dict.fromkeys(("unique_indices", "indices_are_sorted"), ascending)
    return lax.gather(
        array, lax.reshape(index, (*index.shape, 1)), numbers, (1,), mode=mode, fill_value=fill_value, **order
    )
