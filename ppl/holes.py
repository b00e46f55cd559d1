"""Missing data in a time series: known before the loop begins, they are completed there."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, ImproperUniform, biject_to

from .missing import Mask, labels_of
from .transforms import elementary

if TYPE_CHECKING:
    from .recorder import Recorder

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Holes:
    """The missing entries of an observed site of a time series.

    Their distributions are made inside of the loop, step by step. Before it they are values of the support, and the
    loop adds the density that they have there.

    Args:
        name: of the site.
        data: with NaN where they are missing, time first.
        mask: where that is.
        support: of the site.
        along: labels along its dimensions, None where there are none.
    """

    name: str
    data: HostArray
    mask: Mask
    support: Any
    along: Sequence[Sequence[Any] | None]

    @property
    def label(self) -> str:
        """The name of the latent site that they become."""
        return f"{self.name}_missing"

    @property
    def labels(self) -> tuple[Any, ...]:
        """Where each entry stands."""
        return labels_of(self.mask, self.along)

    @functools.cached_property
    def entries(self) -> Distribution:
        """What is known of them beforehand.

        Raises:
            ValueError: where that is not enough: of whole numbers, vectors, and supports that depend on the state.
        """
        why = None
        if self.support.is_discrete:
            why = "whole numbers"
        elif self.support.event_dim or elementary(biject_to(self.support)).domain.event_dim:
            why = "vectors, or angles"
        elif any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self.support)):
            why = "values whose support depends on the state"
        if why:
            raise ValueError(
                f"observed site '{self.name}' of a scan has {self.mask.sum()} NaN, and its values are {why}, which "
                f"cannot be missing there; leave these steps out, or weight their term with factor(...) and a mask."
            )
        return ImproperUniform(self.support, (int(self.mask.sum()),), ())

    @property
    def inside(self) -> Any:
        """Values inside of the support."""
        return biject_to(self.entries.support)(jnp.zeros(int(self.mask.sum())))

    def completed(self, hidden: Any) -> Any:
        """The data with values in the places of the missing ones."""
        dtype = jnp.result_type(float)
        return jnp.asarray(np.nan_to_num(self.data), dtype).at[np.nonzero(self.mask)].set(hidden)

    def split_terms(self, recorder: Recorder) -> None:
        """Take what the missing entries add to the term of the site out of it."""
        trace = recorder.trace
        if not recorder.with_terms:
            return
        elements = trace.elements[self.name]
        recorder.replace_term(self.label, elements[self.mask], (f"{self.label}_index",), self.labels)
        given = ~self.mask
        recorder.replace_term(
            self.name, elements[given], (f"{self.name}_observed_index",), labels_of(given, self.along)
        )
