"""The draws that an ArviZ object holds, as arrays, and what a query adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arviz import extended, group_of
from ..trace import Trace
from .replay import Replay

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PosteriorDraws:
    """The posterior group of an ArviZ object.

    Args:
        idata: the object.
        group: its posterior, an `xarray.Dataset` or what behaves like one.
    """

    idata: Any
    group: Any

    @classmethod
    def of(cls, caller: str, idata: Any) -> PosteriorDraws:
        """The draws in an object that `sample` returned.

        Raises:
            TypeError: on what has no posterior.
        """
        group = group_of(idata, "posterior")
        if group is None or not {"chain", "draw"} <= set(group.sizes):
            raise TypeError(
                f"{caller}: expected an ArviZ object with the group 'posterior', as sample(...) returns it, got "
                f"{type(idata).__name__}."
            )
        return cls(idata, group)

    @property
    def shape(self) -> tuple[int, int]:
        """How many chains and draws there are."""
        return int(self.group.sizes["chain"]), int(self.group.sizes["draw"])

    @property
    def rows(self) -> int:
        """How many draws there are in all chains."""
        return self.shape[0] * self.shape[1]

    def values(self, caller: str, found: Trace, names: Iterable[str]) -> dict[str, HostArray]:
        """The values of those sites that the posterior holds, shape (rows, ...).

        Where a plate of the model has labels they are looked up by these, so that another order, or a part of the
        groups, is what it says.

        Args:
            caller: the function of the face.
            found: the sites of the model.
            names: of sites.

        Raises:
            ValueError: on a label that the posterior does not hold.
        """
        values = {}
        for name in names:
            if name in self.group:
                array = self._by_label(caller, found, name).values
                values[name] = np.ascontiguousarray(array.reshape(-1, *array.shape[2:]))
        return values

    def _by_label(self, caller: str, found: Trace, name: str) -> Any:
        array = self.group[name].transpose("chain", "draw", ...)
        for dim in array.dims[2:]:
            plate = found.plates.get(dim)
            if plate is None or plate.coords is None or dim not in array.coords:
                continue
            known = array[dim].values
            wanted = np.asarray(plate.coords)
            if known.dtype.kind != wanted.dtype.kind or np.array_equal(known, wanted):
                continue
            unknown = [label for label in plate.coords if label not in set(known.tolist())]
            if unknown:
                raise ValueError(
                    f"{caller}: '{dim}' has the label '{unknown[0]}' in this model, of which the posterior of "
                    f"'{name}' knows nothing; for new groups declare a latent site of their own, as in "
                    f"with plate('new {dim}', [...]): rv('new {name}', ...)."
                )
            array = array.sel({dim: wanted})
        return array

    def values_of_all(self, caller: str, found: Trace) -> dict[str, HostArray]:
        """The values of all latent sites of a model.

        Raises:
            ValueError: naming a site that the posterior does not hold.
        """
        latent = [site.name for site in found.sites.values() if site.is_latent]
        values = self.values(caller, found, latent)
        for name in latent:
            if name not in values:
                hint = (
                    "it has been summed out, so draw it first: recover(model, idata)"
                    if name in found.marginalized
                    else "give the model that was sampled, with its data"
                )
                raise ValueError(f"{caller}: the posterior has no values of the latent site '{name}'; {hint}.")
        return values

    def with_group(
        self, groups: Mapping[str, Replay], names: Mapping[str, Iterable[str]], plain: Mapping[str, Any] | None = None
    ) -> Any:
        """A copy of the object with further groups.

        Args:
            groups: what their arrays are from, by group.
            names: the names of these arrays, by group.
            plain: groups of arrays that have no draws.
        """
        arrays = {
            group: {
                name: found.values[name].reshape(*self.shape, *found.values[name].shape[1:]) for name in names[group]
            }
            for group, found in groups.items()
        }
        dims: dict[str, list[str]] = {}
        coords: dict[str, Any] = {"chain": self.group["chain"].values, "draw": self.group["draw"].values}
        for found in groups.values():
            dims |= found.dims
            coords |= found.coords
        return extended(self.idata, {**arrays, **(plain or {})}, dims=dims, coords=coords)
