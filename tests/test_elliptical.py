"""Elliptical slice sampling leaves targets with Gaussian priors invariant, stops, and planted bugs are found.

Chains start from exact draws, so that `targets.p_value` judges their ends without approximation. ALPHA is the
false-alarm rate of each such test; seven run, with fixed seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers import elliptical
from dualtape.samplers.elliptical import EllipticalSlice
from dualtape.samplers.random import chain_key, fold_in, normal
from scipy import special, stats
from targets import normal_quantile, p_value

ALPHA = 1e-3
CERTAIN = 1e-9  # what the p-value of a planted bug must fall below
CHAINS = 6000

COVARIANCE = np.array([[1.0, 0.4], [0.4, 0.5]])
FACTOR = np.linalg.cholesky(COVARIANCE)


@dataclass(frozen=True)
class WithPrior:
    """N(mean, COVARIANCE) times a likelihood; satisfies `samplers.base.GaussianTarget`. The mean is a constant."""

    likelihood: Callable[[Any], Any]
    stretch: float = 1.0
    shift: float = 0.0
    sites = ("q",)
    discrete = ()
    dimension = 2
    constants = (jax.ShapeDtypeStruct((2,), np.float64),)
    signature = None

    def mean(self, mean):
        return mean + self.shift

    def draw_prior(self, key, mean):
        return mean + self.stretch * jnp.asarray(FACTOR, mean.dtype) @ normal(key, 2, mean.dtype)

    def log_likelihood(self, q, mean):
        return self.likelihood(q)

    def log_density(self, q, mean):
        whitened = jnp.asarray(np.linalg.inv(FACTOR), q.dtype) @ (q - mean)
        return self.likelihood(q) - 0.5 * jnp.dot(whitened, whitened)


MEAN = np.array([1.5, -1.0])

# An observation 3 ~ Normal(q₀ + q₁, 0.5): the posterior is Gaussian, and far from the prior.
_ROW = np.array([1.0, 1.0])
_GAIN = COVARIANCE @ _ROW / (_ROW @ COVARIANCE @ _ROW + 0.25)
POSTERIOR_MEAN = MEAN + _GAIN * (3.0 - _ROW @ MEAN)
POSTERIOR_FACTOR = np.linalg.cholesky(COVARIANCE - np.outer(_GAIN, _ROW @ COVARIANCE))


def observed(q):
    return -0.5 * ((3.0 - q[0] - q[1]) / 0.5) ** 2


def cut(q):
    """One where q₀ > 1, undefined elsewhere."""
    return jnp.where(q[0] > 1.0, 0.0, jnp.nan)


def exact_observed(rng, number):
    return POSTERIOR_MEAN + rng.standard_normal((number, 2)) @ POSTERIOR_FACTOR.T


def normalise_observed(draws):
    return np.linalg.solve(POSTERIOR_FACTOR, (draws - POSTERIOR_MEAN).T).T


def exact_cut(rng, number):
    first = special.ndtri(rng.uniform(stats.norm.cdf(1.0 - MEAN[0]), 1.0, number))
    return MEAN + np.stack([first, rng.standard_normal(number)], 1) @ FACTOR.T


def normalise_cut(draws):
    normals = np.linalg.solve(FACTOR, (draws - MEAN).T).T
    low = stats.norm.cdf(1.0 - MEAN[0])
    return np.stack([normal_quantile((special.ndtr(normals[:, 0]) - low) / (1.0 - low)), normals[:, 1]], 1)


LAWS = {
    "Gaussian likelihood": (observed, exact_observed, normalise_observed),
    "likelihood undefined on one side": (cut, exact_cut, normalise_cut),
}


def walk(target, starts, *, steps=4, mean_at_init=MEAN, dtype=np.float64):
    """The ends of vectorised chains, and the infos of their last steps."""
    kernel = EllipticalSlice().build(target, dtype)

    def chain(key, position):
        def step(state, index):
            return kernel.step(fold_in(key, index), state, kernel.init_tuning(), (jnp.asarray(MEAN, dtype),))

        state = kernel.init(position, (jnp.asarray(mean_at_init, dtype),))
        state, infos = jax.lax.scan(step, state, jnp.arange(steps, dtype=jnp.int32))
        return kernel.position(state), jax.tree.map(lambda field: field[-1], infos)

    keys = jax.vmap(lambda i: fold_in(chain_key(0, 0), i))(jnp.arange(len(starts), dtype=jnp.int32))
    end, infos = jax.jit(jax.vmap(chain))(keys, jnp.asarray(starts, dtype))
    return np.asarray(end), jax.tree.map(np.asarray, infos)


@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("law", LAWS)
def test_the_target_is_invariant(law, x64):
    likelihood, exact, normalise = LAWS[law]
    starts = exact(np.random.default_rng(1), CHAINS)
    assert p_value(normalise(starts)) > ALPHA
    with jax.enable_x64(x64):
        end, infos = walk(WithPrior(likelihood), starts, dtype=np.float64 if x64 else np.float32)
        expected = np.asarray(jax.vmap(WithPrior(likelihood).log_density, (0, None))(end, MEAN))
    assert p_value(normalise(end.astype(float))) > ALPHA
    assert np.median(np.abs(end - starts).max(1)) > 0.3
    np.testing.assert_allclose(infos.lp, expected, rtol=1e-12 if x64 else 1e-3, atol=1e-12 if x64 else 1e-4)
    # Every step evaluates at least once, and those with a threshold to find more often.
    assert infos.n_steps.min() == 1
    assert 1.1 < infos.n_steps.mean() < 8


def test_chains_forget_where_they_started():
    """From a point far off, after 50 steps: the law again, which invariance alone would not give."""
    starts = np.tile([6.0, 4.0], (CHAINS, 1))
    assert p_value(normalise_observed(walk(WithPrior(observed), starts, steps=50)[0])) > ALPHA


@pytest.mark.parametrize("mean", [[0.0, 0.0], [-40.0, 25.0]])
def test_what_init_saw_of_the_prior_does_not_matter(mean):
    """The state holds the likelihood alone, so that a prior that moved with another block is the new one."""
    starts = exact_observed(np.random.default_rng(2), 50)
    np.testing.assert_array_equal(
        walk(WithPrior(observed), starts, mean_at_init=np.array(mean))[0], walk(WithPrior(observed), starts)[0]
    )


# Planted bugs.


def rotate_around_another_point(monkeypatch):
    return WithPrior(observed, shift=0.5)


def rotate_around_zero(monkeypatch):
    return WithPrior(observed, shift=-MEAN)


def stretch_the_prior(monkeypatch):
    return WithPrior(observed, stretch=1.15)


def no_threshold(monkeypatch):
    """The slice is all of the space: the first point is taken."""
    state = elliptical.State
    monkeypatch.setattr(elliptical, "State", lambda q, likelihood: state(q, jnp.full_like(likelihood, -jnp.inf)))
    return WithPrior(observed)


def half_a_turn(monkeypatch):
    """The first bracket is not a whole turn, so that the way back may not exist."""
    uniform = elliptical.uniform
    monkeypatch.setattr(elliptical, "uniform", lambda key, i, dtype: 0.25 + 0.5 * uniform(key, i, dtype))
    return WithPrior(observed)


@pytest.mark.parametrize(
    "plant", [rotate_around_another_point, rotate_around_zero, stretch_the_prior, no_threshold, half_a_turn]
)
def test_planted_bugs_are_found(plant, monkeypatch):
    starts = exact_observed(np.random.default_rng(1), CHAINS)
    end, _ = walk(plant(monkeypatch), starts, steps=8)
    assert p_value(normalise_observed(end)) < CERTAIN


# How searches end: from a start, by the likelihood, where the chain is and after how many evaluations.
@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_a_start_of_undefined_likelihood_is_left(bad):
    """Not always at once: a bracket may shrink past all good points, as it shrinks towards a bad one."""
    target = WithPrior(lambda q: jnp.where(q[0] > 1.0, 0.0, bad))
    assert (walk(target, np.full((200, 2), -3.0), steps=1)[0][:, 0] > 1.0).mean() > 0.8
    end, infos = walk(target, np.full((200, 2), -3.0), steps=20)
    assert (end[:, 0] > 1.0).all()
    assert (infos.n_steps < 100).all()


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_search_without_end_returns_to_its_start(bad):
    starts = np.random.default_rng(0).normal(size=(20, 2))
    end, infos = walk(WithPrior(lambda q: bad + 0.0 * q[0]), starts, steps=1)
    np.testing.assert_array_equal(end, starts)
    assert (infos.n_steps == 100).all()


def test_without_a_likelihood_every_first_point_is_taken():
    starts = MEAN + np.random.default_rng(1).standard_normal((CHAINS, 2)) @ FACTOR.T
    end, infos = walk(WithPrior(lambda q: 0.0 * q[0]), starts, steps=1)
    assert (infos.n_steps == 1).all()
    assert p_value(np.linalg.solve(FACTOR, (end - MEAN).T).T) > ALPHA


def test_a_needle_is_found_by_shrinking():
    """A likelihood so narrow that the slice is 10⁻⁸ of the ellipse: the bracket halves, about, at each evaluation."""
    end, infos = walk(WithPrior(lambda q: -0.5 * jnp.sum((q / 1e-8) ** 2)), np.zeros((50, 2)), steps=1)
    assert (end != 0).any(1).all()
    assert np.abs(end).max() < 1e-6
    assert infos.n_steps.max() < 100


def test_the_report_and_the_view():
    (report,) = EllipticalSlice().build(WithPrior(observed), np.float64).reports
    assert (report.block, report.sampler, report.dimension, report.adtype) == ("q", "EllipticalSlice()", 2, None)
    assert "Gaussian prior" in report.reason

    class Block:
        def with_gaussian_prior(self):
            return "with a Gaussian prior"

    assert EllipticalSlice().view(Block()) == "with a Gaussian prior"
