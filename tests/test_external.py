"""Algorithms of other libraries as samplers: BlackJAX's, and any with `init` and `step`."""

import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import AutoFiniteDiff, AutoForward
from dualtape.samplers.external import External
from dualtape.samplers.random import chain_key, fold_in
from targets import CORRELATED, gaussian, p_value

ALPHA = 1e-3
CHAINS = 2000
GAUSSIAN = gaussian(CORRELATED)


@dataclass(frozen=True)
class Density:
    """A log density over an array of one site."""

    log_density: Any
    dimension: int = 2
    discrete: tuple[str, ...] = ()
    constants: tuple[Any, ...] = ()
    sites = ("q",)
    signature = None


class State(NamedTuple):
    position: Any
    log_density: Any


class Info(NamedTuple):
    acceptance_rate: Any
    is_divergent: Any
    num_integration_steps: int
    proposal: Any


def walk_of(log_density, scale=0.6, always=False):
    """A random walk, as somebody else would write it."""

    def init(position):
        return State(position, log_density(position))

    def step(key, state):
        first, second = jax.random.split(key)
        proposal = state.position + scale * jax.random.normal(first, state.position.shape)
        there = log_density(proposal)
        rate = jnp.minimum(1.0, jnp.exp(there - state.log_density))
        accept = always | (jax.random.uniform(second) < rate)
        after = State(*(jnp.where(accept, a, b) for a, b in zip((proposal, there), state, strict=True)))
        return after, Info(rate, rate < 0, 1, proposal)

    return types.SimpleNamespace(init=init, step=step)


def walk(kernel, starts, steps, constants=None):
    """The ends of vectorised chains, and what they recorded; with constants of their own where there are any."""

    def chain(key, position, constants):
        given = () if constants is None else (constants,)

        def step(state, i):
            state, info = kernel.step(fold_in(key, i), state, (), given)
            return state, kernel.statistics(info)

        state, recorded = jax.lax.scan(step, kernel.init(position, given), jnp.arange(steps))
        return kernel.position(state), recorded

    keys = jax.vmap(lambda i: fold_in(chain_key(0, 0), i))(jnp.arange(len(starts)))
    end, recorded = jax.jit(jax.vmap(chain))(keys, jnp.asarray(starts), constants)
    return np.asarray(end), jax.tree.map(np.asarray, recorded)


def ends(make, steps=4, **options):
    starts = GAUSSIAN.exact(np.random.default_rng(1), CHAINS)
    kernel = External(make, **options).build(Density(GAUSSIAN.target.log_density), np.float64)
    end, recorded = walk(kernel, starts, steps)
    assert (end != starts).any(1).mean() > 0.5
    np.testing.assert_allclose(recorded["lp"][:, -1], jax.vmap(GAUSSIAN.target.log_density)(end), atol=1e-12)
    return end, recorded


def test_the_target_is_invariant_and_scalars_are_recorded():
    end, recorded = ends(walk_of)
    assert p_value(GAUSSIAN.normalise(end)) > ALPHA
    assert set(recorded) == {"lp", "acceptance_rate", "diverging", "n_steps"}
    assert recorded["diverging"].dtype == bool
    assert (recorded["n_steps"] == 1).all()
    assert 0.2 < recorded["acceptance_rate"].mean() < 0.9


def test_an_algorithm_that_is_wrong_is_found():
    end, _ = ends(lambda log_density: walk_of(log_density, always=True))
    assert p_value(GAUSSIAN.normalise(end)) < 1e-9


def test_the_log_density_has_the_present_constants():
    """q ~ Normal(c, 1) in each coordinate, with another c for each chain; without it the draws would be shifted."""
    shift = jax.ShapeDtypeStruct((), np.float64)
    kernel = External(walk_of).build(Density(lambda q, c: -0.5 * jnp.sum((q - c) ** 2), constants=(shift,)), np.float64)
    rng = np.random.default_rng(2)
    shifts = rng.uniform(-5, 5, CHAINS)
    starts = shifts[:, None] + rng.standard_normal((CHAINS, 2))
    end, _ = walk(kernel, starts, 10, shifts)
    assert p_value(end - shifts[:, None]) > ALPHA
    end, _ = walk(kernel, starts, 10, 0.0 * shifts)
    assert p_value(end - shifts[:, None]) < 1e-9


def pair_of(log_density):
    """The same walk, whose state is a pair and whose info is a dict."""
    inner = walk_of(log_density)

    def step(key, state):
        after, info = inner.step(key, State(*state))
        return tuple(after), {"energy": -after.log_density, "moved": info.proposal, "label": "none"}

    return types.SimpleNamespace(init=lambda q: tuple(inner.init(q)), step=step)


def test_states_and_infos_of_other_shapes():
    end, recorded = ends(pair_of, position=lambda state: state[0])
    np.testing.assert_array_equal(end, ends(walk_of)[0])
    assert set(recorded) == {"lp", "energy"}
    np.testing.assert_array_equal(recorded["energy"], -recorded["lp"])


# BlackJAX.


def nuts(log_density):
    blackjax = pytest.importorskip("blackjax")
    return blackjax.nuts(log_density, step_size=0.4, inverse_mass_matrix=np.array([1.0, 0.25]))


def rmh(log_density):
    blackjax = pytest.importorskip("blackjax")
    return blackjax.additive_step_random_walk(log_density, blackjax.mcmc.random_walk.normal(0.5 * jnp.ones(2)))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (nuts, {"lp", "diverging", "acceptance_rate", "n_steps", "tree_depth", "energy", "is_turning"}),
        (rmh, {"lp", "acceptance_rate", "is_accepted"}),
    ],
)
def test_algorithms_of_blackjax(make, names):
    end, recorded = ends(make)
    assert p_value(GAUSSIAN.normalise(end)) > ALPHA
    assert set(recorded) == names
    assert all(values.shape == (CHAINS, 4) for values in recorded.values())
    if "tree_depth" in names:
        assert (2 ** recorded["tree_depth"] > recorded["n_steps"] - 1).all()


# Differentiation.


@jax.custom_jvp
def misled(q):
    return GAUSSIAN.target.log_density(q)


@misled.defjvp
def _(primals, tangents):
    # What an algorithm gets if JAX differentiates: half the slope.
    value, slope = jax.jvp(GAUSSIAN.target.log_density, primals, tangents)
    return value, 0.5 * slope


@pytest.mark.parametrize(
    ("adtype", "share", "tolerance"), [(None, 0.5, 1e-14), (AutoForward(), 0.5, 1e-14), (AutoFiniteDiff(), 1.0, 1e-6)]
)
def test_the_adtype_is_what_differentiates_inside(adtype, share, tolerance):
    """Finite differences do not see the rule, JAX and forward mode do."""

    def gradient_of(log_density):
        def step(key, state):
            return state, {"slope": jax.grad(log_density)(state.position)[1]}

        return types.SimpleNamespace(init=lambda q: State(q, log_density(q)), step=step)

    kernel = External(gradient_of, adtype=adtype).build(Density(misled), np.float64)
    points = np.random.default_rng(3).normal(size=(5, 2))
    _, recorded = walk(kernel, points, 1)
    expected = -points @ np.linalg.inv(CORRELATED)
    np.testing.assert_allclose(recorded["slope"][:, 0], share * expected[:, 1], rtol=tolerance)


def test_the_report_says_what_differentiates():
    build = lambda **options: External(walk_of, **options).build(Density(misled), np.float64).reports  # noqa: E731
    (report,) = build()
    assert (report.block, report.sampler, report.dimension) == ("q", "External(make=walk_of)", 2)
    assert (report.adtype, report.reason) == (None, "its parameters are fixed")
    (report,) = build(adtype=AutoForward())
    assert report.adtype == "AutoForward()"
    kernel = External(walk_of).build(Density(misled), np.float64)
    assert kernel.schedule(1000) == ()
    assert kernel.init_tuning() == ()


# Refusals.


def build(make, target=None, **options):
    return External(make, **options).build(target or Density(GAUSSIAN.target.log_density), np.float64)


def algorithm(init=lambda q: State(q, q[0]), step=lambda key, state: (state, None)):
    return lambda log_density: types.SimpleNamespace(init=init, step=step)


REFUSED = [
    (lambda: External(3), "External: make must be a function from a log density to an algorithm, got 3."),
    (lambda: External(walk_of(jnp.sum)), "External: make must be a function from a log density to an algorithm, got"),
    (
        lambda: External(walk_of, position="q"),
        "External: position must be a function of the algorithm's state, got 'q'",
    ),
    (lambda: External(walk_of, adtype=AutoForward), "External: adtype must be an adtype such as"),
    (
        lambda: build(walk_of, Density(GAUSSIAN.target.log_density, discrete=("q",))),
        "External: site 'q' is discrete, and an external algorithm moves real numbers; give the site a block",
    ),
    (
        lambda: build(lambda log_density: log_density),
        "External: make must return an algorithm with init(position) and step(key, state), got",
    ),
    (
        lambda: build(pair_of),
        "External: no position in the algorithm's state, float64[2], float64[] ('tuple' object has no attribute",
    ),
    (
        lambda: build(walk_of, position=lambda state: state.log_density),
        "External: the position in the algorithm's state is float64[], block 'q' has float64[2]; pass position=lambda",
    ),
    (
        lambda: build(algorithm(step=lambda key, state: state.position)),
        "External: step(key, state) must return the next state and an info, got float64[2]; return `state, None`",
    ),
    (
        lambda: build(algorithm(step=lambda key, state: (State(state.position, jnp.float32(0.0)), None))),
        "External: step must return a state like that of init, float64[2], float64[], got float64[2], float32[]; give",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_refusals(make, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert str(caught.value).startswith(message)
