"""A metric that learns the scales, and the few directions in which they are not enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import Array, on_host
from .estimators import FisherDivergence, fisher_scales, geometric_mean_factor
from .hamiltonian import check_integer
from .mass_matrix import init_moments, join_moments
from .metrics import AbstractMetric, Windows, close_moments, multiply, remember_moments

HostArray = np.ndarray[Any, Any]

# Up to here all directions are learned and L is kept as one matrix, which costs less than a few directions do.
_WHOLE = 32
# Draws and scores that are remembered: as many as fit into 64 MB, but not more than these.
_MEMORY, _MOST = 1 << 23, 512
# Directions that are looked at beyond those that are stretched, and how often what is found is refined.
_MORE, _POWERS = 10, 3
# Beyond this many coordinates these would be too few to tell directions by.
_WIDEST = 20_000


class Factor(NamedTuple):
    """L = D (1 + Uᵀ (S − 1) U) with diagonal D and S.

    Args:
        scales: D, shape (dimension,).
        directions: U with orthonormal rows, shape (rank, dimension); rows of zeros are not in use.
        stretches: S, shape (rank,).
        stretched: whether there is any direction, shape (): without, L is diagonal and costs no more.
    """

    scales: Array
    directions: Array
    stretches: Array
    stretched: Array


class Rows(NamedTuple):
    """The latest draws and scores, in a ring: they are written over when the capacity is used up.

    Args:
        rows: one above the other, shape (capacity + 1, 2, dimension); the last row is never read.
        seen: how many have been remembered.
        begin: the number of the first that counts.
        open: that of the first of the open window.
    """

    rows: Array
    seen: Array
    begin: Array
    open: Array

    @property
    def capacity(self) -> int:
        """How many are remembered at most."""
        return int(self.rows.shape[0]) - 1

    def latest(self) -> HostArray:
        """Those that count, the latest last, shape (n, 2, dimension); on the host."""
        seen = int(self.seen)
        numbers = np.arange(max(int(self.begin), seen - self.capacity), seen)
        return np.asarray(self.rows)[numbers % self.capacity]


@dataclass(frozen=True)
class LowRankMetric(AbstractMetric):
    """A scale for each coordinate, and a stretch along the directions in which these scales are wrong the most.

    Scales and stretches are learned from draws and scores as `FisherDivergence` says. Up to 32 coordinates this is a
    dense metric, every direction stretched; beyond, memory and time of a leapfrog step grow with dimension × rank,
    and from 20,000 on no direction is stretched.

    Args:
        rank: the largest number of directions beyond 32 coordinates.
        cutoff: beyond 32 coordinates, directions are stretched where their variance is wrong by more than this factor,
            at least 1.
        shrinkage: how many draws of independent coordinates are added before directions are estimated.

    Raises:
        ValueError: on bad arguments, naming them.

    Source: Seyboldt, Carlson and Carpenter (2026), "Preconditioning Hamiltonian Monte Carlo by minimizing Fisher
    divergence".
    """

    rank: int = 20
    cutoff: float = 1.5
    shrinkage: float = 0.1

    def __post_init__(self) -> None:
        check_integer("LowRankMetric", "rank", self.rank, 1)
        if not self.cutoff >= 1:
            raise ValueError(f"LowRankMetric: cutoff must be at least 1, got {self.cutoff!r}.")
        if not self.shrinkage > 0:
            raise ValueError(f"LowRankMetric: shrinkage must be a positive number, got {self.shrinkage!r}.")

    def init_scale(self, dimension: int, dtype: Any) -> Any:
        """See `AbstractMetric.init_scale`: a matrix for few coordinates, else a `Factor`."""
        if dimension <= _WHOLE or dimension > _WIDEST:
            return np.eye(dimension, dtype=dtype) if 1 < dimension <= _WHOLE else np.ones(dimension, dtype)
        rank = min(self.rank, dimension)
        return _factor(np.ones(dimension), np.zeros((rank, dimension)), np.ones(rank), dtype)

    def colour(self, scale: Any, whitened: Array) -> Array:
        """See `AbstractMetric.colour`."""
        if isinstance(scale, Factor):
            return scale.scales * _stretched(scale, whitened)
        coloured: Array = multiply(scale, whitened) if scale.ndim == 2 else scale * whitened
        return coloured

    def whiten(self, scale: Any, gradient: Array) -> Array:
        """See `AbstractMetric.whiten`."""
        if isinstance(scale, Factor):
            return _stretched(scale, scale.scales * gradient)
        whitened: Array = multiply(scale.T, gradient) if scale.ndim == 2 else scale * gradient
        return whitened

    def init_memory(self, dimension: int, dtype: Any) -> Any:
        """See `AbstractMetric.init_memory`: moments for few coordinates, else the latest draws themselves."""
        if dimension <= _WHOLE or dimension > _WIDEST:
            nothing = init_moments((2, dimension), dtype, dense=1 < dimension <= _WHOLE)
            return Windows(nothing, nothing)
        capacity = min(_MEMORY // (2 * dimension), _MOST)
        zero = on_host(0, np.int32)
        return Rows(on_host(np.zeros((capacity + 1, 2, dimension), dtype), dtype), zero, zero, zero)

    def remember(self, memory: Any, position: Array, gradient: Array, keep: Array) -> Any:
        """See `AbstractMetric.remember`."""
        if isinstance(memory, Windows):
            return remember_moments(memory, position, gradient, keep)
        # Written in any case, to a row that nobody reads: choosing between two memories would copy one of them.
        at = jnp.where(keep, memory.seen % memory.capacity, memory.capacity)
        rows = lax.dynamic_update_index_in_dim(memory.rows, jnp.stack([position, gradient]), at, 0)
        return memory._replace(rows=rows, seen=memory.seen + keep.astype(memory.seen.dtype))

    def learn(self, memory: Any, scale: Any) -> Any:
        """See `AbstractMetric.learn`."""
        if isinstance(memory, Windows):
            return self._learn_all(memory, scale)
        draws, scores = np.moveaxis(memory.latest(), 1, 0)
        if not len(draws):
            return scale
        means = draws.mean(axis=0), scores.mean(axis=0)
        scales = fisher_scales(*means, draws.var(axis=0), scores.var(axis=0), np.asarray(scale.scales))
        found = self._directions((draws - means[0]) / scales, (scores - means[1]) * scales, len(scale.stretches))
        return _factor(scales, *found, scales.dtype)

    def close(self, memory: Any, *, overlap: bool) -> Any:
        """See `AbstractMetric.close`."""
        if isinstance(memory, Windows):
            return close_moments(memory, overlap=overlap)
        return memory._replace(begin=memory.open if overlap else memory.seen, open=memory.seen)

    def _learn_all(self, memory: Windows, scale: HostArray) -> HostArray:
        """All directions of few coordinates."""
        seen, fisher = join_moments(*memory), FisherDivergence(self.shrinkage)
        return fisher.scales(seen, scale) if scale.ndim == 1 else fisher.factor(seen, scale)

    def _directions(self, draws: HostArray, scores: HostArray, rank: int) -> tuple[HostArray, HostArray]:
        """U and S, from centred draws and scores in units of the scales, shape (rows, dimension)."""
        rows, dimension = draws.shape
        directions, stretches = np.zeros((rank, dimension)), np.ones(rank)
        spread = np.sqrt(np.mean(draws**2)), np.sqrt(np.mean(scores**2))
        if rows < 10 or not np.isfinite(spread).all() or min(spread) == 0:
            return directions, stretches
        # Where the variance is too small for its scale, that of the scores is too large.
        leading = [_leading(part, min(rank + _MORE, rows, dimension)) for part in (draws, scores)]
        basis, _ = np.linalg.qr(np.concatenate(leading, axis=1))
        covariances = [
            (part.T @ part / size**2 + self.shrinkage * np.eye(part.shape[1])) / (rows + self.shrinkage)
            for part, size in ((draws @ basis, spread[0]), (scores @ basis, spread[1]))
        ]
        vectors, roots, _ = np.linalg.svd(geometric_mean_factor(*covariances))
        distance = np.abs(np.log(roots))
        far = np.argsort(-distance)[:rank]
        far = far[2.0 * distance[far] > np.log(self.cutoff)]
        directions[: len(far)], stretches[: len(far)] = (basis @ vectors[:, far]).T, roots[far]
        return directions, stretches


def _leading(rows: HostArray, count: int) -> HostArray:
    """About the `count` directions in which rows, shape (n, dimension), vary the most; orthonormal, in columns.

    Source: Halko, Martinsson and Tropp (2011), "Finding structure with randomness", algorithm 4.4.
    """
    block = np.random.default_rng(0).normal(size=(rows.shape[1], count))
    for _ in range(_POWERS):
        block, _ = np.linalg.qr(rows.T @ (rows @ block))
    return block


def _factor(scales: HostArray, directions: HostArray, stretches: HostArray, dtype: Any) -> Factor:
    stretched = on_host((stretches != 1).any(), np.bool_)
    return Factor(on_host(scales, dtype), on_host(directions, dtype), on_host(stretches, dtype), stretched)


def _stretched(factor: Factor, vector: Array) -> Array:
    """(1 + Uᵀ (S − 1) U) v."""

    def stretch() -> Array:
        along = (factor.stretches - 1.0) * jnp.dot(factor.directions, vector)
        return vector + jnp.dot(along, factor.directions)

    stretched: Array = lax.cond(factor.stretched, stretch, lambda: vector)
    return stretched
