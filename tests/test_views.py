"""What blocks of models grant to samplers beyond their log density, what they refuse by name, and discrete sites."""

import warnings

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    MH,
    NUTS,
    Conditional,
    DiscreteGibbs,
    EllipticalSlice,
    FromPrior,
    Gibbs,
    RandomWalk,
    SamplingWarning,
    Slice,
    factor,
    model,
    plate,
    rv,
    sample,
)
from dualtape.models.gdemo import gdemo
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from targets import mean_error

SHORT = {"draws": 2000, "warmup": 300, "chains": 2, "seed": 1, "progress": False}
GDEMO = gdemo(1.5, 2.0)


def density(bound):
    return trace_model(bound, discover(bound)).density


@model
def labelled(y):
    m = rv("m", dist.Normal(0.0, 2.0))
    with plate("n", len(y)):
        z = rv("z", dist.Categorical(jnp.array([0.3, 0.7])))
        rv("y", dist.Normal(jnp.array([-1.0, 1.0])[z] + m, 1.0), obs=y)


@model
def coins():
    with plate("n", 12):
        rv("z", dist.Bernoulli(0.5))


@model
def hidden_chain():
    transitions = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
    with plate("t", 9):
        z = rv("z", dist.Bernoulli(0.5))
    factor("moves", jnp.sum(transitions[z[:-1], z[1:]]))


@model
def counts():
    rate = rv("rate", dist.Gamma(3.0, 1.0))
    k = rv("k", dist.Poisson(rate))
    rv("j", dist.Binomial(k + 1, 0.5))
    rv("pair", dist.Multinomial(2, jnp.ones(2) / 2))


def conditional(fn, **options):
    return Gibbs({"m": Conditional(fn, **options), "s": NUTS()})


NORMAL = dist.Normal(0.0, 1.0)
REFUSED = {
    "wrong scale": (conditional(lambda v: dist.Normal(3.5 / 3, jnp.sqrt(v["s"] / 2))), "is not the conditional of the"),
    "half the support": (
        conditional(lambda v: dist.TruncatedNormal(3.5 / 3, jnp.sqrt(v["s"] / 3), low=0.0)),
        "leaves out values that the model allows",
    ),
    "shape": (conditional(lambda v: dist.Normal(jnp.zeros(2), 1.0)), r"has shape \(2,\), and the site has shape \(\)"),
    "discrete": (conditional(lambda v: dist.Poisson(2.0)), "the site is continuous, and the function returns Poisson"),
    "names": (conditional(lambda v: {"s": NORMAL}), r"returns a distribution for \['s'\]; return one for each"),
    "no distribution": (conditional(lambda v: 3.0), "must return a numpyro distribution, got 3.0"),
    "unknown value": (
        conditional(lambda v: dist.Normal(v["q"], 1.0)),
        "no value 'q' outside of this block",
    ),
    "draws a distribution": (conditional(lambda key, v: NORMAL), "must return the value that it has drawn"),
    "order": (conditional(lambda v, key: 1.0), r"the key comes first, write fn\(key, v\)"),
    "arguments": (conditional(lambda a, b, c: 1.0), "takes 3 arguments"),
    "outside": (
        Gibbs({"s": Conditional(lambda key, v: -1.0 + 0 * v["m"]), "m": NUTS()}),
        "draws a value outside of the support",
    ),
    "not Gaussian": (
        Gibbs({"s": EllipticalSlice(), "m": NUTS()}),
        "'s' is InverseGamma, and this sampler",
    ),
    "Gaussian, coupled": (EllipticalSlice(), "'s' is InverseGamma"),
    "other block": (Gibbs({"s": MH(lambda v: dist.LogNormal(v["m"], 1.0)), "m": NUTS()}), "asks for the value of 'm'"),
}


@pytest.mark.parametrize(("sampler", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_by_name(sampler, message):
    with pytest.raises((ValueError, TypeError, KeyError), match=message):
        sample(GDEMO, sampler, **SHORT)


def test_a_conditional_that_is_meant_to_differ_is_taken():
    wide = Gibbs({"m": Conditional(lambda v: dist.Normal(3.5 / 3, 10.0), verify=False), "s": Slice()})
    assert sample(GDEMO, wide, **SHORT)["posterior"]["m"].std() > 8


def test_supports_that_cannot_be_enumerated_are_refused_by_name():
    blocks = density(counts())
    for site, message in (
        ("k", "infinitely many values"),
        ("j", "depend on other sites"),
        ("pair", "not free of each"),
    ):
        with pytest.raises(ValueError, match=f"DiscreteGibbs: .*site '{site}' .*{message}"):
            blocks.restrict((site,)).enumerated()


def test_entries_that_are_independent_given_the_rest_have_one_colour():
    labels = density(labelled(np.zeros(8))).restrict(("z",)).enumerated().target
    assert [colour.tolist() for colour in labels.colours] == [list(range(8))]
    assert all(values.tolist() == [0.0, 1.0] for values in labels.supports)
    chain = density(hidden_chain()).restrict(("z",)).enumerated().target
    assert [colour.tolist() for colour in chain.colours] == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]


def test_a_chain_in_one_site_has_its_enumerated_law():
    draws = sample(hidden_chain(), DiscreteGibbs(), **SHORT | {"draws": 8000})["posterior"]["z"].values
    weights = np.array([[0.9, 0.1], [0.2, 0.8]])
    forward = backward = np.ones(2)
    for _ in range(4):
        forward, backward = forward @ weights, weights @ backward
    exact = (forward * backward / (forward * backward).sum())[1]
    mean, error = mean_error(draws[..., 4].astype(float))
    assert abs(mean - exact) < 4.5 * error


def test_a_random_walk_moves_each_of_many_discrete_entries():
    result = sample(coins(), MH(), **SHORT)
    z = result["posterior"]["z"].values
    assert z.dtype.kind == "i"
    np.testing.assert_allclose(z.mean((0, 1)), 0.5, atol=0.06)
    assert np.ptp(z.sum(-1)) > 6


@pytest.mark.parametrize("sampler", [MH(), MH(FromPrior())], ids=["random walk", "prior"])
def test_counts_without_an_end_and_counts_of_counts(sampler):
    """k + 1 of which j are heads: E k = 3 and E j = (E k + 1) / 2."""
    blocks = Gibbs({"rate": NUTS(target_acceptance=0.95), "k": sampler, "j": sampler, "pair": MH(FromPrior())})
    draws = sample(counts(), blocks, **SHORT | {"draws": 20_000})["posterior"]
    for name, exact in (("k", 3.0), ("j", 2.0)):
        mean, error = mean_error(draws[name].values.astype(float))
        assert abs(mean - exact) < 4.5 * error
    assert (draws["j"] <= draws["k"] + 1).all()
    assert (draws["pair"].sum("pair_dim_0") == 2).all() if "pair_dim_0" in draws["pair"].dims else True


def test_discrete_sites_start_where_the_user_says():
    blocks = Gibbs({"z": DiscreteGibbs(), "m": Slice()})
    assert sample(labelled(np.zeros(8)), blocks, init={"z": np.ones(8)}, **SHORT)["posterior"]["z"].dtype.kind == "i"
    with pytest.raises(ValueError, match="init: site 'z' has a value outside the support"):
        sample(labelled(np.zeros(8)), blocks, init={"z": np.full(8, 0.5)}, **SHORT)


def test_a_given_width_of_slices_stays_and_jumps_between_modes():
    @model
    def two_modes():
        weights = dist.Categorical(probs=jnp.array([0.3, 0.7]))
        rv("x", dist.MixtureSameFamily(weights, dist.Normal(jnp.array([-6.0, 6.0]), 1.0)))

    result = sample(two_modes(), Slice(width=20.0), **SHORT)
    assert (result["sample_stats"]["step_size"] == 20.0).all()
    np.testing.assert_allclose((result["posterior"]["x"] > 0).mean("draw"), 0.7, atol=0.08)


def test_a_block_that_stands_still_is_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample(GDEMO, Gibbs({"m": MH(RandomWalk(scale=1e6)), "s": Slice()}), **SHORT)
    texts = [str(entry.message) for entry in caught if issubclass(entry.category, SamplingWarning)]
    assert any("block 'm' accepted 0.0% of its proposals" in text for text in texts)


def test_a_gradient_sampler_refuses_discrete_sites():
    with pytest.raises(ValueError, match=r"block 'm,z': site 'z' is discrete.*Gibbs\(\{'z': DiscreteGibbs\(\)"):
        sample(labelled(np.zeros(3)), NUTS(), **SHORT)
