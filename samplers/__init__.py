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

from .base import AbstractKernel, AbstractSampler, Block, BlockReport, Joint, Target
from .composition import AbstractComposition
from .discrete import DiscreteGibbs
from .elliptical import EllipticalSlice
from .exact import Conditional, Conjugate
from .external import External
from .gibbs import Gibbs, RandomScan, Repeat
from .hmc import HMC
from .metrics import AbstractMetric, DenseMetric, DiagonalMetric, UnitMetric
from .metropolis import MH, FromPrior, Proposal
from .nuts import NUTS
from .particle import ParticleGibbs
from .proposals import AbstractProposal, RandomWalk
from .slice import Slice

__all__ = [
    "HMC",
    "MH",
    "NUTS",
    "AbstractComposition",
    "AbstractKernel",
    "AbstractMetric",
    "AbstractProposal",
    "AbstractSampler",
    "Block",
    "BlockReport",
    "Conditional",
    "Conjugate",
    "DenseMetric",
    "DiagonalMetric",
    "DiscreteGibbs",
    "EllipticalSlice",
    "External",
    "FromPrior",
    "Gibbs",
    "Joint",
    "ParticleGibbs",
    "Proposal",
    "RandomScan",
    "RandomWalk",
    "Repeat",
    "Slice",
    "Target",
    "UnitMetric",
]
