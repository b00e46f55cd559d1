"""Bijections between the support of a distribution and unconstrained space; NumPyro's, with shapes and Jacobians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, biject_to
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform, Transform


def bijection(name: str, distribution: Distribution) -> Transform:
    """The bijection from unconstrained space onto the support of a continuous distribution.

    It is built from the distribution as it stands, so a support that depends on other variables, such as
    `Uniform(0, y)`, gives a bijection that depends on them.

    Raises:
        TypeError: naming the site, where no bijection is known.
    """
    try:
        return biject_to(distribution.support)
    except NotImplementedError as error:
        raise TypeError(
            f"site '{name}': no bijection onto the support of {type(distribution).__name__} is known "
            f"({distribution.support}); write it as a transformed variable of another distribution."
        ) from error


def unconstrained_shapes(name: str, distribution: Distribution) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of the unconstrained array behind a value, and that of its leading dimensions that can be told apart.

    Values of discrete distributions stand for themselves.
    """
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
    return value, jnp.sum(transform.log_abs_det_jacobian(unconstrained, value))


def unconstrain_value(name: str, distribution: Distribution, value: Any) -> jax.Array:
    """The unconstrained array behind a value in the support."""
    array = jnp.asarray(value, jnp.result_type(float))
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
    support: Any = distribution.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return str(support)
