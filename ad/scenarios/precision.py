"""Precision and size: cancellation, very large and very small numbers, single precision inside, uneven chunks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .scenario import Scenario, exact

Array = jax.Array


def small_differences(x: Array) -> Array:
    """log1p, expm1 and cosh - 1 by its half angle, where 1 + x is 1."""
    return jnp.sum(jnp.log1p(x) + jnp.expm1(x) + 2.0 * jnp.sinh(x / 2.0) ** 2 + jnp.log1p(-jnp.expm1(-(x**2))))


def small_differences_gradient(x: Any) -> Any:
    """The gradient of `small_differences`; its last term is log(2 - exp(-x²))."""
    return 1.0 / (1.0 + x) + np.exp(x) + np.sinh(x) + 2.0 * x * np.exp(-(x**2)) / (2.0 - np.exp(-(x**2)))


def log_of_ratio(x: Array) -> Array:
    """Logarithms and square roots, scale-free."""
    return jnp.sum(jnp.log(x)) + jnp.log(x[0] / x[1]) + jnp.sum(jnp.sqrt(x / x[1]))


def log_of_ratio_gradient(x: Any) -> Any:
    """The gradient of `log_of_ratio`."""
    gradient = 1.0 / x
    gradient[0] += 1.0 / x[0] + 0.5 / np.sqrt(x[0]) / np.sqrt(x[1])
    gradient[1] += -1.0 / x[1] - 0.5 * np.sqrt(x[0] / x[1]) / x[1]
    return gradient


def logarithms(x: Array) -> Array:
    """The sum of log x and 10¹⁵⁰ sqrt x."""
    return jnp.sum(jnp.log(x) + 1e150 * jnp.sqrt(x))


def quotient(x: Array) -> Array:
    """x[0] / x[1], whose derivative in x[1] JAX takes to be -x[0] x[1]⁻²: that overflows before it is multiplied."""
    return x[0] / x[1]


def far_softmax(x: Array) -> Array:
    """The log probability of the first class when the logits are 10⁴ apart."""
    return jax.nn.log_softmax(x)[0]


def wide(x: Array) -> Array:
    """A chain that couples neighbours: sum of cos(x[i] x[i+1])."""
    return jnp.sum(jnp.cos(x[1:] * x[:-1]))


def wide_gradient(x: Any) -> Any:
    """The gradient of `wide`."""
    slope = -np.sin(x[1:] * x[:-1])
    gradient = np.zeros_like(x)
    gradient[1:] += slope * x[:-1]
    gradient[:-1] += slope * x[1:]
    return gradient


def in_single_precision(x: Array) -> Array:
    """A sum of squares in single precision, whatever x is."""
    return jnp.sum(x.astype(jnp.float32) ** 2).astype(x.dtype)


def single_precision_result(x: Array) -> Array:
    """A result in single precision of x in double."""
    return jnp.sum(x**2).astype(jnp.float32)


def half_precision_weights(x: Array, w: Array) -> Array:
    """Weights stored in half precision and promoted."""
    return jnp.sum(w * x**2)


def logsumexp_difference(x: Array) -> Array:
    """log(e^a - e^b) for a barely above b, through log1p and expm1."""
    return x[0] + jnp.log(-jnp.expm1(x[1] - x[0]))


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(9)

    def one(name: str, f: Any, x: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        return Scenario(name, "precision", f, x, np.ones_like(x), special, constants, **expected)

    small = exact([1e-20, -3e-9, 1e-5, 0.25])
    x33, x70 = exact(rng.normal(size=33)), exact(rng.normal(size=70))
    tiny, huge, double = np.array([1e-300, 2e-300]), np.array([1e300, 3e299]), (np.float64,)
    few = exact([1e-20, 2e-20])
    far = exact([1e4, 0.0, -1e4, 9999.5])
    share = np.exp(far - far.max()) / np.exp(far - far.max()).sum()
    quarter = exact([0.5, -1.25, 2.0])
    half = np.array([0.5, 2.0, -0.25], np.float16)
    close = exact([1.0, 1.0 - 2.0**-12])
    gap = np.expm1(close[0] - close[1])
    return (
        one("cancellation", small_differences, small, "1 + x is 1", gradient=small_differences_gradient(small)),
        one("tiny numbers", logarithms, tiny, "1e-300", gradient=1 / tiny + 5e149 / np.sqrt(tiny), dtypes=double),
        one("huge numbers", log_of_ratio, huge, "1e300", gradient=log_of_ratio_gradient(huge), dtypes=double),
        one(
            "quotient of small numbers", quotient, few, "1e40 on the way", gradient=[1 / few[1], -few[0] / few[1] ** 2]
        ),
        one("far softmax", far_softmax, far, "exp(10⁴)", gradient=np.eye(4)[0] - share),
        one("log of a difference", logsumexp_difference, close, "a 4096th apart", gradient=[1 + 1 / gap, -1 / gap]),
        one("33 coordinates", wide, x33, "one beyond a chunk", gradient=wide_gradient(x33)),
        one("70 coordinates", wide, x70, "two chunks and six", gradient=wide_gradient(x70)),
        one("single precision inside", in_single_precision, quarter, "casts down and up", gradient=2 * quarter),
        one("single precision result", single_precision_result, quarter, "another dtype", gradient=2 * quarter),
        one("half precision weights", half_precision_weights, quarter, "float16", half, gradient=2 * half * quarter),
    )
