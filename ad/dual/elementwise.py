"""Elementwise functions: each is recorded with its partial derivatives, which JAX's own rules give."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..equations import bind, inlined_body
from .numbers import Chain, Dual

# One output element from one element of each operand.
ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e",
    "cbrt", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "igamma", "igammac", "integer_pow", "lgamma", "log", "log1p", "logistic", "max",
    "min", "mul", "neg", "polygamma", "pow", "reduce_precision", "regularized_incomplete_beta", "rem", "rsqrt",
    "select_n", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "zeta",
})  # fmt: skip

# Elementwise and constant almost everywhere.
_FLAT = frozenset({"floor", "ceil", "round", "sign", "stop_gradient", "nextafter"})

_PREDICATES = frozenset({
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "is_finite", "broadcast_in_dim",
})  # fmt: skip

# With an infinite slope at a point where they are finite.
_STEEP = frozenset({"sqrt", "cbrt", "pow", "acos", "acosh", "asin"})

# Functions that can be constant near a point. Where their slope is zero so is the whole derivative, even if what
# follows has an infinite slope there: sqrt(max(x, 0)) does not move at x = -1.
_CLIPPING = frozenset({"max", "min", "clamp"})


def is_elementwise(equation: Any) -> bool:
    """Whether an equation works element by element; functions with a `custom_jvp` rule may."""
    name = equation.primitive.name
    if name in ELEMENTWISE or name in _FLAT:
        return True
    if name != "custom_jvp_call" or len({var.aval.shape for var in equation.outvars}) != 1:
        return False
    return body_is_elementwise(equation.params["call_jaxpr"].jaxpr, equation.outvars[0].aval.shape)


def apply_elementwise(equation: Any, operands: list[Dual]) -> list[Dual]:
    """The results of an elementwise equation, their Jacobians deferred."""
    name = equation.primitive.name
    values = [operand.value for operand in operands]
    moving = [i for i, o in enumerate(operands) if o.is_active and jnp.issubdtype(o.dtype, jnp.floating)]
    if name in _FLAT or not moving:
        return [Dual(result) for result in bind(equation, values)]
    if name == "select_n":
        (result,) = bind(equation, values)
        return [Dual(result, None, tuple((operands[i], _case(values[0], i - 1)) for i in moving))]
    # The value comes with the first derivative, so that what they share is one operation of the program.
    results, known = _with_slopes(equation, moving[0], values)
    slopes = [_Slopes(equation, i, values, known if i == moving[0] else None) for i in moving]
    return [
        Dual(result, None, tuple((operands[each.i], _chain(each, out)) for each in slopes))
        if jnp.issubdtype(result.dtype, jnp.floating)
        else Dual(result)
        for out, result in enumerate(results)
    ]


def _case(predicate: Any, case: int) -> Chain:
    """The chain rule of one case of a selection: what is selected passes, the rest is zero, whatever it was."""
    picked = jnp.asarray(predicate)
    if picked.dtype == bool:
        return Chain(taken=picked if case else ~picked)
    return Chain(taken=picked == case)


class _Slopes:
    """The partial derivatives of an elementwise equation by operand `i`, evaluated once and when they are needed.

    Each is of the shape of a result or one that stands for it, or None where it is one.
    """

    def __init__(self, equation: Any, i: int, values: list[Any], known: list[Any] | None) -> None:
        self.equation, self.i, self.values, self.known = equation, i, values, known
        self.clips = _clips(equation)

    def __getitem__(self, out: int) -> Any | None:
        if self.known is None:
            self.known = _with_slopes(self.equation, self.i, self.values)[1]
        return self.known[out]


def _chain(slopes: _Slopes, out: int) -> Chain:
    """The chain rule of one operand of one result."""
    return Chain(lambda: slopes[out], clips=slopes.clips, steep=slopes.equation.primitive.name in _STEEP)


def _clips(equation: Any) -> bool:
    """Whether the slope is zero or one (a half at ties), so that where it is zero it stays so."""
    if equation.primitive.name != "custom_jvp_call":
        return equation.primitive.name in _CLIPPING
    return _only_clips(equation.params["call_jaxpr"].jaxpr)  # relu, for one


def _only_clips(jaxpr: Any) -> bool:
    for equation in jaxpr.eqns:
        body = inlined_body(equation)
        if not (_only_clips(body.jaxpr) if body else equation.primitive.name in _CLIPPING):
            return False
    return True


def _with_slopes(equation: Any, i: int, values: list[Any]) -> tuple[list[Any], list[Any]]:
    """The results of an elementwise equation and their partial derivatives by operand `i`."""
    name = equation.primitive.name
    if name in ("add", "add_any", "copy", "copy_p", "convert_element_type") or (name == "sub" and i == 0):
        return bind(equation, values), [None]
    if name == "mul":
        return bind(equation, values), [values[1 - i]]
    if name == "div" and i == 0:
        return bind(equation, values), [1 / jnp.asarray(values[1])]
    # Each element of the result moves with one element of the operand alone, be that shared by several: moving all at
    # once gives every partial derivative.
    x = jnp.asarray(values[i])

    def function(operand: Any) -> list[Any]:
        return bind(equation, [*values[:i], operand, *values[i + 1 :]])

    results, slopes = jax.jvp(function, (x,), (jnp.ones_like(x),))
    return results, slopes


def body_is_elementwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    """Whether a program of one result of `shape` works element by element."""
    if not all(_fits(var.aval.shape, shape) for var in (*jaxpr.invars, *jaxpr.constvars)):
        return False
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        body = inlined_body(equation)
        if body is None and name == "custom_jvp_call":
            body = equation.params["call_jaxpr"]
        if body is not None:
            if not body_is_elementwise(body.jaxpr, shape):
                return False
        elif name not in ELEMENTWISE and name not in _FLAT and name not in _PREDICATES:
            return False
        if not all(_fits(var.aval.shape, shape) for var in equation.outvars):
            return False
    return True


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is read as `wanted` by an elementwise operation."""
    return not shape or (len(shape) == len(wanted) and all(a in (1, b) for a, b in zip(shape, wanted, strict=True)))
