"""The Laplace approximation: the normal distribution that a log density is at its mode, to second order."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from .objective import HostArray, Objective, coordinate_names

# Steps of Newton's method from where the optimiser has stopped; each doubles the digits.
_POLISHING = 3
# Coordinates that a message names, and the share of a direction that is worth it.
_NAMED, _SHARE = 5, 0.1


class NotNegativeDefiniteError(ValueError):
    """A Hessian that is not negative definite: the point is no isolated maximum."""


@dataclass(frozen=True)
class LaplaceNormal:
    """The normal approximation at a mode,  q(x) = N(x | m, (−∇²log π(m))⁻¹).

    Args:
        mode: m, shape (dimension,).
        log_density: log π(m).
        precision: −∇²log π(m), shape (dimension, dimension).
    """

    mode: HostArray
    log_density: float
    precision: HostArray

    @functools.cached_property
    def _root(self) -> HostArray:
        """The lower Cholesky factor of the precision."""
        return np.linalg.cholesky(self.precision)

    @property
    def log_evidence(self) -> float:
        """The log of ∫ π(x) dx if π is normal:  log π(m) + ½ d log 2π − ½ log det(−∇²log π(m))."""
        return (
            self.log_density + 0.5 * len(self.mode) * math.log(2 * math.pi) - float(np.log(np.diag(self._root)).sum())
        )

    def draw(self, rng: np.random.Generator, count: int) -> tuple[HostArray, HostArray]:
        """Positions, shape (count, dimension), and log q at each, shape (count,)."""
        from scipy.linalg import solve_triangular

        noise = rng.standard_normal((count, len(self.mode)))
        positions = self.mode + solve_triangular(self._root, noise.T, lower=True, trans="T").T
        at_mode = self.log_density - self.log_evidence
        return positions, at_mode - 0.5 * np.sum(noise**2, axis=1)


def laplace_at(objective: Objective, mode: HostArray, slope: float) -> LaplaceNormal:
    """The Laplace approximation at a mode, which Newton's method makes exact to the precision of the arithmetic.

    Args:
        objective: the log density.
        mode: where an optimiser has stopped, shape (dimension,).
        slope: the largest component of the gradient there.

    Raises:
        NotNegativeDefiniteError: naming coordinates along which the log density does not fall.

    Source: Tierney and Kadane (1986), "Accurate approximations for posterior moments and marginal densities".
    """
    precision = -objective.hessian(mode)
    _check(objective, precision)
    for _ in range(_POLISHING):
        _, gradient = objective.value_and_gradient(mode)
        moved = mode + np.linalg.solve(precision, gradient)
        left = np.max(np.abs(objective.value_and_gradient(moved)[1]))
        if not left < slope:
            break
        mode, slope, precision = moved, float(left), -objective.hessian(moved)
    _check(objective, precision)
    return LaplaceNormal(mode, objective.value_and_gradient(mode)[0], precision)


def _check(objective: Objective, precision: HostArray) -> None:
    names = coordinate_names(objective.target)
    broken = [name for name, row in zip(names, precision, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise NotNegativeDefiniteError(
            f"laplace: the Hessian at the mode is not finite in {_listed(broken)}. Look for sqrt, log or a division at "
            f"zero in what depends on them, or use adtype=SecondOrder(AutoFiniteDiff(), AutoReverse())."
        )
    # In units in which the diagonal is one, so that a parameter on a small scale is no flat direction.
    scale = np.sqrt(np.maximum(np.abs(np.diag(precision)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(precision / np.outer(scale, scale))
    limit = len(scale) * float(np.finfo(objective.dtype).eps)
    if values[0] > limit:
        return
    share = np.max(np.abs(vectors[:, values <= limit]), axis=1)
    flat = [names[i] for i in np.argsort(-share, kind="stable") if share[i] >= _SHARE]
    raise NotNegativeDefiniteError(
        f"laplace: the Hessian at the mode is not negative definite along {_listed(flat)}: the posterior does not fall "
        f"in every direction, so no normal distribution is like it. Give these sites proper priors, remove what the "
        f"data cannot tell apart, reparameterise (a non-centred form, for a hierarchical model), or use `sample`."
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
