"""Every distribution of NumPyro as a site: bijection, density, derivatives, and the draws of NUTS.

One distribution for each kind of support is looked at in every run, all others by `make verify`.

The draws of NUTS are compared with direct ones by the share of them below the latter's 10, 25, 50, 75 and 90 percent
quantiles, for each coordinate, their sum and their sum of squares, in standard errors by the means of batches (which
know of autocorrelation). ALPHA is the false-alarm rate of all comparisons of all distributions together.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from distributions import (
    ABSTRACT,
    CONTINUOUS,
    DISCRETE,
    HALF_LINES,
    INTEGERS,
    INTERVALS,
    POSITIVE,
    PROPER,
    REAL,
    REFUSED,
    direct,
    elementary,
    known,
)
from dualtape import AutoForward, AutoReverse, SamplingWarning, model, rv, sample
from dualtape.ad import value_and_gradient
from dualtape.ppl.densities import log_density
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.transforms import ToCircle, ToSphere, constrain, unconstrain_value, unconstrained_shapes
from numpyro.distributions import constraints, transforms
from scipy import integrate, stats

ALPHA = 0.01
CERTAIN = 1e-9  # what the p-value of a planted error must fall below
LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
DRAWS, BATCH, DIRECT = 2500, 100, 50_000

# One for each kind of support.
USUAL = (
    "Laplace",
    "Gamma",
    "LowerTruncatedPowerLaw",
    "RightTruncatedDistribution",
    "TransformedDistribution, of an interval",
    "MultivariateNormal",
    "TransformedDistribution, ordered",
    "ZeroSumNormal",
    "Dirichlet",
    "LKJCholesky",
    "Wishart",
    "VonMises, about the far side",
    "ProjectedNormal, in space",
)
# Those whose densities are this package's own.
OWN_DENSITIES = ("Normal", "StudentT", "HalfNormal", "LogNormal", "InverseGamma", "GaussianRandomWalk")
USUAL_DISCRETE = ("BinomialLogits", "CategoricalProbs", "DirichletMultinomial")


def marked(names: Any, usual: Any = USUAL) -> list[Any]:
    return [pytest.param(name, marks=() if name in usual else pytest.mark.long) for name in names]


def test_every_distribution_of_numpyro_is_in_the_table():
    everything = {
        name for name, kind in vars(dist).items() if isinstance(kind, type) and issubclass(kind, dist.Distribution)
    }
    instances = {name.partition(",")[0] for table in (CONTINUOUS, DISCRETE, REFUSED) for name in table}
    assert everything - instances == ABSTRACT
    assert set(USUAL) <= set(PROPER)


def classes(distribution: Any) -> set[str]:
    """Names of what a distribution is, and what those inside it are."""
    own = {kind.__name__ for kind in type(distribution).__mro__}
    return own | classes(distribution.base_dist) if hasattr(distribution, "base_dist") else own


# Bijections, densities, derivatives.


def free_entries(distribution: Any, jacobian: Any) -> Any:
    """The rows of ∂value/∂q, as a matrix, that belong to the entries of a value that a density is of."""
    support = elementary(distribution.support)
    shape = distribution.shape()
    size = shape[-1] if shape else 0
    chosen = np.ones(shape, bool)
    if support is constraints.simplex:
        chosen[..., -1] = False
    elif support in (constraints.corr_matrix, constraints.corr_cholesky):
        chosen &= np.tri(size, k=-1, dtype=bool)
    elif distribution.event_dim == 2 and support not in (constraints.real, constraints.zero_sum(2)):
        chosen &= np.tri(size, dtype=bool)
    rows = np.asarray(jacobian).reshape(*shape, -1)[chosen]
    return np.concatenate([rows.real, rows.imag]) if np.iscomplexobj(rows) else rows


def log_volume(matrix: Any) -> float:
    """Log of how much a map stretches; of a tall matrix, its image."""
    return 0.5 * np.linalg.slogdet(matrix.T @ matrix)[1]


def density(make: Any, q: Any) -> Any:
    distribution = make()
    value, log_jacobian = constrain("x", distribution, q)
    return jnp.sum(log_density(distribution, value)) + (0.0 if log_jacobian is None else log_jacobian)


@pytest.mark.parametrize("name", marked(CONTINUOUS))
def test_bijection_density_and_gradients(name):
    make = CONTINUOUS[name]
    distribution = make()
    assert name.partition(",")[0] in classes(distribution)
    hidden, index = unconstrained_shapes("x", distribution)
    assert hidden[: len(index)] == index
    q = np.random.default_rng(len(name)).uniform(-1.5, 1.5, hidden)
    towards = np.random.default_rng(1).normal(size=hidden)

    steps = 1e-4 * np.array([-2.0, -1.0, 1.0, 2.0])

    @jax.jit
    def evaluate(q):
        value, log_jacobian = constrain("x", make(), q)
        again, _ = constrain("x", make(), unconstrain_value("x", make(), value))
        terms = log_density(make(), value), make().log_prob(value)
        modes = AutoForward(), AutoReverse()
        slopes = [value_and_gradient(lambda q: density(make, q), adtype, q)[1] for adtype in modes]
        nearby = jax.vmap(lambda h: density(make, q + h * towards))(steps)
        jacobian = jax.jacfwd(lambda q: constrain("x", make(), q)[0])(q)
        return (value, log_jacobian, again), terms, slopes, nearby, jacobian

    (value, log_jacobian, again), (ours, theirs), (forward, reverse), nearby, jacobian = evaluate(q)
    assert value.shape == distribution.shape()
    assert np.all(distribution.support(value))
    np.testing.assert_allclose(again, value, rtol=1e-9, atol=1e-11)
    assert ours.shape == theirs.shape == distribution.batch_shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert np.all(np.isfinite(forward))
    np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-10)
    slope = nearby @ np.array([1.0, -8.0, 8.0, -1.0]) / 12e-4
    np.testing.assert_allclose(np.sum(forward * towards), slope, rtol=1e-6, atol=1e-7)
    if elementary(distribution.support) not in (constraints.circular, constraints.sphere):
        expected = log_volume(free_entries(distribution, jacobian).reshape(-1, q.size))
        np.testing.assert_allclose(0.0 if log_jacobian is None else log_jacobian, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", marked(known(REAL | POSITIVE | HALF_LINES | INTERVALS)))
def test_the_density_of_a_coordinate_has_mass_one(name):
    """∫ p(T(q)) |dT/dq| dq = 1, over q = sinh(t) on a line that bends nowhere, where tails can be heavy."""
    make = PROPER[name]
    straight = constrain("x", make(), jnp.zeros(()))[1] is None
    t = np.linspace(-20, 20, 40_001) if straight else np.linspace(-30, 60, 40_001)
    q, slope = (np.sinh(t), np.cosh(t)) if straight else (t, 1.0)
    masses = np.exp(jax.jit(jax.vmap(lambda q: density(make, q)))(q)) * slope
    np.testing.assert_allclose(integrate.trapezoid(masses, t), 1.0, rtol=1e-4)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_the_length_of_a_direction_has_a_law_of_its_own(size):
    """∫ f(r) / rⁿ⁻¹ · rⁿ⁻¹ dr = 1 along every ray, and directions are kept."""
    bijections = (ToSphere(), ToCircle()) if size == 2 else (ToSphere(),)
    ray = np.random.default_rng(size).normal(size=size)
    ray /= np.linalg.norm(ray)
    for bijection in bijections:

        def mass(r, bijection=bijection):
            return np.exp(bijection.log_abs_det_jacobian(r * ray, None)) * r ** (size - 1)

        np.testing.assert_allclose(integrate.quad(mass, 0.0, 6.0)[0], 1.0, rtol=1e-7)
        np.testing.assert_allclose(bijection(3.0 * ray), bijection(ray), rtol=1e-12)
        assert np.all(bijection.codomain(bijection(jnp.zeros(size))))


@pytest.mark.parametrize("name", marked(INTEGERS, OWN_DENSITIES))
def test_integer_parameters_are_numbers(name):
    make = INTEGERS[name]
    real = make(lambda c: jnp.asarray(c, float))
    for whole in (make(lambda c: np.asarray(c) if isinstance(c, list) else c), make(jnp.asarray)):
        q = np.random.default_rng(0).normal(size=unconstrained_shapes("x", whole)[0])
        value, log_jacobian = constrain("x", whole, q)
        expected, log_volume = constrain("x", real, q)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(log_density(whole, value), real.log_prob(expected), rtol=1e-12)
        assert (log_jacobian is None) == (log_volume is None)
        if log_jacobian is not None:
            np.testing.assert_allclose(log_jacobian, log_volume, rtol=1e-12)


@pytest.mark.parametrize("name", marked(DISCRETE, USUAL_DISCRETE))
def test_discrete_values_stand_for_themselves(name):
    distribution = DISCRETE[name]()
    assert name.partition(",")[0] in classes(distribution)
    value = distribution.sample(jax.random.key(0))
    hidden, index = unconstrained_shapes("x", distribution)
    assert hidden == distribution.shape()
    assert index == distribution.batch_shape
    found, log_jacobian = constrain("x", distribution, unconstrain_value("x", distribution, value))
    assert log_jacobian is None
    np.testing.assert_array_equal(found, value)
    np.testing.assert_allclose(log_density(distribution, found), distribution.log_prob(value), rtol=1e-12)


def one_site(make: Any) -> Any:
    @model
    def one():
        rv("x", make())

    return one()


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_density_is_refused_by_name(name):
    make, way_out = REFUSED[name]
    with pytest.raises(TypeError, match=f"site 'x'.*{way_out}"):
        sample(one_site(make), draws=10, progress=False)


@pytest.mark.parametrize("name", ["HurdleGamma", "LeftCensoredDistribution"])
def test_what_is_refused_as_latent_can_be_observed(name):
    if name not in REFUSED:
        pytest.skip("this version of NumPyro lacks it")

    @model
    def observed():
        rv("mu", dist.Normal(0.0, 1.0))
        rv("x", REFUSED[name][0](), obs=0.4)

    bound = observed()
    terms = trace_model(bound, discover(bound)).density.by_term(np.zeros(1))
    np.testing.assert_allclose(terms["x"], REFUSED[name][0]().log_prob(0.4), rtol=1e-12)


# Draws.


def summaries(values: Any, axes: int) -> Any:
    flat = np.asarray(values, float).reshape(*np.shape(values)[:axes], -1)
    return np.concatenate([flat, flat.sum(-1, keepdims=True), np.square(flat).sum(-1, keepdims=True)], axis=-1)


def p_value(values: Any, reference: Any) -> float:
    """Of draws of chains, shape (chains, draws, ...), against direct ones, shape (number, ...); by Bonferroni."""
    exact = summaries(reference, 1)
    moving = exact.std(axis=0) > 1e-9
    found, exact = summaries(values, 2)[..., moving], exact[:, moving]
    below = found[..., None, :] <= np.quantile(exact, LEVELS, axis=0)
    batches = below.reshape(-1, BATCH, *below.shape[2:]).mean(1)
    expected = LEVELS[:, None]
    variance = batches.var(axis=0, ddof=1) / len(batches) + expected * (1 - expected) / len(exact)
    # A share that all batches agree on is known to no less than one draw in all.
    errors = np.sqrt(np.maximum(variance, 1 / (4 * below.shape[0] * below.shape[1]) ** 2))
    each = 2 * stats.t.sf(np.abs(batches.mean(0) - expected) / errors, len(batches) - 1)
    return float(min(1.0, each.min() * each.size))


def drawn(name: str) -> tuple[Any, Any, Any]:
    """Draws by NUTS, direct ones, and the share of divergences."""
    make = PROPER[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        result = sample(one_site(make), draws=DRAWS, seed=7, progress=False)
    reference = direct(name, make(), jax.random.key(11), DIRECT)
    return np.asarray(result.posterior["x"]), reference, float(np.mean(np.asarray(result.sample_stats["diverging"])))


@pytest.mark.parametrize("name", marked(PROPER))
def test_nuts_draws_from_the_distribution(name):
    values, reference, diverging = drawn(name)
    assert diverging < 0.005
    assert p_value(values, reference) > ALPHA / len(PROPER)
    # A scale that is fifteen percent off is seen.
    centre = np.median(values, axis=(0, 1))
    assert p_value(centre + 1.15 * (values - centre), reference) < ALPHA / len(PROPER)


def test_without_its_jacobian_a_bijection_is_seen(monkeypatch):
    monkeypatch.setattr(transforms.ExpTransform, "log_abs_det_jacobian", lambda *_: jnp.zeros(()))
    values, reference, _ = drawn("Gamma")
    assert p_value(values, reference) < CERTAIN
