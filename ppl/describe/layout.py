"""Where the nodes of a diagram stand: layers from cause to effect, plates as boxes.

Each plate is laid out by itself and is one part of the plate around it, so that its box holds what belongs to it and
nothing else. The parts at one level go into layers by the longest path to them, those of a layer into the order that
crosses few arrows (barycentres), and then as close to their neighbours as the order allows (least squares).

Source: Sugiyama, Tagawa and Toda (1981), "Methods for visual understanding of hierarchical system structures", IEEE
Transactions on Systems, Man, and Cybernetics 11(2).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Arrow = tuple[str, str]
Point = tuple[float, float]

# In inches: between neighbours, between layers, from the contents of a plate to its border, for the plate's name.
_BESIDE, _BELOW, _PADDING, _LABEL = 0.3, 0.42, 0.16, 0.2
# How wide a passage is that an arrow takes through a layer between its ends.
_PASSAGE = 0.12
_SWEEPS = 24
# How strongly an arrow pulls its ends together: between the passages of one arrow, between parts that both lead on,
# and else. Long arrows and chains come out straight.
_STRAIGHT, _CHAIN, _LOOSE = 16.0, 16.0, 1.0


@dataclass(frozen=True)
class Cluster:
    """A plate with what is in it.

    Args:
        label: empty for the diagram as a whole.
        nodes: directly in it.
        inside: plates directly in it.
    """

    label: str
    nodes: tuple[str, ...]
    inside: tuple[Cluster, ...]

    def members(self) -> tuple[str, ...]:
        """The nodes in it and in the plates inside."""
        return (*self.nodes, *(name for cluster in self.inside for name in cluster.members()))


@dataclass(frozen=True)
class Box:
    """A rectangle, in inches.

    Args:
        x, y: its centre; y points down.
        width, height: its sides.
    """

    x: float
    y: float
    width: float
    height: float

    def moved(self, x: float, y: float) -> Box:
        """The same elsewhere."""
        return Box(self.x + x, self.y + y, self.width, self.height)


@dataclass
class Layout:
    """Where everything stands, from the centre of a rectangle around it.

    Args:
        width, height: of the rectangle.
        nodes: by name.
        plates: by label and box; outer plates before inner ones.
        routes: the points that an arrow passes between its ends, where it passes any.
    """

    width: float
    height: float
    nodes: dict[str, Box] = field(default_factory=dict)
    plates: list[tuple[str, Box]] = field(default_factory=list)
    routes: dict[Arrow, list[Point]] = field(default_factory=dict)

    def add(self, part: Layout, x: float, y: float) -> None:
        """Put another one into this one, with its centre there."""
        self.nodes |= {name: box.moved(x, y) for name, box in part.nodes.items()}
        self.plates += [(label, box.moved(x, y)) for label, box in part.plates]
        self.routes |= {arrow: [(a + x, b + y) for a, b in points] for arrow, points in part.routes.items()}


def arrange(
    cluster: Cluster, sizes: Mapping[str, tuple[float, float]], arrows: Collection[Arrow], sideways: bool
) -> Layout:
    """Lay out a diagram.

    Args:
        cluster: the diagram as a whole.
        sizes: width and height of every node, in inches.
        arrows: from a node to another.
        sideways: layers go from left to right, not from top to bottom.
    """
    parts = [Layout(*sizes[name], {name: Box(0.0, 0.0, *sizes[name])}) for name in cluster.nodes]
    parts += [arrange(inner, sizes, arrows, sideways) for inner in cluster.inside]
    owner = {name: i for i, part in enumerate(parts) for name in part.nodes}
    between: dict[tuple[int, int], list[Arrow]] = {}
    for start, end in arrows:
        if start in owner and end in owner and owner[start] != owner[end]:
            between.setdefault((owner[start], owner[end]), []).append((start, end))
    level = _Level.of(parts, between, sideways)
    places = level.places()
    whole = Layout(0.0, 0.0)
    for part, (x, y) in zip(parts, places, strict=False):
        whole.add(part, x, y)
    for pair, passages in level.passages.items():
        whole.routes |= {arrow: [places[i] for i in passages] for arrow in between[pair]}
    return _framed(whole, cluster.label)


def layers(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The layer of each of so many things, by the longest path to it; arrows that close a cycle do not count.

    A thing without causes stands just before its effects.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    for start, end in pairs:
        after[start].append(end)
    order = _downwards(after)
    position = {thing: i for i, thing in enumerate(order)}
    forward = [[end for end in ends if position[end] > position[start]] for start, ends in enumerate(after)]
    layer, caused = [0] * count, [False] * count
    for start in order:
        for end in forward[start]:
            layer[end], caused[end] = max(layer[end], layer[start] + 1), True
    for start in range(count):
        if forward[start] and not caused[start]:
            layer[start] = min(layer[end] for end in forward[start]) - 1
    return layer


def _downwards(after: Sequence[Sequence[int]]) -> list[int]:
    """An order in which every arrow goes forward, but for those that close a cycle."""
    finished: list[int] = []
    seen: set[int] = set()
    for first in range(len(after)):
        if first in seen:
            continue
        seen.add(first)
        path = [(first, iter(after[first]))]
        while path:
            following = next((end for end in path[-1][1] if end not in seen), None)
            if following is None:
                finished.append(path.pop()[0])
            else:
                seen.add(following)
                path.append((following, iter(after[following])))
    return finished[::-1]


@dataclass
class _Link:
    """An arrow, or a piece of one, from one layer to the next.

    Args:
        above, below: by number.
        weight: how strongly it pulls.
        start, end: where in them it begins and ends, across, from their centres.
    """

    above: int
    below: int
    weight: float
    start: float
    end: float


@dataclass
class _Level:
    """Parts at one level and the passages of long arrows, as numbered things with sizes across and along the layers."""

    across: list[float]
    along: list[float]
    rows: list[list[int]]
    links: list[_Link]
    passages: dict[tuple[int, int], list[int]]
    sideways: bool

    @classmethod
    def of(cls, parts: Sequence[Layout], between: Mapping[tuple[int, int], Sequence[Arrow]], sideways: bool) -> _Level:
        layer = layers(len(parts), between)
        leads_on = {start for start, _ in between}
        across = [part.height if sideways else part.width for part in parts]
        along = [part.width if sideways else part.height for part in parts]
        rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
        for i in range(len(parts)):
            rows[layer[i]].append(i)
        links: list[_Link] = []
        passages: dict[tuple[int, int], list[int]] = {}

        def offset(part: Layout, names: Iterable[str]) -> float:
            boxes = [part.nodes[name] for name in names]
            return float(np.mean([box.y if sideways else box.x for box in boxes]))

        for (start, end), arrows in between.items():
            starts, ends = offset(parts[start], (a for a, _ in arrows)), offset(parts[end], (b for _, b in arrows))
            upper, lower = (start, end) if layer[start] <= layer[end] else (end, start)
            first, last = (starts, ends) if upper == start else (ends, starts)
            chain = [upper]
            for row in range(layer[upper] + 1, layer[lower]):
                chain.append(len(across))
                rows[row].append(len(across))
                across.append(_PASSAGE)
                along.append(0.0)
            chain.append(lower)
            if layer[upper] == layer[lower]:
                continue
            inner = chain[1:-1]
            if inner:
                passages[start, end] = inner if upper == start else inner[::-1]
            for i, (above, below) in enumerate(itertools.pairwise(chain)):
                straight = 0 < i < len(chain) - 2
                weight = _STRAIGHT if straight else _CHAIN if end in leads_on and not inner else _LOOSE
                links.append(
                    _Link(above, below, weight, first if i == 0 else 0.0, last if i == len(chain) - 2 else 0.0)
                )
        return cls(across, along, rows, links, passages, sideways)

    def places(self) -> list[Point]:
        """The centres of all things."""
        self._order()
        x = self._coordinates()
        y, top = [0.0] * len(self.across), 0.0
        for row in self.rows:
            depth = max(self.along[i] for i in row)
            for i in row:
                y[i] = top + depth / 2
            top += depth + _BELOW
        return list(zip(y, x, strict=True) if self.sideways else zip(x, y, strict=True))

    def _order(self) -> None:
        """Sort the rows so that few links cross."""
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                position = {i: k for some in self.rows for k, i in enumerate(some)}
                neighbours: dict[int, list[float]] = {}
                for link in self.links:
                    here, there = (link.below, link.above) if down else (link.above, link.below)
                    neighbours.setdefault(here, []).append(position[there])
                row.sort(key=lambda i: float(np.mean(neighbours.get(i, [position[i]]))))
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best

    def _crossings(self) -> int:
        position = {i: k for row in self.rows for k, i in enumerate(row)}
        number = {i: k for k, row in enumerate(self.rows) for i in row}
        count = 0
        for _, some in itertools.groupby(sorted(self.links, key=lambda a: number[a.above]), lambda a: number[a.above]):
            ends = np.array([(position[link.above], position[link.below]) for link in some])
            difference = ends[:, None] - ends[None]
            count += int((difference[..., 0] * difference[..., 1] < 0).sum()) // 2
        return count

    def _coordinates(self) -> list[float]:
        """Across the layers: each row as close to its neighbours as its order and its sizes allow, in turns."""
        x = np.zeros(len(self.across))
        for row in self.rows:
            x[row] = self._spread(row)
            x[row] -= x[row].mean() if row else 0.0
        pulls: dict[int, list[tuple[int, float, float]]] = {}
        for link in self.links:
            pulls.setdefault(link.below, []).append((link.above, link.weight, link.start - link.end))
            pulls.setdefault(link.above, []).append((link.below, link.weight, link.end - link.start))
        for sweep in range(4 * _SWEEPS):
            for row in self.rows if sweep % 2 == 0 else reversed(self.rows):
                wanted, weights = x[row], np.full(len(row), 1e-3)
                for k, i in enumerate(row):
                    if i in pulls:
                        weights[k] = sum(weight for _, weight, _ in pulls[i])
                        wanted[k] = sum(weight * (x[j] + by) for j, weight, by in pulls[i]) / weights[k]
                spread = self._spread(row)
                x[row] = _increasing(wanted - spread, weights) + spread
        return [float(value) for value in x]

    def _spread(self, row: Sequence[int]) -> npt.NDArray[Any]:
        """Centres of things that stand as close to each other as they may."""
        half = np.array([self.across[i] / 2 for i in row])
        return np.concatenate([[0.0], np.cumsum(half[:-1] + half[1:] + _BESIDE)])[: len(row)]


def _increasing(wanted: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The non-decreasing numbers closest to those wanted in weighted least squares: conflicts are pooled."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted, weights, strict=True):
        mean, total, size = float(value), float(weight), 1
        while pools and pools[-1][0] > mean:
            before, mass, number = pools.pop()
            mean = (mean * total + before * mass) / (total + mass)
            total, size = total + mass, size + number
        pools.append((mean, total, size))
    return np.concatenate([np.full(size, mean) for mean, _, size in pools])


def label_width(label: str) -> float:
    """About how wide the name of a plate is, in inches."""
    return 0.065 * len(label)


def _framed(whole: Layout, label: str) -> Layout:
    """The same from the centre of its own frame, which is a box if it has a label."""
    boxes = [*whole.nodes.values(), *(box for _, box in whole.plates)]
    points = [point for route in whole.routes.values() for point in route]
    # The empty diagram has a frame, too.
    corners = [(0.0, 0.0)] if not boxes else [*points]
    corners += [
        (box.x + i * box.width / 2, box.y + k * box.height / 2) for box in boxes for i in (-1, 1) for k in (-1, 1)
    ]
    left, right = min(x for x, _ in corners) - _PADDING, max(x for x, _ in corners) + _PADDING
    top, bottom = min(y for _, y in corners) - _PADDING, max(y for _, y in corners) + _PADDING
    if label:
        bottom += _LABEL
        short = max(0.0, label_width(label) + _PADDING - (right - left))
        left, right = left - short / 2, right + short / 2
    framed = Layout(right - left, bottom - top)
    if label:
        framed.plates.append((label, Box(0.0, 0.0, right - left, bottom - top)))
    framed.add(whole, -(left + right) / 2, -(top + bottom) / 2)
    return framed
