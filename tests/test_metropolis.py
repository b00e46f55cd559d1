"""Metropolis-Hastings: invariance under every proposal, its corrections, discrete sites, adaptation, refusals."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape.samplers import metropolis
from dualtape.samplers.metrics import DiagonalMetric
from dualtape.samplers.metropolis import MH, FromPrior, Proposal, RandomWalk
from dualtape.samplers.random import chain_key, fold_in, jax_key, normal
from scipy import stats
from targets import CORRELATED, gaussian, normal_quantile, p_value, skewed

ALPHA = 1e-3
CHAINS = 4000


@dataclass(frozen=True)
class Density:
    """A log density over an array; satisfies `samplers.base.Target`."""

    log_density: Any
    sizes: dict[str, int]
    discrete: tuple[str, ...] = ()
    constants = ()
    signature = None

    @property
    def sites(self):
        return tuple(self.sizes)

    @property
    def dimension(self):
        return sum(self.sizes.values())


@dataclass(frozen=True)
class PriorTimesLikelihood(Density):
    """x normal a priori with deviation 2, and observed at `seen` with deviation 1."""

    seen: float = 1.0

    def draw_prior(self, key):
        return 2.0 * normal(key, 1, jnp.result_type(float))

    def log_likelihood(self, position):
        return -0.5 * (position[0] - self.seen) ** 2


@dataclass(frozen=True)
class OnValues(Density):
    """`skewed` for s = exp(x) and y: the position is (log s, y), and log |∂(s, y)/∂q| = log s."""

    def constrain(self, position):
        return {"s": jnp.exp(position[0]), "y": position[1]}, position[0]

    def unconstrain(self, values):
        return jnp.stack([jnp.log(values["s"]), values["y"]])


def walk(kernel, starts, steps, tuning=None, seed=0):
    """The ends of vectorised chains, and the infos of all their steps."""
    tuning = kernel.init_tuning() if tuning is None else tuning

    def chain(key, position):
        state, infos = jax.lax.scan(
            lambda s, i: kernel.step(fold_in(key, i), s, tuning, ()), kernel.init(position, ()), jnp.arange(steps)
        )
        return kernel.position(state), infos

    keys = jax.vmap(lambda i: fold_in(chain_key(seed, 0), i))(jnp.arange(len(starts)))
    end, infos = jax.jit(jax.vmap(chain))(keys, jnp.asarray(starts))
    return np.asarray(end), jax.tree.map(np.asarray, infos)


GAUSSIAN, SKEWED = gaussian(CORRELATED), skewed()


def plain(known):
    return Density(known.target.log_density, {"x": 1, "y": known.target.dimension - 1})


# Asymmetric on purpose: a step of s depends on y and pulls log s towards one, a step of y depends on s.
def drifting(values):
    centre = 0.6 * jnp.log(values["s"]) + 0.4 + 0.2 * jnp.tanh(values["y"])
    return {"y": dist.Normal(0.5 * values["y"], 0.5 + 0.2 * values["s"]), "s": dist.LogNormal(centre, 0.5)}


def reflecting(values):
    """A walk of s itself, which leaves its support often."""
    return {"s": dist.Normal(values["s"], 1.5), "y": dist.StudentT(5.0, values["y"], 1.0)}


POSTERIOR = PriorTimesLikelihood(lambda q: -0.125 * q[0] ** 2 - 0.5 * (q[0] - 1.0) ** 2, {"x": 1})
VALUES = OnValues(SKEWED.target.log_density, {"s": 1, "y": 1})


def known_posterior(number):
    """Exact draws of POSTERIOR, Normal(0.8, 0.8), and how to normalise them."""
    starts = 0.8 + np.sqrt(0.8) * np.random.default_rng(1).standard_normal((number, 1))
    return starts, lambda draws: (draws - 0.8) / np.sqrt(0.8)


def known(law):
    return law.exact(np.random.default_rng(1), CHAINS), law.normalise


CASES = {
    "walk, Gaussian": (MH(RandomWalk(0.7)), plain(GAUSSIAN), *known(GAUSSIAN)),
    "walk, skewed": (MH(), plain(SKEWED), *known(SKEWED)),
    "prior": (MH(FromPrior()), POSTERIOR, *known_posterior(CHAINS)),
    "proposal": (MH(drifting), VALUES, *known(SKEWED)),
    "proposal out of the support": (MH(reflecting), VALUES, *known(SKEWED)),
}


def ends(name, steps=4):
    sampler, target, starts, normalise = CASES[name]
    assert p_value(normalise(starts)) > ALPHA
    end, infos = walk(sampler.build(target, np.float64), starts, steps)
    return starts, end, infos, p_value(normalise(end))


@pytest.mark.parametrize("name", CASES)
def test_the_target_is_invariant(name):
    start, end, infos, p = ends(name)
    assert p > ALPHA
    assert (np.abs(end - start).max(1) > 0).mean() > 0.5
    assert 0.1 < infos.acceptance_rate.mean() < 0.9
    target = CASES[name][1]
    np.testing.assert_allclose(infos.lp[:, -1], jax.vmap(target.log_density)(end), atol=1e-12)


def without_correction(monkeypatch):
    propose = Proposal.propose
    monkeypatch.setattr(Proposal, "propose", lambda *args: (propose(*args)[0], jnp.zeros(())))


def without_jacobian(monkeypatch):
    monkeypatch.setattr(Proposal, "weigh", lambda self, target, position, log_density, constants: log_density)


def whole_density(monkeypatch):
    """The prior counts twice."""
    monkeypatch.setattr(FromPrior, "weigh", lambda self, target, position, log_density, constants: log_density)


def always(monkeypatch):
    monkeypatch.setattr(metropolis, "uniform", lambda *args: 1e-300)


BUGS = [
    (without_correction, "proposal"),
    (without_jacobian, "proposal"),
    (without_jacobian, "proposal out of the support"),
    (whole_density, "prior"),
    (always, "walk, Gaussian"),
    (always, "prior"),
]


@pytest.mark.parametrize(("plant", "name"), BUGS)
def test_planted_bugs_are_found(plant, name, monkeypatch):
    plant(monkeypatch)
    assert ends(name, steps=8)[3] < 1e-6


# Discrete sites.

RATE = 3.0


def mixed(q):
    """n ~ Poisson(3) and x | n ~ Normal(n, 1)."""
    return dist.Poisson(RATE).log_prob(q[0]) + jnp.where(q[0] < 0, -jnp.inf, -0.5 * (q[1] - q[0]) ** 2)


def test_discrete_coordinates_move_in_whole_numbers_and_keep_the_law():
    rng = np.random.default_rng(2)
    n = rng.poisson(RATE, CHAINS).astype(float)
    starts = np.stack([n, n + rng.standard_normal(CHAINS)], 1)
    kernel = MH().build(Density(mixed, {"n": 1, "x": 1}, ("n",)), np.float64)
    end, _ = walk(kernel, starts, 6)
    np.testing.assert_array_equal(end[:, 0], np.round(end[:, 0]))
    assert (end[:, 1] != np.round(end[:, 1])).all()
    assert (end[:, 0] != starts[:, 0]).mean() > 0.5
    # Randomised within its jump, the distribution function of n is uniform.
    u = stats.poisson.cdf(end[:, 0] - 1, RATE) + rng.uniform(size=CHAINS) * stats.poisson.pmf(end[:, 0], RATE)
    assert p_value(np.stack([normal_quantile(u), end[:, 1] - end[:, 0]], 1)) > ALPHA


@pytest.mark.parametrize("metric", [None, DiagonalMetric()])
def test_discrete_coordinates_do_not_stand_still_where_the_scale_is_small(metric):
    """Moves have a deviation of at least one: two of three are not zero."""
    kernel = MH(RandomWalk(1e-3, metric=metric)).build(Density(lambda q: 0.0 * q[0], {"n": 3}, ("n",)), np.float64)
    end, _ = walk(kernel, np.zeros((CHAINS, 3)), 1)
    expected = 2 * stats.norm.sf(0.5)
    assert np.abs((end != 0).mean(0) - expected).max() < 4 * np.sqrt(expected * (1 - expected) / CHAINS)


# Adaptation.


def warm(kernel, start, warmup):
    """A tuning after a warm-up, as the driver would make it, and the position there."""

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


def covariance(deviations, correlation):
    size = len(deviations)
    return np.outer(deviations, deviations) * ((1 - correlation) * np.eye(size) + correlation)


@pytest.mark.parametrize(
    ("deviations", "correlation", "metric"),
    [
        ([1e-3], 0.0, None),
        ([1e3], 0.0, None),
        ([1e-3, 1e3], 0.0, None),
        ([1e-3, 1.0, 1e3], 0.9, None),
        ([1e-3, 1.0, 1e3], 0.0, DiagonalMetric()),
    ],
)
def test_a_walk_learns_scales_over_six_orders_of_magnitude(deviations, correlation, metric):
    law = gaussian(covariance(deviations, correlation))
    size = len(deviations)
    kernel = MH(RandomWalk(metric=metric)).build(Density(law.target.log_density, {"q": size}), np.float64)
    _, tuning = warm(kernel, 2.0 * np.asarray(deviations), 1000)
    assert float(tuning.by_turns) == 0.0
    starts = law.exact(np.random.default_rng(4), CHAINS)
    end, infos = walk(kernel, starts, 10 * size, tuning)
    assert p_value(law.normalise(end)) > ALPHA
    wanted = 0.234 + 0.206 / size
    assert wanted - 0.15 < infos.acceptance_rate.mean() < wanted + 0.15
    # The tuned chain forgets: an optimal walk has an autocorrelation of 0.85^(10) = 0.2 after ten steps a coordinate.
    remembered = [np.corrcoef(a, b)[0, 1] for a, b in zip(law.normalise(starts).T, law.normalise(end).T, strict=True)]
    assert max(remembered) < 0.6
    # Before warm-up it remembers everything.
    end, _ = walk(kernel, starts, 10 * size)
    remembered = [np.corrcoef(a, b)[0, 1] for a, b in zip(law.normalise(starts).T, law.normalise(end).T, strict=True)]
    assert max(remembered) > 0.95


def test_a_scale_that_is_given_stays():
    kernel = MH(RandomWalk(0.25)).build(plain(GAUSSIAN), np.float64)
    before = kernel.init_tuning()
    _, tuning = warm(kernel, np.zeros(2), 150)
    assert float(tuning.step_size) == 0.25
    np.testing.assert_array_equal(tuning.scale, before.scale)
    _, learned = warm(
        MH(RandomWalk(0.25, metric=DiagonalMetric())).build(plain(GAUSSIAN), np.float64), np.zeros(2), 300
    )
    assert float(learned.step_size) == 0.25
    assert (learned.scale != 1.0).all()


def test_the_acceptance_rate_asked_for_is_found():
    rates = []
    for wanted in (0.2, 0.4, 0.6):
        kernel = MH(RandomWalk(target_acceptance=wanted)).build(plain(GAUSSIAN), np.float64)
        _, tuning = warm(kernel, np.zeros(2), 600)
        rates.append(walk(kernel, known(GAUSSIAN)[0], 1, tuning)[1].acceptance_rate.mean())
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6], atol=0.15)


@pytest.mark.parametrize("warmup", [0, 1, 19, 30, 150])
@pytest.mark.parametrize("size", [1, 3])
def test_every_length_of_warm_up_ends_with_joint_moves(warmup, size):
    kernel = MH().build(Density(lambda q: -jnp.sum(q**2), {"q": size}), np.float64)
    _, tuning = warm(kernel, np.zeros(size), warmup)
    assert int(tuning.coordinate) == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tuning))
    end, _ = walk(kernel, np.zeros((200, size)), 5, tuning)
    assert (end != 0).any(1).mean() > 0.05
    np.testing.assert_array_equal((end != 0).any(1), (end != 0).all(1))


# What is not finite.


@pytest.mark.parametrize("outside", [-np.inf, np.nan, np.inf])
def test_a_chain_never_goes_where_the_density_is_not_finite(outside):
    kernel = MH(RandomWalk(2.0)).build(Density(lambda q: jnp.where(q[0] > 0, -q[0], outside), {"q": 1}), np.float64)
    starts = np.random.default_rng(5).exponential(size=(CHAINS, 1))
    end, infos = walk(kernel, starts, 4)
    assert (end > 0).all()
    assert np.isfinite(infos.acceptance_rate).all()
    assert p_value(normal_quantile(-np.expm1(-end))) > ALPHA


def test_a_start_of_density_zero_finds_the_support():
    kernel = MH(RandomWalk(1.0)).build(Density(lambda q: jnp.where(q[0] > 0, -q[0], -jnp.inf), {"q": 1}), np.float64)
    end, _ = walk(kernel, np.full((100, 1), -0.5), 60)
    assert (end > 0).mean() > 0.95


# Keys.


@pytest.mark.parametrize("x64", [True, False])
def test_keys_for_other_libraries_keep_all_bits(x64):
    with jax.enable_x64(x64):
        key = jnp.asarray(chain_key(7, 1))
        words = np.asarray(jax.random.key_data(jax_key(key)))
        if x64:
            assert (int(words[0]) << 32) + int(words[1]) == int(key)
        else:
            np.testing.assert_array_equal(words, key)
        draws = jax.vmap(lambda i: jax.random.normal(jax_key(fold_in(key, i)), (2,)))(jnp.arange(CHAINS))
        assert p_value(np.asarray(draws, float)) > ALPHA


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        kernel = MH().build(Density(lambda q: -0.5 * jnp.sum(q**2), {"q": 2}), np.float32)
        tuning = kernel.init_tuning()
        state, info = kernel.step(chain_key(0, 0), kernel.init(np.zeros(2, np.float32), ()), tuning, ())
        learned = kernel.tune(tuning, state, info)
    assert [leaf.dtype for leaf in jax.tree.leaves(learned)] == [leaf.dtype for leaf in jax.tree.leaves(tuning)]
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.float32)}


# Values and refusals.


def test_samplers_are_values_written_as_by_the_user():
    assert repr(MH()) == "MH()"
    assert repr(MH(FromPrior())) == "MH(proposal=FromPrior())"
    assert repr(MH(RandomWalk(0.5))) == "MH(proposal=RandomWalk(scale=0.5))"
    assert repr(MH(drifting)) == "MH(proposal=Proposal(function=drifting))"
    assert MH(drifting) == MH(Proposal(drifting))
    assert hash(MH(RandomWalk(0.5))) == hash(MH(RandomWalk(0.5)))
    (report,) = MH().build(plain(GAUSSIAN), np.float64).reports
    assert dataclasses.astuple(report)[:5] == ("x,y", "MH()", 2, None, None)


def test_views_are_those_of_the_proposals():
    class Block:
        def with_prior(self):
            return "prior"

        def with_values(self):
            return "values"

    block = Block()
    assert MH().view(block) is block
    assert MH(FromPrior()).view(block) == "prior"
    assert MH(drifting).view(block) == "values"


def normals(**shapes):
    return {name: dist.Normal(jnp.zeros(shape), 1.0) for name, shape in shapes.items()}


REFUSED = [
    (lambda: RandomWalk(0.0), "RandomWalk: scale must be a positive number or None to adapt it, got 0.0."),
    (lambda: RandomWalk(target_acceptance=1.0), "RandomWalk: target_acceptance must lie between 0 and 1, got 1.0"),
    (lambda: RandomWalk(metric="dense"), "RandomWalk: metric must be UnitMetric(), DiagonalMetric() or DenseMetric()"),
    (lambda: MH(0.5), "MH: a proposal must be RandomWalk(), FromPrior() or a function from values to a distribution"),
    (lambda: MH(FromPrior), "MH: proposal is the class FromPrior; write FromPrior()."),
    (
        lambda: MH(lambda values: normals(s=(3,), y=())).build(VALUES, np.float64),
        "MH: the proposal for site 's' has shape (3,), the site has (); return a distribution whose draws have",
    ),
    (
        lambda: MH(lambda values: normals(s=())).build(VALUES, np.float64),
        "MH: the proposal must return a distribution for each of the sites 's', 'y', as a dict by site; got one for",
    ),
    (
        lambda: MH(lambda values: dist.Normal()).build(VALUES, np.float64),
        "MH: the proposal must return a distribution for each of the sites 's', 'y'",
    ),
    (
        lambda: MH(lambda values: values).build(VALUES, np.float64),
        "MH: the proposal for site 's' must be a distribution with sample(key) and log_prob(value)",
    ),
    (
        lambda: MH(lambda values: normals(s=(), y=())).build(dataclasses.replace(VALUES, discrete=("y",)), np.float64),
        "MH: the proposal for site 'y' draws float64, the site is discrete; return a distribution over whole numbers.",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_refusals(make, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert str(caught.value).startswith(message)
