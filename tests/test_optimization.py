"""`optimize`: maxima against closed forms and SciPy, bounds, what counts to a likelihood, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import AutoFiniteDiff, AutoForward, AutoReverse, AutoTape, factor, model, plate, rv
from dualtape.ad.errors import DifferentiationError
from dualtape.models.gdemo import gdemo
from dualtape.ppl.approximations.objectives import MAP, MLE
from dualtape.ppl.approximations.optimize import optimize
from dualtape.ppl.approximations.setting import ApproximationWarning
from dualtape.samplers.approximations.optimization import LBFGS, TrustRegion
from scipy import optimize as scipy_optimize
from scipy import special

RNG = np.random.default_rng(1)
X = RNG.standard_normal((60, 3))
OUTCOMES = (RNG.uniform(size=60) < special.expit(X @ [1.0, -0.5, 0.2])).astype(int)


@model
def logistic(x, y):
    with plate("feature", ["a", "b", "c"]):
        beta = rv("beta", dist.Normal(0.0, 0.7))
    rv("y", dist.Bernoulli(logits=x @ beta), obs=y)


def values(idata):
    """The one draw of each variable."""
    assert idata["posterior"].sizes["chain"] == idata["posterior"].sizes["draw"] == 1
    return {name: variable.values[0, 0] for name, variable in idata["posterior"].data_vars.items()}


def best(bound, *args, **kwargs):
    idata = optimize(bound, *args, **{"seed": 1, **kwargs})
    assert idata.attrs["converged"] == 1
    return values(idata)


# For data 1.5 and 2.0 and with s' = s / 49: 42, 54 and 42 + 12/2 collect the exponents of s.
GDEMO = [(MAP(), 7 / 6, 49 / 54), (MAP(jacobian=True), 7 / 6, 49 / 42), (MLE(), 1.75, 1 / 16)]


@pytest.mark.parametrize("method", [LBFGS(), TrustRegion()], ids=repr)
@pytest.mark.parametrize(("objective", "m", "s"), GDEMO, ids=lambda value: repr(value))
def test_modes_of_gdemo_are_the_closed_forms(objective, m, s, method):
    found = best(gdemo(1.5, 2.0), objective, method=method)
    np.testing.assert_allclose([found["m"], found["s"]], [m, s], rtol=1e-6)


@pytest.mark.parametrize(("objective", "precision"), [(MAP(), 1 / 0.7**2), (MLE(), 0.0)], ids=repr)
def test_logistic_regression_agrees_with_scipy(objective, precision):
    def loss(beta):
        logits = X @ beta
        return np.sum(np.logaddexp(0.0, logits) - OUTCOMES * logits) + 0.5 * precision * np.sum(beta**2)

    expected = scipy_optimize.minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    np.testing.assert_allclose(best(logistic(X, OUTCOMES), objective)["beta"], expected.x, atol=1e-6)


@pytest.mark.parametrize("adtype", [None, AutoForward(), AutoReverse(), AutoFiniteDiff(), AutoTape()], ids=repr)
def test_the_adtype_is_the_one_asked_for_and_recorded(adtype):
    idata = optimize(gdemo(1.5, 2.0), adtype=adtype, seed=1, starts=1)
    assert idata.attrs["adtype"] == repr(adtype or AutoForward())
    assert ("requested" in idata.attrs["adtype_reason"]) == (adtype is not None)
    np.testing.assert_allclose(values(idata)["s"], 49 / 54, rtol=1e-5)


@model
def looping():
    m = rv("m", dist.Normal(0.0, 1.0))
    end = jax.lax.while_loop(lambda state: state[0] < 3, lambda state: (state[0] + 1, state[1] * 0.5), (0, m))
    factor("end", -((end[1] - 1.0) ** 2))


def test_a_mode_that_cannot_differentiate_the_model_is_refused():
    with pytest.raises(DifferentiationError, match=r"block 'm'.*while_loop"):
        optimize(looping(), adtype=AutoReverse())
    np.testing.assert_allclose(best(looping(), adtype=AutoForward())["m"], 0.25 / (1 + 2 / 64), rtol=1e-7)


@model
def branching():
    m = rv("m", dist.Normal(0.0, 1.0))
    factor("branch", -3.0 * (m - 1.0) ** 2 if m > 0 else -10.0 * m**2 - 3.0)


def test_a_model_that_looks_at_values_has_a_mode_by_the_tape():
    np.testing.assert_allclose(best(branching(), adtype=AutoTape(), init={"m": 0.5})["m"], 6 / 7, rtol=1e-7)


# Bounds that bind, that do not, that are open on one side, and that lie beyond the support.
BOUNDS = [
    ({"s": (0.1, 5.0)}, 0.1, 1.75),
    ({"s": (0.01, 5.0)}, 1 / 16, 1.75),
    ({"s": (None, 0.05)}, 0.05, 1.75),
    ({"s": (-1.0, np.inf)}, 1 / 16, 1.75),
    ({"m": (2.0, 3.0)}, 1 / 8, 2.0),
    ({"m": (-np.inf, 1.0), "s": (0.3, 0.4)}, 0.4, 1.0),
]


@pytest.mark.parametrize(("bounds", "s", "m"), BOUNDS, ids=repr)
def test_bounds_hold_where_they_bind_and_do_not_matter_elsewhere(bounds, s, m):
    found = best(gdemo(1.5, 2.0), MLE(), bounds=bounds)
    np.testing.assert_allclose([found["s"], found["m"]], [s, m], rtol=1e-6)


@model
def many_supports():
    below = rv("below", dist.TruncatedNormal(0.0, 1.0, high=2.0))
    inside = rv("inside", dist.Uniform(-1.0, 3.0))
    with plate("i", 3):
        real = rv("real", dist.Normal(0.0, 1.0))
    factor("pull", -((below - 1.0) ** 2) - (inside - 1.0) ** 2 - jnp.sum((real - 1.0) ** 2))


def test_bounds_are_right_for_rising_and_falling_bijections_and_entry_by_entry():
    free = best(many_supports())
    np.testing.assert_allclose(free["below"], 2 / 3, atol=1e-6)
    np.testing.assert_allclose(free["inside"], 1.0, atol=1e-6)
    bounds = {"below": (1.2, 1.9), "inside": (-0.5, 0.5), "real": ([-1.0, 0.8, -np.inf], [0.0, 0.9, np.inf])}
    bound = best(many_supports(), bounds=bounds)
    np.testing.assert_allclose(bound["below"], 1.2, rtol=1e-9)
    np.testing.assert_allclose(bound["inside"], 0.5, rtol=1e-9)
    np.testing.assert_allclose(bound["real"], [0.0, 0.8, 2 / 3], atol=1e-6)


@model
def in_parts(scale):
    m = rv("m", dist.Normal(0.0, scale))
    factor("told", prior=-100.0 * (m - 7.0) ** 2, likelihood=-0.5 * (m - 1.0) ** 2)
    rv("y", dist.Normal(m, 1.0), obs=2.0)


def test_a_likelihood_leaves_out_all_that_is_prior():
    for scale in (0.1, 100.0):
        np.testing.assert_allclose(best(in_parts(scale), MLE())["m"], 1.5, rtol=1e-7)
    assert best(in_parts(100.0))["m"] > 6


@model
def with_gaps(y):
    m = rv("m", dist.Normal(0.0, 1.0))
    rv("y", dist.Normal(m, 1.0), obs=y)


def test_a_site_that_nothing_determines_is_named():
    gaps = with_gaps(np.array([1.0, np.nan, 3.0]))
    with pytest.warns(ApproximationWarning, match="does not change with 'y_missing'"):
        found = best(gaps, MLE())
    np.testing.assert_allclose(found["m"], 2.0, rtol=1e-7)
    np.testing.assert_allclose(best(gaps)["y_missing"], best(gaps)["m"], rtol=1e-6)


@model
def two_modes():
    x = rv("x", dist.Normal(0.0, 10.0))
    factor("mixture", jnp.logaddexp(-((x - 3.0) ** 2), -((x + 3.0) ** 2) - 2.0))


def test_the_highest_of_the_maxima_is_returned_and_all_are_told():
    idata = optimize(two_modes(), init={"x": np.array([-3.0, 3.0, -2.0])}, starts=3, seed=1)
    np.testing.assert_allclose(values(idata)["x"], 3.0, atol=0.03)
    ends = idata.attrs["start_log_densities"]
    np.testing.assert_allclose(ends[1] - ends[[0, 2]], 2.0, atol=1e-6)
    assert idata.attrs["log_density"] == ends[1]


@pytest.mark.parametrize(
    ("bound", "options"),
    [
        (gdemo(2.0, 2.0), {"objective": MLE()}),  # the likelihood rises without end as s goes to zero
        (logistic(X, OUTCOMES), {"method": LBFGS(max_steps=1)}),
    ],
    ids=["unbounded", "one step"],
)
def test_what_has_not_converged_says_so(bound, options):
    with pytest.warns(ApproximationWarning, match=r"no maximum was reached.*init="):
        idata = optimize(bound, seed=1, **options)
    assert idata.attrs["converged"] == 0


def test_the_result_is_an_arviz_object_that_can_be_stored(tmp_path):
    idata = optimize(logistic(X, OUTCOMES), seed=3)
    again = optimize(logistic(X, OUTCOMES), seed=3)
    np.testing.assert_array_equal(values(idata)["beta"], values(again)["beta"])
    assert idata["posterior"]["beta"].dims == ("chain", "draw", "feature")
    assert idata["posterior"]["feature"].values.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(idata["observed_data"]["y"].values, OUTCOMES)
    assert idata.attrs["objective"] == "MAP(jacobian=False)"
    idata.to_netcdf(tmp_path / "mode.nc")


@model
def dependent():
    x = rv("x", dist.Exponential(1.0))
    rv("y", dist.Uniform(0.0, x))
    rv("p", dist.Dirichlet(jnp.ones(3)))


@model
def hierarchy(y):
    mu = rv("mu", dist.Normal(0.0, 1.0))
    theta = rv("theta", dist.Normal(mu, 1.0))
    rv("y", dist.Normal(theta, 1.0), obs=y)


@model
def discrete(y):
    z = rv("z", dist.Bernoulli(0.5))
    rv("y", dist.Normal(z, 1.0), obs=y)


REFUSED = [
    (gdemo, {}, TypeError, "no data yet"),
    (discrete(1.0), {}, ValueError, "optimize: site 'z' is discrete"),
    (dependent(), {"objective": MLE()}, ValueError, "no likelihood"),
    (hierarchy(1.0), {"objective": MLE()}, ValueError, "does not depend on 'mu'"),
    (hierarchy(1.0), {"objective": MAP}, TypeError, "objective must be MAP"),
    (hierarchy(1.0), {"method": "BFGS"}, TypeError, "method must be LBFGS"),
    (hierarchy(1.0), {"adtype": "forward"}, TypeError, "optimize: adtype"),
    (hierarchy(1.0), {"starts": 0}, ValueError, "starts"),
    (hierarchy(1.0), {"bounds": {"nu": (0, 1)}}, ValueError, "'nu' is no latent site"),
    (hierarchy(1.0), {"bounds": {"y": (0, 1)}}, ValueError, "'y' is no latent site"),
    (hierarchy(1.0), {"bounds": {"mu": 3.0}}, TypeError, "'mu' needs a pair"),
    (hierarchy(1.0), {"bounds": {"mu": (1.0, "high")}}, TypeError, "'mu' needs numbers"),
    (hierarchy(1.0), {"bounds": {"mu": (2.0, 1.0)}}, ValueError, "'mu' has a lower bound"),
    (hierarchy(1.0), {"bounds": {"mu": (np.zeros(2), 1.0)}}, ValueError, r"'mu' has shape \(\)"),
    (hierarchy(1.0), {"bounds": {"mu": (0, 1)}, "method": TrustRegion()}, ValueError, "has no bounds"),
    (gdemo(1.5, 2.0), {"bounds": {"s": (-2.0, -1.0)}}, ValueError, "'s' has bounds outside its support"),
    (dependent(), {"bounds": {"p": (0.1, 0.5)}}, ValueError, "'p' .*not free of each other"),
    (dependent(), {"bounds": {"y": (0.1, 0.5)}}, ValueError, "support of site 'y' depends on 'x'"),
]


@pytest.mark.parametrize(("bound", "options", "error", "message"), REFUSED, ids=[case[3] for case in REFUSED])
def test_what_cannot_be_is_refused_by_name(bound, options, error, message):
    with pytest.raises(error, match=message):
        optimize(bound, **options)
