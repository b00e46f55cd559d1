"""How each primitive of JAX acts on arrays of symbols.

Elementwise primitives are in `operations`; here are those that move, reduce, multiply and call. This module
needs SymPy; `symbolic` loads it when it is first used.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jax import lax

from ..equations import bind
from .backend import Interpreter, Symbols, Value, active, concrete, refusal
from .operations import ADD, ARITHMETIC, FUNCTIONS, MAXIMUM, MINIMUM, MULTIPLY, SELECT, STOP, UNEQUAL


def _select(interpreter: Interpreter, condition: Value, then: Value, other: Value, dtype: Any) -> Symbols:
    def select(condition: Any, then: Any, other: Any) -> Any:
        if then == other or condition == sympy.true:
            return then
        if condition == sympy.false:
            return other
        if dtype == np.bool_:
            return sympy.Or(sympy.And(condition, then), sympy.And(sympy.Not(condition), other))
        return SELECT(condition, then, other)

    return interpreter.map(select, condition, then, other)


def _choose(interpreter: Interpreter, index: Value, cases: Sequence[Value], dtype: Any) -> Symbols:
    """The case that an integer names; out of bounds the nearest."""
    chosen = cases[0]
    for i, case in enumerate(cases[1:], 1):
        beyond = interpreter.map(FUNCTIONS["ge"], index, np.asarray(i))
        chosen = _select(interpreter, beyond, case, chosen, dtype)
    return interpreter.symbols(chosen)


def _select_n(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
    which, *cases = values
    dtype = equation.outvars[0].aval.dtype
    if equation.invars[0].aval.dtype == np.bool_ and len(cases) == 2:
        return _select(interpreter, which, cases[1], cases[0], dtype)
    return _choose(interpreter, which, cases, dtype)


def _cond(interpreter: Interpreter, equation: Any, values: list[Value]) -> list[Value]:
    index, *operands = values
    branches = equation.params["branches"]
    if concrete(index):
        return interpreter.run(branches[min(max(int(index), 0), len(branches) - 1)], operands)
    results = [interpreter.run(branch, operands) for branch in branches]
    return [
        _choose(interpreter, index, cases, out.aval.dtype)
        for out, *cases in zip(equation.outvars, *results, strict=True)
    ]


def _scan(interpreter: Interpreter, equation: Any, values: list[Value]) -> list[Value]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    inner = getattr(body, "jaxpr", body)
    interpreter.program.check(length)
    # What is scanned over has one axis more outside the loop than inside.
    scanned = [o.aval.ndim > i.aval.ndim for o, i in zip(equation.invars, inner.invars, strict=True)]
    stacked = [o.aval.ndim > i.aval.ndim for o, i in zip(equation.outvars, inner.outvars, strict=True)]
    carried = stacked.count(False)
    xs = [value for value, one in zip(values, scanned, strict=True) if one]
    before = [value for value, one in zip(values, scanned, strict=True) if not one]
    constants, carry = before[: len(before) - carried], before[len(before) - carried :]
    turns = []
    for i in reversed(range(length)) if equation.params["reverse"] else range(length):
        results = interpreter.run(body, [*constants, *carry, *(_at(x, i) for x in xs)])
        carry = results[:carried]
        turns.append(results[carried:])
    if equation.params["reverse"]:
        turns.reverse()
    ys = [_stack(interpreter, column) for column in zip(*turns, strict=True)]
    return [*carry, *(ys if turns else (jnp.zeros(o.aval.shape, o.aval.dtype) for o in equation.outvars[carried:]))]


def _at(array: Value, i: int) -> Value:
    if active(array):
        return np.asarray(array[i], object)
    if not concrete(array):
        return lax.index_in_dim(array, i, keepdims=False)
    with jax.ensure_compile_time_eval():
        return array[i]


def _stack(interpreter: Interpreter, column: Sequence[Value]) -> Value:
    if any(map(active, column)):
        return np.stack([interpreter.symbols(value) for value in column])
    return jnp.stack([jnp.asarray(value) for value in column])


def _inline(interpreter: Interpreter, equation: Any, values: list[Value]) -> list[Value]:
    body = equation.params.get("jaxpr")
    return interpreter.run(equation.params["call_jaxpr"] if body is None else body, values)


def _custom(interpreter: Interpreter, equation: Any, values: list[Value]) -> list[Value]:
    """A function with a rule of its own: the traced rule, not the traced function, gives the partial derivatives."""
    program, name = interpreter.program, equation.primitive.name
    moving = [i for i, value in enumerate(values) if active(value)]
    variables = (*(equation.invars[i] for i in moving), *equation.outvars)
    if not all(jnp.issubdtype(variable.aval.dtype, jnp.floating) for variable in variables):
        raise refusal(name, "of numbers that are not floating point")

    def function(*arrays: Any) -> list[Any]:
        known = dict(zip(moving, arrays, strict=True))
        return bind(equation, [known.get(i, value) for i, value in enumerate(values)])

    def rule(points: Any, seeds: Any) -> Any:
        if name == "custom_jvp_call":
            return jax.jvp(function, points, seeds)[1]
        return jax.vjp(function, *points)[1](list(seeds))

    @functools.cache
    def slopes() -> Symbols:
        """The Jacobian: the rule is linear in its seeds, so its derivatives in them are free of them."""
        points = tuple(_struct(equation.invars[i]) for i in moving)
        seeded = points if name == "custom_jvp_call" else tuple(map(_struct, equation.outvars))
        since = program.mark
        seeds = [program.inputs(np.zeros(seed.size)).reshape(seed.shape) for seed in seeded]
        answers = interpreter.run(jax.make_jaxpr(rule)(points, seeded), [*(values[i] for i in moving), *seeds])
        changes = np.concatenate([interpreter.symbols(answer).ravel() for answer in answers])
        symbols = [symbol for seed in seeds for symbol in seed.ravel()]
        rows = np.array([program.gradient(change, symbols, since) for change in changes], object)
        if any(program.depends(row, symbols, since) for row in rows.flat):
            raise refusal(name, "whose rule is not linear")
        rows = rows.reshape(changes.size, len(symbols))
        return rows if name == "custom_jvp_call" else rows.T

    outs = [interpreter.symbols(result).copy() for result in _inline(interpreter, equation, values)]
    atoms = [atom for i in moving for atom in values[i].ravel()]
    row = itertools.count()
    for out in outs:
        for place in np.ndindex(out.shape):
            partials = functools.partial(lambda i: slopes()[i], next(row))
            out[place] = program.with_partials(out[place], atoms, partials)
    return outs


def _struct(variable: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


def _convert(interpreter: Interpreter, equation: Any, values: list[Value]) -> Value:
    old, new = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    if old == new:
        return values[0]
    if new == np.bool_:
        return interpreter.map(UNEQUAL, values[0], np.asarray(0))
    if old == np.bool_:
        return _select(interpreter, values[0], np.asarray(1), np.asarray(0), new)
    if jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.integer):
        raise refusal("convert_element_type", f"from {old} to {new}")
    if jnp.issubdtype(new, jnp.floating):
        interpreter.dtype = jnp.promote_types(interpreter.dtype, new)
    return values[0]


def _reduce(operation: Callable[..., Any]) -> Callable[..., Value]:
    def rule(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
        axes, shape = equation.params["axes"], equation.outvars[0].aval.shape
        last = np.moveaxis(values[0], axes, range(-len(axes), 0)) if axes else values[0]
        return interpreter.fold(operation, last.reshape(*shape, -1))

    return rule


def _cumulate(operation: Callable[..., Any]) -> Callable[..., Value]:
    def rule(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
        axis, step = equation.params["axis"], -1 if equation.params["reverse"] else 1
        moved = np.moveaxis(values[0], axis, 0)
        slices = [_at(moved, i) for i in range(len(moved))][::step]
        totals = itertools.accumulate(slices, lambda total, new: interpreter.map(operation, total, new))
        return np.moveaxis(np.stack(list(totals)[::step]), 0, axis)

    return rule


def _dot_general(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
    (contracted, batched), shape = equation.params["dimension_numbers"], equation.outvars[0].aval.shape
    rows = []
    for value, sum_over, batch in zip(map(interpreter.symbols, values), contracted, batched, strict=True):
        free = [axis for axis in range(value.ndim) if axis not in (*sum_over, *batch)]
        sizes = [math.prod(value.shape[axis] for axis in axes) for axes in (batch, free, sum_over)]
        rows.append(value.transpose(*batch, *free, *sum_over).reshape(sizes))
    left, right = rows
    interpreter.program.check(math.prod(shape) * left.shape[-1])
    products = interpreter.map(ARITHMETIC["mul"], left[:, :, None, :], right[:, None, :, :])
    return interpreter.fold(ADD, products).reshape(shape)


def _integer_pow(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
    return interpreter.map(lambda x: x ** equation.params["y"], values[0])


def _stop_gradient(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
    return interpreter.map(STOP, values[0])


def _scatter_add(interpreter: Interpreter, equation: Any, values: list[Value]) -> Symbols:
    target, indices, updates = values
    if not concrete(indices):
        raise refusal("scatter-add", "at positions that are known only when the program runs")
    updates = interpreter.symbols(updates)
    interpreter.program.check(updates.size)
    with jax.ensure_compile_time_eval():
        zeros, units = jnp.zeros(np.shape(target)), jnp.eye(updates.size).reshape(-1, *updates.shape)
        lands = np.asarray(jax.vmap(lambda unit: bind(equation, [zeros, indices, unit])[0])(units))
    result = interpreter.symbols(target).copy()
    for place in np.ndindex(result.shape):
        arriving = updates.ravel()[lands[(slice(None), *place)] != 0]
        result[place] = interpreter.program.apply(ADD, result[place], *arriving)
    return result


def _rewritten(function: Callable[..., Any]) -> Callable[..., Value]:
    """A primitive written out in others by a function of its arrays and parameters."""

    def rule(interpreter: Interpreter, equation: Any, values: list[Value]) -> list[Value]:
        interpreter.program.check(equation.invars[0].aval.shape[-1] ** 2)
        written = jax.make_jaxpr(lambda *arrays: function(*arrays, **equation.params))(*map(_struct, equation.invars))
        return interpreter.run(written, values)

    return rule


def _cholesky(a: Any, **_: Any) -> Any:
    n = a.shape[-1]
    lower: list[list[Any]] = []
    broken = False
    for i in range(n):
        row: list[Any] = []
        for j in range(i + 1):
            rest = a[..., i, j] - sum(x * y for x, y in zip(row, lower[j] if j < i else row, strict=False))
            broken = broken | ~(rest > 0) if i == j else broken
            row.append(jnp.sqrt(rest) if i == j else rest / lower[j][j])
        lower.append(row)
    zero = jnp.zeros_like(a[..., 0, 0])
    full = jnp.stack([jnp.stack([*row, *[zero] * (n - len(row))], -1) for row in lower], -2)
    # As JAX: no factor at all where the matrix is not positive definite.
    return jnp.where(jnp.asarray(broken)[..., None, None], jnp.nan, full)


def _triangular_solve(
    a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, unit_diagonal: bool, **_: Any
) -> Any:
    if not left_side:  # x a = b is aᵀ xᵀ = bᵀ
        b = jnp.swapaxes(b, -1, -2)
    if transpose_a == left_side:
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    n = a.shape[-1]
    solved: dict[int, Any] = {}
    for i in range(n) if lower else reversed(range(n)):
        rest = b[..., i, :] - sum(a[..., i, j, None] * x for j, x in solved.items())
        solved[i] = rest if unit_diagonal else rest / a[..., i, i, None]
    x = jnp.stack([solved[i] for i in range(n)], -2)
    return x if left_side else jnp.swapaxes(x, -1, -2)


# Primitives that move elements: which operands hold them, None for all; the others hold positions.
MOVES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("broadcast_in_dim", "concatenate", "copy", "expand_dims", "pad", "reshape", "rev", "slice")),
    **dict.fromkeys(("split", "squeeze", "stack", "tile", "transpose", "unstack")),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "gather": (0,),
    "scatter": (0, 2),
}

RULES: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"), _inline),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), _custom),
    "cholesky": _rewritten(_cholesky),
    "cond": _cond,
    "convert_element_type": _convert,
    "cummax": _cumulate(MAXIMUM),
    "cummin": _cumulate(MINIMUM),
    "cumprod": _cumulate(MULTIPLY),
    "cumsum": _cumulate(ADD),
    "dot_general": _dot_general,
    "integer_pow": _integer_pow,
    "reduce_and": _reduce(ARITHMETIC["and"]),
    "reduce_max": _reduce(MAXIMUM),
    "reduce_min": _reduce(MINIMUM),
    "reduce_or": _reduce(ARITHMETIC["or"]),
    "reduce_prod": _reduce(MULTIPLY),
    "reduce_sum": _reduce(ADD),
    "scan": _scan,
    "scatter-add": _scatter_add,
    "select_n": _select_n,
    "stop_gradient": _stop_gradient,
    "triangular_solve": _rewritten(_triangular_solve),
}
