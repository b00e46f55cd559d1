"""Regressions: log likelihoods over a design matrix, from 2 to 20 coefficients and 100 to 2000 rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, log_ndtr, logsumexp

from .scenario import Scenario, exact

Array = jax.Array


def linear(x: Array, X: Array, y: Array) -> Array:
    """Normal errors of unit scale: -|y - Xβ|²/2."""
    return -0.5 * jnp.sum((y - X @ x) ** 2)


def linear_with_scale(x: Array, X: Array, y: Array) -> Array:
    """Normal errors of scale exp(x[-1]), with normal priors."""
    coefficients, log_scale = x[:-1], x[-1]
    residuals = (y - X @ coefficients) * jnp.exp(-log_scale)
    return -0.5 * jnp.sum(residuals**2) - y.size * log_scale - 0.5 * jnp.sum(x**2)


def logistic(x: Array, X: Array, y: Array) -> Array:
    """Bernoulli outcomes with the logit link: sum of yη - log(1 + e^η)."""
    logits = X @ x
    return jnp.sum(y * logits - jax.nn.softplus(logits))


def logit_likelihood(x: Array, y: Array, X: Array) -> Array:
    """The same, through probabilities: sum of log(y ? p : 1 - p) with p the logistic cdf of Xβ."""
    p = jax.nn.sigmoid(X @ x)
    return jnp.sum(jnp.log(jnp.where(y, p, 1.0 - p)))


def probit(x: Array, X: Array, y: Array) -> Array:
    """Bernoulli outcomes with the probit link: sum of log Φ(±η)."""
    return jnp.sum(log_ndtr((2.0 * y - 1.0) * (X @ x)))


def poisson(x: Array, X: Array, y: Array) -> Array:
    """Counts with the log link: sum of yη - e^η - log y!."""
    eta = X @ x
    return jnp.sum(y * eta - jnp.exp(eta) - gammaln(y + 1.0))


def negative_binomial(x: Array, X: Array, y: Array) -> Array:
    """Overdispersed counts, mean exp(Xβ) and dispersion exp(x[-1])."""
    eta, size = X @ x[:-1], jnp.exp(x[-1])
    binomial = gammaln(y + size) - gammaln(size) - gammaln(y + 1.0)
    return jnp.sum(binomial + y * eta + size * x[-1] - (y + size) * jnp.logaddexp(eta, x[-1]))


def ordered_logistic(x: Array, X: Array, y: Array) -> Array:
    """Four ordered outcomes; the cut points are a running sum of exponentials."""
    coefficients, raw = x[:3], x[3:]
    cuts = jnp.cumsum(jnp.concatenate([raw[:1], jnp.exp(raw[1:])]))
    below = jax.nn.sigmoid(cuts - (X @ coefficients)[:, None])
    edges = jnp.concatenate([jnp.zeros_like(below[:, :1]), below, jnp.ones_like(below[:, :1])], axis=1)
    return jnp.sum(jnp.log(jnp.take_along_axis(jnp.diff(edges, axis=1), y[:, None], axis=1)))


def multinomial(x: Array, X: Array, y: Array) -> Array:
    """Three outcomes, softmax of XB with the coefficients B as a matrix, shape (3, 3)."""
    logits = X @ x
    chosen = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.sum(chosen - logsumexp(logits, axis=1))


def robust(x: Array, X: Array, y: Array) -> Array:
    """Student-t errors: coefficients, log scale and log degrees of freedom."""
    log_scale, nu = x[-2], jnp.exp(x[-1])
    residuals = (y - X @ x[:-2]) * jnp.exp(-log_scale)
    constant = gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * jnp.log(nu * jnp.pi) - log_scale
    return jnp.sum(constant - 0.5 * (nu + 1.0) * jnp.log1p(residuals**2 / nu))


def quantile(x: Array, X: Array, y: Array) -> Array:
    """The asymmetric Laplace likelihood of quantile regression, away from its kinks."""
    residuals = y - X @ x
    return -jnp.sum(jnp.maximum(0.75 * residuals, -0.25 * residuals))


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(2)

    def one(name: str, f: Any, x: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        return Scenario(name, "regression", f, x, np.zeros_like(x), special, constants, **expected)

    def data(rows: int, columns: int) -> tuple[Any, Any]:
        """A design with an intercept and a point, both exact in single precision."""
        design = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        design[:, 0] = 1.0
        return exact(design), exact(0.5 * rng.normal(size=columns))

    def sigmoid(eta: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-eta))

    made = []
    for rows, columns in ((100, 2), (2000, 10)):
        X, b = data(rows, columns)
        y = exact(X @ b + rng.normal(size=rows))
        gradient = X.T @ (y - X @ b)
        made.append(one(f"linear {rows} x {columns}", linear, b, "a matrix product", X, y, gradient=gradient))
    for rows, columns in ((100, 5), (2000, 10), (2000, 20)):
        X, b = data(rows, columns)
        y = (rng.uniform(size=rows) < sigmoid(X @ b)).astype(np.float64)
        gradient = X.T @ (y - sigmoid(X @ b))
        made.append(one(f"logistic {rows} x {columns}", logistic, b, "softplus", X, y, gradient=gradient))

    X, b = exact(rng.normal(size=(500, 3))), np.ones(3)
    success = X @ b + rng.logistic(size=500) >= 0.0
    gradient = X.T @ (success - sigmoid(X @ b))
    special = "a boolean constant, `where`, and the logarithm of a difference"
    made.append(one("logit likelihood 500 x 3", logit_likelihood, b, special, success, X, gradient=gradient))

    X, b = data(100, 5)
    y = (rng.uniform(size=100) < sigmoid(X @ b)).astype(np.float64)
    made.append(one("probit 100 x 5", probit, b, "log Φ", X, y))
    counts = rng.poisson(np.exp(X @ b))
    gradient = X.T @ (counts - np.exp(X @ b))
    made.append(one("poisson 100 x 5", poisson, b, "integer outcomes", X, counts, gradient=gradient))
    made.append(one("negative binomial 100 x 5", negative_binomial, np.append(b, 0.25), "lgamma", X, counts))
    noisy = exact(X @ b + rng.standard_t(3, size=100))
    made.append(one("linear with scale 100 x 5", linear_with_scale, np.append(b, 0.25), "a slice", X, noisy))
    made.append(one("robust 100 x 5", robust, np.append(b, [0.125, 1.25]), "log degrees of freedom", X, noisy))
    special = "a kink in every row, none at the point"
    gradient = X.T @ np.where(noisy - X @ b > 0, 0.75, -0.25)
    made.append(one("quantile 100 x 5", quantile, b, special, X, noisy, gradient=gradient))

    X, b = data(100, 3)
    level = np.digitize(X @ b + rng.logistic(size=100), [-1.0, 0.25, 1.5])
    point = np.append(b, [-1.0, 0.25, 0.125])
    made.append(one("ordered 100 x 3", ordered_logistic, point, "cumulative sums and take_along_axis", X, level))

    B = exact(rng.normal(size=(3, 3)))
    probability = np.exp(X @ B) / np.exp(X @ B).sum(axis=1, keepdims=True)
    outcome = rng.integers(0, 3, size=100)
    gradient = X.T @ (np.eye(3)[outcome] - probability)
    made.append(one("multinomial 100 x 3 x 3", multinomial, B, "a matrix of parameters", X, outcome, gradient=gradient))
    return tuple(made)
