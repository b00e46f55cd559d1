"""`python -m benchmarks.peers`: run what is missing, then write the table and the plot.

    python -m benchmarks.peers --models garch,radon --systems dualtape,blackjax --repeats 1

Results are appended to `benchmarks/results/peers.jsonl`, so a run that was stopped goes on where it was; `--fresh`
begins anew, `--report` only writes the table and the plot from what is there.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from .plot import draw
from .problems import PROBLEMS
from .schedule import ROOT, jobs, load, run_all
from .systems import SYSTEMS
from .systems.base import Settings
from .table import write

RESULTS = Path(__file__).parents[1] / "results"


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> None:
    """Run, tabulate, plot."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=_names, default=list(PROBLEMS), help="names, joined by commas")
    parser.add_argument("--systems", type=_names, default=list(SYSTEMS), help="names, joined by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chains", type=int, default=Settings.chains)
    parser.add_argument("--warmup", type=int, default=Settings.warmup)
    parser.add_argument("--draws", type=int, default=Settings.draws)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which one run is given up")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="forget the results so far")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--stan-python", type=Path, default=ROOT / ".venv-stan" / "bin" / "python")
    arguments = parser.parse_args()
    for given, known, what in ((arguments.models, PROBLEMS, "models"), (arguments.systems, SYSTEMS, "systems")):
        unknown = sorted(set(given) - known.keys())
        if unknown:
            parser.error(f"no {what} called {', '.join(unknown)}; there are {', '.join(known)}")
    systems = arguments.systems
    if "stan" in systems and not arguments.report and not (arguments.stan_python.exists() and shutil.which("g++")):
        print(f"Stan is left out: it needs Python 3.11 with pystan at {arguments.stan_python} and the compiler g++.")
        systems = [system for system in systems if system != "stan"]
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "peers.jsonl"
    if arguments.fresh:
        path.unlink(missing_ok=True)
    if not arguments.report:
        settings = Settings(arguments.chains, arguments.warmup, arguments.draws)
        todo = list(jobs(systems, arguments.models, arguments.repeats, settings))
        run_all(todo, path, {"stan": str(arguments.stan_python.absolute())}, arguments.limit)
    results = load(path)
    write(results, arguments.output)
    draw(results, arguments.output / "peers.png")
    print((arguments.output / "peers.md").read_text())


if __name__ == "__main__":
    main()
