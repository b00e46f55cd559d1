"""Gradients: every backend on a list of scenarios, prepared elsewhere than where they are evaluated."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import (
    AbstractForwardBackend,
    AbstractReverseBackend,
    AutoByDimension,
    AutoForward,
    AutoReverse,
    DifferentiationError,
    PreparationError,
    current_adtype,
    default_adtype,
    prepare_gradient,
    set_default_adtype,
    value_and_gradient,
)
from jax import lax

BACKENDS = [AutoForward(), AutoForward(chunk_size=1), AutoForward(chunk_size=3), AutoReverse()]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A function, where to evaluate it, and somewhere else of the same shape where it is prepared."""

    name: str
    f: Callable[..., Any]
    x: Any
    elsewhere: Any
    constants: tuple[Any, ...] = ()


def scan(x):
    return lax.scan(lambda c, t: (0.9 * c + x[0] * t, jnp.tanh(c + x[1])), x[2], jnp.arange(5.0))[1].sum()


RNG = np.random.default_rng(1)
X = RNG.normal(size=(30, 4))
SCENARIOS = [
    Scenario("scalar", lambda x: jnp.sin(x) * x, np.float64(0.7), np.float64(-2.0)),
    Scenario("vector", lambda x: jnp.sum(jnp.exp(x) * x[::-1]), RNG.normal(size=7), np.zeros(7)),
    Scenario("matrix", lambda x: jnp.linalg.slogdet(x @ x.T + jnp.eye(3))[1], RNG.normal(size=(3, 3)), np.eye(3)),
    Scenario(
        "regression with constants",
        lambda b, X, y: -jnp.sum((y - X @ b) ** 2) / 2,
        RNG.normal(size=4),
        np.ones(4),
        (X, RNG.normal(size=30)),
    ),
    Scenario(
        "tree",
        lambda p: jnp.sum(p["a"] ** 2) * p["b"][0] + p["b"][1],
        {"a": RNG.normal(size=(2, 2)), "b": (np.float64(2.0), np.float64(3.0))},
        {"a": np.ones((2, 2)), "b": (np.float64(1.0), np.float64(1.0))},
    ),
    Scenario("gather", lambda x: jnp.sum(x[np.array([0, 0, 2])] ** 2), RNG.normal(size=3), np.ones(3)),
    Scenario("cond", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x[1]), np.array([1.0, 2.0]), -np.ones(2)),
    Scenario("scan", scan, np.array([0.1, 0.2, 0.3]), np.ones(3)),
    Scenario(
        "cholesky", lambda x: jnp.linalg.cholesky(jnp.eye(3) * jnp.exp(x[0]) + 0.1)[2, 1], np.ones(1), np.zeros(1)
    ),
    Scenario("constant", lambda x: jnp.float64(3.0) + 0 * x[0], np.ones(2), np.zeros(2)),
]


def finite_difference(f, x, *constants):
    """Richardson-extrapolated central differences, an order that no backend shares."""
    flat, unravel = jax.flatten_util.ravel_pytree(x)
    flat = np.asarray(flat)

    def slope(i, h):
        step = h * np.eye(len(flat))[i]
        return (float(f(unravel(flat + step), *constants)) - float(f(unravel(flat - step), *constants))) / (2 * h)

    h = 1e-3
    return np.array([(4 * slope(i, h) - slope(i, 2 * h)) / 3 for i in range(len(flat))])


@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_gradient_is_that_of_finite_differences(scenario, adtype):
    prepared = prepare_gradient(scenario.f, adtype, scenario.elsewhere, *scenario.constants)
    for value, gradient in (
        prepared.value_and_gradient(scenario.x, *scenario.constants),
        (scenario.f(scenario.x, *scenario.constants), prepared.gradient(scenario.x, *scenario.constants)),
        value_and_gradient(scenario.f, adtype, scenario.x, *scenario.constants),
    ):
        np.testing.assert_allclose(value, scenario.f(scenario.x, *scenario.constants), rtol=1e-14)
        assert jax.tree.structure(gradient) == jax.tree.structure(scenario.x)
        flat = jax.flatten_util.ravel_pytree(gradient)[0]
        expected = finite_difference(scenario.f, scenario.x, *scenario.constants)
        np.testing.assert_allclose(flat, expected, rtol=1e-8, atol=1e-9)


def test_the_yardstick_rejects_a_wrong_gradient():
    scenario = SCENARIOS[1]
    wrong = 1.0001 * finite_difference(scenario.f, scenario.x)
    right = jax.grad(scenario.f)(scenario.x)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, right, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("adtype", BACKENDS, ids=repr)
def test_prepared_gradients_work_inside_jit_vmap_and_loops(adtype):
    prepared = prepare_gradient(lambda x: jnp.sum(x**3), adtype, np.zeros(3))
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(jax.jit(prepared.value_and_gradient)(x)[1], 3 * x**2)
    batch = np.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(prepared.value_and_gradient)(batch)[1], 3 * batch**2)

    def step(_, q):
        return q - 0.01 * prepared.value_and_gradient(q)[1]

    by_hand = x
    for _ in range(5):
        by_hand = by_hand - 0.03 * by_hand**2
    np.testing.assert_allclose(lax.fori_loop(0, 5, step, jnp.asarray(x)), by_hand, rtol=1e-13)


def cube_root(x):
    """By Newton's method, with as many steps as it takes."""

    def unfinished(r):
        return jnp.abs(r**3 - x[0]) > 1e-13

    return lax.while_loop(unfinished, lambda r: r - (r**3 - x[0]) / (3 * r**2), 1.0 + 0 * x[0]) * x[1]


@pytest.mark.parametrize("adtype", [AutoForward(), AutoForward(chunk_size=1)], ids=repr)
def test_forward_mode_passes_while_loops(adtype):
    _, gradient = value_and_gradient(cube_root, adtype, np.array([5.0, 2.0]))
    np.testing.assert_allclose(gradient, [2 / 3 * 5 ** (-2 / 3), 5 ** (1 / 3)], rtol=1e-9)


def test_reverse_mode_refuses_while_loops_by_name():
    with pytest.raises(DifferentiationError, match=r"cube_root.*while_loop.*AutoForward\(\)"):
        prepare_gradient(cube_root, AutoReverse(), np.ones(2))


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


@pytest.mark.parametrize("dimension", [1, 2, 40])
def test_forward_mode_refuses_custom_vjp_by_name(dimension):
    def f(x):
        return jnp.sum(square(x))

    np.testing.assert_allclose(
        value_and_gradient(f, AutoReverse(), np.full(dimension, 3.0))[1], np.full(dimension, 6.0)
    )
    with pytest.raises(DifferentiationError, match=r"custom_vjp.*AutoReverse\(\)"):
        prepare_gradient(f, AutoForward(), np.ones(dimension))
    assert prepare_gradient(f, AutoByDimension(50), np.ones(dimension)).adtype == AutoReverse()


def test_where_neither_mode_can_go_both_reasons_are_given():
    with pytest.raises(DifferentiationError, match=r"neither mode.*custom_vjp.*And: .*while_loop"):
        prepare_gradient(lambda x: square(cube_root(x)), None, np.ones(2))


@pytest.mark.parametrize(("dimension", "expected"), [(1, AutoForward()), (19, AutoForward()), (20, AutoReverse())])
def test_the_default_rule_is_forward_below_twenty(dimension, expected):
    prepared = prepare_gradient(lambda x: jnp.sum(x**2), None, np.ones(dimension))
    assert prepared.adtype == expected
    assert "threshold of 20" in prepared.choice.reason


def test_the_rule_falls_back_where_a_mode_cannot_go_and_says_so():
    forward = prepare_gradient(cube_root, AutoByDimension(threshold=0), np.ones(2)).choice
    assert forward.backend == AutoForward()
    assert "reverse mode cannot" in forward.reason
    reverse = prepare_gradient(lambda x: square(x[0]), AutoByDimension(), np.ones(1)).choice
    assert reverse.backend == AutoReverse()
    assert "forward mode cannot" in reverse.reason


@dataclasses.dataclass(frozen=True)
class ForwardFake(AbstractForwardBackend):
    """Its derivatives are all 7; it notes how many tangents came in each pass."""

    width: int
    passes: list[int] = dataclasses.field(default_factory=list, compare=False)

    def pushforward(self, f, x, tangents):
        self.passes.append(len(tangents))
        return f(x), jnp.full(len(tangents), 7.0)

    def chunk(self, dimension):
        return min(self.width, dimension)


@dataclasses.dataclass(frozen=True)
class ReverseFake(AbstractReverseBackend):
    """Its derivatives are all 5."""

    def pullback(self, f, x):
        return f(x), lambda cotangents: cotangents[:, None] * jnp.full(x.shape, 5.0)


def test_the_requested_backend_is_the_one_that_runs():
    np.testing.assert_array_equal(value_and_gradient(jnp.sum, ForwardFake(2), np.zeros(5))[1], np.full(5, 7.0))
    np.testing.assert_array_equal(value_and_gradient(jnp.sum, ReverseFake(), np.zeros(5))[1], np.full(5, 5.0))


def test_chunks_have_the_size_that_was_asked_for():
    fake = ForwardFake(2)
    prepare_gradient(jnp.sum, fake, np.zeros(5))
    assert set(fake.passes) == {2}
    whole = ForwardFake(8)
    prepare_gradient(jnp.sum, whole, np.zeros(5))
    assert set(whole.passes) == {5}


@pytest.mark.parametrize("dimension", [0, 33, 70])
def test_dimensions_beyond_one_chunk_and_none_at_all(dimension):
    x = np.arange(1.0, dimension + 1)
    _, gradient = value_and_gradient(lambda x: jnp.sum(x**2) / 2, AutoForward(), x)
    np.testing.assert_array_equal(gradient, x)


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        value, gradient = value_and_gradient(lambda x: jnp.sum(x**2), AutoForward(), np.ones(3, np.float32))
        assert value.dtype == gradient.dtype == jnp.float32


BAD_CALLS = {
    "shape": ((np.zeros(4),), r"x +float64\[3\] +float64\[4\] +<-- differs"),
    "dtype": ((np.zeros(3, np.float32),), r"float64\[3\] +float32\[3\]"),
    "structure": (({"a": np.zeros(3)},), r"x\['a'\]"),
    "constants": ((np.zeros(3), 1.0), r"constant 1 +- +float64\[\]"),
    "string": (("abc",), r"x +float64\[3\] +'abc' +<-- differs"),
    "function": ((np.zeros(3), {"a": jnp.sin}), r"constant 1\['a'\] +- +the function sin"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_prepared_gradient_refuses_other_arguments_with_a_table(arguments, message):
    prepared = prepare_gradient(lambda x: jnp.sum(x**2), AutoForward(), np.zeros(3))
    with pytest.raises(PreparationError, match=message):
        prepared.value_and_gradient(*arguments)


BAD_FUNCTIONS = {
    "vector result": (lambda x: x**2, np.ones(3), AutoForward(), r"float64\[3\].*return a scalar"),
    "integer result": (lambda x: jnp.sum(x > 0), np.ones(3), AutoForward(), "floating-point number as its result"),
    "tuple result": (lambda x: (x[0], x[1]), np.ones(3), AutoForward(), "got tuple"),
    "integer input": (lambda x: jnp.sum(x**2), np.ones(3, int), AutoForward(), "got int64"),
    "string adtype": (lambda x: jnp.sum(x**2), np.ones(3), "forward", r"AutoForward\(\).*got 'forward'"),
    "complex input": (jnp.sum, 1j * np.ones(3), AutoForward(), r"complex128; .* real and the imaginary part, \(x.real"),
    "mixed input": (
        lambda p: p["a"] * p["b"],
        {"a": np.float32(1), "b": np.float64(2)},
        AutoForward(),
        r"float32 \(x\['a'\]\), float64 \(x\['b'\]\); convert them with jax.tree.map",
    ),
    "string input": (jnp.sum, "float32", AutoForward(), "got 'float32'; pass arrays or numbers"),
    "strings input": (jnp.sum, ["a"], AutoForward(), r"got 'a' \(x\[0\]\); pass arrays or numbers"),
    "nothing as input": (jnp.sum, None, AutoForward(), "got None; pass arrays or numbers"),
    "no function": (3, np.ones(3), AutoForward(), r"must be a function f\(x, \*constants\), got 3; the order"),
    "class as adtype": (lambda x: jnp.sum(x**2), np.ones(3), AutoForward, r"write AutoForward\(\)"),
}


@pytest.mark.parametrize(("f", "x", "adtype", "message"), BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS.keys())
def test_bad_arguments_are_refused_with_the_remedy(f, x, adtype, message):
    with pytest.raises(TypeError, match=message):
        value_and_gradient(f, adtype, x)


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ("abc", "constant 1 must hold arrays or numbers, got 'abc'; close over"),
        ("float32", "got 'float32'; close over"),
        (jnp.sin, "got the function sin; close over anything else, for example with functools.partial"),
        ({"a": np.float64}, r"got the class float64 \(constant 1\['a'\]\); close over"),
        (np.array(["a"]), "got ndarray of <U1; close over"),
    ],
)
def test_constants_that_are_no_arrays_are_refused(constant, message):
    with pytest.raises(TypeError, match=message):
        value_and_gradient(lambda x, c: jnp.sum(x), AutoForward(), np.ones(3), constant)


@pytest.mark.parametrize("constant", [jax.random.key(0), None, True, {"a": [1, 2.0]}, jnp.ones(2, jnp.bfloat16)])
def test_constants_of_all_kinds_of_numbers_are_taken(constant):
    _, gradient = value_and_gradient(lambda x, c: jnp.sum(x**2), AutoForward(), np.ones(3), constant)
    np.testing.assert_array_equal(gradient, 2 * np.ones(3))


@pytest.mark.parametrize("make", [lambda: AutoForward(0), lambda: AutoForward(1.5), lambda: AutoByDimension(-1)])
def test_bad_options_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()


def test_adtypes_are_values():
    assert AutoForward(chunk_size=1) == AutoForward(chunk_size=1) != AutoForward()
    assert len({AutoReverse(), AutoReverse(), AutoByDimension(20), AutoByDimension()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        AutoForward().chunk_size = 2


def test_the_default_can_be_set_and_overridden():
    assert current_adtype() == AutoByDimension(20)
    with default_adtype(AutoReverse()):
        assert prepare_gradient(jnp.sum, None, np.ones(2)).adtype == AutoReverse()
        with default_adtype(AutoForward(chunk_size=1)):
            assert current_adtype() == AutoForward(chunk_size=1)
        assert current_adtype() == AutoReverse()
    set_default_adtype(AutoReverse())
    try:
        assert prepare_gradient(jnp.sum, None, np.ones(2)).adtype == AutoReverse()
    finally:
        set_default_adtype(AutoByDimension(20))
    with pytest.raises(TypeError, match="set_default_adtype"):
        set_default_adtype("reverse")
