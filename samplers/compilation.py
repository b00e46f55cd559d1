"""A kernel, compiled: one program that advances a chain by some number of steps and returns their draws.

Warm-up and sampling use the same program with a flag. Draws leave it as the rows of a buffer, a position and then the
statistics in each: one array to carry through the loop, and one to transfer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .alone import whole_constants
from .base import AbstractKernel, Array, Block
from .random import chain_key, fold_in

HostArray = np.ndarray[Any, Any]

# What a chunk's buffer may hold. Small enough to stay in cache, large enough that the time between two chunks does not
# count.
_BUFFER_BYTES = 1 << 20


class Start(NamedTuple):
    """Where a chain is.

    Args:
        state: of the kernel.
        constants: of its kernel, worked out from the data once.
    """

    state: Any
    constants: tuple[Any, ...]


@dataclass(frozen=True)
class _Column:
    name: str
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class CompiledChain:
    """A kernel, compiled: the same executables serve every chain, warm-up and sampling.

    Args:
        kernel: what was compiled.
        data: the arrays its target closes over.
        dimension, dtype: of positions.
        rows: capacity of the buffer that a chunk fills.
        columns: what stands in a row after the position.
    """

    kernel: AbstractKernel
    data: tuple[Any, ...]
    dimension: int
    dtype: Any
    rows: int
    columns: tuple[_Column, ...]
    _init: Callable[..., Any]
    _chunk: Callable[..., Any]

    def init(self, position: HostArray) -> tuple[Start, Any, bool]:
        """The beginning of a chain at a position, shape (dimension,), the log density, and whether it can start."""
        start, log_density, sound = self._init(position, self.data)
        return start, log_density, bool(sound)

    def advance(
        self, start: Start, tuning: Any, key: HostArray, first: int, count: int, thin: int, warming: bool
    ) -> tuple[Start, Any, HostArray]:
        """Run `count` steps, the first of them number `first` of the chain.

        Returns:
            Where the chain is now, the new tuning, and a row for every thin-th step.
        """
        state, tuning, rows = self._chunk(
            start, tuning, key, np.int32(first), np.int32(count), np.int32(thin), np.bool_(warming)
        )
        return Start(state, start.constants), tuning, np.asarray(rows)[: count // thin]

    def storage(self, chains: int, draws: int) -> tuple[HostArray, dict[str, HostArray]]:
        """Empty arrays for the positions and statistics of a run."""
        statistics = {c.name: np.empty((chains, draws, *c.shape), c.dtype) for c in self.columns}
        return np.empty((chains, draws, self.dimension), self.dtype), statistics

    def statistics(self, rows: HostArray) -> dict[str, HostArray]:
        """The statistics in the rows of a chunk, by name, as views where the dtype allows."""
        found, at = {}, self.dimension
        for column in self.columns:
            width = math.prod(column.shape)
            found[column.name] = rows[:, at : at + width].reshape(len(rows), *column.shape)
            at += width
        return found


def compile_chain(kernel: AbstractKernel, whole: Block, data: Sequence[Any], dtype: Any, longest: int) -> CompiledChain:
    """Compile a kernel.

    Args:
        kernel: over the data, as `composition.build_kernel` gives it.
        whole: everything as one block, for the log density where a chain starts.
        data: arrays.
        dtype: of positions.
        longest: steps in the longest phase of a run, which bounds the buffer.
    """
    dimension = whole.target.dimension
    position = jax.ShapeDtypeStruct((dimension,), dtype)
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(array), array.dtype) for array in data)
    tuning = kernel.init_tuning()

    def init(position: Array, data: tuple[Any, ...]) -> tuple[Start, Array, Array]:
        constants = kernel.prepare(data)
        log_density = whole.target.log_density(position, *whole_constants(whole, data))
        sound = kernel.is_sound(position, constants) & jnp.isfinite(log_density)
        return Start(kernel.init(position, constants), constants), log_density, sound

    def record(info: Any) -> dict[str, Array]:
        return dict(sorted(kernel.statistics(info).items()))

    def chunk(
        start: Start,
        tuning: Any,
        key: Array,
        first: Array,
        count: Array,
        thin: Array,
        warming: Array,
    ) -> tuple[Any, Any, Array]:
        def unfinished(carry: tuple[Array, Any, Any, Array]) -> Array:
            return carry[0] < count

        def body(carry: tuple[Array, Any, Any, Array]) -> tuple[Array, Any, Any, Array]:
            index, state, tuning, rows = carry
            own = fold_in(key, first + index)
            state, tuning, info = kernel.advance(own, state, tuning, start.constants, warming)
            row = jnp.concatenate(
                [kernel.position(state), *(jnp.ravel(value).astype(dtype) for value in record(info).values())]
            )
            # With thinning the last step of each group overwrites the others.
            rows = lax.dynamic_update_index_in_dim(rows, row, index // thin, 0)
            return index + 1, state, tuning, rows

        rows = jnp.zeros((capacity, width), dtype)
        _, state, tuning, rows = lax.while_loop(unfinished, body, (jnp.int32(0), start.state, tuning, rows))
        return state, tuning, rows

    start, _, _ = jax.eval_shape(init, position, shapes)
    key = chain_key(0, 0)
    info = jax.eval_shape(lambda *args: record(kernel.step(*args)[1]), key, start.state, tuning, start.constants)
    columns = tuple(_Column(name, tuple(value.shape), value.dtype) for name, value in info.items())
    width = dimension + sum(math.prod(column.shape) for column in columns)
    capacity = min(max(longest, 1), max(16, _BUFFER_BYTES // (8 * width)))
    arguments = (start, tuning, key, np.int32(0), np.int32(0), np.int32(1), np.bool_(False))
    lowered = (jax.jit(init).lower(position, shapes), jax.jit(chunk).lower(*arguments))
    with ThreadPoolExecutor(2) as pool:
        compiled_init, compiled_chunk = pool.map(lambda low: low.compile(), lowered)
    return CompiledChain(
        kernel, tuple(data), dimension, np.dtype(dtype), capacity, columns, compiled_init, compiled_chunk
    )
