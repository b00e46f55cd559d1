"""Warm-up of a Hamiltonian kernel: the step size at every step, the metric at the ends of windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array, on_host
from .metrics import AbstractMetric
from .step_size import StepSearch, continue_search, init_search, update_search
from .windows import NO_LIMIT, AbstractWindows, GrowingWindows

_INITIAL_STEP_SIZE = 1.0
# Under a metric that fits, a leapfrog step of 2 is unstable: longer ones only tell that the metric does not fit yet.
_LONGEST_STEP = 2.0


class Tuning(NamedTuple):
    """The parameters of a Hamiltonian kernel and what is being learned of them.

    Args:
        step_size: ε in use, shape ().
        scale: L of the metric; its structure is the metric's affair.
        search: of the step size; None where the user fixed it.
        memory: what the metric remembers of the draws; its structure is the metric's affair.
        learning: whether the open window feeds the metric, shape ().
        doublings: limit of a trajectory that grows by doubling, shape ().
        falling: whether the chain is on its way to the typical set, shape (); None where the kernel does not ask.
        length: what is known of the length of trajectories that do not grow by doubling; None where nothing is learned.
    """

    step_size: Array
    scale: Any
    search: StepSearch | None
    memory: Any
    learning: Array
    doublings: Array
    falling: Array | None = None
    length: Any = None


@dataclass(frozen=True)
class Adaptation:
    """How a Hamiltonian kernel learns during warm-up.

    Args:
        step_size: fixed, or None to adapt it.
        target_acceptance: mean acceptance rate aimed at, in (0, 1).
        metric: the family of metrics.
        windows: how a warm-up is cut.
    """

    step_size: float | None
    target_acceptance: float
    metric: AbstractMetric
    windows: AbstractWindows = field(default_factory=GrowingWindows)

    def init(self, dimension: int, dtype: Any) -> Tuning:
        """The tuning before the first step, as NumPy arrays."""
        step_size = _INITIAL_STEP_SIZE if self.step_size is None else self.step_size
        return Tuning(
            step_size=on_host(step_size, dtype),
            scale=self.metric.init_scale(dimension, dtype),
            search=init_search(step_size, self.target_acceptance, dtype) if self.step_size is None else None,
            memory=self.metric.init_memory(dimension, dtype),
            # Of a window whose length is not known yet: a long warm-up tells.
            learning=on_host(self.windows.learns(0, 1000), np.bool_),
            # Whoever sets a limit must be there to lift it: there may be no warm-up.
            doublings=on_host(NO_LIMIT, np.int32),
        )

    def update(
        self, tuning: Tuning, position: Array, gradient: Array, acceptance: Array, diverging: Array, warming: Array
    ) -> Tuning:
        """Learn from one step while `warming`, else leave everything as it is.

        Args:
            tuning: before.
            position: at the end of the step, shape (dimension,).
            gradient: of the log density there, shape (dimension,).
            acceptance: its acceptance rate, shape ().
            diverging: whether it ended in a divergence, shape ().
            warming: whether this is warm-up, shape ().
        """
        search, step_size = tuning.search, tuning.step_size
        if search is not None:
            found = update_search(search, acceptance, diverging)
            search = StepSearch(*(jnp.where(warming, new, old) for new, old in zip(found, search, strict=True)))
            step_size = jnp.where(warming, jnp.exp(search.log_step), step_size)
        keep = warming & tuning.learning
        memory = self.metric.remember(tuning.memory, position, gradient, keep)
        return tuning._replace(step_size=step_size, search=search, memory=memory)

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """When `digest` is to be called: at the ends of the windows."""
        return self.windows.borders(warmup)

    def digest(self, tuning: Tuning, done: int, warmup: int) -> Tuning:
        """Close the window that ends after `done` steps, and open the next; on the host.

        Args:
            tuning: NumPy arrays.
            done: steps taken so far, one of `schedule(warmup)`; 0 before the first of a trial.
            warmup: steps in all.
        """
        search, step_size, scale, memory = tuning.search, tuning.step_size, tuning.scale, tuning.memory
        learned = bool(tuning.learning) and 0 < done < warmup and memory is not None
        if learned:
            scale = self.metric.learn(memory, scale)
        if search is not None:
            dtype = search.log_step.dtype
            step_size = on_host(np.exp(search.log_average), dtype)
            if learned and float(search.longest) > _LONGEST_STEP:
                # Under the first metric that is learned, steps of one are of the right order.
                search = init_search(1.0, self.target_acceptance, dtype, longest=_LONGEST_STEP)
            elif 0 < done < warmup:
                search = continue_search(search, settled=2 * done > warmup)
        learning = self.windows.learns(done, warmup)
        memory = self.metric.close(memory, overlap=self.windows.overlap and learning)
        doublings = self.windows.doublings(done, warmup)
        return Tuning(step_size, scale, search, memory, on_host(learning, np.bool_), on_host(doublings, np.int32))
