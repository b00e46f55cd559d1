"""The errors of this layer, and the translation of JAX's own into them."""

from __future__ import annotations

import linecache
import traceback
from types import FrameType
from typing import Any

import jax
from jax.extend.core import subjaxprs


class DifferentiationError(TypeError):
    """A function that the requested adtype cannot differentiate; the message names an adtype that can."""


class PreparationError(ValueError):
    """An argument that differs in structure, shape or dtype from what a gradient was prepared for."""


# What JAX says, in its own words, when a mode meets a construct it has no rule for. Each entry: a fragment of
# JAX's message, what happened in the terms of the user's program, and the way out.
_KNOWN_CAUSES = (
    (
        "Reverse-mode differentiation does not work for lax.while_loop",
        "reverse mode cannot pass `lax.while_loop` (or a `fori_loop` with a dynamic trip count): "
        "the number of values to store is unknown before it runs",
        "use adtype=AutoForward(), or write the loop as `lax.scan` or a `fori_loop` with fixed bounds",
    ),
    (
        "to a custom_vjp function",  # the rest of the sentence depends on whether tangents are batched
        "forward mode cannot pass a function with a `custom_vjp` rule (`odeint` is one): it has no forward rule",
        "use adtype=AutoReverse(), or give the function a `custom_jvp` rule, which serves both modes",
    ),
    (
        "Betainc gradient with respect to a and b not supported",
        "JAX has no derivative of `betainc` by its first two arguments",
        "use adtype=AutoFiniteDiff(), or wrap the call alone with differentiate_with(AutoFiniteDiff())",
    ),
    (
        "Array slice indices must have static",
        "a slice of the function ends at a parameter or constant, whose value is not known while it is traced",
        "close over numbers that decide on shapes, with functools.partial, or use lax.dynamic_slice",
    ),
    (
        "Shapes must be 1D sequences of concrete values",
        "a shape in the function is a parameter or constant, whose value is not known while it is traced",
        "close over numbers that decide on shapes, with functools.partial",
    ),
    (
        "callbacks do not support JVP",  # pure, buffer and I/O callbacks say it alike
        "the function calls back into Python (`pure_callback`), where JAX has no derivative rule",
        "use adtype=AutoFiniteDiff(), or wrap the callback alone with differentiate_with(AutoFiniteDiff())",
    ),
)


# What JAX raises where Python wants a number and there is a placeholder for one.
NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,  # `if`, `while`, int(), float(), shapes; the base of TracerBoolConversionError
    jax.errors.TracerArrayConversionError,  # NumPy functions
    jax.errors.TracerIntegerConversionError,  # range(), indices of lists
    jax.errors.NonConcreteBooleanIndexError,  # x[x > 0], whose length is a value
)

# Whose code is not the user's, by the beginning of the module's name.
_LIBRARIES = ("jax.", "jaxlib.", "numpyro.", "numpy.", *(f"{__package__.rpartition('.')[0]}.{layer}." for layer in
              ("ad", "samplers", "ppl")))  # fmt: skip


def place_of(error: BaseException) -> tuple[FrameType, int] | None:
    """The innermost frame and line of the user's code that an exception comes from; None if that is unknown."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = f"{frame.f_globals.get('__name__', '')}."
        if not module.startswith(_LIBRARIES) and "site-packages" not in frame.f_code.co_filename:
            found = frame, line
    return found


def place(error: BaseException) -> str:
    """Where in the user's code an exception comes from, as " at file:line (`source`)"; empty if that is unknown."""
    found = place_of(error)
    if found is None:
        return ""
    file, line = found[0].f_code.co_filename, found[1]
    source = linecache.getline(file, line).strip()
    return f" at {file}:{line}" + (f" (`{source}`)" if source else "")


def refuse_unfinished(jaxpr: Any) -> None:
    """Raise what JAX would raise only when the program runs: a `custom_vjp` function met forward mode.

    Args:
        jaxpr: the traced derivative. While tracing, JAX leaves a `custom_lin` in place of the missing rule.
    """
    if any(equation.primitive.name == "custom_lin" for equation in jaxpr.eqns):
        raise TypeError("can't apply forward-mode differentiation (jvp) to a custom_vjp function.")
    for inner in subjaxprs(jaxpr):
        refuse_unfinished(inner)


def explain(error: Exception, subject: str) -> DifferentiationError | None:
    """Turn an exception of JAX into a named error, or None where the cause is not one of the known ones.

    Args:
        error: what JAX raised while the derivative was traced.
        subject: what was being differentiated, for the message.
    """
    if isinstance(error, DifferentiationError):
        return error if str(error).startswith(f"{subject}: ") else DifferentiationError(f"{subject}: {error}")
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return DifferentiationError(
            f"{subject}: a NumPy function was given a parameter{place(error)}, of which it cannot take the derivative; "
            f"use the function of the same name from `jax.numpy`."
        )
    if isinstance(error, NEEDS_NUMBERS):
        return DifferentiationError(
            f"{subject}: the function is traced once, with placeholders, and looks at the value of a parameter or "
            f"constant{place(error)}; write it with jnp.where or lax.cond (lax.while_loop for `while`), or use "
            f"adtype=AutoTape(), which runs the function anew at numbers; close over a constant such as a length, "
            f"with functools.partial."
        )
    text = str(error)
    for fragment, cause, remedy in _KNOWN_CAUSES:
        if fragment in text:
            return DifferentiationError(f"{subject}: {cause}; {remedy}.")
    return None
