"""Who has which coordinates: the keys of a composition, against the sites that there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from .base import Joint

HostArray = np.ndarray[Any, Any]
# Parts by label: a site, and which of its coordinates, None for all.
Parts = Mapping[str, tuple[str, HostArray | None]]
# Which sites: called with the name of each, it says yes or no, or which entries, as an index.
Selector = Callable[[str], Any]
Key = str | tuple[str | Selector, ...] | Selector | EllipsisType

_INDEXED = re.compile(r"^(?P<site>.*?)\[(?P<index>[^\[\]]*)\]$")
_INTEGER = re.compile(r"^-?\d+$")


def check_key(owner: str, key: object) -> None:
    """Refuse what cannot be a key.

    Raises:
        TypeError: naming it.
    """
    if isinstance(key, EllipsisType):
        return
    entries = key if isinstance(key, tuple) and key else (key,)
    if not all(isinstance(entry, str) or callable(entry) for entry in entries):
        raise TypeError(
            f"{owner}: a block is named by a site, an indexed site such as 'theta[0:4]', a function that selects "
            f"sites, a tuple of these, or `...`; got {key!r}."
        )


def describe_key(key: Key) -> str:
    """A key as the user wrote it."""
    if isinstance(key, EllipsisType):
        return "..."
    if isinstance(key, tuple):
        return f"({', '.join(describe_key(entry) for entry in key)}{',' * (len(key) == 1)})"
    return repr(key) if isinstance(key, str) else getattr(key, "__name__", repr(key))


def partition(
    owner: str, keys: Sequence[Key], joint: Joint, parts: Parts
) -> list[dict[str, tuple[str, HostArray | None]]]:
    """The parts of each key.

    Args:
        owner: of the keys, for messages.
        keys: with at most one `...`.
        joint: the sites.
        parts: what there is to be divided.

    Returns:
        For each key its parts by label, in the order of the sites.

    Raises:
        ValueError: unless the keys divide the parts exactly; it names the culprits.
    """
    division = _Division(owner, joint, parts)
    claims = [None if isinstance(key, EllipsisType) else division.claim(key) for key in keys]
    if sum(claim is None for claim in claims) > 1:
        raise ValueError(f"{owner}: `...` stands for the rest and can be used once.")
    rest = {site: left for site, left in division.left.items() if len(left)}
    if rest and None not in claims:
        missing = ", ".join(f"'{division.label(site, left)}'" for site, left in rest.items())
        raise ValueError(f"{owner}: no block has site {missing}; add it to one, or add `...: NUTS()` for the rest.")
    if None in claims and not rest:
        raise ValueError(f"{owner}: the `...` block has no sites left; the other blocks name them all. Remove it.")
    return [division.parts(rest if claim is None else claim) for claim in claims]


class _Division:
    """The coordinates that no key has claimed yet, by site."""

    def __init__(self, owner: str, joint: Joint, parts: Parts) -> None:
        self.owner = owner
        self.joint = joint
        self.mine = {
            site: np.sort(
                np.concatenate([self._numbers(site, inside) for name, inside in parts.values() if name == site])
            )
            for site in joint.sites
            if any(name == site for name, _ in parts.values())
        }
        self.left = dict(self.mine)

    def claim(self, key: Any) -> dict[str, HostArray]:
        """The coordinates that a key names, by site."""
        found: dict[str, HostArray] = {}
        for entry in key if isinstance(key, tuple) else (key,):
            for site, inside in self._named(entry) if isinstance(entry, str) else self._selected(entry):
                taken = ~np.isin(inside, self.left[site])
                if taken.any():
                    what = self.label(site, inside[taken])
                    raise ValueError(f"{self.owner}: site '{what}' is claimed by two blocks; leave it in one of them.")
                self.left[site] = np.setdiff1d(self.left[site], inside)
                found[site] = np.sort(np.concatenate([found.get(site, inside[:0]), inside]))
        return found

    def parts(self, claim: Mapping[str, HostArray]) -> dict[str, tuple[str, HostArray | None]]:
        """A claim as parts by label, in the order of the sites."""
        return {
            self.label(site, claim[site]): (site, None if self._is_all(site, claim[site]) else claim[site])
            for site in self.joint.sites
            if site in claim
        }

    def label(self, site: str, inside: HostArray) -> str:
        """How some coordinates of a site are called."""
        if self._is_all(site, inside):
            return site
        shape = self.joint.index_shapes[site]
        each = self.joint.sizes[site] // int(np.prod(shape, dtype=int))
        entries = np.unique(inside // each)
        if len(shape) != 1:
            return f"{site}[{'; '.join(','.join(map(str, np.unravel_index(i, shape))) for i in entries)}]"
        first, last = int(entries[0]), int(entries[-1])
        if len(entries) == 1:
            return f"{site}[{first}]"
        consecutive = len(entries) == last - first + 1
        return f"{site}[{first}:{last + 1}]" if consecutive else f"{site}[{','.join(map(str, entries))}]"

    def _named(self, entry: str) -> list[tuple[str, HostArray]]:
        if entry in self.mine:
            return [(entry, self.mine[entry])]
        found = _INDEXED.match(entry)
        if found is None or found["site"] not in self.mine:
            known = ", ".join(f"'{site}'" for site in self.mine)
            raise ValueError(f"{self.owner}: block '{entry}' is no latent site of the model; these are: {known}.")
        return [(found["site"], self._indexed(found["site"], _parse(self.owner, entry, found["index"])))]

    def _selected(self, selector: Selector) -> list[tuple[str, HostArray]]:
        found = []
        for site, mine in self.mine.items():
            answer = selector(site)
            if answer is True:
                found.append((site, mine))
            elif answer is not False and answer is not None:
                found.append((site, self._indexed(site, answer)))
        if not found:
            raise ValueError(f"{self.owner}: {describe_key(selector)} selects no site; let it return True for some.")
        return found

    def _indexed(self, site: str, index: Any) -> HostArray:
        shape = self.joint.index_shapes[site]
        entries = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
        try:
            chosen = np.unique(entries[index])
        except IndexError as error:
            raise ValueError(
                f"{self.owner}: site '{site}' cannot be indexed by {index!r}: {error}. The entries of it that can be "
                f"put into different blocks have shape {shape}."
            ) from None
        if not len(chosen):
            raise ValueError(
                f"{self.owner}: {index!r} selects nothing of site '{site}', whose entries have shape {shape}."
            )
        each = self.joint.sizes[site] // entries.size
        return (chosen[:, None] * each + np.arange(each)).ravel()

    def _numbers(self, site: str, inside: HostArray | None) -> HostArray:
        return np.arange(self.joint.sizes[site]) if inside is None else np.asarray(inside)

    def _is_all(self, site: str, inside: HostArray) -> bool:
        return len(inside) == self.joint.sizes[site]


def _parse(owner: str, entry: str, text: str) -> tuple[Any, ...]:
    """The index in brackets, of integers and slices."""
    index: list[Any] = []
    for item in text.split(","):
        bounds = item.strip().split(":")
        if len(bounds) > 3 or not all(_INTEGER.match(b.strip()) or (len(bounds) > 1 and not b.strip()) for b in bounds):
            if item.strip() == "...":
                index.append(...)
                continue
            raise ValueError(f"{owner}: block '{entry}' has an index that is none; write one such as 'theta[0:4]'.")
        numbers = [int(b) if b.strip() else None for b in bounds]
        index.append(numbers[0] if len(bounds) == 1 else slice(*numbers))
    return tuple(index)
