"""Many small arrays as a few vectors: handing an array to a compiled program takes a microsecond or two.

Leaves of a pytree are laid end to end, one vector for each dtype, but numbers of 32 bits or less join those of float64
where there are any. Large leaves stay as they are, where they are, since they would be copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Leaves with more elements than these are handed over by themselves.
_LARGE = 4096


@dataclass(frozen=True)
class _Place:
    """Where a leaf is found: which vector it stands in, and from where; a large leaf is its own vector."""

    vector: int
    first: int
    shape: tuple[int, ...]
    dtype: Any
    large: bool

    def look(self, vectors: Sequence[Any]) -> Any:
        """The leaf."""
        vector = vectors[self.vector]
        if self.large:
            return vector
        leaf = vector[self.first : self.first + math.prod(self.shape)].reshape(self.shape)
        return leaf if leaf.dtype == self.dtype else leaf.astype(self.dtype)


@dataclass(frozen=True)
class Packing:
    """How the leaves of pytrees of one structure are laid out.

    Args:
        structure: of the pytrees.
        places: where each leaf is found.
        large: for each vector, whether it is a large leaf.
    """

    structure: Any
    places: tuple[_Place, ...]
    large: tuple[bool, ...]

    @classmethod
    def of(cls, tree: Any) -> Packing:
        """The layout for pytrees like this one, of arrays or their shapes."""
        leaves, structure = jax.tree.flatten(tree)
        dtypes = {np.dtype(leaf.dtype) for leaf in leaves}
        vectors: dict[Any, int] = {}
        filled: list[int] = []
        places = []
        for number, leaf in enumerate(leaves):
            shape = tuple(np.shape(leaf))
            size = math.prod(shape)
            vector = vectors.setdefault(number if size > _LARGE else _holder(np.dtype(leaf.dtype), dtypes), len(filled))
            if vector == len(filled):
                filled.append(0)
            places.append(_Place(vector, filled[vector], shape, leaf.dtype, size > _LARGE))
            filled[vector] += size
        large = {place.vector for place in places if place.large}
        return cls(structure, tuple(places), tuple(vector in large for vector in range(len(filled))))

    def pack(self, tree: Any) -> tuple[Any, ...]:
        """The vectors: on the host, but for large leaves, which are where they are."""
        leaves = zip(self.places, jax.tree.leaves(tree), strict=True)
        parts = self._parts([leaf if place.large else np.asarray(leaf) for place, leaf in leaves])
        return tuple(part[0] if len(part) == 1 else np.concatenate(part) for part in parts)

    def pack_traced(self, tree: Any) -> tuple[Any, ...]:
        """The vectors, inside a compiled program."""
        parts = self._parts(jax.tree.leaves(tree))
        return tuple(part[0] if len(part) == 1 else jnp.concatenate(part) for part in parts)

    def unpack(self, vectors: Sequence[Any]) -> Any:
        """The pytree; if the vectors are on the host, its leaves are views of them where they can be."""
        return jax.tree.unflatten(self.structure, [place.look(vectors) for place in self.places])

    def fetch(self, vectors: Sequence[Any]) -> Any:
        """The pytree of vectors that a compiled program has given: on the host, but for large leaves."""
        pairs = zip(self.large, vectors, strict=True)
        return self.unpack([vector if large else np.asarray(vector) for large, vector in pairs])

    def _parts(self, leaves: Sequence[Any]) -> list[list[Any]]:
        parts: list[list[Any]] = [[] for _ in self.large]
        for place, leaf in zip(self.places, leaves, strict=True):
            parts[place.vector].append(leaf if place.large else leaf.reshape(-1))
        return parts


def _holder(dtype: np.dtype[Any], dtypes: set[np.dtype[Any]]) -> np.dtype[Any]:
    """Which of some dtypes holds all numbers of one of them: that itself, or float64 for what has at most 32 bits."""
    double = np.dtype(np.float64)
    return double if double in dtypes and dtype.itemsize <= 4 and dtype.kind in "biuf" else dtype
