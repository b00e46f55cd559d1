"""What one run of a model declared, and what is wrong with its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpyro.distributions import Distribution

from .interpreter import Dims, Plate

# Dimensions that every result has.
_RESERVED = frozenset({"chain", "draw", "block"})


@dataclass(frozen=True)
class Site:
    """What is known of a random variable after one run of the model; no array of that run is kept but `obs`.

    Args:
        name: of the site.
        family: name of its distribution.
        shape: of its value.
        unconstrained_shape: of the array behind the value: for a discrete site the value's own shape.
        index_shape: of the leading dimensions of that array that can be told apart: its entries are transformed
            independently of each other.
        discrete: whether its values are discrete.
        obs: the observed value, NaN where it is missing, or None for a latent site.
        dims: names of its dimensions, or None where nothing is known of them.
    """

    name: str
    family: str
    shape: tuple[int, ...]
    unconstrained_shape: tuple[int, ...]
    index_shape: tuple[int, ...]
    discrete: bool
    obs: Any
    dims: Dims

    @property
    def is_latent(self) -> bool:
        """Whether it is to be sampled."""
        return self.obs is None


@dataclass
class Trace:
    """What one run of a model declared, in order.

    Args:
        sites: latent and observed ones.
        values: of the latent sites.
        terms: of the log density, by name.
        elements: the terms before they are summed, where they were asked for.
        element_dims: names of their dimensions, where they are known.
        likelihood: names of the terms that count to the likelihood; the others are the prior's.
        distributions: of sites, where these are known as a whole.
        deterministics: values and names of dimensions.
        fixed: the same of sites that were intervened on.
        plates: by name.
        conditioned: observed sites whose values are conditions and not data of the function.
        submodels: their names.
        marginalized: names of sites that are to be summed out.
        initial: values at which submodels want chains to start.
        returned: what the function of the model returned.
        looks_at: where the model looks at values of random variables, if it does.
    """

    sites: dict[str, Site] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)
    elements: dict[str, Any] = field(default_factory=dict)
    element_dims: dict[str, Dims] = field(default_factory=dict)
    likelihood: dict[str, None] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    deterministics: dict[str, tuple[Any, Dims]] = field(default_factory=dict)
    fixed: dict[str, tuple[Any, Dims]] = field(default_factory=dict)
    plates: dict[str, Plate] = field(default_factory=dict)
    conditioned: set[str] = field(default_factory=set)
    submodels: set[str] = field(default_factory=set)
    marginalized: dict[str, None] = field(default_factory=dict)
    initial: dict[str, Any] = field(default_factory=dict)
    returned: Any = None
    looks_at: str | None = None

    def claim(self, name: str, plates: tuple[Plate, ...] = ()) -> None:
        """Take a name for a site, and note the plates that it stands in.

        Raises:
            ValueError: if the name, or one of a plate, is taken by something else.
        """
        if name in self.sites or name in self.deterministics or name in self.fixed or name in self.terms:
            raise ValueError(
                f"site '{name}' is declared twice; give each site of a model a name of its own, such as "
                f"f'{name}_{{i}}' in a loop, or declare them all at once in a plate."
            )
        for plate in plates:
            known = self.plates.setdefault(plate.name, plate)
            if known != plate:
                how = (
                    "with other labels than before"
                    if plate.size == known.size
                    else f"with size {plate.size} and with size {known.size}"
                )
                raise ValueError(f"plate '{plate.name}' is opened {how}; give different plates different names.")

    def claim_dimension(self, dimension: Plate) -> None:
        """Note a dimension that data bring along, unless the model declares it with labels of its own."""
        known = self.plates.setdefault(dimension.name, dimension)
        if known.coords is None and known.size == dimension.size:
            self.plates[dimension.name] = dimension

    def check_names_of_dimensions(self) -> None:
        """Refuse what ArviZ would stumble over only when all draws are made.

        Raises:
            ValueError: naming the site or dimension.
        """
        sizes = {plate.name: plate.size for plate in self.plates.values()}
        named = {site.name: (site.shape, site.dims) for site in self.sites.values()}
        named |= {name: (np.shape(value), dims) for name, (value, dims) in (self.deterministics | self.fixed).items()}
        for name, (shape, dims) in named.items():
            if "/" in name:
                raise ValueError(f"site '{name}': a name with '/' would be a path in the result; use another sign.")
            for dim, size in zip(dims or (), shape, strict=bool(dims)):
                if sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"site '{name}': its dimension '{dim}' has size {size}, and elsewhere in the model size "
                        f"{sizes[dim]}; give different dimensions different names."
                    )
            if dims and len(set(dims)) < len(dims):
                raise ValueError(f"site '{name}': dims {dims} name two dimensions alike; give each its own name.")
        for name in sorted(named.keys() & sizes.keys()):
            raise ValueError(f"'{name}' would name both a variable and a dimension of the result; rename one of them.")
        for name in sorted((named.keys() | sizes.keys()) & _RESERVED):
            raise ValueError(
                f"'{name}' is the name of a dimension of every result ({', '.join(sorted(_RESERVED))} are); "
                f"rename the site, plate or dimension."
            )

    def names_of(self) -> Mapping[str, None]:
        """Of all sites, observed, latent and fixed, in order."""
        return dict.fromkeys([*self.sites, *self.fixed])
