"""A tape: the operations of a function, recorded while it runs at numbers and walked backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

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
    like `lax.stop_gradient`, is a number that is not differentiated. In a function that decides with `if`, a side of a
    `jnp.where` that is not taken is recorded too, and gives NaN where its derivative is infinite: use `if` for it too.

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

        except TypeError as error:
            if "float0" not in str(error):
                raise
            raise DifferentiationError(
                f"a rule of JAX multiplies the derivative by whole numbers{place(error)}, which have none; convert "
                f"them with jnp.asarray(n, float), or use adtype=AutoReverse(), which has a rule of its own there"
            ) from error

        def carry_back(cotangents: Array) -> Array:
            rows = _pulled(pull, cotangents)
            if self.compile or not _not_a_number(value, cotangents, rows):
                return rows
            try:
                return _pulled(jax.vjp(selected(f, x), x)[1], cotangents)
            except NEEDS_NUMBERS:  # it decides with `if`, and what it selects with `where` is not known beforehand
                return rows

        return value, carry_back


def _pulled(pull: Callable[[Array], tuple[Array]], cotangents: Array) -> Array:
    if cotangents.shape[0] == 1:
        return pull(cotangents[0])[0][None]
    rows: Array = jax.vmap(lambda cotangent: pull(cotangent)[0])(cotangents)
    return rows


def _not_a_number(value: Array, cotangents: Array, rows: Array) -> bool:
    """Whether something was lost on the way back, as far as that is known here."""
    if any(isinstance(array, jax.core.Tracer) for array in (value, cotangents, rows)):
        return False
    return bool(jnp.isfinite(value).all() & jnp.isfinite(cotangents).all() & ~jnp.isfinite(rows).all())
