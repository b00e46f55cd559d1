"""Many small arrays as a few vectors: handing an array to a compiled program takes a microsecond or two.

Leaves of a pytree are laid end to end, one vector for each dtype. Large ones stay as they are, since they would be
copied.
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
class _Leaf:
    """Where a leaf is found: which vector it stands in, from where, and its shape."""

    vector: int
    first: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Packing:
    """How the leaves of pytrees of one structure are laid out.

    Args:
        structure: of the pytrees.
        leaves: where each leaf is found.
        count: how many vectors there are.
    """

    structure: Any
    leaves: tuple[_Leaf, ...]
    count: int

    @classmethod
    def of(cls, tree: Any) -> Packing:
        """The layout for pytrees like this one, of arrays or their shapes."""
        found, structure = jax.tree.flatten(tree)
        vectors: dict[Any, int] = {}
        filled: list[int] = []
        leaves = []
        for number, leaf in enumerate(found):
            shape = tuple(np.shape(leaf))
            size = math.prod(shape)
            vector = vectors.setdefault(number if size > _LARGE else leaf.dtype, len(filled))
            if vector == len(filled):
                filled.append(0)
            leaves.append(_Leaf(vector, filled[vector], shape))
            filled[vector] += size
        return cls(structure, tuple(leaves), len(filled))

    def pack(self, tree: Any) -> tuple[Any, ...]:
        """The vectors, on the host."""
        return tuple(
            part[0] if len(part) == 1 else np.concatenate(part)
            for part in self._parts([np.asarray(leaf) for leaf in jax.tree.leaves(tree)])
        )

    def pack_traced(self, tree: Any) -> tuple[Any, ...]:
        """The vectors, inside a compiled program."""
        return tuple(jnp.concatenate(part) for part in self._parts(jax.tree.leaves(tree)))

    def unpack(self, vectors: Sequence[Any]) -> Any:
        """The pytree; on the host its leaves are views of the vectors."""
        return jax.tree.unflatten(
            self.structure,
            [
                vectors[leaf.vector][leaf.first : leaf.first + math.prod(leaf.shape)].reshape(leaf.shape)
                for leaf in self.leaves
            ],
        )

    def _parts(self, leaves: Sequence[Any]) -> list[list[Any]]:
        parts: list[list[Any]] = [[] for _ in range(self.count)]
        for place, leaf in zip(self.leaves, leaves, strict=True):
            parts[place.vector].append(leaf.reshape(-1))
        return parts
