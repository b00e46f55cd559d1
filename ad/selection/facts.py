"""What the fences ask of equations: what they move, what is dangerous, what may be computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, subjaxprs

from ..dual.elementwise import body_is_elementwise
from ..equations import CHECKPOINTS, bind, called_body, evaluate, shaped

# Linear, or with slopes that are zero and one: what is finite going back stays so.
_TAME = frozenset({
    "add", "add_any", "sub", "neg", "convert_element_type", "copy", "copy_p", "reduce_precision", "max", "min", "clamp",
})  # fmt: skip

# With an infinite slope at a finite point where the function is finite or at the end of its domain.
_SINGULAR = frozenset({
    "acos", "acosh", "asin", "atan2", "atanh", "cbrt", "digamma", "div", "erf_inv", "lgamma", "log",
    "log1p", "pow", "rsqrt", "sqrt",
})  # fmt: skip

# Linear operations that carry an element of an operand to elements of the result. The first give each element of the
# operand the cotangent of one element, the others a sum of several, where NaN of one would spoil the rest.
MOVES = frozenset({
    "concatenate", "dynamic_slice", "dynamic_update_slice", "expand_dims", "pad", "reshape", "rev", "slice", "split",
    "squeeze", "stack", "transpose", "unstack",
})  # fmt: skip
SPREADS = frozenset({"broadcast_in_dim", "cumsum", "gather", "reduce_window_sum"})
REDUCTIONS = frozenset({"reduce_sum", "reduce_prod", "reduce_max", "reduce_min"})


def inlined(program: Any) -> Any:
    """The program with those in place that it only calls, but for what is to be computed twice."""

    def apply(equation: Any, operands: list[Any]) -> list[Any]:
        body = called_body(equation)
        return bind(equation, operands) if body is None else evaluate(body, operands, apply)

    def run(*arguments: Any) -> list[Any]:
        return evaluate(program, arguments, apply)

    return jax.make_jaxpr(run)(*(var.aval for var in program.jaxpr.invars))


def decisions_first(equations: Sequence[Any]) -> list[Any]:
    """The equations, those first that decide what selections take: masks are known early then."""
    defined = {var: k for k, equation in enumerate(equations) for var in equation.outvars}
    first: set[int] = set()
    stack = [equation.invars[0] for equation in equations if equation.primitive.name == "select_n"]
    while stack:
        k = None if isinstance(atom := stack.pop(), Literal) else defined.get(atom)
        if k is not None and k not in first:
            first.add(k)
            stack += equations[k].invars
    return [equations[k] for k in sorted(range(len(equations)), key=lambda k: (k not in first, k))]


def hot(jaxpr: Any, results: bool) -> set[Any]:
    """The values whose cotangent may be infinite at elements by which the result moves."""
    hot = {atom for atom in jaxpr.outvars if results and not isinstance(atom, Literal)}
    for equation in reversed(jaxpr.eqns):
        name = equation.primitive.name
        singular = name in _SINGULAR or (name == "integer_pow" and equation.params["y"] < 0)
        if singular or not hot.isdisjoint(equation.outvars):
            hot.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return hot


def has_selection(jaxpr: Any) -> bool:
    """Whether anything is selected in a program, however deep."""
    names = ("select_n", "max", "min")
    if any(equation.primitive.name in names and moves(equation.outvars[0]) for equation in jaxpr.eqns):
        return True
    return any(has_selection(inner) for inner in subjaxprs(jaxpr))


def moves(atom: Any) -> bool:
    """Whether a value is of a kind that has derivatives."""
    return hasattr(atom.aval, "dtype") and bool(jnp.issubdtype(atom.aval.dtype, jnp.inexact))


def is_tame(equation: Any, index: int) -> bool:
    """Whether operand `index` gets a finite cotangent whenever the result has one."""
    name = equation.primitive.name
    if name in _TAME:
        return True
    if name != "mul" and (name != "div" or index == 1):
        return False
    other = equation.invars[1 - index]
    return isinstance(other, Literal) and bool(np.isfinite(other.val if name == "mul" else 1 / other.val))


def passes(equation: Any, atom: Any) -> bool:
    """Whether each element of an operand matters for the same element of the result alone, in a checkpoint."""
    if equation.primitive.name not in CHECKPOINTS or len({shaped(var)[0] for var in equation.outvars}) != 1:
        return False
    shape = shaped(equation.outvars[0])[0]
    return shaped(atom)[0] == shape and body_is_elementwise(equation.params["jaxpr"], shape)


def is_cheap(equation: Any) -> bool:
    """Whether an equation may be evaluated twice: the compiler merges it, unless it is a loop or has effects."""
    name = equation.primitive.name
    nested = any(hasattr(leaf, "eqns") for leaf in jax.tree.leaves(list(equation.params.values())))
    return not equation.effects and "callback" not in name and (not nested or name == "custom_jvp_call")
