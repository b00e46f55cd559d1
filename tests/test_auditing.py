"""`audit=True`: the gradient in use is compared with another mode's along the chain."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, NUTS, AutoForward, AutoReverse, Gibbs, SamplingWarning, model, rv, sample
from dualtape.models.gdemo import gdemo
from jax import lax


@dataclasses.dataclass(frozen=True)
class Slightly(AutoReverse):
    """Off by one part in a million: too little to be seen in the draws."""

    def pullback(self, f, x):
        value, pull = super().pullback(f, x)
        return value, lambda cotangents: pull(cotangents) * (1 + 1e-6)


def test_right_gradients_agree_and_the_record_says_by_whom():
    idata = sample(gdemo(1.5, 2.0), NUTS(), 500, warmup=100, chains=1, seed=1, audit=True, progress=False)
    error = np.asarray(idata["sample_stats"]["gradient_error"])
    compared = np.isfinite(error)
    assert 5 <= compared.sum() <= 60  # 25 on average
    assert error[compared].max() < 1e-12
    assert next(iter(json.loads(idata.attrs["blocks"]).values()))["audited_by"] == "AutoReverse()"


def test_without_an_audit_there_is_no_record_of_one():
    idata = sample(gdemo(1.5, 2.0), NUTS(), 20, warmup=20, chains=1, seed=1, progress=False)
    assert "gradient_error" not in idata["sample_stats"]


def test_a_gradient_that_is_slightly_wrong_is_found_in_its_block():
    sampler = Gibbs({"m": HMC(0.1, 5, adtype=AutoForward()), "s": HMC(0.1, 5, adtype=Slightly())})
    with pytest.warns(SamplingWarning, match=r"block 's'.*Slightly.*AutoForward\(\).*1e-06.*check_gradients"):
        idata = sample(gdemo(1.5, 2.0), sampler, 400, warmup=50, chains=1, seed=1, audit=True, progress=False)
    error = np.nanmax(np.asarray(idata["sample_stats"]["block_gradient_error"]), axis=(0, 1))
    assert error[0] < 1e-12
    np.testing.assert_allclose(error[1], 1e-6, rtol=1e-3)


def test_where_the_other_mode_cannot_go_finite_differences_answer():
    @model
    def halving():
        x = rv("x", dist.Normal(0.0, 1.0))
        rv("y", dist.Normal(lax.while_loop(lambda c: jnp.abs(c) > 0.5, lambda c: c / 2, x), 1.0), obs=0.3)

    idata = sample(halving(), NUTS(), 200, warmup=50, chains=1, seed=2, audit=True, progress=False)
    assert json.loads(idata.attrs["blocks"])["x"]["audited_by"] == "AutoFiniteDiff()"
    assert np.isfinite(np.asarray(idata["sample_stats"]["gradient_error"])).any()
