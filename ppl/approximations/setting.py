"""What `optimize`, `laplace`, `pathfinder` and `advi` have in common: a model as an objective, and the result."""

from __future__ import annotations

import dataclasses
import math
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...ad.adtypes import AbstractADType, check_adtype
from ...ad.errors import DifferentiationError
from ...samplers.approximations.objective import Objective
from ...samplers.approximations.pareto import Smoothed
from ...samplers.executables import compile_soon
from ...samplers.hamiltonian import check_integer
from ..arguments import check_model
from ..arviz import to_arviz
from ..attributes import common_attributes, names_of_dimensions
from ..checks import check_given, check_sampleable
from ..constrained import Batch, ConstrainedValues
from ..initialization import check_initial_values, explain_failure, proposals
from ..interpreters import discover
from ..log_density import TracedModel, trace_model
from ..model import BoundModel
from ..trace import Trace

HostArray = np.ndarray[Any, Any]


class ApproximationWarning(UserWarning):
    """Something in an estimate or approximation that its user should look at."""


@dataclass(frozen=True)
class Setting:
    """A model, traced, and all that its approximation starts from.

    Args:
        owner: the function of the face, for messages.
        model: with its data.
        found: what `discover` found.
        traced: the same, traced.
        given: initial values by site, one dict a start.
        seed: of everything random.
    """

    owner: str
    model: BoundModel
    found: Trace
    traced: TracedModel
    given: list[dict[str, Any]]
    seed: int

    @property
    def dtype(self) -> Any:
        """Of positions: that of floating-point numbers in this context."""
        return np.dtype(jnp.result_type(float))

    @classmethod
    def of(
        cls,
        owner: str,
        model: object,
        *,
        init: Mapping[str, Any] | None,
        starts: int,
        seed: int | None,
    ) -> Setting:
        """Trace a model; to be called with 64-bit numbers on.

        Args:
            owner: the function of the face.
            model: with its data.
            init: initial values by site, for all starts or with a leading dimension of length `starts`.
            starts: how many.
            seed: None draws one.

        Raises:
            TypeError, ValueError: on bad arguments, data outside their support, or a model without latent sites.
        """
        bound = check_model(owner, model)
        check_integer(owner, "seed", 0 if seed is None else seed, 0)
        found = discover(bound, check_given)
        check_sampleable(found, bound.name)
        given = check_initial_values(bound, init, found, starts)
        seed = secrets.randbits(32) if seed is None else int(seed)
        return cls(owner, bound, found, trace_model(bound, found), given, seed)

    def objective(self, adtype: AbstractADType | None, terms: Sequence[str] | None = None) -> Objective:
        """The unconstrained log density, or some of its terms, with its gradient.

        Raises:
            TypeError: if `adtype` is no adtype.
            ValueError: naming the site, where one is discrete.
            DifferentiationError: where `adtype` cannot differentiate it.
        """
        if adtype is not None:
            check_adtype(adtype, f"{self.owner}: adtype")
        density = self.traced.density
        if terms is not None:
            density = dataclasses.replace(density, terms={name: density.terms[name] for name in terms})
        try:
            return Objective.of(self.owner, density.restrict(density.sites), self.traced.data, adtype, self.dtype)
        except DifferentiationError as error:
            if self.found.looks_at:
                error.add_note(self.found.looks_at)
            raise

    def start(self, objective: Objective, number: int) -> HostArray:
        """Where start `number` begins, shape (dimension,): it depends on the seed and on the number alone.

        Raises:
            ValueError: where no point has a finite log density and gradient.
        """
        return next(self.points(objective, number))

    def starts(self, objective: Objective) -> list[HostArray]:
        """Where the starts begin; those that begin where another one does are left out.

        Raises:
            ValueError: where no point has a finite log density and gradient.
        """
        every = [self.start(objective, number) for number in range(len(self.given))]
        return [own for i, own in enumerate(every) if not any(np.array_equal(own, other) for other in every[:i])]

    def points(self, objective: Objective, number: int) -> Iterator[HostArray]:
        """Points where start `number` may begin, each with a finite log density and gradient; at least one.

        Raises:
            ValueError: where there is none.
        """
        position, fine = np.zeros(objective.dimension), False
        for position in self.proposals(number):
            value, gradient = objective.value_and_gradient(position)
            if math.isfinite(value) and np.isfinite(gradient).all():
                fine = True
                yield position
        if not fine:
            raise ValueError(explain_failure(self.traced, position, self.given[number]))

    def proposals(self, number: int) -> Iterator[HostArray]:
        """Points where start `number` might begin."""
        rng = np.random.default_rng([self.seed, number])
        return proposals(self.model, self.traced, self.given[number], rng, self.dtype)

    def rng(self) -> np.random.Generator:
        """Random numbers that no start uses."""
        return np.random.default_rng([self.seed, 1 << 32])

    def result(
        self,
        objective: Objective,
        algorithm: object,
        positions: HostArray,
        statistics: Mapping[str, HostArray],
        attrs: Mapping[str, Any],
    ) -> Any:
        """The ArviZ object of one chain.

        Args:
            objective: whose gradient was used.
            algorithm: as the user would write it.
            positions: unconstrained, shape (draws, dimension).
            statistics: by name, shape (draws,).
            attrs: of this algorithm.
        """
        traced, report = self.traced, objective.report(repr(algorithm))
        batch = Batch.of(traced, len(positions), self.dtype)
        program = compile_soon(batch.values, *batch.arguments).result().call
        posterior = ConstrainedValues(batch.rows, batch.shapes, program)(positions[None], traced.data)
        dims = names_of_dimensions(traced, self.found)
        coords: dict[str, Any] = {name: plate.labels for name, plate in traced.plates.items()}
        coords["chain"] = [0]
        described = {
            **common_attributes(self.model.name, [report], ("dualtape", "jax", "numpyro", "numpy", "scipy")),
            "seed": self.seed,
            "adtype": report.adtype or "",
            "adtype_reason": report.reason or "",
            **attrs,
        }
        groups = {
            "posterior": posterior,
            "sample_stats": {name: np.asarray(value)[None] for name, value in statistics.items()},
            "observed_data": {name: np.asarray(value) for name, value in traced.observed.items()},
            "constant_data": {name: np.asarray(value) for name, (value, _) in self.found.fixed.items()},
        }
        return to_arviz(groups, dims=dims, coords=coords, attrs=described)


def warn_of_weights(owner: str, weights: Smoothed, remedy: str) -> None:
    """Warn where importance weights say that an approximation is not like the posterior."""
    if not weights.trusted:
        warnings.warn(
            f"{owner}: the Pareto k-hat of the importance weights is {weights.k:.2f}, above {weights.limit:.2f}: "
            f"the approximation is not like the posterior, and weighting cannot mend it. {remedy}",
            ApproximationWarning,
            stacklevel=3,
        )
