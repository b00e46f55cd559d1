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
        leaves: for each array in it a path, and dtype and shape as `described`.
    """

    tree: jax.tree_util.PyTreeDef
    leaves: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, x: Any, constants: tuple[Any, ...]) -> Signature:
        """The signature of a call `f(x, *constants)`."""
        paths, tree = jax.tree_util.tree_flatten_with_path((x, *constants))
        leaves = []
        for path, leaf in paths:
            argument = "x" if path[0].idx == 0 else f"constant {path[0].idx}"
            leaves.append((argument + jax.tree_util.keystr(path[1:]), described(leaf)))
        return cls(tree, tuple(leaves))

    def check(self, other: Signature) -> None:
        """Raise PreparationError with a table of expected against got unless `other` is the same."""
        if self == other:
            return
        expected, got = dict(self.leaves), dict(other.leaves)
        width = max(map(len, ("argument", *expected, *got)))
        rows = [f"{'argument':<{width}}  {'expected':<20}  got"]
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


def is_numeric(leaf: Any) -> bool:
    """Whether a leaf of a pytree is an array or a number, known or by shape and dtype only."""
    if isinstance(leaf, (bool, int, float, complex)):
        return True
    if isinstance(leaf, type) or not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return False  # JAX would take a type, and a string such as "float32", for a dtype
    return any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.number, jnp.bool_, jax.dtypes.prng_key))


def kind_of(leaf: Any) -> str:
    """The dtype of a leaf, or in words what it is instead of an array or a number."""
    if is_numeric(leaf):
        return str(jnp.result_type(leaf))
    if leaf is None or isinstance(leaf, str):
        return repr(leaf)
    if callable(leaf):
        what = "class" if isinstance(leaf, type) else "function"
        return f"the {what} {getattr(leaf, '__name__', type(leaf).__name__)}"
    return f"{type(leaf).__name__}{f' of {leaf.dtype}' if hasattr(leaf, 'dtype') else ''}"


def described(leaf: Any) -> str:
    """Dtype and shape of a leaf, such as "float64[3]", or in words what it is instead."""
    return f"{kind_of(leaf)}{list(jnp.shape(leaf)) if is_numeric(leaf) else ''}"


def check_differentiable(x: Any, subject: str, label: str = "x") -> None:
    """Raise TypeError naming `subject` unless `x` holds floating-point numbers of one dtype.

    Args:
        x: an array or a pytree of arrays.
        subject: what to call the function in messages.
        label: what to call `x` in messages.
    """
    first: dict[str, str] = {}  # of each kind of leaf the first one
    paths = jax.tree_util.tree_flatten_with_path(x)[0] if x is not None else [((), None)]
    for path, leaf in paths:
        first.setdefault(kind_of(leaf), label + jax.tree_util.keystr(path))
    if all(is_numeric(leaf) for _, leaf in paths):
        if len(first) <= 1 and all(jnp.issubdtype(dtype, jnp.floating) for dtype in first):
            return
        remedy = f"convert it with jnp.asarray({label}, float)"
        if any(path for path, _ in paths):
            remedy = f"convert them with jax.tree.map(lambda leaf: jnp.asarray(leaf, float), {label})"
        if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in first):
            remedy = f"differentiate a function of the real and the imaginary part, ({label}.real, {label}.imag)"
    else:
        remedy = "pass arrays or numbers, and close over anything else, for example with functools.partial"
    got = ", ".join(kind if place == label else f"{kind} ({place})" for kind, place in sorted(first.items()))
    raise TypeError(
        f"{subject}: the differentiated argument must hold floating-point numbers of one dtype, got {got}; {remedy}."
    )


def check_arrays(argument: Any, label: str, subject: str) -> None:
    """Raise TypeError naming `subject` unless an argument is an array, a number or a pytree of them.

    Args:
        argument: one that is not differentiated.
        label: what to call it in messages.
        subject: what to call the function.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(argument)[0]:
        if not is_numeric(leaf):
            raise TypeError(
                f"{subject}: {label} must hold arrays or numbers, got {kind_of(leaf)}"
                f"{f' ({label}{jax.tree_util.keystr(path)})' if path else ''}; "
                f"close over anything else, for example with functools.partial."
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
