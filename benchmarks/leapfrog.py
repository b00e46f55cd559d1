"""Microseconds per leapfrog step of `sample` on eight schools, over the bare compiled loop and beside BlackJAX.

Everything runs in this process, one chain, alternating. A step of `sample` is a slope: the difference of wall clock
between a long and a short call, over the difference of their leapfrog steps, so that everything which grows with the
run counts (warm-up aside): random numbers, trees, U-turn checks, storage, transfer, the constrained values and the
ArviZ object. The bare loop is the same gradient and two updates in a `fori_loop`, nothing else.

Run with `make bench`. Timings are ratios within one run; the absolute ones drift with the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dualtape import AutoForward, AutoReverse, sample
from dualtape.ad import AbstractADType, value_and_gradient
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_noncentered
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model

REPEATS = 5
SHORT, LONG = 1_000, 201_000
MODEL = eight_schools_noncentered(Y, SIGMA)


def log_density() -> tuple[Callable[[jax.Array], jax.Array], int]:
    """The unconstrained log density that `sample` sees, with the data embedded, and its dimension."""
    traced = trace_model(MODEL, discover(MODEL))
    whole = traced.density.restrict(traced.density.sites)
    position = jnp.zeros(whole.target.dimension)
    constants = tuple(np.asarray(c) for c in whole.constants(position, whole.prepare(traced.data)))
    return lambda q: whole.target.log_density(q, *constants), whole.target.dimension


def seconds(call: Callable[[], Any]) -> float:
    """Wall clock of one call."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def bare_loop(adtype: AbstractADType) -> Callable[[], float]:
    """Microseconds per step of a loop of leapfrog steps and nothing else."""
    density, dimension = log_density()
    steps = 500_000

    def body(_: int, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        q, p, gradient = carry
        p = p + 0.05 * gradient
        q = q + 0.1 * p
        _, gradient = value_and_gradient(density, adtype, q)
        return q, p + 0.05 * gradient, gradient

    start = jnp.zeros(dimension), jnp.ones(dimension), jnp.zeros(dimension)
    loop = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, body, carry)).lower(start).compile()
    return lambda: seconds(lambda: loop(start)) / steps * 1e6


def dualtape_slope(adtype: AbstractADType | None) -> Callable[[], float]:
    """Microseconds per leapfrog step of `sample`, from the slope between two lengths."""

    def run(draws: int) -> tuple[float, int]:
        started = time.perf_counter()
        idata = sample(MODEL, draws=draws, warmup=1000, chains=1, seed=1, adtype=adtype, progress=False)
        elapsed = time.perf_counter() - started - idata.attrs["seconds_compile"]
        return elapsed, int(idata.sample_stats["n_steps"].sum())

    def slope() -> float:
        (short, few), (long, many) = run(SHORT), run(LONG)
        return (long - short) / (many - few) * 1e6

    return slope


def blackjax_slope() -> Callable[[], float]:
    """The same for BlackJAX: its own NUTS after its own window adaptation, in one compiled scan."""
    import blackjax

    density, dimension = log_density()
    warmup = blackjax.window_adaptation(blackjax.nuts, density)
    (state, parameters), _ = jax.jit(warmup.run, static_argnums=2)(jax.random.key(1), jnp.zeros(dimension), 1000)
    kernel = blackjax.nuts(density, **parameters).step

    def compiled(draws: int) -> Callable[[], Any]:
        def one(state: Any, key: jax.Array) -> tuple[Any, Any]:
            state, info = kernel(key, state)
            return state, (state.position, info.num_integration_steps)

        loop = jax.jit(lambda state, key: jax.lax.scan(one, state, jax.random.split(key, draws))[1])
        program = loop.lower(state, jax.random.key(2)).compile()
        return lambda: program(state, jax.random.key(2))

    short, long = compiled(SHORT), compiled(LONG)
    few, many = (int(jnp.sum(run()[1])) for run in (short, long))
    return lambda: (seconds(long) - seconds(short)) / (many - few) * 1e6


def main() -> None:
    """Print the table."""
    with jax.enable_x64(True):
        rows: dict[str, Callable[[], float]] = {
            "bare loop, reverse": bare_loop(AutoReverse()),
            "bare loop, forward": bare_loop(AutoForward()),
            "dualtape, reverse": dualtape_slope(AutoReverse()),
            "dualtape, forward (default)": dualtape_slope(None),
            "BlackJAX": blackjax_slope(),
        }
        figures: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(REPEATS):
            for name, measure in rows.items():
                figures[name].append(measure())
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(f"eight schools, non-centred, float64, one chain, jax {jax.__version__}: microseconds per leapfrog step")
    print(f"{'':<28}{'median':>8}{'min':>8}{'max':>8}{'/ bare reverse':>16}{'/ own bare':>12}")
    for name, values in figures.items():
        own = "bare loop, forward" if "forward" in name else "bare loop, reverse"
        ratios = medians[name] / medians["bare loop, reverse"], medians[name] / medians[own]
        print(
            f"{name:<28}{medians[name]:>8.3f}{min(values):>8.3f}{max(values):>8.3f}{ratios[0]:>16.2f}{ratios[1]:>12.2f}"
        )


if __name__ == "__main__":
    main()
