"""Trajectories by repeated doubling, and the multinomial choice of a point on them.

A trajectory is doubled by a subtree of as many leaves as it has, in a random direction of time, until it turns back,
diverges or reaches the depth limit. The next state is drawn from its points with weights exp(−H): uniformly
progressive inside a subtree, biased towards the new half when the subtree is joined.

All arrays are flat and few, and the loops have no inner structure but the gradient: XLA then compiles the whole
transition of a small model into one native function.

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


class Tree(NamedTuple):
    """A trajectory.

    Args:
        left, right: its ends in time.
        proposal: the point chosen from it.
        total: ρ, the sum of whitened momenta over its leaves, shape (dimension,).
        depth: doublings, the abandoned one included.
        leaves: integration steps taken, in abandoned subtrees too.
        acceptance: sum of min(1, exp(H₀ − H)) over these steps.
        turning, diverging: why it stopped, if it did.
    """

    left: Point
    right: Point
    proposal: Proposal
    total: Array
    depth: Array
    leaves: Array
    acceptance: Array
    turning: Array
    diverging: Array


class _Growth(NamedTuple):
    """The state of the loop over the leaves of one subtree."""

    end: Point
    proposal: Proposal
    total: Array
    checkpoints: Checkpoints
    leaves: Array
    acceptance: Array
    turning: Array
    diverging: Array


def grow_trajectory(key: Array, start: Point, step_size: Array, max_depth: int, integrate: Integrate) -> Tree:
    """Double a trajectory from a point until it turns, diverges or has 2^max_depth leaves.

    Args:
        key: of this transition; directions and choices are drawn from it.
        start: the present position with a fresh momentum.
        step_size: ε > 0, shape ().
        max_depth: limit of doublings.
        integrate: one leapfrog step of a given signed size.

    Returns:
        The finished trajectory; its `proposal` is the next state of the chain.
    """
    start_energy = energy(start)
    directions = bits(fold_in(key, 0))
    leaf_key, join_key = fold_in(key, 1), fold_in(key, 2)
    zero = jnp.zeros_like(start_energy)
    none = jnp.zeros((), bool)
    tree = Tree(
        left=start,
        right=start,
        proposal=Proposal(start.position, start.log_density, start.gradient, start_energy, jnp.ones_like(start_energy)),
        total=start.momentum,
        depth=jnp.zeros((), jnp.int32),
        leaves=jnp.zeros((), jnp.int32),
        acceptance=zero,
        turning=none,
        diverging=none,
    )

    def unfinished(carry: tuple[Tree, Checkpoints]) -> Array:
        tree, _ = carry
        return (tree.depth < max_depth) & ~tree.turning & ~tree.diverging

    def double(carry: tuple[Tree, Checkpoints]) -> tuple[Tree, Checkpoints]:
        tree, checkpoints = carry
        forward = ((directions >> tree.depth.astype(jnp.uint32)) & 1).astype(bool)
        edge = select(forward, tree.right, tree.left)
        signed = jnp.where(forward, step_size, -step_size)
        subtree = _grow(leaf_key, edge, signed, tree, start_energy, checkpoints, integrate)
        return _join(tree, subtree, edge, forward, uniform(join_key, tree.depth, zero.dtype)), subtree.checkpoints

    tree, _ = lax.while_loop(unfinished, double, (tree, init_checkpoints(max_depth, start.momentum)))
    return tree


def _grow(
    key: Array,
    edge: Point,
    step_size: Array,
    tree: Tree,
    start_energy: Array,
    checkpoints: Checkpoints,
    integrate: Integrate,
) -> _Growth:
    """Build the subtree that would double `tree`, leaf by leaf from its `edge`."""
    size = jnp.left_shift(jnp.ones_like(tree.depth), tree.depth)
    nothing = Proposal(edge.position, edge.log_density, edge.gradient, start_energy, jnp.zeros_like(start_energy))
    highest = float(np.log(np.finfo(start_energy.dtype).max)) - _LOG_MOST_LEAVES

    def unfinished(growth: _Growth) -> Array:
        return (growth.leaves < size) & ~growth.turning & ~growth.diverging

    def next_leaf(growth: _Growth) -> _Growth:
        end = integrate(growth.end, step_size)
        end_energy = energy(end)
        log_weight = start_energy - end_energy
        weight = jnp.exp(jnp.minimum(log_weight, highest))
        sum_weight = growth.proposal.weight + weight
        take = uniform(key, tree.leaves + growth.leaves, step_size.dtype) * sum_weight < weight
        leaf = Proposal(end.position, end.log_density, end.gradient, end_energy, sum_weight)
        kept = growth.proposal._replace(weight=sum_weight)
        total = growth.total + end.momentum
        checkpoints, turning = visit(growth.checkpoints, growth.leaves, end.momentum, total)
        return _Growth(
            end=end,
            proposal=select(take, leaf, kept),
            total=total,
            checkpoints=checkpoints,
            leaves=growth.leaves + 1,
            acceptance=growth.acceptance + jnp.minimum(1.0, weight),
            turning=turning,
            diverging=log_weight < -MAX_ENERGY_ERROR,
        )

    none = jnp.zeros((), bool)
    empty = _Growth(
        end=edge,
        proposal=nothing,
        total=jnp.zeros_like(tree.total),
        checkpoints=checkpoints,
        leaves=jnp.zeros_like(tree.depth),
        acceptance=tree.acceptance,
        turning=none,
        diverging=none,
    )
    return lax.while_loop(unfinished, next_leaf, empty)


def _join(tree: Tree, subtree: _Growth, edge: Point, forward: Array, chance: Array) -> Tree:
    """Join a subtree to the trajectory at `edge`; a subtree that broke off leaves the proposal as it was."""
    complete = ~subtree.turning & ~subtree.diverging
    old, new = tree.proposal, subtree.proposal
    take = complete & (chance * old.weight < new.weight)
    proposal = select(take, new, old)._replace(weight=old.weight + new.weight)
    left = select(forward, tree.left, subtree.end)
    right = select(forward, subtree.end, tree.right)
    total = tree.total + subtree.total
    # Over the whole, and across the join: the old trajectory with the first leaf of the new, and the last leaf
    # of the old (its edge) with the new. `start[0]` holds the first leaf of the subtree.
    far = jnp.where(forward, tree.left.momentum, tree.right.momentum)
    first_new = subtree.checkpoints.start[0]
    turning = is_turning(left.momentum, right.momentum, total)
    across = is_turning(far, first_new, tree.total + first_new) | is_turning(
        edge.momentum, subtree.end.momentum, subtree.total + edge.momentum
    )
    return Tree(
        left=left,
        right=right,
        proposal=proposal,
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
