"""`AutoFastest`: the backend that is fastest on the function at hand, measured, among those that are correct there."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .adtypes import AbstractBackend, AbstractRule, Backend, Choice, Measurement, Problem
from .errors import DifferentiationError
from .forward import AutoForward
from .measuring.agreement import Evaluated, rule_out
from .measuring.timing import TimedLoop, compile_loop, time_together
from .naming import duration
from .reverse import AutoReverse
from .routing import AutoByDimension

# What is tried where the user names no candidates: cheap to compile, and different in what they are good at.
CANDIDATES: tuple[Backend, ...] = (AutoForward(), AutoReverse())

# Times closer than this are a tie, which goes to the candidate listed first.
_NOISE = 0.03
_POINTS = 3
_SECONDS_PER_REPETITION = 0.02


@dataclass(frozen=True)
class _Draw:
    """How to draw a point where arguments are known by shape only.

    Args:
        scale: x comes from Uniform(-scale, scale).
        spread: floating-point constants come from Uniform(1 - spread, 1 + spread).
        whole: integer constants.
        truth: Boolean constants; in a log density they mostly say that data are within their support.
    """

    scale: float
    spread: float = 0.5
    whole: int = 0
    truth: bool = True

    def x(self, rng: np.random.Generator, shape: Any) -> jax.Array:
        return jnp.asarray(rng.uniform(-self.scale, self.scale, shape.shape), shape.dtype)

    def constant(self, rng: np.random.Generator, shape: Any) -> jax.Array:
        if jnp.issubdtype(shape.dtype, jnp.floating):
            return jnp.asarray(rng.uniform(1 - self.spread, 1 + self.spread, shape.shape), shape.dtype)
        return jnp.full(shape.shape, self.truth if shape.dtype == bool else self.whole, shape.dtype)


# A point inside the domain of most log densities is soon among them.
_DRAWS = (
    _Draw(1.0),
    _Draw(1.0),
    _Draw(1.0),
    _Draw(0.3),
    _Draw(1.0, spread=0.0),
    _Draw(0.1, spread=0.0),
    _Draw(1.0, whole=1),
    _Draw(1.0, truth=False),
    _Draw(0.1, spread=0.0, whole=1, truth=False),
)


@dataclass(frozen=True)
class AutoFastest(AbstractRule):
    """The fastest correct backend, found by timing the candidates on this very function.

    Each candidate is compiled into a loop of evaluations of what is asked for, a gradient, a Jacobian or a product with
    one (see `timing`), compared with the others at several points and, where they disagree, with finite differences;
    the fastest of those that remain is taken, and a tie within 3 % goes to the one listed first. The choice records
    every measurement. It costs about a second for a small model.

    Where the arguments are shapes only, as they are for samplers, the points are drawn with a fixed seed, and the
    constants are drawn too: floating-point ones near 1, integers 0, Booleans true.

    Args:
        candidates: the backends to compare; None means `AutoForward()` and `AutoReverse()`.

    Raises:
        TypeError, ValueError: if the candidates are not backends, or none, or the same twice.
    """

    candidates: tuple[Backend, ...] | None = None

    def __post_init__(self) -> None:
        if self.candidates is None:
            return
        if not isinstance(self.candidates, (tuple, list)):
            raise TypeError(
                f"AutoFastest: candidates must be a tuple of backends such as (AutoForward(), AutoReverse()), "
                f"got {self.candidates!r}."
            )
        for candidate in self.candidates:
            if not isinstance(candidate, AbstractBackend):
                raise TypeError(
                    f"AutoFastest: a candidate must be a backend such as AutoForward() or AutoReverse(), "
                    f"got {candidate!r}."
                )
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise ValueError(
                f"AutoFastest: candidates must be different backends, at least one, got {self.candidates!r}; "
                f"AutoFastest() compares {' and '.join(map(repr, CANDIDATES))}."
            )
        object.__setattr__(self, "candidates", tuple(self.candidates))

    def choose(self, problem: Problem) -> Choice:
        """See `AbstractRule.choose`.

        Raises:
            DifferentiationError: inside a traced function, where nothing can be timed, and where the candidates
                disagree and finite differences cannot say who is right.
        """
        if _is_traced(problem.arguments):
            raise DifferentiationError(
                f"{problem.subject}: AutoFastest times its candidates, which is impossible while JAX traces the "
                f"program around it; prepare the gradient before, outside of jit, vmap, grad and scan, and name what "
                f"was chosen, adtype=prepare_gradient(f, AutoFastest(), x).adtype, or a backend such as AutoReverse()."
            )
        candidates = CANDIDATES if self.candidates is None else self.candidates
        verdicts: dict[Backend, str] = {}
        loops: dict[Backend, TimedLoop] = {}
        for candidate in candidates:
            if not problem.supported(candidate):
                verdicts[candidate] = "cannot differentiate this function"
                continue
            try:
                loops[candidate] = compile_loop(problem.evaluator(candidate), *problem.arguments)
            except jax.errors.JaxRuntimeError as error:
                verdicts[candidate] = f"does not compile: {str(error).splitlines()[0]}"
        if len(loops) < 2:
            # Nothing to compare. If none works, the first one's error is the one to show: it comes when it is prepared.
            chosen = next(iter(loops), candidates[0])
            few = f"the only one of {len(candidates)} candidates that can differentiate this function"
            none = "none of the candidates can differentiate this function"
            reason = (few if len(candidates) > 1 else "the only candidate") if loops else none
            return Choice(chosen, reason, _measurements(candidates, verdicts, {}))
        points = _usable_points(problem, loops)
        if not points:
            usual = AutoByDimension().choose(problem).backend
            chosen = usual if usual in loops else next(iter(loops))
            verdicts |= dict.fromkeys(loops, "finite at none of the points tried")
            reason = (
                f"not measured: value and derivative were finite at none of {len(_DRAWS)} points drawn for it; "
                f"{'the choice by dimension' if chosen == usual else 'the first candidate'}"
            )
            return Choice(chosen, reason, _measurements(candidates, verdicts, {}))
        alive = dict(loops)
        for point in points:
            for candidate, verdict in rule_out(alive, point, problem).items():
                verdicts[candidate] = verdict
                del alive[candidate]
        timings = time_together(list(alive.values()), *points[0], target=_SECONDS_PER_REPETITION)
        seconds = {candidate: timing.seconds for candidate, timing in zip(alive, timings, strict=True)}
        least = min(seconds.values())
        chosen = next(candidate for candidate, time in seconds.items() if time <= (1 + _NOISE) * least)
        return Choice(chosen, _reason(chosen, seconds, verdicts), _measurements(candidates, verdicts, seconds))


def _reason(chosen: Backend, seconds: dict[Backend, float], verdicts: dict[Backend, str]) -> str:
    order = sorted(seconds, key=lambda candidate: (candidate is not chosen, seconds[candidate]))
    times = ", ".join(f"{candidate!r} {duration(seconds[candidate])}" for candidate in order)
    tie = ", a tie within the noise" if min(seconds.values()) < seconds[chosen] else ""
    out = "".join(f"; {candidate!r} {verdict}" for candidate, verdict in verdicts.items())
    which = f"fastest of {len(seconds)} measured" if len(seconds) > 1 else "the only correct candidate"
    return f"{which}: {times}{tie}{out}"


def _measurements(
    candidates: tuple[Backend, ...], verdicts: dict[Backend, str], seconds: dict[Backend, float]
) -> tuple[Measurement, ...]:
    untimed = "not measured: nothing to compare it with"
    return tuple(
        Measurement(repr(c), seconds.get(c), "correct" if c in seconds else verdicts.get(c, untimed))
        for c in candidates
    )


def _is_traced(arguments: Any) -> bool:
    # Under jit and scan every new array is a tracer; under an eager vmap or grad only what is mapped.
    return any(isinstance(leaf, jax.core.Tracer) for leaf in (jnp.zeros(()), *jax.tree.leaves(arguments)))


def _usable_points(problem: Problem, loops: dict[Backend, TimedLoop]) -> list[tuple[Any, ...]]:
    """Some points `(x, *constants)` at which at least one candidate has a finite value and derivative."""
    usable: list[tuple[Any, ...]] = []
    for point in _points(problem.arguments):
        if any(Evaluated.attempt(loop, point).finite for loop in loops.values()):
            usable.append(point)
        if len(usable) == _POINTS:
            break
    return usable


def _points(arguments: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arguments)):
        for draw in _DRAWS:
            yield (
                jax.tree.map(functools.partial(draw.x, rng), arguments[0]),
                *jax.tree.map(functools.partial(draw.constant, rng), arguments[1:]),
            )
        return
    arguments = jax.tree.map(jnp.asarray, arguments)
    yield arguments
    flat, unravel = ravel_pytree(arguments[0])
    for _ in range(_POINTS - 1):
        # Relative, so that signs stay: many a function has a domain of positive numbers.
        step = jnp.asarray(rng.uniform(-0.1, 0.1, flat.shape), flat.dtype)
        yield unravel(jnp.where(flat == 0, step, flat * (1 + step))), *arguments[1:]
