"""Symbolic differentiation: scalar-heavy functions against finite differences and closed forms, and the refusals."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import NUTS, model, rv, sample
from dualtape.ad import DifferentiationError, prepare_gradient, value_and_gradient
from dualtape.ad.symbolic.backend import AutoSymbolic
from jax import lax
from jax.scipy import special, stats

pytest.importorskip("sympy")

RNG = np.random.default_rng(3)
EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools(q, effects, errors):
    mu, log_tau, z = q[0], q[1], q[2:]
    tau = jnp.exp(log_tau)
    prior = dist.Normal(0, 5).log_prob(mu) + dist.HalfCauchy(5).log_prob(tau) + log_tau + stats.norm.logpdf(z).sum()
    return prior + dist.Normal(mu + tau * z, errors).log_prob(effects).sum()


def gdemo(q, x):
    s = jnp.exp(q[0])
    prior = dist.InverseGamma(2.0, 3.0).log_prob(s) + q[0] + dist.Normal(0.0, jnp.sqrt(s)).log_prob(q[1])
    return prior + dist.Normal(q[1], jnp.sqrt(s)).log_prob(x).sum()


def mixture(q):
    parts = jnp.stack([stats.norm.logpdf(0.7, q[0]), stats.norm.logpdf(0.7, q[1], jnp.exp(q[2]))])
    return special.logsumexp(parts + jax.nn.log_softmax(q[3:5]))


def multivariate(q):
    factor = jnp.linalg.cholesky(jnp.eye(3) * jnp.exp(q[3]) + 0.1)
    return dist.MultivariateNormal(jnp.zeros(3), scale_tril=factor).log_prob(q[:3])


def scan(x):
    return lax.scan(lambda c, t: (0.9 * c + x[0] * t, jnp.tanh(c + x[1])), x[2], jnp.arange(5.0))[1].sum()


def scan_backwards(x):
    carry, ys = lax.scan(lambda c, t: (jnp.sin(c * t), c), x[0], x[1:] * 2, reverse=True)
    return carry + ys @ x[1:]


def moves(x):
    y = x.at[1].add(x[0] ** 2).at[np.array([0, 0])].add(x[1]).at[2].set(x[2] * x[0])
    z = jnp.pad(y[::-1], (1, 0), constant_values=2.0)[np.array([0, 0, 3, 1])].reshape(2, 2).T
    return jnp.sum(z @ z) + jnp.cumsum(x)[1] * jnp.prod(x) + jnp.max(x) + jnp.clip(x, 0, 1.5).sum()


def special_functions(x):
    smooth = special.gammaln(x[0]) + special.digamma(x[0]) + special.betaln(x[0], x[1]) + special.erfinv(x[1] / 4)
    return smooth + special.gammainc(1.5, x[0]) + special.betainc(2.0, 3.0, x[1] / 3) + jnp.arctan2(x[0], x[1])


def elementary(x):
    y = jnp.tan(x) + jnp.arcsin(x / 5) + jnp.sinh(x) * jnp.arccosh(1 + x) + jnp.arctanh(x / 3) * jnp.exp2(x)
    return jnp.sum(y + jnp.cbrt(x) * jnp.expm1(x) / jnp.log1p(x) + x**-2 + jnp.abs(x) ** x[::-1] + lax.rsqrt(x))


SCENARIOS = [
    ("eight schools", eight_schools, RNG.normal(size=10), (EFFECTS, ERRORS)),
    ("gdemo", gdemo, np.array([0.3, -0.2]), (np.array([1.5, 2.0]),)),
    ("mixture", mixture, RNG.normal(size=5), ()),
    ("multivariate", multivariate, RNG.normal(size=4), ()),
    ("scan", scan, np.array([0.1, 0.2, 0.3]), ()),
    ("reverse scan", scan_backwards, RNG.normal(size=4), ()),
    ("moves", moves, np.array([-1.0, 2.0, 1.0]), ()),
    ("special functions", special_functions, np.array([1.7, 0.9]), ()),
    ("elementary", elementary, np.array([0.7, 1.3]), ()),
    ("cond", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x[1]), np.array([-1.0, 2.0]), ()),
    ("fori", lambda x: lax.fori_loop(0, 4, lambda i, s: s * x[0] + i, x[1]), np.array([0.5, 2.0]), ()),
    ("censored", lambda x: stats.norm.logcdf(x).sum(), np.array([-30.0, 0.2]), ()),
    ("integer power", lambda x: jnp.sum(x**3 - x**-2), np.array([-1.5, 2.0]), ()),
    ("checkpoint", lambda x: jnp.sum(jax.checkpoint(jnp.sin)(x)), np.array([0.5, 2.0]), ()),
    ("scalar", lambda x: jnp.sin(x) * x, np.float64(0.7), ()),
    ("constant", lambda x: jnp.float64(3.0), np.array([1.0]), ()),
    ("literal", lambda x: 3.0, np.array([1.0]), ()),
    ("maximum of nothing", lambda x: jnp.max(x[:0], initial=-3.0) * x[0] + jnp.sum(x[:0]), np.array([0.5, 1.0]), ()),
    ("no argument", lambda x: jnp.max(x, initial=-3.0) + jnp.sum(x**2), np.zeros(0), ()),
]


def slope(f, x, *constants):
    flat = np.ravel(x)
    h = 1e-5

    def at(i, step):
        moved = flat.copy()
        moved[i] += step
        return float(f(jnp.asarray(moved.reshape(np.shape(x))), *constants))

    rows = [(8 * (at(i, h) - at(i, -h)) - at(i, 2 * h) + at(i, -2 * h)) / (12 * h) for i in range(flat.size)]
    return np.reshape(rows, np.shape(x))


@pytest.mark.parametrize(("f", "x", "constants"), [s[1:] for s in SCENARIOS], ids=[s[0] for s in SCENARIOS])
def test_gradient_against_finite_differences(f, x, constants):
    prepared = prepare_gradient(f, AutoSymbolic(), np.ones_like(x) * 0.5, *constants)
    value, gradient = prepared.value_and_gradient(x, *constants)
    np.testing.assert_allclose(value, f(jnp.asarray(x), *constants), rtol=1e-13)
    np.testing.assert_allclose(gradient, slope(f, x, *constants), rtol=1e-7, atol=1e-8)


# Where finite differences cannot go: the value and the gradient in closed form.
TRAPS = [
    ("softplus", lambda x: jax.nn.softplus(x).sum(), [-800.0, 800.0], 800.0, [0.0, 1.0]),
    ("where", lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum(), [-1.0, 4.0], 2.0, [0.0, 0.25]),
    ("where, nested", lambda x: jnp.where(x > 0, jnp.where(x > 1, jnp.log(x - 1), 1 / x), 0.0).sum(), [0.0, 3.0],
     np.log(2.0), [0.0, 0.5]),
    ("xlogy", lambda x: special.xlogy(x[0], x[1]), [0.0, 2.0], 0.0, [np.log(2.0), 0.0]),
    ("logaddexp", lambda x: jnp.logaddexp(x[0], x[1]), [1.0, 1.0], 1 + np.log(2.0), [0.5, 0.5]),
    ("tie", lambda x: jnp.max(x), [1.0, 1.0], 1.0, [0.5, 0.5]),
    ("relu", lambda x: jax.nn.relu(x).sum(), [0.0, 1.0], 1.0, [0.0, 1.0]),
    ("stopped", lambda x: lax.stop_gradient(x[0]) * x[1] + x[0], [2.0, 3.0], 8.0, [1.0, 2.0]),
    ("floor", lambda x: jnp.floor(x).sum() + x[0], [1.5, 2.5], 4.5, [1.0, 0.0]),
    ("indicator", lambda x: (x > 1.0).sum() * x[0], [2.0, 0.5], 2.0, [1.0, 0.0]),
    ("power of zero", lambda x: x[0] ** x[1], [0.0, 2.0], 0.0, [0.0, 0.0]),
    ("tiny", lambda x: jnp.log1p(x[0]) + jnp.expm1(x[1]), [1e-20, 1e-20], 2e-20, [1.0, 1.0]),
]  # fmt: skip


@pytest.mark.parametrize(("f", "x", "value", "gradient"), [t[1:] for t in TRAPS], ids=[t[0] for t in TRAPS])
def test_traps(f, x, value, gradient):
    got = value_and_gradient(f, AutoSymbolic(), np.array(x))
    np.testing.assert_allclose(got[0], value, rtol=1e-14)
    np.testing.assert_allclose(got[1], gradient, rtol=1e-13)


def test_nan_stays_nan():
    value, gradient = value_and_gradient(lambda x: 0.0 * jnp.log(x[0]), AutoSymbolic(), np.array([-1.0]))
    assert np.isnan(value)
    assert np.isnan(value_and_gradient(lambda x: jnp.linalg.cholesky(x.reshape(2, 2))[0, 0], AutoSymbolic(),
                                       np.array([1.0, 2.0, 2.0, 1.0]))[0])  # fmt: skip
    np.testing.assert_array_equal(gradient, [-0.0])


def test_rules_of_its_own():
    @jax.custom_jvp
    def by_jvp(x, y):
        return x * y

    by_jvp.defjvp(lambda p, t: (p[0] * p[1], 10 * t[0] * p[1] + 100 * t[1]))

    @jax.custom_vjp
    def by_vjp(x, y):
        return x * y

    by_vjp.defvjp(lambda x, y: (x * y, (x, y)), lambda kept, c: (10 * c * kept[1], 100 * c))
    for f in (by_jvp, by_vjp):
        x = np.array([2.0, 3.0, 5.0])
        value, gradient = value_and_gradient(lambda x, f=f: (f(x[:2], x[1:]) ** 2).sum(), AutoSymbolic(), x)
        assert value == 6.0**2 + 15.0**2
        np.testing.assert_allclose(gradient, [12 * 30, 1200 + 30 * 50, 3000.0])


def test_constants_are_read_at_every_call_and_transformations_pass():
    f, x = eight_schools, RNG.normal(size=(3, 10))
    prepared = prepare_gradient(f, AutoSymbolic(), x[0], EFFECTS, ERRORS)
    for effects in (EFFECTS, -EFFECTS):
        gradients = jax.jit(jax.vmap(lambda q, e=effects: prepared.value_and_gradient(q, e, ERRORS)[1]))(x)
        np.testing.assert_allclose(gradients[2], slope(f, x[2], effects, ERRORS), rtol=1e-7, atol=1e-8)
    walked = lax.scan(lambda q, _: (q + 0.1 * prepared.value_and_gradient(q, EFFECTS, ERRORS)[1], None), x[0], length=2)
    assert np.isfinite(walked[0]).all()


def test_jacobian_pushforward_and_single_precision():
    x, tangents = jnp.array([0.5, 2.0]), RNG.normal(size=(3, 2))

    def f(x):
        return jnp.stack([jnp.sin(x), x * x[0]])

    value, jacobian = AutoSymbolic().jacobian(f, x)
    expected = np.array([[[np.cos(0.5), 0], [0, np.cos(2.0)]], [[1.0, 0], [2.0, 0.5]]])
    np.testing.assert_allclose(jacobian, expected)
    np.testing.assert_allclose(
        AutoSymbolic().pushforward(f, x, tangents)[1], np.einsum("oid,kd->koi", expected, tangents)
    )
    value, gradient = value_and_gradient(lambda x: jnp.exp(x).sum(), AutoSymbolic(), np.float32([0.0, 1.0]))
    assert value.dtype == gradient.dtype == np.float32


def while_loop(x):
    return lax.while_loop(lambda s: s < 10.0, lambda s: s * 2, x[0])


def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x[0])


DATA = RNG.normal(size=500)
REFUSED = [
    (while_loop, r"`lax.while_loop`.*use adtype=AutoForward\(\)"),
    (callback, r"`pure_callback`; use adtype=AutoFiniteDiff\(\)"),
    (lambda x: jnp.sum((DATA - x[0]) ** 2 * jnp.exp(x[1]) * DATA), r"max_operations=2000, passed at"),
    (
        lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x[0], length=3000)[0],
        r"max_operations=2000, passed at `scan`",
    ),
    (lambda x: jnp.sort(x)[0], "write out `sort`"),
    (lambda x: x[jnp.argmax(x)], "write out `argmax`"),
    (lambda x: special.gammainc(x[0], 2.0) + special.betainc(x[0], 2.0, 0.3), "no derivative of `regularized"),
]


@pytest.mark.parametrize(("f", "message"), REFUSED)
def test_refusals(f, message):
    with pytest.raises(DifferentiationError, match=message):
        prepare_gradient(f, AutoSymbolic(), np.array([1.0, 2.0]))


def test_positions_known_only_at_run_time_are_refused():
    with pytest.raises(DifferentiationError, match="`gather` at positions that are known only when the program runs"):
        prepare_gradient(lambda x, i: x[i].sum(), AutoSymbolic(), np.ones(3), np.array([0, 1]))


@pytest.mark.parametrize("limit", [0, True, 1.5])
def test_limit_is_checked(limit):
    with pytest.raises(ValueError, match="max_operations must be a positive integer"):
        AutoSymbolic(max_operations=limit)


def test_without_sympy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DifferentiationError, match=r"pip install 'dualtape\[symbolic\]'"):
        value_and_gradient(jnp.sin, AutoSymbolic(), np.float64(1.0))


def test_sympy_is_loaded_only_when_used():
    code = "import sys, dualtape.ad.symbolic.backend; assert 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@model
def gdemo_model(x, y):
    s = rv("s", dist.InverseGamma(2.0, 3.0))
    m = rv("m", dist.Normal(0.0, jnp.sqrt(s)))
    rv("x", dist.Normal(m, jnp.sqrt(s)), obs=x)
    rv("y", dist.Normal(m, jnp.sqrt(s)), obs=y)


def test_sampling():
    adtype = AutoSymbolic()
    idata = sample(gdemo_model(1.5, 2.0), NUTS(adtype=adtype), draws=400, warmup=200, chains=1, seed=1, progress=False)
    assert "AutoSymbolic" in idata.attrs["blocks"]
    # E[m | x, y] = 7/6 with a standard deviation of 0.8.
    assert abs(float(idata.posterior["m"].mean()) - 7 / 6) < 0.3


def test_a_rule_that_is_not_linear_is_refused_and_truth_values_are_numbers():
    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, c: (jnp.clip(c, -1.0, 1.0),))
    with pytest.raises(DifferentiationError, match="custom_vjp_call` whose rule is not linear"):
        value_and_gradient(lambda x: jnp.sum(clipped(x) ** 2), AutoSymbolic(), np.ones(2))
    mask = np.array([True, False])
    _, gradient = value_and_gradient(lambda x, mask: jnp.exp(x @ mask), AutoSymbolic(), np.zeros(2), mask)
    np.testing.assert_allclose(gradient, [1.0, 0.0])
