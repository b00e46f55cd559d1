"""Normal approximations along the path of an optimiser, with covariances in factored form: large dimensions work."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .objective import HostArray

# A step whose curvature is below this share of the largest possible tells nothing.
_LEAST_CURVATURE = 1e-12


@dataclass(frozen=True)
class FactoredNormal:
    """N(μ, A^½ (Q L Lᵀ Qᵀ + I − Q Qᵀ) A^½) with a diagonal A: 2 J numbers a coordinate instead of as many as there are.

    Args:
        mean: μ, shape (dimension,).
        diagonal: that of A, positive, shape (dimension,).
        basis: Q with orthonormal columns, shape (dimension, rank).
        root: L, lower triangular, shape (rank, rank).
    """

    mean: HostArray
    diagonal: HostArray
    basis: HostArray
    root: HostArray

    def draw(self, rng: np.random.Generator, count: int) -> tuple[HostArray, HostArray]:
        """Positions, shape (count, dimension), and the log density at each, shape (count,)."""
        noise = rng.standard_normal((count, len(self.mean)))
        inside = noise @ self.basis
        spread = noise + (inside @ self.root.T - inside) @ self.basis.T
        log_scale = float(np.log(np.diag(self.root)).sum() + 0.5 * np.log(self.diagonal).sum())
        constant = log_scale + 0.5 * len(self.mean) * math.log(2 * math.pi)
        return self.mean + np.sqrt(self.diagonal) * spread, -0.5 * np.sum(noise**2, axis=1) - constant

    @property
    def covariance(self) -> HostArray:
        """The covariance, shape (dimension, dimension)."""
        wide = self.basis @ self.root
        middle: HostArray = wide @ wide.T + np.eye(len(self.mean)) - self.basis @ self.basis.T
        return middle * np.sqrt(np.outer(self.diagonal, self.diagonal))


def normals_along(
    path: Iterable[tuple[HostArray, HostArray]], memory: int
) -> Iterator[tuple[HostArray, FactoredNormal | None]]:
    """For each point of a path after the first, the normal distribution that the last steps make of the target.

    Its covariance is the estimate of L-BFGS for minus the inverse Hessian, its mean a Newton step from the point.

    Args:
        path: positions and gradients of the log density there, each of shape (dimension,).
        memory: how many of the last steps tell the curvature.

    Yields:
        The position, and the normal distribution, None where rounding has left no positive definite covariance.

    Source: Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder: parallel quasi-Newton variational inference",
    algorithms 3 and 4; Gilbert and Lemaréchal (1989), "Some numerical experiments with variable-storage quasi-Newton
    algorithms", for the diagonal.
    """
    steps: deque[tuple[HostArray, HostArray]] = deque(maxlen=memory)
    points = iter(path)
    before, slope = next(points)
    diagonal = np.ones(len(before))
    for position, gradient in points:
        step, change = position - before, slope - gradient
        if step @ change > _LEAST_CURVATURE * (change @ change):
            diagonal = _updated(diagonal, step, change)
            steps.append((step, change))
        yield position, _normal(position, gradient, diagonal, steps)
        before, slope = position, gradient


def _updated(diagonal: HostArray, step: HostArray, change: HostArray) -> HostArray:
    a, b, c = change @ (diagonal * change), change @ step, step @ (step / diagonal)
    inverse = a / (b * diagonal) + change**2 / b - a * step**2 / (b * c * diagonal**2)
    updated: HostArray = 1.0 / inverse
    return updated


def _normal(
    position: HostArray, gradient: HostArray, diagonal: HostArray, steps: Iterable[tuple[HostArray, HostArray]]
) -> FactoredNormal | None:
    pairs = list(steps)
    s = np.array([step for step, _ in pairs]).reshape(len(pairs), -1).T
    z = np.array([change for _, change in pairs]).reshape(len(pairs), -1).T
    if not pairs:
        s = z = np.empty((len(position), 0))
    try:
        inverse = np.linalg.inv(np.triu(s.T @ z))
        corner = inverse.T @ (np.diag(np.sum(s * z, axis=0)) + z.T @ (diagonal[:, None] * z)) @ inverse
        gamma = np.block([[np.zeros_like(inverse), -inverse], [-inverse.T, corner]])
        beta = np.concatenate([diagonal[:, None] * z, s], axis=1)
        basis, upper = np.linalg.qr(beta / np.sqrt(diagonal)[:, None])
        root = np.linalg.cholesky(np.eye(basis.shape[1]) + upper @ gamma @ upper.T)
    except np.linalg.LinAlgError:
        return None
    mean = position + diagonal * gradient + beta @ (gamma @ (beta.T @ gradient))
    found = FactoredNormal(mean, diagonal, basis, root)
    return found if all(np.isfinite(part).all() for part in (mean, diagonal, basis, root)) else None
