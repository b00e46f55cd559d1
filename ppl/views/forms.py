"""How results of a program depend on some of its variables: as multiples of a power, affinely, or otherwise.

This is read off the equations and never guessed from numbers. For variables that together hold the elements v₁, v₂, …,
every element of a result is one of

    cᵢ vₖᵏ for one of them             `Monomial`
    bᵢ + Σₖ aᵢₖ vₖ                     `Affine`

with coefficients that do not depend on the variables, or is `Other`, which says the operation that it failed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from ..programs.program import Atom, Program


@dataclass(frozen=True)
class Monomial:
    """Each element is c vᵏ, of one element v of the variables.

    Args:
        exponent: k.
        by: the operation that has brought in the coefficient c; None where c = 1.
    """

    exponent: Fraction = Fraction(1)
    by: str | None = None


@dataclass(frozen=True)
class Affine:
    """Each element is b + Σ aₖ vₖ.

    Args:
        single: whether each element has at most one aₖ that is not zero.
        by: the first operation after which it was no `Monomial`.
    """

    single: bool
    by: str


@dataclass(frozen=True)
class Other:
    """Something else.

    Args:
        by: the first operation after which it was not affine.
    """

    by: str


# None: does not depend on the variables.
Form = Monomial | Affine | Other | None


def forms(program: Program, start: Mapping[Var, Form], *, positive: bool, alone: bool) -> list[Form]:
    """The form of each output of a program.

    Args:
        program: to look through.
        start: the variables, inputs of the program or not, with their forms; what computes them is not looked at.
        positive: whether their values are known to be positive, so that roots of powers are powers.
        alone: whether they hold a single element, so that sums and products of several stay within it.

    Returns:
        A form for each output, None for those that do not depend on the variables.
    """
    walk = _Walk(start, positive, alone)
    for equation in program.equations:
        walk.visit(equation)
    return [walk.form(atom) for atom in program.outputs]


def added(first: Form, second: Form, by: str, *, alone: bool) -> Form:
    """The form of a sum or difference.

    Args:
        first: the form of one summand.
        second: that of the other.
        by: the name of the operation.
        alone: see `forms`.
    """
    if first is None or second is None:
        return _affine(second if first is None else first, by)
    if alone and isinstance(first, Monomial) and isinstance(second, Monomial) and first.exponent == second.exponent:
        return _scaled(first, by)
    widened = [_affine(first, by), _affine(second, by)]
    return _failed(widened) or Affine(alone, _first(widened, by))


class _Walk:
    """Forms of variables, and the values of those that are made of one known number."""

    def __init__(self, start: Mapping[Var, Form], positive: bool, alone: bool) -> None:
        self.forms: dict[Var, Form] = dict(start)
        self.numbers: dict[Var, float] = {}
        self.positive = positive
        self.alone = alone

    def form(self, atom: Atom) -> Form:
        return None if isinstance(atom, Literal) else self.forms.get(atom)

    def number(self, atom: Atom) -> float | None:
        """The number that an array consists of, where it is written in the program."""
        if isinstance(atom, Literal):
            return float(atom.val) if jnp.ndim(atom.val) == 0 else None
        return self.numbers.get(atom)

    def visit(self, equation: JaxprEqn) -> None:
        if any(var in self.forms for var in equation.outvars):
            return
        operands = [self.form(atom) for atom in equation.invars]
        name = equation.primitive.name
        if all(operand is None for operand in operands):
            known = self.number(equation.invars[0]) if name in _COPIES else None
            if known is not None:
                self.numbers[equation.outvars[0]] = known
            return
        rule = _RULES.get(name)
        form: Form = _failed(operands)
        if form is None:
            form = Other(name) if rule is None else rule(self, equation, operands)
        self.forms.update(dict.fromkeys(equation.outvars, form))


Rule = Callable[[_Walk, JaxprEqn, list[Form]], Form]

# Results that hold the same number as their first operand.
_COPIES = frozenset({"broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "copy"})


def _failed(forms: Sequence[Form]) -> Other | None:
    return next((form for form in forms if isinstance(form, Other)), None)


def _first(forms: Sequence[Form], by: str) -> str:
    return next((form.by for form in forms if isinstance(form, Affine)), by)


def _affine(form: Form, by: str) -> Form:
    """The form as an affine one, on account of an operation."""
    if isinstance(form, Monomial):
        return Affine(True, by) if form.exponent == 1 else Other(by)
    return form


def _scaled(form: Form, by: str) -> Form:
    """The form after multiplication with what does not depend on the variables."""
    return Monomial(form.exponent, form.by or by) if isinstance(form, Monomial) else form


def _moved(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    """Each element of the result is one of the first operand; where indices depend, they are no affine ones."""
    return operands[0]


def _gathered(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    """As `_moved`, beside a constant for what is out of bounds."""
    filled = equation.params["mode"] == lax.GatherScatterMode.FILL_OR_DROP and equation.params["fill_value"]
    return _affine(operands[0], "gather") if filled else operands[0]


def _converted(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    floating = jnp.issubdtype(equation.params["new_dtype"], jnp.floating)
    return operands[0] if floating else Other(equation.primitive.name)


def _one_of(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    """Each element of the result is one of an operand's; indices and selectors do not depend."""
    name = equation.primitive.name
    chosen = [operands[i] for i in _CHOSEN.get(name, range(len(operands)))]
    if name == "select_n":
        chosen = operands[1:]
    exponents = {form.exponent if isinstance(form, Monomial) else None for form in chosen}
    if len(exponents) == 1 and None not in exponents:
        return next((form for form in chosen if isinstance(form, Monomial) and form.by), chosen[0])
    widened = [_affine(form, name) for form in chosen if form is not None]
    single = all(isinstance(form, Affine) and form.single for form in widened)
    return _failed(widened) or Affine(single, _first(widened, name))


def _added(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    return added(operands[0], operands[1], equation.primitive.name, alone=walk.alone)


def _summed(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    """Sums of elements of the one operand that depends, times what does not."""
    name = equation.primitive.name
    present = [form for form in operands if form is not None]
    # A sum over elements is at worst a sum of two of them.
    return added(present[0], present[0], name, alone=walk.alone) if len(present) == 1 else Other(name)


def _scatter_added(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    name = equation.primitive.name
    updates = operands[2] and added(operands[2], operands[2], name, alone=walk.alone)
    return added(operands[0], updates, name, alone=walk.alone)


def _solved(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    return _summed(walk, equation, operands) if operands[0] is None else Other(equation.primitive.name)


def _negated(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    return _scaled(operands[0], equation.primitive.name)


def _multiplied(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    name = equation.primitive.name
    first, second = operands
    if first is None or second is None:
        return _scaled(second if first is None else first, name)
    if walk.alone and walk.positive and isinstance(first, Monomial) and isinstance(second, Monomial):
        return Monomial(first.exponent + second.exponent, first.by or second.by)
    return Other(name)


def _divided(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    name = equation.primitive.name
    above, below = operands
    if below is None:
        return _scaled(above, name)
    inverse = _raised(below, Fraction(-1), walk, name)
    return _multiplied(walk, equation, [above, inverse]) if isinstance(inverse, Monomial) else inverse


def _raised(form: Form, exponent: Fraction, walk: _Walk, by: str) -> Form:
    if walk.positive and isinstance(form, Monomial):
        return Monomial(form.exponent * exponent, form.by)
    return Other(form.by if walk.positive and isinstance(form, Affine) else by)


def _power(exponent: Fraction) -> Rule:
    return lambda walk, equation, operands: _raised(operands[0], exponent, walk, equation.primitive.name)


def _integer_power(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    return _raised(operands[0], Fraction(equation.params["y"]), walk, equation.primitive.name)


def _real_power(walk: _Walk, equation: JaxprEqn, operands: list[Form]) -> Form:
    number = walk.number(equation.invars[1])
    if operands[1] is not None or number is None:
        return Other(equation.primitive.name)
    return _raised(operands[0], Fraction(number), walk, equation.primitive.name)


# Which operands the elements of a result are taken from, where it is not all of them.
_CHOSEN: dict[str, tuple[int, ...]] = {"dynamic_update_slice": (0, 1), "scatter": (0, 2)}

_MOVES = (
    *("broadcast_in_dim", "copy", "dynamic_slice", "reshape", "rev", "slice", "split", "squeeze", "tile"),
    *("transpose", "unstack"),
)
_SUMS = ("conv_general_dilated", "cumsum", "dot_general", "reduce_sum", "reduce_window_sum")

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVES, _moved),
    "gather": _gathered,
    "convert_element_type": _converted,
    **dict.fromkeys(("concatenate", "dynamic_update_slice", "pad", "scatter", "select_n", "stack"), _one_of),
    **dict.fromkeys(("add", "add_any", "sub"), _added),
    "scatter-add": _scatter_added,
    **dict.fromkeys(_SUMS, _summed),
    "triangular_solve": _solved,
    "neg": _negated,
    "mul": _multiplied,
    "div": _divided,
    "integer_pow": _integer_power,
    "pow": _real_power,
    "sqrt": _power(Fraction(1, 2)),
    "rsqrt": _power(Fraction(-1, 2)),
    "cbrt": _power(Fraction(1, 3)),
    "square": _power(Fraction(2)),
    "abs": _power(Fraction(1)),
}
