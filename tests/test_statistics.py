"""Every sampler leaves its target invariant and moves; and the tests notice planted bugs.

Thousands of chains start from exact draws of a known target and make a few steps. Under a correct kernel they are exact
and independent afterwards, so that `targets.p_value` judges them without any Monte Carlo approximation. ALPHA is the
false-alarm rate of each such test over all its comparisons. Some thirty of them run here, with fixed seeds: a correct
program with another generator would fail one of them once in about 30 times.
"""

from typing import Any, NamedTuple

import dualtape.ppl.sources as sources
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    NUTS,
    AutoForward,
    AutoReverse,
    DenseMetric,
    DiagonalMetric,
    Gibbs,
    UnitMetric,
    model,
    rv,
    sample,
)
from dualtape.models.gdemo import gdemo
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.samplers import hamiltonian, hmc, trajectory
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.integrators import Leapfrog
from dualtape.samplers.random import chain_key, fold_in
from scipy import special, stats
from targets import CORRELATED, ArrayBlock, gaussian, mean_error, normal_quantile, p_value, skewed

ALPHA = 1e-3
CERTAIN = 1e-9  # what the p-value of a planted bug must fall below
CHAINS = 4000


class Run(NamedTuple):
    start: Any
    end: Any
    infos: Any


def walk(sampler, joint, starts, *, steps=3, seed=2, tuning=None, constants=()):
    """Vectorised chains from given positions."""
    kernel = build_kernel(sampler, joint, np.float64)
    tuning = kernel.init_tuning() if tuning is None else tuning(kernel.init_tuning())

    def chain(key, position):
        given = kernel.prepare(constants)

        def step(state, index):
            return kernel.step(fold_in(key, index), state, tuning, given)

        state, infos = jax.lax.scan(step, kernel.init(position, given), jnp.arange(steps, dtype=jnp.int32))
        return kernel.position(state), jax.tree.map(lambda field: field[-1], infos)

    keys = jax.vmap(lambda i: fold_in(chain_key(seed, 0), i))(jnp.arange(len(starts), dtype=jnp.int32))
    end, infos = jax.jit(jax.vmap(chain))(keys, jnp.asarray(starts))
    return Run(starts, np.asarray(end), jax.tree.map(np.asarray, infos))


def walked(known, sampler, **options):
    starts = known.exact(np.random.default_rng(1), CHAINS)
    # The exact draws themselves must pass, or nothing can be learned from the ends.
    assert p_value(known.normalise(starts)) > ALPHA
    return walk(sampler, known.target, starts, **options)


GAUSSIAN = gaussian(CORRELATED, {"x": 1, "y": 1})
SKEWED = skewed()
LOWER = np.linalg.cholesky(np.array(CORRELATED))


def with_scale(scale):
    return lambda tuning: tuning._replace(scale=np.asarray(scale))


# Steps are long, so that acceptance and weights matter: every error in them must show.
SAMPLERS = {
    "HMC unit": (HMC(0.45, 4), None),
    "HMC diagonal": (HMC(0.5, 4, metric=DiagonalMetric()), with_scale([1.5, 0.8])),
    "HMC dense": (HMC(0.9, 3, metric=DenseMetric()), with_scale(1.1 * LOWER)),
    "NUTS unit": (NUTS(step_size=0.45, metric=UnitMetric()), None),
    "NUTS diagonal": (NUTS(step_size=0.6), with_scale([1.5, 0.8])),
    "NUTS dense": (NUTS(step_size=0.9, metric=DenseMetric()), with_scale(1.1 * LOWER)),
    "NUTS reverse mode": (NUTS(step_size=0.45, metric=UnitMetric(), adtype=AutoReverse()), None),
    "NUTS of one doubling": (NUTS(step_size=0.45, max_tree_depth=1), None),
    "Gibbs of two HMC": (Gibbs({"x": HMC(0.6, 3), "y": HMC(0.3, 3)}), None),
    "Gibbs of two NUTS": (
        Gibbs({"x": NUTS(step_size=0.6, adtype=AutoForward()), "y": NUTS(step_size=0.4, adtype=AutoReverse())}),
        None,
    ),
    "Gibbs, the second site first": (Gibbs({"y": NUTS(step_size=0.4), ...: HMC(0.6, 3)}), None),
}


@pytest.mark.parametrize("known", [GAUSSIAN, SKEWED], ids=["Gaussian", "skewed"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_target_is_invariant(name, known):
    sampler, tuning = SAMPLERS[name]
    run = walked(known, sampler, tuning=tuning)
    assert p_value(known.normalise(run.end)) > ALPHA
    # And the chains have moved: most of them, and not only a little.
    moved = np.abs(run.end - run.start) / known.deviations
    assert (moved.max(1) > 0).mean() > 0.85
    assert np.median(moved.max(1)) > 0.3


@pytest.mark.parametrize("known", [GAUSSIAN, SKEWED], ids=["Gaussian", "skewed"])
def test_chains_forget_where_they_started(known):
    """From a point two deviations off, after 60 steps: the law again, which invariance alone would not give."""
    starts = np.tile(known.deviations * 2.0, (CHAINS, 1))
    run = walk(NUTS(step_size=0.5, metric=UnitMetric()), known.target, starts, steps=60)
    assert p_value(known.normalise(starts + 1e-3 * np.random.default_rng(0).normal(size=starts.shape))) < CERTAIN
    assert p_value(known.normalise(run.end)) > ALPHA


@pytest.mark.parametrize(
    "spoil",
    [
        lambda draws, deviations: 0.9 * draws,
        lambda draws, deviations: draws + 0.1 * deviations,
        lambda draws, deviations: draws[:, ::-1],
    ],
    ids=["scaled", "shifted", "exchanged"],
)
@pytest.mark.parametrize("known", [GAUSSIAN, SKEWED], ids=["Gaussian", "skewed"])
def test_spoiled_draws_fail(known, spoil):
    draws = known.exact(np.random.default_rng(2), CHAINS)
    assert p_value(known.normalise(draws)) > ALPHA
    assert p_value(known.normalise(spoil(draws, known.deviations))) < 1e-6


def test_the_judge_raises_false_alarms_as_often_as_it_says():
    """Of 2000 correct samples, at most as many as Binomial(2000, 0.05) allows fall below 0.05, and not far fewer."""
    rng = np.random.default_rng(3)
    alarms = sum(p_value(rng.standard_normal((300, 2))) < 0.05 for _ in range(2000))
    # The small sample makes the chi-squared tail of the variance a little heavier than the normal limit.
    assert stats.binom.ppf(1e-4, 2000, 0.025) < alarms < stats.binom.isf(1e-4, 2000, 0.06)


# Planted bugs.


def accept_always(monkeypatch):
    monkeypatch.setattr(hmc, "energy", lambda point: jnp.zeros_like(point.log_density))


def choose_uniformly(monkeypatch):
    monkeypatch.setattr(trajectory, "energy", lambda point: jnp.zeros_like(point.log_density))


def join_always(monkeypatch):
    join = trajectory.join
    monkeypatch.setattr(trajectory, "join", lambda *args: join(*args[:-1], jnp.zeros_like(args[-1])))


def join_turned_subtrees(monkeypatch):
    join = trajectory.join

    def wrong(tree, subtree, *rest):
        joined = join(tree, subtree._replace(turning=jnp.zeros_like(subtree.turning)), *rest)
        return joined._replace(turning=joined.turning | subtree.turning)

    monkeypatch.setattr(trajectory, "join", wrong)


def keep_momentum(monkeypatch):
    monkeypatch.setattr(hamiltonian, "normal", lambda key, size, dtype: jnp.ones(size, dtype))


def stretch_momentum(monkeypatch):
    normal = hamiltonian.normal
    monkeypatch.setattr(hamiltonian, "normal", lambda *args: 1.1 * normal(*args))


def forget_the_new_gradient(monkeypatch):
    step = Leapfrog.step
    monkeypatch.setattr(Leapfrog, "step", lambda self, p, *args: step(self, p, *args)._replace(gradient=p.gradient))


def forget_to_halve_the_last_kick(monkeypatch):
    steps = Leapfrog.steps

    def wrong(self, point, step_size, count):
        end = steps(self, point, step_size, count)
        return end._replace(momentum=self.kick(end.momentum, end.gradient, 0.5 * step_size))

    monkeypatch.setattr(Leapfrog, "steps", wrong)


def condition_on_stale_values(monkeypatch):
    """The caches of a block are kept although the other block has moved."""
    monkeypatch.setattr(ArrayBlock, "depends_on_rest", False)


def condition_on_nothing(monkeypatch):
    """The other block's values do not arrive."""
    constants = ArrayBlock.constants
    monkeypatch.setattr(ArrayBlock, "constants", lambda self, q, c: constants(self, 0.0 * q, c))


BUGS = [
    (accept_always, "HMC unit"),
    (keep_momentum, "HMC unit"),
    (stretch_momentum, "HMC unit"),
    (forget_to_halve_the_last_kick, "HMC unit"),
    (forget_the_new_gradient, "NUTS unit"),
    (choose_uniformly, "NUTS unit"),
    (join_always, "NUTS unit"),
    (join_turned_subtrees, "NUTS unit"),
    (keep_momentum, "NUTS unit"),
    (stretch_momentum, "NUTS unit"),
    (stretch_momentum, "NUTS dense"),
    (condition_on_stale_values, "Gibbs of two HMC"),
    (condition_on_stale_values, "Gibbs of two NUTS"),
    (condition_on_nothing, "Gibbs of two NUTS"),
    (accept_always, "Gibbs of two HMC"),
]


@pytest.mark.parametrize(("plant", "name"), BUGS)
def test_planted_bugs_are_found(plant, name, monkeypatch):
    sampler, tuning = SAMPLERS[name]
    plant(monkeypatch)
    ends = ((known, walked(known, sampler, tuning=tuning, steps=24).end) for known in (SKEWED, GAUSSIAN))
    assert any(p_value(known.normalise(end)) < 1e-6 for known, end in ends)


# Through the language: supports that depend on another block.


@model
def triangle():
    x = rv("x", dist.Uniform(0.1, 10.0))
    rv("y", dist.Uniform(0.0, x))


def triangle_ends(sampler, steps=4):
    """Where exact draws of (x, y) are after some steps, normalised."""
    bound = triangle()
    traced = trace_model(bound, discover(bound))
    uniforms = np.random.default_rng(4).uniform(size=(CHAINS, 2))
    # Both bijections are the logistic function onto an interval, so their inverses are logits of the shares.
    starts = np.array(special.logit(uniforms))
    run = walk(sampler, traced.density, starts, steps=steps, constants=traced.data)
    values = jax.jit(jax.vmap(lambda q: traced.constrained(q, *traced.data)))
    first, last = values(starts), values(run.end)
    np.testing.assert_allclose(first["x"], 0.1 + 9.9 * uniforms[:, 0], rtol=1e-12)
    np.testing.assert_allclose(first["y"], first["x"] * uniforms[:, 1], rtol=1e-12)
    x, y = np.asarray(last["x"]), np.asarray(last["y"])
    return normal_quantile(np.stack([(x - 0.1) / 9.9, y / x], 1)), np.stack([x, y], 1)


TRIANGLE_SAMPLERS = [
    NUTS(step_size=1.0, max_tree_depth=4),
    Gibbs({"x": NUTS(step_size=1.0, max_tree_depth=4), "y": NUTS(step_size=1.0, max_tree_depth=4)}),
    Gibbs({"y": HMC(0.8, 4, adtype=AutoForward()), "x": HMC(0.8, 4, adtype=AutoReverse())}),
]


@pytest.mark.parametrize("sampler", TRIANGLE_SAMPLERS, ids=["NUTS", "Gibbs of NUTS", "Gibbs of HMC"])
def test_supports_that_depend_on_another_block_are_invariant(sampler):
    normals, draws = triangle_ends(sampler)
    assert p_value(normals) > ALPHA
    error = draws.std(0) / np.sqrt(CHAINS)
    assert (np.abs(draws.mean(0) - [5.05, 2.525]) < stats.norm.isf(ALPHA / 4) * error).all()


@pytest.mark.parametrize("sampler", TRIANGLE_SAMPLERS[:2], ids=["NUTS", "Gibbs of NUTS"])
def test_a_missing_jacobian_is_found(sampler, monkeypatch):
    constrain = sources.constrain
    monkeypatch.setattr(sources, "constrain", lambda *args: (constrain(*args)[0], None))
    assert p_value(triangle_ends(sampler)[0]) < CERTAIN


def test_gibbs_on_a_dependent_support_has_the_exact_means_end_to_end():
    """Means by batches, 50 of 400 draws: Student's t with 49 degrees of freedom, false-alarm rate 10⁻³ over both."""
    sampler = Gibbs({"x": NUTS(), "y": NUTS()})
    result = sample(triangle(), sampler, draws=10_000, warmup=500, chains=2, seed=1, progress=False)
    for name, expected in (("x", 5.05), ("y", 2.525)):
        mean, error = mean_error(np.asarray(result["posterior"][name]))
        assert abs(mean - expected) < stats.t.isf(1e-3 / 4, 49) * error
        assert error < 0.05
    assert (np.asarray(result["posterior"]["y"]) < np.asarray(result["posterior"]["x"])).all()


# A block's fixed step is long for the few draws whose other block is far out in its tail: a divergence is no surprise
# there, how many there are depends on the last bits of the arithmetic, and this test asks about something else.
@pytest.mark.filterwarnings("ignore:.*ended in a divergence:dualtape.SamplingWarning")
@pytest.mark.parametrize(
    "sampler",
    [
        NUTS(),
        HMC(0.2, 5),
        Gibbs({"s": NUTS(target_acceptance=0.95), "m": NUTS(target_acceptance=0.95)}),
        Gibbs({"m": HMC(0.2, 5, adtype=AutoForward(chunk_size=1)), "s": HMC(0.2, 5, adtype=AutoReverse())}),
    ],
    ids=["NUTS", "HMC", "Gibbs of NUTS", "Gibbs of HMC"],
)
def test_the_stored_density_is_that_of_the_stored_draw(sampler):
    """Against SciPy's densities, with the Jacobian s of s = exp(q); and posterior means within Monte Carlo error."""
    result = sample(gdemo(1.5, 2.0), sampler, draws=4000, warmup=300, chains=2, seed=3, progress=False)
    s, m = (np.asarray(result["posterior"][name]) for name in ("s", "m"))
    root = np.sqrt(s)
    expected = stats.invgamma(2.0, scale=3.0).logpdf(s) + np.log(s) + stats.norm(0.0, root).logpdf(m)
    expected += stats.norm(m, root).logpdf(1.5) + stats.norm(m, root).logpdf(2.0)
    stored = np.asarray(result["sample_stats"]["lp"])
    np.testing.assert_allclose(stored, expected, atol=1e-10, rtol=1e-12)
    # m has the exact mean 7/6; that of s, 49/24, has no finite variance of its square, so log s stands for it:
    # s is InverseGamma(3, 49/12) a posteriori, and log s has mean log(49/12) − ψ(3).
    for draws, exact in ((m, 7 / 6), (np.log(s), np.log(49 / 12) - special.digamma(3))):
        mean, error = mean_error(draws)
        assert abs(mean - exact) < stats.t.isf(1e-3 / 4, 49) * error
