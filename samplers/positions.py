"""Reading and writing some coordinates of a position."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from .base import Array

HostArray = np.ndarray[Any, Any]


def take(position: Array, coordinates: HostArray) -> Array:
    """Some coordinates of a position; a slice where they stand side by side."""
    first, count = int(coordinates[0]), len(coordinates)
    if np.array_equal(coordinates, np.arange(first, first + count)):
        return position[first : first + count]
    return position.at[coordinates].get(mode="promise_in_bounds", unique_indices=True)


def put(position: Array, coordinates: HostArray, values: Array) -> Array:
    """A position with some of its coordinates replaced."""
    first, count = int(coordinates[0]), len(coordinates)
    if count == position.size and np.array_equal(coordinates, np.arange(count)):
        return values
    if np.array_equal(coordinates, np.arange(first, first + count)):
        return lax.dynamic_update_slice(position, values, (first,))
    return position.at[coordinates].set(values, mode="promise_in_bounds", unique_indices=True)
