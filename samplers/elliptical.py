"""Elliptical slice sampling, for a Gaussian prior times any likelihood: nothing to tune, no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

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
    GaussianTarget,
    Target,
    block_name,
)
from .random import fold_in, uniform
from .untuned import AbstractUntunedKernel

# The bracket of angles has lost all its digits long before so many evaluations: it is then the present point itself.
_MAX_EVALUATIONS = 100


@dataclass(frozen=True)
class EllipticalSlice(AbstractSampler):
    """Elliptical slice sampling: for sites whose distributions, given the others, are Gaussian.

    With ν drawn from the prior N(m, Σ), the ellipse

        q(θ) = m + (q − m) cos θ + (ν − m) sin θ

    passes through q at θ = 0, and along it the prior is accounted for. A threshold log L(q) + log u is drawn, and
    angles from a bracket that shrinks towards 0 until the log likelihood exceeds it. The covariance Σ is nowhere
    needed, only draws. A likelihood that is not finite counts as zero.

    Raises:
        ValueError: when it meets a model with a site in its block that is not Gaussian, naming it.

    Example:
        `Gibbs({"f": EllipticalSlice(), ...: NUTS()})`

    Source: Murray, Adams and MacKay (2010), "Elliptical slice sampling", figure 2.
    """

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.with_gaussian_prior()

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`; the target is a `GaussianTarget`."""
        return EllipticalKernel(repr(self), cast(GaussianTarget, target))


class State(NamedTuple):
    """What the kernel carries from step to step.

    Args:
        position: q, shape (dimension,).
        log_likelihood: log L(q), shape (); −∞ where it is not finite.
    """

    position: Array
    log_likelihood: Array


class Info(NamedTuple):
    """What happened in one step; every field has shape ().

    Args:
        lp: log π at the new position.
        n_steps: evaluations of the likelihood.
    """

    lp: Array
    n_steps: Array


class _Search(NamedTuple):
    angle: Array
    lower: Array
    upper: Array
    evaluations: Array
    found: Array
    position: Array
    log_likelihood: Array


@dataclass(frozen=True)
class EllipticalKernel(AbstractUntunedKernel):
    """The kernel of `EllipticalSlice`.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
    """

    name: str
    target: GaussianTarget

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        reason = "draws from the Gaussian prior and evaluates the likelihood; no gradient, nothing to tune"
        return (BlockReport(block_name(self.target.sites), self.name, self.target.dimension, None, reason),)

    def init(self, position: Array, constants: Constants) -> State:
        """See `AbstractKernel.init`; one evaluation of the likelihood."""
        return State(position, self._log_likelihood(position, constants))

    def position(self, state: State) -> Array:
        """See `AbstractKernel.position`."""
        return state.position

    def step(self, key: Array, state: State, tuning: tuple[()], constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        dtype, full_turn = state.position.dtype, 2.0 * np.pi
        centre = self.target.mean(*constants)
        start = state.position - centre
        other = self.target.draw_prior(fold_in(key, 0), *constants) - centre
        threshold = state.log_likelihood + jnp.log(uniform(fold_in(key, 1), 0, dtype))
        angles = fold_in(key, 2)

        def searching(search: _Search) -> Array:
            return ~search.found & (search.evaluations < _MAX_EVALUATIONS)

        def evaluate(search: _Search) -> _Search:
            angle = search.angle
            position = centre + start * jnp.cos(angle) + other * jnp.sin(angle)
            log_likelihood = self._log_likelihood(position, constants)
            lower = jnp.where(angle < 0.0, angle, search.lower)
            upper = jnp.where(angle < 0.0, search.upper, angle)
            evaluations = search.evaluations + 1
            return _Search(
                angle=lower + (upper - lower) * uniform(angles, evaluations, dtype),
                lower=lower,
                upper=upper,
                evaluations=evaluations,
                found=log_likelihood > threshold,
                position=position,
                log_likelihood=log_likelihood,
            )

        angle = full_turn * uniform(angles, 0, dtype)
        nowhere = _Search(
            angle, angle - full_turn, angle, jnp.int32(0), jnp.asarray(False), state.position, state.log_likelihood
        )
        end = lax.while_loop(searching, evaluate, nowhere)
        after = State(
            jnp.where(end.found, end.position, state.position),
            jnp.where(end.found, end.log_likelihood, state.log_likelihood),
        )
        # Under Gibbs nobody asks for this density, and the compiler drops it.
        return after, Info(self.target.log_density(after.position, *constants), end.evaluations)

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return info._asdict()

    def _log_likelihood(self, position: Array, constants: Constants) -> Array:
        value = self.target.log_likelihood(position, *constants)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)
