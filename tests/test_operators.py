"""Operators beside the gradient: every one by every backend, prepared and not, against closed forms and JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import (
    AutoForward,
    AutoReverse,
    DifferentiationError,
    PreparationError,
    default_adtype,
    hessian,
    hvp,
)
from dualtape.ad import operators as op
from dualtape.ad.finite_difference import AutoFiniteDiff
from dualtape.ad.reverse import RecomputeLoops
from dualtape.ad.second_order import SecondOrder
from dualtape.ad.tape import AutoTape
from jax import lax

BACKENDS = [
    None,
    AutoForward(),
    AutoForward(chunk_size=2),
    AutoReverse(),
    AutoReverse(RecomputeLoops()),
    AutoFiniteDiff(),
    AutoTape(),
    SecondOrder(AutoReverse(), AutoForward()),
]
RNG = np.random.default_rng(3)
A = RNG.normal(size=(2, 3))
X = RNG.normal(size=3)


def linear_sine(x, a):
    """Its Jacobian is cos(a x) a."""
    return jnp.sin(a @ x)


JACOBIAN = np.cos(A @ X)[:, None] * A
TOLERANCE = {"rtol": 1e-8, "atol": 1e-9}


@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
def test_products_and_jacobian_of_a_function_of_arrays(adtype):
    tangent, cotangent = RNG.normal(size=3), RNG.normal(size=2)
    cases = [
        (op.value_and_pushforward, op.pushforward, op.prepare_pushforward, (tangent, A), JACOBIAN @ tangent),
        (op.value_and_pullback, op.pullback, op.prepare_pullback, (cotangent, A), cotangent @ JACOBIAN),
        (op.value_and_jacobian, op.jacobian, op.prepare_jacobian, (A,), JACOBIAN),
    ]
    for with_value, alone, prepare, rest, expected in cases:
        value, derivative = with_value(linear_sine, adtype, X, *rest)
        np.testing.assert_allclose(value, np.sin(A @ X), rtol=1e-14)
        np.testing.assert_allclose(derivative, expected, **TOLERANCE)
        np.testing.assert_allclose(alone(linear_sine, adtype, X, *rest), expected, **TOLERANCE)
        elsewhere = prepare(linear_sine, adtype, X + 1, *rest)
        method = getattr(elsewhere, alone.__name__)
        np.testing.assert_allclose(method(X, *rest), expected, **TOLERANCE)
        np.testing.assert_allclose(jax.jit(method)(X, *rest), expected, **TOLERANCE)
        batch = jax.vmap(lambda x, method=method, rest=rest: method(x, *rest))(np.stack([X - 1, X]))
        np.testing.assert_allclose(batch[1], expected, **TOLERANCE)


@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
def test_derivative_of_a_function_of_one_number(adtype):
    value, derivative = op.value_and_derivative(lambda t, k: jnp.sin(t * k), adtype, 0.3, np.arange(3.0))
    np.testing.assert_allclose(value, np.sin(0.3 * np.arange(3)), rtol=1e-14)
    np.testing.assert_allclose(derivative, np.cos(0.3 * np.arange(3)) * np.arange(3), **TOLERANCE)
    prepared = op.prepare_derivative(lambda t: t**3, adtype, 1.0)
    steps = lax.scan(lambda t, _: (t - prepared.derivative(t) / 30, t), jnp.asarray(1.0), length=3)[1]
    np.testing.assert_allclose(steps, [1, 0.9, 0.819], **TOLERANCE)
    np.testing.assert_allclose(op.gradient(lambda t: t**3, adtype, 2.0), 12, **TOLERANCE)


def tree_function(p):
    return {"u": p["a"] ** 2 * p["b"], "v": (jnp.sum(jnp.tanh(p["a"])), p["b"] * jnp.ones((2, 2)))}


POINT = {"a": RNG.normal(size=(2, 3)), "b": np.float64(0.7)}


@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
def test_pytrees_are_nested_as_by_jax(adtype):
    expected = jax.jacobian(tree_function)(POINT)
    value, matrix = op.value_and_jacobian(tree_function, adtype, POINT)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), value, tree_function(POINT))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), matrix, expected)
    tangent = jax.tree.map(np.cos, POINT)
    along = op.pushforward(tree_function, adtype, POINT, tangent)
    _, exact = jax.jvp(tree_function, (POINT,), (tangent,))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), along, exact)
    cotangent = jax.tree.map(np.cos, value)
    back = op.pullback(tree_function, adtype, POINT, cotangent)
    (exact,) = jax.vjp(tree_function, POINT)[1](jax.tree.map(jnp.asarray, cotangent))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), back, exact)


@jax.custom_vjp
def by_loop(x):
    return x**2


def count_to(n, x):
    return lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] + x), (0, 0 * x))[1]


by_loop.defvjp(lambda x: (x**2, x), lambda x, g: (count_to(2, x * g),))


def test_a_reverse_backend_pushes_forward_where_its_pullback_cannot_be_transposed():
    np.testing.assert_allclose(op.pushforward(by_loop, AutoReverse(), X, np.ones(3)), 2 * X)
    with pytest.raises(DifferentiationError, match=r"by_loop.*custom_vjp.*AutoReverse\(\)"):
        op.pushforward(by_loop, AutoForward(), X, np.ones(3))


def test_a_forward_backend_pulls_back_through_a_while_loop():
    np.testing.assert_allclose(
        op.pullback(lambda x: count_to(3, x), AutoForward(), X, np.arange(3.0)), 3 * np.arange(3)
    )
    with pytest.raises(DifferentiationError, match="while_loop"):
        op.pullback(lambda x: count_to(3, x), AutoReverse(), X, np.arange(3.0))
    prepared = op.prepare_jacobian(lambda x: count_to(3, x), None, np.ones(30))
    assert prepared.adtype == AutoForward()
    assert "reverse mode cannot" in prepared.choice.reason


def test_a_tape_takes_the_branch_of_its_point():
    def f(x):
        return x**2 if x[0] > 0 else -x

    prepared = op.prepare_jacobian(f, AutoTape(), np.ones(2))
    for x, diagonal in ((np.array([1.0, 2.0]), [2.0, 4.0]), (np.array([-1.0, 2.0]), [-1.0, -1.0])):
        np.testing.assert_allclose(jax.jit(prepared.jacobian)(x), np.diag(diagonal))


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (40, 2), (2, 40)])
@pytest.mark.parametrize("adtype", [AutoForward(), AutoForward(chunk_size=2), AutoReverse()], ids=repr)
def test_empty_tall_and_wide(adtype, rows, columns):
    matrix = RNG.normal(size=(rows, columns))
    np.testing.assert_allclose(op.jacobian(lambda x: matrix @ x, adtype, np.ones(columns)), matrix, **TOLERANCE)


@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
def test_nothing_to_differentiate(adtype):
    nothing, ones = np.zeros(0), np.ones(2)

    def f(x):
        return jnp.sum(x) + jnp.ones(2)

    np.testing.assert_array_equal(op.pushforward(f, adtype, nothing, nothing), [0, 0])
    assert op.pullback(f, adtype, nothing, ones).shape == (0,)
    assert op.jacobian(f, adtype, nothing).shape == (2, 0)
    assert op.gradient(jnp.sum, adtype, nothing).shape == (0,)
    assert hessian(jnp.sum, adtype, nothing).shape == (0, 0)
    assert hvp(jnp.sum, adtype, nothing, nothing).shape == (0,)
    assert op.pushforward(lambda x: x[:0], adtype, ones, ones).shape == (0,)
    np.testing.assert_array_equal(op.pullback(lambda x: x[:0], adtype, ones, nothing), [0, 0])
    np.testing.assert_array_equal(op.jacobian(lambda x: 3.0, adtype, ones), [0, 0])


def test_the_default_is_used_where_no_adtype_is_named():
    assert op.prepare_jacobian(jnp.sin, None, np.ones(3)).adtype == AutoForward()
    with default_adtype(AutoReverse()):
        assert op.prepare_jacobian(jnp.sin, None, np.ones(3)).adtype == AutoReverse()


ONES = np.ones(3)
BAD = {
    "tangent shape": (lambda: op.pushforward(jnp.sin, None, ONES, np.ones(4)), ValueError, r"tangent.*\[3\].*\[4\]"),
    "tangent tree": (lambda: op.pushforward(jnp.sin, None, ONES, {"a": ONES}), ValueError, r"expected.*got.*'a'"),
    "tangent dtype": (lambda: op.pushforward(jnp.sin, None, ONES, np.ones(3, int)), ValueError, r"float64.*int64"),
    "cotangent shape": (lambda: op.pullback(jnp.sum, None, ONES, ONES), ValueError, r"cotangent.*\[\].*\[3\]"),
    "integer": (lambda: op.jacobian(jnp.sin, None, np.ones(3, int)), TypeError, "floating-point.*got int64"),
    "complex": (lambda: op.jacobian(jnp.sin, None, np.ones(3, complex)), TypeError, "floating-point.*got complex128"),
    "integer result": (lambda: op.jacobian(lambda x: x > 0, None, ONES), TypeError, "got bool; return"),
    "complex result": (lambda: op.jacobian(lambda x: x * 1j, None, ONES), TypeError, "got complex128; return"),
    "derivative": (lambda: op.derivative(jnp.sin, None, ONES), TypeError, r"one number.*\(3,\).*use jacobian"),
    "adtype": (lambda: op.jacobian(jnp.sin, "forward", ONES), TypeError, "got 'forward'"),
    "function": (lambda: op.jacobian(None, ONES, ONES), TypeError, r"must be a function f\(x, .* got None; the order"),
    "constant": (lambda: op.jacobian(jnp.sin, None, ONES, "abc"), TypeError, "constant 1 .* got 'abc'; close over"),
    "cotangent": (lambda: op.pullback(jnp.sin, None, ONES, "abc"), TypeError, "the cotangent .* got 'abc'"),
    "tangent text": (lambda: op.pushforward(jnp.sin, None, ONES, "abc"), ValueError, r"float64\[3\], got 'abc'; resh"),
    "vector list": (lambda: op.pushforward(jnp.sin, None, ONES, [1.0, 2]), ValueError, r"\[float64\[\], int64\[\]\]"),
    "text result": (lambda: op.jacobian(lambda x: "abc", None, ONES), TypeError, "got 'abc'; return"),
    "no result": (lambda: op.jacobian(lambda x: None, None, ONES), TypeError, "got None; return"),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_with_expected_and_got(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_what_was_prepared_refuses_other_arguments_by_name():
    prepared = op.prepare_pushforward(linear_sine, None, X, X, A)
    with pytest.raises(PreparationError, match=r"tangent +float64\[3\] +float64\[4\] +<-- differs"):
        prepared.pushforward(X, np.ones(4), A)
    with pytest.raises(PreparationError, match=r"constant 1 +float64\[2, 3\] +float64\[3\] +<-- differs"):
        prepared.pushforward(X, X, X)
    with pytest.raises(PreparationError, match=r"x +float64\[3\] +float32\[3\]"):
        op.prepare_jacobian(jnp.sin, None, ONES).jacobian(ONES.astype(np.float32))
