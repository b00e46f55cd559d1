"""Running a model at many values of its latent variables, such as the draws of a posterior, in one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...ad.errors import NEEDS_NUMBERS
from ...samplers.executables import compile_soon
from ..checking.indices import check_indices
from ..constrained import batch_rows
from ..interpreter import Dims
from ..model import BoundModel
from ..programs.program import Program
from ..recorder import Recorder
from ..sources import Drawn
from ..trace import Trace

HostArray = np.ndarray[Any, Any]
Read = Callable[[Trace], dict[str, tuple[Any, Dims]]]

# A batch holds no more rows, and no more numbers, than this: 64 MB.
_BATCH_ROWS = 1024
_BATCH_NUMBERS = 1 << 23


@dataclass(frozen=True)
class Replay:
    """What was read off the runs of a model.

    Args:
        values: by name, shape (rows, ...).
        dims: names of the dimensions after the first, where they are known.
        coords: labels by dimension.
    """

    values: dict[str, HostArray]
    dims: dict[str, list[str]]
    coords: dict[str, Any]


def replay(
    model: BoundModel, values: Mapping[str, HostArray], rows: int, seed: int, read: Read, *, pointwise: bool = False
) -> Replay:
    """Run a model once for each row.

    Args:
        model: with its data.
        values: in the supports, by latent site, shape (rows, ...); other sites are drawn given the sites before them.
        rows: how many runs.
        seed: of these draws; row i depends on it and on i only.
        read: what to keep of a run: by name an array and the names of its dimensions.
        pointwise: whether `read` needs the terms of the log density, element by element.
    """
    seen: list[tuple[Trace, dict[str, Dims]]] = []
    names = tuple(values)

    def run(key: Any, *arrays: Any) -> list[Any]:
        source = Drawn(dict(zip(names, arrays, strict=True)), jax.random.wrap_key_data(key))
        trace = Recorder(model, source, with_terms=pointwise, pointwise=pointwise).run()
        kept = read(trace)
        seen.append((trace, {name: dims for name, (_, dims) in kept.items()}))
        return [jnp.asarray(value) for value, _ in kept.values()]

    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), rows)))
    inputs = (keys, *values.values())
    try:
        found = _compiled(run, inputs, rows, names, lambda: list(seen[-1][1]))
    except NEEDS_NUMBERS:
        # A model that looks at the values of its random variables is run at numbers, row by row.
        found = [np.stack(column) for column in zip(*(run(*row) for row in zip(*inputs, strict=True)), strict=True)]
    trace, dims = seen[-1]
    return Replay(
        dict(zip(dims, found, strict=True)),
        {name: list(own) for name, own in dims.items() if own},
        {name: plate.labels for name, plate in trace.plates.items()},
    )


def _compiled(
    run: Callable[..., list[Any]],
    inputs: tuple[HostArray, ...],
    rows: int,
    names: Sequence[str],
    outputs: Callable[[], Sequence[str]],
) -> list[HostArray]:
    one = [jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in inputs]
    program, data, results = Program.trace(run, *one)
    # Closed-over data come first, then a key.
    sites = dict(enumerate(names, len(data) + 1))
    check_indices(program, sites, dict(enumerate(data)), dict(enumerate(outputs())))
    numbers = sum(int(np.prod(shape.shape)) for shape in (*one, *results)) + 1
    length = batch_rows(rows, min(max(_BATCH_NUMBERS // numbers, 1), _BATCH_ROWS))
    batches = [jax.ShapeDtypeStruct((length, *shape.shape), shape.dtype) for shape in one]
    given = [jax.ShapeDtypeStruct(np.shape(array), array.dtype) for array in data]

    def every(data: Iterable[Any], *batch: Any) -> list[Any]:
        return jax.vmap(functools.partial(program, *data))(*batch)

    executable = compile_soon(every, tuple(given), *batches).result()
    parts = []
    for first in range(0, rows, length):
        batch = [array[first : first + length] for array in inputs]
        short = length - len(batch[0])
        filled = [np.concatenate([array, np.repeat(array[-1:], short, axis=0)]) for array in batch]
        parts.append([np.asarray(value)[: length - short] for value in executable.call(tuple(data), *filled)])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
