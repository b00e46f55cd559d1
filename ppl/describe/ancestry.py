"""Which names each value of a program depends on directly: the first ones on the way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jax.extend.core import JaxprEqn, Literal, Var

from ...ad.equations import scan_operands
from ..programs.program import Atom, Program

Names = frozenset[str]

# Marks the names of what an earlier step of a loop has computed.
_EARLIER = "\0"
_NOTHING: Names = frozenset()


@dataclass(frozen=True)
class Ancestry:
    """What the values of a program depend on directly.

    Args:
        names: of the variables that have one.
        reach: of every variable, the names that what is computed from it depends on: its own, if it has one.
        sources: of every variable, the names that it depends on itself.
        terms, values: where the program has them, by name.
    """

    names: dict[Var, str]
    reach: dict[Var, Names]
    sources: dict[Var, Names]
    terms: dict[str, Atom]
    values: dict[str, Atom]

    @classmethod
    def of(cls, program: Program, inputs: Iterable[str], terms: Iterable[str], values: Iterable[str]) -> Ancestry:
        """Read a program.

        Args:
            program: to be read.
            inputs: names of its last inputs.
            terms: names of its first outputs.
            values: names of those that follow. An input of the same name is what such a value is computed from.
        """
        inputs, terms, values = tuple(inputs), tuple(terms), tuple(values)
        own = program.inputs[len(program.inputs) - len(inputs) :]
        computed = dict(zip(values, program.outputs[len(terms) :], strict=False))
        names = {var: name for var, name in zip(own, inputs, strict=True) if name not in computed}
        for name, atom in computed.items():
            if not isinstance(atom, Literal):
                names.setdefault(atom, name)
        reach = dict.fromkeys(program.inputs, _NOTHING)
        reach |= {var: frozenset({name}) for var, name in zip(own, inputs, strict=True)}
        sources = dict(reach)
        _follow(program.equations, names, reach, sources)
        return cls(names, reach, sources, dict(zip(terms, program.outputs, strict=False)), computed)

    def of_term(self, name: str) -> Names:
        """What a term depends on, but for the value that it is the term of."""
        return self._without(name, _reached(self.reach, self.terms.get(name)))

    def of_value(self, name: str) -> Names:
        """What a value is computed from."""
        atom = self.values.get(name)
        own = not isinstance(atom, Literal) and atom is not None and self.names.get(atom) == name
        return self._without(name, _reached(self.sources if own else self.reach, atom))

    def _without(self, name: str, reached: Names) -> Names:
        """Of an earlier step of a loop also the value itself."""
        return frozenset(other.removesuffix(_EARLIER) for other in reached if other != name)


def _reached(where: Mapping[Var, Names], atom: Atom | None) -> Names:
    return _NOTHING if atom is None or isinstance(atom, Literal) else where[atom]


def _follow(
    equations: Sequence[JaxprEqn], names: Mapping[Var, str], reach: dict[Var, Names], sources: dict[Var, Names]
) -> None:
    """Carry names through equations, from `reach` of what they start with."""
    for equation in equations:
        operands = [_reached(reach, atom) for atom in equation.invars]
        if equation.primitive.name == "scan":
            results = _through_loop(equation, names, operands)
        else:
            results = [_NOTHING.union(*operands)] * len(equation.outvars)
        for out, found in zip(equation.outvars, results, strict=True):
            sources[out] = found
            reach[out] = frozenset({names[out]}) if out in names else found


def _through_loop(equation: JaxprEqn, outside: Mapping[Var, str], operands: Sequence[Names]) -> list[Names]:
    """What the results of a `lax.scan` depend on, step by step.

    What a step computes under a name, and the loop collects, is what the rest of the step depends on; through the carry
    the next step depends on it as something earlier.
    """
    body = equation.params["jaxpr"].jaxpr
    constants, carried = scan_operands(equation)
    names: dict[Var, str] = {}
    for out, inner in zip(equation.outvars[carried:], body.outvars[carried:], strict=True):
        if out in outside and not isinstance(inner, Literal):
            names.setdefault(inner, outside[out])
    carry = list(operands[constants : constants + carried])
    # What has an entry for every step.
    inside = _NOTHING.union(names.values(), *operands[constants + carried :])
    while True:
        entering = [*operands[:constants], *carry, *operands[constants + carried :]]
        reach = dict.fromkeys(body.constvars, _NOTHING) | dict(zip(body.invars, entering, strict=True))
        reach |= {var: frozenset({names[var]}) for var in body.invars if var in names}
        sources = dict(reach)
        _follow(body.eqns, names, reach, sources)
        leaving = [_reached(reach, atom) for atom in body.outvars[:carried]]
        later = [
            before | {f"{name}{_EARLIER}" if name in inside else name for name in after}
            for before, after in zip(carry, leaving, strict=True)
        ]
        if later == carry:
            break
        carry = later
    found = [
        _reached(reach if isinstance(inner, Literal) or names.get(inner) != outside.get(out) else sources, inner)
        for out, inner in zip(equation.outvars[carried:], body.outvars[carried:], strict=True)
    ]
    return [*(frozenset(name.removesuffix(_EARLIER) for name in last) for last in leaving), *found]
