"""Kernels that have nothing to learn, and those that have nothing to remember either."""

from __future__ import annotations

from typing import Any, NamedTuple

from .base import AbstractKernel, Array, Constants


class AbstractUntunedKernel(AbstractKernel):
    """A kernel that warm-up does not change: the same at every step."""

    def init_tuning(self) -> tuple[()]:
        """See `AbstractKernel.init_tuning`."""
        return ()

    def tune(self, tuning: tuple[()], state: Any, info: Any) -> tuple[()]:
        """See `AbstractKernel.tune`."""
        return tuning

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`."""
        return ()

    def retune(self, tuning: tuple[()], done: int, warmup: int) -> tuple[()]:
        """See `AbstractKernel.retune`."""
        return tuning


class State(NamedTuple):
    """What a kernel carries that looks at nothing but the position.

    Args:
        position: q, shape (dimension,).
    """

    position: Array


class AbstractMemorylessKernel(AbstractUntunedKernel):
    """A kernel that carries the position alone from step to step, so that nothing of its state can be stale."""

    def init(self, position: Array, constants: Constants) -> State:
        """See `AbstractKernel.init`."""
        return State(position)

    def position(self, state: State) -> Array:
        """See `AbstractKernel.position`."""
        return state.position
