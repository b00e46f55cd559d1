"""A graph as text and in the language of Graphviz; as a picture where something is installed that draws it."""

from __future__ import annotations

import functools
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Formats that take no other program.
_SOURCES = frozenset({".dot", ".gv"})
_TEXT = ".txt"

# From the suffix of a format to the contents of a file.
Picture = Callable[[str], bytes]


@dataclass(frozen=True, repr=False)
class Graph:
    """A graph: `print` shows it as text, a notebook as a picture where Graphviz or something else draws it.

    Args:
        dot: in the language of Graphviz.
        text: as text.
        path: the file that was written, if any.
        picture: draws it without Graphviz, in the format of a suffix; None where nothing does.
    """

    dot: str
    text: str
    path: Path | None = None
    picture: Picture | None = None

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_svg_(self) -> str | None:
        """For notebooks, which show the text where this is None."""
        drawing = _drawing(self.dot, self.picture)
        return drawing(".svg").decode() if drawing else None


def draw(dot: str, text: str, path: str | Path | None = None, picture: Picture | None = None) -> Graph:
    """A graph, written to a file if there is a path.

    Without Graphviz, where a picture is asked for, `picture` draws it; where there is none the text is written beside
    where the picture would have been, and a warning says so.

    Args:
        dot: in the language of Graphviz.
        text: as text.
        path: of a picture (.svg, .pdf, .png, ...), of the source (.dot, .gv), or of the text (.txt).
        picture: draws the graph without Graphviz, if anything does: from a suffix to the contents of the file.

    Raises:
        ValueError: on a suffix that is none, or that Graphviz does not know.
    """
    drawing = _drawing(dot, picture)
    if path is None:
        return Graph(dot, text, picture=picture)
    path = Path(path)
    if not path.suffix:
        raise ValueError(f"graph: '{path}' has no suffix that says the format; write '{path}.svg'.")
    if path.suffix not in {_TEXT, *_SOURCES} and drawing is None:
        instead = path.with_suffix(_TEXT)
        warnings.warn(
            f"graph: Graphviz (the program `dot`) is not installed, so the graph is written as text to '{instead}' "
            f"instead of '{path}'. Install Graphviz, or write the source to '{path.with_suffix('.dot')}'.",
            UserWarning,
            stacklevel=3,
        )
        path = instead
    if path.suffix == _TEXT:
        path.write_text(f"{text}\n", encoding="utf-8")
    elif path.suffix in _SOURCES:
        path.write_text(dot, encoding="utf-8")
    elif drawing is not None:
        path.write_bytes(drawing(path.suffix))
    return Graph(dot, text, path, picture)


def _drawing(dot: str, picture: Picture | None) -> Picture | None:
    """What draws: Graphviz where it is installed."""
    return functools.partial(_rendered, dot) if shutil.which("dot") else picture


def _rendered(dot: str, suffix: str) -> bytes:
    done = subprocess.run(["dot", f"-T{suffix[1:]}"], input=dot.encode(), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"graph: Graphviz cannot write '{suffix}' ({said}); use .svg, .pdf or .png.")
    return done.stdout
