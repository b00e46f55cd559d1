"""Branches that are not taken: reverse mode is finite there, to any order, and all else is as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import (
    AutoForward,
    AutoReverse,
    SecondOrder,
    as_jax_function,
    hessian,
    jacobian,
    prepare_gradient,
    value_and_gradient,
)
from dualtape.ad.reverse import RecomputeLoops, SegmentLoops
from dualtape.ad.selection.fences import selected
from dualtape.ad.tape import AutoTape
from jax import lax
from jax.scipy.special import xlogy

X = np.array([-1.0, 0.0, 2.0, 0.5])
SEEN = np.array([1.0, np.nan, -2.0, np.nan])
UP = X > 0
SAFE = np.where(UP, X, 1.0)


def where_positive(branch, otherwise=0.0):
    return lambda x: jnp.sum(jnp.where(x > 0, branch(x), otherwise))


def by_itself(x):
    y = jnp.log(x)
    return jnp.sum(jnp.where(jnp.isfinite(y), y, 0.0))


def nested(x):
    inner = jnp.where(x > 1, jnp.sqrt(x - 1), jnp.log(x))
    return jnp.sum(jnp.where(x > 0, inner, 0.0))


def both_sides(x):
    y = x - 0.0
    return jnp.sum(jnp.where(y > 0, y * jnp.sqrt(y), jnp.sqrt(1 - y)))


def shared_number(x):
    """One number for all elements, used inside the branch and outside it."""
    return jnp.sum(jnp.where(UP, x[2] / jnp.asarray(X), 0.0)) + x[2] ** 2


def in_a_scan(x):
    def step(carry, t):
        y = jnp.where(t > 0, jnp.log(t), 0.0)
        return carry + y, y

    carry, ys = lax.scan(step, 0.0, x, reverse=True)
    return carry + jnp.sum(ys)


def after_a_scan(x):
    _, ys = lax.scan(lambda carry, t: (carry, jnp.log(t)), 0.0, x)
    return jnp.sum(jnp.where(x > 0, ys, 0.0))


def in_a_branch(x):
    return lax.cond(x[0] < 0, where_positive(jnp.log), jnp.sum, x)


def missing(x):
    return jnp.nansum((SEEN - x[0]) ** 2 * jnp.exp(-x[3]))


def clipped(x):
    return jnp.sum(jnp.sqrt(jnp.maximum(x - 0.25, 0.0)))


def factorised(x):
    """A decision for a whole array: nothing on the way to it counts."""
    return jnp.where(x[0] > 0, jnp.sum(jnp.linalg.cholesky(jnp.diag(x))), x[2] ** 2)


def gathered(x):
    return jnp.sum(jnp.where(UP, jnp.sqrt(x[jnp.array([1, 1, 2, 3])]), 0.0))


def zeros(**given):
    gradient = np.zeros(4)
    for position, number in given.items():
        gradient[int(position[1:])] = number
    return gradient


LOG, LOG2 = UP / SAFE, -1.0 * UP / SAFE**2
ROOT, ROOT2 = UP / np.sqrt(SAFE) / 2, -1.0 * UP * SAFE**-1.5 / 4
# The function, its gradient at X, and the diagonal of its Hessian where that is diagonal.
CASES = {
    "log": (where_positive(jnp.log), LOG, LOG2),
    "log1p": (where_positive(lambda x: jnp.log1p(x - 1)), LOG, LOG2),
    "sqrt": (where_positive(jnp.sqrt), ROOT, ROOT2),
    "power": (where_positive(lambda x: jnp.power(x, 0.5)), ROOT, ROOT2),
    "quotient": (lambda x: jnp.sum(jnp.where(x != 0, 1 / x, 0.0)), np.array([-1, 0, -0.25, -4]), None),
    "overflow": (lambda x: jnp.sum(jnp.where(UP, x, jnp.exp(x + jnp.where(UP, 1e4, 0.0)))), UP + ~UP * np.exp(X), None),
    "xlogy": (where_positive(lambda x: xlogy(x, x)), UP * (1 + np.log(SAFE)), LOG),
    "by itself": (by_itself, LOG, LOG2),
    "nested": (nested, np.array([0, 0, 0.5, 2]), np.array([0, 0, -0.25, -4])),
    "both sides": (
        both_sides,
        np.where(UP, 1.5 * np.sqrt(SAFE), -0.5 / np.sqrt(np.where(UP, 1, 1 - X))),
        np.where(UP, 0.75 / np.sqrt(SAFE), -0.25 * np.where(UP, 1, 1 - X) ** -1.5),
    ),
    "shared number": (shared_number, zeros(x2=2.5 + 4), zeros(x2=2)),
    "scan": (in_a_scan, 2 * LOG, 2 * LOG2),
    "after a scan": (after_a_scan, LOG, LOG2),
    "cond": (in_a_branch, LOG, LOG2),
    "inside a checkpoint": (lambda x: jax.checkpoint(where_positive(jnp.log))(x), LOG, LOG2),
    "around a checkpoint": (where_positive(jax.checkpoint(jnp.log)), LOG, LOG2),
    "before a checkpoint": (where_positive(lambda x: 2 * jax.checkpoint(jnp.log)(jnp.sqrt(x))), LOG, LOG2),
    "jit": (jax.jit(where_positive(jax.jit(jnp.log))), LOG, LOG2),
    "vmap": (lambda x: jnp.sum(jax.vmap(lambda t: lax.cond(t > 0, jnp.log, jnp.zeros_like, t))(x)), LOG, LOG2),
    "missing values": (missing, zeros(x0=np.exp(-0.5) * (-2 * 2 - 2 * -1), x3=-np.exp(-0.5) * 5), None),
    "clipped": (clipped, 0.5 * UP / np.sqrt(np.maximum(X - 0.25, 0.25)), None),
    "factorisation": (factorised, zeros(x2=4), None),
    "gather": (gathered, np.array([0, 0, 0.5 / np.sqrt(2), 0.5 / np.sqrt(0.5)]), None),
}
PAIRS = [
    AutoReverse(),
    SecondOrder(AutoForward(), AutoReverse()),
    SecondOrder(AutoReverse(), AutoForward()),
    AutoReverse(RecomputeLoops()),
]


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_finite_and_right_and_the_value_is_the_same(name):
    f, expected, _ = CASES[name]
    for adtype in (AutoReverse(SegmentLoops()), AutoTape(compile=True), AutoForward()):
        value, gradient = value_and_gradient(f, adtype, X)
        np.testing.assert_allclose(value, f(jnp.asarray(X)), rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(gradient, expected, rtol=1e-13, atol=1e-15, err_msg=repr(adtype))


@pytest.mark.parametrize("name", ["log", "quotient", "by itself", "scan", "around a checkpoint", "factorisation"])
def test_jax_alone_gives_nan(name):
    assert not np.isfinite(jax.grad(CASES[name][0])(X)).all()


@pytest.mark.parametrize("name", [name for name, (*_, second) in CASES.items() if second is not None])
def test_second_derivatives_are_right(name):
    f, _, second = CASES[name]
    for adtype in PAIRS[:3]:
        np.testing.assert_allclose(hessian(f, adtype, X), np.diag(second), rtol=1e-12, atol=1e-14, err_msg=repr(adtype))
    by_jax = jax.jacfwd(jax.grad(as_jax_function(f, AutoReverse())))(X)
    np.testing.assert_allclose(by_jax, np.diag(second), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("adtype", PAIRS, ids=repr)
def test_a_cotangent_that_happens_to_be_zero_still_moves(adtype):
    """w log(x) at w = 0: the derivative by x is zero there, its derivative by w is not."""

    def f(x):
        return jnp.sum(jnp.where(x[:2] > 0, x[2:] * jnp.log(x[:2]), 0.0))

    got = hessian(f, adtype, np.array([-1.0, 2.0, 0.0, 0.0]))
    expected = np.zeros((4, 4))
    expected[1, 3] = expected[3, 1] = 0.5
    np.testing.assert_allclose(got, expected, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_works_prepared_in_compiled_and_batched_programs(dtype):
    f, _, _ = CASES["log"]
    points = np.stack([X, -X, X + 3]).astype(dtype)
    prepared = prepare_gradient(f, AutoReverse(), points[0])
    _, gradients = jax.jit(jax.vmap(prepared.value_and_gradient))(points)
    assert gradients.dtype == dtype
    np.testing.assert_allclose(gradients, np.where(points > 0, 1 / np.where(points > 0, points, 1), 0), rtol=1e-6)


def test_jacobians_too():
    got = jacobian(lambda x: jnp.where(x > 0, jnp.log(x), x), AutoReverse(), X)
    np.testing.assert_allclose(got, np.diag(np.where(UP, 1 / SAFE, 1.0)))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sum(jnp.log(x) * jnp.sin(x)),
        lambda x: jnp.sum(jnp.where(x > 0, x, -2.0 * x) ** 2),
        lambda x: jnp.sum(lax.scan(lambda c, t: (jnp.where(t > 0, c, t), c), 0.0, x)[1]),
        lambda x: jnp.sum(jnp.maximum(x, 0.0) ** 2),
    ],
)
def test_a_program_that_needs_no_fence_stays_as_it_is(f):
    assert str(jax.make_jaxpr(selected(f, X))(X)) == str(jax.make_jaxpr(f)(X))


def test_the_compiled_value_costs_nothing():
    f, _, _ = CASES["both sides"]
    counts = [jax.jit(g).lower(X).compile().cost_analysis()["flops"] for g in (f, selected(f, X))]
    assert counts[0] == counts[1]


def test_what_a_loop_decides_after_the_branch_is_not_computed_twice():
    def f(x):
        y = lax.scan(lambda c, t: (c + jnp.log(t), None), 0.0, x)[0]
        return jnp.where(jnp.isfinite(y), y, 0.0)

    assert str(jax.make_jaxpr(selected(f, X))(X)).count("scan[") == 1


def test_a_selection_hidden_in_a_rule_is_the_rules_own():
    @jax.custom_vjp
    def halved(x):
        return jnp.where(x > 0, jnp.log(x), 0.0)

    halved.defvjp(lambda x: (halved(x), None), lambda _, c: (0.5 * c,))
    _, gradient = value_and_gradient(lambda x: jnp.sum(halved(x)), AutoReverse(), X)
    np.testing.assert_allclose(gradient, np.full(4, 0.5))
