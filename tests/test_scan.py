import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    AutoForward,
    AutoReverse,
    Gibbs,
    check_gradients,
    deterministic,
    factor,
    model,
    plate,
    rv,
    sample,
    scan,
    submodel,
)
from dualtape.ppl.interpreters import discover, unconstrain
from dualtape.ppl.log_density import trace_model
from scipy import stats

T = 6
Y = np.random.default_rng(0).normal(size=T)


@model
def local_level(y, times=None):
    noise = rv("noise", dist.HalfNormal(1.0))

    def step(level, y):
        level = rv("level", dist.Normal(level, 0.5))
        deterministic("twice", 2 * level)
        rv("y", dist.Normal(level, noise), obs=y)
        factor("pull", prior=-(level**2))
        return level, level

    last, path = scan("time", step, 0.0, y, times)
    deterministic("last", last)
    deterministic("path", path, dims="time")


def traced(bound):
    return trace_model(bound, discover(bound))


def test_log_density_is_the_sum_over_the_steps():
    found = traced(local_level(Y))
    assert found.density.coordinates.shapes == {"noise": (), "level": (T,)}
    noise, level = 0.7, np.random.default_rng(1).normal(size=T)
    at = found.density.coordinates.join([np.log(noise), level])
    terms = {name: float(value) for name, value in found.density.by_term(at, *found.data).items()}
    assert terms["level"] == pytest.approx(stats.norm.logpdf(level, np.append(0, level[:-1]), 0.5).sum(), rel=1e-12)
    assert terms["y"] == pytest.approx(stats.norm.logpdf(Y, level, noise).sum(), rel=1e-12)
    assert terms["pull"] == pytest.approx(-(level**2).sum(), rel=1e-12)
    assert found.likelihood == ("y",)


def test_sites_have_time_as_their_first_dimension():
    labels = [f"day {i}" for i in range(T)]
    found = discover(local_level(Y, labels))
    assert {name: (site.shape, site.dims) for name, site in found.sites.items()} == {
        "noise": ((), None),
        "level": ((T,), ("time",)),
        "y": ((T,), ("time",)),
    }
    idata = sample(local_level(Y, labels), draws=20, warmup=20, chains=1, seed=1, progress=False)
    assert list(idata.posterior["time"].values) == labels
    np.testing.assert_allclose(idata.posterior["twice"], 2 * idata.posterior["level"])
    np.testing.assert_allclose(idata.posterior["path"], idata.posterior["level"])
    np.testing.assert_allclose(idata.posterior["last"], idata.posterior["level"][..., -1])
    np.testing.assert_array_equal(idata.observed_data["y"], Y)


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
def test_gradients_agree_with_finite_differences(adtype):
    assert check_gradients(local_level(Y), adtypes=adtype).ok


def test_a_gibbs_block_can_be_some_of_the_steps():
    sampler = Gibbs({"level[0:3]": HMC(0.1, 3), ...: HMC(0.1, 3)})
    idata = sample(local_level(Y), sampler, draws=20, warmup=20, chains=1, seed=1, progress=False)
    assert np.isfinite(idata.posterior["level"]).all()


def test_supports_may_depend_on_the_step_before():
    @model
    def rising():
        def step(low, _):
            x = rv("x", dist.Uniform(low, low + 1.0))
            return x, None

        scan("t", step, 0.0, length=4)

    found = traced(rising())
    x = np.cumsum([0.2, 0.9, 0.5, 0.1])
    position = unconstrain(rising(), {"x": x}, {})["x"]
    np.testing.assert_allclose(found.constrained(position)["x"], x, rtol=1e-12)
    unit = x - np.append(0, x[:-1])
    log_jacobian = np.log(unit * (1 - unit)).sum()
    assert float(found.density.by_term(position)["log|J| x"]) == pytest.approx(log_jacobian, rel=1e-12)


def test_plates_and_submodels_inside_and_outside():
    @model
    def shock(scale):
        return rv("e", dist.Normal(0.0, scale))

    @model
    def panel():
        def step(x, scale):
            with plate("asset", 2):
                x = x + submodel("shock", shock(scale))
            return x, None

        with plate("country", 3):
            submodel("level", shock(1.0))
        scan("time", step, jnp.zeros(2), np.arange(1.0, 5.0))

    site = discover(panel()).sites["shock.e"]
    assert (site.shape, site.dims) == ((4, 2), ("time", "asset"))


def test_conditions_and_interventions_are_given_for_all_steps():
    found = discover(local_level(Y) | {"level": np.arange(6.0)})
    np.testing.assert_array_equal(found.sites["level"].obs, np.arange(6.0))
    np.testing.assert_array_equal(discover(local_level(Y).fix(level=np.arange(6))).fixed["level"][0], np.arange(6.0))
    assert discover(local_level(Y).decondition("y")).sites["y"].is_latent
    at = traced(local_level(Y) | {"level": np.arange(6.0)})
    expected = stats.norm.logpdf(np.arange(6.0), np.append(0, np.arange(5.0)), 0.5).sum()
    assert float(at.density.by_term(np.zeros(1), *at.data)["level"]) == pytest.approx(expected)


def test_observed_values_that_a_step_computes_are_shown_where_data_alone_determine_them():
    @model
    def growth(y):
        mu = rv("mu", dist.Normal())

        def step(before, now):
            rv("logged", dist.Normal(mu, 1.0), obs=jnp.log(now))
            rv("difference", dist.Normal(mu, 1.0), obs=now - before)
            return now, None

        scan("t", step, 1.0, y)

    sites = discover(growth(np.array([2.0, 4.0])), lambda *_: None).sites
    np.testing.assert_allclose(sites["logged"].obs, np.log([2.0, 4.0]))
    assert isinstance(sites["difference"].obs, jax.core.Tracer)


def test_a_carry_of_integers_may_become_one_of_floats():
    @model
    def counts():
        scan("t", lambda x, _: (rv("x", dist.Normal(x, 1.0)), None), 0, length=3)

    assert discover(counts()).sites["x"].shape == (3,)


def _loop(step, carry=0.0, xs=None, **options):
    @model
    def series():
        scan("t", step, carry, xs, **options)

    return series()


def _walk(x, _):
    return rv("x", dist.Normal(x, 1.0)), None


@pytest.mark.parametrize(
    ("bound", "error", "message"),
    [
        (_loop(_walk), TypeError, "scan 't': how many steps"),
        (_loop(_walk, xs=np.zeros(3), length=4), ValueError, "length says 4 steps, and xs has 3"),
        (_loop(_walk, xs=(np.zeros(3), np.zeros(2))), ValueError, "one first dimension"),
        (_loop(_walk, length=0), ValueError, "scan 't' has size 0"),
        (_loop(lambda x, _: _walk(x, _)[0], length=3), TypeError, "a step must return the next carry"),
        (_loop(_walk, carry=np.zeros(0), length=3), ValueError, "zero entries"),
        (_loop(lambda x, _: (jnp.zeros(3), None), length=3), ValueError, r"shape \(3,\), and gets one of shape \(\)"),
        (_loop(lambda x, _: ((x, x), None), length=3), TypeError, "carry of structure"),
        (_loop(_walk, length=3) | {"x": np.zeros(2)}, ValueError, "site 'x' stands in scan 't' of 3 steps"),
        (
            _loop(lambda x, y: (x, rv("k", dist.Normal(x, 1.0), obs=jnp.log(y))), xs=np.array([1.0, -1.0])),
            ValueError,
            "observed site 'k' has 1 NaN.*index 1",
        ),
        (
            _loop(lambda x, y: (x, rv("k", dist.Poisson(2.0), obs=y)), xs=np.array([1.0, np.nan])),
            ValueError,
            "observed site 'k' of a scan has 1 NaN, and its values are whole numbers",
        ),
        (_loop(lambda x, y: (x, rv("k", dist.Poisson(2.0), obs=y)), xs=np.array([1, -1])), ValueError, "outside the s"),
    ],
)
def test_refusals(bound, error, message):
    with pytest.raises(error, match=message):
        sample(bound, draws=1, warmup=0, chains=1, progress=False)


def test_the_kalman_filter_agrees():
    # y_t = x_t + noise, x_t a random walk: the posterior mean of the path in closed form.
    @model
    def walk(y):
        def step(x, y):
            x = rv("x", dist.Normal(x, 1.0))
            rv("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        scan("t", step, 0.0, y)

    precision = np.linalg.inv(np.minimum.outer(np.arange(1, T + 1), np.arange(1, T + 1))) + np.eye(T) / 0.25
    mean, sd = np.linalg.solve(precision, Y / 0.25), np.sqrt(np.diag(np.linalg.inv(precision)))
    idata = sample(walk(Y), draws=1000, warmup=500, chains=4, seed=2, progress=False)
    draws = idata.posterior["x"].values
    # Six means, NUTS on a Gaussian has at least as many effective draws as half of its draws; |z| < 4.7: 2e-5.
    assert np.all(np.abs(draws.mean((0, 1)) - mean) < 4.7 * sd / np.sqrt(2000))
    assert not np.all(np.abs(draws.mean((0, 1)) - 1.2 * mean) < 4.7 * sd / np.sqrt(2000))


def test_terms_depend_on_what_their_step_reads_and_not_on_the_whole_loop():
    @model
    def walk(y):
        start, noise = rv("start", dist.Normal()), rv("noise", dist.HalfNormal(1.0))

        def step(x, y):
            x = rv("x", dist.Normal(x, 1.0))
            rv("y", dist.Normal(x, noise), obs=y)
            return x, None

        scan("time", step, start, y)

    found = traced(walk(Y))
    count = len(found.density.sites)
    depends = found.density.program.dependencies()
    read = {t: {found.density.sites[i] for i in depends[o] if i < count} for t, o in found.density.terms.items()}
    assert read == {
        "start": {"start"},
        "noise": {"noise"},
        "log|J| noise": {"noise"},
        "x": {"start", "x"},
        "y": {"noise", "x"},
    }
    assert not check_gradients(walk(Y)).notes


def test_single_precision_on_request(recwarn):
    sample(local_level(Y), precision="float32", draws=5, warmup=5, chains=1, seed=1, progress=False)
    assert not [warning for warning in recwarn if "float64" in str(warning.message)]


def test_a_series_within_a_series():
    y = np.random.default_rng(2).normal(size=(3, 4))

    @model
    def nested(y):
        def hour(x, row):
            x = rv("x", dist.Normal(x, 1.0))

            def minute(z, seen):
                z = rv("z", dist.Normal(z, 0.5))
                rv("y", dist.Normal(z, 1.0), obs=seen)
                return z, None

            scan("minute", minute, x, row)
            return x, None

        scan("hour", hour, 0.0, y)

    found = traced(nested(y))
    assert found.dims["z"] == ("hour", "minute")
    np.testing.assert_array_equal(found.observed["y"], y)
    x, z = np.array([0.1, -0.5, 0.3]), np.random.default_rng(3).normal(size=(3, 4))
    terms = found.density.by_term(found.density.coordinates.join([x, z]), *found.data)
    before = np.concatenate([x[:, None], z[:, :-1]], axis=1)
    assert float(terms["z"]) == pytest.approx(stats.norm.logpdf(z, before, 0.5).sum(), rel=1e-12)
    assert float(terms["y"]) == pytest.approx(stats.norm.logpdf(y, z).sum(), rel=1e-12)
