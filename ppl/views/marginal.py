"""Models without some of their discrete sites, which are summed out exactly.

    p(θ, y) = Σ_z p(z, θ, y)

The terms of the traced model are taken apart into elements. Elements that depend on no coordinate of the sites stay as
they are. Where no element depends on two coordinates, the sum is a product over coordinates; where elements tie
coordinates together in pairs without a circle, as in a chain, it is done by elimination (`forests`). Everything else is
refused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ...ad.equations import shaped
from ...ad.rules import logaddexp
from ...samplers.random import chain_key, fold_in, jax_key
from ..blocks.coordinates import Array, Coordinates
from ..programs.broadcasting import Spread, evaluate_sparingly
from ..programs.cones import merged
from ..programs.program import Program
from ..programs.reach import reach
from ..programs.stacking import stacked, with_rows
from .elements import Elements, numbered
from .factors import quoted
from .forests import CircleError, Forest, logsumexp
from .potentials import Potentials, Rows, Sums, edges_of, sums_of_pairs
from .supports import UnlistedValuesError, listed_values
from .templates import number

if TYPE_CHECKING:
    from ..log_density import TracedModel

IntArray = np.ndarray[Any, Any]
HostArray = np.ndarray[Any, Any]

# More numbers than these are not put into tables of weights: 800 MB.
_MOST_NUMBERS = 100_000_000


@dataclass(frozen=True)
class Marginal:
    """The sum over all values of discrete sites, as a function of the other inputs of the model's program.

    Args:
        sites: their names.
        order: where the coordinates of the sites, in row-major order and one site after the other, stand here.
        constants: from the other inputs, followed by `indices`, to the constants of `potentials`.
        indices: which elements of arrays are meant.
        potentials: the weights of values.
        forest: which coordinates are tied together.
        free: from the same arguments to what is left of terms that depend on the sites in part only.
        partial: the names of these terms.
    """

    sites: tuple[str, ...]
    order: IntArray
    constants: Program
    indices: tuple[IntArray, ...]
    potentials: Potentials
    forest: Forest
    free: Program
    partial: tuple[str, ...]

    def log_sums(self, *others: Any) -> Array:
        """For each tree of coordinates, the logarithm of the sum over all its values; shape (trees,)."""
        alone, pairs = self._weights(others)
        if not self.forest.is_edgeless:
            return self.forest.log_sums(jnp.asarray(alone), pairs)
        total: Array = functools.reduce(logaddexp, alone) if isinstance(alone, list) else logsumexp(alone, 0)
        return total

    def draw(self, key: Array, *others: Any) -> tuple[Array, Array]:
        """Exact draws of the coordinates of all sites, shape (coordinates,); and the log sums."""
        alone, pairs = self._weights(others)
        table = jnp.stack(list(alone))
        noise = jax.random.gumbel(jax_key(key), table.shape, table.dtype)
        chosen = self.forest.draw(noise, table, pairs)
        values = jnp.take_along_axis(jnp.asarray(self.potentials.values), chosen[None], 0)[0]
        return values[self.order], self.forest.log_sums(table, pairs)

    def probabilities(self, *others: Any) -> Array:
        """P(z_i = k-th value | all else) as the derivative of log Z by its weight; shape (coordinates, values)."""
        alone, pairs = self._weights(others)
        found = jax.grad(lambda table: jnp.sum(self.forest.log_sums(table, pairs)))(jnp.stack(list(alone)))
        ordered: Array = found[:, self.order].T
        return ordered

    @property
    def listed(self) -> HostArray:
        """The values of each coordinate, shape (coordinates, values); NaN beyond the last."""
        return np.where(self.potentials.valid, self.potentials.values, np.nan)[:, self.order].T

    def _weights(self, others: Sequence[Any]) -> tuple[Rows, Array | None]:
        found = evaluate_sparingly(self.constants, [Spread.of(array) for array in (*others, *self.indices)])
        return self.potentials(*(constant.whole for constant in found))


def marginal(traced: TracedModel, names: Sequence[str]) -> Marginal:
    """The sum over all values of discrete sites of a model.

    Args:
        traced: the model.
        names: of latent discrete sites.

    Raises:
        ValueError: naming the site, where there is none of the name, it is continuous, its values cannot be listed, it
            decides on the support of another, or its entries are tied together in more than pairs or in a circle.
    """
    density = traced.density
    sites = _checked(traced, names)
    moving = [density.sites.index(site) for site in sites]
    try:
        supports = listed_values(density, sites)
    except UnlistedValuesError as error:
        raise ValueError(
            f"marginalize: {error}, so that there is no finite sum; give the site a sampler of its own, such as MH(), "
            f"in Gibbs, or write it as Categorical variables, each with a name or in a plate."
        ) from None
    elements = Elements.of(density, moving)
    # Sites of one shape, as those of a loop, are the rows of one array.
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in moving:
        groups.setdefault(density.coordinates.shapes[density.sites[i]], []).append(i)
    shapes = tuple((len(group), *shape) for shape, group in groups.items())
    numbers = numbered(shapes)
    rows = {i: numbers[k][row] for k, group in enumerate(groups.values()) for row, i in enumerate(group)}
    program = stacked(elements.inside, list(groups.values()))
    others = [i for i in range(len(elements.inside.inputs)) if i not in moving]
    known = {len(groups) + place: elements.known[i] for place, i in enumerate(others) if i in elements.known}
    reaches = reach(program, dict(enumerate(numbers)), known)
    if any(found.many.any() for found in reaches):
        # An operation that is understood by itself may not be understood for several rows at once.
        program = with_rows(elements.inside, list(groups.values()))
        reaches = reach(program, dict(enumerate(numbers)), known)
    order = np.concatenate([rows[i].ravel() for i in moving])
    labels = [label for site in sites for label in _labels(site, density.coordinates.shapes[site])]
    if any(found.many.any() for found in reaches):
        raise _entangled(elements.entangled(), sites)
    edges = edges_of(reaches)
    try:
        forest = Forest.of(len(order), edges)
    except CircleError as error:
        a, b = (labels[int(np.flatnonzero(order == number)[0])] for number in error.pair)
        raise _entangled(f"'{a}' and '{b}' are tied together with others in a circle", sites) from None
    by_coordinate = dict(zip(order.tolist(), (values for site in sites for values in supports[site]), strict=True))
    most = max(len(values) for values in by_coordinate.values())
    if most * len(order) + most**2 * len(edges) > _MOST_NUMBERS:
        raise ValueError(
            f"marginalize: '{_abridged(sites)}': {len(order)} entries of up to {most} values, {len(edges)} pairs of "
            f"them tied together, have too many weights for memory; sample the sites with DiscreteGibbs() or MH()."
        )
    columns = [by_coordinate[i] for i in range(len(order))]
    # Beyond the end of a smaller support its last value is repeated, with `valid` saying so.
    values = np.stack([column[np.minimum(np.arange(most), len(column) - 1)] for column in columns], 1)
    valid = np.arange(most)[:, None] < np.array([len(column) for column in columns])
    before, after = program.split(range(len(groups)))
    alone = [k for k, found in enumerate(reaches) if np.array_equal(found.low, found.high)]
    tied = [k for k in range(len(reaches)) if k not in alone]
    potentials = Potentials(
        shapes,
        values,
        valid,
        forest.odd,
        len(edges),
        after.select(alone),
        after.select(tied),
        # An element that depends on no coordinate after all may belong to any.
        tuple(Sums.of(np.maximum(reaches[k].low.ravel(), 0), len(order)) for k in alone),
        tuple(sums_of_pairs(reaches[k], edges, len(order)) for k in tied),
    )
    return Marginal(
        sites, order, before, elements.indices, potentials, forest, elements.outside(moving), elements.partial
    )


def summed_out(traced: TracedModel, names: Sequence[str]) -> TracedModel:
    """A model without some of its discrete sites, which are summed out.

    The terms of the sites, and what depends on them in others, become one term, `marginal z` for a site z. Values that
    depend on the sites are left out.

    Args:
        traced: the model.
        names: of latent discrete sites; none leaves the model as it is.

    Returns:
        The model of the other sites.

    Raises:
        ValueError: see `marginal`.
    """
    if not names:
        return traced
    density, summed = traced.density, marginal(traced, names)
    if summed.sites == density.sites:
        raise ValueError(
            f"marginalize: '{_abridged(summed.sites)}' are all latent sites of the model, so that nothing is left to "
            f"sample; draw them with DiscreteGibbs()."
        )
    moving = {density.sites.index(site) for site in summed.sites}
    depends = density.program.dependencies()

    def stays(i: int) -> bool:
        return depends[i].isdisjoint(moving)

    terms = [term for term, i in density.terms.items() if stays(i)]
    values = [name for name, i in density.values.items() if stays(i)]
    distributions = {name: own for name, own in density.distributions.items() if all(map(stays, own.outputs))}
    outputs = [*(density.terms[term] for term in terms), *(density.values[name] for name in values)]
    rest = density.program.select([*outputs, *(i for own in distributions.values() for i in own.outputs)])
    others = [var for i, var in enumerate(density.program.inputs) if i not in moving]

    def run(*arguments: Any) -> list[Any]:
        results = Program(tuple(others), rest.equations, rest.outputs)(*arguments)
        free = summed.free(*arguments, *summed.indices)
        return [*results[: len(terms)], *free, jnp.sum(summed.log_sums(*arguments)), *results[len(terms) :]]

    program, more, _ = Program.trace(run, *(jax.ShapeDtypeStruct(*shaped(var)) for var in others))
    # Closed-over arrays come first in a traced program; here they follow, as data.
    program = Program((*program.inputs[len(more) :], *program.inputs[: len(more)]), program.equations, program.outputs)
    title = f"marginal {_abridged(summed.sites)}"
    names_of_terms = (*terms, *summed.partial, title)
    first = len(names_of_terms) + len(values)
    shapes = {site: shape for site, shape in density.coordinates.shapes.items() if site not in summed.sites}
    reduced = dataclasses.replace(
        density,
        coordinates=Coordinates(shapes),
        index_shapes={site: shape for site, shape in density.index_shapes.items() if site in shapes},
        discrete=tuple(site for site in density.discrete if site in shapes),
        program=merged(program),
        terms={term: i for i, term in enumerate(names_of_terms)},
        values={name: i for i, name in enumerate(values, len(names_of_terms))},
        distributions=number({name: own.structure for name, own in distributions.items()}, first),
        data=(*density.data, *more),
    )
    shown = tuple(name for name in traced.names if name in reduced.values)
    # Σ_z p(z | θ) p(y | z, θ) = p(y | θ) is a likelihood where there are data in it.
    likelihood = tuple(term for term in traced.likelihood if term in reduced.terms)
    if any(term not in terms for term in traced.likelihood):
        likelihood = (*likelihood, title)
    return dataclasses.replace(traced, density=reduced, names=shown, likelihood=likelihood)


def _abridged(sites: Sequence[str]) -> str:
    return ",".join(sites if len(sites) <= 3 else (sites[0], "...", sites[-1]))


def keys_of_draws(seed: int, chains: int, draws: int) -> HostArray:
    """A key for each draw of each chain, chain after chain; those of chain i depend on `seed` and i only."""
    numbers = jnp.arange(draws)
    return np.concatenate(
        [np.asarray(jax.vmap(fold_in, (None, 0))(chain_key(seed, i), numbers)) for i in range(chains)]
    )


def _checked(traced: TracedModel, names: Sequence[str]) -> tuple[str, ...]:
    """The sites in the order of the model."""
    density = traced.density
    for name in names:
        if name not in density.sites:
            what = "is observed" if name in traced.observed else "is no latent site of the model"
            known = quoted(density.discrete) or "none"
            raise ValueError(
                f"marginalize: site '{name}' {what}, so that there is nothing to sum over; the discrete latent sites "
                f"are: {known}."
            )
        if name not in density.discrete:
            raise ValueError(
                f"marginalize: site '{name}' is continuous, and only sums over finitely many values are done; leave it "
                f"to the sampler."
            )
    sites = tuple(site for site in density.sites if site in names)
    depends = density.program.dependencies()
    moving = {density.sites.index(site) for site in sites}
    for site in density.sites:
        culprits = sorted(depends[density.values[site]] & moving)
        if site not in sites and culprits and site in density.distributions:
            which = quoted(density.sites[i] for i in culprits)
            raise ValueError(
                f"marginalize: the support of site '{site}' depends on {which}, so that a value of the one means "
                f"another thing for each value of the other; give '{site}' a fixed support, or sample {which} with "
                f"DiscreteGibbs()."
            )
    return sites


def _entangled(how: str, sites: Sequence[str]) -> ValueError:
    return ValueError(
        f"marginalize: {how}, so that the sum over '{_abridged(sites)}' does not fall apart; write a term for each "
        f"entry or each pair of neighbours, or sample the sites with DiscreteGibbs()."
    )


def _labels(site: str, shape: tuple[int, ...]) -> list[str]:
    """A name for each coordinate."""
    return [f"{site}[{', '.join(map(str, index))}]" if shape else site for index in np.ndindex(shape)]
