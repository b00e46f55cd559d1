"""A tape: the operations of a function, recorded while it runs at numbers and walked backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from .adtypes import AbstractReverseBackend, Array, Flat, FlatFunction, Pullback
from .errors import NEEDS_NUMBERS, DifferentiationError, place
from .selection.fences import selected


@dataclass(frozen=True)
class AutoTape(AbstractReverseBackend):
    """Reverse mode on a tape that is recorded anew on every call, at numbers.

    Plain Python decides on values, `if x > 0:`, `while` and `int(x)`, and every call takes the branch of its own
    values. The price is speed: each operation is run by itself, from Python, which takes milliseconds for a small
    function and tens of them for a small model, where a compiled one takes microseconds. Inside compiled loops it is
    called back from there. In the function, `float(x)` and NumPy functions of a parameter are refused; `x.item()`,
    like `lax.stop_gradient`, is a number that is not differentiated. What a `jnp.where` selects between is recorded on
    both sides, so that a side that is not taken gives NaN where its derivative is infinite: use `if`, or `lax.cond`.

    With `compile=True` the tape is recorded once, with placeholders, and replayed: a function whose recording would
    depend on values is refused, since a tape of one branch replayed on another would be silently wrong.

    Args:
        compile: record once and replay, for functions without decisions on values.

    Raises:
        TypeError: if `compile` is not True or False.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 6, for tapes; Paszke et al. (2017),
    "Automatic differentiation in PyTorch", for recording while a program runs.
    """

    compile: bool = False
    traced: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.compile, bool):
            raise TypeError(f"AutoTape: compile must be True or False, got {self.compile!r}; AutoTape() is usual.")
        # What is recorded once is traced; the class itself is known as one that is not.
        object.__setattr__(self, "traced", self.compile)

    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Array, Pullback]:
        """See `AbstractReverseBackend.pullback`.

        Raises:
            DifferentiationError: naming the line where the function looks at a value that is not recorded.
        """
        try:
            # To find what selections take the function is traced: even numbers become placeholders.
            value, pull = jax.vjp(selected(f, x) if self.compile else f, x)
        except NEEDS_NUMBERS as error:
            if self.compile:
                raise DifferentiationError(
                    f"AutoTape(compile=True) records the function once, and its recording would depend on the value of "
                    f"a parameter{place(error)}; write it with jnp.where or lax.cond, or use adtype=AutoTape(), which "
                    f"records it anew on every call"
                ) from error
            if isinstance(error, jax.errors.TracerBoolConversionError):
                raise  # of a placeholder: this is not a call at numbers
            raise DifferentiationError(
                f"float() or a NumPy function takes a parameter off the tape{place(error)}, which would lose its "
                f"derivative; use jax.numpy"
            ) from error

        def carry_back(cotangents: Array) -> Array:
            if cotangents.shape[0] == 1:
                row: Array = pull(cotangents[0])[0][None]
                return row
            rows: Array = jax.vmap(lambda cotangent: pull(cotangent)[0])(cotangents)
            return rows

        return value, carry_back
