"""Enzyme: gradients against finite differences and closed forms, refusals by name, and samplers that use it."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, NUTS, AutoForward, AutoReverse, model, rv, sample
from dualtape.ad import DifferentiationError, prepare_gradient, value_and_gradient
from dualtape.ad.enzyme.backend import AutoEnzyme, AutoEnzymeForward
from jax import lax
from jax.scipy import special

needs_enzyme = pytest.mark.skipif(importlib.util.find_spec("enzyme_ad") is None, reason="enzyme-ad is not installed")
BACKENDS = [AutoEnzyme(), AutoEnzymeForward(), AutoEnzymeForward(chunk_size=2)]
X = np.array([0.3, -0.7, 1.2, 0.45])
INDEX = np.array([0, 0, 2, 1])


def of_version(version):
    def look(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    return look


@pytest.mark.parametrize("adtype", BACKENDS[:2], ids=repr)
@pytest.mark.parametrize(("version", "got"), [(None, "not installed"), ("0.0.6", "0.0.16 or newer, got 0.0.6")])
def test_the_error_says_what_to_install(adtype, version, got, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", of_version(version))
    with pytest.raises(DifferentiationError, match=rf"{got}.*pip install 'dualtape\[enzyme\]' on Python 3.11"):
        prepare_gradient(jnp.sum, adtype, X)


def test_importing_dualtape_does_not_load_enzyme():
    code = "import sys, dualtape; sys.exit(any(name.startswith('enzyme') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size must be a positive integer or None, got 0"):
        AutoEnzymeForward(chunk_size=0)


@jax.custom_jvp
def seven(x):
    """x² with a derivative that the code of x² does not have."""
    return x**2


seven.defjvp(lambda primals, tangents: (seven(*primals), 7 * tangents[0]))


def positive_definite(x):
    return x.reshape(2, 2) @ x.reshape(2, 2).T + jnp.eye(2)


def alternating(x):
    def step(carry, t):
        carry = lax.cond(t > 0, lambda c: jnp.sin(c) * t, lambda c: jax.nn.softplus(c) + x[2], carry)
        return carry, carry * x[1]

    return jnp.sum(lax.scan(step, x[0], x)[1] ** 2)


def written(x):
    return jnp.sum(jnp.zeros(3).at[INDEX].add(x) ** 2) + jnp.sum((x**2).at[np.array([1, 1, 9])].set(x[:3]) ** 3)


def normal(x):
    return dist.MultivariateNormal(x[:2], positive_definite(x)).log_prob(np.array([0.5, -0.2]))


SMOOTH = {
    "elementary": lambda x: jnp.sum(jnp.exp(x) * jnp.sin(x) / (1 + x**2) - jnp.tan(x) + jnp.log1p(x**2)),
    "products": lambda x: jnp.prod(x) + jnp.cumsum(x)[2] * jnp.cumprod(x)[3] + x[0] ** x[2],
    "special functions": lambda x: jnp.sum(special.gammaln(x**2) + special.digamma(x + 2) + special.erfinv(x / 2)),
    "gammainc in its shape": lambda x: jnp.sum(special.gammainc(jnp.exp(x), 1.1)),
    "logsumexp": lambda x: special.logsumexp(x) * jnp.logaddexp(x[0], x[1]) + jnp.sum(jax.nn.log_softmax(x) ** 2),
    "minus infinity": lambda x: special.logsumexp(jnp.where(np.arange(4) == 1, -jnp.inf, x)),
    "indices": lambda x: jnp.sum(x[INDEX] ** 2 * x) + jnp.max(x) * jnp.sort(x)[1] + jnp.median(x),
    "updates": written,
    "matrices": lambda x: jnp.sum((x.reshape(2, 2) @ np.ones((2, 3))) ** 2) + jnp.linalg.norm(x),
    "cholesky": lambda x: jnp.linalg.cholesky(positive_definite(x))[1, 0],
    "solve": lambda x: jnp.linalg.solve(positive_definite(x), x[2:])[0] + jnp.linalg.slogdet(positive_definite(x))[1],
    "eigenvalues": lambda x: jnp.linalg.eigvalsh(positive_definite(x))[0],
    "multivariate normal": normal,
    "scan with a branch": alternating,
    "fori_loop": lambda x: lax.fori_loop(0, 7, lambda i, c: jnp.sin(c) * x[1] + i, x[0]),
    "nested derivative": lambda x: jnp.sum(jax.grad(lambda y: jnp.sum(jnp.sin(y) ** 3))(x)),
    "checkpoint": lambda x: jnp.sum(jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x)),
}


def finite_difference(f, x):
    """Richardson-extrapolated central differences."""
    f = jax.jit(f)

    def slope(i, h):
        step = h * np.eye(len(x))[i]
        return (f(x + step) - f(x - step)) / (2 * h)

    return np.array([(4 * slope(i, 1e-3) - slope(i, 2e-3)) / 3 for i in range(len(x))])


@needs_enzyme
@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_is_that_of_finite_differences(name):
    f = SMOOTH[name]
    expected = finite_difference(f, X)
    for adtype in BACKENDS[:2]:
        value, gradient = prepare_gradient(f, adtype, np.ones(4)).value_and_gradient(X)
        np.testing.assert_allclose(value, f(jnp.asarray(X)), rtol=1e-14)
        np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8, err_msg=repr(adtype))


def test_the_yardstick_rejects_a_wrong_gradient():
    f = SMOOTH["elementary"]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(1.0001 * jax.grad(f)(X), finite_difference(f, X), rtol=1e-7, atol=1e-8)


# Where finite differences do not say what is right: rules of the user's, kinks, bounds, and values beside NaN.
CLOSED = {
    "stop_gradient": (lambda x: jnp.sum(lax.stop_gradient(x) * x), X),
    "custom_jvp": (lambda x: jnp.sum(seven(x)), 7 * np.ones(4)),
    "custom_jvp in a scan": (lambda x: lax.scan(lambda c, t: (c + seven(t), None), 0.0, x)[0], 7 * np.ones(4)),
    "ties": (lambda x: jnp.sum(jnp.maximum(x, X)) + jnp.max(jnp.stack([x[0], x[0]])), [1.5, 0.5, 0.5, 0.5]),
    "out of bounds": (lambda x: jnp.sum(x.at[np.array([0, 9])].add(3 * x[1:3])), [1.0, 4.0, 1.0, 1.0]),
    "safe where": (lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)),
                   np.where(X > 0, 0.5 / np.sqrt(np.abs(X)), 0.0)),
    "unsafe where": (
        lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0)),
        np.where(X > 0, 0.5 / np.sqrt(np.abs(X)), 0.0),
    ),
    "root of zero": (lambda x: jnp.sum(jnp.sqrt(jnp.maximum(x, 0.0) ** 2)), 1.0 * (X > 0)),
    "zero in a product": (lambda x: jnp.prod(x - np.array([0.3, 0, 0, 0])), [-0.7 * 1.2 * 0.45, 0.0, 0.0, 0.0]),
    "far out": (lambda x: jnp.sum(jax.nn.sigmoid(1e4 * x) + jax.nn.softplus(1e4 * x)), 1e4 * (X > 0)),
    "independent of x": (lambda x: jnp.sum(jnp.ones(3)), np.zeros(4)),
    "straight-through": (lambda x: jnp.sum(x + lax.stop_gradient(jnp.round(x) - x)), np.ones(4)),
}  # fmt: skip


@needs_enzyme
@pytest.mark.parametrize("name", CLOSED)
def test_gradient_is_the_closed_form(name):
    f, expected = CLOSED[name]
    for adtype in BACKENDS[:2]:
        value, gradient = value_and_gradient(f, adtype, X)
        np.testing.assert_allclose(value, f(jnp.asarray(X)), rtol=1e-14)
        np.testing.assert_allclose(gradient, expected, rtol=1e-14, atol=1e-14, err_msg=repr(adtype))


@needs_enzyme
def test_forward_mode_passes_while_loops_and_reverse_mode_refuses_them():
    def root(x):
        return lax.while_loop(lambda r: abs(r**2 - x[0]) > 1e-14, lambda r: (r + x[0] / r) / 2, 1.0 + 0 * x[0]) * x[1]

    point = np.array([5.0, 2.0])
    np.testing.assert_allclose(value_and_gradient(root, AutoEnzymeForward(), point)[1], [5**-0.5, 5**0.5], rtol=1e-9)
    with pytest.raises(DifferentiationError, match=r"root.*while_loop.*adtype=AutoEnzymeForward\(\)"):
        prepare_gradient(root, AutoEnzyme(), point)


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * g * x,))


def called_back(x):
    return jnp.sum(jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), lax.stop_gradient(x)) * x)


REFUSED = {
    "custom_vjp": (lambda x: jnp.sum(square(x)), r"cannot pass `custom_vjp_call`.*AutoReverse\(\)"),
    "callback": (called_back, r"`pure_callback`, which calls back into Python.*as a constant"),
    "complex numbers": (lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x))), r"cannot pass `.*`.*AutoReverse\(\)"),
    "random numbers": (lambda x: x[0] * jax.random.normal(jax.random.key(x[1].astype(int))), r"key<fry>.*AutoForward"),
    "no rule anywhere": (
        lambda x: jnp.sum(special.betainc(x, 2.0, 0.3)),
        r"`regularized_incomplete_beta`.*AutoFiniteDiff\(\)",
    ),
    "iterative solver": (
        lambda x: jax.scipy.sparse.linalg.cg(positive_definite(x), x[:2])[0][0],
        r"cannot pass .*while",
    ),
}


@needs_enzyme
@pytest.mark.parametrize("adtype", BACKENDS[:2], ids=repr)
@pytest.mark.parametrize("name", REFUSED)
def test_what_enzyme_cannot_pass_is_refused_by_name(name, adtype):
    f, message = REFUSED[name]
    with pytest.raises(DifferentiationError, match=message):
        prepare_gradient(f, adtype, X)


@needs_enzyme
@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
def test_prepared_gradients_work_inside_jit_vmap_and_loops(adtype):
    mask, index, tree = np.array([True, False, True]), np.array([2, 0, 1]), {"scale": np.float64(0.5)}

    def cubes(x, mask, index, tree):
        return tree["scale"] * jnp.sum(jnp.where(mask, x[index], 0.0) ** 3) + jnp.sum(jax.nn.softplus(x))

    def expected(x):
        return 1.5 * x**2 * np.array([0, 1, 1]) + 1 / (1 + np.exp(-x))

    constants = (mask, index, tree)
    prepared = prepare_gradient(cubes, adtype, np.zeros(3), *constants)
    x = np.array([1.0, 2.0, -3.0])
    np.testing.assert_allclose(jax.jit(prepared.value_and_gradient)(x, *constants)[1], expected(x))
    batched = jax.vmap(prepared.value_and_gradient, (0, None, None, None))
    np.testing.assert_allclose(batched(np.stack([x, 2 * x]), *constants)[1], [expected(x), expected(2 * x)])
    over_constants = jax.vmap(prepared.value_and_gradient, (None, 0, None, None))
    np.testing.assert_allclose(over_constants(x, np.stack([mask, mask]), index, tree)[1], [expected(x), expected(x)])

    def step(state):
        return state[0] + 1, state[1] - 0.01 * prepared.value_and_gradient(state[1], *constants)[1]

    by_hand = x
    for _ in range(5):
        by_hand = by_hand - 0.01 * expected(by_hand)
    looped = lax.while_loop(lambda state: state[0] < 5, step, (0, jnp.asarray(x)))[1]
    np.testing.assert_allclose(looped, by_hand, rtol=1e-13)


@needs_enzyme
@pytest.mark.parametrize("adtype", BACKENDS[:2], ids=repr)
def test_a_closure_over_tracers_is_differentiated_in_its_argument_alone(adtype):
    @jax.jit
    def outside(scale):
        matrix = jnp.linalg.inv(jnp.diag(scale))  # linear algebra of constants stays outside of Enzyme
        return value_and_gradient(lambda x: jnp.sum(matrix @ x**2), adtype, jnp.ones(3))[1]

    np.testing.assert_allclose(outside(jnp.array([1.0, 2.0, 4.0])), [2.0, 1.0, 0.5])


@needs_enzyme
@pytest.mark.parametrize("adtype", BACKENDS[:2], ids=repr)
def test_single_precision(adtype):
    with jax.enable_x64(False):
        x = X.astype(np.float32)
        value, gradient = value_and_gradient(alternating, adtype, x)
        assert value.dtype == gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, finite_difference(alternating, X), rtol=1e-5)


@needs_enzyme
def test_enzyme_may_be_the_outer_derivative_and_refuses_to_be_the_inner():
    def slope(x):
        return jnp.sum(value_and_gradient(lambda y: jnp.sum(y**3), AutoForward(), x)[1])

    np.testing.assert_allclose(value_and_gradient(slope, AutoEnzyme(), X)[1], 6 * X)

    def by_enzyme(x):
        return jnp.sum(value_and_gradient(lambda y: jnp.sum(y**3), AutoEnzyme(), x)[1])

    with pytest.raises(DifferentiationError, match=r"JAX cannot differentiate a derivative by AutoEnzyme again"):
        prepare_gradient(by_enzyme, AutoReverse(), X)


@needs_enzyme
def test_several_threads_may_prepare_and_compile_at_once():
    results = {}

    def work(i):
        with jax.enable_x64(True):
            prepared = prepare_gradient(lambda x: jnp.sum(jax.nn.softplus(x) * (i + 1.0)), BACKENDS[i % 2], X)
            results[i] = jax.jit(prepared.value_and_gradient)(X)[1]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        np.testing.assert_allclose(results[i], (i + 1) / (1 + np.exp(-X)))


@model
def line(x, y):
    slope = rv("slope", dist.Normal(0.0, 2.0))
    noise = rv("noise", dist.HalfNormal(1.0))
    rv("y", dist.Normal(slope * x, noise), obs=y)


DATA = (np.arange(6.0), np.array([0.1, 2.2, 3.8, 6.1, 8.3, 9.7]))


@needs_enzyme
@pytest.mark.filterwarnings("ignore:.*ended in a divergence")
@pytest.mark.parametrize("adtype", BACKENDS[:2], ids=repr)
def test_draws_are_those_of_another_backend(adtype):
    def draws(adtype):
        run = sample(line(*DATA), HMC(0.05, 4, adtype=adtype), draws=30, warmup=0, chains=2, seed=3, progress=False)
        return run.posterior["slope"].values

    np.testing.assert_allclose(draws(adtype), draws(AutoReverse()), rtol=1e-8)


@needs_enzyme
def test_nuts_samples_with_enzyme():
    run = sample(line(*DATA), NUTS(adtype=AutoEnzyme()), draws=500, warmup=300, chains=2, seed=1, progress=False)
    x, y = DATA
    slopes = run.posterior["slope"].values
    # The likelihood is far narrower than the prior: the posterior mean is that of least squares to a percent.
    np.testing.assert_allclose(slopes.mean(), x @ y / (x @ x), rtol=0.02)
    assert "AutoEnzyme()" in run.attrs["blocks"]
