"""Blocks that are alike share one compiled update.

Blocks are alike if the same sampler updates them and their densities are the same function of position and constants.
Their positions, constants and tunings are stacked, and one loop goes over the stack: 64 groups of a hierarchical model
compile like one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import AbstractKernel, Array, Block, Constants
from .positions import put, take
from .random import chain_key, fold_in
from .records import Record, add, empty

HostArray = np.ndarray[Any, Any]


class Memory(NamedTuple):
    """What is kept of the blocks of a group from step to step; with more than one block all arrays are stacked.

    Args:
        state: of the kernel, where nothing outside a block can make it stale; else None.
        tuning: of the kernel.
        record: of this step's updates; None before the first, where there will be no second.
    """

    state: Any
    tuning: Any
    record: Record | None


class Prepared(NamedTuple):
    """What the data determine of the constants of the blocks.

    Args:
        each: for each block, what its own `prepare` gave.
        fixed: by number of the constant, those that are already determined; stacked unless they are the same array
            for all blocks.
    """

    each: tuple[Constants, ...]
    fixed: dict[int, Any]


@dataclass(frozen=True)
class Group:
    """Blocks that are alike.

    Args:
        blocks: at least one.
        kernel: built for the first of them.
        repeats: how many steps of the kernel an update of a block is.
    """

    blocks: tuple[Block, ...]
    kernel: AbstractKernel
    repeats: int = 1

    def __len__(self) -> int:
        """How many blocks."""
        return len(self.blocks)

    @functools.cached_property
    def coordinates(self) -> HostArray:
        """Where the blocks stand in a whole position, shape (blocks, dimension)."""
        return np.stack([block.coordinates for block in self.blocks])

    @functools.cached_property
    def keeps_state(self) -> bool:
        """Whether nothing outside a block can make its state stale."""
        return not any(block.depends_on_rest for block in self.blocks)

    @functools.cached_property
    def _independent(self) -> bool:
        """Whether no block's density depends on another block of the group."""
        return not any(
            block.depends_on(np.delete(self.coordinates, i, axis=0).ravel()) for i, block in enumerate(self.blocks)
        )

    @functools.cached_property
    def _stacked(self) -> tuple[bool, ...]:
        """For each constant, whether blocks have values of their own; False where all have the same array."""
        names = [block.names for block in self.blocks]
        return tuple(
            len({None if i is None else own[i] for own, i in zip(names, places, strict=True)}) > 1 or None in places
            for places in zip(*(block.fixed for block in self.blocks), strict=True)
        )

    def prepare(self, data: Constants) -> Prepared:
        """What the data determine: to be computed once per run."""
        each = tuple(block.prepare(data) for block in self.blocks)
        fixed = {}
        for k, places in enumerate(zip(*(block.fixed for block in self.blocks), strict=True)):
            if None not in places:
                values = [own[i] for own, i in zip(each, places, strict=True)]
                fixed[k] = jnp.stack(values) if self._stacked[k] and len(self) > 1 else values[0]
        return Prepared(each, fixed)

    def init(self, position: Array, prepared: Prepared) -> Any:
        """The states at a position, where they are kept; else None."""
        if not self.keeps_state:
            return None
        states = [
            self.kernel.init(position[c], self._given(position, prepared, i)) for i, c in enumerate(self.coordinates)
        ]
        return states[0] if len(self) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def is_sound(self, position: Array, prepared: Prepared) -> Array:
        """Whether every block can start at a position, shape ()."""
        if len(self) == 1:
            return self.kernel.is_sound(take(position, self.coordinates[0]), self._given(position, prepared, 0))
        places = jnp.asarray(self.coordinates)

        def one(index: Array) -> Array:
            here = position.at[places[index]].get(mode="promise_in_bounds")
            return self.kernel.is_sound(here, self._given_any(position, prepared, index))

        return jnp.all(lax.map(one, jnp.arange(len(self), dtype=jnp.int32)))

    def init_tuning(self) -> Any:
        """The tunings before the first step, as NumPy arrays."""
        tuning = self.kernel.init_tuning()
        return tuning if len(self) == 1 else jax.tree.map(lambda leaf: np.stack([leaf] * len(self)), tuning)

    def retune(self, tuning: Any, done: int, warmup: int) -> Any:
        """Digest what each block has learned, on the host."""
        if len(self) == 1:
            return self.kernel.retune(tuning, done, warmup)
        each = [
            self.kernel.retune(jax.tree.map(lambda leaf, i=i: leaf[i], tuning), done, warmup) for i in range(len(self))
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

    def empty_record(self, tuning: Any) -> Record:
        """The record of no updates."""
        one = tuning if len(self) == 1 else jax.tree.map(lambda leaf: leaf[0], tuning)
        target = self.blocks[0].target

        def statistics(key: Array, position: Array, tuning: Any, constants: Constants) -> dict[str, Array]:
            state = self.kernel.init(position, constants)
            return self.kernel.statistics(self.kernel.advance(key, state, tuning, constants, jnp.zeros((), bool))[2])

        position = jax.ShapeDtypeStruct((target.dimension,), jnp.result_type(float))
        record = empty(jax.eval_shape(statistics, chain_key(0, 0), position, one, target.constants))
        stacked: Record = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(self), *leaf.shape)), record)
        return record if len(self) == 1 else stacked

    def update_all(
        self, key: Array, position: Array, memory: Memory, prepared: Prepared, warming: Array
    ) -> tuple[Array, Memory]:
        """Update every block once, in order."""
        if len(self) == 1:
            return self.update_one(key, position, memory, prepared, warming, 0)
        if not self._independent:
            return self._update_in_turn(key, position, memory, prepared, warming)
        constants = [self._given(position, prepared, i) for i in range(len(self))]
        together = [
            prepared.fixed[k] if k in prepared.fixed else jnp.stack([own[k] for own in constants])
            for k in range(len(self._stacked))
        ]
        moving = [array for array, stacked in zip(together, self._stacked, strict=True) if stacked]

        def body(_: None, each: tuple[Array, Array, Memory, list[Any]]) -> tuple[None, tuple[Array, Memory]]:
            index, here, kept, own = each
            values = iter(own)
            given = tuple(
                next(values) if stacked else array for array, stacked in zip(together, self._stacked, strict=True)
            )
            return None, self._update(fold_in(key, index), here, kept, given, warming)

        start = take(position, self.coordinates.ravel()).reshape(self.coordinates.shape)
        _, (end, memory) = lax.scan(body, None, (jnp.arange(len(self), dtype=jnp.int32), start, memory, moving))
        return put(position, self.coordinates.ravel(), end.ravel()), memory

    def update_one(
        self, key: Array, position: Array, memory: Memory, prepared: Prepared, warming: Array, index: Any
    ) -> tuple[Array, Memory]:
        """Update one block, by its number, which may be a traced one."""
        if len(self) == 1:
            coordinates = self.coordinates[0]
            here = take(position, coordinates)
            here, memory = self._update(key, here, memory, self._given(position, prepared, 0), warming)
            return put(position, coordinates, here), memory
        places = jnp.asarray(self.coordinates)[index]
        own = jax.tree.map(lambda leaf: leaf[index], memory)
        here = position.at[places].get(mode="promise_in_bounds")
        here, own = self._update(key, here, own, self._given_any(position, prepared, index), warming)
        memory = jax.tree.map(lambda leaf, new: leaf.at[index].set(new), memory, own)
        return position.at[places].set(here, mode="promise_in_bounds", unique_indices=True), memory

    def _update_in_turn(
        self, key: Array, position: Array, memory: Memory, prepared: Prepared, warming: Array
    ) -> tuple[Array, Memory]:
        if memory.record is None:
            memory = memory._replace(record=self.empty_record(memory.tuning))

        def body(index: Array, carry: tuple[Array, Memory]) -> tuple[Array, Memory]:
            return self.update_one(fold_in(key, index), *carry, prepared, warming, index)

        result: tuple[Array, Memory] = lax.fori_loop(0, len(self), body, (position, memory))
        return result

    def _update(
        self, key: Array, here: Array, memory: Memory, given: Constants, warming: Array
    ) -> tuple[Array, Memory]:
        # The barriers keep XLA from computing one block's update anew in each operation of the next that uses it.
        state = memory.state if self.keeps_state else lax.optimization_barrier(self.kernel.init(here, given))

        def step(key: Array, state: Any, tuning: Any, record: Record | None) -> tuple[Any, Any, Record]:
            state, tuning, info = self.kernel.advance(key, state, tuning, given, warming)
            return state, tuning, add(record, self.kernel.statistics(info))

        if self.repeats == 1:
            state, tuning, record = step(key, state, memory.tuning, memory.record)
        else:
            state, tuning, record = lax.fori_loop(
                0, self.repeats, lambda i, kept: step(fold_in(key, i), *kept), (state, memory.tuning, memory.record)
            )
        state, tuning, record = lax.optimization_barrier((state, tuning, record))
        return self.kernel.position(state), Memory(state if self.keeps_state else None, tuning, record)

    def _given(self, position: Array, prepared: Prepared, index: int) -> Constants:
        """The constants of one block."""
        return self.blocks[index].constants(position, prepared.each[index])

    def _given_any(self, position: Array, prepared: Prepared, index: Array) -> Constants:
        """The constants of one block, whose number is traced."""
        unknown = [k for k in range(len(self._stacked)) if k not in prepared.fixed]

        def of(i: int) -> Callable[[Array], list[Any]]:
            return lambda q: [self._given(q, prepared, i)[k] for k in unknown]

        found = lax.switch(index, [of(i) for i in range(len(self))], position) if unknown else []
        moving = dict(zip(unknown, found, strict=True))
        return tuple(
            moving[k] if k in moving else prepared.fixed[k][index] if stacked else prepared.fixed[k]
            for k, stacked in enumerate(self._stacked)
        )
