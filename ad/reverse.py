"""Reverse mode: the program is recorded on a tape and walked backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

from .adtypes import AbstractReverseBackend, Flat, FlatFunction, Scalar


@dataclass(frozen=True)
class AutoReverse(AbstractReverseBackend):
    """Reverse-mode differentiation: one pass forward, one pass back, for any number of inputs.

    Its cost is a small multiple of the function's whatever the dimension; its memory grows with the length of
    the program, and it cannot pass `lax.while_loop`.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 3.
    """

    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Scalar, Callable[[Scalar], Flat]]:
        """See `AbstractReverseBackend.pullback`."""
        value, pull = jax.vjp(f, x)
        return value, lambda cotangent: pull(cotangent)[0]
