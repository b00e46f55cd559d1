"""Dual numbers: a value with its Jacobian, which elementwise functions defer until something else needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from .jacobians import Array, Columns, Entries, Jacobian, Term, add, gather_columns


@dataclass(frozen=True, eq=False)
class Chain:
    """The chain rule of one operand of an elementwise function.

    Args:
        slope: gives the partial derivative, None for ones; evaluated when it is needed.
        clips: whether a slope of zero stops whatever follows, be it infinite.
        taken: of a selection, where it takes this operand; else None. What is not taken has no influence, whatever
            it is, so that from there on zero times infinity or NaN is zero.
        steep: whether the partial derivative may be infinite at a finite value, as that of a square root at zero.
    """

    slope: Callable[[], Any | None] = lambda: None
    clips: bool = False
    taken: Array | None = None
    steep: bool = False

    def __call__(self, factor: Factor, shape: tuple[int, ...]) -> Factor:
        """The factor one step further back."""
        taken = factor.taken
        if self.taken is not None:
            here = jnp.broadcast_to(self.taken, shape)
            taken = here if taken is None else taken & here
        steep = factor.steep or self.steep
        return Factor(self._times(factor.array, steep), taken, steep)

    def _times(self, factor: Array | None, steep: bool) -> Array | None:
        slope = self.slope()
        if slope is None or factor is None:
            return factor if slope is None else jnp.asarray(slope)
        product: Array = factor * slope
        if self.clips:
            return jnp.where(slope == 0, 0, product)
        if steep:  # a square root of what does not move does not move: its derivative is zero and not 0 · ∞
            return jnp.where(jnp.isnan(product) & ~jnp.isnan(factor) & ~jnp.isnan(slope), 0, product)
        return product


@dataclass(frozen=True, eq=False)
class Factor:
    """The derivative of the value at the end of a chain by one on it.

    Args:
        array: of shape s; None means ones.
        taken: where a selection on the way takes this value, shape s; None where there is no selection. Where it does
            not the derivative is zero, and the array says anything: by where it was taken, not by where it is zero,
            since a factor that only happens to be zero still moves.
        steep: whether the array may be infinite where the value is finite.
    """

    array: Array | None
    taken: Array | None = None
    steep: bool = False

    def masked(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The derivative as an array of shape s."""
        array = _ones(self.array, shape, dtype)
        return array if self.taken is None else jnp.where(self.taken, array, jnp.zeros((), array.dtype))

    def plus(self, other: Factor, shape: tuple[int, ...], dtype: Any) -> Factor:
        """The sum, where two paths meet."""
        total = self.masked(shape, dtype) + other.masked(shape, dtype)
        either = None if self.taken is None or other.taken is None else self.taken | other.taken
        return Factor(total, either, self.steep or other.steep)

    def of(self, term: Term, shape: tuple[int, ...], dtype: Any) -> Term:
        """A term multiplied by the factor."""
        if self.array is None and self.taken is None:
            return term
        if isinstance(term, Entries):
            if term.weights is None:
                return replace(term, weights=self.masked(shape, dtype))
            weights = term.weights if self.array is None else self._times(term.weights, shape, dtype)
            if self.taken is not None:
                weights = jnp.where(self.taken, weights, jnp.zeros((), weights.dtype))
            return replace(term, weights=weights)
        if self.steep and self.array is not None and not term.stored:
            scaled = Columns(term.rows, self._times(term.product(), shape, dtype), None)
        else:
            scaled = term if self.array is None else term.scaled(_ones(self.array, shape, dtype))
        if self.taken is None:
            return scaled
        return replace(scaled, taken=self.taken if term.taken is None else self.taken & term.taken)

    def _times(self, derivative: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Weights, or columns with one axis more, times the factor."""
        factor = _ones(self.array, shape, dtype)
        factor = factor[..., None] if derivative.ndim > len(shape) else factor
        product = derivative * factor
        if not self.steep:
            return product
        # As in a chain: |max(x, 0)|, the root of a sum of what is not taken, does not move at x < 0.
        return jnp.where((derivative == 0) & jnp.isinf(factor), jnp.zeros((), product.dtype), product)


@dataclass(eq=False)
class Dual:
    """A value and its Jacobian with respect to x.

    A chain of elementwise functions of one shape s, v = p(u_1, ..., u_m), has a diagonal derivative by each u_j. It is
    recorded, and only where the Jacobian of v is needed are the partial derivatives multiplied together, from v back
    to the u_j: one product an operation, however many terms the Jacobians of the u_j have (preaccumulation: Griewank
    and Walther 2008, section 10.2). A Jacobian once known is kept, and later chains start from it.

    Args:
        value: of shape s, a NumPy array where it is known while tracing.
        terms: of the Jacobian, none where the value does not depend on x; None while deferred.
        sources: the operands of the elementwise function that made a deferred value.
    """

    value: Any
    terms: Jacobian | None = ()
    sources: tuple[tuple[Dual, Chain], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape s."""
        return tuple(np.shape(self.value))

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return jnp.result_type(self.value)

    @property
    def is_active(self) -> bool:
        """Whether the value depends on x."""
        return 0 not in self.shape and (self.terms is None or bool(self.terms))

    @property
    def jacobian(self) -> Jacobian:
        """The terms of the Jacobian."""
        if 0 in self.shape:
            return ()
        if self.terms is None:
            self.terms = self._accumulate()
            self.sources = ()
        return self.terms

    def columns(self, rows: Any) -> Array:
        """The Jacobian as an array of shape (*s, r) over coordinates that include all it depends on."""
        if not self.is_active:
            return jnp.zeros((*self.shape, rows.size), self.dtype)
        return gather_columns(self.jacobian, self.shape, self.dtype, rows).columns

    def _accumulate(self) -> Jacobian:
        shape, dtype = self.shape, self.dtype
        factors: dict[int, Factor] = {id(self): Factor(None)}
        terms: list[Term] = []
        for dual in reversed(self._chain()):
            factor = factors.pop(id(dual))
            if dual.terms is None and dual.shape == shape:
                for source, chain in dual.sources:
                    one = chain(factor, shape)
                    known = factors.get(id(source))
                    factors[id(source)] = one if known is None else known.plus(one, shape, dtype)
            else:
                terms += [_as_type(factor.of(term, shape, dtype), dtype) for term in stretched(dual, shape)]
        return add(terms, shape, dtype)

    def _chain(self) -> list[Dual]:
        """This value and what it depends on through deferred elementwise functions of its shape, operands first."""
        order: list[Dual] = []
        seen: set[int] = set()
        stack: list[tuple[Dual, bool]] = [(self, False)]
        while stack:
            dual, done = stack.pop()
            if done:
                order.append(dual)
            elif id(dual) not in seen:
                seen.add(id(dual))
                stack.append((dual, True))
                if dual.terms is None and dual.shape == self.shape:
                    stack += [(source, False) for source, _ in dual.sources]
        return order


def stretched(dual: Dual, shape: tuple[int, ...]) -> Jacobian:
    """The terms of a value that stands for an array of a longer shape, as elementwise functions allow."""
    if dual.shape == shape:
        return dual.jacobian
    if not dual.shape and (len(dual.jacobian) > 1 or isinstance(dual.jacobian[0], Columns)):
        columns = gather_columns(dual.jacobian, (), dual.dtype)
        return (Columns(columns.rows, columns.columns.reshape(*(1 for _ in shape), -1), None),)
    return tuple(_stretched(term, shape) for term in dual.jacobian)


def _stretched(term: Term, shape: tuple[int, ...]) -> Term:
    weights = None if term.weights is None else jnp.broadcast_to(term.weights, shape)
    if isinstance(term, Columns):  # columns of length 1 along an axis are read as if longer
        taken = None if term.taken is None else jnp.broadcast_to(term.taken, shape)
        return replace(term, weights=weights, taken=taken)
    position = np.broadcast_to(term.position, shape) if term.known else jnp.broadcast_to(term.position, shape)
    return Entries(term.rows, position, weights)


def _ones(factor: Array | None, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.ones(shape, dtype) if factor is None else jnp.broadcast_to(factor, shape)


def _as_type(term: Term, dtype: Any) -> Term:
    """Weights in the dtype of the value; columns follow when they are multiplied out."""
    if term.weights is None or term.weights.dtype == dtype:
        return term
    return replace(term, weights=term.weights.astype(dtype))
