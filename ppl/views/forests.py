"""Sums over all states of discrete coordinates that are tied together in pairs, without a circle.

    Z = Σ_z Π_i exp u_i(z_i) Π_(i,j) exp p_ij(z_i, z_j)

Every tree of the forest is rooted in its middle and eliminated from the leaves inwards, all trees at once and level by
level. Of a chain this is the forward algorithm from both ends, which takes half as many steps. The other way, from
the roots outwards, exact draws are made: filtering forward, sampling backward.

Source: Pearl (1988), "Probabilistic Reasoning in Intelligent Systems", for trees; Rabiner (1989), "A tutorial on hidden
Markov models", for chains; Scott (2002), "Bayesian methods for hidden Markov models", for the draws.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
IntArray = np.ndarray[Any, Any]


class CircleError(ValueError):
    """Coordinates tied together in a circle.

    Args:
        pair: two that are tied together and close a circle.
    """

    def __init__(self, pair: tuple[int, int]) -> None:
        super().__init__(f"coordinates {pair[0]} and {pair[1]} close a circle")
        self.pair = pair


@dataclass(frozen=True)
class Forest:
    """Trees of coordinates, laid out for elimination.

    In a level, a coordinate stands in a slot; the first child of a coordinate has the slot of its parent, so that an
    arm of a chain stays in one slot. Empty slots are filled with the number of coordinates, or of edges.

    Args:
        roots: one coordinate of each tree, ascending; shape (trees,).
        odd: whether a coordinate is an odd number of steps from its root, shape (coordinates,).
        nodes: the coordinate in each slot, shape (levels, slots), the deepest level first, without the roots.
        edges: the pair of the coordinate and its parent, by number; of the same shape.
        parents: the slot of the parent in the next level; of the same shape. In the last level, the number of the root.
    """

    roots: IntArray
    odd: IntArray
    nodes: IntArray
    edges: IntArray
    parents: IntArray

    @classmethod
    def of(cls, count: int, pairs: IntArray) -> Forest:
        """The forest of `count` coordinates and different `pairs` of them, shape (edges, 2).

        Raises:
            CircleError: where there is a circle.
        """
        neighbours: dict[int, list[tuple[int, int]]] = {}
        for edge, (a, b) in enumerate(np.asarray(pairs).tolist()):
            neighbours.setdefault(a, []).append((b, edge))
            neighbours.setdefault(b, []).append((a, edge))
        alone = np.ones(count, bool)
        alone[list(neighbours)] = False
        middles, seen = [], set[int]()
        for start in sorted(neighbours):
            if start not in seen:
                seen.update(_outwards(start, neighbours))
                middles.append(_middle(start, neighbours))
        roots = np.sort(np.concatenate([np.flatnonzero(alone), np.asarray(middles, int)]))
        return cls(roots, *_levels(count, len(pairs), roots, neighbours))

    @property
    def is_edgeless(self) -> bool:
        """Whether no two coordinates are tied together."""
        return not self.nodes.size

    def log_sums(self, alone: Array, pairs: Array | None) -> Array:
        """The logarithm of the sum over all states, for each tree.

        Args:
            alone: u, shape (values, coordinates).
            pairs: p, shape (values, values, edges), by the value of the even coordinate, then that of the odd one;
                None where there are none.

        Returns:
            Shape (trees,).
        """
        return logsumexp(self._inwards(alone, pairs)[0], 0)

    def draw(self, noise: Array, alone: Array, pairs: Array | None) -> Array:
        """The states of all coordinates, by number of the value, drawn from their joint distribution.

        Args:
            noise: independent standard Gumbel numbers, shape (values, coordinates).
            alone: u, shape (values, coordinates).
            pairs: p; see `log_sums`.

        Returns:
            Shape (coordinates,).
        """
        at_roots, beliefs = self._inwards(alone, pairs)
        chosen = jnp.argmax(at_roots + noise[:, self.roots], 0)
        result = jnp.zeros(alone.shape[1] + 1, chosen.dtype).at[self.roots].set(chosen)
        if pairs is None or self.is_edgeless:
            return result[:-1]
        noises = _padded(noise, 0.0)[:, self.nodes].transpose(1, 2, 0)

        def outwards(states: Array, level: tuple[Array, ...]) -> tuple[Array, Array]:
            belief, pair, own, parents = level
            of_parents = states.at[parents].get(mode="clip")
            tie = jnp.take_along_axis(pair, of_parents[:, None, None], 2)[:, :, 0]
            states = jnp.argmax(belief + tie + own, 1)
            return states, states

        levels = beliefs, self._pairs(pairs), noises, jnp.asarray(self.parents)
        # The slots of the last level read the roots; all others those of the level before.
        size = max(len(self.roots), self.nodes.shape[1])
        first = jnp.zeros(size, chosen.dtype).at[: len(self.roots)].set(chosen)
        states, last = outwards(first, tuple(part[-1] for part in levels))
        _, others = lax.scan(outwards, states, tuple(part[:-1] for part in levels), reverse=True)
        drawn = jnp.concatenate([others, last[None]])
        return result.at[self.nodes.ravel()].set(drawn.ravel())[:-1]

    def _inwards(self, alone: Array, pairs: Array | None) -> tuple[Array, Array]:
        """Log weights of the values of each root, shape (values, trees), and of each slot before its parent joins."""
        at_roots = alone if len(self.roots) == alone.shape[1] else alone[:, self.roots]
        if pairs is None or self.is_edgeless:
            return at_roots, jnp.zeros(0)
        # In an empty slot there is one value, of weight one.
        values = alone.shape[0]
        empty = jnp.where(np.arange(values) == 0, 0.0, -jnp.inf).astype(alone.dtype)
        own = jnp.concatenate([alone, empty[:, None]], 1)[:, self.nodes].transpose(1, 2, 0)
        merges = _children(self.parents[:-1], self._filled[:-1], self.nodes.shape[1])

        def inwards(messages: Array, level: tuple[Array, ...]) -> tuple[Array, Array]:
            weights, pair, table = level
            belief = weights + messages
            sent = logsumexp(belief[:, :, None] + pair, 1)
            return _merged(sent, table), belief

        start = jnp.zeros((self.nodes.shape[1], values), alone.dtype)
        ties = self._pairs(pairs)
        messages, beliefs = lax.scan(inwards, start, (own[:-1], ties[:-1], jnp.asarray(merges)))
        last = own[-1] + messages
        sent = logsumexp(last[:, :, None] + ties[-1], 1)
        arrived = _merged(sent, jnp.asarray(_children(self.parents[-1:], self._filled[-1:], len(self.roots))[0]))
        return at_roots + arrived.T, jnp.concatenate([beliefs, last[None]])

    def _pairs(self, pairs: Array) -> Array:
        """By level and slot: p by the value of the coordinate, then that of its parent."""
        values, count = pairs.shape[0], pairs.shape[2]
        padded = _padded(pairs.reshape(values * values, count), 0.0)
        level = np.arange(len(self.nodes), 0, -1)[:, None, None, None]
        mine, others = np.arange(values)[:, None], np.arange(values)
        entry = np.where(level % 2, others * values + mine, mine * values + others)
        table: Array = padded.ravel()[entry * (count + 1) + self.edges[:, :, None, None]]
        return table

    @functools.cached_property
    def _filled(self) -> IntArray:
        return self.nodes < len(self.odd)


def logsumexp(array: Array, axis: int) -> Array:
    """Log Σ exp along an axis, whose derivatives are finite where entries, or all of them, are −∞."""
    top = lax.stop_gradient(jnp.max(array, axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.sum(jnp.exp(array - top), axis)
    log_total = jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1.0, total)))
    return log_total + jnp.squeeze(top, axis)


def _merged(sent: Array, table: Array) -> Array:
    """The sums of messages, shape (slots, values), that meet in a slot of the next level."""
    if table.shape[-1] == 0:
        return sent
    return jnp.sum(jnp.concatenate([sent, jnp.zeros_like(sent[:1])])[table], 1)


def _children(parents: IntArray, filled: IntArray, slots: int) -> IntArray:
    """For each level and slot of the next, the slots that send there; nothing where each sends to its own."""
    levels, width = parents.shape
    own = np.broadcast_to(np.arange(width), parents.shape)
    if slots == width and np.array_equal(np.where(filled, parents, own), own):
        return np.zeros((levels, slots, 0), int)
    senders: list[list[list[int]]] = [[[] for _ in range(slots)] for _ in range(levels)]
    for level, slot in zip(*np.nonzero(filled), strict=True):
        senders[level][parents[level, slot]].append(slot)
    most = max((len(each) for level in senders for each in level), default=0)
    table = np.full((levels, slots, max(most, 1)), width)
    for level, each in enumerate(senders):
        for slot, found in enumerate(each):
            table[level, slot, : len(found)] = found
    return table


def _padded(array: Any, value: float) -> Any:
    return jnp.concatenate([array, jnp.full((len(array), 1), value, array.dtype)], 1)


def _outwards(start: int, neighbours: dict[int, list[tuple[int, int]]]) -> dict[int, int]:
    """The coordinates of a tree in the order of their distance from one of them; by coordinate the one before it."""
    before, queue = {start: -1}, [start]
    for node in queue:
        for other, _ in neighbours[node]:
            if other == before[node]:
                continue
            if other in before:
                raise CircleError((node, other))
            before[other] = node
            queue.append(other)
    return before


def _middle(start: int, neighbours: dict[int, list[tuple[int, int]]]) -> int:
    """The coordinate of a tree from which the others are least far."""
    end = list(_outwards(start, neighbours))[-1]
    before = _outwards(end, neighbours)
    path = [list(before)[-1]]
    while before[path[-1]] >= 0:
        path.append(before[path[-1]])
    return path[len(path) // 2]


def _levels(
    count: int, edges: int, roots: IntArray, neighbours: dict[int, list[tuple[int, int]]]
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """See `Forest`: `odd`, `nodes`, `edges` and `parents`."""
    odd = np.zeros(count, bool)
    # By level a list of (slot, coordinate, edge, slot of the parent); a root's number stands for its slot.
    levels: list[list[tuple[int, int, int, int]]] = []
    level = [(number, root, -1) for number, root in enumerate(roots.tolist()) if root in neighbours]
    slots = 0
    while level:
        found, next_level = [], []
        for slot, node, before in level:
            first = bool(levels)
            for other, edge in neighbours[node]:
                if other == before:
                    continue
                # The children of a root have new slots, and so have all but the first child of another.
                own, slots, first = (slot, slots, False) if first else (slots, slots + 1, False)
                found.append((own, other, edge, slot))
                next_level.append((own, other, node))
                odd[other] = not odd[node]
        if found:
            levels.append(found)
        level = next_level
    shape = len(levels), slots
    nodes, numbers = np.full(shape, count), np.full(shape, edges)
    parents = np.broadcast_to(np.arange(slots), shape).copy()
    for depth, found in enumerate(reversed(levels)):
        for slot, node, edge, parent in found:
            nodes[depth, slot], numbers[depth, slot], parents[depth, slot] = node, edge, parent
    return odd, nodes, numbers, parents
