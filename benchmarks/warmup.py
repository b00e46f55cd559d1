"""What warm-up is worth: effective draws per gradient, warm-up included, on the reference posteriors.

Each row is a posterior, a length of warm-up and a way to adapt: the default, its diagonal form, and the sample
covariance in Stan's windows. Gradients do not depend on the machine, so this may run beside other work.

    python benchmarks/warmup.py [part of a name ...]

It needs the reference set; see `models/reference/case.py`.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import arviz as az
import numpy as np
from dualtape import (
    NUTS,
    DiagonalMetric,
    LowRankMetric,
    SampleCovariance,
    SamplingWarning,
    StanWindows,
    sample,
)
from dualtape.models.reference.case import Case, components
from dualtape.models.reference.cases import CASES

SEEDS = range(4)
WARMUPS = (300, 1000)
SAMPLERS = {
    "default": NUTS(metric=LowRankMetric()),
    "diagonal": NUTS(metric=DiagonalMetric()),
    "sample covariance": NUTS(metric=DiagonalMetric(SampleCovariance()), windows=StanWindows()),
}


def measure(case: Case, sampler: NUTS, warmup: int, seed: int) -> dict[str, float]:
    """Figures of one run of 4 chains x 1000 draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        idata = sample(case.bind(), sampler, 1000, warmup=warmup, seed=seed, progress=False)
    draws, reference = components(idata["posterior"]), case.read("reference")["components"]
    compared = [name for name in reference if name in draws]
    gradients = int(idata["sample_stats"]["n_steps"].sum())
    z = [
        (np.mean(draws[name]) - reference[name]["mean"])
        / np.hypot(float(az.mcse(draws[name], method="mean")), reference[name].get("mcse_mean", 0.0))
        for name in compared
    ]
    ess = min(float(az.ess(draws[name], method="bulk")) for name in compared)
    return {
        "ESS": ess,
        "thousand gradients": (gradients + idata.attrs["gradients_warmup"]) / 1e3,
        "ESS per thousand": ess / (gradients + idata.attrs["gradients_warmup"]) * 1e3,
        "rms z": float(np.sqrt(np.mean(np.square(z)))),
        "divergences": int(idata["sample_stats"]["diverging"].sum()),
        "worst R-hat": max(float(az.rhat(draws[name])) for name in compared),
    }


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Means over the seeds, each of its own kind: geometric for a ratio, quadratic for z."""
    means: dict[str, Any] = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    means["ESS per thousand"] = float(np.exp(np.mean([np.log(run["ESS per thousand"]) for run in runs])))
    means["rms z"] = float(np.sqrt(np.mean([run["rms z"] ** 2 for run in runs])))
    return means


def main(parts: list[str]) -> None:
    """Print the table."""
    cases = [case for case in CASES if not parts or any(part in case.name for part in parts)]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for case in cases:
        for warmup in WARMUPS:
            for name, sampler in SAMPLERS.items():
                row = summary([measure(case, sampler, warmup, seed) for seed in SEEDS])
                found.setdefault((name, warmup), []).append(row)
                figures = "  ".join(f"{label} {value:8.2f}" for label, value in row.items())
                print(f"{case.name[:32]:<32} {warmup:>5} {name:<18} {figures}", flush=True)
    for (name, warmup), rows in found.items():
        per_gradient = np.exp(np.mean([np.log(row["ESS per thousand"]) for row in rows]))
        honest = sum(0.8 <= row["rms z"] <= 1.2 for row in rows)
        print(
            f"{name}, warm-up {warmup}: {per_gradient:.1f} effective draws per thousand gradients (geometric mean), "
            f"rms z within 0.8-1.2 on {honest} of {len(rows)}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
