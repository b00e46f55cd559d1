"""The picture of a benchmark: time and memory of each backend relative to the baseline, as box plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..naming import ratio

if TYPE_CHECKING:
    from .results import GradientBenchmark

# Colours that remain different for colour-blind readers (Okabe and Ito 2008); light boxes under darker points.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_INK = "#333333"
_TICKS = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]


def plot_benchmark(benchmark: GradientBenchmark, path: Any) -> None:
    """Draw two box plots on a logarithmic axis, side by side: relative time and relative memory.

    The boxes span the quartiles over the scenarios that a backend differentiates correctly, the whiskers the 5th to
    the 95th percentile; every scenario is a point.

    Of a single function there are points with their figures instead.

    Args:
        benchmark: at least one scenario.
        path: of the file to write, usually `.png`.

    Raises:
        ImportError: where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plotting a benchmark needs matplotlib, which is not installed: pip install matplotlib."
        ) from error
    from .results import memory, seconds

    rows = [row for row in benchmark.summary() if row.covered]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(benchmark.adtypes)}
    total = len(benchmark.scenarios)
    # A figure of its own: the state that pyplot keeps, and the window it may open, belong to the user.
    figure = Figure(figsize=(11, 1.8 + 0.62 * len(rows)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, 2, sharey=True)
    for panel, measure, title, less in zip(
        panels, (seconds, memory), ("Time", "Memory of the compiled program"), ("faster", "less"), strict=True
    ):
        _boxes(panel, [(list(benchmark.ratios(r.adtype, measure).values()), colours[r.adtype]) for r in rows])
        panel.set_title(title, fontsize=12, color=_INK, loc="left", weight="bold")
        panel.set_xlabel(f"relative to {benchmark.baseline}; left of 1 is {less}", fontsize=10, color=_INK)
    covered = [f"\n{row.covered}/{total} scenarios" if total > 1 else "" for row in rows]
    panels[0].set_yticks(range(len(rows)), [row.adtype + text for row, text in zip(rows, covered, strict=True)])
    panels[0].set_ylim(-0.6, len(rows) - 0.4)
    panels[0].invert_yaxis()  # the fastest on top
    if total > 1:
        figure.supxlabel("boxes: quartiles; whiskers: 5 % to 95 %; points: scenarios", fontsize=8, color="#777777")
    figure.savefig(path)


def _boxes(panel: Any, columns: list[tuple[list[float], str]]) -> None:
    from matplotlib.ticker import NullLocator

    rng = np.random.default_rng(0)
    panel.set_xscale("log")
    panel.axvline(1.0, color=_INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    for row, (values, colour) in enumerate(columns):
        if not values:
            continue
        if len(values) == 1:  # of a single function, where a box would say nothing
            panel.plot(values, [row], "o", markersize=9, color=colour, zorder=3)
            label = {"textcoords": "offset points", "xytext": (0, 8), "ha": "center", "fontsize": 9, "color": _INK}
            panel.annotate(ratio(values[0]), (values[0], row), **label)
            continue
        panel.boxplot(
            [values],
            positions=[row],
            widths=0.55,
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour + "40", "edgecolor": colour, "linewidth": 1.3},
            whiskerprops={"color": colour, "linewidth": 1.3},
            capprops={"color": colour, "linewidth": 1.3},
            medianprops={"color": colour, "linewidth": 2.4},
            zorder=2,
        )
        heights = row + rng.uniform(-0.16, 0.16, len(values))
        panel.plot(values, heights, "o", markersize=3.2, color=colour, alpha=0.55, markeredgewidth=0, zorder=3)
    low, high = min(panel.get_xlim()[0], 0.45), max(panel.get_xlim()[1], 2.2)
    panel.set_xlim(low, high)
    if high / low < 1000:
        panel.set_xticks([tick for tick in _TICKS if low <= tick <= high])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.grid(axis="x", which="major", color="#DDDDDD", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(axis="both", which="both", length=0, labelsize=9, labelcolor=_INK)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color("#AAAAAA")
