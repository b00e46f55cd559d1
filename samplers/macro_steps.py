"""Macro steps: leapfrog steps that are halved until the energy error is small, where that can be refuted.

A macro step of size h is made of 2ᵏ leapfrog steps of size h/2ᵏ, its micro steps, with the smallest k for which

    max H − min H ≤ δ   over the start and the ends of all micro steps.

It can be refuted if the same k is chosen at its end for the way back. The micro steps of this k come by the same points
there, with the same energies, and are good enough; what has to be tried out is whether those of a smaller k are.

Source: Bou-Rabee, Carpenter, Kleppe and Liu (2025), "The within-orbit adaptive leapfrog no-U-turn sampler".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from .base import Array
from .integrators import Leapfrog, Point, energy
from .trajectory import select


class Effort(NamedTuple):
    """The record of the macro steps on one side of a trajectory; every field has shape ().

    Args:
        gradients: evaluations of the gradient, those of halved steps and of reversibility checks included.
        unhalved: macro steps for which one leapfrog step was good enough.
        irreversible: whether the last macro step cannot be refuted.
        exhausted: whether the shortest micro steps, too, were too long for the last macro step.
    """

    gradients: Array
    unhalved: Array
    irreversible: Array
    exhausted: Array


class _Attempt(NamedTuple):
    """The micro steps of one k, forwards to find it or backwards to check it.

    Args:
        anchor: where they begin: the start of the macro step, or its end for the way back.
        now: where they are.
        lowest, highest: energy so far, shape ().
        halvings: k, shape ().
        limit: k from which on nothing is to be tried, shape ().
        taken: how many of them, shape ().
        backwards: whether the macro step has been found, and this is the way back, shape ().
        refuted: whether a smaller k has been found good enough for the way back, shape ().
        gradients: evaluations in all attempts, shape ().
    """

    anchor: Point
    now: Point
    lowest: Array
    highest: Array
    halvings: Array
    limit: Array
    taken: Array
    backwards: Array
    refuted: Array
    gradients: Array


@dataclass(frozen=True)
class MacroSteps:
    """The integrator that takes macro steps.

    Args:
        flow: the leapfrog integrator that takes the micro steps.
        max_energy_error: δ > 0, shape ().
        max_halvings: the largest k, at least 0.

    Source: Bou-Rabee, Carpenter, Kleppe and Liu (2025), as above.
    """

    flow: Leapfrog
    max_energy_error: Array | float
    max_halvings: int

    def step(self, point: Point, step_size: Array) -> Point:
        """One macro step from a point with an `Effort` as its record.

        Args:
            point: where it begins.
            step_size: h, negative to go back in time, shape ().

        Returns:
            Its end, with the record brought up to date. Where no k is good enough, or the step cannot be undone, the
            log density is −∞, so that the trajectory breaks off there as at a divergence.
        """
        effort: Effort = point.record
        start = point._replace(record=None)
        zero, none = jnp.zeros_like(effort.gradients), jnp.zeros((), bool)
        begin_energy = energy(start)
        limit = jnp.full_like(zero, self.max_halvings + 1)
        first = _Attempt(start, start, begin_energy, begin_energy, zero, limit, zero, none, none, zero)
        done = lax.while_loop(
            lambda attempt: (attempt.halvings < attempt.limit) & ~attempt.refuted,
            lambda attempt: self._micro_step(attempt, step_size),
            first,
        )
        irreversible, exhausted = done.refuted, ~done.backwards
        end = done.anchor
        return end._replace(
            log_density=jnp.where(irreversible | exhausted, -jnp.inf, end.log_density),
            record=Effort(
                gradients=effort.gradients + done.gradients,
                # Found in the first attempt, so that there is nothing to check.
                unhalved=effort.unhalved + (done.gradients == 1) * done.backwards,
                irreversible=irreversible,
                exhausted=exhausted,
            ),
        )

    def _micro_step(self, attempt: _Attempt, step_size: Array) -> _Attempt:
        """One micro step, and what follows from it: another one, another attempt, or the end."""
        half_power = jnp.ldexp(jnp.ones_like(step_size), -attempt.halvings)
        signed = jnp.where(attempt.backwards, -step_size, step_size) * half_power
        now = self.flow.step(attempt.now, signed)
        now_energy = energy(now)
        lowest, highest = jnp.minimum(attempt.lowest, now_energy), jnp.maximum(attempt.highest, now_energy)
        taken = attempt.taken + 1
        # Written such that an energy of +∞ fails whatever it is compared with.
        failed = ~(highest - lowest <= self.max_energy_error)
        complete = ~failed & (taken == jnp.left_shift(jnp.ones_like(taken), attempt.halvings))
        found = complete & ~attempt.backwards
        anchor = select(found, now, attempt.anchor)
        again = failed | complete
        anchor_energy = energy(anchor)
        return _Attempt(
            anchor=anchor,
            now=select(again, anchor, now),
            lowest=jnp.where(again, anchor_energy, lowest),
            highest=jnp.where(again, anchor_energy, highest),
            halvings=jnp.where(found, 0, attempt.halvings + failed),
            limit=jnp.where(found, attempt.halvings, attempt.limit),
            taken=jnp.where(again, 0, taken),
            backwards=attempt.backwards | found,
            refuted=attempt.backwards & complete,
            gradients=attempt.gradients + 1,
        )


def no_effort() -> Effort:
    """The record before the first macro step."""
    zero, none = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return Effort(zero, zero, none, none)
