"""Data as users have them: columns of data frames, labelled arrays, lists, numbers of any precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Whose objects are read, by the package that defines them; none is imported here.
_COLUMNS = {
    ("pandas", "Series"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("polars", "Series"),
    ("xarray", "DataArray"),
}
_TABLES = {("pandas", "DataFrame"), ("polars", "DataFrame"), ("xarray", "Dataset")}


def as_data(value: Any) -> Any:
    """A model's argument in the form in which the model gets it.

    Columns of pandas and polars, arrays of xarray and lists of numbers become NumPy arrays, with NaN where a column
    says that a value is missing; tables become a `Table`, whose columns are arrays; numbers in less than 64 bits
    become 64-bit ones, so that a model computes in the precision of the run and not in that of its data. Tuples stay
    tuples, dictionaries dictionaries, of such values; everything else stays as it is.
    """
    kind = _kind(value)
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


class Table(Mapping[str, Any]):
    """A data frame or dataset as a model sees it: its columns are NumPy arrays, everything else is its own.

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
    if np.ma.isMaskedArray(array) or array.dtype.kind not in "fV" or array.dtype.itemsize >= 8:
        return array
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
