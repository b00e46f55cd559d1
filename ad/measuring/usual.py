"""The backends that are compared where none are named: one place for the list."""

from __future__ import annotations

import importlib.util

from ..adtypes import Backend
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
