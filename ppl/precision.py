"""Numbers of single precision that a model has met outside of itself."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..ad.equations import shaped
from .log_density import TracedModel

_NARROW = tuple(jnp.dtype(name) for name in ("float16", "bfloat16", "float32"))


class PrecisionWarning(UserWarning):
    """A model that computes with fewer digits than its run."""


def warn_of_precision(traced: TracedModel, model: str) -> None:
    """Warn of arrays and parameters of distributions that were made outside of the model, in JAX's single precision.

    Arguments of a model are converted when they are bound, so these are what its function closes over.
    """
    if not jax.config.jax_enable_x64:
        return
    found = [f"an array of shape {np.shape(array)}" for array in traced.data if array.dtype in _NARROW]
    for equation in traced.density.program.equations:
        found += [
            f"the number {float(atom.val):.7g}"
            for atom in equation.invars
            if isinstance(atom, Literal) and shaped(atom)[1] in _NARROW and not getattr(atom.aval, "weak_type", False)
        ]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        warnings.warn(
            f"model '{model}' computes with {found[0]} in {_NARROW[-1]}{more}, which was made outside of it, where JAX "
            f"keeps 7 digits. Make distributions and arrays of JAX inside the model, or make data with NumPy and pass "
            f"them as arguments.",
            PrecisionWarning,
            stacklevel=4,
        )
