"""Running a model for a purpose: to discover its sites, to evaluate its log density, to invert its bijections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..ad.errors import NEEDS_NUMBERS
from .bring.refusal import refusing_numpyro
from .model import BoundModel
from .placeholders import TracingError
from .recorder import InspectGiven, Recorder
from .sources import AtOrigin, Inverted, Unconstrained
from .trace import Trace


def discover(model: BoundModel, inspect: InspectGiven | None = None, *, concrete: bool = False) -> Trace:
    """Find the sites of a model, on abstract values of its random variables.

    A model that looks at their values (`if theta > 0:`) is run at the origin of unconstrained space instead.

    Args:
        model: the model.
        inspect: is shown every observed site, and once more with concrete values if the model computes some of
            them with `jax.numpy`.
        concrete: evaluate everything that data determine on the spot, which is slower.
    """
    found: list[Trace] = []

    def run(zero: jax.Array) -> None:
        # What a model computes with JAX cannot be looked at while its log density is traced: nothing is missing there.
        computed = {name for trace in found for name in _computed(trace)}
        with refusing_numpyro(model.name):
            found.append(Recorder(model, AtOrigin(zero), inspect=inspect, complete=computed).run())

    scalar = jax.ShapeDtypeStruct((), jnp.result_type(float))
    try:
        if not concrete:
            jax.eval_shape(run, scalar)
        if concrete or _computed(found[0]):
            # An observed value that the model computes, such as obs=jnp.log(y): once more with everything that does
            # not depend on `zero` evaluated on the spot, so that it can be inspected.
            with jax.ensure_compile_time_eval():
                jax.eval_shape(run, scalar)
    except NEEDS_NUMBERS as error:
        note = error.__notes__[0]
        # A dual number has a value for Python to look at, and still tells what depends on random variables.
        zero = jnp.zeros((), scalar.dtype)
        try:
            jax.jvp(run, (zero,), (zero,))
        except NEEDS_NUMBERS as again:
            raise TracingError(note) from again
        found[-1].looks_at = note
    return found[-1]


def _computed(trace: Trace) -> list[str]:
    """Observed sites whose values the model computes with JAX."""
    return [site.name for site in trace.sites.values() if isinstance(site.obs, jax.core.Tracer)]


def evaluate(model: BoundModel, unconstrained: Mapping[str, Any]) -> Trace:
    """Values and terms of the log density at unconstrained values of the latent variables, by site."""
    return Recorder(model, Unconstrained(unconstrained), with_terms=True).run()


def unconstrain(
    model: BoundModel, values: Mapping[str, Any], otherwise: Mapping[str, Any], key: Any = None
) -> dict[str, Any]:
    """Unconstrained values that correspond to constrained ones.

    Args:
        model: the model.
        values: constrained values of some of the latent variables.
        otherwise: unconstrained values of the other continuous ones.
        key: to draw the other discrete ones with, given the sites before them.

    Returns:
        By latent site, its unconstrained array.
    """
    source = Inverted(values, otherwise, jax.random.key(0) if key is None else key)
    Recorder(model, source).run()
    return source.produced
