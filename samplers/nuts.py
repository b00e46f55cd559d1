"""The No-U-Turn sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..ad.adtypes import AbstractADType
from .base import AbstractKernel, AbstractSampler, Array, Target
from .hamiltonian import HamiltonianKernel, Info, State, as_info, check_arguments, check_integer
from .integrators import Leapfrog, Point
from .metrics import AbstractMetric, DiagonalMetric
from .trajectory import grow_trajectory
from .warmup import Adaptation


@dataclass(frozen=True)
class NUTS(AbstractSampler):
    """The No-U-Turn sampler: multinomial choice on a trajectory that grows until it turns back.

    Step size and metric are adapted during warm-up, unless the step size is given.

    Args:
        target_acceptance: mean acceptance rate aimed at; raise it towards 1 against divergences.
        max_tree_depth: a trajectory has at most 2^max_tree_depth leapfrog steps; from 1 to 20.
        metric: `DiagonalMetric()`, `DenseMetric()` or `UnitMetric()`.
        step_size: fixed ε > 0, or None to adapt it.
        adtype: how to differentiate this block; None means the default.

    Raises:
        TypeError, ValueError: on bad arguments, naming them.

    Source: Hoffman and Gelman (2014), "The No-U-Turn Sampler"; Betancourt (2017), "A conceptual introduction to
    Hamiltonian Monte Carlo".
    """

    target_acceptance: float = 0.8
    max_tree_depth: int = 10
    metric: AbstractMetric = field(default_factory=DiagonalMetric)
    step_size: float | None = None
    adtype: AbstractADType | None = None

    def __post_init__(self) -> None:
        check_arguments(
            "NUTS",
            step_size=self.step_size,
            target_acceptance=self.target_acceptance,
            metric=self.metric,
            adtype=self.adtype,
        )
        check_integer("NUTS", "max_tree_depth", self.max_tree_depth, 1, 20)

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`."""
        adaptation = Adaptation(self.step_size, self.target_acceptance, self.metric)
        return HamiltonianKernel.of(self, target, self.adtype, adaptation, self._transition, dtype)

    def _transition(self, key: Array, start: Point, step_size: Array, flow: Leapfrog) -> tuple[State, Info]:
        tree = grow_trajectory(key, start, step_size, self.max_tree_depth, flow.step)
        chosen = tree.proposal
        info = as_info(
            lp=chosen.log_density,
            acceptance_rate=tree.acceptance / tree.leaves,
            diverging=tree.diverging,
            energy=chosen.energy,
            n_steps=tree.leaves,
            step_size=step_size,
            tree_depth=tree.depth,
            reached_max_treedepth=(tree.depth == self.max_tree_depth) & ~tree.turning & ~tree.diverging,
        )
        return State(chosen.position, chosen.log_density, chosen.gradient), info
