"""The errors of this layer, and the translation of JAX's own into them."""

from __future__ import annotations

from typing import Any

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
        "Pure callbacks do not support JVP",
        "the function calls back into Python (`pure_callback`), where JAX has no derivative rule",
        "wrap the callback in a function with a `custom_jvp` rule",
    ),
)


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
        return DifferentiationError(f"{subject}: {error}")
    text = str(error)
    for fragment, cause, remedy in _KNOWN_CAUSES:
        if fragment in text:
            return DifferentiationError(f"{subject}: {cause}; {remedy}.")
    return None
