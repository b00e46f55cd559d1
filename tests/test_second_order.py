"""Hessians, Hessian-vector products and sparse matrices, against closed forms; compression is counted."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import (
    AbstractForwardBackend,
    AutoByDimension,
    AutoForward,
    AutoReverse,
    DifferentiationError,
    PreparationError,
    prepare_gradient,
)
from dualtape.ad.finite_difference import AutoFiniteDiff
from dualtape.ad.hessian import gradient_and_hvp, hessian, hvp, prepare_hessian, prepare_hvp, value_gradient_and_hessian
from dualtape.ad.operators import prepare_jacobian, value_and_jacobian
from dualtape.ad.second_order import SecondOrder
from dualtape.ad.sparse import AutoSparse
from dualtape.ad.tape import AutoTape
from jax import lax

F, R, FD = AutoForward(), AutoReverse(), AutoFiniteDiff()
PAIRS = [None, F, R, *(SecondOrder(outer, inner) for outer in (F, R) for inner in (F, R)), SecondOrder(FD, R)]
RNG = np.random.default_rng(5)
X, V, K = RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2))


def quartic(x, k):
    """Gradient 4 k x³, Hessian diag(12 k x²), and a product of all."""
    return jnp.sum(k * x**4) + jnp.prod(x)


def quartic_hessian(x, k):
    flat = x.ravel()
    products = np.prod(flat) / np.outer(flat, flat)
    return (np.diag((12 * k * x**2).ravel()) + products * (1 - np.eye(4))).reshape(2, 2, 2, 2)


@pytest.mark.parametrize("adtype", [*PAIRS, AutoTape(), SecondOrder(F, AutoTape())], ids=repr)
def test_hessians_and_their_products(adtype):
    expected = quartic_hessian(X, K)
    slope = 4 * K * X**3 + np.prod(X) / X
    tolerance = {"rtol": 1e-7, "atol": 1e-8}
    value, gradient, matrix = value_gradient_and_hessian(quartic, adtype, X, K)
    np.testing.assert_allclose(value, quartic(X, K), rtol=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12)
    np.testing.assert_allclose(matrix, expected, **tolerance)
    gradient, product = gradient_and_hvp(quartic, adtype, X, V, K)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12)
    np.testing.assert_allclose(product, np.tensordot(expected, V, 2), **tolerance)
    prepared = prepare_hessian(quartic, adtype, X + 1, K)
    assert isinstance(prepared.adtype, SecondOrder)
    batch = jax.jit(jax.vmap(prepared.hessian, (0, None)))(np.stack([X + 1, X]), K)
    np.testing.assert_allclose(batch[1], expected, **tolerance)
    products = jax.jit(prepare_hvp(quartic, adtype, X + 1, V, K).hvp)(X, V, K)
    np.testing.assert_allclose(products, product, **tolerance)


def test_pytrees_are_nested_as_by_jax():
    p = {"a": X[0], "b": (X[1, 0],)}

    def f(p):
        return jnp.sum(p["a"] ** 3) * p["b"][0] ** 2

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), hessian(f, None, p), jax.hessian(f)(p))


def squared_root_by_loop(x):
    """Newton's method for the square root of each x, as many steps as it takes, then its cube."""
    done = lax.while_loop(lambda r: jnp.any(jnp.abs(r * r - x) > 1e-12), lambda r: (r + x / r) / 2, jnp.ones_like(x))
    return jnp.sum(done**3)


def test_a_rule_says_which_pair_it_took_and_why():
    usual = prepare_hessian(quartic, None, X, K)
    assert usual.adtype == SecondOrder(F, R)
    assert "forward over reverse" in usual.choice.reason
    loop = prepare_hessian(squared_root_by_loop, AutoByDimension(), np.array([2.0, 3.0]))
    assert loop.adtype == SecondOrder(F, F)
    assert "cannot differentiate" in loop.choice.reason
    x = np.array([2.0, 3.0])
    np.testing.assert_allclose(loop.hessian(x), np.diag(0.75 / np.sqrt(x)), rtol=1e-8)
    with pytest.raises(DifferentiationError, match=r"squared_root_by_loop.*while_loop.*AutoForward\(\)"):
        hessian(squared_root_by_loop, SecondOrder(F, R), x)


def test_where_one_derivative_is_asked_for_the_inner_adtype_differentiates():
    prepared = prepare_gradient(quartic, SecondOrder(F, R), X, K)
    assert prepared.adtype == R
    assert "inner" in prepared.choice.reason
    sparse = prepare_gradient(quartic, AutoSparse(), X, K)
    assert sparse.adtype == F
    assert "threshold" in sparse.choice.reason
    assert "AutoSparse" in sparse.choice.reason


BAD = {
    "outer": (lambda: SecondOrder(AutoByDimension(), R), TypeError, "outer must be a backend.*AutoByDimension"),
    "inner": (lambda: SecondOrder(F, "reverse"), TypeError, "inner.*'reverse'"),
    "nested": (lambda: AutoSparse(AutoSparse()), TypeError, "must be dense"),
    "vector": (lambda: hvp(quartic, None, X, V[0], K), ValueError, r"vector.*float64\[2, 2\].*float64\[2\]"),
    "result": (lambda: hessian(jnp.sin, None, X), TypeError, r"float64\[2, 2\]; return a scalar"),
    "integer": (lambda: hvp(quartic, None, np.ones(2, int), V), TypeError, "int64"),
    "prepared": (
        lambda: prepare_hvp(quartic, None, X, V, K).hvp(X, V[0], K),
        PreparationError,
        r"vector +float64\[2, 2",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


needs_asdex = pytest.mark.skipif(importlib.util.find_spec("asdex") is None, reason="asdex is not installed")


def banded(x, k):
    return k * x[1:] ** 2 * x[:-1]


def banded_jacobian(x, k):
    return np.diag(2 * k * x[1:] * x[:-1], 1)[:-1] + np.diag(np.r_[k * x[1:] ** 2, 0.0])[:-1]


@dataclasses.dataclass(frozen=True)
class Counting(AbstractForwardBackend):
    """Forward mode that notes how many tangents it was given."""

    passes: list[int] = dataclasses.field(default_factory=list, compare=False)

    def pushforward(self, f, x, tangents):
        self.passes.append(len(tangents))
        return AutoForward().pushforward(f, x, tangents)

    def chunk(self, dimension):
        return dimension


@needs_asdex
@pytest.mark.parametrize("adtype", [AutoByDimension(), F, R, FD, SecondOrder(F, R)], ids=repr)
def test_sparse_jacobians(adtype):
    x = RNG.normal(size=100)
    prepared = prepare_jacobian(banded, AutoSparse(adtype), np.zeros(100), 0.0)
    value, matrix = jax.jit(prepared.value_and_jacobian)(x, 3.0)
    assert matrix.nse == 198
    assert "2 colours for 198 entries" in prepared.choice.reason
    np.testing.assert_allclose(value, banded(x, 3.0), rtol=1e-14)
    np.testing.assert_allclose(matrix.todense(), banded_jacobian(x, 3.0), rtol=1e-8, atol=1e-10)
    batch = jax.vmap(lambda x: prepared.jacobian(x, 3.0))(np.stack([x, 2 * x]))
    np.testing.assert_allclose(batch.todense()[1], banded_jacobian(2 * x, 3.0), rtol=1e-8, atol=1e-10)


@needs_asdex
def test_sparse_derivatives_take_as_many_passes_as_colours():
    counting = Counting()
    prepare_jacobian(banded, AutoSparse(counting), np.zeros(100), 0.0)
    assert set(counting.passes) == {2}
    dense = Counting()
    prepare_jacobian(banded, dense, np.zeros(100), 0.0)
    assert set(dense.passes) == {100}
    outer = Counting()
    prepared = prepare_hessian(lambda x: jnp.sum(banded(x, 1.0)), AutoSparse(SecondOrder(outer, R)), np.zeros(100))
    assert set(outer.passes) == {3}
    x = RNG.normal(size=100)
    np.testing.assert_allclose(
        prepared.hessian(x).todense(), jax.hessian(lambda x: jnp.sum(banded(x, 1.0)))(x), rtol=1e-12, atol=1e-12
    )


@needs_asdex
@pytest.mark.parametrize("mode", [F, R], ids=repr)
def test_the_pattern_holds_at_every_point(mode):
    def f(x, k):
        turned = jnp.where(x[0] > 0, x, x[::-1])
        return k * turned**2 * jnp.array([0.0, 1, 1, 1, 1, 1]) + lax.cond(x[1] > 0, jnp.sin, lambda x: 0 * x, x)

    prepared = prepare_jacobian(f, AutoSparse(mode), np.ones(6), 0.0)
    assert "2 colours for 11 entries, where a dense matrix takes 6" in prepared.choice.reason
    for x, k in ((np.arange(1.0, 7), 0.0), (-np.arange(1.0, 7), 1.0), (np.arange(1.0, 7), 2.0), (np.zeros(6), 3.0)):
        expected = jax.jacobian(f)(x, k)
        np.testing.assert_allclose(prepared.jacobian(x, k).todense(), expected, rtol=1e-12, atol=1e-12)


@needs_asdex
def test_sparse_matrices_of_pytrees_and_higher_arrays():
    p = {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=5)}

    def f(p):
        return p["a"][:, 1:] * p["a"][:, :-1], {"s": jnp.sin(p["b"])}

    _, matrix = value_and_jacobian(f, AutoSparse(), p)
    is_matrix = {"is_leaf": lambda leaf: hasattr(leaf, "todense")}
    assert matrix[0]["a"].shape == (3, 3, 3, 4)
    assert matrix[0]["b"].nse == 0
    dense = jax.tree.map(lambda leaf: leaf.todense(), matrix, **is_matrix)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), dense, jax.jacobian(f)(p))

    def g(p):
        return jnp.sum(p["a"][1:] ** 2 * p["a"][:-1]) + jnp.sum(p["b"] ** 3)

    second = jax.tree.map(lambda leaf: leaf.todense(), hessian(g, AutoSparse(), p), **is_matrix)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), second, jax.hessian(g)(p))


@needs_asdex
@pytest.mark.parametrize("mode", [AutoByDimension(), F, R], ids=repr)
@pytest.mark.parametrize("f", [jnp.round, lambda x: jnp.sum(x[1:] ** 2), lambda x: x[:0]])
def test_sparse_matrices_of_zeros_one_row_and_none(mode, f):
    x = RNG.normal(size=4)
    np.testing.assert_allclose(
        prepare_jacobian(f, AutoSparse(mode), np.ones(4)).jacobian(x).todense(), jax.jacobian(f)(x)
    )


@needs_asdex
def test_sparse_refusals_are_named():
    with pytest.raises(DifferentiationError, match=r"pass them as constants"):
        jax.jit(lambda k: prepare_jacobian(lambda x: x * k, AutoSparse(F), np.ones(3)).jacobian(np.ones(3)))(np.ones(3))
    with pytest.raises(DifferentiationError, match=r"while_loop"):
        hessian(squared_root_by_loop, AutoSparse(), np.ones(2))


def test_without_asdex_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "asdex", None)
    with pytest.raises(DifferentiationError, match=r"pip install 'dualtape\[sparse\]'"):
        prepare_jacobian(jnp.sin, AutoSparse(), np.ones(3))
