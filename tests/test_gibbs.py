"""Gibbs: partition, order, adtypes, adaptation by block, nesting, and what is kept between sweeps."""

import json
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    NUTS,
    AutoForward,
    AutoReverse,
    DiagonalMetric,
    Gibbs,
    RandomScan,
    Repeat,
    SamplingWarning,
    StanWindows,
    check_sampler,
    model,
    plate,
    rv,
    sample,
)
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.samplers.composition import build_kernel
from dualtape.samplers.hamiltonian import HamiltonianKernel

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
    built = build_kernel(sampler, traced.density, np.dtype(float))
    return built, built.init(np.zeros(traced.density.dimension), built.prepare(traced.data))


def test_blocks_are_updated_in_the_order_they_are_written():
    gibbs = Gibbs({"b": HMC(0.1, 1), ...: HMC(0.1, 2)})
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


# Repeats, random scans, and the count of each block's own updates.


def counts(sampler, warmup=400):
    """How often the kernel of each block is told to digest, and after how many updates of its own in all."""
    built, _ = kernel(correlated(), sampler)
    return [(len(built._turns(i, warmup)), built._updates(i, warmup)) for i in range(len(built.groups))]


def test_warm_up_goes_by_the_updates_of_each_block():
    # Windows of 400 updates end at 75, 100, 150, 350 and 400; of 1200 at 75, 100, 150, 250, 450, 1150 and 1200.
    nuts = NUTS(windows=StanWindows())
    assert counts(Gibbs({"a": nuts, ...: nuts})) == [(5, 400), (5, 400)]
    assert counts(Gibbs({"a": Repeat(nuts, 3), ...: nuts}))[0] == (7, 1200)
    assert counts(Gibbs({"a": Repeat(Gibbs({...: nuts}), 3), ...: nuts}))[0] == (7, 1200)
    assert counts(RandomScan({"a": nuts, ...: HMC(None, 3)}, weights={"a": 3, ...: 1}, updates=4))[0] == (7, 1200)
    built, _ = kernel(correlated(), Gibbs({"a": Repeat(nuts, 3), ...: nuts}))
    assert built.schedule(400)[0] == 25
    assert built.schedule(400)[-1] == 400


@pytest.mark.parametrize(
    "sampler",
    [
        Gibbs({"narrow": Repeat(NUTS(), 3), "wide": NUTS()}),
        RandomScan({"narrow": NUTS(), "wide": NUTS()}),
        Gibbs({...: Repeat(Gibbs({"wide": NUTS(), "narrow": HMC(None, 4, metric=DiagonalMetric())}), 2)}),
    ],
    ids=["Repeat", "RandomScan", "nested Repeat"],
)
def test_every_composition_adapts_each_block(sampler):
    assert adapts(sampler)


def adapts(sampler):
    idata = sample(scales(), sampler, **SHORT)
    sd = idata["posterior"].std(("chain", "draw"))
    return 0.7e-3 < sd["narrow"] < 1.4e-3 and 0.7e3 < sd["wide"] < 1.4e3


@model
def uneven():
    rv("x", dist.Normal(0.0, jnp.array([0.02, 20.0])).to_event(1))
    rv("other", dist.Normal(0.0, 1.0))


def explores_uneven_scales():
    """Whether a metric is in use: without one the longer scale takes a thousand steps, and sixteen are allowed."""
    idata = sample(uneven(), Gibbs({"x": NUTS(max_tree_depth=4), ...: HMC(0.5, 3)}), **SHORT | {"warmup": 600})
    sd = idata["posterior"]["x"].values.std((0, 1))
    return bool(15 < sd[1] < 27)


@pytest.mark.filterwarnings("ignore::dualtape.SamplingWarning")
def test_a_metric_that_is_reset_is_noticed(monkeypatch):
    """What several systems do: the metric that a sweep has learned is gone in the next."""
    assert explores_uneven_scales()
    retune = HamiltonianKernel.retune

    def forget(self, tuning, done, warmup):
        return retune(self, tuning, done, warmup)._replace(scale=tuning.scale * 0 + 1)

    monkeypatch.setattr(HamiltonianKernel, "retune", forget)
    assert not explores_uneven_scales()


def test_a_repeated_block_reports_all_its_updates():
    stats = sample(correlated(), Gibbs({"a": Repeat(HMC(0.5, 3), 4), ...: HMC(0.5, 2)}), **SHORT)["sample_stats"]
    assert (stats["block_n_steps"].values == [12, 2]).all()
    assert (stats["n_steps"] == 14).all()


def test_a_random_scan_updates_as_often_as_its_weights_say():
    scan = RandomScan(
        {"a": HMC(0.5, 1), "b": HMC(0.5, 1), "c": HMC(0.5, 1)}, weights={"a": 2, "b": 1, "c": 1}, updates=8
    )
    steps = sample(correlated(), scan, **SHORT)["sample_stats"]["block_n_steps"].values
    assert (steps.sum(-1) == 8).all()
    np.testing.assert_allclose(steps.mean((0, 1)), [4, 2, 2], atol=0.4)


# Blocks that are alike share one compiled update.


def loop(groups):
    @model
    def hierarchical(y):
        mu = rv("mu", dist.Normal(0.0, 1.0))
        for i in range(groups):
            theta = rv(f"theta_{i}", dist.Normal(mu, 1.0))
            rv(f"y_{i}", dist.Normal(theta, 1.0).expand([3]).to_event(1), obs=y[i])

    return hierarchical(list(np.random.default_rng(0).normal(size=(groups, 3))))


def plated(groups):
    @model
    def hierarchical(y):
        mu = rv("mu", dist.Normal(0.0, 1.0))
        with plate("group", groups):
            theta = rv("theta", dist.Normal(mu, 1.0))
        rv("y", dist.Normal(theta[:, None], 1.0), obs=y)

    return hierarchical(np.random.default_rng(0).normal(size=(groups, 3)))


@pytest.mark.parametrize(("make", "name"), [(loop, "theta_{}"), (plated, "theta[{}]")], ids=["loop", "plate"])
def test_alike_blocks_are_one_group(make, name):
    blocks = {name.format(i): NUTS() for i in range(12)}
    built, _ = kernel(make(12), Gibbs({**blocks, "mu": NUTS()}))
    assert [len(group) for group in built.groups] == [12, 1]
    assert [report.block for report in built.reports] == [*blocks, "mu"]
    # Another sampler, or an order that separates them, makes groups of its own.
    blocks[name.format(3)] = NUTS(max_tree_depth=5)
    assert [len(group) for group in kernel(make(12), Gibbs({**blocks, "mu": NUTS()}))[0].groups] == [3, 1, 8, 1]


@pytest.mark.parametrize(("make", "name"), [(loop, "theta_{}"), (plated, "theta[{}]")], ids=["loop", "plate"])
def test_a_shared_update_is_right_for_each_of_its_blocks(make, name):
    gibbs = Gibbs({**{name.format(i): HMC(0.4, 4) for i in range(3)}, "mu": HMC(0.3, 4)})
    assert check_sampler(make(3), gibbs, replicates=1000, turns=21).ok


def test_blocks_that_depend_on_each_other_see_the_present_values():
    """Neighbours in a chain: alike, and each conditioned on what the one before it has just become."""

    @model
    def chain():
        x = rv("x_0", dist.Normal(0.0, 1.0))
        for t in range(1, 6):
            x = rv(f"x_{t}", dist.Normal(0.9 * x, 0.5))

    gibbs = Gibbs({f"x_{t}": HMC(0.4, 4) for t in range(6)})
    assert [len(group) for group in kernel(chain(), gibbs)[0].groups] == [1, 4, 1]
    assert check_sampler(chain(), gibbs, replicates=1000, turns=21).ok


def test_a_part_of_a_site_evaluates_only_its_rows():
    """As much work for one of 64 groups as for one of 8."""

    def elements(groups):
        block = trace_model(bound := plated(groups), discover(bound)).density.restrict({"t": ("theta", np.array([2]))})
        given = block.target.given
        return sum(
            int(np.prod(v.aval.shape)) for p in (given.before, given.after) for e in p.equations for v in e.outvars
        )

    assert elements(64) == elements(8)


def test_a_part_has_the_density_of_the_whole_up_to_a_constant():
    bound = plated(5)
    density = trace_model(bound, discover(bound)).density
    block = density.restrict({"theta[1,3]": ("theta", np.array([1, 3])), "mu": ("mu", None)})
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.normal(size=6))
    other = q.at[block.coordinates].set(rng.normal(size=3))
    given = block.constants(q, block.prepare(density.data))
    within = [block.target.log_density(p[block.coordinates], *given) for p in (q, other)]
    joint = [density.log_density(p, *density.data) for p in (q, other)]
    np.testing.assert_allclose(within[1] - within[0], joint[1] - joint[0], rtol=1e-10)
