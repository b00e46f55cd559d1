"""Distributions and supports in writing, their parameters by the names of the sites that they come from.

While a model is traced, each is written as a template, and the arrays in it are collected; what they are is read off
the traced program afterwards: a site, an entry of one, a function of several, or a number.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn, Literal, Var
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, constraints

from ...ad.equations import shaped
from ..programs.program import Atom
from ..transforms import describe

# Takes an array of the traced model and gives the placeholder that stands for it.
Note = Callable[[Any], str]
# From a variable of a program to the sites that its value depends on directly.
Reach = Mapping[Var, frozenset[str]]

# The same numbers in another shape or dtype.
_SAME = frozenset({"broadcast_in_dim", "reshape", "convert_element_type", "squeeze", "expand_dims", "copy"})
_ENTRIES = frozenset({"gather", "slice", "dynamic_slice"})
# More sites than these in one place are written as the first two.
_FEW = 3


def write_distribution(distribution: Distribution, note: Note) -> str:
    """A distribution as a call with its parameters, in the order of its constructor."""
    name = describe(distribution)
    while isinstance(distribution, (ExpandedDistribution, Independent)):
        distribution = distribution.base_dist
    written, gap = [], ""
    for parameter in inspect.signature(type(distribution)).parameters:
        value = vars(distribution).get(parameter, vars(distribution).get(f"_{parameter}"))
        text = _argument(value, note)
        if text:
            written.append(f"{gap and f'{parameter}='}{text}")
        else:
            gap = parameter
    return f"{name}({', '.join(written)})" if written else name


def write_support(support: Any, note: Note) -> str:
    """A support by the name that `numpyro.distributions.constraints` gives it, with its bounds if it has any."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    name = _names_of_constraints().get(type(support)) or _snake(type(support).__name__)
    bounds = [_argument(leaf, note) for leaf in jax.tree.leaves(support)]
    return f"{name}({', '.join(bounds)})" if bounds else name


def write_atom(
    atom: Atom,
    producers: Mapping[Var, JaxprEqn],
    names: Mapping[Var, str],
    reach: Reach,
    known: Mapping[Var, Any],
) -> str:
    """What a value of a traced program is: a number, a site, entries of a site, or a function of sites.

    Args:
        atom: the value.
        producers: the equations that compute it and all others.
        names: of the values that have one.
        reach: of every variable.
        known: values of inputs that are constants.
    """

    def source(atom: Atom) -> Atom:
        """The value behind changes of shape and dtype."""
        while not isinstance(atom, Literal) and atom not in names:
            equation = producers.get(atom)
            if equation is None or equation.primitive.name not in _SAME:
                break
            atom = equation.invars[0]
        return atom

    behind = source(atom)
    if isinstance(behind, Literal):
        return number(behind.val)
    if behind in names:
        return names[behind]
    if behind in known:
        return number(known[behind])
    equation = producers.get(behind)
    if equation is not None and equation.primitive.name in _ENTRIES:
        whole = source(equation.invars[0])
        if not isinstance(whole, Literal) and whole in names:
            indices = [reach[index] for index in equation.invars[1:] if not isinstance(index, Literal)]
            return f"{names[whole]}[{_some(sorted(frozenset().union(*indices))) or '…'}]"
    sites = sorted(reach[behind])
    return f"f({_some(sites)})" if sites else ("[…]" if shaped(behind)[0] else "…")


def number(value: Any) -> str:
    """A number; an array as the number in all its entries, or as […]."""
    entries = np.unique(np.asarray(value))
    return f"{entries[0]:.4g}" if entries.size == 1 and entries.dtype.kind in "iuf" else "[…]"


def _argument(value: Any, note: Note) -> str:
    """Empty for what is no parameter."""
    if isinstance(value, Distribution):
        return write_distribution(value, note)
    if isinstance(value, (list, tuple)):
        written = [_argument(part, note) for part in value if isinstance(part, Distribution)]
        return f"[{_some(written)}]" if written else ""
    if isinstance(value, jax.core.Tracer):
        return note(value)
    if isinstance(value, (int, float, np.ndarray, np.generic, jax.Array)) and not isinstance(value, bool):
        return number(value)
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= _FEW else [*names[:2], "…"])


@functools.cache
def _names_of_constraints() -> dict[type, str]:
    """By class; of instances such as `positive` and of classes such as `interval`."""
    public = {name: value for name, value in vars(constraints).items() if not name.startswith("_") and name.islower()}
    return {
        (value if isinstance(value, type) else type(value)): name
        for name, value in public.items()
        if isinstance(value, constraints.Constraint)
        or (isinstance(value, type) and issubclass(value, constraints.Constraint))
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.lstrip("_")).lower()
