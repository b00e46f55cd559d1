"""The picture: ESS per second of every system on every model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .problems import PROBLEMS
from .schedule import Result
from .systems import SYSTEMS
from .table import OURS, rows

# Colours of Okabe and Ito, which colour-blind readers can tell apart; one a library, another shape a variant.
STYLES = {
    "dualtape": ("#D55E00", "o"),
    "dualtape-fastest": ("#D55E00", "D"),
    "numpyro": ("#0072B2", "s"),
    "numpyro-model": ("#0072B2", "v"),
    "blackjax": ("#000000", "s"),
    "blackjax-fisher": ("#000000", "v"),
    "nutpie": ("#009E73", "s"),
    "nutpie-low-rank": ("#009E73", "v"),
    "stan": ("#CC79A7", "s"),
}


def draw(results: list[Result], path: Path) -> None:
    """One row a model; compilation left out on the left, included on the right.

    Args:
        results: of all runs.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = rows(results)
    models = [model for model in PROBLEMS if any(row["model"] == model for row in table)]
    figure, axes = plt.subplots(
        1, 2, figsize=(11.0, 1.6 + 0.36 * len(models)), sharey=True, layout="constrained", squeeze=False
    )
    panels = (("ESS/s", "warm-up and sampling"), ("ESS/s with compile", "compilation included"))
    for axis, (name, title) in zip(axes[0], panels, strict=True):
        for system in SYSTEMS:
            own = [row for row in table if row["system"] == system]
            if not own:
                continue
            colour, marker = STYLES[system]
            ours = system in OURS
            axis.plot(
                [row[name] for row in own],
                [models.index(row["model"]) for row in own],
                marker,
                color=colour,
                markerfacecolor=colour if marker in "os" else "none",
                markersize=8 if ours else 6,
                zorder=3 if ours else 2,
                label=system,
            )
        axis.set_xscale("log")
        axis.set_xlabel(f"least bulk ESS per second, {title}")
        axis.set_yticks(np.arange(len(models)), [PROBLEMS[model].title for model in models])
        axis.set_ylim(len(models) - 0.5, -0.5)
        axis.grid(axis="y", color="0.9")
        axis.grid(axis="x", color="0.9", which="major")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, loc="outside upper center", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
