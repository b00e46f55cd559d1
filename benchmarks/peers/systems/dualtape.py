"""dualtape: `sample` as it is, and with the fastest adtype instead of the default one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..problems import Problem
from .base import AbstractSystem, Outcome, Settings, by_component


def default() -> Any:
    """No adtype named: the default one."""
    return None


def fastest() -> Any:
    """The fastest on this model; measuring that counts as compile time."""
    from dualtape import AutoFastest

    return AutoFastest()


@dataclass(frozen=True)
class Dualtape(AbstractSystem):
    """With all defaults but the adtype.

    Args:
        adtype: gives it; a function, so that naming a system imports nothing.
    """

    adtype: Callable[[], Any] = default

    @property
    def packages(self) -> tuple[str, ...]:
        """The library and what it stands on."""
        return "dualtape", "jax", "jaxlib", "numpyro"

    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """Phases and counts are those that the result records."""
        from dualtape import SamplingWarning, sample

        from ..dualtape_models import bind

        with warnings.catch_warnings():
            # Divergences are counted below.
            warnings.simplefilter("ignore", SamplingWarning)
            idata = sample(
                bind(problem),
                draws=settings.draws,
                warmup=settings.warmup,
                chains=settings.chains,
                seed=settings.seed,
                adtype=self.adtype(),
                progress=False,
            )
        attrs, statistics = idata.attrs, idata["sample_stats"]
        values = {str(name): array.values for name, array in idata["posterior"].data_vars.items()}
        before = attrs.get("gradients_warmup")
        return Outcome(
            float(attrs["seconds_compile"]),
            float(attrs["seconds_warmup"]),
            float(attrs["seconds_sampling"]),
            None if before is None else int(before),
            int(statistics["n_steps"].sum()),
            int(statistics["diverging"].sum()),
            by_component(values, problem.reference),
        )
