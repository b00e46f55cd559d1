"""The results of a gradient benchmark: cells, their summary by backend, and the table."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..naming import duration, item, ratio, storage
from .timing import Timing

# What `Timing.memory` leaves out, for tables and figures.
MEMORY = "Memory is that of the compiled program; what Python allocates (AutoTape, callbacks) is not in it."


class Outcome(enum.Enum):
    """How one backend fared on one scenario.

    BY_VALUES says that it differentiates values by definition, where a rule declares another derivative.
    """

    CORRECT = "correct"
    REFUSED = "refused"
    BY_VALUES = "by values"
    SLOW = "given up"
    WRONG = "WRONG"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Cell:
    """One backend on one scenario.

    Args:
        scenario, family: what was differentiated.
        dimension: how many numbers are differentiated.
        adtype: the backend, as the user would write it.
        outcome: of the comparison with the expected gradient.
        detail: why it is not correct; empty where it is.
        timing: what it costs; None where it is not correct.
    """

    scenario: str
    family: str
    dimension: int
    adtype: str
    outcome: Outcome
    detail: str = ""
    timing: Timing | None = None

    @property
    def is_defect(self) -> bool:
        """Whether it is neither correct nor a named refusal."""
        return self.outcome in (Outcome.WRONG, Outcome.FAILED)


Measure = Callable[[Timing], float]


def seconds(timing: Timing) -> float:
    """The measure of time."""
    return timing.seconds


def memory(timing: Timing) -> float:
    """The measure of memory, in bytes."""
    return float(timing.memory)


@dataclass(frozen=True)
class Summary:
    """One backend over all scenarios.

    Args:
        adtype: the backend.
        time, memory: geometric means of the ratios to the baseline, over the scenarios that both differentiate
            correctly; NaN where there is none.
        compile_seconds: the mean.
        covered: the number of scenarios that it differentiates correctly.
    """

    adtype: str
    time: float
    memory: float
    compile_seconds: float
    covered: int


@dataclass(frozen=True)
class GradientBenchmark:
    """What `benchmark_gradients` measured; printed, it is a table.

    Args:
        cells: one for each scenario and backend.
        adtypes: the backends, in the order asked for.
        baseline: the backend that figures are relative to.
    """

    cells: tuple[Cell, ...]
    adtypes: tuple[str, ...]
    baseline: str

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(dict.fromkeys(cell.scenario for cell in self.cells))

    def measured(self, adtype: str, measure: Measure = seconds) -> dict[str, float]:
        """A measure by scenario, where the backend is correct."""
        return {c.scenario: measure(c.timing) for c in self.cells if c.adtype == adtype and c.timing is not None}

    def ratios(self, adtype: str, measure: Measure = seconds, over: str | None = None) -> dict[str, float]:
        """A measure of one backend over that of another, by default the baseline, by scenario."""
        below = self.measured(over or self.baseline, measure)
        above = self.measured(adtype, measure)
        return {name: value / below[name] for name, value in above.items() if below.get(name)}

    def summary(self) -> tuple[Summary, ...]:
        """One row for each backend, the fastest first."""
        rows = []
        for adtype in self.adtypes:
            timings = [c.timing for c in self.cells if c.adtype == adtype and c.timing is not None]
            rows.append(
                Summary(
                    adtype,
                    geometric_mean(self.ratios(adtype, seconds).values()),
                    geometric_mean(self.ratios(adtype, memory).values()),
                    statistics.mean(t.compile_seconds for t in timings) if timings else float("nan"),
                    len(timings),
                )
            )
        return tuple(sorted(rows, key=lambda row: float("inf") if np.isnan(row.time) else row.time))

    def plot(self, path: Any) -> None:
        """Draw time and memory relative to the baseline, a box for each backend, into a file.

        Args:
            path: of the file, usually `.png`.

        Raises:
            ImportError: where matplotlib is not installed.
        """
        from .plots import plot_benchmark

        plot_benchmark(self, path)

    def __str__(self) -> str:
        """The table; for a single function with absolute figures too."""
        return "\n".join(_one(self) if len(self.scenarios) == 1 else _many(self))


def geometric_mean(values: Iterable[float]) -> float:
    """exp(mean(log)) of positive numbers; NaN of none."""
    logs = [np.log(value) for value in values if value > 0]
    return float(np.exp(np.mean(logs))) if logs else float("nan")


def _one(benchmark: GradientBenchmark) -> list[str]:
    cells = {cell.adtype: cell for cell in benchmark.cells}
    first = benchmark.cells[0]
    wide = max(map(len, benchmark.adtypes))
    lines = [
        f"Gradients of {first.scenario}, {first.dimension} parameter{'s' * (first.dimension != 1)}, relative to "
        f"{benchmark.baseline}",
        "",
        f"{'adtype':<{wide}}  {'time':>8}  {'relative':>8}  {'memory':>8}  {'relative':>8}  {'compile':>8}",
    ]
    for row in benchmark.summary():
        timing = cells[row.adtype].timing
        if timing is not None:
            lines.append(
                f"{row.adtype:<{wide}}  {duration(timing.seconds):>8}  {ratio(row.time):>8}  "
                f"{storage(timing.memory):>8}  {ratio(row.memory):>8}  {duration(timing.compile_seconds):>8}"
            )
    return [*lines, "", MEMORY, *_objections(benchmark, tuple(Outcome)[1:])]


def _many(benchmark: GradientBenchmark) -> list[str]:
    total = len(benchmark.scenarios)
    wide = max(map(len, benchmark.adtypes))
    lines = [
        f"Gradients of {total} scenarios: geometric means relative to {benchmark.baseline}",
        "",
        f"{'adtype':<{wide}}  {'relative time':>13}  {'relative memory':>15}  {'compile':>8}  {'scenarios':>9}",
    ]
    for row in benchmark.summary():
        compiling = "-" if np.isnan(row.compile_seconds) else duration(row.compile_seconds)
        lines.append(
            f"{row.adtype:<{wide}}  {ratio(row.time):>13}  {ratio(row.memory):>15}  {compiling:>8}  "
            f"{f'{row.covered}/{total}':>9}"
        )
    return [*lines, "", MEMORY, *_objections(benchmark, (Outcome.SLOW, Outcome.WRONG, Outcome.FAILED))]


def _objections(benchmark: GradientBenchmark, outcomes: tuple[Outcome, ...]) -> list[str]:
    said: dict[str, list[str]] = {}
    for cell in benchmark.cells:
        if cell.outcome in outcomes:
            said.setdefault(f"{cell.outcome.value} on {cell.scenario}: {cell.detail}", []).append(cell.adtype)
    lines = [line for text, adtypes in said.items() for line in item(f"{', '.join(adtypes)} {text}")]
    if any(cell.outcome is Outcome.WRONG for cell in benchmark.cells):
        lines += item("check_gradients shows where a gradient is wrong, and what to look for.")
    return ["", *lines] if lines else []
