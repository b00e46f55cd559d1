"""`check_sampler`: does a sampler, or a composition of samplers, leave a model's joint distribution as it is?

Parameters θ and data y are drawn from the model; then the sampler moves θ given y, the model draws y given θ, and so
on in turns. If the sampler is right, (θ, y) still follow the model's joint distribution, whatever the number of turns.
Many independent runs start from exact draws, so their ends are exact and independent too, and are compared with exact
draws by moments and cross-moments. No reference posterior is needed; nothing is approximate but the sample's size.

Source: Geweke (2004), "Getting it right: joint distribution tests of posterior simulators"; Gandy and Scott (2020),
"Unit testing for MCMC and other Monte Carlo methods", for the independent runs.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from ...samplers.base import AbstractKernel, AbstractSampler, Block, Target
from ...samplers.compilation import CompiledChain, compile_chain
from ...samplers.composition import Sampler, build_kernel
from ...samplers.exact import ExactKernel
from ...samplers.gibbs import Gibbs
from ...samplers.random import chain_key, fold_in
from ..arguments import check_model_and_sampler
from ..interpreters import discover
from ..log_density import TracedModel, trace_model
from ..model import BoundModel
from ..trace import Trace
from .checked import SamplerCheck, compare

HostArray = np.ndarray[Any, Any]

# How many snapshots of a run are compared: more than one, and of even and odd turns, or what only flips goes unseen.
_SNAPSHOTS = 5
# Exact draws are cheap: so many times as many as there are runs add little to the uncertainty.
_REFERENCE = 5
# What is wrong with a sampler shows within these, or hardly at all; more runs would be better then.
_MOST_TURNS = 100


@dataclass(frozen=True)
class Simulate(AbstractSampler):
    """Draw sites that nothing else depends on from their own distributions, given the rest."""

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.with_prior()

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`."""
        return ExactKernel(repr(self), _Drawn(target), "exact: draws the data")


@dataclass(frozen=True)
class _Drawn:
    """A prior as the target: what is left of the density is no function of the block."""

    prior: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def draw(self, key: Any, *constants: Any) -> Any:
        return self.prior.draw_prior(key, *constants)


def check_sampler(
    model: BoundModel,
    sampler: Sampler,
    *,
    replicates: int = 4000,
    warmup: int = 300,
    seconds: float = 30.0,
    turns: int | None = None,
    seed: int = 0,
) -> SamplerCheck:
    """Test a sampler on a model by the joint distribution of parameters and data; print the verdict.

    Only the shapes of the data matter, and arguments that are not observed, such as covariates: the data themselves are
    simulated. The sampler adapts in one run of turns first and is frozen then.

    Args:
        model: with its data. Every term must be the density of a site: a `factor` cannot be simulated.
        sampler: as for `sample`.
        replicates: independent runs, each from an exact draw.
        warmup: turns in which the sampler adapts.
        seconds: about how long the runs may take, on all cores; it sets the number of turns.
        turns: in each run, instead; at least 5.
        seed: of everything.

    Returns:
        A `SamplerCheck`: `ok`, `z` by moment, and `plot(path)`. |z| > 4.5 is a failure; a right sampler has one such
        value in about 150 000.

    Raises:
        TypeError, ValueError: on bad arguments, or a model that cannot be simulated.

    Example:
        `assert check_sampler(gdemo(1.5, 2.0), Gibbs({"m": HMC(0.1, 5), "s": NUTS()})).ok`

    Source: Geweke (2004), "Getting it right: joint distribution tests of posterior simulators".
    """
    _check_arguments(model, sampler, replicates=replicates, warmup=warmup, seconds=seconds, turns=turns)
    found = discover(model)
    observed = tuple(site.name for site in found.sites.values() if not site.is_latent)
    latent = tuple(site.name for site in found.sites.values() if site.is_latent)
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        traced = _joint(model, found, observed)
        composition = Gibbs({latent: sampler, observed: Simulate()}) if observed else Gibbs({latent: sampler})
        kernel = build_kernel(composition, traced.density, np.dtype(float))
        whole = traced.density.restrict(traced.density.sites)
        exact = _exact_draws(traced, _REFERENCE * replicates, seed)
        compiled = compile_chain(kernel, whole, traced.data, np.dtype(float), max(_SNAPSHOTS, warmup))
        runs = _Runs(compiled, seed)
        tuning = runs.warm_up(exact[0], warmup)
        if turns is None:
            turns = runs.affordable(exact, tuning, seconds, replicates)
        ends = runs.run_all(exact[:replicates], tuning, turns)
        constrained = jax.jit(jax.vmap(traced.constrained, in_axes=(0, *(None for _ in traced.data))))
        values = constrained(ends.reshape(-1, ends.shape[-1]), *traced.data)
        reference = constrained(exact, *traced.data)
    shape, compared = ends.shape[:2], (*latent, *observed)
    check = compare(
        repr(sampler),
        model.name,
        {name: np.asarray(reference[name]) for name in compared},
        {name: np.asarray(values[name]).reshape(*shape, *values[name].shape[1:]) for name in compared},
        latent,
        turns,
    )
    print(check)
    return check


@dataclass(frozen=True)
class _Runs:
    """Independent runs of one compiled program."""

    compiled: CompiledChain
    seed: int

    def warm_up(self, position: HostArray, warmup: int) -> Any:
        """The tuning that the sampler learns."""
        compiled, kernel = self.compiled, self.compiled.kernel
        walk, done = compiled.set_out(compiled.init(position)[0], kernel.init_tuning()), 0
        for border in kernel.schedule(warmup):
            while done < border:
                count = min(border - done, compiled.rows)
                walk, _ = compiled.advance(walk, chain_key(self.seed, 0), done, count, 1, True)
                done += count
            walk = compiled.retune(walk, border, warmup)
        # On the host, where many runs can begin with it.
        return jax.tree.map(np.asarray, compiled.tuning(walk))

    def affordable(self, exact: HostArray, tuning: Any, seconds: float, replicates: int) -> int:
        """How many turns fit into a time."""
        started, tried = time.perf_counter(), 0
        while time.perf_counter() - started < 0.02 * seconds:
            self.run(exact[tried % len(exact)], tuning, tried, _SNAPSHOTS)
            tried += 1
        pace = (time.perf_counter() - started) / (tried * _SNAPSHOTS)
        turns = seconds * min(os.cpu_count() or 1, 4) / (pace * replicates)
        return int(min(max(turns, _SNAPSHOTS), _MOST_TURNS))

    def run(self, position: HostArray, tuning: Any, number: int, turns: int) -> HostArray:
        """Snapshots of one run, shape (snapshots, dimension)."""
        # An odd distance, so that snapshots are of even and odd turns.
        apart = max(turns // _SNAPSHOTS - (1 - turns // _SNAPSHOTS % 2), 1)
        key = np.asarray(chain_key(self.seed, 1 + number))
        walk = self.compiled.set_out(self.compiled.init(position)[0], tuning)
        _, rows = self.compiled.advance(walk, key, 0, apart * _SNAPSHOTS, apart, False)
        return rows[:, : self.compiled.dimension].copy()

    def run_all(self, exact: HostArray, tuning: Any, turns: int) -> HostArray:
        """Snapshots of all runs, shape (runs, snapshots, dimension)."""

        def one(number: int) -> HostArray:
            with jax.enable_x64(True):
                return self.run(exact[number], tuning, number, turns)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return np.stack(list(pool.map(one, range(len(exact)))))


def _joint(model: BoundModel, found: Trace, observed: Sequence[str]) -> TracedModel:
    """The model with its data as random variables.

    Raises:
        ValueError: naming what cannot be simulated.
    """
    joint = model.decondition(*observed) if observed else model
    traced = trace_model(joint, discover(joint))
    for term in traced.density.terms:
        if term not in traced.density.sites and not term.startswith("log|J| "):
            raise ValueError(
                f"check_sampler: '{term}' is a factor, which adds to the density but cannot be simulated; check the "
                f"sampler on a model without it, or write it as an observed site."
            )
    return traced


def _exact_draws(traced: TracedModel, count: int, seed: int) -> HostArray:
    """Draws of parameters and data from the model, unconstrained, shape (count, dimension)."""
    prior: Any = traced.density.restrict(traced.density.sites).with_prior().target
    anywhere = jnp.zeros(traced.density.dimension)
    given = prior.given.at(anywhere, traced.data)
    keys = jax.vmap(lambda i: fold_in(chain_key(seed, 0), i))(jnp.arange(count, dtype=jnp.int32))
    draws = np.asarray(jax.jit(jax.vmap(lambda key: prior.draw_prior(key, *given)))(keys))
    if not np.isfinite(draws).all():
        column = int(np.flatnonzero(~np.isfinite(draws).all(0))[0])
        stretches = traced.density.coordinates.slices.items()
        site = next(name for name, where in stretches if where.start <= column < where.stop)
        raise ValueError(
            f"check_sampler: draws of site '{site}' from the model are not finite or on the border of its support; "
            f"use narrower priors for the check."
        )
    return draws


def _check_arguments(model: object, sampler: object, **numbers: Any) -> None:
    check_model_and_sampler("check_sampler", model, sampler)
    lowest: Mapping[str, float] = {"replicates": 100, "warmup": 0, "seconds": 0, "turns": _SNAPSHOTS}
    for name, value in numbers.items():
        if value is None and name == "turns":
            continue
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= lowest[name]):
            raise ValueError(f"check_sampler: {name} must be a number >= {lowest[name]:g}, got {value!r}.")
