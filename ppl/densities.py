"""Log densities by distribution, in a form whose derivative is cheap in both modes.

NumPyro's densities are the reference; a distribution registered here has the same values, up to rounding, from an
expression with less to differentiate. Stan's `*_glm` functions do the same job.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import gammaln

from ..ad.rules import logaddexp, softplus

LogDensity = Callable[[Any, Any], Any]

_DENSITIES: dict[type[Any], LogDensity] = {}

_LOG_2PI = float(np.log(2 * np.pi))

# Up to this size the covariance of a Gaussian is taken apart without LAPACK.
_ELIMINATED = 24

# Supports with nothing outside.
_REAL = (dist.constraints.real, dist.constraints.real_vector)


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


def log_density(distribution: Any, value: Any, *, inside: bool = True) -> Any:
    """The log density of each element of a value; of batches and groups of independent elements, too.

    Args:
        distribution: of `numpyro.distributions`.
        value: of the batch and event shape of the distribution.
        inside: whether the value is known to lie in the support, so that nobody need look.

    Returns:
        Of the batch shape; −inf outside the support.
    """
    if type(distribution) is dist.ExpandedDistribution:
        batch = jnp.shape(value)[: jnp.ndim(value) - distribution.event_dim]
        return jnp.broadcast_to(log_density(distribution.base_dist, value, inside=inside), batch)
    if type(distribution) is dist.Independent:
        terms = log_density(distribution.base_dist, value, inside=inside)
        return jnp.sum(terms, axis=tuple(range(-distribution.reinterpreted_batch_ndims, 0)))
    known = _DENSITIES.get(type(distribution))
    if known is None:
        return distribution.log_prob(value)
    term = known(distribution, value)
    return term if inside or distribution.support in _REAL else jnp.where(distribution.support(value), term, -jnp.inf)


def unchecked(distribution: Any) -> Any:
    """A distribution that does not look whether values are inside of its support, nor warns of those that are not."""
    if not getattr(distribution, "_validate_args", False):
        return distribution
    other = copy.copy(distribution)
    other._validate_args = False
    return other


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


def _standard_normal(z: Any, log_scale: Any) -> Any:
    return -0.5 * jnp.square(z) - (log_scale + 0.5 * _LOG_2PI)


@register_log_density(dist.Normal)
def _normal(distribution: Any, value: Any) -> Any:
    # One division a scale, not one a value.
    scale = distribution.scale
    return _standard_normal((value - distribution.loc) * (1 / scale), jnp.log(scale))


@register_log_density(dist.LogNormal)
def _log_normal(distribution: Any, value: Any) -> Any:
    log_value = jnp.log(value)
    return _normal(distribution.base_dist, log_value) - log_value


@register_log_density(dist.HalfNormal)
def _half_normal(distribution: Any, value: Any) -> Any:
    scale = distribution.scale
    return _standard_normal(value * (1 / scale), jnp.log(0.5 * scale))


@register_log_density(dist.Cauchy)
def _cauchy(distribution: Any, value: Any) -> Any:
    scale = distribution.scale
    return -jnp.log1p(jnp.square((value - distribution.loc) * (1 / scale))) - jnp.log(np.pi * scale)


@register_log_density(dist.HalfCauchy)
def _half_cauchy(distribution: Any, value: Any) -> Any:
    scale = distribution.scale
    return -jnp.log1p(jnp.square(value * (1 / scale))) - jnp.log(0.5 * np.pi * scale)


@register_log_density(dist.Exponential)
def _exponential(distribution: Any, value: Any) -> Any:
    return jnp.log(distribution.rate) - distribution.rate * value


@register_log_density(dist.StudentT)
def _student_t(distribution: Any, value: Any) -> Any:
    df, scale = distribution.df, distribution.scale
    half = 0.5 * (df + 1)
    normalizer = gammaln(0.5 * df) - gammaln(half) + 0.5 * jnp.log(np.pi * df) + jnp.log(scale)
    return -half * jnp.log1p(jnp.square((value - distribution.loc) * (1 / scale)) / df) - normalizer


@register_log_density(dist.GaussianRandomWalk)
def _gaussian_random_walk(distribution: Any, value: Any) -> Any:
    scale, steps = distribution.scale, jnp.shape(value)[-1]
    squares = jnp.square(value[..., 0]) + jnp.sum(jnp.square(value[..., 1:] - value[..., :-1]), axis=-1)
    return -0.5 * squares * jnp.square(1 / scale) - steps * (jnp.log(scale) + 0.5 * _LOG_2PI)


@jax.custom_jvp
def _gaussian(centred: Any, covariance: Any) -> Any:
    """Log N(r; 0, Σ) of rows r, shape (..., n), with the derivative in Σ itself and not in its factor.

        d log N = −α'dr + ½ (α'dΣ α − tr Σ⁻¹ dΣ),    α = Σ⁻¹ r

    Source: Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", equation 5.9.
    """
    if centred.shape[-1] <= _ELIMINATED:
        inverse, _, half_log_det = _eliminated(covariance)
        return _of_white(_times(centred, inverse.T), half_log_det)
    white, _, half_log_det = _solved(centred, covariance)
    return _of_white(white, half_log_det)


@_gaussian.defjvp
def _change_of_gaussian(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (centred, covariance), (change, widening) = primals, tangents
    if centred.shape[-1] <= _ELIMINATED:
        inverse, precision, half_log_det = _eliminated(covariance)
        white = _times(centred, inverse.T)
        alpha = _times(white, inverse)
    else:
        white, factor, half_log_det = _solved(centred, covariance)
        unit = jnp.eye(centred.shape[-1], dtype=factor.dtype)
        inverse = lax.linalg.triangular_solve(factor, unit, left_side=True, lower=True)
        # L'⁻¹ by rows, which is L⁻¹ by columns; without the barrier XLA copies it to multiply what is slower.
        rows = lax.optimization_barrier(inverse.T)
        alpha, precision = white @ rows.T, rows @ rows.T
    slope = 0.5 * (alpha[..., :, None] * alpha[..., None, :] - precision)
    changed = jnp.sum(slope * widening, axis=(-2, -1)) - jnp.sum(alpha * change, axis=-1)
    return _of_white(white, half_log_det), changed


def _of_white(white: Any, half_log_det: Any) -> Any:
    """The log density from L⁻¹r and ½ log |Σ|."""
    return -0.5 * jnp.sum(jnp.square(white), axis=-1) - half_log_det - 0.5 * white.shape[-1] * _LOG_2PI


def _solved(centred: Any, covariance: Any) -> tuple[Any, Any, Any]:
    """L⁻¹r, L for Σ = LL', and ½ log |Σ|."""
    rows = jnp.reshape(centred, (-1, centred.shape[-1]))
    # LAPACK wants columns, the rest of a program rows: transposed, the symmetric matrix need not be copied.
    factor = lax.linalg.cholesky(covariance.T, symmetrize_input=False)
    white = lax.linalg.triangular_solve(factor, rows.T, left_side=True, lower=True).T.reshape(centred.shape)
    return white, factor, jnp.sum(jnp.log(jnp.diagonal(factor)))


def _eliminated(covariance: Any) -> tuple[Any, Any, Any]:
    """L⁻¹, Σ⁻¹ and ½ log |Σ| of a small Σ = LL', by Gaussian elimination in Σ and the identity side by side.

    Round k leaves row k of L' on the left and row k of L⁻¹ on the right. What calls LAPACK or multiplies matrices is
    not compiled with what is around it, and would keep the loop of a sampler from becoming one native function.
    """
    size = covariance.shape[-1]
    number = np.arange(size)[:, None]

    def eliminate(k: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        rows, precision = carry
        pivot_row = lax.dynamic_index_in_dim(rows, k, 0, keepdims=False)
        root = lax.rsqrt(lax.dynamic_index_in_dim(pivot_row, k, 0, keepdims=False))
        finished, column = pivot_row * root, lax.dynamic_index_in_dim(rows, k, 1, keepdims=True) * root
        rows = jnp.where(number > k, rows - column * finished, jnp.where(number == k, finished, rows))
        return rows, precision + finished[size:, None] * finished[size:]

    both = jnp.concatenate([covariance, jnp.eye(size, dtype=covariance.dtype)], axis=1)
    rows, precision = lax.fori_loop(0, size, eliminate, (both, jnp.zeros_like(covariance)))
    return rows[:, size:], precision, jnp.sum(jnp.log(jnp.diagonal(rows)))


def _times(rows: Any, matrix: Any) -> Any:
    """Rows times a small matrix; of a single row as a sum, for the same reason."""
    return jnp.sum(rows[:, None] * matrix, axis=0) if rows.ndim == 1 else rows @ matrix


@register_log_density(dist.MultivariateNormal)
def _multivariate_normal(distribution: Any, value: Any) -> Any:
    covariance = vars(distribution).get("covariance_matrix")
    if covariance is None or jnp.ndim(covariance) > 2:
        return distribution.log_prob(value)
    centred = value - distribution.loc
    dtype = jnp.result_type(centred, covariance)
    return _gaussian(centred.astype(dtype), covariance.astype(dtype))


# Families whose elements depend on the elements of their parameters, and are made from these alone.
_ELEMENTWISE = (dist.Normal, dist.LogNormal, dist.HalfNormal, dist.Cauchy, dist.HalfCauchy, dist.Exponential,
                dist.StudentT, dist.InverseGamma, dist.BernoulliLogits)  # fmt: skip

# Mixtures of up to so many components are written out.
_COMPONENTS = 8


@register_log_density(dist.MixtureSameFamily)
def _mixture(distribution: Any, value: Any) -> Any:
    # Component by component: an array with the components as its last axis, two numbers long, is slow to walk.
    mixing, family = distribution.mixing_distribution, distribution.component_distribution
    if type(family) is dist.ExpandedDistribution:
        family = family.base_dist
    if type(family) not in _ELEMENTWISE or distribution.mixture_size > _COMPONENTS:
        return distribution.log_prob(value)
    weights = jax.nn.log_softmax(mixing.logits)
    terms = []
    for k in range(distribution.mixture_size):
        parameters = {name: _component(parameter, k) for name, parameter in family.get_args().items()}
        terms.append(weights[..., k] + log_density(type(family)(**parameters, validate_args=False), value))
    return functools.reduce(logaddexp, terms)


def _component(parameter: Any, k: int) -> Any:
    shape = jnp.shape(parameter)
    return parameter[..., k if shape[-1] > 1 else 0] if shape else parameter
