"""The maximum of a log density, by SciPy's optimisers on our gradients."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..hamiltonian import check_integer, is_number
from .objective import HostArray, Objective

# A maximum is reached where the log density would rise by no more than this: 0.00005 standard deviations from the mode.
# What sums of many terms lose to rounding is counted in units of the last digit.
_RISE, _ROUNDING = 1e-9, 1e4

# Is shown every point that an optimiser accepts: the position, the log density and the gradient there.
Watch = Callable[[HostArray, float, HostArray], None]


@dataclass(frozen=True)
class Optimum:
    """Where an optimiser ended.

    Args:
        position: shape (dimension,).
        log_density: there.
        gradient: there, shape (dimension,).
        slope: the largest component of the gradient by which the log density could still rise inside the bounds.
        converged: whether it is a stationary point, to the precision of the arithmetic.
        message: what the optimiser said.
        evaluations: of the gradient, by the optimiser from this start.
    """

    position: HostArray
    log_density: float
    gradient: HostArray
    slope: float
    converged: bool
    message: str
    evaluations: int


@dataclass(frozen=True)
class Box:
    """Bounds on the coordinates of a position.

    Args:
        lower, upper: shape (dimension,), infinite where there is none.
    """

    lower: HostArray
    upper: HostArray

    @classmethod
    def everywhere(cls, dimension: int) -> Box:
        """No bounds."""
        return cls(np.full(dimension, -np.inf), np.full(dimension, np.inf))

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    def clip(self, position: HostArray) -> HostArray:
        """The point of the box next to a position."""
        return np.clip(position, self.lower, self.upper)

    def free(self, position: HostArray, gradient: HostArray) -> HostArray:
        """The gradient, zero where it points out of the box."""
        out = ((position <= self.lower) & (gradient < 0)) | ((position >= self.upper) & (gradient > 0))
        return np.where(out, 0.0, gradient)


@dataclass(frozen=True)
class AbstractOptimizer(abc.ABC):
    """A way to climb from a point to a maximum.

    Args:
        tolerance: the largest component of the gradient at which to stop.
        max_steps: iterations at most.

    Raises:
        ValueError: on a tolerance that is not positive, or a number of steps below 1.
    """

    # Whether it keeps inside a box.
    bounds: ClassVar[bool]

    tolerance: float = 1e-8
    max_steps: int = 2000

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not (is_number(self.tolerance) and 0 < self.tolerance < math.inf):
            raise ValueError(f"{name}: tolerance must be a positive number, got {self.tolerance!r}; 1e-8 is usual.")
        check_integer(name, "max_steps", self.max_steps, 1)

    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """The keywords of `scipy.optimize.minimize` beside the function and its gradient."""

    @abc.abstractmethod
    def rise(self, objective: Objective, found: Any, gradient: HostArray) -> float:
        """By how much the log density would still rise, ½ gᵀ (−H)⁻¹ g, from where the optimiser has stopped.

        Args:
            objective: the log density.
            found: what SciPy returned.
            gradient: g, shape (dimension,).
        """

    def hessian(self, objective: Objective) -> Callable[[HostArray], HostArray] | None:
        """The Hessian of what is minimised, if the optimiser uses one."""
        return None

    def maximize(self, objective: Objective, start: HostArray, box: Box, watch: Watch | None = None) -> Optimum:
        """Climb from one point.

        Args:
            objective: the log density.
            start: where it is finite, shape (dimension,).
            box: bounds.
            watch: is shown every accepted point, the start first.
        """
        from scipy import optimize

        climb = _Climb(objective, watch)
        # A slope of infinity, of which SciPy would make NaN, ends the search: the optimum says what it was.
        with np.errstate(all="ignore"):
            found = optimize.minimize(
                climb,
                box.clip(start).astype(float),
                jac=True,
                hess=self.hessian(objective),
                bounds=np.stack([box.lower, box.upper], axis=1) if box.bounded else None,
                callback=climb.accept,
                **self.options(),
            )
        position = box.clip(np.asarray(found.x))
        value, gradient = objective.value_and_gradient(position)
        free = box.free(position, gradient)
        slope = float(np.max(np.abs(free), initial=0.0))
        # SciPy takes any small rise for success, also on a slope without end; and where rounding hides the last rise
        # from it, it reports a failure.
        rounding = _ROUNDING * float(np.finfo(objective.dtype).eps) * abs(value)
        arrived = slope <= self.tolerance or self.rise(objective, found, free) <= max(_RISE, rounding)
        converged = math.isfinite(value) and math.isfinite(slope) and arrived
        message = found.message.decode() if isinstance(found.message, bytes) else str(found.message)
        return Optimum(position, value, gradient, slope, converged, message, climb.evaluations)


@dataclass(frozen=True)
class LBFGS(AbstractOptimizer):
    """L-BFGS-B: quasi-Newton with a limited memory, inside bounds where there are any.

    Args:
        tolerance: the largest component of the gradient at which to stop.
        max_steps: iterations at most.
        memory: how many of the last steps tell the curvature.

    Source: Byrd, Lu, Nocedal and Zhu (1995), "A limited memory algorithm for bound constrained optimization".
    """

    bounds: ClassVar[bool] = True

    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("LBFGS", "memory", self.memory, 1)

    def rise(self, objective: Objective, found: Any, gradient: HostArray) -> float:
        """See `AbstractOptimizer.rise`; by what the last steps tell of the curvature."""
        return float(0.5 * gradient @ found.hess_inv.matvec(gradient))

    def options(self) -> dict[str, Any]:
        """See `AbstractOptimizer.options`."""
        limits = {"maxiter": self.max_steps, "maxfun": 20 * self.max_steps, "maxls": 50, "maxcor": self.memory}
        # SciPy would stop at a rise of 2e-9 of the value, some five digits of the position.
        return {"method": "L-BFGS-B", "options": {**limits, "gtol": self.tolerance, "ftol": 1e-15}}


@dataclass(frozen=True)
class TrustRegion(AbstractOptimizer):
    """Newton steps inside a trust region, on the Hessian by the adtype: few steps, for up to some hundred coordinates.

    Args:
        tolerance: the largest component of the gradient at which to stop.
        max_steps: iterations at most.

    Source: Conn, Gould and Toint (2000), "Trust Region Methods", section 7.3.
    """

    bounds: ClassVar[bool] = False

    def rise(self, objective: Objective, found: Any, gradient: HostArray) -> float:
        """See `AbstractOptimizer.rise`; by the Hessian."""
        values, vectors = np.linalg.eigh(-objective.hessian(found.x))
        along = vectors.T @ gradient
        moving = along != 0
        return math.inf if (values[moving] <= 0).any() else float(0.5 * np.sum(along[moving] ** 2 / values[moving]))

    def hessian(self, objective: Objective) -> Callable[[HostArray], HostArray]:
        """See `AbstractOptimizer.hessian`."""
        return lambda position: -objective.hessian(position)

    def options(self) -> dict[str, Any]:
        """See `AbstractOptimizer.options`."""
        return {"method": "trust-exact", "options": {"maxiter": self.max_steps, "gtol": self.tolerance}}


class _Climb:
    """Minus a log density as SciPy wants it."""

    def __init__(self, objective: Objective, watch: Watch | None) -> None:
        self.objective, self.watch = objective, watch
        self.evaluations = 0
        self.worst = -math.inf
        self.last: tuple[HostArray, float, HostArray] | None = None

    def __call__(self, position: HostArray) -> tuple[float, HostArray]:
        self.evaluations += 1
        value, gradient = self.objective.value_and_gradient(position)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            # A wall a little above everything seen so far, from which a line search comes back by halves.
            return max(self.worst, 0.0) + 1.0 + abs(self.worst if math.isfinite(self.worst) else 0.0), 0.0 * position
        self.worst = max(self.worst, -value)
        first = self.last is None
        self.last = (position.copy(), value, gradient)
        if first and self.watch is not None:
            self.watch(*self.last)
        return -value, -gradient

    def accept(self, intermediate_result: Any) -> None:
        """Called by SciPy, which goes by the name of the argument, after every iteration."""
        if self.watch is None:
            return
        position = np.asarray(intermediate_result.x)
        if self.last is None or not np.array_equal(self.last[0], position):
            self.last = (position.copy(), *self.objective.value_and_gradient(position))
        self.watch(*self.last)


def best_of(optima: Sequence[Optimum]) -> Optimum:
    """The highest of the optima that have converged; of all, if none has."""
    candidates = [optimum for optimum in optima if optimum.converged] or list(optima)
    return max(candidates, key=lambda optimum: -math.inf if math.isnan(optimum.log_density) else optimum.log_density)
