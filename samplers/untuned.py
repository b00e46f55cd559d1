"""Kernels that have nothing to learn."""

from __future__ import annotations

from typing import Any

from .base import AbstractKernel, Array


class AbstractUntunedKernel(AbstractKernel):
    """A kernel that warm-up does not change: the same at every step."""

    def init_tuning(self) -> tuple[()]:
        """See `AbstractKernel.init_tuning`."""
        return ()

    def tune(self, tuning: tuple[()], position: Array, info: Any) -> tuple[()]:
        """See `AbstractKernel.tune`."""
        return tuning

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`."""
        return ()

    def retune(self, tuning: tuple[()], done: int, warmup: int) -> tuple[()]:
        """See `AbstractKernel.retune`."""
        return tuning
