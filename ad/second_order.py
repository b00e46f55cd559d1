"""Second derivatives: an outer adtype differentiates the gradient by an inner one."""

from __future__ import annotations

from dataclasses import dataclass

from .adtypes import (
    AbstractBackend,
    AbstractForwardBackend,
    AbstractRule,
    Array,
    Backend,
    Choice,
    Flat,
    FlatFunction,
    Problem,
)
from .forward import AutoForward
from .problem import DerivativeProblem
from .reverse import AutoReverse


@dataclass(frozen=True)
class SecondOrder(AbstractRule):
    """`outer` over `inner`: Hessians and Hessian-vector products as derivatives by `outer` of the gradient by `inner`.

    Where only a first derivative is asked for, as in a gradient or in `sample`, `inner` differentiates.

    Args:
        outer: the backend that differentiates the gradient; forward mode suits most functions.
        inner: the backend of the gradient; reverse mode suits most functions.

    Raises:
        TypeError: if `outer` or `inner` is not a backend.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 5; Dalle and Hill (2025), "A Common Interface
    for Automatic Differentiation".
    """

    outer: Backend
    inner: Backend

    def __post_init__(self) -> None:
        for name, backend in (("outer", self.outer), ("inner", self.inner)):
            if not isinstance(backend, AbstractBackend):
                raise TypeError(
                    f"SecondOrder: {name} must be a backend such as AutoForward() or AutoReverse(), got {backend!r}; "
                    f"the usual pair is SecondOrder(AutoForward(), AutoReverse())."
                )

    @property
    def traced(self) -> bool:
        """See `AbstractBackend`."""
        return self.outer.traced and self.inner.traced

    def choose(self, problem: Problem) -> Choice:
        """See `AbstractRule.choose`; for a first derivative."""
        return Choice(self.inner, f"the inner adtype of {self!r}: a first derivative needs no outer one")

    def gradient_and_hessian(self, f: FlatFunction, x: Flat) -> tuple[Flat, Array]:
        """The gradient of a scalar function, shape (dimension,), and its Hessian, shape (dimension, dimension)."""
        return self.outer.jacobian(self.gradient_of(f), x)

    def gradient_and_hvps(self, f: FlatFunction, x: Flat, vectors: Array) -> tuple[Flat, Array]:
        """The gradient, shape (dimension,), and the Hessian times each of `vectors`, both of shape (k, dimension).

        The Hessian is symmetric: an outer backend of reverse mode pulls v back through the gradient, vᵀ H.
        """
        if isinstance(self.outer, AbstractForwardBackend):
            return self.outer.pushforward(self.gradient_of(f), x, vectors)
        gradient, pull = self.outer.pullback(self.gradient_of(f), x)
        return gradient, pull(vectors)

    def gradient_of(self, f: FlatFunction) -> FlatFunction:
        """The gradient by `inner` as a function."""

        def gradient(x: Flat) -> Flat:
            return self.inner.jacobian(f, x)[1]

        return gradient


_FORWARD_OVER_REVERSE = SecondOrder(AutoForward(), AutoReverse())
_FORWARD_OVER_FORWARD = SecondOrder(AutoForward(), AutoForward())


def choose_second_order(
    adtype: Backend | AbstractRule, problem: DerivativeProblem[SecondOrder]
) -> tuple[SecondOrder, Choice]:
    """The pair of backends for a second derivative, and why.

    A pair is taken as it is; a backend differentiates its own gradient; for any other rule the pair is forward over
    reverse, or forward over forward where reverse mode cannot go.
    """
    if isinstance(adtype, SecondOrder):
        return adtype, Choice(adtype.inner, "requested")
    if not isinstance(adtype, AbstractRule):
        return SecondOrder(adtype, adtype), Choice(adtype, f"requested: {adtype!r} over itself")
    usual = "forward over reverse, as usual for second derivatives"
    if problem.supported(_FORWARD_OVER_REVERSE) or not problem.supported(_FORWARD_OVER_FORWARD):
        return _FORWARD_OVER_REVERSE, Choice(AutoReverse(), usual)
    return _FORWARD_OVER_FORWARD, Choice(
        AutoForward(), f"forward over forward: {usual}, cannot differentiate this function"
    )
