"""Small problems of linear algebra written out as arithmetic, which keeps structure and which XLA fuses.

A call into LAPACK for a matrix of three costs more than its arithmetic, and its derivative knows dense columns only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .numbers import Dual

# Matrices of up to so many rows are small.
_ROWS = 4


def expansion(equation: Any, operands: list[Dual]) -> Callable[..., Any] | None:
    """The same function as an equation written out, or None where it is not one to write out."""
    name = equation.primitive.name
    if name == "triangular_solve" and len(operands[0].shape) == 2 and operands[0].shape[0] <= _ROWS:
        return lambda a, b: _substitution(a, b, **equation.params)
    if name == "cholesky" and len(operands[0].shape) == 2 and operands[0].shape[0] <= _ROWS:
        return _cholesky
    return None


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
    return jnp.where(definite, factor, jnp.nan)
