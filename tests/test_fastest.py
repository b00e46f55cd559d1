"""The measured choice: the loop that times, who is ruled out, who is taken, and what is said."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import model, rv, sample
from dualtape.ad import (
    AbstractReverseBackend,
    AutoByDimension,
    AutoForward,
    AutoReverse,
    DifferentiationError,
    prepare_gradient,
    value_and_gradient,
)
from dualtape.ad import fastest as module
from dualtape.ad import operators as op
from dualtape.ad.fastest import AutoFastest
from dualtape.ad.measuring.timing import Timing, compile_loop, time_together
from jax import lax


@dataclasses.dataclass(frozen=True)
class Bent(AbstractReverseBackend):
    """Reverse mode with its gradient bent: right for factor 1 and nothing added."""

    factor: float = 1.0
    work: int = 0
    added: float = 0.0

    def pullback(self, f, x):
        value, pull = jax.vjp(f, x)
        waste = sum(jnp.sum(jnp.sin(x[:1] + jnp.arange(1000.0) * i)) for i in range(self.work))
        return value, lambda c: self.factor * jax.vmap(lambda one: pull(one)[0])(c) + 0 * waste + self.added


def bump(x, scale):
    return jnp.sum(jnp.exp(-((x / scale) ** 2)))


def endless(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x))[1].sum()


def masked(x, c, flags):
    return jnp.sum(jnp.where(flags, x * jnp.sqrt(c), -jnp.inf))


def nowhere(x):
    return jnp.sum(jnp.log(x - 5))


@pytest.fixture
def given_times(monkeypatch):
    """Pretend that the candidates take these times, in their order."""

    def pretend(*seconds):
        timings = tuple(Timing(time, time, 0.1, 8) for time in seconds)
        monkeypatch.setattr(module, "time_together", lambda loops, *_, **__: timings[: len(loops)])

    return pretend


def test_the_loop_evaluates_as_often_as_it_says_and_at_the_point():
    seen = []

    def evaluator(x, c):
        value = jax.pure_callback(
            lambda x: seen.append(np.asarray(x)) or np.sum(x), jax.ShapeDtypeStruct((), x.dtype), x
        )
        return value, jnp.where(x > 1, jnp.nan, x * c)

    x = np.array([0.5, 1.5])
    loop = compile_loop(evaluator, x, 2.0)
    value, gradient = loop.evaluate(x, 2.0)
    np.testing.assert_array_equal([value, *gradient], [2.0, 1.0, np.nan])
    loop.seconds(7, x, 2.0)
    assert len(seen) == 8
    np.testing.assert_array_equal(seen, np.tile(x, (8, 1)))  # the NaN did not leave the gradient


def test_no_evaluation_is_free():
    def wave(x):
        return jnp.sum(jnp.sin(x)), jnp.cos(x)

    many, few = np.ones(100_000), np.ones(1)
    (dear,) = time_together([compile_loop(wave, many)], many, repetitions=2, target=0.005)
    (cheap,) = time_together([compile_loop(wave, few)], few, repetitions=2, target=0.005)
    assert dear.seconds > 20e-6  # a fifth of a nanosecond a sine
    assert dear.seconds > 20 * cheap.seconds
    assert dear.memory > 500 * cheap.memory / 2 > 0
    assert dear.fastest <= dear.seconds


@pytest.mark.parametrize("shapes_only", [False, True])
def test_the_faster_backend_is_taken(shapes_only):
    slow = Bent(work=20)
    arguments = (np.ones(3), np.float64(2.0))
    if shapes_only:
        arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments)
    for candidates in ((slow, AutoReverse()), (AutoReverse(), slow)):
        choice = prepare_gradient(bump, AutoFastest(candidates), *arguments).choice
        assert choice.backend == AutoReverse()
        assert choice.reason.startswith("fastest of 2 measured: AutoReverse() ")
        assert "Bent(work=20) " in choice.reason
        assert [m.verdict for m in choice.measurements] == ["correct", "correct"]
        assert all(m.seconds > 0 for m in choice.measurements)


@pytest.mark.parametrize(
    ("seconds", "chosen", "reason"),
    [
        (
            (2.0e-6, 1.0e-6),
            AutoReverse(),
            "fastest of 2 measured: AutoReverse() 1 us, AutoForward() 2 us",
        ),
        (
            (1.02e-6, 1.0e-6),
            AutoForward(),
            "fastest of 2 measured: AutoForward() 1.02 us, AutoReverse() 1 us, a tie within the noise",
        ),
        (
            (1.04e-6, 1.0e-6),
            AutoReverse(),
            "fastest of 2 measured: AutoReverse() 1 us, AutoForward() 1.04 us",
        ),
    ],
)
def test_ties_go_to_the_first(given_times, seconds, chosen, reason):
    given_times(*seconds)
    choice = prepare_gradient(bump, AutoFastest(), np.ones(3), 2.0).choice
    assert (choice.backend, choice.reason) == (chosen, reason)


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        (Bent(factor=1.001), "disagrees with finite differences, "),
        (Bent(added=1e-4), "disagrees with finite differences, "),
        (Bent(factor=np.nan), "is not finite where others are"),
    ],
)
def test_a_wrong_backend_is_ruled_out_however_fast(given_times, wrong, verdict):
    given_times(1e-6)
    for candidates in ((wrong, AutoReverse()), (AutoReverse(), wrong)):
        choice = prepare_gradient(bump, AutoFastest(candidates), np.full(3, 0.7), 2.0).choice
        assert choice.backend == AutoReverse()
        assert "the only correct candidate: AutoReverse() 1 us; Bent(" in choice.reason
        by_name = {m.adtype: m for m in choice.measurements}
        ruled_out = next(m for name, m in by_name.items() if name.startswith("Bent"))
        assert ruled_out.seconds is None
        assert ruled_out.verdict.startswith(verdict)


def test_where_slopes_do_not_settle_the_majority_decides_and_where_there_is_none_an_error(given_times):
    given_times(1e-6, 1e-6)

    def kink(x):
        return jnp.sum(jnp.abs(x))

    candidates = (Bent(added=-0.5), AutoForward(), AutoReverse())
    choice = prepare_gradient(kink, AutoFastest(candidates), np.zeros(2)).choice
    assert choice.measurements[0].verdict == "disagrees with the majority: 0.5 in coordinate 0"
    assert choice.backend == AutoForward()
    with pytest.raises(DifferentiationError, match=r"bump: the candidates of AutoFastest disagree .* check_gradients"):
        prepare_gradient(bump, AutoFastest((Bent(factor=2.0), Bent(factor=3.0))), np.full(3, 0.7), 2.0)


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda x: jnp.sum(jnp.log(x)), [(1, "float64")]),
        (masked, [(2, "float64"), (2, "float64"), (2, bool)]),
        (lambda x, index: jnp.sum(x[index] ** 2), [(3, "float64"), (5, "int32")]),
        (lambda x, c: -jnp.sum(jnp.linalg.cholesky(jnp.eye(2) * c[0] + 0.1 * x[0])), [(2, "float64"), (2, "float64")]),
    ],
    ids=["half the line", "flags", "indices", "matrix"],
)
def test_drawn_points_fall_into_the_domain(f, shapes):
    arguments = [jax.ShapeDtypeStruct((size,), dtype) for size, dtype in shapes]
    choice = prepare_gradient(f, AutoFastest(), *arguments).choice
    assert [m.verdict for m in choice.measurements] == ["correct", "correct"]


@pytest.mark.parametrize(("dimension", "usual"), [(2, AutoForward()), (30, AutoReverse())])
def test_where_no_point_is_finite_nothing_is_claimed(dimension, usual):
    choice = prepare_gradient(nowhere, AutoFastest(), jax.ShapeDtypeStruct((dimension,), "float64")).choice
    assert choice.backend == usual
    assert choice.reason.startswith("not measured: value and derivative were finite at none of ")


def test_the_one_that_works_is_taken_and_where_none_does_its_error_is_shown():
    choice = prepare_gradient(endless, AutoFastest((AutoReverse(), AutoForward())), np.ones(2)).choice
    assert choice.backend == AutoForward()
    assert choice.reason == "the only one of 2 candidates that can differentiate this function"
    assert choice.measurements[0].verdict == "cannot differentiate this function"
    with pytest.raises(DifferentiationError, match=r"endless: reverse mode cannot pass `lax.while_loop`"):
        prepare_gradient(endless, AutoFastest((AutoReverse(),)), np.ones(2))


@pytest.mark.parametrize(
    "surround",
    [
        jax.jit,
        jax.vmap,
        lambda f: lambda x: lax.scan(lambda c, row: (c, f(row)), 0.0, x)[1],
        lambda f: jax.grad(lambda x: f(x[0])),
    ],
)
def test_inside_a_traced_program_it_refuses(surround):
    with pytest.raises(DifferentiationError, match=r"AutoFastest times its candidates, .* prepare the gradient before"):
        surround(lambda x: value_and_gradient(lambda x: jnp.sum(x**2), AutoFastest(), x)[0])(jnp.ones((2, 3)))


ROWS = np.array([[0.5, -1.0, 2.0], [1.0, 0.3, 0.0]])


def waves(p):
    return {"u": jnp.sin(ROWS @ p["x"]), "v": p["x"] * p["t"]}


@pytest.mark.parametrize(
    ("prepare", "method", "f", "arguments", "expected"),
    [
        (op.prepare_jacobian, "jacobian", lambda x: jnp.sin(ROWS @ x), (np.ones(3),),
         np.cos(ROWS @ np.ones(3))[:, None] * ROWS),
        (op.prepare_jacobian, "jacobian", waves, ({"x": np.ones(3), "t": np.float64(2.0)},), None),
        (op.prepare_pushforward, "pushforward", jnp.sin, (np.ones(3), np.arange(3.0)), np.cos(1) * np.arange(3)),
        (op.prepare_pullback, "pullback", lambda x: ROWS @ x, (np.ones(3), np.arange(2.0)), ROWS[1]),
        (op.prepare_derivative, "derivative", lambda t: jnp.stack([t**2, t]), (np.float64(1.5),), [3.0, 1.0]),
        (op.prepare_jacobian, "jacobian", lambda x: x[:0], (np.ones(3),), np.zeros((0, 3))),
        (op.prepare_jacobian, "jacobian", jnp.sin, (np.zeros(0),), np.zeros((0, 0))),
    ],
    ids=["jacobian", "tree", "pushforward", "pullback", "derivative", "no result", "no argument"],
)  # fmt: skip
def test_every_first_derivative_is_measured_and_compared(given_times, prepare, method, f, arguments, expected):
    given_times(2e-6, 1e-6)
    prepared = prepare(f, AutoFastest(), *arguments)
    assert prepared.choice.reason == "fastest of 2 measured: AutoReverse() 1 us, AutoForward() 2 us"
    if expected is None:
        expected = jax.jacobian(f)(*arguments)
    found = getattr(prepared, method)(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), found, expected)


@pytest.mark.parametrize(
    ("prepare", "rest"),
    [(op.prepare_jacobian, ()), (op.prepare_pushforward, (np.ones(3),)), (op.prepare_pullback, (np.ones(2),))],
)
def test_a_wrong_backend_is_ruled_out_of_every_first_derivative(given_times, prepare, rest):
    given_times(1e-6)
    choice = prepare(
        lambda x: jnp.sin(ROWS @ x), AutoFastest((Bent(factor=1.001), AutoForward())), np.ones(3), *rest
    ).choice
    assert choice.backend == AutoForward()
    assert choice.measurements[0].verdict.startswith("disagrees with finite differences, ")


def test_a_jacobian_is_timed_whole():
    prepared = [op.prepare_jacobian(lambda x: jnp.sin(x), AutoReverse(), np.ones(d)) for d in (2, 200)]
    loops = [compile_loop(p.value_and_jacobian, np.ones(d)) for p, d in zip(prepared, (2, 200), strict=True)]
    few, many = (time_together([loop], np.ones(d), repetitions=2, target=0.005)[0].seconds
                 for loop, d in zip(loops, (2, 200), strict=True))  # fmt: skip
    assert many > 20 * few


def test_single_precision():
    with jax.enable_x64(False):
        prepared = prepare_gradient(bump, AutoFastest((Bent(factor=1.1), AutoReverse())), np.full(3, 0.7), 2.0)
        value, gradient = prepared.value_and_gradient(jnp.full(3, 0.7), 2.0)
    assert prepared.adtype == AutoReverse()
    assert value.dtype == gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, np.full(3, -2 * 0.7 / 4 * np.exp(-(0.35**2))), rtol=1e-5)


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ((), ValueError, "at least one"),
        ((AutoReverse(), AutoReverse()), ValueError, "different backends"),
        (AutoReverse(), TypeError, "must be a tuple of backends"),
        (("forward",), TypeError, "must be a backend such as"),
        ((AutoByDimension(),), TypeError, "must be a backend such as"),
    ],
)
def test_bad_candidates_are_refused(candidates, error, message):
    with pytest.raises(error, match=message):
        AutoFastest(candidates)


def test_a_list_of_candidates_makes_the_same_value_as_a_tuple():
    assert AutoFastest([AutoReverse()]) == AutoFastest((AutoReverse(),))
    assert hash(AutoFastest([AutoReverse()])) == hash(AutoFastest((AutoReverse(),)))


def test_sample_records_what_was_chosen_and_why():
    @model
    def coin(flips):
        p = rv("p", dist.Beta(2.0, 2.0))
        rv("flips", dist.Bernoulli(p), obs=flips)

    idata = sample(coin(np.array([1, 0, 1])), draws=5, warmup=5, chains=1, seed=1, adtype=AutoFastest(), progress=False)
    block = json.loads(idata.attrs["blocks"])["p"]
    assert block["reason"].startswith("fastest of 2 measured: ")
