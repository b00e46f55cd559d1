"""Forward mode: dual numbers that keep the structure of their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from .adtypes import AbstractForwardBackend, Array, Flat, FlatFunction, check_chunk_size
from .dual.propagation import jacobian, pushforward
from .layout import by_columns


@dataclass(frozen=True)
class AutoForward(AbstractForwardBackend):
    """Forward-mode differentiation: one pass through the program carries values and their derivatives.

    The derivatives of an intermediate value keep their structure (see `ad.dual`): those of x itself, of a slice, of
    exp(x) or of X @ β are not multiplied out. Dense columns arise in loops and in operations without a rule, so that
    the cost is about that of reverse mode for straight programs of any dimension, and grows with the number of inputs
    where the program is a recursion. Memory does not grow with the number of iterations, and `lax.while_loop`, where
    reverse mode cannot go, is no obstacle. Where a branch of a `where` is not taken, its derivative is zero, even
    if it is infinite or NaN there.

    Args:
        chunk_size: columns carried in one pass, at least 1; the program is passed as often as it takes. None carries
            all. One keeps memory smallest.

    Raises:
        ValueError: if `chunk_size` is not a positive integer.

    Source: Revels, Lubin and Papamarkou (2016), "Forward-mode automatic differentiation in Julia"; Griewank and
    Walther (2008), "Evaluating Derivatives", chapters 3 and 10.
    """

    chunk_size: int | None = None

    def __post_init__(self) -> None:
        check_chunk_size(self.chunk_size, "AutoForward")

    def pushforward(self, f: FlatFunction, x: Flat, tangents: Array) -> tuple[Array, Array]:
        """See `AbstractForwardBackend.pushforward`."""
        value, changes = pushforward(by_columns(f), x, tangents)
        return value, jnp.moveaxis(changes, -1, 0)

    def jacobian(self, f: FlatFunction, x: Flat) -> tuple[Array, Array]:
        """See `AbstractBackend.jacobian`; all columns at once, with their structure, where no chunk is named."""
        if x.size and (self.chunk_size is None or self.chunk_size >= x.size):
            return jacobian(by_columns(f), x)
        return super().jacobian(f, x)

    def chunk(self, dimension: int) -> int:
        """See `AbstractForwardBackend.chunk`."""
        return min(self.chunk_size or dimension, dimension)
