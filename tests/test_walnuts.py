"""WALNUTS: its macro steps against a naive form, invariance from exact draws, planted bugs, and runs from end to end.

The statistical tests are those of `test_statistics`, with its false-alarm rate ALPHA each.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, AutoForward, AutoReverse, DenseMetric, Gibbs, UnitMetric, check_sampler, model, rv, sample
from dualtape.models.gdemo import gdemo
from dualtape.samplers import WALNUTS
from dualtape.samplers.integrators import Leapfrog, Point, energy
from dualtape.samplers.macro_steps import MacroSteps, no_effort
from scipy import special, stats
from targets import mean_error, p_value
from test_statistics import ALPHA, GAUSSIAN, LOWER, SKEWED, walked

KNOWN = pytest.mark.parametrize("known", [GAUSSIAN, SKEWED], ids=["Gaussian", "skewed"])


def quartic(q):
    """Its curvature varies, so that k does."""
    return -jnp.sum(q**4) - 0.5 * (q[0] - q[1]) ** 2


FLOW = Leapfrog(jnp.ones(()), UnitMetric(), jax.value_and_grad(quartic))
leap, energy_of, value_and_gradient = jax.jit(FLOW.step), jax.jit(energy), jax.jit(FLOW.value_and_gradient)


def point_at(position, momentum):
    position = jnp.asarray(position, float)
    return Point(position, jnp.asarray(momentum, float), *value_and_gradient(position))


def first_good(point, step_size, delta, most):
    """The smallest k that is good enough, the end, and the gradients of all attempts, by the definition."""
    gradients = 0
    for k in range(most + 1):
        end, energies = point, [float(energy_of(point))]
        for _ in range(2**k):
            end = leap(end, jnp.asarray(step_size / 2**k))
            energies.append(float(energy_of(end)))
            gradients += 1
            if not max(energies) - min(energies) <= delta:
                break
        else:
            return k, end, gradients
    return None, None, gradients


def naive(point, step_size, delta, most):
    k, end, gradients = first_good(point, step_size, delta, most)
    if k is None:
        return end, gradients, k, "exhausted"
    back, _, checking = first_good(end, -step_size, delta, k - 1) if k else (None, None, 0)
    return end, gradients + checking, k, "irreversible" if back is not None else "good"


def test_macro_steps_are_those_of_the_definition():
    rng, delta, most = np.random.default_rng(0), 0.2, 4
    integrator = MacroSteps(FLOW, delta, most)
    take = jax.jit(integrator.step)
    seen = set()
    for _ in range(80):
        start = point_at(rng.normal(size=2), rng.normal(size=2) * 1.5)
        signed = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 1.5))
        end, gradients, k, outcome = naive(start, signed, delta, most)
        found = take(start._replace(record=no_effort()), jnp.asarray(signed))
        seen.add((outcome, k))
        assert int(found.record.gradients) == gradients
        assert bool(found.record.exhausted) == (outcome == "exhausted")
        assert bool(found.record.irreversible) == (outcome == "irreversible")
        assert int(found.record.unhalved) == (k == 0)
        assert bool(jnp.isneginf(found.log_density)) == (outcome != "good")
        if outcome == "good":
            np.testing.assert_allclose(found.position, end.position, rtol=1e-12)
            np.testing.assert_allclose(found.momentum, end.momentum, rtol=1e-12)
            # The step from the end, backwards in time, leads to the start and knows that it can be undone.
            back = take(found._replace(record=no_effort()), jnp.asarray(-signed))
            np.testing.assert_allclose(back.position, start.position, rtol=1e-9, atol=1e-9)
            assert not bool(back.record.irreversible)
    assert {("good", 0), ("good", 1), ("good", 2), ("exhausted", None)} <= seen
    assert any(outcome == "irreversible" for outcome, _ in seen)


def test_an_energy_that_is_not_a_number_is_never_good_enough():
    flow = Leapfrog(jnp.ones(()), UnitMetric(), jax.value_and_grad(lambda q: jnp.sum(jnp.log(1.0 - q**2))))
    start = Point(jnp.zeros(2), jnp.full(2, 5.0), *flow.value_and_gradient(jnp.zeros(2)))
    found = MacroSteps(flow, 1.0, 0).step(start._replace(record=no_effort()), jnp.asarray(1.0))
    assert bool(found.record.exhausted)
    assert int(found.record.gradients) == 1


def arrived(scale=None):
    """The tuning of a chain in the typical set."""
    changes = {"falling": np.asarray(False)} | ({} if scale is None else {"scale": np.asarray(scale)})
    return lambda tuning: tuning._replace(**changes)


SAMPLERS = {
    "unit": (WALNUTS(0.3, step_size=1.2, metric=UnitMetric()), arrived()),
    "dense, reverse mode": (
        WALNUTS(0.1, step_size=1.2, metric=DenseMetric(), adtype=AutoReverse()),
        arrived(1.1 * LOWER),
    ),
    "few halvings": (WALNUTS(0.1, step_size=0.5, max_halvings=1, max_tree_depth=3, metric=UnitMetric()), arrived()),
    "falling": (WALNUTS(0.3, step_size=0.6, metric=UnitMetric()), None),
}


@KNOWN
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_target_is_invariant(name, known):
    sampler, tuning = SAMPLERS[name]
    run = walked(known, sampler, tuning=tuning)
    assert p_value(known.normalise(run.end)) > ALPHA
    moved = np.abs(run.end - run.start) / known.deviations
    assert np.median(moved.max(1)) > 0.2
    if name != "falling":
        assert run.infos.unhalved_rate.mean() < 0.95  # or there would be nothing to find


def never_check(monkeypatch):
    """The way back is taken for granted."""
    step = MacroSteps._micro_step

    def wrong(self, attempt, step_size):
        after = step(self, attempt, step_size)
        return after._replace(limit=jnp.where(after.backwards, 0, after.limit))

    monkeypatch.setattr(MacroSteps, "_micro_step", wrong)


def forget_the_halvings(monkeypatch):
    """The way back is tried with the micro steps of the way there only: one attempt too few is made."""
    step = MacroSteps._micro_step

    def wrong(self, attempt, step_size):
        after = step(self, attempt, step_size)
        return after._replace(limit=jnp.where(after.backwards & ~attempt.backwards, after.limit - 1, after.limit))

    monkeypatch.setattr(MacroSteps, "_micro_step", wrong)


@pytest.mark.parametrize("plant", [never_check, forget_the_halvings])
def test_planted_bugs_are_found(plant, monkeypatch):
    plant(monkeypatch)
    sampler, tuning = SAMPLERS["unit"]
    ends = ((known, walked(known, sampler, tuning=tuning, steps=12).end) for known in (SKEWED, GAUSSIAN))
    assert any(p_value(known.normalise(end)) < 1e-6 for known, end in ends)


# From end to end.


@model
def correlated():
    covariance = jnp.array([[1.0, 0.9], [0.9, 1.0]])
    rv("x", dist.MultivariateNormal(jnp.array([1.0, -1.0]), covariance))


@model
def funnel():
    v = rv("v", dist.Normal(0.0, 3.0))
    rv("x", dist.Normal(0.0, jnp.exp(v / 2.0)).expand([3]).to_event(1))


def test_moments_of_a_correlated_gaussian():
    result = sample(correlated(), WALNUTS(), draws=5000, warmup=500, chains=2, seed=1, progress=False)
    x = np.asarray(result["posterior"]["x"])
    centred = x - [1.0, -1.0]
    for draws, exact in (
        (x[..., 0], 1.0),
        (x[..., 1], -1.0),
        (centred[..., 0] ** 2, 1.0),
        (centred[..., 0] * centred[..., 1], 0.9),
    ):
        mean, error = mean_error(draws)
        assert abs(mean - exact) < stats.t.isf(ALPHA / 8, 49) * error
        assert error < 0.05


def test_statistics_and_the_length_of_steps():
    result = sample(funnel(), WALNUTS(), draws=1000, warmup=500, chains=2, seed=1, progress=False)
    found = result["sample_stats"]
    names = {"lp", "acceptance_rate", "diverging", "energy", "n_steps", "step_size", "tree_depth", "unhalved_rate"}
    assert names <= set(found.data_vars)
    leaves_at_least = 2.0 ** (np.asarray(found["tree_depth"]) - 1.0)
    assert (np.asarray(found["n_steps"]) >= np.floor(leaves_at_least)).all()
    # The steps are halved where v is small, and not where it is large.
    v, unhalved = (np.asarray(a).ravel() for a in (result["posterior"]["v"], found["unhalved_rate"]))
    assert unhalved[v < np.quantile(v, 0.1)].mean() < unhalved[v > np.quantile(v, 0.5)].mean()
    assert 0.6 < unhalved.mean() < 0.95


@pytest.mark.parametrize("sampler", [WALNUTS(adtype=AutoForward()), Gibbs({"m": WALNUTS(), "s": HMC(0.2, 5)})])
def test_gdemo_has_its_exact_means(sampler):
    result = sample(gdemo(1.5, 2.0), sampler, draws=4000, warmup=500, chains=2, seed=3, progress=False)
    m, s = (np.asarray(result["posterior"][name]) for name in "ms")
    for draws, exact in ((m, 7 / 6), (np.log(s), np.log(49 / 12) - special.digamma(3))):
        mean, error = mean_error(draws)
        assert abs(mean - exact) < stats.t.isf(ALPHA / 4, 49) * error


def test_single_precision():
    result = sample(
        correlated(), WALNUTS(), draws=1000, warmup=300, chains=2, seed=1, progress=False, precision="float32"
    )
    assert result["posterior"]["x"].dtype == np.float32
    mean, error = mean_error(np.asarray(result["posterior"]["x"], float)[..., 0])
    assert abs(mean - 1.0) < 4.5 * error


def test_the_joint_distribution_is_invariant():
    check = check_sampler(gdemo(1.5, 2.0), WALNUTS(0.3), replicates=1500, turns=45, warmup=200)
    assert check.ok, str(check)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_energy_error": 0.0}, "max_energy_error must be a positive number; 1.0 is usual, got 0.0"),
        ({"max_energy_error": np.inf}, "max_energy_error"),
        ({"target_unhalved": 1.0}, "target_unhalved must be a number between 0 and 1; 0.8 is usual, got 1.0"),
        ({"max_tree_depth": 0}, "max_tree_depth must be an integer from 1 to 20"),
        ({"max_halvings": -1}, "max_halvings must be an integer from 0 to 20"),
        ({"step_size": -1.0}, "step_size"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"WALNUTS: {message}"):
        WALNUTS(**arguments)
