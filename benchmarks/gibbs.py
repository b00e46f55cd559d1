"""Microseconds per Gibbs sweep beside NumPyro's `Gibbs`: gdemo, and a ladder of hierarchical models with B groups.

Every block is HMC with step size 0.1 and 5 leapfrog steps, in both libraries, with 64-bit numbers; NumPyro's takes
`trajectory_length=None`, without which it ignores the number of steps. Ours are the sweeps that `sample` makes, draws
and statistics kept; NumPyro's those of a compiled loop around its kernel that keeps nothing, since a call of `MCMC.run`
spends a second on tracing before its first sweep. They alternate in this process; the least of the repetitions counts.

Run with `make bench`; writes `gibbs.png` and the tables into `benchmarks/results/`. Quote the ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from dualtape import HMC, Gibbs, model, plate, rv
from dualtape.ad import AutoForward, prepare_gradient
from dualtape.models.gdemo import gdemo
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.samplers.compilation import compile_chain
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.random import chain_key
from jax import lax
from numpyro import infer
from numpyro.infer.gibbs import Gibbs as NumPyroGibbs

RESULTS = Path(__file__).parent / "results"
ROWS, REPEATS = 10, 5
DRAWS = 10_000
BLOCK = HMC(0.1, 5)

# Runs sweeps and says how many microseconds one took.
Run = Callable[[], float]


@model
def in_a_loop(y: Any) -> None:
    """Each group a site of its own."""
    mu = rv("mu", dist.Normal(0.0, 5.0))
    tau = rv("tau", dist.HalfCauchy(5.0))
    for i, own in enumerate(y):
        theta = rv(f"theta_{i}", dist.Normal(mu, tau))
        rv(f"y_{i}", dist.Normal(theta, 1.0).expand([ROWS]).to_event(1), obs=own)


@model
def in_a_plate(y: Any) -> None:
    """All groups in one site, of which each block has a part."""
    mu = rv("mu", dist.Normal(0.0, 5.0))
    tau = rv("tau", dist.HalfCauchy(5.0))
    with plate("group", len(y)):
        theta = rv("theta", dist.Normal(mu, tau))
    rv("y", dist.Normal(theta[:, None], 1.0), obs=np.stack(y))


def numpyro_gdemo(x: float, y: float) -> None:
    """The same in NumPyro."""
    s = numpyro.sample("s", dist.InverseGamma(2.0, 3.0))
    m = numpyro.sample("m", dist.Normal(0.0, jnp.sqrt(s)))
    numpyro.sample("x", dist.Normal(m, jnp.sqrt(s)), obs=x)
    numpyro.sample("y", dist.Normal(m, jnp.sqrt(s)), obs=y)


def numpyro_in_a_loop(y: Any) -> None:
    """The same in NumPyro, which has no parts of sites."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    for i, own in enumerate(y):
        theta = numpyro.sample(f"theta_{i}", dist.Normal(mu, tau))
        numpyro.sample(f"y_{i}", dist.Normal(theta, 1.0).expand([ROWS]).to_event(1), obs=own)


def ours(bound: Any, sampler: Any) -> tuple[Run, float]:
    """Our sweeps, and the seconds of building and compiling them."""
    started = time.perf_counter()
    traced = trace_model(bound, discover(bound))
    density = traced.density
    kernel = build_kernel(sampler, density, np.dtype(float))
    compiled = compile_chain(kernel, density.restrict(density.sites), traced.data, np.dtype(float), DRAWS)
    seconds = time.perf_counter() - started
    start, tuning = compiled.init(np.zeros(density.dimension))[0], kernel.init_tuning()

    def run() -> float:
        began = time.perf_counter()
        walk = compiled.set_out(start, tuning)
        for first in range(0, DRAWS, compiled.rows):
            walk, _ = compiled.advance(walk, chain_key(0, 0), first, min(compiled.rows, DRAWS - first), 1, False)
        return 1e6 * (time.perf_counter() - began) / DRAWS

    return run, seconds


def theirs(function: Any, blocks: list[list[str]], *data: Any) -> tuple[Run, float]:
    """NumPyro's sweeps, and the seconds of building and compiling them."""
    options = {"step_size": 0.1, "num_steps": 5, "trajectory_length": None}
    fixed = {"adapt_step_size": False, "adapt_mass_matrix": False}
    started = time.perf_counter()
    kernel = NumPyroGibbs([(infer.HMC(function, **options, **fixed), sites) for sites in blocks])
    state = kernel.init(jax.random.key(0), 0, None, data, {})

    def sweeps(state: Any, count: Any) -> Any:
        return lax.fori_loop(0, count, lambda _, s: kernel.sample(s, data, {}), state)

    program = jax.jit(sweeps).lower(state, np.int64(1)).compile()
    return timed(program, state), time.perf_counter() - started


def timed(program: Any, start: Any) -> Run:
    """A compiled loop of so many sweeps."""

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(program(start, np.int64(DRAWS)))
        return 1e6 * (time.perf_counter() - began) / DRAWS

    return run


def whole_gradients(bound: Any) -> Run:
    """Gradients of the whole model, one after the other."""
    traced = trace_model(bound, discover(bound))
    whole = traced.density.restrict(traced.density.sites)
    q = jnp.zeros(traced.density.dimension)
    constants = whole.constants(q, whole.prepare(traced.data))
    gradient = prepare_gradient(whole.target.log_density, AutoForward(), q, *constants).value_and_gradient

    def repeated(q: Any, count: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            q, total = carry
            value, slope = gradient(q, *constants)
            return q + 1e-14 * slope, total + value

        return lax.fori_loop(0, count, body, (q, jnp.zeros(())))

    return timed(jax.jit(repeated).lower(q, np.int64(1)).compile(), q)


def microseconds(runs: list[Run]) -> list[float]:
    """Per sweep of each, the least of the repetitions, taken in turns."""
    return np.min([[run() for run in runs] for _ in range(REPEATS)], axis=0).tolist()


def show_gdemo() -> list[str]:
    """The table of gdemo."""
    bound, blocks = gdemo(1.5, 2.0), [["m"], ["s"]]
    mine, mine_compile = ours(bound, Gibbs({"m": BLOCK, "s": BLOCK}))
    whole, _ = ours(bound, BLOCK)
    other, other_compile = theirs(numpyro_gdemo, blocks, 1.5, 2.0)
    a, b, c, d = microseconds([mine, other, whole, whole_gradients(bound)])
    return [
        "gdemo, two blocks of HMC(0.1, 5)       us per sweep    compile s",
        f"  dualtape                              {a:10.3f}   {mine_compile:10.2f}",
        f"  NumPyro                               {b:10.3f}   {other_compile:10.2f}",
        f"  two updates with the whole model each {2 * c:10.3f}",
        f"  ten gradients of the whole model      {10 * d:10.3f}",
        f"  NumPyro / dualtape                    {b / a:10.1f}",
    ]


def show_ladder(groups: list[int], largest: int) -> tuple[list[str], dict[str, tuple[list[int], list[float]]]]:
    """The table of the ladder, and its numbers for the picture."""
    lines = [
        f"{'hierarchical, a block a group':<32}us per sweep: NumPyro   loop   plate"
        f"{'compile s: NumPyro   loop   plate':>38}"
    ]
    found: dict[str, tuple[list[int], list[float]]] = {
        name: ([], []) for name in ("NumPyro", "dualtape, a site a group", "dualtape, parts of one site")
    }
    for count in groups:
        y = list(np.random.default_rng(0).normal(size=(count, ROWS)))
        globals_: dict[Any, HMC] = {("mu", "tau"): BLOCK}
        loop = ours(in_a_loop(y), Gibbs({f"theta_{i}": BLOCK for i in range(count)} | globals_))
        parts = ours(in_a_plate(y), Gibbs({f"theta[{i}]": BLOCK for i in range(count)} | globals_))
        programs = [loop, parts]
        if count <= largest:
            programs.append(theirs(numpyro_in_a_loop, [*([f"theta_{i}"] for i in range(count)), ["mu", "tau"]], y))
        times = microseconds([run for run, _ in programs])
        compiling = [seconds for _, seconds in programs]
        for name, value in zip(
            ("dualtape, a site a group", "dualtape, parts of one site", "NumPyro"), times, strict=False
        ):
            found[name][0].append(count)
            found[name][1].append(value)
        rival = f"{times[2]:10.1f}" if len(times) > 2 else f"{'-':>10}"
        rival_compile = f"{compiling[2]:10.1f}" if len(times) > 2 else f"{'-':>10}"
        lines.append(
            f"{f'  B = {count}':<43}{rival} {times[0]:6.1f}  {times[1]:6.1f}"
            f"{rival_compile:>22} {compiling[0]:6.1f}  {compiling[1]:6.1f}"
        )
        print(lines[-1], flush=True)
    for name, (sizes, values) in found.items():
        if len(sizes) > 2:
            exponent = np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0]
            lines.append(f"  {name}: time grows as B^{exponent:.2f} over the last three")
    return lines, found


def draw(found: dict[str, tuple[list[int], list[float]]], path: Path) -> None:
    """The picture of the ladder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for name, (sizes, values) in found.items():
        axes.loglog(sizes, values, "o-", label=name, base=2)
    axes.set_yscale("log", base=10)
    sizes, values = found["dualtape, a site a group"]
    axes.loglog(sizes, [values[0] * b / sizes[0] for b in sizes], color="0.7", lw=1, ls="--", label="linear in B")
    axes.set_yscale("log", base=10)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="groups B, one block each, and one of the globals", ylabel="µs per sweep", title="Gibbs sweeps")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the tables and save them with the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=16, help="most groups for NumPyro, which takes long to compile")
    parser.add_argument("--groups", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    RESULTS.mkdir(exist_ok=True)
    lines = [f"float64, jax {jax.__version__}, NumPyro {numpyro.__version__}", *show_gdemo()]
    print("\n".join(lines), flush=True)
    ladder, found = show_ladder(arguments.groups, arguments.largest)
    text = "\n".join([*lines, *ladder])
    print("\n".join(ladder))
    (RESULTS / "gibbs.txt").write_text(text + "\n")
    draw(found, RESULTS / "gibbs.png")


if __name__ == "__main__":
    main()
