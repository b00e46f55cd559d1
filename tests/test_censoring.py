import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import check_gradients, log_density, model, plate, rv, sample
from dualtape.ppl import censoring  # noqa: F401 - registers its log densities
from dualtape.ppl.densities import log_density as density_of
from scipy import stats

FAMILIES = {
    "Normal": (lambda: dist.Normal(1.0, 2.0), stats.norm(1.0, 2.0)),
    "LogNormal": (lambda: dist.LogNormal(0.3, 0.5), stats.lognorm(0.5, scale=np.exp(0.3))),
    "HalfNormal": (lambda: dist.HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    "Logistic": (lambda: dist.Logistic(1.0, 0.5), stats.logistic(1.0, 0.5)),
    "Gumbel": (lambda: dist.Gumbel(0.5, 2.0), stats.gumbel_r(0.5, 2.0)),
    "Exponential": (lambda: dist.Exponential(1.5), stats.expon(scale=1 / 1.5)),
    "Weibull": (lambda: dist.Weibull(2.0, 1.7), stats.weibull_min(1.7, scale=2.0)),
    "Pareto": (lambda: dist.Pareto(0.1, 2.0), stats.pareto(2.0, scale=0.1)),
    "expanded": (lambda: dist.Normal(1.0, 2.0).expand([4]), stats.norm(1.0, 2.0)),
    "by its distribution function": (lambda: dist.Gamma(2.0, 1.5), stats.gamma(2.0, scale=1 / 1.5)),
}
VALUES = np.array([0.2, 0.9, 2.0, 6.0])


@pytest.mark.parametrize(("family", "reference"), FAMILIES.values(), ids=FAMILIES.keys())
def test_censored_values_count_with_their_tails(family, reference):
    censored = np.array([True, False, True, True])
    right = density_of(dist.RightCensoredDistribution(family(), censored), jnp.asarray(VALUES))
    np.testing.assert_allclose(right, np.where(censored, reference.logsf(VALUES), reference.logpdf(VALUES)), rtol=1e-9)
    left = density_of(dist.LeftCensoredDistribution(family(), censored), jnp.asarray(VALUES))
    np.testing.assert_allclose(left, np.where(censored, reference.logcdf(VALUES), reference.logpdf(VALUES)), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith(("by", "expanded"))])
def test_far_tails_keep_their_slope(name):
    family, reference = FAMILIES[name]
    far = jnp.array(60.0)

    def right(x):
        return jnp.ravel(density_of(dist.RightCensoredDistribution(family(), True), x))[0]

    expected = -np.exp(reference.logpdf(60.0) - reference.logsf(60.0))  # minus the hazard
    for slope in (jax.grad(right)(far), jax.jacfwd(right)(far)):
        np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_survival_times_of_which_some_are_censored():
    @model
    def survival(times, censored):
        rate = rv("rate", dist.Gamma(2.0, 1.0))
        with plate("patient", len(times)):
            rv("time", dist.RightCensoredDistribution(dist.Exponential(rate), censored), obs=times)

    times, censored = np.array([0.5, 1.2, 3.0, 3.0]), np.array([False, False, True, True])
    bound = survival(times, censored)
    # Two deaths in 7.7 years at risk.
    expected = stats.gamma.logpdf(0.8, 2.0) + 2 * np.log(0.8) - 0.8 * times.sum()
    assert log_density(bound, {"rate": 0.8}) == pytest.approx(expected, rel=1e-12)
    assert check_gradients(bound).ok
    draws = sample(bound, seed=1, progress=False).posterior["rate"].values
    law = stats.gamma(4.0, scale=1 / (1 + times.sum()))
    # A mean of at least 1500 effective draws, |z| < 4.5: 7e-6.
    assert abs(draws.mean() - law.mean()) < 4.5 * law.std() / np.sqrt(1500)
    assert not abs(1.15 * draws.mean() - law.mean()) < 4.5 * law.std() / np.sqrt(1500)


def test_truncated_observations():
    @model
    def truncated(y):
        mu = rv("mu", dist.Normal(0.0, 2.0))
        rv("y", dist.TruncatedNormal(mu, 1.0, low=0.5), obs=y)

    y = np.array([0.7, 1.1, 2.0])
    found = log_density(truncated(y), {"mu": 0.3})
    own = stats.norm(0.3, 1.0)
    assert found == pytest.approx(stats.norm.logpdf(0.3, scale=2.0) + (own.logpdf(y) - own.logsf(0.5)).sum(), rel=1e-9)
    assert check_gradients(truncated(y)).ok
    with pytest.raises(ValueError, match=r"observed site 'y' has 1 value.*outside the support"):
        sample(truncated(np.array([0.1, 1.0])), progress=False)
