"""What an adtype is: a frozen, hashable value, either a backend that differentiates or a rule that picks one.

To add a backend, write one file with a frozen dataclass that implements `AbstractForwardBackend` or
`AbstractReverseBackend`, and export it from `dualtape.ad`. A backend sees functions of one flat array; pytrees,
constants, checks and preparation are the business of the door (`gradient`, `operators`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from .naming import Written

Array = jax.Array
Scalar = jax.Array
Flat = jax.Array
# A function of a flat array, shape (dimension,), whose result is one array of any shape, written (*out,) below.
FlatFunction = Callable[[Flat], Array]
Pullback = Callable[[Array], Array]


class AbstractADType(Written, abc.ABC):
    """A way to differentiate. Every subclass is a backend or a rule."""


class AbstractBackend(AbstractADType):
    """An adtype that differentiates.

    Args:
        mode: "forward" or "reverse", for messages.
        traced: whether the function is seen once, with placeholders for its argument (True), or anew on every call,
            with numbers (False): there an `if` on a value works.
    """

    mode: ClassVar[str]
    traced: ClassVar[bool] = True

    @abc.abstractmethod
    def jacobian(self, f: FlatFunction, x: Flat) -> tuple[Array, Array]:
        """The value and the whole Jacobian.

        Args:
            f: a function of a flat array.
            x: the point, shape (dimension,).

        Returns:
            `f(x)`, shape (*out,), and its Jacobian, shape (*out, dimension).
        """


class AbstractForwardBackend(AbstractBackend):
    """A backend whose primitive is the pushforward: Jacobian times tangents."""

    mode: ClassVar[str] = "forward"

    @abc.abstractmethod
    def pushforward(self, f: FlatFunction, x: Flat, tangents: Array) -> tuple[Array, Array]:
        """The value and its change along each tangent.

        Args:
            f: a function of a flat array.
            x: the point, shape (dimension,).
            tangents: the directions, shape (k, dimension).

        Returns:
            `f(x)`, shape (*out,), and the k directional derivatives, shape (k, *out).
        """

    @abc.abstractmethod
    def chunk(self, dimension: int) -> int:
        """How many tangents are carried in one pass over a function of `dimension` inputs."""

    def jacobian(self, f: FlatFunction, x: Flat) -> tuple[Array, Array]:
        """See `AbstractBackend.jacobian`; here by pushing the unit vectors, a chunk at a time."""
        dimension = x.size
        if dimension == 0:
            value = f(x)
            return value, jnp.zeros((*value.shape, 0), value.dtype)
        chunk = self.chunk(dimension)
        if chunk >= dimension:
            value, columns = self.pushforward(f, x, jnp.eye(dimension, dtype=x.dtype))
            return value, jnp.moveaxis(columns, 0, -1)

        # Unit vectors are made chunk by chunk: the d x d identity never exists. The last chunk may reach past the
        # end, where its unit vectors are zero and its results are cut off.
        def one_chunk(start: Array) -> tuple[Array, Array]:
            seeds = jax.nn.one_hot(start + jnp.arange(chunk), dimension, dtype=x.dtype)
            return self.pushforward(f, x, seeds)

        values, columns = lax.map(one_chunk, chunk * jnp.arange(-(-dimension // chunk)))
        columns = columns.reshape(columns.shape[0] * chunk, *columns.shape[2:])[:dimension]
        return values[0], jnp.moveaxis(columns, 0, -1)


class AbstractReverseBackend(AbstractBackend):
    """A backend whose primitive is the pullback: cotangent times Jacobian."""

    mode: ClassVar[str] = "reverse"

    @abc.abstractmethod
    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Array, Pullback]:
        """The value and the function that carries cotangents back to the input.

        Args:
            f: a function of a flat array.
            x: the point, shape (dimension,).

        Returns:
            `f(x)`, shape (*out,), and a function from cotangents, shape (k, *out), to shape (k, dimension).
        """

    def jacobian(self, f: FlatFunction, x: Flat) -> tuple[Array, Array]:
        """See `AbstractBackend.jacobian`; here by pulling the unit cotangents back."""
        value, pull = self.pullback(f, x)
        units = jnp.eye(value.size, dtype=value.dtype).reshape(value.size, *value.shape)
        return value, pull(units).reshape(*value.shape, x.size)


Backend = AbstractForwardBackend | AbstractReverseBackend


@dataclass(frozen=True)
class Measurement:
    """What was measured of one backend on one function.

    Args:
        adtype: the backend, as the user would write it.
        seconds: of one evaluation of value and gradient; None where it has no verdict of "correct".
        verdict: "correct", or in a sentence why it was ruled out.
    """

    adtype: str
    seconds: float | None
    verdict: str


@dataclass(frozen=True)
class Choice:
    """What a rule decided, and why; recorded in the result of every run.

    Args:
        backend: the adtype that differentiates.
        reason: one sentence for the user.
        measurements: what the choice rests on, where it was measured.
    """

    backend: Backend
    reason: str
    measurements: tuple[Measurement, ...] = ()


class Problem(Protocol):
    """The gradient that a rule chooses a backend for."""

    @property
    def subject(self) -> str:
        """What to call the function in messages."""

    @property
    def dimension(self) -> int:
        """How many numbers are differentiated."""

    @property
    def arguments(self) -> tuple[Any, ...]:
        """`(x, *constants)`: arrays, or `jax.ShapeDtypeStruct`s where only shapes are known."""

    def supported(self, backend: Backend) -> bool:
        """Whether a backend can differentiate this function at all. It traces the derivative: milliseconds."""

    def evaluator(self, backend: Backend) -> Callable[..., tuple[Scalar, Any]]:
        """The function `(x, *constants) -> (value, gradient)` by a supported backend, usable inside `jit`."""


class AbstractRule(AbstractADType):
    """An adtype that does not differentiate but picks a backend for the function at hand."""

    @abc.abstractmethod
    def choose(self, problem: Problem) -> Choice:
        """Pick a backend. Ask `problem` only about what you mean to choose: each answer costs a tracing."""


def check_adtype(adtype: object, argument: str = "adtype") -> Backend | AbstractRule:
    """Return `adtype` if it is one; raise TypeError naming `argument` and the remedy otherwise."""
    if isinstance(adtype, (AbstractForwardBackend, AbstractReverseBackend, AbstractRule)):
        return adtype
    hint = ""
    if isinstance(adtype, type) and issubclass(adtype, AbstractADType):
        hint = f" (that is the class; write {adtype.__name__}() for a value)"
    raise TypeError(
        f"{argument} must be an adtype such as AutoForward(), AutoReverse() or AutoByDimension(20), "
        f"got {adtype!r}{hint}."
    )


def check_chunk_size(chunk_size: object, adtype: str) -> None:
    """Raise ValueError naming `adtype` and the remedy unless `chunk_size` is a positive integer or None."""
    if chunk_size is None or (isinstance(chunk_size, int) and not isinstance(chunk_size, bool) and chunk_size > 0):
        return
    raise ValueError(
        f"{adtype}: chunk_size must be a positive integer or None, got {chunk_size!r}; "
        f"use {adtype}() to let it be chosen."
    )
