"""Microcanonical Hamiltonian Monte Carlo with a Metropolis correction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from ..ad.adtypes import AbstractADType
from .base import AbstractKernel, AbstractSampler, Array, Target, block_name
from .falling import FallingKernel
from .hamiltonian import Info, State, as_info, check_arguments, check_integer, is_number
from .integrators import Leapfrog, Point
from .low_rank import LowRankMetric
from .metrics import AbstractMetric
from .microcanonical_dynamics import fly
from .random import fold_in, uniform
from .trajectory import MAX_ENERGY_ERROR, select
from .trajectory_length import LengthAdaptation, update_length
from .warmup import Tuning
from .windows import AbstractWindows, GrowingWindows


@dataclass(frozen=True)
class MicrocanonicalHMC(AbstractSampler):
    """The Metropolis-adjusted microcanonical sampler (MAMS): trajectories at constant speed, accepted or rejected.

    For targets on which NUTS mixes slowly: over 15 reference posteriors it makes 1.2 times the effective draws of NUTS
    per gradient in the geometric mean, warm-up included; 3.8 times on the centred eight schools, 1.7 on GARCH and on
    radon, 1.5 on a Poisson regression with a Gaussian process, 1.8 on curved ridges. It makes fewer on regressions that
    are nearly Gaussian (0.6 to 0.8), where it is the warm-up that costs. It accepts or rejects one point, so that a
    chain may stand still for long in a region that is much narrower than the rest: on radon one run in three had such a
    chain, which R-hat tells (1.13). On Neal's funnel it makes 8 times as many draws as NUTS, and is as wrong, by 3
    Monte Carlo standard errors: use `WALNUTS()` there (`docs/hamiltonian.md`).

    A direction is drawn, uniformly, and a number of steps N, uniformly from 1 to 2m − 1. N steps of a leapfrog
    integrator of isokinetic dynamics, in which the gradient turns the velocity and leaves the speed as it is, lead from
    q to q′ and change the volume in the space of positions and directions by a factor J. The end is accepted with
    probability

        min(1, π(q′) J / π(q)).

    This leaves π invariant, since the steps undo themselves when the direction is reversed. Speeds are √d in d
    dimensions, what those of HMC are on average, so that step sizes mean the same.

    Step size, m and the metric are adapted during warm-up: the step size to the acceptance rate aimed at, m such that
    a quarter of all trajectories has turned back at its end. The latter is not the rule of Robnik, Cohn-Gordon and
    Seljak, who take trajectories in proportion to the autocorrelation time: learned in the windows of this warm-up,
    from a chain that had not arrived yet, they became a hundred times too long on some of the reference posteriors.
    In the first tenth of a warm-up trajectories follow Hamilton's equations, because from far out they arrive sooner.

    Args:
        target_acceptance: mean acceptance rate aimed at.
        mean_steps: m ≥ 1, the mean number of steps in a trajectory, or None to adapt it.
        max_steps: no trajectory has more steps; at least 1.
        metric: `LowRankMetric()`, `DiagonalMetric()`, `DenseMetric()` or `UnitMetric()`.
        step_size: fixed ε > 0, or None to adapt it.
        windows: how warm-up is cut: `GrowingWindows()` or `StanWindows()`.
        adtype: how to differentiate this block; None means the default.

    Raises:
        TypeError, ValueError: on bad arguments, naming them; from `build`, on a block of one coordinate.

    Source: Robnik, Cohn-Gordon and Seljak (2025), "Metropolis adjusted microcanonical Hamiltonian Monte Carlo"; Robnik,
    De Luca, Silverstein and Seljak (2023), "Microcanonical Hamiltonian Monte Carlo".
    """

    target_acceptance: float = 0.9
    mean_steps: float | None = None
    max_steps: int = 1023
    metric: AbstractMetric = field(default_factory=LowRankMetric)
    step_size: float | None = None
    windows: AbstractWindows = field(default_factory=GrowingWindows)
    adtype: AbstractADType | None = None

    def __post_init__(self) -> None:
        check_arguments(
            "MicrocanonicalHMC",
            step_size=self.step_size,
            target_acceptance=self.target_acceptance,
            metric=self.metric,
            windows=self.windows,
            adtype=self.adtype,
        )
        check_integer("MicrocanonicalHMC", "max_steps", self.max_steps, 1, 1 << 20)
        steps = self.mean_steps
        if steps is not None and not (is_number(steps) and steps >= 1):
            raise ValueError(
                f"MicrocanonicalHMC: mean_steps must be a number from 1 on, or None to adapt it, got {steps!r}."
            )
        if steps is not None and 2 * steps - 1 > self.max_steps:
            raise ValueError(
                f"MicrocanonicalHMC: trajectories of up to {2 * steps - 1:g} steps, which mean_steps={steps!r} makes, "
                f"exceed max_steps={self.max_steps}: raise max_steps or lower mean_steps."
            )

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`.

        Raises:
            ValueError: naming the block, where it has one coordinate: there is no direction to turn to.
        """
        if target.dimension == 1:
            raise ValueError(
                f"block '{block_name(target.sites)}': MicrocanonicalHMC needs at least 2 coordinates and got 1: a "
                f"velocity of constant length cannot turn on a line. Use NUTS() or Slice() for this block, or put it "
                f"together with another."
            )
        adaptation = LengthAdaptation(
            self.step_size,
            self.target_acceptance,
            self.metric,
            self.windows,
            mean_steps=self.mean_steps,
            max_steps=self.max_steps,
        )

        def transition(key: Array, start: Point, tuning: Tuning, flow: Leapfrog) -> tuple[State, Info]:
            return _transition(key, start, tuning, flow, adaptation.draw_steps(fold_in(key, 1), tuning))

        return MicrocanonicalKernel.of(self, target, self.adtype, adaptation, transition, dtype)


class MicrocanonicalKernel(FallingKernel):
    """A `FallingKernel` that learns the length of its trajectories, too."""

    def learn(self, tuning: Tuning, state: State, info: Info, warming: Array) -> Tuning:
        """See `HamiltonianKernel.learn`."""
        assert info.turned is not None
        learned = super().learn(tuning, state, info, warming)
        return learned._replace(length=update_length(tuning.length, info.turned, warming))


def _transition(key: Array, start: Point, tuning: Tuning, flow: Leapfrog, count: Array) -> tuple[State, Info]:
    assert tuning.falling is not None
    step_size = tuning.step_size
    end = fly(flow, start, step_size, count, tuning.falling)
    log_ratio = end.log_density - start.log_density + end.log_volume
    # What is not a number is never accepted.
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    acceptance = jnp.minimum(1.0, jnp.exp(log_ratio))
    stay = State(start.position, start.log_density, start.gradient)
    move = State(end.position, end.log_density, end.gradient)
    after = select(uniform(key, 0, log_ratio.dtype) < acceptance, move, stay)
    info = as_info(
        lp=after.log_density,
        acceptance_rate=acceptance,
        diverging=log_ratio < -MAX_ENERGY_ERROR,
        energy=None,
        n_steps=count,
        step_size=step_size,
        turned=jnp.dot(end.displacement, end.velocity) <= 0,
    )
    return after, info
