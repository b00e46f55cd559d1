"""dualtape: probabilistic programming on JAX where every block of a model chooses its own differentiation.

    import jax.numpy as jnp
    import numpyro.distributions as dist
    from dualtape import HMC, NUTS, AutoForward, AutoReverse, Gibbs, model, rv, sample

    @model
    def gdemo(x, y):
        s = rv("s", dist.InverseGamma(2.0, 3.0))
        m = rv("m", dist.Normal(0.0, jnp.sqrt(s)))
        rv("x", dist.Normal(m, jnp.sqrt(s)), obs=x)
        rv("y", dist.Normal(m, jnp.sqrt(s)), obs=y)

    idata = sample(gdemo(1.5, 2.0))

Layers, one way only: models → ppl → samplers → ad.
"""

from .ad import (
    AutoByDimension,
    AutoForward,
    AutoReverse,
    default_adtype,
    set_default_adtype,
)
from .ppl import BoundModel, Model, deterministic, factor, model, plate, rv, sample
from .ppl.inference import SamplingWarning
from .samplers import HMC, NUTS, DenseMetric, DiagonalMetric, Gibbs, UnitMetric

__all__ = [
    "HMC",
    "NUTS",
    "AutoByDimension",
    "AutoForward",
    "AutoReverse",
    "BoundModel",
    "DenseMetric",
    "DiagonalMetric",
    "Gibbs",
    "Model",
    "SamplingWarning",
    "UnitMetric",
    "default_adtype",
    "deterministic",
    "factor",
    "model",
    "plate",
    "rv",
    "sample",
    "set_default_adtype",
]
