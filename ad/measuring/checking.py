"""`check_gradients`: every mode against finite differences, with a verdict for each entry of the argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adtypes import AbstractADType
from ..errors import DifferentiationError
from ..forward import AutoForward
from ..gradient import prepare_gradient
from ..reverse import AutoReverse
from .usual import chosen_adtypes
from .verdicts import Comparison, GradientCheck, Verdict, advice
from .yardstick import HostArray, finite_difference, flat, host_function, tolerance

# Finite differences cost some 24 evaluations a coordinate: of more than this, an even selection is looked at.
MOST_COORDINATES = 256
DEFAULT_ADTYPES = (AutoForward(), AutoReverse())


def check_gradients(
    f: Callable[..., Any],
    x: Any = None,
    *constants: Any,
    adtypes: AbstractADType | Sequence[AbstractADType] | None = None,
) -> GradientCheck:
    """Compare every mode with finite differences, print the table and return it.

    Args:
        f: a function `f(x, *constants)` with one floating-point number as its result.
        x: the point, an array or a pytree of arrays, in the precision that is to be checked.
        constants: further arguments, not differentiated.
        adtypes: one mode or several; None means `AutoForward()` and `AutoReverse()`.

    Returns:
        A `GradientCheck`; raise on `not check.ok` where a script should stop.

    Raises:
        TypeError: without a point, if an adtype is none, or `f` has another kind of result.
        ValueError: if `f` is not finite at `x`: there is no gradient to check; if `adtypes` is empty or repeats one.
    """
    if x is None:
        raise TypeError(
            "check_gradients: a function needs a point, check_gradients(f, x); for a model use that of dualtape."
        )
    name = str(getattr(f, "__name__", "the function"))
    check = examine_gradients(f, [x], *constants, adtypes=adtypes, subject=name)
    print(check)
    return check


def examine_gradients(
    f: Callable[..., Any],
    points: Sequence[Any],
    *constants: Any,
    adtypes: AbstractADType | Sequence[AbstractADType] | None = None,
    labels: Sequence[str] | None = None,
    subject: str = "the function",
) -> GradientCheck:
    """What `check_gradients` does, at several points and without printing.

    Args:
        f: a function `f(x, *constants)`.
        points: where to look, all of one structure.
        constants: further arguments.
        adtypes: one mode or several; None means `AutoForward()` and `AutoReverse()`.
        labels: names for the leaves of a point; None means their paths.
        subject: what to call `f`.
    """
    modes = chosen_adtypes(adtypes, DEFAULT_ADTYPES, "check_gradients")
    entries = _Entries.of(points[0], labels)
    host = host_function(f, points[0], *constants, subject=subject)
    here = np.array([flat(point) for point in points])
    values = np.array([host(point) for point in here])
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"check_gradients: {subject} is {values[bad]} at the point {_brief(here[bad])}; there is no gradient to "
            f"check where the value is not finite. Give a point inside the domain."
        )
    yardstick = _Yardstick.at(host, here, values)
    rows: list[Comparison] = []
    refusals: list[tuple[str, str]] = []
    notes: list[str] = []
    for mode in modes:
        try:
            prepared = prepare_gradient(f, mode, points[0], *constants, subject=subject)
        except DifferentiationError as error:
            refusals.append((repr(mode), str(error).removeprefix(f"{subject}: ")))
            continue
        results = [prepared.value_and_gradient(point, *constants) for point in points]
        found = np.array([float(value) for value, _ in results]), np.array([flat(g) for _, g in results])
        rows += yardstick.compare(entries, repr(mode), *found, np.asarray(results[0][0]).dtype)
    order = {label: i for i, label in enumerate(("value", *entries.labels))}
    rows.sort(key=lambda row: order[row.label])
    for label in entries.labels:
        notes += advice(label, [row for row in rows if row.label == label])
    if len(yardstick.checked) < here.shape[1]:
        notes.append(
            f"Finite differences at {len(yardstick.checked)} of {here.shape[1]} coordinates, evenly spaced; the others "
            f"were only checked for being finite."
        )
    return GradientCheck(subject, tuple(values.tolist()), tuple(rows), tuple(refusals), tuple(notes))


@dataclass(frozen=True)
class _Entries:
    """The names of the coordinates of a flat point, by leaf."""

    labels: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, x: Any, labels: Sequence[str] | None) -> _Entries:
        leaves = jax.tree_util.tree_leaves_with_path(x)
        paths = tuple(jax.tree_util.keystr(path, simple=True, separator=".") or "x" for path, _ in leaves)
        return cls(paths if labels is None else tuple(labels), tuple(np.shape(leaf) for _, leaf in leaves))

    def slices(self) -> list[tuple[str, slice, tuple[int, ...]]]:
        stops = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes)]).tolist()
        return [
            (label, slice(a, b), shape)
            for label, a, b, shape in zip(self.labels, stops[:-1], stops[1:], self.shapes, strict=True)
            if a < b
        ]


@dataclass(frozen=True)
class _Yardstick:
    """Values (points,) and finite differences with their errors, shape (points, dimension)."""

    values: HostArray
    derivatives: HostArray
    errors: HostArray
    moves: HostArray
    checked: HostArray

    @classmethod
    def at(cls, host: Callable[[HostArray], float], points: HostArray, values: HostArray) -> _Yardstick:
        dimension = points.shape[1]
        checked = np.unique(np.linspace(0, dimension - 1, min(dimension, MOST_COORDINATES)).astype(int))
        derivatives, errors = np.full(points.shape, np.nan), np.full(points.shape, np.inf)
        moves = np.ones(points.shape, bool)
        for i, point in enumerate(points):
            for j in checked:
                slope = finite_difference(host, point, j)
                derivatives[i, j], errors[i, j], moves[i, j] = slope.derivative, slope.error, slope.moves
        return cls(values, derivatives, errors, moves.any(axis=0), checked)

    def compare(
        self, entries: _Entries, adtype: str, values: HostArray, found: HostArray, dtype: Any
    ) -> list[Comparison]:
        """A row for the value and one for each leaf: where its verdict is worst."""
        allowed = np.array([tolerance(self.derivatives[i], dtype) for i in range(len(found))])
        allowed += float(jnp.finfo(dtype).eps) * np.abs(self.values)[:, None]
        with np.errstate(invalid="ignore"):
            distance = np.abs(found - self.derivatives)
            wrong = distance > allowed + 10 * self.errors
            largest = np.nanmax(np.abs(self.derivatives), axis=1, keepdims=True, initial=0.0)
            vague = 1e-3 * np.abs(self.derivatives) + 1e-6 * largest + 1e-9 * (1 + np.abs(self.values)[:, None])
            uncertain = ~(self.errors <= vague)
        constant = np.broadcast_to((found == 0).all(axis=0) & ~self.moves, found.shape)
        unchecked = ~np.isin(np.arange(found.shape[1]), self.checked)
        conditions = [~np.isfinite(found), np.broadcast_to(unchecked, found.shape), wrong, uncertain, constant]
        verdicts = [Verdict.NOT_FINITE, Verdict.CORRECT, Verdict.WRONG, Verdict.UNCERTAIN, Verdict.FLAT]
        severity = np.select(conditions, [v.severity for v in verdicts], Verdict.CORRECT.severity)
        ratio = np.nan_to_num(distance / allowed, nan=-1.0, posinf=np.inf)

        worst = int(np.argmax(np.abs(values - self.values)))
        same = np.abs(values - self.values) <= tolerance(self.values, dtype)
        verdict = Verdict.CORRECT if same.all() else Verdict.WRONG if np.isfinite(values).all() else Verdict.NOT_FINITE
        numbers = float(values[worst]), float(self.values[worst])
        rows = [Comparison("value", "", 1, adtype, *numbers, verdict, worst + 1)]
        for label, stretch, shape in entries.slices():
            worst_first = np.lexsort((-ratio[:, stretch].ravel(), -severity[:, stretch].ravel()))
            point, inside = np.unravel_index(worst_first[0], severity[:, stretch].shape)
            place = (int(point), stretch.start + int(inside))
            index = ", ".join(str(int(i)) for i in np.unravel_index(inside, shape)) if shape else ""
            size = stretch.stop - stretch.start
            entry = f"[{index}]" if size > 1 else ""
            verdict = list(Verdict)[int(severity[place])]
            numbers = float(found[place]), float(self.derivatives[place])
            rows.append(Comparison(label, entry, size, adtype, *numbers, verdict, place[0] + 1))
        return rows


def _brief(point: HostArray) -> str:
    shown = ", ".join(f"{number:.4g}" for number in point[:6])
    return f"[{shown}{', ...' if len(point) > 6 else ''}]"
