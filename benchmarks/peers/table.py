"""From results to tables: medians over the repetitions, the best peer, ratios and their geometric means.

ESS/s sampling              least bulk ESS over the seconds of sampling
ESS/s                       over warm-up and sampling
ESS/s with compile          over compile, warm-up and sampling
ESS/gradient                over the gradients of sampling; of warm-up and sampling
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .problems import PROBLEMS
from .schedule import Result
from .systems import SYSTEMS

OURS = ("dualtape", "dualtape-fastest")
# More than this, and the chains do not agree: the ESS means little.
WORST_RHAT = 1.05

Row = dict[str, Any]


def _run(r: Result) -> float:
    return float(r["seconds_warmup"] + r["seconds_sampling"])


FIGURES: dict[str, Callable[[Result], float | None]] = {
    "compile s": lambda r: r["seconds_compile"],
    "warm-up s": lambda r: r["seconds_warmup"],
    "sampling s": lambda r: r["seconds_sampling"],
    "gradients warm-up": lambda r: r["gradients_warmup"],
    "gradients sampling": lambda r: r["gradients_sampling"],
    "µs/gradient": lambda r: 1e6 * r["seconds_sampling"] / r["gradients_sampling"],
    "min ESS": lambda r: r["ess_min"],
    "ESS/s sampling": lambda r: r["ess_min"] / r["seconds_sampling"],
    "ESS/s": lambda r: r["ess_min"] / _run(r),
    "ESS/s with compile": lambda r: r["ess_min"] / (_run(r) + r["seconds_compile"]),
    "ESS/1000 gradients": lambda r: 1e3 * r["ess_min"] / r["gradients_sampling"],
    "ESS/1000 gradients with warm-up": lambda r: (
        1e3 * r["ess_min"] / (r["gradients_sampling"] + r["gradients_warmup"])
        if r["gradients_warmup"] is not None
        else None
    ),
    "memory MB": lambda r: r["memory_mb"],
    "R-hat": lambda r: r["rhat_max"],
    "rms z": lambda r: r["z_rms"],
    "largest z": lambda r: r["z_max"],
    "divergences": lambda r: r["divergences"],
}


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def rows(results: list[Result]) -> list[Row]:
    """One row a model and system: medians of the figures; where only the first run compiles, its compile time."""
    found = []
    for model in PROBLEMS:
        for system in SYSTEMS:
            runs = [r for r in results if (r["model"], r["system"]) == (model, system) and "error" not in r]
            if not runs:
                continue
            compile_seconds = max(r["seconds_compile"] for r in runs)
            if SYSTEMS[system].compiles_once:
                runs = [r | {"seconds_compile": compile_seconds} for r in runs]
            figures = {name: median(figure(r) for r in runs) for name, figure in FIGURES.items()}
            found.append({"model": model, "system": system, "repeats": len(runs), **figures})
    return found


def best(table: list[Row], model: str, systems: Iterable[str], figure: str) -> Row | None:
    """The row of the system that is ahead on a model."""
    chosen = set(systems)
    candidates = [row for row in table if row["model"] == model and row["system"] in chosen]
    return max(candidates, key=lambda row: row[figure], default=None)


PEERS = tuple(system for system in SYSTEMS if system not in OURS)


def ratios(table: list[Row], figure: str, system: str, peers: Iterable[str] = PEERS) -> dict[str, tuple[float, str]]:
    """By model, a system of ours over the best of some peers, and which one that is."""
    found = {}
    for model in PROBLEMS:
        own, other = best(table, model, [system], figure), best(table, model, peers, figure)
        if own and other and other[figure] > 0.0:
            found[model] = own[figure] / other[figure], other["system"]
    return found


def geometric_mean(values: Iterable[float]) -> float:
    """The exponential of the mean of the logs; NaN of nothing."""
    logs = [math.log(value) for value in values if value > 0.0]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def shown(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return "–"
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def markdown(header: list[str], body: list[list[str]]) -> str:
    """A table; numbers to the right."""
    lines = [" | ".join(header), " | ".join(["---", *(["---:"] * (len(header) - 1))])]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(cells) for cells in body)])


def speed(table: list[Row], figure: str) -> str:
    """ESS per second: models by systems, and what is ours over the best peer."""
    present = [system for system in SYSTEMS if any(row["system"] == system for row in table)]
    ours = [system for system in OURS if system in present]
    by_system = {system: ratios(table, figure, system) for system in ours}
    body = []
    for model, problem in PROBLEMS.items():
        cells = {row["system"]: row for row in table if row["model"] == model}
        if not cells:
            continue
        leader = max(cells.values(), key=lambda row: row[figure])["system"]
        line = [problem.title]
        for system in present:
            text = shown(cells[system][figure]) if system in cells else "–"
            if system in cells and cells[system]["R-hat"] > WORST_RHAT:
                text += "†"
            line.append(f"**{text}**" if system == leader else text)
        for system in ours:
            line.append(f"{by_system[system][model][0]:.2f}" if model in by_system[system] else "–")
        body.append(line)
    means = [geometric_mean(ratio for ratio, _ in by_system[system].values()) for system in ours]
    body.append(["geometric mean", *([""] * len(present)), *(f"**{mean:.2f}**" for mean in means)])
    return markdown(["model (parameters)", *present, *(f"{system} / best peer" for system in ours)], body)


def against_each(table: list[Row]) -> str:
    """The geometric mean of ours over the best peer and where it is least, then over each system alone."""
    figures = {
        "ESS/s": "warm-up and sampling",
        "ESS/s with compile": "compilation included",
        "ESS/s sampling": "sampling alone",
        "ESS/1000 gradients": "per gradient of sampling",
    }
    present = [system for system in SYSTEMS if any(row["system"] == system for row in table)]
    peers = [system for system in present if system not in OURS]
    body = []
    for own in (system for system in OURS if system in present):
        for figure, title in figures.items():
            found = ratios(table, figure, own, peers)
            if not found:
                continue
            worst = min(found, key=lambda model: found[model][0])
            alone = [geometric_mean(r for r, _ in ratios(table, figure, own, [peer]).values()) for peer in peers]
            overall = geometric_mean(ratio for ratio, _ in found.values())
            least = f"{found[worst][0]:.2f} ({worst}, {found[worst][1]})"
            body.append([f"{own}, {title}", f"**{overall:.2f}**", least, *(f"{mean:.2f}" for mean in alone)])
    return markdown(["ESS, geometric means", "/ best peer", "least", *(f"/ {peer}" for peer in peers)], body)


def details(table: list[Row], model: str) -> str:
    """All figures of one model."""
    mine = [row for row in table if row["model"] == model]
    return markdown(["", *FIGURES], [[row["system"], *(shown(row[name]) for name in FIGURES)] for row in mine])


def machine() -> str:
    """Cores and processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.is_file()
        else []
    )
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor() or platform.machine()}"


def report(results: list[Result], table: list[Row]) -> str:
    """The whole page."""
    good = [r for r in results if "error" not in r]
    versions = sorted({f"{name} {number}" for r in good for name, number in r["versions"].items()})
    dates = sorted(r["date"][:10] for r in good)
    settings = sorted({(r["chains"], r["warmup"], r["draws"]) for r in good})
    present = {row["system"] for row in table}
    parts = [
        "# dualtape beside its peers",
        f"{' to '.join(sorted({dates[0], dates[-1]}))}; {machine()}; {', '.join(versions)}.",
        "; ".join(f"{c} chains of {w} + {d}" for c, w, d in settings)
        + f"; medians of {min(r['repeats'] for r in table)} to {max(r['repeats'] for r in table)} repetitions, one "
        "process at a time, in turns. † R-hat above 1.05: the chains do not agree. Bold: the best of a row.",
        "\n".join(f"- **{name}**: {system.description}" for name, system in SYSTEMS.items() if name in present),
        "## dualtape over its peers",
        "The figure is the least bulk ESS over all components of a model, per second or per gradient.",
        against_each(table),
        "## Least bulk ESS per second of warm-up and sampling",
        speed(table, "ESS/s"),
        "## Least bulk ESS per second, compilation included",
        speed(table, "ESS/s with compile"),
        "## Least bulk ESS per second of sampling alone",
        speed(table, "ESS/s sampling"),
        "## Least bulk ESS per 1000 gradients of sampling",
        speed(table, "ESS/1000 gradients"),
        "## All figures",
    ]
    for model, problem in PROBLEMS.items():
        if any(row["model"] == model for row in table):
            parts += [f"### {problem.title}", *([problem.note] if problem.note else []), details(table, model)]
    parts += ["## Left out", notes(results, present)]
    return "\n\n".join(parts) + "\n"


def notes(results: list[Result], present: set[str]) -> str:
    """What is not in the table, and why."""
    lines = [
        f"- {name}, {model}: {why}"
        for name in SYSTEMS
        if name in present
        for model, why in SYSTEMS[name].missing.items()
    ]
    last = {(r["system"], r["model"], r["repeat"]): r for r in results}
    lines += [f"- {s}, {m}, repetition {n}: {r['error']}" for (s, m, n), r in last.items() if "error" in r]
    return "\n".join(lines) or "Nothing."


def write(results: list[Result], folder: Path) -> None:
    """`peers.md`, `peers.csv` and `peers.json`.

    Raises:
        ValueError: where there is no result yet.
    """
    table = rows(results)
    if not table:
        raise ValueError("no run has given a result yet; the lines above say why, or run without --report.")
    (folder / "peers.md").write_text(report(results, table))
    with (folder / "peers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["model", "system", "repeats", *FIGURES])
        writer.writeheader()
        writer.writerows(table)
    figures = ("ESS/s", "ESS/s with compile", "ESS/s sampling", "ESS/1000 gradients")
    best_peer = {figure: {system: ratios(table, figure, system) for system in OURS} for figure in figures}
    means = {
        figure: {
            system: geometric_mean(ratio for ratio, _ in found.values()) for system, found in by_system.items() if found
        }
        for figure, by_system in best_peer.items()
    }
    summary = {"geometric_mean_over_best_peer": means, "over_best_peer": best_peer, "rows": table}
    (folder / "peers.json").write_text(json.dumps(summary, indent=1) + "\n")
