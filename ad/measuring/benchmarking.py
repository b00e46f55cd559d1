"""`benchmark_gradients`: what each backend costs on a function or on many scenarios, where it is correct."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from ..adtypes import AbstractADType, check_adtype
from ..errors import DifferentiationError
from ..gradient import prepare_gradient
from ..naming import written
from ..scenarios.reference import Reference, judge, reference_gradient
from ..scenarios.scenario import Scenario
from .agreement import Evaluated
from .results import Cell, GradientBenchmark, Outcome
from .timing import TimedLoop, compile_loop, time_together
from .usual import BASELINE, usual_backends
from .verdicts import Verdict


def benchmark_gradients(
    what: Callable[..., Any] | Scenario | Iterable[Scenario],
    x: Any = None,
    *constants: Any,
    adtypes: Sequence[AbstractADType] | None = None,
) -> GradientBenchmark:
    """Time every backend inside a compiled loop, print the table and return it.

    A backend gets figures where its gradient is correct: as the closed form has it where the scenario has one, else
    as finite differences have it.

    Args:
        what: a function `f(x, *constants)` with one floating-point number as its result, or scenarios.
        x: the point, where `what` is a function.
        constants: further arguments, where `what` is a function.
        adtypes: what to compare; None means the usual backends (`usual_backends`).

    Returns:
        A `GradientBenchmark`, with `plot(path)` for the picture.

    Raises:
        TypeError: on what is neither a function with a point nor scenarios, or an adtype that is none.
    """
    if isinstance(what, Scenario):
        scenarios: tuple[Any, ...] = (what,)
    elif callable(what):
        if x is None:
            raise TypeError("benchmark_gradients: a function needs a point; write benchmark_gradients(f, x).")
        name = str(getattr(what, "__name__", "the function"))
        scenarios = (Scenario(name, "", what, x, x, "", constants),)
    else:
        scenarios = tuple(what) if isinstance(what, Iterable) else ()
    if not scenarios or not all(isinstance(scenario, Scenario) for scenario in scenarios):
        raise TypeError(f"benchmark_gradients: expected a function or scenarios, got {what!r}.")
    result = measure_gradients(scenarios, adtypes)
    print(result)
    return result


def measure_gradients(
    scenarios: Sequence[Scenario],
    adtypes: Sequence[AbstractADType] | None = None,
    *,
    repetitions: int = 3,
    target: float = 0.02,
    limit: float = 60.0,
    progress: Callable[[str], None] = lambda _: None,
) -> GradientBenchmark:
    """What `benchmark_gradients` does, without printing. Interrupted (Ctrl-C), it returns what has been measured.

    Args:
        scenarios: what to differentiate.
        adtypes: what to compare; None means the usual backends.
        repetitions: how many measurements of each cell.
        target: seconds that each should last.
        limit: seconds after which a cell is given up, as far as it runs in Python.
        progress: is told the name of each scenario before it starts.
    """
    chosen = usual_backends() if adtypes is None else tuple(adtypes)
    named = {written(check_adtype(adtype, "benchmark_gradients: adtypes")): adtype for adtype in chosen}
    cells: list[Cell] = []
    try:
        for scenario in scenarios:
            progress(scenario.name)
            cells += _measure(scenario, named, repetitions, target, limit)
    except KeyboardInterrupt:
        if not cells:
            raise
    names = tuple(named)
    baseline = written(BASELINE)
    return GradientBenchmark(tuple(cells), names, baseline if baseline in names else names[0])


def _measure(
    scenario: Scenario, adtypes: dict[str, AbstractADType], repetitions: int, target: float, limit: float
) -> list[Cell]:
    arguments = (scenario.x, *scenario.constants)
    dimension = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(scenario.x))
    loops: dict[str, TimedLoop] = {}
    cells: dict[str, Cell] = {}
    reference: Reference | None = None
    for name, adtype in adtypes.items():
        outcome, detail = Outcome.CORRECT, ""
        try:
            with _at_most(limit):
                reference = reference or reference_gradient(scenario)
                prepared = prepare_gradient(
                    scenario.f, adtype, scenario.elsewhere, *scenario.constants, subject=scenario.name
                )
                loop = compile_loop(prepared.value_and_gradient, *arguments)
                found = Evaluated.at(loop, arguments)
                judgement = judge(reference, found.value, found.gradient, loop.dtype)
            if judgement.verdict is not Verdict.CORRECT:
                outcome, detail = Outcome.WRONG, judgement.reason
            else:
                loops[name] = loop
        except DifferentiationError as error:
            outcome, detail = Outcome.REFUSED, str(error).removeprefix(f"{scenario.name}: ")
        except TimeoutError as error:
            outcome, detail = Outcome.SLOW, str(error)
        except Exception as error:  # one cell must not end the run
            outcome, detail = _failure(error)
        cells[name] = Cell(scenario.name, scenario.family, dimension, name, outcome, detail)
    timings = time_together(list(loops.values()), *arguments, repetitions=repetitions, target=target)
    for name, timing in zip(loops, timings, strict=True):
        cells[name] = Cell(scenario.name, scenario.family, dimension, name, Outcome.CORRECT, "", timing)
    return list(cells.values())


def _failure(error: Exception) -> tuple[Outcome, str]:
    """What an unexpected error means; a backend that runs in callbacks has its refusals wrapped by JAX."""
    text = str(error)
    refusal = text.partition(f"{DifferentiationError.__name__}: ")[2]
    if refusal:
        return Outcome.REFUSED, refusal.splitlines()[0]
    return Outcome.FAILED, f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"


@contextmanager
def _at_most(limit: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer. Compiled code is not interrupted: it raises when it returns."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"given up after {limit:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    # Again every second: an exception raised inside a callback of the garbage collector is lost.
    signal.setitimer(signal.ITIMER_REAL, limit, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
