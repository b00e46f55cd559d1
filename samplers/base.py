"""The contracts of this layer: what is sampled (a target), how to sample it (a sampler), and its kernel.

To add a sampler, write one file with a frozen dataclass that implements `AbstractSampler` and builds an
`AbstractKernel`, and export it from `dualtape.samplers`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..ad.adtypes import Measurement

Array = jax.Array
Constants = tuple[Any, ...]


class Target(Protocol):
    """A log density over a flat array, whose coordinates belong to named sites.

    The density may take constants: arrays that do not change while this target is being sampled. Data are
    constants, and so is, for a block of a Gibbs sampler, whatever the other blocks determine.

    Coordinates of discrete sites hold their values, which are whole numbers.
    """

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of their coordinates."""

    @property
    def discrete(self) -> tuple[str, ...]:
        """Those of the sites that are discrete, so that the density has no gradient there."""

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many coordinates each site has."""

    @property
    def constants(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the constants."""

    @property
    def signature(self) -> Hashable:
        """Equal for two targets if and only if they are the same function of position and constants."""

    def log_density(self, position: Array, *constants: Any) -> Array:
        """The log density, shape (), at a position of shape (dimension,)."""


class ExactTarget(Target, Protocol):
    """A target that can be drawn from directly."""

    def draw(self, key: Array, *constants: Any) -> Array:
        """A position drawn from the target, shape (dimension,)."""


class PriorTarget(Target, Protocol):
    """A target that is a prior, which can be drawn from, times a likelihood."""

    def draw_prior(self, key: Array, *constants: Any) -> Array:
        """A position drawn from the prior, shape (dimension,)."""

    def log_likelihood(self, position: Array, *constants: Any) -> Array:
        """The log density without that of the prior, shape ()."""


class GaussianTarget(PriorTarget, Protocol):
    """A target whose prior is Gaussian in the coordinates of a position."""

    def mean(self, *constants: Any) -> Array:
        """The mean of the prior, shape (dimension,)."""


class ValuesTarget(Target, Protocol):
    """A target whose positions correspond to values of sites in their supports."""

    def constrain(self, position: Array, *constants: Any) -> tuple[dict[str, Array], Array]:
        """The values by site, and log |det ∂values/∂position|, shape ()."""

    def unconstrain(self, values: dict[str, Array], *constants: Any) -> Array:
        """The position that corresponds to values; not finite outside their supports."""


class FiniteTarget(Target, Protocol):
    """A target over discrete coordinates, each with finitely many values.

    Coordinates of the same colour are independent given all others.
    """

    @property
    def supports(self) -> tuple[np.ndarray[Any, Any], ...]:
        """The values of each coordinate, ascending."""

    @property
    def colours(self) -> tuple[np.ndarray[Any, Any], ...]:
        """A partition of the coordinates: the numbers of those of each colour, ascending."""

    def by_coordinate(self, position: Array, *constants: Any) -> Array:
        """For each coordinate, the sum of all terms that depend on it, shape (dimension,)."""


class StateSpaceTarget(Target, Protocol):
    """A target over the states of a Markov chain, of d coordinates each, which make up a position one after the other.

        π(x_0, ..., x_{T-1}) ∝ ∏_t p_t(x_t | x_{t-1}) g_t(x_{t-1}, x_t)

    Times are numbers or traced arrays of shape (); at time 0, which is always a number, the state before is ignored.
    """

    @property
    def length(self) -> int:
        """T, the number of states."""

    def draw_state(self, key: Array, time: Array | int, previous: Array, *constants: Any) -> Array:
        """A state from p_t( . | previous), shape (d,)."""

    def log_transition(self, time: Array | int, previous: Array, state: Array, *constants: Any) -> Array:
        """The log density of p_t( . | previous) at a state, shape ()."""

    def log_weight(self, time: Array | int, previous: Array, state: Array, *constants: Any) -> Array:
        """The log of g_t, all other terms at this time, shape ()."""


class Block(Protocol):
    """One block of coordinates, and its density given the rest of a position.

    What a sampler wants to know beyond the density, it asks for by one of the methods that return another
    view of the same block, with a richer target. These refuse by name where the model has no such thing.
    """

    @property
    def target(self) -> Target:
        """The block's own density, up to a factor that does not depend on the block."""

    @property
    def coordinates(self) -> np.ndarray[Any, Any]:
        """Where the block's coordinates stand in a whole position."""

    @property
    def depends_on_rest(self) -> bool:
        """Whether the block's density changes when other coordinates move."""

    def depends_on(self, coordinates: np.ndarray[Any, Any]) -> bool:
        """Whether the block's density changes when one of these coordinates, outside the block, moves."""

    def prepare(self, data: Constants) -> Constants:
        """What the data determine of the block's constants: to be computed once per run."""

    def constants(self, position: Array, prepared: Constants) -> Constants:
        """The constants of the block's target, from a whole position and what `prepare` gave.

        Everything in the block's density that the rest determines: to be computed once per update, outside the
        loops of the block's sampler.
        """

    @property
    def names(self) -> tuple[Hashable, ...]:
        """A name for each result of `prepare`: two blocks of a joint have one in common only for the same array."""

    @property
    def fixed(self) -> tuple[int | None, ...]:
        """For each constant, which result of `prepare` it is, or None where the rest has a part in it."""

    def with_prior(self) -> Block:
        """With a `PriorTarget`: the sites' own distributions given the rest, and all other terms."""

    def with_gaussian_prior(self) -> Block:
        """With a `GaussianTarget`; refused unless all sites of the block have Gaussian distributions."""

    def with_values(self) -> Block:
        """With a `ValuesTarget`."""

    def enumerated(self) -> Block:
        """With a `FiniteTarget`; refused unless all sites of the block are discrete and their supports finite."""

    def conjugate(self) -> Block:
        """With an `ExactTarget`; refused unless the conditional is of a known family."""

    def state_space(self) -> Block:
        """With a `StateSpaceTarget`; refused unless the sites, in their order, form a Markov chain."""

    def drawn_by(self, function: Callable[..., Any], *, verify: bool = True) -> Block:
        """With an `ExactTarget` that the user's function gives; compared with the density where `verify`."""


class Joint(Protocol):
    """The log density of everything that is to be sampled, given data; blocks are taken from it."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of their coordinates."""

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""

    @property
    def index_shapes(self) -> dict[str, tuple[int, ...]]:
        """By site, the leading dimensions whose entries can be put into different blocks."""

    @property
    def sizes(self) -> dict[str, int]:
        """By site, how many coordinates it has."""

    def restrict(self, block: Mapping[str, tuple[str, np.ndarray[Any, Any] | None]]) -> Block:
        """A block given all other coordinates.

        Args:
            block: what it consists of: by label, a site and the numbers of its coordinates inside the site, None for
                all of them.
        """


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

    def prepare(self, constants: Constants) -> Constants:
        """What `init` and `step` want to have worked out from the constants of the target, once per run."""
        return constants

    @abc.abstractmethod
    def init(self, position: Array, constants: Constants) -> Any:
        """The state at a position; also the way to renew a state whose constants have changed."""

    def is_sound(self, position: Array, constants: Constants) -> Array:
        """Whether a chain can start at a position: everything in the state there is finite, shape ()."""
        return all_finite(self.init(position, constants))

    @abc.abstractmethod
    def position(self, state: Any) -> Array:
        """The position, shape (dimension,), in a state."""

    @abc.abstractmethod
    def step(self, key: Array, state: Any, tuning: Any, constants: Constants) -> tuple[Any, Any]:
        """One transition that leaves the target invariant, for any fixed tuning."""

    def advance(
        self, key: Array, state: Any, tuning: Any, constants: Constants, warming: Array
    ) -> tuple[Any, Any, Any]:
        """One step, and what is learned from it while `warming`: the new state, the new tuning, and the info."""
        state, info = self.step(key, state, tuning, constants)
        learned = self.tune(tuning, state, info)
        return state, jax.tree.map(lambda new, old: jnp.where(warming, new, old), learned, tuning), info

    @abc.abstractmethod
    def init_tuning(self) -> Any:
        """The tuning before the first step."""

    @abc.abstractmethod
    def tune(self, tuning: Any, state: Any, info: Any) -> Any:
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

    def trial(self, warmup: int) -> int:
        """How many of the first steps of a warm-up are to be made from several points, to go on from the best end."""
        return 0

    @abc.abstractmethod
    def retune(self, tuning: Any, done: int, warmup: int) -> Any:
        """Digest what was learned, on the host, after `done` steps; `tuning` holds NumPy arrays.

        With `done` 0 it makes the tuning for the first steps of a trial.
        """


class AbstractSampler(abc.ABC):
    """A sampler of one block as the user writes it: a frozen value."""

    def view(self, block: Block) -> Block:
        """A block with what this sampler wants to know of it beyond its log density.

        Raises:
            ValueError: naming the site, where the model does not have it.
        """
        return block

    @abc.abstractmethod
    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """The kernel for a target.

        Args:
            target: what to sample.
            dtype: floating dtype of positions.

        Raises:
            DifferentiationError: where the sampler's adtype cannot differentiate the target.
        """


def all_finite(tree: Any) -> Array:
    """Whether every number in a pytree of arrays is finite, shape ()."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.ones((), bool)


def on_host(value: Any, dtype: Any) -> Array:
    """A NumPy array, which stands for a JAX array in any pytree; nothing is compiled or moved."""
    return cast(Array, np.asarray(value, dtype))


def block_name(sites: tuple[str, ...]) -> str:
    """How a block is called in messages and results."""
    return ",".join(sites)
