"""Slice sampling: invariance for any width and limit, adaptation of widths, and where the density is not finite."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers import slice as slicing
from dualtape.samplers.random import chain_key, fold_in
from dualtape.samplers.slice import Slice, sample_line
from targets import CORRELATED, gaussian, p_value, skewed

ALPHA = 1e-3
CHAINS = 4000


@dataclass(frozen=True)
class Density:
    """A log density over an array of one site."""

    log_density: Any
    dimension: int
    discrete: tuple[str, ...] = ()
    sites = ("q",)
    constants = ()
    signature = None


def walk(kernel, starts, steps, tuning=None, seed=0):
    """The ends of vectorised chains, and the infos of their last steps."""
    tuning = kernel.init_tuning() if tuning is None else tuning

    def chain(key, position):
        state, infos = jax.lax.scan(
            lambda state, i: kernel.step(fold_in(key, i), state, tuning, ()),
            kernel.init(position, ()),
            jnp.arange(steps),
        )
        return kernel.position(state), jax.tree.map(lambda field: field[-1], infos)

    keys = jax.vmap(lambda i: fold_in(chain_key(seed, 0), i))(jnp.arange(len(starts)))
    end, infos = jax.jit(jax.vmap(chain))(keys, jnp.asarray(starts))
    return np.asarray(end), jax.tree.map(np.asarray, infos)


def ends(known, sampler, steps=3):
    kernel = sampler.build(Density(known.target.log_density, known.target.dimension), np.float64)
    starts = known.exact(np.random.default_rng(1), CHAINS)
    assert p_value(known.normalise(starts)) > ALPHA
    return starts, *walk(kernel, starts, steps)


GAUSSIAN, SKEWED = gaussian(CORRELATED), skewed()


@pytest.mark.parametrize("known", [GAUSSIAN, SKEWED], ids=["Gaussian", "skewed"])
@pytest.mark.parametrize(
    "sampler",
    [Slice(), Slice(0.1), Slice(30.0), Slice(0.4, max_steps=3), Slice(0.7, max_steps=1)],
    ids=["usual", "narrow", "wide", "limited", "no stepping out"],
)
def test_the_target_is_invariant(sampler, known):
    start, end, _ = ends(known, sampler)
    assert p_value(known.normalise(end)) > ALPHA
    assert (start != end).all()
    assert np.median(np.abs(end - start) / known.deviations) > 0.2


def test_a_limit_of_proposals_keeps_the_target_invariant(monkeypatch):
    """After two misses the coordinate stays, which is what bounds the search; far fewer than the limit in use."""
    monkeypatch.setattr(slicing, "_MOST_PROPOSALS", 2)
    _, end, infos = ends(SKEWED, Slice(10.0))
    assert p_value(SKEWED.normalise(end)) > ALPHA
    assert 0.1 < np.isnan(infos.lengths).mean() < 0.9


# Which number of its stream a spoiled update gets wrong, how, and for which sampler: 0 is the height of the slice,
# 1 the place of the first interval, 2 the split of its steps.
BUGS = {
    "slices too high": (0, lambda u: u**0.7, Slice()),
    "everything is inside": (0, lambda u: 0.0 * u, Slice(3.0)),
    "the interval begins at the point": (1, lambda u: 0.0 * u, Slice(0.7, max_steps=1)),
    "all steps go to the right": (2, lambda u: 0.0 * u, Slice(0.4, max_steps=3)),
}


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(name, monkeypatch):
    number, spoil, sampler = BUGS[name]
    uniform = slicing.uniform

    def spoiled(key, index, dtype):
        value = uniform(key, index, dtype)
        return spoil(value) if isinstance(index, int) and index == number else value

    monkeypatch.setattr(slicing, "uniform", spoiled)
    assert min(p_value(known.normalise(ends(known, sampler, steps=6)[1])) for known in (SKEWED, GAUSSIAN)) < 1e-6


def test_an_update_counts_its_evaluations_and_ends_inside_the_slice():
    calls = []

    def along(value):
        calls.append(float(value))
        return -0.5 * value**2

    with jax.disable_jit():
        for i in range(30):
            del calls[:]
            found = sample_line(
                fold_in(chain_key(0, 0), i), jnp.array(0.3), jnp.array(-0.045), jnp.array(0.5), 8, along
            )
            assert int(found.evaluations) == len(calls)
            assert float(found.log_density) == -0.5 * float(found.value) ** 2
            assert float(found.value) in calls
            assert 0 < float(found.length) <= 8 * 0.5 + 1e-12


@pytest.mark.parametrize("outside", [-jnp.inf, jnp.nan])
def test_outside_the_support_is_outside_the_slice(outside):
    """An exponential law, whose density is zero or not a number below zero."""
    kernel = Slice(2.0).build(Density(lambda q: jnp.where(q[0] > 0, -q[0], outside), 1), np.float64)
    starts = np.random.default_rng(2).exponential(size=(CHAINS, 1))
    end, infos = walk(kernel, starts, 3)
    assert (end > 0).all()
    np.testing.assert_array_equal(infos.lp, -end[:, 0])
    assert p_value(gaussian([[1.0]]).normalise(np.array(jax.scipy.special.ndtri(1 - np.exp(-end))))) > ALPHA


@pytest.mark.parametrize("outside", [-jnp.inf, jnp.nan])
def test_a_slice_of_no_width_ends_where_it_began(outside):
    end, infos = walk(
        Slice().build(Density(lambda q: jnp.where(q[0] == 0.5, 0.0, outside), 1), np.float64), np.full((20, 1), 0.5), 2
    )
    assert (end == 0.5).all()
    assert (infos.lp == 0.0).all()
    assert np.isnan(infos.lengths).all()


def test_a_start_of_density_zero_finds_the_support():
    kernel = Slice().build(Density(lambda q: jnp.where(jnp.abs(q[0]) < 5, 0.0, -jnp.inf), 1), np.float64)
    end, _ = walk(kernel, np.full((200, 1), 5.1), 40)
    assert (np.abs(end) < 5).mean() > 0.99


def warm(kernel, start, warmup):
    """A tuning after a warm-up, as the driver would make it, and the state there."""

    @jax.jit
    def advance(state, tuning, first, last):
        def one(index, carry):
            state, info = kernel.step(fold_in(chain_key(3, 0), index), carry[0], carry[1], ())
            return state, kernel.tune(carry[1], state, info)

        return jax.lax.fori_loop(first, last, one, (state, tuning))

    state, tuning, done = kernel.init(start, ()), kernel.init_tuning(), 0
    for border in kernel.schedule(warmup):
        state, tuning = advance(state, tuning, done, border)
        tuning, done = kernel.retune(jax.tree.map(np.asarray, tuning), border, warmup), border
    return kernel.position(state), tuning


def test_widths_are_learned_over_six_orders_of_magnitude():
    deviations = np.array([1e-3, 1.0, 1e3])
    known = gaussian(np.diag(deviations**2))
    kernel = Slice().build(Density(known.target.log_density, 3), np.float64)
    _, tuning = warm(kernel, 2.0 * deviations, 400)
    # The slices of a normal law are 3.2 deviations long in the mean, and the intervals of that width find it in 4.9
    # evaluations; of 2 or 10 deviations, in 5.2.
    assert ((tuning.widths / deviations > 2.0) & (tuning.widths / deviations < 12.0)).all()
    assert np.isfinite(tuning.seen)
    starts = known.exact(np.random.default_rng(4), CHAINS)
    end, infos = walk(kernel, starts, 2, tuning)
    assert p_value(known.normalise(end)) > ALPHA
    assert infos.n_steps.mean() < 3 * 5.5
    np.testing.assert_allclose(infos.step_size, tuning.widths.mean())
    # Without warm-up the first interval is a thousand times too long and too short.
    assert walk(kernel, starts, 2)[1].n_steps.mean() > 2 * infos.n_steps.mean()


@pytest.mark.parametrize("warmup", [0, 1, 20, 150])
def test_every_length_of_warm_up_leaves_a_usable_tuning(warmup):
    kernel = Slice().build(Density(lambda q: -jnp.sum(q**2), 2), np.float64)
    _, tuning = warm(kernel, np.zeros(2), warmup)
    assert (np.asarray(tuning.widths) > 0).all()
    assert (tuning.widths == 1.0).all() == (warmup == 0)


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        kernel = Slice().build(Density(lambda q: -0.5 * jnp.sum(q**2), 2), np.float32)
        tuning = kernel.init_tuning()
        state, info = kernel.step(chain_key(0, 0), kernel.init(np.zeros(2, np.float32), ()), tuning, ())
        learned = kernel.tune(tuning, state, info)
    assert {leaf.dtype for leaf in jax.tree.leaves((state, learned))} == {np.dtype(np.float32)}


def test_the_report_names_the_block():
    (report,) = Slice(2.0).build(Density(lambda q: -q @ q, 2), np.float64).reports
    assert (report.block, report.dimension, report.adtype, report.reason) == ("q", 2, None, None)
    assert report.sampler == "Slice(width=2.0, max_steps=100)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slice(0.0), "Slice: width must be a positive number or None to adapt it, got 0.0."),
        (lambda: Slice(np.inf), "Slice: width must be a positive number or None to adapt it, got inf"),
        (lambda: Slice("wide"), "Slice: width must be a positive number or None to adapt it, got 'wide'"),
        (lambda: Slice(max_steps=0), "Slice: max_steps must be an integer >= 1, got 0."),
        (
            lambda: Slice().build(Density(lambda q: q[0], 1, ("q",)), np.float64),
            "Slice: site 'q' is discrete, and a slice is an interval of real numbers; give the site a block of its own",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value).startswith(message)
