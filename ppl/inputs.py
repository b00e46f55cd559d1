"""Data as users have them: columns of data frames, labelled arrays, lists, numbers of any precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from .interpreter import Plate

HostArray = np.ndarray[Any, Any]

# Whose objects are read, by the package that defines them; none is imported here.
_COLUMNS = {
    ("pandas", "Series"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("polars", "Series"),
}
_TABLES = {("pandas", "DataFrame"), ("polars", "DataFrame"), ("xarray", "Dataset")}


class Labelled(np.ndarray[Any, Any]):
    """An array that knows what its dimensions are called, as long as it stays as it is.

    Attributes:
        dims: their names, None for an array that was computed from one with names.
        coords: the labels along them, where there are any.
    """

    dims: tuple[str, ...] | None
    coords: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, array: Any) -> Labelled:
        """From an array of xarray."""
        found = np.asarray(array).view(cls)
        found.dims = tuple(str(dim) for dim in array.dims)
        found.coords = {dim: tuple(array[dim].values) for dim in found.dims if dim in array.coords}
        return found

    def __array_finalize__(self, obj: Any) -> None:
        self.dims, self.coords = None, {}


def as_data(value: Any) -> Any:
    """A model's argument in the form in which the model gets it.

    Columns of pandas and polars, arrays of xarray and lists of numbers become NumPy arrays, with NaN where a column
    says that a value is missing; tables become a `Table`, whose columns are arrays; numbers in less than 64 bits
    become 64-bit ones, so that a model computes in the precision of the run and not in that of its data, and counts do
    not overflow. Tuples stay
    tuples, dictionaries dictionaries, of such values; everything else stays as it is.
    """
    kind = _kind(value)
    if kind == ("xarray", "DataArray"):
        array = _in_full_precision(np.asarray(value))
        return Labelled.of(value.copy(data=array)) if value.ndim and array.dtype.kind in "biuf" else array
    if kind in _COLUMNS:
        return _column(value)
    if kind in _TABLES:
        return Table(value)
    if isinstance(value, jax.core.Tracer):
        return value
    if isinstance(value, (np.ndarray, jax.Array)):
        return _in_full_precision(value)
    if isinstance(value, list):
        return _listed(value)
    if type(value) is tuple:
        return tuple(as_data(item) for item in value)
    if type(value) is dict:
        return {key: as_data(item) for key, item in value.items()}
    return value


def in_order_of(title: str, array: Labelled, plates: Sequence[Plate]) -> HostArray:
    """An array with its dimensions, and the entries along them, in the order of plates of the same names.

    Args:
        title: what to call it in messages.
        array: whose dimensions have the names of the plates.
        plates: outermost first.

    Raises:
        ValueError: where a plate has labels that the array does not have.
    """
    assert array.dims is not None
    found = np.asarray(array).transpose([array.dims.index(plate.name) for plate in plates])
    for axis, plate in enumerate(plates):
        labels = array.coords.get(plate.name)
        if plate.coords is None or labels is None or labels == plate.coords:
            continue
        places = {label: i for i, label in enumerate(labels)}
        unknown = [label for label in plate.coords if label not in places]
        if unknown:
            raise ValueError(
                f"{title}: plate '{plate.name}' has the label '{unknown[0]}', and the data have none of it along their "
                f"dimension of that name; give the plate the labels of the data."
            )
        found = found.take([places[label] for label in plate.coords], axis=axis)
    return found


class Table:
    """A data frame or dataset as a model sees it: its columns are NumPy arrays, everything else is its own.

    Where an array is wanted, as in `table[["age", "height"]] @ slope`, it is the matrix of its columns.

    Args:
        source: the data frame.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getitem__(self, key: Any) -> Any:
        return as_data(self._source[key])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return as_data(getattr(self._source, name))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> HostArray:
        array = np.asarray(as_data(np.asarray(self._source)), dtype)
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"a table with the columns {', '.join(map(repr, self))} is no array of numbers; choose columns that "
                f"are, as in data[['{next(iter(self))}']]."
            )
        return array

    def __matmul__(self, other: Any) -> Any:
        return np.asarray(self) @ other

    def __rmatmul__(self, other: Any) -> Any:
        return other @ np.asarray(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.columns if hasattr(self._source, "columns") else self._source)

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return repr(self._source)


def _kind(value: Any) -> tuple[str, str]:
    return type(value).__module__.split(".", maxsplit=1)[0], type(value).__name__


def _column(value: Any) -> Any:
    dtype = value.dtype
    # Nullable numbers and truth values of pandas, which NumPy sees as objects where some are missing.
    if hasattr(value, "array") and hasattr(dtype, "_is_numeric") and not isinstance(dtype, np.dtype):
        numeric = dtype._is_numeric or dtype._is_boolean
        if numeric:
            missing = bool(value.isna().any())
            return _in_full_precision(value.to_numpy(dtype=float if missing else dtype.type, na_value=np.nan))
    return _in_full_precision(np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value))


def _in_full_precision(array: Any) -> Any:
    if array.dtype.kind not in "iufV" or array.dtype.itemsize >= 8:
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.int64) if isinstance(array, np.ndarray) else array
    if np.ma.isMaskedArray(array):
        return array.astype(np.float64)
    # Two-byte numbers of JAX that NumPy does not know have the kind V.
    return np.asarray(array).astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _listed(items: list[Any]) -> Any:
    if not items or not all(isinstance(item, (bool, int, float, np.number, list)) for item in items):
        return [as_data(item) for item in items]
    try:
        array = np.asarray(items)
    except ValueError:  # lists of different lengths
        array = None
    return array if array is not None and array.dtype.kind in "biuf" else [as_data(item) for item in items]
