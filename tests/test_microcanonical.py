"""MicrocanonicalHMC: its dynamics, invariance from exact draws, planted bugs, and runs from end to end.

The statistical tests are those of `test_statistics`, with its false-alarm rate ALPHA each.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    AutoForward,
    AutoReverse,
    DenseMetric,
    DiagonalMetric,
    Gibbs,
    UnitMetric,
    check_sampler,
    model,
    rv,
    sample,
)
from dualtape.models.gdemo import gdemo
from dualtape.samplers import MicrocanonicalHMC, microcanonical
from dualtape.samplers.integrators import Leapfrog, Point
from dualtape.samplers.microcanonical_dynamics import fly, turn
from dualtape.samplers.random import chain_key, fold_in
from dualtape.samplers.trajectory_length import LengthAdaptation
from scipy import special, stats
from targets import mean_error, p_value
from test_statistics import ALPHA, GAUSSIAN, LOWER, SKEWED, walked

KNOWN = pytest.mark.parametrize("known", [GAUSSIAN, SKEWED], ids=["Gaussian", "skewed"])
RNG = np.random.default_rng(0)


def on_sphere(size):
    v = RNG.normal(size=size)
    return jnp.asarray(v * np.sqrt(size) / np.linalg.norm(v))


def tangents(unit):
    """An orthonormal basis of the directions along the sphere at a point, in columns."""
    return jnp.asarray(np.linalg.qr(np.column_stack([unit, np.eye(len(unit))]))[0][:, 1 : len(unit)])


# The dynamics.


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("time", [0.0, 0.1, 3.0, 200.0])
def test_turning_keeps_the_speed_and_changes_the_volume_by_its_jacobian(size, time):
    velocity, force = on_sphere(size), jnp.asarray(RNG.normal(size=size))
    turned, log_volume = turn(velocity, force, jnp.asarray(time))
    np.testing.assert_allclose(jnp.dot(turned, turned), size, rtol=1e-12)
    # As a map of directions w, extended to all of space: w ↦ turn(√d w/|w|)/√d.
    root = np.sqrt(size)
    jacobian = jax.jacfwd(lambda w: turn(root * w / jnp.linalg.norm(w), force, jnp.asarray(time))[0] / root)(
        velocity / root
    )
    along = tangents(np.asarray(turned) / root).T @ jacobian @ tangents(np.asarray(velocity) / root)
    if time < 100.0:
        np.testing.assert_allclose(log_volume, jnp.linalg.slogdet(along)[1], rtol=1e-8, atol=1e-10)
    assert np.isfinite(log_volume)


def test_turning_is_the_solution_of_its_equation():
    velocity, force, dimension, time = on_sphere(4), jnp.asarray(RNG.normal(size=4)), 4, 0.8
    halves = turn(turn(velocity, force, jnp.asarray(time / 2))[0], force, jnp.asarray(time / 2))[0]
    np.testing.assert_allclose(turn(velocity, force, jnp.asarray(time))[0], halves, rtol=1e-12)
    rate = jax.jacfwd(lambda t: turn(velocity, force, t)[0])(jnp.asarray(0.0))
    expected = (force - velocity * jnp.dot(velocity, force) / dimension) * dimension / (dimension - 1)
    np.testing.assert_allclose(rate, expected, rtol=1e-10)
    # Straight against the force, and without any.
    for force in (-velocity, jnp.zeros(4)):
        turned, log_volume = turn(velocity, 1e-3 * force, jnp.asarray(1.0))
        np.testing.assert_allclose(turned, velocity, rtol=1e-12)
        assert np.isfinite(log_volume)


def anharmonic(q):
    return -0.25 * jnp.sum(q**4) - 0.5 * jnp.sum((q[1:] - q[:-1]) ** 2)


def flow_and_start(size=3):
    scale = jnp.asarray(RNG.uniform(0.5, 1.5, size))
    position = jnp.asarray(RNG.normal(size=size))
    value_and_gradient = jax.value_and_grad(anharmonic)
    start = Point(position, jnp.asarray(RNG.normal(size=size)), *value_and_gradient(position))
    return Leapfrog(scale, DiagonalMetric(), value_and_gradient), start


@pytest.mark.parametrize("hamiltonian", [False, True])
def test_trajectories_can_be_flown_back(hamiltonian):
    flow, start = flow_and_start()
    there = fly(flow, start, jnp.asarray(0.2), jnp.asarray(7), jnp.asarray(hamiltonian))
    turned = Point(there.position, -there.velocity, there.log_density, there.gradient)
    back = fly(flow, turned, jnp.asarray(0.2), jnp.asarray(7), jnp.asarray(hamiltonian))
    np.testing.assert_allclose(back.position, start.position, rtol=1e-10)
    np.testing.assert_allclose(back.log_volume, -there.log_volume, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flow.scale * there.displacement * 0.2, there.position - start.position, rtol=1e-9)


def test_the_volume_makes_up_for_the_density_as_steps_get_shorter():
    flow, start = flow_and_start()
    errors = []
    for count in (20, 40, 80):
        end = fly(flow, start, jnp.asarray(2.0 / count), jnp.asarray(count), jnp.asarray(False))
        errors.append(abs(float(end.log_density - start.log_density + end.log_volume)))
    # Second order: a quarter for half the step.
    assert errors[0] > 1e-6
    np.testing.assert_allclose([errors[1] / errors[0], errors[2] / errors[1]], 0.25, atol=0.08)


def test_hamiltonian_flight_is_the_leapfrog_integrator():
    flow, start = flow_and_start()
    end = fly(flow, start, jnp.asarray(0.3), jnp.asarray(5), jnp.asarray(True))
    expected = flow.steps(start, jnp.asarray(0.3), 5)
    np.testing.assert_allclose(end.position, expected.position, rtol=1e-12)
    np.testing.assert_allclose(end.velocity, expected.momentum, rtol=1e-12)
    kinetic = 0.5 * (jnp.dot(start.momentum, start.momentum) - jnp.dot(end.velocity, end.velocity))
    np.testing.assert_allclose(end.log_volume, kinetic, rtol=1e-10)


# The length of trajectories.


@pytest.mark.parametrize("mean", [1.0, 2.5, 8.0])
def test_the_number_of_steps_has_its_law(mean):
    adaptation = LengthAdaptation(0.1, 0.9, UnitMetric(), mean_steps=mean)
    tuning = jax.tree.map(jnp.asarray, adaptation.init(2, np.float64))
    keys = jax.vmap(lambda i: fold_in(chain_key(1, 0), i))(jnp.arange(20_000, dtype=jnp.int32))
    steps = np.asarray(jax.vmap(lambda key: adaptation.draw_steps(key, tuning))(keys))
    # ⌈(2m − 1) u⌉ with u uniform.
    top = 2 * mean - 1
    values = np.arange(1, int(np.ceil(top)) + 1)
    chances = np.diff(np.minimum(np.append(0, values), top)) / top
    counts = np.array([(steps == value).sum() for value in values])
    assert counts.sum() == len(steps)
    if len(values) > 1:
        assert stats.chisquare(counts, chances * len(steps)).pvalue > ALPHA


def arrived(scale=None):
    """The tuning of a chain in the typical set."""
    changes = {"falling": np.asarray(False)} | ({} if scale is None else {"scale": np.asarray(scale)})
    return lambda tuning: tuning._replace(**changes)


SAMPLERS = {
    "unit": (MicrocanonicalHMC(step_size=0.35, mean_steps=3, metric=UnitMetric()), arrived()),
    "diagonal": (MicrocanonicalHMC(step_size=0.35, mean_steps=2.5, metric=DiagonalMetric()), arrived([1.5, 0.8])),
    "dense, reverse mode": (
        MicrocanonicalHMC(step_size=0.8, mean_steps=2, metric=DenseMetric(), adtype=AutoReverse()),
        arrived(1.1 * LOWER),
    ),
    "single steps": (MicrocanonicalHMC(step_size=0.4, mean_steps=1, metric=UnitMetric()), arrived()),
    "falling": (MicrocanonicalHMC(step_size=0.5, mean_steps=3, metric=UnitMetric()), None),
}


@KNOWN
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_target_is_invariant(name, known):
    sampler, tuning = SAMPLERS[name]
    run = walked(known, sampler, tuning=tuning)
    assert p_value(known.normalise(run.end)) > ALPHA
    moved = np.abs(run.end - run.start) / known.deviations
    assert np.median(moved.max(1)) > 0.3
    assert run.infos.acceptance_rate.mean() < 0.99  # or there would be nothing to correct


def forget_the_volume(monkeypatch):
    monkeypatch.setattr(microcanonical, "fly", lambda *a: fly(*a)._replace(log_volume=jnp.zeros(())))


def accept_always(monkeypatch):
    monkeypatch.setattr(
        microcanonical, "fly", lambda flow, start, *a: fly(flow, start, *a)._replace(log_volume=jnp.full((), 1e6))
    )


def keep_the_direction(monkeypatch):
    """The momentum is not drawn anew."""
    monkeypatch.setattr(
        microcanonical, "fly", lambda flow, start, *a: fly(flow, start._replace(momentum=jnp.ones(2)), *a)
    )


@pytest.mark.parametrize("plant", [forget_the_volume, accept_always, keep_the_direction])
def test_planted_bugs_are_found(plant, monkeypatch):
    plant(monkeypatch)
    sampler, tuning = SAMPLERS["unit"]
    ends = ((known, walked(known, sampler, tuning=tuning, steps=6).end) for known in (SKEWED, GAUSSIAN))
    assert any(p_value(known.normalise(end)) < 1e-6 for known, end in ends)


# From end to end.


@model
def correlated():
    covariance = jnp.array([[1.0, 0.9], [0.9, 1.0]])
    rv("x", dist.MultivariateNormal(jnp.array([1.0, -1.0]), covariance))


@model
def isotropic():
    rv("x", dist.Normal(jnp.full(20, 3.0), 2.0).to_event(1))


def test_moments_of_a_correlated_gaussian():
    result = sample(correlated(), MicrocanonicalHMC(), draws=5000, warmup=500, chains=2, seed=1, progress=False)
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


def test_warm_up_finds_the_acceptance_rate_and_the_share_that_turns():
    result = sample(isotropic(), MicrocanonicalHMC(), draws=2000, warmup=1000, chains=2, seed=1, progress=False)
    found = result["sample_stats"]
    assert {"lp", "acceptance_rate", "diverging", "n_steps", "step_size", "turned"} <= set(found.data_vars)
    assert "energy" not in found.data_vars
    assert float(found["acceptance_rate"].mean()) == pytest.approx(0.9, abs=0.03)
    assert float(found["turned"].mean()) == pytest.approx(0.25, abs=0.06)
    # Half a turn of an isotropic Gaussian takes a time of π: a quarter of the times that are uniform on 0 to 2m ε is
    # beyond it for m ε = 2π/3.
    time = float((found["n_steps"] * found["step_size"]).mean())
    assert time == pytest.approx(2 * np.pi / 3, rel=0.3)


@pytest.mark.parametrize("sampler", [MicrocanonicalHMC(adtype=AutoForward()), MicrocanonicalHMC(mean_steps=2)])
def test_gdemo_has_its_exact_means(sampler):
    result = sample(gdemo(1.5, 2.0), sampler, draws=4000, warmup=500, chains=2, seed=3, progress=False)
    m, s = (np.asarray(result["posterior"][name]) for name in "ms")
    for draws, exact in ((m, 7 / 6), (np.log(s), np.log(49 / 12) - special.digamma(3))):
        mean, error = mean_error(draws)
        assert abs(mean - exact) < stats.t.isf(ALPHA / 4, 49) * error


@model
def pairs():
    x = rv("x", dist.Normal(jnp.array([0.0, 1.0]), 1.0).to_event(1))
    rv("y", dist.Normal(x.sum(), 0.5))


def test_as_a_block_of_gibbs():
    sampler = Gibbs({"x": MicrocanonicalHMC(), "y": HMC(0.4, 4)})
    result = sample(pairs(), sampler, draws=6000, warmup=500, chains=2, seed=1, progress=False)["posterior"]
    for draws, exact in ((result["x"][..., 0], 0.0), (result["x"][..., 1], 1.0), (result["y"], 1.0)):
        mean, error = mean_error(np.asarray(draws))
        assert abs(mean - exact) < stats.t.isf(ALPHA / 6, 49) * error


def test_single_precision():
    sampler = MicrocanonicalHMC()
    result = sample(
        correlated(), sampler, draws=1000, warmup=300, chains=2, seed=1, progress=False, precision="float32"
    )
    assert result["posterior"]["x"].dtype == np.float32
    mean, error = mean_error(np.asarray(result["posterior"]["x"], float)[..., 0])
    assert abs(mean - 1.0) < 4.5 * error


def test_the_joint_distribution_is_invariant():
    check = check_sampler(gdemo(1.5, 2.0), MicrocanonicalHMC(), replicates=1500, turns=45, warmup=200)
    assert check.ok, str(check)


def test_a_block_of_one_coordinate_is_refused():
    with pytest.raises(ValueError, match=r"block 'y': MicrocanonicalHMC needs at least 2 coordinates.*Use NUTS\(\)"):
        sample(pairs(), Gibbs({"x": HMC(0.4, 4), "y": MicrocanonicalHMC()}), progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_acceptance": 1.0}, "target_acceptance must lie between 0 and 1"),
        ({"mean_steps": 0.5}, "mean_steps must be a number from 1 on, or None to adapt it, got 0.5"),
        ({"mean_steps": True}, "mean_steps must be"),
        ({"mean_steps": 10, "max_steps": 5}, "trajectories of up to 19 steps.*raise max_steps or lower mean_steps"),
        ({"max_steps": 0}, "max_steps must be an integer from 1"),
        ({"step_size": np.inf}, "step_size"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"MicrocanonicalHMC: {message}"):
        MicrocanonicalHMC(**arguments)
