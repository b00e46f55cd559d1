"""Mixed modes: sub-functions with an adtype of their own under every outer mode, and functions for other libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import AutoByDimension, AutoForward, AutoReverse, DifferentiationError, value_and_gradient
from dualtape.ad.finite_difference import AutoFiniteDiff
from dualtape.ad.mixed import as_jax_function, differentiate_with
from dualtape.ad.reverse import SegmentLoops
from dualtape.ad.tape import AutoTape
from jax import lax

X = np.array([0.7, 1.9])
OUTER = [AutoForward(), AutoForward(chunk_size=1), AutoReverse(), None]


def root_by_loop(x):
    """Newton's method for the cube root, as many steps as it takes: reverse mode cannot pass."""
    return lax.while_loop(
        lambda r: jnp.any(jnp.abs(r**3 - x) > 1e-14), lambda r: r - (r**3 - x) / (3 * r**2), 1.0 + 0 * x
    )


@jax.custom_vjp
def root_by_rule(x):
    """A rule for reverse mode alone."""
    return jnp.cbrt(x)


root_by_rule.defvjp(lambda x: (jnp.cbrt(x), x), lambda x, g: (g * x ** (-2 / 3) / 3,))


@jax.custom_vjp
def root_by_rule_with_loop(x):
    """A rule whose pullback is a loop: JAX cannot transpose it."""
    return jnp.cbrt(x)


def thirds(x, g):
    done = lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] + g * x ** (-2 / 3)), (0, 0 * g))[1]
    return (done / 6,)


root_by_rule_with_loop.defvjp(lambda x: (jnp.cbrt(x), x), thirds)


def root_in_python(x):
    """A black box."""
    return jax.pure_callback(np.cbrt, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


INNER = {
    "loop": (root_by_loop, AutoForward(), 1e-9),
    "chunks": (root_by_loop, AutoForward(chunk_size=1), 1e-9),
    "rule": (root_by_rule, AutoReverse(), 1e-12),
    "rule with loop": (root_by_rule_with_loop, AutoReverse(), 1e-12),
    "remat": (jnp.cbrt, AutoReverse(SegmentLoops()), 1e-12),
    "tape": (jnp.cbrt, AutoTape(), 1e-12),
    "black box": (root_in_python, AutoFiniteDiff(), 1e-7),
    "by dimension": (root_by_rule, AutoByDimension(), 1e-12),
}


@pytest.mark.parametrize("outer", OUTER, ids=repr)
@pytest.mark.parametrize(("g", "adtype", "tolerance"), INNER.values(), ids=INNER.keys())
def test_a_sub_function_is_differentiated_by_its_own_adtype_in_every_outer_mode(g, adtype, tolerance, outer):
    inner = differentiate_with(adtype)(g)

    def f(x):
        return jnp.sum(jnp.sin(inner(2 * x)) * x)

    def exact(x):
        return jnp.sum(jnp.sin(jnp.cbrt(2 * x)) * x)

    value, gradient = value_and_gradient(f, outer, X)
    np.testing.assert_allclose(value, exact(X), rtol=1e-13)
    np.testing.assert_allclose(gradient, jax.grad(exact)(X), rtol=tolerance)


@pytest.mark.parametrize(("g", "adtype", "tolerance"), INNER.values(), ids=INNER.keys())
def test_under_jit_vmap_and_scan(g, adtype, tolerance):
    inner = differentiate_with(adtype)(g)

    def loop(x):
        return jnp.sum(lax.scan(lambda c, _: (inner(c) + x, None), x, length=3)[0])

    def exact(x):
        return jnp.sum(lax.scan(lambda c, _: (jnp.cbrt(c) + x, None), x, length=3)[0])

    batch = np.stack([X, X + 1])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(jax.grad(loop)))(batch), jax.vmap(jax.grad(exact))(batch), rtol=tolerance
    )
    np.testing.assert_allclose(jax.vmap(jax.jacfwd(loop))(batch), jax.vmap(jax.grad(exact))(batch), rtol=tolerance)


@pytest.mark.parametrize("case", ["loop", "rule", "rule with loop", "tape", "black box"])
@pytest.mark.parametrize("second", [jax.jacfwd, jax.jacrev])
def test_second_derivatives(case, second):
    g, adtype, _ = INNER[case]
    inner = differentiate_with(adtype)(g)
    if case == "rule with loop" and second is jax.jacrev:
        with pytest.raises(ValueError, match="while_loop"):  # of the rule itself: nothing to choose inside
            second(jax.grad(lambda x: jnp.sum(inner(x) ** 2)))(X)
        return
    got = second(jax.grad(lambda x: jnp.sum(inner(x) ** 2)))(X)
    expected = np.diag(2 / 3 * -1 / 3 * X ** (-4 / 3))
    np.testing.assert_allclose(got, expected, rtol=1e-4 if case == "black box" else 1e-7, atol=1e-6)


def test_trees_integers_and_inactive_data():
    @differentiate_with(AutoForward())
    def g(parameters, n, data):
        powers = parameters["a"] ** n
        return {"sum": jnp.sum(data) * parameters["b"] + powers, "count": n + 1}

    data = np.ones(1000)

    def f(p):
        result = g(p, 3, data)
        return jnp.sum(result["sum"]) * result["count"]

    p = {"a": X, "b": 0.5}
    for grad in (
        jax.grad(f)(p),
        jax.jit(jax.jacfwd(f))(p),
        jax.vmap(jax.grad(f))(jax.tree.map(lambda x: np.asarray(x)[None], p)),
    ):
        np.testing.assert_allclose(np.ravel(grad["a"]), 12 * X**2)
        np.testing.assert_allclose(np.ravel(grad["b"]), 8000)
    # The data are not differentiated: the Jacobian that is formed has three columns, not a thousand and three.
    text = str(jax.make_jaxpr(jax.grad(f))(p))
    assert "1003" not in text
    assert "f64[3,3]" in text or "f64[2,3]" in text
    assert jax.grad(lambda d: g(p, 3, d)["sum"][0])(data).shape == (1000,)


def test_the_adtype_is_really_used():
    def three_halves(x):
        return x * 1.5

    @jax.custom_jvp
    def wrong(x):
        return x

    wrong.defjvp(lambda primals, tangents: (primals[0], 7 * tangents[0]))
    with_rule = differentiate_with(AutoForward())(wrong)
    without = differentiate_with(AutoFiniteDiff())(wrong)
    for outer in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(outer(lambda x: three_halves(with_rule(x)))(2.0), 10.5)
        np.testing.assert_allclose(outer(lambda x: three_halves(without(x)))(2.0), 1.5, rtol=1e-8)


def test_errors_name_the_sub_function_and_its_adtype():
    wrapped = differentiate_with(AutoReverse())(root_by_loop)
    assert wrapped.__name__ == "root_by_loop"
    with pytest.raises(
        DifferentiationError, match=r"root_by_loop \(differentiate_with\(AutoReverse\(\)\)\).*while_loop"
    ):
        jax.grad(lambda x: jnp.sum(wrapped(x)))(X)

    def outer(x):
        return jnp.sum(wrapped(x))

    with pytest.raises(DifferentiationError, match=r"outer: root_by_loop \(differentiate_with"):
        value_and_gradient(outer, None, X)
    with pytest.raises(TypeError, match=r"differentiate_with: adtype must be.*'forward'"):
        differentiate_with("forward")


def log_density(x, data):
    return -jnp.sum((data - x) ** 2) / 2 + jnp.sum(root_by_loop(x))


DATA = np.array([[0.1, 0.3], [0.5, 0.2], [0.9, 1.5]])


def slope(x):
    return np.sum(DATA - x, 0) + x ** (-2 / 3) / 3


def test_as_jax_function_under_every_transformation():
    f = as_jax_function(log_density, AutoForward())
    value, gradient = jax.jit(jax.value_and_grad(f))(X, DATA)
    np.testing.assert_allclose(value, log_density(X, DATA), rtol=1e-13)
    np.testing.assert_allclose(gradient, slope(X), rtol=1e-8)
    batch = np.stack([X, X + 1])
    np.testing.assert_allclose(jax.vmap(jax.grad(f), (0, None))(batch, DATA)[1], slope(X + 1), rtol=1e-8)
    np.testing.assert_allclose(jax.jvp(lambda x: f(x, DATA), (X,), (np.ones(2),))[1], np.sum(slope(X)), rtol=1e-8)
    expected = -3 * np.eye(2) - np.diag(2 / 9 * X ** (-5 / 3))
    np.testing.assert_allclose(jax.hessian(f)(X, DATA), expected, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="while_loop"):
        jax.grad(log_density)(X, DATA)


def test_as_jax_function_takes_the_branch_of_its_point_with_a_tape():
    def f(x):
        return jnp.sum(x**2) if x[0] > 0 else -jnp.sum(x)

    wrapped = jax.jit(jax.value_and_grad(as_jax_function(f, AutoTape())))
    np.testing.assert_allclose(wrapped(X)[1], 2 * X)
    np.testing.assert_allclose(wrapped(-X)[1], [-1, -1])
    np.testing.assert_allclose(wrapped(-X)[0], np.sum(X))


def test_as_jax_function_refuses_what_it_cannot_do():
    f = as_jax_function(log_density, AutoForward())
    with pytest.raises(DifferentiationError, match=r"log_density \(as_jax_function.*not its constants"):
        jax.grad(f, argnums=1)(X, DATA)
    with pytest.raises(TypeError, match="return a scalar"):
        jax.grad(as_jax_function(lambda x: x, None))(X)
    with pytest.raises(DifferentiationError, match=r"log_density.*while_loop"):
        jax.grad(as_jax_function(log_density, AutoReverse()))(X, DATA)


def test_other_libraries_gain_the_choice():
    f = as_jax_function(log_density, AutoForward())
    optax = pytest.importorskip("optax")
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(jax.grad(lambda x: -f(x, DATA))(x), state)
        return (optax.apply_updates(x, updates), state), None

    (x, _), _ = lax.scan(step, (jnp.asarray(X), optimizer.init(jnp.asarray(X))), length=500)
    np.testing.assert_allclose(slope(np.asarray(x)), 0, atol=1e-4)

    blackjax = pytest.importorskip("blackjax")
    kernel = blackjax.hmc(lambda x: f(x, DATA), step_size=0.01, inverse_mass_matrix=np.ones(2), num_integration_steps=5)
    state, info = jax.jit(kernel.step)(jax.random.key(0), kernel.init(X))
    assert abs(info.energy - (-log_density(X, DATA) + jnp.sum(info.momentum**2) / 2)) < 1e-3
    np.testing.assert_allclose(state.logdensity_grad, slope(np.asarray(state.position)), rtol=1e-8)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match=r"must be a function .*, got 3; the order of the arguments is f, adtype"):
        as_jax_function(3, AutoForward())
    with pytest.raises(TypeError, match=r"must be a function .*, got 3; .* differentiate_with\(adtype\)\(f\)"):
        differentiate_with(AutoForward())(3)


def test_keyword_arguments_are_taken_as_they_are():
    power = differentiate_with(AutoForward())(lambda x, n=2: jnp.sum(x**n))
    np.testing.assert_allclose(jax.grad(lambda x: power(x, n=3))(np.array([1.0, 2.0])), [3.0, 12.0])
