"""Results as ArviZ objects: an `xarray.DataTree` with ArviZ 1.x, an `InferenceData` with 0.x.

ArviZ takes half a second to import, so it is imported when the first result is made.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

HostArray = np.ndarray[Any, Any]
Dims = Mapping[str, list[str]]


def to_arviz(
    groups: Mapping[str, Mapping[str, HostArray]],
    *,
    dims: Dims,
    coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> Any:
    """An ArviZ object.

    Args:
        groups: by group name, arrays by variable; those of `posterior` and `sample_stats` begin with the dimensions
            (chain, draw), those of `observed_data` do not.
        dims: names of the further dimensions, by variable.
        coords: labels by dimension.
        attrs: strings and numbers that describe the run; on the object and on its posterior.

    Returns:
        A `DataTree` (ArviZ 1.x) or an `InferenceData` (0.x).
    """
    filled = {name: dict(group) for name, group in groups.items() if group}
    used = {"chain"} | {dim for names in dims.values() for dim in names}
    coords = {name: labels for name, labels in coords.items() if name in used}
    # Predictions, of data of other shapes, have names of their own there.
    names: Any = {"dims": dict(dims), "coords": coords, "pred_dims": dict(dims), "pred_coords": coords}
    with warnings.catch_warnings():
        # A guess of ArviZ that arrays with fewer draws than chains might be transposed; these are not.
        warnings.filterwarnings("ignore", message="More chains|Found chain dimension")
        # ArviZ 0.x announces its successor on import, once a day.
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        try:
            import arviz_base
        except ImportError:
            import arviz

            known = inspect.signature(arviz.from_dict).parameters
            result = arviz.from_dict(**{name: group for name, group in filled.items() if name in known}, **names)
            for name in filled.keys() - known:
                result.add_groups({name: arviz.dict_to_dataset(filled[name], dims=names["dims"], coords=coords)})
        else:
            result = arviz_base.from_dict(filled, **names)
    result.attrs.update(attrs)
    for name in filled:
        result[name].attrs.update(attrs)
    return result


def group_of(idata: Any, name: str) -> Any | None:
    """A group of an ArviZ object, as a dataset; None where there is none."""
    groups = getattr(idata, "children", None)
    if groups is None:
        return getattr(idata, name, None) if hasattr(idata, "groups") else None
    return groups[name].dataset if name in groups else None


def extended(
    idata: Any, groups: Mapping[str, Mapping[str, HostArray]], *, dims: Dims, coords: Mapping[str, Any]
) -> Any:
    """A copy of an ArviZ object with further groups, or others in the place of those it has; arrays are not copied."""
    added = to_arviz(groups, dims=dims, coords=coords, attrs={})
    if hasattr(idata, "children"):
        result = idata.copy()
        for name in added.children:
            result[name] = added[name]
        return result
    kept = {name: idata[name] for name in idata.groups() if name not in added.groups()}
    result = type(idata)(**kept, attrs=idata.attrs)
    result.add_groups({name: added[name] for name in added.groups()})
    return result
