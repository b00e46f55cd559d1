"""A log density with its gradient, compiled: what optimisers and approximations see of a target."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ...ad.adtypes import AbstractADType
from ...ad.gradient import PreparedGradient, prepare_gradient
from ...ad.hessian import PreparedHessian, prepare_hessian
from ..alone import whole_constants
from ..base import Block, BlockReport, Constants, Target, block_name
from ..executables import compile_soon

HostArray = np.ndarray[Any, Any]

# Positions that are evaluated at a time.
_ROWS = 32


@dataclass(frozen=True)
class Objective:
    """A log density over a flat array, given data, and its derivatives by one adtype.

    Args:
        target: the log density.
        constants: of the target, from the data.
        adtype: as it was asked for; None means the default.
        gradient: prepared.
        dtype: of positions.
    """

    target: Target
    constants: Constants
    adtype: AbstractADType | None
    gradient: PreparedGradient
    dtype: Any

    @classmethod
    def of(cls, owner: str, block: Block, data: Sequence[Any], adtype: AbstractADType | None, dtype: Any) -> Objective:
        """Prepare the derivatives of a block that is everything.

        Args:
            owner: who asks, for messages.
            block: all coordinates.
            data: what the density closes over.
            adtype: how to differentiate; None means the default.
            dtype: of positions.

        Raises:
            ValueError: naming the site, where one is discrete.
            DifferentiationError: naming the block, where `adtype` cannot differentiate it.
        """
        target = block.target
        if target.discrete:
            raise ValueError(
                f"{owner}: site '{target.discrete[0]}' is discrete, and {owner} follows a gradient, which needs "
                f"continuous sites. Sum it out of the model (for a mixture, dist.MixtureSameFamily or a `factor` with "
                f"logsumexp over its values), observe it, or use `sample` with DiscreteGibbs() for it."
            )
        shape = jax.ShapeDtypeStruct((target.dimension,), dtype)
        subject = f"block '{block_name(target.sites)}'"
        prepared = prepare_gradient(target.log_density, adtype, shape, *target.constants, subject=subject)
        return cls(target, whole_constants(block, tuple(data)), adtype, prepared, np.dtype(dtype))

    @property
    def dimension(self) -> int:
        """How many coordinates a position has."""
        return self.target.dimension

    def report(self, owner: str) -> BlockReport:
        """What was decided about the gradient.

        Args:
            owner: the algorithm, as the user would write it.
        """
        choice = self.gradient.choice
        name = block_name(self.target.sites)
        return BlockReport(name, owner, self.dimension, repr(choice.backend), choice.reason, choice.measurements)

    def value_and_gradient(self, position: HostArray) -> tuple[float, HostArray]:
        """The log density and its gradient, shape (dimension,), at a position of that shape."""
        value, gradient = self._compiled(position.astype(self.dtype, copy=False), self.constants)
        return float(value), np.asarray(gradient, float)

    def hessian(self, position: HostArray) -> HostArray:
        """The Hessian, shape (dimension, dimension), symmetric."""
        matrix = np.asarray(self._compiled_hessian(position.astype(self.dtype, copy=False), self.constants))
        symmetric: HostArray = 0.5 * (matrix + matrix.T)
        return symmetric

    def log_densities(self, positions: HostArray) -> HostArray:
        """The log density at many positions, shape (n, dimension) to (n,)."""
        found = np.empty(len(positions), self.dtype)
        for first in range(0, len(positions), _ROWS):
            part = positions[first : first + _ROWS].astype(self.dtype, copy=False)
            filled = np.concatenate([part, np.repeat(part[-1:], _ROWS - len(part), axis=0)])
            found[first : first + len(part)] = np.asarray(self._compiled_batch(filled, self.constants))[: len(part)]
        return found

    @functools.cached_property
    def prepared_hessian(self) -> PreparedHessian:
        """The Hessian by the adtype: a `SecondOrder` as it is, a backend over itself, else forward over reverse."""
        return prepare_hessian(self.target.log_density, self.adtype, self._shape(), *self.target.constants)

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        return self._compile(lambda x, constants: self.gradient.value_and_gradient(x, *constants), self._shape())

    @functools.cached_property
    def _compiled_hessian(self) -> Callable[..., Any]:
        return self._compile(lambda x, constants: self.prepared_hessian.hessian(x, *constants), self._shape())

    @functools.cached_property
    def _compiled_batch(self) -> Callable[..., Any]:
        def evaluate(positions: Any, constants: Constants) -> Any:
            return jax.vmap(lambda x: self.target.log_density(x, *constants))(positions)

        return self._compile(evaluate, self._shape(_ROWS))

    def _compile(self, function: Callable[..., Any], shape: jax.ShapeDtypeStruct) -> Callable[..., Any]:
        return compile_soon(function, shape, self.constants).result().call

    def _shape(self, *rows: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*rows, self.dimension), self.dtype)


def coordinate_names(target: Target) -> list[str]:
    """A name for each coordinate of a position: the site, and for larger ones the flat number inside it."""
    return [site if size == 1 else f"{site}[{i}]" for site, size in target.sizes.items() for i in range(size)]
