"""What an adtype is: a frozen, hashable value, either a backend that differentiates or a rule that picks one.

To add a backend, write one file with a frozen dataclass that implements `AbstractForwardBackend` or
`AbstractReverseBackend`, and export it from `dualtape.ad`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax

Scalar = jax.Array
Flat = jax.Array
FlatFunction = Callable[[Flat], Scalar]


class AbstractADType(abc.ABC):
    """A way to differentiate. Every subclass is a backend or a rule."""


class AbstractForwardBackend(AbstractADType):
    """A backend whose primitive is the pushforward: Jacobian times tangents."""

    mode: ClassVar[str] = "forward"

    @abc.abstractmethod
    def pushforward(self, f: FlatFunction, x: Flat, tangents: jax.Array) -> tuple[Scalar, jax.Array]:
        """The value and its change along each tangent.

        Args:
            f: a scalar function of a flat array.
            x: the point, shape (dimension,).
            tangents: the directions, shape (k, dimension).

        Returns:
            `f(x)`, shape (), and the k directional derivatives, shape (k,).
        """

    @abc.abstractmethod
    def chunk(self, dimension: int) -> int:
        """How many tangents are carried in one pass over a function of `dimension` inputs."""


class AbstractReverseBackend(AbstractADType):
    """A backend whose primitive is the pullback: cotangent times Jacobian."""

    mode: ClassVar[str] = "reverse"

    @abc.abstractmethod
    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Scalar, Callable[[Scalar], Flat]]:
        """The value and the function that carries a cotangent back to the input.

        Args:
            f: a scalar function of a flat array.
            x: the point, shape (dimension,).

        Returns:
            `f(x)`, shape (), and a function from a cotangent, shape (), to one of shape (dimension,).
        """


Backend = AbstractForwardBackend | AbstractReverseBackend


@dataclass(frozen=True)
class Choice:
    """What a rule decided, and why; recorded in the result of every run.

    Args:
        backend: the adtype that differentiates.
        reason: one sentence for the user.
    """

    backend: Backend
    reason: str


class AbstractRule(AbstractADType):
    """An adtype that does not differentiate but picks a backend for the function at hand."""

    @abc.abstractmethod
    def choose(self, dimension: int, supported: Callable[[Backend], bool]) -> Choice:
        """Pick a backend.

        Args:
            dimension: how many numbers are differentiated.
            supported: whether a backend can differentiate this function at all. It traces the derivative, so
                it costs milliseconds; ask only about what you mean to choose.
        """


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
