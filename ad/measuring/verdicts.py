"""What is found of gradients: verdicts, the table of them, and what to look at."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ..naming import WIDTH, item


class Verdict(enum.Enum):
    """What was found of one gradient, the worse the later."""

    CORRECT = "correct"
    FLAT = "flat"
    UNCERTAIN = "uncertain"
    WRONG = "WRONG"
    NOT_FINITE = "NOT FINITE"

    @property
    def severity(self) -> int:
        """The place in the order."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Comparison:
    """One argument under one mode, at the entry and the point where it is worst.

    Args:
        label: name of the argument, "value" for the function's value.
        entry: which of its entries, such as "[3]"; empty where there is one.
        size: how many entries it has.
        adtype: the mode, as the user would write it.
        found: the derivative in this mode.
        expected: the derivative by finite differences.
        verdict: on all entries at all points.
        point: the number of the point, from 1.
    """

    label: str
    entry: str
    size: int
    adtype: str
    found: float
    expected: float
    verdict: Verdict
    point: int = 1


@dataclass(frozen=True)
class GradientCheck:
    """What `check_gradients` found; printed, it is a table.

    Args:
        subject: what was differentiated.
        values: of the function, at each point.
        rows: a comparison for each argument and mode.
        refusals: modes that cannot differentiate it, each with the reason.
        notes: what to look at, in sentences.
    """

    subject: str
    values: tuple[float, ...]
    rows: tuple[Comparison, ...]
    refusals: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether some mode works, and every one that works agrees with finite differences everywhere."""
        fine = (Verdict.CORRECT, Verdict.FLAT)
        return bool(self.rows) and all(row.verdict in fine for row in self.rows)

    def __str__(self) -> str:
        """The table, the modes that refused, and the notes."""
        several = len(self.values) > 1
        values = f"value {', '.join(f'{value:.6g}' for value in self.values)}"
        if several:
            values += f" at points 1 to {len(self.values)}; each row is from the point where it is worst"
        lines = [
            f"Gradients of {self.subject}, against finite differences in float64",
            *textwrap.wrap(values, WIDTH),
        ]
        lines += _table(self.rows, several)
        sentences = [f"{adtype} refuses: {reason}" for adtype, reason in self.refusals] + list(self.notes)
        lines += [""] if sentences else []
        for sentence in sentences:
            lines += item(sentence)
        return "\n".join(lines)


def _table(rows: Sequence[Comparison], several: bool) -> list[str]:
    """A line for each comparison, with the point where it is worst if there are several."""
    if not rows:
        return []
    names = [f"{row.label}{row.entry}{f' of {row.size}' if row.entry else ''}" for row in rows]
    wide, modes = max(5, *map(len, names)), max(6, *(len(row.adtype) for row in rows))
    at = f"  {'point':>5}" if several else ""
    lines = ["", f"{'entry':<{wide}}  {'adtype':<{modes}}{at}  {'found':>14}  {'expected':>14}  verdict"]
    last = None
    for name, row in zip(names, rows, strict=True):
        shown, last = "" if row.label == last else name, row.label
        at = f"  {row.point:>5}" if several else ""
        numbers = f"{row.found:>14.7g}  {row.expected:>14.7g}"
        lines.append(f"{shown:<{wide}}  {row.adtype:<{modes}}{at}  {numbers}  {row.verdict.value}")
    return lines


def advice(label: str, rows: Sequence[Comparison]) -> list[str]:
    """What to look at for one argument: a sentence for each verdict that is not "correct"."""
    notes = []
    for verdict in dict.fromkeys(row.verdict for row in rows):
        same = [row for row in rows if row.verdict is verdict]
        where = label + same[0].entry
        modes = " and ".join(row.adtype for row in same)
        if verdict is Verdict.FLAT:
            notes.append(
                f"The value does not depend on '{where}' here. If it should, look for a comparison, a "
                f"conversion to integers or a rounding on the way."
            )
        elif verdict is Verdict.NOT_FINITE:
            notes.append(
                f"{modes}: the derivative with respect to '{where}' is {same[0].found} where the value "
                f"is finite. Look for sqrt, log or a division at the edge of its domain behind a jnp.where: give the "
                f"branch that is not taken a harmless argument too (a double where)."
            )
        elif verdict is Verdict.WRONG:
            zero = all(row.found == 0 for row in same)
            cause = "zero although the value changes" if zero else "not the slope of the value"
            more = "a conversion to integers" if zero else "a custom_jvp or custom_vjp rule, or a jump"
            notes.append(
                f"{modes}: the derivative with respect to '{where}' is {cause}. Look for a stop_gradient, {more}."
            )
        elif verdict is Verdict.UNCERTAIN:
            notes.append(
                f"Finite differences do not settle at '{where}': a kink, a jump, or noise in the value. "
                f"Check at another point."
            )
    return notes
