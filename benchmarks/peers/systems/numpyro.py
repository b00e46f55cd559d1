"""NumPyro: its NUTS on a hand-written flat log density, and on a model as its users write it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..problems import Problem
from .base import AbstractSystem, Outcome, Settings, by_component, divided

PACKAGES = ("numpyro", "jax", "jaxlib")


@dataclass(frozen=True)
class NumPyro(AbstractSystem):
    """With `potential_fn`, and a compiled loop of our own around its kernel, which adapts by itself."""

    @property
    def packages(self) -> tuple[str, ...]:
        """NumPyro and what it stands on."""
        return PACKAGES

    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """One program for warm-up and sampling, where both are equally long."""
        import jax
        import jax.numpy as jnp
        from numpyro.infer import NUTS

        from ..densities import DENSITIES
        from .jax_chains import Chain, Programs, run_chains

        jax.config.update("jax_enable_x64", True)
        density = DENSITIES[problem.name](problem.data)
        kernel = NUTS(potential_fn=lambda q: -density.log_density(q))

        def advance(length: int) -> Any:
            def one(state: Any, _: None) -> Any:
                state = kernel.sample(state, (), {})
                return state, (state.z, state.num_steps, state.diverging)

            def loop(state: Any) -> Any:
                state, (positions, steps, diverging) = jax.lax.scan(one, state, None, length=length)
                return state, positions, jnp.sum(steps), jnp.sum(diverging)

            return jax.jit(loop)

        def build(positions: Any) -> Programs:
            keys = list(jax.random.split(jax.random.key(settings.seed), settings.chains))
            init = jax.jit(lambda key, position: kernel.init(key, settings.warmup, position))
            states = [init(key, position) for key, position in zip(keys, positions, strict=True)]
            programs = {
                length: advance(length).lower(states[0]).compile() for length in {settings.warmup, settings.draws}
            }

            def draw(_: int, warmed: Any) -> Chain:
                _, positions, gradients, divergences = programs[settings.draws](warmed[0])
                return Chain(positions, warmed[2], gradients, divergences)

            return Programs(lambda chain, _: programs[settings.warmup](states[chain]), draw)

        return run_chains(problem, density, settings, build)


@dataclass(frozen=True)
class NumPyroModel(AbstractSystem):
    """With a model and `MCMC`, chains on a device each."""

    @property
    def packages(self) -> tuple[str, ...]:
        """NumPyro and what it stands on."""
        return PACKAGES

    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """The compile time is what JAX reports from within the call.

        Wall clock less that is divided by the numbers of gradients. Those of warm-up come from a warm-up of its own
        with the same key, outside all phases.
        """
        import jax
        import numpyro
        from numpyro.infer import MCMC, NUTS

        numpyro.set_host_device_count(settings.chains)
        numpyro.enable_x64()

        from ..numpyro_models import MODELS
        from .jax_chains import compile_clock

        key = jax.random.key(settings.seed)
        began = time.perf_counter()
        with compile_clock() as clock:
            mcmc = self._mcmc(MCMC, NUTS(MODELS[problem.name](problem.data)), settings)
            mcmc.run(key, extra_fields=("num_steps", "diverging"))
            fields = jax.block_until_ready(mcmc.get_extra_fields(group_by_chain=True))
            values = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
        wall = time.perf_counter() - began
        again = self._mcmc(MCMC, NUTS(MODELS[problem.name](problem.data)), settings)
        again.warmup(key, collect_warmup=True, extra_fields=("num_steps",))
        before = int(again.get_extra_fields()["num_steps"].sum())
        after = int(fields["num_steps"].sum())
        warmup, sampling = divided(wall - clock.seconds, [before], [after])
        draws = by_component(values, problem.reference)
        return Outcome(clock.seconds, warmup, sampling, before, after, int(fields["diverging"].sum()), draws)

    def _mcmc(self, mcmc: Any, kernel: Any, settings: Settings) -> Any:
        return mcmc(
            kernel,
            num_warmup=settings.warmup,
            num_samples=settings.draws,
            num_chains=settings.chains,
            chain_method="parallel",
            progress_bar=False,
        )
