"""Hamiltonian Monte Carlo with a fixed number of leapfrog steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from ..ad.adtypes import AbstractADType
from .base import AbstractKernel, AbstractSampler, Array, Target
from .hamiltonian import HamiltonianKernel, Info, State, as_info, check_arguments, check_integer
from .integrators import Leapfrog, Point, energy
from .metrics import AbstractMetric, UnitMetric
from .random import uniform
from .trajectory import MAX_ENERGY_ERROR, select
from .warmup import Adaptation, Tuning
from .windows import AbstractWindows, GrowingWindows


@dataclass(frozen=True)
class HMC(AbstractSampler):
    """Hamiltonian Monte Carlo: `num_steps` leapfrog steps, accepted with probability min(1, exp(H₀ − H)).

    A step size that is given stays as it is; `None` adapts it during warm-up. The metric is the identity unless
    another is named, so a given step size means what it says in the unconstrained coordinates.

    Args:
        step_size: ε > 0, or None to adapt it to `target_acceptance`.
        num_steps: leapfrog steps in a trajectory, at least 1.
        target_acceptance: mean acceptance rate aimed at where the step size is adapted.
        metric: `UnitMetric()`, `DiagonalMetric()`, `LowRankMetric()` or `DenseMetric()`.
        windows: how warm-up is cut: `GrowingWindows()` or `StanWindows()`.
        adtype: how to differentiate this block; None means the default.

    Raises:
        TypeError, ValueError: on bad arguments, naming them.

    Source: Duane et al. (1987), "Hybrid Monte Carlo"; Neal (2011), "MCMC using Hamiltonian dynamics".
    """

    step_size: float | None
    num_steps: int
    target_acceptance: float = 0.8
    metric: AbstractMetric = field(default_factory=UnitMetric)
    windows: AbstractWindows = field(default_factory=GrowingWindows)
    adtype: AbstractADType | None = None

    def __post_init__(self) -> None:
        check_arguments(
            "HMC",
            step_size=self.step_size,
            target_acceptance=self.target_acceptance,
            metric=self.metric,
            windows=self.windows,
            adtype=self.adtype,
        )
        check_integer("HMC", "num_steps", self.num_steps, 1)

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`."""
        adaptation = Adaptation(self.step_size, self.target_acceptance, self.metric, self.windows)
        return HamiltonianKernel.of(self, target, self.adtype, adaptation, self._transition, dtype)

    def _transition(self, key: Array, start: Point, tuning: Tuning, flow: Leapfrog) -> tuple[State, Info]:
        step_size = tuning.step_size
        end = flow.steps(start, step_size, self.num_steps)
        start_energy, end_energy = energy(start), energy(end)
        log_ratio = start_energy - end_energy
        acceptance = jnp.minimum(1.0, jnp.exp(log_ratio))
        accept = uniform(key, 0, log_ratio.dtype) < acceptance
        point = select(accept, end, start)
        info = as_info(
            lp=point.log_density,
            acceptance_rate=acceptance,
            diverging=log_ratio < -MAX_ENERGY_ERROR,
            energy=jnp.where(accept, end_energy, start_energy),
            n_steps=jnp.asarray(self.num_steps, jnp.int32),
            step_size=step_size,
        )
        return State(point.position, point.log_density, point.gradient), info
