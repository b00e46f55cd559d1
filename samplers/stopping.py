"""When a run has drawn enough."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .hamiltonian import is_number

HostArray = np.ndarray[Any, Any]

_FIRST, _GROWTH = 100, 1.25
# ESS and R-hat say nothing of fewer draws.
_FEWEST_CHAINS = 2


@dataclass(frozen=True)
class Until:
    """Draw until all coordinates have been explored well enough.

    Looked at after 100 draws from each chain, and again each time there are a quarter more. The run keeps the first of
    these lengths that is enough, so that the result does not depend on how fast the chains are.

    Args:
        ess: the smallest bulk effective sample size, of all chains together, is to be at least this.
        rhat: the largest R-hat is to be at most this, above 1; it needs two chains or more.

    Raises:
        ValueError: on bad arguments, naming them.

    Source: Vehtari et al. (2021), "Rank-normalization, folding, and localization: an improved R-hat for assessing
    convergence of MCMC".
    """

    ess: float = 400.0
    rhat: float = 1.01

    def __post_init__(self) -> None:
        if not (is_number(self.ess) and 0 < self.ess < float("inf")):
            raise ValueError(f"Until: ess must be a positive number, got {self.ess!r}; 400 is usual for four chains.")
        if not (is_number(self.rhat) and self.rhat > 1):
            raise ValueError(f"Until: rhat must be a number above 1, got {self.rhat!r}; 1.01 is usual.")

    def lengths(self, draws: int) -> Iterator[int]:
        """After how many draws from each chain to look, up to `draws`, ascending."""
        length = float(_FIRST)
        while length < draws:
            yield int(length)
            length *= _GROWTH
        yield draws

    def reached(self, positions: HostArray) -> bool:
        """Whether draws are enough: of discrete coordinates, those that have not moved are passed over.

        Args:
            positions: shape (chains, draws, dimension).
        """
        moved = np.ptp(positions, axis=(0, 1)) > 0
        if not moved.any():
            return False
        sizes, ratios = _diagnostics(positions[..., moved])
        mixed = len(positions) < _FEWEST_CHAINS or bool(np.all(ratios <= self.rhat))
        return bool(np.all(sizes >= self.ess)) and mixed


def _diagnostics(draws: HostArray) -> tuple[HostArray, HostArray]:
    """Bulk ESS and R-hat of each coordinate, shape (dimension,)."""
    with warnings.catch_warnings():
        # ArviZ 0.x announces its successor on import, once a day.
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        # A chain that stands still has no variance; what comes of it is not enough.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        try:
            array_stats = importlib.import_module("arviz_stats.base").array_stats
        except ModuleNotFoundError:
            arviz: Any = importlib.import_module("arviz")
            columns = [draws[..., i] for i in range(draws.shape[-1])]
            return np.array([arviz.ess(c) for c in columns]), np.array([arviz.rhat(c) for c in columns])
    axes = {"chain_axis": 0, "draw_axis": 1}
    ratios = array_stats.rhat(draws, **axes) if len(draws) >= _FEWEST_CHAINS else np.ones(draws.shape[-1])
    return np.asarray(array_stats.ess(draws, **axes)), np.asarray(ratios)
