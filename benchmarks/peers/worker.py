"""One run of one system on one model, in a process of its own: `python -m benchmarks.peers.worker ...`.

Writes the draws into a file and prints one line of JSON. Nothing is scored here, so that the peak memory is that of
the system.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .problems import PROBLEMS
from .systems import SYSTEMS
from .systems.base import Settings


def peak_memory() -> float:
    """Megabytes: the peak of this process, and that of the largest of its children where it has any."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would report the parent's peak where that is higher.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        own = int(line.split()[1])
    else:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1024.0**2 if sys.platform == "darwin" else 1024.0
    return (own + children) / unit


def main() -> None:
    """Run, save, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("model", choices=PROBLEMS)
    parser.add_argument("draws_file", type=Path)
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    arguments = vars(parser.parse_args())
    settings = Settings(**{field.name: arguments[field.name] for field in dataclasses.fields(Settings)})
    system, problem = SYSTEMS[arguments["system"]], PROBLEMS[arguments["model"]]
    outcome = system.run(problem, settings)
    np.savez(arguments["draws_file"], names=list(outcome.draws), draws=np.stack(list(outcome.draws.values())))
    line: dict[str, Any] = {
        "seconds_compile": outcome.compile,
        "seconds_warmup": outcome.warmup,
        "seconds_sampling": outcome.sampling,
        "gradients_warmup": outcome.gradients_warmup,
        "gradients_sampling": outcome.gradients_sampling,
        "divergences": outcome.divergences,
        "memory_mb": peak_memory(),
        **(outcome.extra or {}),
        "versions": system.versions() | {"python": platform.python_version()},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
