"""The driver: compiles a kernel once and runs chains with it, in chunks, in threads.

One compiled program advances a chain by some number of steps and returns their draws. Warm-up and sampling use the
same program with a flag; what is learned at window ends is digested on the host between two chunks. XLA releases the
interpreter lock while it runs, so chains in threads use all cores.

Chain i depends on `seed` and `i` only, whatever the number of chains, threads and chunks.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from threadpoolctl import threadpool_limits

from .base import AbstractKernel, Array, Conditional
from .random import chain_key, fold_in

HostArray = np.ndarray[Any, Any]

# A chunk should last about this long: short enough for progress and interruption, long enough that the time
# between two chunks does not count.
_CHUNK_SECONDS = 0.075
_BUFFER_BYTES = 1 << 20


class Progress(Protocol):
    """Who is told how the chains are doing; called from several threads."""

    def update(self, chain: int, phase: str, done: int, divergences: int, step_size: float) -> None:
        """A chain has finished `done` steps of the phase "warm-up" or "sampling"."""


@dataclass(frozen=True)
class Settings:
    """How long to run.

    Args:
        draws: to keep from each chain.
        warmup: steps before them, of which none is kept.
        thin: keep every thin-th step after warm-up.
    """

    draws: int
    warmup: int
    thin: int = 1


@dataclass(frozen=True)
class Draws:
    """What a run gave; the first dimensions of all arrays are (chains, draws).

    Args:
        positions: shape (chains, draws, dimension).
        statistics: by name, shape (chains, draws, ...).
        chains: their numbers; all of them unless the run was interrupted.
        tunings: of each of these chains after warm-up.
        warmup_seconds, sampling_seconds: wall clock.
        finished: False if the run was interrupted; the arrays then hold the chains and draws of `largest_rectangle`.
    """

    positions: HostArray
    statistics: dict[str, HostArray]
    chains: tuple[int, ...]
    tunings: tuple[Any, ...]
    warmup_seconds: float
    sampling_seconds: float
    finished: bool


class Start(NamedTuple):
    """Where a chain is.

    Args:
        state: of the kernel.
        constants: of its target, worked out from the data once.
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

    def init(self, position: HostArray) -> tuple[Start, Any]:
        """The beginning of a chain at a position, shape (dimension,), and the log density there."""
        start, log_density = self._init(position, self.data)
        return start, log_density

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


def compile_chain(
    kernel: AbstractKernel, whole: Conditional, data: Sequence[Any], dtype: Any, settings: Settings
) -> CompiledChain:
    """Compile a kernel.

    Args:
        kernel: built for `whole.target`.
        whole: the whole density, whose constants are worked out from the data where a chain starts.
        data: arrays.
        dtype: of positions.
        settings: bounds the buffer of a chunk.
    """
    dimension = whole.target.dimension
    position = jax.ShapeDtypeStruct((dimension,), dtype)
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(array), array.dtype) for array in data)
    tuning = kernel.init_tuning()

    def init(position: Array, data: tuple[Any, ...]) -> tuple[Start, Array]:
        constants = whole.constants(position, data)
        return Start(kernel.init(position, constants), constants), whole.target.log_density(position, *constants)

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
            state, info = kernel.step(fold_in(key, first + index), state, tuning, start.constants)
            new_position = kernel.position(state)
            learned = kernel.tune(tuning, new_position, info)
            tuning = jax.tree.map(lambda new, old: jnp.where(warming, new, old), learned, tuning)
            row = jnp.concatenate([new_position, *(jnp.ravel(value).astype(dtype) for value in record(info).values())])
            # With thinning the last step of each group overwrites the others.
            rows = lax.dynamic_update_index_in_dim(rows, row, index // thin, 0)
            return index + 1, state, tuning, rows

        rows = jnp.zeros((capacity, width), dtype)
        _, state, tuning, rows = lax.while_loop(unfinished, body, (jnp.int32(0), start.state, tuning, rows))
        return state, tuning, rows

    start, _ = jax.eval_shape(init, position, shapes)
    key = chain_key(0, 0)
    info = jax.eval_shape(lambda *args: record(kernel.step(*args)[1]), key, start.state, tuning, start.constants)
    columns = tuple(_Column(name, tuple(value.shape), value.dtype) for name, value in info.items())
    width = dimension + sum(math.prod(column.shape) for column in columns)
    longest = max(settings.draws, settings.warmup, 1)
    capacity = min(longest, max(16, _BUFFER_BYTES // (8 * width)))
    arguments = (start, tuning, key, np.int32(0), np.int32(0), np.int32(1), np.bool_(False))
    lowered = (jax.jit(init).lower(position, shapes), jax.jit(chunk).lower(*arguments))
    with ThreadPoolExecutor(2) as pool:
        compiled_init, compiled_chunk = pool.map(lambda low: low.compile(), lowered)
    return CompiledChain(
        kernel, tuple(data), dimension, np.dtype(dtype), capacity, columns, compiled_init, compiled_chunk
    )


@dataclass
class _Runner:
    """Runs one chain to its end, or until it is told to stop."""

    compiled: CompiledChain
    settings: Settings
    chain: int
    key: HostArray
    start: Start
    tuning: Any
    positions: HostArray
    statistics: dict[str, HostArray]
    progress: Progress
    stop: threading.Event
    steps: int = 0
    kept: int = 0
    divergences: int = 0
    pace: float = math.inf
    warmup_seconds: float = 0.0
    sampling_seconds: float = 0.0

    def run(self) -> _Runner:
        settings, kernel = self.settings, self.compiled.kernel
        started = time.perf_counter()
        for border in kernel.schedule(settings.warmup):
            self._advance(border - self.steps, 1, warming=True)
            if self.stop.is_set():
                return self
            self.tuning = kernel.retune(jax.tree.map(np.asarray, self.tuning), border, settings.warmup)
        # What a kernel that learns nothing, and so has no schedule, leaves over.
        self._advance(settings.warmup - self.steps, 1, warming=True)
        warm = time.perf_counter()
        self.divergences = 0
        self._advance(settings.draws * settings.thin, settings.thin, warming=False)
        self.warmup_seconds, self.sampling_seconds = warm - started, time.perf_counter() - warm
        return self

    def _advance(self, count: int, thin: int, *, warming: bool) -> None:
        """Run `count` steps in chunks, each as long as a chunk should last at the pace of the one before."""
        done = 0
        while done < count and not self.stop.is_set():
            wanted = 10 if self.pace == math.inf else round(_CHUNK_SECONDS / (self.pace * thin))
            size = min(thin * min(max(wanted, 1), self.compiled.rows), count - done)
            started = time.perf_counter()
            self.start, self.tuning, rows = self.compiled.advance(
                self.start, self.tuning, self.key, self.steps, size, thin, warming
            )
            self.pace = (time.perf_counter() - started) / size
            self.steps += size
            done += size
            statistics = self.compiled.statistics(rows)
            if not warming:
                self._keep(rows, statistics)
            self._report("warm-up" if warming else "sampling", self.steps if warming else done, statistics)

    def _keep(self, rows: HostArray, statistics: dict[str, HostArray]) -> None:
        stretch = slice(self.kept, self.kept + len(rows))
        self.positions[stretch] = rows[:, : self.compiled.dimension]
        for name, values in statistics.items():
            self.statistics[name][stretch] = values
        self.kept += len(rows)

    def _report(self, phase: str, done: int, statistics: dict[str, HostArray]) -> None:
        self.divergences += int(np.sum(statistics.get("diverging", 0)))
        step_size = statistics.get("step_size", statistics.get("block_step_size"))
        last = math.nan if step_size is None else float(np.nanmin(step_size[-1]))
        self.progress.update(self.chain, phase, done, self.divergences, last)


def run_chains(
    compiled: CompiledChain,
    starts: Sequence[Start],
    keys: Sequence[HostArray],
    settings: Settings,
    progress: Progress,
    x64: bool,
) -> Draws:
    """Run chains in threads, as many at a time as there are cores.

    Args:
        compiled: the kernel.
        starts: where each chain starts.
        keys: of each chain.
        settings: how long to run.
        progress: is told how it goes.
        x64: whether the program was compiled with 64-bit numbers; JAX keeps this setting for each thread.

    Returns:
        The draws of all chains. After an interruption, those of `largest_rectangle`.

    Raises:
        KeyboardInterrupt: if interrupted before any chain has made a draw.
    """
    chains = len(starts)
    stop = threading.Event()
    positions, statistics = compiled.storage(chains, settings.draws)
    tuning = compiled.kernel.init_tuning()
    runners = [
        _Runner(
            compiled, settings, i, keys[i], starts[i], tuning, positions[i],
            {name: values[i] for name, values in statistics.items()}, progress, stop,
        )
        for i in range(chains)
    ]  # fmt: skip

    def run(runner: _Runner) -> _Runner:
        with jax.enable_x64(x64):
            return runner.run()

    started = time.perf_counter()
    # Chains keep the cores busy: a second level of threads inside the linear algebra of each makes them wait for each
    # other, and a Cholesky factor of a small matrix a hundred times slower.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(min(chains, os.cpu_count() or 1)) as pool,
    ):
        futures = [pool.submit(run, runner) for runner in runners]
        try:
            # In short waits, so that the main thread sees an interruption at once.
            while wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION).not_done:
                if any(future.done() and future.exception() for future in futures):
                    stop.set()
        except KeyboardInterrupt:
            stop.set()
            wait(futures)
            if not any(runner.kept for runner in runners):
                raise
        for future in futures:
            future.result()
    elapsed = time.perf_counter() - started
    chosen, kept = largest_rectangle([runner.kept for runner in runners])
    warming = sum(runner.warmup_seconds for runner in runners)
    sampling = sum(runner.sampling_seconds for runner in runners)
    # Chains share the cores, so their phases overlap: the wall clock is divided as the work was.
    share = warming / (warming + sampling) if warming + sampling else 0.0
    return Draws(
        positions[:, :kept][chosen] if len(chosen) < chains else positions[:, :kept],
        {
            name: values[:, :kept][chosen] if len(chosen) < chains else values[:, :kept]
            for name, values in statistics.items()
        },
        tuple(chosen),
        tuple(runners[i].tuning for i in chosen),
        share * elapsed,
        (1.0 - share) * elapsed,
        finished=len(chosen) == chains and kept == settings.draws,
    )


def largest_rectangle(kept: Sequence[int]) -> tuple[list[int], int]:
    """Which chains to keep of an interrupted run, and how many draws of each, so that most draws remain.

    Args:
        kept: draws made by each chain.

    Returns:
        The numbers of the chains, ascending, and the number of draws that all of them have.
    """
    longest_first = sorted(range(len(kept)), key=lambda i: -kept[i])
    count = max(range(1, len(kept) + 1), key=lambda n: (n * kept[longest_first[n - 1]], n))
    return sorted(longest_first[:count]), kept[longest_first[count - 1]]
