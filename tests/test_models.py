"""The shipped models: exact posteriors, recovered parameters, and the demonstration from end to end."""

import json
import subprocess
import sys

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape import HMC, NUTS, AutoByDimension, AutoForward, AutoReverse, Gibbs, sample
from dualtape.ad import DifferentiationError, value_and_gradient
from dualtape.models import demo, eight_schools, gdemo, kepler_orbit

GIBBS = Gibbs({"m": HMC(0.1, 5, adtype=AutoForward(chunk_size=1)), "s": HMC(0.1, 5, adtype=AutoReverse())})
ORBIT = kepler_orbit.kepler_orbit(kepler_orbit.DAYS, kepler_orbit.VELOCITY)


def standard_errors_off(draws, exact):
    """How far the mean of draws of shape (chains, draws) is from the exact one, in Monte Carlo standard errors."""
    draws = np.asarray(draws)
    return (draws.mean() - exact) / float(az.mcse(draws))


@pytest.mark.parametrize(
    "run",
    [
        pytest.param({"sampler": GIBBS, "draws": 4000, "thin": 5}, id="gibbs"),
        pytest.param({"sampler": NUTS(), "draws": 5000}, id="nuts"),
    ],
)
def test_gdemo_has_its_exact_moments(run):
    posterior = sample(gdemo.gdemo(gdemo.X, gdemo.Y), seed=3, progress=False, **run)["posterior"]
    m, s = posterior["m"].values, posterior["s"].values
    mean, variance = gdemo.POSTERIOR_MEAN, gdemo.POSTERIOR_VARIANCE
    # Averages of functions with a finite variance only: not s², whose error has none.
    off = {
        "m": standard_errors_off(m, mean["m"]),
        "s": standard_errors_off(s, mean["s"]),
        "m²": standard_errors_off(m**2, mean["m"] ** 2 + variance["m"]),
        "1/s": standard_errors_off(1 / s, gdemo.POSTERIOR_MEAN_PRECISION),
        # m | s ~ Normal(7/6, s/3): jointly right, not in the margins alone.
        "(m − E m)²/s": standard_errors_off((m - mean["m"]) ** 2 / s, 1 / 3),
    }
    assert all(abs(z) < 4 for z in off.values()), off


def test_gdemo_moments_agree_with_each_other():
    alpha, beta, kappa = 3, 49 / 12, 3
    assert gdemo.POSTERIOR_MEAN["s"] == pytest.approx(beta / (alpha - 1))
    assert gdemo.POSTERIOR_VARIANCE["s"] == pytest.approx(beta**2 / ((alpha - 1) ** 2 * (alpha - 2)))
    assert gdemo.POSTERIOR_VARIANCE["m"] == pytest.approx(gdemo.POSTERIOR_MEAN["s"] / kappa)
    assert pytest.approx(alpha / beta) == gdemo.POSTERIOR_MEAN_PRECISION


def test_eight_schools_has_its_labels():
    model = eight_schools.eight_schools_noncentered(eight_schools.Y, eight_schools.SIGMA)
    posterior = sample(model, draws=10, warmup=10, chains=1, seed=1, progress=False)["posterior"]
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert tuple(posterior["school"].values) == eight_schools.SCHOOLS


@pytest.mark.parametrize("eccentricity", [0.0, 0.3, 0.9, 0.99])
def test_keplers_equation_is_solved(eccentricity):
    longitude = jnp.linspace(-10.0, 40.0, 1001)
    h, k = eccentricity * np.sin(2.0), eccentricity * np.cos(2.0)
    f = kepler_orbit.eccentric_longitude(longitude, jnp.asarray(h), jnp.asarray(k))
    np.testing.assert_allclose(f + h * np.cos(f) - k * np.sin(f), longitude, atol=1e-13)


def test_the_radial_velocity_is_that_of_the_classical_elements():
    e, omega, amplitude, longitude = 0.6, 1.1, 30.0, 0.4
    days = np.linspace(0.0, 50.0, 101)
    mean_anomaly = longitude - omega + 2 * np.pi * days / kepler_orbit.PERIOD
    anomaly = mean_anomaly
    for _ in range(200):  # a contraction, for e < 1
        anomaly = mean_anomaly + e * np.sin(anomaly)
    true = 2 * np.arctan2(np.sqrt(1 + e) * np.sin(anomaly / 2), np.sqrt(1 - e) * np.cos(anomaly / 2))
    expected = amplitude * (np.cos(true + omega) + e * np.cos(omega))
    actual = kepler_orbit.radial_velocity(days, amplitude, longitude, e * np.sin(omega), e * np.cos(omega))
    np.testing.assert_allclose(actual, expected, atol=1e-10)


@pytest.mark.parametrize("eccentricity", [0.0, 0.4, 0.8])
def test_forward_mode_differentiates_the_solver_like_finite_differences(eccentricity):
    def fit(x):
        velocity = kepler_orbit.radial_velocity(kepler_orbit.DAYS, x[0], x[1], x[2], x[3])
        return jnp.sum(velocity * jnp.sin(kepler_orbit.DAYS))

    x = jnp.array([55.0, 2.2, eccentricity * np.sin(0.7), eccentricity * np.cos(0.7)])
    _, gradient = value_and_gradient(fit, AutoForward(), x)
    step, f = 1e-5, jax.jit(fit)
    central = [(f(x + step * unit) - f(x - step * unit)) / (2 * step) for unit in np.eye(4)]
    np.testing.assert_allclose(gradient, central, rtol=1e-6, atol=1e-5)


def test_the_stored_observations_are_those_of_the_simulation():
    days, velocity = kepler_orbit.simulate()
    np.testing.assert_array_equal(days, kepler_orbit.DAYS)
    np.testing.assert_array_equal(velocity, kepler_orbit.VELOCITY)


def test_the_orbit_is_recovered():
    idata = sample(ORBIT, NUTS(adtype=AutoForward()), seed=1, progress=False)
    posterior = idata["posterior"]
    for name, truth in kepler_orbit.TRUTH.items():
        low, high = np.quantile(posterior[name].values, [0.005, 0.995])
        assert low < truth < high, name
    assert int(idata["sample_stats"]["diverging"].sum()) == 0
    summary = az.summary(idata, round_to="none").astype(float)
    assert summary["r_hat"].max() < 1.01
    assert summary["ess_bulk"].min() > 1000


def test_reverse_mode_refuses_the_orbit_and_says_what_to_do():
    with pytest.raises(DifferentiationError, match=r"(?s)'swing,shape,offset,noise'.*while_loop.*AutoForward\(\)"):
        sample(ORBIT, NUTS(adtype=AutoReverse()), seed=1, progress=False)


def test_the_default_rule_falls_back_to_forward_mode_and_says_so():
    rule = AutoByDimension(threshold=0)  # prefers reverse mode for any number of parameters
    idata = sample(ORBIT, NUTS(adtype=rule), draws=10, warmup=300, chains=1, seed=1, progress=False)
    (block,) = json.loads(idata.attrs["blocks"]).values()
    assert block["adtype"] == "AutoForward()"
    assert block["reason"].endswith("but reverse mode cannot differentiate this function")


def test_the_demonstration_runs_and_draws_its_pictures(tmp_path):
    command = [sys.executable, "-m", "dualtape.models.demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "AutoForward(chunk_size=1)" in done.stdout
    assert "AutoReverse()" in done.stdout
    assert "All checks hold." in done.stdout
    assert done.stderr == ""
    pictures = {path.name: path.stat().st_size for path in (tmp_path / "demo-output").iterdir()}
    expected = {f"{model}_{kind}.png" for model in ("gdemo", "eight_schools") for kind in ("trace", "forest")}
    assert pictures.keys() == expected
    assert min(pictures.values()) > 5_000


def test_the_demonstration_fails_where_the_means_are_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    monkeypatch.setattr(demo, "draw_pictures", lambda *_: None)
    monkeypatch.setattr(gdemo, "POSTERIOR_MEAN", {"m": 7 / 6, "s": 3.0})
    assert demo.main() == 1
    assert "A check FAILED." in capsys.readouterr().out
