"""A kernel, compiled for many chains at once.

Draws leave the program as rows of a buffer that is emptied whenever the host looks at it, so that a chain does not wait
for others but where the host makes it wait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .alone import whole_constants
from .base import AbstractKernel, Array, Block, Constants, on_host
from .compilation import Layout
from .executables import compile_soon
from .flat_nuts import Chunk
from .pace import AbstractPace, pace_of
from .random import chain_key

HostArray = np.ndarray[Any, Any]

# Rows that a chain can fill between two looks of the host, and what the buffer of all chains may take.
_ROWS, _BUFFER_BYTES = 256, 1 << 26


@dataclass(frozen=True)
class Flock:
    """Where the chains of an ensemble are.

    Args:
        walks: of all chains; see `pace`.
        memory: what warm-up remembers of their draws; None if nothing.
        constants: of the kernel, worked out from the data once.
    """

    walks: Any
    memory: Any
    constants: Constants


@dataclass(frozen=True)
class CompiledEnsemble:
    """A kernel, compiled for a number of chains at once.

    Args:
        kernel: what was compiled.
        pace: how chains wait for each other.
        data: the arrays its target closes over.
        chains: how many.
        layout: of a row.
        rows: capacity of the buffer, for each chain.
        reusable: whether other data of the same shapes may take the place of these.
    """

    kernel: AbstractKernel
    pace: AbstractPace
    data: tuple[Any, ...]
    chains: int
    layout: Layout
    rows: int
    reusable: bool
    _init: Callable[..., Any]
    _advance: Callable[..., Any]
    _remember: Callable[..., Any] | None

    def with_data(self, data: Sequence[Any]) -> CompiledEnsemble:
        """The same executables for other data of the same shapes."""
        return dataclasses.replace(self, data=tuple(data))

    def init(self, positions: HostArray) -> tuple[Flock, HostArray]:
        """The chains at positions, shape (chains, dimension), and which of them can start, shape (chains,)."""
        carried, memory = self.pace.split(self.kernel.init_tuning())
        walks, constants, sound = self._init(positions, carried, self.data)
        return Flock(walks, None if memory is None else _stack([memory] * self.chains), constants), np.asarray(sound)

    def advance(self, flock: Flock, chunks: Chunk, rounds: int, steps: int) -> tuple[Flock, HostArray]:
        """Go on for some rounds; of what is learned from the draws, the memory is fed too.

        Args:
            flock: where the chains are; it is used up.
            chunks: what each chain is to do, from where its buffer is empty.
            rounds: how many of them.
            steps: leapfrog steps in a round.

        Returns:
            Where they are now, and rows as in `pace.AbstractPace.advance`.
        """
        walks, rows = self._advance(flock.walks, flock.constants, chunks, np.int32(rounds), np.int32(steps))
        memory = flock.memory
        if self._remember is not None and chunks.warming.any():
            memory = self._remember(memory, rows, walks.made, walks.tuning)
        return Flock(walks, memory, flock.constants), np.asarray(rows)

    def tunings(self, flock: Flock) -> list[Any]:
        """The tuning of each chain, as NumPy arrays."""
        tunings = jax.tree.map(np.asarray, self.pace.whole(flock.walks.tuning, flock.memory))
        leaves, structure = jax.tree.flatten(tunings)
        return [jax.tree.unflatten(structure, [leaf[chain] for leaf in leaves]) for chain in range(self.chains)]

    def with_tunings(self, flock: Flock, tunings: Sequence[Any]) -> Flock:
        """The same chains with other tunings."""
        carried, memory = self.pace.split(_stack(tunings))
        return dataclasses.replace(flock, walks=flock.walks._replace(tuning=carried), memory=memory)


def compile_ensemble(
    kernel: AbstractKernel,
    whole: Block,
    data: Sequence[Any],
    dtype: Any,
    chains: int,
    meanwhile: Callable[[], None] = lambda: None,
    pace: AbstractPace | None = None,
) -> CompiledEnsemble:
    """Compile a kernel for many chains at once.

    Args:
        kernel: over the data, as `composition.build_kernel` gives it.
        whole: everything as one block, for the log density where a chain starts.
        data: arrays.
        dtype: of positions.
        chains: how many.
        meanwhile: is called when the compiler is at work, which needs no interpreter.
        pace: how chains wait for each other; by default as it suits the kernel.
    """
    going = pace_of(kernel) if pace is None else pace
    dimension = whole.target.dimension
    key, tuning = chain_key(0, 0), kernel.init_tuning()
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(array), array.dtype) for array in data)
    carried, memory = going.split(tuning)

    def init(positions: Array, carried: Any, data: tuple[Any, ...]) -> tuple[Any, Constants, Array]:
        constants, of_whole = kernel.prepare(data), whole_constants(whole, data)

        def one(position: Array) -> tuple[Any, Array]:
            sound = kernel.is_sound(position, constants)
            sound &= jnp.isfinite(whole.target.log_density(position, *of_whole))
            return going.begin(
                jnp.asarray(key), kernel.init(position, constants), jax.tree.map(jnp.asarray, carried)
            ), sound

        walks, sound = jax.vmap(one)(positions)
        return walks, constants, sound

    positions = jax.ShapeDtypeStruct((chains, dimension), dtype)
    walks, constants, _ = jax.eval_shape(init, positions, carried, shapes)
    state = jax.eval_shape(kernel.init, jax.ShapeDtypeStruct((dimension,), dtype), constants)
    layout = Layout.of(dimension, dtype, going.statistics(key, state, tuning, constants))
    width = layout.width + (0 if memory is None else dimension)
    capacity = min(max(_BUFFER_BYTES // (8 * chains * width), 16), _ROWS)

    def advance(walks: Any, constants: Constants, chunks: Chunk, rounds: Array, steps: Array) -> tuple[Any, Array]:
        return going.advance(walks, constants, chunks, rounds, steps, layout, capacity)

    def remember(memory: Any, rows: Array, counts: Array, carried: Any) -> Any:
        return going.remember(memory, rows, counts, carried, layout)

    nothing = np.zeros(chains, int)
    chunks = as_chunks(np.stack([key] * chains), nothing, nothing, 1, warming=False)
    # What takes longest comes first.
    main = compile_soon(advance, walks, constants, chunks, np.int32(0), np.int32(0), donate=(0,))
    programs = [main, compile_soon(init, positions, carried, shapes)]
    if memory is not None:
        rows = jax.ShapeDtypeStruct((chains, capacity + 1, width), dtype)
        memories = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chains, *np.shape(leaf)), leaf.dtype), memory)
        programs.append(compile_soon(remember, memories, rows, chunks.first, walks.tuning, donate=(0,)))
    meanwhile()
    done = [program.result() for program in programs]
    calls = [program.call for program in done]
    return CompiledEnsemble(
        kernel,
        going,
        tuple(data),
        chains,
        layout,
        capacity,
        all(program.reusable for program in done),
        _advance=calls[0],
        _init=calls[1],
        _remember=calls[2] if memory is not None else None,
    )


def as_chunks(keys: HostArray, first: HostArray, transitions: HostArray, thin: int, *, warming: bool) -> Chunk:
    """What each chain is to do, as NumPy arrays."""
    return Chunk(
        on_host(keys, keys.dtype),
        on_host(first, np.int32),
        on_host(transitions, np.int32),
        on_host(np.full(len(keys), thin), np.int32),
        on_host(np.full(len(keys), warming), np.bool_),
    )


def choose_chains(which: HostArray, one: Flock, other: Flock) -> Flock:
    """Some chains of one flock, and the rest of another."""

    def choose(a: Any, b: Any) -> HostArray:
        return np.where(which.reshape(-1, *(1 for _ in np.shape(a)[1:])), np.asarray(a), np.asarray(b))

    walks, memory = jax.tree.map(choose, (one.walks, one.memory), (other.walks, other.memory))
    return Flock(walks, memory, one.constants)


def _stack(trees: Sequence[Any]) -> Any:
    """Pytrees of arrays as one, with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
