"""What gives the words of the language their meaning: interpreters, and the plates that are open."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpyro.distributions import Distribution

if TYPE_CHECKING:
    from .model import BoundModel

Dims = tuple[str, ...] | None


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

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """The labels of its entries, their numbers where they have none."""
        return np.array(self.coords or range(self.size))


@dataclass(frozen=True)
class Weight:
    """Added terms of the log density.

    Args:
        prior: what counts to the prior, or None.
        likelihood: what counts to the likelihood, or None.
    """

    prior: Any
    likelihood: Any


class AbstractInterpreter(abc.ABC):
    """Who runs a model: gives every declaration its meaning."""

    @abc.abstractmethod
    def random_variable(
        self, name: str, distribution: Distribution, obs: Any, dims: Dims, plates: tuple[Plate, ...]
    ) -> Any:
        """The value of a random variable."""

    @abc.abstractmethod
    def deterministic(self, name: str, value: Any, dims: Dims, plates: tuple[Plate, ...]) -> None:
        """Note a derived value."""

    @abc.abstractmethod
    def factor(self, name: str, weight: Weight, plates: tuple[Plate, ...]) -> None:
        """Note added terms of the log density."""

    @abc.abstractmethod
    def submodel(self, name: str, model: BoundModel) -> Any:
        """Run another model under a name; what it returns."""

    @abc.abstractmethod
    def scan(
        self, time: Plate, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, plates: tuple[Plate, ...]
    ) -> tuple[Any, Any]:
        """Run a step of a model once for each entry of a dimension; the last carry and what the steps returned."""

    @abc.abstractmethod
    def qualified(self, name: str) -> str:
        """A name with those of the submodels that it is declared in."""


# Context variables, not globals: models can be traced in several threads at once.
_interpreter: ContextVar[AbstractInterpreter | None] = ContextVar("dualtape_interpreter", default=None)
_plates: ContextVar[tuple[Plate, ...]] = ContextVar("dualtape_plates", default=())


@contextmanager
def interpreting(interpreter: AbstractInterpreter, plates: tuple[Plate, ...] = ()) -> Iterator[None]:
    """Let `interpreter` give meaning to the declarations inside a `with` block, with these plates open."""
    token = _interpreter.set(interpreter)
    try:
        with opened(plates):
            yield
    finally:
        _interpreter.reset(token)


@contextmanager
def opened(plates: tuple[Plate, ...]) -> Iterator[None]:
    """Let these be the open plates inside a `with` block."""
    token = _plates.set(plates)
    try:
        yield
    finally:
        _plates.reset(token)


def open_plates() -> tuple[Plate, ...]:
    """The open plates, outermost first."""
    return _plates.get()


def interpreter_for(word: str, name: str) -> AbstractInterpreter:
    """Who runs the model in which a word is used.

    Raises:
        TypeError: if the name is none.
        RuntimeError: if no model runs.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"{word}: the first argument is a name, a non-empty string; got {name!r}.")
    interpreter = _interpreter.get()
    if interpreter is None:
        raise RuntimeError(
            f"{word}('{name}', ...) has a meaning only while a model runs; "
            f"put it into a function decorated with @model and pass `f(data)` to `sample`."
        )
    return interpreter
