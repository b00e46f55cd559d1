"""`python -m dualtape.ad`: the usual backends on the catalogue of scenarios, as tables, figures and files.

python -m dualtape.ad                                   # everything, some eleven minutes
python -m dualtape.ad --quick --family regression       # a look at one family
python -m dualtape.ad --output results                  # table.md, cells.csv, cells.json and benchmark.png
python -m dualtape.ad --list                            # the scenarios and what is special about each
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import math
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from pathlib import Path

import jax
import numpy as np

from .. import ad
from .adtypes import AbstractADType
from .errors import DifferentiationError
from .gradient import prepare_gradient
from .measuring.benchmarking import measure_gradients
from .measuring.report import as_files, heading, tables
from .measuring.usual import chosen_adtypes, usual_backends
from .naming import WIDTH, Written, read
from .scenarios import catalogue
from .scenarios.scenario import Scenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: of the command line.

    Returns:
        0, or 1 where a backend was wrong or failed without a named error; 130 where it was interrupted (Ctrl-C)
        before there was anything to show.
    """
    everything = catalogue()
    parser = _parser(everything)
    options = parser.parse_args(arguments)
    scenarios = _chosen_scenarios(parser, everything, options.family, options.scenarios)
    if options.list:
        print(_listing(scenarios))
        return 0
    adtypes = _chosen_backends(parser, options.backends)
    _check_output(parser, options.output)
    print(heading(), flush=True)
    progress = _Progress(scenarios)
    repetitions, target = (2, 0.005) if options.quick else (3, 0.02)
    try:
        with jax.enable_x64(True):
            benchmark = measure_gradients(
                scenarios, adtypes, repetitions=repetitions, target=target, limit=options.limit, progress=progress.show
            )
    except KeyboardInterrupt:
        print("\ninterrupted before the first scenario was measured", file=sys.stderr)
        return 130
    finally:
        progress.clear()
    text = tables(benchmark)
    measured = len(benchmark.scenarios)
    interrupted = "" if measured == len(scenarios) else f", interrupted after {measured} of {len(scenarios)} scenarios"
    print(f"\n{text}\n\n{progress.seconds:.0f} s in all{interrupted}")
    if options.output is not None:
        for path in as_files(benchmark, text, options.output):
            print(f"wrote {path}")
    return int(any(cell.is_defect for cell in benchmark.cells))


class _Progress:
    """Where the benchmark is: a line that is written over on a terminal, a line for each family elsewhere."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._started = time.perf_counter()
        self._total = len(scenarios)
        self._sizes = Counter(scenario.family for scenario in scenarios)
        self._done = 0
        self._family = ""

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def show(self, scenario: Scenario) -> None:
        """Say what is measured next."""
        done, self._done = self._done, self._done + 1
        if sys.stderr.isatty():
            left = f", about {self.seconds / done * (self._total - done):.0f} s left" if done else ""
            line = f"{done} of {self._total} scenarios in {self.seconds:.0f} s{left}: {scenario.name}"
            print(f"\r{line:<79.79}", end="", file=sys.stderr, flush=True)
        elif scenario.family != self._family:
            self._family, size = scenario.family, self._sizes[scenario.family]
            print(
                f"{scenario.family}: {size} scenario{'s' * (size != 1)} ({done} of {self._total} done in "
                f"{self.seconds:.0f} s)",
                file=sys.stderr,
                flush=True,
            )

    def clear(self) -> None:
        """Make room for the tables."""
        if sys.stderr.isatty():
            print(f"\r{'':<79}\r", end="", file=sys.stderr, flush=True)


def _chosen_scenarios(
    parser: argparse.ArgumentParser, scenarios: Sequence[Scenario], families: list[str] | None, names: list[str] | None
) -> list[Scenario]:
    for kind, wanted, known in (
        ("family", families, {scenario.family for scenario in scenarios}),
        ("scenario", names, {scenario.name for scenario in scenarios}),
    ):
        for name in wanted or ():
            if name not in known:
                parser.error(f"unknown {kind} {name!r}; {_like(name, sorted(known))}")
    chosen = [
        scenario
        for scenario in scenarios
        if (not families or scenario.family in families) and (not names or scenario.name in names)
    ]
    if not chosen:
        parser.error("no scenario is both in a family of --family and among --scenarios; leave one of the two out")
    return chosen


def _like(name: str, known: list[str]) -> str:
    """The names most like one that is not known, and where to find all of them."""
    near = difflib.get_close_matches(name, known, n=4)
    near += [one for one in known if name.lower() in one.lower() and one not in near][: 4 - len(near)]
    question = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return question + (f"choose from {', '.join(known)}" if len(known) <= 12 else "--list shows all")


def _chosen_backends(parser: argparse.ArgumentParser, words: list[str] | None) -> tuple[AbstractADType, ...] | None:
    if words is None:
        return None
    # Whatever this layer offers and `repr` shows as a user would write it can be written here.
    offered = {name: getattr(ad, name) for name in ad.__all__}
    values = {name: each for name, each in offered.items() if isinstance(each, type) and is_dataclass(each)}
    classes = {name: each for name, each in values.items() if issubclass(each, Written)}
    try:
        backends = chosen_adtypes(
            read(", ".join(word.strip(" ,") for word in words), classes), usual_backends(), "--backends"
        )
        for backend in backends:
            prepare_gradient(lambda x: x * x, backend, 1.0)  # says what to install where something is missing
    except KeyError as error:
        known = [name for name, each in classes.items() if issubclass(each, AbstractADType)]
        parser.error(f"--backends: unknown adtype {error.args[0]!r}; {_like(error.args[0], known)}")
    except DifferentiationError as error:
        parser.error(f"--backends: {str(error).partition(': ')[2]}")
    except (TypeError, ValueError) as error:
        parser.error(f"--backends: {str(error).removeprefix('--backends: ')}")
    return backends


def _check_output(parser: argparse.ArgumentParser, folder: Path | None) -> None:
    """Refuse before the minutes of measuring what could not be written after them."""
    if folder is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("--output draws a figure with matplotlib, which is not installed: pip install matplotlib")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: {folder} cannot be a folder: {error.strerror}; name another one")


def _listing(scenarios: Iterable[Scenario]) -> str:
    """Family by family, each scenario with what is special about it."""
    lines: list[str] = []
    family = ""
    for scenario in scenarios:
        if scenario.family != family:
            family = scenario.family
            lines += ["", family] if lines else [family]
        dimension = sum(map(np.size, jax.tree.leaves(scenario.x)))
        size = f"{dimension} parameter{'s' * (dimension != 1)}"
        text = f"{scenario.name} ({size}): {scenario.special}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)


def _parser(scenarios: Sequence[Scenario]) -> argparse.ArgumentParser:
    families = Counter(scenario.family for scenario in scenarios)
    described = ", ".join(f"{family} ({count})" for family, count in families.items())
    usual = ", ".join(map(repr, usual_backends()))
    parser = argparse.ArgumentParser(
        prog="python -m dualtape.ad",
        description=f"Compare the backends on the catalogue of {len(scenarios)} gradient scenarios: time and memory "
        f"inside a compiled loop, seconds to compile, and whether the gradient is right. All of it takes some "
        f"eleven minutes, nearly all of compiling, a family half a minute to four; with --backends AutoForward "
        f"AutoReverse it takes a fifth of that. Ctrl-C shows what there is.",
        epilog=f"families: {described}. backends: {usual}.",
    )
    parser.add_argument("--family", nargs="+", metavar="NAME", help="only scenarios of these families, listed below")
    parser.add_argument("--scenarios", nargs="+", metavar="NAME", help="only these scenarios; --list shows them")
    parser.add_argument(
        "--backends",
        nargs="+",
        metavar="ADTYPE",
        help='only these, as in --backends AutoReverse "AutoForward(chunk_size=1)", with spaces or commas between',
    )
    parser.add_argument("--list", action="store_true", help="show the scenarios with what is special about each")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the tables, the cells and the figure there")
    parser.add_argument(
        "--quick", action="store_true", help="shorter measurements, for a look; compiling takes as long"
    )
    parser.add_argument(
        "--limit",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds after which a cell is given up, as far as it runs in Python (default 60)",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}; the default is 60")
    return seconds


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # of a reader that has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
