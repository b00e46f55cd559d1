"""The No-U-Turn sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from ..ad.adtypes import AbstractADType
from .base import AbstractKernel, AbstractSampler, Array, Target
from .hamiltonian import HamiltonianKernel, Info, State, as_info, check_arguments, check_integer
from .integrators import Leapfrog, Point
from .low_rank import LowRankMetric
from .metrics import AbstractMetric
from .trajectory import Tree, grow_trajectory
from .warmup import Adaptation, Tuning
from .windows import AbstractWindows, GrowingWindows


@dataclass(frozen=True)
class NUTS(AbstractSampler):
    """The No-U-Turn sampler: multinomial choice on a trajectory that grows until it turns back.

    Step size and metric are adapted during warm-up, unless the step size is given.

    Args:
        target_acceptance: mean acceptance rate aimed at; raise it towards 1 against divergences.
        max_tree_depth: a trajectory has at most 2^max_tree_depth leapfrog steps; from 1 to 20.
        metric: `LowRankMetric()`, `DiagonalMetric()`, `DenseMetric()` or `UnitMetric()`.
        step_size: fixed ε > 0, or None to adapt it.
        windows: how warm-up is cut: `GrowingWindows()` or `StanWindows()`.
        adtype: how to differentiate this block; None means the default.

    Raises:
        TypeError, ValueError: on bad arguments, naming them.

    Source: Hoffman and Gelman (2014), "The No-U-Turn Sampler"; Betancourt (2017), "A conceptual introduction to
    Hamiltonian Monte Carlo".
    """

    target_acceptance: float = 0.8
    max_tree_depth: int = 10
    metric: AbstractMetric = field(default_factory=LowRankMetric)
    step_size: float | None = None
    windows: AbstractWindows = field(default_factory=GrowingWindows)
    adtype: AbstractADType | None = None

    def __post_init__(self) -> None:
        check_arguments(
            "NUTS",
            step_size=self.step_size,
            target_acceptance=self.target_acceptance,
            metric=self.metric,
            windows=self.windows,
            adtype=self.adtype,
        )
        check_integer("NUTS", "max_tree_depth", self.max_tree_depth, 1, 20)

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`."""
        adaptation = Adaptation(self.step_size, self.target_acceptance, self.metric, self.windows)
        return HamiltonianKernel.of(self, target, self.adtype, adaptation, self._transition, dtype, self.max_tree_depth)

    def _transition(self, key: Array, start: Point, tuning: Tuning, flow: Leapfrog) -> tuple[State, Info]:
        limit = jnp.minimum(self.max_tree_depth, tuning.doublings)
        tree = grow_trajectory(key, start, tuning.step_size, self.max_tree_depth, flow.step, limit)
        return outcome(tree, tuning.step_size, self.max_tree_depth)


def outcome(tree: Tree, step_size: Array, max_depth: int) -> tuple[State, Info]:
    """The state after a transition, and what happened in it, from its finished trajectory."""
    chosen = tree.proposal
    info = as_info(
        lp=chosen.log_density,
        acceptance_rate=tree.acceptance / tree.leaves,
        diverging=tree.diverging,
        energy=chosen.energy,
        n_steps=tree.leaves,
        step_size=step_size,
        tree_depth=tree.depth,
        reached_max_treedepth=(tree.depth == max_depth) & ~tree.turning & ~tree.diverging,
    )
    return State(chosen.position, chosen.log_density, chosen.gradient), info
