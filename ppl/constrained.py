"""The values of all draws in the supports of their sites, by one compiled program over batches of positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .log_density import TracedModel

HostArray = np.ndarray[Any, Any]

# A batch is this long at most, which is as fast as any longer one, and holds no more numbers than this: 64 MB.
_BATCH_ROWS = 1024
_BATCH_NUMBERS = 1 << 23


@dataclass(frozen=True)
class Batch:
    """What is to be compiled for the values of draws.

    Args:
        traced: the model.
        rows: how many positions a batch has.
        positions: their shape and dtype.
        data: shapes and dtypes of the data.
        shapes: of one value, by name.
    """

    traced: TracedModel
    rows: int
    positions: jax.ShapeDtypeStruct
    data: tuple[jax.ShapeDtypeStruct, ...]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, traced: TracedModel, count: int, dtype: Any) -> Batch:
        """For `count` draws, at positions of some dtype."""
        dimension = traced.density.dimension
        data = tuple(jax.ShapeDtypeStruct(np.shape(array), array.dtype) for array in traced.data)
        one = jax.eval_shape(traced.constrained, jax.ShapeDtypeStruct((dimension,), dtype), *data)
        most = _BATCH_NUMBERS // (dimension + sum(value.size for value in one.values()) + 1)
        rows = batch_rows(count, min(max(most, 1), _BATCH_ROWS))
        positions = jax.ShapeDtypeStruct((rows, dimension), dtype)
        return cls(traced, rows, positions, data, {name: value.shape for name, value in one.items()})

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The shapes of the arguments of `values`."""
        return self.positions, self.data

    def values(self, positions: Any, data: tuple[Any, ...]) -> dict[str, Any]:
        """The values at a batch of positions, by name."""
        return jax.vmap(lambda row: self.traced.constrained(row, *data))(positions)


@dataclass(frozen=True)
class ConstrainedValues:
    """From positions to the values of latent sites and deterministics.

    Args:
        rows: how many positions a batch has; the last one is filled up.
        shapes: of one value, by name.
        program: from positions, shape (rows, dimension), and the data, to values by name; compiled.
    """

    rows: int
    shapes: dict[str, tuple[int, ...]]
    program: Callable[..., dict[str, Any]]

    def __call__(self, positions: HostArray, data: Sequence[Any]) -> dict[str, HostArray]:
        """The values, shape (chains, draws, ...), at positions of shape (chains, draws, dimension)."""
        flat = positions.reshape(-1, positions.shape[-1])
        found = {name: np.empty(0) for name in self.shapes}
        for first in range(0, len(flat), self.rows):
            part = flat[first : first + self.rows]
            filled = np.concatenate([part, np.repeat(part[-1:], self.rows - len(part), axis=0)])
            for name, values in self.program(filled, tuple(data)).items():
                own = np.asarray(values)[: len(part)]
                if not first:
                    found[name] = np.empty((len(flat), *own.shape[1:]), own.dtype)
                found[name][first : first + len(part)] = own
        return {name: found[name].reshape(*positions.shape[:2], *shape) for name, shape in self.shapes.items()}


def batch_rows(count: int, most: int) -> int:
    """The length of a batch: even parts of `count`, rounded up so that few lengths are in use and little is wasted."""
    even = -(-count // -(-count // most))
    step = 1 << max(even.bit_length() - 4, 0)
    return min(-(-even // step) * step, most)
