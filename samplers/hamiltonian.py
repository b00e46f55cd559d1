"""What HMC and NUTS share: the state, the gradient, the integrator and the warm-up of a Hamiltonian kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
from jax import lax

from ..ad.adtypes import AbstractADType, check_adtype
from ..ad.gradient import PreparedGradient, prepare_gradient
from ..ad.measuring.auditing import Audit, second_opinion
from .base import AbstractKernel, Array, BlockReport, Constants, Target, block_name
from .integrators import Leapfrog, Point
from .metrics import AbstractMetric
from .random import fold_in, normal, uniform
from .warmup import Adaptation, Tuning
from .windows import AbstractWindows


class State(NamedTuple):
    """What a Hamiltonian kernel carries from step to step.

    Args:
        position: q, shape (dimension,).
        log_density: log π(q), shape ().
        gradient: ∇log π(q), shape (dimension,).
    """

    position: Array
    log_density: Array
    gradient: Array


class Info(NamedTuple):
    """What happened in one step; every field has shape ().

    Args:
        lp: log π at the new position.
        acceptance_rate: mean of min(1, exp(H₀ − H)) over the points visited.
        diverging: whether the energy error exceeded its limit.
        energy: H at the new point; None where the dynamics does not conserve it.
        n_steps: leapfrog steps taken.
        step_size: ε.
        tree_depth: doublings of the trajectory; None for a trajectory of fixed length.
        reached_max_treedepth: whether the trajectory stopped at the depth limit; None likewise.
        unhalved_rate: share of the macro steps for which one leapfrog step was good enough; None where none is halved.
        turned: whether the trajectory had turned back at its end; None where nothing is learned from that.
        gradient_error: relative difference from another backend's gradient; NaN where it was not compared, None where
            no audit was asked for.
    """

    lp: Array
    acceptance_rate: Array
    diverging: Array
    energy: Array | None
    n_steps: Array
    step_size: Array
    tree_depth: Array | None = None
    reached_max_treedepth: Array | None = None
    unhalved_rate: Array | None = None
    turned: Array | None = None
    gradient_error: Array | None = None


# How many steps an audit looks at: enough to see every region that a chain visits, at little cost.
_AUDITED_SHARE = 0.05

# From a key, a point with a fresh momentum, the tuning and the integrator to the next state.
Transition = Callable[[Array, Point, Tuning, Leapfrog], tuple[State, Info]]


@dataclass(frozen=True)
class HamiltonianKernel(AbstractKernel):
    """A kernel that moves by Hamiltonian dynamics; HMC and NUTS differ in their `transition` alone.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
        gradient: its prepared gradient.
        adaptation: of step size and metric.
        transition: from a point with a fresh momentum to the next state.
        dtype: of positions.
        audit: another gradient to compare with now and then, or None.
        max_depth: limit of doublings, if trajectories grow by doubling; None where their length is fixed.
    """

    name: str
    target: Target
    gradient: PreparedGradient
    adaptation: Adaptation
    transition: Transition
    dtype: Any
    audit: Audit | None = None
    max_depth: int | None = None

    @classmethod
    def of(
        cls,
        sampler: object,
        target: Target,
        adtype: AbstractADType | None,
        adaptation: Adaptation,
        transition: Transition,
        dtype: Any,
        max_depth: int | None = None,
    ) -> HamiltonianKernel:
        """Choose a differentiation backend for a target, prepare it, and wire the parts.

        Raises:
            ValueError: naming the site, where one is discrete.
            DifferentiationError: naming the block, where `adtype` cannot differentiate it.
        """
        subject = f"block '{block_name(target.sites)}'"
        if target.discrete:
            raise ValueError(
                f"{subject}: site '{target.discrete[0]}' is discrete, and samplers that follow a gradient need "
                f"continuous sites. Ways out: give it a block of its own, as in "
                f"Gibbs({{'{target.discrete[0]}': DiscreteGibbs(), ...: NUTS()}}); sum it out of the model (for a "
                f"mixture, dist.MixtureSameFamily; where it has finitely many values, model.marginalize(...)); give it "
                f"MH() in place of DiscreteGibbs() where it has infinitely many; or observe it."
            )
        adaptation.metric.check(target.dimension, subject)
        shapes = (jax.ShapeDtypeStruct((target.dimension,), dtype), *target.constants)
        gradient = prepare_gradient(target.log_density, adtype, *shapes, subject=subject)
        audit = second_opinion(target.log_density, gradient, *shapes, subject=subject)
        return cls(repr(sampler), target, gradient, adaptation, transition, dtype, audit, max_depth)

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        choice = self.gradient.choice
        block = block_name(self.target.sites)
        return (
            BlockReport(
                block,
                self.name,
                self.target.dimension,
                repr(choice.backend),
                choice.reason,
                choice.measurements,
                None if self.audit is None else repr(self.audit.gradient.choice.backend),
            ),
        )

    def init(self, position: Array, constants: Constants) -> State:
        """See `AbstractKernel.init`; one evaluation of the gradient."""
        return State(position, *self.gradient.value_and_gradient(position, *constants))

    def position(self, state: State) -> Array:
        """See `AbstractKernel.position`."""
        return state.position

    def flow(self, tuning: Tuning, constants: Constants) -> Leapfrog:
        """The integrator."""

        def value_and_gradient(position: Array) -> tuple[Array, Array]:
            value, gradient = self.gradient.value_and_gradient(position, *constants)
            return value, gradient

        return Leapfrog(tuning.scale, self.adaptation.metric, value_and_gradient)

    def step(self, key: Array, state: State, tuning: Tuning, constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        # Without the barrier XLA computes the normal numbers anew in each of a dozen fused operations that use them.
        momentum = lax.optimization_barrier(normal(fold_in(key, 0), state.position.size, state.position.dtype))
        start = Point(state.position, momentum, state.log_density, state.gradient)
        after, info = self.transition(fold_in(key, 1), start, tuning, self.flow(tuning, constants))
        if self.audit is None:
            return after, info
        audit = self.audit
        error = lax.cond(
            uniform(fold_in(key, 2), 0, self.dtype) < _AUDITED_SHARE,
            lambda: audit.error(after.position, after.gradient, *constants),
            lambda: jnp.asarray(jnp.nan, self.dtype),
        )
        return after, info._replace(gradient_error=error)

    def advance(
        self, key: Array, state: State, tuning: Tuning, constants: Constants, warming: Array
    ) -> tuple[State, Tuning, Info]:
        """See `AbstractKernel.advance`."""
        after, info = self.step(key, state, tuning, constants)
        return after, self.learn(tuning, after, info, warming), info

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return {name: value for name, value in info._asdict().items() if value is not None}

    def init_tuning(self) -> Tuning:
        """See `AbstractKernel.init_tuning`."""
        return self.adaptation.init(self.target.dimension, self.dtype)

    def tune(self, tuning: Tuning, state: State, info: Info) -> Tuning:
        """See `AbstractKernel.tune`."""
        return self.learn(tuning, state, info, jnp.ones((), bool))

    def learn(self, tuning: Tuning, state: State, info: Info, warming: Array) -> Tuning:
        """What is learned from one step while `warming`, else the tuning as it was."""
        return self.adaptation.update(
            tuning, state.position, state.gradient, info.acceptance_rate, info.diverging, warming
        )

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`."""
        return self.adaptation.schedule(warmup)

    def trial(self, warmup: int) -> int:
        """See `AbstractKernel.trial`."""
        return self.adaptation.windows.trial(warmup)

    def retune(self, tuning: Tuning, done: int, warmup: int) -> Tuning:
        """See `AbstractKernel.retune`."""
        return self.adaptation.digest(tuning, done, warmup)


def check_arguments(
    name: str,
    *,
    step_size: float | None,
    target_acceptance: float,
    metric: AbstractMetric,
    windows: AbstractWindows,
    adtype: AbstractADType | None,
) -> None:
    """Refuse bad arguments that HMC and NUTS have in common, naming them and the remedy.

    Raises:
        TypeError, ValueError: on the first bad argument.
    """
    if step_size is not None and not (is_number(step_size) and 0 < step_size < float("inf")):
        raise ValueError(f"{name}: step_size must be a positive number or None to adapt it, got {step_size!r}.")
    if not (is_number(target_acceptance) and 0 < target_acceptance < 1):
        raise ValueError(
            f"{name}: target_acceptance must lie between 0 and 1, got {target_acceptance!r}; 0.8 is usual."
        )
    if not isinstance(metric, AbstractMetric):
        raise TypeError(
            f"{name}: metric must be UnitMetric(), DiagonalMetric(), LowRankMetric() or DenseMetric(), got {metric!r}."
        )
    if not isinstance(windows, AbstractWindows):
        raise TypeError(f"{name}: windows must be GrowingWindows() or StanWindows(), got {windows!r}.")
    if adtype is not None:
        check_adtype(adtype, f"{name}: adtype")


def check_integer(name: str, argument: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse a value that is not an integer between `low` and `high`.

    Raises:
        ValueError: naming sampler and argument.
    """
    whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if whole is None or whole < low or (high is not None and whole > high):
        limits = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
        raise ValueError(f"{name}: {argument} must be {limits}, got {value!r}.")


def as_info(**fields: Any) -> Info:
    """An `Info` of arrays, and of None where there is nothing to tell."""
    return Info(**jax.tree.map(jnp.asarray, fields))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, and not True or False."""
    return isinstance(value, Real) and not isinstance(value, bool)
