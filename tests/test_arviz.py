"""What `sample` returns: groups, dims, coords, statistics and attributes, with either generation of ArviZ."""

import json
import warnings

import arviz as az
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    NUTS,
    AutoFastest,
    AutoForward,
    AutoReverse,
    Gibbs,
    SamplingWarning,
    UnitMetric,
    deterministic,
    model,
    plate,
    rv,
    sample,
)
from dualtape.models.eight_schools import SCHOOLS, SIGMA, Y, eight_schools_noncentered
from dualtape.models.gdemo import gdemo

SHORT = {"draws": 50, "warmup": 100, "chains": 2, "seed": 7, "progress": False}


@pytest.fixture(scope="module")
def schools():
    return sample(eight_schools_noncentered(Y, SIGMA), NUTS(target_acceptance=0.99), **SHORT)


@pytest.fixture(scope="module")
def blocks():
    sampler = Gibbs({"mu": HMC(0.1, 5, adtype=AutoReverse()), ("tau", "z"): NUTS(adtype=AutoForward(chunk_size=2))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return sample(eight_schools_noncentered(Y, SIGMA), sampler, **SHORT)


def test_groups_dims_and_coords(schools):
    posterior = schools["posterior"]
    assert set(posterior.data_vars) == {"mu", "tau", "z", "theta"}
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert posterior["theta"].shape == (2, 50, 8)
    assert posterior["school"].values.tolist() == list(SCHOOLS)
    np.testing.assert_array_equal(schools["observed_data"]["y"].values, Y)
    assert schools["observed_data"]["y"].dims == ("school",)
    rebuilt = posterior["mu"] + posterior["tau"] * posterior["z"]
    np.testing.assert_allclose(
        posterior["theta"].values, rebuilt.transpose(*posterior["theta"].dims).values, rtol=1e-12
    )
    assert (posterior["tau"] > 0).all()


def test_statistics_of_nuts(schools):
    stats = schools["sample_stats"]
    kinds = {"lp": "f", "diverging": "b", "energy": "f", "tree_depth": "i", "n_steps": "i", "step_size": "f"}
    for name, kind in {**kinds, "acceptance_rate": "f"}.items():
        assert stats[name].dims == ("chain", "draw")
        assert stats[name].dtype.kind == kind
        assert np.isfinite(stats[name].values.astype(float)).all()
    depth, steps = stats["tree_depth"].values, stats["n_steps"].values
    assert ((2 ** (depth - 1) - 1 < steps) & (steps < 2**depth)).all()
    assert (stats["energy"].values > -stats["lp"].values).all()
    assert (np.ptp(stats["step_size"].values, axis=1) == 0).all()


def test_statistics_of_gibbs_are_per_block(blocks):
    stats = blocks["sample_stats"]
    assert stats["block"].values.tolist() == ["mu", "tau,z"]
    assert stats["block_step_size"].dims == ("chain", "draw", "block")
    assert (stats["block_step_size"].sel(block="mu") == 0.1).all()
    assert (stats["block_n_steps"].sel(block="mu") == 5).all()
    assert np.isnan(stats["block_tree_depth"].sel(block="mu")).all()
    assert (stats["block_tree_depth"].sel(block="tau,z") >= 1).all()
    np.testing.assert_array_equal(stats["n_steps"].values, stats["block_n_steps"].sum("block").values)
    np.testing.assert_array_equal(stats["diverging"].values, stats["block_diverging"].any("block").values)
    assert stats["lp"].dims == ("chain", "draw")


def test_attributes_say_how_it_was_made(schools, blocks):
    assert schools.attrs["seed"] == 7
    for name in ("seconds_compile", "seconds_warmup", "seconds_sampling"):
        assert schools.attrs[name] > 0
    for name in ("dualtape_version", "jax_version", "numpyro_version", "created_at", "sampler"):
        assert schools.attrs[name]
    (only,) = json.loads(schools.attrs["blocks"]).values()
    assert only["adtype"] == "AutoForward()"
    assert only["reason"] == "10 parameters, below the threshold of 20"
    each = json.loads(blocks.attrs["blocks"])
    assert each["mu"]["adtype"] == "AutoReverse()"
    assert each["tau,z"] == {
        "sampler": repr(NUTS(adtype=AutoForward(chunk_size=2))),
        "dimension": 9,
        "adtype": "AutoForward(chunk_size=2)",
        "reason": "requested",
        "measurements": [],
        "audited_by": None,
    }
    assert schools["posterior"].attrs["seed"] == 7


def test_a_measured_choice_comes_with_its_table():
    idata = sample(gdemo(1.5, 2.0), NUTS(adtype=AutoFastest()), 20, warmup=20, chains=1, seed=1, progress=False)
    (block,) = json.loads(idata.attrs["blocks"]).values()
    assert block["reason"].startswith("fastest of 2 measured")
    assert [row["adtype"] for row in block["measurements"]] == ["AutoForward()", "AutoReverse()"]
    assert all(row["verdict"] == "correct" and row["seconds"] > 0 for row in block["measurements"])


def test_the_seed_that_was_drawn_is_recorded_and_reproduces_the_run():
    first = sample(eight_schools_noncentered(Y, SIGMA), NUTS(target_acceptance=0.99), **(SHORT | {"seed": None}))
    again = sample(
        eight_schools_noncentered(Y, SIGMA), NUTS(target_acceptance=0.99), **(SHORT | {"seed": first.attrs["seed"]})
    )
    np.testing.assert_array_equal(first["posterior"]["mu"].values, again["posterior"]["mu"].values)


@pytest.mark.parametrize("which", ["schools", "blocks"])
def test_summary_and_a_round_trip_through_netcdf(which, request, tmp_path):
    idata = request.getfixturevalue(which)
    table = az.summary(idata)
    assert "theta[A]" in table.index
    path = tmp_path / "draws.nc"
    idata.to_netcdf(path)
    back = az.from_netcdf(path)
    np.testing.assert_array_equal(back["posterior"]["theta"].values, idata["posterior"]["theta"].values)
    np.testing.assert_array_equal(back["sample_stats"]["lp"].values, idata["sample_stats"]["lp"].values)
    assert back["posterior"]["school"].values.tolist() == list(SCHOOLS)
    assert back.attrs["seed"] == 7
    assert json.loads(back.attrs["blocks"]) == json.loads(idata.attrs["blocks"])


@pytest.mark.parametrize("which", ["schools", "blocks"])
def test_trace_plot(which, request):
    import matplotlib as mpl

    mpl.use("Agg")
    idata = request.getfixturevalue(which)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of plotting libraries; the data are what is tested here
        assert az.plot_trace(idata, var_names=["mu", "tau"]) is not None


def test_names_dims_and_groups_of_a_model_without_plates_or_data():
    @model
    def prior():
        v = rv("v", dist.Dirichlet(np.ones(3)), dims="part")
        rv("m", dist.Normal(np.zeros((2, 2)), 1.0))
        deterministic("first", v[0])

    idata = sample(prior(), **SHORT)
    posterior = idata["posterior"]
    assert posterior["v"].dims == ("chain", "draw", "part")
    assert posterior["m"].shape == (2, 50, 2, 2)
    assert posterior["first"].dims == ("chain", "draw")
    np.testing.assert_allclose(posterior["v"].sum("part").values, 1.0, rtol=1e-12)


def test_fixed_sites_are_constant_data_and_conditioned_ones_observed():
    @model
    def pair():
        a = rv("a", dist.Normal(0.0, 1.0))
        with plate("i", 2):
            rv("b", dist.Normal(a, 1.0))

    fixed = sample(pair().fix(a=3.0), **SHORT)
    assert fixed["constant_data"]["a"] == 3.0
    assert set(fixed["posterior"].data_vars) == {"b"}
    conditioned = sample(pair() | {"b": np.ones(2)}, **SHORT)
    assert set(conditioned["posterior"].data_vars) == {"a"}
    assert conditioned["observed_data"]["b"].dims == ("i",)


def test_labels_of_plates_keep_their_kind(tmp_path):
    days = np.array(["2026-01-01", "2026-01-02"], "datetime64[ns]")

    @model
    def daily():
        with plate("day", days):
            rv("x", dist.Normal(0.0, 1.0))

    idata = sample(daily(), **SHORT)
    assert (idata["posterior"]["day"].values == days).all()
    idata.to_netcdf(tmp_path / "daily.nc")


def test_trajectories_at_the_depth_limit_are_reported():
    with pytest.warns(SamplingWarning, match=r"stopped at the limit of max_tree_depth"):
        sample(eight_schools_noncentered(Y, SIGMA), NUTS(step_size=0.01, max_tree_depth=3), **SHORT)


def test_a_sampler_with_nothing_to_adapt_keeps_its_step_size():
    idata = sample(eight_schools_noncentered(Y, SIGMA), NUTS(step_size=0.05, metric=UnitMetric()), **SHORT)
    assert (idata["sample_stats"]["step_size"] == 0.05).all()


def test_divergences_are_reported_loudly():
    with pytest.warns(SamplingWarning, match=r"of 100 draws ended in a divergence.*target_acceptance"):
        sample(eight_schools_noncentered(Y, SIGMA), NUTS(step_size=6.0), **SHORT)
