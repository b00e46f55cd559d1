"""Twelve compositions of samplers are right by Geweke's joint test and by an exact answer; planted bugs fail.

Every z of the joint test must stay below 4.5, which chance exceeds once in 150 000; with some 500 of them here, a right
program fails once in 300 generators. Posterior means are judged at 10⁻⁴ each by batch means.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    MH,
    NUTS,
    AutoForward,
    AutoReverse,
    Conditional,
    Conjugate,
    DiscreteGibbs,
    EllipticalSlice,
    FromPrior,
    Gibbs,
    ParticleGibbs,
    RandomScan,
    Repeat,
    SamplingWarning,
    Slice,
    check_sampler,
    model,
    plate,
    rv,
    sample,
)
from dualtape.models.gdemo import gdemo
from dualtape.ppl import sources
from dualtape.ppl.blocks.block import Block
from dualtape.ppl.blocks.given import Given
from dualtape.samplers.discrete import DiscreteKernel
from scipy import special, stats
from targets import mean_error

RNG = np.random.default_rng(5)


@model
def triangle():
    x = rv("x", dist.Uniform(0.1, 10.0))
    rv("y", dist.Uniform(0.0, x))


@model
def observed_triangle(o):
    x = rv("x", dist.Uniform(0.1, 10.0))
    y = rv("y", dist.Uniform(0.0, x))
    rv("o", dist.Normal(y, 0.5), obs=o)


@model
def mixture(y):
    weight = rv("weight", dist.Beta(2.0, 2.0))
    means = rv("means", dist.Normal(jnp.array([-2.0, 2.0]), 1.0).to_event(1))
    with plate("n", len(y)):
        z = rv("z", dist.Bernoulli(weight))
        rv("y", dist.Normal(means[z], 1.0), obs=y)


@model
def marginal_mixture(y):
    weight = rv("weight", dist.Beta(2.0, 2.0))
    means = rv("means", dist.Normal(jnp.array([-2.0, 2.0]), 1.0).to_event(1))
    components = dist.Categorical(probs=jnp.stack([1 - weight, weight]))
    with plate("n", len(y)):
        rv("y", dist.MixtureSameFamily(components, dist.Normal(means, 1.0)), obs=y)


@model
def pair(y):
    a = rv("a", dist.Bernoulli(0.3))
    b = rv("b", dist.Bernoulli(jnp.where(a == 1, 0.9, 0.2)))
    rv("y", dist.Normal(a + 2.0 * b, 1.0), obs=y)


@model
def walk(y):
    x = None
    for t in range(len(y)):
        x = rv(f"x_{t}", dist.Normal(0.0, 1.0) if x is None else dist.Normal(0.9 * x, 0.5))
        rv(f"y_{t}", dist.Normal(x, 0.5), obs=y[t])


GDEMO = gdemo(1.5, 2.0)
MIXED = np.concatenate([RNG.normal(-2, 1, 4), RNG.normal(2, 1, 8)])
WALKED = np.array([0.5, 1.0, -0.3, 0.2, 1.4])
FORWARD, REVERSE = AutoForward(), AutoReverse()
STATE = Conditional(lambda v: dist.Normal((v["x"] + v["y"]) / 3.0, jnp.sqrt(v["s"] / 3.0)))

# A divergence here and there, where the prior has put the data far away, is no matter of this test.
pytestmark = pytest.mark.filterwarnings("ignore:.*divergence:dualtape.SamplingWarning")

GDEMO_COMPOSITIONS = {
    "HMC + HMC": Gibbs({"m": HMC(0.4, 5), "s": HMC(0.4, 5)}),
    "NUTS forward + NUTS reverse": Gibbs({"m": NUTS(adtype=FORWARD), "s": NUTS(adtype=REVERSE)}),
    "MH + Slice": Gibbs({"m": MH(), "s": Slice()}),
    "EllipticalSlice + HMC": Gibbs({"m": EllipticalSlice(), "s": HMC(0.4, 5)}),
    "Conjugate + NUTS": Gibbs({"m": Conjugate(), ...: NUTS()}),
    "Conditional + HMC": Gibbs({"m": STATE, "s": HMC(0.4, 5)}),
    "nested": Gibbs({...: Gibbs({"s": NUTS(), "m": HMC(0.4, 5)})}),
    "Repeat": Gibbs({"m": Repeat(HMC(0.4, 3), 3), "s": Repeat(Gibbs({"s": Slice()}), 2)}),
    "RandomScan": RandomScan({"m": HMC(0.4, 5), "s": Slice()}, weights={"m": 1.0, "s": 2.0}),
}
TRIANGLE_COMPOSITIONS = {
    "NUTS + Slice": Gibbs({"x": NUTS(), "y": Slice()}),
    "MH + HMC": Gibbs({"y": MH(), "x": HMC(0.5, 5)}),
    "Slice + Conditional": Gibbs({"x": Slice(), "y": Conditional(lambda v: dist.Uniform(0.0, v["x"]))}),
}
MIXTURE = Gibbs({"z": DiscreteGibbs(), ...: NUTS()})
PARTICLES = Gibbs({lambda site: site.startswith("x_"): ParticleGibbs(8)})

JOINT = {
    **{name: (GDEMO, sampler) for name, sampler in GDEMO_COMPOSITIONS.items()},
    "value-dependent support": (observed_triangle(1.0), TRIANGLE_COMPOSITIONS["NUTS + Slice"]),
    "NUTS + DiscreteGibbs": (mixture(MIXED), MIXTURE),
    "DiscreteGibbs on a pair": (pair(1.0), DiscreteGibbs()),
    "ParticleGibbs": (walk(WALKED), PARTICLES),
}


def verdict(bound, sampler, **options):
    # So many turns whatever the machine: what is found does not depend on its speed.
    return check_sampler(bound, sampler, **{"replicates": 1500, "turns": 45, "warmup": 200} | options)


@pytest.mark.parametrize(("bound", "sampler"), JOINT.values(), ids=JOINT.keys())
def test_the_joint_distribution_is_invariant(bound, sampler):
    check = verdict(bound, sampler)
    assert check.ok, str(check)


def posterior(bound, sampler, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        options = {"draws": 4000, "warmup": 500, "chains": 2, "seed": 1, "progress": False} | options
        return sample(bound, sampler, **options)


def assert_mean(draws, expected, alpha=1e-4):
    mean, error = mean_error(np.asarray(draws))
    assert abs(mean - expected) < stats.t.isf(alpha / 2, 49) * error, (mean, expected, error)


@pytest.mark.parametrize("sampler", GDEMO_COMPOSITIONS.values(), ids=GDEMO_COMPOSITIONS.keys())
def test_gdemo_has_its_exact_moments_and_densities(sampler):
    result = posterior(GDEMO, sampler)
    m, s = (np.asarray(result["posterior"][name]) for name in "ms")
    assert_mean(m, 7 / 6)
    assert_mean(np.log(s), np.log(49 / 12) - special.digamma(3))
    # Given s, m has variance s/3: what couples the blocks.
    assert_mean((m - 7 / 6) ** 2 / s, 1 / 3)
    expected = stats.invgamma(2, scale=3).logpdf(s) + np.log(s) + stats.norm(0, np.sqrt(s)).logpdf(m)
    expected += stats.norm(m, np.sqrt(s)).logpdf(1.5) + stats.norm(m, np.sqrt(s)).logpdf(2.0)
    np.testing.assert_allclose(result["sample_stats"]["lp"], expected, atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize("sampler", TRIANGLE_COMPOSITIONS.values(), ids=TRIANGLE_COMPOSITIONS.keys())
def test_supports_that_depend_on_another_block(sampler):
    result = posterior(triangle(), sampler, draws=8000)["posterior"]
    assert_mean(result["x"], 5.05)
    assert_mean(result["y"], 2.525)
    assert_mean(result["y"] / result["x"], 0.5)
    assert (np.asarray(result["y"]) < np.asarray(result["x"])).all()


COMPONENTS = {
    "NUTS": NUTS(),
    "HMC": HMC(0.6, 4),
    "MH": MH(),
    "FromPrior": MH(FromPrior()),
    "proposal": MH(lambda values: {site: dist.Uniform(0.0, 10.0) for site in values}),
    "Slice": Slice(),
}


# Each with the next of them here; all others take two minutes, and are in the longer suite.
NEXT = dict(zip(COMPONENTS, [*list(COMPONENTS)[1:], *COMPONENTS], strict=False))
PAIRS = [
    pytest.param(first, second, marks=() if second == NEXT[first] else pytest.mark.long)
    for first in COMPONENTS
    for second in COMPONENTS
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_pair_of_samplers_is_right_where_one_block_bounds_the_other(first, second):
    sampler = Gibbs({"x": COMPONENTS[first], "y": COMPONENTS[second]})
    draws = posterior(triangle(), sampler, draws=3000, warmup=300)["posterior"]
    assert_mean(draws["x"], 5.05, alpha=1e-5)
    assert_mean(draws["y"], 2.525, alpha=1e-5)


def test_a_mixture_with_its_labels_agrees_with_the_one_without():
    # With the components exchanged there is a minor mode, which labels one at a time do not leave.
    labels = posterior(mixture(MIXED), MIXTURE, init={"means": [-2.0, 2.0]})["posterior"]
    summed = posterior(marginal_mixture(MIXED), NUTS())["posterior"]
    assert labels["z"].dtype.kind == "i"
    for pick in (lambda p: p["weight"], lambda p: p["means"][..., 0], lambda p: p["means"][..., 0] * p["weight"]):
        (a, error_a), (b, error_b) = (mean_error(np.asarray(pick(p))) for p in (labels, summed))
        assert abs(a - b) < 4.5 * np.hypot(error_a, error_b)


def test_two_dependent_binaries_have_the_right_joint():
    draws = posterior(pair(1.0), DiscreteGibbs())["posterior"]
    weights = {
        (a, b): stats.bernoulli(0.3).pmf(a) * stats.bernoulli(0.9 if a else 0.2).pmf(b) * stats.norm(a + 2 * b).pdf(1.0)
        for a in (0, 1)
        for b in (0, 1)
    }
    for (a, b), weight in weights.items():
        assert_mean((draws["a"] == a) & (draws["b"] == b), weight / sum(weights.values()))


def test_a_state_space_model_has_the_moments_of_its_smoother():
    draws = posterior(walk(WALKED), PARTICLES)["posterior"]
    count = len(WALKED)
    precision = np.zeros((count, count))
    precision[0, 0] = 1.0
    for t in range(1, count):
        step = np.zeros(count)
        step[t], step[t - 1] = 1.0, -0.9
        precision += np.outer(step, step) / 0.25
    covariance = np.linalg.inv(precision + np.eye(count) / 0.25)
    mean = covariance @ (WALKED / 0.25)
    x = [np.asarray(draws[f"x_{t}"]) for t in range(count)]
    for t in range(count):
        assert_mean(x[t], mean[t])
        assert_mean((x[t] - mean[t]) ** 2, covariance[t, t])
    for t in range(count - 1):
        assert_mean((x[t] - mean[t]) * (x[t + 1] - mean[t + 1]), covariance[t, t + 1])


# Planted bugs, each of which the joint test must notice.


def stale_cache(monkeypatch):
    """What a block has cached is kept although another block has moved."""
    monkeypatch.setattr(Block, "depends_on_rest", False)


def stale_transform(monkeypatch):
    """What other blocks determine, the bounds of a support among it, does not follow them."""
    constants = Given.constants
    monkeypatch.setattr(Given, "constants", lambda self, q, prepared: constants(self, 0.0 * q, prepared))


def missing_jacobian(monkeypatch):
    constrain = sources.constrain
    monkeypatch.setattr(sources, "constrain", lambda *args: (constrain(*args)[0], None))


def always_flip(monkeypatch):
    step = DiscreteKernel.step

    def flip(self, key, state, *rest):
        after, info = step(self, key, state, *rest)
        return after._replace(position=1.0 - state.position), info

    monkeypatch.setattr(DiscreteKernel, "step", flip)


def wide_conditional(monkeypatch):
    """A conditional whose standard deviation is 1.2 times what it should be."""
    wrong = Conditional(lambda v: dist.Normal((v["x"] + v["y"]) / 3, jnp.sqrt(v["s"] / 2.1)), verify=False)
    return Gibbs({"m": wrong, "s": NUTS()})


BUGS = [
    (stale_cache, "HMC + HMC"),
    (stale_cache, "MH + Slice"),
    (stale_transform, "value-dependent support"),
    (missing_jacobian, "value-dependent support"),
    (missing_jacobian, "NUTS forward + NUTS reverse"),
    (always_flip, "DiscreteGibbs on a pair"),
    (wide_conditional, "Conditional + HMC"),
]


@pytest.mark.parametrize(("plant", "name"), BUGS)
def test_the_joint_test_notices_planted_bugs(plant, name, monkeypatch):
    bound, sampler = JOINT[name]
    check = verdict(bound, plant(monkeypatch) or sampler, replicates=4000)
    assert not check.ok
    assert abs(check.worst[1]) > 6 or check.stuck


def test_a_sampler_that_does_not_move_is_noticed():
    check = verdict(GDEMO, Gibbs({"m": HMC(1e3, 1), "s": NUTS()}), turns=5)
    assert set(check.stuck) == {"m"}
    assert not check.ok
    assert "'m' has not moved" in str(check)
