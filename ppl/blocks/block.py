"""Blocks of a model: some sites, or parts of sites, given all others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..views import conditionals, conjugacy, enumeration, priors, state_space, values
from .coordinates import Array, IntArray, Part, as_parts
from .density import AbstractBlockDensity, PlainDensity

if TYPE_CHECKING:
    from ..log_density import ModelDensity


@dataclass(frozen=True)
class Block:
    """A block of a model, as samplers see it.

    Args:
        whole: the model.
        parts: what the block consists of, by label.
        target: its density given the rest.
    """

    whole: ModelDensity
    parts: Mapping[str, Part]
    target: AbstractBlockDensity

    @functools.cached_property
    def coordinates(self) -> IntArray:
        """Where the block's coordinates stand in a whole position."""
        return np.concatenate([self.whole.coordinates.positions(part) for part in self.parts.values()])

    @property
    def depends_on_rest(self) -> bool:
        """Whether the block's density changes when other coordinates move."""
        return bool(self.target.given.sources)

    def depends_on(self, coordinates: IntArray) -> bool:
        """Whether the block's density changes when one of these coordinates, outside the block, moves."""
        return any(np.isin(source.positions, coordinates).any() for source in self.target.given.sources)

    def prepare(self, data: Sequence[Any]) -> tuple[Any, ...]:
        """What the data determine of the block's constants: to be computed once per run."""
        return self.target.given.prepare(data)

    def constants(self, position: Array, prepared: Sequence[Any]) -> tuple[Any, ...]:
        """The constants of the block's target, from a whole position and what `prepare` gave."""
        return self.target.given.constants(position, prepared)

    @property
    def names(self) -> tuple[Hashable, ...]:
        """A name for each result of `prepare`: two blocks of a model have one in common only for the same array."""
        names: tuple[Any, ...] = self.target.given.static.outputs
        return names

    @property
    def fixed(self) -> tuple[int | None, ...]:
        """For each constant, which result of `prepare` it is, or None where the rest has a part in it."""
        return self.target.given.fixed

    def with_prior(self) -> Block:
        """See `samplers.base.Block.with_prior`."""
        return self._seen_as(priors.with_prior(self.whole, self.parts))

    def with_gaussian_prior(self) -> Block:
        """See `samplers.base.Block.with_gaussian_prior`."""
        return self._seen_as(priors.with_gaussian_prior(self.whole, self.parts))

    def with_values(self) -> Block:
        """See `samplers.base.Block.with_values`."""
        return self._seen_as(values.with_values(self.whole, self.parts))

    def drawn_by(self, function: Callable[..., Any], *, verify: bool = True) -> Block:
        """See `samplers.base.Block.drawn_by`."""
        return self._seen_as(conditionals.drawn_by(self.whole, self.parts, function, verify=verify))

    def enumerated(self) -> Block:
        """See `samplers.base.Block.enumerated`."""
        return self._seen_as(enumeration.enumerated(self.whole, self.parts))

    def state_space(self) -> Block:
        """See `samplers.base.Block.state_space`."""
        return self._seen_as(state_space.state_space(self.whole, self.parts))

    def conjugate(self) -> Block:
        """See `samplers.base.Block.conjugate`."""
        return self._seen_as(conjugacy.conjugate(self.whole, self.parts))

    def _seen_as(self, target: AbstractBlockDensity) -> Block:
        return Block(self.whole, self.parts, target)


def block_of(whole: ModelDensity, block: Iterable[str] | Mapping[str, Part]) -> Block:
    """A block of a model, with the terms that depend on it."""
    parts = as_parts(block)
    return Block(whole, parts, PlainDensity.of(whole, parts))
