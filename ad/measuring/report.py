"""What `python -m dualtape.ad` says: where and with what it ran, tables by backend and family, files."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import platform
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from ..adtypes import Backend, Scalar
from ..forward import AutoForward
from ..naming import WIDTH, ratio
from ..reverse import AutoReverse
from ..routing import AutoByDimension
from .results import MEMORY, Cell, GradientBenchmark, Outcome, geometric_mean

# Up to here forward mode should earn the default.
FEW = 20


def heading() -> str:
    """Date, versions and machine, for figures that are quoted elsewhere."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("dualtape", "jax", "numpy"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{datetime.now(UTC):%d %B %Y}, Python {platform.python_version()}, {packages}\n"
        f"{platform.machine()} {platform.system()}, {cores} core{'s' * (cores != 1)}, {jax.default_backend()}"
    )


def tables(benchmark: GradientBenchmark) -> str:
    """All that is printed: the summary, refusals, forward over reverse by family, the default over the best."""
    parts = [str(benchmark), _refusals(benchmark), _families(benchmark), _default(benchmark)]
    return "\n\n".join(part for part in parts if part)


def _refusals(benchmark: GradientBenchmark) -> str:
    """Which scenarios each backend refuses; the reasons are in the files."""
    lines = []
    for adtype in benchmark.adtypes:
        names = [c.scenario for c in benchmark.cells if c.adtype == adtype and c.outcome is Outcome.REFUSED]
        if names:
            lines.append(_line(f"{adtype} refuses {len(names)} by name: {', '.join(names)}"))
        names = [c.scenario for c in benchmark.cells if c.adtype == adtype and c.outcome is Outcome.BY_VALUES]
        if names:
            text = "differentiates the values, where a rule declares another derivative, on"
            lines.append(_line(f"{adtype} {text} {len(names)}: {', '.join(names)}"))
    return "\n".join(lines)


def _families(benchmark: GradientBenchmark) -> str:
    """Forward over reverse for few parameters, by family."""
    few = {cell.scenario: cell for cell in benchmark.cells if cell.dimension <= FEW}
    ratios = benchmark.ratios(repr(AutoForward()), over=repr(AutoReverse()))
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


@dataclass(frozen=True)
class _Measured:
    """What is known of a scenario from its cells: a `Problem` for rules that do not measure again."""

    cells: Mapping[str, Cell]

    @property
    def subject(self) -> str:
        return next(iter(self.cells.values())).scenario

    @property
    def dimension(self) -> int:
        return next(iter(self.cells.values())).dimension

    @property
    def arguments(self) -> tuple[Any, ...]:
        return ()

    def supported(self, backend: Backend) -> bool:
        cell = self.cells.get(repr(backend))
        return cell is None or cell.outcome is not Outcome.REFUSED

    def evaluator(self, backend: Backend) -> Callable[..., tuple[Scalar, Any]]:
        raise NotImplementedError("cells hold figures, not programs")


def _default(benchmark: GradientBenchmark) -> str:
    """The time of the backend that the default rule picks over that of the best backend."""
    rule = AutoByDimension()
    ratios: dict[str, float] = {}
    unmeasured = []
    for name in benchmark.scenarios:
        cells = {cell.adtype: cell for cell in benchmark.cells if cell.scenario == name}
        times = {adtype: cell.timing.seconds for adtype, cell in cells.items() if cell.timing}
        chosen = repr(rule.choose(_Measured(cells)).backend)
        if chosen in times:
            ratios[name] = times[chosen] / min(times.values())
        elif times:
            unmeasured.append(name)
    if not ratios:
        return ""
    worst = max(ratios, key=lambda name: ratios[name])
    lines = [
        f"Time of the default, {rule}, over that of the best backend",
        "",
        f"{'scenarios':>9}  {'mean':>5}  {'worst':>5}",
        f"{len(ratios):>9}  {geometric_mean(ratios.values()):>5.2f}  {ratios[worst]:>5.2f}  {worst}",
    ]
    if unmeasured:
        lines.append(_line(f"The backend that it picks has no figure on {len(unmeasured)}: {', '.join(unmeasured)}"))
    return "\n".join(lines)


def _line(text: str) -> str:
    """The beginning of a text that may be longer than a line."""
    return textwrap.shorten(text, WIDTH, placeholder=" ...")


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
        figures = " | ".join(map(ratio, (row.time, row.memory, row.compile_seconds)))
        lines.append(f"| `{row.adtype}` | {figures} | {row.covered}/{total} |")
    return "\n".join([*lines, "", MEMORY])


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
