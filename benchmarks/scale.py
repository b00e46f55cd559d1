"""How a run grows with its parameters and its rows: time per gradient, compilation and memory, a process for each size.

A hierarchical model, y_i ~ N(μ + τ z_g(i), 1), with G groups and N rows and all defaults, on a short run: what it costs
per leapfrog step is what a long one costs. Draws are those of all parameters. The exponents are those of the last
three sizes of a ladder, fitted to t ∝ sizeᵃ.

    python benchmarks/scale.py [--draws 50]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np

# Groups and rows: more and more parameters, and more and more rows.
PARAMETERS = ((8, 1_000), (98, 1_000), (998, 10_000), (9_998, 100_000), (99_998, 1_000_000))
ROWS = ((98, 1_000), (98, 10_000), (98, 100_000), (98, 1_000_000))
COLUMNS = ("us_per_gradient", "seconds_compile", "peak_mb", "draws_mb")


def measure(groups: int, rows: int, draws: int) -> dict[str, float]:
    """The figures of one size, in this process."""
    import numpyro.distributions as dist
    from dualtape import model, plate, rv, sample

    @model
    def hierarchical(group: Any, y: Any) -> None:
        mu = rv("mu", dist.Normal(0.0, 1.0))
        tau = rv("tau", dist.HalfNormal(1.0))
        with plate("group", groups):
            z = rv("z", dist.Normal(0.0, 1.0))
        with plate("row", len(y)):
            rv("y", dist.Normal((mu + tau * z)[group], 1.0), obs=y)

    rng = np.random.default_rng(0)
    bound = hierarchical(rng.integers(0, groups, rows), rng.normal(size=rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few draws
        idata = sample(bound, draws=draws, warmup=100, chains=1, seed=1, progress=False)
    steps = int(idata["sample_stats"]["n_steps"].sum())
    return {
        "us_per_gradient": 1e6 * idata.attrs["seconds_sampling"] / steps,
        "seconds_compile": idata.attrs["seconds_compile"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
        "draws_mb": (groups + 2) * draws * 8 / 1e6,
    }


def ladder(name: str, sizes: tuple[tuple[int, int], ...], column: int, draws: int) -> None:
    """Measure and print one ladder."""
    head = "".join(f"{column:>18}" for column in COLUMNS)
    print(f"\n{name}\n{'parameters':>12}{'rows':>12}{head}{'total s':>10}")
    found = []
    for groups, rows in sizes:
        started = time.perf_counter()
        command = [sys.executable, __file__, "--one", str(groups), str(rows), "--draws", str(draws)]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        found.append([result[name] for name in COLUMNS])
        values = "".join(f"{result[name]:>18.4g}" for name in COLUMNS)
        print(f"{groups + 2:>12}{rows:>12}{values}{time.perf_counter() - started:>10.1f}", flush=True)
    size = np.log([sizes[i][column] + (2 if column == 0 else 0) for i in range(len(sizes))][-3:])
    exponents = [np.polyfit(size, np.log([row[i] for row in found][-3:]), 1)[0] for i in range(len(COLUMNS))]
    print(f"{'exponents':>24}" + "".join(f"{exponent:>18.2f}" for exponent in exponents))


def main() -> None:
    """Print both ladders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--one", type=int, nargs=2, metavar=("GROUPS", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.draws)))
        return
    ladder("parameters, ten rows for each", PARAMETERS, 0, arguments.draws)
    ladder("rows, with 100 parameters", ROWS, 1, arguments.draws)


if __name__ == "__main__":
    main()
