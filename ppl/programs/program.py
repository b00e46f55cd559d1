"""A traced program as a list of equations: what depends on what, and what can be computed beforehand.

The log density of a model is traced once. Everything else is read off its equations: which terms depend on which
sites, the part that a block of sites needs, and the part of that which does not change while the block moves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import bind, evaluate, scan_operands, shaped

Atom = Var | Literal

# Cheap to repeat and costly to store: where the result of one of these would cross from the part computed
# beforehand into the other, its operands cross instead and it is repeated there.
_RECOMPUTED = frozenset({"broadcast_in_dim", "iota", "reshape", "convert_element_type", "squeeze", "expand_dims"})


# Powers that are a few products, and one division where they are negative: `x ** -1.0` and its derivative would be
# calls of a function that takes as long as a hundred products.
_POWERS = frozenset({-3.0, -2.0, -1.0, 2.0, 3.0, 4.0})


@dataclass(frozen=True)
class Program:
    """A function of arrays as equations.

    Args:
        inputs: its arguments.
        equations: in an order in which they can be evaluated.
        outputs: its results.
    """

    inputs: tuple[Var, ...]
    equations: tuple[JaxprEqn, ...]
    outputs: tuple[Atom, ...]

    @classmethod
    def trace(cls, function: Callable[..., Any], *arguments: Any) -> tuple[Program, tuple[Any, ...], Any]:
        """Trace a function.

        Args:
            function: of arrays, to a pytree of arrays.
            arguments: arrays or their shapes.

        Returns:
            The program, whose inputs are the arrays that `function` closes over followed by its arguments; these
            closed-over arrays; and the structure of the result, with shapes in place of arrays.
        """
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        # Once more with calls to jitted functions spelled out, so that one equation is one operation.
        flat = jax.make_jaxpr(lambda *args: evaluate(closed, args, _apply_inlined))(*arguments)
        jaxpr = flat.jaxpr
        program = cls((*jaxpr.constvars, *jaxpr.invars), tuple(jaxpr.eqns), tuple(jaxpr.outvars))
        return program, tuple(flat.consts), shapes

    def __call__(self, *arguments: Any) -> list[Any]:
        """Evaluate the program; usable under any transformation of JAX."""
        values: dict[Var, Any] = dict(zip(self.inputs, arguments, strict=True))

        def read(atom: Atom) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for equation in self.equations:
            values.update(zip(equation.outvars, bind(equation, [read(v) for v in equation.invars]), strict=True))
        return [read(atom) for atom in self.outputs]

    def dependencies(self) -> list[frozenset[int]]:
        """For each output, which inputs (by number) it depends on."""
        return self._dependencies

    @functools.cached_property
    def _dependencies(self) -> list[frozenset[int]]:
        own = {var: frozenset({i}) for i, var in enumerate(self.inputs)}
        return _sources_of(own, self.equations, self.outputs)

    def select(self, outputs: Sequence[int]) -> Program:
        """The program for some of the outputs (by number), with nothing that they do not need."""
        chosen = tuple(self.outputs[i] for i in outputs)
        return Program(self.inputs, _needed(self.equations, chosen), chosen)

    def substitute(self, arguments: Mapping[int, Atom], inputs: Sequence[Var], first: Sequence[JaxprEqn]) -> Program:
        """The program with some of its inputs computed from others.

        Args:
            arguments: what takes the place of an input, by number.
            inputs: of the new program.
            first: equations that compute `arguments` from `inputs`.
        """
        replaced: dict[Var, Atom] = {self.inputs[i]: atom for i, atom in arguments.items()}

        def new(atom: Atom) -> Atom:
            return atom if isinstance(atom, Literal) else replaced.get(atom, atom)

        equations = tuple(equation.replace(invars=[new(v) for v in equation.invars]) for equation in self.equations)
        return Program(tuple(inputs), (*first, *equations), tuple(new(atom) for atom in self.outputs))

    def then(self, function: Callable[..., list[Any]]) -> Program:
        """The program followed by a function of its outputs."""
        shapes = [jax.ShapeDtypeStruct(*shaped(atom)) for atom in self.outputs]
        after, _, _ = Program.trace(function, *shapes)
        return after.substitute(dict(enumerate(self.outputs)), self.inputs, self.equations)

    def split(self, varying: Collection[int]) -> tuple[Program, Program]:
        """Separate what depends on some of the inputs from what does not.

        Args:
            varying: the inputs (by number) that will change.

        Returns:
            A program from the other inputs to intermediate results, and a program from the varying inputs, in
            the order of `varying`, followed by these results, to the outputs.
        """
        moving: set[Var] = {self.inputs[i] for i in varying}
        late: list[JaxprEqn] = []
        early: dict[Var, JaxprEqn] = {}
        for equation in self.equations:
            if any(v in moving for v in equation.invars if not isinstance(v, Literal)):
                moving.update(equation.outvars)
                late.append(equation)
            else:
                early.update(dict.fromkeys(equation.outvars, equation))

        repeated: dict[int, JaxprEqn] = {}
        crossing: dict[Var, None] = {}

        def cross(atom: Atom) -> None:
            if isinstance(atom, Literal) or atom in moving or atom in crossing:
                return
            source = early.get(atom)
            if source is not None and source.primitive.name in _RECOMPUTED:
                if id(source) not in repeated:
                    for operand in source.invars:
                        cross(operand)
                    repeated[id(source)] = source
            else:
                crossing[atom] = None

        for equation in late:
            for atom in equation.invars:
                cross(atom)
        for atom in self.outputs:
            cross(atom)

        results = tuple(crossing)
        others = tuple(var for i, var in enumerate(self.inputs) if i not in varying)
        first_equations = _needed([e for e in self.equations if e.outvars[0] in early], results) if early else ()
        before = Program(others, first_equations, results)
        after = Program((*(self.inputs[i] for i in varying), *results), (*repeated.values(), *late), self.outputs)
        return before, after


Sources = frozenset[int]


def _sources_of(known: dict[Var, Sources], equations: Sequence[JaxprEqn], outputs: Sequence[Atom]) -> list[Sources]:
    """What each output depends on, from what the inputs do; loops are looked into, for their results may differ."""
    reach = dict(known)

    def read(atom: Atom) -> Sources:
        return frozenset() if isinstance(atom, Literal) else reach.get(atom, frozenset())

    for equation in equations:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive.name == "scan":
            reach.update(zip(equation.outvars, _through_loop(equation, operands), strict=True))
        else:
            reach.update(dict.fromkeys(equation.outvars, frozenset[int]().union(*operands)))
    return [read(atom) for atom in outputs]


def _through_loop(equation: JaxprEqn, operands: list[Sources]) -> list[Sources]:
    body = equation.params["jaxpr"].jaxpr
    consts, carries = scan_operands(equation)
    while True:
        results = _sources_of(dict(zip(body.invars, operands, strict=True)), body.eqns, body.outvars)
        before = operands[consts : consts + carries]
        after = [a | b for a, b in zip(before, results[:carries], strict=True)]
        if after == before:
            return [*after, *results[carries:]]
        operands = [*operands[:consts], *after, *operands[consts + carries :]]


def _needed(equations: Sequence[JaxprEqn], outputs: Sequence[Atom]) -> tuple[JaxprEqn, ...]:
    wanted = {atom for atom in outputs if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(equations):
        if any(var in wanted for var in equation.outvars):
            kept.append(equation)
            wanted.update(v for v in equation.invars if not isinstance(v, Literal))
    return tuple(reversed(kept))


def _apply_inlined(equation: Any, operands: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in ("jit", "pjit"):
        return evaluate(equation.params["jaxpr"], operands, _apply_inlined)
    exponent = equation.invars[1] if name == "pow" else None
    if isinstance(exponent, Literal) and np.ndim(exponent.val) == 0 and float(exponent.val) in _POWERS:
        return [lax.integer_pow(operands[0], int(exponent.val))]
    return bind(equation, operands)
