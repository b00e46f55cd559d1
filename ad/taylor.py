"""Higher derivatives along a direction: the Taylor series of a function on a line."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.experimental import jet
from jax.extend.core import Literal, jaxprs_in_params
from jax.flatten_util import ravel_pytree

from .adtypes import Array
from .errors import DifferentiationError, explain
from .preparation import check_differentiable, is_numeric, kind_of, shapes_of, traced
from .problem import name_of
from .rules import replaced

# The primitives whose propagation by `jet` was found right to the last digits at every point where they are
# differentiable. Others have a rule that loses digits (log1p, expm1, erfc, tanh), loses a NaN (max, min), is NaN where
# the derivative is not (pow of a negative number, atan2 on an axis), or ignores a `custom_jvp`.
_SERIES = frozenset(
    (
        *("add", "add_any", "and", "asinh", "broadcast_in_dim", "ceil", "concatenate", "convert_element_type", "copy"),
        *("cos", "cosh", "cumsum", "div", "dot_general", "dynamic_slice", "eq", "erf", "erf_inv", "exp", "floor"),
        *("gather", "ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "mul", "ne", "neg", "not", "or", "pad"),
        *("reduce_sum", "reshape", "rev", "rsqrt", "select_n", "sign", "sin", "sinh", "slice", "split", "sqrt"),
        *("square", "squeeze", "stack", "stop_gradient", "sub", "transpose", "unstack"),
    )
)
_CALLS = frozenset(("jit", "pjit"))
# Powers up to this one are products.
_LARGEST_PRODUCT = 64


def taylor(f: Callable[[Any], Array], x: Any, v: Any, order: int) -> Array:
    """The derivatives dᵏ/dtᵏ f(x + t v) at t = 0, for k = 0 to `order`.

    Where f is made of common operations their Taylor series are propagated, at a cost that grows with order². A
    function with others (loops, special functions, linear algebra, `custom_jvp`, tanh, log1p, ...) is differentiated
    by forward mode within forward mode, at a cost that grows as 2^order. The numbers are the same: operations count as
    common only where the propagation is exact.

    Args:
        f: a function of one argument with an array as its result, shape (*out,).
        x: the point, an array or a pytree of arrays of one floating dtype.
        v: the direction, of the structure, shapes and dtypes of `x`.
        order: the highest derivative, at least 0.

    Returns:
        The value and the derivatives, shape (order + 1, *out); over k! they are the coefficients of the series. Where
        one does not exist, as at 0 of a square root, it and those after it are NaN or infinite.

    Raises:
        ValueError: if `order` is negative, or x and v differ in structure or shape.
        TypeError: if `order` is not an integer, x or v is not floating point, or the result is not an array of
            floating-point numbers.
        DifferentiationError: where an operation in f has no derivative of that order.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 13; Bettencourt, Johnson and Duvenaud
        (2019), "Taylor-mode automatic differentiation for higher-order derivatives in JAX".
    """
    order = _order(order)
    subject = name_of(f, x, subject=f"taylor of {getattr(f, '__name__', 'the function')}")
    check_differentiable(v, subject, "v")
    expected, got = (jax.tree.map(lambda leaf: leaf.shape, shapes_of(tree)) for tree in (x, v))
    if expected != got:  # containers of tuples: the structure is compared as well
        raise ValueError(
            f"taylor: x and v must have one structure and the same shapes, got {expected} and {got}; "
            f"give a direction for every number of x."
        )
    point, unravel = ravel_pytree(x)
    direction = ravel_pytree(v)[0].astype(point.dtype)

    def on_flat(flat: Array) -> Array:
        result = f(unravel(flat))
        if not is_numeric(result) or not jnp.issubdtype(jnp.result_type(result), jnp.floating):
            raise TypeError(
                f"{subject}: the function must return one array of floating-point numbers, got {kind_of(result)}; "
                f"return an array, for a pytree that of one leaf."
            )
        return jnp.asarray(result)

    smooth = replaced(on_flat, _power_rule)
    propagate = _by_series if _has_series(jax.make_jaxpr(smooth)(point).jaxpr, [True]) else _by_nesting
    try:
        derivatives: Array = traced(lambda x, v: propagate(smooth, x, v, order), (point, direction))(point, direction)
        return derivatives
    except (TypeError, NotImplementedError, ValueError) as error:
        named = explain(error, subject)
        if named is None and any(word in str(error) for word in ("ifferentiation", "gradient")):
            named = DifferentiationError(
                f"{subject}: an operation in it has no derivative of order {order} ({error}); ask for a lower order."
            )
        raise (error if named is None else named) from None


def _order(order: Any) -> int:
    try:
        number = operator.index(order)
    except TypeError:
        raise TypeError(f"taylor: order must be an integer, got {order!r}.") from None
    if number < 0 or isinstance(order, bool):
        raise ValueError(f"taylor: order must be an integer of at least 0, got {order!r}; order=1 is the slope.")
    return number


@jax.custom_jvp
def _power(x: Array, y: Array) -> Array:
    """The power x^y with derivatives of all orders where x is 0: JAX multiplies y = 0 there with 0^(−1), for NaN."""
    return lax.pow(x, y)


def _change_of_power(primals: Sequence[Array], tangents: Sequence[Any]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    value = _power(x, y)
    change = jnp.zeros_like(value)
    fixed = isinstance(dy, SymbolicZero)
    if not isinstance(dx, SymbolicZero):
        never = fixed & (y == 0)  # where y moves, the slope has a derivative in y also at y = 0
        change += jnp.where(never, 0, y * _power(x, jnp.where(never, 1, y - 1))) * dx
    if not fixed:
        change += jnp.log(jnp.where(x == 0, 1, x)) * value * dy
    return value, change


_power.defjvp(_change_of_power, symbolic_zeros=True)


def _power_rule(equation: Any) -> Callable[..., Any] | None:
    """For x^y: a product of factors x where y is a whole number that is known, whose series is propagated."""
    if equation.primitive.name != "pow":
        return None
    exponent = equation.invars[1]
    known = isinstance(exponent, Literal) and jnp.size(exponent.val) == 1
    if known and float(exponent.val).is_integer() and abs(float(exponent.val)) <= _LARGEST_PRODUCT:
        whole = int(exponent.val)
        return lambda x, y: lax.integer_pow(x, whole)
    return _power


def _by_series(f: Callable[[Array], Array], x: Array, v: Array, order: int) -> Array:
    value = f(x)
    if order == 0:
        return value[None]
    series = [v, *(jnp.zeros_like(v) for _ in range(order - 1))]
    # Unscaled coefficients: `jet` would scale them by factorials that are rounded.
    _, coefficients = jet.jet(f, (x,), (series,), factorial_scaled=False)
    derivatives = [math.factorial(k) * coefficient for k, coefficient in enumerate(coefficients, 1)]
    return jnp.stack([value, *(d.astype(value.dtype) for d in derivatives)])


def _by_nesting(f: Callable[[Array], Array], x: Array, v: Array, order: int) -> Array:
    def derivatives(k: int) -> Callable[[Array], tuple[Array, ...]]:
        if k == 0:
            return lambda t: (f(x + t * v),)
        lower = derivatives(k - 1)

        def up_to(t: Array) -> tuple[Array, ...]:
            values, slopes = jax.jvp(lower, (t,), (jnp.ones_like(t),))
            return (*values, slopes[-1])

        return up_to

    return jnp.stack(derivatives(order)(jnp.zeros((), x.dtype)))


def _has_series(jaxpr: Any, active: Sequence[bool]) -> bool:
    """Whether everything in a program that depends on its active inputs is in `_SERIES`."""
    moving = {variable for variable, moves in zip(jaxpr.invars, active, strict=True) if moves}
    for equation in jaxpr.eqns:
        inputs = [not isinstance(atom, Literal) and atom in moving for atom in equation.invars]
        if not any(inputs):
            continue
        name = equation.primitive.name
        if name == "convert_element_type" and not jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            return False  # its rule would round the derivatives as well
        if name in _CALLS:
            if not all(_has_series(inner, inputs) for inner in jaxprs_in_params(equation.params)):
                return False
        elif name not in _SERIES:
            return False
        moving.update(equation.outvars)
    return True
