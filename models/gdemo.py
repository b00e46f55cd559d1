"""gdemo: the mean and the variance of a normal distribution, from two observations; its posterior is known exactly.

Source: the first example of the Turing documentation, "Getting Started" (turinglang.org).

The prior s ~ InverseGamma(α₀ = 2, β₀ = 3), m | s ~ Normal(μ₀ = 0, variance s / κ₀) with κ₀ = 1 is conjugate. With n = 2
observations of mean 7/4 and squared deviations from it that sum to 1/8,

    κ = κ₀ + n = 3                     μ = n · 7/4 / κ = 7/6
    α = α₀ + n/2 = 3                   β = β₀ + (1/8)/2 + κ₀ n (7/4)² / (2κ) = 49/12

give the posterior s ~ InverseGamma(3, 49/12) and m | s ~ Normal(7/6, variance s/3), so that m alone has a Student t
distribution with 6 degrees of freedom, location 7/6 and scale √(β/(ακ)) = 7/(6√3). Hence

    E[m] = 7/6        E[s] = β/(α−1) = 49/24        E[1/s] = α/β = 36/49
    Var[m] = E[s]/κ = 49/72                         Var[s] = E[s]²/(α−2) = 2401/576
    E[m²] = 49/24     E[s²] = 2401/288              Cov[m, s] = 0

The third moment of s is infinite. So an average of s² over draws does converge to E[s²], but its error has no finite
variance and no standard error describes it; to test the spread of s, take E[1/s].
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from ..ppl import model, rv

X, Y = 1.5, 2.0

# Exact, as derived above.
POSTERIOR_MEAN = MappingProxyType({"m": 7 / 6, "s": 49 / 24})
POSTERIOR_VARIANCE = MappingProxyType({"m": 49 / 72, "s": 2401 / 576})
POSTERIOR_MEAN_PRECISION = 36 / 49  # of 1/s


@model
def gdemo(x: Any, y: Any) -> None:
    """Two draws from a normal distribution of unknown mean and variance.

    Args:
        x: the first observation, a number.
        y: the second.
    """
    s = rv("s", dist.InverseGamma(2.0, 3.0))
    m = rv("m", dist.Normal(0.0, jnp.sqrt(s)))
    rv("x", dist.Normal(m, jnp.sqrt(s)), obs=x)
    rv("y", dist.Normal(m, jnp.sqrt(s)), obs=y)
