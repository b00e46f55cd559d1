"""Variational inference: the member of a family next to the target, by stochastic gradients of the evidence bound.

    ELBO(λ) = E_z[log π(x) − log q_λ(x)],   x = μ + M z,   z ~ N(0, I)

The gradient is that of x alone, through both terms, without that of λ in log q, whose expectation is zero: where q is
the target, it has no noise.

Source: Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), "Automatic differentiation variational inference"; Roeder,
Wu and Duvenaud (2017), "Sticking the landing"; Kingma and Ba (2015), "Adam: a method for stochastic optimization".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..base import Array, Constants
from ..executables import compile_soon
from ..random import chain_key, fold_in, normal
from .families import AbstractFamily, Parameters
from .objective import HostArray, Objective

# Decay of the two moments, and what keeps the ratio finite.
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8
# Standard deviations before the first step: small, so that no draw lands where the density is not finite.
_SCALE = 0.1
# Draws, in batches, that judge the end; offsets in units of standard deviations, and of Monte Carlo errors.
_BATCHES, _OFFSET, _ERRORS = 64, 0.1, 4.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to climb.

    Args:
        steps: of Adam.
        gradient_draws: that each step's gradient is averaged over.
        learning_rate: at the first step; it falls to zero along a cosine.
    """

    steps: int
    gradient_draws: int
    learning_rate: float


@dataclass(frozen=True)
class Fit:
    """The member of a family that was found.

    Args:
        family: it belongs to.
        parameters: of it, NumPy arrays.
        elbo: the estimate at each step, shape (steps,).
        offset: the largest slope of the bound at the end, in standard deviations of q.
        converged: whether that is small.
        skipped: steps without a finite gradient, which were not made.
    """

    family: AbstractFamily
    parameters: dict[str, HostArray]
    elbo: HostArray
    offset: float
    converged: bool
    skipped: int

    def draw(self, rng: np.random.Generator, count: int) -> tuple[HostArray, HostArray]:
        """Positions, shape (count, dimension), and log q at each, shape (count,)."""
        noise = rng.standard_normal((count, len(self.parameters["location"])))
        parameters = {name: jnp.asarray(value) for name, value in self.parameters.items()}
        positions = jax.vmap(lambda own: self.family.draw(parameters, own))(noise)
        constant = 0.5 * noise.shape[1] * math.log(2 * math.pi) + float(self.family.log_scale(parameters))
        return np.asarray(positions), -0.5 * np.sum(noise**2, axis=1) - constant


def fit(objective: Objective, family: AbstractFamily, start: HostArray, schedule: Schedule, seed: int) -> Fit:
    """Climb the evidence lower bound in one compiled loop.

    Args:
        objective: the log density, with the gradient that is followed.
        family: of approximations.
        start: the first mean, where the log density is finite, shape (dimension,).
        schedule: of the steps.
        seed: of the draws; the same seed gives the same result.
    """
    climb = _Climb(objective, family, schedule)
    arguments = (start.astype(objective.dtype), chain_key(seed, 0), objective.constants)
    parameters, elbo, fine, slopes = compile_soon(climb.run, *arguments).result().call(*arguments)
    slopes = np.asarray(slopes)
    mean, error = slopes.mean(axis=0), slopes.std(axis=0, ddof=1) / math.sqrt(_BATCHES)
    return Fit(
        family,
        {name: np.asarray(value) for name, value in parameters.items()},
        np.asarray(elbo),
        float(np.max(np.abs(mean))),
        # An error that is large itself excuses nothing; neither does NaN.
        bool(np.all(np.abs(mean) <= _OFFSET + _ERRORS * np.minimum(error, _OFFSET))),
        int(np.sum(~np.asarray(fine))),
    )


@dataclass(frozen=True)
class _Climb:
    """The loop.

    Args:
        objective, family, schedule: as in `fit`.
    """

    objective: Objective
    family: AbstractFamily
    schedule: Schedule

    def run(self, start: Array, key: Array, constants: Constants) -> tuple[Parameters, Array, Array, Array]:
        """The parameters at the end, the bound and whether it was finite at each step, and slopes at the end."""
        first = self.family.init(start, _SCALE)
        zeros = jax.tree.map(jnp.zeros_like, first)

        def step(state: Any, number: Array) -> tuple[Any, tuple[Array, Array]]:
            parameters, mean, square = state
            elbo, gradient, _ = self._estimate(parameters, fold_in(key, number), constants)
            fine = jnp.isfinite(elbo)
            for leaf in jax.tree.leaves(gradient):
                fine &= jnp.all(jnp.isfinite(leaf))
            moved = self._adam(parameters, mean, square, gradient, number)
            state = jax.tree.map(lambda new, old: jnp.where(fine, new, old), moved, state)
            return state, (elbo, fine)

        (parameters, _, _), (elbo, fine) = lax.scan(step, (first, zeros, zeros), jnp.arange(self.schedule.steps))

        def judge(number: Array) -> Array:
            return self._estimate(parameters, fold_in(key, number), constants)[2]

        slopes = lax.map(judge, self.schedule.steps + jnp.arange(_BATCHES))
        return parameters, elbo, fine, slopes

    def _estimate(self, parameters: Parameters, key: Array, constants: Constants) -> tuple[Array, Parameters, Array]:
        """The bound, its gradient, and its slope in location and in scale in units of standard deviations."""
        dimension, count = self.objective.dimension, self.schedule.gradient_draws
        noise = normal(key, count * dimension, self.objective.dtype).reshape(count, dimension)

        def one(z: Array) -> tuple[Array, Parameters, Array]:
            x, pull = jax.vjp(lambda own: self.family.draw(own, z), parameters)
            value, gradient = self.objective.gradient.value_and_gradient(x, *constants)
            slope = gradient + self.family.unwhiten(parameters, z)
            white = self.family.whiten(parameters, slope)
            return value + 0.5 * jnp.sum(z**2), pull(slope)[0], jnp.concatenate([white, white * z])

        values, gradients, slopes = jax.vmap(one)(noise)
        constant = 0.5 * dimension * math.log(2 * math.pi) + self.family.log_scale(parameters)
        averaged = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)
        return jnp.mean(values) + constant, averaged, jnp.mean(slopes, axis=0)

    def _adam(
        self, parameters: Parameters, mean: Parameters, square: Parameters, gradient: Parameters, number: Array
    ) -> tuple[Parameters, Parameters, Parameters]:
        mean = jax.tree.map(lambda m, g: _FIRST * m + (1 - _FIRST) * g, mean, gradient)
        square = jax.tree.map(lambda v, g: _SECOND * v + (1 - _SECOND) * g**2, square, gradient)
        count = number + 1
        rate = self.schedule.learning_rate * 0.5 * (1 + jnp.cos(math.pi * number / self.schedule.steps))
        rate = rate * jnp.sqrt(1 - _SECOND**count) / (1 - _FIRST**count)
        moved = jax.tree.map(lambda p, m, v: p + rate * m / (jnp.sqrt(v) + _TINY), parameters, mean, square)
        return moved, mean, square
