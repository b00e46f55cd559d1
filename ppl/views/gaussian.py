"""Conjugate updates of Normal sites: all terms are squares of residuals that are affine in the block.

For a block x, each Normal site that has to do with it, as one of its own sites or as a child of one, contributes
-½ ‖r(x)‖² with the residual r = (value - loc) / scale, or L⁻¹ (value - loc) for a multivariate one with covariance
L Lᵀ. Where every residual is affine in x, r(x) = r(0) + J x, the conditional is

    x | rest ~ Normal(-P⁻¹ Jᵀ r(0), P⁻¹),    P = Jᵀ J,

the distribution of a linear least-squares problem. Where each residual depends on one coordinate at most, P is
diagonal, P = Jᵀ (J 1), which one pass forward and one back through the program compute without any matrix.

Source: Lindley and Smith (1972), "Bayes estimates for the linear model"; Gelman et al. (2013), "Bayesian Data
Analysis", chapter 15, which writes a prior as further rows of a regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from numpyro.distributions import Distribution

from ...ad.forward import AutoForward
from ...ad.operators import value_and_jacobian
from ...samplers.random import normal
from ..blocks.coordinates import Array
from ..blocks.density import AbstractBlockDensity
from ..transforms import describe
from .factors import AbstractUpdate, Factor, Factors, quoted, size_of
from .forms import Affine, Form, Monomial, Other, added, forms
from .priors import innermost

# What the spread of each family is called.
NORMAL: dict[type[Distribution], str] = {dist.Normal: "scale", dist.MultivariateNormal: "scale_tril"}

# Of the precision matrix, which is factorised at every update.
_LIMIT = 1000


@dataclass(frozen=True)
class LeastSquares(AbstractUpdate):
    """Draws a block from the Gaussian that residuals affine in it define.

    Args:
        separate: sites of whose residual each element depends on one coordinate of the block at most.
        coupled: the others.
    """

    separate: tuple[Factor, ...]
    coupled: tuple[Factor, ...]

    def draw(self, key: Array, density: AbstractBlockDensity, constants: Sequence[Any]) -> Array:
        """See `AbstractUpdate.draw`."""
        mean, root = self.conditional(density, constants)
        noise = normal(key, density.dimension, mean.dtype)
        return mean + (noise / root if root.ndim == 1 else solve_triangular(root, noise, trans=1, lower=True))

    def conditional(self, density: AbstractBlockDensity, constants: Sequence[Any]) -> tuple[Array, Array]:
        """The mean, shape (dimension,), and a root L of the precision P = L Lᵀ.

        Returns:
            The mean, and L: lower triangular, shape (dimension, dimension), or its diagonal, shape (dimension,), where
            the coordinates are independent.
        """
        origin = jnp.zeros(density.dimension)

        def separate(x: Array) -> list[Array]:
            return _residuals(self.separate, density, x, constants)

        def coupled(x: Array, *constants: Any) -> Array:
            return jnp.concatenate([jnp.ravel(r) for r in _residuals(self.coupled, density, x, constants)])

        residuals, pull = jax.vjp(separate, origin)
        slopes = jax.jvp(separate, (origin,), (jnp.ones_like(origin),))[1]
        (gradient,), (precision,) = pull(residuals), pull(slopes)
        if not self.coupled:
            return -gradient / precision, jnp.sqrt(precision)
        rest, matrix = value_and_jacobian(coupled, AutoForward(), origin, *constants)
        root = jnp.linalg.cholesky(matrix.T @ matrix + jnp.diag(precision))
        return -cho_solve((root, True), gradient + matrix.T @ rest), root


def least_squares(block: Factors) -> LeastSquares:
    """The update of a block of Normal sites.

    Raises:
        ValueError: naming the site and the reason, where its conditional is not found to be Gaussian.
    """
    dimension = sum(size_of(variable) for variable in block.variables)
    alone = dimension == 1
    found = forms(block.program, dict.fromkeys(block.variables, Monomial()), positive=False, alone=alone)
    separate: list[Factor] = []
    coupled: list[Factor] = []
    for factor in [*(block.known[site] for site in block.own), *block.children(found)]:
        family = innermost(factor.distribution(found))
        residual = _form_of_residual(block, factor, family, found[factor.value], alone)
        apart = alone or (type(family) is dist.Normal and isinstance(residual, Affine) and residual.single)
        (separate if apart else coupled).append(factor)
    if coupled and dimension > _LIMIT:
        raise block.refused(
            f"the density of {quoted(factor.name for factor in coupled)} couples the {dimension} coordinates of "
            f"{block.title}, and a matrix of that size would be factorised at every update, which goes up to {_LIMIT}"
        )
    return LeastSquares(tuple(separate), tuple(coupled))


def _form_of_residual(block: Factors, factor: Factor, family: Any, value: Form, alone: bool) -> Form:
    """How value - loc depends on the block, where the rest of the distribution does not."""
    if type(family) not in NORMAL:
        raise block.refused(
            f"{block.title} is Normal, but its child '{factor.name}' is {describe(family)}, and only Normal and "
            f"MultivariateNormal children are conjugate to it"
        )
    spread = NORMAL[type(family)]
    if getattr(family, spread) is not None:
        raise block.refused(f"the {spread} of '{factor.name}' depends on {block.title}")
    for what, form in (("value", value), ("location", family.loc)):
        if isinstance(form, Other):
            raise block.refused(f"the {what} of '{factor.name}' is not affine in {block.title} ({form.by})")
    residual = added(value, family.loc, "sub", alone=alone)
    if residual is None:
        raise block.refused(f"the density of '{factor.name}' depends on {block.title} in an unknown way")
    return residual


def _residuals(
    factors: Sequence[Factor], density: AbstractBlockDensity, position: Array, constants: Sequence[Any]
) -> list[Array]:
    """(value - loc) / scale of each of the factors."""
    numbers = [i for factor in factors for i in factor.outputs]
    program = density.given.after.select(numbers)
    results = dict(zip(numbers, program(*density.coordinates.split(position), *constants), strict=True))
    residuals = []
    for factor in factors:
        distribution = factor.distribution(results)
        family: Any = innermost(distribution)
        difference = results[factor.value] - jnp.broadcast_to(family.loc, distribution.shape())
        if type(family) is dist.Normal:
            residuals.append(difference / family.scale)
        else:
            root = jnp.broadcast_to(family.scale_tril, (*distribution.shape(), difference.shape[-1]))
            white = lax.linalg.triangular_solve(root, difference[..., None], left_side=True, lower=True)
            residuals.append(white[..., 0])
    return residuals
