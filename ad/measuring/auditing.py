"""A second opinion on a gradient while it is in use: another backend, asked now and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ..adtypes import Array, Backend, Choice
from ..finite_difference import AutoFiniteDiff
from ..forward import AutoForward
from ..gradient import Function, PreparedGradient, gradient_problem
from ..reverse import AutoReverse

_wanted: ContextVar[bool] = ContextVar("dualtape_audit", default=False)


@contextmanager
def auditing(wanted: bool = True) -> Iterator[None]:
    """Inside this block, samplers that are built compare their gradients with another backend along the chain."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


@dataclass(frozen=True)
class Audit:
    """Another way to the same gradient.

    Args:
        gradient: prepared with another backend.
    """

    gradient: PreparedGradient

    def error(self, x: Array, gradient: Array, *constants: Any) -> Array:
        """The largest difference between two gradients at x over the largest element of the other one, shape ()."""
        _, other = self.gradient.value_and_gradient(x, *constants)
        return jnp.max(jnp.abs(gradient - other)) / jnp.maximum(jnp.max(jnp.abs(other)), jnp.finfo(other.dtype).tiny)


def second_opinion(f: Function, gradient: PreparedGradient, x: Any, *constants: Any, subject: str) -> Audit | None:
    """An audit of a prepared gradient, or None outside of `auditing`.

    The other backend is reverse mode where the gradient is by forward mode, and the other way round; finite
    differences where that one cannot differentiate the function.

    Args:
        f: the function, `f(x, *constants)`.
        gradient: its prepared gradient.
        x: the argument or its shape.
        constants: further arguments or their shapes.
        subject: what to call the function in messages.
    """
    if not _wanted.get():
        return None
    used = gradient.choice.backend
    problem = gradient_problem(f, subject, x, *constants)
    modes: tuple[Backend, ...] = (AutoReverse(), AutoForward())
    order = modes if used.mode == "forward" else modes[::-1]
    other: Backend = next((mode for mode in order if mode != used and problem.supported(mode)), AutoFiniteDiff())
    return Audit(problem.prepared(PreparedGradient, other, Choice(other, "audit")))
