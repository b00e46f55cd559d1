"""A sampler of one block that has all coordinates: its kernel over the data of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .base import AbstractKernel, AbstractSampler, Array, Block, BlockReport, Constants


def whole_constants(block: Block, data: Constants) -> Constants:
    """The constants of a block that is everything."""
    anywhere = jnp.zeros(block.target.dimension)  # there is no rest whose position could matter
    return block.constants(anywhere, block.prepare(data))


@dataclass(frozen=True)
class Alone(AbstractKernel):
    """The kernel of a sampler that updates everything at once; its constants follow from the data alone.

    Args:
        block: all coordinates.
        kernel: built for its target.
    """

    block: Block
    kernel: AbstractKernel

    @classmethod
    def of(cls, sampler: AbstractSampler, block: Block, dtype: Any) -> Alone:
        """The kernel of a sampler for a block that is everything."""
        seen = sampler.view(block)
        return cls(seen, sampler.build(seen.target, dtype))

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        return self.kernel.reports

    def prepare(self, constants: Constants) -> Constants:
        """See `AbstractKernel.prepare`: the constants of the target, from the data."""
        return self.kernel.prepare(whole_constants(self.block, constants))

    def init(self, position: Array, constants: Constants) -> Any:
        """See `AbstractKernel.init`."""
        return self.kernel.init(position, constants)

    def is_sound(self, position: Array, constants: Constants) -> Array:
        """See `AbstractKernel.is_sound`."""
        return self.kernel.is_sound(position, constants)

    def position(self, state: Any) -> Array:
        """See `AbstractKernel.position`."""
        return self.kernel.position(state)

    def step(self, key: Array, state: Any, tuning: Any, constants: Constants) -> tuple[Any, Any]:
        """See `AbstractKernel.step`."""
        return self.kernel.step(key, state, tuning, constants)

    def init_tuning(self) -> Any:
        """See `AbstractKernel.init_tuning`."""
        return self.kernel.init_tuning()

    def advance(
        self, key: Array, state: Any, tuning: Any, constants: Constants, warming: Array
    ) -> tuple[Any, Any, Any]:
        """See `AbstractKernel.advance`."""
        return self.kernel.advance(key, state, tuning, constants, warming)

    def tune(self, tuning: Any, state: Any, info: Any) -> Any:
        """See `AbstractKernel.tune`."""
        return self.kernel.tune(tuning, state, info)

    def statistics(self, info: Any) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return self.kernel.statistics(info)

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`."""
        return self.kernel.schedule(warmup)

    def trial(self, warmup: int) -> int:
        """See `AbstractKernel.trial`."""
        return self.kernel.trial(warmup)

    def retune(self, tuning: Any, done: int, warmup: int) -> Any:
        """See `AbstractKernel.retune`."""
        return self.kernel.retune(tuning, done, warmup)
