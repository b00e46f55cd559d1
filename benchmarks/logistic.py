"""Microseconds per value and gradient of a Bernoulli-logit regression, beside `jax.value_and_grad`.

All three evaluate the textbook form, as one writes it down: what dualtape does about it (a rule for its softplus, the
design read by columns) it finds in the traced program. Everything runs in this process, in compiled loops in which each
point depends on the gradient before, in turns; the least of the repetitions counts.

Run with `make bench`. Quote the ratios: the times drift with the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dualtape import AutoForward, AutoReverse
from dualtape.ad import prepare_gradient
from jax import lax

SIZES = ((500, 3), (2000, 2), (2000, 5), (2000, 10), (2000, 20))
EVALUATIONS, REPEATS = 100, 30


def log_likelihood(b: jax.Array, X: jax.Array, y: jax.Array) -> jax.Array:
    """Σ y·Xb − log(1 + exp(Xb))."""
    return jnp.sum(y * (X @ b) - jnp.logaddexp(0.0, X @ b))


def loop(value_and_gradient: Callable[..., Any], *arguments: jax.Array) -> Any:
    """A compiled program of so many evaluations."""

    def program(b: jax.Array, X: jax.Array, y: jax.Array) -> Any:
        def body(_: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            b, total = state
            value, gradient = value_and_gradient(b, X, y)
            return b + 1e-14 * gradient / (1 + jnp.abs(gradient)), total + value

        return lax.fori_loop(0, EVALUATIONS, body, (b, jnp.zeros(())))

    return jax.jit(program).lower(*arguments).compile()


def main() -> None:
    """Print the table."""
    jax.config.update("jax_enable_x64", True)
    print(f"Bernoulli-logit regression, float64, jax {jax.__version__}: microseconds per value and gradient")
    print(f"{'N x d':<12}{'jax.value_and_grad':>20}{'AutoForward()':>22}{'AutoReverse()':>22}")
    rng = np.random.default_rng(0)
    for rows, columns in SIZES:
        X = jnp.asarray(rng.normal(size=(rows, columns)))
        arguments = (jnp.asarray(0.3 * rng.normal(size=columns)), X, jnp.asarray(rng.integers(0, 2, rows), float))
        ours = [prepare_gradient(log_likelihood, mode, *arguments) for mode in (AutoForward(), AutoReverse())]
        evaluators = [jax.value_and_grad(log_likelihood), *(prepared.value_and_gradient for prepared in ours)]
        programs = [loop(evaluator, *arguments) for evaluator in evaluators]
        least = [float("inf")] * len(programs)
        for _ in range(REPEATS):
            for i, program in enumerate(programs):
                started = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                least[i] = min(least[i], (time.perf_counter() - started) / EVALUATIONS * 1e6)
        figures = "".join(f"{us:>13.1f} ({least[0] / us:.1f}x)" for us in least[1:])
        print(f"{f'{rows} x {columns}':<12}{least[0]:>20.1f}{figures}")


if __name__ == "__main__":
    main()
