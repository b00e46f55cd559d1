"""The values of a program while it runs with fences, and those ahead that a mask asks for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from ..adtypes import Array
from ..equations import bind
from .facts import moves
from .masks import Condition, Mask, unfolded


class Values:
    """The values of a program while it runs, and those ahead that a mask asks for."""

    def __init__(self, equations: Sequence[Any], defined: dict[Any, int]) -> None:
        self.equations, self.defined = equations, defined
        self.known: dict[Any, Any] = {}
        self.ahead: dict[Any, Any] = {}
        self.conditions: dict[Condition, Any] = {}

    def read(self, atom: Any) -> Any:
        """The value of a variable or literal."""
        return atom.val if isinstance(atom, Literal) else self.known[atom]

    def fence(self, value: Any, mask: Mask) -> Any:
        """The value, without influence where the mask is false; broadcast to the shape of the mask."""
        where = self.mask(mask)
        value = jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), where.shape))
        return lax.select_n(where, lax.stop_gradient(value), value)

    def mask(self, mask: Mask) -> Array:
        """The elements of a mask, as booleans."""
        for condition in unfolded(mask):
            if condition not in self.conditions:
                self._look_ahead([part for part in condition.parts if not isinstance(part, (frozenset, Literal))])
                self.conditions[condition] = condition.compute(*(self._part(part) for part in condition.parts))
        return self._all(mask)

    def _all(self, mask: Mask) -> Array:
        both: Array = functools.reduce(jnp.logical_and, [self.conditions[condition] for condition in mask])
        return both

    def _part(self, part: Any) -> Any:
        if isinstance(part, frozenset):
            return self._all(part)
        if isinstance(part, Literal):
            return part.val
        return self._settled(part)

    def _settled(self, var: Any) -> Any:
        value = self.known[var] if var in self.known else self.ahead[var]
        return lax.stop_gradient(value) if hasattr(var, "aval") and moves(var) else value

    def _look_ahead(self, variables: list[Any]) -> None:
        """Evaluate what some variables depend on and has not been reached yet; its derivative is not wanted."""
        wanted: set[int] = set()
        stack = list(variables)
        while stack:
            var = stack.pop()
            if isinstance(var, Literal) or var in self.known or var in self.ahead or self.defined[var] in wanted:
                continue
            wanted.add(self.defined[var])
            stack += self.equations[self.defined[var]].invars
        for k in sorted(wanted):
            equation = self.equations[k]
            self.ahead.update(
                zip(equation.outvars, bind(equation, [self._part(a) for a in equation.invars]), strict=True)
            )
