"""The values that discrete sites can take, where they are finitely many and known beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro.distributions import Distribution, constraints

from ...ad.equations import shaped
from ..transforms import describe
from .priors import innermost

if TYPE_CHECKING:
    from ..log_density import ModelDensity

HostArray = np.ndarray[Any, Any]


class UnlistedValuesError(ValueError):
    """The values of a site cannot be listed; says which site and why, and leaves the remedy to others."""


def listed_values(whole: ModelDensity, sites: Iterable[str]) -> dict[str, list[HostArray]]:
    """The values of each coordinate of some discrete sites, ascending.

    Args:
        whole: the model.
        sites: names of discrete sites.

    Returns:
        By site, for each of its coordinates in row-major order, an array of its values.

    Raises:
        UnlistedValuesError: naming the site, where its entries are not free of each other, its values are infinitely
            many or depend on other sites, or the trace does not show its distribution.
    """
    filled = _with_what_data_determine(whole, list(sites))
    return {site: _values(site, distribution, whole.coordinates.shapes[site]) for site, distribution in filled.items()}


def _with_what_data_determine(whole: ModelDensity, sites: list[str]) -> dict[str, Distribution]:
    """The distributions; what other sites determine in them is NaN, which a support that depends on it passes on."""
    for site in sites:
        if site not in whole.distributions:
            raise UnlistedValuesError(
                f"the distribution of site '{site}' is not to be seen in the trace, as it stands in a scan, or the "
                f"model looks at values of its random variables"
            )
    outputs = [i for site in sites for i in whole.distributions[site].outputs]
    depends = whole.program.dependencies()
    latent = range(len(whole.sites))
    fixed = [i for i in dict.fromkeys(outputs) if depends[i].isdisjoint(latent)]
    unknown = [None] * len(whole.sites)  # none of these is read
    with jax.ensure_compile_time_eval():
        values: dict[int, Any] = dict(zip(fixed, whole.program.select(fixed)(*unknown, *whole.data), strict=True))
    missing = {i: np.full(shaped(whole.program.outputs[i])[0], np.nan) for i in outputs if i not in values}
    leaves = values | missing
    return {
        site: whole.distributions[site].fill([leaves[i] for i in whole.distributions[site].outputs]) for site in sites
    }


def _values(site: str, distribution: Distribution, shape: tuple[int, ...]) -> list[HostArray]:
    family, inner = describe(distribution), innermost(distribution)
    support: Any = inner.support
    if inner.event_shape:
        raise UnlistedValuesError(f"the entries of site '{site}' ({family}) are not free of each other")
    if support is constraints.boolean:
        low, high = np.zeros(shape), np.ones(shape)
    elif hasattr(support, "lower_bound") and hasattr(support, "upper_bound"):
        low, high = (np.broadcast_to(np.asarray(b, float), shape) for b in (support.lower_bound, support.upper_bound))
    else:
        raise UnlistedValuesError(f"site '{site}' ({family}) has infinitely many values")
    if np.isnan(low).any() or np.isnan(high).any():
        raise UnlistedValuesError(f"the values that site '{site}' ({family}) can take depend on other sites")
    if not np.isfinite(high - low).all():
        raise UnlistedValuesError(f"site '{site}' ({family}) has infinitely many values")
    return [np.arange(a, b + 1) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
