"""The driver: runs chains with a compiled kernel, in chunks, in threads.

What is learned at window ends is digested on the host between two chunks. XLA releases the interpreter lock while it
runs, so chains in threads use all cores.

Chain i depends on `seed` and `i` only, whatever the number of chains, threads and chunks.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from .compilation import CompiledChain, Start, Walk
from .stopping import Until

HostArray = np.ndarray[Any, Any]

# A chunk should last about this long: short enough for progress and interruption, long enough that the time
# between two chunks does not count.
_CHUNK_SECONDS = 0.075
# Steps of the first chunk, when the pace is not known: the first window of a warm-up.
_FIRST = 20

# From so many points a chain makes its first steps, where its kernel wants it to, and so many of them go on to the end
# of the trial. Started at random, a fifth of all chains stay in a minor mode of a population model (Lotka-Volterra); of
# those that go on from the best of four points, one in nine, and with twelve points, of which the four best go on after
# a quarter of the steps, one in a hundred. First steps are short: the twelve cost no more gradients than the four.
TRIES, _FINALISTS = 12, 4


def heats(count: int) -> tuple[tuple[int, int], ...]:
    """The heats of a trial of `count` steps: after how many steps each ends, and how many points go on."""
    return (max(count // 4, 1), _FINALISTS), (count, 1)


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
        until: stop earlier than after `draws`, as soon as this is reached; None for all draws.
    """

    draws: int
    warmup: int
    thin: int = 1
    until: Until | None = None

    @property
    def longest(self) -> int:
        """Rows that the longer phase can fill."""
        return max(self.draws, self.warmup)


@dataclass(frozen=True)
class Draws:
    """What a run gave; the first dimensions of all arrays are (chains, draws).

    Args:
        positions: shape (chains, draws, dimension).
        statistics: by name, shape (chains, draws, ...).
        chains: their numbers; all of them unless the run was interrupted.
        tunings: of each of these chains after warm-up.
        warmup_seconds, sampling_seconds: wall clock.
        warmup_gradients: evaluations of the gradient in the warm-up of all chains, where the kernel counts them.
        finished: False if the run was interrupted; the arrays then hold the chains and draws of `largest_rectangle`.
        reached: whether the run stopped because it had reached what it was to be continued for.
    """

    positions: HostArray
    statistics: dict[str, HostArray]
    chains: tuple[int, ...]
    tunings: tuple[Any, ...]
    warmup_seconds: float
    sampling_seconds: float
    warmup_gradients: int
    finished: bool
    reached: bool = False


@dataclass
class _Runner:
    """Runs one chain to its end, or until it is told to stop."""

    compiled: CompiledChain
    settings: Settings
    chain: int
    key: HostArray
    starts: Sequence[Start]
    tuning: Any
    positions: HostArray
    statistics: dict[str, HostArray]
    progress: Progress
    stop: threading.Event
    walk: Walk = field(init=False)
    steps: int = 0
    kept: int = 0
    divergences: int = 0
    gradients: int = 0
    log_density: float = -math.inf
    pace: float = math.inf
    warmup_seconds: float = 0.0
    sampling_seconds: float = 0.0

    def run(self) -> None:
        settings, compiled = self.settings, self.compiled
        started = time.perf_counter()
        self._try(compiled.kernel.trial(settings.warmup))
        for border in compiled.kernel.schedule(settings.warmup):
            self._advance(border - self.steps, 1, warming=True)
            if self.stop.is_set():
                break
            self.walk = compiled.retune(self.walk, border, settings.warmup)
        # What a kernel that learns nothing, and so has no schedule, leaves over.
        self._advance(settings.warmup - self.steps, 1, warming=True)
        warm = time.perf_counter()
        self.divergences = 0
        self._advance(settings.draws * settings.thin, settings.thin, warming=False)
        self.tuning = compiled.tuning(self.walk)
        self.warmup_seconds, self.sampling_seconds = warm - started, time.perf_counter() - warm

    def _try(self, count: int) -> None:
        """Make the first steps from every starting point, and go on from where the log density is highest."""
        self.walk = self.compiled.set_out(self.starts[0], self.tuning)
        if not count:
            return
        blank = self.compiled.kernel.retune(self.tuning, 0, self.settings.warmup)
        going: Iterable[Walk] = (self.compiled.set_out(start, blank) for start in self.starts)
        before = 0
        for end, places in heats(count):
            best: list[tuple[float, Walk]] = []
            for self.walk in going:
                self.steps = before
                self._advance(end - before, 1, warming=True)
                best.append((self.log_density, self.walk))
                # What is left behind at once leaves its memory to the next.
                best = sorted(best, key=lambda run: -run[0])[:places]
            going, before = [walk for _, walk in best], end
            self.walk = going[0]
        self.steps, self.divergences = count, 0

    def _advance(self, count: int, thin: int, *, warming: bool) -> None:
        """Run `count` steps in chunks, each as long as a chunk should last at the pace of the one before."""
        done = 0
        while done < count and not self.stop.is_set():
            wanted = _FIRST if self.pace == math.inf else round(_CHUNK_SECONDS / (self.pace * thin))
            size = min(thin * min(max(wanted, 1), self.compiled.rows), count - done)
            started = time.perf_counter()
            self.walk, rows = self.compiled.advance(self.walk, self.key, self.steps, size, thin, warming)
            self.pace = (time.perf_counter() - started) / size
            self.steps += size
            done += size
            statistics = self.compiled.layout.statistics(rows)
            log_density = float(statistics["lp"][-1])
            self.log_density = -math.inf if math.isnan(log_density) else log_density
            if warming:
                self.gradients += int(np.sum(statistics.get("n_steps", 0)))
            else:
                self._keep(rows, statistics)
            self._report("warm-up" if warming else "sampling", self.steps if warming else done, statistics)

    def _keep(self, rows: HostArray, statistics: dict[str, HostArray]) -> None:
        stretch = slice(self.kept, self.kept + len(rows))
        self.positions[stretch] = rows[:, : self.compiled.layout.dimension]
        for name, values in statistics.items():
            self.statistics[name][stretch] = values
        self.kept += len(rows)

    def _report(self, phase: str, done: int, statistics: dict[str, HostArray]) -> None:
        self.divergences += int(np.sum(statistics.get("diverging", 0)))
        step_size = statistics.get("step_size", statistics.get("block_step_size"))
        known = step_size[-1][np.isfinite(step_size[-1])] if step_size is not None else np.empty(0)
        last = float(known.min()) if known.size else math.nan
        self.progress.update(self.chain, phase, done, self.divergences, last)


def run_chains(
    compiled: CompiledChain,
    starts: Sequence[Sequence[Start]],
    keys: Sequence[HostArray],
    settings: Settings,
    progress: Progress,
    x64: bool,
    workers: int | None = None,
) -> Draws:
    """Run chains in threads, as many at a time as there are cores.

    Args:
        compiled: the kernel.
        starts: points from which each chain may start, at least one.
        keys: of each chain.
        settings: how long to run.
        progress: is told how it goes.
        x64: whether the program was compiled with 64-bit numbers; JAX keeps this setting for each thread.
        workers: how many chains at a time instead.

    Returns:
        The draws of all chains. After an interruption, those of `largest_rectangle`.

    Raises:
        KeyboardInterrupt: if interrupted before any chain has made a draw.
    """
    chains = len(starts)
    stop = threading.Event()
    positions, statistics = compiled.layout.storage(chains, settings.draws)
    tuning = compiled.kernel.init_tuning()
    runners = [
        _Runner(
            compiled, settings, i, keys[i], starts[i], tuning, positions[i],
            {name: values[i] for name, values in statistics.items()}, progress, stop,
        )
        for i in range(chains)
    ]  # fmt: skip

    def run(runner: _Runner) -> None:
        with jax.enable_x64(x64):
            runner.run()

    lengths = list(settings.until.lengths(settings.draws)) if settings.until else []
    found: list[int] = []

    def enough() -> int | None:
        """The first number of draws that was enough, of those that all chains have made."""
        made = min(runner.kept for runner in runners)
        while settings.until and not found and lengths and lengths[0] <= made:
            length = lengths.pop(0)
            found.extend([length] * settings.until.reached(positions[:, :length]))
        return found[0] if found else None

    started = time.perf_counter()
    # Chains keep the cores busy: a second level of threads inside the linear algebra of each makes them wait for each
    # other, and a Cholesky factor of a small matrix a hundred times slower.
    with (
        threadpool_limits(1, user_api="blas"),
        # Where draws of all chains decide when to stop, none may wait for another to end.
        ThreadPoolExecutor(chains if settings.until else min(chains, workers or os.cpu_count() or 1)) as pool,
    ):
        futures: list[Future[None]] = []
        try:
            for runner in runners:
                futures.append(pool.submit(run, runner))
            # In short waits, so that the main thread sees an interruption at once.
            while wait(futures, timeout=0.02 if lengths else 0.2, return_when=FIRST_EXCEPTION).not_done:
                if any(future.done() and future.exception() for future in futures):
                    stop.set()
                    wait(futures)
                if enough() is not None:
                    stop.set()
        except KeyboardInterrupt:
            stop.set()
            wait(futures)
            if not any(runner.kept for runner in runners):
                raise
        for future in futures:
            future.result()
    elapsed = time.perf_counter() - started
    warming = sum(runner.warmup_seconds for runner in runners)
    sampling = sum(runner.sampling_seconds for runner in runners)
    # Chains share the cores, so their phases overlap: the wall clock is divided as the work was.
    share = warming / (warming + sampling) if warming + sampling else 0.0
    return collect(
        positions,
        statistics,
        [runner.kept for runner in runners],
        [runner.tuning for runner in runners],
        enough(),
        warmup_seconds=share * elapsed,
        sampling_seconds=(1.0 - share) * elapsed,
        warmup_gradients=sum(runner.gradients for runner in runners),
    )


def collect(
    positions: HostArray,
    statistics: dict[str, HostArray],
    made: Sequence[int],
    tunings: Sequence[Any],
    enough: int | None,
    **totals: Any,
) -> Draws:
    """What a run gives, as far as all its chains have come.

    Args:
        positions: shape (chains, draws, dimension).
        statistics: by name, shape (chains, draws, ...).
        made: draws made by each chain.
        tunings: of each chain.
        enough: the number of draws that was enough, where that was asked for and reached.
        totals: seconds and gradients, as in `Draws`.
    """
    chains, draws = positions.shape[:2]
    chosen, kept = largest_rectangle(made) if enough is None else (list(range(chains)), enough)

    def remaining(values: HostArray) -> HostArray:
        return values[:, :kept][chosen] if len(chosen) < chains else values[:, :kept]  # a copy only where one is needed

    return Draws(
        remaining(positions),
        {name: remaining(values) for name, values in statistics.items()},
        tuple(chosen),
        tuple(tunings[i] for i in chosen),
        finished=len(chosen) == chains and kept == (draws if enough is None else enough),
        reached=enough is not None,
        **totals,
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
