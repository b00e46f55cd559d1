"""Stan through pystan, in an environment of its own: it needs Python 3.11 and a C++ compiler."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..problems import Problem
from .base import AbstractSystem, Outcome, Settings, divided

_ELAPSED = re.compile(r"([0-9.eE+-]+) seconds \((Warm-up|Sampling)\)")


@dataclass(frozen=True)
class Stan(AbstractSystem):
    """Its NUTS with a diagonal metric; pystan runs as many chains at once as there are cores, a process each."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Pystan and what it stands on."""
        return "pystan", "httpstan"

    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """Stan's clock runs in each chain; chains share the cores evenly.

        The first repetition compiles anew, later ones find the program in pystan's cache. That one also counts the
        gradients of warm-up, by a run that keeps them, outside all phases.
        """
        import httpstan.cache
        import httpstan.models
        import stan

        code = problem.source.stan()
        data = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in problem.data.items()
        }
        name = httpstan.models.calculate_model_name(code)
        if settings.repeat == 0:
            httpstan.cache.delete_model_directory(name)
        # With a seed, a fit too would come from the cache.
        shutil.rmtree(httpstan.cache.model_directory(name) / "fits", ignore_errors=True)
        with contextlib.redirect_stdout(sys.stderr):
            began = time.perf_counter()
            model = stan.build(code, data=data, random_seed=settings.seed)
            built = time.perf_counter()
            fit = model.sample(num_chains=settings.chains, num_warmup=settings.warmup, num_samples=settings.draws)
            wall = time.perf_counter() - built
            before = _warmup_gradients(model, settings) if settings.repeat == 0 else None
        warmup, sampling = _own_clock(fit)
        cores = min(settings.chains, os.cpu_count() or 1)
        total = (sum(warmup) + sum(sampling)) / cores
        return Outcome(
            built - began,
            *divided(total, warmup, sampling),
            before,
            int(_by_name(fit)["n_leapfrog__"].sum()),
            int(_by_name(fit)["divergent__"].sum()),
            _components(fit, problem),
            {"seconds_with_transfer": wall},
        )


def _own_clock(fit: Any) -> tuple[list[float], list[float]]:
    """Seconds of each chain in both phases, as Stan prints them at its end."""
    found: dict[str, list[float]] = {"Warm-up": [], "Sampling": []}
    for output in fit.stan_outputs:
        # The same lines also stand among the draws.
        logged = "".join(line for line in output.decode().splitlines() if '"logger"' in line)
        for seconds, phase in _ELAPSED.findall(logged):
            found[phase].append(float(seconds))
    if not len(found["Warm-up"]) == len(found["Sampling"]) == len(fit.stan_outputs):
        raise ValueError(f"expected two times from each of {len(fit.stan_outputs)} chains of Stan, got {found}.")
    return found["Warm-up"], found["Sampling"]


def _warmup_gradients(model: Any, settings: Settings) -> int:
    """With the same seed and one draw, warm-up is the same; it is kept here."""
    fit = model.sample(num_chains=settings.chains, num_warmup=settings.warmup, num_samples=1, save_warmup=True)
    return int(_by_name(fit)["n_leapfrog__"][:, : settings.warmup].sum())


def _by_name(fit: Any) -> dict[str, Any]:
    """Draws of each of Stan's columns, of shape (chains, draws)."""
    names = (*fit.sample_and_sampler_param_names, *fit.constrained_param_names)
    return {name: fit._draws[i].T for i, name in enumerate(names)}


def _components(fit: Any, problem: Problem) -> dict[str, Any]:
    columns = _by_name(fit)
    # Stan's columns are called `theta.1.2`.
    return {wanted: columns[re.sub(r"[\[,]", ".", wanted).rstrip("]")] for wanted in problem.reference}
