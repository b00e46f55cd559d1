"""What a gradient scenario is: a function, where to evaluate it, what is expected, and why it is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True, eq=False)
class Scenario:
    """A scalar function with a point at which every backend must give its gradient or refuse by name.

    Points and data are numbers that single precision holds exactly (see `exact`), so that the same problem is posed
    in either precision, unless `dtypes` says that single precision cannot hold it.

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
        dtypes: the precisions in which the problem can be posed.
        declared: whether the derivative is what a rule or `stop_gradient` declares, and not that of the values.
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
    dtypes: tuple[type[np.floating[Any]], ...] = (np.float64, np.float32)
    declared: bool = False


def exact(numbers: Any) -> Any:
    """The nearest numbers that single precision holds, as float64.

    Args:
        numbers: an array, a number, or a sequence of numbers.

    Returns:
        A NumPy array of the same shape.
    """
    return np.asarray(numbers, np.float32).astype(np.float64)


def cast(scenario: Scenario, dtype: type[np.floating[Any]]) -> Scenario:
    """The same scenario in another precision: the point, its double elsewhere and the floating constants.

    Integers stay as they are, and so do the expected value and gradient: they are the yardstick, in float64.

    Args:
        scenario: in float64.
        dtype: one of `scenario.dtypes`.

    Returns:
        A scenario. Evaluate it inside `jax.enable_x64(False)` where `dtype` is float32, as `sample` does.

    Raises:
        ValueError: if the problem cannot be posed in `dtype`.
    """
    if dtype not in scenario.dtypes:
        names = ", ".join(np.dtype(one).name for one in scenario.dtypes)
        raise ValueError(
            f"scenario {scenario.name!r} cannot be posed in {np.dtype(dtype).name}: {scenario.special}; "
            f"its precisions are {names}."
        )

    def one(leaf: Any) -> Any:
        array = np.asarray(leaf)
        return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else leaf

    x, elsewhere, constants = jax.tree.map(one, (scenario.x, scenario.elsewhere, scenario.constants))
    return dataclasses.replace(scenario, x=x, elsewhere=elsewhere, constants=constants)
