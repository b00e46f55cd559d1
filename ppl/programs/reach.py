"""Which elements of an array depend on which coordinates, read off a traced program.

Two questions of a Gibbs sampler are answered here: which coordinates of a discrete site are independent given the
others, so that they can be updated at once, and which rows of a plate a coordinate reaches. Both follow from what
each element of an equation's result reads of the operands (`reads`), put together along the program (`reach`).

An element is known exactly as long as it depends on two coordinates at most, as in plates, chains and fields with
pairwise terms; beyond that it is only known to depend on many. Nothing is ever said to be independent that is not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.dual.elementwise import is_elementwise
from ...ad.equations import bind, shaped
from .program import Atom, Program

IntArray = np.ndarray[Any, Any]

# A table of reads that were larger than this is not made: the operand counts as read whole.
_LARGEST = 10_000_000

_PREDICATES = frozenset({
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "is_finite", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "population_count", "clz", "log2",
})  # fmt: skip
REDUCTIONS = frozenset({
    "reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "reduce_xor", "argmax",
    "argmin",
})  # fmt: skip
CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})


@dataclass(frozen=True)
class Reach:
    """For each element of an array, the coordinates that it depends on.

    Args:
        low: the smallest of them, -1 where there is none; of the array's shape, as are the others.
        high: the largest of them, -1 where there is none; equal to `low` where there is one.
        many: whether there are, or may be, more than two; `low` and `high` are -1 there.
    """

    low: IntArray
    high: IntArray
    many: np.ndarray[Any, Any]

    @classmethod
    def of(cls, coordinates: IntArray) -> Reach:
        """Elements that each depend on one coordinate, or on none where its number is -1."""
        return cls(coordinates, coordinates, np.zeros(np.shape(coordinates), bool))

    def at(self, places: IntArray) -> Reach:
        """Of the elements with these flat numbers; -1 stands for an element that depends on nothing."""
        low, high = (np.where(places < 0, -1, part.ravel()[places]) for part in (self.low, self.high))
        return Reach(low, high, (places >= 0) & self.many.ravel()[places])

    def reshape(self, shape: tuple[int, ...]) -> Reach:
        """The same elements in another shape."""
        return Reach(self.low.reshape(shape), self.high.reshape(shape), self.many.reshape(shape))

    @staticmethod
    def union(parts: Sequence[Reach]) -> Reach:
        """What depends on everything in a row of any part: from shapes (n, r) to shape (n,)."""
        every = np.concatenate([array for part in parts for array in (part.low, part.high)], axis=1)
        high = every.max(axis=1, initial=-1)
        low = np.where(every < 0, high[:, None], every).min(axis=1, initial=np.iinfo(every.dtype).max)
        low = np.where(high < 0, -1, low)
        more = ((every >= 0) & (every != low[:, None]) & (every != high[:, None])).any(axis=1)
        for part in parts:
            more |= part.many.any(axis=1)
        return Reach(np.where(more, -1, low), np.where(more, -1, high), more)


@dataclass(frozen=True)
class Places:
    """Some elements of a result of an equation.

    Args:
        shape: of the result.
        flat: their numbers in row-major order, shape (n,).
        result: which of the equation's results.
    """

    shape: tuple[int, ...]
    flat: IntArray
    result: int = 0

    @functools.cached_property
    def along(self) -> tuple[IntArray, ...]:
        """Their place along each axis, shape (n,) each."""
        return np.unravel_index(self.flat, self.shape) if self.shape else ()


class Constants:
    """The integers and booleans of a program that known inputs (by number) determine, worked out when asked for."""

    def __init__(self, program: Program, known: Mapping[int, IntArray]) -> None:
        self._program = program
        self._values: dict[Var, Any] = {program.inputs[i]: np.asarray(value) for i, value in known.items()}
        self._within = set(self._values)
        for equation in program.equations:
            small = all(np.dtype(shaped(var)[1]).kind in "biu" for var in equation.outvars)
            understood = is_by_element(equation) or equation.primitive.name in ("iota", *_RULES)
            if small and understood and all(isinstance(a, Literal) or a in self._within for a in equation.invars):
                self._within.update(equation.outvars)

    def __call__(self, atom: Atom) -> IntArray | None:
        """The value of a variable or literal, or None if it is not known."""
        if isinstance(atom, Literal):
            return np.asarray(atom.val)
        if atom not in self._within:
            return None
        if atom not in self._values:
            part = Program(self._program.inputs, self._program.equations, (atom,)).select([0])
            with jax.ensure_compile_time_eval():
                for equation in part.equations:
                    if equation.outvars[0] not in self._values:
                        operands = [a.val if isinstance(a, Literal) else self._values[a] for a in equation.invars]
                        results = [np.asarray(result) for result in bind(equation, operands)]
                        self._values.update(zip(equation.outvars, results, strict=True))
        return np.asarray(self._values[atom])


def reads(equation: JaxprEqn, operand: int, places: Places, constants: Constants) -> IntArray | None:
    """Which elements of an operand some elements of a result are computed from.

    Args:
        equation: of a program.
        operand: its number.
        places: the elements of the result, n of them.
        constants: for indices.

    Returns:
        Their flat numbers, shape (n, r), with -1 for none; None where the whole operand may be read.
    """
    rule = _RULES.get(equation.primitive.name, _elementwise if is_by_element(equation) else None)
    return None if rule is None else rule(equation, operand, places, constants)


def reach(
    program: Program, coordinates: Mapping[int, IntArray], known: Mapping[int, IntArray] | None = None
) -> list[Reach]:
    """Which coordinates each element of each output of a program depends on.

    Args:
        program: a traced program.
        coordinates: for some of the inputs, by number, an array of the input's shape with the number of the
            coordinate that each element is, or -1.
        known: values of inputs that do not change, by number: data, which indices may be made of.

    Returns:
        A `Reach` for each output.

    Raises:
        ValueError: if `coordinates` do not have the shape of their input.
    """
    found: dict[Var, Reach] = {}
    for i, numbers in coordinates.items():
        shape = shaped(program.inputs[i])[0]
        if np.shape(numbers) != shape:
            got = f"reach: coordinates of input {i} have shape {np.shape(numbers)}, the input has {shape}"
            raise ValueError(f"{got}; give one number for each element.")
        if np.any(np.asarray(numbers) >= 0):
            found[program.inputs[i]] = Reach.of(np.asarray(numbers, np.int64))
    constants = Constants(program, known or {})
    for equation in program.select(range(len(program.outputs))).equations:
        moving = {k: found[atom] for k, atom in enumerate(equation.invars) if isinstance(atom, Var) and atom in found}
        if not moving:
            continue
        for result, var in enumerate(equation.outvars):
            shape = shaped(var)[0]
            if not all(shape):
                continue
            places = Places(shape, np.arange(int(np.prod(shape))), result)
            parts, whole = [], []
            for k, source in moving.items():
                read = reads(equation, k, places, constants)
                (whole.append(source.reshape((1, -1))) if read is None else parts.append(source.at(read)))
            if whole:
                everything = Reach.union(whole).reshape((1, 1))
                parts.append(everything.at(np.zeros((places.flat.size, 1), int)))
            single = len(parts) == 1 and parts[0].low.shape[1] == 1
            found[var] = (parts[0] if single else Reach.union(parts)).reshape(shape)
    return [
        Reach.of(np.full(shaped(out)[0], -1)) if isinstance(out, Literal) or out not in found else found[out]
        for out in program.outputs
    ]


def colouring(count: int, reaches: Sequence[Reach]) -> tuple[IntArray, ...]:
    """A partition of coordinates such that no element depends on two of the same colour.

    Coordinates of one colour are independent given all others, if the elements are the terms of a log density.
    They are coloured greedily in their order: an independent plate gets one colour, a chain or a grid two.

    Args:
        count: how many coordinates there are.
        reaches: of all terms that depend on them.

    Returns:
        For each colour the numbers of its coordinates, ascending.

    Source: Gonzalez, Low, Gretton and Guestrin (2011), "Parallel Gibbs Sampling: From Colored Fields to Thin
    Junction Trees".
    """
    if any(bool(each.many.any()) for each in reaches):
        return tuple(np.array([i]) for i in range(count))
    pairs = np.concatenate([np.zeros((0, 2), int), *(np.c_[each.low.ravel(), each.high.ravel()] for each in reaches)])
    edges = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    earlier: list[list[int]] = [[] for _ in range(count)]
    for low, high in edges.tolist():
        earlier[high].append(low)
    colours: list[int] = []
    for neighbours in earlier:
        taken = {colours[i] for i in neighbours}
        colours.append(next(colour for colour in range(len(taken) + 1) if colour not in taken))
    numbers = np.asarray(colours, int)
    return tuple(np.flatnonzero(numbers == colour) for colour in range(max(colours, default=-1) + 1))


def unsummed(program: Program, output: int) -> Atom:
    """What an output (by number) is the sum of over all axes; the output itself where it is no such sum."""
    sources = {var: equation for equation in program.equations for var in equation.outvars}
    atom = program.outputs[output]
    while isinstance(atom, Var) and atom in sources and not shaped(atom)[0]:
        name, atom = sources[atom].primitive.name, sources[atom].invars[0]
        if name == "reduce_sum" and shaped(atom)[0]:
            return atom
        if (
            name not in ("reduce_sum", "convert_element_type", "copy", "copy_p")
            or np.dtype(shaped(atom)[1]).kind != "f"
        ):
            break
    return program.outputs[output]


def is_by_element(equation: JaxprEqn) -> bool:
    """Whether each element of the result is computed from one element of each operand, the same of all."""
    return equation.primitive.name in _PREDICATES or is_elementwise(equation)


def _address(shape: Sequence[int], along: Sequence[Any]) -> IntArray:
    """Flat numbers of elements from their places along each axis; axes of length one are not looked at."""
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    return sum((strides[k] * along[k] for k, size in enumerate(shape) if size != 1), np.zeros(1, int))


def _column(address: IntArray, places: Places) -> IntArray:
    return np.broadcast_to(address, places.flat.shape)[:, None]


def _shape(equation: JaxprEqn, operand: int) -> tuple[int, ...]:
    shape: tuple[int, ...] = shaped(equation.invars[operand])[0]
    return shape


def _elementwise(equation: JaxprEqn, operand: int, places: Places, _: Constants) -> IntArray | None:
    shape = _shape(equation, operand)
    return places.flat[:, None] if shape == places.shape else _column(_address(shape, places.along), places)


def _kept_in_order(equation: JaxprEqn, operand: int, places: Places, _: Constants) -> IntArray | None:
    return None if equation.params.get("dimensions") and equation.primitive.name == "reshape" else places.flat[:, None]


def _broadcast_in_dim(equation: JaxprEqn, operand: int, places: Places, _: Constants) -> IntArray | None:
    along = [places.along[axis] for axis in equation.params["broadcast_dimensions"]]
    return None if operand else _column(_address(_shape(equation, 0), along), places)


def _reduced(equation: JaxprEqn, operand: int, places: Places, _: Constants) -> IntArray:
    axes, shape = equation.params["axes"], _shape(equation, 0)
    kept = iter(places.along)
    base = _address(shape, [0 if axis in axes else next(kept) for axis in range(len(shape))])
    return _column(base, places) + spread(shape, axes)


def spread(shape: tuple[int, ...], axes: Sequence[int]) -> IntArray:
    """Flat numbers, in the order of `axes`, of the elements that only differ in their place along them."""
    sizes = [shape[axis] for axis in axes]
    along: list[Any] = [0] * len(shape)
    for axis, place in zip(axes, np.indices(sizes).reshape(len(sizes), int(np.prod(sizes))), strict=True):
        along[axis] = place
    return np.broadcast_to(_address(shape, along), (int(np.prod(sizes)),))


def _cumulative(equation: JaxprEqn, operand: int, places: Places, _: Constants) -> IntArray | None:
    axis, length = equation.params["axis"], places.shape[equation.params["axis"]]
    if places.flat.size * length > _LARGEST:
        return None
    line = _address(places.shape, [0 if k == axis else i for k, i in enumerate(places.along)])
    table = _column(line, places) + spread(places.shape, [axis])
    here, steps = places.along[axis][:, None], np.arange(length)
    return np.where(steps >= here if equation.params["reverse"] else steps <= here, table, -1)


def _dot_general(equation: JaxprEqn, operand: int, places: Places, _: Constants) -> IntArray | None:
    contracted, batch = equation.params["dimension_numbers"]
    shape, mine = _shape(equation, operand), contracted[operand]
    if places.flat.size * int(np.prod([shape[axis] for axis in mine])) > _LARGEST:
        return None
    # The axes of the result: those of the batch, the free ones of the left operand, those of the right one.
    along: list[Any] = [0] * len(shape)
    for axis, place in zip(batch[operand], places.along, strict=False):
        along[axis] = place
    free = [axis for axis in range(len(shape)) if axis not in mine and axis not in batch[operand]]
    first = len(places.shape) - len(free) if operand else len(batch[0])
    for axis, place in zip(free, places.along[first:], strict=False):
        along[axis] = place
    return _column(_address(shape, along), places) + spread(shape, mine)


def _moved(equation: JaxprEqn, operand: int, places: Places, constants: Constants) -> IntArray | None:
    """Of an operation that moves elements about: by moving their numbers, with -1 in place of all other operands."""
    name = equation.primitive.name
    indices = _INDICES.get(name, slice(0, 0))
    values: list[Any] = [constants(atom) for atom in equation.invars[indices]]
    if any(value is None for value in values):
        return _gathered_anywhere(equation, operand, places) if name == "gather" else None
    numbers = range(len(equation.invars))
    if operand in numbers[indices]:
        return np.zeros((places.flat.size, 0), int)
    if name == "scatter-add":
        if operand == 0:
            return places.flat[:, None]
        if _evaluated(equation, {0: 0, 2: 1}, values).max(initial=0) > 1:
            return None  # several updates of one element
        return _evaluated(equation, {0: 0, 2: 1 + _numbers(equation, 2)}, values)[places.flat][:, None] - 1
    given = {k: _numbers(equation, k) if k == operand else -1 for k in numbers if k not in numbers[indices]}
    return np.maximum(_evaluated(equation, given, values, places.result)[places.flat], -1)[:, None]


def _gathered_anywhere(equation: JaxprEqn, operand: int, places: Places) -> IntArray | None:
    """Of a gather with indices that are not known: all elements that some index leads to."""
    dimensions, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    indices = _shape(equation, 1)
    if operand:
        outer = [place for axis, place in enumerate(places.along) if axis not in dimensions.offset_dims]
        return _column(_address(indices, [*outer, 0]), places) + np.arange(indices[-1])
    axes = dimensions.start_index_map
    anywhere = spread(_shape(equation, 0), axes)
    if any(sizes[axis] != 1 for axis in axes) or places.flat.size * anywhere.size > _LARGEST:
        return None
    first = _evaluated(equation, {0: _numbers(equation, 0)}, [np.zeros(indices, np.int32)])
    return first[places.flat][:, None] + anywhere


def _numbers(equation: JaxprEqn, operand: int) -> IntArray:
    shape = _shape(equation, operand)
    return np.arange(int(np.prod(shape))).reshape(shape)


def _evaluated(equation: JaxprEqn, given: Mapping[int, Any], indices: Sequence[Any], result: int = 0) -> IntArray:
    """One result of an equation, shape (n,), with other numbers for its operands than those of the program."""
    known = iter(indices)
    # An addition is of the program's own dtype.
    dtype = shaped(equation.outvars[result])[1] if equation.primitive.name == "scatter-add" else np.int64
    operands = [
        np.broadcast_to(given[k], _shape(equation, k)).astype(dtype) if k in given else next(known)
        for k in range(len(equation.invars))
    ]
    changed = {"fill_value": -1} if equation.primitive.name == "gather" else {}
    with jax.ensure_compile_time_eval():
        return np.asarray(bind(equation, [jnp.asarray(o) for o in operands], **changed)[result]).astype(int).ravel()


# Which operands of operations that move elements are indices.
_INDICES = {
    **dict.fromkeys(("gather", "scatter", "scatter-add"), slice(1, 2)),
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
}
_MOVING = ("transpose", "slice", "rev", "concatenate", "split", "stack", "unstack", "tile", "pad", *_INDICES)
_ALIKE = ("reshape", "squeeze", "expand_dims")

# Every element of the result is one element of one operand.
MOVEMENTS = frozenset({*_MOVING, *_ALIKE, "broadcast_in_dim"}) - {"scatter-add"}

_RULES: dict[str, Callable[[JaxprEqn, int, Places, Constants], IntArray | None]] = {
    **dict.fromkeys(_ALIKE, _kept_in_order),
    **dict.fromkeys(_MOVING, _moved),
    **dict.fromkeys(REDUCTIONS, _reduced),
    **dict.fromkeys(CUMULATIVE, _cumulative),
    "broadcast_in_dim": _broadcast_in_dim,
    "dot_general": _dot_general,
}
