"""Scalar operations as SymPy functions: how each is differentiated, and which function of JAX computes it.

The functions stay themselves, so that SymPy never rewrites a stable form (`log1p`, `logistic`, ...) into an unstable
one. This module needs SymPy; `symbolic` loads it when it is first used.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import sympy
from jax import lax

from ..errors import DifferentiationError

Slope = Callable[..., Any] | None


def _operation(name: str, evaluate: Callable[..., Any], *slopes: Slope) -> Any:
    """A SymPy function that stays itself: never evaluated or rewritten, differentiated by `slopes`.

    Args:
        name: what JAX calls the operation.
        evaluate: the JAX function of scalars.
        slopes: for each argument the partial derivative as a function of all of them; None where there is none.
    """

    def fdiff(self: Any, argindex: int = 1) -> Any:
        slope = slopes[argindex - 1]
        if slope is None:
            raise DifferentiationError(
                f"AutoSymbolic knows no derivative of `{name}` in its argument {argindex}; "
                f"use adtype=AutoForward() or AutoReverse(), or AutoFiniteDiff() where JAX has none either"
            )
        return slope(*self.args)

    body = {"fdiff": fdiff, "evaluate": staticmethod(evaluate), "_should_evalf": classmethod(lambda cls, arg: -1)}
    return types.new_class(name, (sympy.Function,), exec_body=lambda namespace: namespace.update(body))


def _zero(*args: Any) -> Any:
    return sympy.Integer(0)


def _predicate(name: str, evaluate: Callable[..., Any], arguments: int = 2) -> Any:
    return _operation(name, evaluate, *(_zero,) * arguments)


# Conditions are functions of their own: for SymPy a symbol equals itself, for a program it does not where it is NaN.
GREATER = _predicate("gt", lax.gt)
LESS = _predicate("lt", lax.lt)
EQUAL = _predicate("eq", lax.eq)
UNEQUAL = _predicate("ne", lax.ne)

SELECT: Any = _operation("select", lax.select)
# Identity without a derivative, and identity with a derivative of its own (see `Program.with_partials`).
STOP: Any = _operation("stop_gradient", lambda x: x, _zero)
CUSTOM: Any = _operation("custom_derivative", lambda x, number: x)
_CLAMP: Any = _operation("clamp", lax.clamp, _zero, _zero, _zero)


def _indicator(condition: Any) -> Any:
    return SELECT(condition, sympy.Integer(1), sympy.Integer(0))


def _extremum(name: str, choose: Callable[..., Any]) -> Any:
    """The largest or smallest of several; a tie shares the derivative equally, as in JAX."""

    def fdiff(self: Any, argindex: int = 1) -> Any:
        winners = [_indicator(EQUAL(argument, self)) for argument in self.args]
        return winners[argindex - 1] / sympy.Add(*winners)

    extremum = _operation(name, lambda *args: functools.reduce(choose, args))
    extremum.fdiff = fdiff
    return extremum


MAXIMUM: Any = _extremum("max", lax.max)
MINIMUM: Any = _extremum("min", lax.min)

_SQRT_PI = sympy.Float(math.sqrt(math.pi), precision=53)
_LN_2 = sympy.Float(math.log(2.0), precision=53)


def _exp(x: Any) -> Any:
    return EXP(x)


def _sinh(x: Any) -> Any:
    return SINH(x)


EXP: Any = _operation("exp", lax.exp, _exp)
LOG: Any = _operation("log", lax.log, lambda x: 1 / x)
COS: Any = _operation("cos", lax.cos, lambda x: -SIN(x))
SIN: Any = _operation("sin", lax.sin, COS)
COSH: Any = _operation("cosh", lax.cosh, _sinh)
SINH: Any = _operation("sinh", lax.sinh, COSH)
SQRT: Any = _operation("sqrt", lax.sqrt, lambda x: sympy.Rational(1, 2) / SQRT(x))
RSQRT: Any = _operation("rsqrt", lax.rsqrt, lambda x: -RSQRT(x) / (2 * x))
SIGN: Any = _operation("sign", lax.sign, _zero)
DIGAMMA: Any = _operation("digamma", lax.digamma, lambda x: POLYGAMMA(sympy.Integer(1), x))
POLYGAMMA: Any = _operation("polygamma", lax.polygamma, None, lambda n, x: POLYGAMMA(n + 1, x))
LGAMMA: Any = _operation("lgamma", lax.lgamma, DIGAMMA)
LOG1P: Any = _operation("log1p", lax.log1p, lambda x: 1 / (1 + x))


def _power_in_exponent(x: Any, y: Any) -> Any:
    # As in JAX: the limit 0 at x = 0, without the infinite logarithm.
    return LOG(SELECT(EQUAL(x, sympy.Integer(0)), sympy.Integer(1), x)) * POWER(x, y)


def _power_in_base(x: Any, y: Any) -> Any:
    zero, one = sympy.Integer(0), sympy.Integer(1)
    never = EQUAL(y, zero)
    return SELECT(never, zero, y * POWER(x, SELECT(never, one, y - 1)))


POWER: Any = _operation("pow", lax.pow, _power_in_base, _power_in_exponent)


def _igamma_in_x(a: Any, x: Any) -> Any:
    return EXP(-x + (a - 1) * LOG(x) - LGAMMA(a))


def _betainc_in_x(a: Any, b: Any, x: Any) -> Any:
    return EXP((b - 1) * LOG1P(-x) + (a - 1) * LOG(x) - LGAMMA(a) - LGAMMA(b) + LGAMMA(a + b))


IGAMMA_GRAD_A: Any = _operation("igamma_grad_a", lax.igamma_grad_a, None, None)
_OPERATIONS = (
    *(EXP, LOG, LOG1P, SIN, COS, SINH, COSH, SQRT, RSQRT, SIGN, LGAMMA, DIGAMMA, POLYGAMMA, POWER, IGAMMA_GRAD_A),
    *(GREATER, LESS, EQUAL, UNEQUAL, MAXIMUM, MINIMUM),
    *(_predicate(name, getattr(lax, name)) for name in ("ge", "le")),
    *(_predicate(name, getattr(lax, name), 1) for name in ("floor", "ceil", "is_finite")),
    _operation("exp2", lax.exp2, lambda x: _LN_2 * FUNCTIONS["exp2"](x)),
    _operation("log2", jnp.log2, lambda x: 1 / (_LN_2 * x)),
    _operation("expm1", lax.expm1, lambda x: FUNCTIONS["expm1"](x) + 1),
    _operation("logistic", lax.logistic, lambda x: FUNCTIONS["logistic"](x) * (1 - FUNCTIONS["logistic"](x))),
    _operation("tan", lax.tan, lambda x: 1 + FUNCTIONS["tan"](x) ** 2),
    _operation("asin", lax.asin, lambda x: RSQRT(1 - x**2)),
    _operation("acos", lax.acos, lambda x: -RSQRT(1 - x**2)),
    _operation("atan", lax.atan, lambda x: 1 / (1 + x**2)),
    _operation("tanh", lax.tanh, lambda x: (1 - FUNCTIONS["tanh"](x)) * (1 + FUNCTIONS["tanh"](x))),
    _operation("asinh", lax.asinh, lambda x: RSQRT(1 + x**2)),
    _operation("acosh", lax.acosh, lambda x: RSQRT((x - 1) * (x + 1))),
    _operation("atanh", lax.atanh, lambda x: 1 / ((1 - x) * (1 + x))),
    _operation("cbrt", lax.cbrt, lambda x: 1 / (3 * FUNCTIONS["cbrt"](x) ** 2)),
    _operation("abs", lax.abs, SIGN),
    _operation("one_minus_square", lambda x: (1 - x) * (1 + x), lambda x: -2 * x),
    _operation("erf", lax.erf, lambda x: 2 / _SQRT_PI * EXP(-(x**2))),
    _operation("erfc", lax.erfc, lambda x: -2 / _SQRT_PI * EXP(-(x**2))),
    _operation("erf_inv", lax.erf_inv, lambda x: _SQRT_PI / 2 * EXP(FUNCTIONS["erf_inv"](x) ** 2)),
    _operation("atan2", lax.atan2, lambda y, x: x / (y**2 + x**2), lambda y, x: -y / (y**2 + x**2)),
    _operation("igamma", lax.igamma, IGAMMA_GRAD_A, _igamma_in_x),
    _operation("igammac", lax.igammac, lambda a, x: -IGAMMA_GRAD_A(a, x), lambda a, x: -_igamma_in_x(a, x)),
    _operation("regularized_incomplete_beta", lax.betainc, None, None, _betainc_in_x),
)
FUNCTIONS: dict[str, Any] = {operation.__name__: operation for operation in _OPERATIONS}


def _clamp(low: Any, x: Any, high: Any) -> Any:
    # On an edge the derivative is zero, as in JAX.
    at_bound = SELECT(GREATER(low, x), low, SELECT(LESS(high, x), high, _CLAMP(low, x, high)))
    return SELECT(sympy.And(_condition(GREATER(x, low)), _condition(LESS(x, high))), x, at_bound)


Condition: Any = types.new_class("condition", (sympy.logic.boolalg.BooleanFunction,))


def _condition(predicate: Any) -> Any:
    """A predicate as a truth value of SymPy's logic, which takes no functions."""
    return Condition(predicate)


ADD = sympy.Add
MULTIPLY = sympy.Mul

# What SymPy's own arithmetic and logic express.
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "add_any": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "square": lambda x: x**2,
    "and": sympy.And,
    "or": sympy.Or,
    "not": sympy.Not,
    "xor": sympy.Xor,
    "clamp": _clamp,
}
