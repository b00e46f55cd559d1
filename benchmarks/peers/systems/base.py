"""What a system owes the benchmark: draws, and the seconds of three phases that mean the same for all of them.

*Compile* is everything between data in memory and a chain that could take its first step: building the model, tracing,
generating and compiling code. *Warm-up* and *sampling* are wall clock while chains run; where chains overlap, the wall
clock of both together is divided as the work was. Imports belong to no phase.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from ..problems import Problem, component_names

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Settings:
    """How long to run, and from which seed.

    Args:
        chains, warmup, draws: per run, and per chain.
        repeat: number of this repetition, from 0; the seed depends on it.
    """

    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    repeat: int = 0

    @property
    def seed(self) -> int:
        """Another one for each repetition."""
        return 1000 + self.repeat


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Args:
        compile, warmup, sampling: seconds of each phase.
        gradients_warmup, gradients_sampling: evaluations of the gradient in all chains together; None where the
            system does not say.
        divergences: in all chains together, while sampling.
        draws: by component (`theta[1]`), of shape (chains, draws).
        extra: other figures that are worth keeping.
    """

    compile: float
    warmup: float
    sampling: float
    gradients_warmup: int | None
    gradients_sampling: int | None
    divergences: int
    draws: Mapping[str, HostArray]
    extra: Mapping[str, float] | None = None


@dataclass(frozen=True)
class AbstractSystem(abc.ABC):
    """One column of the benchmark: a library, and a way to use it.

    Args:
        description: how the library is used, in a sentence for the table.
        missing: problems that it is not run on, and why.
        compiles_once: whether later repetitions find what the first one has compiled, so that its time counts.
    """

    description: str
    missing: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    compiles_once: bool = field(default=False, kw_only=True)

    @property
    @abc.abstractmethod
    def packages(self) -> tuple[str, ...]:
        """The distributions whose versions are recorded."""

    @abc.abstractmethod
    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """Build, compile, warm up, sample; in this process, which does nothing else."""

    def versions(self) -> dict[str, str]:
        """Of its packages."""
        return {package: version(package) for package in self.packages}


def divided(wall: float, warmup: Iterable[float], sampling: Iterable[float]) -> tuple[float, float]:
    """Wall clock of both phases, divided as the work in them was.

    Args:
        wall: seconds from the start of the first chain to the end of the last.
        warmup: work of each chain in this phase, in any unit.
        sampling: likewise.
    """
    before, after = sum(warmup), sum(sampling)
    share = before / (before + after)
    return share * wall, (1.0 - share) * wall


def by_component(values: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, HostArray]:
    """Draws by component.

    Args:
        values: by variable, of shape (chains, draws, ...).
        wanted: names of components; others are dropped.

    Raises:
        KeyError: naming a component that is not there.
    """
    found: dict[str, HostArray] = {}
    for name, array in values.items():
        host = np.asarray(array)
        flat = host.reshape(*host.shape[:2], -1)
        found |= {c: flat[:, :, i] for i, c in enumerate(component_names(name, host.shape[2:]))}
    lacking = sorted(set(wanted) - found.keys())
    if lacking:
        raise KeyError(f"no draws of {', '.join(lacking[:5])}: the model must name them as its Stan program does.")
    return {name: found[name] for name in wanted}
