"""How long a gradient takes inside a compiled loop, which is where samplers evaluate it.

A call from Python costs microseconds, more than many a gradient. So the evaluations run in one compiled `fori_loop`, in
which each point depends on the gradient before it,

    x_{k+1} = x + scale · ∇f(x_k),    total_{k+1} = total_k + f(x_k),

and both are results: XLA can neither drop an evaluation nor move it out of the loop. `scale` is an argument of the
compiled program, where it is zero: every evaluation is at x, as the first, but XLA does not know. The constants are
arguments too, or it would fold them into the program.
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

Evaluator = Callable[..., tuple[jax.Array, Any]]

REPETITIONS = 5
SECONDS_PER_REPETITION = 0.03


@dataclass(frozen=True)
class Timing:
    """What was measured of one evaluator.

    Args:
        seconds: of one evaluation of value and gradient, the median of the repetitions.
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
        dtype: of the value.
    """

    compile_seconds: float
    memory: int
    dtype: Any
    _program: Callable[..., tuple[jax.Array, Any]]

    def evaluate(self, x: Any, *constants: Any) -> tuple[jax.Array, Any]:
        """The value and the gradient at a point, by the program that is timed: one iteration of it."""
        return self._program(1, 0.0, x, constants)

    def seconds(self, iterations: int, x: Any, *constants: Any) -> float:
        """Wall clock of so many evaluations."""
        started = time.perf_counter()
        jax.block_until_ready(self._program(iterations, 0.0, x, constants))
        return time.perf_counter() - started


def compile_loop(evaluator: Evaluator, x: Any, *constants: Any) -> TimedLoop:
    """Compile a loop of evaluations.

    Args:
        evaluator: `(x, *constants) -> (value, gradient)`, usable inside `jit`.
        x: the differentiated argument, an array or a pytree of arrays, or shapes of them.
        constants: further arguments.

    Returns:
        A `TimedLoop` for arguments of these shapes.
    """

    def program(iterations: Any, scale: Any, x: Any, constants: tuple[Any, ...]) -> tuple[jax.Array, Any]:
        def moved(leaf: Any, slope: Any) -> Any:
            # The guard keeps a gradient that is not finite from leading the loop to a point that is not.
            return leaf + jnp.where(jnp.isfinite(slope), scale.astype(slope.dtype) * slope, 0)

        def body(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            total, gradient = carry
            value, gradient = evaluator(jax.tree.map(moved, x, gradient), *constants)
            return total + value, gradient

        start = jnp.zeros((), value_dtype), jax.tree.map(jnp.zeros_like, x)
        result: tuple[jax.Array, Any] = lax.fori_loop(0, iterations, body, start)
        return result

    value_dtype = jax.eval_shape(evaluator, x, *constants)[0].dtype
    started = time.perf_counter()
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), (x, constants))
    compiled = jax.jit(program).lower(1, 0.0, *shapes).compile()
    elapsed = time.perf_counter() - started
    memory = compiled.memory_analysis()
    used = 0 if memory is None else int(memory.temp_size_in_bytes) + int(memory.output_size_in_bytes)
    return TimedLoop(elapsed, used, value_dtype, compiled)


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
        # An elapsed time of nothing much says little: grow by steps until it says something.
        iterations *= max(2, min(16, int(target / max(elapsed, target / 1000) / 2)))
