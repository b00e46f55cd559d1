"""The tape: functions and models that decide on values, in compiled programs, and what is refused by name."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, NUTS, Gibbs, deterministic, factor, model, rv, sample
from dualtape.ad import (
    AutoForward,
    AutoReverse,
    DifferentiationError,
    default_adtype,
    prepare_gradient,
    value_and_gradient,
)
from dualtape.ad.host import at_numbers
from dualtape.ad.tape import AutoTape
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from jax import lax

POINT = np.array([0.7, 1.3, 2.0])
OTHER = np.array([-0.4, 1.1, -2.0])


def branch(x):
    """ReverseDiff's example: one tape cannot serve both branches."""
    if x[0] > 0:
        return jnp.sum(x**2)
    return jnp.sum(x**3)


def halvings(x):
    count = 0
    while x[1] > 0.2:
        x, count = x / 2, count + 1
    return count * x[0] + jnp.sum(x**2)


def power(x):
    return x[2] ** int(jnp.ceil(x[1])) + sum(x[i] for i in range(3) if x[i] > 0)


def selected(x):
    return jnp.sum(x[x > 0] ** 2)


# The function, and its gradient in closed form.
DECISIONS = {
    "if": (branch, lambda x: 2 * x if x[0] > 0 else 3 * x**2),
    "while": (halvings, lambda x: 2 * x / 64 + np.array([3 / 8, 0, 0])),
    "int and range": (power, lambda x: np.array([0, 0, 2 * x[2]]) + (x > 0)),
    "mask": (selected, lambda x: 2 * x * (x > 0)),
}


@pytest.mark.parametrize(("f", "gradient"), DECISIONS.values(), ids=DECISIONS.keys())
def test_every_call_takes_the_branch_of_its_own_values(f, gradient):
    prepared = prepare_gradient(f, AutoTape(), jax.ShapeDtypeStruct((3,), np.float64))
    for x in (POINT, OTHER, POINT):
        for value, found in (prepared.value_and_gradient(x), value_and_gradient(f, AutoTape(), x)):
            np.testing.assert_allclose(value, f(x), rtol=1e-14)
            np.testing.assert_allclose(found, gradient(x), rtol=1e-14)


SMOOTH = {
    "vector": lambda x, c: jnp.sum(jnp.exp(c * x) * x[::-1]),
    "scan": lambda x, c: lax.scan(lambda s, t: (jnp.sin(s * x[0] + t), s * c), x[1], x)[1].sum(),
    "linear algebra": lambda x, c: jnp.linalg.slogdet(jnp.outer(x, x) + c * jnp.eye(3))[1],
    "custom rule": lambda x, c: jnp.sum(jax.nn.softplus(x) * jax.scipy.special.gammaln(c + x**2)),
}


@pytest.mark.parametrize("adtype", [AutoTape(), AutoTape(compile=True)], ids=repr)
@pytest.mark.parametrize("f", SMOOTH.values(), ids=SMOOTH.keys())
def test_without_decisions_it_is_reverse_mode(f, adtype):
    value, gradient = value_and_gradient(f, adtype, POINT, 1.5)
    expected, slopes = value_and_gradient(f, AutoReverse(), POINT, 1.5)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-12)
    h = 1e-5 * np.eye(3)
    differences = [(f(POINT + step, 1.5) - f(POINT - step, 1.5)) / 2e-5 for step in h]
    np.testing.assert_allclose(gradient, differences, rtol=1e-7, atol=1e-8)


def test_inside_jit_vmap_and_loops_with_constants_of_the_program():
    prepared = prepare_gradient(lambda x, c: c["scale"] * branch(x), AutoTape(), POINT, {"scale": 1.0})

    def gradient(x, scale):
        return prepared.value_and_gradient(x, {"scale": scale})[1]

    both = np.stack([POINT, OTHER])
    expected = np.stack([4 * POINT, 6 * OTHER**2])
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient, (0, None)))(both, 2.0), expected, rtol=1e-14)
    np.testing.assert_allclose(lax.scan(lambda s, x: (s, gradient(x, s)), 2.0, both)[1], expected, rtol=1e-14)
    walked = lax.fori_loop(0, 3, lambda i, x: x - 0.1 * gradient(x, 1.0 + i), jnp.asarray(POINT))
    np.testing.assert_allclose(walked, POINT * 0.8 * 0.6 * 0.4, rtol=1e-14)


def test_the_rest_of_a_tree_and_an_empty_one():
    value, gradient = value_and_gradient(lambda p: branch(p["a"]) * p["b"], AutoTape(), {"a": OTHER, "b": 2.0})
    np.testing.assert_allclose(gradient["a"], 6 * OTHER**2)
    np.testing.assert_allclose([gradient["b"], 2 * gradient["b"]], [np.sum(OTHER**3), value])
    assert value_and_gradient(lambda x: jnp.sum(x) + 1.0, AutoTape(), np.zeros(0))[1].shape == (0,)


def test_what_runs_at_numbers_has_the_derivative_of_what_it_runs():
    def gradient(x):
        return at_numbers(jax.grad(branch), jax.ShapeDtypeStruct((3,), np.float64), x)

    np.testing.assert_allclose(jax.jit(gradient)(OTHER), 3 * OTHER**2)
    np.testing.assert_allclose(jax.jacfwd(gradient)(OTHER), np.diag(6 * OTHER))


@pytest.mark.parametrize("wide", [True, False])
def test_precision_is_the_callers_whatever_thread_calls_back(wide):
    def run(_):
        with jax.enable_x64(wide):
            x = np.full(2000, 0.1, np.float64 if wide else np.float32)
            return prepare_gradient(lambda x: branch(x) + 1e-9, AutoTape(), x).value_and_gradient(x)

    with ThreadPoolExecutor(2) as pool:
        for value, gradient in pool.map(run, range(2)):
            assert value.dtype == gradient.dtype == (np.float64 if wide else np.float32)
            assert (abs(float(value) - 20 - 1e-9) < 1e-12) == wide


THREADS = """
import faulthandler, jax, numpy as np, jax.numpy as jnp
from concurrent.futures import ThreadPoolExecutor
from dualtape.ad import prepare_gradient
from dualtape.ad.tape import AutoTape
faulthandler.dump_traceback_later(60, exit=True)
jax.config.update("jax_enable_x64", True)
matrix = np.ones((300, 300))

def f(x, c):
    y = jnp.sum((c * x) ** 2) + jnp.sum(((matrix * x[0]) @ matrix) ** 2)
    return y if y > 0 else -y

for n in (10, 200_000):
    prepared = prepare_gradient(f, AutoTape(), np.ones(n), np.ones(n))
    loop = jax.jit(lambda x, c: jax.lax.fori_loop(0, 10, lambda i, x: x - prepared.value_and_gradient(x, c)[1] / 4, x))
    with ThreadPoolExecutor(4) as pool:
        for i, x in enumerate(pool.map(lambda i: np.asarray(loop(np.full(n, 1.0 + i), np.ones(n))), range(4))):
            assert np.allclose(x[1:], (1 + i) / 1024, rtol=1e-12)
print("through")
"""


def test_large_arrays_in_several_threads_do_not_wait_for_each_other():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip() == "through", done.stderr[-2000:]


def test_it_says_whether_it_is_traced():
    assert AutoTape.traced is AutoTape().traced is False
    assert AutoTape(compile=True).traced is True
    assert AutoTape() == AutoTape(False) != AutoTape(True)
    with pytest.raises(TypeError, match="compile must be True or False, got 'yes'"):
        AutoTape("yes")


HERE = r"test_tape\.py:\d+ \(`if x\[0\] > 0:`\)"


@pytest.mark.parametrize("x", [POINT, OTHER, jax.ShapeDtypeStruct((3,), np.float64)], ids=["one", "other", "shape"])
def test_a_tape_recorded_once_is_refused_where_it_would_depend_on_values(x):
    with pytest.raises(DifferentiationError, match=rf"^branch: AutoTape\(compile=True\).*{HERE}.*AutoTape\(\)"):
        prepare_gradient(branch, AutoTape(compile=True), x)
    with pytest.raises(DifferentiationError, match="depend on the value"):
        AutoTape(compile=True).pullback(branch, POINT)


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse(), None], ids=repr)
def test_other_modes_refuse_a_decision_once_by_line_with_the_ways_out(adtype):
    with pytest.raises(DifferentiationError, match=rf"^branch: .*{HERE}.*jnp\.where or lax\.cond.*AutoTape\(\)") as got:
        prepare_gradient(branch, adtype, POINT)
    assert str(got.value).count("jnp.where") == 1


def complains(x):
    raise KeyError("the user's own words")


REFUSALS = {
    "float": (lambda x: float(x[0]) * x[1], r"<lambda>: float\(\).*off the tape at .*test_tape.*jax\.numpy"),
    "NumPy": (lambda x: x[0] * np.asarray(x)[1], "off the tape.*test_tape"),
    "vector": (lambda x: x if x[0] > 0 else -x, r"one floating-point number as its result, got float64\[3\]"),
    "exception": (complains, "the user's own words"),
}


@pytest.mark.parametrize(("f", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_goes_wrong_at_numbers_comes_through(f, message):
    with pytest.raises((jax.errors.JaxRuntimeError, TypeError, KeyError), match=f"(?s){message}"):
        value_and_gradient(f, AutoTape(), POINT)


def test_a_numpy_function_under_tracing_is_named():
    with pytest.raises(DifferentiationError, match=r"a NumPy function.*test_tape.*`jax\.numpy`"):
        prepare_gradient(lambda x: jnp.sum(np.asarray(x)), AutoReverse(), POINT)


# Models.


@model
def decides(x, y):
    s = rv("s", dist.Exponential(1.0))
    m = rv("m", dist.Normal(0.0, 1.0))
    mean = m
    if m < 0.3:
        mean = 2 * m - 0.3
    deterministic("mean", mean)
    rv("x", dist.Normal(mean, s), obs=x)
    rv("y", dist.Normal(mean, s), obs=jnp.log(y))


@model
def selects(x, y):
    s = rv("s", dist.Exponential(1.0))
    m = rv("m", dist.Normal(0.0, 1.0))
    mean = deterministic("mean", jnp.where(m < 0.3, 2 * m - 0.3, m))
    rv("x", dist.Normal(mean, s), obs=x)
    rv("y", dist.Normal(mean, s), obs=jnp.log(y))


DATA = (0.1, np.exp(0.9))
SAMPLERS = {
    "NUTS": (lambda adtype: NUTS(adtype=adtype, max_tree_depth=2), None),
    "default": (lambda _: HMC(0.5, 2), AutoTape()),
    "Gibbs": (lambda adtype: Gibbs({"m": HMC(0.7, 2, adtype=adtype), "s": HMC(0.5, 1, adtype=adtype)}), None),
}


@pytest.mark.filterwarnings("ignore::dualtape.ppl.inference.SamplingWarning")
@pytest.mark.parametrize(("sampler", "adtype"), SAMPLERS.values(), ids=SAMPLERS.keys())
def test_draws_are_those_of_the_model_without_the_decision(sampler, adtype):
    settings = {"draws": 8, "warmup": 4, "chains": 2, "seed": 4, "progress": False, "init": {"m": [0.2, 0.4]}}
    taped = sample(decides(*DATA), sampler(AutoTape()), adtype=adtype, **settings)
    plain = sample(selects(*DATA), sampler(AutoReverse()), adtype=adtype and AutoReverse(), **settings)
    assert len(np.unique(taped.posterior["m"].values < 0.3)) == 2  # both branches were taken
    for name in ("m", "s", "mean"):
        np.testing.assert_allclose(taped.posterior[name], plain.posterior[name], rtol=1e-8)
    np.testing.assert_allclose(taped.sample_stats["lp"], plain.sample_stats["lp"], rtol=1e-8)
    np.testing.assert_allclose(taped.observed_data["y"], 0.9)


def test_a_model_without_decisions_keeps_its_traced_program():
    bound = selects(*DATA)
    names = {equation.primitive.name for equation in trace_model(bound, discover(bound)).density.program.equations}
    assert "select_n" in names
    assert "at_numbers" not in names
    bound = decides(*DATA)
    density = trace_model(bound, discover(bound)).density
    assert [equation.primitive.name for equation in density.program.equations] == ["at_numbers"]
    assert tuple(density.terms) == ("s", "log|J| s", "m", "x", "y")


@pytest.mark.parametrize("adtype", [None, AutoForward(), AutoReverse(), AutoTape(compile=True)], ids=repr)
def test_a_decision_in_a_model_is_refused_by_block_and_line(adtype):
    line = r"test_tape\.py:\d+ \(`if m < 0\.3:`\)"
    with pytest.raises(DifferentiationError, match=rf"block 's,m': .*{line}.*jnp\.where or lax\.cond.*AutoTape\(\)"):
        sample(decides(*DATA), adtype=adtype, progress=False)
    with pytest.raises(DifferentiationError, match="block 's'"), default_adtype(AutoReverse()):
        sample(decides(*DATA), Gibbs({"m": HMC(0.1, 2, adtype=AutoTape()), "s": NUTS()}), progress=False)


@model
def sites_on_one_branch():
    if rv("x", dist.Normal(0.0, 1.0)) > 0:
        factor("only here", 0.0)


def test_sites_that_depend_on_values_are_refused_by_name():
    with pytest.raises(ValueError, match=r"site 'only here' appeared only now"):
        sample(sites_on_one_branch(), adtype=AutoTape(), init={"x": 1.0}, chains=1, progress=False)


def test_data_of_a_model_that_decides_are_checked():
    with pytest.raises(ValueError, match="observed site 'y' has 1 NaN"):
        sample(decides(0.1, np.nan), adtype=AutoTape(), progress=False)
    with pytest.raises(ValueError, match="init: site 's' has a value outside"):
        sample(decides(*DATA), adtype=AutoTape(), init={"s": -1.0}, progress=False)


def test_a_side_that_is_not_taken_has_no_influence_where_the_function_can_be_traced():
    def f(x):
        return jnp.sum(jnp.where(x > 0, jnp.log(x), 0.0))

    def decides(x):
        return f(x) if x[1] > 0 else -f(x)

    x = np.array([0.0, 2.0])
    np.testing.assert_allclose(value_and_gradient(f, AutoTape(), x)[1], [0.0, 0.5])
    # What is selected is known beforehand only of what can be traced.
    assert np.isnan(value_and_gradient(decides, AutoTape(), x)[1][0])


def test_whole_numbers_that_a_rule_of_jax_multiplies_are_refused():
    n = np.array([0, 3])
    with pytest.raises(Exception, match=r"multiplies the derivative by whole numbers.*jnp\.asarray\(n, float\)"):
        value_and_gradient(lambda x: jnp.sum(jax.scipy.special.xlogy(n, x)), AutoTape(), np.ones(2))
