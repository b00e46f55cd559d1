"""Tall matrices of constants by columns: the same numbers, and only where they are constants."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import AutoForward, AutoReverse, prepare_gradient, value_and_gradient
from dualtape.ad.layout import by_columns
from jax import lax

RNG = np.random.default_rng(7)
TALL, WIDE, SQUARE = RNG.normal(size=(200, 4)), RNG.normal(size=(4, 200)), RNG.normal(size=(4, 4))
WEIGHTS = RNG.normal(size=200)

FUNCTIONS = {
    "matrix times vector": lambda x, X: jnp.sum(jnp.tanh(X @ x)),
    "vector times matrix": lambda x, X: jnp.sum(jnp.tanh(x @ X.T)),
    "rows summed": lambda x, X: jnp.sum(((WEIGHTS * jnp.sum(x)) @ X) ** 2),
    "made from constants": lambda x, X: jnp.sum(jnp.tanh(((X - X.mean(0)) / X.std(0)) @ x)),
    "in a function of its own": lambda x, X: jax.jit(lambda X, x: jnp.sum(jnp.tanh(X @ x)))(X, x),
    "in a loop": lambda x, X: lax.scan(lambda c, w: (c + jnp.sum(jnp.tanh(X @ (w * x))), None), 0.0, WEIGHTS[:3])[0],
    "matrix differentiated": lambda x, X: jnp.sum(jnp.tanh((X * x) @ jnp.ones(4))),
    "wide, square and of two": lambda x, X: jnp.sum(WIDE.T[:4] @ SQUARE @ x) + jnp.sum(X @ jnp.outer(x, x)),
}


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_values_and_gradients_are_the_same(f, adtype):
    x = RNG.normal(size=4)
    value, gradient = value_and_gradient(f, adtype, x, TALL)
    expected, reference = jax.value_and_grad(f)(x, TALL)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
def test_the_matrix_may_be_batched_or_differentiated_around_it(adtype):
    f = FUNCTIONS["matrix times vector"]
    x, matrices = RNG.normal(size=4), np.stack([TALL, TALL**2])
    prepared = prepare_gradient(f, adtype, x, TALL)
    got = jax.jit(jax.vmap(prepared.gradient, in_axes=(None, 0)))(x, matrices)
    np.testing.assert_allclose(got, [jax.grad(f)(x, X) for X in matrices], rtol=1e-9)
    for derivative in (jax.jacfwd, jax.jacrev):
        got = derivative(prepared.gradient, argnums=1)(x, TALL)
        np.testing.assert_allclose(got, jax.jacfwd(jax.grad(f), argnums=1)(x, TALL), rtol=1e-9, atol=1e-12)


def copies(f, x, *constants):
    program = str(jax.make_jaxpr(lambda x, *constants: by_columns(lambda x: f(x, *constants))(x))(x, *constants))
    return program.count("optimization_barrier")


def test_one_copy_of_a_constant_matrix_is_made_and_none_of_another():
    x = np.ones(4)
    assert copies(FUNCTIONS["matrix times vector"], x, TALL) == 1
    assert copies(lambda x, X: jnp.sum(X @ x) + jnp.sum((X @ (2 * x)) ** 2), x, TALL) == 1
    assert copies(FUNCTIONS["made from constants"], x, TALL) == 1
    assert copies(FUNCTIONS["matrix differentiated"], x, TALL) == 0
    assert copies(lambda x, X: jnp.sum(X @ x), x, SQUARE) == 0
    assert copies(lambda x, X: jnp.sum(X @ x), x, TALL[:32]) == 0


def test_the_copy_is_made_before_a_compiled_loop():
    prepared = prepare_gradient(FUNCTIONS["matrix times vector"], AutoReverse(), np.ones(4), TALL)

    def descend(x, X):
        return lax.fori_loop(0, 100, lambda _, x: x - 0.01 * prepared.gradient(x, X), x)

    program = jax.jit(descend).lower(np.ones(4), TALL).compile().as_text()
    (loop,) = (part for part in program.split("\n\n") if re.search(r" dot\(", part))
    assert "f64[4,200]" in loop
    assert "f64[200,4]" not in loop
