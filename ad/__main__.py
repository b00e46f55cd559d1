"""`python -m dualtape.ad`: the usual backends on the catalogue of scenarios, as tables, figures and files.

python -m dualtape.ad                                   # everything, some minutes
python -m dualtape.ad --quick --family regression       # a look at one family
python -m dualtape.ad --output results                  # table.md, cells.csv, cells.json and benchmark.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from .measuring.benchmarking import measure_gradients
from .measuring.report import as_files, heading, tables
from .measuring.usual import usual_backends
from .naming import written
from .scenarios import catalogue
from .scenarios.scenario import Scenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: of the command line.

    Returns:
        0, or 1 where a backend was wrong or failed without a named error.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    scenarios = _chosen_scenarios(parser, catalogue(), options.family, options.scenarios)
    backends = {written(backend): backend for backend in usual_backends()}
    for name in options.backends or ():
        if name not in backends:
            parser.error(f"unknown backend {name!r}; choose from {', '.join(backends)}")
    adtypes = [backend for name, backend in backends.items() if name in (options.backends or backends)]
    print(heading(), flush=True)
    started = time.perf_counter()
    count = iter(range(1, len(scenarios) + 1))

    def progress(name: str) -> None:
        if sys.stderr.isatty():
            line = f"{next(count)}/{len(scenarios)} {time.perf_counter() - started:.0f} s  {name}"
            print(f"\r{line:<79.79}", end="", file=sys.stderr, flush=True)

    with jax.enable_x64(True):
        repetitions, target = (2, 0.005) if options.quick else (3, 0.02)
        benchmark = measure_gradients(
            scenarios, adtypes, repetitions=repetitions, target=target, limit=options.limit, progress=progress
        )
        if sys.stderr.isatty():
            print(f"\r{'':<79}\r", end="", file=sys.stderr, flush=True)
        text = tables(benchmark, scenarios)
    print(f"\n{text}\n\n{time.perf_counter() - started:.0f} s in all")
    if options.output is not None:
        for path in as_files(benchmark, text, options.output):
            print(f"wrote {path}")
    return int(any(cell.is_defect for cell in benchmark.cells))


def _chosen_scenarios(
    parser: argparse.ArgumentParser, scenarios: Sequence[Scenario], families: list[str] | None, names: list[str] | None
) -> list[Scenario]:
    for kind, wanted, known in (
        ("family", families, {scenario.family for scenario in scenarios}),
        ("scenario", names, {scenario.name for scenario in scenarios}),
    ):
        for name in wanted or ():
            if name not in known:
                parser.error(f"unknown {kind} {name!r}; choose from {', '.join(sorted(known))}")
    return [
        scenario
        for scenario in scenarios
        if (not families or scenario.family in families) and (not names or scenario.name in names)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dualtape.ad", description="Compare the backends on the catalogue of gradient scenarios."
    )
    parser.add_argument("--family", nargs="+", metavar="NAME", help="only scenarios of these families")
    parser.add_argument("--scenarios", nargs="+", metavar="NAME", help="only these scenarios")
    parser.add_argument("--backends", nargs="+", metavar="ADTYPE", help='only these, such as "AutoReverse()"')
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the tables, the cells and the figure there")
    parser.add_argument("--quick", action="store_true", help="shorter measurements, for a look")
    parser.add_argument("--limit", type=float, default=60.0, metavar="S", help="seconds after which a cell is given up")
    return parser


if __name__ == "__main__":
    sys.exit(main())
