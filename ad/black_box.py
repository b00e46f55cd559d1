"""Black boxes: Python functions of NumPy arrays (SciPy, Fortran, a simulator) as functions of JAX arrays."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .adtypes import Array
from .errors import DifferentiationError

HostArray = np.ndarray[Any, Any]


def black_box(
    function: Callable[..., Any],
    result: tuple[int, ...] | None = None,
    *,
    example: tuple[Any, ...] | None = None,
    concurrent: bool = False,
) -> Callable[..., Array]:
    """Make a Python function of NumPy arrays callable inside JAX programs and models.

    The compiled program calls back into Python wherever it evaluates the function. It has no derivative of its own:
    use `adtype=AutoFiniteDiff()` for all of a block, or `differentiate_with(AutoFiniteDiff())` for the function alone.

    Args:
        function: called with a NumPy array for every array among its arguments (pytrees of them are allowed): float64
            for floating-point numbers, whatever JAX's precision, its own to write to, contiguous as C and Fortran 77
            vectors want it. It returns a number or an array of real numbers, and must depend on nothing else.
        result: the shape of what it returns, the same on every call; () is a number.
        example: arguments to call it with once, now, where `result` is not given.
        concurrent: whether it may run in several threads at once. If not, chains that run in threads take turns:
            much Fortran and C keeps its work in global variables.

    Returns:
        A function of JAX arrays, usable inside `jit`, `vmap`, `scan` and `while_loop`. Its result has the floating
        dtype of JAX's precision, float64 in `sample`.

    Raises:
        TypeError: if `function` is not callable, or neither `result` nor `example` is given, or both are.
        DifferentiationError: where forward or reverse mode meets it.
        ValueError: if `result` is not a shape. When the program runs: if the function returns anything but real
            numbers of the shape `result`. Its own exceptions come through inside JAX's, with their message.

    Example:
        `area = black_box(lambda b: scipy.integrate.quad(np.exp, 0.0, b)[0], result=())`
    """
    name = getattr(function, "__name__", type(function).__name__)
    if not callable(function):
        raise TypeError(f"black_box: expected a Python function, got {function!r}.")
    if (result is None) == (example is None):
        raise TypeError(
            f"black_box({name}): give either the shape of the result, say result=(), or example=(x, ...), arguments "
            f"to call it with once."
        )
    lock = threading.RLock()

    def on_host(arguments: tuple[Any, ...]) -> HostArray:
        own = jax.tree.map(_own, arguments)
        with nullcontext() if concurrent else lock:
            returned = function(*own)
        return _real(returned, name)

    if example is not None:
        if not isinstance(example, tuple):
            raise TypeError(f"black_box({name}): example must be a tuple of arguments, got {example!r}; write (x,).")
        shape = on_host(example).shape
    else:
        shape = _shape(result, name)

    @functools.wraps(function, updated=())
    def call(*arguments: Any) -> Array:
        dtype = jnp.result_type(float)
        leaves, tree = jax.tree.flatten(arguments)
        numbers = [jnp.asarray(leaf) for leaf in leaves]
        dtypes = [number.dtype for number in numbers]

        def checked(*words: Any) -> HostArray:
            returned = on_host(jax.tree.unflatten(tree, map(_host_numbers, words, dtypes)))
            if returned.shape != shape:
                raise ValueError(
                    f"black_box({name}): returned shape {returned.shape}, expected {shape}; declare the shape it "
                    f"always returns, result={returned.shape}, or make it return that."
                )
            return _host_words(returned.astype(dtype))

        def evaluate(*numbers: Array) -> Array:
            words = jax.eval_shape(_words, jax.ShapeDtypeStruct(shape, dtype))
            return _numbers(jax.pure_callback(checked, words, *map(_words, numbers), vmap_method="sequential"), dtype)

        value: Array = _without_derivative(evaluate, name)(*numbers)
        return value

    return call


def _without_derivative(evaluate: Callable[..., Array], name: str) -> Any:
    """`evaluate` with a rule that refuses: without one, the words it travels in would have derivative zero."""
    guarded = jax.custom_jvp(evaluate)

    def refuse(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        if any(type(tangent) is not SymbolicZero for tangent in tangents):
            raise DifferentiationError(
                f"black_box({name}) calls back into Python (`pure_callback`), where there is no derivative rule; "
                f"use adtype=AutoFiniteDiff(), or differentiate_with(AutoFiniteDiff())({name}) for this function alone."
            )
        value = evaluate(*primals)
        return value, jnp.zeros_like(value)

    guarded.defjvp(refuse, symbolic_zeros=True)
    return guarded


# JAX's setting for 64-bit numbers belongs to a thread, and callbacks run in XLA's threads, which do not know it: there
# JAX would round arguments and results to 32 bits. So 64-bit numbers travel as pairs of 32-bit words.
def _words(numbers: Array) -> Array:
    return lax.bitcast_convert_type(numbers, jnp.uint32) if numbers.dtype.itemsize == 8 else numbers


def _numbers(words: Array, dtype: Any) -> Array:
    return lax.bitcast_convert_type(words, dtype) if words.dtype == jnp.uint32 else words


def _host_words(numbers: HostArray) -> HostArray:
    return numbers[..., None].view(np.uint32) if numbers.dtype.itemsize == 8 else numbers


def _host_numbers(words: Any, dtype: Any) -> HostArray:
    array = np.array(words, order="C")
    return array.view(dtype)[..., 0] if array.dtype != dtype else array


def _own(argument: Any) -> HostArray:
    array = np.asarray(argument)
    wide = np.float64 if np.issubdtype(array.dtype, np.floating) else array.dtype
    return np.array(array, wide, order="C")


def _real(returned: Any, name: str) -> HostArray:
    """What a black box returned as float64; ValueError if it holds anything but real numbers."""
    array = np.asarray(returned)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"black_box({name}): returned {type(returned).__name__} of dtype {array.dtype}, expected real numbers; "
            f"make it return a number or an array of floats."
        )
    return array.astype(np.float64)


def _shape(result: Any, name: str) -> tuple[int, ...]:
    if isinstance(result, tuple) and all(type(length) is int and length >= 0 for length in result):
        return result
    raise ValueError(f"black_box({name}): result must be a shape such as () or (3,), got {result!r}.")
