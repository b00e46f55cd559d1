"""The door of this layer: `value_and_gradient` and `prepare_gradient`, for every adtype.

The gradient of f: R^d -> R is the one row of its Jacobian, which every backend derives from its own primitive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .adtypes import AbstractADType, Backend, Scalar
from .flattening import flat_scalar
from .problem import DerivativeProblem, Prepared, name_of, prepare
from .rules import with_rules

Function = Callable[..., Scalar]


class PreparedGradient(Prepared):
    """A gradient traced and checked for arguments of one structure, shape and dtype; made by `prepare_gradient`."""

    def value_and_gradient(self, x: Any, *constants: Any) -> tuple[Scalar, Any]:
        """The value, shape (), and the gradient, of the structure of `x`.

        Raises:
            PreparationError: if the arguments differ in structure, shape or dtype from the prepared ones.
        """
        value, gradient = self._evaluate(x, *constants)
        return value, gradient

    def gradient(self, x: Any, *constants: Any) -> Any:
        """The gradient, of the structure of `x`."""
        return self.value_and_gradient(x, *constants)[1]


def prepare_gradient(
    f: Function, adtype: AbstractADType | None, x: Any, *constants: Any, subject: str | None = None
) -> PreparedGradient:
    """Choose a backend for `f`, trace its gradient and check that it can be computed.

    Args:
        f: a function `f(x, *constants)` with a scalar floating-point result.
        adtype: how to differentiate; None means the default (`set_default_adtype`).
        x: the differentiated argument, an array or a pytree of arrays of one floating dtype. Only structure,
            shapes and dtypes matter here, unless the adtype measures.
        constants: further arguments, not differentiated.
        subject: what to call `f` in messages.

    Returns:
        A `PreparedGradient`.

    Raises:
        DifferentiationError: where the adtype cannot differentiate `f`; it names one that can.
        TypeError: if `adtype` is not an adtype, `f` cannot be called, `x` is not floating point, a constant is no
            array, or the result is not a scalar.
    """
    name = name_of(f, x, constants, subject)
    return prepare(PreparedGradient, gradient_problem(f, name, x, *constants), adtype)


def gradient_problem(f: Function, subject: str, x: Any, *constants: Any) -> DerivativeProblem[Backend]:
    """The gradient of a function as a problem to choose a backend for."""

    def derive(backend: Backend) -> Callable[..., tuple[Scalar, Any]]:
        def value_and_gradient(x: Any, *constants: Any) -> tuple[Scalar, Any]:
            of_flat, flat, unravel = flat_scalar(f, subject, x, constants)
            value, gradient = backend.jacobian(with_rules(of_flat) if backend.traced else of_flat, flat)
            return value, unravel(gradient.astype(flat.dtype))

        return value_and_gradient

    return DerivativeProblem(derive, subject, (x, *constants))


def value_and_gradient(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> tuple[Scalar, Any]:
    """The value of a scalar function and its gradient, in one call without preparation.

    Args:
        f: a function `f(x, *constants)` with a scalar floating-point result.
        adtype: how to differentiate; None means the default.
        x: the differentiated argument, an array or a pytree of arrays of one floating dtype.
        constants: further arguments, not differentiated.

    Returns:
        `f(x, *constants)`, shape (), and the gradient, of the structure of `x`.

    Raises:
        DifferentiationError, TypeError: as `prepare_gradient`.
    """
    return prepare_gradient(f, adtype, x, *constants).value_and_gradient(x, *constants)
