"""Forward mode as an interpreter: a traced program is walked once, every value with its structured Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from ..equations import bind, inlined_body, shaped
from .contraction import CONTRACTIONS
from .elementwise import apply_elementwise, is_elementwise
from .expansion import expansion, unexpanded
from .jacobians import Array, Columns, gather_columns, identity, to_dense
from .loops import LOOPS
from .movement import MOVEMENTS
from .numbers import Dual
from .on_host import MOVES, on_host
from .scatter import SCATTERS

# What is known while tracing is computed while tracing, up to this size: indices and masks, mostly.
_FOLDED_SIZE = 1 << 16

# Tangents carried at once through an equation that has no rule here.
_OPAQUE_CHUNK = 32


def jacobian(f: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """The value of `f` at a flat `x` and its Jacobian, shape (*out, dimension).

    Raises:
        Exception: what JAX raises for a function that has no forward derivative.
    """
    return _run(f, Dual(x, identity(x.size)), x.size)


def pushforward(f: Callable[[Array], Array], x: Array, tangents: Array) -> tuple[Array, Array]:
    """The value of `f` at a flat `x` and its changes along `tangents`, shape (k, dimension), as shape (*out, k).

    Raises:
        Exception: what JAX raises for a function that has no forward derivative.
    """
    count = tangents.shape[0]
    return _run(f, Dual(x, (Columns(np.arange(count), tangents.T, None),) if count else ()), count)


def _run(f: Callable[[Array], Array], x: Dual, columns: int) -> tuple[Array, Array]:
    with unexpanded():
        closed = jax.make_jaxpr(f)(x.value)
    (result,) = propagate(closed.jaxpr, closed.consts, [x])
    value = jnp.asarray(result.value)
    return value, to_dense(result.jacobian, value.shape, value.dtype, columns)


def propagate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Dual]) -> list[Dual]:
    """Evaluate a jaxpr on dual values.

    Args:
        jaxpr: the program.
        constants: for its constvars.
        arguments: for its invars.
    """
    duals: dict[Any, Dual] = {var: Dual(value) for var, value in zip(jaxpr.constvars, constants, strict=True)}
    duals.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Dual:
        return Dual(np.asarray(atom.val, shaped(atom)[1])) if isinstance(atom, Literal) else duals[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _apply(equation, operands)
        duals.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, operands: list[Dual]) -> list[Dual]:
    name = equation.primitive.name
    active = any(operand.is_active for operand in operands)
    body = inlined_body(equation)
    known = all(isinstance(operand.value, np.ndarray) for operand in operands)
    if not active and not (body and known):
        return [Dual(value) for value in _evaluate(equation, operands)]
    if body is not None:
        return propagate(body.jaxpr, body.consts, operands)
    atoms = [atom.aval for atom in (*equation.invars, *equation.outvars)]
    if any(_is(aval, jnp.complexfloating) for aval in atoms):
        # The derivative of abs(z) by z is no number that z could be multiplied by: not for the rules here.
        return _opaque(equation, operands)
    if not any(_is(var.aval, jnp.floating) for var in equation.outvars):
        return [Dual(value) for value in bind(equation, [operand.value for operand in operands])]
    written_out = expansion(equation, operands)
    if written_out is not None:
        program = jax.make_jaxpr(written_out)(*[operand.value for operand in operands])
        return propagate(program.jaxpr, program.consts, operands)
    if is_elementwise(equation):
        return apply_elementwise(equation, operands)
    for rules in (MOVEMENTS, SCATTERS, CONTRACTIONS):
        if name in rules:
            result = rules[name](equation, operands)
            if result is not None:
                return result if isinstance(result, list) else [result]
    # A loop under `vmap` may go on for one element and not for another, which is for JAX's own rules.
    batched = name == "while" and bool(equation.params["cond_jaxpr"].out_avals[0].shape)
    if name in LOOPS and not batched:
        return LOOPS[name](equation, operands, propagate)
    return _opaque(equation, operands)


def _evaluate(equation: Any, operands: list[Dual]) -> list[Any]:
    values = [operand.value for operand in operands]
    small = all(np.prod(shaped(var)[0], dtype=int) <= _FOLDED_SIZE for var in equation.outvars)
    known = small and all(isinstance(value, np.ndarray) for value in values)
    if known and equation.primitive.name in MOVES and len(values) == 1:
        return [on_host(lambda value: bind(equation, [value])[0], values[0])]
    if known and equation.primitive.name in _FOLDED:
        with jax.ensure_compile_time_eval():
            return [np.asarray(value) for value in bind(equation, [jnp.asarray(value) for value in values])]
    return bind(equation, values)


def _opaque(equation: Any, operands: list[Dual]) -> list[Dual]:
    """An equation without a rule of its own: JAX's own forward mode, for all tangents at once or in chunks."""
    active = [i for i, operand in enumerate(operands) if operand.is_active]
    rows = np.unique(np.concatenate([term.rows for i in active for term in operands[i].jacobian]))
    seeds = [
        jnp.moveaxis(gather_columns(operands[i].jacobian, operands[i].shape, operands[i].dtype, rows).columns, -1, 0)
        for i in active
    ]

    def function(*values: Any) -> list[Any]:
        arguments: list[Any] = [operand.value for operand in operands]
        for i, value in zip(active, values, strict=True):
            arguments[i] = value
        return bind(equation, arguments)

    primals = tuple(jnp.asarray(operands[i].value) for i in active)

    def along(*tangents: Any) -> tuple[list[Any], list[Any]]:
        return jax.jvp(function, primals, tangents)

    if rows.size == 1:
        values, changes = along(*(seed[0] for seed in seeds))
        changes = [change[None] for change in changes]
    elif rows.size <= _OPAQUE_CHUNK:
        values, changes = jax.vmap(along, out_axes=(None, 0))(*seeds)
    else:
        values = along(*(jnp.zeros_like(seed[0]) for seed in seeds))[0]
        changes = lax.map(lambda tangents: along(*tangents)[1], tuple(seeds), batch_size=_OPAQUE_CHUNK)
    results = []
    for value, change in zip(values, changes, strict=True):
        differentiable = jnp.issubdtype(value.dtype, jnp.inexact)
        terms = (Columns(rows, jnp.moveaxis(change, 0, -1), None),) if differentiable else ()
        results.append(Dual(value, terms))
    return results


def _is(aval: Any, kind: Any) -> bool:
    return hasattr(aval, "dtype") and bool(jnp.issubdtype(aval.dtype, kind))


# Pure operations on indices and masks; anything else stays in the program even when its operands are known.
_FOLDED = frozenset({
    "add", "sub", "mul", "div", "rem", "max", "min", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not",
    "select_n", "convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "slice", "transpose",
    "concatenate", "iota", "gather", "rev", "copy", "stack", "tile", "Nonzero",
})  # fmt: skip
