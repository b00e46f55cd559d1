"""Reverse mode: the program is recorded on a tape and walked backwards; loops may be recomputed to save memory."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .adtypes import AbstractReverseBackend, Array, Flat, FlatFunction, Pullback
from .dual.expansion import unexpanded
from .equations import bind, evaluate, scan_operands
from .layout import by_columns
from .naming import Written
from .rules import replaced
from .selection.fences import selected

# The body of a loop, `(carry, x) -> (carry, y)`, each a list of arrays.
Body = Callable[[Any, Any], tuple[Any, Any]]
# A member of `jax.checkpoint_policies`: says which intermediate results are kept.
Policy = Callable[..., Any]


class AbstractRematerialisation(Written, abc.ABC):
    """How a loop is run so that reverse mode stores less of it and computes more of it anew on the way back."""

    @abc.abstractmethod
    def loop(self, body: Body, carry: Any, xs: Any, length: int, unroll: int | bool) -> tuple[Any, Any]:
        """What `lax.scan(body, carry, xs, length, unroll=unroll)` returns, with other residuals."""


@dataclass(frozen=True)
class RecomputeLoops(AbstractRematerialisation):
    """Of every iteration of a loop only the carry is stored; the rest is computed again on the way back.

    Memory of T iterations falls from T times all that an iteration computes to T times its carry, for one more
    evaluation of the loop.

    Args:
        policy: a member of `jax.checkpoint_policies` that says what else is kept; None keeps nothing else.

    Raises:
        TypeError: if `policy` is not a function.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 12.
    """

    policy: Policy | None = None

    def __post_init__(self) -> None:
        _check_policy(self.policy, "RecomputeLoops")

    def loop(self, body: Body, carry: Any, xs: Any, length: int, unroll: int | bool) -> tuple[Any, Any]:
        """See `AbstractRematerialisation.loop`."""
        return lax.scan(_recomputed(body, self.policy), carry, xs, length, unroll=unroll)


@dataclass(frozen=True)
class SegmentLoops(AbstractRematerialisation):
    """A loop is cut into segments; only the carries between them are stored, and one segment at a time is redone.

    Memory of T iterations is that of T / length carries and of all that `length` iterations compute, O(√T) at the
    default, for one more evaluation of the loop.

    Args:
        length: iterations in a segment, at least 1; None takes the smallest integer not below √T.
        policy: a member of `jax.checkpoint_policies` that says what else of a segment is kept; None keeps nothing.

    Raises:
        ValueError: if `length` is not a positive integer.
        TypeError: if `policy` is not a function.

    Source: Chen, Xu, Zhang and Guestrin (2016), "Training Deep Nets with Sublinear Memory Cost".
    """

    length: int | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        size = self.length
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(
                f"SegmentLoops: length must be a positive number of iterations or None, got {size!r}; "
                f"use SegmentLoops() for the square root of the loop's length."
            )
        _check_policy(self.policy, "SegmentLoops")

    def loop(self, body: Body, carry: Any, xs: Any, length: int, unroll: int | bool) -> tuple[Any, Any]:
        """See `AbstractRematerialisation.loop`; the iterations that fill no segment come last, as they are."""
        size = self.length or max(1, math.isqrt(max(0, length - 1)) + 1)
        whole = length - length % size
        if whole == 0:  # an empty loop over segments would be one more to differentiate
            return lax.scan(body, carry, xs, length, unroll=unroll)
        segments = jax.tree.map(lambda x: x[:whole].reshape(whole // size, size, *x.shape[1:]), xs)

        def segment(carry: Any, xs: Any) -> tuple[Any, Any]:
            return lax.scan(body, carry, xs, size, unroll=unroll)

        carry, ys = lax.scan(_recomputed(segment, self.policy), carry, segments, whole // size)
        ys = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)
        if whole == length:
            return carry, ys
        carry, last = lax.scan(body, carry, jax.tree.map(lambda x: x[whole:], xs), length - whole, unroll=unroll)
        return carry, jax.tree.map(lambda a, b: lax.concatenate([a, b], 0), ys, last)


def _check_policy(policy: object, owner: str) -> None:
    if policy is not None and not callable(policy):
        raise TypeError(f"{owner}: policy must be None or a member of jax.checkpoint_policies, got {policy!r}.")


def _recomputed(body: Body, policy: Policy | None) -> Body:
    # Inside a loop XLA cannot merge the second evaluation with the first, so that no barrier is needed against it.
    checkpointed: Body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    return checkpointed


@dataclass(frozen=True)
class AutoReverse(AbstractReverseBackend):
    """Reverse-mode differentiation: one pass forward, one pass back, for any number of inputs.

    Its cost is a small multiple of the function's whatever the dimension; its memory grows with the length of
    the program, and it cannot pass `lax.while_loop`. A branch of a `where` that is not taken has no influence, even
    where its derivative is infinite or NaN.

    Args:
        remat: rematerialisation, that is what to do with the loops (`lax.scan`, `fori_loop` of fixed bounds) of the
            function, however deep: None stores all that they compute, `RecomputeLoops()` stores their carries,
            `SegmentLoops()` the carries of √T of T iterations. Loops inside functions with a rule of their own
            (`custom_jvp`, `custom_vjp`, `jax.checkpoint`) stay as they are.

    Raises:
        TypeError: if `remat` is neither None nor one of these values.

    Source: Griewank and Walther (2008), "Evaluating Derivatives", chapter 3.
    """

    remat: AbstractRematerialisation | None = None

    def __post_init__(self) -> None:
        if self.remat is not None and not isinstance(self.remat, AbstractRematerialisation):
            raise TypeError(
                f"AutoReverse: remat must be None, RecomputeLoops() or SegmentLoops(), got {self.remat!r}; "
                f"a policy of JAX goes inside, as in RecomputeLoops(jax.checkpoint_policies.dots_saveable)."
            )

    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Array, Pullback]:
        """See `AbstractReverseBackend.pullback`."""
        with unexpanded():
            guarded = selected(by_columns(replaced(f, _clipped_gather)), x)
        value, pull = jax.vjp(guarded if self.remat is None else _rematerialised(guarded, x, self.remat), x)

        def carry_back(cotangents: Array) -> Array:
            one = cotangents.shape[0] == 1
            pulled: Array = pull(cotangents[0])[0][None] if one else jax.vmap(lambda c: pull(c)[0])(cotangents)
            return pulled

        return value, carry_back


def _clipped_gather(equation: Any) -> Callable[..., Any] | None:
    """A gather whose derivative is that of its value: an index beyond the end reads the last element.

    JAX reads it as well, and then drops the cotangent.
    """
    if equation.primitive.name != "gather" or equation.params["mode"] != lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        return None
    return lambda *operands: bind(equation, operands, mode=lax.GatherScatterMode.CLIP)[0]


def _rematerialised(f: FlatFunction, x: Flat, remat: AbstractRematerialisation) -> FlatFunction:
    closed = jax.make_jaxpr(f)(x)

    def rewritten(x: Flat) -> Array:
        (value,) = _evaluate(closed, remat, x)
        return jnp.asarray(value)

    return rewritten


def _evaluate(closed: Any, remat: AbstractRematerialisation, *args: Any) -> list[Any]:
    """Run a traced program with its loops run by `remat`."""

    def apply(equation: Any, operands: list[Any]) -> list[Any]:
        return _STRUCTURED.get(equation.primitive.name, _as_it_is)(equation, remat, operands)

    return evaluate(closed, args, apply)


def _as_it_is(equation: Any, remat: AbstractRematerialisation, operands: list[Any]) -> list[Any]:
    return bind(equation, operands)


def _jit(equation: Any, remat: AbstractRematerialisation, operands: list[Any]) -> list[Any]:
    return _evaluate(equation.params["jaxpr"], remat, *operands)


def _cond(equation: Any, remat: AbstractRematerialisation, operands: list[Any]) -> list[Any]:
    def taken(branch: Any) -> Callable[..., list[Any]]:
        return lambda *args: _evaluate(branch, remat, *args)

    index, *rest = operands
    results: list[Any] = lax.switch(index, [taken(branch) for branch in equation.params["branches"]], *rest)
    return results


def _scan(equation: Any, remat: AbstractRematerialisation, operands: list[Any]) -> list[Any]:
    inner, length, backwards = (equation.params[name] for name in ("jaxpr", "length", "reverse"))
    constant, carried = scan_operands(equation)
    constants, carry, xs = operands[:constant], operands[constant : constant + carried], operands[constant + carried :]

    def flipped(arrays: list[Any]) -> list[Any]:
        return [lax.rev(array, (0,)) for array in arrays] if backwards else arrays

    def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluate(inner, remat, *constants, *carry, *xs)
        return results[:carried], results[carried:]

    carry, ys = remat.loop(body, carry, flipped(xs), length, equation.params["unroll"])
    return [*carry, *flipped(ys)]


_STRUCTURED = {"jit": _jit, "pjit": _jit, "cond": _cond, "scan": _scan}
