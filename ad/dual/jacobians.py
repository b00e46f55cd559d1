"""Jacobians that keep their structure: what forward mode carries beside each intermediate value.

Dense dual numbers multiply every operation by d columns most of which are zero, or copies of another. Here the
Jacobian of a value v of shape s with respect to x in R^d is a sum of terms of two kinds,

    Entries:  J[i, rows[position[i]]] = weights[i]            one nonzero a row: x, x[group], exp(x), ...
    Columns:  J[i, rows[c]] = weights[i] · columns[i, c]      some columns, full: X @ β, the state of a recursion, ...

where `rows` are coordinates of x. An elementwise function multiplies `weights` and leaves the pattern alone; moving
elements moves both; a sum over observations contracts each term once. No term is zero, and zero is the empty sum.

Source: the elimination view of Griewank and Walther (2008), "Evaluating Derivatives", chapters 9 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
HostArray = np.ndarray[Any, Any]

# A value no larger than this is small: its Jacobian is carried as one dense term once it has more than a few.
_SMALL = 16
_MOST_TERMS = 6


@dataclass(frozen=True, eq=False)
class Entries:
    """A term with at most one nonzero in each row of the Jacobian.

    Args:
        rows: the coordinates of x that may occur, shape (r,).
        position: where in `rows` the coordinate of each element stands, shape s; a NumPy array where it is known
            beforehand, else a JAX array (an index that is data).
        weights: the nonzeros, shape s; None means ones.
    """

    rows: HostArray
    position: Any
    weights: Array | None

    def scaled(self, factor: Any) -> Entries:
        """The term with each row multiplied by an array of shape s."""
        return Entries(self.rows, self.position, factor if self.weights is None else self.weights * factor)

    def like(self, other: Term) -> bool:
        """Whether the patterns agree, so that weights may be added."""
        if not isinstance(other, Entries) or not np.array_equal(self.rows, other.rows):
            return False
        if self.position is other.position:
            return True
        return self.known and other.known and bool(np.array_equal(self.position, other.position))

    @property
    def known(self) -> bool:
        """Whether the positions are known beforehand."""
        return isinstance(self.position, np.ndarray)

    def dense(self, shape: tuple[int, ...], dtype: Any) -> Columns:
        """The same term as columns."""
        if self.rows.size == 1:
            weights = jnp.ones(shape, dtype) if self.weights is None else self.weights.astype(dtype)
            return Columns(self.rows, weights[..., None], None)
        # A comparison rather than a scatter: XLA fuses it into whatever uses the columns.
        hit = (self.position if self.known else jnp.asarray(self.position))[..., None] == np.arange(self.rows.size)
        if self.weights is None:
            return Columns(self.rows, jnp.asarray(hit, dtype), None)
        return Columns(self.rows, jnp.where(hit, self.weights[..., None], 0).astype(dtype), None)


@dataclass(frozen=True, eq=False)
class Columns:
    """A term with full columns, its rows scaled by weights that are multiplied out as late as possible.

    Args:
        rows: the coordinates of x that the columns belong to, shape (r,), without repetition.
        columns: shape (*s, r), or with 1 for some lengths of s: the same along these axes, as for a number that
            stands for all elements of an array.
        weights: shape s; None means ones.
        taken: where the term counts, shape s; elsewhere it is zero, be columns and weights infinite or NaN. None means
            everywhere.
        stored: whether the columns are an array that the program has anyway, such as a matrix of data, and not one
            that is computed for them.
    """

    rows: HostArray
    columns: Array
    weights: Array | None
    taken: Array | None = None
    stored: bool = False

    def scaled(self, factor: Any) -> Columns:
        """The term with each row multiplied by an array of shape s."""
        return replace(self, weights=factor if self.weights is None else self.weights * factor)

    def product(self) -> Array:
        """Columns times weights, of shape (*s, r) or shorter where both are."""
        product = self.columns if self.weights is None else self.columns * self.weights[..., None]
        return product if self.taken is None else jnp.where(self.taken[..., None], product, 0).astype(product.dtype)

    def plain(self) -> Columns:
        """The same term, counted everywhere."""
        return self if self.taken is None else Columns(self.rows, self.product(), None)

    def like(self, other: Term) -> bool:
        """Whether the patterns agree, so that weights may be added."""
        return isinstance(other, Columns) and self.columns is other.columns

    def dense(self, shape: tuple[int, ...], dtype: Any) -> Columns:
        """The same term with its weights multiplied out, as long as `shape` along every axis."""
        columns = jnp.broadcast_to(self.product().astype(dtype), (*shape, self.rows.size))
        return Columns(self.rows, columns, None)


Term = Entries | Columns
# The empty sum is zero: the value does not depend on x.
Jacobian = tuple[Term, ...]


def entries_at(index: HostArray, weights: Array | None) -> Entries:
    """A term whose element i depends on the coordinate `index[i]` of x, known beforehand."""
    rows, position = np.unique(index, return_inverse=True)
    return Entries(rows, position.reshape(index.shape), weights)


def identity(dimension: int) -> Jacobian:
    """The Jacobian of x itself."""
    every = np.arange(dimension)
    return (Entries(every, every, None),) if dimension else ()


def add(parts: Sequence[Term], shape: tuple[int, ...], dtype: Any) -> Jacobian:
    """The sum of terms of one shape: those of one pattern become one."""
    terms: list[Term] = []
    small = int(np.prod(shape)) <= _SMALL
    for part in parts:
        for i, term in enumerate(terms):
            if term.like(part):
                terms[i] = _merged(term, part, shape, dtype)
                break
            if (
                small
                and isinstance(term, Columns)
                and isinstance(part, Columns)
                and np.array_equal(term.rows, part.rows)
            ):
                total = term.dense(shape, dtype).columns + part.dense(shape, dtype).columns
                terms[i] = Columns(term.rows, total, None)
                break
        else:
            terms.append(part)
    if len(terms) > (_MOST_TERMS if small else 4 * _MOST_TERMS):
        return (gather_columns(tuple(terms), shape, dtype),)
    return tuple(terms)


def gather_columns(jacobian: Jacobian, shape: tuple[int, ...], dtype: Any, rows: HostArray | None = None) -> Columns:
    """All terms as one with columns, over the union of their rows or over `rows`, which must contain it."""
    wanted = np.unique(np.concatenate([t.rows for t in jacobian])) if rows is None else rows
    total = jnp.zeros((*shape, wanted.size), dtype)
    for i, term in enumerate(jacobian):
        dense = term.dense(shape, dtype)
        placed = spread(dense.columns, np.searchsorted(wanted, dense.rows), wanted.size)
        total = placed if i == 0 else total + placed
    return Columns(wanted, total, None)


def spread(columns: Array, slots: HostArray, size: int) -> Array:
    """Columns of shape (*s, r) put into the given slots (no two alike) of an array of shape (*s, size) of zeros."""
    if slots.size == size and np.array_equal(slots, np.arange(size)):
        return columns
    if np.array_equal(slots, np.arange(slots[0], slots[0] + slots.size)):
        edges = [(0, 0, 0)] * (columns.ndim - 1) + [(int(slots[0]), size - int(slots[-1]) - 1, 0)]
        return lax.pad(columns, jnp.zeros((), columns.dtype), edges)
    source = np.full(size, slots.size)
    source[slots] = np.arange(slots.size)
    padded = lax.pad(columns, jnp.zeros((), columns.dtype), [(0, 0, 0)] * (columns.ndim - 1) + [(0, 1, 0)])
    return padded[..., source]


def to_dense(jacobian: Jacobian, shape: tuple[int, ...], dtype: Any, dimension: int) -> Array:
    """The Jacobian as an array of shape (*shape, dimension)."""
    if not jacobian:
        return jnp.zeros((*shape, dimension), dtype)
    return gather_columns(jacobian, shape, dtype, np.arange(dimension)).columns


def _merged(term: Term, part: Term, shape: tuple[int, ...], dtype: Any) -> Term:
    """The sum of two terms of one pattern."""
    weights = weights_of(term, shape, dtype) + weights_of(part, shape, dtype)
    if isinstance(term, Columns) and isinstance(part, Columns):
        either = None if term.taken is None or part.taken is None else term.taken | part.taken
        return replace(term, weights=weights, taken=either)
    return replace(term, weights=weights)


def weights_of(term: Term, shape: tuple[int, ...], dtype: Any) -> Array:
    """The weights of a term as an array, zero where it does not count."""
    weights = jnp.ones(shape, dtype) if term.weights is None else term.weights
    if isinstance(term, Entries) or term.taken is None:
        return weights
    return jnp.where(term.taken, weights, 0).astype(weights.dtype)
