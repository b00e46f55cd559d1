"""Derivative rules: of one's own, and in place of JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import AutoForward, AutoReverse, value_and_gradient
from dualtape.ad import rules as registry
from dualtape.ad.rules import Rule, elementwise_rule, logaddexp, register_rule, softplus, xlog1py, xlogy
from jax import lax
from scipy import special

MODES = [AutoForward(), AutoForward(chunk_size=1), AutoReverse()]


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", list(registry._RULES))


@pytest.mark.parametrize("adtype", MODES, ids=repr)
def test_a_rule_serves_both_modes_and_is_the_one_used(adtype):
    @elementwise_rule(lambda value, x, y: 10 * y, lambda value, x, y: 100 * x)
    def product(x, y):
        return x * y

    x = np.array([2.0, 3.0])
    value, gradient = value_and_gradient(lambda x: jnp.sum(product(x[0], x)), adtype, x)
    assert value == 10.0
    # By x[0] as a factor of each element (10 y, twice over) and as an element; slopes ten and a hundred times too big.
    np.testing.assert_allclose(gradient, [10 * 2 + 10 * 3 + 100 * 2, 100 * 2])


def test_a_rule_with_too_few_slopes_is_refused():
    with pytest.raises(TypeError, match=r"2 argument\(s\).*1 slope\(s\).*one slope an argument"):
        elementwise_rule(lambda value, x: 1.0)(jnp.add)(1.0, 2.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: elementwise_rule(3), "needs a slope, .* got 3; write @elementwise_rule"),
        (lambda: elementwise_rule(), "needs a slope, .* got none"),
        (lambda: elementwise_rule(jnp.sin)(2.0), r"decorates a function, got 2.0; give it the slopes first"),
        (lambda: register_rule(3), r"expected a rule, got 3; write Rule\(function, known, replacement\)"),
        (lambda: Rule(jnp.sin, (None,), jnp.sin), "function must be the name of one, .* got <"),
        (lambda: Rule("logaddexp", "0", jnp.sin), r"known must be a tuple .* \(0.0, None\), got '0'"),
        (lambda: Rule("logaddexp", (0.0, None), 3), "replacement must be a function .* got 3; make it with"),
    ],
)
def test_what_is_no_rule_is_refused_by_name(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_slope_of_another_shape_is_refused():
    rounded = elementwise_rule(lambda value, x: jnp.ones(2))(jnp.sin)
    with pytest.raises(TypeError, match=r"sin: slope 1 .* returned shape \(2,\), expected \(3,\)"):
        value_and_gradient(lambda x: jnp.sum(rounded(x)), AutoForward(), np.ones(3))


FAR = np.array([-1000.0, -30.0, -1.0, 0.0, 1e-9, 2.0, 40.0, 1000.0])


@pytest.mark.parametrize("adtype", MODES, ids=repr)
@pytest.mark.parametrize(
    "f", [jax.nn.softplus, softplus, lambda x: jnp.logaddexp(0.0, x), lambda x: -jax.nn.log_sigmoid(-x)]
)
def test_softplus_in_all_its_spellings(f, adtype):
    value, gradient = value_and_gradient(lambda x: jnp.sum(f(x)), adtype, FAR)
    np.testing.assert_allclose(value, np.logaddexp(0, FAR).sum(), rtol=1e-14)
    np.testing.assert_allclose(gradient, special.expit(FAR), rtol=1e-13)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                yield from equations(inner)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sum(jnp.logaddexp(0.0, x)),
        jax.jit(lambda x: jnp.sum(jax.nn.softplus(x))),
        lambda x: lax.scan(lambda c, t: (c + jax.nn.softplus(t), None), 0.0, x)[0],
    ],
)
@pytest.mark.parametrize("adtype", MODES, ids=repr)
def test_the_rule_takes_the_place_of_that_of_jax(f, adtype, clean_registry, monkeypatch):
    def cost():
        derivative = jax.make_jaxpr(lambda x: value_and_gradient(f, adtype, x))(np.ones(3))
        return sum(equation.primitive.name == "exp" for equation in equations(derivative.jaxpr))

    with_rule = cost()
    monkeypatch.setattr(registry, "_RULES", [])
    assert with_rule < cost()


@pytest.mark.parametrize("adtype", MODES, ids=repr)
def test_counts_of_zero_and_events_of_probability_zero(adtype):
    counts, p = np.array([0, 2, 0]), np.array([0.0, 0.5, 0.25])
    _, gradient = value_and_gradient(lambda p: jnp.sum(jax.scipy.special.xlogy(counts, p)), adtype, p)
    np.testing.assert_allclose(gradient, [0, 4, 0])
    _, gradient = value_and_gradient(lambda p: jnp.sum(jax.scipy.special.xlog1py(counts, -p)), adtype, 1 - p)
    np.testing.assert_allclose(gradient, [0, -4, 0])


@pytest.mark.parametrize(("f", "slopes"), [(xlogy, (np.log(3.0), 2 / 3)), (xlog1py, (np.log1p(3.0), 2 / 4))])
def test_both_slopes_of_a_product_with_a_logarithm(f, slopes):
    for adtype in MODES:
        np.testing.assert_allclose(value_and_gradient(lambda x: f(x[0], x[1]), adtype, np.array([2.0, 3.0]))[1], slopes)


def test_a_registered_rule_comes_before_the_older_ones(clean_registry):
    @elementwise_rule(lambda value, x: 5.0 + 0 * x)
    def wrong_softplus(x):
        return softplus(x)

    register_rule(Rule("logaddexp", (0.0, None), wrong_softplus))
    assert value_and_gradient(lambda x: jnp.logaddexp(0.0, x), AutoReverse(), np.float64(1.0))[1] == 5.0
    with pytest.raises(TypeError, match="Rule"):
        register_rule("logaddexp")


PAIRS = [
    (1.0, 3.0), (3.0, 1.0), (2.0, 2.0), (-1000.0, 5.0), (5.0, 1000.0), (-np.inf, 0.5), (np.inf, 1.0), (-np.inf, np.inf)
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("adtype", MODES, ids=repr)
def test_both_arguments_of_logaddexp_may_move(pair, adtype):
    value, gradient = value_and_gradient(lambda x: jnp.logaddexp(x[0], x[1]), adtype, np.array(pair))
    np.testing.assert_allclose(value, np.logaddexp(*pair), rtol=1e-15)
    np.testing.assert_allclose(gradient, [special.expit(pair[0] - pair[1]), special.expit(pair[1] - pair[0])])


@pytest.mark.parametrize("adtype", MODES, ids=repr)
def test_logaddexp_of_the_same_infinities(adtype):
    for both in (-np.inf, np.inf):
        value, gradient = value_and_gradient(lambda x: jnp.logaddexp(x[0], x[1]), adtype, np.array([both, both]))
        assert value == both
        np.testing.assert_array_equal(gradient, [0.5, 0.5])


@pytest.mark.parametrize("x", [-2.0, 0.0, 1.5])
def test_second_derivatives_are_right_where_the_branches_of_a_rule_meet(x):
    slope = special.expit(x) * special.expit(-x)
    np.testing.assert_allclose(jax.hessian(softplus)(x), slope, rtol=1e-14)
    expected = slope * np.array([[1, -1], [-1, 1]])
    np.testing.assert_allclose(jax.hessian(lambda z: logaddexp(z[0], z[1]))(np.array([x, 0.0])), expected, rtol=1e-14)


def test_softplus_is_right_to_the_last_bits():
    x = np.concatenate([np.linspace(-60, 60, 4001), [-700.0, 700.0, -np.inf, np.inf, 0.0]])
    expected = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    np.testing.assert_allclose(softplus(x), expected, rtol=1e-15)
    assert np.isnan(softplus(np.nan))
