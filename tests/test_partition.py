"""Who has which coordinates: keys of compositions, and what is refused."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, NUTS, DiscreteGibbs, Gibbs, RandomScan, Repeat, model, plate, rv
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.samplers.composition import build_kernel

H = HMC(0.1, 1)


@model
def sites():
    a = rv("a", dist.Normal(0.0, 1.0))
    with plate("row", 3), plate("column", 2):
        rv("grid", dist.Normal(a, 1.0))
    with plate("group", 4):
        rv("theta", dist.Normal(a, 1.0))
    rv("p", dist.Dirichlet(jnp.ones((2, 3))))
    rv("vector", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))


def kernel(sampler, bound=None):
    bound = sites() if bound is None else bound
    return build_kernel(sampler, trace_model(bound, discover(bound)).density, np.dtype(float))


def blocks(sampler):
    return [report.block for report in kernel(sampler).reports]


def coordinates(sampler):
    return [block.coordinates.tolist() for group in kernel(sampler).groups for block in group.blocks]


ALL = ["a", "grid", "theta", "p", "vector"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["theta", ...], ["theta", "a,grid,p,vector"]),
        ([("vector", "a"), ...], ["a,vector", "grid,theta,p"]),
        (["theta[0]", ...], ["theta[0]", "a,grid,theta[1:4],p,vector"]),
        (["theta[-1]", "theta[:3]", ...], ["theta[3]", "theta[0:3]", "a,grid,p,vector"]),
        (["theta[::2]", ...], ["theta[0,2]", "a,grid,theta[1:4],p,vector".replace("1:4", "1,3")]),
        (["grid[1, 0]", ...], ["grid[1,0]", "a,grid[0,0; 0,1; 1,1; 2,0; 2,1],theta,p,vector"]),
        (["p[1]", ...], ["p[1]", "a,grid,theta,p[0],vector"]),
        ([lambda site: site in ("a", "p"), ...], ["a,p", "grid,theta,vector"]),
        ([lambda site: np.s_[1:3] if site == "theta" else False, ...], ["theta[1:3]", "a,grid,theta[0,3],p,vector"]),
        ([("theta[0]", "theta[1]", "a"), ...], ["a,theta[0:2]", "grid,theta[2:4],p,vector"]),
    ],
)
def test_keys_name_sites_and_parts_of_sites(keys, expected):
    assert blocks(Gibbs(dict.fromkeys(keys, H))) == expected


def test_parts_have_the_coordinates_of_their_entries():
    # a: 0; grid: 1-6 by rows; theta: 7-10; p: two rows of two; vector.
    found = coordinates(Gibbs({"grid[:, 1]": H, "p[1]": H, "theta[1:3]": H, ...: H}))
    assert found[:3] == [[2, 4, 6], [13, 14], [8, 9]]
    assert sorted(np.concatenate(found)) == list(range(18))


def test_nested_compositions_divide_what_they_are_given():
    inner = Gibbs({"theta[0]": H, ...: HMC(0.1, 2)})
    assert blocks(Gibbs({"a": H, ("theta", "p"): inner, ...: H})) == ["a", "theta[0]", "theta[1:4],p", "grid,vector"]


REFUSED = {
    "unknown": (Gibbs({"b": H, ...: H}), "block 'b' is no latent site.*'a', 'grid'"),
    "unknown, indexed": (Gibbs({"b[0]": H, ...: H}), r"block 'b\[0\]' is no latent site"),
    "twice": (Gibbs({"a": H, ("a", "theta"): H, ...: H}), "site 'a' is claimed by two blocks"),
    "partly twice": (Gibbs({"theta[0:2]": H, "theta[1]": H, ...: H}), r"site 'theta\[1\]' is claimed by two blocks"),
    "missing": (Gibbs(dict.fromkeys(ALL[:-1], H)), r"no block has site 'vector'.*`...: NUTS\(\)`"),
    "missing in part": (
        Gibbs({"theta[0]": H, **dict.fromkeys([*ALL[:2], *ALL[3:]], H)}),
        r"no block has site 'theta\[1:4\]'",
    ),
    "nothing left": (Gibbs({**dict.fromkeys(ALL, H), ...: H}), "`...` block has no sites left"),
    "out of range": (Gibbs({"theta[4]": H, ...: H}), r"site 'theta' cannot be indexed.*have shape \(4,\)"),
    "inside a simplex": (Gibbs({"p[0, 1]": H, ...: H}), r"site 'p' cannot be indexed.*have shape \(2,\)"),
    "no entries": (Gibbs({"theta[2:2]": H, ...: H}), "selects nothing of site 'theta'"),
    "no index": (Gibbs({"theta[x]": H, ...: H}), "has an index that is none"),
    "selects nothing": (Gibbs({lambda site: False: H, ...: H}), "selects no site"),
    "inner unknown": (Gibbs({"a": Gibbs({"theta": H}), ...: H}), "block 'theta' is no latent site.*these are: 'a'"),
    "random scan": (RandomScan({"a": H}), "RandomScan: no block has site 'grid'"),
    "continuous": (Gibbs({"a": DiscreteGibbs(), ...: H}), "DiscreteGibbs: site 'a' is continuous"),
}


@pytest.mark.parametrize(("sampler", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_divide_the_sites_is_refused_by_name(sampler, message):
    with pytest.raises(ValueError, match=message):
        kernel(sampler)


BAD = {
    "key": (lambda: Gibbs({3: H}), TypeError, "a block is named by a site.*got 3"),
    "empty key": (lambda: Gibbs({(): H}), TypeError, r"got \(\)"),
    "class": (lambda: Gibbs({"a": NUTS}), TypeError, r"block 'a' needs a sampler.*write NUTS\(...\)"),
    "no dict": (lambda: RandomScan([("a", H)]), TypeError, "RandomScan: blocks must be a non-empty dict"),
    "weights": (lambda: RandomScan({"a": H}, weights={"b": 1.0}), ValueError, "weights must be a dict with the keys"),
    "negative": (lambda: RandomScan({"a": H}, weights={"a": -1.0}), ValueError, "weights must be positive"),
    "updates": (lambda: RandomScan({"a": H}, updates=0), ValueError, "updates must be an integer >= 1"),
    "count": (lambda: Repeat(H, 0), ValueError, "count must be an integer >= 1"),
    "repeated": (lambda: Repeat("NUTS", 2), TypeError, "Repeat needs a sampler"),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_compositions_are_values_and_print_as_written():
    one, same = (RandomScan({"a": H, ...: Repeat(NUTS(), 2)}, weights={"a": 2, ...: 1}, updates=3) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert repr(one).startswith("RandomScan({'a': HMC(step_size=0.1, num_steps=1")
    assert repr(one).endswith("}, weights={'a': 2, ...: 1}, updates=3)")
    assert ", 2)}" in repr(one)
