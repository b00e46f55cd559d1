"""From draws to figures: the least bulk ESS, the worst R-hat, and errors against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arviz_stats.base.array import array_stats

from .problems import Reference

HostArray = np.ndarray[Any, Any]


def read(path: Path) -> dict[str, HostArray]:
    """Draws by component, of shape (chains, draws), as a worker wrote them."""
    with np.load(path) as stored:
        return dict(zip(stored["names"].tolist(), stored["draws"], strict=True))


def moments(draws: HostArray) -> dict[str, float]:
    """Mean, sd, the Monte Carlo standard error of the mean, bulk ESS and R-hat of one component.

    Args:
        draws: shape (chains, draws).

    Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), "Rank-normalization, folding, and localization: an
    improved R-hat for assessing convergence of MCMC", Bayesian Analysis 16(2); as ArviZ computes them.
    """
    axes = {"chain_axis": 0, "draw_axis": 1}
    stats: Any = array_stats
    return {
        "mean": float(np.mean(draws)),
        "sd": float(np.std(draws, ddof=1)),
        "mcse_mean": float(stats.mcse(draws, method="mean", **axes)),
        "ess_bulk": float(stats.ess(draws, method="bulk", **axes)),
        "rhat": float(stats.rhat(draws, method="rank", **axes)),
    }


def score(draws: Mapping[str, HostArray], reference: Reference) -> dict[str, Any]:
    """Figures over all components of the reference.

    The error of a mean is z = (m − m_ref) / √(mcse² + mcse_ref²): `z_rms` of a sampler that is right is about one,
    `z_max` grows slowly with the number of components.

    Args:
        draws: by component, of shape (chains, draws).
        reference: by component.
    """
    found = {name: moments(draws[name]) for name in reference}
    z = [
        (found[c]["mean"] - known["mean"]) / np.hypot(found[c]["mcse_mean"], known["mcse_mean"])
        for c, known in reference.items()
    ]
    # A component that stands still, or is not finite, has no effective draws.
    ess = {name: m["ess_bulk"] if np.isfinite(m["ess_bulk"]) and m["sd"] > 0.0 else 0.0 for name, m in found.items()}
    worst = min(ess, key=lambda name: ess[name])
    return {
        "ess_min": ess[worst],
        "ess_min_component": worst,
        "rhat_max": float(np.max([m["rhat"] for m in found.values()])),
        "z_rms": float(np.sqrt(np.mean(np.square(z)))),
        "z_max": float(np.max(np.abs(z))),
    }
