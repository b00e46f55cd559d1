"""Log densities with derivatives of their own, against NumPyro's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import AutoForward, AutoReverse
from dualtape.ad import value_and_gradient
from dualtape.ppl.densities import log_density, register_log_density

RNG = np.random.default_rng(3)
X = RNG.normal(size=(50, 3))
COUNTS = RNG.integers(0, 8, 50)
MODELS = {
    "bernoulli": (lambda b, y: dist.Bernoulli(logits=X @ b), (COUNTS > 3).astype(int)),
    "binomial": (lambda b, y: dist.Binomial(7, logits=X @ b), COUNTS),
    "binomial of given totals": (lambda b, y: dist.Binomial(np.arange(8, 58), logits=X @ b), COUNTS),
}


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
@pytest.mark.parametrize(("make", "y"), MODELS.values(), ids=MODELS.keys())
def test_value_and_gradient_are_those_of_numpyro(make, y, adtype):
    b = np.array([0.3, -1.0, 4.0])
    value, gradient = value_and_gradient(lambda b, y: jnp.sum(log_density(make(b, y), y)), adtype, b, y)
    reference = jax.value_and_grad(lambda b: jnp.sum(make(b, y).log_prob(y)))(b)
    np.testing.assert_allclose(value, reference[0], rtol=1e-12)
    np.testing.assert_allclose(gradient, reference[1], rtol=1e-10)


@pytest.mark.parametrize("logits", [-800.0, -np.inf, 800.0, np.inf])
@pytest.mark.parametrize("y", [0, 1])
def test_far_logits_are_those_of_numpyro(logits, y):
    bernoulli = dist.BernoulliLogits(logits, validate_args=False)
    for distribution in (bernoulli, dist.BinomialLogits(logits, 1, validate_args=False)):
        np.testing.assert_allclose(log_density(distribution, y), bernoulli.log_prob(y), atol=1e-12)


def test_a_density_of_ones_own_is_used_for_its_family_alone():
    class Mine(dist.Normal):
        pass

    class Other(Mine):
        pass

    register_log_density(Mine)(lambda distribution, value: 7.0 * value)
    assert log_density(Mine(0.0, 1.0), 2.0) == 14.0
    assert log_density(Other(0.0, 1.0), 2.0) == Other(0.0, 1.0).log_prob(2.0)
    with pytest.raises(TypeError, match=r"numpyro\.distributions"):
        register_log_density("Normal")
