"""Terms of a model before they are summed: the elements that depend on some sites, and the sum of the others."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var

from ...ad.equations import shaped
from ..programs.program import Atom, Program
from ..programs.reach import reach
from ..programs.slicing import slice_rows
from .factors import quoted

if TYPE_CHECKING:
    from ..log_density import ModelDensity

IntArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Elements:
    """The elements of the terms that depend on some sites.

    Args:
        program: from the inputs of the model's program, followed by `indices`, to arrays of elements; and for each of
            `partial` the sum of its elements that do not depend on the sites.
        terms: for each of these arrays, the term that it is of.
        partial: names of the terms of which some elements do not depend on the sites.
        indices: which elements of arrays are meant.
        known: values of the inputs of the program that are whole numbers and do not change.
        coordinates: numbers of the coordinates of the sites, by number of the input.
        sites: by number of the input, their names.
    """

    program: Program
    terms: tuple[str, ...]
    partial: tuple[str, ...]
    indices: tuple[IntArray, ...]
    known: Mapping[int, IntArray]
    coordinates: Mapping[int, IntArray]
    sites: Mapping[int, str]

    @classmethod
    def of(cls, density: ModelDensity, moving: Sequence[int]) -> Elements:
        """Of the sites with these numbers."""
        program = density.program
        inputs = len(program.inputs)
        own = [(term, atom) for term, i in density.terms.items() for atom in _summands(program, i)]
        every = Program(program.inputs, program.equations, tuple(atom for _, atom in own))
        inside = [k for k, found in enumerate(every.dependencies()) if found & set(moving)]
        terms = [own[k][0] for k in inside]
        known = _whole_numbers(dict(enumerate(density.data, len(density.sites))))
        coordinates = dict(zip(moving, numbered([shaped(program.inputs[i])[0] for i in moving]), strict=True))
        # A number is one element, so that nothing of it can be left.
        large = [k for k in inside if np.prod(shaped(own[k][1])[0], dtype=int) > 1]
        depends = {
            k: (found.low.ravel() >= 0) | found.many.ravel()
            for k, found in zip(large, reach(every.select(large), coordinates, known), strict=True)
        }
        mixed = [k for k, found in depends.items() if not found.all()]
        cut_down = [k for k in mixed if depends[k].any()]
        cut, of_cut = slice_rows(every, {k: np.flatnonzero(depends[k]) for k in cut_down}, known)
        rest, of_rest = slice_rows(every, {k: np.flatnonzero(~depends[k]) for k in mixed}, known)
        plain, apart = [k for k in inside if k not in mixed], [k for k in range(len(own)) if k not in inside]
        # By term, what is left of it: numbers of `own`.
        left: dict[str, list[int]] = {}
        for k in sorted((*mixed, *apart)):
            if own[k][0] in terms:
                left.setdefault(own[k][0], []).append(k)
        whole, others = every.select(plain), every.select(apart)

        def run(*arguments: Any) -> list[Any]:
            first, more = arguments[:inputs], arguments[inputs:]
            found = dict(zip(apart, others(*first), strict=True))
            found |= zip(mixed, rest(*first, *more[len(of_cut) :]), strict=True)
            totals = [functools.reduce(jnp.add, [jnp.sum(found[k]) for k in places]) for places in left.values()]
            return [*whole(*first), *cut(*first, *more[: len(of_cut)]), *totals]

        indices = (*of_cut, *of_rest)
        shapes = [jax.ShapeDtypeStruct(*shaped(var)) for var in program.inputs]
        shapes += [jax.ShapeDtypeStruct(index.shape, index.dtype) for index in indices]
        joined, more, _ = Program.trace(run, *shapes) if left else (whole, (), None)
        if more:
            joined = Program(
                (*joined.inputs[len(more) :], *joined.inputs[: len(more)]), joined.equations, joined.outputs
            )
            indices = (*indices, *(np.asarray(array) for array in more))
        known = known | _whole_numbers(dict(enumerate(indices, inputs)))
        of = tuple(own[k][0] for k in (*plain, *cut_down))
        names_of_sites = {i: density.sites[i] for i in moving}
        return cls(joined, of, tuple(left), indices, known, coordinates, names_of_sites)

    @property
    def inside(self) -> Program:
        """The program for the elements that depend on the sites."""
        return self.program.select(range(len(self.terms)))

    def outside(self, moving: Sequence[int]) -> Program:
        """The program for the sums of the others, without the inputs of the sites."""
        rest = self.program.select(range(len(self.terms), len(self.program.outputs)))
        others = [var for i, var in enumerate(rest.inputs) if i not in moving]
        # Where an operation is not understood the sites are read and make no difference: any value will do.
        shapes = [shaped(var) for var in rest.inputs]

        def run(*arguments: Any) -> list[Any]:
            given = iter(arguments)
            return rest(*(jnp.zeros(*shapes[i]) if i in moving else next(given) for i in range(len(shapes))))

        return Program.trace(run, *(jax.ShapeDtypeStruct(*shaped(var)) for var in others))[0]

    def entangled(self) -> str:
        """Which term ties together more than two coordinates, in words."""
        for term, found, depends in zip(
            self.terms, reach(self.inside, self.coordinates, self.known), self.inside.dependencies(), strict=True
        ):
            if found.many.any():
                sites = quoted(name for i, name in self.sites.items() if i in depends)
                return f"an element of the term '{term}' depends on more than two entries of {sites}"
        return "a term depends on more than two entries"


def numbered(shapes: Sequence[tuple[int, ...]]) -> list[IntArray]:
    """Arrays of these shapes with successive numbers."""
    stops = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [np.arange(b - np.prod(s, dtype=int), b).reshape(s) for s, b in zip(shapes, stops, strict=True)]


def _whole_numbers(values: Mapping[int, Any]) -> dict[int, IntArray]:
    """Those of some arrays that are known and of whole numbers."""
    arrays = {i: np.asarray(value) for i, value in values.items() if not isinstance(value, jax.core.Tracer)}
    return {i: array for i, array in arrays.items() if array.dtype.kind in "biu"}


def _summands(program: Program, output: int) -> list[Atom]:
    """What an output (by number) is the sum of, over all axes: arrays, or numbers."""
    sources = {var: equation for equation in program.equations for var in equation.outvars}
    found: list[Atom] = []
    left: list[Atom] = [program.outputs[output]]
    while left:
        atom = left.pop()
        equation = None if isinstance(atom, Literal) or shaped(atom)[0] else sources.get(atom)
        name = equation.primitive.name if equation is not None else ""
        operands: list[Any] = list(equation.invars) if equation is not None else []
        if name in ("add", "add_any"):
            left += reversed(operands)
        elif name in ("copy", "copy_p") or (name == "convert_element_type" and _is_real(operands[0])):
            left += operands
        elif name == "reduce_sum" and _is_real(operands[0]):
            (left if not shaped(operands[0])[0] else found).append(operands[0])
        else:
            found.append(atom)
    return found


def _is_real(atom: Atom) -> bool:
    return np.dtype(shaped(atom)[1]).kind == "f" and isinstance(atom, (Var, Literal))
