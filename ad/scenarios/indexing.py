"""Indexing: gathers, scatters, slices at places computed as it runs, segments, masks and cumulative operations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .scenario import Scenario, exact

Array = jax.Array


def gather(x: Array, index: Array) -> Array:
    """The sum of squares of elements that repeat."""
    return jnp.sum(x[index] ** 2)


def gather_clipped(x: Array, index: Array) -> Array:
    """`take` with indices beyond the end, clipped to it."""
    return jnp.sum(jnp.take(x, index, mode="clip") ** 2)


def gather_filled(x: Array, index: Array) -> Array:
    """`take` with indices beyond the end, filled with 2."""
    return jnp.sum(jnp.take(x, index, mode="fill", fill_value=2.0) ** 2)


def gather_rows(x: Array, row: Array, column: Array) -> Array:
    """Entries, rows and negative indices of a matrix."""
    return jnp.sum(x[row, column] ** 2) + jnp.sum(x[row] ** 3) + x[-1, -2] * x[0, -1]


def scatter(x: Array, index: Array) -> Array:
    """Adding at repeated places, then squares."""
    return jnp.sum(jnp.zeros(4, x.dtype).at[index].add(x) ** 2)


def scatter_set(x: Array) -> Array:
    """Setting and multiplying elements of x itself."""
    return jnp.sum(x.at[1].set(x[0] * x[2]).at[2].multiply(x[3]).at[jnp.array([0, 3])].add(1.0) ** 2)


def dynamic_slices(x: Array, start: Array) -> Array:
    """A slice and an update whose place is known only when it runs."""
    window = lax.dynamic_slice(x, (start,), (3,))
    return jnp.sum(window**2) + jnp.sum(lax.dynamic_update_slice(x, 2.0 * window[:2], (start - 1,)) ** 3)


def segments(x: Array, group: Array, weights: Array) -> Array:
    """Sums and maxima by group."""
    total = jax.ops.segment_sum(weights * x, group, num_segments=3)
    return jnp.sum(total**2) + jnp.sum(jax.ops.segment_max(x, group, num_segments=3))


def integer_design(x: Array, counts: Array, labels: Array, mask: Array) -> Array:
    """Integers of three kinds and booleans multiply x."""
    return jnp.sum((counts @ x) ** 2) + jnp.sum(jnp.where(mask, labels * x, x**2)) + x @ mask


def missing_values(x: Array, y: Array) -> Array:
    """NaN among the data, left out by `nansum`."""
    return -0.5 * jnp.nansum((y - x[0]) ** 2 * jnp.exp(-2.0 * x[1])) - 3.0 * x[1]


def missing_values_made_safe(x: Array, y: Array) -> Array:
    """The same with NaN replaced before it is computed with."""
    seen = ~jnp.isnan(y)
    residual = jnp.where(seen, y, 0.0) - x[0]
    return -0.5 * jnp.sum(jnp.where(seen, residual**2, 0.0)) * jnp.exp(-2.0 * x[1]) - 3.0 * x[1]


def cumulative(x: Array) -> Array:
    """cumsum, cumprod, cummax, cumlogsumexp and differences."""
    parts = (jnp.cumsum(x), jnp.cumprod(x), lax.cummax(x), lax.cumlogsumexp(x), jnp.diff(x, prepend=x[-1:]))
    return jnp.sum(jnp.stack(parts) ** 2 * jnp.arange(1.0, 6.0, dtype=x.dtype)[:, None])


def convolution(x: Array, kernel: Array) -> Array:
    """A convolution with a fixed kernel and one of x with itself."""
    return jnp.sum(jnp.convolve(x, kernel) ** 2) + jnp.sum(jnp.convolve(x, x[:2]))


def interpolation(x: Array, at: Array) -> Array:
    """Linear interpolation at points between knots, the ordinates differentiated."""
    return jnp.sum(jnp.interp(at, jnp.arange(1.0 * x.size, dtype=x.dtype), x) ** 2)


def interpolation_at_x(x: Array, table: Array) -> Array:
    """Linear interpolation in a table, the place differentiated."""
    return jnp.sum(jnp.interp(x, jnp.arange(1.0 * table.size, dtype=x.dtype), table) ** 2)


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(8)

    def one(name: str, f: Any, x: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        return Scenario(name, "indexing", f, x, np.ones_like(x), special, constants, **expected)

    x4, x6, x = exact(rng.normal(size=4)), exact(rng.normal(size=6)), exact(rng.normal(size=(3, 4)))
    repeated = np.array([0, 0, 2, 3, 2, 2, 0])
    times = np.bincount(repeated, minlength=4)
    beyond = np.array([0, 5, 3, 9, 1])
    place = np.array([1, 3, 1, 1, 0, 3])
    sums = np.bincount(place, weights=x6, minlength=4)
    group, weights = np.array([0, 2, 2, 0, 1, 2]), exact(rng.normal(size=6))
    of_group = np.bincount(group, weights=weights * x6)
    largest = np.isin(x6, [x6[group == k].max() for k in range(3)])
    counts, labels = rng.integers(0, 5, size=(5, 4)).astype(np.int32), np.array([0, 1, 2, 3], np.uint8)
    mask = np.array([True, False, True, False])
    integer = 2 * counts.T @ (counts @ x4) + np.where(mask, labels, 2 * x4) + mask
    y = exact([0.5, np.nan, 1.5, np.nan, -0.25])
    seen = y[[0, 2, 4]]
    residual = seen - 0.25
    nan = np.array([residual.sum() * np.exp(1.0), (residual**2).sum() * np.exp(1.0) - 3.0])
    clipped = 2 * x4 * np.array([1, 1, 0, 3])
    return (
        one("gather", gather, x4, "repeated indices", repeated, gradient=2 * times * x4),
        one("gather, clipped", gather_clipped, x4, "indices beyond the end", beyond, gradient=clipped),
        one("gather, filled", gather_filled, x4, "no element", beyond, gradient=2 * x4 * np.array([1, 1, 0, 1])),
        one("gather rows", gather_rows, x, "two indices", np.array([0, 2, 0]), np.array([1, 1, 3])),
        one("scatter", scatter, x6, "repeated indices", place, gradient=2 * sums[place]),
        one("scatter into x", scatter_set, x4, "set and multiply"),
        one("dynamic slices", dynamic_slices, x6, "prepared without the place", 2),
        one("segments", segments, x6, "by group", group, weights, gradient=2 * weights * of_group[group] + largest),
        one("integer constants", integer_design, x4, "int32, uint8, bool", counts, labels, mask, gradient=integer),
        one("missing values", missing_values, exact([0.25, -0.5]), "NaN left out", y, gradient=nan),
        one("missing values, safe", missing_values_made_safe, exact([0.25, -0.5]), "NaN replaced", y, gradient=nan),
        one("cumulative", cumulative, exact([0.5, -1.25, 1.5, 0.75]), "prefix sums of five kinds"),
        one("cumprod with zero", cumulative, exact([0.5, 0.0, 1.5, 0.75]), "a product with zero"),
        one("convolution", convolution, x6, "conv_general_dilated", exact([0.5, -1.0, 0.25])),
        one("interpolation", interpolation, x6, "searchsorted on constants", exact([0.5, 1.25, 3.75])),
        one("interpolation at x", interpolation_at_x, exact([0.5, 1.25, 3.75]), "searchsorted on x", x6),
    )
