"""The driver: what a chain may depend on, thinning, lengths of zero and one, precision, and interruption."""

import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import threadpoolctl
from dualtape import (
    HMC,
    NUTS,
    DenseMetric,
    Gibbs,
    SamplingWarning,
    StanWindows,
    Threads,
    Vectorized,
    factor,
    model,
    rv,
    sample,
)
from dualtape.samplers import chains as driver
from dualtape.samplers import compilation
from dualtape.samplers.chains import Settings, run_chains
from dualtape.samplers.compilation import compile_chain
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.progress import Silent
from dualtape.samplers.random import chain_key
from scipy import stats
from targets import CORRELATED, gaussian, mean_error

# Chains this short may still diverge; that is no affair of the driver.
pytestmark = pytest.mark.filterwarnings("ignore:.*ended in a divergence")

SAMPLERS = [
    NUTS(),
    HMC(0.05, 4),
    Gibbs({"s": NUTS(metric=DenseMetric()), "m": HMC(None, 3)}),
]


@model
def scaled_normal(y):
    s = rv("s", dist.LogNormal(0.0, 0.5))
    m = rv("m", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    rv("y", dist.Normal(m[0] + m[1], s), obs=y)


DATA = np.array([0.3, 1.2, 0.7])


def draw(sampler=SAMPLERS[0], **options):
    settings = {"draws": 60, "warmup": 100, "chains": 2, "seed": 1, "progress": False} | options
    return sample(scaled_normal(DATA), sampler, **settings)


def arrays(result):
    """Everything that was drawn, by name."""
    groups = ("posterior", "sample_stats")
    return {f"{g}/{name}": np.asarray(result[g][name]) for g in groups for name in result[g].data_vars}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["NUTS", "HMC", "Gibbs"])
def test_a_chain_depends_on_the_seed_and_its_number_alone(sampler, monkeypatch):
    first = arrays(draw(sampler))
    # The same once more, bit for bit; and with two chains more beside it.
    assert_equal(first, arrays(draw(sampler)))
    assert_equal(first, {name: values[:2] for name, values in arrays(draw(sampler, chains=4)).items()})
    # In one thread, and in chunks of one step.
    monkeypatch.setattr(driver.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(driver, "_CHUNK_SECONDS", 1e-12)
    assert_equal(first, arrays(draw(sampler)))
    # In chunks as long as the phases, and in chunks of as few rows as the smallest buffer has.
    monkeypatch.setattr(driver, "_CHUNK_SECONDS", 100.0)
    assert_equal(first, arrays(draw(sampler)))
    monkeypatch.setattr(compilation, "_BUFFER_BYTES", 1)
    assert_equal(first, arrays(draw(sampler)))
    # Chains differ from one another, and seeds do.
    assert (first["posterior/s"][0] != first["posterior/s"][1]).all()
    other = arrays(draw(sampler, seed=2))
    assert (first["posterior/s"] != other["posterior/s"]).all()


@pytest.mark.parametrize("sampler", [SAMPLERS[0], SAMPLERS[2]], ids=["NUTS", "Gibbs"])
@pytest.mark.parametrize("seconds", [1e-12, 0.075, 100.0])
def test_thinning_keeps_every_nth_draw(sampler, seconds, monkeypatch):
    monkeypatch.setattr(driver, "_CHUNK_SECONDS", seconds)
    every = arrays(draw(sampler, draws=60))
    third = arrays(draw(sampler, draws=20, thin=3))
    assert_equal(third, {name: values[:, 2::3] for name, values in every.items()})


def test_more_draws_begin_with_the_fewer():
    short, long = arrays(draw(draws=15)), arrays(draw(draws=60))
    assert_equal(short, {name: values[:, :15] for name, values in long.items()})


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["NUTS", "HMC", "Gibbs"])
@pytest.mark.parametrize(("warmup", "draws"), [(0, 5), (1, 1), (0, 1), (30, 1)])
def test_the_shortest_runs_work(sampler, warmup, draws):
    found = arrays(draw(sampler, warmup=warmup, draws=draws, chains=1))
    assert found["posterior/m"].shape == (1, draws, 2)
    assert found["sample_stats/lp"].shape == (1, draws)
    assert all(np.isfinite(found[name]).all() for name in ("posterior/m", "posterior/s", "sample_stats/lp"))


def test_without_warm_up_the_step_size_is_the_first_one():
    found = arrays(draw(warmup=0, draws=3))
    assert (found["sample_stats/step_size"] == 1.0).all()


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("outside", [True, False])
def test_precision_is_as_asked_and_the_global_setting_is_left_alone(precision, outside):
    with jax.enable_x64(outside):
        found = arrays(draw(precision=precision))
        assert jnp.ones(()).dtype == (np.float64 if outside else np.float32)
    assert found["posterior/m"].dtype == precision
    assert found["sample_stats/lp"].dtype == precision
    assert found["sample_stats/n_steps"].dtype == np.int32
    assert found["sample_stats/diverging"].dtype == bool


def test_the_global_configuration_is_untouched_after_a_failure():
    before = jax.config.jax_enable_x64
    with pytest.raises(ValueError, match="no latent site"):
        draw(Gibbs({"nobody": NUTS(), ...: NUTS()}))
    assert jax.config.jax_enable_x64 == before


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_both_precisions_give_the_exact_answer(precision):
    """Conjugate normal model; means of 50 batches, Student's t, false-alarm rate 10⁻⁴ over mean and variance."""

    @model
    def conjugate(y):
        m = rv("m", dist.Normal(0.0, 2.0))
        rv("y", dist.Normal(m, 1.0), obs=y)

    y = np.array([1.0, 2.5, 3.0, 0.5])
    variance = 1 / (1 / 4 + len(y))
    expected = variance * y.sum()
    result = sample(conjugate(y), draws=5000, warmup=500, chains=2, seed=2, progress=False, precision=precision)
    draws = np.asarray(result["posterior"]["m"], float)
    bound = stats.t.isf(1e-4 / 4, 49)
    mean, error = mean_error(draws)
    assert abs(mean - expected) < bound * error
    spread, error = mean_error((draws - expected) ** 2)
    assert abs(spread - variance) < bound * error
    # And the stored density is right to the precision asked for.
    lp = np.asarray(result["sample_stats"]["lp"], float)
    exact = stats.norm(0, 2).logpdf(draws) + stats.norm(draws[..., None], 1).logpdf(y).sum(-1)
    np.testing.assert_allclose(lp, exact, atol=1e-11 if precision == "float64" else 2e-5)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["NUTS", "HMC", "Gibbs"])
def test_the_model_function_runs_at_most_twice(sampler):
    runs = []

    @model
    def counted(y):
        runs.append(1)
        s = rv("s", dist.LogNormal(0.0, 0.5))
        m = rv("m", dist.Normal(0.0, 2.0))
        rv("y", dist.Normal(m, s), obs=y)

    sample(counted(DATA), sampler, draws=200, warmup=200, chains=4, seed=1, progress=False)
    assert len(runs) <= 2


# Interruption.


def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


class Watcher(Silent):
    """Presses Ctrl-C when every chain has reported draws."""

    def __init__(self, chains, phase="sampling"):
        self.waiting, self.phase, self.lock = set(range(chains)), phase, threading.Lock()

    def update(self, chain, phase, done, divergences, step_size):
        with self.lock:
            if phase != self.phase or not self.waiting:
                return
            self.waiting.discard(chain)
            if not self.waiting:
                press_ctrl_c()


@pytest.fixture
def watch(monkeypatch):
    """Lets a `Watcher` see the progress of `sample`, with a core for each chain."""
    from dualtape.ppl import inference

    def use(watcher, chains):
        monkeypatch.setattr(driver.os, "cpu_count", lambda: chains)
        monkeypatch.setattr(inference, "display", lambda *args: watcher)
        # Short chunks, so that every chain has reported soon.
        monkeypatch.setattr(driver, "_CHUNK_SECONDS", 0.01)

    # A shell starts background jobs, such as a test run may be, with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield use
    signal.signal(signal.SIGINT, before)


LONG = 500_000


def test_an_interrupted_run_returns_most_of_what_was_drawn(watch):
    watch(Watcher(3), 3)
    with pytest.warns(SamplingWarning, match=f"interrupted: the result holds .* of {LONG} draws"):
        result = draw(HMC(0.1, 50), draws=LONG, chains=3)
    found = arrays(result)
    assert result["posterior"].attrs["interrupted"] == 1
    lengths = {values.shape[:2] for values in found.values()}
    assert len(lengths) == 1
    (chains, kept), *_ = lengths
    numbers = result["posterior"]["chain"].values
    assert len(numbers) == chains >= 1
    assert 0 < kept < LONG
    assert not any(np.isnan(values).any() for values in found.values())
    # What was drawn is what an undisturbed run draws first.
    few = min(kept, 5)
    undisturbed = {name: values[numbers] for name, values in arrays(draw(HMC(0.1, 50), draws=few, chains=3)).items()}
    assert_equal(undisturbed, {name: values[:, :few] for name, values in found.items()})
    # No thread goes on.
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([10, 10, 10], ([0, 1, 2], 10)),
        ([10, 0, 9], ([0, 2], 9)),
        ([10, 3, 4], ([0], 10)),
        ([100, 3, 4], ([0], 100)),
        ([0, 7], ([1], 7)),
    ],
)
def test_what_is_kept_of_an_interrupted_run_is_the_largest_rectangle(kept, expected):
    assert driver.largest_rectangle(kept) == expected


def test_linear_algebra_is_single_threaded_while_chains_run_and_free_again_afterwards(watch):
    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    seen = set()

    class Look(Silent):
        def update(self, *_):
            seen.update(threads())

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        watch(Look(), 2)
        draw(chains=2)
        assert threads() == {2}
    assert seen == {1}


def test_an_interruption_before_the_first_draw_is_passed_on(watch):
    watch(Watcher(2, phase="warm-up"), 2)
    with pytest.raises(KeyboardInterrupt):
        draw(HMC(0.1, 50), draws=10, warmup=LONG)
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_a_finished_run_is_not_interrupted():
    assert draw()["posterior"].attrs["interrupted"] == 0


def test_an_error_in_one_chain_stops_the_others(monkeypatch):
    class Failing(Silent):
        def update(self, chain, phase, done, divergences, step_size):
            if chain == 1 and phase == "sampling":
                raise RuntimeError("chain 1 fails")

    known = gaussian(CORRELATED)
    whole = known.target.restrict(known.target.sites)
    settings = Settings(LONG, 10)
    compiled = compile_chain(
        build_kernel(HMC(0.1, 50), known.target, np.float64), whole, (), np.float64, settings.longest
    )
    starts = [compiled.init(position)[0] for position in known.exact(np.random.default_rng(0), 2)]
    started = time.perf_counter()
    monkeypatch.setattr(driver.os, "cpu_count", lambda: 2)
    keys = [chain_key(0, i) for i in range(2)]
    with pytest.raises(RuntimeError, match="chain 1 fails"):
        run_chains(compiled, [[start] for start in starts], keys, settings, Failing(), True)
    assert time.perf_counter() - started < 10


def test_phases_and_steps_are_reported_in_order():
    reports = []

    class Listener(Silent):
        def update(self, chain, phase, done, divergences, step_size):
            reports.append((chain, phase, done))

    known = gaussian(CORRELATED)
    whole = known.target.restrict(known.target.sites)
    settings = Settings(draws=40, warmup=30, thin=2)
    compiled = compile_chain(build_kernel(NUTS(), known.target, np.float64), whole, (), np.float64, settings.longest)
    start = compiled.init(np.zeros(2))[0]
    drawn = run_chains(compiled, [[start], [start]], [chain_key(0, 0), chain_key(0, 1)], settings, Listener(), True)
    assert drawn.finished
    assert drawn.positions.shape == (2, 40, 2)
    for chain in range(2):
        for phase, total in (("warm-up", 30), ("sampling", 80)):
            done = [d for c, p, d in reports if (c, p) == (chain, phase)]
            assert done == sorted(done)
            assert done[-1] == total


@model
def two_modes():
    """One mode has e⁴⁰ times the density of the other, and each of them the half of all starting points."""
    x = rv("x", dist.ImproperUniform(dist.constraints.real, (), ()))
    factor("modes", jnp.logaddexp(-0.5 * (x + 12.0) ** 2, -40.0 - 0.5 * (x - 8.0) ** 2))


def test_a_chain_goes_on_from_the_best_of_several_starting_points():
    def chains_in_the_major_mode(sampler, parallel):
        options = {"draws": 20, "warmup": 100, "chains": 8, "seed": 0, "progress": False, "parallel": parallel}
        return int((sample(two_modes(), sampler, **options)["posterior"]["x"].mean("draw") < 0).sum())

    # All twelve points of a chain are on the wrong side once in 4096.
    assert chains_in_the_major_mode(NUTS(), Threads()) == 8
    assert chains_in_the_major_mode(NUTS(), Vectorized()) == 8
    # Stan's windows know no trial.
    assert 1 <= chains_in_the_major_mode(NUTS(windows=StanWindows()), Threads()) <= 7


def test_a_chain_that_stands_still_is_named():
    @model
    def narrow():
        rv("x", dist.Normal(0.0, 1e-6).expand([2]).to_event(1))

    with pytest.warns(SamplingWarning) as caught:
        sample(narrow(), HMC(1e-3, 1), draws=200, warmup=0, chains=2, seed=0, init={"x": [0.0, 0.0]}, progress=False)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "block 'x' accepted 0.0% of its proposals in chain 0, 1 and has hardly moved" in messages
    assert "Raise warmup first: 0 steps learn little." in messages
