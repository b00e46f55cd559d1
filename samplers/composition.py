"""Several samplers as one kernel: compositions, and how they are put together."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp

from .alone import Alone, whole_constants
from .base import AbstractKernel, AbstractSampler, Array, Block, BlockReport, Constants, Joint, block_name
from .group import Group, Memory, Prepared
from .moves import AbstractMove, InTurn, Place, Surroundings, UpdateAll
from .partition import Parts
from .records import Record


class AbstractComposition(abc.ABC):
    """Samplers put together, as the user writes it: a frozen value."""

    @abc.abstractmethod
    def compose(self, composer: Composer, parts: Parts) -> AbstractMove:
        """The moves that update some parts of what is to be sampled.

        Args:
            composer: collects the blocks.
            parts: sites and parts of sites, by label.

        Raises:
            ValueError: where the composition does not fit the sites; it names the culprits.
        """


Sampler = AbstractSampler | AbstractComposition


class Member(NamedTuple):
    """A block that is to be updated by a sampler of one block.

    Args:
        sampler: as the user wrote it.
        block: as the sampler wants to see it.
        repeats: how many times an update is made in a row.
    """

    sampler: AbstractSampler
    block: Block
    repeats: int


@dataclass
class Composer:
    """Collects the groups of alike blocks while a composition is put together.

    Args:
        joint: what is to be sampled.
        dtype: of positions.
    """

    joint: Joint
    dtype: Any
    groups: list[Group] = field(default_factory=list)
    kernels: dict[Hashable, AbstractKernel] = field(default_factory=dict)

    def member(self, sampler: AbstractSampler, parts: Parts, repeats: int = 1) -> Member:
        """A block for a sampler."""
        return Member(sampler, sampler.view(self.joint.restrict(parts)), repeats)

    def group(self, members: Sequence[Member]) -> int:
        """The number of a new group of members that are alike."""
        first = members[0]
        identity = (first.sampler, first.block.target.signature)
        if identity not in self.kernels:
            self.kernels[identity] = first.sampler.build(first.block.target, self.dtype)
        blocks = tuple(member.block for member in members)
        self.groups.append(Group(blocks, self.kernels[identity], first.repeats))
        return len(self.groups) - 1


def alike(one: Member, other: Member) -> bool:
    """Whether one compiled update serves both."""
    return (one.sampler, one.repeats) == (other.sampler, other.repeats) and (
        one.block.target.signature == other.block.target.signature
    )


def build_kernel(sampler: Sampler, joint: Joint, dtype: Any) -> AbstractKernel:
    """The kernel of a sampler or composition over everything that is to be sampled; its constants are the data.

    Args:
        sampler: as the user wrote it.
        joint: what is to be sampled.
        dtype: floating dtype of positions.

    Raises:
        ValueError, DifferentiationError: where the sampler does not fit; it names the block.
    """
    everything: Parts = {site: (site, None) for site in joint.sites}
    whole = joint.restrict(everything)
    if isinstance(sampler, AbstractSampler):
        return Alone.of(sampler, whole, dtype)
    composer = Composer(joint, dtype)
    move = sampler.compose(composer, everything)
    return CompositionKernel(whole, tuple(composer.groups), move)


class State(NamedTuple):
    """What a composition carries from step to step.

    Args:
        position: of everything, shape (dimension,).
        kept: for each group the states of its kernel where nothing can make them stale, else None.
    """

    position: Array
    kept: tuple[Any, ...]


class Info(NamedTuple):
    """What happened in one step.

    Args:
        log_density: of everything, at the end of the step, shape ().
        records: of the updates of each group.
    """

    log_density: Array
    records: tuple[Record, ...]


@dataclass(frozen=True)
class CompositionKernel(AbstractKernel):
    """The kernel of a composition. Every block is conditioned on the values that the others have at its turn.

    Args:
        whole: everything as one block, for the log density of a draw.
        groups: of alike blocks.
        move: in which order they are updated.
    """

    whole: Block
    groups: tuple[Group, ...]
    move: AbstractMove

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        return tuple(
            dataclasses.replace(group.kernel.reports[0], block=block_name(block.target.sites))
            for group in self.groups
            for block in group.blocks
        )

    def prepare(self, constants: Constants) -> Constants:
        """See `AbstractKernel.prepare`."""
        return whole_constants(self.whole, constants), *(group.prepare(constants) for group in self.groups)

    def init(self, position: Array, constants: Constants) -> State:
        """See `AbstractKernel.init`."""
        kept = [group.init(position, own) for group, own in zip(self.groups, constants[1:], strict=True)]
        return State(position, tuple(kept))

    def is_sound(self, position: Array, constants: Constants) -> Array:
        """See `AbstractKernel.is_sound`: every block can start, those too whose state is not kept."""
        sound = [group.is_sound(position, own) for group, own in zip(self.groups, constants[1:], strict=True)]
        return jnp.all(jnp.stack(sound))

    def position(self, state: State) -> Array:
        """See `AbstractKernel.position`."""
        return state.position

    def step(self, key: Array, state: State, tuning: Any, constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        state, _, info = self.advance(key, state, tuning, constants, jnp.zeros((), bool))
        return state, info

    def tune(self, tuning: Any, state: State, info: Info) -> Any:
        """See `AbstractKernel.tune`: `advance` has done it, after every update of a block."""
        return tuning

    def advance(
        self, key: Array, state: State, tuning: tuple[Any, ...], constants: Constants, warming: Array
    ) -> tuple[State, Any, Info]:
        """See `AbstractKernel.advance`."""
        prepared: tuple[Prepared, ...] = constants[1:]
        memories = tuple(
            Memory(kept, learned, None if self._simple else group.empty_record(learned))
            for group, kept, learned in zip(self.groups, state.kept, tuning, strict=True)
        )
        place = self.move.apply(key, Place(state.position, memories), Surroundings(self.groups, prepared, warming))
        log_density = self.whole.target.log_density(place.position, *constants[0])
        records = tuple(memory.record for memory in place.memories if memory.record is not None)
        after = State(place.position, tuple(memory.state for memory in place.memories))
        return after, tuple(memory.tuning for memory in place.memories), Info(log_density, records)

    def init_tuning(self) -> tuple[Any, ...]:
        """See `AbstractKernel.init_tuning`."""
        return tuple(group.init_tuning() for group in self.groups)

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`: whenever it is a group's turn, by its own count of updates."""
        return tuple(sorted({step for i in range(len(self.groups)) for step, _ in self._turns(i, warmup)}))

    def retune(self, tuning: tuple[Any, ...], done: int, warmup: int) -> tuple[Any, ...]:
        """See `AbstractKernel.retune`: only the groups whose turn it is."""
        after = list(tuning)
        for i, group in enumerate(self.groups):
            for step, own in self._turns(i, warmup):
                if step == done:
                    after[i] = group.retune(after[i], own, self._updates(i, warmup))
        return tuple(after)

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`: each block's own, NaN where it has none, and what sums them up."""
        dtype = info.log_density.dtype
        names = sorted({name for record in info.records for name in record.statistics} - {"lp"})
        merged = {f"block_{name}": self._by_block(info.records, name, dtype) for name in names}
        merged["lp"] = info.log_density
        if "diverging" in names:
            merged["diverging"] = jnp.any(merged["block_diverging"] > 0)
        if "n_steps" in names:
            merged["n_steps"] = jnp.nansum(merged["block_n_steps"]).astype(jnp.int32)
        return merged

    def _by_block(self, records: Sequence[Record], name: str, dtype: Any) -> Array:
        """One entry for each block; a statistic that all blocks have keeps its dtype, else NaN fills the gaps."""
        everywhere = all(name in record.statistics for record in records)
        columns = []
        for group, record in zip(self.groups, records, strict=True):
            found = record.statistics.get(name)
            column = jnp.full(len(group), jnp.nan, dtype) if found is None else jnp.reshape(found, (len(group),))
            columns.append(column if everywhere else column.astype(dtype))
        return jnp.concatenate(columns)

    @functools.cached_property
    def _simple(self) -> bool:
        """Whether every block is updated once a step, so that there is nothing to sum up."""
        moves = self.move.moves if isinstance(self.move, InTurn) else (self.move,)
        return all(isinstance(move, UpdateAll) for move in moves) and all(group.repeats == 1 for group in self.groups)

    def _updates(self, group: int, warmup: int) -> int:
        """How many updates each block of a group makes in a warm-up, in the mean."""
        return max(round(warmup * self._rates[group]), 1) if warmup else 0

    @functools.cached_property
    def _rates(self) -> dict[int, float]:
        rates = self.move.rates()
        return {i: rates[i] * group.repeats for i, group in enumerate(self.groups)}

    def _turns(self, group: int, warmup: int) -> list[tuple[int, int]]:
        """After which step of the warm-up a group is to be retuned, and how many updates of its own that is."""
        updates = self._updates(group, warmup)
        borders = self.groups[group].kernel.schedule(updates)
        return [(min(math.ceil(own / self._rates[group]), warmup), own) for own in borders]
