import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import MH, NUTS, DiscreteGibbs, Gibbs, check_gradients, model, plate, rv, sample, scan
from dualtape.ppl.interpreters import discover, unconstrain
from dualtape.ppl.log_density import trace_model
from scipy import stats

NAN = np.nan


def traced(bound):
    return trace_model(bound, discover(bound))


@model
def normals(x, coords=None):
    m = rv("m", dist.Normal(0.0, 1.0))
    with plate("row", len(x) if coords is None else coords):
        rv("x", dist.Normal(m, 2.0), obs=x)


X = np.array([0.25, NAN, -0.5, NAN, 1.25])


@pytest.mark.parametrize(
    "data",
    [X, np.ma.masked_invalid(X), np.ma.array([0.25, 9.0, -0.5, 9.0, 1.25], mask=np.isnan(X)), jnp.array(X), list(X)],
    ids=["NaN", "masked NaN", "masked", "of JAX", "list"],
)
def test_missing_entries_are_a_latent_site_with_where_they_stand(data):
    found = discover(normals(data))
    site = found.sites["x_missing"]
    assert (site.shape, site.dims, site.is_latent) == ((2,), ("x_missing_index",), True)
    assert found.plates["x_missing_index"].coords == (1, 3)
    np.testing.assert_array_equal(np.isnan(found.sites["x"].obs), np.isnan(X))
    one = traced(normals(data))
    terms = one.density.by_term(np.array([0.5, 1.0, 2.0]), *one.data)
    assert float(terms["x"]) == pytest.approx(stats.norm.logpdf(X[[0, 2, 4]], 0.5, 2.0).sum(), rel=1e-12)
    assert float(terms["x_missing"]) == pytest.approx(stats.norm.logpdf([1.0, 2.0], 0.5, 2.0).sum(), rel=1e-12)
    assert one.likelihood == ("x",)


def test_data_without_anything_missing_make_no_such_site():
    assert "x_missing" not in discover(normals(np.nan_to_num(X))).sites


def test_conditions_may_have_missing_entries():
    assert discover(normals(np.zeros(5)) | {"x": X}).sites["x_missing"].shape == (2,)


@model
def matrix(x):
    with plate("row", 2), plate("column", 3):
        rv("x", dist.Gamma(2.0, 1.0), obs=x)


def test_entries_of_a_matrix_are_named_by_row_and_column():
    x = np.array([[1.0, NAN, 2.0], [NAN, 1.0, 3.0]])
    found = discover(matrix(x))
    assert found.plates["x_missing_index"].coords == ("0, 1", "1, 0")
    one = traced(matrix(x))
    values = np.array([0.4, 1.7])
    position = unconstrain(matrix(x), {"x_missing": values}, {})["x_missing"]
    np.testing.assert_allclose(position, np.log(values))
    terms = one.density.by_term(position, *one.data)
    assert float(terms["x_missing"]) == pytest.approx(stats.gamma.logpdf(values, 2.0).sum(), rel=1e-12)
    assert float(terms["log|J| x_missing"]) == pytest.approx(np.log(values).sum(), rel=1e-12)


def _vectors(family, x):
    @model
    def vectors(x):
        rv("x", family(), obs=x)

    return vectors(x)


def test_a_vector_may_miss_some_of_its_entries():
    cov = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, 0.3], [0.1, 0.3, 0.5]])
    x = np.array([[0.1, NAN, 0.4], [NAN, NAN, NAN]])
    one = traced(_vectors(lambda: dist.MultivariateNormal(jnp.zeros(3), cov), x))
    full = np.array([[0.1, 0.7, 0.4], [1.0, 2.0, 3.0]])
    terms = one.density.by_term(full[np.isnan(x)], *one.data)
    # What is bound to observed entries counts with these; rows of which nothing is known count by themselves.
    assert float(terms["x"]) == pytest.approx(stats.multivariate_normal.logpdf(full[0], np.zeros(3), cov), rel=1e-12)
    last = stats.multivariate_normal.logpdf(full[1], np.zeros(3), cov)
    assert float(terms["x_missing"]) == pytest.approx(last, rel=1e-12)


def test_simplexes_miss_whole():
    x = np.array([[0.2, 0.3, 0.5], [NAN, NAN, NAN]])
    one = traced(_vectors(lambda: dist.Dirichlet(np.array([1.0, 2.0, 3.0])), x))
    assert one.density.dimension == 2
    assert check_gradients(_vectors(lambda: dist.Dirichlet(np.array([1.0, 2.0, 3.0])), x)).ok
    value = one.constrained(np.array([0.3, -0.2]), *one.data)["x_missing"]
    assert value.shape == (1, 3)
    assert float(value.sum()) == pytest.approx(1.0)
    broken = np.array([[0.2, NAN, 0.5], [0.1, 0.2, 0.7]])
    with pytest.raises(ValueError, match=r"observed site 'x' has values of Dirichlet that are missing in part"):
        discover(_vectors(lambda: dist.Dirichlet(np.array([1.0, 2.0, 3.0])), broken))


@model
def regression(x, y):
    m, s = rv("m", dist.Normal(0.0, 2.0)), rv("s", dist.HalfNormal(2.0))
    x = rv("x", dist.Normal(m, jnp.full(len(y), s)), obs=x)
    slope = rv("slope", dist.Normal(0.0, 5.0))
    rv("y", dist.Normal(slope * x, 0.1), obs=y)


def test_missing_covariates_are_recovered():
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 1.0, 30)
    y = 2 * x + rng.normal(0.0, 0.1, 30)
    holes = np.where(np.arange(30) % 7 == 0, NAN, x)
    idata = sample(regression(holes, y), draws=500, warmup=500, seed=1, progress=False)
    found = idata.posterior["x_missing"]
    # Noise of 0.1 over a slope of 2: within 4.5 posterior deviations of the truth, and not of something else.
    np.testing.assert_allclose(found.mean(("chain", "draw")), x[::7], atol=4.5 * 0.05)
    assert np.abs(found.mean(("chain", "draw")).values - x[1::7][:5]).max() > 4.5 * 0.05
    assert list(found["x_missing_index"].values) == [0, 7, 14, 21, 28]


def test_missing_labels_are_enumerated():
    @model
    def mixture(z, y):
        with plate("row", len(y)):
            z = rv("z", dist.Bernoulli(0.3), obs=z)
            rv("y", dist.Normal(2.0 * z, 1.0), obs=y)

    y = np.array([0.0, 1.0, 2.0])
    bound = mixture(np.array([NAN, 1.0, NAN]), y)
    idata = sample(bound, DiscreteGibbs(), draws=4000, warmup=0, chains=2, seed=1, progress=False)
    odds = 0.3 / 0.7 * np.exp(stats.norm.logpdf(y, 2.0) - stats.norm.logpdf(y, 0.0))
    expected = (odds / (1 + odds))[[0, 2]]
    found = idata.posterior["z_missing"].values.mean((0, 1))
    # Draws are independent; |z| < 4.5 for two means: 1.4e-5.
    assert np.all(np.abs(found - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 8000))


def test_missing_counts_go_with_a_continuous_rate():
    @model
    def counts(k):
        rate = rv("rate", dist.Gamma(2.0, 1.0))
        rv("k", dist.Poisson(jnp.full(4, rate)), obs=k)

    bound = counts(np.array([2.0, NAN, 3.0, NAN]))
    assert discover(bound).sites["k_missing"].discrete
    with pytest.raises(ValueError, match="site 'k_missing' is discrete"):
        sample(bound, progress=False)
    idata = sample(counts(np.array([2.0, 1.0, 3.0, NAN])) | {"rate": 1.0}, MH(), draws=5, warmup=5, progress=False)
    assert idata.posterior["k_missing"].shape == (4, 5, 1)


def test_gibbs_blocks_with_missing_values():
    idata = sample(normals(X), Gibbs({"x_missing": NUTS(), "m": NUTS()}), draws=500, warmup=300, seed=1, progress=False)
    assert idata.posterior["x_missing"].shape == (4, 500, 2)


def test_a_scalar_that_is_missing_is_refused():
    @model
    def one(y):
        rv("m", dist.Normal())
        rv("y", dist.Normal(), obs=y)

    with pytest.raises(ValueError, match="observed site 'y' has 1 NaN"):
        sample(one(NAN), progress=False)


@model
def series(y, positive):
    noise = rv("noise", dist.HalfNormal(1.0))

    def step(x, y):
        x = rv("x", dist.Normal(0.9 * x, 1.0))
        with plate("sensor", 2):
            rv("y", dist.LogNormal(x, noise) if positive else dist.Normal(x, noise), obs=y)
        return x, None

    scan("time", step, 0.0, y)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("conditioned", [False, True])
def test_entries_of_a_series_may_be_missing(positive, conditioned):
    y = np.array([[1.5, NAN], [0.7, 2.0], [NAN, NAN]])
    bound = series(np.ones((3, 2)), positive) | {"y": y} if conditioned else series(y, positive)
    found = discover(bound)
    assert found.plates["y_missing_index"].coords == ("0, 1", "2, 0", "2, 1")
    np.testing.assert_array_equal(found.sites["y"].obs, y)
    one = traced(bound)
    assert one.density.coordinates.shapes == {"noise": (), "y_missing": (3,), "x": (3,)}
    x, noise, hidden = np.array([0.1, -0.3, 0.6]), 0.8, np.array([0.4, 1.7, 2.2])
    position = one.density.coordinates.join([np.log(noise), np.log(hidden) if positive else hidden, x])
    terms = {name: float(term) for name, term in one.density.by_term(position, *one.data).items()}
    full = y.copy()
    full[np.isnan(y)] = hidden
    law = stats.lognorm(noise, scale=np.exp(x[:, None])) if positive else stats.norm(x[:, None], noise)
    expected = law.logpdf(full)
    assert terms["y"] == pytest.approx(expected[~np.isnan(y)].sum(), rel=1e-12)
    assert terms["y_missing"] == pytest.approx(expected[np.isnan(y)].sum(), rel=1e-12)
    assert terms.get("log|J| y_missing", 0.0) == pytest.approx(np.log(hidden).sum() if positive else 0.0)
    assert check_gradients(bound).ok


def test_missing_entries_of_a_series_have_the_law_of_the_kalman_smoother():
    @model
    def walk(y):
        def step(x, y):
            x = rv("x", dist.Normal(x, 1.0))
            rv("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        scan("time", step, 0.0, y)

    y = np.array([0.3, NAN, 1.0, NAN, 2.0])
    seen = ~np.isnan(y)
    precision = np.linalg.inv(np.minimum.outer(np.arange(1, 6), np.arange(1, 6))) + np.diag(seen / 0.25)
    cov = np.linalg.inv(precision)
    mean, sd = (cov @ (np.nan_to_num(y) / 0.25))[~seen], np.sqrt(np.diag(cov)[~seen] + 0.25)
    draws = sample(walk(y), draws=1000, warmup=500, seed=2, progress=False).posterior["y_missing"].values
    # Two means of at least 2000 effective draws, |z| < 4.5: 1.4e-5.
    assert np.all(np.abs(draws.mean((0, 1)) - mean) < 4.5 * sd / np.sqrt(2000))
    assert not np.all(np.abs(draws.mean((0, 1)) - 1.3 * mean) < 4.5 * sd / np.sqrt(2000))


def test_missing_entries_have_the_labels_of_their_plates():
    assert discover(normals(X, list("abcde"))).plates["x_missing_index"].coords == ("b", "d")
