"""Which of several backends are right at a point: those that agree, or that finite differences agree with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adtypes import Backend, Problem
from ..errors import DifferentiationError
from ..finite_difference import AutoFiniteDiff, ForwardDifference
from .timing import TimedLoop
from .yardstick import HostArray, Slope, tolerance


@dataclass(frozen=True)
class Evaluated:
    """A value and its derivative, as NumPy.

    Args:
        values: all numbers of the value, flat.
        gradient: all numbers of the derivative, flat; for a function with one number as its value the gradient.
    """

    values: HostArray
    gradient: HostArray

    @property
    def value(self) -> float:
        """The value, where it is one number."""
        return float(self.values[0])

    @classmethod
    def at(cls, loop: TimedLoop, point: tuple[Any, ...]) -> Evaluated:
        """By the program that is timed."""
        value, derivative = jax.block_until_ready(loop.evaluate(*point))
        return cls(_flat(value), _flat(derivative))

    @classmethod
    def attempt(cls, loop: TimedLoop, point: tuple[Any, ...]) -> Evaluated:
        """The same, but not finite where a callback fails, as it may outside the function's domain."""
        try:
            return cls.at(loop, point)
        except jax.errors.JaxRuntimeError:
            return cls(np.full(1, np.nan), np.zeros(0))

    @property
    def finite(self) -> bool:
        """Whether the value and all of the derivative are."""
        return bool(np.isfinite(self.values).all() and np.isfinite(self.gradient).all())


def _flat(tree: Any) -> HostArray:
    leaves = [np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def rule_out(loops: Mapping[Backend, TimedLoop], point: tuple[Any, ...], problem: Problem) -> dict[Backend, str]:
    """The backends that are wrong at a point, each with the reason.

    A backend is out where it is not finite and another is. Among the others, where two disagree, finite differences
    in the coordinate where they do so most decide; where these do not settle, the majority does.

    Args:
        loops: the compiled evaluations by backend.
        point: `(x, *constants)`.
        problem: what they evaluate: a gradient, or any other first derivative.

    Raises:
        DifferentiationError: where neither can decide.
    """
    results = {backend: Evaluated.attempt(loop, point) for backend, loop in loops.items()}
    right = {backend: result for backend, result in results.items() if result.finite}
    verdicts = dict.fromkeys(results.keys() - right.keys(), "is not finite where others are") if right else {}
    dtype = jnp.result_type(*jax.tree.leaves(point[0]))
    slopes = functools.cache(functools.partial(_slopes, problem, point))
    while (place := _dispute(list(right.values()), dtype)) is not None:
        slope = slopes()(place)
        wrong = _outvoted({b: r.gradient for b, r in right.items()}, place, slope, dtype)
        if wrong is None:
            found = ", ".join(f"{b!r} {r.gradient[place]:.6g}" for b, r in right.items())
            raise DifferentiationError(
                f"{problem.subject}: the candidates of AutoFastest disagree in coordinate {place} ({found}; finite "
                f"difference {slope.derivative:.6g} ± {slope.error:.1g}), and none is proven right; look at "
                f"check_gradients(f, x), then name the adtype to use."
            )
        for backend in wrong:
            del right[backend]
        verdicts |= wrong
    return verdicts


def _slopes(problem: Problem, point: tuple[Any, ...]) -> Callable[[int], Slope]:
    """The same derivative by finite differences, by place: adaptive ones, with their distance from plain ones as error.

    That is far more than their error for a smooth function, and says where there is a kink. Where the function cannot
    be differentiated so, NaN.
    """
    judges = AutoFiniteDiff(), AutoFiniteDiff(ForwardDifference())
    if not all(map(problem.supported, judges)):
        return lambda place: Slope(np.nan, np.inf, True)
    adaptive, plain = (_flat(jax.jit(problem.evaluator(judge))(*point)[1]) for judge in judges)
    return lambda place: Slope(float(adaptive[place]), float(abs(adaptive[place] - plain[place])), True)


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
    near = {b for b, d in found.items() if abs(d - slope.derivative) <= allowed + slope.error}
    if near and len(near) < len(found):
        expected = f"finite differences, {slope.derivative:.6g} ± {slope.error:.1g}"
    else:
        groups = [{b for b, d in found.items() if abs(d - other) <= allowed} for other in found.values()]
        near = max(groups, key=len)
        if 2 * len(near) <= len(found):
            return None
        expected = "the majority"
    return {b: f"disagrees with {expected}: {d:.6g} in coordinate {place}" for b, d in found.items() if b not in near}
