"""`benchmark_gradients`: what each backend costs on a function or on many scenarios, where it is correct."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from ..adtypes import AbstractADType
from ..errors import DifferentiationError
from ..finite_difference import AutoFiniteDiff
from ..gradient import prepare_gradient
from ..scenarios.reference import judge, reference_gradient
from ..scenarios.scenario import Scenario
from .results import Cell, GradientBenchmark, Outcome
from .timing import TimedLoop, Timing, compile_loop, time_together
from .usual import BASELINE, chosen_adtypes, usual_backends
from .verdicts import Verdict


def benchmark_gradients(
    what: Callable[..., Any] | Scenario | Iterable[Scenario],
    x: Any = None,
    *constants: Any,
    adtypes: AbstractADType | Sequence[AbstractADType] | None = None,
) -> GradientBenchmark:
    """Time every backend inside a compiled loop, print the table and return it.

    A backend gets figures where its gradient is correct: as the closed form has it where the scenario has one, else
    as finite differences have it.

    Args:
        what: a function `f(x, *constants)` with one floating-point number as its result, or scenarios.
        x: the point, where `what` is a function.
        constants: further arguments, where `what` is a function.
        adtypes: one adtype or several to compare; None means the usual backends (`usual_backends`).

    Returns:
        A `GradientBenchmark`, with `plot(path)` for the picture.

    Raises:
        TypeError: on what is neither a function with a point nor scenarios, a function with another kind of result,
            or an adtype that is none.
        ValueError: where the value is not finite, or if `adtypes` is empty or repeats one.
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
    adtypes: AbstractADType | Sequence[AbstractADType] | None = None,
    *,
    repetitions: int = 3,
    target: float = 0.02,
    limit: float = 60.0,
    progress: Callable[[Scenario], None] = lambda _: None,
) -> GradientBenchmark:
    """What `benchmark_gradients` does, without printing. Interrupted (Ctrl-C), it returns what has been measured.

    Args:
        scenarios: what to differentiate.
        adtypes: one adtype or several to compare; None means the usual backends.
        repetitions: how many measurements of each cell.
        target: seconds that each should last.
        limit: seconds after which a cell is given up, as far as it runs in Python.
        progress: is told each scenario before it starts.

    Raises:
        TypeError, ValueError: as `benchmark_gradients`.
    """
    named = {repr(adtype): adtype for adtype in chosen_adtypes(adtypes, usual_backends(), "benchmark_gradients")}
    cells: list[Cell] = []
    try:
        for scenario in scenarios:
            progress(scenario)
            cells += _measure(scenario, named, repetitions, target, limit)
    except KeyboardInterrupt:
        if not cells:
            raise
    names = tuple(named)
    measured = {cell.adtype for cell in cells if cell.timing is not None}
    # Figures relative to a backend without any would be none.
    baseline = next((name for name in (repr(BASELINE), *names) if name in measured), names[0])
    return GradientBenchmark(tuple(cells), names, baseline)


def _measure(
    scenario: Scenario, adtypes: Mapping[str, AbstractADType], repetitions: int, target: float, limit: float
) -> list[Cell]:
    """A cell for each adtype. All are compiled, evaluated and judged by one program each, which is then timed."""
    arguments = (scenario.x, *scenario.constants)
    dimension = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(scenario.x))

    def cell(name: str, outcome: Outcome, detail: str = "", timing: Timing | None = None) -> Cell:
        return Cell(scenario.name, scenario.family, dimension, name, outcome, detail, timing)

    try:
        with _at_most(limit):
            reference = reference_gradient(scenario)
    except TimeoutError as error:
        return [cell(name, Outcome.SLOW, f"finite differences, the yardstick: {error}") for name in adtypes]
    loops: dict[str, TimedLoop] = {}
    cells: dict[str, Cell] = {}
    for name, adtype in adtypes.items():
        try:
            with _at_most(limit):
                prepared = prepare_gradient(
                    scenario.f, adtype, scenario.elsewhere, *scenario.constants, subject=scenario.name
                )
                loop = compile_loop(prepared.value_and_gradient, *arguments)
                judgement = judge(reference, *loop.evaluate(*arguments), loop.dtype)
        except DifferentiationError as error:
            cells[name] = cell(name, Outcome.REFUSED, str(error).removeprefix(f"{scenario.name}: "))
        except TimeoutError as error:
            cells[name] = cell(name, Outcome.SLOW, str(error))
        except Exception as error:  # one cell must not end the run
            cells[name] = cell(name, *_failure(error))
        else:
            if judgement.verdict is Verdict.CORRECT:
                cells[name] = cell(name, Outcome.CORRECT)
                loops[name] = loop
            elif scenario.declared and isinstance(adtype, AutoFiniteDiff):
                cells[name] = cell(name, Outcome.BY_VALUES, judgement.reason)
            else:
                cells[name] = cell(name, Outcome.WRONG, judgement.reason)
    timings = time_together(list(loops.values()), *arguments, repetitions=repetitions, target=target)
    cells |= {n: cell(n, Outcome.CORRECT, timing=timing) for n, timing in zip(loops, timings, strict=True)}
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
