"""Discrete sites summed out of a model, and drawn again after sampling.

from dualtape import marginalize, recover

summed = marginalize(mixture(y), ["z"])       # p(θ, y) = Σ_z p(z, θ, y), exactly
idata = sample(summed)                        # NUTS: what is left is continuous
idata = recover(summed, idata, seed=1)        # exact draws of z given each draw of the rest
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import lax

from .arguments import as_seed, check_model
from .constrained import batch_rows
from .interpreters import discover
from .log_density import trace_model
from .model import BoundModel
from .queries.draws import PosteriorDraws
from .queries.replay import replay
from .trace import Site, Trace
from .views.marginal import keys_of_draws, marginal

if TYPE_CHECKING:
    from .interpreter import Dims

HostArray = np.ndarray[Any, Any]

# Draws that are worked on at once hold no more numbers than this: 64 MB.
_BATCH_NUMBERS, _BATCH_ROWS = 1 << 23, 256


def marginalize(model: BoundModel, sites: str | Iterable[str] | Callable[[str], bool]) -> BoundModel:
    """Sum discrete sites out of a model, exactly.

        p(θ, y) = Σ_z p(z, θ, y)

    Entries of the sites may be independent given the rest, as labels in a plate are, or tied together in pairs without
    a circle, as the states of a hidden Markov model. The sites, and deterministics that depend on them, are not among
    the results of `sample`; `recover` adds them.

    Args:
        model: with its data.
        sites: names of latent discrete sites with finitely many values, or a function that chooses among their names.

    Returns:
        A new model. What cannot be summed over is refused by name when it is sampled.

    Raises:
        TypeError: on what is no model, or no name.

    Example:
        `sample(marginalize(mixture(y), ["z"]))`

    Source: Rabiner (1989), "A tutorial on hidden Markov models", for chains; Stan User's Guide, "Latent discrete
    parameters".
    """
    check_model("marginalize", model)
    if callable(sites):
        with jax.enable_x64(True):
            found = discover(model).sites.values()
        sites = [site.name for site in found if site.is_latent and site.discrete and sites(site.name)]
    names = (sites,) if isinstance(sites, str) else tuple(sites)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"marginalize: give names of sites, marginalize(model, ['z']); got {name!r}.")
    return dataclasses.replace(model, marginalized=model.marginalized | set(names))


def recover(model: BoundModel, idata: Any, seed: int | None = None, *, probabilities: bool = False) -> Any:
    """Draw the sites that were summed out, given each draw of the others.

    Independent entries are drawn from their conditional distributions, chains by backward sampling from the forward
    filter: with the draws of the other sites they are exact draws of the joint posterior distribution.

    Args:
        model: the one that was sampled, from `marginalize`.
        idata: what `sample` returned.
        seed: a non-negative integer; the same seed gives the same draws, and those of chain i depend on `seed` and i
            only. None draws one.
        probabilities: whether to add, for a site z, `z_probability`, the probability of each of its values given the
            draw of the other sites, along a last dimension `z_value`. Their mean over draws estimates the posterior
            probability with less noise than counts do.

    Returns:
        A copy of the ArviZ object whose posterior holds the sites too, and the deterministics that depend on them.

    Raises:
        TypeError: on what is no model, or no ArviZ object with a posterior.
        ValueError: where nothing has been summed out, or the posterior lacks a site of the model, or does not belong to
            the model.

    Example:
        `az.summary(recover(summed, sample(summed)), var_names=["z"])`

    Source: Scott (2002), "Bayesian methods for hidden Markov models".
    """
    check_model("recover", model)
    draws = PosteriorDraws.of("recover", idata)
    seed = as_seed("recover", seed)
    with jax.enable_x64(True):
        found = discover(model)
        sites = {name: found.sites[name] for name in found.marginalized if name in found.sites}
        if not sites:
            raise ValueError(
                "recover: no site of this model is summed out; give the one that marginalize(...) returned."
            )
        others = {name: site for name, site in found.sites.items() if site.is_latent and name not in sites}
        values = draws.values("recover", found, others)
        for name in others.keys() - values.keys():
            raise ValueError(
                f"recover: the posterior has no values of the latent site '{name}'; give what was sampled."
            )
        added, chances, listed = _drawn(model, sites, values, draws, seed, probabilities)
        derived = replay(model, {**values, **added}, draws.rows, seed, lambda trace: _missing(trace, draws))
    variables: dict[str, tuple[Any, HostArray]] = {name: (site.dims, added[name]) for name, site in sites.items()}
    variables |= {name: (derived.dims.get(name), array) for name, array in derived.values.items()}
    coords = {name: plate.labels for name, plate in found.plates.items()}
    for name, array in chances.items():
        dims = sites[name].dims or tuple(f"{name}_dim_{i}" for i in range(len(sites[name].shape)))
        variables[f"{name}_probability"] = ((*dims, f"{name}_value"), array)
        coords[f"{name}_value"] = listed[name]
    return _with_variables(draws, variables, coords | derived.coords)


def _drawn(
    model: BoundModel,
    sites: Mapping[str, Site],
    values: Mapping[str, HostArray],
    draws: PosteriorDraws,
    seed: int,
    probabilities: bool,
) -> tuple[dict[str, HostArray], dict[str, HostArray], dict[str, HostArray]]:
    """Values of the sites, shape (rows, ...), by one compiled program; the probabilities of their values, and which."""
    chains, length = draws.shape
    kept: list[dict[str, HostArray]] = []
    keys = keys_of_draws(seed, chains, length)

    def one(row: tuple[Any, dict[str, Any]]) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        key, given = row
        # Observed, the other sites need no bijections, whose inverses would lose the ends of their supports.
        conditioned = model.condition(given)
        found = dataclasses.replace(discover(conditioned), marginalized={})
        traced = trace_model(conditioned, found)
        summed = marginal(traced, tuple(sites))
        drawn, log_sums = summed.draw(key, *traced.data)
        listed = by_site(summed.sites, sites, summed.listed)
        kept.append({name: _common(own.reshape(-1, own.shape[-1])) for name, own in listed.items()})
        chances = by_site(summed.sites, sites, summed.probabilities(*traced.data)) if probabilities else {}
        return by_site(summed.sites, sites, drawn.astype(int)), log_sums.sum(), chances

    found, log_sums, chances = by_draw(one, (keys, dict(values)), sites)
    wrong = np.flatnonzero(~np.isfinite(log_sums))
    if wrong.size:
        chain, draw = divmod(int(wrong[0]), length)
        raise ValueError(
            f"recover: at draw {draw} of chain {chain}, and at {wrong.size} of {draws.rows}, no value of the sites has "
            f"a positive probability; give the model and the data that were sampled."
        )
    # A site may have fewer values than another that is summed out with it.
    return found, {name: own[..., : len(kept[0][name])] for name, own in chances.items()}, kept[0]


def by_draw(one: Callable[[Any], Any], rows: Any, sites: Mapping[str, Site]) -> Any:
    """A function of one draw for all of them, by one compiled program over batches.

    Args:
        one: from the entries of `rows` to a tree of arrays.
        rows: a tree of arrays whose first dimension goes through the draws.
        sites: that are summed out, whose sizes decide on the length of a batch.
    """
    count = len(jax.tree.leaves(rows)[0])
    size = sum(int(np.prod(site.shape)) for site in sites.values())
    batch = batch_rows(count, max(1, min(_BATCH_ROWS, _BATCH_NUMBERS // (32 * size))))
    # Filled up to whole batches: a shorter one at the end would be compiled by itself.
    filled = np.minimum(np.arange(-(-count // batch) * batch), count - 1)
    results = jax.jit(lambda rows: lax.map(one, rows, batch_size=batch))(jax.tree.map(lambda a: a[filled], rows))
    return jax.tree.map(lambda array: np.asarray(array)[:count], results)


def _common(listed: HostArray) -> HostArray:
    """The values that all entries of a site have in common, or their numbers; from NaN where there is none."""
    most = int(np.isfinite(listed).sum(1).max())
    same = (listed[:, :most] == listed[:1, :most]).all()
    return listed[0, :most].astype(int) if same else np.arange(most)


def by_site(order: Iterable[str], sites: Mapping[str, Site], flat: Any) -> dict[str, Any]:
    """Arrays of sites, out of one whose first dimension goes through their coordinates."""
    found, first = {}, 0
    for name in order:
        shape = sites[name].shape
        size = int(np.prod(shape))
        found[name] = flat[first : first + size].reshape(*shape, *flat.shape[1:])
        first += size
    return found


def _missing(trace: Trace, draws: PosteriorDraws) -> dict[str, tuple[Any, Dims]]:
    """The deterministics that the posterior does not hold."""
    return {name: found for name, found in trace.deterministics.items() if name not in draws.group}


def _with_variables(
    draws: PosteriorDraws, variables: Mapping[str, tuple[Any, HostArray]], coords: Mapping[str, Any]
) -> Any:
    """A copy of an ArviZ object with further variables in its posterior."""
    import xarray

    known: dict[str, Any] = {}
    for name, (dims, array) in variables.items():
        named = tuple(dims) if dims else tuple(f"{name}_dim_{i}" for i in range(array.ndim - 1))
        known[name] = (("chain", "draw", *named), array.reshape(*draws.shape, *array.shape[1:]))
    used = {dim for dims, _ in known.values() for dim in dims}
    group = draws.group.assign(known)
    group = group.assign_coords({dim: coords.get(dim, range(group.sizes[dim])) for dim in used - set(group.coords)})
    if hasattr(draws.idata, "children"):
        result = draws.idata.copy()
        result["posterior"] = xarray.DataTree(group)
        return result
    groups = {name: group if name == "posterior" else draws.idata[name] for name in draws.idata.groups()}
    return type(draws.idata)(**groups, attrs=draws.idata.attrs)
