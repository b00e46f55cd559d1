"""The plate diagram drawn with Matplotlib."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .layout import Box, Layout, Point, arrange, label_width
from .summary import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .diagram import Diagram, Node

# Points, shape (points, 2).
Curve = npt.NDArray[np.float64]

# In points: the name of a node, its family, the label of a plate; and the mean width of a letter, in sizes of the font.
_NAME, _FAMILY, _PLATE, _LETTER = 10.0, 7.5, 8.0, 0.58
_INCH = 72.0
_INK, _PAPER, _DATA, _FRAME = "0.1", "white", "0.85", "0.55"
# In inches: the side of a factor, and how far an arrow from a node to itself goes out of it. Points of a curve.
_SQUARE, _LOOP = 0.13, 0.26
_STEPS = 60
# How far aside an arrow goes at most that would run through a node, in inches, and in what steps.
_DETOURS = (0.3, 0.6, 0.9, 1.2)
_CLEARANCE = 0.06


def paint(diagram: Diagram, suffix: str) -> bytes:
    """The picture of a diagram.

    Args:
        diagram: to be drawn.
        suffix: of the format, such as ".png".

    Raises:
        ValueError: on a format that Matplotlib does not know.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    nodes = {node.name: node for node in diagram.nodes}
    loops = {start for start, end in diagram.arrows if start == end}
    arrows = [arrow for arrow in diagram.arrows if arrow[0] != arrow[1]]
    sizes = {name: _size(node) for name, node in nodes.items()}
    room = {name: (width + 2 * _LOOP * (name in loops), height) for name, (width, height) in sizes.items()}
    layout = arrange(diagram.whole, room, arrows, diagram.sideways)
    layout.nodes = {name: Box(box.x, box.y, *sizes[name]) for name, box in layout.nodes.items()}
    curves = {(start, end): _curve(layout, start, end) for start, end in diagram.arrows}
    corners = np.array([[-layout.width, -layout.height], [layout.width, layout.height]]) / 2
    reached = np.concatenate([corners, *(curve - _CLEARANCE for curve in curves.values())])
    reached = np.concatenate([reached, *(curve + _CLEARANCE for curve in curves.values())])
    (left, top), (right, bottom) = reached.min(0), reached.max(0)
    note = _wrapped(diagram.note, right - left)
    foot = bottom + 0.16 * len(note)
    figure = Figure(figsize=(right - left, foot - top))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(left, right)
    axes.set_ylim(foot, top)
    for label, box in layout.plates:
        _plate(axes, label, box, tuple(curves.values()))
    for (start, end), curve in curves.items():
        _arrow(axes, curve, (nodes[start], layout.nodes[start]), (nodes[end], layout.nodes[end]))
    for node in diagram.nodes:
        _node(axes, node, layout.nodes[node.name])
    if note:
        axes.text(left + 0.1, bottom, "\n".join(note), fontsize=_FAMILY, va="top", color=_INK)
    supported = figure.canvas.get_supported_filetypes()
    if suffix[1:] not in supported:
        raise ValueError(f"graph: Matplotlib cannot write '{suffix}'; use .svg, .pdf or .png.")
    written = io.BytesIO()
    # The same model gives the same file.
    metadata = {"Date": None} if suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "dualtape"}):
        figure.savefig(written, format=suffix[1:], dpi=200, metadata=metadata)
    return written.getvalue()


def _size(node: Node) -> tuple[float, float]:
    name = len(node.name) * _NAME * _LETTER / _INCH
    family = len(node.family) * _FAMILY * _LETTER / _INCH
    if node.kind is Kind.FACTOR:
        return max(name, _SQUARE), 0.5
    if node.kind is Kind.DETERMINISTIC:
        return max(name, family) + 0.2, 0.34 if not node.family else 0.44
    return max(1.15 * name + 0.2, 1.25 * family + 0.25, 0.6), 0.52


def _plate(axes: Axes, label: str, box: Box, curves: Collection[Curve]) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = 0.1
    left, top = box.x - box.width / 2, box.y - box.height / 2
    axes.add_patch(
        FancyBboxPatch(
            (left + corner, top + corner),
            box.width - 2 * corner,
            box.height - 2 * corner,
            boxstyle=f"round,pad={corner},rounding_size={corner}",
            facecolor="none",
            edgecolor=_FRAME,
            linewidth=0.9,
        )
    )
    # In the right corner, unless arrows run there and not through the left one.
    width, height = label_width(label), 0.16
    inset, bottom = 0.08, top + box.height - 0.06
    corners = {
        "right": Box(left + box.width - inset - width / 2, bottom - height / 2, width, height),
        "left": Box(left + inset + width / 2, bottom - height / 2, width, height),
    }
    hits = {side: sum(bool(_near(place, curve).any()) for curve in curves) for side, place in corners.items()}
    side = "left" if hits["left"] < hits["right"] else "right"
    x = left + inset if side == "left" else left + box.width - inset
    ground = {"facecolor": _PAPER, "edgecolor": "none", "pad": 0.5}  # an arrow behind the label is covered
    axes.text(x, bottom, label, fontsize=_PLATE, ha=side, va="bottom", color=_INK, bbox=ground, zorder=2.5)


def _node(axes: Axes, node: Node, box: Box) -> None:
    from matplotlib.patches import Ellipse, Patch, Rectangle

    corner = (box.x - box.width / 2, box.y - box.height / 2)
    patch: Patch
    if node.kind is Kind.FACTOR:
        square = (box.x - _SQUARE / 2, box.y - _SQUARE / 2)
        patch = Rectangle(square, _SQUARE, _SQUARE)
    elif node.kind is Kind.DETERMINISTIC:
        patch = Rectangle(corner, box.width, box.height)
    else:
        patch = Ellipse((box.x, box.y), box.width, box.height)
    patch.set_linestyle(
        "dashed" if node.kind is Kind.FIXED else "dotted" if node.kind is Kind.MARGINALIZED else "solid"
    )
    patch.set_facecolor({Kind.OBSERVED: _DATA, Kind.FACTOR: _INK}.get(node.kind, _PAPER))
    patch.set_edgecolor(_INK)
    axes.add_patch(patch)
    if node.kind is Kind.FACTOR:
        axes.text(box.x, box.y + _SQUARE, node.name, fontsize=_FAMILY, ha="center", va="top", color=_INK)
        return
    lift = 0.07 if node.family else 0.0
    axes.text(box.x, box.y - lift, node.name, fontsize=_NAME, ha="center", va="center", color=_INK)
    if node.family:
        axes.text(box.x, box.y + 0.1, node.family, fontsize=_FAMILY, ha="center", va="center", color="0.3")


def _arrow(axes: Axes, curve: Curve, start: tuple[Node, Box], end: tuple[Node, Box]) -> None:
    """The part of a curve from the border of one node to that of another."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    leaving, arriving = ~_within(*start, curve), ~_within(*end, curve)
    first = int(np.argmax(leaving))
    last = len(curve) - 1 - int(np.argmax(arriving[::-1]))
    if first < last:
        path = Path(curve[first : last + 1])
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=8, linewidth=0.8, color=_INK))


def _curve(layout: Layout, start: str, end: str) -> Curve:
    """From the centre of a node to that of another, past all others if there is such a way."""
    if start == end:
        return _loop(layout.nodes[start])
    ends = [(layout.nodes[name].x, layout.nodes[name].y) for name in (start, end)]
    points = [ends[0], *layout.routes.get((start, end), []), ends[1]]
    others = [box for name, box in layout.nodes.items() if name not in (start, end)]
    best, fewest = _smooth(points), math.inf
    for detour in (0.0, *(side * step for step in _DETOURS for side in (1, -1))):
        curve = _smooth(_bent(points, detour) if detour else points)
        hits = sum(bool(_near(box, curve).any()) for box in others)
        if hits < fewest:
            best, fewest = curve, hits
        if not hits:
            break
    return best


def _bent(points: Sequence[Point], aside: float) -> list[Point]:
    """With one more point, beside the middle of the longest stretch."""
    lengths = [math.dist(a, b) for a, b in itertools.pairwise(points)]
    longest = int(np.argmax(lengths))
    (x, y), (u, v) = points[longest], points[longest + 1]
    across = (-(v - y) / lengths[longest], (u - x) / lengths[longest])
    middle = ((x + u) / 2 + aside * across[0], (y + v) / 2 + aside * across[1])
    return [*points[: longest + 1], middle, *points[longest + 1 :]]


def _smooth(points: Sequence[Point]) -> Curve:
    """A curve through the points, smooth where it has to turn: a Catmull-Rom spline."""
    known = np.asarray([points[0], *points, points[-1]], float)
    t = np.linspace(0.0, 1.0, _STEPS)[:, None]
    pieces = [
        b + t / 2 * (c - a) + t**2 * (a - 2.5 * b + 2 * c - d / 2) + t**3 * (-a + 3 * b - 3 * c + d) / 2
        for a, b, c, d in zip(known, known[1:], known[2:], known[3:], strict=False)
    ]
    curve: Curve = np.concatenate(pieces)
    return curve


def _loop(box: Box) -> Curve:
    """Out of a node on the right and back into it."""
    angle = np.linspace(-math.pi, math.pi, 2 * _STEPS)[:, None]
    radius = min(_LOOP / 1.5, box.height / 2)
    centre = np.array([box.x + box.width / 2 + radius / 2, box.y])
    curve: Curve = centre + radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return curve


def _within(node: Node, box: Box, curve: Curve) -> npt.NDArray[np.bool_]:
    """Which points of a curve lie inside the shape of a node."""
    width, height = (_SQUARE, _SQUARE) if node.kind is Kind.FACTOR else (box.width, box.height)
    off: Curve = np.abs(curve - np.array([box.x, box.y])) / np.array([width / 2, height / 2])
    inside: npt.NDArray[np.bool_] = (
        off.max(1) < 1 if node.kind in (Kind.FACTOR, Kind.DETERMINISTIC) else (off**2).sum(1) < 1
    )
    return inside


def _near(box: Box, curve: Curve) -> npt.NDArray[np.bool_]:
    """Which points of a curve run through a node, or almost."""
    off: Curve = np.abs(curve - np.array([box.x, box.y])) / np.array(
        [box.width / 2 + _CLEARANCE, box.height / 2 + _CLEARANCE]
    )
    near: npt.NDArray[np.bool_] = (off**2).sum(1) < 1
    return near


def _wrapped(note: str, width: float) -> list[str]:
    return textwrap.wrap(note, max(30, int((width - 0.2) * _INCH / (_FAMILY * 0.5)))) if note else []
