"""What can be wrong with a model before anything is compiled, said by site and index."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .interpreters import Site, Trace
from .transforms import describe_support, is_discrete


def check_data(trace: Trace) -> None:
    """Refuse observed values that are not finite or lie outside the support of their distribution.

    Values and supports that depend on latent variables are passed over: they have no fixed value.

    Raises:
        ValueError: naming the site, how many values are wrong, and the first of them.
    """
    for site in trace.sites.values():
        if site.obs is not None and not isinstance(site.obs, jax.core.Tracer):
            _check_finite(site)
            _check_support(site)


def check_sampleable(trace: Trace, model: str) -> None:
    """Refuse a model without latent variables, and one with discrete latent variables.

    Raises:
        ValueError: naming the sites.
    """
    latent = [site for site in trace.sites.values() if site.obs is None]
    if not latent:
        raise ValueError(
            f"model '{model}' has no latent sites: everything in it is observed or fixed, so there is nothing to "
            f"sample. Leave out obs=, or use decondition, for the sites to infer."
        )
    empty = [site.name for site in latent if 0 in site.distribution.shape()]
    if empty:
        raise ValueError(f"latent site '{empty[0]}' has a shape of zero entries; check the sizes it is made from.")
    discrete = [site for site in latent if is_discrete(site.distribution)]
    if discrete:
        site = discrete[0]
        raise ValueError(
            f"latent site '{site.name}' is discrete ({type(site.distribution).__name__}), and gradient-based "
            f"samplers need continuous sites. Ways out: sum it out of the model (for a mixture, "
            f"dist.MixtureSameFamily or a `factor` with logsumexp over its values), or observe it."
        )


def _check_finite(site: Site) -> None:
    value = np.asarray(site.obs)
    # Infinite values can be in a support (censoring bounds); NaN never is.
    bad = np.isnan(value) if value.dtype.kind == "f" else np.zeros(value.shape, bool)
    if bad.any():
        raise ValueError(
            f"observed site '{site.name}' has {bad.sum()} NaN (first at {_first(bad)}); remove these rows, or make "
            f"them latent variables of their own."
        )


def _check_support(site: Site) -> None:
    try:
        with jax.ensure_compile_time_eval():
            inside = site.distribution.support(site.obs)
    except jax.errors.JAXTypeError:
        return
    if isinstance(inside, jax.core.Tracer):
        return
    ok = np.asarray(inside)
    if not ok.all():
        value = np.asarray(site.obs)
        where = _first(~ok)
        example = value[tuple(np.argwhere(~ok)[0])] if ok.ndim else value
        raise ValueError(
            f"observed site '{site.name}' has {(~ok).sum()} value(s) outside the support of "
            f"{type(site.distribution).__name__}, {describe_support(site.distribution)}: the first is {example} "
            f"at {where}. Correct the data or choose a distribution that can produce it."
        )


def _first(mask: np.ndarray[Any, Any]) -> str:
    if mask.ndim == 0:
        return "its only entry"
    index = tuple(int(i) for i in np.argwhere(mask)[0])
    return f"index {index[0] if len(index) == 1 else index}"
