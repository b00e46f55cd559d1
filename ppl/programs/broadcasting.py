"""Evaluation of a traced program in which arrays are spread out as late as can be.

Put one value into all labels of a mixture, and most of the program is the same number in every row: the weight of the
component, its mean, the logarithm of its scale. Here such an array is kept with length one along the axes on which it
is constant, so that each of these is computed once, and a gather at one index for all rows is the reading of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.dual.elementwise import ELEMENTWISE
from ...ad.equations import bind, shaped
from .program import Program

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spread:
    """An array that is constant along some axes.

    Args:
        array: with length one, or its full length, along each axis.
        shape: of the whole.
    """

    array: Any
    shape: Shape

    @classmethod
    def of(cls, array: Any) -> Spread:
        """An array as it is."""
        return cls(array, tuple(np.shape(array)))

    @property
    def kept(self) -> Shape:
        """The shape in which it is kept."""
        return tuple(np.shape(self.array))

    @property
    def whole(self) -> Any:
        """The array, spread out."""
        return _broadcast(self.array, self.shape)

    def along(self, axes: Sequence[int]) -> Spread:
        """The same, spread out along some axes."""
        wanted = tuple(
            full if k in axes else kept for k, (full, kept) in enumerate(zip(self.shape, self.kept, strict=True))
        )
        return Spread(_broadcast(self.array, wanted), self.shape)


def evaluate_sparingly(program: Program, arguments: Sequence[Spread]) -> list[Spread]:
    """The results of a program; usable under any transformation of JAX.

    The logarithm of zero is −∞ with derivative 0 here: in a sum of probabilities an impossible value has no weight,
    and an infinite slope times no weight would be NaN.
    """
    values: dict[Var, Spread] = dict(zip(program.inputs, arguments, strict=True))

    def read(atom: Any) -> Spread:
        return Spread.of(atom.val) if isinstance(atom, Literal) else values[atom]

    for equation in program.equations:
        values.update(zip(equation.outvars, _apply(equation, [read(atom) for atom in equation.invars]), strict=True))
    return [read(atom) for atom in program.outputs]


def _apply(equation: JaxprEqn, operands: list[Spread]) -> list[Spread]:
    name = equation.primitive.name
    if name == "broadcast_in_dim" or any(operand.kept != operand.shape for operand in operands):
        rule = _RULES.get(name, _elementwise if name in _BY_ELEMENT else None)
        result = rule(equation, operands) if rule else None
        if result is not None:
            return [Spread(result, shaped(equation.outvars[0])[0])]
    if name == "log":
        return [Spread.of(_log(operands[0].whole))]
    return [Spread.of(result) for result in bind(equation, [operand.whole for operand in operands])]


def _log(x: Any) -> Any:
    return jnp.where(x == 0, -jnp.inf, jnp.log(jnp.where(x == 0, 1, x)))


def _broadcast(array: Any, shape: Shape) -> Any:
    return array if np.shape(array) == shape else lax.broadcast_in_dim(array, shape, tuple(range(len(shape))))


# A rule gives the result as it is kept, or None where the operands have to be spread out.
Rule = Callable[[JaxprEqn, list[Spread]], Any]

_BY_ELEMENT = ELEMENTWISE | {
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "is_finite", "floor", "ceil", "round", "sign",
}  # fmt: skip


def _elementwise(equation: JaxprEqn, operands: list[Spread]) -> Any:
    kept = np.broadcast_shapes(*(operand.kept for operand in operands))
    arrays = [operand.array if not operand.shape else _broadcast(operand.array, kept) for operand in operands]
    return _log(arrays[0]) if equation.primitive.name == "log" else bind(equation, arrays)[0]


def _broadcast_in_dim(equation: JaxprEqn, operands: list[Spread]) -> Any:
    if len(operands) > 1:
        return None
    shape = [1] * len(equation.params["shape"])
    for axis, size in zip(equation.params["broadcast_dimensions"], operands[0].kept, strict=True):
        shape[axis] = size
    return _reshaped(operands[0].array, tuple(shape))


def _alike(equation: JaxprEqn, operands: list[Spread]) -> Any:
    """Of an operation that adds or takes away axes of length one."""
    (operand,), shape = operands, shaped(equation.outvars[0])[0]
    if equation.params.get("dimensions") and equation.primitive.name == "reshape":
        return None
    if all(size == 1 for size in operand.kept):
        return _reshaped(operand.array, (1,) * len(shape))
    if [size for size in operand.shape if size != 1] != [size for size in shape if size != 1]:
        return None
    kept = iter(k for k, full in zip(operand.kept, operand.shape, strict=True) if full != 1)
    return _reshaped(operand.array, tuple(1 if full == 1 else next(kept) for full in shape))


def _transpose(equation: JaxprEqn, operands: list[Spread]) -> Any:
    return lax.transpose(operands[0].array, equation.params["permutation"])


def _slice(equation: JaxprEqn, operands: list[Spread]) -> Any:
    (operand,), shape = operands, shaped(equation.outvars[0])[0]
    if 0 in shape:
        return None
    params = equation.params
    strides = params["strides"] or (1,) * len(shape)
    own = [
        (start, limit, stride) if kept == full else (0, 1, 1)
        for start, limit, stride, kept, full in zip(
            params["start_indices"], params["limit_indices"], strides, operand.kept, operand.shape, strict=True
        )
    ]
    return lax.slice(operand.array, *zip(*own, strict=True))


def _reduced(equation: JaxprEqn, operands: list[Spread]) -> Any:
    (operand,), axes = operands, equation.params["axes"]
    (result,) = bind(equation, [operand.array])
    repeats = int(np.prod([operand.shape[k] // operand.kept[k] for k in axes if operand.kept[k]]))
    if equation.primitive.name == "reduce_sum" and repeats != 1:
        result = result * np.asarray(repeats, result.dtype)
    return result


def _gather(equation: JaxprEqn, operands: list[Spread]) -> Any:
    """Where the indices are the same along an axis, so is the result."""
    source, indices = operands
    numbers = equation.params["dimension_numbers"]
    pairs = list(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    # An axis that the two share can be kept short in both only.
    spread = [(i, j) for i, j in pairs if (source.kept[i], indices.kept[j]) != (1, 1)]
    short = {i for i, j in pairs if (i, j) not in spread}
    source = source.along([k for k in range(len(source.shape)) if k not in short])
    indices = indices.along([len(indices.shape) - 1, *(j for _, j in spread)])
    return bind(equation, [source.array, indices.array])[0]


def _reshaped(array: Any, shape: Shape) -> Any:
    return array if np.shape(array) == shape else lax.reshape(array, shape)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _alike),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or"), _reduced),
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "slice": _slice,
    "gather": _gather,
}
