"""Rematerialisation: the same gradient, less memory in the compiled program, and values that can be read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import AutoForward, AutoReverse, SecondOrder, hessian, prepare_gradient
from dualtape.ad.reverse import RecomputeLoops, SegmentLoops
from jax import lax

DOTS = jax.checkpoint_policies.dots_saveable
REMATS = [
    RecomputeLoops(),
    RecomputeLoops(DOTS),
    SegmentLoops(),
    SegmentLoops(7),
    SegmentLoops(1000),
    SegmentLoops(3, DOTS),
]
W = np.linspace(-1, 1, 16).reshape(4, 4)


def forwards(x):
    def step(c, t):
        h = jnp.tanh(W @ c + t)
        return h, (jnp.sum(h), t)

    carry, (sums, _) = lax.scan(step, x, jnp.linspace(0, 1, 50))
    return jnp.sum(carry) + jnp.sum(jnp.sin(sums))


def backwards(x):
    """In reverse, with a tree as carry, integers beside, and a closed-over parameter."""

    def step(c, t):
        i, h = c
        return (i + 1, jnp.sin(h * t + x)), h * i

    return jnp.sum(lax.scan(step, (0, x), jnp.linspace(0, 1, 10), reverse=True)[1] ** 2)


def nested(x):
    """A loop in a branch in a jitted function in a loop."""

    @jax.jit
    def inner(c, t):
        return lax.cond(t > 0.5, lambda c: lax.fori_loop(0, 5, lambda i, c: jnp.sin(c) + x, c), jnp.cos, c)

    return jnp.sum(lax.scan(lambda c, t: (inner(c, t), None), x, jnp.linspace(0, 1, 9))[0])


@jax.custom_vjp
def doubled(x):
    return x


doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))


def with_a_rule(x):
    return jnp.sum(lax.scan(lambda c, _: (jnp.sin(doubled(c)), None), x, length=6)[0])


def empty_loop(x):
    return jnp.sum(lax.scan(lambda c, t: (c * t, None), x, jnp.zeros(0))[0] ** 2)


@pytest.mark.parametrize("remat", REMATS, ids=repr)
@pytest.mark.parametrize("f", [forwards, backwards, nested, with_a_rule, empty_loop])
def test_the_gradient_is_the_same(f, remat):
    x = np.linspace(0.1, 0.9, 4)
    value, gradient = prepare_gradient(f, AutoReverse(remat), np.ones(4)).value_and_gradient(x)
    expected_value, expected = jax.value_and_grad(f)(x)
    np.testing.assert_allclose(value, expected_value, rtol=1e-14)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("length", range(1, 6))
@pytest.mark.parametrize("remat", [SegmentLoops(), SegmentLoops(3)], ids=repr)
def test_second_derivatives_through_short_loops(length, remat):
    """Also where no segment is full."""

    def f(x):
        return jnp.sum(lax.scan(lambda c, t: (jnp.sin(c) * x * t, c), x, jnp.linspace(0.5, 1, length))[0])

    x = np.array([0.3, 0.8])
    for adtype in (AutoReverse(remat), SecondOrder(AutoForward(), AutoReverse(remat))):
        np.testing.assert_allclose(hessian(f, adtype, x), jax.hessian(f)(x), rtol=1e-12, atol=1e-15)


def long_loop(x):
    """2 000 steps, each of which computes ten times what it carries."""

    def step(c, t):
        h = c
        for _ in range(5):
            h = jnp.tanh(0.9 * jnp.sin(h) + t)
        return h, None

    return jnp.sum(lax.scan(step, x, jnp.linspace(0, 1, 2000))[0])


def compiled(remat):
    prepared = prepare_gradient(long_loop, AutoReverse(remat), np.ones(100))
    return jax.jit(prepared.value_and_gradient).lower(np.ones(100)).compile()


def test_memory_falls_in_the_compiled_program():
    plain, recompute, segment = (compiled(remat) for remat in (None, RecomputeLoops(), SegmentLoops()))
    sizes = [program.memory_analysis().temp_size_in_bytes for program in (plain, recompute, segment)]
    carries = 2000 * 100 * 8
    assert sizes[0] > 4 * carries
    assert carries <= sizes[1] < 1.2 * carries
    assert sizes[2] < 0.6 * carries  # 45 carries, and the residuals of 45 steps
    x = np.linspace(0, 1, 100)
    for program in (recompute, segment):
        for got, expected in zip(program(x), plain(x), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_compiler_does_not_undo_it():
    def tanhs(remat):
        return compiled(remat).as_text().count(" tanh(")

    plain = tanhs(None)
    assert tanhs(RecomputeLoops()) >= plain + 5
    # A policy that keeps everything recomputes nothing: what is counted is the effect of the policy.
    assert tanhs(RecomputeLoops(jax.checkpoint_policies.everything_saveable)) == plain


def test_adtypes_with_rematerialisation_are_values_with_a_readable_form():
    assert repr(AutoReverse()) == "AutoReverse()"
    assert repr(AutoReverse(SegmentLoops(8))) == "AutoReverse(remat=SegmentLoops(length=8))"
    assert "ots" in repr(AutoReverse(RecomputeLoops(DOTS)))
    assert " at 0x" not in repr(RecomputeLoops(DOTS))
    assert AutoReverse(SegmentLoops()) == AutoReverse(SegmentLoops()) != AutoReverse()
    assert len({AutoReverse(RecomputeLoops()), AutoReverse(RecomputeLoops()), AutoReverse(None)}) == 2


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: AutoReverse(DOTS), TypeError, "policy of JAX goes inside"),
        (lambda: AutoReverse(RecomputeLoops), TypeError, "got <class"),
        (lambda: SegmentLoops(0), ValueError, "positive.*got 0"),
        (lambda: RecomputeLoops("dots"), TypeError, "checkpoint_policies.*got 'dots'"),
    ],
)
def test_bad_options_are_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
