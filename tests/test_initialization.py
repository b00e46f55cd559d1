"""Where chains start."""

import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, model, plate, rv, sample

# A chain that does not move shows where it began.
STILL = {"sampler": HMC(1e-9, 1), "draws": 1, "warmup": 0, "chains": 3, "seed": 5, "progress": False}


@model
def two():
    rv("a", dist.Normal(0.0, 1.0))
    with plate("i", 2):
        rv("s", dist.HalfNormal(1.0))


@model
def nested():
    x = rv("x", dist.Uniform(0.1, 10.0))
    rv("y", dist.Uniform(0.0, x))


def start(bound, site, **init):
    return sample(bound, **STILL, init=init)["posterior"][site].values[:, 0]


def test_one_value_serves_all_chains():
    np.testing.assert_allclose(start(two(), "a", a=0.7), [0.7] * 3, atol=1e-6)
    np.testing.assert_allclose(start(two(), "s", s=[0.5, 2.0]), [[0.5, 2.0]] * 3, rtol=1e-6)


def test_each_chain_can_have_its_own():
    np.testing.assert_allclose(start(two(), "a", a=[0.1, 0.2, 0.3]), [0.1, 0.2, 0.3], atol=1e-6)
    own = np.array([[0.5, 2.0], [1.0, 1.0], [0.1, 3.0]])
    np.testing.assert_allclose(start(two(), "s", s=own), own, rtol=1e-6)


def test_sites_without_a_value_start_within_two_of_zero_unconstrained():
    a, s = start(two(), "a"), start(two(), "s", a=0.0)
    assert len(set(a.tolist())) == 3
    assert (np.abs(a) < 2).all()
    assert (np.abs(np.log(s)) < 2).all()


def test_values_under_a_support_that_depends_on_another():
    np.testing.assert_allclose(start(nested(), "y", x=9.0, y=8.0), [8.0] * 3, rtol=1e-6)
    # With x drawn, some draws leave y outside its support; they are drawn again.
    np.testing.assert_allclose(start(nested(), "y", y=8.0), [8.0] * 3, rtol=1e-6)


def test_a_start_of_density_zero_is_refused():
    @model
    def truncated():
        x = rv("x", dist.Normal(0.0, 1.0))
        rv("y", dist.Uniform(0.0, x), obs=1.0)

    with pytest.raises(ValueError, match=r"at the given initial values.*y -inf.*Not finite: y"):
        start(truncated(), "x", x=0.5)
    assert (start(truncated(), "x") > 1).all()
