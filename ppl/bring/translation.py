"""The primitives of NumPyro, said in the words of the language."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.distributions.distribution import Unit
from numpyro.primitives import _PYRO_STACK, Messenger

from ..language import deterministic, factor, rv, scan

Message = dict[str, Any]

# Distributions that say something of another one without changing its values.
_AROUND = (dist.ExpandedDistribution, dist.Independent, dist.MaskedDistribution)


class Translation(Messenger):  # type: ignore[misc]
    """A handler that gives each primitive the meaning it has in the language; the outermost that takes part.

    Raises:
        NotImplementedError: at a primitive without one; naming it, with the way out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.series = (f"scan_{i}" if i else "scan" for i in itertools.count())
        self.in_scan: list[dict[str, Any]] = []

    def process_message(self, msg: Message) -> None:
        """Translate one message. What handlers outside of the model think of it does not count."""
        kind = msg["type"]
        translate = getattr(self, f"_{kind}", None)
        if translate is None:
            raise NotImplementedError(
                f"from_numpyro: the model has a site '{msg.get('name', kind)}' of type '{kind}', which has no meaning "
                f"in a log density; leave it out, or write this part with rv in a @model."
            )
        msg["stop"] = True
        translate(msg)

    def _sample(self, msg: Message) -> None:
        name, distribution, value = _name(msg), msg["fn"], msg["value"]
        self._refuse_whole_series(msg["name"])
        own, mask = _unwrapped(distribution)
        if isinstance(own, Unit):
            factor(name, _scaled(distribution.log_prob(value), msg["scale"]))
            return
        repeated = tuple(msg["kwargs"].get("sample_shape", ()))
        if repeated and value is None:
            distribution = distribution.expand(repeated + tuple(distribution.batch_shape))
        if value is not None:
            # Handlers give latent sites values, too: `substitute` and `condition` are the same to a log density.
            value = _feasible(value, own, mask)
            shape = np.broadcast_shapes(np.shape(value), tuple(distribution.shape()))
            value = value if np.shape(value) == shape else jnp.broadcast_to(value, shape)
        shape = tuple(distribution.shape()) if value is None else np.shape(value)
        dims = _dims(name, msg["cond_indep_stack"], shape, distribution.event_dim)
        msg["value"] = rv(name, distribution, obs=value, dims=dims)
        if msg["scale"] is not None:
            term = distribution.log_prob(msg["value"])
            # What is impossible stays so, at any scale.
            rest = jnp.where(jnp.isfinite(term), _scaled(term, msg["scale"]) - term, 0.0)
            factor(f"{name} scaled", **{"prior" if value is None else "likelihood": rest})

    def _deterministic(self, msg: Message) -> None:
        name, shape = _name(msg), np.shape(msg["value"])
        plates = msg.get("cond_indep_stack", [])
        fitting = (events for events in range(len(shape) + 1) if _dims(name, plates, shape, events))
        events = next(fitting, None)
        deterministic(name, msg["value"], dims=None if events is None else _dims(name, plates, shape, events))

    def _plate(self, msg: Message) -> None:
        size, chosen = msg["args"]
        if msg["value"] is None:
            raise NotImplementedError(
                f"from_numpyro: plate '{msg['name']}' takes {chosen} of {size} rows at random, which makes the log "
                f"density a random number, and no sampler here corrects for that; leave out subsample_size."
            )

    def _subsample(self, msg: Message) -> None:
        """All rows are there already."""

    def _inspect(self, msg: Message) -> None:
        """What encloses the site is known already."""

    def _param(self, msg: Message) -> None:
        if msg["value"] is None:
            raise NotImplementedError(
                f"from_numpyro: param '{msg['name']}' is to be optimised and has no prior; give it one with "
                f"numpyro.sample or handlers.lift(fn, prior={{'{msg['name']}': ...}}), or a value with "
                f"handlers.substitute(fn, data={{'{msg['name']}': ...}})."
            )

    def _mutable(self, msg: Message) -> None:
        raise NotImplementedError(
            f"from_numpyro: mutable '{msg['name']}' changes from run to run, and a log density must not; make it an "
            f"argument of the model."
        )

    def _prng_key(self, msg: Message) -> None:
        if msg["kwargs"]["rng_key"] is None:
            raise NotImplementedError(
                "from_numpyro: the model asks for random numbers (numpyro.prng_key, or a site hidden by "
                "handlers.block or freed by handlers.uncondition), and a log density has none; for numbers that are "
                "drawn once write handlers.seed(fn, rng_seed=0), and for handlers.uncondition use "
                "from_numpyro(...).decondition(site)."
            )

    def _control_flow(self, msg: Message) -> None:
        if msg["fn"].__name__ != "scan_wrapper":
            raise NotImplementedError(
                "from_numpyro: contrib.control_flow.cond has no translation, since the sites of a model must not "
                "depend on values; declare the sites of both branches and choose between their values with jnp.where."
            )
        given = [data for _, data in msg["kwargs"]["substitute_stack"]]
        if not all(isinstance(data, Mapping) for data in given) or any(map(_varies, _PYRO_STACK)):
            raise NotImplementedError(
                "from_numpyro: a handler around contrib.control_flow.scan (condition or substitute with a function, "
                "replay, or a mask or scale that is an array) says something else for each step; put it into the "
                "function that is scanned, or use from_numpyro(...).condition(...)."
            )
        step, carry, xs, length, reverse = (*msg["args"], False)[:5]
        if reverse:
            xs = jax.tree.map(lambda x: jnp.flip(x, 0), xs)
        self.in_scan.append({name: value for data in given for name, value in data.items()})
        try:
            last, ys = scan(next(self.series), step, carry, xs, length)
        finally:
            self.in_scan.pop()
        if reverse:
            ys = jax.tree.map(lambda y: jnp.flip(y, 0), ys)
        # As NumPyro's own: the number of steps, a key and the carry; then the sites to be declared, none, and results.
        msg["value"] = ((length, None, last), (SimpleNamespace(trace={}), ys))

    def _refuse_whole_series(self, name: str) -> None:
        if any(name in given for given in self.in_scan):
            raise NotImplementedError(
                f"from_numpyro: site '{name}' stands in contrib.control_flow.scan, and a handler around it gives it a "
                f"value; use from_numpyro(...).condition({{'{name}': values}}) with the values of all steps."
            )


def _name(msg: Any) -> str:
    """The name of a site or plate; with NumPyro's sign for a scope it would be a path in the result."""
    name = msg["name"] if isinstance(msg, Mapping) else msg.name
    return str(name).replace("/", ".")


def _varies(handler: Any) -> bool:
    """Whether a handler says something else for each element."""
    return bool(
        (isinstance(handler, handlers.mask) and np.ndim(handler.mask))
        or (isinstance(handler, handlers.scale) and np.ndim(handler.scale))
    )


def _scaled(term: Any, scale: Any) -> Any:
    return term if scale is None else scale * term


def _unwrapped(distribution: Distribution) -> tuple[Distribution, Any]:
    """The distribution inside, and which entries of a value count: None for all of them."""
    mask: Any = None
    while isinstance(distribution, _AROUND):
        if isinstance(distribution, dist.MaskedDistribution) and distribution._mask is not True:
            # Of the shape of the value, whatever has been declared around the mask.
            own = jnp.asarray(distribution._mask)
            own = own.reshape(own.shape + (1,) * distribution.event_dim)
            mask = own if mask is None else mask & own
        distribution = distribution.base_dist
    return distribution, mask


def _feasible(value: Any, distribution: Distribution, mask: Any) -> Any:
    """A given value with possible numbers where it does not count, which is where NaN often stands."""
    if mask is None:
        return value
    filled = distribution.support.feasible_like(jnp.asarray(value))
    shape = np.broadcast_shapes(np.shape(value), np.shape(mask))
    return jnp.where(jnp.broadcast_to(mask, shape), value, jnp.broadcast_to(filled, shape))


def _dims(name: str, plates: Any, shape: tuple[int, ...], events: int) -> tuple[str, ...] | None:
    """Names for the dimensions of a value, those of the plates where they stand; None where these do not fit."""
    if not plates:
        return None
    dims = [f"{name}_dim_{i}" for i in range(len(shape))]
    for plate in plates:
        place = len(shape) - events + plate.dim
        if place < 0 or shape[place] != plate.size:
            return None
        dims[place] = _name(plate)
    return tuple(dims)
