"""Running a model for a purpose: to discover its sites, to evaluate its log density, to invert its bijections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ..ad.errors import NEEDS_NUMBERS
from .densities import log_density
from .language import AbstractInterpreter, Plate
from .model import BoundModel
from .transforms import constrain, describe, is_discrete, unconstrain_value, unconstrained_shapes

Dims = tuple[str, ...] | None


@dataclass(frozen=True)
class Site:
    """What is known of a random variable after one run of the model; no array of that run is kept but `obs`.

    Args:
        name: of the site.
        family: name of its distribution.
        shape: of its value.
        unconstrained_shape: of the array behind the value: for a discrete site the value's own shape.
        index_shape: of the leading dimensions of that array that can be told apart: its entries are transformed
            independently of each other.
        discrete: whether its values are discrete.
        obs: the observed value, or None for a latent site.
        dims: names of its dimensions, or None where nothing is known of them.
    """

    name: str
    family: str
    shape: tuple[int, ...]
    unconstrained_shape: tuple[int, ...]
    index_shape: tuple[int, ...]
    discrete: bool
    obs: Any
    dims: Dims

    @property
    def is_latent(self) -> bool:
        """Whether it is to be sampled."""
        return self.obs is None


@dataclass
class Trace:
    """What one run of a model declared, in order."""

    sites: dict[str, Site] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    deterministics: dict[str, tuple[Any, Dims]] = field(default_factory=dict)
    fixed: dict[str, tuple[Any, Dims]] = field(default_factory=dict)
    plates: dict[str, Plate] = field(default_factory=dict)


# Dimensions that every result has.
_RESERVED = frozenset({"chain", "draw", "block"})

# From a latent site to its value and the log Jacobian of its bijection.
LatentValue = Callable[[str, Distribution], tuple[Any, Any | None]]
# From a site and its distribution to an unconstrained value.
Otherwise = Callable[[str, Distribution], Any]
# Looks at a value that data or the user give to a site, while its distribution is alive. The first argument is what to
# call the site in messages, the second its name.
InspectGiven = Callable[[str, str, Distribution, Any], None]


class Recorder(AbstractInterpreter):
    """Runs a model with given values for its latent variables and records everything that it declares.

    Args:
        model: whose conditions and interventions apply.
        latent: gives the value of a latent variable.
        with_terms: whether to evaluate the terms of the log density.
        inspect: is shown every observed and every fixed site.
    """

    def __init__(
        self, model: BoundModel, latent: LatentValue, *, with_terms: bool, inspect: InspectGiven | None = None
    ) -> None:
        self.model = model
        self.latent = latent
        self.with_terms = with_terms
        self.inspect = inspect
        self.trace = Trace()

    def run(self) -> Trace:
        """Run the model once.

        Raises:
            ValueError: on a repeated name, a shape that does not fit, or a condition on an unknown site.
        """
        self.model.run(self)
        self._check_names_given_by_user()
        self._check_names_of_dimensions()
        return self.trace

    def random_variable(
        self, name: str, distribution: Distribution, obs: Any, dims: Dims, plates: tuple[Plate, ...]
    ) -> Any:
        """See `AbstractInterpreter.random_variable`."""
        self._claim(name, plates)
        distribution = _expand_to_plates(name, distribution, plates)
        if name in self.model.interventions:
            value = self._given(f"fixed site '{name}'", name, distribution, self.model.interventions[name])[1]
            self.trace.fixed[name] = (value, _dims(name, dims, plates, np.shape(value), len(distribution.event_shape)))
            return value
        observed = self.model.conditions.get(name, obs)
        if observed is None or name in self.model.latents:
            if observed is not None:
                # What the data would have been has the shape of the data, plate or no plate.
                distribution = _expand_to_given(f"site '{name}'", distribution, np.shape(observed))
            return self._latent(name, distribution, dims, plates)
        distribution, value = self._given(f"observed site '{name}'", name, distribution, observed)
        self._note(name, distribution, value, dims, plates, obs=value)
        self._add_term(name, distribution, value, latent=False)
        return value

    def _given(self, title: str, name: str, distribution: Distribution, value: Any) -> tuple[Distribution, Any]:
        """A given value as an array, and the distribution in its shape."""
        value = _as_given(title, distribution, value)
        distribution = _expand_to_given(title, distribution, np.shape(value))
        if self.inspect is not None:
            self.inspect(title, name, distribution, value)
        return distribution, value

    def _latent(self, name: str, distribution: Distribution, dims: Dims, plates: tuple[Plate, ...]) -> Any:
        value, log_jacobian = self.latent(name, distribution)
        self._note(name, distribution, value, dims, plates, obs=None)
        self.trace.values[name] = value
        self._add_term(name, distribution, value, latent=True)
        if self.with_terms and log_jacobian is not None:
            self.trace.terms[f"log|J| {name}"] = log_jacobian
        return value

    def deterministic(self, name: str, value: Any, dims: Dims, plates: tuple[Plate, ...]) -> None:
        """See `AbstractInterpreter.deterministic`."""
        self._claim(name, plates)
        self.trace.deterministics[name] = (value, _dims(name, dims, plates, np.shape(value)))

    def factor(self, name: str, log_weight: Any) -> None:
        """See `AbstractInterpreter.factor`."""
        self._claim(name, ())
        # Noted even in a run without terms, so that its name is known.
        self.trace.terms[name] = jnp.sum(jnp.asarray(log_weight))

    def _note(
        self, name: str, distribution: Distribution, value: Any, dims: Dims, plates: tuple[Plate, ...], obs: Any
    ) -> None:
        shape = np.shape(value)
        discrete = is_discrete(distribution)
        hidden, index = unconstrained_shapes(name, distribution) if obs is None else (shape, shape)
        named = _dims(name, dims, plates, shape, len(distribution.event_shape))
        self.trace.sites[name] = Site(name, describe(distribution), shape, hidden, index, discrete, obs, named)

    def _add_term(self, name: str, distribution: Distribution, value: Any, *, latent: bool) -> None:
        if not self.with_terms:
            return
        # Bijections keep latent values in the support, and data have been checked; a value that the model computes from
        # latent ones can be anywhere.
        inside = latent or not isinstance(value, jax.core.Tracer)
        # As a JAX array: some supports are checked with NumPy where the value is NumPy's, tracer or not.
        term = log_density(distribution, jnp.asarray(value), inside=inside)
        if latent and is_discrete(distribution):
            # A bijection keeps continuous values in their support; whole numbers can be proposed anywhere.
            term = jnp.where(distribution.support(value), term, -jnp.inf)
        self.trace.terms[name] = jnp.sum(term)
        self.trace.distributions[name] = distribution

    def _claim(self, name: str, plates: tuple[Plate, ...]) -> None:
        trace = self.trace
        if name in trace.sites or name in trace.deterministics or name in trace.fixed or name in trace.terms:
            raise ValueError(f"site '{name}' is declared twice; give each site of a model a name of its own.")
        for plate in plates:
            known = trace.plates.setdefault(plate.name, plate)
            if known != plate:
                how = (
                    "with other labels than before"
                    if plate.size == known.size
                    else f"with size {plate.size} and with size {known.size}"
                )
                raise ValueError(f"plate '{plate.name}' is opened {how}; give different plates different names.")

    def _check_names_given_by_user(self) -> None:
        declared = self.trace.sites.keys() | self.trace.fixed.keys()
        for word, names in (
            ("condition", self.model.conditions.keys()),
            ("decondition", self.model.latents),
            ("fix", self.model.interventions.keys()),
        ):
            for name in sorted(names):
                if name not in declared:
                    known = ", ".join(f"'{site}'" for site in self.trace.sites | self.trace.fixed)
                    raise ValueError(f"{word}: model '{self.model.name}' has no site '{name}'; it has {known}.")

    def _check_names_of_dimensions(self) -> None:
        """What ArviZ would stumble over only when all draws are made."""
        trace = self.trace
        sizes = {plate.name: plate.size for plate in trace.plates.values()}
        named = {site.name: (site.shape, site.dims) for site in trace.sites.values()}
        named |= {name: (np.shape(value), dims) for name, (value, dims) in (trace.deterministics | trace.fixed).items()}
        for name, (shape, dims) in named.items():
            if "/" in name:
                raise ValueError(f"site '{name}': a name with '/' would be a path in the result; use another sign.")
            for dim, size in zip(dims or (), shape, strict=bool(dims)):
                if sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"site '{name}': its dimension '{dim}' has size {size}, and elsewhere in the model size "
                        f"{sizes[dim]}; give different dimensions different names."
                    )
            if dims and len(set(dims)) < len(dims):
                raise ValueError(f"site '{name}': dims {dims} name two dimensions alike; give each its own name.")
        for name in sorted(named.keys() & sizes.keys()):
            raise ValueError(f"'{name}' would name both a variable and a dimension of the result; rename one of them.")
        for name in sorted((named.keys() | sizes.keys()) & _RESERVED):
            raise ValueError(
                f"'{name}' is the name of a dimension of every result ({', '.join(sorted(_RESERVED))} are); "
                f"rename the site, plate or dimension."
            )


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
        def latent(name: str, distribution: Distribution) -> tuple[Any, None]:
            origin = jnp.zeros(unconstrained_shapes(name, distribution)[0]) + zero
            return constrain(name, distribution, origin)[0], None

        found.append(Recorder(model, latent, with_terms=False, inspect=inspect).run())

    scalar = jax.ShapeDtypeStruct((), jnp.result_type(float))
    try:
        if not concrete:
            jax.eval_shape(run, scalar)
        if concrete or any(isinstance(site.obs, jax.core.Tracer) for site in found[0].sites.values()):
            # An observed value that the model computes, such as obs=jnp.log(y): once more with everything that does
            # not depend on `zero` evaluated on the spot, so that it can be inspected.
            with jax.ensure_compile_time_eval():
                jax.eval_shape(run, scalar)
    except NEEDS_NUMBERS:
        # A dual number has a value for Python to look at, and still tells what depends on random variables.
        zero = jnp.zeros((), scalar.dtype)
        jax.jvp(run, (zero,), (zero,))
    return found[-1]


def evaluate(model: BoundModel, unconstrained: dict[str, Any]) -> Trace:
    """Values and terms of the log density at unconstrained values of the latent variables, by site."""

    def at(name: str, distribution: Distribution) -> tuple[Any, Any | None]:
        if name not in unconstrained:
            raise ValueError(
                f"site '{name}' appeared only now: the model declared other sites before. "
                f"The sites of a model must not depend on values or change between calls."
            )
        return constrain(name, distribution, unconstrained[name])

    return Recorder(model, at, with_terms=True).run()


def unconstrain(model: BoundModel, values: dict[str, Any], otherwise: Otherwise) -> dict[str, Any]:
    """Unconstrained values that correspond to constrained ones.

    Args:
        model: the model.
        values: constrained values of some of the latent variables.
        otherwise: gives the unconstrained values of the others, from their names and distributions.
    """
    result: dict[str, Any] = {}

    def invert(name: str, distribution: Distribution) -> tuple[Any, None]:
        if name in values:
            value = jnp.asarray(values[name])
            result[name] = unconstrain_value(name, distribution, value)
            return value.astype(jnp.result_type(int if is_discrete(distribution) else float)), None
        result[name] = otherwise(name, distribution)
        return constrain(name, distribution, result[name])[0], None

    Recorder(model, invert, with_terms=False).run()
    return result


def _expand_to_plates(name: str, distribution: Distribution, plates: tuple[Plate, ...]) -> Distribution:
    if not plates:
        return distribution
    sizes = tuple(plate.size for plate in plates)
    batch = tuple(distribution.batch_shape)
    try:
        wanted = np.broadcast_shapes(batch, sizes)
    except ValueError:
        wanted = ()
    if wanted[len(wanted) - len(sizes) :] != sizes:
        opened = ", ".join(f"'{plate.name}' of size {plate.size}" for plate in plates)
        raise ValueError(
            f"site '{name}': its distribution has batch shape {batch}, which does not fit into plate {opened}; "
            f"parameters inside plates must have the plates' sizes, or 1, as their last dimensions."
        )
    return distribution if wanted == batch else distribution.expand(wanted)


def _as_given(title: str, distribution: Distribution, value: Any) -> Any:
    """The value as an array, of a floating dtype where the support is continuous."""
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
        if value.dtype.kind not in "biuf":
            raise TypeError(
                f"{title} holds {value.dtype} values; convert them to numbers, "
                f"for example with numpy.asarray(values, float)."
            )
    if not is_discrete(distribution) and value.dtype.kind in "biu":
        value = value.astype(jnp.result_type(float))
    return value


def _expand_to_given(title: str, distribution: Distribution, shape: tuple[int, ...]) -> Distribution:
    own = tuple(distribution.shape())
    try:
        fits = np.broadcast_shapes(own, shape) == shape
    except ValueError:
        fits = False
    events = len(distribution.event_shape)
    if not fits or (events and shape[len(shape) - events :] != tuple(distribution.event_shape)):
        raise ValueError(
            f"{title} has shape {shape}, but its distribution has shape {own}; the distribution "
            f"must have the shape of the data or broadcast to it. Check for a transposed or unsqueezed array."
        )
    return distribution if own == shape else distribution.expand(shape[: len(shape) - events])


def _dims(name: str, dims: Dims, plates: tuple[Plate, ...], shape: tuple[int, ...], events: int | None = None) -> Dims:
    """Names for the dimensions of a value: the user's, else those of the plates where they stand.

    Plates are the last dimensions before those of an event. Of a derived value it is not known how many these are:
    there the plates come first if the sizes allow, else last.
    """
    if dims is not None:
        if len(dims) != len(shape):
            raise ValueError(
                f"site '{name}': dims {dims} name {len(dims)} dimension(s), but its shape is {shape}; name all of "
                f"them, those of the plates included."
            )
        return dims
    sizes = tuple(plate.size for plate in plates)
    last = len(shape) - len(sizes)
    for first in (0, last) if events is None else (last - events,):
        if sizes and first >= 0 and shape[first : first + len(sizes)] == sizes:
            before = tuple(f"{name}_dim_{i}" for i in range(first))
            after = tuple(f"{name}_dim_{i}" for i in range(first + len(sizes), len(shape)))
            return (*before, *(plate.name for plate in plates), *after)
    return None
