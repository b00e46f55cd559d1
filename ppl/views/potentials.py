"""Elements of terms as weights of the values of discrete coordinates, and of the pairs of values of two."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..programs.broadcasting import Spread, evaluate_sparingly
from ..programs.program import Program
from ..programs.reach import Reach

Array = jax.Array
IntArray = np.ndarray[Any, Any]
# By value, of every coordinate: rows of an array, or an array for each row.
Rows = Array | list[Array]

# Up to so many values are written out, which lets the compiler see that a label is the same in all rows.
UNROLLED = 8


@dataclass(frozen=True)
class Sums:
    """Sums of the elements of an array that belong to the same owner.

    Args:
        members: for each owner its elements, by flat number, filled up with the size of the array, shape
            (owners, most).
        size: of the array.
    """

    members: IntArray
    size: int

    @classmethod
    def of(cls, owners: IntArray, count: int) -> Sums:
        """From the owner of each element, -1 for none."""
        elements = np.flatnonzero(owners >= 0)
        order = elements[np.argsort(owners[elements], kind="stable")]
        numbers = np.bincount(owners[elements], minlength=count)
        members = np.full((count, max(int(numbers.max(initial=0)), 1)), owners.size)
        within = np.arange(order.size) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        members[owners[order], within] = order
        return cls(members, owners.size)

    @property
    def is_empty(self) -> bool:
        """Whether no element belongs to anybody."""
        return bool((self.members == self.size).all())

    def __call__(self, found: Spread) -> Array:
        """The sums, shape (owners,), or (1,) where they are all the same."""
        count, most = self.members.shape
        in_order = np.arange(count * most)
        if self.size == count * most:
            if most == 1 and found.kept and np.size(found.array) == 1:
                return jnp.reshape(found.array, (1,))
            if np.array_equal(self.members.ravel(), in_order):
                rows = jnp.reshape(found.whole, (count, most))
                return rows[:, 0] if most == 1 else jnp.sum(rows, 1)
            if np.array_equal(self.members.T.ravel(), in_order):
                return jnp.sum(jnp.reshape(found.whole, (most, count)), 0)
        padded = jnp.concatenate([jnp.ravel(found.whole), jnp.zeros(1, found.array.dtype)])
        return jnp.sum(padded[self.members], 1)


@dataclass(frozen=True)
class Potentials:
    """Weights of the values of coordinates.

    Args:
        shapes: of the arrays of coordinates, in their order.
        values: the k-th value of every coordinate in row k, shape (values, coordinates).
        valid: which of them there are, of the same shape.
        odd: the colour of every coordinate: no two of one colour have an element in common.
        edges: how many pairs of coordinates have.
        alone: from the arrays of coordinates, followed by constants, to elements that depend on one coordinate each.
        pairs: likewise to elements that depend on one or two.
        sums: of the results of `alone` by coordinate.
        sums_of_pairs: of the results of `pairs` by coordinate, and by edge.
    """

    shapes: tuple[tuple[int, ...], ...]
    values: IntArray
    valid: IntArray
    odd: IntArray
    edges: int
    alone: Program
    pairs: Program
    sums: tuple[Sums, ...]
    sums_of_pairs: tuple[tuple[Sums, Sums], ...]

    def __call__(self, *constants: Any) -> tuple[Rows, Array | None]:
        """The weights.

        Returns:
            By value, of every coordinate, shape (values, coordinates) or as many arrays of shape (coordinates,); and by
            the values of an even and an odd coordinate, of every edge, shape (values, values, edges), None without any.
        """
        count = len(self.values)
        if not self.edges:
            return self._of_alone(constants), None
        even, odd = (table.ravel() for table in np.indices((count, count)))
        together = np.where(self.odd, self.values[odd], self.values[even])
        found = jax.vmap(lambda row: self._evaluated(self.pairs, self._arrays(row), constants))(jnp.asarray(together))
        alone = jnp.stack(list(self._of_alone(constants)))
        weights = jnp.zeros((count * count, self.edges), alone.dtype)
        for array, (sums, sums_by_edge) in zip(found, self.sums_of_pairs, strict=True):
            weights += jax.vmap(lambda row, own=sums_by_edge: own(Spread.of(row)))(array)
            if not sums.is_empty:
                alone += jax.vmap(lambda row, own=sums: own(Spread.of(row)))(array[:: count + 1])
        return _without_slope_where_impossible(alone), _without_slope_where_impossible(
            weights.reshape(count, count, self.edges)
        )

    def _of_alone(self, constants: Sequence[Any]) -> Rows:
        uniform = (self.values == self.values[:, :1]).all()
        if len(self.values) <= UNROLLED:
            listed = [float(row[0]) if uniform else row for row in self.values]
            return [self._row(row, valid, constants) for row, valid in zip(listed, self.valid, strict=True)]
        table = jnp.asarray(self.values[:, 0] if uniform else self.values)
        rows: Array = jax.vmap(lambda row, valid: self._row(row, valid, constants))(table, jnp.asarray(self.valid))
        return rows

    def _row(self, row: Any, valid: Any, constants: Sequence[Any]) -> Array:
        """The weight of one value of every coordinate, shape (coordinates,)."""
        count = self.values.shape[1]
        arrays = self._arrays(row) if np.ndim(row) else self._same(row)
        found = evaluate_sparingly(self.alone, [*arrays, *map(Spread.of, constants)])
        sums = [own(array) for own, array in zip(self.sums, found, strict=True)]
        total = jnp.broadcast_to(functools.reduce(jnp.add, sums, jnp.zeros(1)), (count,))
        known_valid = isinstance(valid, np.ndarray) and valid.all()
        return _without_slope_where_impossible(total if known_valid else jnp.where(valid, total, -jnp.inf))

    def _evaluated(self, program: Program, arrays: Sequence[Spread], constants: Sequence[Any]) -> list[Array]:
        return [found.whole for found in evaluate_sparingly(program, [*arrays, *map(Spread.of, constants)])]

    def _same(self, value: Any) -> list[Spread]:
        return [Spread(jnp.full((1,) * len(shape), value), shape) for shape in self.shapes]

    def _arrays(self, row: Any) -> list[Spread]:
        stops = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        starts = [0, *stops[:-1]]
        stretches = [row[a:b] for a, b in zip(starts, stops, strict=True)]
        return [Spread.of(jnp.reshape(own, shape)) for own, shape in zip(stretches, self.shapes, strict=True)]


def edges_of(reaches: Sequence[Reach]) -> IntArray:
    """The pairs of coordinates that have an element in common, shape (edges, 2)."""
    pairs = np.concatenate([np.zeros((0, 2), int), *(np.c_[each.low.ravel(), each.high.ravel()] for each in reaches)])
    edges: IntArray = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    return edges


def sums_of_pairs(found: Reach, edges: IntArray, count: int) -> tuple[Sums, Sums]:
    """The sums of an array by coordinate and by edge."""
    low, high = found.low.ravel(), found.high.ravel()
    number = np.searchsorted(edges[:, 0] * count + edges[:, 1], low * count + high)
    return Sums.of(np.where(low == high, low, -1), count), Sums.of(np.where(low < high, number, -1), len(edges))


def _without_slope_where_impossible(weights: Array) -> Array:
    """Weights of which those that are −∞ have derivative zero, in both modes."""
    return jnp.where(weights == -jnp.inf, -jnp.inf, weights)
