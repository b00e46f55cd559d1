"""Exact draws of a block given the rest: conditionals that the user knows, and those that the model shows.

`Conditional` here is a sampler. What a block's density is given the rest, to any sampler, is a `base.Block`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from ..ad.naming import Written
from .base import AbstractKernel, AbstractSampler, Array, Block, BlockReport, Constants, ExactTarget, Target, block_name
from .untuned import AbstractMemorylessKernel, State


@dataclass(frozen=True)
class Conditional(AbstractSampler, Written):
    """Draw a block from its conditional distribution, which the user knows.

    Args:
        fn: either `fn(values)`, from a mapping of site names to the values of all other sites, deterministics and
            data, to the conditional distribution of the block: a NumPyro distribution or, for a block of several
            sites, a dict from their names to distributions, independent of each other. Or `fn(key, values)`, which
            returns the drawn value itself, or a dict of them; its key is one of JAX's.
        verify: whether to compare the distribution with the model's own density at a few points, and to refuse it
            unless they are proportional. Values that `fn(key, values)` draws cannot be compared.

    Raises:
        TypeError: if `fn` is not a function or `verify` not a bool.
        ValueError: when it meets a model where what `fn` gives has another shape, support or density than the block,
            naming the site.

    Example:
        `Gibbs({"m": Conditional(lambda v: dist.Normal(v["x"] / 2.0, jnp.sqrt(v["s"] / 2.0))), ...: NUTS()})`

    Source: Geman and Geman (1984), "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
    images".
    """

    fn: Callable[..., Any]
    verify: bool = True

    def __post_init__(self) -> None:
        # Distributions can be called as well, and are what one might pass by mistake.
        if not callable(self.fn) or hasattr(self.fn, "log_prob"):
            raise TypeError(
                f"Conditional: fn must be a function from the values of the other sites to a distribution, got "
                f"{self.fn!r}; write Conditional(lambda values: dist.Normal(...))."
            )
        if not isinstance(self.verify, bool):
            raise TypeError(f"Conditional: verify must be True or False, got {self.verify!r}.")

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.drawn_by(self.fn, verify=self.verify)

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`; the target is an `ExactTarget`."""
        return ExactKernel(repr(self), cast(ExactTarget, target), "exact: draws from the conditional that was given")


@dataclass(frozen=True)
class Conjugate(AbstractSampler):
    """Draw a block from its conditional distribution, which is of the family of its prior and found in the model.

    Raises:
        ValueError: when it meets a model where the conditional is not of a known family, saying why.

    Example:
        `Gibbs({"rate": Conjugate(), ...: NUTS()})`

    Source: Diaconis and Ylvisaker (1979), "Conjugate priors for exponential families".
    """

    def view(self, block: Block) -> Block:
        """See `AbstractSampler.view`."""
        return block.conjugate()

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`; the target is an `ExactTarget`."""
        return ExactKernel(repr(self), cast(ExactTarget, target), "exact: draws from the conjugate conditional")


class Info(NamedTuple):
    """What happened in one step.

    Args:
        lp: log π at the new position, shape ().
    """

    lp: Array


@dataclass(frozen=True)
class ExactKernel(AbstractMemorylessKernel):
    """A kernel whose every step is an independent draw from the target.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is drawn from.
        reason: where the draws come from, for reports.
    """

    name: str
    target: ExactTarget
    reason: str

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        return (BlockReport(block_name(self.target.sites), self.name, self.target.dimension, None, self.reason),)

    def step(self, key: Array, state: State, tuning: tuple[()], constants: Constants) -> tuple[State, Info]:
        """See `AbstractKernel.step`."""
        position = self.target.draw(key, *constants)
        # Under Gibbs nobody asks for this density, and the compiler drops it.
        return State(position), Info(self.target.log_density(position, *constants))

    def statistics(self, info: Info) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return info._asdict()
