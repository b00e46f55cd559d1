"""Special functions: each in the arguments in which it has a derivative, and in those in which JAX has none."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from scipy import special as exactly

from .scenario import Scenario, exact

Array = jax.Array


def gamma_quantities(x: Array) -> Array:
    """The sum of lgamma + digamma + trigamma + log Beta(x, 2)."""
    return jnp.sum(
        special.gammaln(x) + special.digamma(x) + special.polygamma(1, x) + special.betaln(x, 2.0 * jnp.ones_like(x))
    )


def gamma_quantities_gradient(x: Any) -> Any:
    """The gradient of `gamma_quantities`, by SciPy."""
    beta = exactly.digamma(x) - exactly.digamma(x + 2.0)
    return exactly.digamma(x) + exactly.polygamma(1, x) + exactly.polygamma(2, x) + beta


def multivariate_gamma(x: Array) -> Array:
    """The log of the multivariate gamma function, as in a Wishart density."""
    return special.multigammaln(x, 3)


def gammainc_in_x(x: Array, a: Array) -> Array:
    """The cdf of the gamma distribution of shape a at x, lower and log upper."""
    return jnp.sum(special.gammainc(a, x) + jnp.log(special.gammaincc(a, x)))


def gammainc_in_x_gradient(x: Any, a: Any) -> Any:
    """The gradient of `gammainc_in_x`, by SciPy."""
    density = np.exp((a - 1.0) * np.log(x) - x - exactly.gammaln(a))
    return density * (1.0 - 1.0 / exactly.gammaincc(a, x))


def gammainc_in_shape(a: Array, x: Array) -> Array:
    """The same as a function of the shape."""
    return jnp.sum(special.gammainc(a, x) + jnp.log(special.gammaincc(a, x)))


def betainc_in_x(x: Array, a: Array, b: Array) -> Array:
    """The cdf of the beta distribution at x."""
    return jnp.sum(special.betainc(a, b, x))


def betainc_in_shape(p: Array, x: Array) -> Array:
    """The same as a function of both shapes."""
    return jnp.sum(special.betainc(p[0], p[1], x))


def error_functions(x: Array) -> Array:
    """The sum of erf + erfc + erfinv, weighted."""
    return jnp.sum(special.erf(x) + 2.0 * special.erfc(x) + 3.0 * special.erfinv(x))


def error_functions_gradient(x: Any) -> Any:
    """The gradient of `error_functions`, by SciPy."""
    c = 2.0 / np.sqrt(np.pi)
    return -c * np.exp(-(x**2)) + 3.0 / c * np.exp(exactly.erfinv(x) ** 2)


def normal_quantile(x: Array) -> Array:
    """Φ⁻¹."""
    return jnp.sum(special.ndtri(x))


def normal_tail(x: Array) -> Array:
    """The log of Φ, from -30 to 3."""
    return jnp.sum(special.log_ndtr(x))


def normal_tail_gradient(x: Any) -> Any:
    """φ(x)/Φ(x), computed in logarithms."""
    return np.exp(-0.5 * x**2 - exactly.log_ndtr(x)) / np.sqrt(2.0 * np.pi)


def bessel(x: Array) -> Array:
    """The modified Bessel functions I0 and I1, exponentially scaled and not."""
    return jnp.sum(special.i0e(x) + 2.0 * special.i1e(x) + 0.1 * special.i0(x) + 0.2 * special.i1(x))


def bessel_gradient(x: Any) -> Any:
    """The gradient of `bessel`, by SciPy."""
    i0, i1 = exactly.i0(x), exactly.i1(x)
    first = i0 - i1 / x
    scale = np.exp(-np.abs(x))
    return scale * (i1 - np.sign(x) * i0 + 2.0 * (first - np.sign(x) * i1)) + 0.1 * i1 + 0.2 * first


def von_mises(x: Array, angle: Array) -> Array:
    """The von Mises log density: mean direction and log concentration."""
    kappa = jnp.exp(x[1])
    return jnp.sum(kappa * (jnp.cos(angle - x[0]) - 1.0)) - angle.size * jnp.log(special.i0e(kappa))


def xlogy_of_counts(x: Array, counts: Array) -> Array:
    """Multinomial log likelihood with counts of zero: sum of n log p, p differentiated."""
    return jnp.sum(special.xlogy(counts, x) + special.xlog1py(counts, -x))


def entropies(x: Array) -> Array:
    """entr, rel_entr and kl_div against a half."""
    half = jnp.full_like(x, 0.5)
    return jnp.sum(special.entr(x) + special.rel_entr(x, half) + special.kl_div(half, x))


def logsumexp_with_holes(x: Array, mask: Array) -> Array:
    """A logsumexp with some terms at -∞."""
    return special.logsumexp(jnp.where(mask, x, -jnp.inf))


def logsumexp_with_weights(x: Array, b: Array) -> Array:
    """The log of |sum b exp(x)| with signed weights, of rows 1000 apart."""
    return jnp.sum(special.logsumexp(jnp.stack([x, x + 1000.0]), b=b, axis=1))


def zeta_in_q(x: Array) -> Array:
    """Hurwitz zeta ζ(2.5, q), as a function of q."""
    return jnp.sum(special.zeta(jnp.full_like(x, 2.5), x))


def zeta_in_s(x: Array) -> Array:
    """Hurwitz zeta ζ(s, 1.5), as a function of s."""
    return jnp.sum(special.zeta(x, jnp.full_like(x, 1.5)))


def exponential_integral(x: Array) -> Array:
    """E1 and Ei."""
    return jnp.sum(special.exp1(x) + 0.1 * special.expi(x))


def logits(x: Array) -> Array:
    """logit, expit and their composition with log."""
    return jnp.sum(special.logit(x) + special.expit(x) + jax.nn.log_sigmoid(x))


def far_logits(x: Array) -> Array:
    """softplus, sigmoid and logaddexp where exp overflows or vanishes."""
    return jnp.sum(jax.nn.softplus(x) + jax.nn.sigmoid(x) + jnp.logaddexp(x, -x))


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""

    def one(name: str, f: Any, x: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        elsewhere = np.full_like(x, 0.5)
        return Scenario(name, "special functions", f, x, elsewhere, special, constants, **expected)

    positive, unit = exact([0.3, 1.5, 4.0, 11.0]), exact([0.01, 0.3, 0.75, 0.95])
    a, b, x = exact([0.5, 1.5, 3.0, 12.0]), exact([2.0, 0.75, 3.0, 1.5]), exact([0.25, 2.0, 3.5, 9.0])
    signed, tail = exact([-0.9, -0.2, 0.4, 0.95]), exact([-30.0, -12.0, -4.0, 0.5, 3.0])
    bent, angle = exact([-8.5, -0.5, 0.75, 9.5]), exact([0.25, -1.0, 2.0, 0.5])
    counts, mask = np.array([0, 3, 1, 0]), np.array([True, False, True, True])
    weights = np.exp(np.where(mask, positive, -np.inf))
    mixed = exact([1.0, -0.25, 0.5, 2.0])
    signed_share = mixed * np.exp(positive) / np.sum(mixed * np.exp(positive))
    far = exact([-800.0, -40.0, 40.0, 800.0])
    expit = exactly.expit
    beta = unit ** (a - 1) * (1 - unit) ** (b - 1) / exactly.beta(a, b)
    incomplete = gammainc_in_x_gradient(x, a)
    far_gradient = expit(far) + expit(far) * expit(-far) + np.tanh(far)
    of_counts = counts / unit - counts / (1 - unit)
    quantile = np.sqrt(2 * np.pi) * np.exp(0.5 * exactly.ndtri(unit) ** 2)
    zeta = -2.5 * exactly.zeta(3.5, positive)
    integral = (0.1 * np.exp(positive) - np.exp(-positive)) / positive
    logit = 1 / unit + 1 / (1 - unit) + expit(unit) * expit(-unit) + expit(-unit)
    return (
        one(
            "gamma functions",
            gamma_quantities,
            positive,
            "polygamma of three orders",
            gradient=gamma_quantities_gradient(positive),
        ),
        one("multivariate gamma", multivariate_gamma, exact(3.5), "a sum of lgamma"),
        one("gammainc in x", gammainc_in_x, x, "a series and a continued fraction", a, gradient=incomplete),
        one("gammainc in its shape", gammainc_in_shape, a, "a derivative that is a series", x),
        one("betainc in x", betainc_in_x, unit, "a continued fraction", a, b, gradient=beta),
        one("betainc in its shapes", betainc_in_shape, np.stack([a, b]), "JAX has no derivative in these", unit),
        one("error functions", error_functions, signed, "erfinv", gradient=error_functions_gradient(signed)),
        one("normal quantile", normal_quantile, unit, "rational approximations", gradient=quantile),
        one("normal tail", normal_tail, tail, "log Φ(-30)", gradient=normal_tail_gradient(tail)),
        one("bessel", bessel, bent, "both signs", gradient=bessel_gradient(bent)),
        one("von mises", von_mises, exact([0.5, 1.25]), "log I0", angle),
        one(
            "xlogy of zero counts",
            xlogy_of_counts,
            unit,
            "0 log p",
            counts.astype(np.float64),
            gradient=of_counts,
        ),
        one("xlogy of integers", xlogy_of_counts, unit, "JAX's rule refuses integers", counts, gradient=of_counts),
        one("entropies", entropies, unit, "entr, rel_entr, kl_div", gradient=1 - 0.5 / unit - np.log(0.5)),
        one(
            "logsumexp with holes",
            logsumexp_with_holes,
            positive,
            "-∞ among its terms",
            mask,
            gradient=weights / weights.sum(),
        ),
        one("signed logsumexp", logsumexp_with_weights, positive, "negative weights", mixed, gradient=2 * signed_share),
        one("zeta in q", zeta_in_q, positive, "the second argument", gradient=zeta),
        one("zeta in s", zeta_in_s, exact([2.5, 4.0]), "the derivative is a series"),
        one("exponential integral", exponential_integral, positive, "piecewise", gradient=integral),
        one("logits", logits, unit, "logit near 0 and 1", gradient=logit),
        one("far logits", far_logits, far, "exp overflows", gradient=far_gradient),
    )
