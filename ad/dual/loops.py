"""Loops and branches: the body is walked with structured Jacobians, and only what is carried becomes dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from ..equations import scan_operands
from .jacobians import Columns, Entries, HostArray, Jacobian, Term
from .numbers import Dual

Propagate = Callable[[Any, Sequence[Any], Sequence[Dual]], list[Dual]]


def _rows_of(operands: Sequence[Dual]) -> HostArray:
    return np.unique(np.concatenate([term.rows for operand in operands for term in operand.jacobian]))


def _dual(value: Any, columns: Any | None, rows: HostArray) -> Dual:
    return Dual(value) if columns is None else Dual(value, (Columns(rows, columns, None),))


def _pairs(duals: Sequence[Dual], active: Sequence[bool], rows: HostArray) -> list[tuple[Any, Any]]:
    """Values with their columns, None for those that do not depend on x: the form in which loops carry them."""
    return [(jnp.asarray(d.value), d.columns(rows) if on else None) for d, on in zip(duals, active, strict=True)]


def _active_carries(body: Callable[[list[Dual]], list[Dual]], init: Sequence[Dual], rows: HostArray) -> list[bool]:
    """Which carried values depend on x after some iterations: grown until nothing is added."""
    active = [dual.is_active for dual in init]
    while True:
        found: list[bool] = []

        def look(values: list[Any], active: list[bool] = active, found: list[bool] = found) -> list[Any]:
            carries = [
                _dual(value, jnp.zeros((*value.shape, rows.size), value.dtype) if on else None, rows)
                for value, on in zip(values, active, strict=True)
            ]
            results = body(carries)
            found.extend(dual.is_active for dual in results)
            return [dual.value for dual in results]

        jax.eval_shape(look, [jax.ShapeDtypeStruct(dual.shape, dual.dtype) for dual in init])
        grown = [a or b for a, b in zip(active, found, strict=False)]
        if grown == active:
            return active
        active = grown


def _scan(equation: Any, operands: list[Dual], propagate: Propagate) -> list[Dual]:
    params = equation.params
    jaxpr, length = params["jaxpr"], params["length"]
    fixed, carried = scan_operands(equation)
    constants = operands[:fixed]
    init = operands[fixed : fixed + carried]
    sequences = [_Sequence(operand) for operand in operands[fixed + carried :]]
    rows = _rows_of(operands)

    def step(carries: list[Dual], slices: list[Dual]) -> tuple[list[Dual], list[Dual]]:
        results = propagate(jaxpr.jaxpr, jaxpr.consts, [*constants, *carries, *slices])
        return results[:carried], results[carried:]

    first = [sequence.first() for sequence in sequences]
    active = _active_carries(
        lambda carries: step(carries, [s.dual(a) for s, a in zip(sequences, first, strict=True)])[0], init, rows
    )

    def body(carry: Any, arrays: Any) -> Any:
        carries = [_dual(value, columns, rows) for value, columns in carry]
        after, outputs = step(carries, [s.dual(a) for s, a in zip(sequences, arrays, strict=True)])
        return _pairs(after, active, rows), [
            (dual.value, dual.columns(rows) if dual.is_active else None) for dual in outputs
        ]

    start = _pairs(init, active, rows)
    final, outputs = lax.scan(
        body,
        start,
        [sequence.arrays for sequence in sequences],
        length,
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [_dual(value, columns, rows) for value, columns in (*final, *outputs)]


class _Sequence:
    """An operand that a scan reads slice by slice: its value, and the arrays of its Jacobian's terms."""

    def __init__(self, operand: Dual) -> None:
        self.jacobian: Jacobian = tuple(t.plain() if isinstance(t, Columns) else t for t in operand.jacobian)
        parts: list[Any] = []
        # The position of a coordinate is the same in every slice, or an array that is read along.
        self.still: list[HostArray | None] = []
        for term in self.jacobian:
            if isinstance(term, Entries):
                same = term.known and bool((term.position == term.position[:1]).all())
                self.still.append(np.asarray(term.position[0]) if same else None)
                parts.append((None if same else jnp.asarray(term.position), term.weights))
            else:
                self.still.append(None)
                parts.append((term.columns, term.weights))
        self.arrays: Any = (jnp.asarray(operand.value), parts)

    def first(self) -> Any:
        """The arrays of a first slice, zeros where there is none."""
        return jax.tree.map(
            lambda array: array[0] if len(array) else jnp.zeros(array.shape[1:], array.dtype), self.arrays
        )

    def dual(self, arrays: Any) -> Dual:
        value, parts = arrays
        terms: list[Term] = []
        for term, still, (array, weights) in zip(self.jacobian, self.still, parts, strict=True):
            if isinstance(term, Entries):
                terms.append(Entries(term.rows, array if still is None else still, weights))
            else:
                terms.append(Columns(term.rows, array, weights))
        return Dual(value, tuple(terms))


def _while(equation: Any, operands: list[Dual], propagate: Propagate) -> list[Dual]:
    params = equation.params
    condition, jaxpr = params["cond_jaxpr"], params["body_jaxpr"]
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    tested, constants, init = operands[:a], operands[a:b], operands[b:]
    rows = _rows_of(operands)

    def step(carries: list[Dual]) -> list[Dual]:
        return propagate(jaxpr.jaxpr, jaxpr.consts, [*constants, *carries])

    active = _active_carries(step, init, rows)

    def unfinished(carry: Any) -> Any:
        return jaxpr_as_fun(condition)(*[dual.value for dual in tested], *[value for value, _ in carry])[0]

    def body(carry: Any) -> Any:
        after = step([_dual(value, columns, rows) for value, columns in carry])
        return _pairs(after, active, rows)

    start = _pairs(init, active, rows)
    final = lax.while_loop(unfinished, body, start)
    return [_dual(value, columns, rows) for value, columns in final]


def _cond(equation: Any, operands: list[Dual], propagate: Propagate) -> list[Dual]:
    index, *arguments = operands
    branches = equation.params["branches"]
    rows = _rows_of(operands)
    active: list[bool] = [False] * len(equation.outvars)

    def look(branch: Any) -> None:
        results = propagate(branch.jaxpr, branch.consts, arguments)
        active[:] = [on or dual.is_active for on, dual in zip(active, results, strict=True)]

    for branch in branches:
        jax.eval_shape(lambda branch=branch: look(branch))

    def taken(branch: Any) -> Callable[[], Any]:
        def run() -> Any:
            results = propagate(branch.jaxpr, branch.consts, arguments)
            return _pairs(results, active, rows)

        return run

    outputs = lax.switch(index.value, [taken(branch) for branch in branches])
    return [_dual(value, columns, rows) for value, columns in outputs]


LOOPS: dict[str, Callable[[Any, list[Dual], Propagate], list[Dual]]] = {"scan": _scan, "while": _while, "cond": _cond}
