"""A registry of derivative rules: for the user's own functions, and for JAX functions whose derivative can be cheaper.

A rule states the partial derivatives of an elementwise function, which is all that either mode needs: forward mode
multiplies tangents by them, reverse mode cotangents. It is the job of ChainRules.jl.

Where a function that is differentiated calls one of JAX's with a rule registered here, the derivative uses the rule,
under every adtype; the value stays the same to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxpr_as_fun

from .equations import Body, bind, evaluate, inlined_body, shaped

Elementwise = Callable[..., Any]


def elementwise_rule(*slopes: Elementwise) -> Callable[[Elementwise], Elementwise]:
    """Give an elementwise function its partial derivatives; a decorator.

    For v = p(u_1, ..., u_m) the change is dv = Σ_j slope_j · du_j, in forward mode as it stands, in reverse mode
    transposed.

    Args:
        slopes: for each argument of the function a function `slope(value, *arguments)` that gives the partial
            derivative, of the shape of the value, from the value and the arguments.

    Returns:
        A decorator; the decorated function takes numbers or arrays, broadcasts as `jax.numpy` does, and can be used
        under `jit`, `vmap` and any adtype.

    Raises:
        TypeError: when called with another number of arguments than there are slopes.

    Example:
        >>> @elementwise_rule(lambda value, x: 1 - value**2)
        ... def squash(x):
        ...     return jnp.tanh(x)

    Source: `@scalar_rule` of ChainRules.jl.
    """

    def decorate(function: Elementwise) -> Elementwise:
        name = getattr(function, "__name__", "function")
        ruled = jax.custom_jvp(function)

        def change(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
            value = ruled(*primals)
            parts = [
                jnp.asarray(slope(value, *primals)) * tangent for slope, tangent in zip(slopes, tangents, strict=True)
            ]
            return value, functools.reduce(jnp.add, parts)

        ruled.defjvp(change)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            if len(arguments) != len(slopes):
                raise TypeError(
                    f"{name}: called with {len(arguments)} argument(s), and its rule has {len(slopes)} slope(s); "
                    f"give elementwise_rule one slope an argument."
                )
            dtype = jnp.result_type(float, *arguments)
            return ruled(*jnp.broadcast_arrays(*(jnp.asarray(argument, dtype) for argument in arguments)))

        return call

    return decorate


def _sigmoid(_: Any, x: Any) -> Any:
    # Through exp(-|x|), which the value has computed already.
    small = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1, small) / (1 + small)


@elementwise_rule(_sigmoid)
def softplus(x: Any) -> Any:
    """log(1 + exp(x)) with the derivative 1 / (1 + exp(-x)); finite wherever x is."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@elementwise_rule(
    lambda value, x, y: jnp.where((x == 0) & (y == 0), 0, jnp.log(y)),
    lambda value, x, y: jnp.where(x == 0, 0, x / jnp.where(x == 0, 1, y)),
)
def xlogy(x: Any, y: Any) -> Any:
    """X log y, zero where x is; for whole numbers x too."""
    return jax.scipy.special.xlogy(x, y)


@elementwise_rule(
    lambda value, x, y: jnp.where((x == 0) & (y == -1), 0, jnp.log1p(y)),
    lambda value, x, y: jnp.where(x == 0, 0, x / (1 + jnp.where(x == 0, 0, y))),
)
def xlog1py(x: Any, y: Any) -> Any:
    """X log(1 + y), zero where x is; for whole numbers x too."""
    return jax.scipy.special.xlog1py(x, y)


@dataclass(frozen=True)
class Rule:
    """What to use in place of a JAX function.

    Args:
        function: the name of a JAX function with a `custom_jvp` derivative, such as "logaddexp".
        known: for each operand the number that it must be, known beforehand, or None for any.
        replacement: a function of the operands that are not known.
    """

    function: str
    known: tuple[float | None, ...]
    replacement: Elementwise


# The derivative that JAX gives log(exp(a) + exp(b)) is made for two arguments that move; with one of them zero it
# costs three times the function. That is the likelihood of every binary outcome.
_RULES: list[Rule] = [
    Rule("logaddexp", (0.0, None), softplus),
    Rule("logaddexp", (None, 0.0), softplus),
    # JAX's own derivatives fail for counts, and are NaN for no events of probability zero.
    Rule("xlogy", (None, None), xlogy),
    Rule("xlog1py", (None, None), xlog1py),
]


def register_rule(rule: Rule) -> None:
    """Use a rule from now on, before those registered earlier.

    Args:
        rule: for a JAX function; its replacement must have the same value.
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"register_rule: expected a Rule(function, known, replacement), got {rule!r}.")
    _RULES.insert(0, rule)


def with_rules(f: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The same function of one array, with the registered rules in place of the functions they are for."""

    def ruled(x: jax.Array) -> jax.Array:
        closed = jax.make_jaxpr(f)(x)
        if not _has_match(closed.jaxpr):
            return jnp.asarray(jaxpr_as_fun(closed)(x)[0])
        return jnp.asarray(evaluate(closed, [x], _apply)[0])

    return ruled


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    rule, body = _match(equation), _called(equation)
    if rule is not None:
        free = [o for o, known in zip(operands, rule.known, strict=True) if known is None]
        (result,) = equation.outvars
        shape, dtype = shaped(result)
        return [jnp.broadcast_to(rule.replacement(*free), shape).astype(dtype)]
    if body is not None and _has_match(body.jaxpr):
        return evaluate(body, operands, _apply)
    if equation.primitive.name == "scan" and _has_match(equation.params["jaxpr"].jaxpr):
        inner = equation.params["jaxpr"]
        ruled = jax.make_jaxpr(lambda *arguments: evaluate(inner, arguments, _apply))(*inner.in_avals)
        return bind(equation.replace(params={**equation.params, "jaxpr": ruled}), operands)
    return bind(equation, operands)


def _match(equation: Any) -> Rule | None:
    if equation.primitive.name != "custom_jvp_call":
        return None
    name = equation.params["call_jaxpr"].jaxpr.debug_info.func_name
    for rule in _RULES:
        if rule.function == name and len(rule.known) == len(equation.invars):
            pairs = zip(rule.known, equation.invars, strict=True)
            if all(known is None or _is_known(atom, known) for known, atom in pairs):
                return rule
    return None


def _called(equation: Any) -> Body | None:
    """The program that an equation calls, but for one that is to be computed twice: it stays as the user wrote it."""
    return inlined_body(equation) if equation.primitive.name in ("jit", "pjit") else None


def _is_known(atom: Any, number: float) -> bool:
    return isinstance(atom, Literal) and bool(jnp.size(atom.val) == 1) and float(atom.val) == number


def _has_match(jaxpr: Any) -> bool:
    for equation in jaxpr.eqns:
        if _match(equation) is not None:
            return True
        body = _called(equation)
        inner = equation.params["jaxpr"].jaxpr if equation.primitive.name == "scan" else body and body.jaxpr
        if inner is not None and _has_match(inner):
            return True
    return False
