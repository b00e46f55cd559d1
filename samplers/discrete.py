"""Gibbs sampling of discrete coordinates by enumeration, a whole colour at a time.

    z_i ~ P(z_i = v | rest) ∝ exp f_i(z_1, ..., v, ..., z_n),    f_i the sum of all terms that depend on z_i

Coordinates of one colour are independent given the rest, so one evaluation of all f_i with a value put into every
coordinate of the colour serves them all: K evaluations for K values, however many coordinates there are. Colours are
updated one after the other, in a fixed order.

Updates are exact draws. The Metropolised variant (Liu, 1996), which never proposes the present value, is left out on
purpose: with a fixed order it flips two fair coins together for ever, and so never visits half of their joint states.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import (
    AbstractKernel,
    AbstractSampler,
    Array,
    Block,
    BlockReport,
    Constants,
    FiniteTarget,
    Target,
    block_name,
)
from .random import uniform
from .untuned import AbstractMemorylessKernel, State

HostArray = np.ndarray[Any, Any]

# Values that are written out; more are a loop, which bounds the time of compilation. An update of 100 labels of 20
# values takes 5 µs written out and 12 in the loop.
_UNROLLED = 16


@dataclass(frozen=True)
class DiscreteGibbs(AbstractSampler):
    """Draw each discrete coordinate from its exact conditional, by enumeration of its values.

    Coordinates that do not depend on each other, such as the labels of a mixture, are drawn all at once. Values may
    have probability zero. A value whose log density is NaN or +∞ counts as one of probability zero, and a coordinate
    without any possible value keeps the one it has; the statistic `undefined` counts such coordinates.

    Raises:
        ValueError: when it meets a model with a site in its block that is not discrete, or whose support is not
            finite, naming it.

    Example:
        `Gibbs({"z": DiscreteGibbs(), ...: NUTS()})`

    Source: Geman and Geman (1984), "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
    images"; Gonzalez et al. (2011), "Parallel Gibbs sampling: from colored fields to thin junction trees".
    """

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.enumerated()

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`; the target is a `FiniteTarget`."""
        finite = cast(FiniteTarget, target)
        sizes = np.array([len(support) for support in finite.supports])
        # Beyond the end of a smaller support its last value is repeated, with `valid` saying so.
        columns = [np.asarray(s)[np.minimum(np.arange(sizes.max()), len(s) - 1)] for s in finite.supports]
        colour_of = np.empty(finite.dimension, np.int32)
        for colour, coordinates in enumerate(finite.colours):
            colour_of[coordinates] = colour
        valid = np.arange(sizes.max())[:, None] < sizes
        return DiscreteKernel(repr(self), finite, np.stack(columns, 1).astype(dtype), valid, colour_of)


class Info(NamedTuple):
    """What happened in one step; every field has shape ().

    Args:
        lp: log π at the new position.
        undefined: coordinates with a value of log density NaN or +∞, or without any value of positive density.
    """

    lp: Array
    undefined: Array


@dataclass(frozen=True)
class DiscreteKernel(AbstractMemorylessKernel):
    """The kernel of `DiscreteGibbs`: one update of every colour.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
        values: the k-th value of every coordinate in row k, shape (K, dimension).
        valid: which of them are in the supports, shape (K, dimension).
        colour_of: the colour of every coordinate, shape (dimension,).
    """

    name: str
    target: FiniteTarget
    values: HostArray
    valid: HostArray
    colour_of: HostArray

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        sizes = self.valid.sum(0)
        least, most = sizes.min(), sizes.max()
        values = _count(most, "value") if least == most else f"{least} to {most} values"
        coordinates, colours = _count(self.target.dimension, "coordinate"), _count(len(self.target.colours), "colour")
        reason = f"exact: enumerates {values} of {coordinates}, {colours}"
        return (BlockReport(block_name(self.target.sites), self.name, self.target.dimension, None, reason),)

    def step(self, key: Array, state: State, tuning: tuple[()], constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        position, dtype = state.position, state.position.dtype
        # Every coordinate is drawn once in a step, so one number each will do for all colours.
        uniforms = jax.vmap(lambda i: uniform(key, i, dtype))(lax.iota(jnp.int32, position.size))

        # By masks over all coordinates rather than by indices: elementwise work fuses, gathering and scattering do not.
        def update(colour: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            position, undefined = carry
            inside = self.colour_of == colour

            def candidate(values: Array, valid: Array) -> _Candidate:
                log_weight = self.target.by_coordinate(jnp.where(inside, values, position), *constants)
                number = log_weight < jnp.inf
                return _Candidate(values, jnp.where(valid & number, log_weight, -jnp.inf), valid & ~number)

            drawn, amiss = _draw(uniforms, position, _each(candidate, self.values, self.valid))
            return jnp.where(inside, drawn, position), undefined | (inside & amiss)

        # A loop even for two colours: written out, XLA repeats the work on one colour inside that on the next, and 8
        # colours of 100 coordinates took 92 µs instead of 6.
        start = position, jnp.zeros(position.shape, bool)
        position, undefined = lax.fori_loop(0, len(self.target.colours), update, start)
        # Under Gibbs nobody asks for this density, and the compiler drops it.
        lp = self.target.log_density(position, *constants)
        return State(position), Info(lp, jnp.sum(undefined, dtype=jnp.int32))

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return info._asdict()


class _Candidate(NamedTuple):
    """One value for every coordinate of a colour; fields of shape (dimension,).

    Args:
        value: the value.
        log_weight: of the value, less than +∞; −∞ where it is not in the support.
        wrong: whether the log weight came out as NaN or +∞.
    """

    value: Array
    log_weight: Array
    wrong: Array


# One after the other, written out, or stacked in the first dimension, for a loop.
_Candidates = list[_Candidate] | _Candidate


def _draw(uniforms: Array, present: Array, candidates: _Candidates) -> tuple[Array, Array]:
    """Draw every coordinate by inversion of its cumulative weights.

    Args:
        uniforms: in (0, 1), shape (dimension,).
        present: what a coordinate keeps if no candidate is possible, shape (dimension,).
        candidates: the values with their weights.

    Returns:
        The values, and where something was amiss; shape (dimension,) both.
    """

    def highest(carry: tuple[Array, Array], candidate: _Candidate) -> tuple[Array, Array]:
        top, wrong = carry
        return jnp.maximum(top, candidate.log_weight), wrong | candidate.wrong

    def weight(candidate: _Candidate) -> Array:
        # Without a possible value `top` is −∞ as well, and their difference NaN.
        return jnp.where(candidate.log_weight > -jnp.inf, jnp.exp(candidate.log_weight - top), 0.0)

    def choose(carry: tuple[Array, Array], candidate: _Candidate) -> tuple[Array, Array]:
        # The last value of positive weight below which the weights sum to no more than the threshold: that of the
        # textbook, but rounding at the upper end cannot lead to a value of weight zero.
        below, value = carry
        chosen = (below <= threshold) & (weight(candidate) > 0.0)
        return below + weight(candidate), jnp.where(chosen, candidate.value, value)

    zeros = jnp.zeros_like(uniforms)
    top, wrong = _fold(highest, (zeros - jnp.inf, zeros > 0.0), candidates)
    threshold = uniforms * _fold(lambda total, candidate: total + weight(candidate), zeros, candidates)
    _, drawn = _fold(choose, (zeros, present), candidates)
    return drawn, wrong | ~(top > -jnp.inf)


def _each(function: Callable[[Array, Array], _Candidate], values: HostArray, valid: HostArray) -> _Candidates:
    """A candidate of each row: one after the other if they are few, else in a loop."""
    if len(values) <= _UNROLLED:
        return [function(jnp.asarray(v), jnp.asarray(inside)) for v, inside in zip(values, valid, strict=True)]
    stacked: _Candidate = lax.map(lambda row: function(*row), (jnp.asarray(values), jnp.asarray(valid)))
    return stacked


def _fold(function: Callable[[Any, _Candidate], Any], carry: Any, candidates: _Candidates) -> Any:
    """Fold over candidates, with a loop where they were made by one."""
    if isinstance(candidates, list):
        return functools.reduce(function, candidates, carry)
    return lax.scan(lambda before, candidate: (function(before, candidate), None), carry, candidates)[0]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
