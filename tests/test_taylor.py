"""Higher directional derivatives: closed forms for every primitive whose series is propagated, and the refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import DifferentiationError
from dualtape.ad.taylor import _has_series, taylor
from jax import lax
from jax.scipy import special as jsp
from scipy import special

ORDER = 6
FACTORIALS = special.factorial(np.arange(ORDER + 1))


def derivatives_of_square_root(x):
    return [special.poch(0.5 - k + 1, k) * x ** (0.5 - k) for k in range(ORDER + 1)]


def power_by_while(x):
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, jnp.ones_like(x)))[1]


@jax.custom_jvp
def cube(x):
    return x**3


@cube.defjvp
def _(points, tangents):
    return cube(points[0]), 3 * points[0] ** 2 * tangents[0]


X = 0.3
# name, function, its derivatives at X, whether their series is propagated (else forward mode is nested)
CLOSED_FORMS = [
    ("exp", jnp.exp, [np.exp(X)] * 7, True),
    ("sin", jnp.sin, [np.sin(X + k * np.pi / 2) for k in range(7)], True),
    ("cosh", jnp.cosh, [np.cosh(X), np.sinh(X)] * 3 + [np.cosh(X)], True),
    ("geometric", lambda x: 1 / (1 - x), FACTORIALS / (1 - X) ** np.arange(1, 8), True),
    ("log", jnp.log, [np.log(X), *(-FACTORIALS[:6] * (-1 / X) ** np.arange(1, 7))], True),
    ("sqrt", jnp.sqrt, derivatives_of_square_root(X), True),
    ("erf", lax.erf, [special.erf(X), *(2 / np.pi**0.5 * np.exp(-(X**2)) * np.polynomial.hermite.hermval(
        X, np.eye(7)[k]) * (-1) ** k for k in range(6))], True),
    ("jit and select", jax.jit(lambda x: jnp.where(x > 0, x**4, jnp.sqrt(-x))),
     [X**4, 4 * X**3, 12 * X**2, 24 * X, 24, 0, 0], True),
    ("tanh", jnp.tanh, None, False),
    ("log1p", jnp.log1p, [np.log1p(X), *(-FACTORIALS[:6] * (-1 / (1 + X)) ** np.arange(1, 7))], False),
    ("lgamma", jsp.gammaln, [special.gammaln(X), *(special.polygamma(k, X) for k in range(6))], False),
    ("while", power_by_while, [X**3, 3 * X**2, 6 * X, 6, 0, 0, 0], False),
    ("custom rule", cube, [X**3, 3 * X**2, 6 * X, 6, 0, 0, 0], False),
    ("rounded", lambda x: x + x.astype(int), [X, 1, 0, 0, 0, 0, 0], False),
]  # fmt: skip


@pytest.mark.parametrize(("f", "expected", "series"), [c[1:] for c in CLOSED_FORMS], ids=[c[0] for c in CLOSED_FORMS])
def test_closed_forms(f, expected, series):
    assert _has_series(jax.make_jaxpr(f)(X).jaxpr, [True]) == series
    if expected is None:  # tanh, by y′ = 1 − y²: as polynomials in y
        polynomials = [np.polynomial.Polynomial([0, 1])]
        for _ in range(ORDER):
            polynomials.append(polynomials[-1].deriv() * np.polynomial.Polynomial([1, 0, -1]))
        expected = [p(np.tanh(X)) for p in polynomials]
    got = taylor(f, np.float64(X), np.float64(1.0), ORDER)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    # A direction of length c scales the k-th derivative by c to the k.
    np.testing.assert_allclose(
        taylor(f, np.float64(X), np.float64(-2.0), 3), got[:4] * (-2.0) ** np.arange(4), rtol=1e-11
    )


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.0, 2, np.float64(4.0)])
@pytest.mark.parametrize("known", [True, False])
def test_powers_at_zero(power, known):
    exponent = power if known else jax.jit(lambda: jnp.asarray(power))()
    expected = np.zeros(5)
    expected[int(power)] = special.factorial(power)
    got = taylor(lambda t: t**exponent, np.float64(0.0), np.float64(1.0), 4)
    np.testing.assert_array_equal(got, expected)
    got = taylor(lambda t: jnp.sum((t - jnp.arange(2.0)) ** exponent), np.float64(0.0), np.float64(1.0), 4)
    np.testing.assert_allclose(
        got, expected + [special.poch(power - k + 1, k) * (-1.0) ** (power - k) for k in range(5)]
    )


def test_powers_that_are_no_whole_numbers_are_infinite_at_zero():
    np.testing.assert_array_equal(
        taylor(lambda t: t**1.5, np.float64(0.0), np.float64(1.0), 3), [0, 0, np.inf, -np.inf]
    )
    exponential = taylor(lambda t: (1 - 2 * t) ** t, np.float64(0.0), np.float64(1.0), 2)
    np.testing.assert_allclose(exponential, [1, 0, -4], atol=1e-14)


SERIES = [
    lambda x: lax.rsqrt(x) * lax.logistic(x) + lax.asinh(x),
    lambda x: lax.erf_inv(x) + lax.integer_pow(x, -3),
    lambda x: jnp.cumsum(jnp.stack([x, x**2, jnp.cos(x)])) @ jnp.array([[1.0, 2], [3, 4], [5, 6]]),
    lambda x: jnp.sinh(jnp.pad(jnp.outer(x * jnp.arange(3.0), jnp.ones(2)), 1)[::-1].T[1:, 2] - x),
]


@pytest.mark.parametrize("f", SERIES)
def test_series_against_nested_differences(f):
    def along(t):
        return f(jnp.float64(0.4) + 1.5 * t)

    got = taylor(f, np.float64(0.4), np.float64(1.5), 5)
    assert _has_series(jax.make_jaxpr(f)(0.4).jaxpr, [True])
    for k in range(1, 6):  # each order is the slope of the one before
        h = 1e-3
        low, high, lower, higher = (
            taylor(f, np.float64(0.4 + 1.5 * t), np.float64(1.5), k - 1)[-1] for t in (-h, h, -2 * h, 2 * h)
        )
        slope = (8 * (high - low) - (higher - lower)) / (12 * h)
        np.testing.assert_allclose(got[k], slope, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got[0], along(0.0))


def test_pytrees_and_hessian_along_a_direction():
    rng = np.random.default_rng(1)
    x = {"a": rng.normal(size=3), "b": rng.normal()}
    v = {"a": rng.normal(size=3), "b": rng.normal()}

    def f(p):
        return jnp.sum(jnp.exp(p["a"]) * p["b"] ** 2) + jnp.prod(p["a"])

    flat, unravel = jax.flatten_util.ravel_pytree(x)
    direction = jax.flatten_util.ravel_pytree(v)[0]
    hessian = jax.hessian(lambda flat: f(unravel(flat)))(flat)
    got = taylor(f, x, v, 2)
    np.testing.assert_allclose(got[2], direction @ hessian @ direction, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda x: taylor(f, x, v, 2))(x), got, rtol=1e-12)


def test_shapes_and_order_zero():
    x = np.arange(3.0)
    assert taylor(jnp.sin, x, np.ones(3), 4).shape == (5, 3)
    np.testing.assert_array_equal(taylor(jnp.sin, x, np.ones(3), 0), jnp.sin(x)[None])
    assert taylor(jnp.exp, np.float32(0.5), np.float32(1), 3).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: taylor(jnp.sin, 1.0, 1.0, -1), ValueError, "at least 0, got -1"),
        (lambda: taylor(jnp.sin, 1.0, 1.0, 1.5), TypeError, "order must be an integer, got 1.5"),
        (lambda: taylor(jnp.sin, 1.0, np.ones(2), 1), ValueError, "one structure and the same shapes"),
        (lambda: taylor(lambda x: x["a"], {"a": 1.0}, {"b": 1.0}, 1), ValueError, "one structure"),
        (lambda: taylor(jnp.sin, 1, 1.0, 1), TypeError, "floating-point numbers of one dtype, got int"),
        (lambda: taylor(lambda x: (x, x), 1.0, 1.0, 1), TypeError, "return one array"),
        (lambda: taylor(lambda x: lax.igamma(x, 2.0), 1.0, 1.0, 2), DifferentiationError, "no derivative of order 2"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
