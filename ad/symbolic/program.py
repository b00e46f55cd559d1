"""The symbolic program: scalar operations, the accumulation of their derivatives, and the way back to JAX.

Every scalar of the traced program becomes one temporary, `t = operation(atoms)`, with atoms that are temporaries,
inputs or numbers; equal operations share a temporary, which is the elimination of common subexpressions. SymPy
differentiates the operations one by one, and the partial derivatives are accumulated backwards over the temporaries.
So an expression never grows, and SymPy never sees enough of it at once to change how it rounds.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import sympy
from jax import lax

from ..errors import DifferentiationError
from .operations import ARITHMETIC, CUSTOM, SELECT, Condition

Atom = Any  # a SymPy symbol, number or truth value


class Program:
    """Scalar temporaries in the order of their making; grows while a function is traced and differentiated.

    Args:
        limit: how many operations it may hold.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.place = "the function"  # the primitive at work, for the message of the limit
        self._position: dict[Atom, int] = {}
        self._definition: dict[Atom, Any] = {}
        self._known: dict[Any, Atom] = {}
        self._inputs: dict[Atom, tuple[Any, int]] = {}
        self._custom: dict[Atom, tuple[Sequence[Atom], Callable[[], Iterable[Atom]]]] = {}

    def inputs(self, array: Any) -> np.ndarray[Any, Any]:
        """Symbols for the elements of an array, shape (size,), whose numbers are read when the program runs."""
        self.check(array.size)
        symbols = np.array([self._new() for _ in range(array.size)], dtype=object).reshape(array.size)
        self._inputs.update({symbol: (array, i) for i, symbol in enumerate(symbols)})
        return symbols

    def number(self, value: Any) -> Atom:
        """A number or truth value that is part of the program; exact."""
        if isinstance(value, (bool, np.bool_)):
            return sympy.true if value else sympy.false
        value = float(value)
        if not math.isfinite(value):  # SymPy's infinity has an arithmetic of its own
            return self.opaque(value)
        exact = value.is_integer() and abs(value) < 2.0**53
        return sympy.Integer(int(value)) if exact else sympy.Float(value, precision=53)

    def opaque(self, value: float) -> Atom:
        """A number that SymPy does not see, so that 0 * NaN stays NaN."""
        key = ("opaque", repr(value))
        if key not in self._known:
            self._known[key] = self.inputs(np.asarray([value]))[0]
        return self._known[key]

    def apply(self, operation: Callable[..., Any], *atoms: Atom) -> Atom:
        """The atom for an operation on atoms: a temporary, an old one where the operation was met before."""
        if operation in (ARITHMETIC["mul"], ARITHMETIC["div"]):
            atoms = tuple(self.opaque(0.0) if atom.is_zero else atom for atom in atoms)
        return self.atom(operation(*atoms))

    def atom(self, expression: Any) -> Atom:
        """Break an expression into temporaries, and return the one that holds its value."""
        if _is_atom(expression):
            return expression
        if isinstance(expression, Condition):
            return self.atom(expression.args[0])
        parts = []
        for part in expression.args:
            # A coefficient and a divisor stay inside the sum or product they belong to.
            scaled = expression.is_Add and part.is_Mul and len(part.args) == 2 and part.args[0].is_Number
            divisor = expression.is_Mul and part.is_Pow and part.exp == -1
            if scaled or divisor:
                parts.append(part.func(*(self.atom(inner) for inner in part.args)))
            else:
                parts.append(self.atom(part))
        rebuilt = expression.func(*parts)
        if _is_atom(rebuilt):
            return rebuilt
        if rebuilt not in self._known:
            self.check(1)
            symbol = self._new()
            self._definition[symbol], self._known[rebuilt] = rebuilt, symbol
        return self._known[rebuilt]

    def with_partials(self, value: Atom, parents: Sequence[Atom], partials: Callable[[], Iterable[Atom]]) -> Atom:
        """A temporary equal to `value` whose partial derivatives are given instead of derived.

        Args:
            value: the atom.
            parents: what it is a function of; symbols may repeat, and numbers are passed over.
            partials: returns the derivative in each parent, when it is first needed.
        """
        symbol = self.atom(CUSTOM(value, sympy.Integer(len(self._position))))
        self._custom[symbol] = parents, partials
        return symbol

    def check(self, more: int) -> None:
        """Raise DifferentiationError if that many operations more are too many."""
        if len(self._definition) + more > self.limit:
            raise DifferentiationError(
                f"AutoSymbolic writes out every scalar operation and stops at max_operations={self.limit}, "
                f"passed at {self.place}; use adtype=AutoReverse(), or AutoSymbolic(max_operations=...) with more"
            )

    def gradient(self, output: Atom, variables: Sequence[Atom], since: int = 0) -> list[Atom]:
        """The derivatives of one temporary, accumulated backwards.

        A temporary that only an unselected branch uses passes nothing on: what it multiplies may be infinite there.

        Args:
            output: what to differentiate.
            variables: in what.
            since: temporaries made earlier do not depend on the variables (`mark`).

        Returns:
            An atom per variable.

        Source: Griewank and Walther (2008), "Evaluating Derivatives", section 3.2.
        """
        self.place = "the derivative"
        relevant = self._dependents(output, set(variables), since)
        received: dict[Atom, list[Any]] = {output: [sympy.Integer(1)]}
        live: dict[Atom, Any] = {output: sympy.true}
        found: dict[Atom, Atom] = {}
        queue = [-self._position[output]] if output in relevant else []
        symbols = {self._position[symbol]: symbol for symbol in relevant}
        while queue:
            symbol = symbols[-heapq.heappop(queue)]
            adjoint = found[symbol] = self.atom(sympy.Add(*received.pop(symbol)))
            alive = live.pop(symbol)
            if adjoint.is_zero:
                continue
            for parent, partial, condition in self._edges(symbol):
                if parent not in relevant or partial.is_zero:
                    continue
                term = self.atom(adjoint * partial)
                reached = self.atom(sympy.And(alive, condition))
                guarded = term if reached == sympy.true else self.atom(SELECT(reached, term, sympy.Integer(0)))
                if parent not in received:
                    heapq.heappush(queue, -self._position[parent])
                received.setdefault(parent, []).append(guarded)
                live[parent] = self.atom(sympy.Or(live.get(parent, sympy.false), reached))
        return [found.get(variable, sympy.Integer(0)) for variable in variables]

    def depends(self, atom: Atom, variables: Sequence[Atom], since: int = 0) -> bool:
        """Whether an atom depends on variables in any way; arguments as those of `gradient`."""
        return bool(self._dependents(atom, set(variables), since))

    @property
    def mark(self) -> int:
        """The place where the program ends at present."""
        return len(self._position)

    def evaluate(self, atoms: Sequence[Atom], dtype: Any) -> list[Any]:
        """Run the program in JAX, as far as `atoms` need it: scalars of `dtype`, conditions as bool."""
        needed, stack = set(), [symbol for atom in atoms for symbol in atom.free_symbols]
        while stack:
            symbol = stack.pop()
            if symbol not in needed:
                needed.add(symbol)
                stack.extend(self._definition[symbol].free_symbols if symbol in self._definition else ())
        values: dict[Atom, Any] = {}
        for symbol in sorted(needed, key=self._position.__getitem__):
            if symbol in self._definition:
                values[symbol] = _evaluate(self._definition[symbol], values, dtype)
            else:
                array, i = self._inputs[symbol]
                scalar = lax.index_in_dim(jnp.ravel(array), i, keepdims=False)
                values[symbol] = scalar if scalar.dtype == bool else lax.convert_element_type(scalar, dtype)
        return [_evaluate(atom, values, dtype) for atom in atoms]

    def _new(self) -> Atom:
        symbol = sympy.Symbol(f"t{len(self._position)}", real=True)
        self._position[symbol] = len(self._position)
        return symbol

    def _parents(self, symbol: Atom) -> Any:
        if symbol in self._custom:
            return [parent for parent in self._custom[symbol][0] if parent.is_Symbol]
        return self._definition[symbol].free_symbols if symbol in self._definition else ()

    def _dependents(self, output: Atom, variables: set[Atom], since: int) -> set[Atom]:
        """The temporaries on a path from a variable to the output, both included."""
        reached, stack = set(), [output] if output.is_Symbol else []
        while stack:
            symbol = stack.pop()
            if symbol not in reached and self._position[symbol] >= since:
                reached.add(symbol)
                stack.extend(self._parents(symbol))
        relevant: set[Atom] = set()
        for symbol in sorted(reached, key=self._position.__getitem__):
            if symbol in variables or any(parent in relevant for parent in self._parents(symbol)):
                relevant.add(symbol)
        return relevant

    def _edges(self, symbol: Atom) -> list[tuple[Atom, Any, Any]]:
        """What a temporary depends on: each parent with the partial derivative and the condition of its use."""
        if symbol in self._custom:
            parents, partials = self._custom[symbol]
            return [(parent, partial, sympy.true) for parent, partial in zip(parents, partials(), strict=True)]
        expression = self._definition.get(symbol)
        if expression is None:
            return []
        if expression.func == SELECT:
            condition, then, other = expression.args
            branches = ((then, condition), (other, sympy.Not(condition)))
            return [(branch, sympy.Integer(1), use) for branch, use in branches if branch.is_Symbol]
        if isinstance(expression, sympy.logic.boolalg.Boolean):
            return []
        arguments = sorted(expression.free_symbols, key=self._position.__getitem__)
        return [(parent, expression.diff(parent), sympy.true) for parent in arguments]


def _evaluate(expression: Any, values: dict[Atom, Any], dtype: Any) -> Any:
    if expression.is_Symbol:
        return values[expression]
    if expression in (sympy.true, sympy.false):
        return np.bool_(expression == sympy.true)
    if expression.is_Number:
        return np.asarray(float(expression), dtype)
    run = functools.partial(_evaluate, values=values, dtype=dtype)

    def number(part: Any) -> Any:
        value = run(part)  # a truth value among numbers is 0 or 1
        return lax.convert_element_type(value, dtype) if value.dtype == bool else value

    if expression.is_Add:
        signed = [(part.could_extract_minus_sign(), part) for part in expression.args]
        positive = [number(part) for minus, part in signed if not minus]
        total = functools.reduce(lax.add, positive) if positive else None
        for part in (number(-part) for minus, part in signed if minus):
            total = lax.neg(part) if total is None else lax.sub(total, part)
        return total
    if expression.is_Mul:
        divisors = [part.base for part in expression.args if part.is_Pow and part.exp == -1]
        factors = [part for part in expression.args if not (part.is_Pow and part.exp == -1)]
        negative = sympy.Integer(-1) in factors
        multiplied = [number(part) for part in factors if part != -1]
        product = functools.reduce(lax.mul, multiplied) if multiplied else np.asarray(1.0, dtype)
        if divisors:
            product = lax.div(product, functools.reduce(lax.mul, map(run, divisors)))
        return lax.neg(product) if negative else product
    if expression.is_Pow:
        return lax.integer_pow(run(expression.base), int(expression.exp))
    if isinstance(expression, sympy.Not):
        return lax.bitwise_not(run(expression.args[0]))
    logic = {sympy.And: lax.bitwise_and, sympy.Or: lax.bitwise_or, sympy.Xor: lax.bitwise_xor}
    if expression.func in logic:
        return functools.reduce(logic[expression.func], map(run, expression.args))
    if expression.func == CUSTOM:
        return run(expression.args[0])
    return expression.func.evaluate(*map(run, expression.args))


def _is_atom(expression: Any) -> bool:
    if isinstance(expression, sympy.Not):
        return bool(expression.args[0].is_Symbol)
    return bool(expression.is_Symbol or expression.is_Number or expression in (sympy.true, sympy.false))
