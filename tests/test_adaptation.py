"""Warm-up: step size, running moments, metrics, windows, and that it is over when sampling begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers import HMC, NUTS, DenseMetric, DiagonalMetric, Gibbs, UnitMetric
from dualtape.samplers.chains import Settings, run_chains
from dualtape.samplers.compilation import compile_chain
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.mass_matrix import Moments, init_moments, regularized_covariance, update_moments
from dualtape.samplers.progress import Silent
from dualtape.samplers.random import chain_key
from dualtape.samplers.step_size import init_dual_averaging, update_dual_averaging
from dualtape.samplers.warmup import Adaptation, windows
from targets import gaussian, standard_normal


def run(known, sampler, *, draws, warmup, chains=2, seed=0):
    """Chains on a known target from exact starts."""
    whole = known.target.restrict(known.target.sites)
    settings = Settings(draws, warmup)
    compiled = compile_chain(build_kernel(sampler, known.target, np.float64), whole, (), np.float64, settings.longest)
    starts = [compiled.init(position)[0] for position in known.exact(np.random.default_rng(seed), chains)]
    return run_chains(compiled, starts, [chain_key(seed, i) for i in range(chains)], settings, Silent(), True)


# Step size.


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("first", [1e-3, 1.0, 50.0])
def test_dual_averaging_finds_the_step_size_with_the_target_acceptance(target, first):
    """On the response exp(−ε) with noise, from steps that are far too short and far too long."""
    rng = np.random.default_rng(0)
    noise = jnp.asarray(rng.uniform(-1, 1, 4000))

    def one(state, noise):
        response = jnp.exp(-jnp.exp(state.log_step))
        # Noise that keeps the acceptance inside [0, 1] and its mean as it is.
        return update_dual_averaging(state, response + noise * jnp.minimum(response, 1 - response), target), None

    state, _ = jax.lax.scan(one, jax.tree.map(jnp.asarray, init_dual_averaging(first, np.float64)), noise)
    assert float(jnp.exp(-jnp.exp(state.log_average))) == pytest.approx(target, abs=0.02)


def test_dual_averaging_is_that_of_hoffman_and_gelman():
    rates, target = [0.9, 0.2, np.nan, 1.0, 0.7], 0.8
    state = init_dual_averaging(0.5, np.float64)
    error, log_average, centre = 0.0, 0.0, np.log(10 * 0.5)
    for m, rate in enumerate(rates, 1):
        state = update_dual_averaging(state, jnp.asarray(rate), target)
        # Equations (6) of the paper, with γ = 0.05, t₀ = 10 and κ = 0.75; no rate counts as rejection.
        error = (1 - 1 / (m + 10)) * error + (target - np.nan_to_num(rate)) / (m + 10)
        log_step = centre - np.sqrt(m) / 0.05 * error
        log_average = m**-0.75 * log_step + (1 - m**-0.75) * log_average
        assert float(state.log_step) == pytest.approx(log_step, rel=1e-12)
        assert float(state.log_average) == pytest.approx(log_average, rel=1e-12)


def test_the_step_size_found_gives_about_the_acceptance_asked_for():
    """The average over 50 iterates of the last phase errs to the side of short steps, as in Stan: by 0.05 to 0.1."""
    known, steps = standard_normal(30), []
    for sampler in (
        NUTS(target_acceptance=0.7),
        NUTS(target_acceptance=0.8),
        NUTS(target_acceptance=0.9),
        HMC(None, 5),
    ):
        drawn = run(known, sampler, draws=200, warmup=500)
        acceptance = drawn.statistics["acceptance_rate"].mean()
        assert sampler.target_acceptance - 0.05 < acceptance < sampler.target_acceptance + 0.15
        steps.append(drawn.statistics["step_size"].mean())
    assert steps[0] > steps[1] > steps[2]


# Moments.


@pytest.mark.parametrize("dense", [False, True])
def test_running_moments_are_those_of_the_draws(dense):
    # A mean far from zero, where sums of squares would lose all digits.
    draws = np.random.default_rng(0).normal(size=(500, 4)) @ np.diag([1e-3, 1.0, 10.0, 1e3]) + 1e6
    moments = init_moments(4, np.float64, dense=dense)
    update = jax.jit(update_moments)
    for draw in draws:
        moments = update(moments, draw)
    covariance = np.asarray(moments.scatter) / 499
    expected = np.cov(draws, rowvar=False)
    assert float(moments.draws) == 500
    np.testing.assert_allclose(moments.mean, draws.mean(0), rtol=1e-14)
    tolerance = 1e-6 * np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    if dense:
        assert (np.abs(covariance - expected) < tolerance).all()
    else:
        np.testing.assert_allclose(covariance, np.diag(expected), rtol=1e-6)


@pytest.mark.parametrize("metric", [DiagonalMetric(), DenseMetric()])
def test_the_covariance_is_shrunk_as_documented(metric):
    draws = np.random.default_rng(1).normal(size=(30, 3))
    moments = metric.init_moments(3, np.float64)
    for draw in draws:
        moments = update_moments(moments, draw)
    covariance = np.cov(draws, rowvar=False)
    expected = (30 * covariance + 5e-3 * np.diag(np.diag(covariance))) / 35
    scale = metric.scale_from(moments)
    if scale.ndim == 1:
        np.testing.assert_allclose(scale**2, np.diag(expected), rtol=1e-12)
    else:
        np.testing.assert_allclose(scale @ scale.T, expected, atol=1e-13)
        np.testing.assert_array_equal(scale, np.tril(scale))


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
    }


@pytest.mark.parametrize("kind", degenerate_draws())
@pytest.mark.parametrize("metric", [DiagonalMetric(), DenseMetric()])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_degenerate_draws_give_a_finite_metric(metric, kind, dtype):
    draws = degenerate_draws()[kind].astype(dtype)
    moments = metric.init_moments(draws.shape[1], dtype)
    update = jax.jit(update_moments)
    for draw in draws:
        moments = update(moments, draw)
    scale = metric.scale_from(Moments(*map(np.asarray, moments)))
    assert scale.dtype == dtype
    assert np.isfinite(scale).all()
    assert (np.diag(scale) if scale.ndim == 2 else scale).min() > 0
    assert np.isfinite(regularized_covariance(Moments(*map(np.asarray, moments)))).all()


# Windows.


def test_windows_are_those_of_stan():
    assert windows(1000) == (75, 100, 150, 250, 450, 950, 1000)
    assert windows(150) == (75, 100, 150)
    assert windows(280) == (75, 100, 230, 280)
    assert windows(500) == (75, 100, 150, 250, 450, 500)
    assert windows(2000) == (75, 100, 150, 250, 450, 850, 1950, 2000)


def test_windows_are_sensible_for_every_length():
    assert windows(0) == ()
    for warmup in range(1, 3001):
        borders = np.array((0, *windows(warmup)))
        assert borders[-1] == warmup
        assert (np.diff(borders) > 0).all(), warmup
        if warmup >= 150:
            slow = np.diff(borders[1:-1])
            assert borders[1] == 75
            assert warmup - borders[-2] == 50
            # Slow windows double, but for the last, which takes what is left: at least as much as its turn would be.
            np.testing.assert_array_equal(slow[:-1], 25 * 2 ** np.arange(len(slow) - 1))
            assert slow[-1] >= 25 * 2 ** (len(slow) - 1)


def test_only_slow_windows_feed_the_metric():
    adaptation = Adaptation(None, 0.8, DiagonalMetric())
    tuning = adaptation.init(2, np.float64)
    rng, warmup, learning = np.random.default_rng(0), 1000, []
    update = jax.jit(adaptation.update)
    scales = {}
    for step in range(1, warmup + 1):
        learning.append(float(tuning.learning) > 0)
        tuning = update(tuning, rng.normal(size=2) * step, jnp.asarray(0.8))
        if step in adaptation.schedule(warmup):
            tuning = adaptation.digest(jax.tree.map(np.asarray, tuning), step, warmup)
            scales[step] = tuning.scale
            assert float(tuning.moments.draws) == 0
    assert learning == [75 <= step < 950 for step in range(warmup)]
    np.testing.assert_array_equal(scales[75], 1.0)
    # Each window replaces the last: the scale follows the growing draws, of the latest window alone.
    for begin, end in ((75, 100), (100, 150), (450, 950)):
        steps = np.arange(begin, end) + 1.0
        np.testing.assert_allclose(scales[end], np.sqrt(np.mean(steps**2)), rtol=0.5)
    np.testing.assert_array_equal(scales[1000], scales[950])


@pytest.mark.parametrize("warmup", [0, 1, 19, 20, 21, 74, 75, 149, 150, 151, 300])
@pytest.mark.parametrize("metric", [UnitMetric(), DiagonalMetric(), DenseMetric()])
def test_every_length_of_warm_up_leaves_a_finite_tuning(warmup, metric):
    adaptation = Adaptation(None, 0.8, metric)
    tuning = adaptation.init(3, np.float64)
    rng = np.random.default_rng(warmup)
    update = jax.jit(adaptation.update)
    for step in range(1, warmup + 1):
        tuning = update(tuning, rng.normal(size=3), jnp.asarray(rng.uniform(0.6, 1.0)))
        if step in adaptation.schedule(warmup):
            tuning = adaptation.digest(jax.tree.map(np.asarray, tuning), step, warmup)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tuning))
    assert float(tuning.step_size) > 0
    if warmup:
        assert float(tuning.step_size) == pytest.approx(np.exp(float(tuning.averaging.log_average)), rel=1e-12)


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
        assert float(long.tunings[chain].averaging.updates) == 10  # those of the last fast phase
    assert long.tunings[0].step_size != long.tunings[1].step_size
    np.testing.assert_array_equal(short.positions, long.positions[:, :20])


def test_a_step_size_that_is_given_stays():
    drawn = run(standard_normal(), HMC(0.123, 3), draws=50, warmup=200)
    assert (drawn.statistics["step_size"] == 0.123).all()
    assert drawn.tunings[0].averaging is None
    drawn = run(standard_normal(), NUTS(step_size=0.3), draws=50, warmup=200)
    assert (drawn.statistics["step_size"] == 0.3).all()
    # Its metric is learned all the same.
    assert (drawn.tunings[0].scale != 1.0).all()


def test_a_diagonal_metric_learns_scales_over_six_orders_of_magnitude():
    deviations = np.array([1e-3, 1e-1, 1.0, 1e1, 1e3])
    drawn = run(gaussian(np.diag(deviations**2)), NUTS(), draws=1, warmup=1000)
    for tuning in drawn.tunings:
        # The deviation of 500 draws has an error of 3 % if they are independent; draws of this metric nearly are.
        np.testing.assert_allclose(tuning.scale, deviations, rtol=0.2)


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
        np.testing.assert_allclose(np.diag(b.scale), deviations[1:], rtol=0.3)
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
