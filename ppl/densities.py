"""Log densities by distribution, in a form whose derivative is cheap in both modes.

NumPyro's densities are the reference; a distribution registered here has the same values, up to rounding, from an
expression with less to differentiate. Stan's `*_glm` functions do the same job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from ..ad.rules import softplus

LogDensity = Callable[[Any, Any], Any]

_DENSITIES: dict[type[Any], LogDensity] = {}


def register_log_density(family: type[Any]) -> Callable[[LogDensity], LogDensity]:
    """Use a function for the log density of a family of distributions; a decorator.

    Args:
        family: a class of `numpyro.distributions`; subclasses keep their own `log_prob`.

    Returns:
        A decorator for a function `(distribution, value)` that gives the log density of each element, of the batch
        shape of the distribution and the value, for values in the support.

    Raises:
        TypeError: if `family` is not a class with a `log_prob`.
    """
    if not (isinstance(family, type) and hasattr(family, "log_prob")):
        raise TypeError(f"register_log_density: expected a class of numpyro.distributions, got {family!r}.")

    def register(function: LogDensity) -> LogDensity:
        _DENSITIES[family] = function
        return function

    return register


def log_density(distribution: Any, value: Any) -> Any:
    """The log density of each element of a value in the support."""
    known = _DENSITIES.get(type(distribution))
    return distribution.log_prob(value) if known is None else known(distribution, value)


@register_log_density(dist.BernoulliLogits)
def _bernoulli_logits(distribution: Any, value: Any) -> Any:
    # log p(y) = -log(1 + exp((1 - 2y) l)): one softplus, whose slope is a sigmoid; right at infinite logits too.
    logits = distribution.logits
    return -softplus((1 - 2 * jnp.asarray(value, jnp.result_type(logits))) * logits)


@register_log_density(dist.BinomialLogits)
def _binomial_logits(distribution: Any, value: Any) -> Any:
    # n log(1 + e^l) - k l, as k successes and n - k failures: no product of zero and infinity of either sign.
    logits, total = distribution.logits, jnp.asarray(distribution.total_count, jnp.result_type(distribution.logits))
    count = jnp.asarray(value, total.dtype)
    ways = gammaln(total + 1) - gammaln(count + 1) - gammaln(total - count + 1)
    failures = total - count
    lost = jnp.where(count == 0, 0, count * softplus(jnp.where(count == 0, 0, -logits)))
    return ways - lost - jnp.where(failures == 0, 0, failures * softplus(jnp.where(failures == 0, 0, logits)))


@register_log_density(dist.InverseGamma)
def _inverse_gamma(distribution: Any, value: Any) -> Any:
    # In the value itself; NumPyro's goes through its reciprocal and a Jacobian.
    shape, rate = distribution.concentration, distribution.rate
    return shape * jnp.log(rate) - gammaln(shape) - (shape + 1) * jnp.log(value) - rate / value
