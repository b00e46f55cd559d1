"""`explain`: what `sample` would do, said before it does it.

Everything is built as `sample` builds it, short of compiling, and read off: the order of updates from the moves of the
composition, what is evaluated and what is computed beforehand from the programs of the blocks, and what becomes stale
from the coordinates that these programs read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np

from ...ad.adtypes import AbstractADType, check_adtype
from ...ad.routing import default_adtype
from ...samplers.alone import Alone
from ...samplers.base import AbstractKernel
from ...samplers.composition import CompositionKernel, Sampler, build_kernel
from ...samplers.group import Group
from ...samplers.moves import AbstractMove, Choose, InTurn, Times, UpdateAll, UpdateAny
from ...samplers.nuts import NUTS
from ..arguments import check_model_and_sampler
from ..blocks.block import Block
from ..blocks.coordinates import IntArray
from ..checks import check_given, check_sampleable
from ..interpreters import discover
from ..log_density import ModelDensity, trace_model
from ..model import BoundModel
from .block_plan import BlockPlan, Drawn, InARow, Rounds, Turn, Work, count
from .plan import Plan, in_order, title


def explain(model: BoundModel, sampler: Sampler | None = None, *, adtype: AbstractADType | None = None) -> Plan:
    """Print what `sample(model, sampler, adtype=adtype)` would do, without compiling its loops or drawing anything.

    Args:
        model: a model with its data, `f(data)`.
        sampler: `NUTS()` by default.
        adtype: how to differentiate wherever the sampler names no adtype; None means the global default.

    Returns:
        The plan that is printed: for each block its coordinates, its place in a step, its adtype and the reason, the
        terms that it evaluates, what is computed once per update and once per run instead, what it is conditioned on,
        and what becomes stale when it moves. `plan.graph("plan.svg")` draws the last.

    Raises:
        TypeError, ValueError: as `sample` does, on bad arguments, data outside their support, and blocks that do not
            partition the sites.
        DifferentiationError: where an adtype cannot differentiate its block.

    Example:
        `explain(gdemo(1.5, 2.0), Gibbs({"m": HMC(0.1, 5), "s": NUTS()}))`
    """
    sampler = NUTS() if sampler is None else sampler
    check_model_and_sampler("explain", model, sampler)
    default: AbstractContextManager[None] = (
        nullcontext() if adtype is None else default_adtype(check_adtype(adtype, "explain: adtype"))
    )
    with jax.enable_x64(True), default:
        found = discover(model, check_given)
        check_sampleable(found, model.name)
        density = trace_model(model, found).density
        kernel = build_kernel(sampler, density, np.dtype(float))
        blocks = _blocks(kernel, density)
    terms, groups, move = tuple(density.terms), *_structure(kernel)
    titles = [title([block for block in blocks if block.group == i]) for i in range(len(groups))]
    order = _order(move, titles, groups)
    whole = Work.of(density.program.select(tuple(density.terms.values())))
    plan = Plan(model.name, repr(sampler), order, blocks, terms, whole)
    print(plan)
    return plan


def _structure(kernel: AbstractKernel) -> tuple[Sequence[Group], AbstractMove]:
    """The groups of alike blocks, and the order of their updates."""
    if isinstance(kernel, Alone):
        return (Group((kernel.block,), kernel.kernel),), UpdateAll(0)
    assert isinstance(kernel, CompositionKernel)
    return kernel.groups, kernel.move


def _blocks(kernel: AbstractKernel, density: ModelDensity) -> tuple[BlockPlan, ...]:
    groups, move = _structure(kernel)
    members = [(number, _of_model(block)) for number, group in enumerate(groups) for block in group.blocks]
    owner = np.empty(density.dimension, int)
    label = np.empty(density.dimension, object)
    for i, (_, block) in enumerate(members):
        owner[block.coordinates] = i
        for name, part in block.parts.items():
            label[density.coordinates.positions(part)] = name
    read = [_read(block) for _, block in members]
    stale: list[list[str]] = [[] for _ in members]
    for report, positions in zip(kernel.reports, read, strict=True):
        for moved in np.unique(owner[positions]):
            stale[moved].append(report.block)
    turns = _turns(move, groups)
    return tuple(
        BlockPlan(
            name=report.block,
            sampler=report.sampler,
            dimension=report.dimension,
            adtype=report.adtype,
            reason=report.reason,
            coordinates={
                name: tuple(density.coordinates.positions(part).tolist()) for name, part in block.parts.items()
            },
            turns=turns[number],
            group=number,
            terms=block.target.terms,
            evaluation=Work.of(block.target.given.after),
            per_update=Work.of(block.target.given.before),
            per_run=Work.of(block.target.given.static),
            given=tuple(dict.fromkeys(label[positions])),
            stale=tuple(made),
            exact=hasattr(block.target, "draw"),
            keeps_state=groups[number].keeps_state,
        )
        for (number, block), report, positions, made in zip(members, kernel.reports, read, stale, strict=True)
    )


def _of_model(block: Any) -> Block:
    assert isinstance(block, Block)
    return block


def _read(block: Block) -> IntArray:
    """The coordinates outside a block that its density reads, ascending."""
    return np.unique(np.concatenate([np.empty(0, int), *(source.positions for source in block.target.given.sources)]))


def _turns(move: AbstractMove, groups: Sequence[Group]) -> dict[int, tuple[Turn, ...]]:
    """The place of each group in a step."""
    if isinstance(move, UpdateAll | UpdateAny):
        repeats = groups[move.group].repeats
        return {move.group: (InARow(repeats),) if repeats > 1 else ()}
    if isinstance(move, InTurn):
        return {group: turns for inner in move.moves for group, turns in _turns(inner, groups).items()}
    if isinstance(move, Times):
        return {group: (Rounds(move.count), *turns) for group, turns in _turns(move.move, groups).items()}
    assert isinstance(move, Choose)
    return {
        group: (Drawn(probability / _choices(inner), move.count), *turns)
        for inner, probability in zip(move.moves, move.probabilities, strict=True)
        for group, turns in _turns(inner, groups).items()
    }


def _order(move: AbstractMove, titles: Sequence[str], groups: Sequence[Group]) -> str:
    """The updates of a step, in short."""
    if isinstance(move, UpdateAll | UpdateAny):
        repeats = groups[move.group].repeats
        return f"{repeats} × {titles[move.group]}" if repeats > 1 else titles[move.group]
    if isinstance(move, InTurn):
        return in_order([_order(inner, titles, groups) for inner in move.moves])
    if isinstance(move, Times):
        return f"{move.count} × ({_order(move.move, titles, groups)})"
    assert isinstance(move, Choose)
    choices = [
        f"{_order(inner, titles, groups)}: {probability / _choices(inner):.3g}{' each' if _choices(inner) > 1 else ''}"
        for inner, probability in zip(move.moves, move.probabilities, strict=True)
    ]
    return f"{count(move.count, 'draw')} from {{{', '.join(choices)}}}"


def _choices(move: AbstractMove) -> int:
    """Among how many blocks a move that was drawn draws again."""
    return move.size if isinstance(move, UpdateAny) else 1
