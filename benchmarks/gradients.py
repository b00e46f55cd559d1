"""What a gradient costs over the log density alone, on the fifteen reference posteriors.

For each posterior the log density that `sample` sees, with everything that data alone determine computed beforehand, in
float64 in a compiled loop in which every evaluation depends on the one before: the log density alone, and with its
gradient in either mode. The figure of interest is the ratio of value and gradient to the value. "Default" is the mode
that the default adtype takes: forward below 20 parameters, reverse from there.

Run with `make bench`; on one core, as in `taskset -c 1 python benchmarks/gradients.py [part of a name ...]`. Needs the
reference set, from the folder that the environment variable DUALTAPE_POSTERIORDB names.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dualtape import AutoForward, AutoReverse
from dualtape.ad import AbstractADType, AutoByDimension, value_and_gradient
from dualtape.ad.layout import by_columns
from dualtape.ad.rules import with_rules
from dualtape.models.reference.case import Case
from dualtape.models.reference.cases import CASES
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model

REPEATS = 21
SECONDS = 0.02  # of one measurement
STEP = 1e-14  # so small that a position stays where it is, and not so small that the compiler could know

# From a position and the constants to the value, and a direction of the shape of the position or of ().
Evaluation = Callable[..., tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Subject:
    """A log density with its constants.

    Args:
        name: for the table.
        log_density: of a position, shape (dimension,), and the constants.
        position: where it is evaluated.
        constants: what data determine.
    """

    name: str
    log_density: Callable[..., jax.Array]
    position: np.ndarray[Any, Any]
    constants: tuple[Any, ...]

    @classmethod
    def of(cls, case: Case) -> Subject:
        """What `sample` sees of a reference posterior."""
        bound = case.bind()
        traced = trace_model(bound, discover(bound))
        whole = traced.density.restrict(traced.density.sites)
        dimension = whole.target.dimension
        prepared = jax.jit(whole.prepare)(traced.data)
        constants = tuple(jnp.asarray(c) for c in whole.constants(jnp.zeros(dimension), prepared))
        position = np.random.default_rng(0).uniform(-0.5, 0.5, dimension)
        return cls(case.name, whole.target.log_density, position, constants)

    def primal(self) -> Evaluation:
        """The value alone, with the rules and the layouts that its derivatives are taken with."""

        def evaluation(q: jax.Array, *constants: Any) -> tuple[jax.Array, jax.Array]:
            value = by_columns(with_rules(lambda q: self.log_density(q, *constants)))(q)
            return value, value

        return evaluation

    def gradient(self, adtype: AbstractADType) -> Evaluation:
        """The value and the gradient."""
        return lambda q, *constants: value_and_gradient(self.log_density, adtype, q, *constants)


def timed(evaluation: Evaluation, subject: Subject) -> Callable[[], float]:
    """Microseconds of one evaluation in a compiled loop."""

    def loop(count: Any, q: jax.Array, constants: tuple[Any, ...]) -> Any:
        def body(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            q, total = carry
            value, direction = evaluation(q, *constants)
            return q + STEP * direction, total + value

        return jax.lax.fori_loop(0, count, body, (q, jnp.zeros(())))

    program = jax.jit(loop).lower(1, subject.position, subject.constants).compile()

    def seconds(count: int) -> float:
        started = time.perf_counter()
        jax.block_until_ready(program(count, subject.position, subject.constants))
        return time.perf_counter() - started

    count = 16
    while (elapsed := seconds(count)) < SECONDS / 4:
        count *= 4
    count = max(16, int(count * SECONDS / elapsed))
    return lambda: seconds(count) / count * 1e6


@dataclass(frozen=True)
class Figures:
    """What was measured of a log density.

    Args:
        microseconds: of one evaluation of each kind, the least of several turns.
        ratios: of each kind to the value alone, the median of the ratios in each turn: the machine's speed drifts.
    """

    microseconds: Mapping[str, float]
    ratios: Mapping[str, float]


def measure(subject: Subject) -> Figures:
    """Time the value alone, and with its gradient in either mode, in turns."""
    evaluations = {
        "value": subject.primal(),
        "reverse": subject.gradient(AutoReverse()),
        "forward": subject.gradient(AutoForward()),
    }
    clocks = {name: timed(evaluation, subject) for name, evaluation in evaluations.items()}
    turns = [{name: clock() for name, clock in clocks.items()} for _ in range(REPEATS)]
    return Figures(
        {name: min(turn[name] for turn in turns) for name in clocks},
        {name: statistics.median(turn[name] / turn["value"] for turn in turns) for name in clocks},
    )


def geometric_mean(ratios: list[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))


def main() -> None:
    """Print the table."""
    threshold = AutoByDimension().threshold
    wanted = sys.argv[1:]
    ratios: dict[str, list[float]] = {"reverse": [], "forward": [], "default": [], "best": []}
    print(f"float64, one core, jax {jax.__version__}: microseconds, and value and gradient over the value alone")
    print(f"{'':<36}{'d':>4}{'value':>9}" + "".join(f"{mode:>10}" for mode in (*list(ratios)[:2], *ratios)))
    with jax.enable_x64(True):
        for case in CASES:
            if wanted and not any(part in case.name for part in wanted):
                continue
            subject = Subject.of(case)
            found = measure(subject)
            dimension = len(subject.position)
            both = {mode: found.ratios[mode] for mode in ("reverse", "forward")}
            both["default"] = both["forward" if dimension < threshold else "reverse"]
            both["best"] = min(both.values())
            for mode, ratio in both.items():
                ratios[mode].append(ratio)
            times = "".join(f"{found.microseconds[mode]:>10.3f}" for mode in ("reverse", "forward"))
            columns = "".join(f"{ratio:>10.2f}" for ratio in both.values())
            print(f"{case.name[:35]:<36}{dimension:>4}{found.microseconds['value']:>9.3f}{times}{columns}", flush=True)
    print(f"{'geometric mean':<69}" + "".join(f"{geometric_mean(values):>10.2f}" for values in ratios.values()))


if __name__ == "__main__":
    main()
