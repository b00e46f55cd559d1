"""What `optimize` maximises: `MAP` and `MLE`, by the terms of the log density that they count."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from ..log_density import TracedModel


class AbstractObjective(abc.ABC):
    """What is maximised: a frozen value."""

    @abc.abstractmethod
    def terms(self, traced: TracedModel) -> list[str]:
        """Names of the terms of the log density that count.

        Raises:
            ValueError: naming the sites, where the maximum would not be defined.
        """


@dataclass(frozen=True)
class MAP(AbstractObjective):
    """The maximum a posteriori: the mode of the posterior density  p(θ | y) ∝ p(y | θ) p(θ).

    Args:
        jacobian: whether to add log |det ∂θ/∂q|, which gives the mode of the density of the unconstrained q, the one
            that `laplace` expands around. Without it the mode is that of the parameters as the model declares them.
    """

    jacobian: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.jacobian, bool):
            raise TypeError(f"MAP: jacobian must be True or False, got {self.jacobian!r}.")

    def terms(self, traced: TracedModel) -> list[str]:
        """See `AbstractObjective.terms`."""
        jacobians = set() if self.jacobian else {f"log|J| {site}" for site in traced.density.sites}
        return [term for term in traced.density.terms if term not in jacobians]


@dataclass(frozen=True)
class MLE(AbstractObjective):
    """The maximum likelihood estimate: the maximum of  p(y | θ),  observed sites and factors; priors do not count."""

    def terms(self, traced: TracedModel) -> list[str]:
        """See `AbstractObjective.terms`."""
        density = traced.density
        terms = list(traced.likelihood)
        if not terms:
            raise ValueError(
                "MLE: the model has no observed site and no factor, so it has no likelihood; condition it on data "
                "(model | {'site': values}), or use MAP()."
            )
        reach = density.program.dependencies()
        reached = set().union(*(reach[density.terms[term]] for term in terms))
        absent = [f"'{site}'" for i, site in enumerate(density.sites) if i not in reached]
        if absent:
            raise ValueError(
                f"MLE: the likelihood does not depend on {', '.join(absent)}, so there is no maximum over it. Use "
                f"MAP(), or give it a value with fix(...)."
            )
        return terms
