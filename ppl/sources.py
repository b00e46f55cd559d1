"""Where the values of latent variables come from while a model runs."""

from __future__ import annotations

import abc
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from .transforms import constrain, describe, is_discrete, unconstrain_value, unconstrained_shapes


class AbstractSource(abc.ABC):
    """Gives latent variables their values.

    The steps of a time series run inside a compiled loop: what a source holds for all steps goes in as arrays with a
    first dimension, and a step has a source of its own, made of its entries.
    """

    # Whether values stand for unconstrained coordinates.
    has_coordinates = True

    def __init__(self) -> None:
        # What a run leaves behind, by site, apart from values.
        self.produced: dict[str, Any] = {}

    @abc.abstractmethod
    def value(self, name: str, distribution: Distribution) -> tuple[Any, Any | None]:
        """The value of a site and the log Jacobian of its bijection; None where there is none to count."""

    @abc.abstractmethod
    def over_time(self, names: Iterable[str], length: int) -> Any:
        """What the sites of a time series need, as a tree of arrays whose first dimension is time."""

    @abc.abstractmethod
    def at(self, entry: Any) -> AbstractSource:
        """The source of one step, from its entries of that tree."""


class AtOrigin(AbstractSource):
    """Values at the origin of unconstrained space.

    Args:
        zero: added to each, to tell what depends on latent variables.
    """

    def __init__(self, zero: Any) -> None:
        super().__init__()
        self.zero = zero

    def value(self, name: str, distribution: Distribution) -> tuple[Any, Any | None]:
        """See `AbstractSource.value`."""
        origin = jnp.zeros(unconstrained_shapes(name, distribution)[0]) + self.zero
        return constrain(name, distribution, origin)[0], None

    def over_time(self, names: Iterable[str], length: int) -> Any:
        """See `AbstractSource.over_time`."""
        return ()

    def at(self, entry: Any) -> AbstractSource:
        """See `AbstractSource.at`."""
        return self


class Unconstrained(AbstractSource):
    """Values behind which given unconstrained arrays stand, with log Jacobians.

    Args:
        arrays: by site.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__()
        self.arrays = arrays

    def value(self, name: str, distribution: Distribution) -> tuple[Any, Any | None]:
        """See `AbstractSource.value`.

        Raises:
            ValueError: on a site that has none.
        """
        self._check(name)
        return constrain(name, distribution, self.arrays[name])

    def over_time(self, names: Iterable[str], length: int) -> Any:
        """See `AbstractSource.over_time`."""
        for name in names:
            self._check(name)
        return {name: self.arrays[name] for name in names}

    def at(self, entry: Any) -> AbstractSource:
        """See `AbstractSource.at`."""
        return Unconstrained(entry)

    def _check(self, name: str) -> None:
        if name not in self.arrays:
            raise ValueError(
                f"site '{name}' appeared only now: the model declared other sites before. "
                f"The sites of a model must not depend on values or change between calls."
            )


class Inverted(AbstractSource):
    """Given values, whose unconstrained arrays are left behind; other sites stand where given arrays put them.

    Args:
        values: in the supports, by site.
        arrays: unconstrained, by site, for continuous sites without a value.
        key: for discrete ones without a value, which are drawn given the sites before them.
    """

    def __init__(self, values: Mapping[str, Any], arrays: Mapping[str, Any], key: Any) -> None:
        super().__init__()
        self.values, self.arrays, self.key = values, arrays, key

    def value(self, name: str, distribution: Distribution) -> tuple[Any, Any | None]:
        """See `AbstractSource.value`."""
        if name in self.values:
            value = jnp.asarray(self.values[name])
            self.produced[name] = unconstrain_value(name, distribution, value)
            return value.astype(jnp.result_type(int if is_discrete(distribution) else float)), None
        if is_discrete(distribution):
            drawn = distribution.sample(site_key(self.key, name))
            self.produced[name] = drawn.astype(jnp.result_type(float))
            return drawn, None
        self.produced[name] = jnp.asarray(self.arrays[name])
        return constrain(name, distribution, self.produced[name])[0], None

    def over_time(self, names: Iterable[str], length: int) -> Any:
        """See `AbstractSource.over_time`."""
        names = tuple(names)
        return _chosen(self.values, names), _chosen(self.arrays, names), jax.random.split(self.key, length)

    def at(self, entry: Any) -> AbstractSource:
        """See `AbstractSource.at`."""
        return Inverted(*entry)


class Drawn(AbstractSource):
    """Given values, and draws given the sites before them for all others.

    Args:
        values: in the supports, by site.
        key: for the draws; what a site gets depends on its name and on nothing else that is drawn.
    """

    has_coordinates = False

    def __init__(self, values: Mapping[str, Any], key: Any) -> None:
        super().__init__()
        self.values, self.key = values, key

    def value(self, name: str, distribution: Distribution) -> tuple[Any, Any | None]:
        """See `AbstractSource.value`.

        Raises:
            ValueError: on a value of another shape, or a distribution that cannot be drawn from; naming the site.
        """
        dtype = jnp.result_type(int if is_discrete(distribution) else float)
        if name in self.values:
            value = jnp.asarray(self.values[name], dtype)
            if value.shape != tuple(distribution.shape()):
                raise ValueError(
                    f"site '{name}' has shape {tuple(distribution.shape())} in this model, and {value.shape} in the "
                    f"values that are given for it; use the model that these are of, or leave the site out of them, so "
                    f"that it is drawn anew."
                )
            return value, None
        try:
            return distribution.sample(site_key(self.key, name)).astype(dtype), None
        except (NotImplementedError, ImportError):
            raise ValueError(
                f"site '{name}' is {describe(distribution)}, which cannot be drawn from; give it a proper "
                f"distribution, or a value: condition or fix it."
            ) from None

    def over_time(self, names: Iterable[str], length: int) -> Any:
        """See `AbstractSource.over_time`."""
        chosen = _chosen(self.values, tuple(names))
        for name, array in chosen.items():
            if array.ndim == 0 or len(array) != length:
                raise ValueError(
                    f"site '{name}' stands in a scan of {length} steps in this model, and has shape {array.shape} in "
                    f"the values that are given for it; go on in a further scan, whose sites have names of their own."
                )
        return chosen, None if self.key is None else jax.random.split(self.key, length)

    def at(self, entry: Any) -> AbstractSource:
        """See `AbstractSource.at`."""
        return Drawn(*entry)


def site_key(key: Any, name: str) -> Any:
    """A key of a site's own."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _chosen(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: jnp.asarray(values[name]) for name in names if name in values}
