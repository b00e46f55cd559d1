"""The yardstick that no backend shares: finite differences in the host, with an estimate of their error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..preparation import scalar

HostArray = np.ndarray[Any, Any]
HostFunction = Callable[[HostArray], float]

# Steps relative to max(1, |x|), each a quarter of the one before: from where a smooth function is a short polynomial
# to where rounding takes over.
_STEPS = 0.1 * 0.25 ** np.arange(12)
_COARSE, _FINE = 5, 9  # where to compare the slopes on either side


@dataclass(frozen=True)
class Slope:
    """A derivative with respect to one coordinate by finite differences.

    Args:
        derivative: the estimate; NaN where the function is finite on no two points around.
        error: an estimate of its error.
        moves: whether the function changed at all between the points looked at.
    """

    derivative: float
    error: float
    moves: bool


def finite_difference(
    f: HostFunction, x: HostArray, coordinate: int, epsilon: float = float(np.finfo(float).eps)
) -> Slope:
    """A derivative by central differences, extrapolated to step zero.

    With D(h) = (f(x + h e) − f(x − h e)) / 2h and steps shrinking by 4, Richardson's tableau removes one even power of
    the step a column, T_k(h/4) = (16^k T_{k−1}(h/4) − T_{k−1}(h)) / (16^k − 1). The entry that differs least from its
    neighbours is taken; rounding, ε (|f| + |D x|) / h, counts as a difference, and so does a kink.

    Args:
        f: a function of a flat float64 array.
        x: the point, shape (dimension,).
        coordinate: the number of the coordinate.
        epsilon: ε of the numbers that `f` computes with.

    Returns:
        A `Slope`.

    Source: Ridders (1982), "Accurate computation of F'(x) and F'(x) F''(x)", Advances in Engineering Software 4(2).
    """
    unit = np.zeros_like(x)
    unit[coordinate] = max(1.0, abs(x[coordinate]))
    here = f(x)
    best = Slope(np.nan, np.inf, False)
    above: list[float] = []
    bends: dict[int, float] = {}
    moves = False
    for level, step in enumerate(_STEPS):
        with np.errstate(all="ignore"):  # a function of NumPy warns outside its domain
            right, left = f(x + step * unit), f(x - step * unit)
        if not (np.isfinite(right) and np.isfinite(left)):
            above = []  # outside the domain: start again from a smaller step
            continue
        moves |= right != here or left != here
        width = step * unit[coordinate]
        row = [(right - left) / (2 * width)]
        rounding = epsilon * (max(abs(right), abs(left)) / width + abs(row[0]) / step)
        bends[level] = max(0.0, abs(right - 2 * here + left) / (2 * width) - 100 * rounding)
        for k, coarse in enumerate(above, start=1):
            row.append((16.0**k * row[k - 1] - coarse) / (16.0**k - 1))
            error = max(abs(row[k] - row[k - 1]), abs(row[k] - coarse)) + rounding
            if error < best.error:
                best = Slope(row[k], error, moves)
        above = row
    # The slopes on either side differ by an amount that shrinks with the step, unless there is a kink at x.
    coarse_bend, fine_bend = bends.get(_COARSE, np.nan), bends.get(_FINE, np.nan)
    kink = fine_bend if fine_bend > coarse_bend / 4 else 0.0
    return Slope(best.derivative, max(best.error, kink), moves)


def host_function(f: Callable[..., Any], x: Any, *constants: Any, subject: str = "the function") -> HostFunction:
    """The function as one of a flat float64 array, compiled where it can be traced, else run as it stands.

    Args:
        f: `f(x, *constants)`.
        x: gives structure and shapes.
        constants: further arguments; floating-point ones are widened to float64.
        subject: what to call `f` in messages.

    Returns:
        A function from NumPy to a number, for any setting of JAX.

    Raises:
        TypeError: if the result of `f` is not one floating-point number.
    """
    with jax.enable_x64(True):
        wide_x, wide_constants = jax.tree.map(_widened, (x, constants))
        start, unravel = ravel_pytree(wide_x)
        compiled = jax.jit(lambda flat, constants: scalar(f(unravel(flat), *constants), subject))
        try:
            compiled.lower(start, wide_constants)
            traceable = True
        except jax.errors.JAXTypeError:  # it looks at values: `if x > 0`, SciPy, a simulator
            traceable = False

    def call(flat: HostArray) -> float:
        with jax.enable_x64(True):
            if traceable:
                return float(compiled(flat, wide_constants))
            return float(scalar(f(unravel(jax.numpy.asarray(flat)), *wide_constants), subject))

    return call


def flat(x: Any) -> HostArray:
    """The leaves of a pytree, one after another, as float64."""
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(x)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def _widened(leaf: Any) -> Any:
    if not jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.numpy.floating):
        return leaf
    return jax.numpy.asarray(leaf, np.float64)


def tolerance(expected: HostArray, dtype: Any) -> HostArray:
    """How far a gradient computed in `dtype` may be from what is expected, by coordinate.

    ε^0.4 of each coordinate (5e-7 in float64, 2e-3 in float32), and ε^0.5 of the largest: what cancellation in a
    reasonable program costs, and far less than a wrong derivative.
    """
    epsilon = float(jnp.finfo(dtype).eps)
    largest = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    allowed: HostArray = epsilon**0.4 * np.abs(expected) + epsilon**0.5 * largest + epsilon
    return allowed


def agree(one: HostArray, other: HostArray, dtype: Any) -> bool:
    """Whether two gradients are the same up to rounding, NaN and infinity included."""
    with np.errstate(invalid="ignore"):
        close = np.abs(one - other) <= tolerance(other, dtype)
    return bool(np.all(close | (one == other) | (np.isnan(one) & np.isnan(other))))
