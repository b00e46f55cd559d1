"""Forward mode: dual numbers, carried through the program in chunks of tangents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from .adtypes import AbstractForwardBackend, Array, Flat, FlatFunction

# Tangents carried at once when the user names no chunk. Wide enough that one pass covers every block that the
# default rule sends here, narrow enough that intermediate results of a wide model stay in cache.
DEFAULT_CHUNK_SIZE = 32


@dataclass(frozen=True)
class AutoForward(AbstractForwardBackend):
    """Forward-mode differentiation: one pass carries the value and `chunk_size` directional derivatives.

    Its cost grows with the number of inputs and its memory does not grow with the length of the program; it
    passes `lax.while_loop`, where reverse mode cannot go.

    Args:
        chunk_size: tangents carried in one pass, at least 1. None carries all of them up to 32. One keeps
            memory smallest, more shares the work of the value between tangents.

    Raises:
        ValueError: if `chunk_size` is not a positive integer.

    Source: Revels, Lubin and Papamarkou (2016), "Forward-mode automatic differentiation in Julia".
    """

    chunk_size: int | None = None

    def __post_init__(self) -> None:
        size = self.chunk_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(
                f"AutoForward: chunk_size must be a positive integer or None, got {size!r}; "
                f"use AutoForward() to let it be chosen."
            )

    def pushforward(self, f: FlatFunction, x: Flat, tangents: Array) -> tuple[Array, Array]:
        """See `AbstractForwardBackend.pushforward`; the tangents are batched, the value is computed once."""
        if tangents.shape[0] == 1:
            value, derivative = jax.jvp(f, (x,), (tangents[0],))
            return value, derivative[None]
        along: Any = jax.vmap(lambda tangent: jax.jvp(f, (x,), (tangent,)), out_axes=(None, 0))
        value, derivatives = along(tangents)
        return value, derivatives

    def chunk(self, dimension: int) -> int:
        """See `AbstractForwardBackend.chunk`."""
        return min(self.chunk_size or DEFAULT_CHUNK_SIZE, dimension)
