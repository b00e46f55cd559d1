"""Derivatives by finite differences, marked in a program, so that what differentiates them once more can tell.

The mark is the identity. Reverse mode meets it before the loop of an adaptive scheme, which it cannot pass, and says
so; a scheme whose errors are too large to be differenced finds it in the program.
"""

from __future__ import annotations

from typing import Any

from jax.extend.core import Primitive, subjaxprs
from jax.interpreters import ad, batching, mlir

from .adtypes import Array
from .errors import DifferentiationError

_mark_p = Primitive("finite_difference")


def marked(derivative: Array, scheme: str, loops: bool) -> Array:
    """The same numbers, marked as a derivative by finite differences.

    Args:
        derivative: of any shape.
        scheme: the name of the scheme that took it.
        loops: whether it took a loop of unknown length, which reverse mode cannot pass.
    """
    value: Array = _mark_p.bind(derivative, scheme=scheme, loops=loops)
    return value


def holds_mark(jaxpr: Any, scheme: str) -> bool:
    """Whether a program takes derivatives by the scheme of that name."""
    for equation in jaxpr.eqns:
        if equation.primitive is _mark_p and equation.params["scheme"] == scheme:
            return True
    return any(holds_mark(inner, scheme) for inner in subjaxprs(jaxpr))


def _transpose(cotangent: Any, _: Any, *, scheme: str, loops: bool) -> list[Any]:
    if loops:
        raise DifferentiationError(
            f"reverse mode cannot pass a derivative by AutoFiniteDiff({scheme}()), whose loop ends when it has "
            f"converged; use AutoForward() around it, as in SecondOrder(AutoForward(), AutoFiniteDiff()), "
            f"AutoForward() in place of it, or a fixed order, AutoFiniteDiff(CentralDifference())"
        )
    return [cotangent]


_mark_p.def_impl(lambda derivative, **_: derivative)
_mark_p.def_abstract_eval(lambda derivative, **_: derivative)
ad.deflinear2(_mark_p, _transpose)
batching.defvectorized(_mark_p)
mlir.register_lowering(_mark_p, lambda _, derivative, **parameters: [derivative])
