"""What `python -m dualtape.ad` says: where and with what it ran, tables by backend and family, files."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import numpy as np

from ..forward import AutoForward
from ..gradient import gradient_problem
from ..naming import written
from ..reverse import AutoReverse
from ..routing import AutoByDimension
from ..scenarios.scenario import Scenario
from .results import Cell, GradientBenchmark, Outcome, geometric_mean

# Up to here forward mode should earn the default.
FEW = 20


def heading() -> str:
    """Date, versions and machine, for figures that are quoted elsewhere."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("dualtape", "jax", "numpy"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{datetime.now(UTC):%d %B %Y}, Python {platform.python_version()}, {packages}\n"
        f"{platform.machine()} {platform.system()}, {cores} cores, {jax.default_backend()}"
    )


def tables(benchmark: GradientBenchmark, scenarios: Sequence[Scenario]) -> str:
    """All that is printed: the summary, refusals, forward over reverse by family, the default over the best."""
    parts = [str(benchmark), _refusals(benchmark), _families(benchmark), _default(benchmark, scenarios)]
    return "\n\n".join(part for part in parts if part)


def _refusals(benchmark: GradientBenchmark) -> str:
    """Which scenarios each backend refuses; the reasons are in the files."""
    lines = []
    for adtype in benchmark.adtypes:
        names = [c.scenario for c in benchmark.cells if c.adtype == adtype and c.outcome is Outcome.REFUSED]
        if names:
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            lines.append(f"{adtype} refuses {len(names)} by name: {shown}"[:100])
    return "\n".join(lines)


def _families(benchmark: GradientBenchmark) -> str:
    """Forward over reverse for few parameters, by family."""
    few = {cell.scenario: cell for cell in benchmark.cells if cell.dimension <= FEW}
    ratios = benchmark.ratios(written(AutoForward()), over=written(AutoReverse()))
    ratios = {name: ratio for name, ratio in ratios.items() if name in few}
    if not ratios:
        return ""
    families = dict.fromkeys(few[name].family for name in ratios)
    wide = max(len("family"), *map(len, families))
    lines = [
        f"Time of AutoForward() over AutoReverse(), up to {FEW} parameters",
        "",
        f"{'family':<{wide}}  {'scenarios':>9}  {'mean':>5}  {'worst':>5}",
    ]
    for family in (*families, None):
        chosen = {n: r for n, r in ratios.items() if family is None or few[n].family == family}
        worst = max(chosen, key=lambda name: chosen[name])
        lines.append(
            f"{family or 'all':<{wide}}  {len(chosen):>9}  {geometric_mean(chosen.values()):>5.2f}  "
            f"{chosen[worst]:>5.2f}  {worst}"
        )
    return "\n".join(lines)


def _default(benchmark: GradientBenchmark, scenarios: Sequence[Scenario]) -> str:
    """The time of the backend that the default rule picks over that of the best backend."""
    ratios = {}
    unmeasured = []
    for scenario in scenarios:
        times = {c.adtype: c.timing.seconds for c in benchmark.cells if c.scenario == scenario.name and c.timing}
        if not times:
            continue
        problem = gradient_problem(scenario.f, scenario.name, scenario.x, *scenario.constants)
        try:
            chosen = written(AutoByDimension().choose(problem).backend)
        except Exception:  # a backend that fails without a named error: its cell says so
            chosen = ""
        if chosen in times:
            ratios[scenario.name] = times[chosen] / min(times.values())
        else:
            unmeasured.append(scenario.name)
    if not ratios:
        return ""
    worst = max(ratios, key=lambda name: ratios[name])
    lines = [
        f"Time of the default, {written(AutoByDimension())}, over the best backend on each of {len(ratios)} scenarios: "
        f"geometric",
        f"mean {geometric_mean(ratios.values()):.2f}, worst {ratios[worst]:.2f} ({worst})",
    ]
    if unmeasured:
        lines.append(f"The backend that it picks has no figure on {len(unmeasured)}: {', '.join(unmeasured)}"[:100])
    return "\n".join(lines)


def as_files(benchmark: GradientBenchmark, text: str, folder: Path) -> list[Path]:
    """Write the tables as Markdown, the cells as CSV and JSON, and the figure.

    Args:
        benchmark: what was measured.
        text: from `tables`.
        folder: made where it does not exist.

    Returns:
        The paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("table.md", "cells.csv", "cells.json", "benchmark.png")]
    head = heading()
    paths[0].write_text(f"# Gradients\n\n{head}\n\n{_markdown(benchmark)}\n\n```\n{text}\n```\n", encoding="utf-8")
    records = [_record(cell) for cell in benchmark.cells]
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    paths[2].write_text(json.dumps({"about": head, "cells": records}, indent=1), encoding="utf-8")
    benchmark.plot(paths[3])
    return paths


def _markdown(benchmark: GradientBenchmark) -> str:
    total = len(benchmark.scenarios)
    lines = [
        f"| adtype | time relative to `{benchmark.baseline}` | memory | compile, s | scenarios |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in benchmark.summary():
        figures = (f"{number:.2f}" if np.isfinite(number) else "-" for number in (row.time, row.memory))
        compiling = f"{row.compile_seconds:.2f}" if row.covered else "-"
        lines.append(f"| `{row.adtype}` | {' | '.join(figures)} | {compiling} | {row.covered}/{total} |")
    return "\n".join(lines)


def _record(cell: Cell) -> dict[str, str | int | float | None]:
    record = {name: getattr(cell, name) for name in ("scenario", "family", "dimension", "adtype")}
    record |= {"outcome": cell.outcome.value, "detail": cell.detail}
    empty = dict.fromkeys(("seconds", "fastest", "compile_seconds", "memory"))
    return record | (dataclasses.asdict(cell.timing) if cell.timing else empty)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown)"
