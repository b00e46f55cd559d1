"""The log density of a block of a model given the rest: only the terms that depend on it."""

from __future__ import annotations

import abc
import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..programs.canonical import canonical
from ..programs.rolling import FEWEST
from .coordinates import Array, Coordinates, Part
from .given import Given

if TYPE_CHECKING:
    from ..log_density import ModelDensity


@dataclass(frozen=True)
class AbstractBlockDensity(abc.ABC):
    """The log density of a block, given constants; subclasses know more of it.

    Args:
        coordinates: of the block's parts, in the order of its positions.
        discrete: the discrete ones among the parts.
        given: the program; its first results are the terms, or their sum.
        terms: their names.
    """

    coordinates: Coordinates
    discrete: tuple[str, ...]
    given: Given
    terms: tuple[str, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, or labels of the parts of sites, in the order of their coordinates."""
        return tuple(self.coordinates.shapes)

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""
        return self.coordinates.dimension

    @property
    def sizes(self) -> dict[str, int]:
        """How many coordinates each site, or part of one, has."""
        return self.coordinates.sizes

    @property
    def constants(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the constants."""
        return self.given.shapes

    @functools.cached_property
    def signature(self) -> Hashable:
        """Equal for two densities only if they are the same function of position and constants."""
        after = self.given.after
        shapes = tuple(self.coordinates.shapes.values())
        program = canonical(after.inputs, after.equations, after.outputs)
        return type(self), self.identity(), shapes, len(self.terms), program

    @abc.abstractmethod
    def identity(self) -> Hashable:
        """What distinguishes this density from others of its type beside its program."""

    def log_density(self, position: Array, *constants: Any) -> Array:
        """The sum of all terms, shape ()."""
        total: Array = functools.reduce(jnp.add, self.results(position, *constants)[: len(self.terms)])
        return total

    def results(self, position: Any, *constants: Any) -> list[Any]:
        """All results of the program."""
        return self.given.after(*self.coordinates.split(position), *constants)


@dataclass(frozen=True)
class PlainDensity(AbstractBlockDensity):
    """The log density of a block, of which nothing more is known; its program has the sum of the terms for them."""

    @classmethod
    def of(cls, whole: ModelDensity, parts: Mapping[str, Part]) -> PlainDensity:
        """The density of a block of a model."""
        coordinates, discrete, given, terms = programs_of(whole, parts, ())
        # A block that is a part of a site has been cut down to few elements of each term already.
        many = len(terms) >= FEWEST and not given.indices
        return cls(coordinates, discrete, given.rolled(len(terms)) if many else given, terms)

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return ()


def programs_of(
    whole: ModelDensity, parts: Mapping[str, Part], extra: Sequence[int]
) -> tuple[Coordinates, tuple[str, ...], Given, tuple[str, ...]]:
    """What a density of a block is made of; see `AbstractBlockDensity`.

    Args:
        whole: the model.
        parts: of the block.
        extra: further results that its program is to have after the terms, by number in the model's program.
    """
    terms = terms_of(whole, parts)
    given = Given.of(whole, parts, [whole.terms[term] for term in terms], extra)
    shapes = {label: whole.coordinates.part_shape(part) for label, part in parts.items()}
    discrete = tuple(label for label, (site, _) in parts.items() if site in whole.discrete)
    return Coordinates(shapes), discrete, given, terms


def terms_of(whole: ModelDensity, parts: Mapping[str, Part]) -> tuple[str, ...]:
    """The terms that depend on a block; all of them, the constant ones too, where the block is everything."""
    if sum(len(whole.coordinates.positions(part)) for part in parts.values()) == whole.dimension:
        return tuple(whole.terms)
    block = {whole.sites.index(site) for site, _ in parts.values()}
    dependencies = whole.program.dependencies()
    return tuple(term for term, i in whole.terms.items() if dependencies[i] & block)
