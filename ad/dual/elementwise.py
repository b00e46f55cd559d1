"""Elementwise functions: each is recorded with its partial derivatives, which JAX's own rules give."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..equations import bind, inlined_body
from .jacobians import Array
from .numbers import Chain, Dual

# One output element from one element of each operand.
ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e",
    "cbrt", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "igamma", "igammac", "integer_pow", "lgamma", "log", "log1p", "logistic", "max",
    "min", "mul", "neg", "polygamma", "pow", "reduce_precision", "regularized_incomplete_beta", "rsqrt", "select_n",
    "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "zeta",
})  # fmt: skip

# Elementwise and constant almost everywhere.
_FLAT = frozenset({"floor", "ceil", "round", "sign", "stop_gradient", "nextafter"})

_PREDICATES = frozenset({
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "is_finite", "broadcast_in_dim",
})  # fmt: skip

# Functions that can be constant near a point. Where their slope is zero so is the whole derivative, even if what
# follows has an infinite slope there: sqrt(max(x, 0)) does not move at x = -1.
_CLIPPING = frozenset({"max", "min", "clamp"})


def is_elementwise(equation: Any) -> bool:
    """Whether an equation works element by element; functions with a `custom_jvp` rule may."""
    name = equation.primitive.name
    if name in ELEMENTWISE or name in _FLAT:
        return True
    if name != "custom_jvp_call" or len(equation.outvars) != 1:
        return False
    return _body_is_elementwise(equation.params["call_jaxpr"].jaxpr, equation.outvars[0].aval.shape)


def apply_elementwise(equation: Any, operands: list[Dual]) -> Dual:
    """The result of an elementwise equation, its Jacobian deferred."""
    name = equation.primitive.name
    values = [operand.value for operand in operands]
    (value,) = bind(equation, values)
    if name in _FLAT:
        return Dual(value)
    sources = []
    for i, operand in enumerate(operands):
        if operand.is_active and jnp.issubdtype(operand.dtype, jnp.floating):
            chain = _case(values[0], i - 1) if name == "select_n" else _chain(equation, i, values)
            sources.append((operand, chain))
    return Dual(value, None, tuple(sources))


def _case(predicate: Any, case: int) -> Chain:
    """The chain rule of one case of a selection: what is selected passes, the rest is zero, whatever it was."""
    taken = jnp.asarray(predicate) == case

    def multiply(factor: Array | None) -> Array:
        return taken.astype(float) if factor is None else jnp.where(taken, factor, 0)

    return Chain(multiply, taken)


def _chain(equation: Any, i: int, values: list[Any]) -> Chain:
    """The chain rule of operand `i`: multiply by its partial derivative, evaluated once."""
    kept: list[Any] = []

    def multiply(factor: Array | None) -> Array | None:
        if not kept:
            kept.append(_slope(equation, i, values))
        (slope,) = kept
        if slope is None or factor is None:
            return factor if slope is None else jnp.asarray(slope)
        product: Array = factor * slope
        if _clips(equation):
            product = jnp.where(slope == 0, 0, product)
        return product

    return Chain(multiply)


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


def _slope(equation: Any, i: int, values: list[Any]) -> Any | None:
    """The partial derivative by operand `i`, of shape s or one that stands for it; None where it is one."""
    name = equation.primitive.name
    if name in ("add", "add_any", "copy", "copy_p", "convert_element_type") or (name == "sub" and i == 0):
        return None
    if name == "mul":
        return values[1 - i]
    if name == "div" and i == 0:
        return 1 / jnp.asarray(values[1])
    # Each element of the result moves with one element of the operand alone, be that shared by several: moving all at
    # once gives every partial derivative.
    x = jnp.asarray(values[i])

    def function(operand: Any) -> Any:
        return bind(equation, [*values[:i], operand, *values[i + 1 :]])[0]

    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


def _body_is_elementwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    if not all(_fits(var.aval.shape, shape) for var in (*jaxpr.invars, *jaxpr.constvars)):
        return False
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        body = inlined_body(equation)
        if body is None and name == "custom_jvp_call":
            body = equation.params["call_jaxpr"]
        if body is not None:
            if not _body_is_elementwise(body.jaxpr, shape):
                return False
        elif name not in ELEMENTWISE and name not in _FLAT and name not in _PREDICATES:
            return False
        if not all(_fits(var.aval.shape, shape) for var in equation.outvars):
            return False
    return True


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is read as `wanted` by an elementwise operation."""
    return not shape or (len(shape) == len(wanted) and all(a in (1, b) for a, b in zip(shape, wanted, strict=True)))
