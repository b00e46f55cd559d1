"""Dual averaging of the step size towards a target acceptance rate.

Source: Nesterov (2009), "Primal-dual subgradient methods for convex problems"; Hoffman and Gelman (2014), "The
No-U-Turn Sampler", section 3.2, whose γ, t₀ and κ are used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array, on_host

_GAMMA, _T0, _KAPPA = 0.05, 10.0, 0.75


class DualAveraging(NamedTuple):
    """The state of the averaging; every field has shape ().

    Args:
        updates: how many so far.
        error: running mean of (target − acceptance).
        centre: the log step size that iterates are pulled to.
        log_step: the present iterate, in use during warm-up.
        log_average: its average, to be used after warm-up.
    """

    updates: Array
    error: Array
    centre: Array
    log_step: Array
    log_average: Array


def init_dual_averaging(step_size: float, dtype: Any) -> DualAveraging:
    """Start from a step size; the iterates are pulled to ten times it, since too long a step costs little."""
    log_step = np.log(step_size)
    values = (0.0, 0.0, np.log(10.0) + log_step, log_step, 0.0)
    return DualAveraging(*(on_host(value, dtype) for value in values))


def update_dual_averaging(state: DualAveraging, acceptance: Array, target: float) -> DualAveraging:
    """Learn from the acceptance rate, in [0, 1], of one transition."""
    updates = state.updates + 1
    weight = 1.0 / (updates + _T0)
    # A trajectory whose very first energy is not a number has no acceptance rate: it counts as a rejection.
    acceptance = jnp.where(jnp.isnan(acceptance), 0.0, acceptance)
    error = (1.0 - weight) * state.error + weight * (target - acceptance)
    log_step = state.centre - jnp.sqrt(updates) / _GAMMA * error
    share = updates**-_KAPPA
    return DualAveraging(updates, error, state.centre, log_step, share * log_step + (1.0 - share) * state.log_average)
