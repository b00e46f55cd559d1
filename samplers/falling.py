"""What a warm-up does differently while the chain falls towards the typical set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Array, Constants, on_host
from .hamiltonian import HamiltonianKernel, Info, State
from .warmup import Adaptation, Tuning


@dataclass(frozen=True)
class FallingAdaptation(Adaptation):
    """How a kernel learns during warm-up that moves in another way while the chain falls towards the typical set.

    From far out a chain arrives soon if its trajectories may gain kinetic energy and lose it at the next refreshment
    of momenta. A kernel that keeps the speed, or an energy within narrow bounds, can therefore do as HMC or NUTS do at
    the beginning of a warm-up, which `Tuning.falling` tells.

    Args:
        falling_share: of the warm-up, in [0, 1].
    """

    falling_share: float = 0.1

    def init(self, dimension: int, dtype: Any) -> Tuning:
        """See `Adaptation.init`."""
        return super().init(dimension, dtype)._replace(falling=on_host(True, np.bool_))

    def digest(self, tuning: Tuning, done: int, warmup: int) -> Tuning:
        """See `Adaptation.digest`."""
        falling = done < warmup and done <= self.falling_share * warmup
        return super().digest(tuning, done, warmup)._replace(falling=on_host(falling, np.bool_))


class FallingKernel(HamiltonianKernel):
    """A `HamiltonianKernel` whose transition looks at `Tuning.falling`."""

    def advance(
        self, key: Array, state: State, tuning: Tuning, constants: Constants, warming: Array
    ) -> tuple[State, Tuning, Info]:
        """See `AbstractKernel.advance`; without a warm-up there is nobody to tell that the chain has arrived."""
        assert tuning.falling is not None
        return super().advance(key, state, tuning._replace(falling=tuning.falling & warming), constants, warming)
