"""Operations that move elements about, on NumPy arrays and by NumPy: evaluating them with JAX would compile each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..equations import inlined_body, shaped

HostArray = np.ndarray[Any, Any]


def on_host(move: Callable[[Any], Any], array: HostArray) -> HostArray:
    """The result of an operation that moves elements, or of a few, as a NumPy array.

    Args:
        move: from one array to another; usable under `jax.make_jaxpr`.
        array: what it is applied to.

    Raises:
        jax.errors.TracerArrayConversionError: where the operation depends on what is being traced.
    """
    array = np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
    with jax.ensure_compile_time_eval():
        closed = jax.make_jaxpr(move)(jax.ShapeDtypeStruct(array.shape, array.dtype))
    found = _evaluated(closed.jaxpr, [np.asarray(const) for const in closed.consts], [array])
    if found is not None:
        return found[0]
    with jax.ensure_compile_time_eval():
        return np.asarray(move(jnp.asarray(array)))


def _evaluated(jaxpr: Any, constants: Sequence[HostArray], arguments: Sequence[HostArray]) -> list[HostArray] | None:
    """The results of a program, or None where an operation in it is not known here."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def read(atom: Any) -> HostArray:
        return np.asarray(atom.val, shaped(atom)[1]) if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        body, rule = inlined_body(equation), _RULES.get(equation.primitive.name)
        if body is not None:
            results = _evaluated(body.jaxpr, [np.asarray(const) for const in body.consts], operands)
        else:
            results = None if rule is None else [rule(equation.params, *operands)]
        if results is None:
            return None
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _reshape(params: Any, array: HostArray) -> HostArray:
    order = params.get("dimensions")
    return np.reshape(array if order is None else np.transpose(array, order), params["new_sizes"])


def _slice(params: Any, array: HostArray) -> HostArray:
    steps = params["strides"] or (1,) * array.ndim
    return array[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]


def _dynamic_slice(params: Any, array: HostArray, *starts: HostArray) -> HostArray:
    sizes = params["slice_sizes"]
    # A stretch that would reach over the end is moved back.
    first = [min(max(int(start), 0), full - size) for start, full, size in zip(starts, array.shape, sizes, strict=True)]
    return array[tuple(slice(a, a + size) for a, size in zip(first, sizes, strict=True))]


def _broadcast_in_dim(params: Any, array: HostArray) -> HostArray:
    spread = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], array.shape, strict=True):
        spread[axis] = size
    return np.broadcast_to(array.reshape(spread), params["shape"])


_RULES: dict[str, Callable[..., HostArray]] = {
    "reshape": _reshape,
    "squeeze": lambda params, array: np.squeeze(array, tuple(params["dimensions"])),
    "expand_dims": lambda params, array: np.expand_dims(array, tuple(params["dimensions"])),
    "transpose": lambda params, array: np.transpose(array, params["permutation"]),
    "rev": lambda params, array: np.flip(array, params["dimensions"]),
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "broadcast_in_dim": _broadcast_in_dim,
}

# What `on_host` evaluates without compiling.
MOVES = frozenset(_RULES)
