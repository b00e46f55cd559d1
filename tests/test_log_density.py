"""The unconstrained log density: Jacobians, dependent supports, and the conditionals of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from dualtape import deterministic, model, rv
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_centered
from dualtape.ppl.interpreters import discover, unconstrain
from dualtape.ppl.log_density import trace_model
from dualtape.samplers.positions import put, take

RNG = np.random.default_rng(3)

DISTRIBUTIONS = {
    "real": dist.Normal(1.0, 2.0),
    "positive": dist.Gamma(2.0, 3.0),
    "bounded below": dist.Pareto(1.5, 3.0),
    "interval": dist.Uniform(-1.0, 3.0),
    "unit interval": dist.Beta(2.0, 3.0),
    "truncated": dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0),
    "vector": dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
    "simplex": dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])),
    "ordered": dist.TransformedDistribution(
        dist.Normal(0, 1).expand([3]).to_event(1), dist.transforms.OrderedTransform()
    ),
    "Cholesky factor of a correlation": dist.LKJCholesky(3, 2.0),
    "batch of simplexes": dist.Dirichlet(jnp.ones((2, 3))),
}


def traced(bound):
    return trace_model(bound, discover(bound))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
def test_constrain_and_unconstrain_are_inverse(distribution):
    @model
    def one():
        rv("x", distribution)

    tm = traced(one())
    q = RNG.normal(size=tm.density.dimension)
    value = tm.constrained(q, *tm.data)["x"]
    assert np.all(distribution.support(value))
    back = unconstrain(one(), {"x": value}, {})["x"]
    np.testing.assert_allclose(np.ravel(back), q, rtol=1e-9, atol=1e-9)
    assert np.isfinite(tm.density.log_density(q, *tm.data))


# Made with 64-bit numbers: a distribution keeps its parameters in the precision of the moment it is made.
with jax.enable_x64(True):
    SCALARS = {
        "Gamma": (dist.Gamma(2.0, 3.0), scipy.stats.gamma(2.0, scale=1 / 3)),
        "Uniform": (dist.Uniform(-1.0, 3.0), scipy.stats.uniform(-1, 4)),
        "Beta": (dist.Beta(2.0, 3.0), scipy.stats.beta(2, 3)),
        "InverseGamma": (dist.InverseGamma(2.0, 3.0), scipy.stats.invgamma(2, scale=3)),
        "HalfCauchy": (dist.HalfCauchy(5.0), scipy.stats.halfcauchy(scale=5)),
    }


@pytest.mark.parametrize(("ours", "theirs"), SCALARS.values(), ids=SCALARS.keys())
def test_the_density_of_a_transformed_variable_is_the_textbooks(ours, theirs):
    """log π(q) = log p(T(q)) + log |dT/dq|, with the derivative by finite differences and p from SciPy."""

    @model
    def one():
        rv("x", ours)

    tm = traced(one())
    h = 1e-3
    for q in (-1.3, 0.2, 2.0):
        x = {k: float(tm.constrained(np.array([q + k * h]), *tm.data)["x"]) for k in (-2, -1, 0, 1, 2)}
        slope = (8 * (x[1] - x[-1]) - (x[2] - x[-2])) / (12 * h)
        expected = theirs.logpdf(x[0]) + np.log(abs(slope))
        np.testing.assert_allclose(tm.density.log_density(np.array([q]), *tm.data), expected, rtol=1e-7)


@model
def nested_supports():
    x = rv("x", dist.Uniform(0.1, 10.0))
    y = rv("y", dist.Uniform(0.0, x))
    deterministic("ratio", y / x)


def test_a_support_that_depends_on_another_site_carries_a_jacobian_that_does_too():
    tm = traced(nested_supports())
    q = np.array([0.4, -0.7])
    values = tm.constrained(q, *tm.data)
    x, y = float(values["x"]), float(values["y"])
    np.testing.assert_allclose(values["ratio"], 1 / (1 + np.exp(0.7)), rtol=1e-12)
    terms = tm.density.by_term(q, *tm.data)
    np.testing.assert_allclose(terms["y"], -np.log(x), rtol=1e-12)
    np.testing.assert_allclose(terms["log|J| y"], np.log(y * (x - y) / x), rtol=1e-12)
    # The block of x sees the Jacobian of y, which moves with x; a block without it would sample the wrong law.
    block = tm.density.restrict(("x",))
    assert set(block.target.terms) == {"x", "log|J| x", "y", "log|J| y"}


def test_a_block_sees_only_the_terms_that_depend_on_it():
    @model
    def chain_of_three():
        a = rv("a", dist.Normal(0.0, 1.0))
        b = rv("b", dist.Normal(a, 1.0))
        c = rv("c", dist.Normal(b, 1.0))
        rv("d", dist.Normal(c, 1.0), obs=0.5)

    density = traced(chain_of_three()).density
    assert density.restrict(("a",)).target.terms == ("a", "b")
    assert density.restrict(("c",)).target.terms == ("c", "d")
    assert density.restrict(("a", "b")).target.terms == ("a", "b", "c")
    assert density.restrict(("a",)).depends_on_rest
    assert not density.restrict(("a", "b", "c")).depends_on_rest


def test_independent_blocks_do_not_depend_on_the_rest():
    @model
    def two():
        rv("a", dist.Normal(0.0, 1.0))
        rv("b", dist.Gamma(1.0, 1.0))

    density = traced(two()).density
    assert not density.restrict(("a",)).depends_on_rest
    assert density.restrict(("a",)).target.terms == ("a",)


@pytest.mark.parametrize("sites", [("mu",), ("tau",), ("theta",), ("mu", "tau"), ("tau", "theta")])
def test_a_block_density_differs_from_the_joint_by_a_constant(sites):
    tm = traced(eight_schools_centered(Y, SIGMA))
    density, block = tm.density, tm.density.restrict(sites)
    q = jnp.asarray(RNG.normal(size=density.dimension))
    other = q.at[block.coordinates].set(RNG.normal(size=block.target.dimension))
    given = block.constants(q, block.prepare(tm.data))
    assert all(np.array_equal(a, b) for a, b in zip(given, block.constants(other, block.prepare(tm.data)), strict=True))
    within = block.target.log_density(other[block.coordinates], *given) - block.target.log_density(
        q[block.coordinates], *given
    )
    joint = density.log_density(other, *tm.data) - density.log_density(q, *tm.data)
    np.testing.assert_allclose(within, joint, rtol=1e-10)


def test_take_and_put_leave_the_rest_alone():
    density = traced(eight_schools_centered(Y, SIGMA)).density
    block = density.restrict(("mu", "theta"))
    q = jnp.arange(10.0)
    assert q[block.coordinates].tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    np.testing.assert_array_equal(take(q, block.coordinates), q[block.coordinates])
    assert put(q, block.coordinates, jnp.zeros(9)).tolist() == [0.0, 1.0, *[0.0] * 8]


def test_what_the_rest_determines_is_computed_before_the_block_moves():
    @model
    def heavy(X, y):
        a = rv("a", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        s = rv("s", dist.HalfNormal(1.0))
        rv("y", dist.Normal(X @ a, s), obs=y)

    X, y = RNG.normal(size=(50, 3)), RNG.normal(size=50)
    tm = traced(heavy(X, y))
    products = lambda program: sum(e.primitive.name == "dot_general" for e in program.equations)  # noqa: E731
    assert products(tm.density.program) == 1
    scale = tm.density.restrict(("s",))
    assert (products(scale.target.given.before), products(scale.target.given.after)) == (1, 0)
    coefficients = tm.density.restrict(("a",))
    assert (products(coefficients.target.given.before), products(coefficients.target.given.after)) == (0, 1)


def test_the_whole_density_keeps_terms_of_data_alone():
    @model
    def with_constant(y):
        rv("x", dist.Normal(0.0, 1.0))
        rv("y", dist.Normal(0.0, 1.0), obs=y)

    tm = traced(with_constant(2.0))
    whole = tm.density.restrict(("x",))
    np.testing.assert_allclose(
        whole.target.log_density(jnp.zeros(1), *whole.constants(jnp.zeros(1), whole.prepare(tm.data))),
        scipy.stats.norm.logpdf([0.0, 2.0]).sum(),
    )


def test_data_are_arguments_of_the_traced_program():
    tm = traced(eight_schools_centered(Y, SIGMA))
    assert any(np.array_equal(array, Y) for array in tm.data)
    moved = tuple(array + 1 if np.array_equal(array, Y) else array for array in tm.data)
    q = jnp.ones(10)
    other = traced(eight_schools_centered(Y + 1, SIGMA))
    np.testing.assert_allclose(tm.density.log_density(q, *moved), other.density.log_density(q, *other.data))
    assert jax.make_jaxpr(tm.density.log_density)(q, *tm.data).consts == []
