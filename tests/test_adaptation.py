"""Warm-up: step size, running moments, metrics, windows, and that it is over when sampling begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers import HMC, NUTS, DenseMetric, DiagonalMetric, Gibbs, LowRankMetric, SampleCovariance, UnitMetric
from dualtape.samplers.chains import Settings, run_chains
from dualtape.samplers.compilation import compile_chain
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.estimators import FisherDivergence, geometric_mean_factor
from dualtape.samplers.low_rank import Factor
from dualtape.samplers.mass_matrix import init_moments, join_moments, regularized_covariance, update_moments
from dualtape.samplers.progress import Silent
from dualtape.samplers.random import chain_key
from dualtape.samplers.step_size import continue_search, init_search, update_search
from dualtape.samplers.warmup import Adaptation
from dualtape.samplers.windows import NO_LIMIT, GrowingWindows, StanWindows
from targets import gaussian, standard_normal

WINDOWS = (GrowingWindows(), StanWindows())
LEARNING = (
    DiagonalMetric(),
    DiagonalMetric(SampleCovariance()),
    DenseMetric(),
    DenseMetric(SampleCovariance()),
    LowRankMetric(),
)


def run(known, sampler, *, draws, warmup, chains=2, seed=0):
    """Chains on a known target from exact starts."""
    whole = known.target.restrict(known.target.sites)
    settings = Settings(draws, warmup)
    compiled = compile_chain(build_kernel(sampler, known.target, np.float64), whole, (), np.float64, settings.longest)
    starts = [[compiled.init(position)[0]] for position in known.exact(np.random.default_rng(seed), chains)]
    return run_chains(compiled, starts, [chain_key(seed, i) for i in range(chains)], settings, Silent(), True)


# Step size.


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("first", [1e-3, 1.0, 50.0])
def test_the_search_finds_the_step_size_with_the_target_acceptance(target, first):
    """On the response exp(−ε) with noise, from steps that are far too short and far too long."""
    noise = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, 2000))

    def one(state, noise):
        response = jnp.exp(-jnp.exp(state.log_step))
        # Noise that keeps the acceptance inside [0, 1] and its mean as it is.
        return update_search(state, response + noise * jnp.minimum(response, 1 - response), False), None

    state, _ = jax.lax.scan(one, jax.tree.map(jnp.asarray, init_search(first, target, np.float64)), noise)
    assert float(jnp.exp(-jnp.exp(state.log_average))) == pytest.approx(target, abs=0.02)


def test_the_search_is_the_approximation_that_is_documented():
    rates, target = [1.0, 0.9, 0.2, np.nan, 1.0, 0.7], 0.8
    state, log_step, average = init_search(0.5, target, np.float64), np.log(0.5), 0.0
    for n, rate in enumerate(rates, 1):
        state = update_search(state, jnp.asarray(rate), jnp.asarray(False))
        # Strides of four while all steps were too short; no rate counts as a rejection.
        error = np.nan_to_num(rate) - target
        log_step += np.log(4.0) if n <= 2 else 2.0 * (n + 3) ** -0.6 * error
        average = np.average([log_step] if n == 1 else [average, log_step], weights=None if n == 1 else [n - 1, 2])
        assert float(state.log_step) == pytest.approx(log_step, rel=1e-12)
        assert float(state.log_average) == pytest.approx(average, rel=1e-12)


def test_steps_do_not_exceed_the_longest():
    state = init_search(1.0, 0.8, np.float64, longest=2.0)
    for _ in range(5):
        state = update_search(state, jnp.asarray(1.0), jnp.asarray(False))
    assert float(jnp.exp(state.log_step)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("divergences", "settled", "target"), [(0, True, 0.8), (1, True, 0.9), (2, True, 0.9), (2, False, 0.8)]
)
def test_divergences_raise_the_acceptance_that_is_aimed_at(divergences, settled, target):
    state = init_search(1.0, 0.8, np.float64)
    for i in range(200):
        state = update_search(state, jnp.asarray(0.8), jnp.asarray(i < divergences))
    after = continue_search(state, settled=settled)
    assert float(after.target) == pytest.approx(target)
    # Those that have had an effect, and those on the way to the typical set, do not count again.
    assert float(after.divergences) == (divergences if settled and target == 0.8 else 0)
    # On the way, and where the aim has changed, the search begins anew.
    anew = not settled or target != 0.8
    assert float(after.updates) == (0 if anew else 100)
    assert float(after.log_step) == float(state.log_average if anew else state.log_step)


def test_the_step_size_found_gives_the_acceptance_asked_for():
    """The last window has 50 steps: of the acceptance rate at its average, chains differ by some 0.02."""
    known, steps = standard_normal(30), []
    for sampler in (
        NUTS(target_acceptance=0.7),
        NUTS(target_acceptance=0.8),
        NUTS(target_acceptance=0.9),
        HMC(None, 5),
    ):
        drawn = run(known, sampler, draws=200, warmup=500)
        acceptance = drawn.statistics["acceptance_rate"].mean()
        assert acceptance == pytest.approx(sampler.target_acceptance, abs=0.06)
        steps.append(drawn.statistics["step_size"].mean())
    assert steps[0] > steps[1] > steps[2]


# Moments.


def moments_of(*seen, dense):
    """The moments of vectors, shape (draws, kinds, dimension), or of several kinds stacked."""
    vectors = np.stack(seen, axis=1) if len(seen) > 1 else seen[0]
    moments = init_moments(vectors.shape[1:], vectors.dtype, dense=dense)
    moments, _ = jax.lax.scan(
        lambda m, v: (update_moments(m, v), None), jax.tree.map(jnp.asarray, moments), jnp.asarray(vectors)
    )
    return jax.tree.map(np.asarray, moments)


@pytest.mark.parametrize("dense", [False, True])
def test_running_moments_are_those_of_the_draws(dense):
    # A mean far from zero, where sums of squares would lose all digits.
    draws = np.random.default_rng(0).normal(size=(500, 4)) @ np.diag([1e-3, 1.0, 10.0, 1e3]) + 1e6
    joined = join_moments(moments_of(draws[:123], dense=dense), moments_of(draws[123:], dense=dense))
    both = moments_of(draws, -draws, dense=dense)
    expected = np.cov(draws, rowvar=False)
    tolerance = 1e-6 * np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    for moments in (
        moments_of(draws, dense=dense),
        joined,
        jax.tree.map(lambda leaf: leaf[0] if leaf.ndim else leaf, both),
    ):
        covariance = np.asarray(moments.scatter) / 499
        assert float(moments.draws) == 500
        np.testing.assert_allclose(moments.mean, draws.mean(0), rtol=1e-13)
        if dense:
            assert (np.abs(covariance - expected) < tolerance).all()
        else:
            np.testing.assert_allclose(covariance, np.diag(expected), rtol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_the_covariance_is_shrunk_as_documented(dense):
    draws = np.random.default_rng(1).normal(size=(30, 3))
    covariance = np.cov(draws, rowvar=False)
    expected = (30 * covariance + 5e-3 * np.diag(np.diag(covariance))) / 35
    found = regularized_covariance(moments_of(draws, dense=dense))
    np.testing.assert_allclose(found, expected if dense else np.diag(expected), rtol=1e-12)


# Estimators.


def remembered(metric, draws, scores, memory=None):
    """The memory of a metric after some draws, from the beginning or from another memory on."""
    memory = jax.tree.map(jnp.asarray, memory or metric.init_memory(draws.shape[1], draws.dtype))
    remember = jax.jit(metric.remember)
    for draw, score in zip(draws, scores, strict=True):
        memory = remember(memory, draw, score, True)
        memory = remember(memory, 1e9 * draw, score, False)  # after warm-up: without a trace
    return jax.tree.map(np.asarray, memory)


def dense_scale(metric, scale, dimension):
    """L as a matrix."""
    return np.stack([np.asarray(metric.colour(scale, unit)) for unit in np.eye(dimension)], axis=1)


def random_covariance(dimension, seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(dimension, dimension))
    deviations = np.exp(rng.normal(size=dimension) * 3)
    return np.outer(deviations, deviations) * (factor @ factor.T + 0.1 * np.eye(dimension))


def test_the_geometric_mean_solves_its_equation():
    one, other = random_covariance(4, 1), random_covariance(4, 2)
    factor = geometric_mean_factor(one, other)
    mean = factor @ factor.T
    np.testing.assert_allclose(mean @ other @ mean, one, rtol=1e-6, atol=1e-9 * np.abs(one).max())
    again = geometric_mean_factor(one, np.linalg.inv(one))
    np.testing.assert_allclose(again @ again.T, one, rtol=1e-6)


@pytest.mark.parametrize("metric", [DenseMetric(FisherDivergence(1e-9)), LowRankMetric(cutoff=1.0, shrinkage=1e-9)])
@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_scores_tell_the_covariance_of_a_gaussian_exactly(metric, spread):
    """From 12 draws in 5 dimensions, wherever they are: the sample covariance of so few is far off."""
    covariance = random_covariance(5)
    # In the corner that a chain has seen so far.
    draws = 2.0 + spread * np.random.default_rng(3).normal(size=(12, 5)) * np.sqrt(np.diag(covariance))
    memory = remembered(metric, draws, -np.linalg.solve(covariance, draws.T).T)
    scale = dense_scale(metric, metric.learn(memory, metric.init_scale(5, np.float64)), 5)
    units = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs((scale @ scale.T - covariance) / units).max() < 1e-3
    assert np.abs((np.cov(draws, rowvar=False) - covariance) / units).max() > 0.3


def test_a_diagonal_metric_balances_draws_and_scores():
    rng = np.random.default_rng(0)
    draws, scores = rng.normal(size=(2, 40, 3)) * np.array([1e-3, 1.0, 1e3])
    metric = DiagonalMetric()
    scale = metric.learn(remembered(metric, draws, scores), np.ones(3))
    np.testing.assert_allclose(scale, np.sqrt(draws.std(axis=0) / scores.std(axis=0)), rtol=1e-12)


def test_a_single_draw_gives_scales_by_its_score():
    for metric in (DiagonalMetric(), DenseMetric(), LowRankMetric()):
        memory = remembered(metric, np.zeros((1, 3)), np.array([[1e4, -0.01, 0.0]]))
        scale = dense_scale(metric, metric.learn(memory, metric.init_scale(3, np.float64)), 3)
        np.testing.assert_allclose(scale, np.diag([0.01, 10.0, 1.0]), rtol=1e-12, atol=1e-12)


def test_a_low_rank_metric_finds_the_directions_that_matter():
    """Of 60 coordinates of all scales, correlated in two directions alone."""
    rng = np.random.default_rng(0)
    dimension, deviations = 60, np.exp(rng.normal(size=60) * 2)
    directions = np.linalg.qr(rng.normal(size=(dimension, 2)))[0]
    root = np.eye(dimension) + directions @ np.diag([99.0, -0.95]) @ directions.T
    factor = deviations[:, None] * root
    draws = rng.normal(size=(400, dimension)) @ factor.T
    precision = np.linalg.inv(factor @ factor.T)
    metric = LowRankMetric()
    memory = remembered(metric, draws, -draws @ precision)
    scale = metric.learn(memory, metric.init_scale(dimension, np.float64))
    assert isinstance(scale, Factor)
    found = dense_scale(metric, scale, dimension)
    # In its coordinates the target is nearly isotropic; in those of the best diagonal metric it is not.
    spread = np.linalg.eigvalsh(found.T @ precision @ found)
    diagonal = np.sqrt(draws.std(axis=0) / (draws @ precision).std(axis=0))
    alone = np.linalg.eigvalsh(diagonal[:, None] * precision * diagonal)
    assert spread[-1] / spread[0] < 30 < 1000 < alone[-1] / alone[0]
    # U has orthonormal rows or zeros, and Lᵀ is the transpose of L.
    used = scale.directions[scale.stretches != 1]
    np.testing.assert_allclose(used @ used.T, np.eye(len(used)), atol=1e-10)
    vector = rng.normal(size=dimension)
    np.testing.assert_allclose(metric.whiten(scale, vector), found.T @ vector, rtol=1e-9, atol=1e-9)


def test_a_low_rank_metric_remembers_the_latest_draws():
    metric, draws = LowRankMetric(), np.arange(1400.0)[:, None] * np.ones(40)

    def numbers(memory):
        np.testing.assert_array_equal(memory.latest()[:, 1], -memory.latest()[:, 0])
        return memory.latest()[:, 0, 0].astype(int).tolist()

    memory = remembered(metric, draws[:700], -draws[:700])
    assert numbers(memory) == list(range(700 - memory.capacity, 700))
    overlapping, alone = (metric.close(memory, overlap=overlap) for overlap in (True, False))
    assert numbers(overlapping) == numbers(memory)
    assert numbers(alone) == []
    further = remembered(metric, draws[700:720], -draws[700:720], overlapping)
    # Only those of the window just closed live on.
    assert numbers(metric.close(further, overlap=True)) == list(range(700, 720))
    assert numbers(remembered(metric, draws[720:], -draws[720:], further)) == list(range(1400 - memory.capacity, 1400))


def degenerate_draws():
    rng = np.random.default_rng(2)
    constant = rng.normal(size=(25, 3))
    constant[:, 1] = 4.0
    broken = rng.normal(size=(25, 3))
    broken[3, 2] = np.nan
    infinite = rng.normal(size=(25, 3))
    infinite[3, 2] = np.inf
    return {
        "constant": constant,
        "not a number": broken,
        "infinite": infinite,
        "stuck": np.ones((25, 3)),
        "collinear": rng.normal(size=(25, 1)) * np.ones(3),
        "one draw": np.ones((1, 3)),
        "fewer draws than coordinates": rng.normal(size=(10, 30)),
        "many coordinates": rng.normal(size=(12, 40)),
        "many coordinates, stuck": np.ones((25, 40)),
        "many coordinates, broken": np.full((25, 40), np.nan),
    }


@pytest.mark.parametrize("kind", degenerate_draws())
@pytest.mark.parametrize("metric", LEARNING, ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_degenerate_draws_give_a_finite_metric(metric, kind, dtype):
    draws = degenerate_draws()[kind].astype(dtype)
    memory = remembered(metric, draws, -draws)
    scale = metric.learn(memory, metric.init_scale(draws.shape[1], dtype))
    numbers = [leaf for leaf in jax.tree.leaves(scale) if leaf.dtype != bool]
    assert all(leaf.dtype == dtype and np.isfinite(leaf).all() for leaf in numbers)
    assert np.abs(np.linalg.eigvals(dense_scale(metric, scale, draws.shape[1]))).min() > 0


# Windows.


def test_windows_of_stan():
    assert StanWindows().borders(1000) == (75, 100, 150, 250, 450, 950, 1000)
    assert StanWindows().borders(150) == (75, 100, 150)
    assert StanWindows().borders(280) == (75, 100, 230, 280)
    assert StanWindows().borders(500) == (75, 100, 150, 250, 450, 500)
    assert StanWindows().borders(2000) == (75, 100, 150, 250, 450, 850, 1950, 2000)


def test_growing_windows():
    assert GrowingWindows().borders(1000) == (20, 38, 65, 105, 165, 256, 392, 597, 900, 1000)
    assert GrowingWindows().borders(300) == (20, 38, 65, 105, 165, 270, 300)
    assert GrowingWindows().borders(10) == (2, 3, 5, 9, 10)
    assert GrowingWindows().borders(1) == (1,)
    # The first steps are tried from several points where there is time to learn after them.
    assert [GrowingWindows().trial(warmup) for warmup in (0, 1, 3, 50, 1000)] == [0, 0, 0, 10, 20]
    assert StanWindows().trial(1000) == 0
    # Trajectories grow with the windows; neither the first nor the last has a limit of its own.
    limits = [GrowingWindows().doublings(border, 1000) for border in (20, 38, 65, 900)]
    assert limits == [6, 7, 8, NO_LIMIT]


@pytest.mark.parametrize("windows", WINDOWS, ids=repr)
def test_windows_are_sensible_for_every_length(windows):
    assert windows.borders(0) == ()
    for warmup in range(1, 3001):
        borders = np.array((0, *windows.borders(warmup)))
        assert borders[-1] == warmup
        assert (np.diff(borders) > 0).all(), warmup
        # The last window is for the step size alone.
        assert not windows.learns(borders[-2], warmup)
        if warmup >= 150:
            assert 15 <= warmup - borders[-2] <= warmup / 3
            slow = [border for border in borders if windows.learns(border, warmup)]
            assert slow
            # No window is much longer than the one before it, nor much shorter.
            lengths = np.diff([*slow, borders[-2]])
            if len(lengths) > 3:
                assert (lengths[1:] >= lengths[:-1] / 2).all()


@pytest.mark.parametrize("windows", WINDOWS, ids=repr)
def test_only_learning_windows_feed_the_metric(windows):
    metric = DiagonalMetric(SampleCovariance())
    adaptation = Adaptation(None, 0.8, metric, windows)
    tuning = adaptation.init(2, np.float64)
    rng, warmup, learning = np.random.default_rng(0), 1000, []
    update = jax.jit(adaptation.update)
    scales, borders = {}, adaptation.schedule(warmup)
    for step in range(1, warmup + 1):
        learning.append(bool(tuning.learning))
        draw = rng.normal(size=2) * step
        tuning = update(tuning, draw, -draw, jnp.asarray(0.8), jnp.asarray(False), jnp.asarray(True))
        if step in borders:
            tuning = adaptation.digest(jax.tree.map(np.asarray, tuning), step, warmup)
            scales[step] = tuning.scale
            assert float(tuning.memory.current.draws) == 0
    assert learning == [windows.learns(step, warmup) for step in range(warmup)]
    # The scale follows the growing draws, of the latest window, or of the latest two.
    for begin, middle, end in zip(borders[-5:], borders[-4:], borders[-3:], strict=False):
        steps = np.arange(begin if windows.overlap else middle, end) + 1.0
        np.testing.assert_allclose(scales[end], np.sqrt(np.mean(steps**2)), rtol=0.3)
    np.testing.assert_array_equal(scales[1000], scales[borders[-2]])


@pytest.mark.parametrize("warmup", [0, 1, 2, 3, 19, 20, 21, 74, 75, 149, 150, 151, 300])
@pytest.mark.parametrize("metric", [UnitMetric(), *LEARNING], ids=repr)
@pytest.mark.parametrize("windows", WINDOWS, ids=repr)
def test_every_length_of_warm_up_leaves_a_finite_tuning(warmup, metric, windows):
    adaptation = Adaptation(None, 0.8, metric, windows)
    tuning = adaptation.init(3, np.float64)
    rng = np.random.default_rng(warmup)
    update = jax.jit(adaptation.update)
    for step in range(1, warmup + 1):
        draw, acceptance = rng.normal(size=3), rng.uniform(0.6, 1.0)
        tuning = update(tuning, draw, -draw, jnp.asarray(acceptance), jnp.asarray(False), jnp.asarray(True))
        if step in adaptation.schedule(warmup):
            tuning = adaptation.digest(jax.tree.map(np.asarray, tuning), step, warmup)
    assert np.isfinite(tuning.step_size)
    assert float(tuning.step_size) > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tuning.scale))
    if warmup:
        assert float(tuning.step_size) == pytest.approx(np.exp(float(tuning.search.log_average)), rel=1e-12)


def test_after_warm_up_a_step_leaves_the_tuning_as_it_is():
    for metric in (UnitMetric(), *LEARNING):
        adaptation = Adaptation(None, 0.8, metric)
        before = jax.tree.map(jnp.asarray, adaptation.init(3, np.float64))
        after = adaptation.update(
            before, jnp.ones(3), jnp.ones(3), jnp.asarray(0.1), jnp.asarray(True), jnp.asarray(False)
        )
        for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(one, other)


# Through the driver.


@pytest.mark.parametrize("sampler", [NUTS(), HMC(None, 4, metric=DenseMetric())])
def test_nothing_is_learned_after_warm_up(sampler):
    known = gaussian([[1.0, 0.4], [0.4, 0.25]])
    short = run(known, sampler, draws=20, warmup=100)
    long = run(known, sampler, draws=400, warmup=100)
    for chain in range(2):
        steps = long.statistics["step_size"][chain]
        assert (steps == steps[0]).all()
        assert steps[0] == float(long.tunings[chain].step_size)
        for a, b in zip(jax.tree.leaves(short.tunings[chain]), jax.tree.leaves(long.tunings[chain]), strict=True):
            np.testing.assert_array_equal(a, b)
        # Of the windows that end at 65, 90 and 100, each of which counts half in the next.
        assert float(long.tunings[chain].search.updates) == 29
    assert long.tunings[0].step_size != long.tunings[1].step_size
    np.testing.assert_array_equal(short.positions, long.positions[:, :20])


def test_a_step_size_that_is_given_stays():
    drawn = run(standard_normal(), HMC(0.123, 3), draws=50, warmup=200)
    assert (drawn.statistics["step_size"] == 0.123).all()
    assert drawn.tunings[0].search is None
    drawn = run(gaussian(np.diag([0.5, 2.0])), NUTS(step_size=0.3), draws=50, warmup=200)
    assert (drawn.statistics["step_size"] == 0.3).all()
    # Its metric is learned all the same.
    assert (np.diag(drawn.tunings[0].scale) != 1.0).all()


def test_a_diagonal_metric_learns_scales_over_six_orders_of_magnitude():
    deviations = np.array([1e-3, 1e-1, 1.0, 1e1, 1e3])
    drawn = run(gaussian(np.diag(deviations**2)), NUTS(metric=DiagonalMetric()), draws=1, warmup=1000)
    for tuning in drawn.tunings:
        # With draws and scores that are proportional to each other there is no error but that of rounding.
        np.testing.assert_allclose(tuning.scale, deviations, rtol=1e-6)


def test_a_dense_metric_learns_scales_and_correlations():
    deviations = np.array([1e-2, 1.0, 1e3])
    correlations = np.array([[1.0, 0.9, -0.3], [0.9, 1.0, 0.0], [-0.3, 0.0, 1.0]])
    covariance = np.outer(deviations, deviations) * correlations
    drawn = run(gaussian(covariance), NUTS(metric=DenseMetric()), draws=1, warmup=1000)
    for tuning in drawn.tunings:
        error = (tuning.scale @ tuning.scale.T - covariance) / np.outer(deviations, deviations)
        assert np.abs(error).max() < 0.3


def test_every_block_of_gibbs_learns_its_own_metric_and_step_size():
    deviations = np.array([1e-2, 1.0, 30.0])
    known = gaussian(np.diag(deviations**2), {"a": 1, "b": 2})
    sampler = Gibbs({"a": NUTS(), "b": NUTS(metric=DenseMetric(), target_acceptance=0.95)})
    for a, b in run(known, sampler, draws=1, warmup=600).tunings:
        # The deviation of the last window, 300 draws, has an error of 4 % for independent draws.
        np.testing.assert_allclose(a.scale, deviations[:1], rtol=0.3)
        np.testing.assert_allclose(np.linalg.norm(b.scale, axis=1), deviations[1:], rtol=0.3)
        # Learning went on after the metric was there: steps fit the whitened block, and the stricter one is shorter.
        assert 0.1 < float(b.step_size) < float(a.step_size) < 4.0


def test_adaptation_pays():
    """Metrics make trajectories short on a target of unequal scales; a unit metric has to crawl."""
    known = gaussian(np.diag(np.array([0.01, 1.0, 10.0]) ** 2))
    steps = {
        metric: run(known, NUTS(metric=metric), draws=200, warmup=600).statistics["n_steps"].mean()
        for metric in (UnitMetric(), DiagonalMetric(), DenseMetric())
    }
    assert steps[DiagonalMetric()] < 12
    assert steps[DenseMetric()] < 12
    assert steps[UnitMetric()] > 200
