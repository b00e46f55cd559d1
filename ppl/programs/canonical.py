"""When two traced programs are the same function: their equations, with variables numbered as they appear."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import shaped
from .slicing import derivative


def canonical(
    inputs: Iterable[Var], equations: Iterable[JaxprEqn], outputs: Iterable[Any], rules: bool = True
) -> Hashable:
    """A value that two programs share only if they compute the same results from the same inputs.

    Programs that differ in more than the names of variables have different values; so have some that differ in
    nothing, where an equation has a parameter that cannot be compared, such as a function.
    """
    numbers: dict[Var, int] = {}

    def name(variable: Var) -> Hashable:
        shape, dtype = shaped(variable)
        return numbers.setdefault(variable, len(numbers)), shape, str(dtype)

    def read(atom: Any) -> Hashable:
        return ("literal", _comparable(atom.val), str(shaped(atom)[1])) if isinstance(atom, Literal) else name(atom)

    return (
        tuple(name(variable) for variable in inputs),
        tuple(
            (
                equation.primitive.name,
                _parameters(equation, rules),
                tuple(read(atom) for atom in equation.invars),
                tuple(name(variable) for variable in equation.outvars),
            )
            for equation in equations
        ),
        tuple(read(atom) for atom in outputs),
    )


def _parameters(equation: JaxprEqn, rules: bool) -> Hashable:
    parameters = {key: _comparable(value) for key, value in equation.params.items() if key != "jvp_jaxpr_fun"}
    if "jvp_jaxpr_fun" in equation.params and rules:
        # A function cannot be compared, the program of the derivative can. It may call the function again.
        try:
            rule = derivative(equation)
        except Exception:  # a rule that refuses has no program: such a call is like no other
            parameters["derivative"] = "object", id(equation.params["jvp_jaxpr_fun"])
        else:
            inner = rule.jaxpr
            own = canonical((*inner.constvars, *inner.invars), inner.eqns, inner.outvars, rules=False)
            parameters["derivative"] = own, tuple(_comparable(const) for const in rule.consts)
    return tuple((key, parameters[key]) for key in sorted(parameters))


def _comparable(value: Any) -> Hashable:
    if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
        consts = tuple(_comparable(const) for const in getattr(value, "consts", ()))
        inner = getattr(value, "jaxpr", value)
        return "program", canonical((*inner.constvars, *inner.invars), inner.eqns, inner.outvars), consts
    if isinstance(value, (np.ndarray, np.generic, jax.Array)) and not isinstance(value, jax.core.Tracer):
        array = np.asarray(value)
        return "array", array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, (tuple, list)):
        return tuple(_comparable(item) for item in value)
    if isinstance(value, float):
        return "float", value.hex()  # 0.0 and -0.0 are equal, and NaN is not equal to itself
    try:
        hash(value)
    except TypeError:
        return "object", id(value)
    return type(value).__name__, value
