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

from .equations import bind, called_body, evaluate, shaped

Elementwise = Callable[..., Any]
# From an equation to what takes its place, a function of its operands, or to None.
Replacements = Callable[[Any], Elementwise | None]


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
        TypeError: if a slope is no function, or there is none. When called: with another number of arguments than
            there are slopes. When differentiated: if a slope returns another shape than that of the value.

    Example:
        >>> @elementwise_rule(lambda value, x: 1 - value**2)
        ... def squash(x):
        ...     return jnp.tanh(x)

    Source: `@scalar_rule` of ChainRules.jl.
    """
    wrong = [slope for slope in slopes if not callable(slope)]
    if wrong or not slopes:
        raise TypeError(
            f"elementwise_rule: each argument of the function needs a slope, a function slope(value, *arguments), "
            f"got {repr(wrong[0]) if wrong else 'none'}; write @elementwise_rule(lambda value, x: ...)."
        )

    def decorate(function: Elementwise) -> Elementwise:
        if not callable(function):
            raise TypeError(
                f"elementwise_rule: decorates a function, got {function!r}; "
                f"give it the slopes first, elementwise_rule(lambda value, x: ...)(function)."
            )
        name = getattr(function, "__name__", "function")
        ruled = jax.custom_jvp(function)

        def slope_at(place: int, value: Any, primals: Sequence[Any]) -> Any:
            found = jnp.asarray(slopes[place](value, *primals))
            if found.shape not in ((), value.shape):
                raise TypeError(
                    f"{name}: slope {place + 1} of its elementwise_rule returned shape {found.shape}, expected "
                    f"{value.shape}, that of the value; return the partial derivative element by element."
                )
            return found

        def change(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
            value = ruled(*primals)
            parts = [slope_at(place, value, primals) * tangent for place, tangent in enumerate(tangents)]
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
    return jnp.maximum(x, 0) + _log1p_of_fraction(jnp.exp(-jnp.abs(x)))


def _log1p_of_fraction(u: Any) -> Any:
    """log(1 + u) for 0 ≤ u ≤ 1 to the last two bits, as 2 artanh(u / (2 + u)).

    Multiplications alone, which the compiler vectorises: XLA's own `log1p` takes four times as long on a CPU.

    Source: Abramowitz and Stegun (1964), 4.1.29.
    """
    s = u / (2 + u)
    square = s * s  # at most 1/9: the terms left out are below 9⁻¹⁷ / 35
    series = 1 / 33
    for k in range(31, 0, -2):
        series = series * square + 1 / k
    return 2 * s * series


def _distance(x: Any, y: Any) -> Any:
    """The difference x − y; 0 where the two are the same infinity."""
    return jnp.where((x == y) & jnp.isinf(x), 0, x - y)


def _share(_: Any, x: Any, y: Any) -> Any:
    return _sigmoid(None, _distance(x, y))


def _other_share(_: Any, x: Any, y: Any) -> Any:
    # Through the same exponential as that of the first.
    distance = _distance(x, y)
    small = jnp.exp(-jnp.abs(distance))
    return jnp.where(distance >= 0, small, 1) / (1 + small)


@elementwise_rule(_share, _other_share)
def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)) with the derivatives 1 / (1 + exp(y − x)) and 1 / (1 + exp(x − y))."""
    return jnp.maximum(x, y) + _log1p_of_fraction(jnp.exp(-jnp.abs(_distance(x, y))))


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

    Raises:
        TypeError: if one of them is something else.
    """

    function: str
    known: tuple[float | None, ...]
    replacement: Elementwise

    def __post_init__(self) -> None:
        if not isinstance(self.function, str):
            raise TypeError(f"Rule: function must be the name of one, such as 'logaddexp', got {self.function!r}.")
        numbers = isinstance(self.known, tuple) and all(k is None or isinstance(k, (int, float)) for k in self.known)
        if not numbers or not self.known:
            raise TypeError(
                f"Rule: known must be a tuple with a number or None for each operand of {self.function}, such as "
                f"(0.0, None), got {self.known!r}."
            )
        if not callable(self.replacement):
            raise TypeError(
                f"Rule: replacement must be a function of the operands of {self.function} that are not known, "
                f"got {self.replacement!r}; make it with elementwise_rule."
            )

    def of_operands(self, *operands: Any) -> Any:
        """The replacement of all operands."""
        return self.replacement(*(o for o, known in zip(operands, self.known, strict=True) if known is None))


# The derivative that JAX gives log(exp(a) + exp(b)) is made for two arguments that move; with one of them zero it
# costs three times the function. That is the likelihood of every binary outcome.
_RULES: list[Rule] = [
    Rule("logaddexp", (0.0, None), softplus),
    Rule("logaddexp", (None, 0.0), softplus),
    Rule("logaddexp", (None, None), logaddexp),
    # JAX's own derivatives fail for counts, and are NaN for no events of probability zero.
    Rule("xlogy", (None, None), xlogy),
    Rule("xlog1py", (None, None), xlog1py),
]


def register_rule(rule: Rule) -> None:
    """Use a rule from now on, before those registered earlier.

    Args:
        rule: for a JAX function; its replacement must have the same value.

    Raises:
        TypeError: if `rule` is not a `Rule`.
    """
    if not isinstance(rule, Rule):
        raise TypeError(
            f"register_rule: expected a rule, got {rule!r}; write Rule(function, known, replacement), for example "
            f"Rule('logaddexp', (0.0, None), softplus)."
        )
    _RULES.insert(0, rule)


def registered_rules() -> tuple[Rule, ...]:
    """The rules in use, in the order in which they are tried."""
    return tuple(_RULES)


def with_rules(f: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The same function of one array, with the registered rules in place of the functions they are for."""
    return replaced(f, _by_rule)


def replaced(f: Callable[[jax.Array], jax.Array], find: Replacements) -> Callable[[jax.Array], jax.Array]:
    """The same function of one array, with other functions in place of some of its operations.

    Args:
        f: the function. Operations are looked for in what it calls and in bodies of `scan`, not in other loops and
            branches.
        find: from an equation to the function of its operands that takes its place, or to None.
    """

    def rewritten(x: jax.Array) -> jax.Array:
        closed = jax.make_jaxpr(f)(x)
        if not _has_match(closed.jaxpr, find):
            return jnp.asarray(jaxpr_as_fun(closed)(x)[0])
        return jnp.asarray(evaluate(closed, [x], functools.partial(_apply, find))[0])

    return rewritten


def _apply(find: Replacements, equation: Any, operands: list[Any]) -> list[Any]:
    replacement, body, apply = find(equation), called_body(equation), functools.partial(_apply, find)
    if replacement is not None:
        (result,) = equation.outvars
        shape, dtype = shaped(result)
        return [jnp.broadcast_to(replacement(*operands), shape).astype(dtype)]
    if body is not None and _has_match(body.jaxpr, find):
        return evaluate(body, operands, apply)
    if equation.primitive.name == "scan" and _has_match(equation.params["jaxpr"].jaxpr, find):
        inner = equation.params["jaxpr"]
        ruled = jax.make_jaxpr(lambda *arguments: evaluate(inner, arguments, apply))(*inner.in_avals)
        return bind(equation.replace(params={**equation.params, "jaxpr": ruled}), operands)
    return bind(equation, operands)


def _by_rule(equation: Any) -> Elementwise | None:
    """What the registry has for an equation."""
    if equation.primitive.name != "custom_jvp_call":
        return None
    name = equation.params["call_jaxpr"].jaxpr.debug_info.func_name
    for rule in _RULES:
        if rule.function == name and len(rule.known) == len(equation.invars):
            pairs = zip(rule.known, equation.invars, strict=True)
            if all(known is None or _is_known(atom, known) for known, atom in pairs):
                return rule.of_operands
    return None


def _is_known(atom: Any, number: float) -> bool:
    return isinstance(atom, Literal) and bool(jnp.size(atom.val) == 1) and float(atom.val) == number


def _has_match(jaxpr: Any, find: Replacements) -> bool:
    for equation in jaxpr.eqns:
        if find(equation) is not None:
            return True
        body = called_body(equation)
        inner = equation.params["jaxpr"].jaxpr if equation.primitive.name == "scan" else body and body.jaxpr
        if inner is not None and _has_match(inner, find):
            return True
    return False
