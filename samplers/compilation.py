"""A kernel, compiled: one program that advances a chain by some number of steps and returns their draws.

Warm-up and sampling use the same program with a flag. Draws leave it as the rows of a buffer, a position and then the
statistics in each: one array to carry through the loop, and one to transfer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from .alone import whole_constants
from .base import AbstractKernel, Array, Block
from .executables import compile_soon
from .packing import Packing
from .random import chain_key, fold_in

HostArray = np.ndarray[Any, Any]

# What a chunk's buffer may hold. Small enough to stay in cache, large enough that the time between two chunks does not
# count. Short runs have a smaller one, which is cleared and handed over sooner; all of them the same, so that one
# program serves them.
_BUFFER_BYTES = 1 << 20
_SHORT_RUN = 1024


class Start(NamedTuple):
    """Where a chain is.

    Args:
        state: of the kernel.
        constants: of its kernel, worked out from the data once.
    """

    state: Any
    constants: tuple[Any, ...]


class Walk(NamedTuple):
    """Where a chain is and what its kernel has learned, as a compiled program takes and gives it.

    Args:
        vectors: state and tuning, packed.
        constants: as in `Start`.
    """

    vectors: tuple[Any, ...]
    constants: tuple[Any, ...]


@dataclass(frozen=True)
class _Column:
    name: str
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Layout:
    """What stands in a row: a position, and then the statistics.

    Args:
        dimension, dtype: of positions.
        columns: the statistics.
    """

    dimension: int
    dtype: Any
    columns: tuple[_Column, ...]

    @classmethod
    def of(cls, dimension: int, dtype: Any, statistics: Mapping[str, Any]) -> Layout:
        """For statistics, given as arrays or their shapes by name."""
        found = sorted(statistics.items())
        columns = tuple(_Column(name, tuple(value.shape), value.dtype) for name, value in found)
        return cls(dimension, np.dtype(dtype), columns)

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return self.dimension + sum(math.prod(column.shape) for column in self.columns)

    def row(self, position: Array, statistics: Mapping[str, Array]) -> Array:
        """A row, shape (width,); to be compiled."""
        values = [jnp.ravel(statistics[column.name]).astype(self.dtype) for column in self.columns]
        return jnp.concatenate([position, *values])

    def storage(self, chains: int, draws: int) -> tuple[HostArray, dict[str, HostArray]]:
        """Empty arrays for the positions and statistics of a run."""
        statistics = {c.name: np.empty((chains, draws, *c.shape), c.dtype) for c in self.columns}
        return np.empty((chains, draws, self.dimension), self.dtype), statistics

    def statistics(self, rows: HostArray) -> dict[str, HostArray]:
        """The statistics in rows, shape (n, width) or longer, by name; views where that can be."""
        found, at = {}, self.dimension
        for column in self.columns:
            width = math.prod(column.shape)
            found[column.name] = rows[:, at : at + width].reshape(len(rows), *column.shape)
            at += width
        return found


@dataclass(frozen=True)
class CompiledChain:
    """A kernel, compiled: the same executables serve every chain, warm-up and sampling.

    Args:
        kernel: what was compiled.
        data: the arrays its target closes over.
        layout: of a row.
        rows: capacity of the buffer that a chunk fills.
        packing: of state and tuning, as a chunk takes and gives them.
        reusable: whether other data of the same shapes may take the place of these.
    """

    kernel: AbstractKernel
    data: tuple[Any, ...]
    layout: Layout
    rows: int
    packing: Packing
    reusable: bool
    _init: Callable[..., Any]
    _chunk: Callable[..., Any]

    @property
    def dimension(self) -> int:
        """Of positions."""
        return self.layout.dimension

    def with_data(self, data: Sequence[Any]) -> CompiledChain:
        """The same executables for other data of the same shapes."""
        return dataclasses.replace(self, data=tuple(data))

    def init(self, position: HostArray) -> tuple[Start, Any, bool]:
        """The beginning of a chain at a position, shape (dimension,), the log density, and whether it can start."""
        start, log_density, sound = self._init(position, self.data)
        return start, log_density, bool(sound)

    def set_out(self, start: Start, tuning: Any) -> Walk:
        """The beginning of a chain with a tuning; what is large in both is not copied."""
        return Walk(self.packing.pack((start.state, tuning)), start.constants)

    def advance(
        self, walk: Walk, key: HostArray, first: int, count: int, thin: int, warming: bool
    ) -> tuple[Walk, HostArray]:
        """Run `count` steps, the first of them number `first` of the chain.

        Nobody may use `walk` after this: it makes room for what takes its place.

        Returns:
            Where the chain is now, and a row for every thin-th step.
        """
        how = np.array([*key.reshape(-1), first, count, thin, warming], key.dtype)
        vectors, rows = self._chunk(walk.vectors, walk.constants, how)
        return Walk(vectors, walk.constants), np.asarray(rows)[: count // thin]

    def tuning(self, walk: Walk) -> Any:
        """What the kernel has learned."""
        return self.packing.fetch(walk.vectors)[1]

    def retune(self, walk: Walk, done: int, warmup: int) -> Walk:
        """The same place, when what has been seen after `done` steps of a warm-up is digested."""
        state, tuning = self.packing.fetch(walk.vectors)
        return Walk(self.packing.pack((state, self.kernel.retune(tuning, done, warmup))), walk.constants)


def _traced(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], Any]:
    """A function traced once, for arguments of these shapes, and the shapes of its result."""
    closed, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
    evaluate, tree = jaxpr_as_fun(closed), jax.tree.structure(result)
    return lambda *own: jax.tree.unflatten(tree, evaluate(*jax.tree.leaves(own))), result


def buffer_rows(longest: int, width: int) -> int:
    """How many rows a chunk has room for: as few different numbers as can be, for each is a program of its own."""
    most = max(16, _BUFFER_BYTES // (8 * width))
    return min(most, _SHORT_RUN) if longest <= _SHORT_RUN else most


def compile_chain(
    kernel: AbstractKernel,
    whole: Block,
    data: Sequence[Any],
    dtype: Any,
    longest: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> CompiledChain:
    """Compile a kernel.

    Args:
        kernel: over the data, as `composition.build_kernel` gives it.
        whole: everything as one block, for the log density where a chain starts.
        data: arrays.
        dtype: of positions.
        longest: steps in the longest phase of a run, which bounds the buffer.
        meanwhile: is called when the compiler is at work, which needs no interpreter.
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

    def one_step(
        key: Array, state: Any, tuning: Any, constants: Any, warming: Array
    ) -> tuple[Any, Any, Array, dict[str, Array]]:
        state, tuning, info = kernel.advance(key, state, tuning, constants, warming)
        return state, tuning, kernel.position(state), kernel.statistics(info)

    def chunk(vectors: tuple[Array, ...], constants: Any, how: Array) -> tuple[tuple[Array, ...], Array]:
        def whole(carry: tuple[Array, tuple[Array, ...], Array]) -> tuple[Array, tuple[Array, ...], Array]:
            how, vectors, rows = carry
            state, tuning = packing.unpack(vectors)
            own_key = how[:-4].reshape(key.shape)
            first, count, thin, warming = how[-4:].astype(jnp.int32)

            def unfinished(carry: tuple[Array, Any, Any, Array]) -> Array:
                return carry[0] < count

            def body(carry: tuple[Array, Any, Any, Array]) -> tuple[Array, Any, Any, Array]:
                index, state, tuning, rows = carry
                now = fold_in(own_key, first + index)
                state, tuning, position, statistics = step(now, state, tuning, constants, warming > 0)
                row = layout.row(position, statistics)
                # With thinning the last step of each group overwrites the others.
                rows = lax.dynamic_update_index_in_dim(rows, row, index // thin, 0)
                return index + 1, state, tuning, rows

            _, state, tuning, rows = lax.while_loop(unfinished, body, (jnp.int32(0), state, tuning, rows))
            return how.at[-3].set(0), packing.pack_traced((state, tuning)), rows

        # A loop of one round: XLA makes one native function of it, where it would run every cut of a vector as an
        # operation of its own, which takes longer than twenty steps of a small model.
        rows = jnp.zeros((capacity, layout.width), dtype)
        _, vectors, rows = lax.while_loop(lambda carry: carry[0][-3] > 0, whole, (how, vectors, rows))
        return vectors, rows

    start, _, _ = jax.eval_shape(init, position, shapes)
    key = chain_key(0, 0)
    step, result = _traced(one_step, (key, start.state, tuning, start.constants, np.bool_(False)))
    layout = Layout.of(dimension, dtype, result[3])
    capacity = buffer_rows(longest, layout.width)
    packing = Packing.of((start.state, tuning))
    vectors = jax.eval_shape(packing.pack_traced, (start.state, tuning))
    arguments = (vectors, start.constants, np.zeros(key.size + 4, key.dtype))
    # What takes longest comes first.
    main, beginning = compile_soon(chunk, *arguments, donate=(0,)), compile_soon(init, position, shapes)
    meanwhile()
    programs = beginning.result(), main.result()
    return CompiledChain(
        kernel,
        tuple(data),
        layout,
        capacity,
        packing,
        all(program.reusable for program in programs),
        *(program.call for program in programs),
    )
