"""The sites of a model in a table."""

from __future__ import annotations

import enum
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..interpreter import Dims, Plate
from ..interpreters import discover
from ..model import BoundModel
from ..trace import Trace
from .dependence import Dependence, dependence, factors_of

_COLUMNS = ("site", "kind", "distribution", "support", "shape", "dims", "parameters")
_NUMBERS = frozenset({"parameters"})
# A longer entry of the table is cut, with an ellipsis.
_LONG = 48


class Kind(enum.Enum):
    """What a name stands for in a model."""

    LATENT = "latent"
    MARGINALIZED = "summed out"
    OBSERVED = "observed"
    FIXED = "fixed"
    DETERMINISTIC = "deterministic"
    FACTOR = "factor"


@dataclass(frozen=True)
class SiteSummary:
    """What is known of one name in a model before anything is drawn.

    Args:
        name: of the site, deterministic or factor.
        kind: what it is.
        distribution: in writing, `Normal(mu, tau)`, where `f(a, b)` is some function of other sites and `[…]` an array
            that none determines; the family alone is `family`. Empty for what has none.
        support: of the distribution, by its name in `numpyro.distributions.constraints`; empty where there is none.
        shape: of the value.
        dims: names of its dimensions, or None where nothing is known of them.
        discrete: whether it is latent or observed with discrete values.
        size: how many numbers it has: a latent site coordinates in unconstrained space, an observed one data, those
            that are missing not counted; else 0.
        parents: on whose values its distribution, or its value, depends directly.
        plates: around it, from the outermost.
    """

    name: str
    kind: Kind
    distribution: str
    support: str
    shape: tuple[int, ...]
    dims: Dims
    discrete: bool
    size: int
    parents: tuple[str, ...]
    plates: tuple[str, ...]

    @property
    def family(self) -> str:
        """The name of its distribution."""
        return self.distribution.partition("(")[0]


@dataclass(frozen=True, repr=False)
class ModelSummary:
    """The sites of a model; `print` shows a table, and so does a notebook.

    Args:
        model: its name.
        sites: latent sites first, then the observed and the fixed, deterministics and factors.
        plates: in the order in which they are opened.
        note: what could not be seen, or empty.
    """

    model: str
    sites: tuple[SiteSummary, ...]
    plates: tuple[Plate, ...]
    note: str = ""

    def __getitem__(self, name: str) -> SiteSummary:
        """The site of a name.

        Raises:
            KeyError: naming those that there are.
        """
        for site in self.sites:
            if site.name == name:
                return site
        known = ", ".join(f"'{site.name}'" for site in self.sites)
        raise KeyError(f"summary: model '{self.model}' has no site '{name}'; it has {known or 'none'}.")

    @property
    def parameters(self) -> int:
        """How many unconstrained parameters the model has: coordinates of its continuous latent sites."""
        return sum(site.size for site in self.sites if site.kind is Kind.LATENT and not site.discrete)

    @property
    def discrete(self) -> int:
        """How many discrete coordinates it has: entries of its discrete latent sites."""
        return sum(site.size for site in self.sites if site.kind is Kind.LATENT and site.discrete)

    @property
    def observed(self) -> int:
        """How many numbers are observed, those that are missing not counted."""
        return sum(site.size for site in self.sites if site.kind is Kind.OBSERVED)

    def __str__(self) -> str:
        rows = [_COLUMNS, *(tuple(map(_cut, _row(site))) for site in self.sites)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = zip(_COLUMNS, row, widths, strict=True)
            lines.append("  ".join(f"{c:>{w}}" if name in _NUMBERS else f"{c:<{w}}" for name, c, w in cells).rstrip())
        lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([f"{self.model}: {self._totals}", "", *lines, *self._remarks])

    def __repr__(self) -> str:
        """One line: a console shows it after what `summary` has printed."""
        return f"<summary of {self.model}: {self._totals}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in _row(site)) for site in self.sites]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        remarks = "".join(f"<p>{html.escape(remark)}</p>" for remark in self._remarks if remark)
        title = f"<p><b>{html.escape(self.model)}</b>: {self._totals}</p>"
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{remarks}"

    @property
    def _totals(self) -> str:
        counts = [
            _count(self.parameters, "unconstrained parameter"),
            *([_count(self.discrete, "discrete coordinate")] if self.discrete else []),
            _count(self.observed, "observed number"),
        ]
        return ", ".join(counts)

    @property
    def _remarks(self) -> list[str]:
        plates = ", ".join(f"{plate.name} ({plate.size})" for plate in self.plates)
        remarks = [*([f"plates: {plates}"] if plates else []), *([f"note: {self.note}."] if self.note else [])]
        return ["", *remarks] if remarks else []


def summarize(model: BoundModel) -> ModelSummary:
    """What a model declares, found without drawing or compiling anything.

    Args:
        model: with data bound.

    Returns:
        Its sites with their distributions, shapes and direct parents, and its plates.

    Raises:
        ValueError, TypeError: where the model cannot be sampled either: on a repeated name, or a shape that does not
            fit.

    Example:
        `summarize(gdemo(1.5, 2.0))["m"].parents == ("s",)`
    """
    with jax.enable_x64(True):
        # Somebody has to look at the data, for what the model computes of them to be computed.
        found = discover(model, lambda *_: None)
        known = dependence(model, found)
    sites = [
        _of(name, found, known) for name in (*found.sites, *found.fixed, *found.deterministics, *factors_of(found))
    ]
    order = list(Kind)
    sites.sort(key=lambda site: order.index(site.kind))
    return ModelSummary(model.name, tuple(sites), tuple(found.plates.values()), known.note)


def _of(name: str, found: Trace, known: Dependence) -> SiteSummary:
    size, discrete, family = 0, False, ""
    shape: tuple[int, ...] = ()
    dims: Dims = None
    if name in found.sites:
        site = found.sites[name]
        shape, dims, discrete, family = site.shape, site.dims, site.discrete, site.family
        kind = Kind.MARGINALIZED if name in found.marginalized else Kind.LATENT if site.is_latent else Kind.OBSERVED
        size = {Kind.LATENT: math.prod(site.unconstrained_shape), Kind.OBSERVED: _known(site.obs)}.get(kind, 0)
    elif name in found.fixed:
        kind, (value, dims) = Kind.FIXED, found.fixed[name]
        shape = np.shape(value)
    elif name in found.deterministics:
        kind, (value, dims) = Kind.DETERMINISTIC, found.deterministics[name]
        shape = np.shape(value)
    else:
        kind = Kind.FACTOR
    return SiteSummary(
        name=name,
        kind=kind,
        distribution=known.distributions.get(name, family),
        support=known.supports.get(name, ""),
        shape=shape,
        dims=dims,
        discrete=discrete,
        size=size,
        parents=known.parents[name],
        plates=tuple(dim for dim in dims or () if dim in found.plates),
    )


def _known(obs: Any) -> int:
    """How many of the observed values are known."""
    if obs is None or isinstance(obs, jax.core.Tracer):
        return 0 if obs is None else math.prod(obs.shape)
    array = np.asarray(obs)
    return int(array.size - np.isnan(array).sum()) if array.dtype.kind == "f" else array.size


def _row(site: SiteSummary) -> Sequence[str]:
    kind = f"{site.kind.value}, discrete" if site.discrete else site.kind.value
    shape = "" if site.kind is Kind.FACTOR else "×".join(map(str, site.shape)) or "scalar"
    parameters = "" if site.kind is not Kind.LATENT or site.discrete else str(site.size)
    what = site.distribution or (f"f({', '.join(site.parents)})" if site.parents else "")
    return site.name, kind, what, site.support, shape, ", ".join(site.dims or ()), parameters


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
