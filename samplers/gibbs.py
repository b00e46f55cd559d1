"""Gibbs sampling by blocks: every block of sites has its own sampler, and with it its own adtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import jax.numpy as jnp

from .base import (
    AbstractKernel,
    AbstractSampler,
    Array,
    BlockReport,
    Conditional,
    Constants,
    Target,
)
from .random import fold_in

Key = str | tuple[str, ...] | EllipsisType


@dataclass(frozen=True, init=False)
class Gibbs(AbstractSampler):
    """Update blocks of sites in turn, each by its own sampler from its conditional given the others.

    A block's density holds only the terms that depend on it, and what the other blocks determine in them is computed
    once per update. Each block adapts its own step size and metric, and differentiates with its own adtype, by
    default chosen from the dimension of the *block*.

    Args:
        blocks: from the names of a block's sites (one name, a tuple of names, or `...` for all the rest) to a
            sampler. The blocks are updated in this order; together they must name every latent site once.

    Raises:
        TypeError, ValueError: on a key or a value of the wrong kind, here; on unknown, missing and doubly
            claimed sites, by name, when the sampler meets a model.

    Example:
        `Gibbs({"m": HMC(0.1, 5, adtype=AutoForward()), ...: NUTS(adtype=AutoReverse())})`

    Source: Geman and Geman (1984), "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
    images"; Tierney (1994), "Markov chains for exploring posterior distributions", for other kernels within.
    """

    blocks: tuple[tuple[tuple[str, ...] | EllipsisType, AbstractSampler], ...]

    def __init__(self, blocks: Mapping[Key, AbstractSampler]) -> None:
        if not isinstance(blocks, Mapping) or not blocks:
            raise TypeError(
                f"Gibbs: blocks must be a non-empty dict from site names to samplers, got {blocks!r}; "
                f"for example Gibbs({{'m': HMC(0.1, 5), ...: NUTS()}})."
            )
        pairs = []
        for key, sampler in blocks.items():
            if not isinstance(sampler, AbstractSampler):
                hint = f"; write {sampler.__name__}(...)" if isinstance(sampler, type) else ""
                raise TypeError(f"Gibbs: block {key!r} needs a sampler such as NUTS(), got {sampler!r}{hint}.")
            names: tuple[str, ...] | EllipsisType = (key,) if isinstance(key, str) else key
            if not isinstance(names, EllipsisType) and not (
                isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)
            ):
                raise TypeError(f"Gibbs: a block is named by a site, a tuple of sites or `...`, got {key!r}.")
            pairs.append((names, sampler))
        object.__setattr__(self, "blocks", tuple(pairs))

    def __repr__(self) -> str:
        """As the user wrote it."""
        keys = ("..." if isinstance(k, EllipsisType) else repr(k[0] if len(k) == 1 else k) for k, _ in self.blocks)
        return f"Gibbs({{{', '.join(f'{key}: {s!r}' for key, (_, s) in zip(keys, self.blocks, strict=True))}}})"

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`.

        Raises:
            ValueError: unless the blocks partition the sites of the target; it names the culprits.
        """
        blocks = []
        for names, sampler in zip(self.partition(target.sites), (s for _, s in self.blocks), strict=True):
            conditional = target.restrict(names)
            blocks.append(Block(conditional, sampler.build(conditional.target, dtype)))
        return GibbsKernel(target, tuple(blocks))

    def partition(self, sites: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The sites of each block, in the order of `sites`.

        Raises:
            ValueError: unless the blocks partition the sites; it names the culprits.
        """
        known = ", ".join(f"'{site}'" for site in sites)
        claimed: list[str] = []
        for names, _ in self.blocks:
            for name in () if isinstance(names, EllipsisType) else names:
                if name not in sites:
                    raise ValueError(f"Gibbs: block '{name}' is no latent site of the model; these are: {known}.")
                if name in claimed:
                    raise ValueError(f"Gibbs: site '{name}' is claimed by two blocks; leave it in one of them.")
                claimed.append(name)
        rest = tuple(site for site in sites if site not in claimed)
        has_rest = any(isinstance(names, EllipsisType) for names, _ in self.blocks)
        if rest and not has_rest:
            missing = ", ".join(f"'{site}'" for site in rest)
            raise ValueError(f"Gibbs: no block has site {missing}; add it to one, or add `...: NUTS()` for the rest.")
        if has_rest and not rest:
            raise ValueError("Gibbs: the `...` block has no sites left; the other blocks name them all. Remove it.")
        return tuple(
            rest if isinstance(names, EllipsisType) else tuple(site for site in sites if site in names)
            for names, _ in self.blocks
        )


@dataclass(frozen=True)
class Block:
    """A block of coordinates: its density given the rest, and the kernel that updates it."""

    conditional: Conditional
    kernel: AbstractKernel


@dataclass(frozen=True)
class GibbsKernel(AbstractKernel):
    """The kernel of `Gibbs`: one sweep over all blocks.

    The state is the whole position and, for each block, the state of its kernel where nothing outside the block
    can make it stale, else None: a state whose conditional moves with other blocks is renewed before it is used.
    """

    target: Target
    blocks: tuple[Block, ...]

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        return tuple(report for block in self.blocks for report in block.kernel.reports)

    def init(self, position: Array, constants: Constants) -> tuple[Array, tuple[Any, ...]]:
        """See `AbstractKernel.init`."""
        states = []
        for block in self.blocks:
            conditional = block.conditional
            states.append(
                None
                if conditional.depends_on_rest
                else block.kernel.init(conditional.take(position), conditional.constants(position, constants))
            )
        return position, tuple(states)

    def position(self, state: tuple[Array, tuple[Any, ...]]) -> Array:
        """See `AbstractKernel.position`."""
        return state[0]

    def step(
        self, key: Array, state: tuple[Array, tuple[Any, ...]], tuning: tuple[Any, ...], constants: Constants
    ) -> tuple[tuple[Array, tuple[Any, ...]], tuple[Array, tuple[Any, ...]]]:
        """See `AbstractKernel.step`; the info is the log density of the sweep's end and an info for each block."""
        position, states = state
        after, infos = [], []
        for index, (block, block_state, block_tuning) in enumerate(zip(self.blocks, states, tuning, strict=True)):
            kernel, conditional = block.kernel, block.conditional
            given = conditional.constants(position, constants)
            fresh = kernel.init(conditional.take(position), given) if block_state is None else block_state
            fresh, info = kernel.step(fold_in(key, index), fresh, block_tuning, given)
            position = conditional.put(position, kernel.position(fresh))
            after.append(None if block_state is None else fresh)
            infos.append(info)
        return (position, tuple(after)), (self.target.log_density(position, *constants), tuple(infos))

    def statistics(self, info: tuple[Array, tuple[Any, ...]]) -> dict[str, Array]:
        """See `AbstractKernel.statistics`: each block's own, NaN where it has none, and what sums them up."""
        log_density, infos = info
        columns: list[dict[str, Array]] = []
        for block, block_info in zip(self.blocks, infos, strict=True):
            own = block.kernel.statistics(block_info)
            nested = {name.removeprefix("block_"): v for name, v in own.items() if name.startswith("block_")}
            columns.append(nested or {name: jnp.reshape(v, (1,)) for name, v in own.items()})
        sizes = [len(block.kernel.reports) for block in self.blocks]
        names = sorted({name for column in columns for name in column} - {"lp"})
        merged = {
            f"block_{name}": _stack([column.get(name) for column in columns], sizes, log_density.dtype)
            for name in names
        }
        merged["lp"] = log_density
        if "diverging" in names:
            merged["diverging"] = jnp.any(merged["block_diverging"] > 0)
        if "n_steps" in names:
            merged["n_steps"] = jnp.nansum(merged["block_n_steps"]).astype(jnp.int32)
        return merged

    def init_tuning(self) -> tuple[Any, ...]:
        """See `AbstractKernel.init_tuning`."""
        return tuple(block.kernel.init_tuning() for block in self.blocks)

    def tune(self, tuning: tuple[Any, ...], position: Array, info: tuple[Array, tuple[Any, ...]]) -> tuple[Any, ...]:
        """See `AbstractKernel.tune`; every block learns from its own update."""
        return tuple(
            block.kernel.tune(block_tuning, block.conditional.take(position), block_info)
            for block, block_tuning, block_info in zip(self.blocks, tuning, info[1], strict=True)
        )

    def schedule(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractKernel.schedule`; the union of the blocks' own."""
        return tuple(sorted({done for block in self.blocks for done in block.kernel.schedule(warmup)}))

    def retune(self, tuning: tuple[Any, ...], done: int, warmup: int) -> tuple[Any, ...]:
        """See `AbstractKernel.retune`; only the blocks whose schedule it is."""
        return tuple(
            block.kernel.retune(block_tuning, done, warmup) if done in block.kernel.schedule(warmup) else block_tuning
            for block, block_tuning in zip(self.blocks, tuning, strict=True)
        )


def _stack(columns: list[Array | None], sizes: list[int], dtype: Any) -> Array:
    """One entry for each block; a statistic that all blocks have keeps its dtype, else NaN fills the gaps."""
    if all(column is not None for column in columns):
        return jnp.concatenate([jnp.asarray(column) for column in columns])
    return jnp.concatenate(
        [
            jnp.full(size, jnp.nan, dtype) if column is None else jnp.asarray(column, dtype)
            for column, size in zip(columns, sizes, strict=True)
        ]
    )
