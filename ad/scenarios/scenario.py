"""What a gradient scenario is: a function, where to evaluate it, what is expected, and why it is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Scenario:
    """A scalar function with a point at which every backend must give its gradient or refuse by name.

    Args:
        name: short and unique, in lower case.
        family: the group it belongs to, for tables.
        f: the function `f(x, *constants)`, a scalar.
        x: the point, a NumPy array, number or pytree of them, in float64.
        elsewhere: another point of the same structure, shapes and dtypes, at which it is prepared.
        special: what a backend may stumble over, in a sentence.
        constants: further arguments, not differentiated.
        value: the expected value where a closed form gives it; None where finite differences are the yardstick.
        gradient: the expected gradient, of the structure of `x`, where a closed form gives it.
    """

    name: str
    family: str
    f: Callable[..., Any]
    x: Any
    elsewhere: Any
    special: str
    constants: tuple[Any, ...] = ()
    value: float | None = None
    gradient: Any = None
