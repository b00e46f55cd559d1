"""Vectorised chains: the same chains as in threads, in the same arrays, however the host looks at them."""

import io
import signal
import threading

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    MH,
    NUTS,
    DiscreteGibbs,
    Gibbs,
    SamplingWarning,
    Slice,
    Threads,
    Until,
    Vectorized,
    clear_programs,
    model,
    rv,
    sample,
)
from dualtape.ppl import inference
from dualtape.samplers import ensemble, ensemble_compilation
from dualtape.samplers.chains import Settings
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.ensemble import run_ensemble
from dualtape.samplers.ensemble_compilation import compile_ensemble
from dualtape.samplers.progress import Silent
from dualtape.samplers.random import chain_key
from rich.console import Console
from scipy import stats
from targets import CORRELATED, gaussian

# Chains this short may still diverge, and blocks may stand still; that is no affair of the driver.
pytestmark = pytest.mark.filterwarnings("ignore:.*ended in a divergence", "ignore:.*has hardly moved")

DATA = np.array([0.3, 1.2, 0.7])


@model
def scaled_normal(y):
    s = rv("s", dist.LogNormal(0.0, 0.5))
    m = rv("m", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    rv("y", dist.Normal(m[0] + m[1], s), obs=y)


@model
def two_groups(y):
    z = rv("z", dist.Bernoulli(0.4))
    m = rv("m", dist.Normal(0.0, 2.0))
    rv("y", dist.Normal(m + z, 1.0), obs=y)


BOUND, OTHER = scaled_normal(DATA), scaled_normal(DATA + 1.0)
USUAL = NUTS()


def draw(sampler=USUAL, bound=BOUND, **options):
    settings = {"draws": 60, "warmup": 40, "chains": 5, "seed": 1, "progress": False, "parallel": Vectorized()}
    return sample(bound, sampler, **(settings | options))


def arrays(result):
    """Everything that was drawn, by name."""
    groups = ("posterior", "sample_stats")
    return {f"{g}/{name}": np.asarray(result[g][name]) for g in groups for name in result[g].data_vars}


def assert_close(a, b, tolerance=1e-8):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)
        assert a[name].dtype == b[name].dtype


def assert_equal(a, b):
    assert_close(a, b, 0.0)


SAMPLERS = {
    "NUTS": (NUTS(), BOUND),
    "HMC": (HMC(None, 4), BOUND),
    "MH": (MH(), BOUND),
    "Gibbs of NUTS and Slice": (Gibbs({"s": NUTS(), "m": Slice()}), BOUND),
    "Gibbs with a discrete site": (Gibbs({"z": DiscreteGibbs(), "m": NUTS()}), two_groups(DATA)),
}


@pytest.mark.parametrize(("sampler", "bound"), SAMPLERS.values(), ids=SAMPLERS.keys())
def test_the_first_transitions_are_those_of_chains_in_threads(sampler, bound):
    """Up to rounding, which grows along a chain; seven steps of warm-up have windows, and a trial of several starts."""
    short = {"draws": 4, "warmup": 7, "chains": 5}
    found, expected = (draw(sampler, bound, **short, parallel=way) for way in (Vectorized(), Threads()))
    assert_close(arrays(found), arrays(expected))
    assert found.attrs["gradients_warmup"] == expected.attrs["gradients_warmup"]
    # Another seed gives other draws, and so does another chain.
    other = draw(sampler, bound, **short, seed=2)
    assert (other["posterior"]["m"].values != found["posterior"]["m"].values).any()
    assert (found["posterior"]["m"].values[0] != found["posterior"]["m"].values[1]).any()


@pytest.mark.parametrize("sampler", [NUTS(), HMC(0.3, 4)], ids=["NUTS", "HMC"])
def test_how_often_the_host_looks_does_not_matter(sampler, monkeypatch):
    first = arrays(draw(sampler))
    assert_equal(first, arrays(draw(sampler)))
    for seconds in (1e-9, 100.0):
        monkeypatch.setattr(ensemble, "_CHUNK_SECONDS", seconds)
        assert_equal(first, arrays(draw(sampler)))
    assert_equal({name: values[:, 2::3] for name, values in first.items()}, arrays(draw(sampler, draws=20, thin=3)))
    assert_equal({name: values[:, :7] for name, values in first.items()}, arrays(draw(sampler, draws=7)))


def test_a_small_buffer_and_rounds_of_another_length_do_not_matter(monkeypatch):
    first = arrays(draw(NUTS(step_size=0.3), warmup=0))
    monkeypatch.setattr(ensemble_compilation, "_ROWS", 3)  # no part of what a program is known by
    monkeypatch.setattr(ensemble, "_SHARE", 0.1)
    clear_programs()
    third = arrays(draw(NUTS(step_size=0.3), warmup=0, draws=20, thin=3))
    assert_close({name: values[:, 2::3] for name, values in first.items()}, third)


def moments(positions):
    """For each chain the means, squares and the product of two coordinates, without its first draws."""
    x = positions[:, 10:]
    return np.concatenate([x, x**2, x[..., :1] * x[..., 1:]], axis=-1).mean(1)


def test_many_chains_have_the_moments_of_their_target():
    """Means and covariances over 128 chains, in standard errors between chains; fails once in 10⁴ seeds.

    Beside it draws that are shifted and shrunk by a tenth of a standard deviation, which must not pass.
    """
    chains, settings = 128, Settings(draws=100, warmup=60)
    known = gaussian(CORRELATED)
    whole = known.target.restrict(known.target.sites)
    kernel = build_kernel(NUTS(), known.target, np.float64)
    compiled = compile_ensemble(kernel, whole, (), np.float64, chains)
    flock, sound = compiled.init(known.exact(np.random.default_rng(0), chains))
    assert sound.all()
    drawn = run_ensemble(compiled, [flock], [chain_key(3, i) for i in range(chains)], settings, Silent(), True)
    assert drawn.finished
    assert len({float(tuning.step_size) for tuning in drawn.tunings}) == chains
    spread = np.sqrt(np.diag(CORRELATED))
    truth = np.array([0.0, 0.0, CORRELATED[0][0], CORRELATED[1][1], CORRELATED[0][1]])
    limit = stats.t.isf(1e-4 / 10, chains - 1)

    def worst(positions):
        found = moments(positions)
        return np.abs((found.mean(0) - truth) / (found.std(0, ddof=1) / np.sqrt(chains))).max()

    assert worst(drawn.positions) < limit
    assert worst(drawn.positions + 0.1 * spread) > limit
    assert worst(0.9 * drawn.positions) > limit


def test_single_precision_is_as_asked():
    found = arrays(draw(precision="float32", draws=10))
    assert found["posterior/m"].dtype == found["sample_stats/lp"].dtype == np.float32
    assert found["sample_stats/n_steps"].dtype == np.int32
    assert found["sample_stats/diverging"].dtype == bool
    assert np.isfinite(found["posterior/m"]).all()


def test_other_data_compile_nothing_and_more_chains_another_program_of_the_same_chains(monkeypatch):
    programs, compile_it = [], jax.stages.Lowered.compile

    def counted(self, *args, **options):
        programs.append(1)
        return compile_it(self, *args, **options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counted)
    first = arrays(draw())
    del programs[:]
    draw(bound=OTHER, warmup=9, seed=3, thin=2)
    assert not programs
    many = arrays(draw(chains=9))
    assert programs
    for name, values in many.items():
        np.testing.assert_allclose(values[:5, :3], first[name][:, :3], rtol=1e-6, atol=1e-6, err_msg=name)


def test_a_run_keeps_the_first_length_that_is_enough_and_shows_one_line(monkeypatch):
    until = Until(ess=600, rhat=1.05)
    screen = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    monkeypatch.setattr("rich.console.Console", lambda **_: screen)
    found = arrays(draw(draws=5000, until=until, progress=True))["posterior/m"]
    kept = found.shape[1]
    assert kept in list(until.lengths(5000))
    assert kept < 5000
    np.testing.assert_array_equal(found, arrays(draw(draws=kept))["posterior/m"])
    shown = [line for line in screen.file.getvalue().replace("\r", "\n").split("\n") if "chain" in line]
    assert "5 chains sampling" in shown[-1]
    assert "/5000" in shown[-1]
    assert not any("chain 0" in line for line in shown)


def test_chains_start_where_they_are_told():
    still = {"sampler": HMC(1e-9, 1), "draws": 1, "warmup": 0, "chains": 3}
    own = arrays(draw(**still, init={"s": [0.5, 1.0, 2.0]}))["posterior/s"][:, 0]
    np.testing.assert_allclose(own, [0.5, 1.0, 2.0], atol=1e-6)

    @model
    def truncated():
        x = rv("x", dist.Normal(0.0, 1.0))
        rv("y", dist.Uniform(0.0, x), obs=1.0)

    # Three of four proposals have no density: chains look until each has found its own.
    many = {"bound": truncated(), **still, "chains": 40}
    found, expected = (arrays(draw(**many, parallel=way))["posterior/x"] for way in (Vectorized(), Threads()))
    assert (found > 1).all()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"at the given initial values.*y -inf.*Not finite: y"):
        draw(**many, init={"x": np.linspace(3.0, 0.5, 40)})


def test_an_audit_looks_at_the_gradients():
    errors = arrays(draw(audit=True, draws=200))["sample_stats/gradient_error"]
    assert 0.01 < np.isfinite(errors).mean() < 0.1
    assert np.nanmax(errors) < 1e-10


class Watcher(Silent):
    """Presses Ctrl-C at the second report of a phase."""

    def __init__(self, phase):
        self.phase, self.left = phase, 2

    def update(self, chain, phase, done, divergences, step_size):
        assert chain == 0
        if phase == self.phase:
            self.left -= 1
            if not self.left:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.fixture
def watch(monkeypatch):
    # A shell starts background jobs, such as a test run may be, with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(ensemble, "_CHUNK_SECONDS", 0.02)
    yield lambda watcher: monkeypatch.setattr(inference, "display", lambda *_: watcher)
    signal.signal(signal.SIGINT, before)


LONG = 100_000


def test_an_interrupted_run_returns_what_was_drawn(watch):
    watch(Watcher("sampling"))
    with pytest.warns(SamplingWarning, match=f"interrupted: the result holds .* of {LONG} draws"):
        found = arrays(draw(draws=LONG))
    chains, kept = found["posterior/m"].shape[:2]
    assert {values.shape[:2] for values in found.values()} == {(chains, kept)}
    assert 0 < kept < LONG
    if chains == 5:
        few = min(kept, 5)
        assert_equal({name: values[:, :few] for name, values in found.items()}, arrays(draw(draws=few)))
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_an_interruption_before_the_first_draw_is_passed_on(watch):
    watch(Watcher("warm-up"))
    with pytest.raises(KeyboardInterrupt):
        draw(HMC(0.1, 50), warmup=LONG)


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"sample: parallel must be Threads\(\), Vectorized\(\) or None, got 'threads'"):
        draw(parallel="threads")
    for workers in (0, 1.5, True):
        with pytest.raises(ValueError, match="Threads: workers must be an integer >= 1 or None"):
            Threads(workers)


def test_as_many_threads_at_a_time_as_are_asked_for(monkeypatch):
    class Look(Silent):
        """Holds every thread at its first chain until as many as were asked for are under way."""

        def __init__(self, threads):
            self.seen, self.together = set(), threading.Barrier(threads)

        def update(self, *_):
            if (thread := threading.get_ident()) not in self.seen:
                self.seen.add(thread)
                self.together.wait(timeout=60)

    results = []
    for threads in (1, 3):
        look = Look(threads)
        monkeypatch.setattr(inference, "display", lambda *_, look=look: look)
        results.append(arrays(draw(parallel=Threads(threads))))
        assert len(look.seen) == threads
    assert_equal(*results)
