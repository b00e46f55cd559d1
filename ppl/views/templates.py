"""Distributions whose parameters are results of a traced program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpyro.distributions import Distribution


@dataclass(frozen=True)
class Template:
    """A distribution whose parameters are results of a program.

    Args:
        structure: of the distribution as a pytree.
        outputs: of the program (by number), that hold its leaves.
    """

    structure: Any
    outputs: tuple[int, ...]

    def fill(self, leaves: Sequence[Any]) -> Distribution:
        """The distribution with these parameters."""
        distribution: Distribution = jax.tree.unflatten(self.structure, leaves)
        return distribution

    def shifted(self, first: int) -> Template:
        """The same where its leaves are consecutive results of a program, from number `first` on."""
        return Template(self.structure, tuple(range(first, first + len(self.outputs))))


def take_apart(distributions: Mapping[str, Distribution]) -> tuple[list[Any], dict[str, Any]]:
    """The leaves of all distributions, and the structures they come from, without those that are not made of arrays."""
    parts: list[Any] = []
    structures = {}
    for name, distribution in distributions.items():
        leaves, structure = jax.tree.flatten(distribution)
        if all(isinstance(leaf, (jax.Array, np.ndarray, float, int)) for leaf in leaves):
            parts += leaves
            structures[name] = structure
    return parts, structures


def number(structures: Mapping[str, Any], first: int) -> dict[str, Template]:
    """The templates of distributions whose leaves are the results of a program from number `first` on."""
    templates = {}
    for name, structure in structures.items():
        templates[name] = Template(structure, tuple(range(first, first + structure.num_leaves)))
        first += structure.num_leaves
    return templates
