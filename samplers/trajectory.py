"""Trajectories by repeated doubling, and the multinomial choice of a point on them.

A trajectory is doubled by a subtree of as many leaves as it has, in a random direction of time, until it turns back,
diverges or reaches the depth limit. The next state is drawn from its points with weights exp(−H): uniformly
progressive inside a subtree, biased towards the new half when the subtree is joined.

All arrays are flat and few, and the loops have no inner structure but the gradient: XLA then compiles the whole
transition of a small model into one native function. Its time is that of its instructions, so what is written here is
what was measured to need fewest of them.

Source: Hoffman and Gelman (2014), "The No-U-Turn Sampler"; Betancourt (2017), "A conceptual introduction to
Hamiltonian Monte Carlo", appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import Array
from .integrators import Point, energy
from .random import bits, fold_in, uniform
from .termination import Checkpoints, init_checkpoints, is_turning, visit

# An energy error beyond this is a divergence: exp(−1000) is no error of discretisation any more.
MAX_ENERGY_ERROR = 1000.0
# Weights exp(H₀ − H) are kept as they are, not as logarithms, which saves three transcendental functions a leaf.
# They are cut off where a sum over 2²² leaves would overflow. A point whose energy is so far below its trajectory's
# start is met on the way to the typical set and, with a probability of e⁻⁶⁹⁴ in float64 and e⁻⁷³ in float32, never
# within it.
_LOG_MOST_LEAVES = 22 * float(np.log(2.0))

Integrate = Callable[[Point, Array], Point]
PyTree = TypeVar("PyTree")


class Proposal(NamedTuple):
    """The point chosen so far among the leaves of a tree.

    Args:
        position, log_density, gradient: as in `Point`.
        energy: H at the point, shape ().
        weight: sum of exp(H₀ − H) over the leaves of the tree, shape ().
    """

    position: Array
    log_density: Array
    gradient: Array
    energy: Array
    weight: Array


class Course(NamedTuple):
    """What is settled about a trajectory before its first step.

    Args:
        directions: a bit for each doubling, the lowest first: 1 forward in time, 0 backward; shape ().
        leaf_key, join_key: of the choices inside subtrees and between a subtree and the rest.
        step_size: ε > 0, shape ().
        limit: of doublings, shape ().
        start_energy: H₀, shape ().
    """

    directions: Array
    leaf_key: Array
    join_key: Array
    step_size: Array
    limit: Array
    start_energy: Array


class Tree(NamedTuple):
    """A trajectory.

    Args:
        ends: its first and last point in time; the fields have a leading axis of size 2.
        proposal: the point chosen from it.
        total: ρ, the sum of whitened momenta over its leaves, shape (dimension,).
        depth: doublings, the abandoned one included.
        leaves: integration steps taken, in abandoned subtrees too.
        acceptance: sum of min(1, exp(H₀ − H)) over these steps.
        turning, diverging: why it stopped, if it did.
    """

    ends: Point
    proposal: Proposal
    total: Array
    depth: Array
    leaves: Array
    acceptance: Array
    turning: Array
    diverging: Array


class Growth(NamedTuple):
    """A subtree while it grows, leaf by leaf.

    Args:
        end: the last leaf, or the end of the trajectory that the first leaf will be next to.
        proposal: the point chosen from the leaves.
        total: sum of their momenta, shape (dimension,).
        checkpoints: for the U-turn checks.
        leaves: how many.
        acceptance: as in `Tree`, the trajectory's included.
        turning, diverging: why it broke off, if it did.
    """

    end: Point
    proposal: Proposal
    total: Array
    checkpoints: Checkpoints
    leaves: Array
    acceptance: Array
    turning: Array
    diverging: Array


def grow_trajectory(
    key: Array, start: Point, step_size: Array, max_depth: int, integrate: Integrate, limit: Array | None = None
) -> Tree:
    """Double a trajectory from a point until it turns, diverges or has 2^max_depth leaves.

    Args:
        key: of this transition; directions and choices are drawn from it.
        start: the present position with a fresh momentum.
        step_size: ε > 0, shape ().
        max_depth: limit of doublings.
        integrate: one leapfrog step of a given signed size.
        limit: a lower one, shape ().

    Returns:
        The finished trajectory; its `proposal` is the next state of the chain.
    """
    course = set_out(key, start, step_size, jnp.asarray(max_depth, jnp.int32) if limit is None else limit)

    def unfinished(carry: tuple[Tree, Checkpoints]) -> Array:
        return is_unfinished(carry[0], course)

    def double(carry: tuple[Tree, Checkpoints]) -> tuple[Tree, Checkpoints]:
        tree, checkpoints = carry
        signed = signed_step(tree, course)
        subtree = lax.while_loop(
            lambda growth: is_growing(growth, tree),
            lambda growth: next_leaf(growth, tree.leaves, signed, course, integrate),
            begin_subtree(tree, course, checkpoints),
        )
        return join(tree, subtree, course, chance_to_join(tree, course)), subtree.checkpoints

    tree, _ = lax.while_loop(
        unfinished, double, (begin_tree(start, course), init_checkpoints(max_depth, start.momentum))
    )
    return tree


def set_out(key: Array, start: Point, step_size: Array, limit: Array) -> Course:
    """The course of a trajectory; arguments as in `grow_trajectory`."""
    # Without the barrier XLA computes the hashes anew wherever they are used.
    directions, leaf_key, join_key = lax.optimization_barrier((bits(fold_in(key, 0)), fold_in(key, 1), fold_in(key, 2)))
    return Course(directions, leaf_key, join_key, step_size, limit, energy(start))


def begin_tree(start: Point, course: Course) -> Tree:
    """The trajectory of one point."""
    zero, none = jnp.zeros_like(course.start_energy), jnp.zeros((), bool)
    return Tree(
        ends=jax.tree.map(lambda field: jnp.stack([field, field]), start),
        proposal=_proposal(start, course.start_energy, jnp.ones_like(zero)),
        total=start.momentum,
        depth=jnp.zeros((), jnp.int32),
        leaves=jnp.zeros((), jnp.int32),
        acceptance=zero,
        turning=none,
        diverging=none,
    )


def is_unfinished(tree: Tree, course: Course) -> Array:
    """Whether a trajectory is to be doubled once more, shape ()."""
    return (tree.depth < course.limit) & ~tree.turning & ~tree.diverging


def is_growing(growth: Growth, tree: Tree) -> Array:
    """Whether the subtree that doubles `tree` is to get one more leaf, shape ()."""
    size = jnp.left_shift(jnp.ones_like(tree.depth), tree.depth)
    return (growth.leaves < size) & ~growth.turning & ~growth.diverging


def signed_step(tree: Tree, course: Course) -> Array:
    """The step size of the subtree that doubles `tree`, negative where it goes back in time."""
    return jnp.where(_side(tree, course) == 1, course.step_size, -course.step_size)


def begin_subtree(tree: Tree, course: Course, checkpoints: Checkpoints) -> Growth:
    """The subtree that will double `tree`, without leaves; what `checkpoints` hold does not matter."""
    side, none = _side(tree, course), jnp.zeros((), bool)
    edge = jax.tree.map(lambda rows: _row(rows, side), tree.ends)
    return Growth(
        end=edge,
        proposal=_proposal(edge, course.start_energy, jnp.zeros_like(course.start_energy)),
        total=jnp.zeros_like(tree.total),
        checkpoints=checkpoints,
        leaves=jnp.zeros_like(tree.depth),
        acceptance=tree.acceptance,
        turning=none,
        diverging=none,
    )


def next_leaf(growth: Growth, before: Array, signed: Array, course: Course, integrate: Integrate) -> Growth:
    """One more leaf of a subtree: one leapfrog step.

    Args:
        growth: the subtree.
        before: leaves of the trajectory before this subtree, which number the random choices; shape ().
        signed: step size with the sign of the direction, shape ().
        course: of the trajectory.
        integrate: one leapfrog step of a given signed size.
    """
    end = integrate(growth.end, signed)
    end_energy = energy(end)
    log_weight = course.start_energy - end_energy
    highest = float(np.log(np.finfo(log_weight.dtype).max)) - _LOG_MOST_LEAVES
    # The barriers keep XLA from computing weight and choice anew for each array that is chosen.
    weight = lax.optimization_barrier(jnp.exp(jnp.minimum(log_weight, highest)))
    sum_weight = growth.proposal.weight + weight
    chance = uniform(course.leaf_key, before + growth.leaves, weight.dtype)
    take = lax.optimization_barrier(chance * sum_weight < weight)
    chosen = select(take, _proposal(end, end_energy, sum_weight), growth.proposal._replace(weight=sum_weight))
    total = growth.total + end.momentum
    checkpoints, turning = visit(growth.checkpoints, growth.leaves, growth.end.momentum, end.momentum, total)
    return Growth(
        end=end,
        proposal=chosen,
        total=total,
        checkpoints=checkpoints,
        leaves=growth.leaves + 1,
        acceptance=growth.acceptance + jnp.minimum(1.0, weight),
        turning=turning,
        diverging=log_weight < -MAX_ENERGY_ERROR,
    )


def chance_to_join(tree: Tree, course: Course) -> Array:
    """The uniform number that decides whether the next point is taken from the new half, shape ()."""
    return uniform(course.join_key, tree.depth, course.step_size.dtype)


def join(tree: Tree, subtree: Growth, course: Course, chance: Array) -> Tree:
    """Join a subtree to the trajectory; one that broke off leaves the proposal as it was.

    Args:
        tree: the trajectory.
        subtree: which doubles it.
        course: of the trajectory.
        chance: `chance_to_join`, shape ().
    """
    side = _side(tree, course)
    complete = ~subtree.turning & ~subtree.diverging
    old, new = tree.proposal, subtree.proposal
    take = lax.optimization_barrier(complete & (chance * old.weight < new.weight))
    total = tree.total + subtree.total
    # Over the whole, and across the join: the old trajectory with the first leaf of the new, and the last leaf
    # of the old (its edge) with the new. `start[0]` holds the first leaf of the subtree.
    far, edge = _row(tree.ends.momentum, 1 - side), _row(tree.ends.momentum, side)
    first, last = subtree.checkpoints.start[0], subtree.end.momentum
    turning = is_turning(far, last, total)
    across = is_turning(far, first, tree.total + first) | is_turning(edge, last, subtree.total + edge)
    return Tree(
        ends=jax.tree.map(lambda rows, field: _put(rows, side, field), tree.ends, subtree.end),
        proposal=select(take, new, old)._replace(weight=old.weight + new.weight),
        total=total,
        depth=tree.depth + 1,
        leaves=tree.leaves + subtree.leaves,
        acceptance=subtree.acceptance,
        turning=subtree.turning | turning | ((tree.depth > 0) & across),
        diverging=subtree.diverging,
    )


def select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """One of two pytrees of the same structure, by a condition of shape ()."""
    chosen: PyTree = jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
    return chosen


def _proposal(point: Point, point_energy: Array, weight: Array) -> Proposal:
    return Proposal(point.position, point.log_density, point.gradient, point_energy, weight)


def _side(tree: Tree, course: Course) -> Array:
    """Which of the two ends the next doubling extends: 1 the last in time, 0 the first."""
    return ((course.directions >> tree.depth.astype(jnp.uint32)) & 1).astype(jnp.int32)


def _row(rows: Array, index: Array) -> Array:
    row: Array = lax.dynamic_index_in_dim(rows, index, 0, keepdims=False)
    return row


def _put(rows: Array, index: Array, value: Array) -> Array:
    updated: Array = lax.dynamic_update_index_in_dim(rows, value, index, 0)
    return updated
