"""Warm-up of a Hamiltonian kernel: the step size at every step, the metric at the ends of growing windows.

Warm-up is cut as in Stan: a fast phase in which the chain finds the typical set and only the step size is adapted, slow
windows of doubling length at the end of each of which the metric is estimated anew from that window, and a last
fast phase for the step size under the final metric.

Source: Stan Reference Manual, "MCMC sampling", section "Automatic parameter tuning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array, on_host
from .mass_matrix import Moments, update_moments
from .metrics import AbstractMetric
from .step_size import DualAveraging, init_dual_averaging, update_dual_averaging

_FIRST, _BASE, _LAST = 75, 25, 50
_INITIAL_STEP_SIZE = 1.0


class Tuning(NamedTuple):
    """The parameters of a Hamiltonian kernel and what is being learned of them.

    Args:
        step_size: ε in use, shape ().
        scale: L of the metric; its shape is the metric's affair.
        averaging: dual averaging of the step size; None where the user fixed it.
        moments: of the draws of the open window; None where the metric learns nothing.
        learning: whether the open window feeds the metric, shape (), 0 or 1.
    """

    step_size: Array
    scale: Array
    averaging: DualAveraging | None
    moments: Moments | None
    learning: Array


@dataclass(frozen=True)
class Adaptation:
    """How a Hamiltonian kernel learns during warm-up.

    Args:
        step_size: fixed, or None to adapt it.
        target_acceptance: mean acceptance rate that dual averaging aims at, in (0, 1).
        metric: the family of metrics.
    """

    step_size: float | None
    target_acceptance: float
    metric: AbstractMetric

    def init(self, dimension: int, dtype: Any) -> Tuning:
        """The tuning before the first step, as NumPy arrays."""
        step_size = _INITIAL_STEP_SIZE if self.step_size is None else self.step_size
        return Tuning(
            step_size=on_host(step_size, dtype),
            scale=on_host(self.metric.init_scale(dimension, dtype), dtype),
            averaging=init_dual_averaging(step_size, dtype) if self.step_size is None else None,
            moments=self.metric.init_moments(dimension, dtype),
            learning=on_host(0.0, dtype),
        )

    def update(self, tuning: Tuning, position: Array, acceptance: Array) -> Tuning:
        """Learn from one step: its end, shape (dimension,), and its acceptance rate, shape ()."""
        averaging, moments, step_size = tuning.averaging, tuning.moments, tuning.step_size
        if averaging is not None:
            averaging = update_dual_averaging(averaging, acceptance, self.target_acceptance)
            step_size = jnp.exp(averaging.log_step)
        if moments is not None:
            seen = update_moments(moments, position)
            keep = tuning.learning > 0
            moments = Moments(*(jnp.where(keep, new, old) for new, old in zip(seen, moments, strict=True)))
        return Tuning(step_size, tuning.scale, averaging, moments, tuning.learning)

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """When `digest` is to be called: the borders between the phases of a warm-up, and its end."""
        return windows(warmup)

    def digest(self, tuning: Tuning, done: int, warmup: int) -> Tuning:
        """Close the window that ends after `done` steps, and open the next; on the host.

        Args:
            tuning: NumPy arrays.
            done: steps taken so far, one of `schedule(warmup)`.
            warmup: steps in all.
        """
        borders = windows(warmup)
        averaging, moments, step_size, scale = (
            tuning.averaging,
            tuning.moments,
            tuning.step_size,
            tuning.scale,
        )
        if moments is not None and float(tuning.learning) and float(moments.draws) > 1:
            scale = on_host(self.metric.scale_from(moments), moments.mean.dtype)
        if averaging is not None:
            # The average holds no iterate before the first update, as in a warm-up of no steps at all.
            learned = averaging.log_average if float(averaging.updates) else averaging.log_step
            step_size = on_host(np.exp(learned), learned.dtype)
            if done < warmup:
                averaging = init_dual_averaging(float(step_size), learned.dtype)
        if moments is not None:
            moments = Moments(*(on_host(np.zeros_like(field), field.dtype) for field in moments))
        slow = done < borders[-2] if len(borders) > 1 else False
        learning = on_host(float(slow), tuning.learning.dtype)
        return Tuning(step_size, scale, averaging, moments, learning)


def windows(warmup: int) -> tuple[int, ...]:
    """The borders between the phases of a warm-up of `warmup` steps, the last being `warmup` itself.

    The first border ends the first fast phase, the last but one the last slow window. From 150 steps on, the
    phases are Stan's 75, 25·2ᵏ, 50; shorter warm-ups keep their proportions, and fewer than 20 steps are one
    fast phase.
    """
    if warmup < 20:
        return (warmup,) if warmup else ()
    first, last = (_FIRST, _LAST) if warmup >= _FIRST + _BASE + _LAST else (round(0.15 * warmup), round(0.1 * warmup))
    slow_end = warmup - last
    borders, window = [first], _BASE
    while borders[-1] < slow_end:
        end = borders[-1] + window
        # A window that would leave less than twice its length to the next one takes all that is left.
        borders.append(end if end + 2 * window <= slow_end else slow_end)
        window *= 2
    return (*borders, warmup)
