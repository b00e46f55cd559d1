"""Bijections between the support of a distribution and unconstrained space; NumPyro's, with shapes and Jacobians.

Angles and directions are the exception: a circle has no bijection onto a line that keeps neighbours together, so that
one would cut it open somewhere. They are the direction of a vector in the plane or in space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, biject_to, constraints
from numpyro.distributions.transforms import ComposeTransform, IdentityTransform, IndependentTransform, Transform

_CENSORED = (
    "gives the likelihood of censored data, and its log_prob is no density of the value. Give it obs=, or declare what "
    "is not censored: rv('{name}', base_dist)"
)
# What cannot be a latent site, by name of the class, since older versions of NumPyro lack some.
_NOT_LATENT = {
    "Delta": (
        "has all its mass at one value and no density around it. Write deterministic('{name}', value) for a constant, "
        "and factor(...) for its log_density; of a mixture, make which component it is a discrete site"
    ),
    "Unit": "has no value. Add its term with factor('{name}', log_factor)",
    "LeftCensoredDistribution": _CENSORED,
    "RightCensoredDistribution": _CENSORED,
    "IntervalCensoredDistribution": _CENSORED,
}
_HURDLE = (
    "has a point mass at zero beside its density, where no gradient leads. Give it obs=, or declare two sites: a "
    "Bernoulli one that says whether the value is zero, and base_dist"
)
_COMPONENTS_DIFFER = (
    "has components whose supports differ, or cannot be seen to be the same. Give it the union: "
    "MixtureGeneral(..., support=...)"
)
_COMPONENT_IN_PART = (
    "has a transformed component that reaches only a part of what NumPyro takes for its support. Make which component "
    "it is a discrete site"
)
# Where a distribution keeps those that it is made of.
_PARTS = ("base_dist", "init_dist", "marginal_dist", "component_distribution", "whole")

# ν − n in `ToSphere`.
_KEPT_FROM_ORIGIN = 10


@dataclass(frozen=True)
class ToSphere:
    """From vectors to their directions: x = z / |z|, from ℝⁿ without the origin onto the unit sphere.

    The length r = |z| is a coordinate that nobody sees. It gets a law of its own, ν r² ~ χ²(ν), independent of x, so
    that a law p(x) of the direction becomes the density of z

        p(z / |z|) · f(r) / rⁿ⁻¹,    as dz = rⁿ⁻¹ dr dx.

    With ν = n, z would be Gaussian where p is uniform (Marsaglia's method, and Stan's unit vector). A larger ν keeps z
    away from the origin, near which a narrow p is a narrow wedge.

    Source: Marsaglia (1972), "Choosing a point from the surface of a sphere", Annals of Mathematical Statistics 43;
    Stan Reference Manual, "Unit vector".
    """

    domain = constraints.real_vector
    codomain = constraints.sphere

    def __call__(self, z: Any) -> Any:
        """The direction of each vector, shape (..., n); of the origin, that of the first axis."""
        first = jnp.zeros(jnp.shape(z)[-1]).at[0].set(1.0)
        # A model that looks at the values of its variables is run at the origin first.
        z = jnp.where(jnp.all(z == 0, axis=-1, keepdims=True), first.astype(z.dtype), z)
        return z / jnp.sqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True))

    def inv(self, x: Any) -> Any:
        """The vector of length one."""
        return x

    def log_abs_det_jacobian(self, z: Any, x: Any, intermediates: Any = None) -> Any:
        """What makes the density of z of that of x, log f(r) − (n − 1) log r; shape (...)."""
        del x, intermediates
        size = jnp.shape(z)[-1]
        half = 0.5 * (size + _KEPT_FROM_ORIGIN)
        squared = jnp.sum(jnp.square(z), axis=-1)
        normalizer = float(np.log(2.0) + half * np.log(half)) - gammaln(half)
        return normalizer + (half - 0.5 * size) * jnp.log(squared) - half * squared

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same."""
        return shape

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same."""
        return shape


@dataclass(frozen=True)
class ToCircle:
    """From vectors in the plane to their angles in [−π, π]; see `ToSphere`."""

    domain = constraints.real_vector
    codomain = constraints.circular

    def __call__(self, z: Any) -> Any:
        """The angle of each vector, shape (...), from vectors of shape (..., 2)."""
        return jnp.arctan2(z[..., 1], z[..., 0])

    def inv(self, angle: Any) -> Any:
        """The vector of length one."""
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    def log_abs_det_jacobian(self, z: Any, angle: Any, intermediates: Any = None) -> Any:
        """See `ToSphere.log_abs_det_jacobian`."""
        return ToSphere().log_abs_det_jacobian(z, angle, intermediates)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Without the last dimension."""
        return shape[:-1]

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """With two coordinates an angle."""
        return (*shape, 2)


# Bijections in the place of NumPyro's, or where it has none.
_OWN = {type(constraints.circular): ToCircle(), type(constraints.sphere): ToSphere()}


def bijection(name: str, distribution: Distribution) -> Transform:
    """The bijection from unconstrained space onto the support of a continuous distribution.

    It is built from the distribution as it stands, so a support that depends on other variables, such as
    `Uniform(0, y)`, gives a bijection that depends on them. Of a transformed distribution it is onto the image of
    the base's support, which may be smaller than the codomain of the transformation: log U of a Uniform(1, 2) ends
    at log 2.

    Raises:
        TypeError: naming the site, where no bijection is known.
    """
    try:
        return _onto_support_of(distribution)
    except NotImplementedError as error:
        raise TypeError(
            f"site '{name}': no bijection onto the support of {describe(distribution)} is known "
            f"({describe_support(distribution)}); write it as a transformed variable of another distribution."
        ) from error


def _onto_support_of(distribution: Any) -> Any:
    while isinstance(distribution, (ExpandedDistribution, Independent, dist.MaskedDistribution)):
        distribution = distribution.base_dist
    if _has_smaller_image(distribution):
        return ComposeTransform([_onto_support_of(distribution.base_dist), *distribution.transforms])
    support = _stripped(distribution.support)
    own = _OWN.get(type(support))
    return biject_to(support) if own is None else own


def _has_smaller_image(distribution: Any) -> bool:
    """Whether a transformed distribution may reach only a part of what NumPyro says: the last transform's codomain."""
    if getattr(type(distribution), "support", None) is not dist.TransformedDistribution.support:
        return False
    reached = distribution.base_dist.support
    for transform in distribution.transforms:
        if _stripped(reached) != _stripped(transform.domain):
            return True
        reached = transform.codomain
    return False


def _stripped(constraint: Any) -> Any:
    """A support without the declarations that some dimensions belong together."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def check_latent(name: str, distribution: Distribution) -> None:
    """Refuse what has no density, or not one of its value.

    Raises:
        TypeError: naming the site, the distribution, why not, and the way out.
    """
    for part in _made_of(distribution):
        reason = _why_not_latent(part)
        if reason is not None:
            whole, own = describe(distribution), describe(part)
            title = whole if own == whole else f"{whole} is made of {own}, which"
            raise TypeError(f"latent site '{name}': {title} {reason.format(name=name)}.")


def _why_not_latent(part: Any) -> str | None:
    known = [_NOT_LATENT[kind.__name__] for kind in type(part).__mro__ if kind.__name__ in _NOT_LATENT]
    if known:
        return known[0]
    if any(kind.__name__ == "HurdleProbs" for kind in type(part).__mro__) and not is_discrete(part):
        return _HURDLE
    if isinstance(part, dist.MixtureGeneral) and vars(part).get("_support") is None:
        first, *others = (jax.tree.leaves(component.support) for component in part.component_distributions)
        if not all(_alike(first, other) for other in others):
            return _COMPONENTS_DIFFER
    if isinstance(part, (dist.MixtureGeneral, dist.MixtureSameFamily)) and any(
        _has_smaller_image(inner) for component in _parts(part) for inner in _made_of(component)
    ):
        return _COMPONENT_IN_PART
    return None


def _parts(distribution: Any) -> list[Any]:
    known = [part for name in _PARTS if (part := getattr(distribution, name, None)) is not None]
    return [*known, *getattr(distribution, "component_distributions", ())]


def _made_of(distribution: Any) -> Iterator[Any]:
    """A distribution and those inside it."""
    yield distribution
    for part in _parts(distribution):
        yield from _made_of(part)


def _alike(ours: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether numbers are known to be the same."""
    return len(ours) == len(others) and all(
        a is b or not (isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer) or np.any(a != b))
        for a, b in zip(ours, others, strict=True)
    )


def unconstrained_shapes(name: str, distribution: Distribution) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of the unconstrained array behind a value, and that of its leading dimensions that can be told apart.

    Values of discrete distributions stand for themselves.

    Raises:
        TypeError: naming the site, where the distribution cannot be that of a latent site.
    """
    check_latent(name, distribution)
    shape = tuple(distribution.shape())
    if is_discrete(distribution):
        return shape, shape[: len(shape) - len(distribution.event_shape)]
    transform = bijection(name, distribution)
    hidden: tuple[int, ...] = tuple(transform.inverse_shape(shape))
    return hidden, hidden[: len(hidden) - elementary(transform).domain.event_dim]


def constrain(name: str, distribution: Distribution, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Map into the support.

    Args:
        name: of the site.
        distribution: of which a value is wanted.
        unconstrained: where, of the shape that `unconstrained_shapes` says.

    Returns:
        The value, and log |det ∂value/∂unconstrained| summed to shape (), None where it is zero.
    """
    if is_discrete(distribution):
        return unconstrained.astype(jnp.result_type(int)), None
    transform = bijection(name, distribution)
    value = transform(unconstrained)
    if isinstance(elementary(transform), IdentityTransform):
        return value, None
    # NumPyro's is a complex zero where values are complex.
    return value, jnp.sum(jnp.real(transform.log_abs_det_jacobian(unconstrained, value)))


def unconstrain_value(name: str, distribution: Distribution, value: Any) -> jax.Array:
    """The unconstrained array behind a value in the support."""
    array = jnp.asarray(value)
    array = array if jnp.iscomplexobj(array) else array.astype(jnp.result_type(float))
    if is_discrete(distribution):
        return array
    unconstrained: jax.Array = bijection(name, distribution).inv(array)
    return unconstrained


def elementary(transform: Any) -> Any:
    """A bijection without the declarations that some dimensions belong together."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform


def is_discrete(distribution: Distribution) -> bool:
    """Whether values of the distribution are discrete, so that they have no gradient."""
    return bool(distribution.support.is_discrete)


def describe(distribution: Distribution) -> str:
    """The name of the distribution that the user wrote, under the expansions that plates and data have added."""
    while isinstance(distribution, (ExpandedDistribution, Independent)):
        distribution = distribution.base_dist
    return type(distribution).__name__


def describe_support(distribution: Distribution) -> str:
    """The support for messages, bounds spelled out where they are known."""
    return str(_stripped(distribution.support))
