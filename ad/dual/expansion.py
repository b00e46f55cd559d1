"""Small problems of linear algebra written out as arithmetic, which keeps structure and which XLA fuses.

A call into LAPACK for a matrix of three costs more than its arithmetic, and its derivative knows dense columns only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..equations import shaped
from .jacobians import Columns
from .numbers import Dual

# Matrices of up to so many rows are small.
_ROWS = 4

# A product of matrices of up to so many products of numbers is small.
_PRODUCTS = 64


# Derivatives inside derivatives are left as they are: what is written out twice over takes long to compile.
_expands: ContextVar[bool] = ContextVar("expands", default=True)


@contextmanager
def unexpanded() -> Iterator[None]:
    """While a function is traced that is about to be differentiated: derivatives in it write nothing out."""
    before = _expands.set(False)
    try:
        yield
    finally:
        _expands.reset(before)


def expansion(equation: Any, operands: list[Dual]) -> Callable[..., Any] | None:
    """The same function as an equation written out, or None where it is not one to write out."""
    if not _expands.get():
        return None
    name = equation.primitive.name
    if name == "triangular_solve" and len(operands[0].shape) == 2 and operands[0].shape[0] <= _ROWS:
        return lambda a, b: _substitution(a, b, **equation.params)
    if name == "cholesky" and len(operands[0].shape) == 2 and operands[0].shape[0] <= _ROWS:
        return _cholesky
    if name == "dot_general" and _is_tiny(equation, operands):
        (left, right), _ = equation.params["dimension_numbers"]
        return lambda a, b: _product(a, b, left[0], right[0], equation.outvars[0].aval.dtype)
    return None


def _is_tiny(equation: Any, operands: list[Dual]) -> bool:
    (left, _), (batch, _) = equation.params["dimension_numbers"]
    if len(left) != 1 or batch:
        return False
    length = operands[0].shape[left[0]]
    for operand in operands:
        if not operand.jacobian or any(isinstance(term, Columns) for term in operand.jacobian):
            return False  # the product with constants or columns is one of matrices
    return bool(0 < length <= _ROWS and int(np.prod(shaped(equation.outvars[0])[0])) * length <= _PRODUCTS)


def _product(a: Any, b: Any, left: int, right: int, dtype: Any) -> Any:
    """A sum of outer products."""
    a, b = jnp.moveaxis(a, left, 0), jnp.moveaxis(b, right, 0)
    outer = (slice(None),) * (a.ndim - 1) + (None,) * (b.ndim - 1)
    return functools.reduce(jnp.add, [row[outer] * column for row, column in zip(a, b, strict=True)]).astype(dtype)


def _substitution(
    a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool
) -> Any:
    """The solution X of AX = B or XA = B with a triangular A, row by row.

    Source: Golub and Van Loan (2013), "Matrix Computations", section 3.1.
    """
    del conjugate_a  # of real numbers
    if transpose_a == left_side:
        a, lower = a.T, not lower
    rows = b if left_side else b.T
    size = len(a)
    solved: dict[int, Any] = {}
    for i in range(size) if lower else reversed(range(size)):
        row = rows[i]
        for j, known in solved.items():
            row = row - a[i, j] * known
        solved[i] = row if unit_diagonal else row / a[i, i]
    x = jnp.stack([solved[i] for i in range(size)])
    return x if left_side else x.T


def _cholesky(a: Any, **_: Any) -> Any:
    """The lower triangular L of A = LL', entry by entry; NaN where A is not positive definite.

    Source: Golub and Van Loan (2013), "Matrix Computations", section 4.2.
    """
    size = len(a)
    entries: dict[tuple[int, int], Any] = {}
    for j in range(size):
        for i in range(j, size):
            rest = a[i, j] - sum(entries[i, k] * entries[j, k] for k in range(j))
            entries[i, j] = jnp.sqrt(rest) if i == j else rest / entries[j, j]
    zero = jnp.zeros((), a.dtype)
    factor = jnp.stack([jnp.stack([entries.get((i, j), zero) for j in range(size)]) for i in range(size)])
    definite = jnp.all(jnp.diagonal(factor) > 0)
    return factor * jnp.where(definite, 1, jnp.nan).astype(factor.dtype)
