"""What a gradient buys: minimum bulk ESS per thousand gradients of NUTS, WALNUTS and MicrocanonicalHMC.

On Neal's funnel in 10 dimensions, five twisted pairs (bananas), and the reference posteriors, with the defaults of each
sampler, 4 chains × (1000 + 1000). Gradients are counted from the first step of warm-up on, those of halved steps and of
checks included. The error of the means of all components in Monte Carlo standard errors says whether the draws are
right: its root mean square is about one where they are. A figure is the median over seeds.

    python -m benchmarks.kernels [--models funnel,radon] [--seeds 3]

Nothing here is a time, so that the figures do not depend on the machine.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from dualtape import NUTS, deterministic, model, rv, sample
from dualtape.models.reference.case import components
from dualtape.models.reference.cases import CASES
from dualtape.ppl.model import BoundModel
from dualtape.samplers import WALNUTS, AbstractSampler, MicrocanonicalHMC

from .peers.scores import score

Reference = Mapping[str, Mapping[str, float]]

SAMPLERS: dict[str, AbstractSampler] = {
    "NUTS": NUTS(),
    "WALNUTS": WALNUTS(),
    "MicrocanonicalHMC": MicrocanonicalHMC(),
}
COLUMNS = ("ess_per_kgrad", "ess_per_kgrad_sampling", "z_rms", "rhat_max", "divergences")


@model
def funnel() -> None:
    """Neal's funnel: v ~ N(0, 3²), x_i | v ~ N(0, e^v)."""
    v = rv("v", dist.Normal(0.0, 3.0))
    rv("x", dist.Normal(0.0, jnp.exp(v / 2.0)).expand([9]).to_event(1))
    deterministic("v_squared", v**2)


@model
def banana() -> None:
    """Five pairs: x ~ N(0, 10²), y | x ~ N(0.03 (x² − 100), 1)."""
    x = rv("x", dist.Normal(0.0, 10.0).expand([5]).to_event(1))
    rv("y", dist.Normal(0.03 * (x**2 - 100.0), 1.0).to_event(1))


def _exact(means: Mapping[str, float]) -> Reference:
    return {name: {"mean": mean, "mcse_mean": 0.0} for name, mean in means.items()}


PROBLEMS: dict[str, Callable[[], tuple[BoundModel, Reference]]] = {
    "funnel": lambda: (funnel(), _exact({"v": 0.0, "v_squared": 9.0})),
    "banana": lambda: (banana(), _exact({f"{s}[{i}]": 0.0 for s in "xy" for i in range(1, 6)})),
    **{case.name: lambda case=case: (case.bind(), case.read("reference")["components"]) for case in CASES},
}


def measure(bound: BoundModel, reference: Reference, sampler: AbstractSampler, seed: int) -> dict[str, float]:
    """The figures of one run."""
    with warnings.catch_warnings():
        # What they warn of is in the table.
        warnings.simplefilter("ignore")
        idata = sample(bound, sampler, seed=seed, progress=False)
        draws = components(idata["posterior"])
        found: dict[str, Any] = score({name: draws[name] for name in reference}, reference)
    sampling = int(np.sum(idata["sample_stats"]["n_steps"].values))
    return {
        "ess_per_kgrad": 1e3 * found["ess_min"] / (sampling + idata.attrs["gradients_warmup"]),
        "ess_per_kgrad_sampling": 1e3 * found["ess_min"] / sampling,
        "z_rms": found["z_rms"],
        "rhat_max": found["rhat_max"],
        "divergences": float(np.sum(idata["sample_stats"]["diverging"].values)),
    }


def main() -> None:
    """Print the tables, and for each sampler the geometric mean of what it gains over NUTS."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="", help="comma-separated; a part of a name is enough")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    chosen = [name for name in PROBLEMS if any(part in name for part in arguments.models.split(","))]
    ratios: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    print(f"{'':<44}{'':<20}" + "".join(f"{column:>24}" for column in COLUMNS) + f"{'/ NUTS':>10}")
    for problem in chosen:
        bound, reference = PROBLEMS[problem]()
        base = np.nan
        for name, sampler in SAMPLERS.items():
            runs = [measure(bound, reference, sampler, seed) for seed in range(1, arguments.seeds + 1)]
            figures = {column: float(np.median([run[column] for run in runs])) for column in COLUMNS}
            base = figures["ess_per_kgrad"] if name == "NUTS" else base
            ratios[name].append(figures["ess_per_kgrad"] / base)
            values = "".join(f"{figures[column]:>24.4g}" for column in COLUMNS)
            print(f"{problem:<44}{name:<20}{values}{ratios[name][-1]:>10.2f}", flush=True)
    for name, found in ratios.items():
        print(
            f"{'geometric mean over NUTS':<44}{name:<20}{np.exp(np.mean(np.log(found))):.2f} (least {min(found):.2f})"
        )


if __name__ == "__main__":
    main()
