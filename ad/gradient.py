"""The door of this layer: `value_and_gradient` and `prepare_gradient`, for every adtype.

The gradient of f: R^d -> R is the one row of its Jacobian, which every backend derives from its own primitive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .adtypes import AbstractADType, AbstractRule, Array, Backend, Choice, Flat, Scalar, check_adtype
from .errors import DifferentiationError, explain
from .preparation import Signature, check_differentiable, shapes_of, traced
from .routing import current_adtype

Function = Callable[..., Scalar]


@dataclass(frozen=True)
class PreparedGradient:
    """A gradient traced and checked for arguments of one structure, shape and dtype.

    Made by `prepare_gradient`. It can be called inside `jit`, `vmap`, `scan` and `while_loop`.

    Args:
        choice: the backend that differentiates and the reason it was chosen.
        signature: what it was prepared for.
    """

    choice: Choice
    signature: Signature
    _call: Callable[..., tuple[Scalar, Any]]

    @property
    def adtype(self) -> Backend:
        """The backend that differentiates (never a rule)."""
        return self.choice.backend

    def value_and_gradient(self, x: Any, *constants: Any) -> tuple[Scalar, Any]:
        """The value, shape (), and the gradient, of the structure of `x`.

        Raises:
            PreparationError: if the arguments differ in structure, shape or dtype from the prepared ones.
        """
        self.signature.check(Signature.of(x, constants))
        return self._call(x, *constants)


def prepare_gradient(
    f: Function, adtype: AbstractADType | None, x: Any, *constants: Any, subject: str | None = None
) -> PreparedGradient:
    """Choose a backend for `f`, trace its gradient and check that it can be computed.

    Args:
        f: a function `f(x, *constants)` with a scalar floating-point result.
        adtype: how to differentiate; None means the default (`set_default_adtype`).
        x: the differentiated argument, an array or a pytree of arrays of one floating dtype. Only structure,
            shapes and dtypes matter here.
        constants: further arguments, not differentiated.
        subject: what to call `f` in messages.

    Returns:
        A `PreparedGradient`.

    Raises:
        DifferentiationError: where the adtype cannot differentiate `f`; it names one that can.
        TypeError: if `adtype` is not an adtype, `x` is not floating point, or the result is not a scalar.
    """
    rule = current_adtype() if adtype is None else check_adtype(adtype)
    name = subject or str(getattr(f, "__name__", "the function"))
    check_differentiable(x, name)
    problem = GradientProblem(f, name, (x, *constants))
    choice = rule.choose(problem) if isinstance(rule, AbstractRule) else Choice(rule, "requested")
    if not problem.supported(choice.backend):
        raise problem.refusal(choice.backend)
    return PreparedGradient(choice, Signature.of(x, constants), jax.jit(problem.evaluator(choice.backend), inline=True))


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


@dataclass(frozen=True)
class GradientProblem:
    """A gradient to choose a backend for; implements `Problem`. Each backend's derivative is traced once.

    Args:
        function: `f(x, *constants)`.
        subject: what to call it in messages.
        arguments: `(x, *constants)`, arrays or shapes.
    """

    function: Function
    subject: str
    arguments: tuple[Any, ...]
    _attempts: dict[Backend, Callable[..., Any] | DifferentiationError] = field(default_factory=dict)

    @property
    def dimension(self) -> int:
        """See `Problem.dimension`."""
        return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(self.arguments[0])))

    def supported(self, backend: Backend) -> bool:
        """See `Problem.supported`."""
        return not isinstance(self._attempt(backend), DifferentiationError)

    def evaluator(self, backend: Backend) -> Callable[..., tuple[Scalar, Any]]:
        """See `Problem.evaluator`.

        Raises:
            DifferentiationError: if the backend is not supported.
        """
        attempt = self._attempt(backend)
        if isinstance(attempt, DifferentiationError):
            raise attempt
        return attempt

    def refusal(self, backend: Backend) -> DifferentiationError:
        """Why `backend`, and any other that was tried, cannot differentiate the function."""
        refusals = [attempt for attempt in self._attempts.values() if isinstance(attempt, DifferentiationError)]
        if len(refusals) > 1:
            return DifferentiationError("neither mode can differentiate it. " + " And: ".join(map(str, refusals)))
        refusal = self._attempt(backend)
        assert isinstance(refusal, DifferentiationError)
        return refusal

    def _attempt(self, backend: Backend) -> Callable[..., Any] | DifferentiationError:
        if backend not in self._attempts:
            try:
                derivative = functools.partial(_value_and_gradient, self.function, self.subject, backend)
                self._attempts[backend] = traced(derivative, self.arguments)
            except Exception as error:
                named = explain(error, self.subject)
                if named is None:
                    raise
                self._attempts[backend] = named
        return self._attempts[backend]


def _value_and_gradient(f: Function, subject: str, backend: Backend, x: Any, *constants: Any) -> tuple[Scalar, Any]:
    flat, unravel = ravel_pytree(x)

    def of_flat(flat: Flat) -> Array:
        return scalar(f(unravel(flat), *constants), subject)

    value, gradient = backend.jacobian(of_flat, flat)
    return value, unravel(gradient)


def scalar(value: Any, subject: str) -> Scalar:
    """The value, if it is one floating-point number; else raise TypeError naming `subject`."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(value, float):
        shape, dtype = (), jnp.result_type(float)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        got = f"{dtype}{list(shape)}" if shape is not None else type(value).__name__
        raise TypeError(
            f"{subject}: a gradient needs a function with one floating-point number as its result, got {got}; "
            f"return a scalar, for example a jnp.sum."
        )
    return jnp.asarray(value)
