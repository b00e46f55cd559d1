"""A catalogue of gradient scenarios, shared by tests, benchmarks and `python -m dualtape.ad`."""

from __future__ import annotations

import functools

from .scenario import Scenario

__all__ = ["Scenario", "catalogue"]


@functools.cache
def catalogue() -> tuple[Scenario, ...]:
    """Every scenario, family by family, made on the first call.

    Returns:
        Scenarios with unique names, their points and data in float64, whatever the setting of JAX.
    """
    from . import (
        censored,
        control_flow,
        elementary,
        hierarchical,
        indexing,
        linear_algebra,
        precision,
        regression,
        special_functions,
        time_series,
        traps,
    )

    families = (
        elementary,
        regression,
        hierarchical,
        time_series,
        linear_algebra,
        control_flow,
        special_functions,
        traps,
        indexing,
        precision,
        censored,
    )
    return tuple(scenario for family in families for scenario in family.scenarios())
