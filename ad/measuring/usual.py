"""The adtypes that are compared: those that the user names, or the usual backends."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..adtypes import AbstractADType, AbstractRule, Backend, check_adtype
from ..finite_difference import AutoFiniteDiff
from ..forward import AutoForward
from ..reverse import AutoReverse
from ..tape import AutoTape

# What the figures of the others are relative to.
BASELINE = AutoForward()


def usual_backends() -> tuple[Backend, ...]:
    """One backend for each job, without those whose packages are not installed."""
    backends: list[Backend] = [BASELINE, AutoReverse(), AutoTape(), AutoFiniteDiff()]
    if importlib.util.find_spec("sympy"):
        from ..symbolic.backend import AutoSymbolic

        backends.append(AutoSymbolic())
    if importlib.util.find_spec("enzyme_ad"):
        from ..enzyme.backend import AutoEnzyme, AutoEnzymeForward

        backends += [AutoEnzyme(), AutoEnzymeForward()]
    return tuple(backends)


def chosen_adtypes(adtypes: object, usual: Sequence[AbstractADType], caller: str) -> tuple[Backend | AbstractRule, ...]:
    """What the user asked to compare, checked.

    Args:
        adtypes: one adtype or a list of different ones; None means the usual.
        usual: what is compared where none is named.
        caller: the name of the function, for messages.

    Raises:
        TypeError: on what is neither an adtype nor a list of them.
        ValueError: on none, or one that is named twice.
    """
    named = usual if adtypes is None else adtypes
    if not isinstance(named, (list, tuple)):
        return (check_adtype(named, f"{caller}: adtypes (one or a list)"),)
    checked = tuple(check_adtype(each, f"{caller}: adtypes") for each in named)
    if not checked or len(set(map(repr, checked))) < len(checked):  # tables tell them apart by it
        raise ValueError(
            f"{caller}: adtypes must be different adtypes, at least one, got {list(checked)}; "
            f"leave it out for {', '.join(map(repr, usual))}."
        )
    return checked
