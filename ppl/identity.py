"""Whether two runs are of the same program: what decides that, as one value.

A run may take over the kernel and the executables of an earlier one where everything is equal that they were made
from: the traced program of the model, with its data as arguments; the sampler with its adtypes; and the settings in
force. A function is no part of such a value, for what it computes can change while it stays the
same object. So where one has a say, in the sampler or in the program, the answer is that nothing can be told.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, Sharding

from ..ad.routing import current_adtype
from ..ad.rules import registered_rules
from .log_density import ModelDensity, TracedModel
from .programs.canonical import canonical

_LIBRARY = __name__.split(".", maxsplit=1)[0]

# What the parameters of JAX's operations are made of, and is what it is equal to.
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type, enum.Enum, np.dtype),
    *(Mesh, AbstractMesh, Sharding, jax.core.ShapedArray, jax.tree_util.PyTreeDef),
)


class UnknowableError(Exception):
    """Two of these cannot be told to be the same."""


def run_identity(traced: TracedModel, *settings: Any) -> Hashable | None:
    """A value that two runs share only if one may use the other's kernel and executables; None where it may not.

    Args:
        traced: the model.
        settings: the sampler, and whatever else has a part in its kernel.
    """
    density, rules = traced.density, registered_rules()
    try:
        if not all(_is_own(rule.replacement) for rule in rules):
            raise UnknowableError
        program = canonical(density.program.inputs, density.program.equations, density.program.outputs)
        _refuse_objects(program)
        identity = (
            program,
            tuple(density.coordinates.shapes.items()),
            tuple(density.index_shapes.items()),
            density.discrete,
            tuple(density.terms.items()),
            tuple(density.values.items()),
            tuple((name, template.structure, template.outputs) for name, template in density.distributions.items()),
            tuple((np.shape(array), str(array.dtype)) for array in density.data),
            traced.names,
            tuple(as_value(setting) for setting in settings),
            rules,
            as_value(current_adtype()),
            tuple((name, as_value(getattr(jax.config, name, None))) for name in sorted(jax.config.values)),
        )
        hash(identity)
    except (UnknowableError, TypeError):
        return None
    return identity


def as_value(thing: Any) -> Hashable:
    """Something as a value that is equal to another's only where both are the same in every respect.

    Raises:
        UnknowableError: on functions, and on objects that are not this library's own.
    """
    kind = type(thing)
    if thing is None or thing is ... or kind in (bool, int, str, bytes, complex):
        return kind.__name__, thing
    if kind is float:
        return "float", thing.hex()  # 0.0 and -0.0 are equal, and NaN is not equal to itself
    if isinstance(thing, (np.ndarray, np.generic, jax.Array)) and thing.dtype != object:
        return "array", thing.shape, str(thing.dtype), np.asarray(thing).tobytes()
    if kind in (tuple, list):
        return kind.__name__, tuple(as_value(item) for item in thing)
    if isinstance(thing, Mapping):
        return kind.__name__, tuple((as_value(key), as_value(value)) for key, value in thing.items())
    if kind is slice:
        return "slice", as_value((thing.start, thing.stop, thing.step))
    if isinstance(thing, (enum.Enum, np.dtype, jax.Device)):
        return kind.__name__, thing
    if dataclasses.is_dataclass(thing) and _is_own(kind):
        fields = ((field.name, as_value(getattr(thing, field.name))) for field in dataclasses.fields(thing))
        return kind, tuple(fields)
    raise UnknowableError


def _is_own(thing: Any) -> bool:
    """Whether a class or a function is this library's, and so what it was when it was imported."""
    return (getattr(thing, "__module__", None) or "").split(".")[0] == _LIBRARY


def _refuse_objects(value: Any) -> None:
    """Refuse what may hold a function, or can be compared by identity only; see `canonical`."""
    if isinstance(value, tuple):
        if value[:1] == ("object",):
            raise UnknowableError
        for item in value:
            _refuse_objects(item)
    elif not isinstance(value, _PLAIN):
        of_jax = type(value).__module__.split(".")[0] in ("jax", "jaxlib")
        if not of_jax or not hasattr(value, "__dict__") or callable(value) or hasattr(value, "jaxpr"):
            raise UnknowableError
        _refuse_objects(tuple(vars(value).values()))


class Lent(Sequence[Any]):
    """Data that are lent while a kernel is built, and taken back after: what outlives a run must not hold its data.

    Args:
        data: arrays.
    """

    def __init__(self, data: Sequence[Any]) -> None:
        self._data: Sequence[Any] | None = data
        self.was_read = False

    def __len__(self) -> int:
        return len(self._lent())

    def __getitem__(self, index: Any) -> Any:
        self.was_read = True
        return self._lent()[index]

    def take_back(self) -> None:
        """Nobody can read them any more."""
        self._data = None

    def _lent(self) -> Sequence[Any]:
        if self._data is None:
            raise RuntimeError("the data of a run were read after it; that is a mistake in dualtape, please report it.")
        return self._data


def with_data(density: ModelDensity, data: Sequence[Any]) -> ModelDensity:
    """The same density of other data."""
    return dataclasses.replace(density, data=data)
