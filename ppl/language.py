"""The words of the language: `rv`, `deterministic`, `factor`, `plate`."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution


@dataclass(frozen=True)
class Plate:
    """A batch dimension.

    Args:
        name: also the name of the dimension in the result.
        size: its length.
        coords: labels of its entries, or None for 0, 1, ...
    """

    name: str
    size: int
    coords: tuple[Any, ...] | None


class AbstractInterpreter(abc.ABC):
    """Who runs a model: gives every declaration its meaning."""

    @abc.abstractmethod
    def random_variable(
        self,
        name: str,
        distribution: Distribution,
        obs: Any,
        dims: tuple[str, ...] | None,
        plates: tuple[Plate, ...],
    ) -> Any:
        """The value of a random variable."""

    @abc.abstractmethod
    def deterministic(self, name: str, value: Any, dims: tuple[str, ...] | None, plates: tuple[Plate, ...]) -> None:
        """Note a derived value."""

    @abc.abstractmethod
    def factor(self, name: str, log_weight: Any) -> None:
        """Note an added term of the log density."""


# Context variables, not globals: models can be traced in several threads at once.
_interpreter: ContextVar[AbstractInterpreter | None] = ContextVar("dualtape_interpreter", default=None)
_plates: ContextVar[tuple[Plate, ...]] = ContextVar("dualtape_plates", default=())


@contextmanager
def interpreting(interpreter: AbstractInterpreter) -> Iterator[None]:
    """Let `interpreter` give meaning to the declarations inside a `with` block."""
    token, plates = _interpreter.set(interpreter), _plates.set(())
    try:
        yield
    finally:
        _interpreter.reset(token)
        _plates.reset(plates)


def rv(name: str, distribution: Distribution, obs: Any = None, dims: str | Sequence[str] | None = None) -> Any:
    """Declare a random variable, latent or observed.

    Args:
        name: unique in the model.
        distribution: any distribution of `numpyro.distributions`. Inside plates it is expanded to their sizes.
        obs: observed value, or None for a latent variable.
        dims: names of the dimensions of the value, for the result. By default those of the enclosing plates.

    Returns:
        The value: `obs`, or what the log density is being evaluated at.

    Raises:
        ValueError: if the name is taken, or shapes do not fit; naming the site.
        TypeError: if `distribution` is no distribution.

    Example:
        `m = rv("m", dist.Normal(0.0, 1.0))`
    """
    interpreter = _current("rv", name)
    if not isinstance(distribution, Distribution):
        hint = " (that is the class; call it with its parameters)" if isinstance(distribution, type) else ""
        raise TypeError(f"site '{name}': expected a numpyro distribution, got {distribution!r}{hint}.")
    return interpreter.random_variable(name, distribution, obs, _dims(name, dims), _plates.get())


def deterministic(name: str, value: Any, dims: str | Sequence[str] | None = None) -> Any:
    """Name a value that the random variables determine, to find it in the result.

    Args:
        name: unique in the model.
        value: an array or a number.
        dims: names of its dimensions. By default those of the enclosing plates.

    Returns:
        `value` as an array.

    Raises:
        ValueError: if the name is taken.
    """
    array = jnp.asarray(value)
    _current("deterministic", name).deterministic(name, array, _dims(name, dims), _plates.get())
    return array


def factor(name: str, log_weight: Any) -> None:
    """Add a term to the log density.

    Args:
        name: unique in the model.
        log_weight: log of an unnormalised weight; an array is summed.

    Raises:
        ValueError: if the name is taken.
    """
    _current("factor", name).factor(name, log_weight)


@contextmanager
def plate(name: str, size: int | Sequence[Any] | np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """A batch of conditionally independent random variables.

    Inside the block every distribution is expanded to the sizes of the open plates, outermost first, as the last
    dimensions of its batch shape; the results carry the plates' names as dimensions.

    Args:
        name: of the plate, and of the dimension in the result.
        size: how many, or the labels themselves, which become coordinates of the result.

    Yields:
        The indices 0 ... size − 1, to index per-group parameters with.

    Raises:
        ValueError, TypeError: on a size that is none, or a plate inside itself.

    Example:
        `with plate("school", ["A", "B", "C"]): theta = rv("theta", dist.Normal(mu, tau))`
    """
    _current("plate", name)
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
        length, coords = int(size), None
    elif np.ndim(size) == 1 and not isinstance(size, str):
        coords = tuple(np.asarray(size))
        length = len(coords)
    else:
        raise TypeError(f"plate '{name}': give a size or a one-dimensional list of labels, got {size!r}.")
    if length < 1:
        raise ValueError(f"plate '{name}' has size {length}; a plate needs at least one entry.")
    open_plates = _plates.get()
    if any(outer.name == name for outer in open_plates):
        raise ValueError(f"plate '{name}' is opened inside itself; give the inner plate a name of its own.")
    token = _plates.set((*open_plates, Plate(name, length, coords)))
    try:
        yield np.arange(length)
    finally:
        _plates.reset(token)


def _current(word: str, name: str) -> AbstractInterpreter:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{word}: the first argument is a name, a non-empty string; got {name!r}.")
    interpreter = _interpreter.get()
    if interpreter is None:
        raise RuntimeError(
            f"{word}('{name}', ...) has a meaning only while a model runs; "
            f"put it into a function decorated with @model and pass `f(data)` to `sample`."
        )
    return interpreter


def _dims(name: str, dims: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if dims is None:
        return None
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if not all(isinstance(dim, str) for dim in names):
        raise TypeError(f"site '{name}': dims must be names, got {dims!r}.")
    return names
