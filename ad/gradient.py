"""The door of this layer: `value_and_gradient` and `prepare_gradient`, for every adtype.

With f: R^d -> R, forward mode gives the gradient as d pushforwards of the unit vectors, taken `chunk` at a time;
reverse mode as one pullback of 1. Both are derived here, once, from the primitive that a backend supplies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jax.flatten_util import ravel_pytree

from .adtypes import (
    AbstractADType,
    AbstractForwardBackend,
    AbstractRule,
    Backend,
    Choice,
    Flat,
    FlatFunction,
    Scalar,
    check_adtype,
)
from .errors import DifferentiationError, explain, refuse_unfinished
from .preparation import Signature
from .routing import current_adtype

Function = Callable[..., Scalar]


@dataclass(frozen=True)
class PreparedGradient:
    """A gradient traced and checked for arguments of one structure, shape and dtype.

    Made by `prepare_gradient`. It can be called inside `jit`, `vmap`, `scan` and `while_loop`.

    Args:
        choice: the backend that differentiates and the reason it was chosen.
        signature: what it was prepared for.
    """

    choice: Choice
    signature: Signature
    _call: Callable[..., tuple[Scalar, Any]]

    @property
    def adtype(self) -> Backend:
        """The backend that differentiates (never a rule)."""
        return self.choice.backend

    def value_and_gradient(self, x: Any, *constants: Any) -> tuple[Scalar, Any]:
        """The value, shape (), and the gradient, of the structure of `x`.

        Raises:
            PreparationError: if the arguments differ in structure, shape or dtype from the prepared ones.
        """
        self.signature.check(Signature.of(x, constants))
        return self._call(x, *constants)


def prepare_gradient(
    f: Function, adtype: AbstractADType | None, x: Any, *constants: Any, subject: str | None = None
) -> PreparedGradient:
    """Choose a backend for `f`, trace its gradient and check that it can be computed.

    Args:
        f: a function `f(x, *constants)` with a scalar floating-point result.
        adtype: how to differentiate; None means the default (`set_default_adtype`).
        x: the differentiated argument, an array or a pytree of arrays of one floating dtype. Only structure,
            shapes and dtypes matter here.
        constants: further arguments, not differentiated.
        subject: what to call `f` in messages.

    Returns:
        A `PreparedGradient`.

    Raises:
        DifferentiationError: where the adtype cannot differentiate `f`; it names one that can.
        TypeError: if `adtype` is not an adtype, `x` is not floating point, or the result is not a scalar.
    """
    rule = current_adtype() if adtype is None else check_adtype(adtype)
    name = subject or str(getattr(f, "__name__", "the function"))
    signature = Signature.of(x, constants)
    _check_function(f, x, constants, name)
    arguments = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), (x, *constants))

    refusals: dict[Backend, DifferentiationError] = {}

    @functools.cache
    def traced(backend: Backend) -> Any:
        result = jax.make_jaxpr(functools.partial(_value_and_gradient, f, backend), return_shape=True)(*arguments)
        refuse_unfinished(result[0].jaxpr)
        return result

    def supported(backend: Backend) -> bool:
        try:
            traced(backend)
        except Exception as error:
            named = explain(error, name)
            if named is None:
                raise
            refusals[backend] = named
            return False
        return True

    if isinstance(rule, AbstractRule):
        choice = rule.choose(sum(leaf.size for leaf in jax.tree.leaves(arguments[0])), supported)
    else:
        choice = Choice(rule, "requested")
    if not supported(choice.backend):
        if len(refusals) > 1:
            raise DifferentiationError(
                "neither mode can differentiate it. " + " And: ".join(map(str, refusals.values()))
            )
        raise refusals[choice.backend]
    closed, (_, gradient_shape) = traced(choice.backend)
    evaluate = jaxpr_as_fun(closed)
    tree = jax.tree.structure(gradient_shape)

    def call(*args: Any) -> tuple[Scalar, Any]:
        value, *leaves = evaluate(*jax.tree.leaves(args))
        return value, jax.tree.unflatten(tree, leaves)

    return PreparedGradient(choice, signature, jax.jit(call, inline=True))


def value_and_gradient(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> tuple[Scalar, Any]:
    """The value of a scalar function and its gradient, in one call without preparation.

    Args:
        f: a function `f(x, *constants)` with a scalar floating-point result.
        adtype: how to differentiate; None means the default.
        x: the differentiated argument, an array or a pytree of arrays of one floating dtype.
        constants: further arguments, not differentiated.

    Returns:
        `f(x, *constants)`, shape (), and the gradient, of the structure of `x`.

    Raises:
        DifferentiationError, TypeError: as `prepare_gradient`.
    """
    return prepare_gradient(f, adtype, x, *constants).value_and_gradient(x, *constants)


def _value_and_gradient(f: Function, backend: Backend, x: Any, *constants: Any) -> tuple[Scalar, Any]:
    flat, unravel = ravel_pytree(x)

    def of_flat(flat: Flat) -> Scalar:
        return f(unravel(flat), *constants)

    if isinstance(backend, AbstractForwardBackend):
        value, gradient = _forward_gradient(backend, of_flat, flat)
    else:
        value, pull = backend.pullback(of_flat, flat)
        gradient = pull(jnp.ones_like(value))
    return value, unravel(gradient)


def _forward_gradient(backend: AbstractForwardBackend, f: FlatFunction, x: Flat) -> tuple[Scalar, Flat]:
    dimension = x.size
    if dimension == 0:
        return f(x), x
    chunk = backend.chunk(dimension)
    if chunk == dimension:
        return backend.pushforward(f, x, jnp.eye(dimension, dtype=x.dtype))
    # Unit vectors are made chunk by chunk: the d x d identity never exists. The last chunk may reach past the
    # end, where its unit vectors are zero and its results are cut off.
    count = -(-dimension // chunk)

    def one_chunk(start: jax.Array) -> tuple[Scalar, jax.Array]:
        seeds = jax.nn.one_hot(start + jnp.arange(chunk), dimension, dtype=x.dtype)
        return backend.pushforward(f, x, seeds)

    values, derivatives = lax.map(one_chunk, chunk * jnp.arange(count))
    return values[0], derivatives.reshape(-1)[:dimension]


def _check_function(f: Function, x: Any, constants: tuple[Any, ...], subject: str) -> None:
    dtypes = {str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(x)}
    if len(dtypes) > 1 or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(
            f"{subject}: the differentiated argument must hold floating-point numbers of one dtype, "
            f"got {', '.join(sorted(dtypes))}; convert it with jnp.asarray(x, float)."
        )
    result = jax.eval_shape(f, x, *constants)
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        got = f"{dtype}{list(shape)}" if shape is not None else type(result).__name__
        raise TypeError(
            f"{subject}: a gradient needs a function with one floating-point number as its result, got {got}; "
            f"return a scalar, for example a jnp.sum."
        )
