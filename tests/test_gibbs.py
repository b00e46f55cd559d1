"""Gibbs: partition, order, adtypes, adaptation by block, nesting, and what is kept between sweeps."""

import json
import warnings

import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, NUTS, AutoForward, AutoReverse, Gibbs, SamplingWarning, model, rv, sample
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model

SHORT = {"draws": 200, "warmup": 300, "chains": 2, "seed": 3, "progress": False}


@model
def correlated():
    a = rv("a", dist.Normal(0.0, 1.0))
    b = rv("b", dist.Normal(a, 1.0))
    rv("c", dist.Normal(b, 1.0))


@model
def scales():
    rv("narrow", dist.Normal(0.0, 1e-3))
    rv("wide", dist.Normal(0.0, 1e3))


def kernel(bound, sampler):
    """A kernel and its state at zero."""
    traced = trace_model(bound, discover(bound))
    whole = traced.density.restrict(traced.density.sites)
    built = sampler.build(whole.target, np.dtype(float))
    start = np.zeros(whole.target.dimension)
    return built, built.init(start, whole.constants(start, traced.data))


def test_blocks_are_updated_in_the_order_they_are_written():
    gibbs = Gibbs({"b": HMC(0.1, 1), ...: HMC(0.1, 2)})
    assert gibbs.partition(("a", "b", "c")) == (("b",), ("a", "c"))
    assert [report.block for report in kernel(correlated(), gibbs)[0].reports] == ["b", "a,c"]
    assert repr(gibbs).startswith("Gibbs({'b': HMC(step_size=0.1, num_steps=1")
    assert "...: HMC(" in repr(gibbs)


def test_a_sampler_is_a_value():
    one, same = (Gibbs({"a": NUTS(), ...: HMC(0.1, 5)}) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Gibbs({"a": NUTS(), ...: HMC(0.2, 5)})


def test_only_blocks_that_others_can_make_stale_are_renewed():
    _, (_, kept) = kernel(scales(), Gibbs({"narrow": NUTS(), "wide": NUTS()}))
    assert all(state is not None for state in kept)
    _, (_, renewed) = kernel(correlated(), Gibbs({"a": NUTS(), ("b", "c"): NUTS()}))
    assert renewed == (None, None)


def test_each_block_adapts_by_itself():
    idata = sample(scales(), Gibbs({"narrow": NUTS(), "wide": NUTS()}), **SHORT)
    sd = idata["posterior"].std(("chain", "draw"))
    assert 0.8e-3 < sd["narrow"] < 1.25e-3
    assert 0.8e3 < sd["wide"] < 1.25e3
    stats = idata["sample_stats"]
    # The metric takes the scales up: the step sizes that remain are of order one, and steps are accepted.
    assert ((stats["block_step_size"] > 0.1) & (stats["block_step_size"] < 5)).all()
    assert (stats["block_acceptance_rate"].mean(("chain", "draw")) > 0.6).all()


@pytest.mark.parametrize("sampler", [NUTS, lambda **options: HMC(0.3, 4, **options)], ids=["NUTS", "HMC"])
def test_mixed_modes_draw_what_one_mode_draws(sampler):
    mixed = Gibbs({"a": sampler(adtype=AutoForward(chunk_size=1)), ...: sampler(adtype=AutoReverse())})
    plain = Gibbs({"a": sampler(adtype=AutoReverse()), ...: sampler(adtype=AutoReverse())})
    # A chaotic trajectory would amplify rounding: a run as short as this shows agreement to many digits.
    short = SHORT | {"draws": 20, "warmup": 0}
    draws = [sample(correlated(), gibbs, **short)["posterior"]["c"].values for gibbs in (mixed, plain)]
    np.testing.assert_allclose(*draws, rtol=1e-7)


def test_the_default_rule_goes_by_the_dimension_of_the_block():
    @model
    def large():
        rv("many", dist.Normal(np.zeros(30), 1.0))
        rv("one", dist.Normal(0.0, 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        idata = sample(large(), Gibbs({"many": NUTS(), "one": NUTS()}), **SHORT)
    blocks = json.loads(idata.attrs["blocks"])
    assert {name: block["adtype"] for name, block in blocks.items()} == {
        "many": "AutoReverse()",
        "one": "AutoForward()",
    }


def test_gibbs_within_gibbs():
    nested = Gibbs({"a": HMC(0.5, 3), ...: Gibbs({"b": HMC(0.5, 4), "c": HMC(0.5, 5)})})
    stats = sample(correlated(), nested, **SHORT)["sample_stats"]
    assert stats["block"].values.tolist() == ["a", "b", "c"]
    assert stats["block_n_steps"].values[0, 0].tolist() == [3, 4, 5]
    assert (stats["n_steps"] == 12).all()


@pytest.mark.parametrize(
    "sampler", [NUTS(), HMC(0.1, 3), Gibbs({"a": NUTS(), ...: HMC(0.1, 3)})], ids=["NUTS", "HMC", "Gibbs"]
)
def test_stored_lp_is_the_log_density_of_the_stored_draw(sampler):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        idata = sample(correlated(), sampler, **SHORT)
    density = trace_model(correlated(), discover(correlated())).density
    draws = np.stack([idata["posterior"][name].values for name in "abc"], axis=-1)
    expected = [[float(density.log_density(q)) for q in chain[::20]] for chain in draws]
    np.testing.assert_allclose(idata["sample_stats"]["lp"].values[:, ::20], expected, rtol=1e-10)
