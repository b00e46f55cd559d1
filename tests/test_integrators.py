"""The leapfrog integrator against exact solutions of Hamilton's equations, and the geometry it must preserve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers.integrators import Leapfrog, Point, energy
from dualtape.samplers.metrics import DenseMetric, DiagonalMetric, UnitMetric
from targets import CORRELATED

UNIT = jnp.ones(())
LOWER = np.linalg.cholesky(np.array(CORRELATED))
METRICS = [(UnitMetric(), 1.0), (DiagonalMetric(), np.array([0.7, 2.0])), (DenseMetric(), LOWER)]


def harmonic(q):
    return -0.5 * jnp.dot(q, q)


def anharmonic(q):
    """Nothing special: couples the coordinates, and its force is not linear."""
    return -0.25 * q[0] ** 4 - 0.5 * (q[1] - jnp.sin(q[0])) ** 2


def start(log_density, position, momentum):
    position = jnp.asarray(position, float)
    return Point(position, jnp.asarray(momentum, float), *jax.value_and_grad(log_density)(position))


def run(point, log_density, step_size, steps, metric=UnitMetric(), scale=1.0):  # noqa: B008
    one = jax.jit(lambda p: Leapfrog(jnp.asarray(scale), metric, jax.value_and_grad(log_density)).step(p, step_size))
    for _ in range(steps):
        point = one(point)
    return point


def test_free_fall_is_exact():
    # log π = −g q: q = q₀ + u₀ t − g t²/2, which the leapfrog follows without error.
    end = run(start(lambda q: -9.81 * q[0], [2.0], [3.0]), lambda q: -9.81 * q[0], 0.1, 20)
    assert end.position[0] == pytest.approx(2.0 + 3.0 * 2.0 - 9.81 * 2.0**2 / 2, rel=1e-13)
    assert end.momentum[0] == pytest.approx(3.0 - 9.81 * 2.0, rel=1e-13)


def test_a_free_particle_flies_straight():
    end = run(start(lambda q: 0.0 * q.sum(), [1.0, 2.0], [3.0, -1.0]), lambda q: 0.0 * q.sum(), 0.25, 8)
    np.testing.assert_allclose(end.position, [7.0, 0.0], atol=1e-14)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.5])
def test_the_harmonic_orbit_is_that_of_the_modified_oscillator(step_size):
    """The leapfrog solves exactly an oscillator with cos ω = 1 − ε²/2 and momenta divided by √(1 − ε²/4)."""
    angle, stretch = np.arccos(1 - step_size**2 / 2), np.sqrt(1 - step_size**2 / 4)
    for steps in (1, 7, 50):
        end = run(start(harmonic, [1.0], [0.3]), harmonic, step_size, steps)
        turn = steps * angle
        assert end.position[0] == pytest.approx(np.cos(turn) + 0.3 / stretch * np.sin(turn), abs=1e-12)
        assert end.momentum[0] == pytest.approx(0.3 * np.cos(turn) - stretch * np.sin(turn), abs=1e-12)


def test_the_error_is_of_second_order():
    """Against q = cos t at time 2: halving the step divides the error by four."""
    errors = [
        abs(float(run(start(harmonic, [1.0], [0.0]), harmonic, 2.0 / n, n).position[0]) - np.cos(2.0))
        for n in (20, 40, 80, 160)
    ]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.01)


def test_the_energy_error_is_of_second_order_and_bounded():
    def worst(step_size, steps):
        point, first, largest = start(anharmonic, [1.0, 0.5], [0.5, -1.0]), None, 0.0
        one = jax.jit(lambda p: Leapfrog(UNIT, UnitMetric(), jax.value_and_grad(anharmonic)).step(p, step_size))
        first = energy(point)
        for _ in range(steps):
            point = one(point)
            largest = max(largest, abs(float(energy(point) - first)))
        return largest

    errors = [worst(step_size, round(20 / step_size)) for step_size in (0.1, 0.05, 0.025)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.1)
    # It does not grow with time: a hundred times as long, and much the same.
    assert worst(0.1, 20_000) < 1.5 * errors[0]


@pytest.mark.parametrize(("metric", "scale"), METRICS)
def test_time_reverses_to_rounding(metric, scale):
    first = start(anharmonic, [1.0, 0.5], [0.5, -1.0])
    there = run(first, anharmonic, 0.1, 50, metric, scale)
    backwards = run(there, anharmonic, -0.1, 50, metric, scale)
    flipped = run(there._replace(momentum=-there.momentum), anharmonic, 0.1, 50, metric, scale)
    for back, sign in ((backwards, 1.0), (flipped, -1.0)):
        np.testing.assert_allclose(back.position, first.position, atol=1e-12)
        np.testing.assert_allclose(sign * back.momentum, first.momentum, atol=1e-12)
    assert not np.allclose(there.position, first.position, atol=0.1)


@pytest.mark.parametrize(("metric", "scale"), METRICS)
@pytest.mark.parametrize("step_size", [0.1, -0.3, 1.0])
def test_volume_is_preserved(metric, scale, step_size):
    def step(phase):
        point = Point(phase[:2], phase[2:], *jax.value_and_grad(anharmonic)(phase[:2]))
        end = Leapfrog(jnp.asarray(scale), metric, jax.value_and_grad(anharmonic)).step(point, step_size)
        return jnp.concatenate([end.position, end.momentum])

    for phase in np.random.default_rng(0).normal(size=(5, 4)):
        jacobian = jax.jacfwd(step)(jnp.asarray(phase))
        assert float(jnp.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-11)
        symplectic = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.eye(2), np.zeros((2, 2))]])
        if metric == UnitMetric():
            np.testing.assert_allclose(jacobian.T @ symplectic @ jacobian, symplectic, atol=1e-11)


def test_a_dense_metric_is_a_unit_metric_on_the_whitened_target():
    def correlated(q):
        return -0.5 * jnp.dot(q, jnp.linalg.solve(jnp.asarray(CORRELATED), q)) - 0.1 * q[0] ** 4

    def whitened(z):
        return correlated(jnp.asarray(LOWER) @ z)

    z, u = np.array([0.4, -1.2]), np.array([1.0, 0.3])
    dense = run(start(correlated, LOWER @ z, u), correlated, 0.3, 20, DenseMetric(), LOWER)
    unit = run(start(whitened, z, u), whitened, 0.3, 20)
    np.testing.assert_allclose(dense.position, LOWER @ unit.position, atol=1e-12)
    np.testing.assert_allclose(dense.momentum, unit.momentum, atol=1e-12)
    assert float(dense.log_density) == pytest.approx(float(unit.log_density), abs=1e-12)
    assert float(energy(dense)) == pytest.approx(float(energy(unit)), abs=1e-12)


def test_a_diagonal_metric_is_a_dense_one_with_a_diagonal():
    scale = np.array([0.7, 2.0])
    first = start(anharmonic, [1.0, 0.5], [0.5, -1.0])
    diagonal = run(first, anharmonic, 0.1, 20, DiagonalMetric(), scale)
    dense = run(first, anharmonic, 0.1, 20, DenseMetric(), np.diag(scale))
    np.testing.assert_allclose(diagonal.position, dense.position, atol=1e-13)
    np.testing.assert_allclose(diagonal.momentum, dense.momentum, atol=1e-13)


def test_a_step_carries_the_density_and_gradient_of_its_end():
    end = run(start(anharmonic, [1.0, 0.5], [0.5, -1.0]), anharmonic, 0.1, 3)
    value, gradient = jax.value_and_grad(anharmonic)(end.position)
    assert float(end.log_density) == pytest.approx(float(value), abs=1e-14)
    np.testing.assert_allclose(end.gradient, gradient, atol=1e-14)


@pytest.mark.parametrize("log_density", [np.nan, -np.inf])
def test_the_energy_outside_the_support_is_infinite(log_density):
    point = Point(jnp.zeros(1), jnp.ones(1), jnp.asarray(log_density), jnp.zeros(1))
    assert float(energy(point)) == np.inf


@pytest.mark.parametrize(("metric", "scale"), METRICS)
def test_many_steps_are_as_many_single_ones(metric, scale):
    flow = Leapfrog(jnp.asarray(scale), metric, jax.value_and_grad(anharmonic))
    first = start(anharmonic, [0.3, -0.2], [0.5, 1.0])
    for count in (1, 2, 7):
        one_by_one = first
        for _ in range(count):
            one_by_one = flow.step(one_by_one, 0.1)
        for a, b in zip(*map(jax.tree.leaves, (flow.steps(first, 0.1, count), one_by_one)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)
