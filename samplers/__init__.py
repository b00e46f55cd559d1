"""Markov chain Monte Carlo over flat arrays: parts first, then the samplers that wire them.

A sampler is a frozen value (`NUTS()`, `HMC(0.1, 5)`, `Gibbs({...})`). `build` turns it and a target density into
a *kernel*, a set of pure functions that JAX can compile. The driver in `chains` runs kernels.

Notation, throughout this folder:

    q       position, shape (dimension,), unconstrained
    u       whitened momentum, shape (dimension,), standard normal at every refreshment
    L       scale of the metric: L Lᵀ estimates the covariance of q (the inverse of the mass matrix M)
    p       momentum of the textbooks, p = L⁻ᵀ u, so that pᵀ M⁻¹ p = uᵀ u
    H       energy, −log π(q) + ½ uᵀ u
    ρ       sum of u over a stretch of trajectory

In whitened momenta the kinetic energy and the U-turn criterion are the same for every metric; only the
integrator, which moves q by ε L u and u by ε Lᵀ ∇log π(q), has to know L.

This layer knows log densities over arrays (`base.Target`), never a model.
"""

from typing import TYPE_CHECKING

from ..ad.lazy import import_lazily

if TYPE_CHECKING:
    from .base import AbstractKernel, AbstractSampler, Block, BlockReport, Joint, Target
    from .composition import AbstractComposition
    from .discrete import DiscreteGibbs
    from .elliptical import EllipticalSlice
    from .estimators import AbstractEstimator, FisherDivergence, SampleCovariance
    from .exact import Conditional, Conjugate
    from .external import External
    from .gibbs import Gibbs, RandomScan, Repeat
    from .hmc import HMC
    from .low_rank import LowRankMetric
    from .metrics import AbstractMetric, DenseMetric, DiagonalMetric, UnitMetric
    from .metropolis import MH, FromPrior, Proposal
    from .microcanonical import MicrocanonicalHMC
    from .nuts import NUTS
    from .parallel import AbstractParallel, Threads, Vectorized
    from .particle import ParticleGibbs
    from .proposals import AbstractProposal, RandomWalk
    from .slice import Slice
    from .stopping import Until
    from .walnuts import WALNUTS
    from .windows import AbstractWindows, GrowingWindows, StanWindows

__all__ = [
    "HMC",
    "MH",
    "NUTS",
    "WALNUTS",
    "AbstractComposition",
    "AbstractEstimator",
    "AbstractKernel",
    "AbstractMetric",
    "AbstractParallel",
    "AbstractProposal",
    "AbstractSampler",
    "AbstractWindows",
    "Block",
    "BlockReport",
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
    "Joint",
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
    "Target",
    "Threads",
    "UnitMetric",
    "Until",
    "Vectorized",
]

import_lazily(
    __name__,
    {
        "base": (
            "AbstractKernel",
            "AbstractSampler",
            "Block",
            "BlockReport",
            "Joint",
            "Target",
        ),
        "composition": ("AbstractComposition",),
        "discrete": ("DiscreteGibbs",),
        "elliptical": ("EllipticalSlice",),
        "estimators": (
            "AbstractEstimator",
            "FisherDivergence",
            "SampleCovariance",
        ),
        "exact": (
            "Conditional",
            "Conjugate",
        ),
        "external": ("External",),
        "gibbs": (
            "Gibbs",
            "RandomScan",
            "Repeat",
        ),
        "hmc": ("HMC",),
        "low_rank": ("LowRankMetric",),
        "metrics": (
            "AbstractMetric",
            "DenseMetric",
            "DiagonalMetric",
            "UnitMetric",
        ),
        "metropolis": (
            "MH",
            "FromPrior",
            "Proposal",
        ),
        "microcanonical": ("MicrocanonicalHMC",),
        "nuts": ("NUTS",),
        "parallel": (
            "AbstractParallel",
            "Threads",
            "Vectorized",
        ),
        "particle": ("ParticleGibbs",),
        "proposals": (
            "AbstractProposal",
            "RandomWalk",
        ),
        "slice": ("Slice",),
        "stopping": ("Until",),
        "walnuts": ("WALNUTS",),
        "windows": (
            "AbstractWindows",
            "GrowingWindows",
            "StanWindows",
        ),
    },
)
