"""Running a model and recording everything that it declares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ..ad.errors import NEEDS_NUMBERS
from . import censoring  # noqa: F401 - registers its log densities
from .densities import log_density, unchecked
from .fitting import as_given, expand_to_given, expand_to_plates, named_dims
from .inputs import Labelled, in_order_of
from .interpreter import AbstractInterpreter, Dims, Plate, Weight
from .missing import completed, entries_of, known_entries, labels_of, missing_in, observed_density
from .model import BoundModel, Model
from .placeholders import hint, looked_at
from .scanning import run_steps
from .sources import AbstractSource
from .trace import Site, Trace
from .transforms import describe, is_discrete, unconstrained_shapes

# Looks at a value that data or the user give to a site, while its distribution is alive. The first argument is what to
# call the site in messages, the second its name.
InspectGiven = Callable[[str, str, Distribution, Any], None]


class Recorder(AbstractInterpreter):
    """Runs a model with given values for its latent variables and records everything that it declares.

    Args:
        model: whose conditions and interventions apply.
        source: of the values of latent variables.
        with_terms: whether to evaluate the terms of the log density.
        pointwise: whether to keep them before they are summed.
        inspect: is shown every observed and every fixed site.
        complete: observed sites in which nothing counts as missing.
    """

    def __init__(
        self,
        model: BoundModel,
        source: AbstractSource,
        *,
        with_terms: bool = False,
        pointwise: bool = False,
        inspect: InspectGiven | None = None,
        complete: Collection[str] = (),
    ) -> None:
        self.model = model
        self.source = source
        self.with_terms = with_terms
        self.pointwise = pointwise
        self.inspect = inspect
        self.complete = complete
        self.prefix = ""
        self.conditions = dict(model.conditions)
        self.latents = set(model.latents)
        self.interventions = dict(model.interventions)
        self.trace = Trace(marginalized=dict.fromkeys(sorted(model.marginalized)), initial=dict(model.initial))

    def run(self) -> Trace:
        """Run the model once.

        Raises:
            ValueError: on a repeated name, a shape that does not fit, or a condition on an unknown site.
        """
        try:
            self.trace.returned = self.model.run(self)
        except NEEDS_NUMBERS as error:
            error.add_note(looked_at(error, self.model.name, self.trace.values))
            raise
        except (TypeError, ValueError) as error:
            note = hint(error, self.model.name)
            if note:
                error.add_note(note)
            raise
        self._check_names_given_by_user()
        self.trace.check_names_of_dimensions()
        return self.trace

    def part(self, source: AbstractSource, conditions: Mapping[str, Any], interventions: Mapping[str, Any]) -> Recorder:
        """A recorder for a part of the model that has a trace of its own."""
        other = Recorder(self.model, source, with_terms=self.with_terms, pointwise=self.pointwise, inspect=self.inspect)
        other.prefix, other.latents, other.complete = self.prefix, self.latents, self.complete
        other.conditions, other.interventions = dict(conditions), dict(interventions)
        other.trace = Trace()
        return other

    def qualified(self, name: str) -> str:
        """See `AbstractInterpreter.qualified`."""
        return self.prefix + name

    def random_variable(
        self, name: str, distribution: Distribution, obs: Any, dims: Dims, plates: tuple[Plate, ...]
    ) -> Any:
        """See `AbstractInterpreter.random_variable`."""
        name = self.prefix + name
        self.trace.claim(name, plates)
        distribution = expand_to_plates(name, distribution, plates)
        if name in self.interventions:
            value = self._given(f"fixed site '{name}'", name, distribution, self.interventions[name])[1]
            named = named_dims(name, dims, plates, np.shape(value), len(distribution.event_shape))
            self.trace.fixed[name] = (value, named)
            return value
        observed = self.conditions.get(name, obs)
        if observed is None or name in self.latents:
            if observed is not None:
                # What the data would have been has the shape of the data, plate or no plate.
                distribution = expand_to_given(f"site '{name}'", distribution, np.shape(observed))
            return self._latent(name, distribution, dims, plates)
        if name in self.conditions:
            self.trace.conditioned.add(name)
        observed, dims = self._in_order(name, observed, dims, plates)
        missing = None if name in self.complete else missing_in(observed)
        if missing is not None:
            return self._partly_observed(name, distribution, np.ma.filled(observed, 0), missing, dims, plates)
        distribution, value = self._given(f"observed site '{name}'", name, distribution, observed)
        self._note(name, distribution, value, dims, plates, obs=value)
        self._add_term(name, distribution, value, latent=False)
        self.trace.likelihood[name] = None
        return value

    def _in_order(self, name: str, observed: Any, dims: Dims, plates: tuple[Plate, ...]) -> tuple[Any, Dims]:
        """An array whose dimensions have names, in the order of the plates; these names, where there are no plates."""
        if not isinstance(observed, Labelled) or observed.dims is None or dims is not None:
            return observed, dims
        names = tuple(plate.name for plate in plates)
        if not plates:
            for dim, size in zip(observed.dims, observed.shape, strict=True):
                own = Plate(dim, size, observed.coords.get(dim))
                self.trace.claim_dimension(own)
            return observed, observed.dims
        if set(names) == set(observed.dims):
            return in_order_of(f"observed site '{name}'", observed, plates), dims
        return observed, dims

    def _given(self, title: str, name: str, distribution: Distribution, value: Any) -> tuple[Distribution, Any]:
        """A given value as an array, and the distribution in its shape."""
        value = as_given(title, distribution, value)
        distribution = expand_to_given(title, distribution, np.shape(value))
        if self.inspect is not None:
            self.inspect(title, name, distribution, value)
        return distribution, value

    def _latent(self, name: str, distribution: Distribution, dims: Dims, plates: tuple[Plate, ...]) -> Any:
        value, log_jacobian = self.source.value(name, distribution)
        self.trace.values[name] = value
        self._note(name, distribution, value, dims, plates, obs=None)
        self._add_term(name, distribution, value, latent=True)
        self._add_jacobian(name, log_jacobian)
        return value

    def _partly_observed(
        self,
        name: str,
        distribution: Distribution,
        given: Any,
        missing: np.ndarray[Any, Any],
        dims: Dims,
        plates: tuple[Plate, ...],
    ) -> Any:
        """Observed values among which some are missing: these become a latent site of their own."""
        title, label = f"observed site '{name}'", f"{name}_missing"
        distribution = expand_to_given(title, distribution, np.shape(given))
        entries = entries_of(name, distribution, missing)
        if self.inspect is not None:
            self.inspect(title, name, distribution, completed(given, entries, entries.inside()))
        hidden, log_jacobian = self.source.value(label, entries)
        labels = self._labels_along(named_dims(name, dims, plates, np.shape(given), len(distribution.event_shape)))
        index = self._claim_entries(label, labels_of(entries.mask, labels[: entries.mask.ndim]))
        self.trace.values[label] = hidden
        self._note(label, entries, hidden, None, (index,), obs=None)
        value = completed(given, entries, hidden)
        self._note(name, distribution, value, dims, plates, obs=np.where(missing, np.nan, given))
        if self.with_terms:
            elements = jnp.asarray(self._elements(distribution, value, latent=False))
            owned = entries.owned(elements.shape)
            if self.pointwise and owned.ndim < missing.ndim:
                self._add_by_event(name, label, distribution, elements, np.asarray(given), missing)
                self.trace.likelihood[name] = None
                return value
            self._add(label, elements[owned], (index.name,))
            self._add_jacobian(label, log_jacobian)
            given = Plate(f"{name}_observed_index", int((~owned).sum()), labels_of(~owned, labels[: owned.ndim]))
            self._add(name, elements[~owned], (given.name,))
            if self.pointwise:
                self.trace.plates[given.name] = given
            known = known_entries(distribution, entries)
            if known is not None:
                self.trace.distributions[label] = known
        self.trace.likelihood[name] = None
        return value

    def _add_by_event(
        self,
        name: str,
        label: str,
        distribution: Distribution,
        elements: Any,
        given: np.ndarray[Any, Any],
        missing: np.ndarray[Any, Any],
    ) -> None:
        """The terms of vectors of which some are missing in part: what is observed of each, and the rest given that."""
        observed = observed_density(name, distribution, given, missing)
        events = tuple(range(elements.ndim, missing.ndim))
        holes, seen = missing.any(axis=events), ~missing.all(axis=events)
        self._add(label, (elements - observed)[holes], None)
        kept = Plate(f"{name}_observed_index", int(seen.sum()), labels_of(seen))
        self._add(name, observed[seen], (kept.name,))
        self.trace.plates[kept.name] = kept

    def _labels_along(self, dims: Dims) -> list[tuple[Any, ...] | None]:
        """The labels along each dimension, None where it has none."""
        return [self.trace.plates[dim].coords if dim in self.trace.plates else None for dim in dims or ()]

    def entries(self, label: str, entries: Distribution, labels: tuple[Any, ...]) -> Any:
        """Missing entries as a latent site of their own, labelled with where they stand."""
        return self._latent(label, entries, None, (self._claim_entries(label, labels),))

    def _claim_entries(self, label: str, labels: tuple[Any, ...]) -> Plate:
        """Take the name of a latent site of entries, and that of its dimension."""
        index = Plate(f"{label}_index", len(labels), labels)
        self.trace.claim(label)
        self.trace.claim(index.name)
        self.trace.plates[index.name] = index
        return index

    def replace_term(self, name: str, elements: Any, dims: Dims, labels: tuple[Any, ...]) -> None:
        """Put a term in the place of another, with labels for its elements."""
        self._add(name, elements, dims)
        if self.pointwise and dims:
            self.trace.plates[dims[0]] = Plate(dims[0], len(labels), labels)

    def deterministic(self, name: str, value: Any, dims: Dims, plates: tuple[Plate, ...]) -> None:
        """See `AbstractInterpreter.deterministic`."""
        name = self.prefix + name
        self.trace.claim(name, plates)
        self.trace.deterministics[name] = (value, named_dims(name, dims, plates, np.shape(value)))

    def factor(self, name: str, weight: Weight, plates: tuple[Plate, ...]) -> None:
        """See `AbstractInterpreter.factor`."""
        name = self.prefix + name
        self.trace.claim(name)
        # Noted even in a run without terms, so that its name is known.
        if weight.likelihood is not None:
            likelihood = jnp.asarray(weight.likelihood)
            self._add(name, likelihood, named_dims(name, None, plates, likelihood.shape))
            self.trace.likelihood[name] = None
        if weight.prior is not None:
            prior, label = jnp.asarray(weight.prior), name if weight.likelihood is None else f"{name} (prior)"
            self._add(label, prior, named_dims(name, None, plates, prior.shape))

    def submodel(self, name: str, model: BoundModel) -> Any:
        """See `AbstractInterpreter.submodel`."""
        name = self.prefix + name
        if isinstance(model, Model):
            raise TypeError(f"submodel '{name}': '{model.name}' has no data yet; call it: {model.name}(...).")
        if not isinstance(model, BoundModel):
            raise TypeError(f"submodel '{name}': expected a model with its data, got {model!r}.")
        if name in self.trace.submodels:
            raise ValueError(f"submodel '{name}' is used twice; give each use of a submodel a name of its own.")
        self.trace.submodels.add(name)
        outer, self.prefix = self.prefix, f"{name}."
        settled = self.conditions.keys() | self.latents | self.interventions.keys()
        own = {
            word: {self.prefix + site: value for site, value in values.items() if self.prefix + site not in settled}
            for word, values in (("condition", model.conditions), ("fix", model.interventions))
        }
        self.conditions |= own["condition"]
        self.interventions |= own["fix"]
        self.latents |= {self.prefix + site for site in model.latents} - settled
        self.trace.marginalized |= {self.prefix + site: None for site in sorted(model.marginalized)}
        self.trace.initial = {self.prefix + site: value for site, value in model.initial.items()} | self.trace.initial
        try:
            return model.call()
        finally:
            self.prefix = outer

    def scan(
        self, time: Plate, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, plates: tuple[Plate, ...]
    ) -> tuple[Any, Any]:
        """See `AbstractInterpreter.scan`."""
        return run_steps(self, time, step, carry, xs, plates)

    def _note(
        self, name: str, distribution: Distribution, value: Any, dims: Dims, plates: tuple[Plate, ...], obs: Any
    ) -> None:
        shape = np.shape(value)
        discrete = is_discrete(distribution)
        latent = obs is None and self.source.has_coordinates
        hidden, index = unconstrained_shapes(name, distribution) if latent else (shape, shape)
        named = named_dims(name, dims, plates, shape, len(distribution.event_shape))
        self.trace.sites[name] = Site(name, describe(distribution), shape, hidden, index, discrete, obs, named)

    def _add_term(self, name: str, distribution: Distribution, value: Any, *, latent: bool) -> None:
        if self.with_terms:
            elements, dims = self._elements(distribution, value, latent=latent), self.trace.sites[name].dims
            self._add(name, elements, dims and dims[: jnp.ndim(elements)])
            self.trace.distributions[name] = distribution

    def _add_jacobian(self, name: str, log_jacobian: Any | None) -> None:
        if self.with_terms and log_jacobian is not None:
            self.trace.terms[f"log|J| {name}"] = log_jacobian

    def _add(self, name: str, elements: Any, dims: Dims) -> None:
        if self.pointwise:
            self.trace.elements[name], self.trace.element_dims[name] = elements, dims
        self.trace.terms[name] = jnp.sum(elements)

    @staticmethod
    def _elements(distribution: Distribution, value: Any, *, latent: bool) -> Any:
        # Bijections keep latent values in the support, and data have been checked; a value that the model computes from
        # latent ones can be anywhere.
        inside = latent or not isinstance(value, jax.core.Tracer)
        # As a JAX array: some supports are checked with NumPy where the value is NumPy's, tracer or not.
        value = jnp.asarray(value)
        if latent and is_discrete(distribution):
            # A bijection keeps continuous values in their support; whole numbers can be proposed anywhere.
            return jnp.where(distribution.support(value), log_density(unchecked(distribution), value), -jnp.inf)
        return log_density(distribution, value, inside=inside)

    def _check_names_given_by_user(self) -> None:
        declared = self.trace.names_of()
        for word, names in (
            ("condition", self.conditions.keys()),
            ("decondition", self.latents),
            ("fix", self.interventions.keys()),
            ("marginalize", self.trace.marginalized.keys()),
        ):
            for name in sorted(names):
                if name not in declared:
                    known = ", ".join(f"'{site}'" for site in declared)
                    raise ValueError(f"{word}: model '{self.model.name}' has no site '{name}'; it has {known}.")
