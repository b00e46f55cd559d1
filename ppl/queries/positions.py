"""From values in the supports to unconstrained coordinates and back: `unconstrain`, `constrain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ..arguments import check_model
from ..checks import check_given, check_inside
from ..interpreters import discover
from ..interpreters import unconstrain as inverted
from ..log_density import trace_model
from ..model import BoundModel
from .log_densities import check_values

HostArray = np.ndarray[Any, Any]


def constrain(model: BoundModel, position: Any) -> dict[str, HostArray]:
    """The values of latent sites and deterministics at unconstrained coordinates.

    Args:
        model: with its data.
        position: shape (..., dimension), the coordinates of the sites one after the other, as they are declared.

    Returns:
        Arrays by name, with the first dimensions of `position`.

    Raises:
        ValueError: on a position of another length, saying which coordinates are expected.
        TypeError: on what is no model with data.
    """
    check_model("constrain", model)
    with jax.enable_x64(True):
        traced = trace_model(model, discover(model, check_given))
        array = jnp.asarray(position, float)
        if array.ndim == 0 or array.shape[-1] != traced.density.dimension:
            sizes = ", ".join(f"'{site}' {size}" for site, size in traced.density.sizes.items())
            raise ValueError(
                f"constrain: a position of model '{model.name}' has {traced.density.dimension} coordinates ({sizes}), "
                f"got an array of shape {array.shape}."
            )
        rows = array.reshape(-1, array.shape[-1])
        found = jax.jit(jax.vmap(lambda row: traced.constrained(row, *traced.data)))(rows)
    return {name: np.asarray(value).reshape((*array.shape[:-1], *value.shape[1:])) for name, value in found.items()}


def unconstrain(model: BoundModel, values: Mapping[str, Any]) -> HostArray:
    """The unconstrained coordinates of values in the supports.

    Args:
        model: with its data.
        values: of all latent sites, by name.

    Returns:
        Shape (dimension,): the coordinates of the sites one after the other, as they are declared.

    Raises:
        ValueError: where a latent site has no value, or one of another shape, or outside its support.
        TypeError: on what is no model with data, or no dict.
    """
    check_model("unconstrain", model)
    if not isinstance(values, Mapping):
        raise TypeError(f"unconstrain: expected a dict from site names to values, got {values!r}.")
    with jax.enable_x64(True):
        found = discover(model, check_given)
        sites = found.sites.values()
        latent = {site.name: site for site in sites if site.is_latent and site.name not in found.marginalized}
        check_values("unconstrain", list(latent), values)
        for name, site in latent.items():
            if np.shape(values[name]) != site.shape:
                raise ValueError(
                    f"unconstrain: site '{name}' has shape {site.shape}, got a value of shape {np.shape(values[name])}."
                )

        def check(title: str, name: str, distribution: Distribution, value: Any) -> None:
            del title  # it would call the site observed
            if name in values:
                check_inside("unconstrain", name, distribution, value)

        # Conditioned on its values a model has them checked like data.
        discover(model.condition(values), check, concrete=True)
        arrays = inverted(model, values, {})
        return np.concatenate([np.ravel(arrays[name]) for name in latent])
