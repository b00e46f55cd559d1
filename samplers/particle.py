"""Particle Gibbs: the states of a state-space model, all at once, by sequential Monte Carlo."""

from __future__ import annotations

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
    StateSpaceTarget,
    Target,
    block_name,
)
from .hamiltonian import check_integer
from .random import fold_in, uniform
from .untuned import AbstractMemorylessKernel, State


@dataclass(frozen=True)
class ParticleGibbs(AbstractSampler):
    """Draw the states of a state-space model by conditional sequential Monte Carlo with ancestor sampling.

    For a chain of states with density ∏ p_t(x_t | x_{t-1}) g_t(x_{t-1}, x_t), N particles go forward in time:

        a_i ~ w_{t-1},   x_t^i ~ p_t( . | x_{t-1}^{a_i}),   w_t^i = g_t(x_{t-1}^{a_i}, x_t^i),   i < N,

    while the last is held on the present trajectory x', x_t^N = x'_t, and only its ancestor is drawn anew,

        P(a_N = i) ∝ w_{t-1}^i p_t(x'_t | x_{t-1}^i) g_t(x_{t-1}^i, x'_t).

    The new trajectory is the line of a particle drawn with the final weights. This leaves the states' law given the
    rest invariant for any N ≥ 2, and because lines break at every time, some ten particles often mix well, however
    long the chain is. It needs no gradients; states may be discrete, or vectors.

    A particle whose weight is NaN or +∞, or whose state is not finite, counts as one of weight zero; where all have
    weight zero, the present trajectory goes on. The statistic `update_rate` is the share of states that do not come
    from the trajectory before: where it is small, take more particles. `effective_particles` is (Σw)² / Σw² in the
    mean over time.

    Args:
        particles: N, at least 2.

    Raises:
        ValueError: on a bad argument; when it meets a model, unless the sites of its block form a Markov chain in
            their order: every term depends on one state or on one and the next.

    Example:
        `Gibbs({lambda site: site.startswith("x_"): ParticleGibbs(50), ...: NUTS()})` for a model that declares its
        states in a loop, `x = rv(f"x_{t}", dist.Normal(phi * x, q))`, and beside each its observation.

    Source: Lindsten, Jordan and Schön (2014), "Particle Gibbs with ancestor sampling"; Andrieu, Doucet and Holenstein
    (2010), "Particle Markov chain Monte Carlo methods".
    """

    particles: int = 20

    def __post_init__(self) -> None:
        check_integer("ParticleGibbs", "particles", self.particles, 2)

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.state_space()

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`; the target is a `StateSpaceTarget`."""
        return ParticleKernel(repr(self), cast(StateSpaceTarget, target), int(self.particles))


class Info(NamedTuple):
    """What happened in one step; every field has shape ().

    Args:
        lp: log π at the new position.
        update_rate: share of the states that do not come from the trajectory before.
        effective_particles: effective sample size of the weights, in the mean over time.
    """

    lp: Array
    update_rate: Array
    effective_particles: Array


class Cloud(NamedTuple):
    """The particles at one time, the last of them the reference's.

    Args:
        states: shape (N, d).
        log_weights: shape (N,), less than +∞.
        ancestors: their numbers among the particles before, shape (N,).
    """

    states: Array
    log_weights: Array
    ancestors: Array


@dataclass(frozen=True)
class ParticleKernel(AbstractMemorylessKernel):
    """The kernel of `ParticleGibbs`: one pass forward and one back.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
        particles: N, the reference included.
    """

    name: str
    target: StateSpaceTarget
    particles: int

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        reason = f"conditional sequential Monte Carlo: {self.particles} particles, {self.target.length} states"
        return (BlockReport(block_name(self.target.sites), self.name, self.target.dimension, None, reason),)

    def step(self, key: Array, state: State, tuning: tuple[()], constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        length = self.target.length
        reference = state.position.reshape(length, -1)
        nobody = jnp.zeros((self.particles, reference.shape[1]), reference.dtype)
        first = self._propose(fold_in(key, 0), 0, nobody, reference, constants)

        def forward(cloud: Cloud, time: Array) -> tuple[Cloud, Cloud]:
            cloud = self._advance(fold_in(key, time), time, cloud, reference, constants)
            return cloud, cloud

        cloud, later = lax.scan(forward, first, lax.iota(jnp.int32, length - 1) + 1)
        drawn = choose(uniform(fold_in(key, length), 0, reference.dtype), cloud.log_weights)

        def back(index: Array, ancestors: Array) -> tuple[Array, Array]:
            return ancestors[index], index

        before, line = lax.scan(back, drawn, later.ancestors, reverse=True)
        history = jnp.concatenate([first.states[before][None], jax.vmap(lambda s, i: s[i])(later.states, line)])
        position = history.ravel()
        kept = (before == self.particles - 1) + jnp.sum(line == self.particles - 1)
        sizes = effective_size(first.log_weights) + jnp.sum(jax.vmap(effective_size)(later.log_weights))
        # Under Gibbs nobody asks for this density, and the compiler drops it.
        lp = self.target.log_density(position, *constants)
        return State(position), Info(lp, 1.0 - kept.astype(lp.dtype) / length, sizes / length)

    def _advance(self, key: Array, time: Array, cloud: Cloud, reference: Array, constants: Constants) -> Cloud:
        """The particles at the next time."""
        uniforms = jax.vmap(lambda i: uniform(key, i, reference.dtype))(lax.iota(jnp.int32, self.particles))
        ahead = jax.vmap(lambda state: self._log_ahead(time, state, reference[time], constants))(cloud.states)
        own = choose(uniforms[-1], possible(cloud.log_weights + ahead))
        ancestors = choose(uniforms, cloud.log_weights).at[-1].set(own)
        after = self._propose(key, time, cloud.states[ancestors], reference, constants)
        return after._replace(ancestors=ancestors)

    def _log_ahead(self, time: Array, previous: Array, state: Array, constants: Constants) -> Array:
        """The log density of everything at a time that depends on the state before."""
        transition = self.target.log_transition(time, previous, state, *constants)
        return transition + self.target.log_weight(time, previous, state, *constants)

    def _propose(self, key: Array, time: Array | int, previous: Array, reference: Array, constants: Constants) -> Cloud:
        """Particles with their weights, from the states before, shape (N, d)."""

        def draw(number: Array, before: Array) -> Array:
            # The streams that come first are those of the numbers that drew the ancestors.
            return self.target.draw_state(fold_in(key, self.particles + number), time, before, *constants)

        def weigh(before: Array, state: Array) -> Array:
            log_weight = self.target.log_weight(time, before, state, *constants)
            return jnp.where(jnp.all(jnp.abs(state) < jnp.inf), possible(log_weight), -jnp.inf)

        numbers = lax.iota(jnp.int32, self.particles)
        states = jax.vmap(draw)(numbers, previous).at[-1].set(reference[time])
        return Cloud(states, jax.vmap(weigh)(previous, states), numbers)

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return info._asdict()


def possible(log_weights: Array) -> Array:
    """Log weights with −∞, a weight of zero, for what is no number or +∞."""
    return jnp.where(log_weights < jnp.inf, log_weights, -jnp.inf)


def choose(uniforms: Array, log_weights: Array) -> Array:
    """Numbers of particles, each drawn with the probability of its weight; of the last where all weights are zero.

    Args:
        uniforms: in (0, 1), one for each draw, of any shape.
        log_weights: shape (N,), less than +∞.
    """
    cumulative = jnp.cumsum(_weights(log_weights))
    total = cumulative[-1]
    # Rounding at the upper end must not lead to a particle of weight zero.
    thresholds = jnp.minimum(uniforms, 1.0 - np.finfo(uniforms.dtype).eps) * total
    found = jnp.searchsorted(cumulative, thresholds, side="right")
    return jnp.where(total > 0.0, found, log_weights.size - 1).astype(jnp.int32)


def effective_size(log_weights: Array) -> Array:
    """(Σw)² / Σw², between 1 and N; zero where all weights are zero."""
    weights = _weights(log_weights)
    squares = jnp.sum(weights**2)
    return jnp.where(squares > 0.0, jnp.sum(weights) ** 2 / jnp.where(squares > 0.0, squares, 1.0), 0.0)


def _weights(log_weights: Array) -> Array:
    """Weights of which the largest is 1, unless all are zero."""
    # Where all are zero the largest is −∞ as well, and their difference NaN.
    return jnp.where(log_weights > -jnp.inf, jnp.exp(log_weights - jnp.max(log_weights)), 0.0)
