"""Hundreds of short chains: microseconds per leapfrog step and seconds of a run, in threads and in one program.

The same chains, with the same keys and starting points, are run in threads over one compiled chain, in one program at
their own pace (`Vectorized()` under `NUTS`), and in one program in lock step (a `vmap` of the nested loops). All in
this process, alternating, minima of a few repetitions. Time per step is that of the sampling phase over all steps of
all chains. Radon needs the reference set of posteriordb (`DUALTAPE_POSTERIORDB`).

Run with `python benchmarks/ensemble.py [eight_schools|radon] [chains] [draws] [repetitions]`, on one core (`taskset`)
for what the programs do with the same means. Timings are ratios within one run; the absolute ones drift.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from dualtape import NUTS
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_noncentered
from dualtape.models.reference.cases import CASES
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.model import BoundModel
from dualtape.samplers.chains import Draws, Settings, run_chains
from dualtape.samplers.compilation import compile_chain
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.ensemble import run_ensemble
from dualtape.samplers.ensemble_compilation import compile_ensemble
from dualtape.samplers.pace import AbstractPace, LockStep
from dualtape.samplers.progress import Silent
from dualtape.samplers.random import chain_key

DTYPE = np.dtype(float)


def ways(model: BoundModel, chains: int, settings: Settings) -> dict[str, tuple[float, Callable[[], Draws]]]:
    """By name, seconds of compilation and a function that runs all chains."""
    traced = trace_model(model, discover(model))
    whole = traced.density.restrict(traced.density.sites)
    kernel = build_kernel(NUTS(), traced.density, DTYPE)
    keys = [chain_key(1, i) for i in range(chains)]
    positions = np.random.default_rng(1).uniform(-1.0, 1.0, (chains, whole.target.dimension))
    started = time.perf_counter()
    one = compile_chain(kernel, whole, traced.data, DTYPE, settings.longest)
    seconds = time.perf_counter() - started

    def in_threads() -> Draws:
        starts = [[one.init(position)[0]] for position in positions]
        return run_chains(one, starts, keys, settings, Silent(), True)

    def vectorised(pace: AbstractPace | None) -> tuple[float, Callable[[], Draws]]:
        started = time.perf_counter()
        many = compile_ensemble(kernel, whole, traced.data, DTYPE, chains, pace=pace)
        seconds = time.perf_counter() - started
        return seconds, lambda: run_ensemble(many, [many.init(positions)[0]], keys, settings, Silent(), True)

    return {
        "threads": (seconds, in_threads),
        "one program, own pace": vectorised(None),
        "one program, lock step": vectorised(LockStep(kernel)),
    }


def bound(name: str) -> BoundModel:
    """A model by its name here."""
    if name == "eight_schools":
        return eight_schools_noncentered(Y, SIGMA)
    return next(case for case in CASES if case.name == "ig_radon_contextual_effects_minnesota").bind()


def main(name: str = "eight_schools", chains: str = "256", draws: str = "200", repetitions: str = "3") -> None:
    """Print a table for one model."""
    settings = Settings(draws=int(draws), warmup=int(draws))
    found = ways(bound(name), int(chains), settings)
    runs: dict[str, list[Draws]] = {way: [] for way in found}
    for _ in range(int(repetitions)):
        for way, (_, run) in found.items():
            runs[way].append(run())
    print(f"{chains} chains x ({draws} + {draws}), jax {jax.__version__}, {jax.default_backend()}")
    print(f"{name:24} compile s  warm-up s  sampling s  us a step")
    for way, (seconds, _) in found.items():
        warming = min(drawn.warmup_seconds for drawn in runs[way])
        sampling = min(drawn.sampling_seconds for drawn in runs[way])
        steps = int(np.sum(runs[way][0].statistics["n_steps"]))
        print(f"{way:24} {seconds:9.2f} {warming:10.2f} {sampling:11.2f} {1e6 * sampling / steps:10.3f}")


if __name__ == "__main__":
    with jax.enable_x64(True):
        main(*sys.argv[1:])
