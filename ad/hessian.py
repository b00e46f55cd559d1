"""Hessians and Hessian-vector products of scalar functions by any adtype; see `operators` for what they share.

`SecondOrder(outer, inner)` names both adtypes; a backend differentiates its own gradient; for rules it is forward mode
over reverse mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.flatten_util import ravel_pytree

from .adtypes import AbstractADType, Scalar
from .flattening import dense_blocks, flat_scalar
from .problem import DerivativeProblem, Prepared, check_like, name_of, resolve
from .second_order import SecondOrder, choose_second_order
from .sparse import AutoSparse, prepare_sparse_hessian

Function = Callable[..., Scalar]


class PreparedHessian(Prepared):
    """A Hessian prepared by `prepare_hessian`."""

    def value_gradient_and_hessian(self, x: Any, *constants: Any) -> tuple[Scalar, Any, Any]:
        """The value, shape (), the gradient, of the structure of `x`, and the Hessian."""
        value, gradient, hessian = self._evaluate(x, *constants)
        return value, gradient, hessian

    def hessian(self, x: Any, *constants: Any) -> Any:
        """The Hessian."""
        return self.value_gradient_and_hessian(x, *constants)[2]


class PreparedHVP(Prepared):
    """A Hessian-vector product prepared by `prepare_hvp`."""

    directions = ("vector",)

    def gradient_and_hvp(self, x: Any, v: Any, *constants: Any) -> tuple[Any, Any]:
        """The gradient and H v, each of the structure of `x`."""
        gradient, product = self._evaluate(x, v, *constants)
        return gradient, product

    def hvp(self, x: Any, v: Any, *constants: Any) -> Any:
        """The product H v."""
        return self.gradient_and_hvp(x, v, *constants)[1]


def prepare_hessian(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> PreparedHessian:
    """Prepare the Hessian H = ∂²f/∂x², nested as by `jax.hessian`.

    For an array x it has shape (*x.shape, *x.shape); for a pytree it is the structure of x, with that of x again in
    every leaf. `AutoSparse` gives `BCOO` matrices in place of dense arrays.

    Args:
        f: the function, its result a scalar.
        adtype: how to differentiate; None means the default.
        x: the argument; only structure, shapes and dtypes matter here.
        constants: further arguments.

    Returns:
        A `PreparedHessian`, whose `adtype` is the `SecondOrder` that differentiates.

    Raises:
        DifferentiationError, TypeError: as `prepare_gradient`.
    """
    subject, rule = name_of(f, x, constants), resolve(adtype)
    if isinstance(rule, AutoSparse):
        return prepare_sparse_hessian(PreparedHessian, f, subject, rule, x, *constants)

    def derive(pair: SecondOrder) -> Callable[..., Any]:
        def value_gradient_and_hessian(x: Any, *constants: Any) -> tuple[Scalar, Any, Any]:
            of_flat, point, unravel = flat_scalar(f, subject, x, constants)
            gradient, matrix = pair.gradient_and_hessian(of_flat, point)
            return of_flat(point), unravel(gradient), dense_blocks(matrix, x, x)

        return value_gradient_and_hessian

    problem = DerivativeProblem(derive, subject, (x, *constants))
    return problem.prepared(PreparedHessian, *choose_second_order(rule, problem))


def prepare_hvp(f: Function, adtype: AbstractADType | None, x: Any, v: Any, *constants: Any) -> PreparedHVP:
    """Prepare H v, the change of the gradient of f along v, without the Hessian H.

    Args:
        f: the function, its result a scalar.
        adtype: how to differentiate; None means the default. `AutoSparse` counts as what it holds.
        x: the argument; only structure, shapes and dtypes matter here.
        v: the vector, of the structure, shapes and dtype of `x`.
        constants: further arguments.

    Returns:
        A `PreparedHVP`, whose `adtype` is the `SecondOrder` that differentiates.

    Raises:
        DifferentiationError, TypeError: as `prepare_gradient`.
        ValueError: if `v` is not like `x`.
    """
    subject, rule = name_of(f, x, constants), resolve(adtype)
    check_like(v, x, "vector of a Hessian-vector product at x", subject)

    def derive(pair: SecondOrder) -> Callable[..., Any]:
        def gradient_and_hvp(x: Any, v: Any, *constants: Any) -> tuple[Any, Any]:
            of_flat, point, unravel = flat_scalar(f, subject, x, constants)
            gradient, products = pair.gradient_and_hvps(of_flat, point, ravel_pytree(v)[0][None])
            return unravel(gradient), unravel(products[0])

        return gradient_and_hvp

    problem = DerivativeProblem(derive, subject, (x, v, *constants))
    dense = resolve(rule.adtype) if isinstance(rule, AutoSparse) else rule
    return problem.prepared(PreparedHVP, *choose_second_order(dense, problem))


def value_gradient_and_hessian(
    f: Function, adtype: AbstractADType | None, x: Any, *constants: Any
) -> tuple[Scalar, Any, Any]:
    """The value, the gradient and the Hessian; see `prepare_hessian`."""
    return prepare_hessian(f, adtype, x, *constants).value_gradient_and_hessian(x, *constants)


def hessian(f: Function, adtype: AbstractADType | None, x: Any, *constants: Any) -> Any:
    """The Hessian; see `prepare_hessian`."""
    return value_gradient_and_hessian(f, adtype, x, *constants)[2]


def gradient_and_hvp(f: Function, adtype: AbstractADType | None, x: Any, v: Any, *constants: Any) -> tuple[Any, Any]:
    """The gradient and H v; see `prepare_hvp`."""
    return prepare_hvp(f, adtype, x, v, *constants).gradient_and_hvp(x, v, *constants)


def hvp(f: Function, adtype: AbstractADType | None, x: Any, v: Any, *constants: Any) -> Any:
    """The product H v of the Hessian with a vector; see `prepare_hvp`."""
    return gradient_and_hvp(f, adtype, x, v, *constants)[1]
