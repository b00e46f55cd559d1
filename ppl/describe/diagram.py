"""The plate diagram of a model."""

from __future__ import annotations

import functools
import importlib.util
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..model import BoundModel
from ..plans.graph import Graph, draw
from .layout import Arrow, Cluster, layers
from .summary import Kind, ModelSummary, SiteSummary, summarize

# Of more names, those that differ by numbers alone are one node, where they are more than so many.
_MANY, _FEW = 15, 3
# One of more layers goes from left to right.
_DEEP = 7

_LOOKS = {
    Kind.LATENT: "shape=ellipse",
    Kind.MARGINALIZED: "shape=ellipse, style=dotted",
    Kind.OBSERVED: 'shape=ellipse, style=filled, fillcolor="gray85"',
    Kind.FIXED: "shape=ellipse, style=dashed",
    Kind.DETERMINISTIC: "shape=box",
    Kind.FACTOR: "shape=square, style=filled, fillcolor=black, width=0.14, fixedsize=true",
}


@dataclass(frozen=True)
class Node:
    """A node of the diagram.

    Args:
        name: of the site, or of several as the first and the last.
        kind: what it is.
        family: its distribution and what is not said by plates about its shape; empty where there is nothing to say.
        plates: around it.
    """

    name: str
    kind: Kind
    family: str
    plates: tuple[str, ...]


@dataclass(frozen=True)
class Diagram:
    """The plate diagram of a model, to be drawn.

    Args:
        model: its name.
        nodes: in the order in which they are declared.
        arrows: from direct parents.
        whole: the nodes in their plates.
        note: what could not be seen, or empty.
    """

    model: str
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    whole: Cluster
    note: str

    @classmethod
    def of(cls, summary: ModelSummary) -> Diagram:
        """The diagram of what a summary says."""
        groups = _groups(summary.sites)
        nodes = [_node(group) for group in groups]
        names = {site.name: node.name for group, node in zip(groups, nodes, strict=True) for site in group}
        arrows = dict.fromkeys((names[parent], names[site.name]) for site in summary.sites for parent in site.parents)
        sizes = {plate.name: plate.size for plate in summary.plates}
        whole = _nested([(node.name, node.plates) for node in nodes], sizes)
        return cls(summary.model, tuple(nodes), tuple(arrows), whole, summary.note)

    @property
    def sideways(self) -> bool:
        """Whether it is so deep that it goes from left to right."""
        number = {node.name: i for i, node in enumerate(self.nodes)}
        pairs = [(number[start], number[end]) for start, end in self.arrows if start != end]
        return max(layers(len(self.nodes), pairs), default=0) >= _DEEP

    @property
    def dot(self) -> str:
        """In the language of Graphviz."""
        number = {node.name: i for i, node in enumerate(self.nodes)}
        looks = {node.name: node for node in self.nodes}
        lines = [f"digraph {_quoted(self.model)} {{", *(["  rankdir=LR;"] if self.sideways else [])]
        count = 0

        def write(cluster: Cluster, indent: str) -> None:
            nonlocal count
            for name in cluster.nodes:
                node = looks[name]
                text = "xlabel" if node.kind is Kind.FACTOR else "label"
                empty = 'label="", ' if node.kind is Kind.FACTOR else ""
                label = _quoted(node.name, node.family)
                lines.append(f"{indent}n{number[name]} [{empty}{text}={label}, {_LOOKS[node.kind]}];")
            for inner in cluster.inside:
                lines.append(f"{indent}subgraph cluster_{count} {{")
                count += 1
                lines.append(f"{indent}  label={_quoted(inner.label)}; labelloc=b; labeljust=r; style=rounded;")
                write(inner, f"{indent}  ")
                lines.append(f"{indent}}}")

        write(self.whole, "  ")
        lines += [f"  n{number[start]} -> n{number[end]};" for start, end in self.arrows]
        if self.note:
            lines.append(f"  label={_quoted(*textwrap.wrap(self.note, 50))};")
        return "\n".join([*lines, "}", ""])

    @property
    def text(self) -> str:
        """As text: each node with the arrows that leave it."""
        lines = [f"{self.model}: what depends on what"]
        for node in self.nodes:
            kind = f"{node.kind.value}, {node.family}" if node.family else node.kind.value
            inside = f", in {' × '.join(node.plates)}" if node.plates else ""
            lines += ["", f"{node.name}  [{kind}{inside}]"]
            ends = [end for start, end in self.arrows if start == node.name]
            lines += [f"  {'└' if end == ends[-1] else '├'}─▶ {end}" for end in ends]
        return "\n".join([*lines, *(["", f"note: {self.note}."] if self.note else [])])


def draw_diagram(model: BoundModel, path: str | Path | None = None) -> Graph:
    """Draw the plate diagram of a model.

    An arrow says that the distribution of a site, or the value of a deterministic or factor, is computed from the value
    of another one directly. It is read off the traced model. Latent sites are white, observed ones grey, fixed ones
    dashed, those summed out dotted, deterministics boxes, and factors, which belong to no plate, small squares. A plate
    is a rounded box; what two plates that cross have in common has a box of its own. In a model of more than 15 names,
    those that differ by numbers alone are drawn as one, with an arrow to itself where one depends on another; so are
    the steps of a `scan`.

    A deterministic stands between a site and its parents where the model goes on computing with it, as in
    `y = deterministic("y", 2 * x)`; what is computed once more is drawn from where it comes. Of a model that looks at
    the values of its random variables only what one run shows is drawn, and a note says so.

    Args:
        model: with data bound.
        path: of the file to be written, in the format that its suffix says: of a picture (.svg, .png, .pdf, ...), which
            Graphviz draws where it is installed and Matplotlib where it is not, of its source (.dot, .gv), or text
            (.txt). With neither installed the text is written beside where the picture would have been, and a warning
            says so.

    Returns:
        The graph, whose `path` is that of the file; a notebook shows the picture, `print` the text.

    Raises:
        ValueError: on a suffix that is none, or that is not known.

    Source: Buntine (1994), "Operations for learning with graphical models", Journal of Artificial Intelligence Research
    2, for plates; Dietz (2010), "Directed factor graph notation for generative models", for factors and the rest.
    """
    diagram = Diagram.of(summarize(model))
    picture = None
    if importlib.util.find_spec("matplotlib") is not None:
        from .picture import paint

        picture = functools.partial(paint, diagram)
    return draw(diagram.dot, diagram.text, path, picture)


def _groups(sites: Sequence[SiteSummary]) -> list[list[SiteSummary]]:
    """The sites of each node."""
    alike: dict[object, list[SiteSummary]] = {}
    for site in sites:
        pattern = re.sub(r"\d+", "#", site.name) if len(sites) > _MANY else site.name
        alike.setdefault((pattern, site.kind, site.plates), []).append(site)
    return [part for some in alike.values() for part in ([some] if len(some) > _FEW else [[site] for site in some])]


def _node(sites: Sequence[SiteSummary]) -> Node:
    first, last = sites[0], sites[-1]
    dims = first.dims or ("",) * len(first.shape)
    rest = [str(size) for dim, size in zip(dims, first.shape, strict=True) if dim not in first.plates]
    said = [first.family, f"[{'×'.join(rest)}]" if rest else "", f"({len(sites)})" if len(sites) > 1 else ""]
    name = first.name if len(sites) == 1 else f"{first.name} … {last.name}"
    return Node(name, first.kind, " ".join(filter(None, said)), first.plates)


def _nested(members: Sequence[tuple[str, tuple[str, ...]]], sizes: dict[str, int]) -> Cluster:
    """Boxes for the sets of plates that there are, each in the largest one that is part of all its larger parts."""
    nodes: dict[frozenset[str], list[str]] = {}
    written: dict[frozenset[str], tuple[str, ...]] = {}
    for name, plates in members:
        nodes.setdefault(frozenset(plates), []).append(name)
        written.setdefault(frozenset(plates), plates)
    nodes.setdefault(frozenset(), [])

    def parent(plates: frozenset[str]) -> frozenset[str]:
        parts = [other for other in nodes if other < plates]
        common = [one for one in parts if all(one <= other or other <= one for other in parts)]
        return max(common, key=len)

    def cluster(plates: frozenset[str], label: str) -> Cluster:
        inside = []
        for inner in nodes:
            if inner and parent(inner) == plates:
                new = [plate for plate in written[inner] if plate not in plates]
                inside.append(cluster(inner, " × ".join(f"{plate} {sizes[plate]}" for plate in new)))
        return Cluster(label, tuple(nodes[plates]), tuple(inside))

    return cluster(frozenset(), "")


def _quoted(*lines: str) -> str:
    escaped = (re.sub(r'(["\\])', r"\\\1", line) for line in lines if line)
    return '"' + r"\n".join(escaped) + '"'
