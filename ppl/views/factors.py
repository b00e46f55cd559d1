"""The terms of a block's density as distributions of sites: what a conjugate update is recognised from."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend.core import Var
from numpyro.distributions import Distribution

from ...ad.equations import shaped
from ..blocks.coordinates import Array
from ..blocks.density import AbstractBlockDensity
from ..programs.program import Program
from .forms import Form
from .templates import Template


@dataclass(frozen=True)
class Factor:
    """The density of a site in a block's program.

    Args:
        name: of the site; for messages, so that what differs in names alone is equal.
        template: of its distribution, whose leaves are results of the program.
        value: which result of the program is the value of the site, constrained.
    """

    name: str = field(compare=False)
    template: Template
    value: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """The results of the program that it is made of."""
        return (self.value, *self.template.outputs)

    def distribution(self, results: Mapping[int, Any] | Sequence[Any]) -> Distribution:
        """The distribution, from results of the program by number."""
        return self.template.fill([results[i] for i in self.template.outputs])


@dataclass(frozen=True)
class Factors:
    """The terms of a block.

    Args:
        program: of the block, from its arrays and the constants.
        terms: names of its first results, the terms of the block's density.
        labels: of the block's parts, as its arrays come first in the program.
        own: the sites that they are parts of.
        known: all sites that have a term here and whose distribution is known, by name.
    """

    program: Program
    terms: tuple[str, ...]
    labels: tuple[str, ...]
    own: tuple[str, ...]
    known: Mapping[str, Factor]

    @property
    def title(self) -> str:
        """The block in messages."""
        return quoted(self.labels)

    @property
    def variables(self) -> tuple[Var, ...]:
        """The arrays of the block in the program."""
        return self.program.inputs[: len(self.labels)]

    def children(self, found: Sequence[Form]) -> list[Factor]:
        """The sites outside of the block whose terms depend on it.

        Args:
            found: how each result of the program depends on the block; see `forms`.

        Raises:
            ValueError: where another term than that of a site's distribution does.
        """
        children = []
        for term, form in zip(self.terms, found, strict=False):
            site = term.removeprefix("log|J| ")
            if form is None or site in self.own:
                continue
            if term in self.known:
                children.append(self.known[term])
            elif site != term:
                raise self.refused(f"the support of '{site}' depends on {self.title}")
            else:
                raise self.refused(
                    f"{self.title} also enters '{term}', which is a factor or has a distribution not made of arrays"
                )
        return children

    def refused(self, reason: str) -> ValueError:
        """The error that there is no conjugate update."""
        return refused(self.title, reason)


def refused(title: str, reason: str) -> ValueError:
    """The error that there is no conjugate update of a block."""
    return ValueError(
        f"Conjugate: {reason}; use NUTS() for {title}, or Conditional(fn) where you know its conditional."
    )


def quoted(names: Iterable[str]) -> str:
    """Names in messages."""
    return ", ".join(f"'{name}'" for name in names)


def size_of(variable: Var) -> int:
    """How many elements an array of a program has."""
    return math.prod(shaped(variable)[0])


class AbstractUpdate(abc.ABC):
    """An exact draw of a block, given the constants of its density; equal only to an update that does the same."""

    @abc.abstractmethod
    def draw(self, key: Array, density: AbstractBlockDensity, constants: Sequence[Any]) -> Array:
        """A position of the block drawn from its density, shape (dimension,)."""
