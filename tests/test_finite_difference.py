"""Finite differences against closed forms: orders, accuracy, borders, refusals; and black boxes in compiled loops."""

import threading

import dualtape.ad.finite_difference as finite_difference
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
from dualtape import NUTS, model, rv, sample
from dualtape.ad import (
    AutoForward,
    AutoReverse,
    DifferentiationError,
    SecondOrder,
    hessian,
    prepare_gradient,
    value_and_gradient,
)
from dualtape.ad.black_box import black_box
from dualtape.ad.finite_difference import AutoFiniteDiff, CentralDifference, ComplexStep, ForwardDifference, Ridders
from jax import lax

SCHEMES = [ForwardDifference(), *(CentralDifference(p) for p in (2, 4, 6, 8)), Ridders(), ComplexStep()]


def slope(f, x, scheme=None, **options):
    """The derivative of a function of one number by `AutoFiniteDiff`."""
    adtype = AutoFiniteDiff(**options) if scheme is None else AutoFiniteDiff(scheme, **options)
    return value_and_gradient(f, adtype, x)[1]


@pytest.mark.parametrize("order", [1, 2, 4, 6, 8])
def test_the_error_falls_with_the_step_as_the_order_says(order, monkeypatch):
    scheme = ForwardDifference() if order == 1 else CentralDifference(order)
    errors = []
    for h in (0.25, 0.125):
        monkeypatch.setattr(finite_difference, "_balanced_step", lambda *_, h=h, **__: h)
        errors.append(abs(slope(jnp.exp, np.float64(1.0), scheme) - np.e))
    # The next term of the error's series moves the slope by less than 0.3.
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.3


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_polynomials_up_to_the_order_are_exact_and_the_next_is_not(order, monkeypatch):
    monkeypatch.setattr(finite_difference, "_balanced_step", lambda *_, **__: 0.5)
    degrees = np.arange(order + 2.0)
    _, slopes = AutoFiniteDiff(CentralDifference(order)).jacobian(lambda x: x**degrees, jnp.array([1.5]))
    expected = degrees * 1.5 ** (degrees - 1)
    np.testing.assert_allclose(slopes[:-1, 0], expected[:-1], rtol=1e-13)
    assert abs(slopes[-1, 0] / expected[-1] - 1) > 1e-5


# Each is a function of x/s at a point u of x/s, with its derivative.
TABLE = {
    "exp": (jnp.exp, 0.7, np.exp),
    "sin": (jnp.sin, 0.7, np.cos),
    "log": (jnp.log, 1.0, lambda u: 1 / u),
    "inverse": (lambda u: 1 / u, 1.0, lambda u: -1 / u**2),
    "root": (jnp.sqrt, 1.0, lambda u: 0.5 / np.sqrt(u)),
    "lgamma": (jax.lax.lgamma, 3.3, scipy.special.digamma),
    "narrow bump": (lambda u: jnp.exp(-50 * u**2), 0.13, lambda u: -100 * u * np.exp(-50 * u**2)),
    "fast": (lambda u: jnp.sin(16 * jnp.pi * u), 0.3, lambda u: 16 * np.pi * np.cos(16 * np.pi * u)),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_default_is_accurate_at_all_scales(name):
    f, u, derivative = TABLE[name]
    prepared = prepare_gradient(lambda x, size: f(x / size), AutoFiniteDiff(), np.float64(1.0), 1.0)
    for size in (1e-6, 1e-3, 1.0, 1e3, 1e6):
        got = prepared.value_and_gradient(np.float64(u * size), size)[1]
        np.testing.assert_allclose(got, derivative(u) / size, rtol=1e-11)


@pytest.mark.parametrize("name", TABLE)
def test_the_default_is_accurate_in_single_precision(name):
    f, u, derivative = TABLE[name]
    got = slope(f, np.float32(u))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, derivative(np.float64(np.float32(u))), rtol=1e-4 if name == "fast" else 3e-5)


@pytest.mark.parametrize(
    ("scheme", "rtol"),
    [(ForwardDifference(), 1e-6), (CentralDifference(2), 1e-8), *((CentralDifference(p), 1e-10) for p in (4, 6, 8)),
     (Ridders(), 1e-11), (ComplexStep(), 1e-14)],
)  # fmt: skip
def test_gradients_by_every_scheme_in_jit_and_loops(scheme, rtol):
    def f(x, c):
        return jnp.sum(jnp.exp(x["a"]) * c) + x["a"][0] * x["b"] ** 3

    x = {"a": np.array([0.3, -1.0, 2.0]), "b": np.float64(-1.5)}
    c = np.array([1.0, 2.0, 0.1])
    for chunk_size in (None, 2):
        prepared = prepare_gradient(f, AutoFiniteDiff(scheme, chunk_size=chunk_size), x, c)
        value, gradient = jax.jit(prepared.value_and_gradient)(x, c)
        np.testing.assert_allclose(value, f(x, c), rtol=1e-15)
        expected = np.exp(x["a"]) * c + np.array([-(1.5**3), 0.0, 0.0])
        np.testing.assert_allclose(gradient["a"], expected, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(gradient["b"], 3 * 0.3 * 1.5**2, rtol=rtol)
    stacked = jax.vmap(prepared.value_and_gradient, (0, None))(jax.tree.map(lambda v: jnp.stack([v, v]), x), c)[1]
    np.testing.assert_allclose(stacked["b"], 2 * [3 * 0.3 * 1.5**2], rtol=rtol)
    last, _ = lax.scan(lambda y, _: (jax.tree.map(lambda v, g: v - 1e-3 * g, y,
                       prepared.value_and_gradient(y, c)[1]), None), jax.tree.map(jnp.asarray, x), None, 1)  # fmt: skip
    np.testing.assert_allclose(last["b"], -1.5 - 3e-3 * 0.3 * 1.5**2, rtol=rtol)


def test_a_wrong_derivative_is_seen():
    got = slope(jnp.exp, np.float64(0.7))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(got, (1 + 1e-9) * np.exp(0.7), rtol=1e-11)


def test_pushforward_scales_with_the_tangent_and_takes_results_of_any_shape():
    def f(x):
        return jnp.stack([jnp.sin(x), x**2])

    x = jnp.array([0.5, 2.0])
    tangents = jnp.array([[1e-8, 2e-8], [0.0, 0.0], [3e5, 0.0]])
    value, pushed = AutoFiniteDiff().pushforward(f, x, tangents)
    np.testing.assert_array_equal(value, f(x))
    expected = np.stack([np.cos(x) * tangents, 2 * x * tangents], axis=1)
    np.testing.assert_allclose(pushed, expected, rtol=1e-10)


def test_noise_is_recognised():
    def f(x):  # a smooth function with an error of 1e-8, as of an iterative solver
        return jnp.exp(x) + 1e-8 * jnp.sin(1e13 * x)

    assert abs(slope(f, np.float64(0.3)) - np.exp(0.3)) < 1e-5
    assert abs(slope(f, np.float64(0.3), ForwardDifference()) - np.exp(0.3)) > 1e-3 / 4


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (lambda x: jnp.where(x >= 0, -x + x**2, -jnp.inf), 0.0, -1.0),  # at the border, inside on the right
        (lambda x: jnp.where(x <= 1, jnp.exp(x), jnp.nan), 1.0, np.e),  # inside on the left
        (jnp.log, 1e-5, 1e5),  # near the border: shorter steps
        (lambda x: jnp.log1p(-x), 1 - 2.0**-17, -(2.0**17)),
        (lambda x: jnp.exp(1e4 * x), 0.01, 1e4 * np.exp(100.0)),  # overflows to the right
    ],
)
def test_at_a_border_the_step_is_shortened_or_one_sided(f, x, expected):
    np.testing.assert_allclose(slope(f, np.float64(x)), expected, rtol=1e-9)
    # With a fixed step it is NaN or infinite or, where the border lies within rounding, wrong: never close to right.
    assert not abs(slope(f, np.float64(x), CentralDifference(2)) / expected - 1) < 1e-6


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_where_the_function_is_nan_so_is_the_derivative(scheme):
    value, gradient = value_and_gradient(jnp.log, AutoFiniteDiff(scheme), np.float64(-1.0))
    assert np.isnan(value)
    assert np.isnan(gradient)


def elementwise(x):
    functions = (
        jnp.exp, jnp.exp2, jnp.expm1, jnp.log, jnp.log1p, jnp.sin, jnp.cos, jnp.tan, jnp.arcsin, jnp.arccos,
        jnp.arctan, jnp.sinh, jnp.cosh, jnp.tanh, jnp.arcsinh, lambda x: jnp.arccosh(1 + x), jnp.arctanh, jnp.sqrt,
        lax.rsqrt, lax.logistic, jnp.square, jnp.reciprocal, lambda x: x**2.5, lambda x: (-x) ** 3.0, lambda x: x**-3,
        lambda x: jax.checkpoint(jnp.sin)(x) * lax.stop_gradient(x),
        lambda x: x - x**3 / lax.fori_loop(0, 3, lambda i, c: c * x + i, jnp.ones_like(x)),
        lambda x: x * jnp.max(jax.nn.softplus(jnp.arange(3, dtype=x.dtype))) + jnp.abs(lax.stop_gradient(x)),
    )  # fmt: skip
    return jnp.stack([f(x) for f in functions])


ANALYTIC = [
    elementwise,
    lambda x: jnp.cumsum(jnp.concatenate([x, x[::-1]]).reshape(2, -1)[:, 1:] @ x[1:]),
    lambda x: lax.scan(lambda c, t: ((c[0] + 1, c[1] * x[1] + t * (c[0] > 1)), c[1] + x[0]), (0.0, 1.0), x)[1],
    lambda x: jnp.where(jnp.arange(3) > 1, x[jnp.array([2, 0, 1])], jnp.prod(x)),
]


@pytest.mark.parametrize(
    ("f", "dtype"), [*((f, np.float64) for f in ANALYTIC), *((f, np.float32) for f in ANALYTIC[1:])]
)
def test_complex_steps_are_exact_to_rounding(f, dtype):
    jacobian = jax.jit(lambda x: AutoFiniteDiff(ComplexStep()).jacobian(f, x))
    for x in (np.array([0.1, 0.4, 0.8], dtype), np.array([1e-3, 0.05, 0.9], dtype)):
        value, slopes = jacobian(x)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(value, jax.jit(f)(x), rtol=10 * eps, atol=10 * eps)
        assert slopes.dtype == dtype
        np.testing.assert_allclose(slopes, jax.jit(jax.jacfwd(f))(x), rtol=50 * eps, atol=10 * eps)


@pytest.mark.parametrize(
    ("f", "primitive"),
    [
        (jnp.abs, "abs"),
        (lambda x: jnp.where(x > 0, x, 2 * x), "gt"),
        (lambda x: jnp.maximum(x, 0.0), "max"),
        (lax.lgamma, "lgamma"),
        (jnp.round, "round"),
        (jax.jit(lambda x: jnp.sign(x) * x), "sign"),
        (lambda x: lax.scan(lambda c, t: (jnp.abs(c - t), None), x, jnp.arange(3.0))[0], "abs"),
        (lambda x: jnp.linalg.cholesky(x * jnp.eye(2))[0, 0], "cholesky"),
        (black_box(np.sin, ()), "pure_callback"),
        (lambda x: x**x, "pow"),
    ],
)
def test_complex_steps_refuse_what_is_not_analytic_by_name(f, primitive):
    def named(x):
        return f(x)

    with pytest.raises(DifferentiationError, match=rf"named: .*`{primitive}`.*AutoFiniteDiff\(\)"):
        prepare_gradient(named, AutoFiniteDiff(ComplexStep()), np.float64(0.5))


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("f", [lambda x: 3.0, lambda x: jnp.float32(3.0), lambda x: jnp.ones(())])
def test_a_result_that_does_not_depend_on_x_has_derivative_zero(scheme, f):
    value, gradient = value_and_gradient(f, AutoFiniteDiff(scheme), np.ones(2))
    assert value == f(0.0)
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_refused_by_name(scheme, dtype):
    with pytest.raises(DifferentiationError, match=r"cannot take differences in b?float16, .* compute in float32"):
        prepare_gradient(jnp.sin, AutoFiniteDiff(scheme), jnp.ones((), dtype))
    with pytest.raises(DifferentiationError, match=r"cannot take differences in b?float16"):
        prepare_gradient(lambda x: jnp.sin(x).astype(dtype), AutoFiniteDiff(scheme), np.float32(1.0))


def test_reverse_mode_over_an_adaptive_derivative_names_the_remedies():
    prepared = prepare_gradient(jnp.exp, AutoFiniteDiff(), np.float64(0.5))
    message = r"reverse mode cannot pass a derivative by .*SecondOrder\(AutoForward\(\), AutoFiniteDiff\(\)\)"
    for reverse in (jax.grad, lambda f: lambda x: value_and_gradient(f, AutoReverse(), x)[1]):
        with pytest.raises(DifferentiationError, match=message):
            reverse(prepared.gradient)(0.5)
        np.testing.assert_allclose(reverse(lambda x: prepared.value_and_gradient(x)[0])(0.5), np.exp(0.5))
        fixed = prepare_gradient(jnp.exp, AutoFiniteDiff(CentralDifference()), np.float64(0.5))
        np.testing.assert_allclose(reverse(fixed.gradient)(0.5), np.exp(0.5), rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(prepared.gradient)(0.5), np.exp(0.5), rtol=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_scheme_differentiates_its_own_derivative_or_refuses(scheme):
    if scheme.nests:
        got = hessian(jnp.exp, AutoFiniteDiff(scheme), np.float64(0.5))
        np.testing.assert_allclose(got, np.exp(0.5), rtol=1e-4)
        return
    with pytest.raises(DifferentiationError, match=r"cannot differentiate a derivative that it took itself; use Auto"):
        hessian(jnp.exp, AutoFiniteDiff(scheme), np.float64(0.5))
    got = hessian(jnp.exp, SecondOrder(AutoForward(), AutoFiniteDiff(scheme)), np.float64(0.5))
    np.testing.assert_allclose(got, np.exp(0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoFiniteDiff("central"), r"scheme must be Ridders\(\).*got 'central'"),
        (lambda: AutoFiniteDiff(ComplexStep), r"a value and not a class, got <class"),
        (lambda: AutoFiniteDiff(typical_size=0.0), r"typical_size must be a positive number, got 0.0"),
        (lambda: AutoFiniteDiff(chunk_size=0), r"chunk_size must be a positive integer or None, got 0"),
        (lambda: CentralDifference(3), r"order must be 2, 4, 6 or 8, got 3"),
        (lambda: Ridders(tolerance=2.0), r"tolerance must be a relative error between 0 and 1"),
        (lambda: Ridders(max_rows=2), r"max_rows must be an integer >= 3, got 2"),
        (lambda: black_box(3, ()), r"expected a Python function, got 3"),
        (lambda: black_box(np.sin), r"black_box\(sin\): give either the shape of the result.*example"),
        (lambda: black_box(np.sin, 3), r"result must be a shape such as \(\) or \(3,\), got 3"),
        (lambda: black_box(np.sin, example=1.0), r"example must be a tuple of arguments, got 1.0; write \(x,\)"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def exponential_integral(b):
    """The integral of exp from 0 to b, by quadrature."""
    return scipy.integrate.quad(np.exp, 0.0, b)[0]


BOXES = [
    (black_box(exponential_integral, ()), np.exp),
    (black_box(scipy.special.gammaln, example=(1.0,), concurrent=True), scipy.special.digamma),
    (lambda x: lax.cond(x > 0, black_box(np.sin, ()), jnp.cos, x), np.cos),
]


@pytest.mark.parametrize(("f", "derivative"), BOXES)
def test_black_boxes_are_differentiated_in_compiled_loops_and_threads(f, derivative):
    prepared = prepare_gradient(lambda x: f(x[0]) * x[1], AutoFiniteDiff(), np.ones(2))

    @jax.jit
    def walk(x):
        return lax.scan(lambda x, _: (x * 1.1, prepared.value_and_gradient(x)[1]), x, None, 3)[1]

    starts = np.array([[0.4 + 0.1 * i, 2.0] for i in range(4)])
    walked = [None] * len(starts)

    def run(i):
        with jax.enable_x64(True):
            walked[i] = np.asarray(walk(starts[i]))

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(starts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for start, gradients in zip(starts, walked, strict=True):
        for k, gradient in enumerate(gradients):
            x = start * 1.1**k
            np.testing.assert_allclose(gradient, [derivative(x[0]) * x[1], f(x[0])], rtol=1e-9)


def test_callbacks_without_a_rule_for_batches_are_differentiated():
    def f(x):  # in single precision, for the threads of XLA do not know this one's setting
        return jax.pure_callback(lambda v: np.sum(np.sin(np.asarray(v))), jax.ShapeDtypeStruct((), x.dtype), x)

    x = np.array([0.3, 1.0, 2.0], np.float32)
    np.testing.assert_allclose(slope(f, x), np.cos(x), rtol=1e-4)


def test_black_boxes_get_their_own_float64_arrays_and_give_the_precision_of_jax():
    seen = []

    def spoil(x, n):
        seen.append((type(x), x.dtype, n.dtype.kind))
        x[:] = 0.0
        return x.sum(dtype=np.float32) + n

    box = black_box(spoil, ())
    x = jnp.array([1.0, 2.0], jnp.float32)
    assert box(x, 3).dtype == jnp.float64
    np.testing.assert_array_equal(x, [1.0, 2.0])
    with jax.enable_x64(False):
        assert jax.jit(box)(x, 3).dtype == jnp.float32
    assert set(seen) == {(np.ndarray, np.dtype("float64"), "i")}


def test_black_boxes_run_one_at_a_time_unless_told_otherwise():
    barrier = threading.Barrier(2)

    def meet(x):
        try:
            barrier.wait(0.3)
            return 1.0
        except threading.BrokenBarrierError:
            barrier.reset()
            return 0.0

    for concurrent in (True, False):
        box, met = black_box(meet, (), concurrent=concurrent), []
        threads = [threading.Thread(target=lambda box=box, met=met: met.append(float(box(1.0)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert met == 2 * [float(concurrent)]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(2), r"black_box\(simulator\): returned shape \(2,\), expected \(\)"),
        (1j, r"black_box\(simulator\): returned complex of dtype complex128, expected real numbers"),
        (None, r"black_box\(simulator\): returned NoneType of dtype object"),
        (RuntimeError("the valve is shut"), r"RuntimeError: the valve is shut"),
    ],
)
def test_what_goes_wrong_in_a_black_box_comes_through(returned, message):
    def simulator(x):
        if isinstance(returned, Exception):
            raise returned
        return returned

    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.jit(black_box(simulator, ()))(1.0))


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
def test_other_modes_refuse_black_boxes_by_name(adtype):
    box = black_box(np.sin, ())
    message = (
        r"area: black_box\(sin\) calls back into Python \(`pure_callback`\).*differentiate_with\(AutoFiniteDiff\(\)\)"
    )
    with pytest.raises(DifferentiationError, match=message):
        prepare_gradient(lambda x: jax.jit(box)(x) * x, adtype, np.float64(1.0), subject="area")
    # Of what does not depend on the argument no derivative is wanted.
    got = value_and_gradient(lambda x, c: box(c) * x + box(lax.stop_gradient(x)), adtype, np.float64(2.0), 0.5)[1]
    np.testing.assert_allclose(got, np.sin(0.5), rtol=1e-15)


def test_sampling_through_a_black_box():
    calls = []
    square = black_box(lambda m: calls.append(1) or m**2, ())

    @model
    def boxed():
        m = rv("m", dist.Normal(0.0, 10.0))
        rv("y", dist.Normal(square(m - 3.0) / 2.0 + m, 1.0), obs=np.float64(4.5))

    @model
    def plain():
        m = rv("m", dist.Normal(0.0, 10.0))
        rv("y", dist.Normal((m - 3.0) ** 2 / 2.0 + m, 1.0), obs=np.float64(4.5))

    options = {"draws": 50, "warmup": 50, "chains": 2, "seed": 1, "progress": False, "init": {"m": 3.0}}
    by_differences = sample(boxed(), NUTS(adtype=AutoFiniteDiff()), **options)
    by_duals = sample(plain(), NUTS(adtype=AutoForward()), **options)
    assert calls
    # The same chains up to rounding, before chaos sets in.
    np.testing.assert_allclose(by_differences.posterior["m"][:, :5], by_duals.posterior["m"][:, :5], rtol=1e-5)


def test_tiny_coordinates_are_differentiated_on_their_own_scale():
    """Steps of the typical size skip over what log(x + 1e-18) does at 1e-18; those beside it keep their steps."""
    x = np.array([1e-18, 1e-12, 1.0])
    _, gradient = value_and_gradient(lambda x: jnp.log(x[0] + 1e-18) + jnp.sin(x[1]) * x[2], AutoFiniteDiff(), x)
    np.testing.assert_allclose(gradient, [5e17, 1.0, 1e-12], rtol=1e-7, atol=1e-8)
