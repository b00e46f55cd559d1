"""Blocks whose conditional is of a known family, recognised from the traced model and drawn from exactly.

Which sites depend on the block, and how, is read off the equations of the program (`forms`), never from numbers. Normal
sites are updated by linear least squares (`gaussian`), the others by counting (`families`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpyro.distributions import Distribution

from ..blocks.coordinates import Array, IntArray, Part
from ..blocks.density import AbstractBlockDensity, programs_of, terms_of
from ..programs.program import Program
from ..transforms import describe
from .factors import AbstractUpdate, Factor, Factors, quoted, refused
from .families import FAMILIES, counting
from .gaussian import NORMAL, least_squares
from .priors import innermost, known_distribution

if TYPE_CHECKING:
    from ..log_density import ModelDensity


@dataclass(frozen=True)
class ConjugateDensity(AbstractBlockDensity):
    """The density of a block that can be drawn from exactly.

    Args:
        update: how.
    """

    update: AbstractUpdate

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return self.update

    def draw(self, key: Array, *constants: Any) -> Array:
        """A position drawn from the density, shape (dimension,)."""
        return self.update.draw(key, self, constants)


def conjugate(whole: ModelDensity, parts: Mapping[str, Part]) -> ConjugateDensity:
    """A block whose conditional is of the family of its prior.

    Args:
        whole: the model.
        parts: of the block: Normal sites, or one of another family.

    Raises:
        ValueError: naming the site, the child and the reason, where the conditional is not of a known family.
    """
    own = tuple(dict.fromkeys(site for site, _ in parts.values()))
    for label, (site, inside) in parts.items():
        prior = innermost(known_distribution(whole, label, site))
        _check_prior(whole, tuple(parts), label, site, prior)
        if prior.event_shape and inside is not None and type(prior) not in NORMAL:
            _check_rows(whole, label, site, inside)
    named = [term for term in dict.fromkeys((*own, *terms_of(whole, parts))) if term in whole.distributions]
    # The unconstrained array of the first site, whole even where the block is a part of it, as a further result.
    program = whole.program
    extended = Program(program.inputs, program.equations, (*program.outputs, program.inputs[whole.sites.index(own[0])]))
    extra = [i for site in named for i in (whole.values[site], *whole.distributions[site].outputs)]
    pieces = programs_of(dataclasses.replace(whole, program=extended), parts, [*extra, len(program.outputs)])
    *_, given, terms = pieces
    known, first = {}, len(terms)
    for site in named:
        known[site] = Factor(site, whole.distributions[site].shifted(first + 1), first)
        first += len(known[site].outputs)
    block = Factors(given.after, terms, tuple(parts), own, known)
    normal = type(innermost(known_distribution(whole, own[0], own[0]))) in NORMAL
    return ConjugateDensity(*pieces, least_squares(block) if normal else counting(block, first))


def _check_prior(whole: ModelDensity, labels: tuple[str, ...], label: str, site: str, prior: Distribution) -> None:
    if type(prior) in NORMAL:
        return
    if type(prior) not in FAMILIES:
        if site in whole.discrete:
            raise ValueError(f"Conjugate: '{label}' is {describe(prior)}, a discrete one; use DiscreteGibbs() for it.")
        known = ", ".join(sorted(kind.__name__ for kind in (*NORMAL, *FAMILIES)))
        raise refused(
            f"'{label}'", f"'{label}' is {describe(prior)}, and priors with a known conjugate update are {known}"
        )
    if len(labels) > 1:
        raise refused(
            quoted(labels),
            f"of a block of several sites all must be Normal, and '{label}' is {describe(prior)}; give each its own",
        )


def _check_rows(whole: ModelDensity, label: str, site: str, inside: IntArray) -> None:
    """Whether a part of a site of simplices consists of whole simplices."""
    length = whole.coordinates.shapes[site][-1]
    if np.any(np.bincount(inside // length)[np.unique(inside // length)] != length):
        raise refused(f"'{label}'", f"'{label}' holds a part of a simplex of '{site}'; give each simplex to one block")
