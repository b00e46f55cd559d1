"""Derivatives of any JAX function by any adtype: the operators beside the gradient, each prepared or not.

Every operator O of f(x, *constants) comes as `O(f, adtype, x, ...)`, as `value_and_O(f, adtype, x, ...)`, and as
`prepare_O(f, adtype, x, ...)`, which traces and checks once and whose result has both as methods::

    jacobian(f, AutoForward(), x)
    prepared = prepare_jacobian(f, None, x)         # None: the default adtype
    value, matrix = prepared.value_and_jacobian(x)  # usable inside jit, vmap, scan and while_loop

Everywhere `x` is an array or a pytree of arrays of one floating dtype, `f` returns an array or a pytree of arrays, and
constants are not differentiated. All raise `DifferentiationError` where the adtype cannot differentiate f, TypeError on
what is no adtype, no floating-point argument or result, ValueError on a tangent or cotangent of the wrong shape, and,
prepared, `PreparationError` on arguments other than prepared for. Second derivatives stand in `hessian`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .adtypes import AbstractADType, Backend
from .flattening import Flattened, dense_blocks, flat, is_array, pull_back, push
from .gradient import value_and_gradient
from .preparation import check_arrays
from .problem import DerivativeProblem, Prepared, check_like, name_of, prepare, resolve
from .sparse import AutoSparse, prepare_sparse

Function = Callable[..., Any]


class PreparedPushforward(Prepared):
    """A pushforward prepared by `prepare_pushforward`."""

    directions = ("tangent",)

    def value_and_pushforward(self, x: Any, tangent: Any, *constants: Any) -> tuple[Any, Any]:
        """The value and J t, of the structure of the value."""
        value, derivative = self._evaluate(x, tangent, *constants)
        return value, derivative

    def pushforward(self, x: Any, tangent: Any, *constants: Any) -> Any:
        """J t."""
        return self.value_and_pushforward(x, tangent, *constants)[1]


class PreparedPullback(Prepared):
    """A pullback prepared by `prepare_pullback`."""

    directions = ("cotangent",)

    def value_and_pullback(self, x: Any, cotangent: Any, *constants: Any) -> tuple[Any, Any]:
        """The value and cᵀ J, of the structure of `x`."""
        value, derivative = self._evaluate(x, cotangent, *constants)
        return value, derivative

    def pullback(self, x: Any, cotangent: Any, *constants: Any) -> Any:
        """The product cᵀ J."""
        return self.value_and_pullback(x, cotangent, *constants)[1]


class PreparedDerivative(Prepared):
    """A derivative prepared by `prepare_derivative`."""

    def value_and_derivative(self, x: Any, *constants: Any) -> tuple[Any, Any]:
        """The value and df/dx, of its structure."""
        value, derivative = self._evaluate(x, *constants)
        return value, derivative

    def derivative(self, x: Any, *constants: Any) -> Any:
        """The derivative df/dx."""
        return self.value_and_derivative(x, *constants)[1]


class PreparedJacobian(Prepared):
    """A Jacobian prepared by `prepare_jacobian`."""

    def value_and_jacobian(self, x: Any, *constants: Any) -> tuple[Any, Any]:
        """The value and the Jacobian."""
        value, matrix = self._evaluate(x, *constants)
        return value, matrix

    def jacobian(self, x: Any, *constants: Any) -> Any:
        """The Jacobian."""
        return self.value_and_jacobian(x, *constants)[1]


def prepare_pushforward(
    f: Function, adtype: AbstractADType | None, x: Any, tangent: Any, *constants: Any
) -> PreparedPushforward:
    """Prepare J t, the change of f along a tangent t.

    A forward backend pushes t through f; a reverse one transposes its pullback, or multiplies with the Jacobian.

    Args:
        f: the function.
        adtype: how to differentiate; None means the default.
        x: the argument; only structure, shapes and dtypes matter here and below.
        tangent: t, of the structure, shapes and dtype of `x`.
        constants: further arguments.
    """
    subject = name_of(f, x, constants)
    check_like(tangent, x, "tangent of x", subject)

    def derive(backend: Backend) -> Function:
        def value_and_pushforward(x: Any, tangent: Any, *constants: Any) -> tuple[Any, Any]:
            of_flat = Flattened(f, subject, x, constants)
            value, derivative = push(backend, of_flat, of_flat.point, flat(tangent).ravel())
            return of_flat.restore(value), of_flat.restore(derivative)

        return value_and_pushforward

    return prepare(PreparedPushforward, DerivativeProblem(derive, subject, (x, tangent, *constants)), adtype)


def prepare_pullback(
    f: Function, adtype: AbstractADType | None, x: Any, cotangent: Any, *constants: Any
) -> PreparedPullback:
    """Prepare cᵀ J, the change of cᵀ f with every number of x.

    A reverse backend pulls c back through f; a forward one multiplies with the Jacobian.

    Args:
        f: the function.
        adtype: how to differentiate; None means the default.
        x: the argument.
        cotangent: c, of the structure, shapes and dtypes of the result of `f`.
        constants: further arguments.
    """
    subject = name_of(f, x, constants)
    check_arrays(cotangent, "the cotangent", subject)

    def derive(backend: Backend) -> Function:
        def value_and_pullback(x: Any, cotangent: Any, *constants: Any) -> tuple[Any, Any]:
            of_flat = Flattened(f, subject, x, constants)
            value, pull = pull_back(backend, of_flat, of_flat.point)
            check_like(cotangent, of_flat.restore(value), "cotangent of the result", subject)
            return of_flat.restore(value), of_flat.unravel(pull(flat(cotangent)))

        return value_and_pullback

    return prepare(PreparedPullback, DerivativeProblem(derive, subject, (x, cotangent, *constants)), adtype)


def prepare_derivative(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> PreparedDerivative:
    """Prepare df/dx for one number x.

    Args:
        f: the function, its result of any shape.
        adtype: how to differentiate; None means the default.
        x: the argument, shape ().
        constants: further arguments.
    """
    subject = name_of(f, x, constants)
    if not is_array(x) or jnp.shape(x) != ():
        got = f"shape {jnp.shape(x)}" if is_array(x) else type(x).__name__
        raise TypeError(f"{subject}: a derivative is with respect to one number, got {got}; use jacobian.")

    def derive(backend: Backend) -> Function:
        def value_and_derivative(x: Any, *constants: Any) -> tuple[Any, Any]:
            of_flat = Flattened(f, subject, x, constants)
            value, derivative = push(backend, of_flat, of_flat.point, jnp.ones_like(of_flat.point))
            return of_flat.restore(value), of_flat.restore(derivative)

        return value_and_derivative

    return prepare(PreparedDerivative, DerivativeProblem(derive, subject, (x, *constants)), adtype)


def prepare_jacobian(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> PreparedJacobian:
    """Prepare the Jacobian J = ∂f/∂x, nested as by `jax.jacobian`.

    For an array x and a result that is an array it has shape (*result.shape, *x.shape); for pytrees it is the structure
    of the result, with that of x in every leaf. `AutoSparse` gives `BCOO` matrices in place of dense arrays.

    Args:
        f: the function.
        adtype: how to differentiate; None means the default.
        x: the argument.
        constants: further arguments.
    """
    subject = name_of(f, x, constants)
    rule = resolve(adtype)
    if isinstance(rule, AutoSparse):
        return prepare_sparse(PreparedJacobian, f, subject, rule, x, *constants)

    def derive(backend: Backend) -> Function:
        def value_and_jacobian(x: Any, *constants: Any) -> tuple[Any, Any]:
            of_flat = Flattened(f, subject, x, constants)
            value, matrix = backend.jacobian(of_flat, of_flat.point)
            value = of_flat.restore(value)
            return value, dense_blocks(matrix, value, x)

        return value_and_jacobian

    return prepare(PreparedJacobian, DerivativeProblem(derive, subject, (x, *constants)), rule)


def value_and_pushforward(
    f: Function, adtype: AbstractADType | None, x: Any, tangent: Any, *constants: Any
) -> tuple[Any, Any]:
    """The value and J t; see `prepare_pushforward`."""
    return prepare_pushforward(f, adtype, x, tangent, *constants).value_and_pushforward(x, tangent, *constants)


def pushforward(f: Function, adtype: AbstractADType | None, x: Any, tangent: Any, *constants: Any) -> Any:
    """The product J t; see `prepare_pushforward`."""
    return value_and_pushforward(f, adtype, x, tangent, *constants)[1]


def value_and_pullback(
    f: Function, adtype: AbstractADType | None, x: Any, cotangent: Any, *constants: Any
) -> tuple[Any, Any]:
    """The value and cᵀ J; see `prepare_pullback`."""
    return prepare_pullback(f, adtype, x, cotangent, *constants).value_and_pullback(x, cotangent, *constants)


def pullback(f: Function, adtype: AbstractADType | None, x: Any, cotangent: Any, *constants: Any) -> Any:
    """The product cᵀ J; see `prepare_pullback`."""
    return value_and_pullback(f, adtype, x, cotangent, *constants)[1]


def value_and_derivative(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> tuple[Any, Any]:
    """The value and df/dx; see `prepare_derivative`."""
    return prepare_derivative(f, adtype, x, *constants).value_and_derivative(x, *constants)


def derivative(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> Any:
    """The derivative df/dx; see `prepare_derivative`."""
    return value_and_derivative(f, adtype, x, *constants)[1]


def gradient(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> Any:
    """The gradient of a scalar function, of the structure of `x`; see `prepare_gradient`."""
    return value_and_gradient(f, adtype, x, *constants)[1]


def value_and_jacobian(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> tuple[Any, Any]:
    """The value and the Jacobian; see `prepare_jacobian`."""
    return prepare_jacobian(f, adtype, x, *constants).value_and_jacobian(x, *constants)


def jacobian(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> Any:
    """The Jacobian; see `prepare_jacobian`."""
    return value_and_jacobian(f, adtype, x, *constants)[1]
