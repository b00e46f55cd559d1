"""What is done with one block in a step: how often, what is evaluated, and what is computed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ...ad.equations import inlined_body, shaped
from ..programs.program import Program


@dataclass(frozen=True)
class Rounds:
    """A block is updated in each of several rounds of a step."""

    count: int

    @property
    def rate(self) -> float:
        """How many times, in the mean."""
        return self.count

    def __str__(self) -> str:
        return f"in each of {self.count} rounds"


@dataclass(frozen=True)
class Drawn:
    """A block is updated when it is drawn: with a probability, in each of several draws."""

    probability: float
    draws: int

    @property
    def rate(self) -> float:
        """How many times, in the mean."""
        return self.probability * self.draws

    def __str__(self) -> str:
        return f"drawn with probability {self.probability:.3g} in each of {count(self.draws, 'draw')}"


@dataclass(frozen=True)
class InARow:
    """An update of a block is several steps of its sampler."""

    count: int

    @property
    def rate(self) -> float:
        """How many times, in the mean."""
        return self.count

    def __str__(self) -> str:
        return f"{self.count} steps in a row"


Turn = Rounds | Drawn | InARow


@dataclass(frozen=True)
class Work:
    """What a program computes.

    Args:
        operations: equations of the traced program.
        numbers: floating-point numbers that these compute; a scan counts with all its rounds, any other loop and any
            branch with its results.
        arrays: computed results that the program hands on.
        handed: how many numbers these hold.
    """

    operations: int
    numbers: int
    arrays: int
    handed: int

    @classmethod
    def of(cls, program: Program) -> Work:
        """Of a traced program."""
        computed = {var for equation in program.equations for var in equation.outvars}
        results = {out for out in program.outputs if not isinstance(out, Literal) and out in computed}
        numbers = sum(_numbers(equation) for equation in program.equations)
        return cls(len(program.equations), numbers, len(results), sum(_size(out) for out in results))

    def __str__(self) -> str:
        return f"{count(self.operations, 'operation')}, computing {count(self.numbers, 'float')}"

    @property
    def described(self) -> str:
        """With what is handed on."""
        if not self.operations:
            return "nothing"
        return f"{self}; leaves {count(self.arrays, 'array')} ({count(self.handed, 'number')})"


@dataclass(frozen=True)
class BlockPlan:
    """What will be done with one block.

    Args:
        name: its sites, joined by commas.
        sampler: as the user wrote it.
        dimension: number of unconstrained coordinates.
        adtype: the backend that differentiates; None where nothing does.
        reason: why this backend, or how the sampler goes about it.
        coordinates: by site, or part of a site, where its coordinates stand in a whole position.
        turns: its place in a step, from the outside in; empty where it is updated once.
        group: blocks of one number share one compiled update.
        terms: of the log density that depend on it: no others are evaluated.
        evaluation: the work at every evaluation of its log density; that of a gradient is a small multiple.
        per_update: the work that the other sites determine, once per update.
        per_run: the work that the data determine, once per run.
        given: the sites, or parts of sites, of other blocks that it reads.
        stale: the blocks whose states are worthless after it has moved: they are renewed before their next update.
        exact: whether it is drawn from its conditional, so that its log density need not be evaluated.
        keeps_state: whether its state is kept between updates, because nothing outside can make it stale.
    """

    name: str
    sampler: str
    dimension: int
    adtype: str | None
    reason: str | None
    coordinates: dict[str, tuple[int, ...]]
    turns: tuple[Turn, ...]
    group: int
    terms: tuple[str, ...]
    evaluation: Work
    per_update: Work
    per_run: Work
    given: tuple[str, ...]
    stale: tuple[str, ...]
    exact: bool
    keeps_state: bool

    @property
    def rate(self) -> float:
        """Steps of its sampler in one step of the whole, in the mean."""
        return float(np.prod([turn.rate for turn in self.turns]))


def count(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _numbers(equation: Any) -> int:
    body = inlined_body(equation)
    if body is not None:
        return sum(_numbers(inner) for inner in body.jaxpr.eqns)
    if equation.primitive.name == "scan":
        inside = sum(_numbers(inner) for inner in equation.params["jaxpr"].jaxpr.eqns)
        return int(equation.params["length"] * inside)
    return sum(_size(out) for out in equation.outvars if jnp.issubdtype(shaped(out)[1], jnp.floating))


def _size(atom: Any) -> int:
    return int(np.prod(shaped(atom)[0]))
