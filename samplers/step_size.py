"""The step size, learned by stochastic approximation of the acceptance rate that is aimed at.

    log ε ← log ε + γ_n (a_n − a*),   γ_n = 2 (n + 3)^−0.6

with the acceptance rate a_n of step n. After warm-up an average of the iterates is used, in which iterate n has a
weight of n. The iterates move little in the end, so that the acceptance rate of their average is the one aimed at;
dual averaging, with its larger moves, ends some 0.05 to 0.1 above it, which costs a third of all gradients on
targets that are nearly Gaussian.

A mean acceptance rate says little of a target whose curvature varies: where trajectories diverge in the second half of
a warm-up, the rate that is aimed at is raised.

Source: Robbins and Monro (1951), "A stochastic approximation method"; Polyak and Juditsky (1992), "Acceleration of
stochastic approximation by averaging"; Andrieu and Thoms (2008), "A tutorial on adaptive MCMC", section 5.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array, on_host

_GAIN, _DELAY, _DECAY = 2.0, 3.0, 0.6
# By how much the step size changes while not even its order of magnitude is known.
_STRIDE = math.log(4.0)
# Where more than this share of the trajectories diverge, the rate that is aimed at is raised.
_DIVERGENT_SHARE = 0.001


class StepSearch(NamedTuple):
    """The state of the approximation; every field has shape ().

    Args:
        updates: n, how many so far.
        bracket: +1 while all steps so far were too short, −1 while all were too long, 0 after both have been seen; as
            long as it is not 0, the iterates move in strides. NaN before the first update of a search from nothing.
        log_step: the present iterate, in use during warm-up.
        log_average: its average, to be used after warm-up.
        longest: the step size does not exceed it.
        target: a*, the acceptance rate aimed at.
        divergences: how many trajectories diverged since they count.
        counted: how many trajectories there were since then.
    """

    updates: Array
    bracket: Array
    log_step: Array
    log_average: Array
    longest: Array
    target: Array
    divergences: Array
    counted: Array


def init_search(step_size: float, target: float, dtype: Any, *, longest: float = np.inf) -> StepSearch:
    """Start from a step size of which not even the order of magnitude is known to be right."""
    log_step = math.log(step_size)
    values = (0.0, math.nan, log_step, log_step, longest, target, 0.0, 0.0)
    return StepSearch(*(on_host(value, dtype) for value in values))


def update_search(state: StepSearch, acceptance: Array, diverging: Array) -> StepSearch:
    """Learn from one transition.

    Args:
        state: before.
        acceptance: its acceptance rate, in [0, 1], shape ().
        diverging: whether it ended in a divergence, shape ().
    """
    updates = state.updates + 1
    # A trajectory whose very first energy is not a number has no acceptance rate: it counts as a rejection.
    error = jnp.where(jnp.isnan(acceptance), 0.0, acceptance) - state.target
    side = jnp.sign(error)
    bracket = jnp.where(jnp.isnan(state.bracket) | (state.bracket == side), side, 0.0)
    move = jnp.where(bracket != 0, bracket * _STRIDE, _GAIN * (updates + _DELAY) ** -_DECAY * error)
    log_step = jnp.minimum(state.log_step + move, jnp.log(state.longest))
    share = 2.0 / (updates + 1.0)
    return StepSearch(
        updates=updates,
        bracket=bracket,
        log_step=log_step,
        log_average=share * log_step + (1.0 - share) * state.log_average,
        longest=state.longest,
        target=state.target,
        divergences=state.divergences + diverging,
        counted=state.counted + 1,
    )


def continue_search(state: StepSearch, *, settled: bool) -> StepSearch:
    """The search at the beginning of a new window; on the host.

    On the way to the typical set it begins anew from the average of the window before. After that it goes on: what is
    learned is to be right for all of the target, and not for where the chain happens to be in the end.

    Args:
        state: at the end of the window before.
        settled: whether the chain has arrived in the typical set. Then divergences count: where there are too many, the
            rate that is aimed at is raised to half as far from one.
    """
    raised = settled and float(state.divergences) > _DIVERGENT_SHARE * float(state.counted)
    target = 1.0 - (1.0 - float(state.target)) / 2.0 if raised else float(state.target)
    anew = raised or not settled
    values = (
        # What was learned under an earlier metric comes to count for less.
        0.0 if anew else np.floor(state.updates / 2),
        state.bracket,
        state.log_average if anew else state.log_step,
        state.log_average,
        state.longest,
        target,
        0.0 if anew else state.divergences,
        0.0 if anew else state.counted,
    )
    return StepSearch(*(on_host(value, state.log_step.dtype) for value in values))
