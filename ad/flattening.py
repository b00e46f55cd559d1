"""Functions of pytrees as backends see them, functions of a flat array; and products with their Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .adtypes import AbstractForwardBackend, AbstractReverseBackend, Array, Backend, Flat, FlatFunction
from .preparation import is_numeric, kind_of, scalar


@dataclass(eq=False)
class Flattened:
    """A function of pytrees as a function of flat arrays, and the way back.

    Args:
        function: `f(x, *constants)`, whose result is an array or a pytree of arrays.
        subject: what to call it in messages.
        x: the point, arrays.
        constants: further arguments.
    """

    function: Callable[..., Any]
    subject: str
    x: Any
    constants: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.point, self.unravel = ravel_pytree(self.x)
        # From an array like the flat function's result to one like f's: known as soon as the function was called.
        self.restore: Callable[[Array], Any] = lambda value: value

    def __call__(self, point: Flat) -> Array:
        """The function: of shape (dimension,), its result of any shape; a pytree is made flat."""
        result = self.function(self.unravel(point), *self.constants)
        leaves = [None] if result is None else jax.tree.leaves(result)
        if not all(is_numeric(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves):
            raise TypeError(
                f"{self.subject}: a derivative needs a function whose result holds floating-point numbers, "
                f"got {', '.join(sorted(set(map(kind_of, leaves))))}; "
                f"return what is differentiable, converted with jnp.asarray(..., float)."
            )
        if not is_array(result):
            self.restore = ravel_pytree(result)[1]
        return flat(result)


def is_array(tree: Any) -> bool:
    """Whether a pytree is one array or number."""
    return bool(jax.tree_util.treedef_is_leaf(jax.tree.structure(tree)))


def flat(tree: Any) -> Array:
    """The array itself, of any shape; the leaves of any other pytree one after another, shape (size,)."""
    return jnp.asarray(tree) if is_array(tree) else ravel_pytree(tree)[0]


def flat_scalar(
    f: Callable[..., Any], subject: str, x: Any, constants: tuple[Any, ...]
) -> tuple[FlatFunction, Flat, Callable[[Flat], Any]]:
    """A function with one number as its result as a function of a flat array, the flat point, and the way back."""
    point, unravel = ravel_pytree(x)
    return lambda point: scalar(f(unravel(point), *constants), subject), point, unravel


def push(backend: Backend, f: FlatFunction, x: Flat, tangent: Flat) -> tuple[Array, Array]:
    """The value and its derivative along a tangent, by any backend.

    A reverse backend gives it as the transpose of its pullback where JAX can transpose that, else as J t from the
    Jacobian, which costs a pullback for every number of the result.

    Args:
        backend: what differentiates.
        f: a function of a flat array.
        x: the point, shape (dimension,).
        tangent: the direction, shape (dimension,).

    Returns:
        `f(x)` and J t, shape (*out,).
    """
    if isinstance(backend, AbstractForwardBackend):
        value, derivatives = backend.pushforward(f, x, tangent[None])
        return value, derivatives[0]
    transposed = push_by_transposition(backend, f, x, tangent)
    if transposed is not None:
        return transposed
    value, jacobian = backend.jacobian(f, x)
    return value, jacobian @ tangent


def push_by_transposition(
    backend: AbstractReverseBackend, f: FlatFunction, x: Flat, tangent: Flat
) -> tuple[Array, Array] | None:
    """As `push`, by transposing the pullback c -> cᵀ J; None where JAX cannot (a callback, a loop in a rule).

    Source: Radul et al. (2023), "You Only Linearize Once".
    """
    value, pull = backend.pullback(f, x)
    try:
        (derivative,) = jax.linear_transpose(lambda cotangent: pull(cotangent[None])[0], value)(tangent)
    except Exception:  # JAX says so with exceptions of many kinds; those of f itself were raised by the pullback.
        return None
    return value, derivative


def pull_back(backend: Backend, f: FlatFunction, x: Flat) -> tuple[Array, Callable[[Array], Flat]]:
    """The value and the function c -> cᵀ J, by any backend; a forward backend gives it from the Jacobian.

    Args:
        backend: what differentiates.
        f: a function of a flat array.
        x: the point, shape (dimension,).

    Returns:
        `f(x)`, shape (*out,), and a function from a cotangent, shape (*out,), to shape (dimension,).
    """
    if isinstance(backend, AbstractReverseBackend):
        value, pull = backend.pullback(f, x)
        return value, lambda cotangent: pull(cotangent[None])[0]
    value, jacobian = backend.jacobian(f, x)
    return value, lambda cotangent: jnp.tensordot(cotangent, jacobian, cotangent.ndim)


def nested(block: Callable[..., Any], value: Any, x: Any) -> Any:
    """Blocks of a matrix in the structure of `jax.jacobian`: that of the result, and in each leaf that of `x`.

    Args:
        block: from a slice of rows, the shape behind them, a slice of columns and the shape behind them to a block.
        value: the function's result, whose raveled leaves are the rows.
        x: its argument, whose raveled leaves are the columns.
    """

    def slices(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        ends = np.cumsum([np.size(leaf) for leaf in leaves], dtype=int)
        spans = [(slice(end - np.size(leaf), end), np.shape(leaf)) for leaf, end in zip(leaves, ends, strict=True)]
        return spans, structure

    (rows, outer), (columns, inner) = slices(value), slices(x)
    return outer.unflatten([inner.unflatten([block(*row, *column) for column in columns]) for row in rows])


def dense_blocks(matrix: Array, value: Any, x: Any) -> Any:
    """A dense matrix in the structure of `jax.jacobian`; see `nested`."""
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(x))
    square = matrix.reshape(-1, size) if size else matrix.reshape(sum(map(np.size, jax.tree.leaves(value))), 0)
    return nested(lambda i, rows, j, columns: square[i, j].reshape(*rows, *columns), value, x)
