"""Indices that data determine and that point outside of their array: JAX would move them to its edge, silently."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import bind, shaped
from ..programs.program import Atom, Program

HostArray = np.ndarray[Any, Any]

# What the arithmetic of indices is made of, in NumPy: nothing is compiled for it.
_IN_NUMPY: dict[str, Callable[..., Any]] = {
    "lt": lambda equation, a, b: np.less(a, b),
    "add": lambda equation, a, b: np.add(a, b),
    "sub": lambda equation, a, b: np.subtract(a, b),
    "mul": lambda equation, a, b: np.multiply(a, b),
    "select_n": lambda equation, which, *cases: np.choose(which.astype(int), cases),
    "convert_element_type": lambda equation, a: np.asarray(a).astype(equation.params["new_dtype"]),
    "concatenate": lambda equation, *parts: np.concatenate(parts, axis=equation.params["dimension"]),
    "reshape": lambda equation, a: np.reshape(a, equation.params["new_sizes"]),
    "squeeze": lambda equation, a: np.reshape(a, shaped(equation.outvars[0])[0]),
    "broadcast_in_dim": lambda equation, a: _broadcast(a, **equation.params),
    "iota": lambda equation: _iota(**equation.params),
}

# What an index goes through from where its sign is seen to where it is used.
_MOVING = frozenset({"convert_element_type", "concatenate", "reshape", "squeeze", "broadcast_in_dim"})


class IndexWarning(UserWarning):
    """Indices that count from the end of an array, maybe by mistake."""


def check_indices(
    program: Program, names: Mapping[int, str], data: Mapping[int, Any], outputs: Mapping[int, str]
) -> None:
    """Refuse indices outside of their array, where data alone determine them; warn of some that are negative.

    Only what a model leaves to JAX is looked at, as in `theta[county]`; an explicit mode, as in
    `theta.at[county].get(mode="clip")`, is taken to be meant.

    Args:
        program: from sites and data to what is known of a model.
        names: of the sites, by number of the input.
        data: by number of the input.
        outputs: what the results (by number) are called.

    Raises:
        IndexError: naming the array, the site that uses it, and the first of the indices.
    """
    accesses = [equation for equation in program.equations if _index_of(equation) is not None]
    if not accesses:
        return
    sources = {var: equation for equation in program.equations for var in equation.outvars}
    latent = frozenset(var for i, var in enumerate(program.inputs) if i not in data)
    value = _Evaluation(sources, latent, {program.inputs[i]: array for i, array in data.items()})
    for equation in accesses:
        index = _index_of(equation)
        assert index is not None
        starts = [value(atom) for atom in index]
        if any(start is None for start in starts):
            continue
        found = _outside(equation, [np.asarray(start) for start in starts])
        if found is not None:
            user, array = _parties(program, equation, names, outputs)
            raise IndexError(_message(user, array, found))
        if any(value.counts_back(atom) for atom in index):
            user, array = _parties(program, equation, names, outputs)
            warnings.warn(
                f"{user}: some of the indices into {array} are negative, and count from its end. If they are codes of "
                f"categories, -1 is a missing one: leave these rows out.",
                IndexWarning,
                stacklevel=5,
            )


def _index_of(equation: JaxprEqn) -> Sequence[Atom] | None:
    """What says where an equation reads; None where it does not matter, or the user said what is to be done."""
    name = equation.primitive.name
    if name == "gather" and equation.params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        return equation.invars[1:]
    return equation.invars[1:] if name == "dynamic_slice" else None


def _outside(equation: JaxprEqn, starts: list[HostArray]) -> tuple[int, int, int] | None:
    """The first index that is too large or too small: itself, its place, and the size of the dimension."""
    shape = shaped(equation.invars[0])[0]
    sizes = equation.params["slice_sizes"]
    if equation.primitive.name == "gather":
        axes = equation.params["dimension_numbers"].start_index_map
        columns = [(axis, starts[0][..., k].ravel()) for k, axis in enumerate(axes)]
    else:
        columns = [(axis, start.ravel()) for axis, start in enumerate(starts)]
    for axis, column in columns:
        wrong = np.flatnonzero((column < 0) | (column > shape[axis] - sizes[axis]))
        if wrong.size:
            return int(column[wrong[0]]), int(wrong[0]), shape[axis]
    return None


def _parties(
    program: Program, equation: JaxprEqn, names: Mapping[int, str], outputs: Mapping[int, str]
) -> tuple[str, str]:
    """What uses an access to an array, and what the array holds."""
    reads = Program(program.inputs, program.equations, (equation.invars[0],)).dependencies()[0]
    sites = [f"'{name}'" for i, name in names.items() if i in reads]
    array = f"an array of values of {', '.join(sites)}" if sites else "an array"
    moved: set[Var] = set(equation.outvars)
    for later in program.equations:
        if any(not isinstance(atom, Literal) and atom in moved for atom in later.invars):
            moved.update(later.outvars)
    found = {i: program.outputs[i] for i in outputs}
    users = [outputs[i] for i, atom in found.items() if not isinstance(atom, Literal) and atom in moved]
    return f"site '{users[0]}'" if users else "the model", array


def _message(user: str, array: str, found: tuple[int, int, int]) -> str:
    index, where, size = found
    # A negative index has had the size added to it.
    index = index - size if index < 0 else index
    return (
        f"{user}: index {index} (number {where} of its indices) is out of range for {array} whose dimension has "
        f"size {size}: valid are {-size} to {size - 1}. Correct the index (they count from 0), or the size of the "
        f"array; to mean it, write array.at[index].get(mode='clip')."
    )


class _Evaluation:
    """The values of variables that data determine, each computed once."""

    def __init__(self, sources: Mapping[Var, JaxprEqn], latent: frozenset[Var], given: dict[Var, Any]) -> None:
        self.sources, self.latent, self.known = sources, latent, given

    def __call__(self, atom: Atom) -> Any | None:
        """The value; None where it depends on a site."""
        if isinstance(atom, Literal):
            return atom.val
        if atom in self.latent:
            return None
        if atom not in self.known:
            equation = self.sources[atom]
            operands = [self(operand) for operand in equation.invars]
            missing = any(operand is None for operand in operands)
            results = [None] * len(equation.outvars) if missing else _evaluated(equation, operands)
            self.known.update(zip(equation.outvars, results, strict=True))
        return self.known[atom]

    def counts_back(self, atom: Atom) -> bool:
        """Whether some, but not all, entries of an index are negative ones to which the size has been added."""
        source = None if isinstance(atom, Literal) else self.sources.get(atom)
        if source is None:
            return False
        if source.primitive.name == "select_n":
            negative = np.asarray(self(source.invars[0]))
            return bool(negative.any() and not negative.all())
        return source.primitive.name in _MOVING and any(self.counts_back(operand) for operand in source.invars)


def _evaluated(equation: JaxprEqn, operands: list[Any]) -> list[Any]:
    in_numpy = _IN_NUMPY.get(equation.primitive.name)
    if in_numpy is not None:
        return [in_numpy(equation, *(np.asarray(operand) for operand in operands))]
    with jax.ensure_compile_time_eval():
        return bind(equation, operands)


def _broadcast(a: HostArray, *, shape: tuple[int, ...], broadcast_dimensions: tuple[int, ...], **_: Any) -> HostArray:
    own = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, a.shape, strict=True):
        own[axis] = size
    return np.broadcast_to(a.reshape(own), shape)


def _iota(*, dtype: Any, shape: tuple[int, ...], dimension: int, **_: Any) -> HostArray:
    along = np.arange(shape[dimension], dtype=dtype)
    return np.broadcast_to(along.reshape([-1 if axis == dimension else 1 for axis in range(len(shape))]), shape)
