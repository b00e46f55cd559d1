"""Slice sampling, coordinate by coordinate, with intervals that step out and shrink."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import AbstractKernel, AbstractSampler, Array, BlockReport, Constants, Target, block_name, on_host
from .hamiltonian import check_integer
from .random import fold_in, uniform
from .windows import StanWindows

# A slice that so many proposals have missed, each shrinking the interval, is narrower than rounding: the coordinate
# stays. Point and proposal miss alike, so that a limit of any size leaves the target invariant.
_MOST_PROPOSALS = 100
# How many intervals the mean of a closed window of warm-up counts for in the next.
_FIRST_WIDTH = 1.0
_MEMORY = 10.0


class State(NamedTuple):
    """What a slice sampler carries from step to step.

    Args:
        position: q, shape (dimension,).
        log_density: log π(q), shape ().
    """

    position: Array
    log_density: Array


class Info(NamedTuple):
    """What happened in one sweep over the coordinates.

    Args:
        lp: log π at the new position, shape ().
        n_steps: evaluations of the log density, shape ().
        step_size: mean width of the first intervals over the coordinates, shape ().
        lengths: of the interval in which each coordinate was found, shape (dimension,); NaN where it stayed.
    """

    lp: Array
    n_steps: Array
    step_size: Array
    lengths: Array


class Tuning(NamedTuple):
    """The widths of the first intervals.

    Args:
        widths: w, shape (dimension,).
        seen: intervals that each of them is the mean of, shape ().
    """

    widths: Array
    seen: Array


@dataclass(frozen=True)
class Slice(AbstractSampler):
    """Slice sampling of one coordinate after the other, without gradients and without rejections.

    For each coordinate x of the position, with all others held,

        log y = log π(x) + log u,  u ~ Uniform(0, 1),  x' ~ Uniform{x' : log π(x') ≥ log y},

    where x' is found by an interval of width w, placed at random around x, that steps out by w until both ends lie
    outside the slice and then shrinks towards x with each proposal outside. Where π is zero or not a number, it is
    outside. Any width is correct. Unless it is given, each coordinate learns its own during warm-up: the mean length of
    the intervals in which it was found, which is about twice that of its slices.

    Args:
        width: w > 0 in unconstrained coordinates, which then stays; None adapts it during warm-up, from 1. A wide one
            jumps between separate modes.
        max_steps: m ≥ 1; an interval grows to at most m w, with the m − 1 steps split at random between its ends.

    Raises:
        ValueError: on bad arguments, naming them.

    Source: Neal (2003), "Slice sampling", Annals of Statistics 31, figures 3 and 5.
    """

    width: float | None = None
    max_steps: int = 100

    def __post_init__(self) -> None:
        width = self.width
        if width is not None and not (isinstance(width, Real) and not isinstance(width, bool) and 0 < width < np.inf):
            raise ValueError(f"Slice: width must be a positive number or None to adapt it, got {width!r}.")
        check_integer("Slice", "max_steps", self.max_steps, 1)

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`.

        Raises:
            ValueError: where a site is discrete, naming it.
        """
        if target.discrete:
            raise ValueError(
                f"Slice: site '{target.discrete[0]}' is discrete, and a slice is an interval of real numbers; "
                f"give the site a block of its own with DiscreteGibbs() or MH()."
            )
        return SliceKernel(repr(self), target, self.width, self.max_steps, dtype)


@dataclass(frozen=True)
class SliceKernel(AbstractKernel):
    """The kernel of `Slice`: one sweep over the coordinates.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
        width: of the first intervals, or None to adapt it.
        max_steps: limit of an interval, in widths.
        dtype: of positions.
    """

    name: str
    target: Target
    width: float | None
    max_steps: int
    dtype: Any

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`; nothing is differentiated."""
        return (BlockReport(block_name(self.target.sites), self.name, self.target.dimension, None, None),)

    def init(self, position: Array, constants: Constants) -> State:
        """See `AbstractKernel.init`; one evaluation of the log density."""
        return State(position, self.target.log_density(position, *constants))

    def position(self, state: State) -> Array:
        """See `AbstractKernel.position`."""
        return state.position

    def step(self, key: Array, state: State, tuning: Tuning, constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        order = lax.iota(jnp.int32, self.target.dimension)

        def update(index: Array, carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
            (position, log_density), lengths, evaluations = carry
            here = order == index

            def along(value: Array) -> Array:
                return self.target.log_density(jnp.where(here, value, position), *constants)

            start = lax.dynamic_index_in_dim(position, index, keepdims=False)
            width = lax.dynamic_index_in_dim(tuning.widths, index, keepdims=False)
            found = sample_line(fold_in(key, index), start, log_density, width, self.max_steps, along)
            after = State(jnp.where(here, found.value, position), found.log_density)
            return after, jnp.where(here, found.length, lengths), evaluations + found.evaluations

        carry = (state, jnp.zeros_like(state.position), jnp.zeros((), jnp.int32))
        state, lengths, evaluations = lax.fori_loop(0, self.target.dimension, update, carry)
        return state, Info(state.log_density, evaluations, jnp.mean(tuning.widths), lengths)

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return {"lp": info.lp, "n_steps": info.n_steps, "step_size": info.step_size}

    def init_tuning(self) -> Tuning:
        """See `AbstractKernel.init_tuning`."""
        width = _FIRST_WIDTH if self.width is None else self.width
        return Tuning(on_host(np.full(self.target.dimension, width), self.dtype), on_host(0.0, self.dtype))

    def tune(self, tuning: Tuning, state: State, info: Info) -> Tuning:
        """See `AbstractKernel.tune`; the mean starts anew from the first interval."""
        if self.width is not None:
            return tuning
        seen = tuning.seen + 1
        # Not where a coordinate stayed, and not where an interval has reached infinity.
        usable = (info.lengths > 0) & (info.lengths < jnp.inf)
        return Tuning(jnp.where(usable, tuning.widths + (info.lengths - tuning.widths) / seen, tuning.widths), seen)

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`."""
        return StanWindows().borders(warmup)

    def retune(self, tuning: Tuning, done: int, warmup: int) -> Tuning:
        """See `AbstractKernel.retune`; intervals of earlier windows come to count for less."""
        return Tuning(tuning.widths, on_host(min(float(tuning.seen), _MEMORY), self.dtype))


class Found(NamedTuple):
    """A point of a slice; every field has shape ().

    Args:
        value: x'.
        log_density: log π(x').
        length: of the interval in which it was found; NaN where x' = x.
        evaluations: of the log density.
    """

    value: Array
    log_density: Array
    length: Array
    evaluations: Array


class _Search(NamedTuple):
    left: Array
    right: Array
    value: Array
    log_density: Array
    tries: Array
    found: Array


def sample_line(
    key: Array, start: Array, log_density: Array, width: Array, max_steps: int, along: Callable[[Array], Array]
) -> Found:
    """A point from the slice through a point of a line.

    Args:
        key: of this update.
        start: x, shape ().
        log_density: log π(x), shape ().
        width: w, shape ().
        max_steps: m.
        along: from a value on the line, shape (), to the log density there, shape ().
    """
    dtype = start.dtype
    level = log_density + jnp.log(uniform(key, 0, dtype))

    def inside(log_density: Array) -> Array:
        # Not a number is not inside. From a start of density zero, every point of positive density is.
        return (log_density >= level) & (log_density > -jnp.inf)

    def expand(edge: Array, step: Array, allowed: Array) -> tuple[Array, Array]:
        def unfinished(carry: tuple[Array, Array]) -> Array:
            edge, steps = carry
            return (steps < allowed) & inside(along(edge))

        end, steps = lax.while_loop(unfinished, lambda c: (c[0] + step, c[1] + 1), (edge, jnp.zeros_like(allowed)))
        return end, steps

    edge = start - width * uniform(key, 1, dtype)
    to_left = jnp.floor(max_steps * uniform(key, 2, dtype)).astype(jnp.int32)
    left, steps_left = expand(edge, -width, to_left)
    right, steps_right = expand(edge + width, width, max_steps - 1 - to_left)

    def unfinished(search: _Search) -> Array:
        return ~search.found & (search.tries < _MOST_PROPOSALS)

    def propose(search: _Search) -> _Search:
        value = search.left + (search.right - search.left) * uniform(key, 3 + search.tries, dtype)
        there = along(value)
        found = inside(there)
        below = value < start
        return _Search(
            left=jnp.where(~found & below, value, search.left),
            right=jnp.where(~found & ~below, value, search.right),
            value=value,
            log_density=there,
            tries=search.tries + 1,
            found=found,
        )

    search = _Search(left, right, start, log_density, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    search = lax.while_loop(unfinished, propose, search)
    moved = search.found & (search.value != start)
    return Found(
        value=jnp.where(moved, search.value, start),
        log_density=jnp.where(moved, search.log_density, log_density),
        length=jnp.where(moved, search.right - search.left, jnp.nan),
        evaluations=steps_left + steps_right + 2 + search.tries,
    )
