"""Missing data: the entries of an observed site that are NaN or masked, as a latent variable of their own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, ExpandedDistribution, MultivariateNormal, biject_to
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import Transform

from .densities import log_density
from .transforms import bijection, check_latent, describe, elementary, is_discrete

Mask = np.ndarray[Any, Any]


def missing_in(value: Any) -> Mask | None:
    """Which entries of an observed value are missing: NaN, or masked; None where none is."""
    if isinstance(value, jax.core.Tracer) or not np.ndim(value):
        return None
    if np.ma.isMaskedArray(value):
        plain: Any = value.data
        mask = np.ma.getmaskarray(value)
    else:
        plain = np.asarray(value)
        mask = np.zeros(plain.shape, bool)
    if plain.dtype.kind == "f":
        mask = mask | np.isnan(plain)
    return mask if mask.any() else None


def labels_of(mask: Mask, along: Sequence[Sequence[Any] | None] = ()) -> tuple[Any, ...]:
    """Where the entries of a mask stand: a number or label each, or "row, column".

    Args:
        mask: over the dimensions.
        along: labels of the entries of each dimension, None where they have none.
    """
    axes = [labels or range(size) for labels, size in zip(along or [None] * mask.ndim, mask.shape, strict=True)]
    places = [[axis[i] for axis, i in zip(axes, place, strict=True)] for place in np.argwhere(mask).tolist()]
    return tuple(place[0] if len(place) == 1 else ", ".join(map(str, place)) for place in places)


class Entries(Distribution):  # type: ignore[misc]
    """Some of the entries of a distribution, along its first dimensions: the distribution of a latent variable.

    It has no density of its own: given the other entries, that is a matter of the whole.

    Args:
        whole: of which they are entries.
        mask: which, over its first dimensions.
    """

    def __init__(self, whole: Distribution, mask: Mask) -> None:
        self.whole, self.mask = whole, mask
        self.index = np.nonzero(mask)
        super().__init__(batch_shape=(len(self),), event_shape=tuple(whole.shape()[mask.ndim :]))

    def __len__(self) -> int:
        return len(self.index[0])

    @property
    def support(self) -> Constraint:
        """That of the whole, entry by entry."""
        return _SupportOfEntries(self)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws of the whole, of which all other entries are dropped."""
        drawn = self.whole.sample(key, sample_shape)
        return drawn[(..., *self.index, *(slice(None),) * len(self.event_shape))] if sample_shape else drawn[self.index]

    def owned(self, shape: tuple[int, ...]) -> Mask:
        """Which elements of the log density, of the batch shape, belong to these entries alone."""
        if self.mask.ndim > len(shape):
            return self.mask.all(axis=tuple(range(len(shape), self.mask.ndim)))
        return np.broadcast_to(self.mask, shape)

    def inside(self) -> Any:
        """Values inside the support."""
        if not is_discrete(self.whole):
            transform = bijection("", self.whole)
            return transform(jnp.zeros(transform.inverse_shape(self.whole.shape())))[self.index]
        low = getattr(self.whole.support, "lower_bound", 0)
        return jnp.broadcast_to(jnp.asarray(low), self.whole.shape())[self.index]


def entries_of(name: str, distribution: Distribution, missing: Mask) -> Entries:
    """The missing entries of a site.

    Raises:
        ValueError: where a part of what belongs together is missing, such as one of the probabilities of a simplex.
    """
    check_latent(f"{name}_missing", distribution)
    events = len(distribution.event_shape)
    if not is_discrete(distribution):
        events = elementary(bijection(name, distribution)).codomain.event_dim
    if not events:
        return Entries(distribution, missing)
    inner = tuple(range(missing.ndim - events, missing.ndim))
    whole = missing.all(axis=inner)
    if (missing.any(axis=inner) & ~whole).any():
        raise ValueError(
            f"observed site '{name}' has values of {describe(distribution)} that are missing in part; its entries are "
            f"bound to each other, so give them whole, or as NaN throughout."
        )
    return Entries(distribution, whole)


def completed(given: Any, entries: Entries, hidden: Any) -> Any:
    """The observed values, of any kind where they are missing, with the missing ones in their places."""
    dtype = jnp.result_type(int if is_discrete(entries.whole) else float)
    return jnp.asarray(np.nan_to_num(given), dtype).at[entries.index].set(jnp.asarray(hidden, dtype))


def known_entries(distribution: Distribution, entries: Entries) -> Distribution | None:
    """The distribution of independent entries as one of the same family; None where that cannot be told."""
    batch = tuple(distribution.batch_shape)
    if distribution.event_shape or entries.mask.shape != batch:
        return None
    plain = distribution.base_dist if type(distribution) is ExpandedDistribution else distribution
    parameters: dict[str, Any] = {}
    for name in plain.arg_constraints:
        value = vars(plain).get(name)
        constraint = plain.arg_constraints[name]
        if value is None and name not in plain.get_args():
            continue
        if not isinstance(value, (int, float, np.ndarray, jax.Array)):
            return None
        own = np.shape(value)[np.ndim(value) - constraint.event_dim :] if constraint.event_dim else ()
        parameters[name] = jnp.broadcast_to(jnp.asarray(value), (*batch, *own))[entries.index]
    if not parameters or set(parameters) != set(plain.get_args()):
        return None
    return type(plain)(**parameters, validate_args=False)


def observed_density(name: str, distribution: Distribution, given: Any, missing: Mask) -> Any:
    """The log density of what is observed of each vector or matrix, shape of the batch; 0 where nothing is.

    Of a Gaussian vector the observed entries are Gaussian, with their rows and columns of the covariance.

    Raises:
        ValueError: naming the site, where vectors of another family are missing in part.
    """
    batch = missing.shape[: missing.ndim - len(distribution.event_shape)]
    events = tuple(range(len(batch), missing.ndim))
    whole, nothing = ~missing.any(axis=events), missing.all(axis=events)
    full = jnp.asarray(np.where(missing, 0.0, given))
    found = jnp.where(jnp.asarray(whole), log_density(distribution, full), 0.0)
    partial = ~whole & ~nothing
    if not partial.any():
        return found
    own = distribution.base_dist if type(distribution) is ExpandedDistribution else distribution
    if not isinstance(own, MultivariateNormal):
        raise ValueError(
            f"log_likelihood: site '{name}' has vectors of {describe(distribution)} that are missing in part, and the "
            f"density of what is observed of them is known of MultivariateNormal alone; leave these vectors out."
        )
    loc = jnp.broadcast_to(own.loc, missing.shape)
    covariance = jnp.broadcast_to(own.covariance_matrix, (*missing.shape, missing.shape[-1]))
    # Vectors with the same holes at once.
    for pattern in np.unique(missing[partial], axis=0):
        at = np.nonzero((missing == pattern).all(axis=-1))
        seen = np.flatnonzero(~pattern)
        part = MultivariateNormal(loc[at][:, seen], covariance[at][:, seen][:, :, seen], validate_args=False)
        found = found.at[at].set(part.log_prob(full[at][:, seen]))
    assert found.shape == batch
    return found


class _SupportOfEntries(Constraint):  # type: ignore[misc]
    """The support of entries, which a bijection knows how to fill."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.event_dim = len(entries.event_shape)
        self.is_discrete = is_discrete(entries.whole)

    def __call__(self, value: Any) -> Any:
        inside: Any = self.entries.whole.support(completed(np.zeros(self.entries.whole.shape()), self.entries, value))
        return inside[self.entries.index]

    def __repr__(self) -> str:
        return repr(self.entries.whole.support)

    def tree_flatten(self) -> tuple[Any, Any]:
        """Of what JAX sees nothing."""
        return (), ((), {"entries": self.entries})


class _OfEntries(Transform):  # type: ignore[misc]
    """The bijection of the whole, applied to some entries; the others stand at zero."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.base = elementary(bijection("", entries.whole))

    @property
    def domain(self) -> Constraint:
        """That of the whole, entry by entry."""
        return self.base.domain

    @property
    def codomain(self) -> Constraint:
        """That of the whole, entry by entry."""
        return self.base.codomain

    def _fill(self, shape: tuple[int, ...], value: Any) -> Any:
        return jnp.zeros(shape, jnp.result_type(float)).at[self.entries.index].set(value)

    @functools.cached_property
    def _hidden(self) -> tuple[int, ...]:
        return tuple(self.base.inverse_shape(self.entries.whole.shape()))

    def __call__(self, x: Any) -> Any:
        return self.base(self._fill(self._hidden, x))[self.entries.index]

    def _inverse(self, y: Any) -> Any:
        elsewhere = self.base(jnp.zeros(self._hidden))
        return self.base.inv(elsewhere.at[self.entries.index].set(y))[self.entries.index]

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        filled = self._fill(self._hidden, x)
        return self.base.log_abs_det_jacobian(filled, self.base(filled))[self.entries.index]

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *self._hidden[self.entries.mask.ndim :])

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *self.entries.event_shape)

    def tree_flatten(self) -> tuple[Any, Any]:
        """Of what JAX sees nothing."""
        return (), ((), {"entries": self.entries})


@biject_to.register(_SupportOfEntries)  # type: ignore[untyped-decorator]
def _bijection_of_entries(support: _SupportOfEntries) -> Transform:
    return _OfEntries(support.entries)
