"""Blocks of discrete sites with finitely many values: which these are, and which coordinates are independent."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from ...ad.equations import shaped
from ..blocks.coordinates import Array, IntArray, Part
from ..blocks.density import AbstractBlockDensity, programs_of
from ..blocks.given import Given
from ..programs.program import Program
from ..programs.reach import Reach, colouring, reach, unsummed
from ..transforms import describe
from .priors import innermost, known_distribution

if TYPE_CHECKING:
    from ..log_density import ModelDensity

HostArray = np.ndarray[Any, Any]

# A coordinate with more values than these is better served by a random walk.
_MOST_VALUES = 10_000


@dataclass(frozen=True)
class Piece:
    """A term before it is summed.

    Args:
        output: of the block's program.
        elements: for each coordinate, the elements (of the flat array) that depend on it, filled up with the number of
            elements; shape (dimension, most). None where element i is that of coordinate i.
        common: the elements that may depend on every coordinate.
    """

    output: int
    elements: IntArray | None
    common: IntArray

    def sums(self, array: Array) -> Array:
        """For each coordinate, the sum of the elements that depend on it."""
        flat = jnp.ravel(array)
        shared = jnp.sum(flat[self.common]) if len(self.common) else 0.0
        if self.elements is None:
            return flat + shared
        padded = jnp.concatenate([flat, jnp.zeros(1, flat.dtype)])
        return jnp.sum(padded.at[self.elements].get(mode="promise_in_bounds"), axis=1) + shared

    @property
    def identity(self) -> Hashable:
        """What distinguishes it."""
        return self.output, None if self.elements is None else self.elements.tobytes(), self.common.tobytes()


@dataclass(frozen=True)
class FiniteDensity(AbstractBlockDensity):
    """The density of a block of discrete coordinates.

    Args:
        supports: the values of each coordinate, ascending.
        colours: a partition of the coordinates; those of one colour are independent given all others.
        pieces: of the terms.
    """

    supports: tuple[HostArray, ...]
    colours: tuple[IntArray, ...]
    pieces: tuple[Piece, ...]

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return (
            tuple(values.tobytes() for values in self.supports),
            tuple(colour.tobytes() for colour in self.colours),
            tuple(piece.identity for piece in self.pieces),
        )

    def by_coordinate(self, position: Array, *constants: Any) -> Array:
        """For each coordinate, the sum of all elements of terms that depend on it, shape (dimension,)."""
        results = self.results(position, *constants)
        sums = [piece.sums(results[piece.output]) for piece in self.pieces]
        return functools.reduce(jnp.add, sums, jnp.zeros(self.dimension, position.dtype))


def enumerated(whole: ModelDensity, parts: Mapping[str, Part]) -> FiniteDensity:
    """A block of discrete sites with finitely many values.

    Raises:
        ValueError: naming the site, where it is not discrete, or its support is not known or not finite.
    """
    supports = [values for label, part in parts.items() for values in _support(whole, label, part)]
    coordinates, discrete, given, terms = programs_of(whole, parts, ())
    program = given.after
    count = len(program.outputs)
    inner = [unsummed(program, i) for i in range(count)]
    program = Program(program.inputs, program.equations, (*program.outputs, *inner))
    given = dataclasses.replace(given, after=program)
    numbers = np.split(
        np.arange(coordinates.dimension), np.cumsum([np.prod(s, dtype=int) for s in coordinates.shapes.values()])[:-1]
    )
    inputs = {
        i: own.reshape(shape) for i, (own, shape) in enumerate(zip(numbers, coordinates.shapes.values(), strict=True))
    }
    found = reach(program, inputs, _known(whole, given))[count:]
    pieces = tuple(_piece(count + i, one, coordinates.dimension) for i, one in enumerate(found))
    colours = colouring(coordinates.dimension, found)
    return FiniteDensity(coordinates, discrete, given, terms, tuple(supports), colours, pieces)


def _support(whole: ModelDensity, label: str, part: Part) -> list[HostArray]:
    """The values of each coordinate of a part."""
    site, inside = part
    if site not in whole.discrete:
        raise ValueError(
            f"DiscreteGibbs: site '{label}' is continuous, and this sampler enumerates finitely many values; use "
            f"NUTS() or Slice() for it."
        )
    family = describe(known_distribution(whole, label, site))
    template = whole.distributions[site]
    # What other sites determine is not known: NaN, which a support that depends on it passes on.
    leaves = whole.program.select(template.outputs)
    sites = [jnp.full(shape, jnp.nan) for shape in whole.coordinates.shapes.values()]
    filled = [
        np.full(shaped(out)[0], np.nan) if needs & set(range(len(sites))) else value
        for out, needs, value in zip(leaves.outputs, leaves.dependencies(), leaves(*sites, *whole.data), strict=True)
    ]
    distribution = template.fill(filled)
    shape = whole.coordinates.shapes[site]
    support: Any = innermost(distribution).support
    if innermost(distribution).event_shape:
        raise ValueError(
            f"DiscreteGibbs: the entries of site '{label}' ({family}) are not free of each other, so that they cannot "
            f"be updated one by one; write the site as Categorical or Bernoulli variables, or use MH() for it."
        )
    if support is constraints.boolean:
        low, high = np.zeros(shape), np.ones(shape)
    elif hasattr(support, "lower_bound") and hasattr(support, "upper_bound"):
        low, high = (np.broadcast_to(np.asarray(b, float), shape) for b in (support.lower_bound, support.upper_bound))
    else:
        raise ValueError(
            f"DiscreteGibbs: site '{label}' ({family}) has infinitely many values, which cannot be enumerated; use "
            f"MH() for it."
        )
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError(
            f"DiscreteGibbs: the values that site '{label}' ({family}) can take depend on other sites; use MH() for it."
        )
    if (high - low).max() >= _MOST_VALUES:
        raise ValueError(
            f"DiscreteGibbs: site '{label}' ({family}) has {int((high - low).max()) + 1} values, too many to "
            f"enumerate at every update; use MH() for it."
        )
    bounds = np.stack([low.ravel(), high.ravel()], axis=1)
    return [np.arange(a, b + 1) for a, b in (bounds if inside is None else bounds[inside])]


def _known(whole: ModelDensity, given: Given) -> dict[int, HostArray]:
    """The integers among the constants that data alone determine, by number of the program's input."""
    prepared = given.prepare(whole.data)
    first = len(given.after.inputs) - len(given.fixed)
    return {
        first + k: np.asarray(prepared[i])
        for k, i in enumerate(given.fixed)
        if i is not None and np.asarray(prepared[i]).dtype.kind in "biu"
    }


def _piece(output: int, found: Reach, dimension: int) -> Piece:
    low, high, many = (np.ravel(array) for array in (found.low, found.high, found.many))
    everyone = np.flatnonzero(many)
    owned = ~many & (low >= 0)
    if not len(everyone) and np.array_equal(low, np.arange(dimension)) and np.array_equal(high, low):
        return Piece(output, None, everyone)
    elements = np.flatnonzero(owned)
    two = elements[high[elements] != low[elements]]
    owners = np.concatenate([low[elements], high[two]])
    members = np.concatenate([elements, two])
    order = np.argsort(owners, kind="stable")
    owners, members = owners[order], members[order]
    counts = np.bincount(owners, minlength=dimension)
    table = np.full((dimension, max(int(counts.max(initial=0)), 1)), low.size)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    table[owners, within] = members
    return Piece(output, table, everyone)
