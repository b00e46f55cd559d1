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

from typing import TYPE_CHECKING

from .ad.lazy import import_lazily

if TYPE_CHECKING:
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
    from .ppl import BoundModel, Model, deterministic, factor, model, plate, rv, sample, scan, submodel
    from .ppl.approximations.advi import advi
    from .ppl.approximations.laplace import laplace
    from .ppl.approximations.objectives import MAP, MLE
    from .ppl.approximations.optimize import optimize
    from .ppl.approximations.pathfinder import FromPathfinder, pathfinder
    from .ppl.approximations.setting import ApproximationWarning
    from .ppl.bring.log_density import LogDensity
    from .ppl.bring.numpyro import from_numpyro
    from .ppl.bring.stan import from_stan
    from .ppl.checking.sampler_check import check_sampler
    from .ppl.gradients import benchmark_gradients, check_gradients
    from .ppl.inference import SamplingWarning
    from .ppl.marginalization import marginalize, recover
    from .ppl.plans.explanation import explain
    from .ppl.queries.log_densities import log_density, log_likelihood, log_prior
    from .ppl.queries.positions import constrain, unconstrain
    from .ppl.queries.prediction import PriorWarning, predict, returned, sample_prior
    from .samplers import (
        HMC,
        MH,
        NUTS,
        WALNUTS,
        Conditional,
        Conjugate,
        DenseMetric,
        DiagonalMetric,
        DiscreteGibbs,
        EllipticalSlice,
        External,
        FisherDivergence,
        FromPrior,
        Gibbs,
        GrowingWindows,
        LowRankMetric,
        MicrocanonicalHMC,
        ParticleGibbs,
        Proposal,
        RandomScan,
        RandomWalk,
        Repeat,
        SampleCovariance,
        Slice,
        StanWindows,
        Threads,
        UnitMetric,
        Until,
        Vectorized,
    )
    from .samplers.approximations.families import FullRank, MeanField
    from .samplers.approximations.optimization import LBFGS, TrustRegion
    from .samplers.executables import clear_programs, set_compilation_cache

__all__ = [
    "HMC",
    "LBFGS",
    "MAP",
    "MH",
    "MLE",
    "NUTS",
    "WALNUTS",
    "ApproximationWarning",
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
    "FisherDivergence",
    "FromPathfinder",
    "FromPrior",
    "FullRank",
    "Gibbs",
    "GrowingWindows",
    "LogDensity",
    "LowRankMetric",
    "MeanField",
    "MicrocanonicalHMC",
    "Model",
    "ParticleGibbs",
    "PriorWarning",
    "Proposal",
    "RandomScan",
    "RandomWalk",
    "Repeat",
    "SampleCovariance",
    "SamplingWarning",
    "SecondOrder",
    "Slice",
    "StanWindows",
    "Threads",
    "TrustRegion",
    "UnitMetric",
    "Until",
    "Vectorized",
    "advi",
    "benchmark_gradients",
    "black_box",
    "check_gradients",
    "check_sampler",
    "clear_programs",
    "constrain",
    "default_adtype",
    "deterministic",
    "differentiate_with",
    "explain",
    "factor",
    "from_numpyro",
    "from_stan",
    "laplace",
    "log_density",
    "log_likelihood",
    "log_prior",
    "marginalize",
    "model",
    "optimize",
    "pathfinder",
    "plate",
    "predict",
    "recover",
    "returned",
    "rv",
    "sample",
    "sample_prior",
    "scan",
    "set_compilation_cache",
    "set_default_adtype",
    "submodel",
    "unconstrain",
]

import_lazily(
    __name__,
    {
        "ad": (
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
            "SecondOrder",
            "black_box",
            "default_adtype",
            "differentiate_with",
            "set_default_adtype",
        ),
        "ppl": (
            "BoundModel",
            "Model",
            "deterministic",
            "factor",
            "model",
            "plate",
            "rv",
            "sample",
            "scan",
            "submodel",
        ),
        "ppl.approximations.advi": ("advi",),
        "ppl.approximations.laplace": ("laplace",),
        "ppl.approximations.objectives": (
            "MAP",
            "MLE",
        ),
        "ppl.approximations.optimize": ("optimize",),
        "ppl.approximations.pathfinder": (
            "FromPathfinder",
            "pathfinder",
        ),
        "ppl.approximations.setting": ("ApproximationWarning",),
        "ppl.bring.log_density": ("LogDensity",),
        "ppl.bring.numpyro": ("from_numpyro",),
        "ppl.bring.stan": ("from_stan",),
        "ppl.checking.sampler_check": ("check_sampler",),
        "ppl.gradients": (
            "benchmark_gradients",
            "check_gradients",
        ),
        "ppl.inference": ("SamplingWarning",),
        "ppl.marginalization": (
            "marginalize",
            "recover",
        ),
        "ppl.plans.explanation": ("explain",),
        "ppl.queries.log_densities": (
            "log_density",
            "log_likelihood",
            "log_prior",
        ),
        "ppl.queries.positions": (
            "constrain",
            "unconstrain",
        ),
        "ppl.queries.prediction": (
            "PriorWarning",
            "predict",
            "returned",
            "sample_prior",
        ),
        "samplers": (
            "HMC",
            "MH",
            "NUTS",
            "WALNUTS",
            "Conditional",
            "Conjugate",
            "DenseMetric",
            "DiagonalMetric",
            "DiscreteGibbs",
            "EllipticalSlice",
            "External",
            "FisherDivergence",
            "FromPrior",
            "Gibbs",
            "GrowingWindows",
            "LowRankMetric",
            "MicrocanonicalHMC",
            "ParticleGibbs",
            "Proposal",
            "RandomScan",
            "RandomWalk",
            "Repeat",
            "SampleCovariance",
            "Slice",
            "StanWindows",
            "Threads",
            "UnitMetric",
            "Until",
            "Vectorized",
        ),
        "samplers.approximations.families": (
            "FullRank",
            "MeanField",
        ),
        "samplers.approximations.optimization": (
            "LBFGS",
            "TrustRegion",
        ),
        "samplers.executables": (
            "clear_programs",
            "set_compilation_cache",
        ),
    },
    folders=(
        "ad",
        "models",
        "ppl",
        "samplers",
    ),
)
