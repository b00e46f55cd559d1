"""Runs that stop when they have drawn enough."""

import threading

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import SamplingWarning, Until, model, rv, sample
from dualtape.samplers import chains as driver


@model
def normals():
    rv("a", dist.Normal(jnp.zeros(3), 1.0))


def autoregressive(chains, draws, correlation, seed=0, shift=0.0):
    rng, values = np.random.default_rng(seed), np.empty((chains, draws))
    values[:, 0] = rng.normal(size=chains)
    for i in range(1, draws):
        values[:, i] = correlation * values[:, i - 1] + np.sqrt(1 - correlation**2) * rng.normal(size=chains)
    return (values + shift * np.arange(chains)[:, None])[..., None]


@pytest.mark.parametrize(
    ("draws", "enough"),
    [
        (autoregressive(4, 1000, 0.0), True),
        (autoregressive(4, 1000, 0.98), False),  # some 40 effective draws
        (autoregressive(4, 1000, 0.0, shift=1.0), False),  # chains apart
        (np.concatenate([autoregressive(4, 1000, 0.0), np.ones((4, 1000, 1))], axis=-1), True),
        (np.ones((4, 1000, 1)), False),
    ],
    ids=["independent", "slow", "apart", "with one that stands still", "nothing moves"],
)
def test_what_is_enough(draws, enough):
    assert Until(ess=400, rhat=1.01).reached(draws) is enough


def test_a_single_chain_is_judged_by_its_effective_sample_size():
    assert Until(ess=400).reached(autoregressive(1, 1000, 0.0))
    assert not Until(ess=400).reached(autoregressive(1, 1000, 0.9))


def test_lengths_grow_by_a_quarter_and_end_with_all():
    assert list(Until().lengths(200)) == [100, 125, 156, 195, 200]
    assert list(Until().lengths(50)) == [50]


@pytest.mark.parametrize("chains", [1, 3])
def test_a_run_keeps_the_first_length_that_is_enough(chains):
    until = Until(ess=300 * chains, rhat=1.05)
    idata = sample(normals(), draws=20_000, warmup=200, chains=chains, seed=1, until=until)
    positions = idata["posterior"]["a"].values
    kept = positions.shape[1]
    lengths = list(until.lengths(20_000))
    assert kept in lengths
    assert kept < 1000
    assert [until.reached(positions[:, :n]) for n in lengths if n <= kept] == [n == kept for n in lengths if n <= kept]
    # The same draws as without: stopping is no part of the sampler.
    whole = sample(normals(), draws=kept, warmup=200, chains=chains, seed=1)
    np.testing.assert_array_equal(positions, whole["posterior"]["a"].values)
    assert not idata.attrs["interrupted"]


def test_the_result_does_not_depend_on_how_fast_chains_are(monkeypatch):
    original, first = driver._Runner._advance, threading.Event()

    def slow(self, count, thin, *, warming):
        if self.chain == 1 and not warming:
            first.wait(0.3)
        original(self, count, thin, warming=warming)

    settings = {"draws": 5000, "warmup": 100, "chains": 2, "seed": 3, "until": Until(ess=200, rhat=1.1)}
    fast = sample(normals(), **settings)["posterior"]["a"].values
    monkeypatch.setattr(driver._Runner, "_advance", slow)
    np.testing.assert_array_equal(fast, sample(normals(), **settings)["posterior"]["a"].values)


def test_draws_that_are_not_enough_are_warned_of():
    with pytest.warns(SamplingWarning, match=r"150 draws from each of 2 chain\(s\) were not enough to reach Until\("):
        idata = sample(normals(), draws=150, warmup=100, chains=2, seed=0, until=Until(ess=1e4))
    assert idata["posterior"].sizes["draw"] == 150
