"""Chains of the JAX peers on a hand-written log density: compiled once, one thread a chain, as many as there are cores.

This is the fastest way to run several chains of either on a CPU: nothing waits for the longest tree of the others, as
it does under `vmap`, and one executable serves all chains, which under `pmap` is loaded once a device.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.monitoring
import numpy as np

from ..problems import Problem
from ..transforms import Density
from .base import Outcome, Settings, by_component, divided

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chain:
    """What one chain gave.

    Args:
        positions: unconstrained, of shape (draws, dimension).
        gradients_warmup, gradients_sampling, divergences: counts.
    """

    positions: Any
    gradients_warmup: Any
    gradients_sampling: Any
    divergences: Any


@dataclass(frozen=True)
class Programs:
    """Two compiled programs: `warm` from a chain's number and start to a state, `sample` from that to a `Chain`.

    Args:
        warm: (chain, position of shape (dimension,)) to anything whose leaves are arrays.
        sample: from what `warm` gave.
    """

    warm: Callable[[int, HostArray], Any]
    sample: Callable[[int, Any], Chain]


def starts(density: Density, settings: Settings) -> HostArray:
    """Uniform(−2, 2) in each coordinate, drawn again until log density and gradient are finite; as Stan does."""
    value_and_grad = jax.jit(jax.value_and_grad(density.log_density))
    found = []
    for chain in range(settings.chains):
        rng = np.random.default_rng([settings.seed, chain])
        for _ in range(100):
            q = rng.uniform(-2.0, 2.0, density.dimension)
            value, gradient = value_and_grad(q)
            if np.isfinite(value) and np.all(np.isfinite(gradient)):
                found.append(q)
                break
        else:
            raise ValueError(
                "no start with a finite log density in 100 tries: is the density right? See benchmarks.peers.check."
            )
    return np.array(found)


def run_chains(
    problem: Problem, density: Density, settings: Settings, build: Callable[[HostArray], Programs]
) -> Outcome:
    """Compile, then run the chains in threads.

    Args:
        problem: what is sampled.
        density: its log density.
        settings: how long.
        build: compiles both programs, given the starts, of shape (chains, dimension).
    """
    began = time.perf_counter()
    positions = starts(density, settings)
    programs = build(positions)
    compiled = time.perf_counter() - began

    def run(chain: int) -> tuple[float, float, Chain]:
        first = time.perf_counter()
        state = jax.block_until_ready(programs.warm(chain, positions[chain]))
        warm = time.perf_counter()
        drawn = programs.sample(chain, state)
        jax.block_until_ready(drawn.positions)
        return warm - first, time.perf_counter() - warm, drawn

    began = time.perf_counter()
    with ThreadPoolExecutor(min(settings.chains, os.cpu_count() or 1)) as pool:
        results = list(pool.map(run, range(settings.chains)))
    wall = time.perf_counter() - began
    warmup, sampling = divided(wall, [r[0] for r in results], [r[1] for r in results])
    return outcome(problem, density, [r[2] for r in results], compiled, warmup, sampling)


def outcome(
    problem: Problem, density: Density, chains: Sequence[Chain], compiled: float, warmup: float, sampling: float
) -> Outcome:
    """With draws constrained, outside all phases."""
    stacked = np.stack([np.asarray(chain.positions) for chain in chains])
    values = jax.jit(jax.vmap(jax.vmap(density.constrain)))(stacked)
    return Outcome(
        compiled,
        warmup,
        sampling,
        int(sum(int(chain.gradients_warmup) for chain in chains)),
        int(sum(int(chain.gradients_sampling) for chain in chains)),
        int(sum(int(chain.divergences) for chain in chains)),
        by_component(values, problem.reference),
    )


@dataclass
class CompileClock:
    """Seconds that JAX spends tracing, lowering and compiling, where that happens inside a call of a library.

    Spans of tracing lie within each other, and only their union counts.
    """

    spans: list[tuple[float, float]] = field(default_factory=list)

    def hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Called by JAX at the end of each such span."""
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self.spans.append((now - duration_secs, now))

    @property
    def seconds(self) -> float:
        """The length of the union."""
        total, end = 0.0, -np.inf
        for first, last in sorted(self.spans):
            total += max(0.0, last - max(first, end))
            end = max(end, last)
        return float(total)


@contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """A clock that runs inside a `with` block."""
    clock = CompileClock()
    jax.monitoring.register_event_duration_secs_listener(clock.hear)
    try:
        yield clock
    finally:
        # Listeners cannot be removed one by one; the process has no others.
        jax.monitoring.clear_event_listeners()
