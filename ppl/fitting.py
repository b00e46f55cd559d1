"""Values and distributions in each other's shapes, and in those of plates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from .interpreter import Dims, Plate
from .transforms import is_discrete


def expand_to_plates(name: str, distribution: Distribution, plates: tuple[Plate, ...]) -> Distribution:
    """A distribution with the sizes of plates as the last dimensions of its batch.

    Raises:
        ValueError: where its own batch does not fit; naming the site and the plates.
    """
    if not plates:
        return distribution
    sizes = tuple(plate.size for plate in plates)
    batch = tuple(distribution.batch_shape)
    try:
        wanted = np.broadcast_shapes(batch, sizes)
    except ValueError:
        wanted = ()
    if wanted[len(wanted) - len(sizes) :] != sizes:
        opened = ", ".join(f"'{plate.name}' of size {plate.size}" for plate in plates)
        raise ValueError(
            f"site '{name}': its distribution has batch shape {batch}, which does not fit into plate {opened}; "
            f"parameters inside plates must have the plates' sizes, or 1, as their last dimensions."
        )
    return distribution if wanted == batch else distribution.expand(wanted)


def expand_to_given(title: str, distribution: Distribution, shape: tuple[int, ...]) -> Distribution:
    """A distribution in the shape of a given value.

    Raises:
        ValueError: where it does not broadcast to that; `title` says of what.
    """
    own = tuple(distribution.shape())
    try:
        fits = np.broadcast_shapes(own, shape) == shape
    except ValueError:
        fits = False
    events = len(distribution.event_shape)
    if not fits or (events and shape[len(shape) - events :] != tuple(distribution.event_shape)):
        raise ValueError(
            f"{title} has shape {shape}, but its distribution has shape {own}; the distribution "
            f"must have the shape of the data or broadcast to it. Check for a transposed or unsqueezed array."
        )
    return distribution if own == shape else distribution.expand(shape[: len(shape) - events])


def as_given(title: str, distribution: Distribution, value: Any) -> Any:
    """A given value as an array, of a floating dtype where the support is continuous.

    Raises:
        TypeError: where it holds no numbers.
    """
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
        if value.dtype.kind not in "biuf":
            raise TypeError(
                f"{title} holds {value.dtype} values; convert them to numbers: numpy.asarray(values, float), or, of "
                f"labels, numpy.unique(labels, return_inverse=True)[1]."
            )
    if not is_discrete(distribution) and value.dtype.kind in "biu":
        value = value.astype(jnp.result_type(float))
    return value


def named_dims(
    name: str, dims: Dims, plates: tuple[Plate, ...], shape: tuple[int, ...], events: int | None = None
) -> Dims:
    """Names for the dimensions of a value: the user's, else those of the plates where they stand.

    Plates are the last dimensions before those of an event. Of a derived value it is not known how many these are:
    there the plates come first if the sizes allow, else last.

    Raises:
        ValueError: where the user named more or fewer dimensions than there are.
    """
    if dims is not None:
        if len(dims) != len(shape):
            raise ValueError(
                f"site '{name}': dims {dims} name {len(dims)} dimension(s), but its shape is {shape}; name all of "
                f"them, those of the plates included."
            )
        return dims
    sizes = tuple(plate.size for plate in plates)
    last = len(shape) - len(sizes)
    for first in (0, last) if events is None else (last - events,):
        if sizes and first >= 0 and shape[first : first + len(sizes)] == sizes:
            before = tuple(f"{name}_dim_{i}" for i in range(first))
            after = tuple(f"{name}_dim_{i}" for i in range(first + len(sizes), len(shape)))
            return (*before, *(plate.name for plate in plates), *after)
    return None
