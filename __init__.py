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
    AutoEnzyme,
    AutoEnzymeForward,
    AutoFastest,
    AutoFiniteDiff,
    AutoForward,
    AutoReverse,
    AutoSparse,
    AutoSymbolic,
    AutoTape,
    SecondOrder,
    black_box,
    default_adtype,
    differentiate_with,
    set_default_adtype,
)
from .ppl import BoundModel, Model, deterministic, factor, model, plate, rv, sample
from .ppl.checking.sampler_check import check_sampler
from .ppl.gradients import benchmark_gradients, check_gradients
from .ppl.inference import SamplingWarning
from .ppl.plans.explanation import explain
from .samplers import (
    HMC,
    MH,
    NUTS,
    Conditional,
    Conjugate,
    DenseMetric,
    DiagonalMetric,
    DiscreteGibbs,
    EllipticalSlice,
    External,
    FromPrior,
    Gibbs,
    ParticleGibbs,
    Proposal,
    RandomScan,
    RandomWalk,
    Repeat,
    Slice,
    UnitMetric,
)

__all__ = [
    "HMC",
    "MH",
    "NUTS",
    "AutoByDimension",
    "AutoEnzyme",
    "AutoEnzymeForward",
    "AutoFastest",
    "AutoFiniteDiff",
    "AutoForward",
    "AutoReverse",
    "AutoSparse",
    "AutoSymbolic",
    "AutoTape",
    "BoundModel",
    "Conditional",
    "Conjugate",
    "DenseMetric",
    "DiagonalMetric",
    "DiscreteGibbs",
    "EllipticalSlice",
    "External",
    "FromPrior",
    "Gibbs",
    "Model",
    "ParticleGibbs",
    "Proposal",
    "RandomScan",
    "RandomWalk",
    "Repeat",
    "SamplingWarning",
    "SecondOrder",
    "Slice",
    "UnitMetric",
    "benchmark_gradients",
    "black_box",
    "check_gradients",
    "check_sampler",
    "default_adtype",
    "deterministic",
    "differentiate_with",
    "explain",
    "factor",
    "model",
    "plate",
    "rv",
    "sample",
    "set_default_adtype",
]
