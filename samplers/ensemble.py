"""The driver of an ensemble: runs all its chains in one compiled program.

Chains wait for each other at the ends of warm-up windows, where what each has learned is digested on the host, and at
the end of a run; nowhere else, unless their kernel goes in lock step.

Chain i depends on `seed` and `i` only. Its arithmetic is that of a chain in a thread up to rounding, which differs
where many chains are computed at once and grows along a chain: its first draws are the same numbers, all of them are
the same in law.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from .chains import Draws, Progress, Settings, collect, heats
from .ensemble_compilation import CompiledEnsemble, Flock, as_chunks, choose_chains

HostArray = np.ndarray[Any, Any]

# The host looks at the chains this often: see `chains`.
_CHUNK_SECONDS = 0.1
# Leapfrog steps of a round, over the points of a usual trajectory; see `flat_nuts.run_flat`.
_SHARE, _LONGEST_ROUND = 0.75, 64


@dataclass
class _Runner:
    """Runs an ensemble to its end, or until it is told to stop."""

    compiled: CompiledEnsemble
    settings: Settings
    keys: HostArray
    starts: Sequence[Flock]
    flock: Flock
    positions: HostArray
    statistics: dict[str, HostArray]
    progress: Progress
    stop: threading.Event
    lengths: Iterator[int]
    first: HostArray  # for each chain, the number of the transition that its buffer begins with
    done: HostArray  # and how many it has finished
    kept: HostArray
    log_density: HostArray  # of the last draw of each
    rounds: float = 16.0
    steps: int = 4
    divergences: int = 0
    gradients: int = 0
    enough: int | None = None
    next_length: int | None = None
    warmup_seconds: float = 0.0
    sampling_seconds: float = 0.0

    def run(self) -> None:
        settings, compiled = self.settings, self.compiled
        started = time.perf_counter()
        self._try(compiled.kernel.trial(settings.warmup))
        for border in compiled.kernel.schedule(settings.warmup):
            self._advance_to(border, 1, warming=True)
            if self.stop.is_set():
                return
            tunings = compiled.tunings(self.flock)
            tuned = [compiled.kernel.retune(tuning, border, settings.warmup) for tuning in tunings]
            self.flock = compiled.with_tunings(self.flock, tuned)
        # What a kernel that learns nothing, and so has no schedule, leaves over.
        self._advance_to(settings.warmup, 1, warming=True)
        warm = time.perf_counter()
        self.divergences = 0
        self.next_length = next(self.lengths, None)
        self._advance_to(settings.warmup + settings.draws * settings.thin, settings.thin, warming=False)
        self.warmup_seconds, self.sampling_seconds = warm - started, time.perf_counter() - warm

    def _try(self, count: int) -> None:
        """Make the first steps from every starting point, and go on from where the log density is highest."""
        if not count:
            return
        kernel = self.compiled.kernel
        blank = kernel.retune(kernel.init_tuning(), 0, self.settings.warmup)
        # One at a time: what each chain remembers of its draws takes much memory.
        going = (self.compiled.with_tunings(start, [blank] * self.compiled.chains) for start in self.starts)
        best: list[tuple[HostArray, Flock]] = []
        before = 0
        for end, places in heats(count):
            best = []
            for self.flock in going:
                self.first = self.done = np.full_like(self.done, before)
                self._advance_to(end, 1, warming=True)
                if self.stop.is_set():
                    return
                _place(best, self.log_density, self.flock, places)
            going, before = (flock for _, flock in best), end
        self.flock, self.divergences = best[0][1], 0

    def _advance_to(self, end: int, thin: int, *, warming: bool) -> None:
        """Run every chain until it has made `end` transitions."""
        room = self.compiled.rows * thin
        while (self.done < end).any() and not self.stop.is_set():
            wanted = np.minimum(end - self.first, room)
            walks = self.flock.walks._replace(made=(self.done - self.first).astype(np.int32))
            chunks = as_chunks(self.keys, self.first, wanted, thin, warming=warming)
            started = time.perf_counter()
            self.flock, rows = self.compiled.advance(
                dataclasses.replace(self.flock, walks=walks),
                chunks,
                max(round(self.rounds), 1),
                self.steps,
            )
            made = np.array(self.flock.walks.made, int)
            seconds = time.perf_counter() - started
            self.done = self.first + made
            finished = made // thin
            self.first = self.first + finished * thin
            if ((made == wanted) & (self.done < end)).any():
                self.rounds *= 0.8  # the buffer of a chain is full, and it waits
            elif (made < wanted).any():
                self.rounds *= min(max(_CHUNK_SECONDS / seconds, 0.5), 4.0)
            self._take(rows, finished, warming=warming)

    def _take(self, rows: HostArray, counts: HostArray, *, warming: bool) -> None:
        """Empty the buffer."""
        chain = np.repeat(np.arange(len(counts)), counts)
        index = np.arange(len(chain)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = rows[chain, index]
        statistics = self.compiled.layout.statistics(new)
        last = np.cumsum(counts)[counts > 0] - 1
        self.log_density = self.log_density.copy()
        self.log_density[counts > 0] = statistics["lp"][last]
        if warming:
            self.gradients += int(np.sum(statistics.get("n_steps", 0)))
        else:
            into = self.kept[chain] + index
            self.positions[chain, into] = new[:, : self.compiled.layout.dimension]
            for name, values in statistics.items():
                self.statistics[name][chain, into] = values
            self.kept = self.kept + counts
            self._look()
        self._adjust(statistics)
        self._report(statistics, warming=warming)

    def _look(self) -> None:
        """Stop if there are draws enough."""
        until, made = self.settings.until, int(self.kept.min())
        while until and self.enough is None and self.next_length is not None and self.next_length <= made:
            if until.reached(self.positions[:, : self.next_length]):
                self.enough = self.next_length
                self.stop.set()
            self.next_length = next(self.lengths, None)

    def _adjust(self, statistics: dict[str, HostArray]) -> None:
        """Rounds as long as suits the trajectories."""
        lengths = statistics.get("n_steps")
        if lengths is None or len(lengths) < self.compiled.chains:
            return
        usual = _SHARE * (float(np.mean(lengths)) + 1.0)
        steps = min(1 << round(np.log2(max(usual, 1.0))), _LONGEST_ROUND)
        self.rounds *= self.steps / steps
        self.steps = steps

    def _report(self, statistics: dict[str, HostArray], *, warming: bool) -> None:
        self.divergences += int(np.sum(statistics.get("diverging", 0)))
        sizes = np.asarray(statistics.get("step_size", statistics.get("block_step_size", np.nan)), float)
        known = sizes[np.isfinite(sizes)]
        done = int(self.done.min()) - (0 if warming else self.settings.warmup)
        typical = float(np.median(known)) if known.size else np.nan
        self.progress.update(0, "warm-up" if warming else "sampling", done, self.divergences, typical)


def _place(best: list[tuple[HostArray, Flock]], log_density: HostArray, flock: Flock, places: int) -> None:
    """Put a flock among the best, chain by chain.

    Args:
        best: log densities, shape (chains,), and flocks; in every chain the highest comes first.
        log_density: of the chains of the flock.
        flock: what is to be placed.
        places: how many are kept.
    """
    for place, (other, held) in enumerate(best):
        better = log_density > other
        best[place] = np.where(better, log_density, other), choose_chains(better, flock, held)
        log_density, flock = np.where(better, other, log_density), choose_chains(better, held, flock)
    if len(best) < places:
        best.append((log_density, flock))


def run_ensemble(
    compiled: CompiledEnsemble,
    starts: Sequence[Flock],
    keys: Sequence[HostArray],
    settings: Settings,
    progress: Progress,
    x64: bool,
) -> Draws:
    """Run the chains of an ensemble; what is asked for and returned is as in `chains.run_chains`.

    Args:
        compiled: the kernel.
        starts: where the chains may start, at least one for each; they are used up.
        keys: of each chain.
        settings: how long to run.
        progress: is told how it goes, all chains as one.
        x64: whether the program was compiled with 64-bit numbers.

    Raises:
        KeyboardInterrupt: if interrupted before any chain has made a draw.
    """
    chains, stop = compiled.chains, threading.Event()
    positions, statistics = compiled.layout.storage(chains, settings.draws)
    lengths = settings.until.lengths(settings.draws) if settings.until else iter(())
    none = np.zeros(chains, int)
    runner = _Runner(
        compiled,
        settings,
        np.stack(keys),
        starts,
        starts[0],
        positions,
        statistics,
        progress,
        stop,
        lengths,
        none,
        none,
        none,
        np.full(chains, -np.inf),
    )

    def run() -> None:
        with jax.enable_x64(x64):
            runner.run()

    # In a thread of its own, so that the main thread sees an interruption at once and none comes in the middle of this.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        try:
            while wait([future], timeout=0.2).not_done:
                pass
        except KeyboardInterrupt:
            stop.set()
            wait([future])
            if not runner.kept.any():
                raise
        future.result()
    return collect(
        positions,
        statistics,
        runner.kept.tolist(),
        compiled.tunings(runner.flock),
        runner.enough,
        warmup_seconds=runner.warmup_seconds,
        sampling_seconds=runner.sampling_seconds,
        warmup_gradients=runner.gradients,
    )
