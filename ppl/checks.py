"""What can be wrong with a model before anything is compiled, said by site and index."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro.distributions import Distribution

from .trace import Trace
from .transforms import describe, describe_support


def check_given(title: str, name: str, distribution: Distribution, value: Any) -> None:
    """Refuse an observed or fixed value that is NaN or lies outside the support of its distribution.

    Values and supports that depend on latent variables are passed over: they have no fixed value.

    Raises:
        ValueError: naming the site, how many entries are wrong, and the first of them.
    """
    del name  # the title has it
    if isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    # Infinite values can be in a support (censoring bounds); NaN never is.
    missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    if missing.any():
        raise ValueError(
            f"{title} has {missing.sum()} NaN (first at {_first(missing)}); remove them, or give the data with NaN "
            f"to the model, whose missing entries are latent variables where it observes the data as they are."
        )
    outside = outside_support(distribution, value)
    if outside is not None and outside.any():
        example = array[tuple(np.argwhere(outside)[0])] if outside.ndim else array
        raise ValueError(
            f"{title} has {outside.sum()} value(s) outside the support of {describe(distribution)}, "
            f"{describe_support(distribution)}: the first is {example} at {_first(outside)}. Correct the data or "
            f"choose a distribution that can produce it."
        )


def check_inside(owner: str, name: str, distribution: Distribution, value: Any) -> None:
    """Refuse a value, given to the function `owner`, that lies outside the support of its distribution.

    Raises:
        ValueError: naming the site.
    """
    outside = outside_support(distribution, value)
    if outside is not None and outside.any():
        raise ValueError(
            f"{owner}: site '{name}' has a value outside the support of {describe(distribution)}, "
            f"{describe_support(distribution)}; give a value inside."
        )


def outside_support(distribution: Distribution, value: Any) -> np.ndarray[Any, Any] | None:
    """Which entries lie outside the support; None where that depends on random variables."""
    try:
        with jax.ensure_compile_time_eval():
            inside = distribution.support(value)
    except jax.errors.JAXTypeError:
        return None
    return None if isinstance(inside, jax.core.Tracer) else ~np.asarray(inside)


def check_sampleable(trace: Trace, model: str) -> None:
    """Refuse a model without latent variables, and one whose latent variables are empty.

    Raises:
        ValueError: naming the sites.
    """
    latent = [site for site in trace.sites.values() if site.is_latent]
    if not latent:
        raise ValueError(
            f"model '{model}' has no latent sites: everything in it is observed or fixed, so there is nothing to "
            f"sample. Leave out obs=, or use decondition, for the sites to infer."
        )
    empty = [site.name for site in latent if 0 in site.shape]
    if empty:
        raise ValueError(f"latent site '{empty[0]}' has a shape of zero entries; check the sizes it is made from.")


def _first(mask: np.ndarray[Any, Any]) -> str:
    if mask.ndim == 0:
        return "its only entry"
    index = tuple(int(i) for i in np.argwhere(mask)[0])
    return f"index {index[0] if len(index) == 1 else index}"
