"""How adtypes and quantities are written for people, and how people write adtypes."""

from __future__ import annotations

import ast
import dataclasses
import math
import textwrap
from collections.abc import Mapping
from typing import Any

# Printed lines are no wider than this.
WIDTH = 100


class Written:
    """A frozen dataclass that `repr` shows as a user would write it: `AutoForward()`, `AutoForward(chunk_size=1)`.

    Fields at their defaults are left out, and functions are given by name.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # A dataclass keeps a `__repr__` that its class defines and replaces one that it inherits.
        if "__repr__" not in vars(cls):
            type.__setattr__(cls, "__repr__", cls.__repr__)

    def __repr__(self) -> str:
        if not dataclasses.is_dataclass(self):
            return object.__repr__(self)
        given = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            if value != default:
                shown = getattr(value, "__qualname__", None) or repr(value)
                given.append(f"{field.name}={shown}")
        return f"{type(self).__name__}({', '.join(given)})"


def read(text: str, classes: Mapping[str, type[Written]]) -> tuple[Written, ...]:
    """The values that a text names, the inverse of `repr`; nothing in it is run.

    Args:
        text: `AutoForward(chunk_size=1), AutoReverse`, names or calls with values and literals as their arguments,
            separated by commas.
        classes: what may be named.

    Returns:
        The values, in order.

    Raises:
        ValueError: on anything else, saying what was got.
        KeyError: with a name that is not in `classes`.
        TypeError, ValueError: from the classes, on arguments that do not fit.
    """
    expected = "expected names such as AutoForward or AutoForward(chunk_size=1)"
    try:
        parsed = ast.parse(f"({text},)", mode="eval").body
    except SyntaxError:
        parsed = None
    if not isinstance(parsed, ast.Tuple):
        raise ValueError(f"{expected}, got {text!r}")

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return classes[node.id]()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            named = {str(keyword.arg): value(keyword.value) for keyword in node.keywords}
            return classes[node.func.id](*map(value, node.args), **named)
        if isinstance(node, ast.Tuple):
            return tuple(map(value, node.elts))
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ValueError(f"{expected}, got {ast.unparse(node)!r}") from None

    values = tuple(map(value, parsed.elts))
    for one, node in zip(values, parsed.elts, strict=True):
        if not isinstance(one, Written):
            raise ValueError(f"{expected}, got {ast.unparse(node)!r}")
    return values


def item(sentence: str) -> list[str]:
    """A sentence as an item of a list, in lines of `WIDTH`."""
    return textwrap.wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, with three digits: `1.23 us`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def ratio(value: float) -> str:
    """A ratio with two decimals, without where they say nothing; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def storage(count: float) -> str:
    """Bytes in the unit that suits them, with three digits: `1.23 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
