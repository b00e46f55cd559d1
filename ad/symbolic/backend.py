"""Symbolic differentiation: the traced program written out in scalars, differentiated by SymPy, and run in JAX again.

The program of f is taken apart operation by operation. What does not depend on x stays with JAX, and its results enter
as symbols; what does becomes scalar operations (`program`). Loops of known length are unrolled.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..adtypes import AbstractForwardBackend, Array, Flat, FlatFunction
from ..equations import bind, shaped
from ..errors import DifferentiationError

if TYPE_CHECKING:
    from .program import Program

# An array of scalars that depend on x, as SymPy expressions; everything else is an array or tracer of JAX.
Symbols = np.ndarray[Any, Any]
Value = Any


@dataclass(frozen=True)
class AutoSymbolic(AbstractForwardBackend):
    """Symbolic differentiation: every scalar operation of f is written out once, with its derivative, and compiled.

    For small models made of scalars: no tangents or tapes are carried, zeros and repeated terms are gone before the
    program runs, and only the gradient's own operations are left. The program grows with the number of scalar
    operations, so that vectors of data belong to the other backends. What SymPy cancels is cancelled: `x / x` is 1
    also at 0, where JAX has NaN.

    Args:
        max_operations: how many scalar operations the value and its derivatives may take together.

    Raises:
        ValueError: if `max_operations` is not a positive integer.

    Source: Guenter (2007), "Efficient symbolic differentiation for graphics applications".
    """

    max_operations: int = 2000

    def __post_init__(self) -> None:
        limit = self.max_operations
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(
                f"AutoSymbolic: max_operations must be a positive integer, got {limit!r}; "
                f"use AutoSymbolic() for the default of 2000."
            )

    def jacobian(self, f: FlatFunction, x: Flat) -> tuple[Array, Array]:
        """See `AbstractBackend.jacobian`; the rows are derived by SymPy.

        Raises:
            DifferentiationError: where SymPy is not installed, f has an operation that cannot be written in
                scalars, or there are more than `max_operations`.
        """
        if importlib.util.find_spec("sympy") is None:
            raise DifferentiationError(
                "AutoSymbolic needs SymPy; install it with pip install 'dualtape[symbolic]', "
                "or use adtype=AutoForward() or AutoReverse()"
            )
        from .program import Program

        traced, result = jax.make_jaxpr(f, return_shape=True)(jax.ShapeDtypeStruct(x.shape, x.dtype))
        program = Program(self.max_operations)
        variables = program.inputs(x)
        interpreter = Interpreter(program, jnp.result_type(x.dtype, result.dtype))
        (value,) = interpreter.run(traced, [variables])
        if not active(value):
            return value, jnp.zeros((*value.shape, x.size), result.dtype)
        rows = [program.gradient(scalar, list(variables)) for scalar in value.ravel()]
        size = value.size
        scalars = program.evaluate([*value.ravel(), *itertools.chain(*rows)], interpreter.dtype)
        flat = jnp.stack([jnp.asarray(scalar, result.dtype) for scalar in scalars]) if scalars else jnp.zeros(0)
        return flat[:size].reshape(value.shape), flat[size:].reshape(*value.shape, x.size)

    def pushforward(self, f: FlatFunction, x: Flat, tangents: Array) -> tuple[Array, Array]:
        """See `AbstractForwardBackend.pushforward`; the Jacobian times the tangents."""
        value, jacobian = self.jacobian(f, x)
        return value, jnp.tensordot(tangents, jacobian, axes=(1, -1))

    def chunk(self, dimension: int) -> int:
        """See `AbstractForwardBackend.chunk`; the Jacobian is had at once."""
        return dimension


def active(value: Value) -> bool:
    """Whether a value depends on x."""
    return isinstance(value, np.ndarray) and value.dtype == object


def concrete(*values: Value) -> bool:
    """Whether values are known now, as numbers."""
    return not any(active(value) or isinstance(value, jax.core.Tracer) for value in values)


def _settled(variable: Any, value: Value) -> Value:
    """The value of a variable; one without elements depends on nothing."""
    return np.zeros(variable.aval.shape, variable.aval.dtype) if active(value) and value.size == 0 else value


class Interpreter:
    """Runs a traced program on symbols.

    Args:
        program: takes up the scalar operations.
        dtype: what to compute in; becomes the widest floating dtype met.
    """

    def __init__(self, program: Program, dtype: Any):
        from . import operations, rules

        self.program, self.dtype, self.rules = program, dtype, rules
        self.operations = {**operations.FUNCTIONS, **operations.ARITHMETIC}
        self._entered: dict[int, tuple[Any, Symbols]] = {}

    def run(self, traced: Any, arguments: Sequence[Value]) -> list[Value]:
        """The results of a traced function: symbols where they depend on symbols among the arguments."""
        jaxpr = getattr(traced, "jaxpr", traced)
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, getattr(traced, "consts", ()), strict=False))
        values.update(zip(jaxpr.invars, map(_settled, jaxpr.invars, arguments), strict=True))

        def read(atom: Any) -> Value:
            return np.asarray(atom.val, shaped(atom)[1]) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            results = self._results(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, map(_settled, equation.outvars, results), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _results(self, equation: Any, values: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if not any(map(active, values)):
            if concrete(*values) and not equation.effects:
                with jax.ensure_compile_time_eval():
                    return bind(equation, values)
            return bind(equation, values)
        if any(jnp.issubdtype(out.aval.dtype, jnp.complexfloating) for out in equation.outvars):
            raise refusal(name, "with complex numbers")
        self.program.place = f"`{name}`"
        if name in self.operations:
            return [self._elementwise(equation, values)]
        if name in self.rules.MOVES:
            return self._move(equation, values, self.rules.MOVES[name])
        if name not in self.rules.RULES:
            raise refusal(name)
        results = self.rules.RULES[name](self, equation, values)
        return results if isinstance(results, list) else [results]

    def symbols(self, value: Value) -> Symbols:
        """An array as symbols: numbers where they are known now, else symbols that are read at run time."""
        if active(value):
            symbols: Symbols = value
            return symbols
        if id(value) not in self._entered:
            self.program.check(int(np.size(value)))
            if concrete(value):
                flat = np.ravel(np.asarray(value))
                atoms = np.empty(flat.size, object)
                atoms[:] = [self.program.number(number) for number in flat]
            else:
                atoms = self.program.inputs(value)
            self._entered[id(value)] = value, atoms.reshape(np.shape(value))
        return self._entered[id(value)][1]

    def map(self, operation: Callable[..., Any], *arrays: Value) -> Symbols:
        """An operation on each element, shapes broadcast."""
        columns = np.broadcast_arrays(*(self.symbols(array) for array in arrays))
        result = np.empty(columns[0].size, object)
        result[:] = [self.program.apply(operation, *row) for row in zip(*(c.ravel() for c in columns), strict=True)]
        return result.reshape(columns[0].shape)

    def fold(self, operation: Callable[..., Any], rows: Symbols) -> Symbols:
        """An operation of any number of arguments over the last axis."""
        result = np.empty(math.prod(rows.shape[:-1]), object)
        result[:] = [self.program.apply(operation, *row) for row in rows.reshape(result.size, -1)]
        return result.reshape(rows.shape[:-1])

    def _elementwise(self, equation: Any, values: list[Value]) -> Symbols:
        name, dtype = equation.primitive.name, equation.outvars[0].aval.dtype
        if name not in ("add", "sub", "mul", "neg") and jnp.issubdtype(dtype, jnp.integer):
            raise refusal(name, "on integers that depend on the parameters")
        return self.map(self.operations[name], *values)

    def _move(self, equation: Any, values: list[Value], data: Sequence[int] | None) -> list[Symbols]:
        """Primitives that move elements and leave them alone: done by JAX on their numbers in place of them."""
        name, moved = equation.primitive.name, range(len(values)) if data is None else data
        fixed = [value for i, value in enumerate(values) if i not in moved]
        if not concrete(*fixed):
            raise refusal(name, "at positions that are known only when the program runs")
        arrays = [self.symbols(values[i]) for i in moved]
        starts = np.cumsum([0, *(array.size for array in arrays)])
        numbered = list(values)
        for i, array, start in zip(moved, arrays, starts, strict=False):
            numbered[i] = (np.arange(array.size).reshape(array.shape) + start).astype(np.int32)
        fill, changed = equation.params.get("fill_value"), {}
        if "fill_value" in equation.params:
            changed["fill_value"] = -1  # a position out of bounds then reads the last of the atoms, the filling
        with jax.ensure_compile_time_eval():
            results = [np.asarray(result) for result in bind(equation, numbered, **changed)]
        atoms = np.concatenate([*(array.ravel() for array in arrays), [None]])
        if any((result < 0).any() for result in results):
            atoms[-1] = self.program.number(np.nan if fill is None else fill)
        return [atoms[result.ravel()].reshape(result.shape) for result in results]


def refusal(name: str, detail: str = "") -> DifferentiationError:
    """The error for a primitive that cannot be written out."""
    what, remedy = f"`{name}`", "use adtype=AutoForward() or AutoReverse()"
    if name == "while":
        what, remedy = "`lax.while_loop`, whose number of turns depends on the parameters", "use adtype=AutoForward()"
    if "callback" in name:
        remedy = "use adtype=AutoFiniteDiff(), which needs values alone"
    return DifferentiationError(f"AutoSymbolic cannot write out {' '.join(filter(None, (what, detail)))}; {remedy}")
