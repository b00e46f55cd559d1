"""Log densities of censored observations, whose tails keep their gradient.

NumPyro takes the logarithm of one minus the distribution function, which is constant as soon as that is 1 in floating
point: 8 standard deviations out for a normal variable, where a chain may well start. Families whose log survival
function is known in closed form go by that; the others by NumPyro's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr

from ..ad.rules import softplus
from .densities import log_density, register_log_density

# From a distribution and a value to log F(x) and log (1 − F(x)).
Tails = Callable[[Any, Any], tuple[Any, Any]]

_LOG_2 = float(np.log(2.0))


def _log1mexp(a: Any) -> Any:
    """Log (1 − exp(−a)) for a > 0; Mächler (2012), "Accurately computing log(1 − exp(−|a|))"."""
    small = a < _LOG_2
    # Neither branch is to see values at which its derivative is infinite.
    near, far = jnp.where(small, a, 1.0), jnp.where(small, 1.0, a)
    return jnp.where(small, jnp.log(-jnp.expm1(-near)), jnp.log1p(-jnp.exp(-far)))


def _of_hazard(hazard: Any) -> tuple[Any, Any]:
    """From the cumulative hazard −log (1 − F(x))."""
    return _log1mexp(hazard), -hazard


def _normal(own: Any, value: Any) -> tuple[Any, Any]:
    z = (value - own.loc) / own.scale
    return log_ndtr(z), log_ndtr(-z)


def _half_normal(own: Any, value: Any) -> tuple[Any, Any]:
    survival = _LOG_2 + log_ndtr(-value / own.scale)
    return _log1mexp(-survival), survival


def _logistic(own: Any, value: Any) -> tuple[Any, Any]:
    z = (value - own.loc) / own.scale
    return -softplus(-z), -softplus(z)


def _gumbel(own: Any, value: Any) -> tuple[Any, Any]:
    inverse = jnp.exp(-(value - own.loc) / own.scale)
    return -inverse, _log1mexp(inverse)


_TAILS: dict[type[Any], Tails] = {
    dist.Normal: _normal,
    dist.LogNormal: lambda own, value: _normal(own.base_dist, jnp.log(value)),
    dist.HalfNormal: _half_normal,
    dist.Logistic: _logistic,
    dist.Gumbel: _gumbel,
    dist.Exponential: lambda own, value: _of_hazard(own.rate * value),
    dist.Weibull: lambda own, value: _of_hazard(jnp.exp(own.concentration * (jnp.log(value) - jnp.log(own.scale)))),
    dist.Pareto: lambda own, value: _of_hazard(own.alpha * (jnp.log(value) - jnp.log(own.scale))),
}


def _tails(distribution: Any, value: Any) -> tuple[Any, Any] | None:
    while type(distribution) is dist.ExpandedDistribution:
        distribution = distribution.base_dist
    known = _TAILS.get(type(distribution))
    return None if known is None else known(distribution, value)


def _censored(side: int) -> Callable[[Any, Any], Any]:
    """The log density where censored values count with one of the tails."""

    def log_density_of(distribution: Any, value: Any) -> Any:
        tails = _tails(distribution.base_dist, value)
        if tails is None:
            return distribution.log_prob(value)
        return jnp.where(distribution.censored, tails[side], log_density(distribution.base_dist, value))

    return log_density_of


register_log_density(dist.LeftCensoredDistribution)(_censored(0))
register_log_density(dist.RightCensoredDistribution)(_censored(1))
