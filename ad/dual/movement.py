"""Operations that move elements about: patterns and weights move along, nothing is multiplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..equations import bind
from .jacobians import Columns, Entries, Term, add, entries_at
from .numbers import Dual, stretched
from .on_host import on_host

Move = Callable[[Any], Any]


def moved(
    term: Term, shape: tuple[int, ...], move: Move, move_position: Move | None = None, fills: bool = False
) -> Term:
    """A term under an operation that moves elements.

    Args:
        term: of the operand.
        shape: of the operand.
        move: the operation, on floating-point arrays.
        move_position: the operation on positions, where it is another one.
        fills: whether the operation can make new elements, which are zero.
    """
    if isinstance(term, Columns):
        term = term.plain()
        weights = term.weights
        columns = jnp.broadcast_to(term.columns, (*shape, term.rows.size))
        columns = jax.vmap(move, in_axes=-1, out_axes=-1)(columns)
        return Columns(term.rows, columns, None if weights is None else move(weights))
    weights = term.weights
    if weights is None and fills:
        weights = jnp.ones(term.position.shape)
    moved = None if weights is None else move(weights)
    if term.rows.size == 1:
        size = jax.eval_shape(move, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape
        return Entries(term.rows, np.zeros(size, int), moved)
    if term.known:
        try:
            return entries_at(on_host(move_position or move, term.rows[term.position]), moved)
        except jax.errors.TracerArrayConversionError:
            pass  # the operation itself depends on data, such as an index
    return Entries(term.rows, (move_position or move)(jnp.asarray(term.position)), moved)


def _plain(equation: Any, operands: list[Dual]) -> Dual:
    """reshape, transpose, slice and others with one array operand and static parameters."""
    (operand,) = operands

    def move(array: Any) -> Any:
        return bind(equation, [array])[0]

    return Dual(move(operand.value), tuple(moved(term, operand.shape, move) for term in operand.jacobian))


def _broadcast_in_dim(equation: Any, operands: list[Dual]) -> Dual | None:
    if len(operands) != 1:
        return None
    # The batching rule of this primitive wants static shapes: spelled out here with the column axis.
    (operand,) = operands
    shape, dims = equation.params["shape"], equation.params["broadcast_dimensions"]

    def move(array: Any) -> Any:
        return lax.broadcast_in_dim(array, shape, dims)

    if not operand.shape:
        return Dual(move(operand.value), stretched(operand, tuple(shape)))
    return Dual(move(operand.value), tuple(moved(term, operand.shape, move) for term in operand.jacobian))


def _gather(equation: Any, operands: list[Dual]) -> Dual | None:
    operand, indices = operands
    if indices.is_active:
        return None
    params = equation.params
    clip = lax.GatherScatterMode.CLIP
    filling = params["mode"] == lax.GatherScatterMode.FILL_OR_DROP

    def gather(array: Any, mode: Any, fill: Any) -> Any:
        return lax.gather(
            array,
            indices.value,
            params["dimension_numbers"],
            params["slice_sizes"],
            indices_are_sorted=params["indices_are_sorted"],
            unique_indices=params["unique_indices"],
            mode=mode,
            fill_value=fill,
        )

    (value,) = bind(equation, [operand.value, indices.value])
    # Elements out of range are NaN in the value; like JAX, their derivative is zero.
    terms = [
        moved(
            term,
            operand.shape,
            lambda array: gather(array, params["mode"], 0 if filling else None),
            lambda array: gather(array, clip, None),
            filling,
        )
        for term in operand.jacobian
    ]
    return Dual(value, add(terms, tuple(value.shape), value.dtype))


def _dynamic_slice(equation: Any, operands: list[Dual]) -> Dual | None:
    operand, *starts = operands
    if any(start.is_active for start in starts):
        return None
    first, sizes = [start.value for start in starts], equation.params["slice_sizes"]

    def move(array: Any) -> Any:
        # Columns come with an axis more: read where they lie, since inside a loop a transposed copy costs most.
        extra = array.shape[len(sizes) :]
        return lax.dynamic_slice(array, [*first, *(jnp.zeros_like(first[0]) for _ in extra)], (*sizes, *extra))

    terms: list[Term] = []
    for term in operand.jacobian:
        if isinstance(term, Columns):
            plain = term.plain()
            columns = move(jnp.broadcast_to(plain.columns, (*operand.shape, plain.rows.size)))
            terms.append(Columns(plain.rows, columns, None if plain.weights is None else move(plain.weights)))
        else:
            terms.append(moved(term, operand.shape, move))
    return Dual(move(operand.value), tuple(terms))


def _dynamic_update_slice(equation: Any, operands: list[Dual]) -> Dual | None:
    operand, update, *starts = operands
    if any(start.is_active for start in starts) or not operand.shape:
        return None
    first = [start.value for start in starts]
    (value,) = bind(equation, [o.value for o in operands])
    if not (operand.is_active or update.is_active):
        return Dual(value)
    rows = np.unique(np.concatenate([t.rows for o in (operand, update) for t in o.jacobian]))
    parts = [_entries_over(rows, o, value.dtype) for o in (operand, update)]
    if parts[0] is not None and parts[1] is not None:
        # Each element still depends on one coordinate at most, and on which one is overwritten as its value is.
        position, weights = (lax.dynamic_update_slice(a, b, first) for a, b in zip(parts[0], parts[1], strict=True))
        return Dual(value, (Entries(rows, position, weights),))

    # In place: a loop that fills an array row by row carries its columns and writes one row of them at a time.
    into = [*first, jnp.zeros_like(first[0])]
    columns = lax.dynamic_update_slice(operand.columns(rows), update.columns(rows), into)
    return Dual(value, (Columns(rows, columns, None),))


def _entries_over(rows: Any, dual: Dual, dtype: Any) -> tuple[Any, Any] | None:
    """Place in `rows` and weight of the one coordinate that each element depends on, weight zero for none.

    None where an element may depend on several.
    """
    if not dual.is_active:
        return jnp.zeros(dual.shape, int), jnp.zeros(dual.shape, dtype)
    term = dual.jacobian[0]
    if len(dual.jacobian) > 1 or isinstance(term, Columns):
        return None
    place = np.searchsorted(rows, term.rows)
    if np.array_equal(place, np.arange(rows.size)):
        position = jnp.asarray(term.position)
    else:
        position = jnp.asarray(place)[jnp.asarray(term.position)]
    return position, jnp.ones(dual.shape, dtype) if term.weights is None else term.weights


def _pad(equation: Any, operands: list[Dual]) -> Dual | None:
    operand, filling = operands
    if filling.is_active:
        return None
    config = equation.params["padding_config"]

    def move(array: Any) -> Any:
        return lax.pad(array, jnp.zeros((), array.dtype), config)

    (value,) = bind(equation, [operand.value, filling.value])
    return Dual(value, tuple(moved(term, operand.shape, move, fills=True) for term in operand.jacobian))


def _concatenate(equation: Any, operands: list[Dual]) -> Dual:
    (value,) = bind(equation, [operand.value for operand in operands])
    return joined(value, operands, equation.params["dimension"])


def _stack(equation: Any, operands: list[Dual]) -> Dual:
    axis = equation.params["axis"]
    (value,) = bind(equation, [operand.value for operand in operands])

    def lengthened(operand: Dual) -> Dual:
        def move(array: Any) -> Any:
            return jnp.expand_dims(array, axis)

        return Dual(move(operand.value), tuple(moved(term, operand.shape, move) for term in operand.jacobian))

    return joined(value, [lengthened(operand) for operand in operands], axis)


def joined(value: Any, operands: list[Dual], axis: int) -> Dual:
    """The Jacobian of a concatenation along `axis`, whose value is given."""
    dtype = value.dtype
    single = [operand.jacobian[0] if len(operand.jacobian) == 1 else None for operand in operands]
    if all(not o.is_active or (isinstance(t, Entries) and t.known) for o, t in zip(operands, single, strict=True)):
        # Each element still depends on one coordinate at most: the parts are one term again.
        index = [
            t.rows[t.position] if isinstance(t, Entries) else np.zeros(o.shape, int)
            for o, t in zip(operands, single, strict=True)
        ]
        if all(isinstance(t, Entries) and t.weights is None for t in single):
            return Dual(value, (entries_at(np.concatenate(index, axis), None),))
        weights = [
            jnp.zeros(o.shape, dtype) if t is None else jnp.ones(o.shape, dtype) if t.weights is None else t.weights
            for o, t in zip(operands, single, strict=True)
        ]
        return Dual(value, (entries_at(np.concatenate(index, axis), jnp.concatenate(weights, axis)),))
    rows = np.unique(np.concatenate([term.rows for operand in operands for term in operand.jacobian]))
    columns = [operand.columns(rows) for operand in operands]
    return Dual(value, (Columns(rows, jnp.concatenate(columns, axis), None),))


def _split(equation: Any, operands: list[Dual]) -> list[Dual]:
    (operand,) = operands
    axis = equation.params["axis"]
    results, start = [], 0
    for size in equation.params["sizes"]:

        def move(array: Any, start: int = start, size: int = size) -> Any:
            return lax.slice_in_dim(array, start, start + size, axis=axis)

        results.append(Dual(move(operand.value), tuple(moved(t, operand.shape, move) for t in operand.jacobian)))
        start += size
    return results


def _unstack(equation: Any, operands: list[Dual]) -> list[Dual]:
    (operand,) = operands
    axis = equation.params["axis"]
    results = []
    for i in range(operand.shape[axis]):

        def move(array: Any, i: int = i) -> Any:
            return lax.index_in_dim(array, i, axis, keepdims=False)

        results.append(Dual(move(operand.value), tuple(moved(t, operand.shape, move) for t in operand.jacobian)))
    return results


MOVEMENTS: dict[str, Callable[[Any, list[Dual]], Dual | list[Dual] | None]] = {
    **dict.fromkeys(("reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "tile"), _plain),
    "broadcast_in_dim": _broadcast_in_dim,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
}
