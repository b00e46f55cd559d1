"""Sums and products of arrays: where the terms of a Jacobian are contracted, each once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..equations import bind
from .jacobians import Columns, Entries, Term, add, gather_columns, weights_of
from .numbers import Dual

# A sum by coordinate is a comparison of each entry with each coordinate up to this many: XLA runs a scatter element by
# element, with bounds to check and nothing fused.
_FEW = 4096

# Weighted sums of so many products become one loop, together with what computes the factors.
_WRITTEN = 1024

# Products of matrices with fewer numbers in their result than this are written out.
_TINY = 256


def _reduce_sum(equation: Any, operands: list[Dual]) -> Dual:
    (operand,) = operands
    axes = tuple(equation.params["axes"])
    (value,) = bind(equation, [operand.value])
    terms = [_summed(term, axes, operand.shape, operand.dtype) for term in operand.jacobian]
    return Dual(value, add(terms, tuple(value.shape), value.dtype))


def _summed(term: Term, axes: tuple[int, ...], shape: tuple[int, ...], dtype: Any) -> Term:
    """A term summed over some axes."""
    if isinstance(term, Columns):
        lengths = term.columns.shape[:-1]
        short = tuple(axis for axis in axes if lengths[axis] == 1 and shape[axis] != 1)
        if short:
            # The same columns for all elements along these axes: they come in once the weights are summed.
            taken = None if term.taken is None else jnp.any(term.taken, short)
            weights = jnp.sum(weights_of(term, shape, dtype), short)
            term = Columns(term.rows, jnp.squeeze(term.columns, short), weights, taken)
            shape = tuple(length for axis, length in enumerate(shape) if axis not in short)
            axes = _renumbered(axes, short)
            if not axes:
                return term
        if term.weights is None and term.taken is None:
            return Columns(term.rows, jnp.sum(term.columns, axes), None)
        return Columns(term.rows, _weighted_sum(term, weights_of(term, shape, dtype), axes), None)
    weights = jnp.ones(shape, dtype) if term.weights is None else term.weights
    if not term.known:
        return _scattered(term.rows, term.position, weights, axes)
    position = np.asarray(term.position)
    # First over the axes along which the coordinate stays the same: the pattern remains.
    same = tuple(a for a in axes if bool((position == position.take([0], a)).all()))
    if same:
        position = position.take(0, same[0]) if len(same) == 1 else _take_first(position, same)
        weights = jnp.sum(weights, same)
        axes = _renumbered(axes, same)
    if not axes:
        return Entries(term.rows, position, weights)
    # Then over axes along which it is always another one: the weights are the columns.
    kept = [axis for axis in range(position.ndim) if axis not in axes]
    order = (*kept, *axes)
    folded = position.transpose(order).reshape(*(position.shape[a] for a in kept), -1)
    first = folded.reshape(-1, folded.shape[-1])[0] if folded.size else folded.reshape(-1)
    if bool((folded == first).all()) and np.unique(first).size == first.size:
        columns = weights.transpose(order).reshape(folded.shape)
        sequence = np.argsort(first)
        if not np.array_equal(sequence, np.arange(first.size)):
            columns = columns[..., sequence]
        return Columns(term.rows[first[sequence]], columns, None)
    return _scattered(term.rows, position, weights, axes)


def _weighted_sum(term: Columns, weights: Any, axes: tuple[int, ...]) -> Any:
    """The sum over some axes of columns times weights, shape s; the columns may be of length 1 along axes kept."""
    columns = term.columns
    small = weights.size * columns.shape[-1] <= _WRITTEN
    if small and (term.taken is not None or not term.stored):
        return jnp.sum(replace(term, weights=weights).product(), axes)
    same = tuple(a for a in range(weights.ndim) if columns.shape[a] == 1 and weights.shape[a] != 1)
    # An axis along which the columns are the same is one of the result only: a product of matrices, without copies.
    left = list(range(weights.ndim))
    right = [a for a in left if a not in same]
    kept = [a for a in left if a not in axes]
    last = weights.ndim
    total = jnp.einsum(weights, left, jnp.squeeze(columns, same), [*right, last], [*kept, last])
    if term.taken is None:
        return total
    # The weights are zero where the term does not count, which is enough unless the columns are infinite or NaN there.
    return lax.cond(
        jnp.all(jnp.isfinite(total)),
        lambda: total,
        lambda: jnp.sum(replace(term, weights=weights).product(), axes).astype(total.dtype),
    )


def _take_first(position: Any, axes: tuple[int, ...]) -> Any:
    return position[tuple(0 if a in axes else slice(None) for a in range(position.ndim))]


def _renumbered(axes: tuple[int, ...], removed: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - sum(r < a for r in removed) for a in axes if a not in removed)


def _scattered(rows: Any, position: Any, weights: Any, axes: tuple[int, ...]) -> Columns:
    """Sums over axes of entries that fall on any coordinate: added up by coordinate."""
    if weights.size * rows.size <= _FEW:
        hit = jnp.asarray(position)[..., None] == np.arange(rows.size)
        return Columns(rows, jnp.sum(jnp.where(hit, weights[..., None], 0), axes), None)
    kept = [axis for axis in range(weights.ndim) if axis not in axes]
    order = (*kept, *axes)
    shape = tuple(weights.shape[a] for a in kept)
    outer = int(np.prod(shape))
    flat = jnp.asarray(position).transpose(order).reshape(outer, -1)
    segment = flat + rows.size * jnp.arange(outer)[:, None]
    total = jax.ops.segment_sum(weights.transpose(order).reshape(-1), segment.reshape(-1), outer * rows.size)
    return Columns(rows, total.reshape(*shape, rows.size), None)


def _dot_general(equation: Any, operands: list[Dual]) -> Dual:
    (value,) = bind(equation, [operand.value for operand in operands])
    terms = [term for side in (0, 1) for term in _one_side(equation, operands, side)]
    return Dual(value, add(terms, tuple(value.shape), value.dtype))


def _one_side(equation: Any, operands: list[Dual], side: int) -> list[Term]:
    """The change of a product that comes from one of its factors."""
    active, other = operands[side], operands[1 - side]
    (contracted, batch) = (tuple(numbers[side]) for numbers in equation.params["dimension_numbers"])
    terms: list[Term] = []
    rest: list[Term] = []
    for term in active.jacobian:
        whole = len(contracted) == len(active.shape) and not batch
        if whole and isinstance(term, Entries) and term.known and term.position.ndim == 1 and _injective(term):
            terms.append(_matrix_of(equation, term, other, side))
        elif whole and len(other.shape) == len(active.shape):
            theirs = tuple(equation.params["dimension_numbers"][0][1 - side])
            factor = jnp.transpose(jnp.asarray(other.value), _align(contracted, theirs))
            terms.append(_summed(term.scaled(factor), tuple(range(len(active.shape))), active.shape, active.dtype))
        else:
            rest.append(term)
    if rest:
        dense = gather_columns(tuple(rest), active.shape, active.dtype)
        terms.append(Columns(dense.rows, _product(equation, dense.columns, other.value, side), None))
    return terms


def _product(equation: Any, columns: Any, other: Any, side: int) -> Any:
    """The product with columns in place of one factor: they are one more axis that is neither summed nor batched."""
    numbers = equation.params["dimension_numbers"]
    options = {key: equation.params[key] for key in ("precision", "preferred_element_type")}
    (ours, theirs), (batch, _) = numbers[0][:: -1 if side else 1], numbers[1]
    if not batch and len(ours) == 1 and columns.size * np.size(other) <= _TINY * columns.shape[ours[0]]:
        # As sums of products: XLA makes a loop of a product of matrices, however small, and calls of loops add up
        # inside the loop of a filter.
        left, right = jnp.moveaxis(columns, ours[0], 0), jnp.moveaxis(jnp.asarray(other), theirs[0], 0)
        parts = [_outer(left[k], right[k], side) for k in range(len(left))]
        return functools.reduce(jnp.add, parts)
    if side == 1:
        return lax.dot_general(jnp.asarray(other), columns, numbers, **options)
    result = lax.dot_general(columns, jnp.asarray(other), numbers, **options)
    return jnp.moveaxis(result, columns.ndim - 1 - len(ours), -1)


def _outer(columns: Any, other: Any, side: int) -> Any:
    """All products of elements of shapes (*a, r) and b, of shape (*a, *b, r), or (*b, *a, r) on side 1."""
    if side == 1:
        return other.reshape(*other.shape, *(1 for _ in columns.shape)) * columns
    return columns.reshape(*columns.shape[:-1], *(1 for _ in other.shape), -1) * other[..., None]


def _align(ours: tuple[int, ...], theirs: tuple[int, ...]) -> list[int]:
    """The order of the other factor's axes that matches ours."""
    return [theirs[ours.index(axis)] for axis in range(len(ours))]


def _injective(term: Entries) -> bool:
    return bool(np.unique(term.position).size == term.position.size)


def _matrix_of(equation: Any, term: Entries, other: Dual, side: int) -> Columns:
    """The Jacobian of `other @ v` where each element of the vector v is a coordinate of x: `other` itself."""
    axis = equation.params["dimension_numbers"][0][1 - side][0]
    columns = jnp.moveaxis(jnp.asarray(other.value), axis, -1)
    if term.weights is not None:
        columns = columns * term.weights
    index = term.rows[term.position]
    sequence = np.argsort(index)
    if not np.array_equal(sequence, np.arange(index.size)):
        columns = columns[..., sequence]
    return Columns(index[sequence], columns, None, stored=term.weights is None)


def _cumulative(equation: Any, operands: list[Dual]) -> Dual:
    (operand,) = operands
    dense = gather_columns(operand.jacobian, operand.shape, operand.dtype)

    def run(array: Any) -> Any:
        return bind(equation, [array])[0]

    return Dual(run(operand.value), (Columns(dense.rows, jax.vmap(run, in_axes=-1, out_axes=-1)(dense.columns), None),))


CONTRACTIONS: dict[str, Callable[[Any, list[Dual]], Dual | None]] = {
    "reduce_sum": _reduce_sum,
    "dot_general": _dot_general,
    "cumsum": _cumulative,
}
