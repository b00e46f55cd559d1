"""Log densities over plain arrays whose laws are known exactly, and the judge of draws from them.

A `Known` target comes with exact draws and with a map that turns draws into independent standard normal numbers if
and only if they follow the law. Chains that start from exact draws are, under a correct kernel, still exact and
independent after any number of steps: `p_value` then holds without any approximation of Monte Carlo error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ArrayTarget:
    """A log density over an array whose stretches are named; satisfies `samplers.base.Target`.

    Args:
        function: from a position, shape (dimension,), and the constants to the log density, shape ().
        sizes: how many coordinates each site has, in order.
        constants: shapes and dtypes of the constants.
    """

    function: Callable[..., Any]
    sizes: dict[str, int]
    constants: tuple[jax.ShapeDtypeStruct, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    @property
    def discrete(self) -> tuple[str, ...]:
        return ()

    @property
    def dimension(self) -> int:
        return sum(self.sizes.values())

    @property
    def index_shapes(self) -> dict[str, tuple[int, ...]]:
        return {site: (size,) for site, size in self.sizes.items()}

    @property
    def signature(self) -> Any:
        return self.function, tuple(self.sizes.items())

    def log_density(self, position: Any, *constants: Any) -> Any:
        return self.function(position, *constants)

    def restrict(self, parts: Any) -> ArrayBlock:
        first = dict(zip(self.sizes, np.cumsum([0, *self.sizes.values()]), strict=False))
        named = parts if isinstance(parts, dict) else {site: (site, None) for site in parts}
        stretches = {
            label: first[site] + (np.arange(self.sizes[site]) if inside is None else inside)
            for label, (site, inside) in named.items()
        }
        return ArrayBlock(
            self,
            {label: len(stretch) for label, stretch in stretches.items()},
            np.concatenate(list(stretches.values())),
        )


@dataclass(frozen=True, eq=False)
class ArrayBlock:
    """Some coordinates given the rest; satisfies `samplers.base.Block`. The rest is its first constant."""

    whole: ArrayTarget
    sizes: dict[str, int]
    coordinates: HostArray

    @property
    def rest(self) -> HostArray:
        return np.setdiff1d(np.arange(self.whole.dimension), self.coordinates)

    @property
    def depends_on_rest(self) -> bool:
        return len(self.rest) > 0

    def depends_on(self, coordinates: HostArray) -> bool:
        return bool(np.isin(coordinates, self.rest).any())

    @property
    def target(self) -> ArrayTarget:
        rest = jax.ShapeDtypeStruct(self.rest.shape, jnp.result_type(float))

        def function(block: Any, rest: Any, *constants: Any) -> Any:
            return self.whole.function(self._join(block, rest), *constants)

        return ArrayTarget(function, self.sizes, (rest, *self.whole.constants))

    def prepare(self, data: tuple[Any, ...]) -> tuple[Any, ...]:
        return data

    @property
    def names(self) -> tuple[int, ...]:
        return tuple(range(len(self.whole.constants)))

    @property
    def fixed(self) -> tuple[int | None, ...]:
        return None, *self.names

    def constants(self, position: Any, prepared: tuple[Any, ...]) -> tuple[Any, ...]:
        return (position[self.rest], *prepared)

    def _join(self, block: Any, rest: Any) -> Any:
        order = np.argsort(np.concatenate([self.coordinates, self.rest]))
        return jnp.concatenate([block, rest])[order]


class Known(NamedTuple):
    """A target with its law.

    Args:
        target: the density.
        exact: from a generator and a number to that many exact draws, shape (number, dimension).
        normalise: from draws, shape (number, dimension), to numbers that are independent and standard normal.
        deviations: standard deviation of each coordinate.
    """

    target: ArrayTarget
    exact: Callable[[np.random.Generator, int], HostArray]
    normalise: Callable[[HostArray], HostArray]
    deviations: HostArray


def gaussian(covariance: Any, sites: dict[str, int] | None = None) -> Known:
    """A Gaussian with mean zero."""
    covariance = np.asarray(covariance, float)
    factor = np.linalg.cholesky(covariance)
    precision = np.linalg.inv(covariance)
    size = len(covariance)
    return Known(
        ArrayTarget(lambda q: -0.5 * jnp.dot(q, jnp.asarray(precision, q.dtype) @ q), sites or {"q": size}),
        lambda rng, number: rng.standard_normal((number, size)) @ factor.T,
        lambda draws: np.linalg.solve(factor, draws.T).T,
        np.sqrt(np.diag(covariance)),
    )


def standard_normal(size: int = 2) -> Known:
    """Independent standard normals."""
    return gaussian(np.eye(size))


# Correlation 0.8 and scales that differ by a factor of four.
CORRELATED = ((1.0, 0.4), (0.4, 0.25))
_SHAPE = 2.0


def skewed() -> Known:
    """A log-gamma variable x, and y given x normal with mean x/2 and deviation exp(0.3 x): sites "x" and "y".

    log π(x, y) = 2x − exp(x) − 0.3 x − ½ ((y − x/2) / exp(0.3 x))² + const
    """

    def log_density(q: Any) -> Any:
        x, y = q[0], q[1]
        return _SHAPE * x - jnp.exp(x) - 0.3 * x - 0.5 * ((y - 0.5 * x) * jnp.exp(-0.3 * x)) ** 2

    def exact(rng: np.random.Generator, number: int) -> HostArray:
        x = np.log(rng.gamma(_SHAPE, size=number))
        return np.stack([x, 0.5 * x + np.exp(0.3 * x) * rng.standard_normal(number)], 1)

    def normalise(draws: HostArray) -> HostArray:
        x, y = draws.T
        with np.errstate(over="ignore"):  # of a sampler that is badly wrong
            quantiles = special.gammainc(_SHAPE, np.exp(x))
        return np.stack([normal_quantile(quantiles), (y - 0.5 * x) * np.exp(-0.3 * x)], 1)

    # Var x = ψ′(a); Var y = ¼ Var x + E exp(0.6 x) = ¼ ψ′(a) + Γ(a + 0.6) / Γ(a).
    variance = special.polygamma(1, _SHAPE)
    spread = 0.25 * variance + special.gamma(_SHAPE + 0.6) / special.gamma(_SHAPE)
    return Known(ArrayTarget(log_density, {"x": 1, "y": 1}), exact, normalise, np.sqrt([variance, spread]))


def normal_quantile(probabilities: Any) -> HostArray:
    """Standard normal numbers from uniform ones; the ends of [0, 1] stay finite."""
    return special.ndtri(np.clip(probabilities, 1e-300, 1 - 1e-16))


def p_value(normals: HostArray) -> float:
    """How probable numbers as far from independent standard normal as these are, at most.

    For each column the mean, the variance and the distribution (Kolmogorov-Smirnov) are tested, and for each pair of
    columns the mean of the product; the smallest p-value is multiplied by the number of tests (Bonferroni), so a
    correct sample gives a value below α with a probability of at most about α.

    Args:
        normals: shape (number, dimension), rows independent.
    """
    normals = np.asarray(normals)
    if not np.isfinite(normals).all():
        return 0.0
    number, size = normals.shape
    scores = [np.sqrt(number) * column.mean() for column in normals.T]
    scores += [np.sqrt(number / 2.0) * (np.mean(column**2) - 1.0) for column in normals.T]
    scores += [
        np.mean(normals[:, i] * normals[:, j]) * np.sqrt(number) for i in range(size) for j in range(i + 1, size)
    ]
    found = [2.0 * stats.norm.sf(abs(score)) for score in scores]
    found += [stats.kstest(column, "norm").pvalue for column in normals.T]
    return float(min(found) * len(found))


def mean_error(draws: HostArray) -> tuple[float, float]:
    """The mean of correlated draws, shape (chains, draws), and its standard error from 25 batch means a chain."""
    chains, number = draws.shape
    batches = draws[:, : number // 25 * 25].reshape(chains * 25, -1).mean(1)
    return float(batches.mean()), float(batches.std(ddof=1) / np.sqrt(len(batches)))
