"""The contracts of this layer: what is sampled (a target), how to sample it (a sampler), and its kernel.

To add a sampler, write one file with a frozen dataclass that implements `AbstractSampler` and builds an
`AbstractKernel`, and export it from `dualtape.samplers`.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Protocol, cast

import jax
import numpy as np

from ..ad.adtypes import Measurement

Array = jax.Array
Constants = tuple[Any, ...]


class Target(Protocol):
    """A log density over a flat array, whose coordinates belong to named sites.

    The density may take constants: arrays that do not change while this target is being sampled. Data are
    constants, and so is, for a block of a Gibbs sampler, whatever the other blocks determine.
    """

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of their coordinates."""

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""

    @property
    def constants(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the constants."""

    def log_density(self, position: Array, *constants: Any) -> Array:
        """The log density, shape (), at a position of shape (dimension,)."""

    def restrict(self, sites: tuple[str, ...]) -> Conditional:
        """The conditional of some of the sites, a non-empty subset, given the others."""


class Conditional(Protocol):
    """The density of one block of coordinates given the rest of a position."""

    @property
    def target(self) -> Target:
        """The block's own density, up to a factor that does not depend on the block."""

    @property
    def depends_on_rest(self) -> bool:
        """Whether the block's density changes when other coordinates move."""

    def constants(self, position: Array, constants: Constants) -> Constants:
        """The constants of the block's target, from a whole position and the whole target's constants.

        Everything in the block's density that the rest determines: to be computed once per update, outside the
        loops of the block's sampler.
        """

    def take(self, position: Array) -> Array:
        """The block's coordinates out of a whole position."""

    def put(self, position: Array, block: Array) -> Array:
        """A whole position with the block's coordinates replaced."""


@dataclass(frozen=True)
class BlockReport:
    """What was decided for one block of coordinates; recorded in the result.

    Args:
        block: the block's name, its sites joined by commas.
        sampler: the sampler, as the user would write it.
        dimension: number of unconstrained coordinates.
        adtype: the backend that differentiates, as the user would write it; None where nothing does.
        reason: why this backend.
        measurements: what the choice rests on, where it was measured.
        audited_by: the backend whose gradient is compared with this one's now and then; None without an audit.
    """

    block: str
    sampler: str
    dimension: int
    adtype: str | None
    reason: str | None
    measurements: tuple[Measurement, ...] = ()
    audited_by: str | None = None


class AbstractKernel(abc.ABC):
    """A Markov kernel as pure functions, and the rules by which it learns its parameters during warm-up.

    The state is what must survive a step; the info is what one may want to look at; the tuning holds every
    parameter that warm-up adapts. All three are pytrees of arrays, and the tuning is an argument of `step`, so
    warm-up and sampling share one compiled program.
    """

    @property
    @abc.abstractmethod
    def reports(self) -> tuple[BlockReport, ...]:
        """What was decided, one entry for each block."""

    @abc.abstractmethod
    def init(self, position: Array, constants: Constants) -> Any:
        """The state at a position; also the way to renew a state whose constants have changed."""

    @abc.abstractmethod
    def position(self, state: Any) -> Array:
        """The position, shape (dimension,), in a state."""

    @abc.abstractmethod
    def step(self, key: Array, state: Any, tuning: Any, constants: Constants) -> tuple[Any, Any]:
        """One transition that leaves the target invariant, for any fixed tuning."""

    @abc.abstractmethod
    def init_tuning(self) -> Any:
        """The tuning before the first step."""

    @abc.abstractmethod
    def tune(self, tuning: Any, position: Array, info: Any) -> Any:
        """Learn from one step of warm-up, its end and its info; compiled into the program beside `step`."""

    @abc.abstractmethod
    def statistics(self, info: Any) -> dict[str, Array]:
        """What of an info is recorded with every draw.

        Scalars, under the names that ArviZ knows (`lp`, `diverging`, `acceptance_rate`, ...); a name that begins
        with `block_` has one entry for each of `reports`.
        """

    @abc.abstractmethod
    def schedule(self, warmup: int) -> tuple[int, ...]:
        """After which steps of a warm-up of `warmup` steps `retune` is to be called, ascending."""

    @abc.abstractmethod
    def retune(self, tuning: Any, done: int, warmup: int) -> Any:
        """Digest what was learned, on the host, after `done` steps; `tuning` holds NumPy arrays."""


class AbstractSampler(abc.ABC):
    """A sampler as the user writes it: a frozen value."""

    @abc.abstractmethod
    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """The kernel for a target.

        Args:
            target: what to sample.
            dtype: floating dtype of positions.

        Raises:
            DifferentiationError: where the sampler's adtype cannot differentiate the target.
        """


def on_host(value: Any, dtype: Any) -> Array:
    """A NumPy array, which stands for a JAX array in any pytree; nothing is compiled or moved."""
    return cast(Array, np.asarray(value, dtype))


def block_name(sites: tuple[str, ...]) -> str:
    """How a block is called in messages and results."""
    return ",".join(sites)
