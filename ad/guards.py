"""Branches that are not taken have no influence, in reverse mode too.

Of `where(x > 0, sqrt(x), 0)` reverse mode sends a zero back into the branch that was not taken at x = -1, and there
multiplies it by the slope of the root, which is NaN. Here an elementwise function that leads to a selection is given a
rule that sends a zero back as zero, whatever its slope; where the selection takes the branch nothing changes. And what
is clipped, as in sqrt(maximum(x, 0)), sends back zero whatever comes to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from .adtypes import Array, FlatFunction
from .dual.elementwise import ELEMENTWISE
from .equations import Body, bind, inlined_body, shaped

# Their slopes are constants, or zero where they are not.
_LINEAR = frozenset(
    {"add", "add_any", "sub", "neg", "copy", "copy_p", "convert_element_type", "select_n", "max", "min"}
)

# Constant where their slope is zero.
_CLIPPING = frozenset({"max", "min", "clamp"})


def with_guards(f: FlatFunction) -> FlatFunction:
    """The same function, in which what is not selected sends back zero; `f` itself where nothing is selected."""

    def guarded(x: Array) -> Array:
        closed = jax.make_jaxpr(f)(x)
        body = Body(closed.jaxpr, closed.consts)
        if not _selects(body.jaxpr):
            return jnp.asarray(_evaluate(body, (x,), frozenset())[0])
        flat = jax.make_jaxpr(lambda x: _evaluate(body, (x,), frozenset()))(x)
        return jnp.asarray(_evaluate(Body(flat.jaxpr, flat.consts), (x,), _before_selections(flat.jaxpr))[0])

    return guarded


def _evaluate(body: Body, arguments: Sequence[Any], guarded: frozenset[Any]) -> list[Any]:
    """Run a program, its calls spelled out and those of its equations guarded whose results are in `guarded`."""
    jaxpr = body.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, body.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        called = inlined_body(equation) if equation.primitive.name in ("jit", "pjit") else None
        if called is not None:
            results = _evaluate(called, operands, frozenset())
        elif equation.outvars[0] in guarded:
            results = [_guarded(equation, operands)]
        elif equation.primitive.name == "scan" and _selects(equation.params["jaxpr"].jaxpr):
            results = _scan(equation, operands)
        else:
            results = bind(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _scan(equation: Any, operands: list[Any]) -> list[Any]:
    """A loop with the selections in its body guarded; those of what the body takes in are not followed outside."""
    inner = equation.params["jaxpr"]
    body = Body(inner.jaxpr, inner.consts)
    flat = jax.make_jaxpr(lambda *values: _evaluate(body, values, frozenset()))(*inner.in_avals)
    wanted = _before_selections(flat.jaxpr)
    ruled = jax.make_jaxpr(lambda *values: _evaluate(Body(flat.jaxpr, flat.consts), values, wanted))(*inner.in_avals)
    return bind(equation.replace(params={**equation.params, "jaxpr": ruled}), operands)


def _selects(jaxpr: Any) -> bool:
    for equation in jaxpr.eqns:
        if _is_selection(equation) or _is_clipping(equation):
            return True
        inner = inlined_body(equation)
        if inner is None and equation.primitive.name == "scan":
            inner = Body(equation.params["jaxpr"].jaxpr, ())
        if inner is not None and _selects(inner.jaxpr):
            return True
    return False


def _is_selection(equation: Any) -> bool:
    return equation.primitive.name == "select_n" and bool(jnp.issubdtype(shaped(equation.outvars[0])[1], jnp.floating))


def _is_clipping(equation: Any) -> bool:
    return equation.primitive.name in _CLIPPING and bool(jnp.issubdtype(shaped(equation.outvars[0])[1], jnp.floating))


def _before_selections(jaxpr: Any) -> frozenset[Any]:
    """The results of elementwise functions that lead to a selection, and of those that clip."""
    leading: set[Any] = set()
    found: set[Any] = set()
    for equation in reversed(jaxpr.eqns):
        name, result = equation.primitive.name, equation.outvars[0]
        if _is_clipping(equation):
            found.add(result)
        if _is_selection(equation):
            leading.update(atom for atom in equation.invars[1:] if not isinstance(atom, Literal))
        if result not in leading:
            continue
        leading.update(atom for atom in equation.invars if not isinstance(atom, Literal))
        if name in ELEMENTWISE and name not in _LINEAR and jnp.issubdtype(shaped(result)[1], jnp.floating):
            found.add(result)
    return frozenset(found)


def _guarded(equation: Any, operands: list[Any]) -> Array:
    """An elementwise equation whose cotangents stay zero where they are zero."""
    shape, dtype = shaped(equation.outvars[0])
    moving = [i for i, o in enumerate(operands) if jnp.issubdtype(jnp.result_type(o), jnp.floating)]

    def function(*floats: Any) -> Any:
        values = list(operands)
        for i, value in zip(moving, floats, strict=True):
            values[i] = value
        return bind(equation, values)[0]

    def forward(*floats: Any) -> Any:
        # With the slopes at hand, as JAX does: a loop then need not compute the function again on the way back.
        # One by one: the slope of a power by its exponent is NaN where that by its base is not.
        slopes = []
        for i, value in enumerate(floats):

            def alone(value: Any, i: int = i) -> Any:
                return function(*floats[:i], value, *floats[i + 1 :])

            slopes.append(jax.jvp(alone, (value,), (jnp.ones_like(value),))[1])
        return function(*floats), slopes

    def backward(slopes: list[Any], cotangent: Any) -> Any:
        clips = equation.primitive.name in _CLIPPING
        return tuple(
            jnp.where((slope if clips else cotangent) == 0, 0, cotangent * slope).astype(slope.dtype)
            for slope in slopes
        )

    ruled = jax.custom_vjp(function)
    ruled.defvjp(forward, backward)
    result: Array = ruled(*(jnp.broadcast_to(jnp.asarray(operands[i]), shape) for i in moving))
    return result.astype(dtype)
