"""Results of a model's program as functions of a block of coordinates, given the rest.

What data alone determine is computed once per run, what the other sites determine once per update of the block, and
only the rest at every evaluation.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import shaped
from ...samplers.positions import take
from ..programs.program import Atom, Program
from ..programs.reach import reach, unsummed
from ..programs.rolling import rolled
from ..programs.slicing import slice_rows
from .coordinates import Array, Coordinates, IntArray, Part

if TYPE_CHECKING:
    from ..log_density import ModelDensity


@dataclass(frozen=True)
class Source:
    """Where an input of a program comes from: coordinates of a position.

    Args:
        positions: of its coordinates.
        shape: of the input.
    """

    positions: IntArray
    shape: tuple[int, ...]

    def read(self, position: Array) -> Array:
        """The input, out of a position."""
        return take(position, self.positions).reshape(self.shape)


@dataclass(frozen=True)
class Given:
    """Some results of a model's program as functions of a block of coordinates, given the rest.

    Args:
        static: from the data, followed by `indices`, to what they determine.
        indices: which elements of arrays are meant: not written into the program, so that blocks which differ in
            nothing else are the same function.
        sources: of those coordinates outside the block that matter.
        before: from these, followed by the results of `static`, to the constants.
        after: from the arrays of the block, followed by the constants, to the results.
    """

    static: Program
    indices: tuple[IntArray, ...]
    sources: tuple[Source, ...]
    before: Program
    after: Program

    @classmethod
    def of(
        cls, whole: ModelDensity, parts: Mapping[str, Part], terms: Sequence[int], others: Sequence[int] = ()
    ) -> Given:
        """Split the program of a model for some of its outputs.

        Args:
            whole: the model.
            parts: of the block.
            terms: outputs (by number) that are wanted up to a constant: where a sum runs over entries that do not all
                belong to the block, it is cut down to those that depend on it.
            others: outputs that are wanted as they are; they follow.
        """
        coordinates = whole.coordinates
        program, sources, numbers, indices = _separated(whole.program.select((*terms, *others)), coordinates, parts)
        if indices:
            own = {numbers[label]: np.arange(len(sources[numbers[label]].positions)) for label in parts}
            known = dict(enumerate((*whole.data, *indices), len(sources)))
            program, more = _cut_down(program, len(terms), own, known)
            indices = (*indices, *more)
        static, dynamic = program.split(range(len(sources)))
        inside = [numbers[label] for label in parts]
        before, after = dynamic.split(inside)
        outside = [i for i in range(len(sources)) if i not in inside]
        used = {atom for equation in before.equations for atom in equation.invars if not isinstance(atom, Literal)}
        used |= {atom for atom in before.outputs if not isinstance(atom, Literal)}
        wanted = [(var, sources[i]) for var, i in zip(before.inputs, outside, strict=False) if var in used]
        arguments = (*(var for var, _ in wanted), *before.inputs[len(outside) :])
        before = Program(arguments, before.equations, before.outputs)
        return cls(static, indices, tuple(source for _, source in wanted), before, after)

    def rolled(self, terms: int) -> Given:
        """The same with one result, the sum of the terms, for which terms that are alike are evaluated at once.

        Args:
            terms: how many of the results are terms, the first.
        """
        after = rolled(self.after, terms)
        own = len(after.inputs) - len(self.before.outputs)
        # The stacks of what is constant go where it is computed.
        early, after = after.split(range(own))
        early = early.substitute(dict(enumerate(self.before.outputs)), self.before.inputs, self.before.equations)
        first, before = early.split(range(len(self.sources)))
        static = first.substitute(dict(enumerate(self.static.outputs)), self.static.inputs, self.static.equations)
        return Given(static, self.indices, self.sources, before, after)

    def prepare(self, data: Sequence[Any]) -> tuple[Any, ...]:
        """What the data determine."""
        return tuple(self.static(*data, *self.indices))

    def constants(self, position: Array, prepared: Sequence[Any]) -> tuple[Any, ...]:
        """The constants, from a whole position and what `prepare` gave."""
        return tuple(self.before(*(source.read(position) for source in self.sources), *prepared))

    def at(self, position: Array, data: Sequence[Any]) -> tuple[Any, ...]:
        """The constants, from a whole position and the data."""
        return self.constants(position, self.prepare(data))

    @property
    def fixed(self) -> tuple[int | None, ...]:
        """For each constant, which result of `prepare` it is, or None."""
        prepared = {var: i for i, var in enumerate(self.before.inputs[len(self.sources) :])}
        return tuple(None if isinstance(out, Literal) else prepared.get(out) for out in self.before.outputs)

    @functools.cached_property
    def shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the constants."""
        count = len(self.after.inputs) - len(self.before.outputs)
        return tuple(jax.ShapeDtypeStruct(*shaped(var)) for var in self.after.inputs[count:])


def _cut_down(
    program: Program, terms: int, coordinates: Mapping[int, IntArray], known: Mapping[int, Any]
) -> tuple[Program, tuple[IntArray, ...]]:
    """The program with every term that is a sum summed only over the elements that depend on some coordinates.

    Args:
        program: whose first outputs are terms.
        terms: how many.
        coordinates: numbers of these, by number of the input.
        known: values of inputs that do not change.

    Returns:
        The program, with further inputs, and their values.
    """
    summed = [i for i in range(terms) if unsummed(program, i) is not program.outputs[i]]
    inner = Program(program.inputs, program.equations, tuple(unsummed(program, i) for i in summed))
    whole_numbers = {i: np.asarray(value) for i, value in known.items() if np.asarray(value).dtype.kind in "biu"}
    numbers = {i: array.reshape(shaped(program.inputs[i])[0]) for i, array in coordinates.items()}
    rows = [np.flatnonzero((found.low >= 0) | found.many) for found in reach(inner, numbers, whole_numbers)]
    wanted = {k: own for k, own in enumerate(rows) if len(own)}
    sliced, indices = slice_rows(inner, wanted, whole_numbers)
    count = len(program.inputs)
    sums = sliced.then(lambda *arrays: [jnp.sum(array) for array in arrays])
    aligned = sums.substitute(dict(enumerate(program.inputs)), (*program.inputs, *sums.inputs[count:]), ())
    (zero,) = Program.trace(lambda: 0.0)[0].outputs
    new = {summed[k]: zero for k in range(len(rows))} | {
        summed[k]: out for k, out in zip(wanted, aligned.outputs, strict=True)
    }
    ends = tuple(new.get(i, out) for i, out in enumerate(program.outputs))
    merged = Program(aligned.inputs, (*program.equations, *aligned.equations), ends)
    return merged.select(range(len(ends))), indices


def _separated(
    program: Program, coordinates: Coordinates, parts: Mapping[str, Part]
) -> tuple[Program, list[Source], dict[str, int], tuple[IntArray, ...]]:
    """The program with an input for each part of the block, and one for what remains of the sites they are parts of.

    Returns:
        The program; where its inputs come from that are no data, which are the first; by label, which of these belong
        to the block; and the values of its last inputs, which are indices.
    """
    dtype = jnp.result_type(float)
    sources: list[Source] = []
    inputs: list[Var] = []
    equations: list[JaxprEqn] = []
    replaced: dict[int, Atom] = {}
    numbers: dict[str, int] = {}
    orders: list[tuple[Var, IntArray]] = []

    def add(var: Var, inside: Part) -> None:
        sources.append(Source(coordinates.positions(inside), coordinates.part_shape(inside)))
        inputs.append(var)

    for i, site in enumerate(coordinates.shapes):
        labels = {label: inside for label, (name, inside) in parts.items() if name == site}
        if all(inside is None for inside in labels.values()):
            numbers |= dict.fromkeys(labels, len(inputs))
            add(program.inputs[i], (site, None))
            continue
        shape = coordinates.shapes[site]
        taken = np.concatenate([np.asarray(inside) for inside in labels.values()])
        rest = np.setdiff1d(np.arange(int(np.prod(shape))), taken)
        stretches = [*labels.values(), *([rest] if len(rest) else [])]
        order = np.argsort(np.concatenate([np.asarray(stretch) for stretch in stretches]))
        arrays = [jax.ShapeDtypeStruct((len(np.asarray(stretch)),), dtype) for stretch in stretches]
        whole, _, _ = Program.trace(functools.partial(_assemble, shape), order, *arrays)
        orders.append((whole.inputs[0], order))
        numbers |= {label: len(inputs) + k for k, label in enumerate(labels)}
        for var, stretch in zip(whole.inputs[1:], stretches, strict=True):
            add(var, (site, stretch))
        equations += whole.equations
        replaced[i] = whole.outputs[0]
    data = program.inputs[len(coordinates.shapes) :]
    arguments = (*inputs, *data, *(var for var, _ in orders))
    return program.substitute(replaced, arguments, equations), sources, numbers, tuple(order for _, order in orders)


def _assemble(shape: tuple[int, ...], order: Array, *stretches: Array) -> Array:
    """The array of a site from its parts."""
    return jnp.concatenate(stretches).at[order].get(mode="promise_in_bounds", unique_indices=True).reshape(shape)
