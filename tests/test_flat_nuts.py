"""Many chains as flat state machines: the draws are those of the nested loops, whatever the rounds and chunks."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers.flat_nuts import Chunk, FlatNUTS, run_flat
from dualtape.samplers.hamiltonian import State
from dualtape.samplers.integrators import Leapfrog, Point
from dualtape.samplers.metrics import DiagonalMetric
from dualtape.samplers.nuts import outcome
from dualtape.samplers.random import chain_key, fold_in, normal
from dualtape.samplers.trajectory import grow_trajectory
from scipy import stats
from targets import CORRELATED

CHAINS, DRAWS, DEPTH = 12, 20, 5


class Tuning(NamedTuple):
    step_size: jax.Array
    scale: jax.Array
    seen: jax.Array
    doublings: jax.Array


def funnel(q):
    return -0.5 * (q[0] / 3) ** 2 - 0.5 * jnp.sum(q[1:] ** 2) * jnp.exp(-q[0]) - 0.5 * (q.size - 1) * q[0]


def cliff(q):
    """A Gaussian with a wall, at which trajectories diverge, and no number beyond another."""
    return -0.5 * jnp.dot(q, q) + jnp.where(q[0] < 1.0, 0.0, -1e6) + jnp.where(q[1] < 1.5, 0.0, jnp.nan)


def correlated(q):
    return -0.5 * jnp.dot(q, jnp.linalg.solve(jnp.asarray(CORRELATED), q))


def shrink(tuning, state, info, warming):
    """A rule that uses all it is given: steps grow while they are accepted, and the scale follows the state."""
    factor = jnp.exp(0.1 * (info.acceptance_rate - 0.8))
    learned = tuning._replace(
        step_size=tuning.step_size * factor,
        scale=tuning.scale + 0.01 * jnp.abs(state.gradient),
        seen=tuning.seen + 1,
    )
    return jax.tree.map(lambda new, old: jnp.where(warming, new, old), learned, tuning)


def record(state, info):
    rest = (info.lp, info.energy, info.acceptance_rate, info.n_steps, info.tree_depth, info.diverging, info.step_size)
    return jnp.concatenate([state.position, jnp.stack([jnp.asarray(value, state.position.dtype) for value in rest])])


def integrator(log_density):
    return lambda tuning: Leapfrog(tuning.scale, DiagonalMetric(), jax.value_and_grad(log_density)).step


def machine(log_density):
    return FlatNUTS(DEPTH, integrator(log_density), shrink, record)


def ensemble(log_density, dimension, chains=CHAINS):
    """Keys, states and tunings of chains with very different step sizes."""
    rng = np.random.default_rng(3)
    keys = jnp.asarray(np.stack([chain_key(1, c) for c in range(chains)]))
    positions = jnp.asarray(rng.uniform(-1, 0.9, size=(chains, dimension)))
    states = State(positions, *jax.vmap(jax.value_and_grad(log_density))(positions))
    steps = jnp.asarray(0.6 * 2.0 ** -(np.arange(chains) % 4))
    # Some chains have a lower limit of doublings than others.
    doublings = jnp.arange(chains, dtype=jnp.int32) % 7 + 1
    return keys, states, Tuning(steps, jnp.ones((chains, dimension)), jnp.zeros(chains), doublings)


@functools.partial(jax.jit, static_argnums=(0, 4))
def nested(log_density, keys, states, tunings, draws, warming):
    """Rows and tunings by the loop over transitions of `grow_trajectory`."""

    def one(key, state, tuning):
        def step(carry, index):
            state, tuning = carry
            own = fold_in(key, index)
            momentum = normal(fold_in(own, 0), state.position.size, state.position.dtype)
            start = Point(state.position, momentum, state.log_density, state.gradient)
            limit = jnp.minimum(DEPTH, tuning.doublings)
            leap = integrator(log_density)(tuning)
            tree = grow_trajectory(fold_in(own, 1), start, tuning.step_size, DEPTH, leap, limit)
            state, info = outcome(tree, tuning.step_size, DEPTH)
            return (state, shrink(tuning, state, info, warming)), record(state, info)

        (_, tuning), rows = jax.lax.scan(step, (state, tuning), jnp.arange(draws, dtype=jnp.int32))
        return rows, tuning

    return jax.vmap(one)(keys, states, tunings)


@functools.partial(jax.jit, static_argnums=(0, 4))
def begin(log_density, keys, states, tunings, capacity):
    return jax.vmap(lambda *chain: machine(log_density).begin(*chain, capacity))(keys, states, tunings)


@functools.partial(jax.jit, static_argnums=(0, 4))
def advance(log_density, walks, chunks, rounds, steps):
    return run_flat(machine(log_density), walks, chunks, rounds, steps)


def chunk_of(keys, first, count, thin=1, warming=False):
    chains = len(keys)
    numbers = (jnp.full(chains, value, jnp.int32) for value in (first, count, thin))
    return Chunk(keys, *numbers, jnp.full(chains, warming))


@pytest.mark.parametrize("warming", [False, True])
@pytest.mark.parametrize("log_density", [funnel, cliff])
def test_the_draws_are_those_of_the_nested_loops(log_density, warming):
    keys, states, tunings = ensemble(log_density, 3)
    expected, tuned = nested(log_density, keys, states, tunings, DRAWS, warming)
    walks = begin(log_density, keys, states, tunings, DRAWS)
    walks = advance(log_density, walks, chunk_of(keys, 0, DRAWS, warming=warming), 10_000, 4)
    assert (walks.made == DRAWS).all()
    assert not walks.flying.any()
    np.testing.assert_allclose(walks.rows[:, :DRAWS], expected, rtol=1e-6, atol=1e-9)
    for found, right in zip(walks.tuning, tuned, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)
    np.testing.assert_array_equal(walks.tuning.seen, DRAWS if warming else 0)
    # The comparison is worth making: trees of many depths, and divergences at the cliff.
    assert len(np.unique(expected[:, :, 7])) >= 4
    assert log_density is funnel or expected[:, :, 8].any()


@pytest.mark.parametrize("steps", [1, 3])
def test_rounds_do_not_matter(steps):
    keys, states, tunings = ensemble(funnel, 3)
    expected, _ = nested(funnel, keys, states, tunings, DRAWS, True)
    walks, chunk = begin(funnel, keys, states, tunings, DRAWS), chunk_of(keys, 0, DRAWS, warming=True)
    calls = 0
    # Cut off every few rounds, in the middle of trajectories.
    while (walks.made < DRAWS).any():
        walks, calls = advance(funnel, walks, chunk, 11, steps), calls + 1
    assert calls > 3
    np.testing.assert_allclose(walks.rows[:, :DRAWS], expected, rtol=1e-6, atol=1e-9)


def test_chunks_and_thinning_keep_what_they_should():
    keys, states, tunings = ensemble(funnel, 3)
    expected, _ = nested(funnel, keys, states, tunings, DRAWS, False)
    walks, parts = begin(funnel, keys, states, tunings, 4), []
    for first, count in ((0, 9), (9, 3), (12, 8)):
        walks = advance(
            funnel, walks._replace(made=jnp.zeros_like(walks.made)), chunk_of(keys, first, count, 3), 999, 4
        )
        parts.append(walks.rows[:, : count // 3])
    kept = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(kept, expected[:, [2, 5, 8, 11, 14, 17]], rtol=1e-6, atol=1e-9)


def test_a_chain_with_nothing_to_do_stays_as_it_is():
    keys, states, tunings = ensemble(funnel, 3)
    counts = jnp.asarray(np.arange(CHAINS) % 3 * 5, jnp.int32)
    walks = begin(funnel, keys, states, tunings, DRAWS)
    walks = advance(funnel, walks, chunk_of(keys, 0, 0, warming=True)._replace(transitions=counts), 999, 4)
    np.testing.assert_array_equal(walks.made, counts)
    np.testing.assert_array_equal(walks.tuning.seen, counts)
    expected, _ = nested(funnel, keys, states, tunings, DRAWS, True)
    after = np.asarray(walks.state.position)
    for chain, count in enumerate(counts):
        right = states.position[chain] if count == 0 else expected[chain, count - 1, :3]
        np.testing.assert_allclose(after[chain], right, rtol=1e-6, atol=1e-9)


def test_many_chains_have_the_moments_of_their_target():
    """Means and covariances over 128 chains, in standard errors between chains; fails once in 10⁴ seeds."""
    chains, draws = 128, 60
    keys, states, tunings = ensemble(correlated, 2, chains)
    tunings = tunings._replace(step_size=jnp.full(chains, 0.4))
    walks = begin(correlated, keys, states, tunings, draws)
    walks = advance(correlated, walks, chunk_of(keys, 0, draws), 9999, 4)
    x = np.asarray(walks.rows[:, 10:draws, :2])
    estimates = np.concatenate([x, x**2, x[..., :1] * x[..., 1:]], axis=-1).mean(1)
    truth = np.array([0.0, 0.0, CORRELATED[0][0], CORRELATED[1][1], CORRELATED[0][1]])
    z = (estimates.mean(0) - truth) / (estimates.std(0, ddof=1) / np.sqrt(chains))
    assert np.abs(z).max() < stats.t.isf(1e-4 / 10, chains - 1)
