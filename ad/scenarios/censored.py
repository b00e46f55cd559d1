"""Censored delay distributions: the 28 scenarios by which the Julia backends were compared.

A delay T follows a primary event at U, uniform or exponentially tilted over a window of width w, so that what is seen
counts from the start of the window:

    F_cens(t) = ∫ p(u) F(t - u) du over 0 ≤ u ≤ w,        f_cens(t) = ∫ p(u) f(t - u) du.

The set covers {Gamma, LogNormal, Weibull} x {uniform, exponentially tilted} x {analytic, quadrature} x {density,
interval, double interval}, with one delay for all data (2 parameters, 3 where the tilt is estimated too) or one for
each observation (32). It is made up of

    3   interval censored: the delay, to the day                                         2 parameters
    9   primary censored: 3 delays x (uniform analytic, uniform and tilted by quadrature)    2, 2, 3
    1   primary censored: Gamma, tilted, analytic (the closed form exists for it alone)            3
    9   double interval censored: 3 delays x (uniform analytic, uniform and tilted by quadrature)
    6   primary censored, a scale for each of 32 observations: 3 delays x (analytic, quadrature)  32

The primary censored likelihoods are right truncated at the day of analysis D, log f_cens(t) - log F_cens(D), so that
both density and distribution function are differentiated; a double interval is F_cens(t + 1) - F_cens(t).

Source: the scenario set of CensoredDistributions.jl ("Automatic differentiation backends"), composed as that page
describes it, for it does not list the 28 by name; Park et al. (2024), "Estimating epidemiological delay distributions
for infectious diseases", for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammainc, gammaln, ndtr

from .scenario import Scenario, exact

Array = jax.Array
# Of a time and the two parameters of a delay, all broadcast against each other.
OfTime = Callable[[Array, Array, Array], Array]

WIDTH = 1.0  # of the primary window, in days
HORIZON = 14.0  # D, the day of analysis
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)


@dataclass(frozen=True)
class Delay:
    """A family of delays, each function of (t > 0, a, log b) with a the first parameter and b the scale.

    Args:
        name: of the family.
        density: f(t).
        cdf: F(t).
        partial: the partial expectation, the integral of s f(s) from 0 to t.
    """

    name: str
    density: OfTime
    cdf: OfTime
    partial: OfTime


def gamma_density(t: Array, log_k: Array, log_scale: Array) -> Array:
    """t^(k-1) exp(-t/θ) / (Γ(k) θ^k)."""
    k, log_z = jnp.exp(log_k), jnp.log(t) - log_scale
    return jnp.exp(k * log_z - jnp.exp(log_z) - gammaln(k)) / t


def gamma_cdf(t: Array, log_k: Array, log_scale: Array) -> Array:
    """P(k, t/θ), the regularised lower incomplete gamma function."""
    return gammainc(jnp.exp(log_k), t * jnp.exp(-log_scale))


def gamma_partial(t: Array, log_k: Array, log_scale: Array) -> Array:
    """The product k θ P(k + 1, t/θ)."""
    return jnp.exp(log_k + log_scale) * gammainc(1.0 + jnp.exp(log_k), t * jnp.exp(-log_scale))


def lognormal_density(t: Array, log_sigma: Array, mu: Array) -> Any:
    """The normal density of log t, over t."""
    sigma = jnp.exp(log_sigma)
    return jnp.exp(-0.5 * ((jnp.log(t) - mu) / sigma) ** 2) / (t * sigma * np.sqrt(2.0 * np.pi))


def lognormal_cdf(t: Array, log_sigma: Array, mu: Array) -> Array:
    """Φ((log t - μ)/σ)."""
    return ndtr((jnp.log(t) - mu) * jnp.exp(-log_sigma))


def lognormal_partial(t: Array, log_sigma: Array, mu: Array) -> Array:
    """exp(μ + σ²/2) Φ((log t - μ - σ²)/σ)."""
    variance = jnp.exp(2.0 * log_sigma)
    return jnp.exp(mu + 0.5 * variance) * lognormal_cdf(t, log_sigma, mu + variance)


def weibull_density(t: Array, log_k: Array, log_scale: Array) -> Array:
    """(k/t) z exp(-z) with z = (t/λ)^k."""
    k = jnp.exp(log_k)
    z = jnp.exp(k * (jnp.log(t) - log_scale))
    return k / t * z * jnp.exp(-z)


def weibull_cdf(t: Array, log_k: Array, log_scale: Array) -> Array:
    """1 - exp(-(t/λ)^k)."""
    return -jnp.expm1(-jnp.exp(jnp.exp(log_k) * (jnp.log(t) - log_scale)))


def weibull_partial(t: Array, log_k: Array, log_scale: Array) -> Array:
    """λ Γ(1 + 1/k) P(1 + 1/k, (t/λ)^k)."""
    a = 1.0 + jnp.exp(-log_k)
    return jnp.exp(log_scale + gammaln(a)) * gammainc(a, jnp.exp(jnp.exp(log_k) * (jnp.log(t) - log_scale)))


GAMMA = Delay("gamma", gamma_density, gamma_cdf, gamma_partial)
LOGNORMAL = Delay("lognormal", lognormal_density, lognormal_cdf, lognormal_partial)
WEIBULL = Delay("weibull", weibull_density, weibull_cdf, weibull_partial)


def after_zero(f: OfTime, t: Array, a: Array, b: Array) -> Array:
    """f(t) where t > 0, else 0; f itself is never asked at 0, where the derivative in a shape is NaN."""
    return jnp.where(t > 0, f(jnp.where(t > 0, t, 1.0), a, b), 0.0)


def over_window(F: OfTime, t: Array, a: Array, b: Array) -> Array:
    """F(t) - F(t - w), both ends in one call."""
    upper, lower = after_zero(F, jnp.stack([t, t - WIDTH]), a, b)
    return upper - lower


def uniform_analytic(delay: Delay, cumulated: bool, t: Array, a: Array, b: Array) -> Array:
    """f_cens(t) for uniform primaries, or F_cens(t) if `cumulated`: ∫F is t F(t) minus the partial expectation."""

    def integrated(t: Array, a: Array, b: Array) -> Array:
        return t * delay.cdf(t, a, b) - delay.partial(t, a, b)

    return over_window(integrated if cumulated else delay.cdf, t, a, b) / WIDTH


def by_quadrature(delay: Delay, cumulated: bool, t: Array, a: Array, b: Array, tilt: Array | float) -> Array:
    """The same for primaries of density proportional to exp(tilt u), by Gauss and Legendre's 20 nodes."""
    half = 0.5 * jnp.minimum(t, WIDTH)[:, None]  # no delay is negative, so u ends at t
    u = half * (1.0 + jnp.asarray(NODES, t.dtype))
    primary = half * jnp.asarray(WEIGHTS, t.dtype) * jnp.exp(tilt * (u - WIDTH)) / total(tilt)
    of_delay = after_zero(delay.cdf if cumulated else delay.density, t[:, None] - u, a[..., None], b[..., None])
    return jnp.sum(primary * of_delay, axis=1)


def total(tilt: Array | float) -> Array | float:
    """The integral of exp(tilt (u - w)) over the window; w without a tilt."""
    return WIDTH if isinstance(tilt, float) else -jnp.expm1(-tilt * WIDTH) / tilt


def gamma_tilted_analytic(cumulated: bool, t: Array, a: Array, b: Array, tilt: Array) -> Array:
    """The same for tilted primaries and a Gamma delay.

    The integral of exp(-r s) f(s) from 0 to t is (1 + rθ)^-k P(k, t (1/θ + r)), and partial integration gives the one
    of exp(-r s) F(s).
    """
    tilted_scale = b - jnp.log1p(tilt * jnp.exp(b))
    shrink = jnp.exp(jnp.exp(a) * (tilted_scale - b))

    def moment(t: Array, a: Array, b: Array) -> Array:
        return shrink * gamma_cdf(t, a, tilted_scale)

    def integrated(t: Array, a: Array, b: Array) -> Array:
        return (moment(t, a, b) - jnp.exp(-tilt * t) * gamma_cdf(t, a, b)) / tilt

    return jnp.exp(tilt * (t - WIDTH)) * over_window(integrated if cumulated else moment, t, a, b) / total(tilt)


@dataclass(frozen=True)
class PrimaryCensored:
    """The log likelihood of delays with a censored primary event, `f(x, data)`.

    Args:
        delay: the family.
        analytic: whether density and cdf are closed forms, or integrals by quadrature.
        tilted: whether x[2] is the tilt of the primary events; uniform without.
        double: whether the data are whole days, of width 1, or exact times, right truncated at `HORIZON`.
    """

    delay: Delay
    analytic: bool
    tilted: bool = False
    double: bool = False

    def __call__(self, x: Array, data: Array) -> Array:
        """The log likelihood at x = (a, log b) or (a, log b, tilt)."""
        return self.likelihood(x[0], x[1], data, x[2] if self.tilted else 0.0)

    def likelihood(self, a: Array, b: Array, data: Array, tilt: Array | float) -> Array:
        """The log likelihood, with parameters for all data or for each of them."""

        def at(t: Array, cumulated: bool) -> Array:
            if not self.analytic:
                return by_quadrature(self.delay, cumulated, t, a, b, tilt)
            if isinstance(tilt, float):
                return uniform_analytic(self.delay, cumulated, t, a, b)
            return gamma_tilted_analytic(cumulated, t, a, b, tilt)

        if self.double:
            days = data.size
            both = at(jnp.concatenate([data + 1.0, data]), cumulated=True)
            return jnp.sum(jnp.log(both[:days] - both[days:]))
        horizon = jnp.full((b.size,), HORIZON, data.dtype)  # one for all, or one for each scale
        return jnp.sum(jnp.log(at(data, cumulated=False)) - jnp.log(at(horizon, cumulated=True)))


@dataclass(frozen=True)
class OneScaleEach:
    """The same with a common first parameter and a scale for each observation: x holds log b, shape (32,)."""

    censored: PrimaryCensored

    def __call__(self, x: Array, a: Array, data: Array) -> Array:
        """The log likelihood, with a standard normal prior around 1 on log b."""
        return self.censored.likelihood(a, x, data, 0.0) - 0.5 * jnp.sum((x - 1.0) ** 2)


@dataclass(frozen=True)
class IntervalCensored:
    """The log probability of whole days, F(t + 1) - F(t)."""

    delay: Delay

    def __call__(self, x: Array, data: Array) -> Array:
        """The log likelihood at x = (a, log b)."""
        upper, lower = after_zero(self.delay.cdf, jnp.stack([data + 1.0, data]), x[0], x[1])
        return jnp.sum(jnp.log(upper - lower))


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family, 28 of them."""
    rng = np.random.default_rng(10)
    times, many = exact(rng.gamma(2.0, 2.0, 16) + rng.uniform(size=16)), exact(0.125 + rng.gamma(2.0, 1.5, 32))
    days = np.floor(times)
    days[0] = 0.0  # where the lower end is F(0)
    points = {"gamma": [0.5, 0.75], "lognormal": [-0.5, 1.25], "weibull": [0.375, 1.5]}
    made = []

    def add(name: str, f: Any, x: Any, special: str, *constants: Any) -> None:
        made.append(Scenario(name, "censored delays", f, x, np.full_like(x, 0.25), special, constants))

    for delay in (GAMMA, LOGNORMAL, WEIBULL):
        x = np.array(points[delay.name])
        tilted = np.append(x, 0.25)
        add(f"{delay.name}, interval", IntervalCensored(delay), x, "F(0) at one end", days)
        for double, data in ((False, times), (True, days)):
            name = f"{delay.name}, {'double interval' if double else 'primary'}"
            closed = PrimaryCensored(delay, analytic=True, double=double)
            add(f"{name}, uniform, analytic", closed, x, "partial expectations", data)
            numeric = PrimaryCensored(delay, analytic=False, double=double)
            add(f"{name}, uniform, quadrature", numeric, x, "20 nodes a datum", data)
            numeric = PrimaryCensored(delay, analytic=False, tilted=True, double=double)
            add(f"{name}, tilted, quadrature", numeric, tilted, "the tilt is a parameter", data)
        scales = exact(x[1] + 0.25 * rng.normal(size=32))
        for analytic in (True, False):
            f = OneScaleEach(PrimaryCensored(delay, analytic))
            name = f"{delay.name}, primary, {'analytic' if analytic else 'quadrature'}, 32"
            add(name, f, scales, "a scale each", x[0], many)
    closed = PrimaryCensored(GAMMA, analytic=True, tilted=True)
    add("gamma, primary, tilted, analytic", closed, np.array([0.5, 0.75, 0.25]), "a Laplace transform", times)
    return tuple(made)
