"""When a trajectory turns back on itself: the generalised U-turn criterion, checked over every subtree.

A stretch of trajectory with first and last momenta u₁, u₂ and momentum sum ρ keeps going while u₁·ρ > 0 and
u₂·ρ > 0. A tree of 2ᵏ leaves built in one direction is checked at each of its subtrees, and across the two halves
of each of them: the left half together with the first leaf of the right, and the last leaf of the left together with
the right half. Without the latter, trajectories of just the wrong length escape on nearly isotropic targets.

The leaves come one by one, so the subtrees that end at leaf n (counted from 0) are those of size 2, 4, ... 2ᵗ,
t the number of trailing ones of n in binary. Three arrays of one row a level hold what they need.

Source: Betancourt (2017), "A conceptual introduction to Hamiltonian Monte Carlo", appendix A.4; the checks across
subtrees are Stan's since 2.21 (stan-dev/stan pull request 2800); the iterative form is after Phan, Pradhan and
Jankowiak (2019), "Composable effects for flexible and accelerated probabilistic programming in NumPyro".
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from .base import Array


def is_turning(first: Array, last: Array, total: Array) -> Array:
    """Whether a stretch has turned back: u₁·ρ ≤ 0 or u₂·ρ ≤ 0. Arguments have shape (dimension,)."""
    return (jnp.dot(first, total) <= 0) | (jnp.dot(last, total) <= 0)


class Checkpoints(NamedTuple):
    """What the open subtrees need to remember; every field has shape (levels + 2, dimension).

    Args:
        start: momentum at the first leaf of a subtree.
        before: sum of the momenta of all leaves before that one.
        middle: momentum at the last leaf of the closed left half of a subtree.
    """

    start: Array
    before: Array
    middle: Array


def init_checkpoints(levels: int, momentum: Array) -> Checkpoints:
    """Empty checkpoints for the subtrees of a trajectory of up to 2^levels leaves."""
    empty = jnp.zeros((levels + 2, momentum.size), momentum.dtype)
    return Checkpoints(empty, empty, empty)


def visit(
    checkpoints: Checkpoints, leaf: Array, previous: Array, momentum: Array, total: Array
) -> tuple[Checkpoints, Array]:
    """Enter one more leaf, and check every subtree that it completes.

    Args:
        checkpoints: what is remembered of the leaves before.
        leaf: its number n, from 0, in the order of building.
        previous: u at the leaf before, shape (dimension,); anything at leaf 0.
        momentum: u at the leaf, shape (dimension,).
        total: sum of momenta of all leaves up to and including it, shape (dimension,).

    Returns:
        The new checkpoints, and whether any completed subtree has turned.
    """
    # Leaf n belongs to row popcount(n >> 1). The first leaves of the subtrees that end at n stand in that row
    # (size 2), the one before it (size 4), and so on, each still there when it is asked for.
    row = lax.population_count(leaf >> 1)
    completed = lax.population_count(leaf & ~(leaf + 1))  # trailing ones
    opens = completed == 0
    # A leaf that opens no subtree writes into the last row, where nobody reads: cheaper than to keep what is there.
    opened = jnp.where(opens, row, checkpoints.start.shape[0] - 1)
    start = _put(checkpoints.start, opened, momentum)
    before = _put(checkpoints.before, opened, total - momentum)
    # This leaf closes a subtree of 2^completed leaves: the left half of one on the next level, or its right half,
    # and then nobody asks for the row again. Written before the checks read the array (they read lower rows):
    # in the other order XLA copies it twice a leaf.
    middle = _put(checkpoints.middle, completed + 1, momentum)

    def check(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        level, turning = carry
        at = row - (level - 1)
        first, through_left = start[at], before[at + 1]
        whole = is_turning(first, momentum, total - before[at])
        begin_right, end_left = start[at + 1], middle[level]
        across_left = is_turning(first, begin_right, through_left - before[at] + begin_right)
        across_right = is_turning(end_left, momentum, total - through_left + end_left)
        return level + 1, turning | whole | across_left | across_right

    def more(carry: tuple[Array, Array]) -> Array:
        level, turning = carry
        return (level <= completed) & ~turning

    # The halves of a pair of leaves are single leaves, so that there is nothing to check across them.
    pair = ~opens & is_turning(previous, momentum, previous + momentum)
    _, turning = lax.while_loop(more, check, (jnp.full_like(leaf, 2), pair))
    return Checkpoints(start, before, middle), turning


def _put(rows: Array, index: Array, value: Array) -> Array:
    updated: Array = lax.dynamic_update_index_in_dim(rows, value, index, 0)
    return updated
