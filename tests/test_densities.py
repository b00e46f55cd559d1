"""Log densities with derivatives of their own, against NumPyro's and SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import AutoForward, AutoReverse, model, rv
from dualtape.ad import value_and_gradient
from dualtape.ppl.densities import log_density, register_log_density
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from scipy import stats

RNG = np.random.default_rng(3)
X = RNG.normal(size=(50, 3))
COUNTS = RNG.integers(0, 8, 50)
Y = RNG.normal(size=50)
POINTS = np.sort(RNG.uniform(-2, 2, 6))


def covariance(b):
    return jnp.exp(b[0] - jnp.square((POINTS[:, None] - POINTS) * b[1])) + 0.3 * np.eye(6)


def mixture(component):
    return dist.MixtureSameFamily(dist.Categorical(logits=jnp.array([0.3, -0.4, 0.1])), component)


# From parameters b of shape (3,) to a distribution of the value that follows.
MODELS = {
    "bernoulli": (lambda b: dist.Bernoulli(logits=X @ b), (COUNTS > 3).astype(int)),
    "binomial": (lambda b: dist.Binomial(7, logits=X @ b), COUNTS),
    "binomial of given totals": (lambda b: dist.Binomial(np.arange(8, 58), logits=X @ b), COUNTS),
    "normal": (lambda b: dist.Normal(X @ b, jnp.exp(b[1])), Y),
    "normal with many scales": (lambda b: dist.Normal(b[0], jnp.exp(0.1 * X @ b)), Y),
    "log-normal": (lambda b: dist.LogNormal(X @ b, jnp.exp(b[1])), np.exp(Y)),
    "half-normal": (lambda b: dist.HalfNormal(jnp.exp(0.1 * X @ b)), np.abs(Y)),
    "Cauchy": (lambda b: dist.Cauchy(X @ b, jnp.exp(b[1])), Y),
    "half-Cauchy": (lambda b: dist.HalfCauchy(jnp.exp(0.1 * X @ b)), np.abs(Y)),
    "exponential": (lambda b: dist.Exponential(jnp.exp(0.1 * X @ b)), np.abs(Y)),
    "inverse gamma": (lambda b: dist.InverseGamma(jnp.exp(b[0]), jnp.exp(0.1 * X @ b)), np.abs(Y)),
    "Student's t": (lambda b: dist.StudentT(jnp.exp(b[0]), X @ b, jnp.exp(b[1])), Y),
    "random walk": (lambda b: dist.GaussianRandomWalk(jnp.exp(b[0]), num_steps=50), Y),
    "random walks": (lambda b: dist.GaussianRandomWalk(jnp.exp(b), num_steps=16), Y[:48].reshape(3, 16)),
    "Gaussian": (lambda b: dist.MultivariateNormal(b[2], covariance(b)), Y[:6]),
    "Gaussians alike": (lambda b: dist.MultivariateNormal(b[2] * POINTS, covariance(b)), Y[:48].reshape(8, 6)),
    "Gaussian by its factor": (
        lambda b: dist.MultivariateNormal(b[2], scale_tril=jnp.linalg.cholesky(covariance(b))),
        Y[:6],
    ),
    "Gaussians with a covariance each": (
        lambda b: dist.MultivariateNormal(b[2], jnp.stack([covariance(b), covariance(2 * b)])),
        Y[:12].reshape(2, 6),
    ),
    "mixture": (lambda b: mixture(dist.Normal(b, jnp.exp(b))), Y),
    "mixture of one scale": (lambda b: mixture(dist.Normal(b, jnp.exp(b[0]))), Y),
    "mixture that depends on rows": (lambda b: mixture(dist.Normal(X * b, 1.0)), Y),
    "mixture of many": (
        lambda b: dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(9)), dist.Normal(jnp.tile(b, 3), 1.0)),
        Y,
    ),
    "mixture of vectors": (
        lambda b: mixture(dist.MultivariateNormal(b[:, None] * np.ones(6), covariance(b))),
        Y[:48].reshape(8, 6),
    ),
    "expanded": (lambda b: dist.Normal(b[0], jnp.exp(b[1])).expand([50]), Y),
    "group": (lambda b: dist.Normal(b, jnp.exp(b)).expand([16, 3]).to_event(1), Y[:48].reshape(16, 3)),
    "group of one": (lambda b: dist.Normal(X @ b, 1.0).to_event(1), Y),
}


@pytest.mark.parametrize(("make", "y"), MODELS.values(), ids=MODELS.keys())
def test_value_and_gradient_are_those_of_numpyro(make, y):
    def ours(b, y):
        return jnp.sum(log_density(make(b), y))

    @jax.jit
    def evaluate(b):
        modes = [value_and_gradient(ours, adtype, b, y) for adtype in (AutoForward(), AutoReverse())]
        return modes, jax.value_and_grad(lambda b: jnp.sum(make(b).log_prob(y)))(b)

    b = np.array([0.3, -1.0, 1.4])
    assert jax.eval_shape(lambda b: log_density(make(b), y), b).shape == make(b).log_prob(y).shape
    modes, (value, gradient) = evaluate(b)
    for found, slope in modes:
        np.testing.assert_allclose(found, value, rtol=1e-12)
        np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-12)


def test_the_gaussian_has_right_second_derivatives():
    def value(density, b):
        return density(dist.MultivariateNormal(b[2] * POINTS, covariance(b)), Y[:6])

    b = np.array([0.3, -1.0, 1.4])
    ours, reference = (
        jax.jit(jax.hessian(lambda b, density=density: value(density, b)))(b)
        for density in (log_density, lambda distribution, y: distribution.log_prob(y))
    )
    np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("size", [1, 2, 24, 25, 60])
def test_small_and_large_gaussians_are_taken_apart_alike(size):
    rng = np.random.default_rng(size)
    # Eigenvalues from 10⁻⁸ to 1.
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    sigma = vectors * np.logspace(-8, 0, size) @ vectors.T
    y = np.linalg.cholesky(sigma) @ rng.normal(size=size)
    value, slope = jax.value_and_grad(lambda a: log_density(dist.MultivariateNormal(0.0, a * sigma), y))(1.0)
    np.testing.assert_allclose(value, stats.multivariate_normal.logpdf(y, np.zeros(size), sigma), rtol=1e-6)
    np.testing.assert_allclose(slope, 0.5 * (y @ np.linalg.solve(sigma, y) - size), rtol=1e-5, atol=1e-6)
    indefinite = dist.MultivariateNormal(0.0, covariance_matrix=sigma - 2 * np.eye(size), validate_args=False)
    assert np.isnan(log_density(indefinite, y))


def test_the_gaussian_is_that_of_scipy():
    sigma = np.asarray(covariance(np.array([0.3, -1.0, 0.0])))
    expected = stats.multivariate_normal.logpdf(Y[:6], np.full(6, 0.2), sigma)
    np.testing.assert_allclose(log_density(dist.MultivariateNormal(0.2, sigma), Y[:6]), expected, rtol=1e-13)
    single = dist.MultivariateNormal(0.2, jnp.asarray(sigma, np.float32))
    np.testing.assert_allclose(log_density(single, Y[:6]), expected, rtol=1e-5)


@pytest.mark.parametrize("logits", [-800.0, -np.inf, 800.0, np.inf])
@pytest.mark.parametrize("y", [0, 1])
def test_far_logits_are_those_of_numpyro(logits, y):
    bernoulli = dist.BernoulliLogits(logits, validate_args=False)
    for distribution in (bernoulli, dist.BinomialLogits(logits, 1, validate_args=False)):
        np.testing.assert_allclose(log_density(distribution, y), bernoulli.log_prob(y), atol=1e-12)


POSITIVE = (dist.LogNormal(), dist.HalfNormal(), dist.HalfCauchy(), dist.Exponential(), dist.InverseGamma(2.0, 1.0))


@pytest.mark.parametrize("distribution", POSITIVE, ids=lambda distribution: type(distribution).__name__)
def test_outside_the_support_there_is_nothing(distribution):
    values = jnp.array([-1.0, 2.0])
    for family in (distribution, distribution.expand([2]), mixture(distribution.expand([3]))):
        found = log_density(family, values, inside=False)
        assert found[0] == -np.inf
        np.testing.assert_allclose(found[1], family.log_prob(values[1:])[0], rtol=1e-14)
    group = distribution.expand([2]).to_event(1)
    assert log_density(group, values, inside=False) == -np.inf


def test_what_a_model_computes_and_then_observes_may_lie_outside():
    @model
    def shifted():
        shift = rv("shift", dist.Normal(0.0, 1.0))
        rv("rest", dist.Exponential(1.0), obs=3.0 - shift)

    bound = shifted()
    density = trace_model(bound, discover(bound)).density
    assert density.by_term(np.array([4.0]), *density.data)["rest"] == -np.inf
    np.testing.assert_allclose(density.by_term(np.array([1.0]), *density.data)["rest"], -2.0)


def test_a_density_of_ones_own_is_used_for_its_family_alone():
    class Mine(dist.Normal):
        pass

    class Other(Mine):
        pass

    register_log_density(Mine)(lambda distribution, value: 7.0 * value)
    assert log_density(Mine(0.0, 1.0), 2.0) == 14.0
    assert log_density(Other(0.0, 1.0), 2.0) == Other(0.0, 1.0).log_prob(2.0)
    with pytest.raises(TypeError, match=r"numpyro\.distributions"):
        register_log_density("Normal")
