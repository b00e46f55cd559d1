"""Gibbs sampling by blocks: every block has its own sampler, and with it its own adtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .base import AbstractSampler
from .composition import AbstractComposition, Composer, Member, Sampler, alike
from .hamiltonian import check_integer
from .moves import AbstractMove, Choose, InTurn, Times, UpdateAll, UpdateAny
from .partition import Key, Parts, check_key, describe_key, partition

Blocks = tuple[tuple[Key, Sampler], ...]


@dataclass(frozen=True, init=False)
class Gibbs(AbstractComposition):
    """Update blocks of sites in turn, each by its own sampler from its conditional given the others.

    A block's density holds only the terms that depend on it, and what the other blocks determine in them is computed
    once per update. Each block adapts its own step size and metric, and differentiates with its own adtype, by
    default chosen from the dimension of the *block*. Blocks that are alike share one compiled update.

    Args:
        blocks: from what a block consists of to its sampler, which may be another composition. A key is the name of a
            site, a part of a site (`"theta[0:4]"`), a function that is called with the name of each site and says
            yes, no, or which of its entries, a tuple of these, or `...` for all the rest. The blocks are updated in
            this order; together they must have every coordinate once.

    Raises:
        TypeError, ValueError: on a key or a value of the wrong kind, here; on unknown, missing and doubly
            claimed sites, by name, when the sampler meets a model.

    Example:
        `Gibbs({"m": HMC(0.1, 5, adtype=AutoForward()), "z": DiscreteGibbs(), ...: NUTS(adtype=AutoReverse())})`

    Source: Geman and Geman (1984), "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
    images"; Tierney (1994), "Markov chains for exploring posterior distributions", for other kernels within.
    """

    blocks: Blocks

    def __init__(self, blocks: Mapping[Any, Sampler]) -> None:
        object.__setattr__(self, "blocks", _checked("Gibbs", blocks))

    def __repr__(self) -> str:
        """As the user wrote it."""
        return f"Gibbs({_describe(self.blocks)})"

    def compose(self, composer: Composer, parts: Parts) -> AbstractMove:
        """See `AbstractComposition.compose`."""
        divided = partition("Gibbs", [key for key, _ in self.blocks], composer.joint, parts)
        moves: list[AbstractMove] = []
        open_group: list[Member] = []

        def close() -> None:
            if open_group:
                moves.append(UpdateAll(composer.group(open_group)))
                open_group.clear()

        for (_, sampler), own in zip(self.blocks, divided, strict=True):
            member = _member(composer, sampler, own)
            if member is None:
                close()
                inner = _compose(composer, sampler, own)
                moves += inner.moves if isinstance(inner, InTurn) else (inner,)
                continue
            if open_group and not alike(open_group[0], member):
                close()
            open_group.append(member)
        close()
        return InTurn(tuple(moves))


@dataclass(frozen=True, init=False)
class RandomScan(AbstractComposition):
    """Update blocks drawn at random, each by its own sampler from its conditional given the others.

    Args:
        blocks: as in `Gibbs`.
        weights: how often each block is drawn, relative to the others; all alike by default.
        updates: how many blocks are drawn in one step, with replacement; by default as many as there are.

    Raises:
        TypeError, ValueError: as for `Gibbs`, and on weights or a number of updates that are none.

    Source: Liu, Wong and Kong (1995), "Covariance structure and convergence rate of the Gibbs sampler with various
    scans".
    """

    blocks: Blocks
    weights: tuple[float, ...]
    updates: int

    def __init__(
        self, blocks: Mapping[Any, Sampler], weights: Mapping[Any, float] | None = None, updates: int | None = None
    ) -> None:
        checked = _checked("RandomScan", blocks)
        object.__setattr__(self, "blocks", checked)
        object.__setattr__(self, "weights", _weights([key for key, _ in checked], weights))
        count = len(checked) if updates is None else updates
        check_integer("RandomScan", "updates", count, 1)
        object.__setattr__(self, "updates", count)

    def __repr__(self) -> str:
        """As the user wrote it."""
        options = ""
        if len(set(self.weights)) > 1:
            keys = (describe_key(key) for key, _ in self.blocks)
            options += f", weights={{{', '.join(f'{k}: {w:g}' for k, w in zip(keys, self.weights, strict=True))}}}"
        if self.updates != len(self.blocks):
            options += f", updates={self.updates}"
        return f"RandomScan({_describe(self.blocks)}{options})"

    def compose(self, composer: Composer, parts: Parts) -> AbstractMove:
        """See `AbstractComposition.compose`."""
        divided = partition("RandomScan", [key for key, _ in self.blocks], composer.joint, parts)
        total = sum(self.weights)
        classes: list[tuple[list[Member], float]] = []
        others: list[tuple[AbstractMove, float]] = []
        for (_, sampler), own, weight in zip(self.blocks, divided, self.weights, strict=True):
            member = _member(composer, sampler, own)
            if member is None:
                others.append((_compose(composer, sampler, own), weight / total))
                continue
            for members, common in classes:
                if common == weight and alike(members[0], member):
                    members.append(member)
                    break
            else:
                classes.append(([member], weight))
        choices: list[tuple[AbstractMove, float]] = [
            (UpdateAny(composer.group(members), len(members)), weight * len(members) / total)
            for members, weight in classes
        ]
        moves, probabilities = zip(*choices, *others, strict=True)
        return Choose(moves, probabilities, self.updates)


@dataclass(frozen=True)
class Repeat(AbstractComposition):
    """Make several steps of a sampler where one would be made.

    Each of them counts for the adaptation of the sampler. What the other blocks determine is computed once for all.

    Args:
        sampler: of one block, or a composition.
        count: how many steps, at least 1.

    Raises:
        TypeError, ValueError: on bad arguments.
    """

    sampler: Sampler
    count: int

    def __post_init__(self) -> None:
        _check_sampler("Repeat", self.sampler)
        check_integer("Repeat", "count", self.count, 1)

    def __repr__(self) -> str:
        """As the user wrote it."""
        return f"Repeat({self.sampler!r}, {self.count})"

    def compose(self, composer: Composer, parts: Parts) -> AbstractMove:
        """See `AbstractComposition.compose`."""
        return _compose(composer, self, parts)


def _compose(composer: Composer, sampler: Sampler, parts: Parts) -> AbstractMove:
    """The moves of a sampler or composition for some parts."""
    member = _member(composer, sampler, parts)
    if member is not None:
        return UpdateAll(composer.group([member]))
    if isinstance(sampler, Repeat):
        return Times(_compose(composer, sampler.sampler, parts), sampler.count)
    assert isinstance(sampler, AbstractComposition)
    return sampler.compose(composer, parts)


def _member(composer: Composer, sampler: Sampler, parts: Parts) -> Member | None:
    """The block of a sampler, repeated or not; None for a composition."""
    repeats = 1
    while isinstance(sampler, Repeat):
        repeats *= sampler.count
        sampler = sampler.sampler
    return composer.member(sampler, parts, repeats) if isinstance(sampler, AbstractSampler) else None


def _checked(owner: str, blocks: object) -> Blocks:
    if not isinstance(blocks, Mapping) or not blocks:
        raise TypeError(
            f"{owner}: blocks must be a non-empty dict from site names to samplers, got {blocks!r}; "
            f"for example {owner}({{'m': HMC(0.1, 5), ...: NUTS()}})."
        )
    for key, sampler in blocks.items():
        _check_sampler(f"{owner}: block {describe_key(key) if key is ... else repr(key)}", sampler)
        check_key(owner, key)
    return tuple(blocks.items())


def _check_sampler(where: str, sampler: object) -> None:
    if not isinstance(sampler, (AbstractSampler, AbstractComposition)):
        hint = f"; write {sampler.__name__}(...)" if isinstance(sampler, type) else ""
        raise TypeError(f"{where} needs a sampler such as NUTS(), got {sampler!r}{hint}.")


def _weights(keys: list[Key], weights: object) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * len(keys)
    if not isinstance(weights, Mapping) or set(weights) != set(keys):
        known = ", ".join(describe_key(key) for key in keys)
        raise ValueError(f"RandomScan: weights must be a dict with the keys of the blocks, {known}; got {weights!r}.")
    values = tuple(float(weights[key]) for key in keys)
    if not all(0 < value < float("inf") for value in values):
        raise ValueError(f"RandomScan: weights must be positive numbers, got {weights!r}.")
    return values


def _describe(blocks: Blocks) -> str:
    return f"{{{', '.join(f'{describe_key(key)}: {sampler!r}' for key, sampler in blocks)}}}"
