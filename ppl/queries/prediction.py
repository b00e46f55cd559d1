"""Draws from the prior, and of data from the posterior: `sample_prior`, `predict`, `returned`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import as_seed, check_model
from ..arviz import to_arviz
from ..checks import check_given
from ..interpreter import Dims
from ..interpreters import discover
from ..model import BoundModel
from ..trace import Trace
from .draws import PosteriorDraws
from .replay import replay

Arrays = dict[str, tuple[Any, Dims]]


class PriorWarning(UserWarning):
    """Something that draws from the prior leave out."""


def sample_prior(model: BoundModel, draws: int = 1000, *, chains: int = 1, seed: int | None = None) -> Any:
    """Draw from the prior distribution, and data from the prior predictive one.

    Each site is drawn given the sites before it, those that the function observes too; what is fixed, or conditioned,
    stays. Factors are left out.

    Args:
        model: with its data, `f(data)`, whose shapes the drawn data have.
        draws: of each chain.
        chains: how many; they differ in nothing and are there to be compared with those of `sample`.
        seed: a non-negative integer; None draws one, which the result records.

    Returns:
        An ArviZ object with the groups `prior` (latent sites and deterministics), `prior_predictive` (drawn data) and
        `observed_data`.

    Raises:
        ValueError: where a site cannot be drawn from, such as an improper one; naming it.
        TypeError: on what is no model with data.

    Example:
        `prior = sample_prior(schools(y, sigma), draws=500, seed=1)`
    """
    check_model("sample_prior", model)
    for name, count in (("draws", draws), ("chains", chains)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"sample_prior: {name} must be an integer >= 1, got {count!r}.")
    seed = as_seed("sample_prior", seed)
    with jax.enable_x64(True):
        found = discover(model, check_given)
        observed = _observed(found)
        unobserved = model.decondition(*observed) if observed else model
        found_prior = replay(unobserved, {}, chains * draws, seed, _drawn_and_derived)
    arrays = {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in found_prior.values.items()}
    groups = {
        "prior": {name: value for name, value in arrays.items() if name not in observed},
        "prior_predictive": {name: arrays[name] for name in observed},
        "observed_data": {name: np.asarray(found.sites[name].obs) for name in (*observed, *sorted(found.conditioned))},
        "constant_data": {name: np.asarray(value) for name, (value, _) in found.fixed.items()},
    }
    left_out = sorted(name for name in found.terms if name not in found.likelihood)
    if left_out:
        warnings.warn(
            f"sample_prior: the factor '{left_out[0]}' counts to the prior, and draws are made without it; weight them "
            f"by it, or sample the model without its data.",
            PriorWarning,
            stacklevel=2,
        )
    attrs = {"seed": seed, "model": model.name, "inference_library": "dualtape"}
    fixed = {name: list(dims) for name, (_, dims) in found.fixed.items() if dims}
    return to_arviz(groups, dims=found_prior.dims | fixed, coords=found_prior.coords, attrs=attrs)


def predict(model: BoundModel, idata: Any, *, sites: str | Sequence[str] | None = None, seed: int | None = None) -> Any:
    """Draw data from the posterior predictive distribution, for the data at hand or for new ones.

    For each draw of the posterior, the sites that it holds get their values and others are drawn given the sites before
    them. Where the model has data for all its observed sites these are replicated; where some data are None, these are
    drawn, with latent sites that the posterior does not hold, such as those of new groups, and the other data stay. So
    do values that `condition` has given, unless `sites` names them. A time series is replicated from its beginning,
    each step given those before it; what comes after its end is a further `scan` from the last carry, in a model that
    declares it when asked to.
    Plates with labels are looked up by their labels.

    Args:
        model: with the data that were sampled, or with new ones: other covariates, and None where data are to be
            predicted. With shapes that were seen before nothing is compiled again.
        idata: what `sample` returned.
        sites: names of the observed sites to draw; None means all, or none where data are None. Others stay observed.
        seed: a non-negative integer; None draws one.

    Returns:
        A copy of `idata` with one group more. For a model with its data it is `posterior_predictive`, which holds the
        replicated data, beside `observed_data`; for one without, `predictions`, which holds everything that is drawn or
        derived anew, deterministics included.

    Raises:
        ValueError: where a site has another shape or other labels than in the posterior, or cannot be drawn from, where
            the posterior holds no site of the model, or a site has been summed out and not recovered; naming it.
        TypeError: on what is no model with data, or no ArviZ object with a posterior.

    Example:
        `idata = predict(regression(x, y), idata)` and `new = predict(regression(x_new, None), idata)`
    """
    check_model("predict", model)
    posterior = PosteriorDraws.of("predict", idata)
    seed = as_seed("predict", seed)
    with jax.enable_x64(True):
        found = discover(model, check_given)
        observed = _observed(found)
        absent = _absent(model, found, posterior)
        drawn = _chosen(sites, found, list(observed) if not absent else [])
        if not (drawn or absent) and sites is None:
            raise ValueError(
                f"predict: there is nothing to draw in model '{model.name}': no site is observed by its function, or "
                f"has data that are None. Name conditioned ones, predict(model, idata, sites=...), or give the model "
                f"without its conditions."
            )
        replicated = [name for name in drawn if not found.sites[name].is_latent]
        values = posterior.values("predict", found, (name for name in found.sites if name not in drawn))
        unobserved = model.decondition(*replicated) if replicated else model
        outcome = replay(unobserved, values, posterior.rows, seed, _drawn_and_derived)
    if replicated:
        data = {"observed_data": {name: np.asarray(found.sites[name].obs) for name in replicated}}
        return posterior.with_group({"posterior_predictive": outcome}, {"posterior_predictive": drawn}, data)
    new = [name for name in outcome.values if name not in values]
    return posterior.with_group({"predictions": outcome}, {"predictions": new})


def returned(model: BoundModel, idata: Any) -> Any:
    """What the function of a model returns, at every draw of the posterior.

    Args:
        model: with its data.
        idata: what `sample` returned.

    Returns:
        A tree like that which the function returns, of NumPy arrays with the first dimensions (chain, draw).

    Raises:
        ValueError: where the function returns nothing, or the posterior lacks a latent site.
        TypeError: on what is no model with data, or no ArviZ object with a posterior.

    Example:
        `effect = returned(trial(data), idata)` of a model that ends in `return treated - control`
    """
    check_model("returned", model)
    posterior = PosteriorDraws.of("returned", idata)
    structures: list[Any] = []

    def read(trace: Trace) -> Arrays:
        leaves, structure = jax.tree.flatten(trace.returned)
        structures.append(structure)
        return {str(i): (jnp.asarray(leaf), None) for i, leaf in enumerate(leaves)}

    with jax.enable_x64(True):
        values = posterior.values_of_all("returned", discover(model, check_given))
        outcome = replay(model, values, posterior.rows, 0, read)
    if not outcome.values:
        raise ValueError(f"returned: model '{model.name}' returns nothing; end its function with `return ...`.")
    leaves = [array.reshape(*posterior.shape, *array.shape[1:]) for array in outcome.values.values()]
    return jax.tree.unflatten(structures[-1], leaves)


def _drawn_and_derived(trace: Trace) -> Arrays:
    """The values of latent sites and deterministics."""
    sites = {name: (value, trace.sites[name].dims) for name, value in trace.values.items()}
    return sites | trace.deterministics


def _observed(found: Trace) -> dict[str, Any]:
    """The sites that the function observes with data, which are not computed from random variables."""
    sites = (site for site in found.sites.values() if not site.is_latent and site.name not in found.conditioned)
    return {site.name: site.obs for site in sites if not isinstance(site.obs, jax.core.Tracer)}


def _absent(model: BoundModel, found: Trace, posterior: PosteriorDraws) -> list[str]:
    """The latent sites that the posterior does not hold."""
    # What is missing of data is drawn with them.
    holes = {f"{site.name}_missing" for site in found.sites.values() if not site.is_latent}
    latent = [site.name for site in found.sites.values() if site.is_latent and site.name not in holes]
    absent = [name for name in latent if name not in posterior.group]
    for name in absent:
        if name in found.marginalized:
            raise ValueError(
                f"predict: site '{name}' has been summed out, and its values matter here; draw them first, "
                f"predict(model, recover(model, idata)), or give the model as it was before marginalize, which draws "
                f"'{name}' anew given the other sites."
            )
    if latent and len(absent) == len(latent):
        known = ", ".join(f"'{name}'" for name in latent)
        raise ValueError(
            f"predict: the posterior holds no latent site of model '{model.name}' ({known}), so it is that of another "
            f"model; give what sample returned for this one, or use sample_prior."
        )
    return absent


def _chosen(sites: str | Sequence[str] | None, found: Trace, usual: list[str]) -> list[str]:
    if sites is None:
        return usual
    names = [sites] if isinstance(sites, str) else list(sites)
    for name in names:
        if name not in found.sites:
            known = ", ".join(f"'{site.name}'" for site in found.sites.values() if not site.is_latent)
            raise ValueError(f"predict: the model has no site '{name}'; the observed ones are {known}.")
    return names
