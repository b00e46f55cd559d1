"""Which of several backends are right at a point: those that agree, or that finite differences agree with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from ..adtypes import Backend
from ..errors import DifferentiationError
from ..naming import written
from .timing import TimedLoop
from .yardstick import HostArray, Slope, finite_difference, tolerance


@dataclass(frozen=True)
class Evaluated:
    """A value and a flat gradient, as NumPy."""

    value: float
    gradient: HostArray

    @classmethod
    def at(cls, loop: TimedLoop, point: tuple[Any, ...]) -> Evaluated:
        """By the program that is timed."""
        value, gradient = jax.block_until_ready(loop.evaluate(*point))
        leaves = [np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(gradient)]
        return cls(float(value), np.concatenate(leaves) if leaves else np.zeros(0))

    @classmethod
    def attempt(cls, loop: TimedLoop, point: tuple[Any, ...]) -> Evaluated:
        """The same, but not finite where a callback fails, as it may outside the function's domain."""
        try:
            return cls.at(loop, point)
        except jax.errors.JaxRuntimeError:
            return cls(np.nan, np.zeros(0))

    @property
    def finite(self) -> bool:
        """Whether the value and all of the gradient are."""
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())


def rule_out(loops: Mapping[Backend, TimedLoop], point: tuple[Any, ...], subject: str) -> dict[Backend, str]:
    """The backends that are wrong at a point, each with the reason.

    A backend is out where it is not finite and another is. Among the others, where two disagree, finite differences
    in the coordinate where they do so most decide; where these do not settle, the majority does.

    Args:
        loops: the compiled evaluations by backend.
        point: `(x, *constants)`.
        subject: what to call the function in messages.

    Raises:
        DifferentiationError: where neither can decide.
    """
    results = {backend: Evaluated.attempt(loop, point) for backend, loop in loops.items()}
    right = {backend: result for backend, result in results.items() if result.finite}
    verdicts = dict.fromkeys(results.keys() - right.keys(), "is not finite where others are") if right else {}
    flat, unravel = ravel_pytree(point[0])
    dtype = np.dtype(flat.dtype)
    while (place := _dispute(list(right.values()), dtype)) is not None:
        judge = loops[next(iter(right))]

        def value(x: HostArray, judge: TimedLoop = judge) -> float:
            return float(judge.evaluate(unravel(jax.numpy.asarray(x, dtype)), *point[1:])[0])

        slope = finite_difference(value, np.asarray(flat, float), place, float(np.finfo(dtype).eps))
        wrong = _outvoted({b: r.gradient for b, r in right.items()}, place, slope, dtype)
        if wrong is None:
            found = ", ".join(f"{written(b)} {r.gradient[place]:.6g}" for b, r in right.items())
            raise DifferentiationError(
                f"{subject}: the candidates of AutoFastest disagree in coordinate {place} ({found}; finite difference "
                f"{slope.derivative:.6g} ± {slope.error:.1g}), and none is proven right; look at "
                f"check_gradients(f, x), then name the adtype to use."
            )
        for backend in wrong:
            del right[backend]
        verdicts |= wrong
    return verdicts


def _dispute(results: list[Evaluated], dtype: Any) -> int | None:
    """The coordinate in which gradients differ most, beyond rounding; None where they agree."""
    gradients = np.array([result.gradient for result in results])
    if len(gradients) < 2 or gradients.shape[1] == 0:
        return None
    allowed = tolerance(np.max(np.abs(gradients), axis=0), dtype)
    ratio = np.ptp(gradients, axis=0) / allowed
    place = int(np.argmax(ratio))
    return place if ratio[place] > 1 else None


def _outvoted(
    gradients: Mapping[Backend, HostArray], place: int, slope: Slope, dtype: Any
) -> dict[Backend, str] | None:
    """Who is wrong in a coordinate, with the reason; None where it cannot be decided."""
    found = {backend: float(gradient[place]) for backend, gradient in gradients.items()}
    largest = np.max(np.abs(list(gradients.values())), axis=0)
    allowed = float(tolerance(largest, dtype)[place])
    near = {b for b, d in found.items() if abs(d - slope.derivative) <= allowed + 10 * slope.error}
    if near and len(near) < len(found):
        expected = f"finite differences, {slope.derivative:.6g}"
    else:
        groups = [{b for b, d in found.items() if abs(d - other) <= allowed} for other in found.values()]
        near = max(groups, key=len)
        if 2 * len(near) <= len(found):
            return None
        expected = "the majority"
    return {b: f"disagrees with {expected}: {d:.6g} in coordinate {place}" for b, d in found.items() if b not in near}
