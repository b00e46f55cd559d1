"""Proposals of Metropolis-Hastings: what they are, and the random walk that adapts."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..ad.naming import Written
from .base import Array, Block, Constants, Target, on_host
from .hamiltonian import is_number
from .mass_matrix import Moments, init_moments, no_moments, regularized_covariance, update_moments
from .metrics import AbstractMetric, DenseMetric, DiagonalMetric, UnitMetric
from .random import fold_in, normal, uniform
from .windows import StanWindows

HostArray = np.ndarray[Any, Any]

_DENSE = 50  # the default metric is dense up to this dimension
_VISITS = 15  # how often each coordinate is to move on its own before all move together


class AbstractProposal(Written, abc.ABC):
    """How a Metropolis-Hastings kernel proposes; one that learns nothing implements `propose`, and `weigh` if need be.

    All methods but `view` get the target of the block that `view` returns.
    """

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block

    def check(self, target: Target, dtype: Any) -> None:
        """Raise TypeError or ValueError, naming the site, where the proposal does not fit the target."""

    @abc.abstractmethod
    def propose(
        self, target: Target, key: Array, position: Array, tuning: Any, constants: Constants
    ) -> tuple[Array, Array]:
        """The proposed position q', shape (dimension,), and log of p(q | q') / p(q' | q) on what `weigh` weighs."""

    def weigh(self, target: Target, position: Array, log_density: Array, constants: Constants) -> Array:
        """The log of what the acceptance compares, shape (): of the density by which `propose` corrects."""
        return log_density

    def init_tuning(self, target: Target, dtype: Any) -> Any:
        """See `AbstractKernel.init_tuning`; a field `step_size` is recorded with every draw."""
        return ()

    def tune(self, target: Target, tuning: Any, position: Array, acceptance: Array) -> Any:
        """See `AbstractKernel.tune`; `acceptance` is the acceptance rate of the step, shape ()."""
        return tuning

    def moves(self, target: Target) -> int:
        """How many proposals a step makes, one after the other."""
        return 1

    def retune(self, target: Target, tuning: Any, done: int, warmup: int) -> Any:
        """See `AbstractKernel.retune`; called at the ends of Stan's windows."""
        return tuning


class WalkTuning(NamedTuple):
    """The parameters of a random walk and what is being learned of them.

    Args:
        step_size: s, shape ().
        scale: L; its shape is the metric's affair.
        updates: of what is learned at every step, since the last border of warm-up, shape ().
        by_turns: whether coordinates are to move one at a time, shape (), 0 or 1.
        coordinate: whose turn it is, shape (); −1 where all move together.
        deviations: of the moves of single coordinates, shape (dimension,).
        moments: of the draws of the open window; None where the metric learns nothing.
    """

    step_size: Array
    scale: Array
    updates: Array
    by_turns: Array
    coordinate: Array
    deviations: Array
    moments: Moments | None


@dataclass(frozen=True)
class RandomWalk(AbstractProposal):
    """A Gaussian random walk, q' = q + s L z with z standard normal.

    During warm-up it learns L from the draws, in windows, and s by stochastic approximation towards an acceptance rate.
    In a first phase coordinates move in turns, each with a deviation of its own, so that scales are found that differ
    by orders of magnitude. In a block with discrete sites coordinates move one at a time, as many of them in a step as
    there are, drawn at random; moves of discrete ones are whole numbers, at least one.

    Args:
        scale: s > 0, which then stays, and is every coordinate's deviation unless `metric` is named; None adapts it.
        target_acceptance: mean acceptance rate aimed at; None means 0.234 + 0.206 / dimension.
        metric: the family of L; None means `DenseMetric()` up to 50 coordinates and `DiagonalMetric()` beyond.

    Raises:
        TypeError, ValueError: on bad arguments, naming them.

    Source: Haario, Saksman and Tamminen (2001), "An adaptive Metropolis algorithm"; Roberts and Rosenthal (2009),
    "Examples of adaptive MCMC", for the turns; Gelman, Roberts and Gilks (1996), "Efficient Metropolis jumping rules",
    for s = 2.38 / √dimension and the acceptance rates.
    """

    scale: float | None = None
    target_acceptance: float | None = None
    metric: AbstractMetric | None = None

    def __post_init__(self) -> None:
        scale, rate = self.scale, self.target_acceptance
        if scale is not None and not (is_number(scale) and 0 < scale < float("inf")):
            raise ValueError(f"RandomWalk: scale must be a positive number or None to adapt it, got {scale!r}.")
        if rate is not None and not (is_number(rate) and 0 < rate < 1):
            raise ValueError(
                f"RandomWalk: target_acceptance must lie between 0 and 1, got {rate!r}; None chooses by dimension."
            )
        if self.metric is not None and not isinstance(self.metric, UnitMetric | DiagonalMetric | DenseMetric):
            raise TypeError(
                f"RandomWalk: metric must be UnitMetric(), DiagonalMetric() or DenseMetric(), got {self.metric!r}; "
                f"None chooses by dimension."
            )

    def propose(
        self, target: Target, key: Array, position: Array, tuning: WalkTuning, constants: Constants
    ) -> tuple[Array, Array]:
        """See `AbstractProposal.propose`; symmetric, so that nothing is to be corrected."""
        noise = normal(fold_in(key, 0), target.dimension, position.dtype)
        if target.discrete:
            return self._one_coordinate(target, key, position, tuning, noise), jnp.zeros((), position.dtype)
        together = tuning.coordinate < 0
        turn = lax.iota(jnp.int32, target.dimension) == tuning.coordinate
        joint = tuning.step_size * self._metric(target).colour(tuning.scale, noise)
        move = jnp.where(together, joint, jnp.where(turn, tuning.deviations * noise, 0.0))
        return position + move, jnp.zeros((), position.dtype)

    def moves(self, target: Target) -> int:
        """See `AbstractProposal.moves`: as many as there are coordinates, where some are discrete."""
        return target.dimension if target.discrete else 1

    def _one_coordinate(self, target: Target, key: Array, position: Array, tuning: WalkTuning, noise: Array) -> Array:
        """A move of one coordinate, drawn at random: hardly any of several discrete ones at once would be accepted."""
        dimension = target.dimension
        chosen = jnp.floor(uniform(fold_in(key, 1), 0, position.dtype) * dimension).astype(jnp.int32)
        spread = tuning.step_size * _deviations(tuning.scale)
        far = jnp.maximum(jnp.round(jnp.abs(noise) * jnp.maximum(1.0, spread)), 1.0)
        move = jnp.where(_discrete_coordinates(target), jnp.copysign(far, noise), spread * noise)
        return jnp.where(lax.iota(jnp.int32, dimension) == chosen, position + move, position)

    def init_tuning(self, target: Target, dtype: Any) -> WalkTuning:
        """See `AbstractProposal.init_tuning`; without a warm-up all coordinates move together from the beginning."""
        dimension, metric = target.dimension, self._metric(target)
        learns = not isinstance(metric, UnitMetric)
        moments = init_moments((dimension,), dtype, dense=isinstance(metric, DenseMetric)) if learns else None
        return WalkTuning(
            step_size=on_host(_optimal_step(self._together(target)) if self.scale is None else self.scale, dtype),
            scale=on_host(metric.init_scale(dimension, dtype), dtype),
            updates=on_host(0.0, dtype),
            by_turns=on_host(float(self.scale is None and moments is not None and self._together(target) > 1), dtype),
            coordinate=on_host(-1, np.int32),
            deviations=on_host(np.ones(dimension), dtype),
            moments=moments,
        )

    def tune(self, target: Target, tuning: WalkTuning, position: Array, acceptance: Array) -> WalkTuning:
        """See `AbstractProposal.tune`."""
        dimension, dtype = target.dimension, position.dtype
        moments = None if tuning.moments is None else update_moments(tuning.moments, position)
        if self.scale is not None:
            return tuning._replace(moments=moments)
        updates = tuning.updates + 1
        by_turns = tuning.by_turns > 0
        turn = lax.iota(jnp.int32, dimension) == tuning.coordinate
        wanted = self.target_acceptance or _optimal_rate(self._together(target))
        # Turns are few: their gains are large, and fall with the number of turns that a coordinate has had.
        larger = jnp.exp(2.0 * updates**-0.6 * (acceptance - wanted))
        longer = jnp.exp(3.0 / jnp.sqrt(jnp.ceil(updates / dimension)) * (acceptance - _optimal_rate(1)))
        return WalkTuning(
            step_size=jnp.where(by_turns, tuning.step_size, tuning.step_size * larger),
            scale=tuning.scale,
            updates=updates,
            by_turns=tuning.by_turns,
            coordinate=jnp.where(by_turns, (tuning.coordinate + 1) % dimension, -1).astype(jnp.int32),
            deviations=jnp.where(turn, tuning.deviations * longer.astype(dtype), tuning.deviations),
            moments=moments,
        )

    def retune(self, target: Target, tuning: WalkTuning, done: int, warmup: int) -> WalkTuning:
        """See `AbstractProposal.retune`."""
        by_turns, last = float(tuning.by_turns) > 0, done == warmup
        if by_turns and done < min(_VISITS * target.dimension, warmup / 3):
            return tuning
        step_size, scale, moments, dtype = tuning.step_size, tuning.scale, tuning.moments, tuning.deviations.dtype
        if moments is not None:
            nothing = no_moments(moments)
            if by_turns or (not last and done > StanWindows().borders(warmup)[0]):
                # On its own, a coordinate of deviation σ has the acceptance rate aimed at when it moves by 2.4 σ.
                known = tuning.deviations / 2.4 if by_turns else scale
                learned = _with_knowledge(nothing if by_turns else moments, np.asarray(known))
                covariance = regularized_covariance(learned)
                factor = np.linalg.cholesky(covariance) if covariance.ndim == 2 else np.sqrt(covariance)
                scale = on_host(factor, dtype)
                if self.scale is None:
                    step_size = on_host(_optimal_step(self._together(target)), dtype)
            moments = nothing
        zero = on_host(0.0, dtype)
        return WalkTuning(step_size, scale, zero, zero, on_host(-1, np.int32), tuning.deviations, moments)

    def _together(self, target: Target) -> int:
        """How many coordinates move at once."""
        return 1 if target.discrete else target.dimension

    def _metric(self, target: Target) -> AbstractMetric:
        if self.metric is not None:
            return self.metric
        if self.scale is not None:
            return UnitMetric()
        return DenseMetric() if target.dimension <= _DENSE else DiagonalMetric()


def _optimal_step(dimension: int) -> float:
    return 2.38 / math.sqrt(dimension)


def _optimal_rate(dimension: int) -> float:
    """Between the optimal acceptance rates for one and for many coordinates, 0.44 and 0.234."""
    return 0.234 + 0.206 / dimension


def _deviations(scale: Array) -> Array:
    """The deviations of L z: the lengths of the rows of L."""
    return jnp.sqrt(jnp.sum(jnp.square(scale), axis=1)) if scale.ndim == 2 else scale


def _discrete_coordinates(target: Target) -> HostArray:
    """Which coordinates belong to discrete sites, shape (dimension,)."""
    kinds = [np.full(target.sizes[site], site in target.discrete) for site in target.sites]
    return np.concatenate(kinds)


def _with_knowledge(moments: Moments, scale: HostArray) -> Moments:
    """Moments with draws added that have the covariance L Lᵀ: twice as many as there are entries to learn.

    A random walk makes some 0.3 n / dimension independent draws in n steps, too few to learn a covariance anew in each
    window.
    """
    known = np.square(scale) if scale.ndim == 1 else scale @ scale.T
    if np.ndim(moments.scatter) > known.ndim:
        known = np.diag(known)
    weight = 2.0 * known.size
    entries = (moments.draws + weight, moments.mean, moments.scatter + weight * known)
    return Moments(*(on_host(entry, scale.dtype) for entry in entries))
