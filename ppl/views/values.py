"""Blocks by the values of their sites: from positions to values in their supports, and back."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..blocks.coordinates import Array, Part
from ..blocks.density import AbstractBlockDensity, programs_of
from ..transforms import constrain, unconstrain_value
from .priors import OwnDistribution, known_distribution

if TYPE_CHECKING:
    from ..log_density import ModelDensity


@dataclass(frozen=True)
class ValuesDensity(AbstractBlockDensity):
    """The density of a block with the bijections of its sites.

    Args:
        own: distributions of the sites, in their order.
    """

    own: tuple[OwnDistribution, ...]

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return tuple(own.template for own in self.own)

    def constrain(self, position: Array, *constants: Any) -> tuple[dict[str, Array], Array]:
        """The values by site, and log |det ∂values/∂position|, shape ()."""
        results = self.results(position, *constants)
        values: dict[str, Array] = {}
        total: list[Array] = []
        for own, array in zip(self.own, self.coordinates.split(position), strict=True):
            values[own.site], log_jacobian = constrain(own.site, own.at(results), array)
            total += [] if log_jacobian is None else [log_jacobian]
        return values, functools.reduce(jnp.add, total, jnp.zeros((), position.dtype))

    def unconstrain(self, values: Mapping[str, Any], *constants: Any) -> Array:
        """The position that corresponds to values; not finite, or outside of every support, where there is none."""
        parts = [jnp.zeros(shape) for shape in self.coordinates.shapes.values()]
        for i, own in enumerate(self.own):
            leaves = self.given.after.select(own.template.outputs)(*parts, *constants)
            parts[i] = unconstrain_value(own.site, own.template.fill(leaves), values[own.site])
        return self.coordinates.join(parts)


def with_values(whole: ModelDensity, parts: Mapping[str, Part], extra: tuple[int, ...] = ()) -> ValuesDensity:
    """A block with the bijections of its sites.

    Args:
        whole: the model.
        parts: of the block.
        extra: further results for its program, after the distributions.

    Raises:
        ValueError: naming the site, where it is only a part of one or its distribution is not known.
    """
    for label, (site, inside) in parts.items():
        known_distribution(whole, label, site)
        if inside is not None:
            raise ValueError(f"site '{label}' is a part of '{site}', and this sampler needs a whole site; give it all.")
    leaves = [i for site, _ in parts.values() for i in whole.distributions[site].outputs]
    programs = programs_of(whole, parts, [*leaves, *extra])
    own, first = [], len(programs[-1])
    for site, _ in parts.values():
        own.append(OwnDistribution(site, whole.distributions[site].shifted(first), None))
        first += len(own[-1].template.outputs)
    return ValuesDensity(*programs, tuple(own))
