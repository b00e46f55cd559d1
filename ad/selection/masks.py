"""Masks: by which elements of a value the result of a program moves, as conditions that are computed when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..equations import bind, shaped
from .facts import moves


@dataclass(frozen=True)
class Condition:
    """Where something holds, element by element: computed when a fence asks for it.

    Args:
        key: what makes it the same as another one.
        shape: of its elements; () for all elements of an array together.
        parts: the values and masks that it is computed from.
        compute: from the parts to booleans of that shape.
        opposite: the key of its negation, where that is a condition too.
    """

    key: tuple[Any, ...]
    shape: tuple[int, ...]
    parts: tuple[Any, ...] = field(compare=False, repr=False)
    compute: Callable[..., Any] = field(compare=False, repr=False)
    opposite: tuple[Any, ...] | None = field(default=None, compare=False, repr=False)


# The elements of a value by which the result moves: all these conditions hold.
Mask = frozenset[Condition]
EVERYWHERE: Mask = frozenset()


def shape_of(mask: Mask) -> tuple[int, ...]:
    """The shape of the elements of a mask."""
    return np.broadcast_shapes(*(condition.shape for condition in mask))


def as_a_whole(mask: Mask) -> Mask:
    """The conditions of a mask that hold for all elements together: they pass any operation."""
    return frozenset(condition for condition in mask if not condition.shape)


def case(equation: Any, predicate: Any, index: int) -> Mask:
    """Where a selection takes its case `index`."""
    shape, dtype = shaped(predicate)

    def taken(predicate: Any) -> Any:
        if jnp.issubdtype(dtype, bool):
            return predicate if index else ~predicate
        return predicate == index

    other = (case, predicate, 1 - index) if len(equation.invars) == 3 else None
    return frozenset({Condition((case, predicate, index), shape, (predicate,), taken, other)})


def passed(equation: Any, index: int) -> Mask:
    """Where a maximum or minimum is its operand `index`, alone or not."""
    compare = jnp.greater_equal if equation.primitive.name == "max" else jnp.less_equal
    parts = (equation.invars[index], equation.invars[1 - index])
    return frozenset({Condition((passed, id(equation), index), shaped(equation.outvars[0])[0], parts, compare)})


def either(first: Mask, second: Mask) -> Mask:
    """The elements of one mask or another."""
    common, one, two = first & second, first - second, second - first
    if not one or not two:
        return common
    if len(one) == len(two) == 1 and next(iter(one)).opposite == next(iter(two)).key:
        return common
    shape = np.broadcast_shapes(shape_of(one), shape_of(two))
    return common | {Condition((either, frozenset({one, two})), shape, (one, two), jnp.logical_or)}


def anywhere(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """Which elements of an operand, broadcast to the shape of the mask, have one in it."""
    if not mask:
        return EVERYWHERE
    full = shape_of(mask)
    axes = tuple(i for i in range(len(full)) if not shape or shape[i] != full[i])

    def reduced(mask: Any) -> Any:
        return jnp.any(mask, axis=axes).reshape(shape)

    return frozenset({Condition((anywhere, mask, shape), shape, (mask,), reduced)})


def expanded(mask: Mask, equation: Any) -> Mask:
    """Which elements a reduction takes into an element of the mask."""
    if not mask:
        return EVERYWHERE
    shape, axes = shaped(equation.invars[0])[0], equation.params["axes"]

    def expanded(mask: Any) -> Any:
        return jnp.broadcast_to(jnp.expand_dims(mask, axes), shape)

    return frozenset({Condition((expanded, mask, shape, axes), shape, (mask,), expanded)})


def moved_back(masks: tuple[Mask, ...], equation: Any, index: int) -> Mask:
    """Which elements of operand `index` a linear operation carries to an element of the masks of its results."""
    if not any(masks):
        return EVERYWHERE
    atoms = equation.invars
    shape, dtype = shaped(atoms[index])
    # Positions, the operands that are not moved, decide where elements go.
    positions = [i for i, atom in enumerate(atoms) if not moves(atom)]

    def moved(*parts: Any) -> Any:
        given = dict(zip(positions, parts[len(masks) :], strict=True))
        operands = [given[i] if i in given else jnp.zeros(*shaped(atom)) for i, atom in enumerate(atoms)]

        def function(operand: Any) -> list[Any]:
            return bind(equation, [*operands[:index], operand, *operands[index + 1 :]])

        weights = [
            jnp.broadcast_to(mask, shaped(var)[0]).astype(shaped(var)[1])
            for mask, var in zip(parts, equation.outvars, strict=False)
        ]
        return jax.vjp(function, jnp.zeros(shape, dtype))[1](weights)[0] > 0

    parts = (*masks, *(atoms[i] for i in positions))
    return frozenset({Condition((moved_back, id(equation), index, masks), shape, parts, moved)})


def unfolded(mask: Mask) -> list[Condition]:
    """The conditions of a mask and all that they are computed from, parts first."""
    order: dict[Condition, None] = {}
    stack = [(condition, False) for condition in mask]
    while stack:
        condition, done = stack.pop()
        if done:
            order[condition] = None
        elif condition not in order:
            stack.append((condition, True))
            stack += [(each, False) for part in condition.parts if isinstance(part, frozenset) for each in part]
    return list(order)
