"""The plan of a run, as text and as a graph: what is done with each block, how often, and what that makes stale."""

from __future__ import annotations

import functools
import itertools
import re
import textwrap
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .block_plan import BlockPlan, Drawn, Work, count
from .graph import Graph, draw

_WIDTH = 100
# More names than these that differ by numbers alone are written as the first and the last.
_FEW = 3
# A block whose name is longer is called by a shortened list of its sites.
_LONG = 40


@dataclass(frozen=True, repr=False)
class Plan:
    """What `sample` will do with a model and a sampler; `print` shows it.

    Args:
        model: its name.
        sampler: as the user wrote it.
        order: of the updates in one step.
        blocks: in the order of their updates, as far as that is not drawn.
        terms: of the log density of the whole model.
        whole: the work of that log density.
    """

    model: str
    sampler: str
    order: str
    blocks: tuple[BlockPlan, ...]
    terms: tuple[str, ...]
    whole: Work

    def __str__(self) -> str:
        """Text of at most 100 columns; blocks that are alike have one entry."""
        sizes = [
            count(sum(block.dimension for block in self.blocks), "coordinate"),
            count(len(self.blocks), "block"),
            _updates(self.blocks),
        ]
        everything = f"{count(len(self.terms), 'term')}, {self.whole}"
        if len(self.blocks) > 1:
            everything += "; evaluated once a step, for lp"
        lines = [
            f"{self.model}, {_head(self.sampler)}: {', '.join(sizes)}",
            *_entry("one step", self.order),
            *_entry("whole model", everything),
        ]
        for number, members in enumerate(self._entries, 1):
            lines += ["", *_wrapped(f"{number}  {title(members, f', {_updates(members)}')}", 3)]
            lines += [line for label, text in self._details(members) for line in _entry(label, text)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """One line: a console shows it after what `explain` has printed."""
        return f"<plan of {self.model}, {_head(self.sampler)}: {count(len(self.blocks), 'block')}>"

    @property
    def dot(self) -> str:
        """The graph in the language of Graphviz: an arrow from each block to those that its move makes stale."""
        lines = ['digraph "plan" {', "  node [shape=box];"]
        for number, members in enumerate(self._entries):
            label = r"\n".join(re.sub(r'(["\\])', r"\\\1", line) for line in (title(members), *_method(members[0])))
            lines.append(f'  b{number} [label="{label}"];')
        lines += [f"  b{one} -> b{other};" for one, others in enumerate(self._arrows) for other in others]
        return "\n".join([*lines, "}", ""])

    def graph(self, path: str | Path | None = None) -> Graph:
        """Draw which move makes which state stale.

        Args:
            path: of the file to be written, in the format that its suffix says: of a picture (.svg, .pdf, .png, ...),
                which takes Graphviz, of its source (.dot, .gv), or text (.txt). Without Graphviz the text is written
                beside where the picture would have been, and a warning says so.

        Returns:
            The graph, whose `path` is that of the file.

        Raises:
            ValueError: on a suffix that is none, or that Graphviz does not know.
        """
        return draw(self.dot, self._graph_as_text(), path)

    @functools.cached_property
    def _entries(self) -> list[list[BlockPlan]]:
        """Blocks of one compiled update, and neighbours of which all else is the same that is said."""
        entries: list[list[BlockPlan]] = []
        for block in self.blocks:
            last = entries[-1][0] if entries else None
            if last is not None and (block.group == entries[-1][-1].group or _said(block) == _said(last)):
                entries[-1].append(block)
            else:
                entries.append([block])
        return entries

    @functools.cached_property
    def _arrows(self) -> list[list[int]]:
        """For each entry, those that its moves make stale."""
        number = {block.name: i for i, members in enumerate(self._entries) for block in members}
        return [sorted({number[name] for block in members for name in block.stale}) for members in self._entries]

    def _details(self, members: Sequence[BlockPlan]) -> list[tuple[str, str]]:
        first, each = members[0], " each" if len(members) > 1 else ""
        sites = [label for block in members for label in block.coordinates]
        places = [i for block in members for positions in block.coordinates.values() for i in positions]
        turns = ", ".join(map(str, first.turns)) or "once a step"
        if any(isinstance(turn, Drawn) for turn in first.turns):
            turns += f" (in the mean {first.rate:.3g} a step)"
        terms = f"{len(first.terms)} of {len(self.terms)}{each}: {listed(first.terms)}"
        entries = {
            "sampler": first.sampler,
            "updated": turns,
            "coordinates": f"{listed(sites)}; {count(first.dimension, 'number')}{each}, at {_ranges(places)}",
            "adtype": _adtype(first),
            "terms": terms + (f" for {first.name}" if each else ""),
        }
        if first.exact:
            entries["per draw"] = f"at most {first.evaluation}{each}, beside the draw itself"
        else:
            entries["per evaluation"] = f"{first.evaluation}{each}"
        entries["per update"] = f"{first.per_update.described}{each}"
        entries["per run"] = f"{first.per_run.described}{each}"
        if len(self.blocks) == 1:
            return list(entries.items())
        names = [block.name for block in members]
        stale = {name for block in members for name in block.stale}
        others = [block.name for block in self.blocks if block.name not in stale and block.name not in names]
        entries["given"] = _together([block.given for block in members], sites)
        entries["makes stale"] = _together([block.stale for block in members], names)
        if others:
            entries["leaves alone"] = listed(others)
        entries["own state"] = (
            "kept between updates: nothing else makes it stale" if first.keeps_state else "renewed before every update"
        )
        return list(entries.items())

    def _graph_as_text(self) -> str:
        titles = [title(members) for members in self._entries]
        lines = ["whose move makes whose state stale"]
        for own, members, arrows in zip(titles, self._entries, self._arrows, strict=True):
            lines += ["", *_wrapped(f"{own}  [{', '.join(_method(members[0]))}]", 4)]
            for other in arrows:
                lines += _wrapped(f"  {'└' if other == arrows[-1] else '├'}─▶ {titles[other]}", 6)
        return "\n".join(lines)


def title(members: Sequence[BlockPlan], more: str = "") -> str:
    """How alike blocks are called together; `more` is said of several."""
    names = [block.name for block in members]
    if len(names) == 1:
        return names[0] if len(names[0]) <= _LONG else listed(members[0].coordinates)
    what = ", ".join(names) if len(names) <= _FEW else f"{names[0]} ... {names[-1]}"
    return f"{what} ({len(names)} blocks{more})"


def listed(names: Iterable[str]) -> str:
    """Names in one line: those that differ by numbers alone as the first, the last, and how many they are."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_without_numbers(name), []).append(name)
    return ", ".join(
        ", ".join(some) if len(some) <= _FEW else f"{some[0]} ... {some[-1]} ({len(some)})" for some in alike.values()
    )


def in_order(names: Sequence[str]) -> str:
    """Names of updates one after the other; neighbours that differ by numbers alone as the first and the last."""
    runs = [list(run) for _, run in itertools.groupby(names, key=_without_numbers)]
    return " → ".join(" → ".join(run if len(run) <= _FEW else [run[0], "...", run[-1]]) for run in runs)


def _together(each: Sequence[Collection[str]], own: Collection[str]) -> str:
    """What is said of alike blocks, by name: of all of them alike, or of them together."""
    outside = [[name for name in names if name not in own] for names in each]
    inside = any(name in own for names in each for name in names)
    common = listed(dict.fromkeys(name for names in outside for name in names))
    different = any(set(names) != set(outside[0]) for names in outside)
    found = [*([f"{common}{' (taken together)' if different else ''}"] if common else []), *["each other"] * inside]
    return ", ".join(found) or "nothing"


def _said(block: BlockPlan) -> Hashable:
    """What is said of a block, but for the numbers in its names."""
    names = (_without_numbers(listed(some)) for some in (block.coordinates, block.terms, block.given))
    work = (block.evaluation, block.per_update, block.per_run)
    kind = (block.sampler, block.dimension, block.adtype, block.reason, block.exact, block.keeps_state)
    return _without_numbers(block.name), block.turns, *kind, *work, *names


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _updates(blocks: Collection[BlockPlan]) -> str:
    return count(len({block.group for block in blocks}), "compiled update")


def _adtype(block: BlockPlan) -> str:
    if block.adtype is None:
        return f"none; {block.reason}" if block.reason else "none"
    return f"{block.adtype}: {block.reason}" if block.reason else block.adtype


def _method(block: BlockPlan) -> list[str]:
    return [_head(block.sampler), *([] if block.adtype is None else [block.adtype])]


def _head(sampler: str) -> str:
    """The name of a sampler without its arguments."""
    return sampler.partition("(")[0]


def _entry(label: str, text: str) -> list[str]:
    return _wrapped(f"   {label:<14} {text}", 18)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _ranges(places: Iterable[int]) -> str:
    """Numbers as stretches."""
    numbers = np.unique(list(places))
    stretches = [
        f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}"
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    ]
    return ", ".join(stretches if len(stretches) <= _FEW else [*stretches[: _FEW - 1], "...", stretches[-1]])
