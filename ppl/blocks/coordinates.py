"""Where the unconstrained coordinates of sites, and of parts of sites, stand in a flat position."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
IntArray = np.ndarray[Any, np.dtype[np.integer[Any]]]

# A part of a site: the site, and the flat numbers of the part's coordinates among those of the site; None for all.
Part = tuple[str, IntArray | None]


@dataclass(frozen=True)
class Coordinates:
    """Where the unconstrained coordinates of each site stand in a flat position.

    Args:
        shapes: the shape of each site's unconstrained array, in order.
    """

    shapes: dict[str, tuple[int, ...]]

    @functools.cached_property
    def slices(self) -> dict[str, slice]:
        """The stretch of each site."""
        stops = np.cumsum([0, *self.sizes.values()]).tolist()
        return {name: slice(a, b) for name, a, b in zip(self.shapes, stops[:-1], stops[1:], strict=True)}

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """How many coordinates each site has."""
        return {site: int(np.prod(shape)) for site, shape in self.shapes.items()}

    @functools.cached_property
    def dimension(self) -> int:
        """The length of a position."""
        return sum(self.sizes.values())

    def split(self, position: Any) -> list[Array]:
        """A position cut into the unconstrained arrays of its sites."""
        return [position[self.slices[name]].reshape(shape) for name, shape in self.shapes.items()]

    def join(self, arrays: Sequence[Any]) -> Array:
        """The position of which `arrays` are the parts."""
        return jnp.concatenate([jnp.ravel(array) for array in arrays])

    def positions(self, part: Part) -> IntArray:
        """Where the coordinates of a part stand."""
        site, inside = part
        stretch = self.slices[site]
        return np.arange(stretch.start, stretch.stop) if inside is None else stretch.start + np.asarray(inside)

    def part_shape(self, part: Part) -> tuple[int, ...]:
        """The shape of the unconstrained array of a part: flat, unless it is all of the site."""
        site, inside = part
        return self.shapes[site] if inside is None else (len(inside),)


def as_parts(block: Iterable[str] | Mapping[str, Part]) -> dict[str, Part]:
    """Parts by label; a bare name stands for a whole site."""
    return dict(block) if isinstance(block, Mapping) else {name: (name, None) for name in block}
