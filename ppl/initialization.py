"""Where chains start: values the user gives, and uniform draws in unconstrained space for the rest."""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpyro.distributions import Distribution

from .checks import check_inside
from .interpreters import discover, unconstrain
from .log_density import TracedModel
from .model import BoundModel
from .trace import Trace

HostArray = np.ndarray[Any, Any]
ATTEMPTS = 100
RADIUS = 2.0


class AbstractStart(abc.ABC):
    """Where chains start if not at given values: a frozen value for `init=`."""

    @abc.abstractmethod
    def proposals(
        self, model: BoundModel, found: Trace, traced: TracedModel, seed: int, chain: int
    ) -> Iterator[HostArray]:
        """Positions where chain `chain` may start, shape (dimension,) each; they depend on `seed` and `chain` only."""


def _as_start(init: object) -> AbstractStart | None:
    if isinstance(init, str) and init == "pathfinder":
        from .approximations.pathfinder import FromPathfinder

        return FromPathfinder()
    return init if isinstance(init, AbstractStart) else None


def chain_proposals(
    model: BoundModel,
    found: Trace,
    traced: TracedModel,
    init: object,
    given: list[dict[str, Any]],
    seed: int,
    dtype: Any,
) -> list[Iterator[HostArray]]:
    """Where each chain may start; see `proposals`.

    Args:
        model: the model.
        found: its sites.
        traced: the same, traced.
        init: what the user said.
        given: what `check_initial_values` made of it, by chain.
        seed: of the run.
        dtype: of positions.
    """
    start = _as_start(init)
    if start is not None:
        return [start.proposals(model, found, traced, seed, chain) for chain in range(len(given))]
    rngs = (np.random.default_rng([seed, chain]) for chain in range(len(given)))
    return [proposals(model, traced, own, rng, dtype) for own, rng in zip(given, rngs, strict=True)]


def check_initial_values(
    model: BoundModel, init: Mapping[str, Any] | AbstractStart | str | None, found: Trace, chains: int
) -> list[dict[str, Any]]:
    """The initial values of each chain, by site, constrained.

    Args:
        model: the model.
        init: by site, values of the site's shape for all chains, or with a leading dimension of length `chains`.
        found: the sites of the model.
        chains: how many.

    Raises:
        ValueError: on an unknown site, a shape that does not fit, or a value outside the support; naming it.
    """
    per_chain: list[dict[str, Any]] = [{} for _ in range(chains)]
    if _as_start(init) is not None:
        init = None
    if not (init is None or isinstance(init, Mapping)):
        raise TypeError(f"init: expected a dict from site names to values, FromPathfinder() or None, got {init!r}.")
    sites = found.sites.values()
    latent = {site.name: site for site in sites if site.is_latent and site.name not in found.marginalized}
    # What the model says of sites that are observed or fixed by now does not matter.
    init = {name: value for name, value in found.initial.items() if name in latent} | dict(init or {})
    if not init:
        return per_chain
    for name, values in init.items():
        if name not in latent:
            known = ", ".join(f"'{site}'" for site in latent)
            raise ValueError(f"init: '{name}' is no latent site of the model; these are: {known}.")
        value, shape = np.asarray(values), latent[name].shape
        if latent[name].discrete and value.dtype.kind == "f" and (value == np.round(value)).all():
            value = value.astype(int)
        if value.dtype.kind not in "iuf":
            raise TypeError(f"init: site '{name}' needs numbers, got {value.dtype} values.")
        if value.shape == shape:
            value = np.broadcast_to(value, (chains, *shape))
        elif value.shape != (chains, *shape):
            raise ValueError(
                f"init: site '{name}' has shape {shape}, got a value of shape {value.shape}; give {shape} for all "
                f"chains or {(chains, *shape)} for one value a chain."
            )
        if not np.isfinite(value).all():
            raise ValueError(f"init: site '{name}' has a value that is not finite; give finite numbers.")
        for chain in range(chains):
            per_chain[chain][name] = value[chain]
    alike = all(np.shape(value) == latent[name].shape for name, value in init.items())
    for given in per_chain[:1] if alike else per_chain:
        # Conditioned on its initial values a model has them checked like data, where the rest does not matter.
        discover(model.condition(given), functools.partial(_check_if_given, given), concrete=True)
    return per_chain


def _check_if_given(given: dict[str, Any], title: str, name: str, distribution: Distribution, value: Any) -> None:
    del title  # it would call the site observed
    if name in given:
        check_inside("init", name, distribution, value)


def proposals(
    model: BoundModel, traced: TracedModel, given: dict[str, Any], rng: np.random.Generator, dtype: Any
) -> Iterator[HostArray]:
    """Positions where a chain may start, shape (dimension,) each; it does so at the first that has a finite density.

    Sites without an initial value are drawn from Uniform(−2, 2) in unconstrained space, discrete ones from their
    distributions given the sites before them, up to 100 times.

    Args:
        model: the model.
        traced: the same, traced.
        given: constrained values by site.
        rng: of this chain.
        dtype: of positions.
    """
    coordinates = traced.density.coordinates
    for _ in range(1 if _everything(traced, given) else ATTEMPTS):
        position = rng.uniform(-RADIUS, RADIUS, coordinates.dimension).astype(dtype)
        if given or traced.density.discrete:
            parts = dict(zip(coordinates.shapes, coordinates.split(position), strict=True))
            key = jax.random.key(int(rng.integers(2**31))) if traced.density.discrete else None
            found = unconstrain(model, given, parts, key)
            parts |= {name: array for name, array in found.items() if name in parts}  # without what is summed out
            position = np.asarray(coordinates.join(list(parts.values())), dtype)
        yield position


def _everything(traced: TracedModel, given: dict[str, Any]) -> bool:
    return given.keys() >= traced.density.coordinates.shapes.keys()


def explain_failure(traced: TracedModel, position: HostArray, given: dict[str, Any]) -> str:
    """Why no chain can start at the last of the proposals: what each term of the log density is there."""
    terms = {name: float(term) for name, term in traced.density.by_term(position, *traced.data).items()}
    contributions = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
    culprits = [name for name, value in terms.items() if not np.isfinite(value)]
    holes = [np.shape(array) for array in traced.data if array.dtype.kind == "f" and np.isnan(array).any()]
    missing = f" The data hold NaN, in an array of shape {holes[0]}, that no rv observes." if holes else ""
    names = ", ".join(f"'{name}'" for name in sorted(given))
    drawn = f"in {ATTEMPTS} draws from Uniform(-{RADIUS:g}, {RADIUS:g})"
    if _everything(traced, given):
        where, way_out = "at the given initial values", "Give other `init=` values, or change the model there"
    elif given:
        where, way_out = f"{drawn} beside the initial values of {names}", "Change those values, or give more of them"
    else:
        where, way_out = drawn, "Give `init=` values, or change the model there"
    what = (
        f"the log density was never finite {where}; at the last: {contributions}. Not finite: {', '.join(culprits)}"
        if culprits
        else f"the log density was finite but its gradient was not, {where}; at the last: {contributions}. Look for "
        f"sqrt, log or a division at zero behind a jnp.where, which passes NaN to the gradient of the branch not taken"
    )
    return f"no starting point was found: {what}.{missing} {way_out}."
