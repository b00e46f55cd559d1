"""The yardstick of a scenario, which no backend shares, and the verdict on a gradient measured by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..adtypes import AbstractADType
from ..errors import DifferentiationError
from ..gradient import prepare_gradient
from ..measuring.verdicts import Verdict
from ..measuring.yardstick import HostArray, finite_difference, flat, host_function, tolerance
from ..preparation import check_differentiable
from .scenario import Scenario, cast


@dataclass(frozen=True)
class Reference:
    """What a scenario should give, flat, in float64.

    Args:
        value: the expected value.
        gradient: the expected gradient, shape (dimension,).
        error: an estimate of its error, shape (dimension,); zero where it is a closed form.
    """

    value: float
    gradient: HostArray
    error: HostArray


@dataclass(frozen=True)
class Judgement:
    """A verdict, and why.

    Args:
        verdict: CORRECT, WRONG or NOT_FINITE; UNCERTAIN where the yardstick itself does not settle.
        reason: what is expected and what was got, with the coordinate; empty where it is correct.
        error: the largest error, in units of the tolerance.
    """

    verdict: Verdict
    reason: str = ""
    error: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """A named error in place of a gradient.

    Args:
        reason: the message.
    """

    reason: str


def reference_gradient(scenario: Scenario) -> Reference:
    """The closed form where the scenario has one, else finite differences in float64.

    Args:
        scenario: in float64.

    Returns:
        A `Reference`.

    Raises:
        TypeError: if the point or the result of the function is of another kind than floating point, or the result not
            one number.
        ValueError: if there is no closed form and the value is not finite.

    Source: Ridders (1982), see `yardstick.finite_difference`.
    """
    check_differentiable(scenario.x, scenario.name)
    host = host_function(scenario.f, scenario.x, *scenario.constants, subject=scenario.name)
    point = flat(scenario.x)
    value = host(point) if scenario.value is None else float(scenario.value)
    if scenario.gradient is None and not np.isfinite(value):
        raise ValueError(
            f"{scenario.name} is {value} at its point; there is no gradient to compare with where the value is not "
            f"finite. Give a point inside the domain."
        )
    if scenario.gradient is not None:
        return Reference(value, flat(scenario.gradient), np.zeros_like(point))
    slopes = [finite_difference(host, point, i) for i in range(len(point))]
    return Reference(value, np.array([s.derivative for s in slopes]), np.array([s.error for s in slopes]))


def judge(reference: Reference, value: Any, gradient: Any, dtype: Any) -> Judgement:
    """Hold a value and a gradient against the yardstick.

    A coordinate may be off by what `yardstick.tolerance` allows in the precision it was computed in, plus the error of
    the yardstick, plus one rounding of the value. In float64 that is 5e-7 of itself and 1.5e-8 of the largest
    coordinate; in float32 1.7e-3 and 3.5e-4, for there a sum over data loses three digits of seven where its terms
    cancel. So a relative error of 1e-4 shows in float64 and does not in float32, where one of 1e-2 does.

    Args:
        reference: see `reference_gradient`.
        value: a number.
        gradient: of the structure of the scenario's point.
        dtype: the precision of the computation.

    Returns:
        A `Judgement`.
    """
    found, expected = flat(gradient), reference.gradient
    if found.shape != expected.shape:
        return Judgement(Verdict.WRONG, f"a gradient of shape {found.shape}, expected {expected.shape}", np.inf)
    number = float(value)
    allowed = tolerance(expected, dtype) + 10.0 * reference.error + np.finfo(dtype).eps * abs(reference.value)
    entries = [("value", number, reference.value, float(tolerance(np.array([reference.value]), dtype)[0]))]
    rows = zip(found.tolist(), expected.tolist(), allowed.tolist(), strict=True)
    entries += [(f"derivative in coordinate {i}", *row) for i, row in enumerate(rows)]
    worst = 0.0
    for name, got, wanted, margin in entries:
        reason = f"{name} is {got:.9g}, expected {wanted:.9g} ± {margin:.2g}"
        if got == wanted:
            continue
        if not (np.isfinite(wanted) and np.isfinite(margin)):
            return Judgement(Verdict.UNCERTAIN, f"no yardstick: {reason}", np.nan)
        if not np.isfinite(got):
            return Judgement(Verdict.NOT_FINITE, reason, np.inf)
        worst = max(worst, abs(got - wanted) / margin)
        if worst > 1.0:
            return Judgement(Verdict.WRONG, reason, worst)
    return Judgement(Verdict.CORRECT, error=worst)


def try_adtype(
    scenario: Scenario, adtype: AbstractADType, dtype: Any, reference: Reference | None = None
) -> Judgement | Refusal:
    """One cell of the table: prepare elsewhere, evaluate at the point, judge.

    Args:
        scenario: in float64.
        adtype: how to differentiate.
        dtype: np.float64 or np.float32; JAX is switched to it meanwhile, as `sample` does.
        reference: the yardstick, where it is known.

    Returns:
        A `Judgement`, or a `Refusal` where the adtype raised a `DifferentiationError`.

    Raises:
        ValueError: if the scenario cannot be posed in `dtype`.
    """
    posed = cast(scenario, dtype)
    reference = reference or reference_gradient(scenario)
    with jax.enable_x64(bool(np.dtype(dtype) == np.float64)):
        try:
            prepared = prepare_gradient(posed.f, adtype, posed.elsewhere, *posed.constants, subject=posed.name)
            value, gradient = prepared.value_and_gradient(posed.x, *posed.constants)
        except DifferentiationError as error:
            return Refusal(str(error))
    return judge(reference, value, gradient, dtype)
