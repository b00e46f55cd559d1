"""Mixed modes: a function whose derivative is computed by an adtype of its own, whatever differentiates around it.

The mechanism is a `custom_jvp` rule. Its tangent, J t with J by the adtype, is linear in t and can be transposed, so
that it serves both modes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from .adtypes import (
    AbstractADType,
    AbstractForwardBackend,
    AbstractReverseBackend,
    AbstractRule,
    Array,
    Backend,
    check_adtype,
)
from .errors import DifferentiationError
from .flattening import push_by_transposition
from .preparation import check_differentiable, scalar
from .problem import DerivativeProblem, check_callable, resolve, run_at_numbers

F = TypeVar("F", bound=Callable[..., Any])
# Looks at the positions of the arguments that are differentiated, and raises if they must not be.
Inspect = Callable[[Sequence[int]], None]


def differentiate_with(adtype: AbstractADType) -> Callable[[F], F]:
    """Decorate a function: inside any other derivative, its own is computed with `adtype`.

    Forward mode inside reverse mode for a loop that reverse mode cannot pass, reverse mode inside forward mode for a
    function with a `custom_vjp` rule, finite differences around a black box inside either::

        @differentiate_with(AutoForward())
        def solve(theta): ...  # a lax.while_loop

        jax.grad(lambda theta: loss(solve(theta)))(theta)

    With a forward backend it costs one pass for each number that is differentiated, since the whole Jacobian is
    formed. With a reverse one it costs one pullback, or, where JAX cannot transpose that, one for each number of the
    result. Only those arguments are differentiated that depend on what is differentiated around the function.

    Args:
        adtype: how to differentiate the function.

    Returns:
        A decorator of functions of positional arguments, arrays or pytrees of arrays, with any such result. Integers
        among them are not differentiated, and neither are keyword arguments. Values of a surrounding function that is
        differentiated must be arguments: JAX refuses them from a closure.

    Raises:
        TypeError: if `adtype` is not an adtype.
        DifferentiationError: from the derivative, where `adtype` cannot differentiate the function.
    """
    checked = check_adtype(adtype, "differentiate_with: adtype")

    def decorate(g: F) -> F:
        check_callable(g, "differentiate_with(adtype)(f)")
        subject = f"{getattr(g, '__name__', 'the function')} (differentiate_with({checked!r}))"

        def call(*arguments: Any, **options: Any) -> Any:
            return _ruled(functools.partial(g, **options), checked, subject)(*arguments)

        return cast(F, functools.wraps(g)(call))

    return decorate


def as_jax_function(f: Callable[..., Any], adtype: AbstractADType | None) -> Callable[..., Any]:
    """A function whose derivative under JAX, by `jax.grad` or any library on top of it, is computed with `adtype`.

    Value and gradient are computed together. It works under `jit`, `vmap` and in loops.

    Args:
        f: a function `f(x, *constants)` with a scalar floating-point result.
        adtype: how to differentiate; None means the default at the time of this call.

    Returns:
        The function `(x, *constants) -> f(x, *constants)`.

    Raises:
        TypeError: if `f` cannot be called or `adtype` is not an adtype.
        DifferentiationError: from the derivative, where the adtype cannot differentiate `f`, or if it is taken with
            respect to a constant.
    """
    check_callable(f, "f, adtype")
    rule = resolve(adtype)
    name = str(getattr(f, "__name__", "the function"))
    subject = f"{name} (as_jax_function with {rule!r})"

    def as_jax(x: Any, *constants: Any) -> Any:
        parameters = len(jax.tree.leaves(x))

        def inspect(active: Sequence[int]) -> None:
            if any(position >= parameters for position in active):
                raise DifferentiationError(
                    f"{subject} differentiates its first argument only, not its constants; "
                    f"move what is differentiated into the first argument, or use differentiate_with"
                )

        def checked(x: Any, *constants: Any) -> Array:
            return scalar(f(x, *constants), subject)

        return _ruled(checked, rule, subject, inspect)(x, *constants)

    return functools.wraps(f)(as_jax)


def _ruled(
    g: Callable[..., Any], adtype: Backend | AbstractRule, subject: str, inspect: Inspect = lambda active: None
) -> Callable[..., Any]:
    """`g` with a rule for its derivative, for arrays or pytrees of arrays as arguments."""

    def call(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)

        def of_leaves(*leaves: Any) -> Any:
            return g(*jax.tree.unflatten(tree, leaves))

        if not getattr(adtype, "traced", True):
            of_leaves = run_at_numbers(of_leaves, leaves)

        def rule(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
            active = [
                i
                for i, (leaf, tangent) in enumerate(zip(primals, tangents, strict=True))
                if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not isinstance(tangent, SymbolicZero)
            ]
            inspect(active)
            chosen = [primals[i] for i in active]
            check_differentiable(chosen, subject)
            point, unravel = ravel_pytree(chosen)

            def of_point(point: Array, *leaves: Any) -> Any:
                given = dict(zip(active, unravel(point), strict=True))
                return of_leaves(*(given.get(i, leaf) for i, leaf in enumerate(leaves)))

            others = [np.zeros(()) if i in active else leaf for i, leaf in enumerate(primals)]
            direction = ravel_pytree([tangents[i] for i in active])[0]
            return _value_and_tangent(of_point, adtype, subject, point, direction, others)

        ruled = jax.custom_jvp(of_leaves)
        ruled.defjvp(rule, symbolic_zeros=True)
        return ruled(*leaves)

    return call


def _value_and_tangent(
    f: Callable[..., Any],
    adtype: Backend | AbstractRule,
    subject: str,
    point: Array,
    direction: Array,
    others: Sequence[Any],
) -> tuple[Any, Any]:
    """The result of `f(point, *others)` and its change along `direction`, of the same structure, linear in it."""
    shapes, tree = jax.tree.flatten(jax.eval_shape(f, point, *others))
    smooth = [i for i, shape in enumerate(shapes) if jnp.issubdtype(shape.dtype, jnp.floating)]
    _, unravel = ravel_pytree([jnp.zeros(shapes[i].shape, shapes[i].dtype) for i in smooth])

    def smooth_part(point: Array, *others: Any) -> Array:
        leaves = jax.tree.leaves(f(point, *others))
        return ravel_pytree([leaves[i] for i in smooth])[0]

    def derive(backend: Backend) -> Callable[..., tuple[Array, Array]]:
        return functools.partial(_push, backend, smooth_part, subject)

    problem = DerivativeProblem(derive, subject, (point, direction, *others), runs_itself=True)
    backend = adtype.choose(problem).backend if isinstance(adtype, AbstractRule) else adtype
    value, tangent = problem.evaluator(backend)(point, direction, *others)

    values: list[Any] = [None] * len(shapes)
    if len(smooth) < len(shapes):
        values = jax.tree.leaves(f(point, *others))
    changes = [np.zeros(shape.shape, jax.dtypes.float0) for shape in shapes]
    for i, part, change in zip(smooth, unravel(value), unravel(tangent), strict=True):
        values[i], changes[i] = part, change
    return jax.tree.unflatten(tree, values), jax.tree.unflatten(tree, changes)


def _push(
    backend: Backend, f: Callable[..., Array], subject: str, point: Array, direction: Array, *others: Any
) -> tuple[Array, Array]:
    if isinstance(backend, AbstractReverseBackend) and backend.traced:
        transposed = push_by_transposition(backend, lambda point: f(point, *others), point, direction)
        if transposed is not None:
            return transposed

    def value_and_jacobian(point: Array, *others: Any) -> tuple[Array, Array]:
        return backend.jacobian(lambda point: f(point, *others), point)

    linearized = value_and_jacobian if backend.traced else run_at_numbers(value_and_jacobian, (point, *others))
    if isinstance(backend, AbstractForwardBackend) or not backend.traced:
        # Where a second derivative is taken, the Jacobian is itself differentiated with the adtype: what the mode
        # around cannot pass in the function it could not pass here. What reverse mode left over is plain JAX.
        linearized = _ruled(linearized, backend, subject)
    value, jacobian = linearized(point, *others)
    return value, (jacobian @ direction).astype(value.dtype)
