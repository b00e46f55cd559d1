"""An instance of every distribution of `numpyro.distributions`, and of the ways to make one of another.

They are functions, since a distribution keeps its parameters in the precision of the moment it is made. The part of a
name before the comma is the class; where NumPyro's version lacks it, the entry is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms
from scipy import stats

Make = Callable[[], Any]

CORRELATION = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, -0.3], [0.2, -0.3, 1.0]])
COVARIANCE = CORRELATION * np.outer([1.0, 0.5, 2.0], [1.0, 0.5, 2.0])
LOWER = np.linalg.cholesky(COVARIANCE)
RING = np.roll(np.eye(4), 1, axis=0) + np.roll(np.eye(4), -1, axis=0)


def weights(*probs: float) -> Any:
    return dist.Categorical(jnp.array(probs))


def known(table: dict[str, Any]) -> dict[str, Any]:
    """Without the classes that this version of NumPyro does not have."""
    return {name: entry for name, entry in table.items() if hasattr(dist, name.partition(",")[0])}


def drift(x: Any, t: Any) -> tuple[Any, Any]:
    del t
    return -0.5 * x, 0.8 * jnp.ones_like(x)


# By kind of support.
REAL = {
    "Normal": lambda: dist.Normal(1.0, 2.0),
    "StudentT": lambda: dist.StudentT(5.0, 1.0, 2.0),
    "Cauchy": lambda: dist.Cauchy(0.5, 1.0),
    "Laplace": lambda: dist.Laplace(1.0, 0.5),
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(0.5, 1.5, 2.0),
    "AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(0.5, 1.5, 0.3),
    "SoftLaplace": lambda: dist.SoftLaplace(0.5, 1.5),
    "Logistic": lambda: dist.Logistic(0.5, 1.5),
    "Gumbel": lambda: dist.Gumbel(0.5, 1.5),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(weights(0.3, 0.7), dist.Normal(jnp.array([-1.0, 1.5]), 1.0)),
    "MixtureSameFamily, of other families": lambda: dist.MixtureSameFamily(
        weights(0.3, 0.7), dist.Gumbel(jnp.array([-1.0, 1.5]), 1.0)
    ),
    "MixtureGeneral": lambda: dist.MixtureGeneral(weights(0.4, 0.6), [dist.Normal(-1.0, 1.0), dist.Laplace(1.0, 0.7)]),
    "MixtureGeneral, of unlike supports": lambda: dist.MixtureGeneral(
        weights(0.4, 0.6), [dist.Normal(0.0, 1.0), dist.TruncatedNormal(0.0, 1.0, low=-2.0, high=2.0)],
        support=constraints.real,
    ),
    "TransformedDistribution, affine": lambda: dist.TransformedDistribution(
        dist.StudentT(5.0), transforms.AffineTransform(1.0, 2.0)
    ),
}  # fmt: skip
POSITIVE = {
    "Exponential": lambda: dist.Exponential(2.0),
    "Gamma": lambda: dist.Gamma(2.0, 3.0),
    "Chi2": lambda: dist.Chi2(3.0),
    "InverseGamma": lambda: dist.InverseGamma(3.0, 2.0),
    "HalfNormal": lambda: dist.HalfNormal(1.5),
    "HalfCauchy": lambda: dist.HalfCauchy(1.5),
    "LogNormal": lambda: dist.LogNormal(0.3, 0.6),
    "Weibull": lambda: dist.Weibull(1.5, 2.0),
    "Gompertz": lambda: dist.Gompertz(0.5, 1.2),
    "Dagum": lambda: dist.Dagum(2.0, 3.0, 1.5),
    "FoldedDistribution": lambda: dist.FoldedDistribution(dist.Normal(0.7, 1.0)),
    "MixtureSameFamily, positive": lambda: dist.MixtureSameFamily(
        weights(0.4, 0.6), dist.Gamma(jnp.array([2.0, 8.0]), 2.0)
    ),
    "MixtureGeneral, positive": lambda: dist.MixtureGeneral(
        weights(0.4, 0.6), [dist.HalfNormal(1.0), dist.Gamma(3.0, 2.0)]
    ),
    "TransformedDistribution, power": lambda: dist.TransformedDistribution(
        dist.Gamma(3.0, 2.0), transforms.PowerTransform(0.5)
    ),
}
HALF_LINES = {
    "Pareto": lambda: dist.Pareto(1.5, 4.0),
    "Levy": lambda: dist.Levy(0.5, 1.5),
    "LowerTruncatedPowerLaw": lambda: dist.LowerTruncatedPowerLaw(-3.5, 1.5),
    "LeftTruncatedDistribution": lambda: dist.TruncatedNormal(0.5, 1.5, low=1.0),
    "LeftTruncatedDistribution, Cauchy": lambda: dist.TruncatedCauchy(0.5, 1.5, low=1.0),
    "LeftTruncatedGamma": lambda: dist.LeftTruncatedGamma(dist.Gamma(2.0, 1.5), low=0.5),
    "RightTruncatedDistribution": lambda: dist.TruncatedNormal(0.5, 1.5, high=1.0),
    "RightTruncatedDistribution, Laplace": lambda: dist.RightTruncatedDistribution(dist.Laplace(0.5, 1.5), 1.0),
    "TransformedDistribution, of a half-line": lambda: dist.TransformedDistribution(
        dist.Exponential(1.0), transforms.AffineTransform(1.0, -2.0)
    ),
}
INTERVALS = {
    "Beta": lambda: dist.Beta(2.0, 3.0),
    "BetaProportion": lambda: dist.BetaProportion(0.3, 5.0),
    "Kumaraswamy": lambda: dist.Kumaraswamy(2.0, 3.0),
    "RelaxedBernoulliLogits": lambda: dist.RelaxedBernoulliLogits(1.5, 0.5),
    "Uniform": lambda: dist.Uniform(-1.0, 3.0),
    "LogUniform": lambda: dist.LogUniform(0.5, 4.0),
    "TwoSidedTruncatedDistribution": lambda: dist.TruncatedNormal(0.5, 1.5, low=-1.0, high=2.0),
    "TwoSidedTruncatedDistribution, Logistic": lambda: dist.TwoSidedTruncatedDistribution(
        dist.Logistic(0.5, 1.5), -1.0, 2.0
    ),
    "TwoSidedTruncatedGamma": lambda: dist.TwoSidedTruncatedGamma(dist.Gamma(2.0, 1.5), low=0.5, high=2.0),
    "RightTruncatedGamma": lambda: dist.RightTruncatedGamma(dist.Gamma(2.0, 1.5), high=2.0),
    "TruncatedPolyaGamma": lambda: dist.TruncatedPolyaGamma(),
    "DoublyTruncatedPowerLaw": lambda: dist.DoublyTruncatedPowerLaw(-2.0, 0.5, 3.0),
    "DoublyTruncatedPowerLaw, of exponent -1": lambda: dist.DoublyTruncatedPowerLaw(-1.0, 0.5, 3.0),
    "MixtureGeneral, of one interval": lambda: dist.MixtureGeneral(
        weights(0.4, 0.6), [dist.Uniform(-1.0, 2.0), dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0)]
    ),
    "TransformedDistribution, of an interval": lambda: dist.TransformedDistribution(
        dist.Uniform(0.0, 1.0), transforms.AffineTransform(1.0, 2.0)
    ),
    "TransformedDistribution, sigmoid": lambda: dist.TransformedDistribution(
        dist.Uniform(-1.0, 2.0), transforms.SigmoidTransform()
    ),
}
VECTORS = {
    "MultivariateNormal": lambda: dist.MultivariateNormal(jnp.array([1.0, 0.0, -1.0]), COVARIANCE),
    "MultivariateNormal, by its precision": lambda: dist.MultivariateNormal(
        0.0, precision_matrix=np.linalg.inv(COVARIANCE)
    ),
    "MultivariateNormal, by its factor": lambda: dist.MultivariateNormal(0.0, scale_tril=LOWER),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        jnp.zeros(3), jnp.array([[1.0], [0.5], [-0.5]]), jnp.array([0.5, 1.0, 1.5])
    ),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(6.0, jnp.zeros(3), LOWER),
    "CirculantNormal": lambda: dist.CirculantNormal(jnp.zeros(4), jnp.array([1.5, 0.5, 0.2, 0.5])),
    "CAR": lambda: dist.CAR(jnp.zeros(4), 0.6, 1.5, RING),
    "GaussianRandomWalk": lambda: dist.GaussianRandomWalk(0.7, num_steps=4),
    "EulerMaruyama": lambda: dist.EulerMaruyama(jnp.arange(4.0), drift, dist.Normal(0.0, 1.0)),
    "GaussianCopula": lambda: dist.GaussianCopula(dist.LogNormal(0.3, 0.6), CORRELATION),
    "GaussianCopulaBeta": lambda: dist.GaussianCopulaBeta(
        jnp.array([2.0, 1.5, 3.0]), jnp.array([3.0, 1.5, 2.0]), CORRELATION
    ),
    "MixtureSameFamily, of vectors": lambda: dist.MixtureSameFamily(
        weights(0.3, 0.7), dist.MultivariateNormal(jnp.array([[-1.0] * 3, [1.0] * 3]), COVARIANCE)
    ),
    "TransformedDistribution, triangular": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), transforms.LowerCholeskyAffine(jnp.ones(3), jnp.asarray(LOWER))
    ),
    "TransformedDistribution, ordered": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), transforms.OrderedTransform()
    ),
    "TransformedDistribution, ordered and positive": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 0.5).expand([3]).to_event(1), [transforms.OrderedTransform(), transforms.ExpTransform()]
    ),
    "ZeroSumNormal": lambda: dist.ZeroSumNormal(1.5, (4,)),
    "ZeroSumNormal, of a matrix": lambda: dist.ZeroSumNormal(1.5, (3, 2)),
    "Dirichlet": lambda: dist.Dirichlet(jnp.array([1.5, 2.0, 3.0])),
    "TransformedDistribution, of stick-breaking": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([2]).to_event(1), transforms.StickBreakingTransform()
    ),
}
MATRICES = {
    "MatrixNormal": lambda: dist.MatrixNormal(jnp.ones((2, 3)), np.linalg.cholesky(COVARIANCE[:2, :2]), LOWER),
    "GaussianStateSpace": lambda: dist.GaussianStateSpace(
        3, jnp.array([[0.8, 0.1], [0.0, 0.7]]), covariance_matrix=COVARIANCE[:2, :2]
    ),
    "LKJ": lambda: dist.LKJ(3, 2.0),
    "LKJCholesky": lambda: dist.LKJCholesky(3, 2.0),
    "LKJCholesky, by vines": lambda: dist.LKJCholesky(3, 2.0, "cvine"),
    "Wishart": lambda: dist.Wishart(6.0, scale_matrix=COVARIANCE[:2, :2]),
    "WishartCholesky": lambda: dist.WishartCholesky(6.0, scale_matrix=COVARIANCE[:2, :2]),
    "InverseWishart": lambda: dist.InverseWishart(6.0, scale_matrix=COVARIANCE[:2, :2]),
    "InverseWishartCholesky": lambda: dist.InverseWishartCholesky(6.0, scale_matrix=COVARIANCE[:2, :2]),
}
DIRECTIONS = {
    "VonMises": lambda: dist.VonMises(0.5, 2.0),
    "VonMises, about the far side": lambda: dist.VonMises(np.pi, 4.0),
    "VonMises, several": lambda: dist.VonMises(jnp.array([0.0, 3.0]), 2.0).to_event(1),
    "SineBivariateVonMises": lambda: dist.SineBivariateVonMises(0.5, 2.5, 2.0, 3.0, 1.0),
    "SineSkewed": lambda: dist.SineSkewed(
        dist.VonMises(jnp.array([0.5, 2.5]), 2.0).to_event(1), jnp.array([0.4, -0.3])
    ),
    "ProjectedNormal": lambda: dist.ProjectedNormal(jnp.array([1.0, -0.5])),
    "ProjectedNormal, in space": lambda: dist.ProjectedNormal(jnp.array([1.0, -0.5, 0.5])),
}
BATCHES = {
    "ExpandedDistribution": lambda: dist.ExpandedDistribution(dist.Gamma(jnp.array([[2.0], [3.0]]), 3.0), (2, 2)),
    "ExpandedDistribution, of simplexes": lambda: dist.Dirichlet(jnp.array([1.5, 2.0, 3.0])).expand([2]),
    "ExpandedDistribution, of images": lambda: dist.TransformedDistribution(
        dist.Uniform(jnp.zeros((2, 1)), 1.0), transforms.AffineTransform(1.0, 2.0)
    ).expand([2, 2]),
    "ExpandedDistribution, of directions": lambda: dist.ProjectedNormal(jnp.array([1.0, -0.5])).expand([2]),
    "Independent": lambda: dist.Independent(dist.Beta(jnp.array([2.0, 3.0]), 3.0), 1),
    "MaskedDistribution": lambda: dist.Gamma(jnp.array([2.0, 3.0]), 2.0).mask(jnp.array([True, True])),
    "MaskedDistribution, in part": lambda: dist.Beta(jnp.array([2.0, 5.0]), 3.0).mask(jnp.array([True, False])),
}


def uniform(support: Any, *shape: int) -> Make:
    return lambda: dist.ImproperUniform(support, (), shape)


# With direct draws that are not NumPyro's, which has none; only where the support has a finite volume.
UNIFORM = {
    "ImproperUniform, on an interval": uniform(constraints.interval(-1.0, 3.0)),
    "ImproperUniform, on an open interval": uniform(constraints.open_interval(-1.0, 3.0), 2),
    "ImproperUniform, on a simplex": uniform(constraints.simplex, 3),
    "ImproperUniform, on the circle": uniform(constraints.circular),
    "ImproperUniform, on the sphere": uniform(constraints.sphere, 4),
    "ImproperUniform, on correlations": uniform(constraints.corr_matrix, 3, 3),
    "ImproperUniform, in the l1 ball": uniform(constraints.l1_ball, 2),
}
# Improper as priors: bijections, densities and gradients are looked at, draws there are none.
IMPROPER = {
    "ImproperUniform, on the line": uniform(constraints.real, 2),
    "ImproperUniform, complex": uniform(constraints.complex, 2),
    "ImproperUniform, positive": uniform(constraints.positive),
    "ImproperUniform, nonnegative": uniform(constraints.nonnegative, 2),
    "ImproperUniform, softly positive": uniform(constraints.softplus_positive),
    "ImproperUniform, above": uniform(constraints.greater_than(2.0)),
    "ImproperUniform, below": uniform(constraints.less_than(2.0)),
    "ImproperUniform, ordered": uniform(constraints.ordered_vector, 3),
    "ImproperUniform, positive and ordered": uniform(constraints.positive_ordered_vector, 3),
    "ImproperUniform, sums of zero": uniform(constraints.zero_sum(1), 3),
    "ImproperUniform, factors": uniform(constraints.lower_cholesky, 2, 2),
    "ImproperUniform, soft factors": uniform(constraints.softplus_lower_cholesky, 2, 2),
    "ImproperUniform, scaled factors": uniform(constraints.scaled_unit_lower_cholesky, 2, 2),
    "ImproperUniform, positive definite": uniform(constraints.positive_definite, 2, 2),
    "ImproperUniform, positive semidefinite": uniform(constraints.positive_semidefinite, 2, 2),
}
PROPER = {**REAL, **POSITIVE, **HALF_LINES, **INTERVALS, **VECTORS, **MATRICES, **DIRECTIONS, **BATCHES, **UNIFORM}
PROPER = known(PROPER)
CONTINUOUS = PROPER | IMPROPER

DISCRETE = known(
    {
        "BernoulliProbs": lambda: dist.Bernoulli(probs=0.3),
        "BernoulliLogits": lambda: dist.Bernoulli(logits=0.3),
        "BetaBinomial": lambda: dist.BetaBinomial(2.0, 3.0, 5),
        "BetaNegativeBinomial": lambda: dist.BetaNegativeBinomial(3.0, 2.0, 4.0),
        "BinomialProbs": lambda: dist.Binomial(5, probs=0.3),
        "BinomialLogits": lambda: dist.Binomial(5, logits=0.3),
        "CategoricalProbs": lambda: dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5])),
        "CategoricalLogits": lambda: dist.Categorical(logits=jnp.array([0.2, 0.3, 0.5])),
        "DirichletMultinomial": lambda: dist.DirichletMultinomial(jnp.array([1.0, 2.0, 3.0]), 5),
        "DiscreteUniform": lambda: dist.DiscreteUniform(1, 4),
        "GammaPoisson": lambda: dist.GammaPoisson(2.0, 3.0),
        "GeometricProbs": lambda: dist.Geometric(probs=0.3),
        "GeometricLogits": lambda: dist.Geometric(logits=0.3),
        "HurdleProbs": lambda: dist.HurdleProbs(dist.Poisson(2.0), 0.3),
        "HurdleLogits": lambda: dist.HurdleLogits(dist.Poisson(2.0), 0.3),
        "HurdlePoisson": lambda: dist.HurdlePoisson(0.3, 2.0),
        "MixtureSameFamily, of counts": lambda: dist.MixtureSameFamily(
            weights(0.3, 0.7), dist.Poisson(jnp.array([1.0, 5.0]))
        ),
        "MultinomialProbs": lambda: dist.Multinomial(5, probs=jnp.array([0.2, 0.3, 0.5])),
        "MultinomialLogits": lambda: dist.Multinomial(5, logits=jnp.array([0.2, 0.3, 0.5])),
        "NegativeBinomial2": lambda: dist.NegativeBinomial2(2.0, 3.0),
        "NegativeBinomialProbs": lambda: dist.NegativeBinomialProbs(3, 0.3),
        "NegativeBinomialLogits": lambda: dist.NegativeBinomialLogits(3, 0.3),
        "OrderedLogistic": lambda: dist.OrderedLogistic(0.3, jnp.array([-1.0, 0.0, 1.5])),
        "Poisson": lambda: dist.Poisson(2.0),
        "ZeroInflatedProbs": lambda: dist.ZeroInflatedDistribution(dist.Poisson(2.0), gate=0.3),
        "ZeroInflatedLogits": lambda: dist.ZeroInflatedDistribution(dist.Poisson(2.0), gate_logits=0.3),
        "ZeroInflatedPoisson": lambda: dist.ZeroInflatedPoisson(0.3, 2.0),
        "ExpandedDistribution, of counts": lambda: dist.Poisson(2.0).expand([3]),
    }
)

# What is refused as a latent site, with the way out that the error names.
REFUSED = known(
    {
        "Delta": (lambda: dist.Delta(1.0), r"deterministic\('x', value\)"),
        "Delta, expanded": (lambda: dist.Delta(jnp.ones(3), event_dim=1).expand([2]), r"deterministic\('x', value\)"),
        "Delta, in a mixture": (
            lambda: dist.MixtureGeneral(
                weights(0.5, 0.5), [dist.Delta(0.0), dist.Normal(0.0, 1.0)], support=constraints.real
            ),
            "MixtureGeneral is made of Delta.*a discrete site",
        ),
        "Delta, as the start of a path": (
            lambda: dist.EulerMaruyama(jnp.arange(3.0), drift, dist.Delta(0.0)),
            "EulerMaruyama is made of Delta",
        ),
        "Unit": (lambda: dist.Unit(0.3), r"factor\('x', log_factor\)"),
        "HurdleGamma": (lambda: dist.HurdleGamma(0.3, 2.0, 3.0), "two sites"),
        "HurdleLogNormal": (lambda: dist.HurdleLogNormal(0.3, 0.0, 1.0), "two sites"),
        "HurdleProbs, continuous": (lambda: dist.HurdleProbs(dist.Gamma(2.0, 3.0), 0.3), "two sites"),
        "HurdleLogits, continuous": (lambda: dist.HurdleLogits(dist.Gamma(2.0, 3.0), 0.3), "two sites"),
        "LeftCensoredDistribution": (lambda: dist.LeftCensoredDistribution(dist.Normal(0.0, 1.0), True), "base_dist"),
        "RightCensoredDistribution": (lambda: dist.RightCensoredDistribution(dist.Normal(0.0, 1.0), True), "base_dist"),
        "IntervalCensoredDistribution": (
            lambda: dist.IntervalCensoredDistribution(dist.Normal(0.0, 1.0), False, False), "base_dist",
        ),
        "MixtureGeneral, of unequal intervals": (
            lambda: dist.MixtureGeneral(weights(0.5, 0.5), [dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)]),
            "support=",
        ),
        "MixtureSameFamily, of images": (
            lambda: dist.MixtureSameFamily(
                weights(0.5, 0.5),
                dist.TransformedDistribution(dist.Uniform(jnp.zeros(2), 1.0), transforms.AffineTransform(1.0, 2.0)),
            ),
            "a discrete site",
        ),
        "ImproperUniform, without a bijection": (
            uniform(constraints.positive_definite_circulant_vector, 4), "no bijection onto the support",
        ),
    }
)  # fmt: skip
# Classes with no instance: what others derive from.
ABSTRACT = {"Distribution"}

# With integers for parameters, and the same with numbers of floating point: they must not round.
INTEGERS = known(
    {
        "Normal": lambda c: dist.Normal(c(1), c(2)),
        "StudentT": lambda c: dist.StudentT(c(5), c(1), c(2)),
        "Cauchy": lambda c: dist.Cauchy(c(1), c(2)),
        "HalfCauchy": lambda c: dist.HalfCauchy(c(2)),
        "HalfNormal": lambda c: dist.HalfNormal(c(2)),
        "LogNormal": lambda c: dist.LogNormal(c(1), c(2)),
        "Exponential": lambda c: dist.Exponential(c(2)),
        "Gamma": lambda c: dist.Gamma(c(2), c(3)),
        "InverseGamma": lambda c: dist.InverseGamma(c(2), c(3)),
        "Chi2": lambda c: dist.Chi2(c(3)),
        "Weibull": lambda c: dist.Weibull(c(2), c(3)),
        "Gompertz": lambda c: dist.Gompertz(c(2), c(3)),
        "Dagum": lambda c: dist.Dagum(c(2), c(3), c(2)),
        "Laplace": lambda c: dist.Laplace(c(1), c(2)),
        "AsymmetricLaplace": lambda c: dist.AsymmetricLaplace(c(1), c(2), c(3)),
        "SoftLaplace": lambda c: dist.SoftLaplace(c(1), c(2)),
        "Logistic": lambda c: dist.Logistic(c(1), c(2)),
        "Gumbel": lambda c: dist.Gumbel(c(1), c(2)),
        "Pareto": lambda c: dist.Pareto(c(2), c(3)),
        "Levy": lambda c: dist.Levy(c(1), c(2)),
        "LowerTruncatedPowerLaw": lambda c: dist.LowerTruncatedPowerLaw(c(-3), c(2)),
        "DoublyTruncatedPowerLaw": lambda c: dist.DoublyTruncatedPowerLaw(c(-3), c(1), c(4)),
        "Beta": lambda c: dist.Beta(c(2), c(3)),
        "Kumaraswamy": lambda c: dist.Kumaraswamy(c(2), c(3)),
        "Uniform": lambda c: dist.Uniform(c(-1), c(3)),
        "LogUniform": lambda c: dist.LogUniform(c(1), c(3)),
        "RelaxedBernoulliLogits": lambda c: dist.RelaxedBernoulliLogits(c(2), c(1)),
        "LeftTruncatedDistribution": lambda c: dist.TruncatedNormal(c(1), c(2), low=c(0)),
        "RightTruncatedDistribution": lambda c: dist.TruncatedNormal(c(1), c(2), high=c(3)),
        "TwoSidedTruncatedDistribution": lambda c: dist.TruncatedNormal(c(1), c(2), low=c(0), high=c(3)),
        "TwoSidedTruncatedGamma": lambda c: dist.TwoSidedTruncatedGamma(dist.Gamma(c(2), c(3)), c(1), c(3)),
        "VonMises": lambda c: dist.VonMises(c(1), c(2)),
        "Dirichlet": lambda c: dist.Dirichlet(c([1, 2, 3])),
        "MultivariateNormal": lambda c: dist.MultivariateNormal(c([1, 0]), c([[2, 1], [1, 2]])),
        "MultivariateStudentT": lambda c: dist.MultivariateStudentT(c(5), c([1, 0]), c([[2, 0], [1, 2]])),
        "GaussianRandomWalk": lambda c: dist.GaussianRandomWalk(c(2), num_steps=3),
        "LKJCholesky": lambda c: dist.LKJCholesky(3, c(2)),
        "LKJ": lambda c: dist.LKJ(3, c(2)),
        "Wishart": lambda c: dist.Wishart(c(5), scale_matrix=c([[2, 1], [1, 2]])),
        "ZeroSumNormal": lambda c: dist.ZeroSumNormal(c(2), (3,)),
        "ProjectedNormal": lambda c: dist.ProjectedNormal(c([1, 2])),
    }
)


def elementary(support: Any) -> Any:
    """A support without the declarations that some dimensions belong together."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def direct(name: str, distribution: Any, key: Any, number: int) -> Any:
    """Draws that are not those of a sampler, shape (number, ...)."""
    shape = (number, *distribution.shape())
    if name == "MaskedDistribution, in part":
        own = distribution.base_dist.sample(key, (number,))
        return own.at[:, 1].set(jax.random.uniform(jax.random.fold_in(key, 1), (number,)))
    if name == "GaussianCopulaBeta":  # NumPyro's own need another package
        grades = jax.scipy.stats.norm.cdf(dist.MultivariateNormal(0.0, CORRELATION).sample(key, (number,)))
        marginal = distribution.marginal_dist
        return jnp.asarray(stats.beta.ppf(grades, marginal.concentration1, marginal.concentration0))
    if name == "TruncatedPolyaGamma":  # NumPyro's own stop after eight terms of a series of gamma variables
        k = np.arange(1, 201)
        terms = jax.random.exponential(key, (2 * number, 200)) / (2 * np.pi**2 * (k - 0.5) ** 2)
        sums = np.asarray(terms.sum(-1)) + 1 / (2 * np.pi**2 * 200)
        return sums[sums < 2.5][:number]
    if name not in UNIFORM:
        return distribution.sample(key, (number,))
    support = elementary(distribution.support)
    if hasattr(support, "lower_bound"):
        return jax.random.uniform(key, shape, minval=support.lower_bound, maxval=support.upper_bound)
    if support is constraints.sphere:
        return dist.ProjectedNormal(jnp.zeros(shape[1:])).sample(key, (number,))
    if support is constraints.corr_matrix:
        return dist.LKJ(3, 1.0).sample(key, (number,))
    if support is constraints.simplex:
        return dist.Dirichlet(jnp.ones(shape[1:])).sample(key, (number,))
    # The l1 ball in the plane is a square on its corner.
    square = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return 0.5 * jnp.stack([square[:, 0] + square[:, 1], square[:, 0] - square[:, 1]], axis=-1)
