"""Writing into arrays by index: sums by group, elements set one by one, rows filled in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..equations import bind
from .jacobians import Columns, Entries
from .movement import joined, moved
from .numbers import Dual

# Scatters of a number into one of so many places are written out.
_FEW = 4096

# Elements taken in so many runs are taken as slices.
_RUNS = 8


def _scatter(equation: Any, operands: list[Dual]) -> Dual | None:
    operand, indices, updates = operands
    params = equation.params
    writes = int(np.prod(indices.shape[:-1]))
    # Two values written to one place: which one stays is for the value to say, and its derivative must follow.
    name = equation.primitive.name
    sure = writes == 1 or params["unique_indices"] or name == "scatter-add"
    if indices.is_active:
        return None
    slots = _slots(equation, operand, indices)
    if slots is not None:
        return _placed(operand, updates, slots)
    if _by_group(equation, operand, updates):
        return _grouped(equation, operand, indices, updates)
    if not sure or name not in ("scatter", "scatter-add"):
        return None
    (value,) = bind(equation, [o.value for o in operands])
    rows = np.unique(np.concatenate([t.rows for o in (operand, updates) for t in o.jacobian]))

    # Columns are one more axis of what is written, in place.
    numbers = params["dimension_numbers"]
    wider = numbers._replace(update_window_dims=(*numbers.update_window_dims, len(updates.shape)))
    columnwise = equation.replace(params={**params, "dimension_numbers": wider})
    (columns,) = bind(columnwise, [operand.columns(rows), indices.value, updates.columns(rows)])
    return Dual(value, (Columns(rows, columns, None),))


def _slots(equation: Any, operand: Dual, indices: Dual) -> Any | None:
    """Which update goes to each element of a small operand, -1 for none; None unless that is known beforehand."""
    numbers = equation.params["dimension_numbers"]
    axes = tuple(range(len(operand.shape)))
    if (
        equation.primitive.name != "scatter"
        or not isinstance(indices.value, np.ndarray)
        or not operand.shape
        or not 0 < int(np.prod(operand.shape)) <= _FEW
        or numbers.update_window_dims
        or numbers.operand_batching_dims
        or tuple(numbers.inserted_window_dims) != axes
        or equation.params["mode"] == lax.GatherScatterMode.CLIP
    ):
        return None
    places = np.empty((indices.value[..., 0].size, len(axes)), int)
    places[:, list(numbers.scatter_dims_to_operand_dims)] = indices.value.reshape(-1, len(axes))
    inside = ((places >= 0) & (places < np.array(operand.shape))).all(1)
    slots = np.full(operand.shape, -1)
    slots[tuple(places[inside].T)] = np.flatnonzero(inside)
    # Of two updates of one element only one would show here.
    return slots if (slots >= 0).sum() == inside.sum() else None


def _placed(operand: Dual, updates: Dual, slots: Any) -> Dual:
    """Updates written at places known beforehand: elements are moved, none is searched for, and the pattern remains."""
    source = np.where(slots < 0, np.arange(slots.size).reshape(slots.shape), slots.size + slots)
    flat = [_reshaped(operand), _reshaped(updates)]
    both = joined(jnp.concatenate([dual.value for dual in flat]), flat, 0)

    def move(array: Any) -> Any:
        return _taken_from(array, source)

    return Dual(move(both.value), tuple(moved(term, both.shape, move) for term in both.jacobian))


def _taken_from(array: Any, source: Any) -> Any:
    """Elements of a vector by places known beforehand: a few runs of them as slices, which XLA fuses, else a gather."""
    flat = source.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 2) != 1)
    if starts.size > _RUNS:
        return array[source]
    ends = np.append(starts[1:], flat.size)
    parts = [lax.slice_in_dim(array, int(flat[a]), int(flat[b - 1]) + 1) for a, b in zip(starts, ends, strict=True)]
    return jnp.concatenate(parts).reshape(source.shape)


def _reshaped(dual: Dual) -> Dual:
    """As a vector."""

    def move(array: Any) -> Any:
        return array.reshape(-1)

    return Dual(jnp.ravel(dual.value), tuple(moved(term, dual.shape, move) for term in dual.jacobian))


def _by_group(equation: Any, operand: Dual, updates: Dual) -> bool:
    """Whether few different coordinates of x go each to an element of a short array of constants: sums by group."""
    if len(operand.shape) != 1 or len(updates.shape) != 1 or operand.is_active or len(updates.jacobian) != 1:
        return False
    (term,) = updates.jacobian
    return (
        equation.primitive.name in ("scatter-add", "scatter-max", "scatter-min")
        and equation.params["mode"] != lax.GatherScatterMode.CLIP
        and not equation.params["dimension_numbers"].update_window_dims
        and isinstance(term, Entries)
        and term.known
        and np.array_equal(term.position, np.arange(term.rows.size))
        and operand.shape[0] * updates.shape[0] <= _FEW
    )


def _grouped(equation: Any, operand: Dual, indices: Dual, updates: Dual) -> Dual:
    """A sum, maximum or minimum by group, written out: XLA runs a scatter element by element."""
    (value,) = bind(equation, [operand.value, indices.value, updates.value])
    (term,) = updates.jacobian
    weights = jnp.ones(updates.shape, value.dtype) if term.weights is None else term.weights
    hit = indices.value[:, 0] == jnp.arange(operand.shape[0])[:, None]
    if equation.primitive.name != "scatter-add":
        # Those that are the largest share the slope, and what was there before takes part.
        hit &= updates.value == value[:, None]
        weights = weights / (jnp.sum(hit, 1, keepdims=True) + (operand.value == value)[:, None]).astype(value.dtype)
    return Dual(value, (Columns(term.rows, jnp.where(hit, weights, jnp.zeros((), value.dtype)), None),))


SCATTERS: dict[str, Callable[[Any, list[Dual]], Dual | None]] = dict.fromkeys(
    ("scatter", "scatter-add", "scatter-max", "scatter-min"), _scatter
)
