"""All runs in turns: for each repetition and each model, all systems one after the other, a process each.

So what slows the machine down for a while slows them all. Results are appended to a file of JSON lines as they come;
what stands there already is not run again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .problems import PROBLEMS
from .scores import read, score
from .systems import SYSTEMS
from .systems.base import Settings

ROOT = Path(__file__).parents[2]
# What one thread a chain and a cold start mean: no second level of threads, no compiled program from before.
ENVIRONMENT = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")},
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "DUALTAPE_CACHE": "off",
}
Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        system, model: names.
        settings: how long, and which repetition.
    """

    system: str
    model: str
    settings: Settings

    @property
    def key(self) -> dict[str, Any]:
        """What identifies its result."""
        return {"system": self.system, "model": self.model, **dataclasses.asdict(self.settings)}


def jobs(systems: list[str], models: list[str], repeats: int, settings: Settings) -> Iterator[Job]:
    """In the order in which they are run; without what a system cannot express."""
    for repeat in range(repeats):
        for model in models:
            for system in systems:
                if model not in SYSTEMS[system].missing:
                    yield Job(system, model, dataclasses.replace(settings, repeat=repeat))


def load(path: Path) -> list[Result]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def run(job: Job, pythons: dict[str, str], limit: float, cache: Path) -> Result:
    """One run in a process of its own, scored here.

    Args:
        job: what to run.
        pythons: interpreter by system; others run on this one.
        limit: seconds after which it is given up.
        cache: where PyTensor keeps what it compiles, of a system's folder each.

    Returns:
        The figures, or `error`.
    """
    settings = [f"--{name}={value}" for name, value in dataclasses.asdict(job.settings).items()]
    python = pythons.get(job.system, sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draws.npz"
        command = [python, "-m", "benchmarks.peers.worker", job.system, job.model, str(file), *settings]
        environment = os.environ | ENVIRONMENT | {"PYTENSOR_FLAGS": f"base_compiledir={cache / job.system}"}
        if job.system in pythons:
            # Its programs are kept beside its interpreter, apart from those that the user has.
            environment["XDG_CACHE_HOME"] = str(Path(python).parents[1] / "cache")
        began = time.perf_counter()
        result: Result = job.key | {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return result | {"error": f"no result within {limit:.0f} s"}
        seconds = time.perf_counter() - began
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            return result | {"error": lines[-1][:300], "log": lines[-30:]}
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        result |= {"seconds_process": seconds} | figures | score(read(file), PROBLEMS[job.model].reference)
        return result


def run_all(todo: list[Job], path: Path, pythons: dict[str, str], limit: float) -> None:
    """Run what has no result yet, and append as results come; errors are tried again."""
    done = [result for result in load(path) if "error" not in result]
    # PyTensor compiles routines of linear algebra when a model first needs them. They are kept from one model to the
    # next, so that not every model pays for them, but not from one benchmark to the next.
    with tempfile.TemporaryDirectory() as cache:
        for number, job in enumerate(todo, 1):
            if any(all(result.get(name) == value for name, value in job.key.items()) for result in done):
                continue
            result = run(job, pythons, limit, Path(cache))
            _append(result, path)
            print(
                f"[{number}/{len(todo)}] {job.settings.repeat} {job.model:>14} {job.system:<17} {summary(result)}",
                flush=True,
            )


def _append(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")


def summary(result: Result) -> str:
    """One line."""
    if "error" in result:
        return f"failed: {result['error']}"
    total = result["seconds_warmup"] + result["seconds_sampling"]
    return (
        f"compile {result['seconds_compile']:6.2f} s, run {total:8.3f} s, ESS {result['ess_min']:7.0f}, "
        f"ESS/s {result['ess_min'] / total:10.1f}, R-hat {result['rhat_max']:.3f}, z {result['z_rms']:.2f}"
    )
