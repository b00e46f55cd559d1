"""Metropolis-Hastings: a random walk that adapts, independent draws from the prior, or the user's own proposal.

A proposal is a value: it moves a position and says by what the Hastings correction weighs the move. The kernel around
it is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from ..ad.naming import Written
from .base import (
    AbstractKernel,
    AbstractSampler,
    Array,
    Block,
    BlockReport,
    Constants,
    PriorTarget,
    Target,
    ValuesTarget,
    block_name,
)
from .proposals import AbstractProposal, RandomWalk
from .random import fold_in, jax_key, uniform
from .windows import StanWindows


class State(NamedTuple):
    """What a Metropolis-Hastings kernel carries from step to step.

    Args:
        position: q, shape (dimension,).
        log_density: log π(q), shape ().
        log_weight: the log of what the acceptance compares, shape (); see `AbstractProposal.weigh`.
    """

    position: Array
    log_density: Array
    log_weight: Array


class Info(NamedTuple):
    """What happened in one step; every field has shape ().

    Args:
        lp: log π at the new position.
        acceptance_rate: the probability with which the proposal was accepted.
        n_steps: evaluations of the log density.
        step_size: of a random walk; None for other proposals.
    """

    lp: Array
    acceptance_rate: Array
    n_steps: Array
    step_size: Array | None


@dataclass(frozen=True)
class FromPrior(AbstractProposal):
    """Independent draws from the prior given all other sites, accepted with probability min(1, L(q') / L(q)).

    L is the likelihood: all terms of the density but the sites' own distributions. It moves well where the data say
    little, and almost never where they say much.

    Source: Tierney (1994), "Markov chains for exploring posterior distributions", section 2.3.3.
    """

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.with_prior()

    def propose(
        self, target: Target, key: Array, position: Array, tuning: Any, constants: Constants
    ) -> tuple[Array, Array]:
        """See `AbstractProposal.propose`; the prior cancels, so that likelihoods are what is weighed."""
        return cast(PriorTarget, target).draw_prior(key, *constants), jnp.zeros((), position.dtype)

    def weigh(self, target: Target, position: Array, log_density: Array, constants: Constants) -> Array:
        """See `AbstractProposal.weigh`."""
        return cast(PriorTarget, target).log_likelihood(position, *constants)


@dataclass(frozen=True)
class Proposal(AbstractProposal):
    """The user's proposal, a distribution of new values given the present ones; a bare function given to `MH` is one.

    With values θ in their supports, a proposal p(θ' | θ) is accepted with probability
    min(1, π(θ') p(θ | θ') / (π(θ) p(θ' | θ))). Values outside their supports are rejected.

    Args:
        function: from a dict of the block's values by site to a distribution, an object with `sample(key)` and
            `log_prob(value)` such as those of NumPyro; to a dict of them by site, if there are several sites.

    Raises:
        TypeError: if it cannot be called.

    Example:
        `MH(lambda values: dist.LogNormal(jnp.log(values["s"]), 0.5))`

    Source: Hastings (1970), "Monte Carlo sampling methods using Markov chains and their applications".
    """

    function: Callable[[dict[str, Array]], Any]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"MH: a proposal must be RandomWalk(), FromPrior() or a function from values to a distribution, "
                f"got {self.function!r}."
            )

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.with_values()

    def check(self, target: Target, dtype: Any) -> None:
        """See `AbstractProposal.check`; the function is run once, with placeholders."""
        values, key = cast(ValuesTarget, target), jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))

        def draw(position: Array, key: Array, *constants: Any) -> tuple[dict[str, Array], dict[str, Array]]:
            present, _ = values.constrain(position, *constants)
            return present, {name: d.sample(key) for name, d in self._distributions(present).items()}

        present, drawn = jax.eval_shape(draw, jax.ShapeDtypeStruct((target.dimension,), dtype), key, *target.constants)
        for name, value in drawn.items():
            if value.shape != present[name].shape:
                raise ValueError(
                    f"MH: the proposal for site '{name}' has shape {value.shape}, the site has {present[name].shape}; "
                    f"return a distribution whose draws have the shape of the site."
                )
            whole = name in target.discrete
            if whole == jnp.issubdtype(value.dtype, jnp.floating):
                raise ValueError(
                    f"MH: the proposal for site '{name}' draws {value.dtype}, the site is "
                    f"{'discrete' if whole else 'continuous'}; return a distribution over "
                    f"{'whole' if whole else 'real'} numbers."
                )

    def propose(
        self, target: Target, key: Array, position: Array, tuning: Any, constants: Constants
    ) -> tuple[Array, Array]:
        """See `AbstractProposal.propose`."""
        values = cast(ValuesTarget, target)
        present, _ = values.constrain(position, *constants)
        forward = self._distributions(present)
        drawn = {name: d.sample(jax_key(fold_in(key, i))) for i, (name, d) in enumerate(forward.items())}
        proposed = {name: value.astype(present[name].dtype) for name, value in drawn.items()}
        backward = self._distributions(proposed)
        there = sum(jnp.sum(forward[name].log_prob(value)) for name, value in drawn.items())
        back = sum(jnp.sum(backward[name].log_prob(present[name].astype(v.dtype))) for name, v in drawn.items())
        return values.unconstrain(proposed, *constants), jnp.asarray(back - there, position.dtype)

    def weigh(self, target: Target, position: Array, log_density: Array, constants: Constants) -> Array:
        """See `AbstractProposal.weigh`: the log density of the values, without the Jacobian of the bijections."""
        return log_density - cast(ValuesTarget, target).constrain(position, *constants)[1]

    def _distributions(self, values: dict[str, Array]) -> dict[str, Any]:
        """What the function returns, by site."""
        sites = tuple(values)
        try:
            returned = self.function(dict(values))
        except KeyError as error:
            raise ValueError(
                f"MH: the proposal asks for the value of {error}; it is given those of its own block, "
                f"{', '.join(map(repr, sites))}. Put both sites into one block, or propose without it."
            ) from error
        if not isinstance(returned, Mapping) and len(sites) == 1:
            returned = {sites[0]: returned}
        if not isinstance(returned, Mapping) or set(returned) != set(sites):
            got = f"one for {sorted(map(str, returned))}" if isinstance(returned, Mapping) else repr(returned)
            raise TypeError(
                f"MH: the proposal must return a distribution for each of the sites {', '.join(map(repr, sites))}, "
                f"as a dict by site; got {got}."
            )
        for name, distribution in returned.items():
            if not (hasattr(distribution, "sample") and hasattr(distribution, "log_prob")):
                raise TypeError(
                    f"MH: the proposal for site '{name}' must be a distribution with sample(key) and log_prob(value), "
                    f"such as those of NumPyro; got {distribution!r}."
                )
        return {name: returned[name] for name in sites}


@dataclass(frozen=True)
class MH(AbstractSampler, Written):
    """Metropolis-Hastings: a proposal, accepted with the probability that leaves the target invariant.

    Args:
        proposal: `RandomWalk()`, `FromPrior()`, or a function from values to a distribution (see `Proposal`).

    Raises:
        TypeError: if the proposal is none of these.

    Source: Metropolis et al. (1953); Hastings (1970).
    """

    proposal: AbstractProposal | Callable[[dict[str, Array]], Any] = field(default_factory=RandomWalk)

    def __post_init__(self) -> None:
        if isinstance(self.proposal, type) and issubclass(self.proposal, AbstractProposal):
            raise TypeError(f"MH: proposal is the class {self.proposal.__name__}; write {self.proposal.__name__}().")
        if not isinstance(self.proposal, AbstractProposal):
            object.__setattr__(self, "proposal", Proposal(self.proposal))

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return self._proposal.view(block)

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`.

        Raises:
            TypeError, ValueError: where the user's proposal does not fit the sites, naming them.
        """
        self._proposal.check(target, dtype)
        return MetropolisKernel(repr(self), target, self._proposal, dtype)

    @property
    def _proposal(self) -> AbstractProposal:
        return cast(AbstractProposal, self.proposal)


@dataclass(frozen=True)
class MetropolisKernel(AbstractKernel):
    """The kernel of `MH`.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
        proposal: how it moves.
        dtype: of positions.
    """

    name: str
    target: Target
    proposal: AbstractProposal
    dtype: Any

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`; nothing is differentiated."""
        return (BlockReport(block_name(self.target.sites), self.name, self.target.dimension, None, None),)

    def init(self, position: Array, constants: Constants) -> State:
        """See `AbstractKernel.init`; one evaluation of the log density."""
        log_density = self.target.log_density(position, *constants)
        return State(position, log_density, self.proposal.weigh(self.target, position, log_density, constants))

    def position(self, state: State) -> Array:
        """See `AbstractKernel.position`."""
        return state.position

    def step(self, key: Array, state: State, tuning: Any, constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        count = self.proposal.moves(self.target)
        if count == 1:
            return self._move(key, state, tuning, constants)

        def move(index: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            after, info = self._move(fold_in(key, index), carry[0], tuning, constants)
            return after, carry[1] + info.acceptance_rate / count

        start = (state, jnp.zeros((), state.position.dtype))
        after, acceptance = lax.fori_loop(0, count, move, start)
        step_size = getattr(tuning, "step_size", None)
        return after, Info(after.log_density, acceptance, jnp.full((), count, jnp.int32), step_size)

    def _move(self, key: Array, state: State, tuning: Any, constants: Constants) -> tuple[State, Info]:
        """Propose once, and accept or not."""
        position, correction = self.proposal.propose(self.target, fold_in(key, 0), state.position, tuning, constants)
        proposed = self.init(position.astype(self.dtype), constants)
        log_ratio = proposed.log_weight - state.log_weight + correction
        # Where the density is not finite, or nowhere at all, a chain must not go; a ratio that is no number rejects.
        possible = jnp.isfinite(proposed.log_density) & jnp.isfinite(position).all() & ~jnp.isnan(log_ratio)
        acceptance = jnp.where(possible, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
        accept = uniform(fold_in(key, 1), 0, self.dtype) < acceptance
        after = State(*(jnp.where(accept, new, old) for new, old in zip(proposed, state, strict=True)))
        step_size = getattr(tuning, "step_size", None)
        return after, Info(after.log_density, acceptance, jnp.ones((), jnp.int32), step_size)

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return {name: value for name, value in info._asdict().items() if value is not None}

    def init_tuning(self) -> Any:
        """See `AbstractKernel.init_tuning`."""
        return self.proposal.init_tuning(self.target, self.dtype)

    def tune(self, tuning: Any, state: State, info: Info) -> Any:
        """See `AbstractKernel.tune`."""
        return self.proposal.tune(self.target, tuning, state.position, info.acceptance_rate)

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`."""
        return StanWindows().borders(warmup)

    def retune(self, tuning: Any, done: int, warmup: int) -> Any:
        """See `AbstractKernel.retune`."""
        return self.proposal.retune(self.target, tuning, done, warmup)
