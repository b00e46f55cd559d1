"""Finite differences: derivatives of functions whose insides cannot be differentiated, from their values alone.

An `AutoFiniteDiff` draws a line through the point along each tangent, and a *scheme* differentiates the function on
that line. The parameter t of the line is scaled so that t = 1 moves the point by its own size: one step suits
coordinates of 1e-6 and of 1e6, and tangents of any length.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun

from .adtypes import AbstractForwardBackend, Array, Flat, FlatFunction, check_chunk_size
from .complex_step import calls_out, evaluate_complex
from .errors import DifferentiationError
from .naming import Written
from .nesting import holds_mark, marked

# Tangents whose points are evaluated at once when the user names no chunk.
DEFAULT_CHUNK_SIZE = 32
# Of the table of `Ridders`: orders 2, 4, 6, 8.
_COLUMNS = 4
# Coordinates below this part of the typical size are tiny.
_TINY = 1e-6
# The imaginary step of `ComplexStep`: its square is nothing beside 1, its products do not underflow in float32.
_IMAGINARY = 2.0**-66


@dataclass(frozen=True)
class Program:
    """A function of a flat array, traced once (`closed`), and the way to evaluate it at many points."""

    closed: Any

    @cached_property
    def one_by_one(self) -> bool:
        """Whether it calls Python, or foreign code, that takes no batches."""
        return calls_out(self.closed.jaxpr)

    def __call__(self, x: Flat) -> Array:
        """The value at one point."""
        # A result that does not depend on x may be a literal, which is no array.
        return jnp.asarray(jaxpr_as_fun(self.closed)(x)[0], self.closed.out_avals[0].dtype)

    def map(self, function: Callable[[Array], Array], points: Array) -> Array:
        """`function`, which evaluates this program, over the first dimension of `points`."""
        mapped: Array = lax.map(function, points) if self.one_by_one else jax.vmap(function)(points)
        return mapped


class AbstractScheme(Written, abc.ABC):
    """How to differentiate a function along a line.

    Args:
        loops: whether its evaluations are in a loop of unknown length.
        nests: whether it can differentiate a derivative that it took itself.
    """

    loops: ClassVar[bool] = False
    nests: ClassVar[bool] = True

    @abc.abstractmethod
    def derivative(self, program: Program, x: Flat, direction: Flat, value: Array) -> Array:
        """The derivative of t -> f(x + t direction) at t = 0.

        Args:
            program: f.
            x: the point, shape (dimension,).
            direction: scaled so that t = 1 moves `x` by about its own size, shape (dimension,).
            value: f(x), shape (*out,).

        Returns:
            The derivative, shape (*out,).
        """


@dataclass(frozen=True)
class ForwardDifference(AbstractScheme):
    """(f(x + h) − f(x)) / h: one evaluation a tangent and some 8 digits of float64, the fewest of all.

    NaN or infinite where f is so at the displaced point.

    Source: Dennis and Schnabel (1983), "Numerical Methods for Unconstrained Optimization", section 5.4.
    """

    nests: ClassVar[bool] = False  # the error of one difference is as large as the next one

    def derivative(self, program: Program, x: Flat, direction: Flat, value: Array) -> Array:
        """See `AbstractScheme.derivative`."""
        h = _balanced_step(x, value, order=1)
        return (program(x + h * direction) - value) / h


@dataclass(frozen=True)
class CentralDifference(AbstractScheme):
    """Σⱼ cⱼ (f(x + jh) − f(x − jh)) / h over j = 1 … p/2: p evaluations a tangent, error of order hᵖ.

    The step h = eps^(1/(p + 1)) balances truncation against rounding for a function that varies on the scale of its
    argument; where it varies faster, choose `Ridders()`. NaN where f is so at a displaced point.

    Args:
        order: p; 2, 4, 6 or 8.

    Raises:
        ValueError: on any other order.

    Source: Fornberg (1988), "Generation of finite difference formulas on arbitrarily spaced grids".
    """

    order: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.order, bool) or self.order not in (2, 4, 6, 8):
            raise ValueError(f"CentralDifference: order must be 2, 4, 6 or 8, got {self.order!r}; the default is 4.")

    @property
    def weights(self) -> tuple[float, ...]:
        """The cⱼ, of j = 1 … p/2."""
        m = self.order // 2
        return tuple((-1) ** (j + 1) * math.comb(2 * m, m - j) / (j * math.comb(2 * m, m)) for j in range(1, m + 1))

    def derivative(self, program: Program, x: Flat, direction: Flat, value: Array) -> Array:
        """See `AbstractScheme.derivative`."""
        h = _balanced_step(x, value, self.order)
        steps = h * jnp.arange(1, self.order // 2 + 1, dtype=x.dtype)
        values = program.map(lambda t: program(x + t * direction), jnp.concatenate([steps, -steps]))
        differences = values[: len(steps)] - values[len(steps) :]
        return jnp.tensordot(jnp.asarray(self.weights, value.dtype), differences, 1) / h


@dataclass(frozen=True)
class Ridders(AbstractScheme):
    """Central differences at shrinking steps, extrapolated to step zero, until the error estimate is small.

    Row i of the table holds the difference quotient at h₀/4ⁱ and its Richardson extrapolations, of orders 2 to 8:
    Tᵢⱼ = Tᵢⱼ₋₁ + (Tᵢⱼ₋₁ − Tᵢ₋₁ⱼ₋₁) / (16ʲ − 1). An entry's error is its distance from the two it is made of, at least
    what rounding and noise in f amount to, and finer rows must not contradict it. Three rows, six evaluations a
    tangent, do for a function that varies on the scale of its argument; faster or noisy ones take more.

    Where f is finite on one side only (the border of a support) the row extrapolates one-sided quotients, in powers
    of h; where on none, it only shortens the step. Each number of the result picks its own entry. Where the steps do
    not settle and a coordinate is tiny, a second table starts from its own size.

    Args:
        tolerance: estimated relative error to stop at; None means eps^(2/3), 4e-11 in float64. The actual one is
            mostly far smaller; where f is too noisy, larger.
        max_rows: the most rows, at least 3. The last of 14 has steps of 1e-9 times the size of the point.

    Raises:
        ValueError: on a tolerance outside (0, 1), or fewer than 3 rows.

    Source: Ridders (1982), "Accurate computation of F'(x) and F'(x)F''(x)"; noise and contradiction are additions.
    """

    loops: ClassVar[bool] = True

    tolerance: float | None = None
    max_rows: int = 14

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise ValueError(
                f"Ridders: tolerance must be a relative error between 0 and 1, or None, got {self.tolerance!r}; "
                f"use Ridders() to let it be chosen."
            )
        if isinstance(self.max_rows, bool) or not isinstance(self.max_rows, int) or self.max_rows < 3:
            raise ValueError(f"Ridders: max_rows must be an integer >= 3, got {self.max_rows!r}; the default is 14.")

    def derivative(self, program: Program, x: Flat, direction: Flat, value: Array) -> Array:
        """See `AbstractScheme.derivative`."""
        eps = _rounding(x, value)
        tolerance = eps ** (2 / 3) if self.tolerance is None else self.tolerance
        # About 0.05 in float64, 0.2 in float32. Thirteen sixteenths of a power of two: few bits, so that x + t is
        # exact, yet no divisor of the periods that people choose, at which every quotient would vanish.
        first = 13 / 16 * 2.0 ** round(math.log2(eps) / 12)
        best, error = self._table(program, x, direction, value, tolerance, jnp.asarray(first, x.dtype), True)
        moved = jnp.where((x != 0) & (direction != 0), jnp.abs(x / direction), jnp.inf)
        least = jnp.min(moved, initial=1.0)
        unsettled = ~(error <= 1e-4 * jnp.abs(best)) & (least < _TINY)
        own, its_error = self._table(program, x, direction, value, tolerance, first * least, jnp.any(unsettled))
        # Steps that skip over what f does at x may have the smaller error in absolute terms, and no digit right.
        best = jnp.where(unsettled & (its_error <= 1e-4 * jnp.abs(own)), own, best)
        return jnp.where(jnp.isfinite(value), best, jnp.nan)

    def _table(
        self, program: Program, x: Flat, direction: Flat, value: Array, tolerance: float, first: Array, wanted: Any
    ) -> tuple[Array, Array]:
        """The best entry of a table of steps from `first` down, and its error; without a row where it is not wanted."""
        eps = _rounding(x, value)
        nothing = jnp.full((_COLUMNS, *value.shape), jnp.nan, value.dtype)

        def unfinished(state: Any) -> Any:
            row, *_, done = state
            return wanted & ((row < 3) | ((row < self.max_rows) & ~jnp.all(done)))

        def next_row(state: Any) -> Any:
            row, step, central, one_sided, bend, best, error, done = state
            plus, minus = program.map(lambda t: program(x + t * direction), jnp.stack([step, -step]))
            h = step.astype(value.dtype)
            right, left = jnp.isfinite(plus), jnp.isfinite(minus)
            both = right & left
            central, its_errors = _extrapolated(jnp.where(both, (plus - minus) / (2 * h), jnp.nan), central, 16.0)
            sided = jnp.where(right, plus - value, value - minus) / h
            one_sided, errors = _extrapolated(jnp.where(right ^ left, sided, jnp.nan), one_sided, 4.0)
            errors = jnp.where(both, its_errors, errors)
            chosen = jnp.argmin(errors, axis=0)[None]
            entry = jnp.take_along_axis(jnp.where(both, central, one_sided), chosen, 0)[0]

            # The second difference falls 16 times a row. If not, f is noisy, or h too coarse to see what f does at x.
            last, bend = bend, jnp.where(both, jnp.abs((plus - value) + (minus - value)), jnp.nan)
            noise = eps * jnp.abs(value) / h
            floor = jnp.where(bend > last / 2, bend / h, 0)
            its_error = jnp.maximum(jnp.min(errors, axis=0), jnp.maximum(noise + eps * jnp.abs(entry), floor))
            # Rows too coarse for f can agree by chance: what a finer row contradicts loses its claim.
            contradicted = jnp.maximum(error, jnp.abs(best - entry) - its_error)
            error = jnp.where(jnp.isnan(contradicted), error, contradicted)
            better = (its_error <= error) & ~jnp.isnan(entry)
            grown = (its_error > 16 * error) & (error < 1e-4 * jnp.abs(best))
            best, error = jnp.where(better, entry, best), jnp.where(better, its_error, error)
            done = (error <= jnp.maximum(tolerance * jnp.abs(best), 4 * noise)) | grown | ~jnp.isfinite(value)
            return row + 1, step / 4, central, one_sided, bend, best, error, done

        start = (jnp.int32(0), first, nothing, nothing, nothing[0], nothing[0],
                 jnp.full_like(value, jnp.inf), jnp.zeros(value.shape, bool))  # fmt: skip
        *_, best, error, _ = lax.while_loop(unfinished, next_row, start)
        return best, error


@dataclass(frozen=True)
class ComplexStep(AbstractScheme):
    """Im f(x + ih) / h with a tiny h: one complex evaluation a tangent, exact to rounding.

    The traced function is evaluated anew with complex numbers for whatever depends on the argument. Every operation
    on those must be analytic: `abs`, `max`, comparisons, rounding, special functions and linear algebra are refused by
    name, as are calls to Python, except where they act on constants. NaN where f(x) is NaN.

    Source: Squire and Trapp (1998), "Using complex variables to estimate derivatives of real functions".
    """

    nests: ClassVar[bool] = False

    def derivative(self, program: Program, x: Flat, direction: Flat, value: Array) -> Array:
        """See `AbstractScheme.derivative`. Raises a DifferentiationError naming an operation that is not analytic."""
        result = evaluate_complex(
            program.closed.jaxpr, program.closed.consts, [lax.complex(x, _IMAGINARY * direction)]
        )[0]
        if not jnp.iscomplexobj(result):
            return jnp.zeros_like(value)
        return jnp.where(jnp.isnan(value), jnp.nan, jnp.imag(result) / _IMAGINARY)


@dataclass(frozen=True)
class AutoFiniteDiff(AbstractForwardBackend):
    """Differentiation by finite differences: for black boxes, and as a check on the other backends.

    The derivative along v is that of t -> f(x + t v), by `scheme`. Differences see values alone: a rule that a
    function brings with it (`custom_jvp`, `stop_gradient`) is not theirs. Functions that call Python through
    `pure_callback` are evaluated point by point unless the callback takes batches.

    Args:
        scheme: `Ridders()` adapts its steps, to some 11 digits of a smooth function in float64, at 6 or more
            evaluations an input; `CentralDifference(order)` and `ForwardDifference()` take fixed steps and cost less;
            `ComplexStep()` is exact where it can go.
        typical_size: coordinates smaller than this count as this large when steps are chosen. Steps reach up to
            max(|x|, typical_size) / 20 (a fifth in float32), so a black box that must not see a negative number needs
            a typical size below its argument's, or should return NaN there, which `Ridders` evades.
        chunk_size: tangents treated at once, at least 1; None means all of them up to 32.

    Raises:
        TypeError, ValueError: on a scheme that is none, a size that is not positive.
        DifferentiationError: where it differentiates in float16 or bfloat16, or, with a scheme that cannot, a
            derivative of its own.
    """

    scheme: AbstractScheme = Ridders()
    typical_size: float = 1.0
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scheme, AbstractScheme):
            raise TypeError(
                f"AutoFiniteDiff: scheme must be Ridders(), CentralDifference(order), ForwardDifference() or "
                f"ComplexStep(), a value and not a class, got {self.scheme!r}."
            )
        if not (math.isfinite(self.typical_size) and self.typical_size > 0):
            raise ValueError(
                f"AutoFiniteDiff: typical_size must be a positive number, got {self.typical_size!r}; the default is 1."
            )
        check_chunk_size(self.chunk_size, "AutoFiniteDiff")

    def pushforward(self, f: FlatFunction, x: Flat, tangents: Array) -> tuple[Array, Array]:
        """See `AbstractForwardBackend.pushforward`."""
        program, scheme = Program(jax.make_jaxpr(f)(x)), type(self.scheme).__name__
        if not self.scheme.nests and holds_mark(program.closed.jaxpr, scheme):
            raise DifferentiationError(
                f"AutoFiniteDiff({scheme}()) cannot differentiate a derivative that it took itself; use AutoForward() "
                f"around it, as in SecondOrder(AutoForward(), AutoFiniteDiff({scheme}())), or AutoFiniteDiff() for both"
            )
        value = program(x)
        coarse = next((dtype for dtype in (x.dtype, value.dtype) if jnp.finfo(dtype).bits < 32), None)
        if coarse is not None:
            raise DifferentiationError(
                f"AutoFiniteDiff cannot take differences in {coarse}, which has too few digits for them; compute in "
                f"float32 or float64, with x.astype(jnp.float32), or use adtype=AutoForward() or AutoReverse()"
            )
        size = jnp.maximum(jnp.abs(x), self.typical_size)

        def along(tangent: Array) -> Array:
            extent = jnp.max(jnp.abs(tangent) / size, initial=0.0)
            # The next power of two, by which division is exact. A zero tangent may take any.
            extent = jnp.where(extent > 0, extent / jnp.frexp(extent)[0], 1)
            slope = self.scheme.derivative(program, x, tangent / extent, value)
            return marked(slope * extent.astype(value.dtype), scheme, self.scheme.loops)

        return value, program.map(along, tangents)

    def chunk(self, dimension: int) -> int:
        """See `AbstractForwardBackend.chunk`."""
        return min(self.chunk_size or DEFAULT_CHUNK_SIZE, dimension)


def _rounding(x: Array, value: Array) -> float:
    """The relative rounding error of f: that of its argument or its value, whichever is larger."""
    return max(float(jnp.finfo(x.dtype).eps), float(jnp.finfo(value.dtype).eps))


def _balanced_step(x: Array, value: Array, order: int) -> float:
    """The power of two nearest to eps^(1/(order + 1)): small multiples of it add to `x` without rounding."""
    return 2.0 ** round(math.log2(_rounding(x, value)) / (order + 1))


def _extrapolated(quotient: Array, previous: Array, ratio: float) -> tuple[Array, Array]:
    """A row of Richardson's table, shape (columns, *out), from its first entry and the row above; and its errors."""
    row, errors = [quotient], [jnp.full_like(quotient, jnp.inf)]
    for j in range(1, _COLUMNS):
        row.append(row[-1] + (row[-1] - previous[j - 1]) / (ratio**j - 1))
        error = jnp.maximum(jnp.abs(row[j] - row[j - 1]), jnp.abs(row[j] - previous[j - 1]))
        errors.append(jnp.where(jnp.isnan(error), jnp.inf, error))
    return jnp.stack(row), jnp.stack(errors)
