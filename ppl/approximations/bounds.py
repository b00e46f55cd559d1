"""Bounds on values of sites, as a box of unconstrained coordinates.

An elementwise bijection is monotone in each entry, so it maps intervals to intervals: a bound on a value is a bound on
one coordinate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...samplers.approximations.optimization import Box
from ..interpreters import unconstrain
from ..trace import Site
from .setting import HostArray, Setting

Bounds = Mapping[str, tuple[Any, Any]]


def box_of(setting: Setting, bounds: Bounds | None) -> Box:
    """The box in which the values of sites keep their bounds.

    Args:
        setting: the model.
        bounds: by site, the lower and the upper bound: numbers or arrays that broadcast to the site; None or infinite
            for none.

    Raises:
        TypeError, ValueError: naming the site, where it is unknown, has values that are not bounded one by one, or has
            a support that depends on other sites; where bounds do not fit its shape, cross, or leave out its support.
    """
    coordinates = setting.traced.density.coordinates
    box = Box.everywhere(coordinates.dimension)
    if bounds is None:
        return box
    if not isinstance(bounds, Mapping):
        raise TypeError(f"bounds: expected a dict from site names to (lower, upper), got {bounds!r}.")
    latent = {site.name: site for site in setting.found.sites.values() if site.is_latent}
    wanted = {name: _given(latent, name, pair) for name, pair in bounds.items()}
    for name, (lower, upper) in wanted.items():
        _check_box(setting, latent[name])
        middle, *ends = (np.asarray(_value(setting, name, q)) for q in (0.0, -np.inf, np.inf))
        bottom, top = np.minimum(*ends), np.maximum(*ends)
        if ((upper <= bottom) | (lower >= top)).any():
            raise ValueError(
                f"bounds: site '{name}' has bounds outside its support, which goes from {bottom.min():g} to "
                f"{top.max():g}; give bounds that leave some of it."
            )
        infinity = np.where(ends[1] > ends[0], np.inf, -np.inf)  # below(upper) − exp(q) falls where q rises
        from_below, from_above = lower > bottom, upper < top
        corners = (
            np.where(from_below, _inverse(setting, name, np.where(from_below, lower, middle)), -infinity),
            np.where(from_above, _inverse(setting, name, np.where(from_above, upper, middle)), infinity),
        )
        stretch = coordinates.slices[name]
        box.lower[stretch], box.upper[stretch] = np.minimum(*corners).ravel(), np.maximum(*corners).ravel()
    return box


def _given(latent: Mapping[str, Site], name: str, pair: Any) -> tuple[HostArray, HostArray]:
    """The lower and the upper bound of a site, in its shape."""
    if name not in latent:
        known = ", ".join(f"'{site}'" for site in latent)
        raise ValueError(f"bounds: '{name}' is no latent site of the model; these are: {known}.")
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"bounds: site '{name}' needs a pair (lower, upper), got {pair!r}; None stands for no bound.")
    ends = []
    for end, nothing in zip(pair, (-np.inf, np.inf), strict=True):
        array = np.asarray(nothing if end is None else end)
        if array.dtype.kind not in "iuf" or np.isnan(array).any():
            raise TypeError(f"bounds: site '{name}' needs numbers, got {end!r}; None stands for no bound.")
        try:
            ends.append(np.broadcast_to(array.astype(float), latent[name].shape))
        except ValueError:
            raise ValueError(
                f"bounds: site '{name}' has shape {latent[name].shape}, got a bound of shape {array.shape}; give a "
                f"number or an array that broadcasts to the site."
            ) from None
    if not (ends[0] < ends[1]).all():
        raise ValueError(
            f"bounds: site '{name}' has a lower bound that is not below the upper one, {pair!r}; exchange them, or use "
            f"fix(...) for a value that is known."
        )
    return ends[0], ends[1]


def _check_box(setting: Setting, site: Site) -> None:
    if not site.index_shape == site.unconstrained_shape == site.shape:
        raise ValueError(
            f"bounds: the entries of site '{site.name}' ({site.family}) are not free of each other, so bounds on them "
            f"are no box; bound sites whose entries are real, positive or in an interval, or add a `factor`."
        )
    density = setting.traced.density
    reached = density.program.dependencies()[density.values[site.name]]
    others = [name for i, name in enumerate(density.sites) if i in reached and name != site.name]
    if others:
        raise ValueError(
            f"bounds: the support of site '{site.name}' depends on '{others[0]}', so bounds on it are no box; bound "
            f"'{others[0]}' instead, or give '{site.name}' a support of its own."
        )


def _value(setting: Setting, name: str, coordinate: float) -> Any:
    """The value of a site where all its coordinates are the same."""
    density = setting.traced.density
    position = jnp.full(density.dimension, coordinate)
    program = density.program.select([density.values[name]])
    return program(*density.coordinates.split(position), *setting.traced.data)[0]


def _inverse(setting: Setting, name: str, value: HostArray) -> HostArray:
    """The coordinates behind a value of a site."""
    origin = {site: jnp.zeros(shape) for site, shape in setting.traced.density.coordinates.shapes.items()}
    return np.asarray(unconstrain(setting.model, {name: value}, origin)[name])
