"""What a warm-up window says of the scales and correlations of a target; on the host.

A window gives draws x and, at each of them, the score g = ∇log π(x).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np

from .mass_matrix import Moments, regularized_covariance

HostArray = np.ndarray[Any, Any]

# Scales outside of these say nothing but that a score was zero or infinite.
_SMALLEST, _LARGEST = 1e-10, 1e10
# Fewer draws than these say nothing of correlations.
_FEWEST = 10


class AbstractEstimator(abc.ABC):
    """A rule from moments of draws and scores, stacked in this order, to scales or a covariance.

    Whatever a window leaves undetermined stays as it was.
    """

    @abc.abstractmethod
    def scales(self, seen: Moments, scales: HostArray) -> HostArray:
        """A scale for each coordinate, shape (dimension,), given the scales so far."""

    @abc.abstractmethod
    def factor(self, seen: Moments, factor: HostArray) -> HostArray:
        """L with L Lᵀ the covariance estimated, shape (dimension, dimension), given the factor so far."""


@dataclass(frozen=True)
class SampleCovariance(AbstractEstimator):
    """The covariance of the draws; what they have not visited yet is underestimated."""

    def scales(self, seen: Moments, scales: HostArray) -> HostArray:
        """See `AbstractEstimator.scales`."""
        return np.sqrt(regularized_covariance(draws_of(seen))) if float(seen.draws) > 1 else scales

    def factor(self, seen: Moments, factor: HostArray) -> HostArray:
        """See `AbstractEstimator.factor`."""
        return np.linalg.cholesky(regularized_covariance(draws_of(seen))) if float(seen.draws) > 1 else factor


@dataclass(frozen=True)
class FisherDivergence(AbstractEstimator):
    """The covariance Σ of the Gaussian whose score is closest to that of the target, in units of Σ.

    It minimises E |Lᵀ (g + Σ⁻¹(x − μ))|² over Σ = L Lᵀ. For a diagonal metric

        σᵢ² = sd(xᵢ) / sd(gᵢ),

    and in general Σ is the geometric mean of Cov(x) and Cov(g)⁻¹, the solution of Σ Cov(g) Σ = Cov(x). For a Gaussian
    target these are exact after as many draws as there are unknowns, whether or not the draws are spread like the
    target; the sample covariance needs many independent draws. After a single draw the scale is |g|^−½.

    Args:
        shrinkage: how many draws of independent coordinates are added before correlations are estimated.

    Source: Seyboldt, Carlson and Carpenter (2026), "Preconditioning Hamiltonian Monte Carlo by minimizing Fisher
    divergence".
    """

    shrinkage: float = 0.1

    def __post_init__(self) -> None:
        if not self.shrinkage > 0:
            raise ValueError(f"FisherDivergence: shrinkage must be a positive number, got {self.shrinkage!r}.")

    def scales(self, seen: Moments, scales: HostArray) -> HostArray:
        """See `AbstractEstimator.scales`."""
        draw, score = seen.mean
        of_draws, of_scores = variances(seen)
        return fisher_scales(np.asarray(draw), np.asarray(score), of_draws, of_scores, scales)

    def factor(self, seen: Moments, factor: HostArray) -> HostArray:
        """See `AbstractEstimator.factor`."""
        scales = self.scales(seen, np.sqrt(np.einsum("ij,ij->i", factor, factor)))
        draws = float(seen.draws)
        if draws < _FEWEST or not np.isfinite(seen.scatter).all():
            return np.diag(scales)
        units = scales[:, None] * scales
        of_draws, of_scores = np.array(seen.scatter[0]) / units, np.array(seen.scatter[1]) * units
        for scatter in (of_draws, of_scores):
            own = np.einsum("ii->i", scatter)  # a view: what is written to it is written to the diagonal
            own += self.shrinkage * np.where(own > 0, own / draws, 1.0)
        try:
            return scales[:, None] * geometric_mean_factor(of_draws, of_scores)
        except np.linalg.LinAlgError:  # coordinates that are the same but for rounding
            return np.diag(scales)


def draws_of(seen: Moments) -> Moments:
    """The moments of the draws alone, of moments of draws and scores."""
    return Moments(seen.draws, seen.mean[0], seen.scatter[0])


def variances(seen: Moments) -> HostArray:
    """Variances of draws and scores, shape (2, dimension)."""
    scatter = np.asarray(seen.scatter)
    own = scatter if scatter.ndim == 2 else np.diagonal(scatter, axis1=1, axis2=2)
    found: HostArray = own / max(float(seen.draws), 1.0)
    return found


def fisher_scales(
    draw: HostArray, score: HostArray, of_draws: HostArray, of_scores: HostArray, scales: HostArray
) -> HostArray:
    """A scale for each coordinate.

    Args:
        draw: the mean of the draws, shape (dimension,).
        score: that of the scores.
        of_draws: the variances of the draws.
        of_scores: those of the scores.
        scales: those so far, kept where nothing has moved.
    """
    # A chain that stands still has a variance of rounding errors.
    of_draws = np.where(of_draws > np.square(1e-10 * draw), of_draws, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if not of_draws.any():
            found = 1.0 / np.sqrt(np.abs(score))
            known = (scales == 1.0) & np.isfinite(draw)  # only where nothing better has been seen
        else:
            found, known = (of_draws / of_scores) ** 0.25, np.isfinite(draw)
    known &= np.isfinite(found) & (found > _SMALLEST) & (found < _LARGEST)
    kept: HostArray = np.where(known, found, scales).astype(scales.dtype)
    return kept


def geometric_mean_factor(one: HostArray, other: HostArray) -> HostArray:
    """L with L Lᵀ = S, the positive definite solution of S B S = A, that is the geometric mean of A and B⁻¹.

    With B = R Rᵀ and Rᵀ A R = V W Vᵀ it is L = R⁻ᵀ V W^¼.

    Source: Bhatia (2007), "Positive definite matrices", section 4.1.
    """
    root = np.linalg.cholesky(other)
    values, vectors = np.linalg.eigh(root.T @ one @ root)
    # Rounding says nothing of eigenvalues that are so much smaller than the largest.
    floor = np.finfo(values.dtype).eps * float(values[-1])
    return np.linalg.solve(root.T, vectors * np.maximum(values, floor) ** 0.25)
