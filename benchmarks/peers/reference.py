"""Reference moments of the simulated models: `python -m benchmarks.peers.reference`.

A long run of NumPyro's NUTS on the hand-written log densities, so that dualtape is not held against itself. Written
into `references.json`, with how it was made.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any

from .densities import DENSITIES
from .problems import PROBLEMS, REFERENCES, AbstractSource, Data, Problem, Reference, Simulated, component_names
from .scores import moments
from .systems import SYSTEMS
from .systems.base import Settings

# Longer than any run of the benchmark, from a seed that none of them has.
LONG = Settings(chains=4, warmup=1000, draws=5_000, repeat=76)


@dataclass(frozen=True)
class _AllParameters(AbstractSource):
    """A source of which every parameter is of interest, with nothing known of it yet."""

    source: AbstractSource
    names: tuple[str, ...]

    def data(self) -> Data:
        return self.source.data()

    def stan(self) -> str:
        return self.source.stan()

    def reference(self) -> Reference:
        return {name: {} for name in self.names}


def _parameters(problem: Problem) -> tuple[str, ...]:
    density = DENSITIES[problem.name](problem.data)
    return tuple(c for parameter in density.parameters for c in component_names(parameter.name, parameter.shape))


def make(problem: Problem) -> dict[str, Any]:
    """The moments of all parameters, and how they were found."""
    system = SYSTEMS["numpyro"]
    asked = dataclasses.replace(problem, source=_AllParameters(problem.source, _parameters(problem)))
    outcome = system.run(asked, LONG)
    found = {name: moments(draws) for name, draws in outcome.draws.items()}
    return {
        "made": {
            "by": "NumPyro's NUTS on the hand-written log density, python -m benchmarks.peers.reference",
            "chains": LONG.chains,
            "warmup": LONG.warmup,
            "draws": LONG.draws,
            "seed": LONG.seed,
            "divergences": outcome.divergences,
            "smallest bulk ESS": round(min(m["ess_bulk"] for m in found.values())),
            "largest R-hat": round(max(m["rhat"] for m in found.values()), 5),
            "versions": system.versions(),
        },
        "components": {
            name: {key: float(f"{m[key]:.8g}") for key in ("mean", "sd", "mcse_mean")} for name, m in found.items()
        },
    }


def main() -> None:
    """Make those that are named, or all."""
    found = json.loads(REFERENCES.read_text()) if REFERENCES.is_file() else {}
    for problem in PROBLEMS.values():
        if isinstance(problem.source, Simulated) and (not sys.argv[1:] or problem.name in sys.argv[1:]):
            found[problem.source.program] = make(problem)
            print(problem.name, found[problem.source.program]["made"], flush=True)
            REFERENCES.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
