"""Equations of a traced program: evaluating one, and looking into those that only call another program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

# Programs that reverse mode computes a second time.
CHECKPOINTS = frozenset({"checkpoint", "remat2"})

# Primitives that only evaluate the program in one of their parameters.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}


class Body(NamedTuple):
    """A program inside an equation.

    Args:
        jaxpr: its equations.
        consts: values for its constvars.
    """

    jaxpr: Any
    consts: Sequence[Any]


def bind(equation: Any, values: Sequence[Any], **changed: Any) -> list[Any]:
    """Evaluate one equation on values, with some of its parameters changed; under any transformation of JAX."""
    parameters = equation.primitive.get_bind_params({**equation.params, **changed})
    with equation.ctx.manager:
        result = equation.primitive.bind(*values, **parameters)
    return list(result) if equation.primitive.multiple_results else [result]


def shaped(atom: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a variable or literal; the annotations of JAX know them of arrays only."""
    return atom.aval.shape, atom.aval.dtype


def inlined_body(equation: Any) -> Body | None:
    """The program that an equation only calls, or None if the equation does something itself."""
    key = _CALLS.get(equation.primitive.name)
    if key is None:
        return None
    called = equation.params[key]
    return Body(called.jaxpr, called.consts) if hasattr(called, "consts") else Body(called, ())


def called_body(equation: Any) -> Body | None:
    """As `inlined_body`, but for a program that is to be computed twice, which stays as the user wrote it."""
    return None if equation.primitive.name in CHECKPOINTS else inlined_body(equation)


def evaluate(program: Any, arguments: Sequence[Any], apply: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Walk a traced program.

    Args:
        program: with `jaxpr` and `consts`.
        arguments: values for its inputs.
        apply: from an equation and the values of its operands to its results; `bind` evaluates it as it is.
    """
    jaxpr = program.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def scan_operands(equation: Any) -> tuple[int, int]:
    """How many operands of a `scan` are constants of its body, and how many are carried."""
    params = equation.params
    if "num_consts" in params:  # JAX before 0.12
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].update(range(len(equation.invars))).unpack()
    return len(list(constants)), len(list(carried))
