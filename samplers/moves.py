"""In which order the blocks of a composition are updated, as a tree of moves."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import Array
from .group import Group, Memory, Prepared
from .random import fold_in, uniform


class Place(NamedTuple):
    """Where a composition is within a step.

    Args:
        position: of everything, shape (dimension,).
        memories: of each group.
    """

    position: Array
    memories: tuple[Memory, ...]


@dataclass(frozen=True)
class Surroundings:
    """What does not change within a step.

    Args:
        groups: of blocks.
        prepared: what the data determine, for each group.
        warming: whether it is warm-up, shape ().
    """

    groups: Sequence[Group]
    prepared: Sequence[Prepared]
    warming: Array


class AbstractMove(abc.ABC):
    """Updates of some blocks."""

    @abc.abstractmethod
    def apply(self, key: Array, place: Place, given: Surroundings) -> Place:
        """Make the updates."""

    @abc.abstractmethod
    def rates(self) -> dict[int, float]:
        """How often each block of a group is updated, in the mean, by the number of the group."""


@dataclass(frozen=True)
class UpdateAll(AbstractMove):
    """Every block of a group once, in order."""

    group: int

    def apply(self, key: Array, place: Place, given: Surroundings) -> Place:
        """See `AbstractMove.apply`."""
        group = given.groups[self.group]
        return _put(
            place,
            self.group,
            group.update_all(
                key, place.position, place.memories[self.group], given.prepared[self.group], given.warming
            ),
        )

    def rates(self) -> dict[int, float]:
        """See `AbstractMove.rates`."""
        return {self.group: 1.0}


@dataclass(frozen=True)
class UpdateAny(AbstractMove):
    """One block of a group, each with the same probability."""

    group: int
    size: int

    def apply(self, key: Array, place: Place, given: Surroundings) -> Place:
        """See `AbstractMove.apply`."""
        group = given.groups[self.group]
        chance = uniform(fold_in(key, 0), 0, place.position.dtype)
        index = jnp.minimum((chance * self.size).astype(jnp.int32), self.size - 1) if self.size > 1 else 0
        memory, prepared = place.memories[self.group], given.prepared[self.group]
        outcome = group.update_one(fold_in(key, 1), place.position, memory, prepared, given.warming, index)
        return _put(place, self.group, outcome)

    def rates(self) -> dict[int, float]:
        """See `AbstractMove.rates`."""
        return {self.group: 1.0 / self.size}


@dataclass(frozen=True)
class InTurn(AbstractMove):
    """One move after the other."""

    moves: tuple[AbstractMove, ...]

    def apply(self, key: Array, place: Place, given: Surroundings) -> Place:
        """See `AbstractMove.apply`."""
        for index, move in enumerate(self.moves):
            place = move.apply(fold_in(key, index), place, given)
        return place

    def rates(self) -> dict[int, float]:
        """See `AbstractMove.rates`."""
        return _sum(self.moves, [1.0] * len(self.moves))


@dataclass(frozen=True)
class Times(AbstractMove):
    """One move several times over."""

    move: AbstractMove
    count: int

    def apply(self, key: Array, place: Place, given: Surroundings) -> Place:
        """See `AbstractMove.apply`."""

        def again(index: Array, place: Place) -> Place:
            return self.move.apply(fold_in(key, index), place, given)

        result: Place = lax.fori_loop(0, self.count, again, place)
        return result

    def rates(self) -> dict[int, float]:
        """See `AbstractMove.rates`."""
        return {group: self.count * rate for group, rate in self.move.rates().items()}


@dataclass(frozen=True)
class Choose(AbstractMove):
    """Moves drawn at random, one after the other.

    Args:
        moves: to choose from.
        probabilities: of each, summing to 1.
        count: how many are made in a step.
    """

    moves: tuple[AbstractMove, ...]
    probabilities: tuple[float, ...]
    count: int

    def apply(self, key: Array, place: Place, given: Surroundings) -> Place:
        """See `AbstractMove.apply`."""
        borders = np.cumsum(self.probabilities)[:-1]

        def one(index: Array, place: Place) -> Place:
            own = fold_in(key, index)
            chance = uniform(fold_in(own, 0), 0, place.position.dtype)
            chosen = jnp.sum(chance >= jnp.asarray(borders, chance.dtype), dtype=jnp.int32)
            branches = [lambda place, move=move: move.apply(fold_in(own, 1), place, given) for move in self.moves]
            result: Place = lax.switch(chosen, branches, place)
            return result

        result: Place = lax.fori_loop(0, self.count, one, place)
        return result

    def rates(self) -> dict[int, float]:
        """See `AbstractMove.rates`."""
        return _sum(self.moves, [self.count * p for p in self.probabilities])


def _sum(moves: Sequence[AbstractMove], weights: Sequence[float]) -> dict[int, float]:
    total: dict[int, float] = {}
    for own, weight in zip([move.rates() for move in moves], weights, strict=True):
        for group, rate in own.items():
            total[group] = total.get(group, 0.0) + weight * rate
    return total


def _put(place: Place, group: int, outcome: tuple[Array, Memory]) -> Place:
    position, memory = outcome
    return Place(position, (*place.memories[:group], memory, *place.memories[group + 1 :]))
