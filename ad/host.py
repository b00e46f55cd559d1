"""A function that can only be run at numbers, as one operation of a traced program.

Python that looks at values (`if x > 0:`) cannot be traced, yet samplers run inside compiled loops. `at_numbers` puts
such a function into a program as an operation of its own: a compiled program calls back into Python for it, code that
runs operation by operation runs it on the spot, and its derivative is the function's own, again at numbers.

A callback that computes with JAX can wait for ever: it holds a thread of the XLA client that runs the program, and
what it computes, even the copy of an argument, may be queued for that client's threads, all of which may be held by
the callbacks of other chains. So arguments and results are read and written where they lie (`buffer_callback`), and
what the function computes runs on a second client, with threads of its own, that nothing else waits on. One wait is
left: a JAX array of more than 100 KB that the function closes over is copied by the first client's threads, of which
at least one must be free. Pass such arrays as arguments, or close over NumPy arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxlib import xla_client

Leaves = list[Any]
Shapes = tuple[jax.ShapeDtypeStruct, ...]


def at_numbers(function: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """Call a function with numbers, also where the surrounding program is traced with placeholders.

    Args:
        function: of arrays or pytrees of them, without side effects. It must not close over placeholders: what it
            needs of the surrounding program goes into `arguments`.
        result: its result with `jax.ShapeDtypeStruct`s in place of arrays.
        arguments: of the function.

    Returns:
        `function(*arguments)`, converted to the dtypes of `result`.

    Raises:
        ValueError: where a result has another structure or shape than promised; like any exception of the function,
            it comes out of a compiled program as JAX's runtime error with the same message.
    """
    leaves, tree = jax.tree.flatten(arguments)
    shapes, result_tree = jax.tree.flatten(result)

    def of_leaves(*leaves: Any) -> Leaves:
        got: Any
        values, got = jax.tree.flatten(function(*jax.tree.unflatten(tree, leaves)))
        if got != result_tree or [jnp.shape(value) for value in values] != [shape.shape for shape in shapes]:
            raise ValueError(
                f"a function returned {jax.tree.map(jnp.shape, jax.tree.unflatten(got, values))} where "
                f"{jax.tree.map(lambda shape: shape.shape, result)} was expected; its result must have the same "
                f"structure and shapes for all values."
            )
        return [jnp.asarray(value, shape.dtype) for value, shape in zip(values, shapes, strict=True)]

    x64 = bool(jax.config.jax_enable_x64)
    values = _at_numbers_p.bind(*leaves, function=of_leaves, shapes=tuple(shapes), x64=x64)
    return jax.tree.unflatten(result_tree, values)


_at_numbers_p = Primitive("at_numbers")
_at_numbers_p.multiple_results = True


def _impl(*leaves: Any, function: Callable[..., Leaves], shapes: Shapes, x64: bool) -> Leaves:
    del shapes, x64
    return function(*leaves)


def _abstract_eval(*leaves: Any, function: Callable[..., Leaves], shapes: Shapes, x64: bool) -> Leaves:
    del leaves, function, x64
    return [jax.core.ShapedArray(shape.shape, shape.dtype) for shape in shapes]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **parameters: Any) -> tuple[Leaves, Leaves]:
    tangents = [ad.instantiate_zeros(tangent) for tangent in tangents]
    # At placeholders this raises what JAX raises where the function needs a number, for `errors.explain`.
    values, changes = jax.jvp(parameters["function"], tuple(primals), tuple(tangents))
    return values, changes


def _batch(leaves: Sequence[Any], axes: Sequence[int | None], **parameters: Any) -> tuple[Leaves, list[int]]:
    moving = [i for i, axis in enumerate(axes) if axis is not None]
    rows = [jnp.moveaxis(leaf, axis, 0) for leaf, axis in zip(leaves, axes, strict=True) if axis is not None]

    def one(row: Leaves) -> Leaves:
        given = dict(zip(moving, row, strict=True))
        values: Leaves = _at_numbers_p.bind(*(given.get(i, leaf) for i, leaf in enumerate(leaves)), **parameters)
        return values

    values: Leaves = lax.map(one, rows)
    return values, [0] * len(values)


@functools.cache
def _device() -> Any:
    """The device of a client of its own, which computes in the thread that asks."""
    client: Any = xla_client.make_cpu_client(asynchronous=False, num_devices=1)
    return client.devices()[0]


def _run(leaves: Sequence[Any], function: Callable[..., Leaves], x64: bool) -> Leaves:
    # A callback comes in a thread of XLA's, where settings are the process's. The buffers are copied: JAX might keep
    # them, and they are the program's again when this returns.
    with jax.enable_x64(x64), jax.default_device(_device()):
        return [np.asarray(value) for value in function(*(jnp.asarray(np.array(leaf)) for leaf in leaves))]


def _in_place(*leaves: Any, function: Callable[..., Leaves], shapes: Shapes, x64: bool) -> Leaves:
    def callback(_: Any, out: Sequence[Any], *buffers: Any) -> None:
        values = _run([np.asarray(buffer) for buffer in buffers], function, x64)
        for target, value in zip(out, values, strict=True):
            np.asarray(target)[...] = value

    return list(buffer_callback(callback, shapes)(*leaves))


def _by_copy(*leaves: Any, function: Callable[..., Leaves], shapes: Shapes, x64: bool) -> Leaves:
    # On an accelerator the program holds none of the host's threads.
    return list(jax.pure_callback(lambda *arrays: tuple(_run(arrays, function, x64)), shapes, *leaves))


_at_numbers_p.def_impl(_impl)
_at_numbers_p.def_abstract_eval(_abstract_eval)
ad.primitive_jvps[_at_numbers_p] = _jvp
batching.primitive_batchers[_at_numbers_p] = _batch
mlir.register_lowering(_at_numbers_p, mlir.lower_fun(_in_place, multiple_results=True), platform="cpu")
mlir.register_lowering(_at_numbers_p, mlir.lower_fun(_by_copy, multiple_results=True))
