"""Reverse mode past a selection: what a `where` does not take has no influence, be its slope infinite or NaN.

In reverse mode a branch that is not taken gets the cotangent zero, and zero times an infinite slope is NaN. Where
such a branch uses a value v, this rewriting puts a *fence*,

    v  ->  select(m, v, stop_gradient(v)),

with m the elements that the selection takes. The value stays, and neither cotangents nor tangents pass where m is
false, whatever they are. What is not taken lies between two selects then, the fence and the user's own, so that
derivatives of every order are right. A fence goes by the selection, never by a cotangent that happens to be zero.

One walk from the end of a traced program to its beginning finds the elements of every value by which the result moves.
A fence stands only where a value is used by fewer elements than elsewhere, and where a cotangent on the way there may
become infinite or NaN. The forward pass is the same after compilation; the way back has one select more for a fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal, jaxpr_as_fun

from ..adtypes import Flat, FlatFunction
from ..dual.elementwise import is_elementwise
from ..equations import CHECKPOINTS, Body, bind, scan_operands, shaped
from .facts import (
    MOVES,
    REDUCTIONS,
    SPREADS,
    decisions_first,
    has_selection,
    hot,
    inlined,
    is_cheap,
    is_tame,
    moves,
    passes,
)
from .masks import (
    EVERYWHERE,
    Condition,
    Mask,
    anywhere,
    as_a_whole,
    case,
    either,
    expanded,
    moved_back,
    passed,
    shape_of,
    unfolded,
)
from .values import Values


def selected(f: FlatFunction, x: Flat) -> FlatFunction:
    """The same function for reverse mode, with no influence of what a selection does not take.

    Selections are `jnp.where`, `lax.select`, `jnp.maximum` and `jnp.minimum`, also inside `scan`, `cond` and
    `jax.checkpoint`. A part of the result of a function with a rule of its own, of a matrix product, a factorisation, a
    sort or the carry of a loop depends on all of its operands, so that these are not fenced unless the whole of it is
    not taken; nor does a selection reach back over a loop that decides what is taken.

    Args:
        f: a function of a flat array.
        x: a point, shape (dimension,); only its shape and dtype matter.

    Returns:
        A function of the same value at points of the shape of `x`. Where there is nothing to fence it runs the traced
        program as it is.

    Source: the remedy by hand is the double `where` of the JAX FAQ, "Gradients contain NaN where using where".
    """
    closed = jax.make_jaxpr(f)(x)
    if has_selection(closed.jaxpr):
        guarded = _Guarded(closed)
        if guarded.changed:
            return lambda x: jnp.asarray(guarded([], [x])[0])
    return lambda x: jnp.asarray(jaxpr_as_fun(closed)(x)[0])


class _Need(NamedTuple):
    """By which elements of a value the result moves, and whether a cotangent at the others may be NaN."""

    mask: Mask
    risky: bool


class _Guarded:
    """A program with fences.

    Args:
        program: with `jaxpr` and `consts`.
        given: for each result the shape of a mask that is given when it is called, or None for everywhere; None for
            the program as a whole, whose results are wanted everywhere.
    """

    def __init__(self, program: Any, given: Sequence[tuple[int, ...] | None] | None = None) -> None:
        self.program = inlined(program)
        jaxpr = self.program.jaxpr
        self.equations = decisions_first(jaxpr.eqns)
        self.defined = {var: k for k, equation in enumerate(self.equations) for var in equation.outvars}
        self.latest = self._latest_loops()
        self.hot = hot(jaxpr, given is not None)
        self.fences: dict[tuple[int, int], Mask] = {}  # at an operand of an equation
        self.fenced: dict[Any, Mask] = {}  # at a value as soon as it is known
        self.inner: dict[int, tuple[list[_Guarded], list[Mask]]] = {}
        self.tokens = [object() if shape is not None else None for shape in given or ()]
        self._uses: dict[Any, list[tuple[_Need, tuple[int, int] | None]]] = {}

        for i, atom in enumerate(jaxpr.outvars):
            shape = given[i] if given else None
            asked = {Condition((self.tokens[i],), shape, (self.tokens[i],), jnp.asarray)} if shape is not None else ()
            self._use(atom, _Need(frozenset(asked), False), None)
        for k in reversed(range(len(self.equations))):
            self._visit(k)
        for var in (*jaxpr.invars, *jaxpr.constvars):
            self._fence_result(-1, var, self._settled(var))
        self.changed: bool = bool(
            self.fences or self.fenced or any(one.changed for each, _ in self.inner.values() for one in each)
        )

    def _latest_loops(self) -> dict[Any, int]:
        """For every value the last equation among those it depends on that must not be computed twice."""
        latest: dict[Any, int] = {}
        for k, equation in enumerate(self.equations):
            before = max(
                (latest.get(atom, -1) for atom in equation.invars if not isinstance(atom, Literal)), default=-1
            )
            latest.update(dict.fromkeys(equation.outvars, before if is_cheap(equation) else k))
        return latest

    def _is_known(self, mask: Mask, k: int) -> bool:
        """Whether a mask can be computed before equation `k`, at most by evaluating simple equations twice."""
        parts = (part for condition in unfolded(mask) for part in condition.parts)
        return all(self.latest.get(p, -1) < k for p in parts if not isinstance(p, (Literal, frozenset)))

    def _use(self, atom: Any, need: _Need, site: tuple[int, int] | None) -> None:
        if not isinstance(atom, Literal) and moves(atom):
            # Where the result moves a cotangent is what it is.
            need = need if need.mask else _Need(need.mask, False)
            self._uses.setdefault(atom, []).append((need, site))

    def _fence(self, site: tuple[int, int], mask: Mask) -> None:
        if self._is_known(mask, site[0]):
            self.fences[site] = mask

    def _fence_result(self, k: int, var: Any, need: _Need | None) -> None:
        if need and need.mask and need.risky and self._is_known(need.mask, k + 1):
            self.fenced[var] = need.mask

    def _settled(self, var: Any) -> _Need | None:
        """What all uses of a value together need of it, None without any; where they differ, with fences at them."""
        uses = self._uses.pop(var, [])
        if not uses:
            return None
        mask = uses[0][0].mask
        if all(need.mask == mask for need, _ in uses):
            return _Need(mask, any(need.risky for need, _ in uses))
        for need, _ in uses:
            mask = either(mask, need.mask)
        for need, site in uses:
            if need.risky and site is not None and need.mask != mask:
                self._fence(site, need.mask)
        return _Need(mask, any(need.risky for need, _ in uses if need.mask == mask))

    def _visit(self, k: int) -> None:
        """From what is needed of the results of an equation to what is needed of its operands."""
        equation = self.equations[k]
        name = equation.primitive.name
        needs = [self._settled(var) for var in equation.outvars]
        used = [need for need in needs if need is not None]
        if not used or name == "stop_gradient":
            return
        mask, risky = used[0].mask, any(need.risky for need in used)
        if any(need.mask != mask for need in used):
            for need in used:
                mask = either(mask, need.mask)
        whole = as_a_whole(mask)

        if name == "select_n":
            self._select(k, mask, risky)
        elif is_elementwise(equation):
            if any(need.mask != mask for need in used):  # of several results
                self._fence_results(k, needs)
                risky = False
            self._elementwise(k, mask, risky)
        elif name in REDUCTIONS:
            back = whole | expanded(mask - whole, equation)
            self._use(equation.invars[0], _Need(back, risky or name != "reduce_sum"), (k, 0))
        elif name in MOVES or name in SPREADS:
            if name in SPREADS and mask != whole:
                self._fence_results(k, needs)
                risky = False
            parts = tuple(need.mask - whole if need else EVERYWHERE for need in needs)
            for i, atom in enumerate(equation.invars):
                if moves(atom):
                    self._use(atom, _Need(whole | moved_back(parts, equation, i), risky), (k, i))
        else:
            if mask != whole or not mask:
                self._fence_results(k, needs)
                self._look_inside(k, [need.mask if need else EVERYWHERE for need in needs])
            for i, atom in enumerate(equation.invars):
                self._use(atom, _Need(mask if passes(equation, atom) else whole, bool(whole)), (k, i))

    def _select(self, k: int, mask: Mask, risky: bool) -> None:
        predicate, *cases = self.equations[k].invars
        predicate = self._decision(predicate)
        for i, atom in enumerate(cases):
            if not isinstance(predicate, Literal):
                self._use(atom, _Need(mask | case(self.equations[k], predicate, i), risky), (k, i + 1))
            elif int(predicate.val) == i:
                self._use(atom, _Need(mask, risky), (k, i + 1))

    def _decision(self, predicate: Any) -> Any:
        """The one decision for all elements that a predicate only repeats, else the predicate itself."""
        origin = predicate
        while not isinstance(origin, Literal) and shaped(origin)[0]:
            k = self.defined.get(origin)
            if k is None or self.equations[k].primitive.name not in ("broadcast_in_dim", "reshape", "copy"):
                return predicate
            origin = self.equations[k].invars[0]
        return origin

    def _elementwise(self, k: int, mask: Mask, risky: bool) -> None:
        equation = self.equations[k]
        result = equation.outvars[0]
        for i, atom in enumerate(equation.invars):
            need, danger = mask, risky or not is_tame(equation, i)
            if equation.primitive.name in ("max", "min") and result in self.hot:
                need, danger = mask | passed(equation, i), True
            shape = shaped(atom)[0]
            if shape_of(need) and shape != shaped(result)[0]:  # one element of the operand serves several of the result
                if danger and equation.primitive.name == "custom_jvp_call":
                    need = as_a_whole(need)
                elif danger and not isinstance(atom, Literal) and moves(atom):
                    self._fence((k, i), need)
                need, danger = as_a_whole(need) | anywhere(need - as_a_whole(need), shape), False
            self._use(atom, _Need(need, danger), (k, i))

    def _fence_results(self, k: int, needs: Sequence[_Need | None]) -> None:
        for var, need in zip(self.equations[k].outvars, needs, strict=True):
            self._fence_result(k, var, need)

    def _look_inside(self, k: int, masks: list[Mask]) -> None:
        equation = self.equations[k]
        masks = [mask if self._is_known(mask, k) else EVERYWHERE for mask in masks]
        name, params = equation.primitive.name, equation.params
        shapes = [shape_of(mask) if mask else None for mask in masks]
        if name == "scan":
            carried = scan_operands(equation)[1]
            masks = [*([EVERYWHERE] * carried), *masks[carried:]]
            shapes = [shaped(var)[0][1:] if mask else None for mask, var in zip(masks, equation.outvars, strict=True)]
            bodies = [params["jaxpr"]]
        elif name == "cond":
            bodies = list(params["branches"])
        elif name in CHECKPOINTS:
            bodies = [Body(params["jaxpr"], ())]
        else:
            return
        inner = [_Guarded(body, shapes) for body in bodies]
        if any(body.changed for body in inner):
            self.inner[k] = inner, masks

    def __call__(self, given: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        """The results; `given` are the masks of those for which one is given."""
        jaxpr = self.program.jaxpr
        values = Values(self.equations, self.defined)
        tokens = [token for token in self.tokens if token is not None]
        values.known.update(zip(tokens, given, strict=True))

        def enter(k: int, variables: Sequence[Any], results: Sequence[Any]) -> None:
            values.known.update(zip(variables, results, strict=True))
            for var in variables:
                if var in self.fenced:
                    values.known[var] = values.fence(values.known[var], self.fenced[var])

        enter(-1, [*jaxpr.constvars, *jaxpr.invars], [*self.program.consts, *arguments])
        for k, equation in enumerate(self.equations):
            operands = [
                values.fence(values.read(atom), self.fences[k, i]) if (k, i) in self.fences else values.read(atom)
                for i, atom in enumerate(equation.invars)
            ]
            enter(k, equation.outvars, self._apply(k, operands, values))
        return [values.read(atom) for atom in jaxpr.outvars]

    def _apply(self, k: int, operands: list[Any], values: Values) -> list[Any]:
        equation = self.equations[k]
        if k not in self.inner:
            return bind(equation, operands)
        bodies, masks = self.inner[k]
        given = [(values.mask(mask), var) for mask, var in zip(masks, equation.outvars, strict=True) if mask]
        if equation.primitive.name == "scan":
            return _scan(equation, bodies[0], [jnp.broadcast_to(m, shaped(var)[0]) for m, var in given], operands)
        arrays = [mask for mask, _ in given]
        if equation.primitive.name == "cond":
            index, *rest = operands
            return list(lax.switch(index, bodies, arrays, rest))
        policy, prevent_cse = equation.params["policy"], equation.params["prevent_cse"]
        return list(jax.checkpoint(bodies[0].__call__, policy=policy, prevent_cse=prevent_cse)(arrays, operands))


def _scan(equation: Any, body: _Guarded, masks: list[Any], operands: list[Any]) -> list[Any]:
    constant, carried = scan_operands(equation)
    constants, carry, xs = operands[:constant], operands[constant : constant + carried], operands[constant + carried :]

    def step(carry: list[Any], slices: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
        masks, xs = slices
        results = body(masks, [*constants, *carry, *xs])
        return results[:carried], results[carried:]

    length, reverse, unroll = (equation.params[name] for name in ("length", "reverse", "unroll"))
    carry, ys = lax.scan(step, carry, (masks, xs), length, reverse=reverse, unroll=unroll)
    return [*carry, *ys]
