"""Pareto smoothed importance sampling: weights with a smoothed tail, and k-hat, which says whether to trust them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .objective import HostArray

# Above this more draws hardly help.
_LIMIT = 0.7
# Fewer exceedances than these fit no distribution; log weights this close together are all one but for rounding.
_FEWEST, _ALIKE = 5, 1e-8


@dataclass(frozen=True)
class Smoothed:
    """Importance weights.

    Args:
        log_weights: normalised to sum to 1, the largest replaced by quantiles of the fitted Pareto; shape (n,).
        k: the shape k-hat of that Pareto: the weights have about 1/k finite moments. −inf where they are all alike.
    """

    log_weights: HostArray
    k: float

    @property
    def limit(self) -> float:
        """The largest k-hat at which means under so many weights can be relied on, min(1 − 1 / log₁₀ n, 0.7)."""
        return min(1 - 1 / math.log10(max(len(self.log_weights), 2)), _LIMIT)

    @property
    def trusted(self) -> bool:
        """Whether what the weights say can be relied on."""
        return self.k <= self.limit


def smooth(log_weights: HostArray) -> Smoothed:
    """Smooth importance weights.

    The largest M = min(n/5, 3√n) weights are replaced by the expected order statistics of the generalised Pareto
    distribution that fits them, cut at the largest weight.

    Args:
        log_weights: log p − log q of independent draws from q, up to a constant, shape (n,); −inf for a weight of zero.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling".
    """
    weights = np.where(np.isnan(log_weights), -np.inf, log_weights).astype(float)
    if not np.isfinite(weights.max(initial=-np.inf)):
        return Smoothed(np.full(len(weights), -math.log(max(len(weights), 1))), math.inf)
    weights -= weights.max()
    if weights.min() > -_ALIKE:
        return Smoothed(np.full(len(weights), -math.log(len(weights))), -math.inf)
    count = math.ceil(min(0.2 * len(weights), 3.0 * math.sqrt(len(weights))))
    order = np.argsort(weights, kind="stable")
    cutoff = max(weights[order[-count - 1]], math.log(np.finfo(float).tiny))
    tail = order[weights[order] > cutoff]
    k = math.inf
    if len(tail) >= _FEWEST:
        threshold = math.exp(cutoff)
        k, scale = fit_pareto(np.exp(weights[tail]) - threshold)
        quantiles = (np.arange(len(tail)) + 0.5) / len(tail)
        beyond = scale * (np.expm1(-k * np.log1p(-quantiles)) / k if k else -np.log1p(-quantiles))
        weights[tail] = np.minimum(np.log(threshold + beyond), 0.0)
    return Smoothed(weights - np.logaddexp.reduce(weights), k)


def fit_pareto(excess: HostArray) -> tuple[float, float]:
    """Shape k and scale σ of the generalised Pareto distribution (1 − (1 + kx/σ)^(−1/k)) of a sample.

    The posterior mean under a weak prior, by a sum over a grid; the shape is drawn a little towards ½, as ten more
    observations would.

    Args:
        excess: positive numbers, ascending, shape (n,).

    Source: Zhang and Stephens (2009), "A new and efficient estimation method for the generalized Pareto distribution".
    """
    n = len(excess)
    points = 30 + int(math.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    shape = np.mean(np.log1p(-theta[:, None] * excess), axis=1)
    profile = n * (np.log(-theta / shape) - shape - 1)
    mean = float(np.sum(theta * np.exp(profile - np.logaddexp.reduce(profile))))
    k = float(np.mean(np.log1p(-mean * excess)))
    return (n * k + 10 * 0.5) / (n + 10), -k / mean
