"""The number of steps in a trajectory, learned such that a given share of trajectories turns back.

A trajectory of N steps, N uniform on 1, ..., 2m − 1, has turned back if its last velocity points against its
displacement. The mean m is learned like a step size, by stochastic approximation (`step_size`): it grows while fewer
trajectories turn than are to, and shrinks while more do.

Source: the criterion is that of Hoffman and Gelman (2014), "The No-U-Turn Sampler"; trajectories of random length are
those of Mackenzie (1989), "An improved hybrid Monte Carlo method".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .base import Array, on_host
from .falling import FallingAdaptation
from .random import uniform
from .step_size import StepSearch, continue_search, init_search, update_search
from .warmup import Tuning

_INITIAL_STEPS = 3.0


class Length(NamedTuple):
    """What is known of the length of trajectories.

    Args:
        mean_steps: m in use, shape ().
        search: of log m, in terms of the share of trajectories that do not turn; None where the user fixed m.
    """

    mean_steps: Array
    search: StepSearch | None


@dataclass(frozen=True)
class LengthAdaptation(FallingAdaptation):
    """How a kernel learns during warm-up whose trajectories have a random number of steps.

    Args:
        mean_steps: fixed, or None to adapt it.
        max_steps: no trajectory has more steps.
        turning_share: of the trajectories, in (0, 1).
    """

    mean_steps: float | None = None
    max_steps: int = 1023
    turning_share: float = 0.25

    def init(self, dimension: int, dtype: Any) -> Tuning:
        """See `Adaptation.init`."""
        search, mean_steps = None, self.mean_steps
        if mean_steps is None:
            mean_steps = min(_INITIAL_STEPS, self._longest)
            found = init_search(mean_steps, 1.0 - self.turning_share, dtype, longest=self._longest)
            # The order of magnitude is known: no strides, with which trajectories would grow long before they are told
            # to be too long.
            search = found._replace(bracket=on_host(0.0, dtype))
        length = Length(on_host(mean_steps, dtype), search)
        return super().init(dimension, dtype)._replace(length=length)

    def digest(self, tuning: Tuning, done: int, warmup: int) -> Tuning:
        """See `Adaptation.digest`."""
        length: Length = tuning.length
        mean_steps, search = length.mean_steps, length.search
        if search is not None:
            mean_steps = on_host(np.exp(search.log_average), search.log_average.dtype)
            if done < warmup:
                search = continue_search(search, settled=3 * done > warmup)
        return super().digest(tuning, done, warmup)._replace(length=Length(mean_steps, search))

    def draw_steps(self, key: Array, tuning: Tuning) -> Array:
        """The number of steps of a trajectory, shape (); it depends on nothing but the key and the tuning."""
        length: Length = tuning.length
        most = jnp.minimum(self.max_steps, jnp.left_shift(jnp.ones_like(tuning.doublings), tuning.doublings))
        drawn = jnp.ceil(uniform(key, 0, length.mean_steps.dtype) * (2.0 * length.mean_steps - 1.0))
        return jnp.clip(drawn.astype(most.dtype), 1, most)

    @property
    def _longest(self) -> float:
        return (self.max_steps + 1) / 2


def update_length(length: Length, turned: Array, warming: Array) -> Length:
    """Learn from one trajectory while `warming`, else leave everything as it is.

    Args:
        length: before.
        turned: whether the trajectory has turned back, shape ().
        warming: whether this is warm-up, shape ().
    """
    search = length.search
    if search is None:
        return length
    found = update_search(search, 1.0 - turned.astype(search.target.dtype), jnp.zeros((), bool))
    # No trajectory is shorter than one step, whatever comes of it.
    found = found._replace(log_step=jnp.maximum(found.log_step, 0.0))
    found = StepSearch(*(jnp.where(warming, new, old) for new, old in zip(found, search, strict=True)))
    return length._replace(
        mean_steps=jnp.where(warming, jnp.exp(found.log_step), length.mean_steps),
        search=found,
    )
