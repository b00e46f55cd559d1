import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    NUTS,
    BoundModel,
    constrain,
    deterministic,
    factor,
    log_density,
    log_likelihood,
    log_prior,
    model,
    plate,
    predict,
    returned,
    rv,
    sample,
    sample_prior,
    scan,
    submodel,
    unconstrain,
)
from scipy import stats

with warnings.catch_warnings():
    # ArviZ 0.23 announces its successor on import, once a day.
    warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
    import arviz as az

SHORT = {"draws": 100, "warmup": 200, "chains": 2, "seed": 3, "progress": False}
X = np.linspace(-1.0, 1.0, 6)
Y = 0.5 + 2.0 * X + np.array([0.1, -0.2, 0.0, 0.3, -0.1, 0.05])


@model
def line(x, y, labels=None):
    a, b = rv("a", dist.Normal(0.0, 1.0)), rv("b", dist.Normal(0.0, 2.0))
    s = rv("s", dist.HalfNormal(1.0))
    with plate("row", len(x) if labels is None else labels):
        mean = deterministic("mean", a + b * x)
        rv("y", dist.Normal(mean, s), obs=y)
    return {"at zero": a, "mean": mean}


@pytest.fixture(scope="module")
def fitted():
    with jax.enable_x64(True):
        return sample(line(X, Y), NUTS(target_acceptance=0.95), **SHORT)


def draws_of(idata, *names):
    return [idata["posterior"][name].values for name in names]


# Log densities


def test_log_likelihood_is_pointwise(fitted):
    idata = log_likelihood(line(X, Y), fitted)
    a, b, s = (values[..., None] for values in draws_of(fitted, "a", "b", "s"))
    found = idata["log_likelihood"]["y"]
    assert found.dims == ("chain", "draw", "row")
    np.testing.assert_allclose(found.values, stats.norm.logpdf(Y, a + b * X, s), rtol=1e-12)
    # The object that was given is as it was, and its groups are in the new one.
    assert "log_likelihood" not in (fitted.children if hasattr(fitted, "children") else fitted.groups())
    np.testing.assert_array_equal(idata["posterior"]["a"].values, fitted["posterior"]["a"].values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(az.loo(idata).elpd if hasattr(az.loo(idata), "elpd") else az.loo(idata).elpd_loo)


def test_log_prior_is_by_site(fitted):
    found = log_prior(line(X, Y), fitted)["log_prior"]
    a, s = draws_of(fitted, "a", "s")
    assert set(found.data_vars) == {"a", "b", "s"}
    np.testing.assert_allclose(found["a"].values, stats.norm.logpdf(a), rtol=1e-12)
    np.testing.assert_allclose(found["s"].values, stats.halfnorm.logpdf(s), rtol=1e-12)


def test_log_density_is_the_sum_of_prior_and_likelihood():
    values = {"a": 0.3, "b": 1.0, "s": 0.8}
    expected = (
        stats.norm.logpdf(0.3)
        + stats.norm.logpdf(1.0, scale=2.0)
        + stats.halfnorm.logpdf(0.8)
        + stats.norm.logpdf(Y, 0.3 + X, 0.8).sum()
    )
    found = log_density(line(X, Y), values)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-12)
    slope = jax.grad(lambda a: log_density(line(X, Y), values | {"a": a}))(0.3)
    assert float(slope) == pytest.approx(-0.3 + ((Y - 0.3 - X) / 0.64).sum(), rel=1e-12)


def test_log_likelihood_of_matrices_vectors_missing_values_series_and_factors():
    data = np.array([[0.5, np.nan], [1.0, 2.0]])

    @model
    def many(path):
        m = rv("m", dist.Normal())
        with plate("i", 2), plate("j", 2):
            rv("matrix", dist.Normal(m, 1.0), obs=data)
        with plate("j", 2):
            rv("vectors", dist.MultivariateNormal(jnp.zeros(3) + m, jnp.eye(3)), obs=np.ones((2, 3)))
            factor("weights", -(m**2) * jnp.arange(2.0))

        def step(x, y):
            x = rv("x", dist.Normal(x, 1.0))
            rv("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        scan("time", step, m, path)

    idata = sample(many(np.arange(4.0)), **SHORT)
    found = log_likelihood(many(np.arange(4.0)), idata)["log_likelihood"]
    assert {name: found[name].dims[2:] for name in found.data_vars} == {
        "matrix": ("matrix_observed_index",),
        "vectors": ("j",),
        "weights": ("j",),
        "y": ("time",),
    }
    (m, x) = draws_of(idata, "m", "x")
    assert list(found["matrix_observed_index"].values) == ["0, 0", "1, 0", "1, 1"]
    np.testing.assert_allclose(found["matrix"], stats.norm.logpdf([0.5, 1.0, 2.0], m[..., None]), rtol=1e-12)
    np.testing.assert_allclose(found["y"], stats.norm.logpdf(np.arange(4.0), x), rtol=1e-12)
    prior = log_prior(many(np.arange(4.0)), idata)["log_prior"]
    assert set(prior.data_vars) == {"m", "matrix_missing", "x"}
    total = sum(prior[name].values.reshape(2, 100, -1).sum(-1) for name in prior.data_vars)
    total = total + sum(found[name].values.reshape(2, 100, -1).sum(-1) for name in found.data_vars)
    # Everything latent is on the real line, so that `lp` has no Jacobians.
    np.testing.assert_allclose(total, idata["sample_stats"]["lp"].values, rtol=1e-10)


# Predictions


def test_replicated_data_have_the_moments_of_the_draws(fitted):
    idata = predict(line(X, Y), fitted, seed=1)
    found = idata["posterior_predictive"]["y"]
    assert found.dims == ("chain", "draw", "row")
    mean, s = draws_of(fitted, "mean", "s")
    z = (found.values - mean) / s[..., None]
    # 1200 standard normal numbers: mean and variance within 4.5 standard errors, 1.4e-5.
    assert abs(z.mean()) < 4.5 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4.5 * np.sqrt(2 / z.size)
    assert not abs((1.3 * z).var() - 1) < 4.5 * np.sqrt(2 / z.size)
    again = predict(line(X, Y), fitted, seed=1)["posterior_predictive"]["y"].values
    np.testing.assert_array_equal(found.values, again)
    assert not np.array_equal(predict(line(X, Y), fitted, seed=2)["posterior_predictive"]["y"].values, again)


def test_predictions_for_new_data(fitted):
    new = np.array([3.0, 4.0])
    idata = predict(line(new, None, ["three", "four"]), fitted, seed=1)
    found = idata["predictions"]
    assert set(found.data_vars) == {"y", "mean"}
    assert list(found["row"].values) == ["three", "four"]
    a, b = draws_of(fitted, "a", "b")
    np.testing.assert_allclose(found["mean"].values, a[..., None] + b[..., None] * new, rtol=1e-12)
    assert idata["posterior"]["row"].size == 6


def test_latent_variables_of_new_groups_are_drawn():
    @model
    def groups(index, y, new=None):
        mu, tau = rv("mu", dist.Normal(0.0, 1.0)), rv("tau", dist.HalfNormal(1.0))
        with plate("group", 3):
            theta = rv("theta", dist.Normal(mu, tau))
        if new is not None:
            with plate("new group", new):
                extra = rv("new theta", dist.Normal(mu, tau))
            theta = jnp.concatenate([theta, extra])
        rv("y", dist.Normal(theta[index], 0.1), obs=y)

    index = np.array([0, 1, 2, 0])
    idata = sample(groups(index, np.array([0.1, 0.5, -0.3, 0.2])), **SHORT)
    found = predict(groups(np.array([0, 3, 4]), None, new=2), idata, seed=1)["predictions"]
    assert found["new theta"].shape == (2, 100, 2)
    assert np.abs(found["y"].values[..., 0] - idata["posterior"]["theta"].values[..., 0]).max() < 0.6

    @model
    def other(y):
        theta = rv("theta", dist.Normal(jnp.zeros(4), 1.0))
        rv("y", dist.Normal(theta, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"site 'theta' has shape \(4,\) in this model, and \(3,\)"):
        predict(other(None), idata)


def test_data_of_the_same_shape_compile_nothing(fitted, compiled):
    predict(line(X, None), fitted, seed=1)
    count = len(compiled)
    predict(line(2 * X, None), fitted, seed=2)
    assert len(compiled) == count > 0


def test_some_observed_sites_can_stay():
    @model
    def chain(x, y):
        m = rv("m", dist.Normal())
        x = rv("x", dist.Normal(m, jnp.ones(3)), obs=x)
        rv("y", dist.Normal(x, 1e-6), obs=y)

    bound = chain(np.array([10.0, 20.0, 30.0]), np.array([10.0, 20.0, 30.0]))
    idata = sample(bound, **SHORT)
    found = predict(bound, idata, sites="y", seed=1)["posterior_predictive"]
    assert set(found.data_vars) == {"y"}
    np.testing.assert_allclose(found["y"].values, np.broadcast_to([10.0, 20.0, 30.0], (2, 100, 3)), atol=1e-4)
    assert np.abs(predict(bound, idata, seed=1)["posterior_predictive"]["y"].values - 10).max() > 1


def test_predictions_of_a_series_go_on():
    @model
    def walk(y, steps):
        s = rv("s", dist.HalfNormal(1.0))

        def step(x, y):
            x = rv("x", dist.Normal(x, s))
            rv("y", dist.Normal(x, 0.1), obs=y)
            return x, None

        last, _ = scan("time", step, 0.0, y)

        def further(x, _):
            x = rv("future", dist.Normal(x, s))
            return x, None

        if steps:
            scan("ahead", further, last, length=steps)

    y = np.cumsum(np.random.default_rng(0).normal(size=5))
    idata = sample(walk(y, 0), **SHORT)
    found = predict(walk(y, 3), idata, sites=(), seed=1)["predictions"]
    assert found["future"].dims == ("chain", "draw", "ahead")
    x, s = draws_of(idata, "x", "s")
    z = (found["future"].values[..., 0] - x[..., -1]) / s
    assert abs(z.mean()) < 4.5 / np.sqrt(z.size)


def test_returned_values_have_the_structure_of_what_the_function_returns(fitted):
    found = returned(line(X, Y), fitted)
    np.testing.assert_allclose(found["at zero"], fitted["posterior"]["a"].values)
    np.testing.assert_allclose(found["mean"], fitted["posterior"]["mean"].values, rtol=1e-12)


def test_a_model_that_looks_at_values_is_replayed_at_numbers():
    @model
    def branching(y):
        m = rv("m", dist.Normal())
        rv("y", dist.Normal(m if m > 0 else -m, 1.0), obs=y)
        return m

    posterior = sample_prior(branching(1.0), draws=5, seed=1)
    assert posterior["prior"]["m"].shape == (1, 5)


# Priors


def test_prior_and_prior_predictive():
    prior = sample_prior(line(X, Y), draws=4000, seed=1)
    assert set(prior["prior"].data_vars) == {"a", "b", "s", "mean"}
    assert prior["prior_predictive"]["y"].dims == ("chain", "draw", "row")
    np.testing.assert_array_equal(prior["observed_data"]["y"].values, Y)
    # Kolmogorov-Smirnov at 1e-4 each, of independent draws; and of another distribution.
    assert stats.kstest(prior["prior"]["b"].values.ravel(), stats.norm(scale=2.0).cdf).pvalue > 1e-4
    assert stats.kstest(prior["prior"]["b"].values.ravel(), stats.norm(scale=2.5).cdf).pvalue < 1e-4
    variance = 1 + 4 * X**2 + 1  # of a, b x and E s² = 1
    found = prior["prior_predictive"]["y"].values.var((0, 1))
    np.testing.assert_allclose(found, variance, rtol=0.15)


def test_prior_respects_interventions_and_conditions():
    prior = sample_prior(line(X, Y).fix(a=3.0) | {"b": 1.0}, draws=50, seed=1)
    assert set(prior["prior"].data_vars) == {"s", "mean"}
    np.testing.assert_allclose(prior["prior"]["mean"].values, np.broadcast_to(3.0 + X, (1, 50, 6)))
    assert prior["constant_data"]["a"].values.item() == 3.0
    assert prior["observed_data"]["b"].values.item() == 1.0


def test_prior_of_discrete_sites_and_submodels():
    @model
    def inner():
        return rv("k", dist.Poisson(3.0))

    @model
    def outer():
        k = submodel("in", inner())
        rv("z", dist.Bernoulli(0.5))
        rv("x", dist.Normal(k, 1.0))

    prior = sample_prior(outer(), draws=2000, seed=1)["prior"]
    assert prior["in.k"].dtype.kind == "i"
    assert abs(prior["in.k"].values.mean() - 3) < 4.5 * np.sqrt(3 / 2000)


def test_factors_of_the_prior_are_left_out_with_a_warning():
    @model
    def smooth():
        x = rv("x", dist.Normal())
        factor("pull", prior=-(x**2))

    with pytest.warns(UserWarning, match="factor 'pull' counts to the prior"):
        sample_prior(smooth(), draws=5, seed=1)


def test_improper_sites_cannot_be_drawn():
    @model
    def improper():
        rv("x", dist.ImproperUniform(dist.constraints.real, (), ()))

    with pytest.raises(ValueError, match="site 'x' is ImproperUniform, which cannot be drawn from"):
        sample_prior(improper(), draws=5)


# Coordinates


def test_constrain_and_unconstrain_are_inverse():
    values = {"a": 0.3, "b": 1.0, "s": 0.8}
    position = unconstrain(line(X, Y), values)
    np.testing.assert_allclose(position, [0.3, 1.0, np.log(0.8)], rtol=1e-14)
    found = constrain(line(X, Y), np.stack([position, position + 1]))
    np.testing.assert_allclose(found["s"], [0.8, 0.8 * np.e], rtol=1e-14)
    assert found["mean"].shape == (2, 6)


IDATA = object()


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda i: predict(line, i), TypeError, "predict: 'line' has no data yet"),
        (lambda i: predict(3, i), TypeError, "predict: expected a model with its data, got 3"),
        (lambda i: predict(line(X, Y), None), TypeError, "predict: expected an ArviZ object"),
        (lambda i: predict(line(X, Y), i, sites="q"), ValueError, "predict: the model has no site 'q'"),
        (lambda i: predict(line(X, Y), i, seed=-1), ValueError, "predict: seed must be"),
        (lambda i: log_likelihood(line(X, None), i), ValueError, "no values of the latent site 'y'"),
        (lambda i: log_likelihood(line(X, Y).decondition("y") | {"s": 1.0}, i), ValueError, "latent site 'y'"),
        (lambda i: returned(line(X, None), i), ValueError, "no values of the latent site 'y'"),
        (lambda i: sample_prior(line(X, Y), draws=0), ValueError, "draws must be an integer >= 1"),
        (lambda i: log_density(line(X, Y), {"a": 1.0, "b": 1.0}), ValueError, "latent site 's' has no value"),
        (lambda i: log_density(line(X, Y), {"a": 1, "b": 1, "s": 1, "q": 1}), ValueError, "'q' is no latent site"),
        (lambda i: log_density(line(X, Y), {"a": np.ones(2), "b": 1, "s": 1}), ValueError, "site 'a' has shape"),
        (lambda i: unconstrain(line(X, Y), {"a": 1, "b": 1, "s": -1.0}), ValueError, "site 's' has a value outside"),
        (lambda i: unconstrain(line(X, Y), {"a": 1, "b": 1, "s": [1.0]}), ValueError, "site 's' has shape"),
        (lambda i: constrain(line(X, Y), np.zeros(4)), ValueError, "has 3 coordinates"),
    ],
)
def test_refusals(fitted, act, error, message):
    with pytest.raises(error, match=message):
        act(fitted)


def test_nothing_observed_and_nothing_returned():
    @model
    def alone():
        rv("x", dist.Normal())

    idata = sample(alone(), **SHORT)
    with pytest.raises(ValueError, match="log_likelihood: model 'alone' has no observed sites"):
        log_likelihood(alone(), idata)
    with pytest.raises(ValueError, match="returned: model 'alone' returns nothing"):
        returned(alone(), idata)
    assert isinstance(alone(), BoundModel)


# What users get wrong


@model
def grouped(group, y, labels):
    with plate("group", labels):
        a = rv("a", dist.Normal(0.0, 10.0))
    rv("y", dist.Normal(a[group], 1.0), obs=y)


@pytest.fixture(scope="module")
def groups():
    with jax.enable_x64(True):
        group = np.repeat([0, 1, 2], 10)
        return sample(grouped(group, np.array([-5.0, 0.0, 5.0])[group], list("abc")), **SHORT)


def test_indices_are_checked_in_every_query(groups):
    wrong = grouped(np.array([0, 3]), None, list("abc"))
    data = grouped(np.array([0, 3]), np.zeros(2), list("abc"))
    for query in (
        lambda: predict(wrong, groups),
        lambda: log_likelihood(data, groups),
        lambda: sample_prior(data),
        lambda: log_density(data, {"a": np.zeros(3)}),
    ):
        with pytest.raises(IndexError, match=r"index 3 \(number 1 of its indices\) is out of range for an array"):
            query()


def test_plates_are_looked_up_by_their_labels(groups):
    found = predict(grouped(np.array([0, 1]), None, ["c", "a"]), groups, seed=1)["predictions"]["y"]
    np.testing.assert_allclose(found.mean(("chain", "draw")), [5.0, -5.0], atol=0.7)
    with pytest.raises(ValueError, match=r"predict: 'group' has the label 'd' in this model"):
        predict(grouped(np.array([0, 1]), None, ["a", "b", "d"]), groups)


def test_the_posterior_of_another_model_is_refused(groups):
    @model
    def another(y):
        rv("y", dist.Normal(rv("t", dist.Normal()), 1.0), obs=y)

    with pytest.raises(ValueError, match="predict: the posterior holds no latent site of model 'another'"):
        predict(another(1.0), groups)


def test_covariates_stay_where_data_are_to_be_predicted():
    @model
    def imputing(x, y):
        m, slope = rv("m", dist.Normal()), rv("slope", dist.Normal(0.0, 5.0))
        x = rv("x", dist.Normal(m, jnp.ones(len(x))), obs=x)
        rv("y", dist.Normal(slope * x, 0.1), obs=y)

    x = np.array([0.5, np.nan, -1.0, 2.0])
    idata = sample(imputing(x, 3 * np.array([0.5, 1.0, -1.0, 2.0])), **SHORT)
    found = predict(imputing(np.array([10.0, -10.0]), None), idata, seed=1)["predictions"]
    assert set(found.data_vars) == {"y"}
    np.testing.assert_allclose(found["y"].mean(("chain", "draw")), [30.0, -30.0], atol=1.5)


def test_censored_data_can_be_replicated():
    @model
    def survival(times, censored):
        rate = rv("rate", dist.Gamma(2.0, 1.0))
        rv("time", dist.RightCensoredDistribution(dist.Exponential(rate), censored), obs=times)

    bound = survival(np.array([0.5, 1.0, 3.0]), np.array([False, False, True]))
    idata = sample(bound, **SHORT)
    assert predict(bound, idata, seed=1)["posterior_predictive"]["time"].shape == (2, 100, 3)
    assert sample_prior(bound, draws=3, seed=1)["prior_predictive"]["time"].shape == (1, 3, 3)


def test_series_of_another_length_are_refused():
    @model
    def walk(y):
        def step(x, y):
            x = rv("x", dist.Normal(x, 1.0))
            rv("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        scan("time", step, 0.0, y)

    assert np.isfinite(log_density(walk(np.zeros(3)), {"x": np.zeros(3)}))
    idata = sample(walk(np.zeros(3)), **SHORT)
    with pytest.raises(ValueError, match=r"site 'x' stands in a scan of 5 steps .*shape \(3,\)"):
        predict(walk(np.zeros(5)), idata)


def test_log_likelihood_of_vectors_that_are_missing_in_part_is_that_of_what_is_observed():
    cov = np.array([[1.0, 0.8, 0.3], [0.8, 2.0, 0.5], [0.3, 0.5, 1.0]])
    y = np.array([[0.5, np.nan, 1.0], [1.0, 2.0, -1.0], [np.nan, np.nan, np.nan], [0.1, np.nan, 0.4]])

    @model
    def vectors(y):
        mu = rv("mu", dist.Normal(jnp.zeros(3), 1.0))
        with plate("row", 4):
            rv("y", dist.MultivariateNormal(mu, covariance_matrix=cov), obs=y)

    idata = sample(vectors(y), **SHORT)
    mu = idata["posterior"]["mu"].values
    found = log_likelihood(vectors(y), idata)["log_likelihood"]["y"]
    assert list(found["y_observed_index"].values) == [0, 1, 3]
    some = cov[np.ix_([0, 2], [0, 2])]
    for place, (row, entries, own) in enumerate([(0, [0, 2], some), (1, [0, 1, 2], cov), (3, [0, 2], some)]):
        z = y[row, entries] - mu[..., entries]
        expected = -0.5 * (np.einsum("...i,ij,...j", z, np.linalg.inv(own), z) + np.linalg.slogdet(2 * np.pi * own)[1])
        np.testing.assert_allclose(found.values[..., place], expected, rtol=1e-10)
    prior = log_prior(vectors(y), idata)["log_prior"]
    total = found.values.sum(-1) + sum(prior[name].values.reshape(2, 100, -1).sum(-1) for name in prior.data_vars)
    np.testing.assert_allclose(total, idata["sample_stats"]["lp"].values, rtol=1e-10)


def test_conditioned_data_are_replicated_when_they_are_named():
    bound = line(X, None) | {"y": Y}
    idata = sample(bound, NUTS(target_acceptance=0.95), **SHORT)
    with pytest.raises(ValueError, match="predict: there is nothing to draw in model 'line'"):
        predict(bound, idata)
    assert predict(bound, idata, sites="y", seed=1)["posterior_predictive"]["y"].shape == (2, 100, 6)


def test_summed_models_have_log_densities_and_coordinates():
    @model
    def mixture(y):
        mu = rv("mu", dist.Normal(0.0, 1.0))
        with plate("row", len(y)):
            z = rv("z", dist.Bernoulli(0.3))
            rv("y", dist.Normal(mu + 2 * z, 1.0), obs=y)

    summed = mixture(np.array([0.0, 1.0])).marginalize("z")
    each = np.logaddexp(
        np.log(0.7) + stats.norm.logpdf([0.0, 1.0], 0.3), np.log(0.3) + stats.norm.logpdf([0.0, 1.0], 2.3)
    )
    assert log_density(summed, {"mu": 0.3}) == pytest.approx(stats.norm.logpdf(0.3) + each.sum(), rel=1e-12)
    np.testing.assert_array_equal(unconstrain(summed, {"mu": 0.3}), [0.3])


def test_a_data_frame_of_gaps_at_the_end_is_replicated_too():
    @model
    def gappy(y):
        m = rv("m", dist.Normal())
        rv("y", dist.Normal(m, jnp.ones(len(y))), obs=y)

    idata = sample(gappy(np.array([0.1, 0.2])), **SHORT)
    found = predict(gappy(np.array([0.1, 0.2, np.nan])), idata, seed=1)["posterior_predictive"]["y"]
    assert found.shape == (2, 100, 3)


def test_log_likelihood_of_matrices_that_are_missing_in_part_is_refused():
    eye = jnp.eye(2)
    y = np.array([[[0.1, 0.2], [0.3, 0.4]], [[np.nan, 0.2], [0.3, 0.4]]])

    @model
    def matrices(y):
        m = rv("m", dist.Normal())
        with plate("row", len(y)):
            rv("y", dist.MatrixNormal(m * jnp.ones((2, 2)), eye, eye), obs=y)

    holes = np.where(np.arange(2)[:, None, None] == 1, np.nan, y)
    idata = sample(matrices(holes), **SHORT)
    found = log_likelihood(matrices(holes), idata)["log_likelihood"]["y"].values
    expected = stats.norm.logpdf(y[0], idata["posterior"]["m"].values[..., None, None]).sum((-2, -1))
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-10)
    with pytest.raises(ValueError, match="site 'y' has vectors of MatrixNormal that are missing in part"):
        log_likelihood(matrices(y), sample(matrices(y), **SHORT))
