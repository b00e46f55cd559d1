"""Blocks as a prior times a likelihood: the sites' own distributions, given the rest, and all other terms."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution, ExpandedDistribution, Independent

from ...samplers.random import fold_in, jax_key
from ..blocks.coordinates import Array, IntArray, Part
from ..blocks.density import AbstractBlockDensity, programs_of
from ..transforms import describe, unconstrain_value
from .templates import Template

if TYPE_CHECKING:
    from ..log_density import ModelDensity

# Distributions that are Gaussian in their own values, whose support is all of space.
_GAUSSIAN = (
    dist.Normal,
    dist.MultivariateNormal,
    dist.LowRankMultivariateNormal,
    dist.MatrixNormal,
    dist.GaussianRandomWalk,
    dist.GaussianStateSpace,
    dist.CAR,
)


@dataclass(frozen=True)
class OwnDistribution:
    """The distribution of a part of a block in the block's program.

    Args:
        site: its name.
        template: whose leaves are results of the block's program.
        inside: which coordinates of the site belong to the block; None for all.
    """

    site: str
    template: Template
    inside: IntArray | None

    def at(self, results: Sequence[Any]) -> Distribution:
        """The distribution, from the results of the block's program."""
        return self.template.fill([results[i] for i in self.template.outputs])


@dataclass(frozen=True)
class PriorDensity(AbstractBlockDensity):
    """The density of a block with the distributions of its sites.

    Args:
        own: of each part, in their order.
        prior: which terms are those of the sites themselves and of their bijections, by number.
    """

    own: tuple[OwnDistribution, ...]
    prior: frozenset[int]

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return tuple((own.template, None if own.inside is None else own.inside.tobytes()) for own in self.own)

    def draw_prior(self, key: Array, *constants: Any) -> Array:
        """A position drawn from the prior, shape (dimension,): each site given those before it."""
        parts = [jnp.zeros(shape) for shape in self.coordinates.shapes.values()]
        for i, own in enumerate(self.own):
            leaves = self.given.after.select(own.template.outputs)(*parts, *constants)
            distribution = own.template.fill(leaves)
            try:
                value = distribution.sample(jax_key(fold_in(key, i)))
            except (NotImplementedError, ImportError) as error:
                raise ValueError(
                    f"site '{own.site}': {describe(distribution)} cannot be drawn from; use a sampler that needs the "
                    f"density alone, such as MH(), Slice() or NUTS()."
                ) from error
            array = unconstrain_value(own.site, distribution, value)
            parts[i] = array if own.inside is None else jnp.ravel(array)[own.inside]
        return self.coordinates.join(parts)

    def log_likelihood(self, position: Array, *constants: Any) -> Array:
        """The log density without that of the prior, shape ()."""
        terms = self.results(position, *constants)[: len(self.terms)]
        rest = [term for i, term in enumerate(terms) if i not in self.prior]
        return functools.reduce(jnp.add, rest, jnp.zeros(()))

    def mean(self, *constants: Any) -> Array:
        """The mean of a Gaussian prior, shape (dimension,)."""
        results = self.results(jnp.zeros(self.dimension), *constants)
        means = []
        for own in self.own:
            distribution = own.at(results)
            mean = jnp.broadcast_to(distribution.mean, distribution.shape())
            means.append(mean if own.inside is None else jnp.ravel(mean)[own.inside])
        return self.coordinates.join(means)


def with_prior(whole: ModelDensity, parts: Mapping[str, Part]) -> PriorDensity:
    """A block with the distributions of its sites.

    Raises:
        ValueError: naming the site, where its distribution is not known, or cannot be drawn from in part.
    """
    for label, (site, inside) in parts.items():
        if innermost(known_distribution(whole, label, site)).event_shape and inside is not None:
            raise ValueError(f"site '{label}': a part of '{site}' cannot be drawn by itself; give it all to one block.")
    programs = programs_of(whole, parts, [i for site, _ in parts.values() for i in whole.distributions[site].outputs])
    own, first = [], len(programs[-1])
    for site, inside in parts.values():
        template = whole.distributions[site].shifted(first)
        own.append(OwnDistribution(site, template, inside))
        first += len(template.outputs)
    names = {name for site, _ in parts.values() for name in (site, f"log|J| {site}")}
    prior = frozenset(i for i, term in enumerate(programs[-1]) if term in names)
    return PriorDensity(*programs, tuple(own), prior)


def with_gaussian_prior(whole: ModelDensity, parts: Mapping[str, Part]) -> PriorDensity:
    """A block whose sites have Gaussian distributions, none of which depends on another site of the block.

    Raises:
        ValueError: naming the site, where that is not so.
    """
    for label, (site, _) in parts.items():
        family = innermost(known_distribution(whole, label, site))
        if not isinstance(family, _GAUSSIAN):
            raise ValueError(
                f"EllipticalSlice: site '{label}' is {describe(family)}, and this sampler needs a Gaussian prior. "
                f"Write the site as a function of a Normal one, or use NUTS() or Slice()."
            )
    density = with_prior(whole, parts)
    inputs = range(len(parts))
    dependencies = density.given.after.dependencies()
    for label, own in zip(parts, density.own, strict=True):
        others = {i for output in own.template.outputs for i in dependencies[output] if i in inputs}
        if others:
            other = list(parts)[min(others)]
            raise ValueError(
                f"EllipticalSlice: the prior of site '{label}' depends on '{other}' of the same block; give each a "
                f"block of its own."
            )
    return density


def known_distribution(whole: ModelDensity, label: str, site: str) -> Distribution:
    """The distribution of a site without values for its parameters.

    Raises:
        ValueError: naming the site, if the trace does not show its distribution.
    """
    if site not in whole.distributions:
        raise ValueError(
            f"site '{label}': its distribution cannot be taken out of the model, which looks at values of its random "
            f"variables, declares the site in a scan, or has a distribution that is not made of arrays; use a sampler "
            f"that needs the density alone."
        )
    template = whole.distributions[site]
    return template.fill([jnp.zeros(())] * len(template.outputs))


def innermost(distribution: Distribution) -> Distribution:
    """The distribution under the expansions that plates have added."""
    while isinstance(distribution, (ExpandedDistribution, Independent)):
        distribution = distribution.base_dist
    return distribution
