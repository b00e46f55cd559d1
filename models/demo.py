"""The main job from end to end: `make demo`, or `python -m dualtape.models.demo`.

Two models are sampled: gdemo, whose blocks are differentiated in different modes and whose exact posterior means the
draws are checked against, and eight schools. What was sampled, how, and how long it took is printed; pictures go to
`demo-output/`. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import HMC, NUTS, AutoForward, AutoReverse, Gibbs, sample
from . import eight_schools, gdemo

OUTPUT = Path("demo-output")
MAX_Z = 4.0  # in standard errors: four tell a wrong sampler from bad luck, which comes once in 16 000 means
MAX_R_HAT = 1.01


def main() -> int:
    """Run the demonstration.

    Returns:
        The exit status: 0 if all checks hold, else 1.
    """
    console = Console(highlight=False)
    OUTPUT.mkdir(exist_ok=True)
    ok = show_gdemo(console)
    ok = show_eight_schools(console) and ok
    pictures = ", ".join(path.name for path in sorted(OUTPUT.glob("*.png")))
    console.rule()
    console.print(f" Pictures in {OUTPUT}/: {pictures}", soft_wrap=True)
    console.print(" All checks hold." if ok else " A check FAILED.", style="bold green" if ok else "bold red")
    return 0 if ok else 1


def show_gdemo(console: Console) -> bool:
    """Forward mode for one block and reverse mode for the other; whether the means are the exact ones."""
    console.rule("gdemo: forward mode for m, reverse mode for s")
    sampler = Gibbs(
        {
            "m": HMC(0.1, 5, adtype=AutoForward(chunk_size=1)),  # step size, leapfrog steps
            "s": HMC(0.1, 5, adtype=AutoReverse()),
        }
    )
    # Trajectories as short as 0.1 × 5 make the draws depend on those before them: it takes many, and few need be kept.
    idata = sample(gdemo.gdemo(gdemo.X, gdemo.Y), sampler, draws=4000, thin=5, seed=1)
    report(console, idata)
    table = Table("", "exact mean", "mean of draws", "standard error", "z", box=None)
    summary = summarize(idata)
    ok = True
    for name, exact in gdemo.POSTERIOR_MEAN.items():
        mean, error = float(summary["mean"][name]), float(summary["mcse_mean"][name])
        z = (mean - exact) / error
        ok = ok and abs(z) < MAX_Z
        table.add_row(name, f"{exact:.4f}", f"{mean:.4f}", f"{error:.4f}", f"{z:+.2f}")
    console.print(table)
    console.print(
        f"\n The means are {'' if ok else 'NOT '}within {MAX_Z:g} Monte Carlo standard errors of the exact ones."
    )
    draw_pictures(idata, "gdemo", ["m", "s"], ["m", "s"])
    return ok


def show_eight_schools(console: Console) -> bool:
    """A hierarchical model by NUTS; whether the chains agree."""
    console.print()
    console.rule("eight schools: the non-centred form, by NUTS")
    model = eight_schools.eight_schools_noncentered(eight_schools.Y, eight_schools.SIGMA)
    idata = sample(model, NUTS(target_acceptance=0.95), seed=1)
    report(console, idata, ["mu", "tau", "theta"])
    worst = float(summarize(idata)["r_hat"].max())
    divergences = int(np.sum(idata["sample_stats"]["diverging"].values))
    ok = worst < MAX_R_HAT
    console.print(
        f" The chains {'agree' if ok else 'DISAGREE'}: the largest R-hat is {worst:.3f}. "
        f"{divergences} of {idata['posterior'].sizes['chain'] * idata['posterior'].sizes['draw']} draws diverged."
    )
    draw_pictures(idata, "eight_schools", ["mu", "tau"], ["mu", "tau", "theta"])
    return ok


def report(console: Console, idata: Any, var_names: list[str] | None = None) -> None:
    """Print ArviZ's summary, how each block was differentiated and why, and how long everything took."""
    import arviz as az

    console.print(Text(f"\n{az.summary(idata, var_names=var_names).to_string()}\n"), soft_wrap=True)
    table = Table("block", "sampled by", box=None)
    for sites, block in json.loads(idata.attrs["blocks"]).items():
        dimension = block["dimension"]
        sampler = f"{block['sampler'].partition('(')[0]}, {dimension} parameter{'' if dimension == 1 else 's'}"
        table.add_row(sites.replace(",", ", "), f"{sampler}, {block['adtype']}\n[dim]{block['reason']}[/dim]")
    console.print(table)
    phases = {"compile": "compilation", "warmup": "warm-up", "sampling": "sampling"}
    seconds = "   ".join(f"{word} {idata.attrs[f'seconds_{phase}']:.2f} s" for phase, word in phases.items())
    console.print(f"\n {seconds}\n")


def summarize(idata: Any) -> Mapping[str, Any]:
    """ArviZ's summary as numbers, not rounded for the eye."""
    import arviz as az

    table: Mapping[str, Any] = az.summary(idata, round_to="none").astype(float)
    return table


def draw_pictures(idata: Any, name: str, traced: list[str], compared: list[str]) -> None:
    """Save a picture of the trace and one of the intervals of a result.

    Args:
        idata: an ArviZ object.
        name: how the files begin.
        traced: scalar variables to show draw by draw.
        compared: variables to show side by side.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context({"figure.constrained_layout.use": True}):
        plot_trace(idata, traced)
        # The range of the densities: a heavy tail would leave nothing to see of the rest.
        for axes, variable in zip(plt.gcf().axes[::2], traced, strict=True):
            axes.set_xlim(np.quantile(idata["posterior"][variable].values, [0.0005, 0.995]))
        save_picture(f"{name}_trace", f"{name}: density and draws of each chain")
        plot_forest(idata, compared)
        save_picture(f"{name}_forest", f"{name}: 50% and 94% intervals")


def plot_trace(idata: Any, var_names: list[str]) -> None:
    """Densities beside draws, a colour a chain, with either generation of ArviZ."""
    import arviz as az

    size, chains = (10.0, 4.5), idata["posterior"].sizes["chain"]
    if hasattr(az, "plot_trace_dist"):
        az.plot_trace_dist(
            idata,
            var_names=var_names,
            compact=False,
            aes={"color": ["chain"]},
            aes_by_visuals={"dist": ["color"], "trace": ["color"]},
            visuals={"trace": {"alpha": 0.5, "width": 0.6}},
            figure_kwargs={"figsize": size},
        )
    else:
        colors = {"color": [f"C{chain}" for chain in range(chains)]}
        lines = {"alpha": 0.5, "linewidth": 0.6}
        az.plot_trace(idata, var_names=var_names, chain_prop=colors, trace_kwargs=lines, figsize=size)


def plot_forest(idata: Any, var_names: list[str]) -> None:
    """Intervals of all chains together, with either generation of ArviZ."""
    import arviz as az
    import matplotlib.pyplot as plt

    # A line for each number, and room for the title and the axis.
    lines = sum(int(np.prod(idata["posterior"][name].shape[2:])) for name in var_names)
    size = (8.0, 1.2 + 0.35 * lines)
    if hasattr(az, "plot_trace_dist"):
        az.plot_forest(idata, var_names=var_names, combined=True, ci_probs=(0.5, 0.94), figure_kwargs={"figsize": size})
        bottom, top = plt.gcf().axes[-1].get_ylim()  # shared with the labels
        space = 0.4 * (top - bottom) / lines  # without, the last line lies on the axis
        plt.gcf().axes[-1].set_ylim(bottom - space, top + space)
    else:
        az.plot_forest(idata, var_names=var_names, combined=True, hdi_prob=0.94, figsize=size, textsize=10)


def save_picture(name: str, title: str) -> None:
    """Save the current figure and close it."""
    import matplotlib.pyplot as plt

    figure = plt.gcf()
    figure.suptitle(title.replace("_", " "))
    figure.savefig(OUTPUT / f"{name}.png", dpi=120, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    import matplotlib

    matplotlib.use("Agg")  # pictures go to files, whether or not there is a screen
    sys.exit(main())
