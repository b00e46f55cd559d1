"""How long a derivative takes inside a compiled loop, which is where samplers evaluate it.

A call from Python costs microseconds, more than many a gradient. So the evaluations run in one compiled `fori_loop`, in
which each point depends on the gradient before it,

    x_{k+1} = x + scale · ∇f(x_k),    total_{k+1} = total_k + f(x_k),

and both are results: XLA can neither drop an evaluation nor move it out of the loop. `scale` is an argument of the
compiled program, where it is zero: every evaluation is at x, as the first, but XLA does not know. The constants are
arguments too, or it would fold them into the program. A derivative that is not like x, such as a Jacobian, moves all of
x by the sum of its numbers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..preparation import shapes_of

Evaluator = Callable[..., tuple[Any, Any]]

# Where nothing is left to evaluate a loop takes no time however often it turns: enough is enough.
_MOST_ITERATIONS = 2**30
REPETITIONS = 5
SECONDS_PER_REPETITION = 0.03


@dataclass(frozen=True)
class Timing:
    """What was measured of one evaluator.

    Args:
        seconds: of one evaluation of value and derivative, the median of the repetitions.
        fastest: the least of them.
        compile_seconds: of lowering and compiling the loop.
        memory: bytes of intermediate results and of the result; what a host callback allocates is not in it.
    """

    seconds: float
    fastest: float
    compile_seconds: float
    memory: int


@dataclass(frozen=True, eq=False)
class TimedLoop:
    """A compiled loop of evaluations; made by `compile_loop`.

    Args:
        compile_seconds: of lowering and compiling it.
        memory: bytes of intermediate results and of the result.
        dtype: of the value; of several, the coarsest.
    """

    compile_seconds: float
    memory: int
    dtype: Any
    _program: Callable[..., tuple[Any, Any]]

    def evaluate(self, x: Any, *constants: Any) -> tuple[Any, Any]:
        """The value and the derivative at a point, by the program that is timed: one iteration of it."""
        return self._program(1, 0.0, x, constants)

    def seconds(self, iterations: int, x: Any, *constants: Any) -> float:
        """Wall clock of so many evaluations."""
        started = time.perf_counter()
        jax.block_until_ready(self._program(iterations, 0.0, x, constants))
        return time.perf_counter() - started


def compile_loop(evaluator: Evaluator, x: Any, *constants: Any) -> TimedLoop:
    """Compile a loop of evaluations.

    Args:
        evaluator: `(x, *constants) -> (value, derivative)`, arrays or pytrees of them, usable inside `jit`.
        x: the differentiated argument, an array or a pytree of arrays, or shapes of them.
        constants: further arguments.

    Returns:
        A `TimedLoop` for arguments of these shapes.
    """
    shapes = shapes_of((x, constants))
    result = shapes_of(jax.eval_shape(evaluator, shapes[0], *shapes[1]))
    alike = jax.tree.flatten(result[1]) == jax.tree.flatten(shapes[0])

    def program(iterations: Any, scale: Any, x: Any, constants: tuple[Any, ...]) -> tuple[Any, Any]:
        def step(slope: Any) -> Any:
            # The guard keeps a derivative that is not finite from leading the loop to a point that is not.
            return jnp.where(jnp.isfinite(slope), scale.astype(slope.dtype) * slope, 0)

        def moved(derivative: Any) -> Any:
            if alike:
                return jax.tree.map(lambda leaf, slope: leaf + step(slope), x, derivative)
            shift = sum(jnp.sum(step(slope)) for slope in jax.tree.leaves(derivative))
            return jax.tree.map(lambda leaf: leaf + jnp.asarray(shift, leaf.dtype), x)

        def body(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            total, derivative = carry
            value, derivative = evaluator(moved(derivative), *constants)
            return jax.tree.map(jnp.add, total, value), derivative

        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), result)
        last: tuple[Any, Any] = lax.fori_loop(0, iterations, body, start)
        return last

    started = time.perf_counter()
    compiled = jax.jit(program).lower(1, 0.0, *shapes).compile()
    elapsed = time.perf_counter() - started
    memory = compiled.memory_analysis()
    used = 0 if memory is None else int(memory.temp_size_in_bytes) + int(memory.output_size_in_bytes)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(result[0])]
    return TimedLoop(elapsed, used, max(dtypes, key=lambda dtype: float(jnp.finfo(dtype).eps), default=None), compiled)


def time_together(
    loops: Sequence[TimedLoop],
    x: Any,
    *constants: Any,
    repetitions: int = REPETITIONS,
    target: float = SECONDS_PER_REPETITION,
) -> tuple[Timing, ...]:
    """Time several loops at the same point, in turns, so that a drift of the machine meets all of them.

    Args:
        loops: from `compile_loop`.
        x: the point.
        constants: further arguments.
        repetitions: how many measurements of each; fewer where a single evaluation takes longer than `target`.
        target: seconds that one measurement should last.

    Returns:
        A `Timing` for each.
    """
    x, constants = jax.tree.map(jnp.asarray, (x, constants))  # transferred once, not in every measurement
    iterations = [_iterations(loop, target, x, *constants) for loop in loops]
    measured: list[list[float]] = [[] for _ in loops]
    for repetition in range(repetitions):
        for loop, count, seconds in zip(loops, iterations, measured, strict=True):
            if repetition == 0 or sum(seconds) * count < 2 * repetitions * target:
                seconds.append(loop.seconds(count, x, *constants) / count)
    return tuple(
        Timing(statistics.median(seconds), min(seconds), loop.compile_seconds, loop.memory)
        for loop, seconds in zip(loops, measured, strict=True)
    )


def _iterations(loop: TimedLoop, target: float, x: Any, *constants: Any) -> int:
    """How many evaluations last about `target` seconds. It also warms the loop up."""
    if loop.seconds(1, x, *constants) > 4 * target:
        return 1
    iterations = 1
    while True:
        elapsed = loop.seconds(iterations, x, *constants)
        if elapsed >= target / 4:
            return max(1, round(iterations * target / elapsed))
        if iterations == _MOST_ITERATIONS:
            return iterations
        # An elapsed time of nothing much says little: grow by steps until it says something.
        growth = max(2, min(16, int(target / max(elapsed, target / 1000) / 2)))
        iterations = min(iterations * growth, _MOST_ITERATIONS)
