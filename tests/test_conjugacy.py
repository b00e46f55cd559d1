"""Conjugate updates: what is recognised is the model's own conditional, to rounding; what is not is refused by name.

A conditional that is found must differ from the log density of the whole model by a constant along the block, and where
the parameters are known in closed form they are compared too. Four tests of draws have the false-alarm rate ALPHA each.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import factor, model, plate, rv
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.views.families import Counting
from dualtape.samplers.random import chain_key, fold_in
from scipy import stats
from scipy.special import expit
from targets import p_value

ALPHA = 1e-3
CERTAIN = 1e-9  # what the p-value of a planted bug must fall below
RNG = np.random.default_rng(5)
GROUP = np.array([2, 0, 1, 2, 0, 2, 1, 0])
Y = RNG.normal(1.0, 2.0, 8)
COUNTS = RNG.poisson(3.0, 8)
EXPOSURE = RNG.uniform(0.5, 2.0, 8)
X = RNG.normal(size=(8, 3))
TABLE = RNG.normal(size=(8, 3))
COVARIANCE = np.array([[1.0, 0.4, 0.1], [0.4, 0.5, 0.2], [0.1, 0.2, 0.8]])
WORDS = RNG.integers(0, 4, (8, 5))


@functools.cache
def traced(bound):
    return trace_model(bound, discover(bound)).density


def written(function):
    """A model without arguments."""
    return model(function)()


def part(site, *numbers):
    return {site: (site, np.array(numbers))}


@written
def gdemo():
    s = rv("s", dist.InverseGamma(2.0, 3.0))
    m = rv("m", dist.Normal(0.5, jnp.sqrt(s)))
    rv("x", dist.Normal(m, jnp.sqrt(s)), obs=1.5)
    rv("y", dist.Normal(m, jnp.sqrt(s)), obs=2.0)


@written
def schools():
    mu = rv("mu", dist.Normal(1.0, 5.0))
    tau = rv("tau", dist.HalfCauchy(5.0))
    with plate("group", 3):
        theta = rv("theta", dist.Normal(mu, tau))
    with plate("row", 8):
        rv("y", dist.Normal(theta[GROUP] * EXPOSURE - 1.0, 0.7), obs=Y)


@written
def regression():
    a = rv("a", dist.Normal(0.0, 10.0))
    beta = rv("beta", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    sigma = rv("sigma", dist.HalfNormal(1.0))
    rv("y", dist.Normal(a + X @ beta, sigma * EXPOSURE), obs=Y)


@written
def multivariate():
    mu = rv("mu", dist.MultivariateNormal(jnp.array([1.0, 0.0, -1.0]), jnp.asarray(COVARIANCE)))
    with plate("row", 8):
        z = rv("z", dist.MultivariateNormal(mu, scale_tril=jnp.linalg.cholesky(2.0 * COVARIANCE)))
        rv("y", dist.Normal(z[:, 0] + z[:, 2], 0.5), obs=Y)
        rv("t", dist.MultivariateNormal(2.0 * z, precision_matrix=jnp.asarray(COVARIANCE)), obs=TABLE)


@written
def mixture():
    weights = rv("weights", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    mu = rv("mu", dist.Normal(jnp.array([-1.0, 0.0, 1.0]), 2.0))
    tau = rv("tau", dist.Gamma(2.0, 3.0).expand([3]))
    with plate("row", 8):
        z = rv("z", dist.Categorical(weights))
        rv("y", dist.Normal(mu[z], EXPOSURE / jnp.sqrt(tau[z])), obs=Y)


@written
def walk():
    x = rv("x", dist.Normal(0.0, 1.0).expand([8]))
    drift = rv("drift", dist.Normal(0.0, 1.0))
    path = jnp.cumsum(x) + drift * jnp.arange(8.0)
    rv("y", dist.Normal(jnp.where(COUNTS > 2, path, 0.0), 0.5), obs=Y)
    rv("ends", dist.Normal(jnp.concatenate([x[:2], -x[-2:]]), 1.0), obs=np.arange(4.0))
    rv("total", dist.Normal(drift, 2.0), obs=1.0)


@written
def binary():
    p = rv("p", dist.Beta(2.0, 3.0).expand([3]))
    rv("y", dist.Bernoulli(p[GROUP]), obs=(Y > 1).astype(int))
    rv("n", dist.Binomial(np.arange(9, 12), p[None, ::-1]).expand([2, 3]), obs=RNG.integers(0, 9, (2, 3)))
    q = rv("q", dist.Beta(0.5, 0.5))
    with plate("row", 8):
        rv("hits", dist.Binomial(5, q), obs=np.minimum(COUNTS, 5))


@written
def rates():
    rate = rv("rate", dist.Gamma(jnp.array([2.0, 3.0, 4.0]), 1.5))
    rv("counts", dist.Poisson(EXPOSURE * rate[GROUP]), obs=COUNTS)
    rv("none", dist.Poisson(jnp.array([0.0, 2.0, 1.0]) * rate), obs=np.array([0, 3, 1]))
    rv("waits", dist.Exponential(rate / 2.0), obs=np.array([0.3, 0.5, 2.0]))
    rv("amounts", dist.Gamma(2.5, 3.0 * rate[1]), obs=np.array([0.3, 0.5]))
    one = rv("one", dist.Exponential(0.5))
    rv("events", dist.Poisson(one), obs=COUNTS)
    rv("spread", dist.Normal(1.0, one**-0.5), obs=Y)
    rv("both", dist.InverseGamma(2.0, one * one / one), obs=EXPOSURE)


@written
def topics():
    theta = rv("theta", dist.Dirichlet(jnp.ones(3)).expand([8]))
    phi = rv("phi", dist.Dirichlet(0.5 * jnp.ones(4)).expand([3]))
    z = rv("z", dist.Categorical(theta[:, None, :]).expand([8, 5]))
    rv("w", dist.Categorical(phi[z]), obs=WORDS)
    rv("n", dist.Multinomial(probs=phi, total_count=5), obs=np.array([[1, 2, 2, 0], [5, 0, 0, 0], [1, 1, 1, 2]]))


@written
def variances():
    a = rv("a", dist.InverseGamma(0.5, 1.0))
    v = rv("v", dist.InverseGamma(0.5, 1.0 / a).expand([3]))
    m = rv("m", dist.Normal(0.0, 2.0 * jnp.sqrt(v)))
    rv("y", dist.Normal(m[GROUP], jnp.sqrt(v[GROUP] * EXPOSURE)), obs=Y)
    rv("u", dist.Normal(0.0, v**0.5 / jnp.arange(1.0, 4.0)), obs=np.ones(3))
    rv("t", dist.Exponential(2.0 / v), obs=np.ones(3))
    rv("s", dist.Gamma(3.0, 1 / v[0]), obs=0.5)


@written
def alone():
    m = rv("m", dist.Normal(1.0, 2.0))
    rv("y", dist.Normal(jnp.cumsum(m * EXPOSURE), 3.0), obs=Y)
    rv("elsewhere", dist.StudentT(3.0), obs=1.0)
    factor("constant", 0.5)


FOUND = [
    (alone, ("m",)),
    (gdemo, ("m",)),
    (gdemo, ("s",)),
    (schools, ("mu",)),
    (schools, ("theta",)),
    (schools, part("theta", 2)),
    (schools, part("theta", 2, 0)),
    (schools, {"last": ("theta", np.array([2])), "first": ("theta", np.array([0]))}),
    (schools, ("mu", "theta")),
    (regression, ("beta",)),
    (regression, ("a",)),
    (regression, ("a", "beta")),
    (regression, {"slope": ("beta", np.array([1])), "a": ("a", None)}),
    (multivariate, ("mu",)),
    (multivariate, part("mu", 1)),
    (multivariate, ("z",)),
    (multivariate, ("mu", "z")),
    (mixture, ("weights",)),
    (mixture, ("mu",)),
    (mixture, ("tau",)),
    (walk, ("x",)),
    (walk, ("drift",)),
    (walk, ("x", "drift")),
    (binary, ("p",)),
    (binary, part("p", 2)),
    (binary, ("q",)),
    (rates, ("rate",)),
    (rates, part("rate", 1, 0)),
    (rates, ("one",)),
    (topics, ("theta",)),
    (topics, {"some": ("theta", np.array([2, 3, 10, 11]))}),
    (topics, ("phi",)),
    (variances, ("a",)),
    (variances, ("v",)),
    (variances, part("v", 1)),
]


@functools.cache
def compiled(bound):
    """From positions to the log density, and by site the values and the Jacobians of bijections."""
    density = traced(bound)

    def everything(position, data):
        terms = density.by_term(position, *data)
        values = density.program.select(density.values.values())(*density.coordinates.split(position), *data)
        jacobians = {site: terms.get(f"log|J| {site}", jnp.zeros(())) for site in density.sites}
        return sum(terms.values()), dict(zip(density.values, values, strict=True)), jacobians

    return jax.jit(jax.vmap(everything, (0, None)))


def disagreement(bound, block, target):
    """How much the model and the conditional differ in how their densities change along the block."""
    density = traced(bound)
    start = RNG.normal(size=density.dimension)
    for site in density.discrete:
        positions = density.coordinates.positions((site, None))
        start[positions] = RNG.integers(0, 3, len(positions))
    positions = np.tile(start, (4, 1))
    positions[:, block.coordinates] = RNG.normal(size=(4, target.dimension))
    model, values, jacobians = compiled(bound)(positions, density.data)

    def conditional(q, values, jacobians, start, data):
        constants = target.given.at(start, data)
        if isinstance(target.update, Counting):
            site = target.update.site.name
            return jnp.sum(target.update.posterior(target, constants).log_prob(values[site])) + jacobians[site]
        mean, root = target.update.conditional(target, constants)
        return -0.5 * jnp.sum(((q - mean) @ (jnp.diag(root) if root.ndim == 1 else root)) ** 2)

    batched = jax.jit(jax.vmap(conditional, (0, 0, 0, None, None)))
    found = batched(positions[:, block.coordinates], values, jacobians, jnp.asarray(start), density.data)
    return np.ptp(model - found) / (1.0 + np.max(np.abs(found)))


@pytest.mark.parametrize(("bound", "block"), FOUND, ids=lambda value: getattr(value, "name", str(value)))
def test_the_conditional_is_that_of_the_model(bound, block):
    conjugate = traced(bound).restrict(block).conjugate()
    assert disagreement(bound, conjugate, conjugate.target) < 1e-11


@pytest.mark.parametrize(("bound", "block"), [(gdemo, ("m",)), (gdemo, ("s",)), (topics, ("phi",))])
def test_a_forgotten_child_is_seen(bound, block):
    conjugate = traced(bound).restrict(block).conjugate()
    update = conjugate.target.update
    name = "children" if isinstance(update, Counting) else "separate"
    less = dataclasses.replace(update, **{name: getattr(update, name)[:-1]})
    assert disagreement(bound, conjugate, dataclasses.replace(conjugate.target, update=less)) > 1e-3


def found_at(bound, block, **values):
    """The update's conditional, where the other sites have these unconstrained values, else 0."""
    density = traced(bound)
    target = density.restrict(block).conjugate().target
    position = density.coordinates.join(
        [jnp.broadcast_to(values.get(site, 0.0), shape) for site, shape in density.coordinates.shapes.items()]
    )

    def found(position, data):
        constants = target.given.at(position, data)
        update = target.update
        return (update.posterior if isinstance(update, Counting) else update.conditional)(target, constants)

    return jax.jit(found)(position, density.data)


def test_normal_means_of_groups():
    mean, root = found_at(schools, ("theta",), mu=0.4, tau=np.log(1.5))
    weight = 1 / 0.7**2
    precision = 1 / 1.5**2 + weight * np.bincount(GROUP, EXPOSURE**2)
    shift = 0.4 / 1.5**2 + weight * np.bincount(GROUP, EXPOSURE * (Y + 1.0))
    assert root.shape == (3,)  # and no matrix
    np.testing.assert_allclose(root**2, precision, rtol=1e-12)
    np.testing.assert_allclose(mean, shift / precision, rtol=1e-12)


def test_coefficients_of_a_regression():
    mean, root = found_at(regression, ("beta",), a=0.3, sigma=np.log(1.2))
    weights = 1 / (1.2 * EXPOSURE) ** 2
    precision = X.T @ (weights[:, None] * X) + np.eye(3) / 4.0
    np.testing.assert_allclose(root @ root.T, precision, rtol=1e-12)
    np.testing.assert_allclose(mean, np.linalg.solve(precision, X.T @ (weights * (Y - 0.3))), rtol=1e-12)


def test_parameters_by_counting():
    posterior = found_at(gdemo, ("s",), m=1.0)
    np.testing.assert_allclose([posterior.concentration, posterior.rate], [3.5, 3.0 + (0.25 + 0.25 + 1.0) / 2])
    posterior = found_at(binary, ("q",))
    hits = np.minimum(COUNTS, 5)
    np.testing.assert_allclose(posterior.concentration1, 0.5 + hits.sum(), rtol=1e-12)
    np.testing.assert_allclose(posterior.concentration0, 0.5 + (5 - hits).sum(), rtol=1e-12)
    posterior = found_at(rates, ("rate",))
    concentration = np.array([2.0, 3.0, 4.0]) + np.bincount(GROUP, COUNTS) + [0, 3, 1] + 1 + [0, 2 * 2.5, 0]
    np.testing.assert_allclose(posterior.concentration, concentration, rtol=1e-12)
    np.testing.assert_allclose(
        posterior.rate,
        1.5 + np.bincount(GROUP, EXPOSURE) + [0, 2, 1] + np.array([0.3, 0.5, 2.0]) / 2 + [0, 3.0 * 0.8, 0],
        rtol=1e-12,
    )
    z = RNG.integers(0, 3, (8, 5))
    posterior = found_at(topics, ("theta",), z=1.0 * z)
    np.testing.assert_allclose(posterior.concentration, 1.0 + (z[:, :, None] == np.arange(3)).sum(1), rtol=1e-12)
    posterior = found_at(mixture, ("weights",), z=1.0 * GROUP)
    np.testing.assert_allclose(posterior.concentration, np.array([1, 2, 3]) + np.bincount(GROUP), rtol=1e-12)


def as_normal(target, constants, draws):
    """Draws of a block as independent standard normal numbers, if they follow the conditional."""
    if not isinstance(target.update, Counting):
        mean, root = target.update.conditional(target, constants)
        return (draws - mean) @ (jnp.diag(root) if root.ndim == 1 else root)
    posterior = target.update.posterior(target, constants)
    if isinstance(posterior, dist.Beta):
        uniforms = stats.beta(posterior.concentration1[2:], posterior.concentration0[2:]).cdf(expit(draws))
    elif isinstance(posterior, dist.InverseGamma):
        uniforms = stats.invgamma(posterior.concentration, scale=posterior.rate).cdf(np.exp(draws))
    else:  # the breaks of a stick are independent
        a = posterior.concentration
        after = np.sum(a) - np.cumsum(a)[:-1]
        uniforms = stats.beta(a[:-1], after).cdf(expit(draws - np.log(len(a) - 1 - np.arange(len(a) - 1))))
    return stats.norm.ppf(uniforms)


@pytest.mark.parametrize(
    ("bound", "block"),
    [(regression, ("beta",)), (binary, part("p", 2)), (variances, ("a",)), (mixture, ("weights",))],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_draws_follow_the_conditional(bound, block):
    density = traced(bound)
    target = density.restrict(block).conjugate().target
    constants = jax.jit(target.given.at)(jnp.full(density.dimension, 0.3), density.data)
    keys = jax.vmap(lambda i: fold_in(jnp.asarray(chain_key(1, 0)), i))(jnp.arange(4000, dtype=jnp.int32))
    draws = np.asarray(jax.jit(jax.vmap(lambda key: target.draw(key, *constants)))(keys))
    assert draws.shape == (4000, target.dimension)
    assert p_value(as_normal(target, constants, draws)) > ALPHA
    wrong = draws.mean(0) + 1.2 * (draws - draws.mean(0))
    assert p_value(as_normal(target, constants, wrong)) < CERTAIN


def test_draws_at_the_edge_of_the_support_are_finite():
    @written
    def extreme():
        rv("p", dist.Beta(1e-3, 1e-3))
        rv("r", dist.Gamma(1e-3, 1.0))

    density = traced(extreme)
    targets = [density.restrict((site,)).conjugate().target for site in density.sites]

    def draw(key):
        return [target.draw(key, *target.given.at(jnp.zeros(2), density.data)) for target in targets]

    keys = jax.vmap(lambda i: fold_in(jnp.asarray(chain_key(2, 0)), i))(jnp.arange(200, dtype=jnp.int32))
    for draws in jax.jit(jax.vmap(draw))(keys):
        assert np.isfinite(draws).all()
        assert np.abs(draws).max() > 30.0


def test_updates_that_differ_in_names_and_numbers_alone_are_one():
    @model
    def several(group):
        for name, y in zip("abc", Y[:6].reshape(3, 2), strict=True):
            m = rv(name, dist.Normal(0.0, 1.0))
            r = rv(f"r{name}", dist.Gamma(2.0, 1.0 if name < "c" else m**2))
            rv(f"y{name}", dist.Normal(m, 1.0), obs=y)
            rv(f"n{name}", dist.Poisson(r), obs=len(name))
        theta = rv("theta", dist.Normal(0.0, 1.0).expand([3]))
        rate = rv("rate", dist.Gamma(2.0, 1.0).expand([3]))
        rv("t", dist.Normal(theta[group], 1.0), obs=Y)
        rv("n", dist.Poisson(rate[group]), obs=COUNTS)

    density = traced(several(GROUP))

    def signature(block):
        return density.restrict(block).conjugate().target.signature

    assert signature(("a",)) == signature(("b",))
    assert signature(("ra",)) == signature(("rb",))
    assert signature(("ra",)) != signature(("rc",))
    assert signature(part("theta", 0)) == signature(part("theta", 2))
    assert signature(part("rate", 0)) == signature(part("rate", 2))


def normal_site(child, prior=None):
    """A model of a site `a` of three elements and one child `y`."""

    @written
    def built():
        a = rv("a", prior or dist.Normal(0.0, 1.0).expand([3]))
        other = rv("other", dist.HalfNormal(1.0))
        child(a, other)

    return built


def observed(distribution):
    return lambda a, other: rv("y", distribution(a, other), obs=np.ones(3))


BETA = dist.Beta(2.0, 2.0).expand([3])
GAMMA = dist.Gamma(2.0, 2.0).expand([3])
INVERSE = dist.InverseGamma(2.0, 2.0).expand([3])
REFUSED = [
    ("a", None, observed(lambda a, o: dist.StudentT(3.0, a, 1.0)), "'a' is Normal, but its child 'y' is StudentT"),
    ("a", None, observed(lambda a, o: dist.Normal(a, o).mask(Y[:3] > 0)), "its child 'y' is MaskedDistribution"),
    ("a", None, observed(lambda a, o: dist.Normal(jnp.tanh(a), 1.0)), r"location of 'y' is not affine in 'a' \(tanh"),
    ("a", None, observed(lambda a, o: dist.Normal(a * a[::-1], 1.0)), r"location of 'y' is not affine in 'a' \(mul"),
    ("a", None, observed(lambda a, o: dist.Normal(jnp.sqrt(a**2), 1.0)), r"not affine in 'a' \(integer_pow"),
    ("a", None, observed(lambda a, o: dist.Normal(jnp.where(a > 0, a, o), 1.0)), r"not affine in 'a' \(gt"),
    ("a", None, observed(lambda a, o: dist.Normal(a[a.astype(int)], 1.0)), r"not affine in 'a' \(convert_element"),
    ("a", None, observed(lambda a, o: dist.Normal(jax.lax.stop_gradient(a), 1.0)), r"affine in 'a' \(stop_gradient"),
    ("a", None, observed(lambda a, o: dist.Normal(jnp.round(a), 1.0)), r"not affine in 'a' \(round"),
    ("a", None, observed(lambda a, o: dist.Normal(0.0, jnp.exp(a))), "the scale of 'y' depends on 'a'"),
    ("a", None, lambda a, o: factor("f", -jnp.sum(a**4)), "'a' also enters 'f', which is a factor"),
    ("a", None, lambda a, o: rv("u", dist.Uniform(a, a + 1.0)), "the support of 'u' depends on 'a'"),
    ("other", None, observed(lambda a, o: dist.Normal(a, o)), "'other' is HalfNormal, and priors with a known conj"),
    ("a,other", None, observed(lambda a, o: dist.Normal(a, o)), "'other' is HalfNormal, and priors with a known"),
    ("a", BETA, observed(lambda p, o: dist.Bernoulli(0.5 * p)), r"probs of 'y' must be elements of 'a' .* \(mul\)"),
    ("a", BETA, observed(lambda p, o: dist.Bernoulli(1.0 - p)), r"probs of 'y' must be elements of 'a' .* \(sub\)"),
    ("a", BETA, observed(lambda p, o: dist.Geometric(p)), "'a' is Beta, but its child 'y' is GeometricProbs"),
    ("a", BETA, observed(lambda p, o: dist.Bernoulli(logits=p)), "its child 'y' is BernoulliLogits, and the children"),
    ("a", GAMMA, observed(lambda r, o: dist.Poisson(r + o)), r"rate of 'y' must be proportional to 'a', .* \(add\)"),
    ("a", GAMMA, observed(lambda r, o: dist.Poisson(r**2)), r"proportional to 'a', and goes as 'a'\*\*\(2\)"),
    ("a", GAMMA, observed(lambda r, o: dist.Poisson(jnp.where(o > 1, r, 1.0))), r"to 'a', and is not \(select_n"),
    ("a", GAMMA, observed(lambda r, o: dist.Poisson(r @ jnp.ones((3, 3)))), r"to 'a', and is not \(dot_general"),
    ("a", GAMMA, observed(lambda r, o: dist.Gamma(r, o)), "concentration of 'y' depends on 'a'"),
    (
        "a",
        INVERSE,
        observed(lambda v, o: dist.Normal(o, v)),
        r"scale of 'y' must be .* 'a'\*\*\(1/2\), and goes as 'a'",
    ),
    ("a", INVERSE, observed(lambda v, o: dist.Normal(v, jnp.sqrt(v))), "location of 'y' depends on 'a'"),
    ("a", INVERSE, lambda v, o: rv("y", dist.Normal(0.0, jnp.sqrt(v)), obs=v), "value of 'y' depends on 'a'"),
    ("a", INVERSE, lambda v, o: rv("y", dist.Uniform(0.0, v)), "the support of 'y' depends on 'a'"),
    ("a", INVERSE, observed(lambda v, o: dist.Normal(0.0, jnp.sqrt(v * v[::-1]))), r"'a'\*\*\(1/2\), and is not \(mul"),
]


@pytest.mark.parametrize(("block", "prior", "child", "message"), REFUSED, ids=[row[-1][:40] for row in REFUSED])
def test_what_is_not_conjugate_is_refused_by_name(block, prior, child, message):
    density = traced(normal_site(child, prior))
    with pytest.raises(ValueError, match=rf"Conjugate: .*{message}.*; use NUTS\(\) for '.*', or Conditional\(fn\)"):
        density.restrict(tuple(block.split(","))).conjugate()


def test_blocks_that_cannot_be_one_are_refused():
    density = traced(topics)
    with pytest.raises(ValueError, match="'some' holds a part of a simplex of 'theta'; give each simplex to one block"):
        density.restrict({"some": ("theta", np.array([2, 3, 10]))}).conjugate()
    with pytest.raises(ValueError, match="a block of several sites all must be Normal, and 'theta' is Dirichlet"):
        density.restrict(("theta", "phi")).conjugate()
    with pytest.raises(ValueError, match=r"'z' is CategoricalProbs, a discrete one; use DiscreteGibbs\(\) for it"):
        density.restrict(("z",)).conjugate()
    large = normal_site(
        lambda a, o: rv("y", dist.Normal(jnp.cumsum(a), 1.0), obs=np.zeros(1001)), dist.Normal(0.0, 1.0).expand([1001])
    )
    with pytest.raises(ValueError, match=r"density of 'y' couples the 1001 coordinates of 'a', .* goes up to 1000"):
        traced(large).restrict(("a",)).conjugate()
