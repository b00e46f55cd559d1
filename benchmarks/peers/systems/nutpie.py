"""PyMC models, sampled by nutpie: compiled by numba, chains in threads of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from ..problems import Problem
from .base import AbstractSystem, Outcome, Settings, by_component, divided


@dataclass(frozen=True)
class Nutpie(AbstractSystem):
    """Its metric is learned from draws and gradients.

    Args:
        adaptation: "diag", its default, or "low_rank" for a correction of low rank to the diagonal.
    """

    adaptation: Literal["diag", "low_rank"] = "diag"

    @property
    def packages(self) -> tuple[str, ...]:
        """Nutpie and what it stands on."""
        return "nutpie", "pymc", "pytensor", "numba"

    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """The wall clock of `sample` is divided by the numbers of gradients."""
        import os

        import nutpie
        import pymc as pm

        from ..pymc_models import MODELS

        began = time.perf_counter()
        with pm.Model() as model:
            MODELS[problem.name](problem.data)
        compiled = nutpie.compile_pymc_model(model)
        ready = time.perf_counter()
        trace = nutpie.sample(
            compiled,
            draws=settings.draws,
            tune=settings.warmup,
            chains=settings.chains,
            cores=min(settings.chains, os.cpu_count() or 1),
            seed=settings.seed,
            progress_bar=False,
            adaptation=self.adaptation,
        )
        wall = time.perf_counter() - ready
        before = int(trace["warmup_sample_stats"]["n_steps"].sum())
        after = int(trace["sample_stats"]["n_steps"].sum())
        warmup, sampling = divided(wall, [before], [after])
        values = {str(name): array.values for name, array in trace["posterior"].data_vars.items()}
        divergences = int(trace["sample_stats"]["diverging"].sum())
        draws = by_component(values, problem.reference)
        return Outcome(ready - began, warmup, sampling, before, after, divergences, draws)
