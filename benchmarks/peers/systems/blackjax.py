"""BlackJAX: its NUTS on a hand-written flat log density, after its own warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..problems import Problem
from .base import AbstractSystem, Outcome, Settings


@dataclass(frozen=True)
class BlackJAX(AbstractSystem):
    """Its warm-up goes by Stan's windows.

    Args:
        metric: what `staged_adaptation` learns the metric by: "welford_diag" is its `window_adaptation`,
            "fisher_diag" looks at gradients, too.
    """

    metric: str = "welford_diag"

    @property
    def packages(self) -> tuple[str, ...]:
        """BlackJAX and what it stands on."""
        return "blackjax", "jax", "jaxlib"

    def run(self, problem: Problem, settings: Settings) -> Outcome:
        """Two programs, since warm-up and sampling are two functions of the library."""
        import blackjax
        import jax
        import jax.numpy as jnp
        from blackjax.adaptation.base import get_filter_adapt_info_fn
        from blackjax.adaptation.staged_adaptation import staged_adaptation

        from ..densities import DENSITIES
        from .jax_chains import Chain, Programs, run_chains

        jax.config.update("jax_enable_x64", True)
        density = DENSITIES[problem.name](problem.data)
        adaptation = staged_adaptation(
            blackjax.nuts,
            density.log_density,
            self.metric,
            adaptation_info_fn=get_filter_adapt_info_fn(info_keys={"num_integration_steps"}),
        )

        def warm(key: Any, position: Any) -> Any:
            (state, parameters), info = adaptation.run(key, position, settings.warmup)
            return state, parameters, jnp.sum(info.info.num_integration_steps)

        def sample(key: Any, state: Any, parameters: Any) -> Any:
            step = blackjax.nuts(density.log_density, **parameters).step

            def one(state: Any, key: Any) -> Any:
                state, info = step(key, state)
                return state, (state.position, info.num_integration_steps, info.is_divergent)

            positions, steps, divergent = jax.lax.scan(one, state, jax.random.split(key, settings.draws))[1]
            return positions, jnp.sum(steps), jnp.sum(divergent)

        def build(positions: Any) -> Programs:
            keys = jax.random.split(jax.random.key(settings.seed), (settings.chains, 2))
            compiled = jax.jit(warm).lower(keys[0, 0], positions[0]).compile()
            shapes = jax.eval_shape(warm, keys[0, 0], positions[0])
            program = jax.jit(sample).lower(keys[0, 1], shapes[0], shapes[1]).compile()
            # Taken apart before threads run, since indexing compiles.
            by_chain = [(keys[i, 0], keys[i, 1]) for i in range(settings.chains)]

            def draw(chain: int, warmed: Any) -> Chain:
                positions, gradients, divergences = program(by_chain[chain][1], warmed[0], warmed[1])
                return Chain(positions, warmed[2], gradients, divergences)

            return Programs(lambda chain, position: compiled(by_chain[chain][0], jnp.asarray(position)), draw)

        return run_chains(problem, density, settings, build)
