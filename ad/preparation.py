"""Preparation: a derivative traced once, what it was traced for, and the refusal of anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from .errors import PreparationError, refuse_unfinished


@dataclass(frozen=True)
class Signature:
    """Structure, shapes and dtypes of the arguments of a function.

    Args:
        tree: the tree structure of the argument tuple.
        leaves: a path, shape and dtype for each array in it.
    """

    tree: jax.tree_util.PyTreeDef
    leaves: tuple[tuple[str, tuple[int, ...], str], ...]

    @classmethod
    def of(cls, x: Any, constants: tuple[Any, ...]) -> Signature:
        """The signature of a call `f(x, *constants)`."""
        paths, tree = jax.tree_util.tree_flatten_with_path((x, *constants))
        leaves = []
        for path, leaf in paths:
            argument = "x" if path[0].idx == 0 else f"constant {path[0].idx}"
            leaves.append((argument + jax.tree_util.keystr(path[1:]), jnp.shape(leaf), str(jnp.result_type(leaf))))
        return cls(tree, tuple(leaves))

    def check(self, other: Signature) -> None:
        """Raise PreparationError with a table of expected against got unless `other` is the same."""
        if self == other:
            return
        width = max(len(name) for name, *_ in (*self.leaves, *other.leaves, ("argument", (), "")))
        rows = [f"{'argument':<{width}}  {'expected':<20}  got"]
        expected = {name: f"{dtype}{list(shape)}" for name, shape, dtype in self.leaves}
        got = {name: f"{dtype}{list(shape)}" for name, shape, dtype in other.leaves}
        for name in (*expected, *(n for n in got if n not in expected)):
            left, right = expected.get(name, "-"), got.get(name, "-")
            rows.append(f"{name:<{width}}  {left:<20}  {right}{'' if left == right else '   <-- differs'}")
        table = "\n    ".join(rows)
        raise PreparationError(
            f"a derivative prepared for other arguments:\n    {table}\n"
            f"Prepare it again for arguments of the new structure, shapes and dtypes."
        )


def shapes_of(arguments: Any) -> Any:
    """Shapes and dtypes in place of the arrays of a pytree."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), arguments)


def check_differentiable(x: Any, subject: str) -> None:
    """Raise TypeError naming `subject` unless `x` holds floating-point numbers of one dtype."""
    dtypes = {str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(x)}
    if len(dtypes) > 1 or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(
            f"{subject}: the differentiated argument must hold floating-point numbers of one dtype, "
            f"got {', '.join(sorted(dtypes))}; convert it with jnp.asarray(x, float)."
        )


def scalar(value: Any, subject: str) -> jax.Array:
    """The value, if it is one floating-point number; else raise TypeError naming `subject`."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(value, float):
        shape, dtype = (), jnp.result_type(float)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        got = f"{dtype}{list(shape)}" if shape is not None else type(value).__name__
        raise TypeError(
            f"{subject}: a gradient needs a function with one floating-point number as its result, got {got}; "
            f"return a scalar, for example a jnp.sum."
        )
    return jnp.asarray(value)


def traced(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """The function traced once, for arguments of these shapes; usable under any transformation of JAX.

    Args:
        function: of arrays or pytrees of them, usually a derivative.
        arguments: arrays or `jax.ShapeDtypeStruct`s; only shapes and dtypes matter.

    Returns:
        A function of the same arguments and results that does not run `function` again.

    Raises:
        Exception: whatever tracing raises, for `errors.explain`.
    """
    closed, result = jax.make_jaxpr(function, return_shape=True)(*shapes_of(arguments))
    refuse_unfinished(closed.jaxpr)
    evaluate = jaxpr_as_fun(closed)
    tree = jax.tree.structure(result)

    def call(*args: Any) -> Any:
        return jax.tree.unflatten(tree, evaluate(*jax.tree.leaves(args)))

    return call
