"""NUTS for hundreds of chains at once: a chain as a state machine whose unit is one leapfrog step.

Under `vmap` nested loops run until the last chain is through with each of them, and the chains wait for each other at
every doubling and at every transition. Here no loop depends on a trajectory: in one step every chain takes one leapfrog
step, wherever in its tree it is. What happens less often is done for all chains and kept for those whose turn it is:
joining a finished subtree to its trajectory in every step, and the transition from one trajectory to the next, which
costs most, once in a round of some steps, so that a chain waits for less than a round at the end of a trajectory.

The arithmetic is that of `trajectory`, and so are the random numbers: the draws are those of the nested loops.

Source: Radul, Patton, Maclaurin, Hoffman and Saurous (2020), "Automatically batching control-intensive programs for
modern accelerators", on why the nested form wastes most of a vectorised run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .base import Array
from .hamiltonian import Info, State
from .integrators import Point
from .nuts import outcome
from .random import fold_in, normal
from .termination import init_checkpoints
from .trajectory import (
    Course,
    Growth,
    Integrate,
    Tree,
    begin_subtree,
    begin_tree,
    chance_to_join,
    is_growing,
    is_unfinished,
    join,
    next_leaf,
    select,
    set_out,
    signed_step,
)


class Walk(NamedTuple):
    """Where one chain is.

    Args:
        flying: whether it is on a trajectory, shape ().
        made: transitions finished since the chunk began, shape ().
        course, tree, growth: of the trajectory; between two of them `tree.proposal` holds the state of the chain.
        tuning: its own; any pytree with a `step_size` and a limit of `doublings`, shape ().
        rows: what is recorded, shape (capacity + 1, width); what comes too often or too late goes into the last row.
    """

    flying: Array
    made: Array
    course: Course
    tree: Tree
    growth: Growth
    tuning: Any
    rows: Array

    @property
    def state(self) -> State:
        """The position, log density and gradient between two trajectories."""
        at = self.tree.proposal
        return State(at.position, at.log_density, at.gradient)


class Chunk(NamedTuple):
    """What a chain is to do before the host looks at it again; every field but the key has shape ().

    Args:
        key: of the chain.
        first: number of its first transition, which makes the random numbers.
        transitions: how many to make.
        thin: keep every thin-th of them.
        warming: whether something is learned from them.
    """

    key: Array
    first: Array
    transitions: Array
    thin: Array
    warming: Array


@dataclass(frozen=True)
class FlatNUTS:
    """The state machine of one chain, as pure functions that are meant for `vmap`.

    Args:
        max_depth: limit of doublings.
        integrator: from a tuning to one leapfrog step of a given signed size.
        learn: from a tuning, the state after a transition, its info and whether the chain is warming up to the tuning
            for the next transition.
        record: from the state after a transition and its info to a row, shape (width,).
    """

    max_depth: int
    integrator: Callable[[Any], Integrate]
    learn: Callable[[Any, State, Info, Array], Any]
    record: Callable[[State, Info], Array]

    def begin(self, key: Array, state: State, tuning: Any, capacity: int) -> Walk:
        """A chain at a state, with room for `capacity` rows; its key is used for its type alone."""
        start = Point(state.position, jnp.zeros_like(state.position), state.log_density, state.gradient)
        course = set_out(key, start, jnp.asarray(tuning.step_size), self._limit(tuning))
        tree = begin_tree(start, course)
        width = jax.eval_shape(lambda: self.record(*outcome(tree, course.step_size, self.max_depth))).shape[0]
        return Walk(
            flying=jnp.zeros((), bool),
            made=jnp.zeros((), jnp.int32),
            course=course,
            tree=tree,
            growth=begin_subtree(tree, course, init_checkpoints(self.max_depth, start.momentum)),
            tuning=jax.tree.map(jnp.asarray, tuning),
            rows=jnp.zeros((capacity + 1, width), state.position.dtype),
        )

    def round(self, walk: Walk, chunk: Chunk, steps: Array | int) -> Walk:
        """Start a trajectory where there is none, take `steps` leapfrog steps, and land where it is finished."""
        walk = lax.fori_loop(0, steps, lambda _, walk: self.extend(walk), self.launch(walk, chunk))
        return self.land(walk, chunk)

    def launch(self, walk: Walk, chunk: Chunk) -> Walk:
        """Begin the next trajectory, unless the chain is on one or has made all its transitions."""
        begins = ~walk.flying & (walk.made < chunk.transitions)
        key = fold_in(chunk.key, chunk.first + walk.made)
        position, log_density, gradient = walk.state
        start = Point(position, normal(fold_in(key, 0), position.size, position.dtype), log_density, gradient)
        course = set_out(fold_in(key, 1), start, walk.tuning.step_size, self._limit(walk.tuning))
        tree = begin_tree(start, course)
        growth = begin_subtree(tree, course, walk.growth.checkpoints)
        course, tree, growth = select(begins, (course, tree, growth), (walk.course, walk.tree, walk.growth))
        return walk._replace(flying=walk.flying | begins, course=course, tree=tree, growth=growth)

    def extend(self, walk: Walk) -> Walk:
        """Take one leapfrog step; where it completes a subtree, join it to the trajectory and begin the next.

        A chain that is not on an unfinished trajectory takes a step that changes nothing but its `growth`, which
        the next launch begins anew.
        """
        course, tree = walk.course, walk.tree
        growth = next_leaf(walk.growth, tree.leaves, signed_step(tree, course), course, self.integrator(walk.tuning))
        complete = walk.flying & is_unfinished(tree, course) & ~is_growing(growth, tree)
        tree = select(complete, join(tree, growth, course, chance_to_join(tree, course)), tree)
        growth = select(complete, begin_subtree(tree, course, growth.checkpoints), growth)
        return walk._replace(tree=tree, growth=growth)

    def land(self, walk: Walk, chunk: Chunk) -> Walk:
        """Where a trajectory is finished, record the state that was chosen from it and learn from it."""
        landed = walk.flying & ~is_unfinished(walk.tree, walk.course)
        state, info = outcome(walk.tree, walk.tuning.step_size, self.max_depth)
        learned = self.learn(walk.tuning, state, info, chunk.warming)
        kept = landed & ((walk.made + 1) % chunk.thin == 0)
        row = jnp.where(kept, walk.made // chunk.thin, walk.rows.shape[0] - 1)
        return walk._replace(
            flying=walk.flying & ~landed,
            made=walk.made + landed,
            tuning=select(landed, learned, walk.tuning),
            rows=lax.dynamic_update_index_in_dim(walk.rows, self.record(state, info), row, 0),
        )

    def _limit(self, tuning: Any) -> Array:
        return jnp.minimum(self.max_depth, tuning.doublings)


def run_flat(machine: FlatNUTS, walks: Walk, chunks: Chunk, rounds: Array | int, steps: Array | int) -> Walk:
    """Run many chains until each has made the transitions of its chunk, or for a number of rounds.

    Args:
        machine: of one chain.
        walks: where the chains are; all fields have a leading axis of chains. To begin a chunk, set `made` to zero.
        chunks: what each is to do; likewise. At most (rows.shape[1] − 1) · thin transitions.
        rounds: at most so many, each of `steps` leapfrog steps. Chains that are cut off go on in the next call with the
            same chunk.
        steps: leapfrog steps between two looks at who is finished. Best a power of two, since trajectories that turn
            after a doubling have 2ᵏ − 1 of them, and a quarter to a half of their usual length.

    Returns:
        Where the chains are; row i of `rows` belongs to the transition (i + 1) · thin − 1 of the chunk, for all i
        below made // thin.
    """

    def unfinished(carry: tuple[Array, Walk]) -> Array:
        done, walks = carry
        return (done < rounds) & jnp.any(walks.made < chunks.transitions)

    def one_round(walk: Walk, chunk: Chunk) -> Walk:
        return machine.round(walk, chunk, steps)

    def more(carry: tuple[Array, Walk]) -> tuple[Array, Walk]:
        done, walks = carry
        return done + 1, jax.vmap(one_round)(walks, chunks)

    _, walks = lax.while_loop(unfinished, more, (jnp.zeros((), jnp.int32), walks))
    return walks
