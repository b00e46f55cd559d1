"""What is recorded of several updates of one block within one step: the sum, the mean, any, or the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from .base import Array

_SUMMED = frozenset({"n_steps"})
_ANY = frozenset({"diverging", "reached_max_treedepth"})
_LARGEST = frozenset({"tree_depth", "gradient_error"})
_AVERAGED = frozenset({"acceptance_rate", "update_rate", "effective_particles"})


class Record(NamedTuple):
    """The statistics of the updates so far.

    Args:
        statistics: by name.
        updates: how many, shape ().
    """

    statistics: dict[str, Array]
    updates: Array


def empty(shapes: Mapping[str, Any]) -> Record:
    """No update yet: sums are zero, and what only an update can tell is NaN.

    Args:
        shapes: and dtypes of the statistics.
    """
    found = {}
    for name, like in shapes.items():
        unknown = jnp.issubdtype(like.dtype, jnp.floating) and name not in _SUMMED
        found[name] = jnp.full(like.shape, jnp.nan if unknown else 0, like.dtype)
    return Record(found, jnp.zeros((), jnp.int32))


def add(record: Record | None, statistics: dict[str, Array]) -> Record:
    """With one more update; None stands for a record that will have no other."""
    if record is None:
        return Record(statistics, jnp.ones((), jnp.int32))
    first = record.updates == 0
    after = {}
    for name, new in statistics.items():
        old = record.statistics[name]
        if name in _SUMMED:
            after[name] = old + new
        elif name in _ANY:
            after[name] = old | new
        elif name in _LARGEST:
            after[name] = jnp.fmax(old, new)
        elif name in _AVERAGED:
            after[name] = jnp.where(first, new, old + (new - old) / (record.updates + 1))
        else:
            after[name] = new
    return Record(after, record.updates + 1)
