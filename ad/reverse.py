"""Reverse mode: the program is recorded on a tape and walked backwards."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from .adtypes import AbstractReverseBackend, Array, Flat, FlatFunction, Pullback


@dataclass(frozen=True)
class AutoReverse(AbstractReverseBackend):
    """Reverse-mode differentiation: one pass forward, one pass back, for any number of inputs.

    Its cost is a small multiple of the function's whatever the dimension; its memory grows with the length of
    the program, and it cannot pass `lax.while_loop`.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 3.
    """

    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Array, Pullback]:
        """See `AbstractReverseBackend.pullback`."""
        value, pull = jax.vjp(f, x)

        def carry_back(cotangents: Array) -> Array:
            one = cotangents.shape[0] == 1
            pulled: Array = pull(cotangents[0])[0][None] if one else jax.vmap(lambda c: pull(c)[0])(cotangents)
            return pulled

        return value, carry_back
