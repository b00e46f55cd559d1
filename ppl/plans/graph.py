"""A graph as text and in the language of Graphviz; as a picture where Graphviz is installed."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

# Formats that take no other program.
_SOURCES = frozenset({".dot", ".gv"})
_TEXT = ".txt"


@dataclass(frozen=True, repr=False)
class Graph:
    """A graph: `print` shows it as text, a notebook as a picture where Graphviz is installed.

    Args:
        dot: in the language of Graphviz.
        text: as text.
        path: the file that was written, if any.
    """

    dot: str
    text: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_svg_(self) -> str | None:
        """For notebooks, which show the text where this is None."""
        return _rendered(self.dot, ".svg").decode() if shutil.which("dot") else None


def draw(dot: str, text: str, path: str | Path | None = None) -> Graph:
    """A graph, written to a file if there is a path.

    Without Graphviz, where a picture is asked for, the text is written beside where it would have been, and a warning
    says so.

    Args:
        dot: in the language of Graphviz.
        text: as text.
        path: of a picture (.svg, .pdf, .png, ...), of the source (.dot, .gv), or of the text (.txt).

    Raises:
        ValueError: on a suffix that is none, or that Graphviz does not know.
    """
    if path is None:
        return Graph(dot, text)
    path = Path(path)
    if not path.suffix:
        raise ValueError(f"graph: '{path}' has no suffix that says the format; write '{path}.svg'.")
    if path.suffix not in {_TEXT, *_SOURCES} and shutil.which("dot") is None:
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
    else:
        path.write_bytes(_rendered(dot, path.suffix))
    return Graph(dot, text, path)


def _rendered(dot: str, suffix: str) -> bytes:
    done = subprocess.run(["dot", f"-T{suffix[1:]}"], input=dot.encode(), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"graph: Graphviz cannot write '{suffix}' ({said}); use .svg, .pdf or .png.")
    return done.stdout
