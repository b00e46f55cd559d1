"""`laplace`: the posterior as the normal distribution that it resembles at its mode."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...ad.adtypes import AbstractADType
from ...samplers.approximations.laplace import laplace_at
from ...samplers.approximations.optimization import LBFGS, AbstractOptimizer, Box, best_of
from ...samplers.approximations.pareto import smooth
from ...samplers.hamiltonian import check_integer
from ..model import BoundModel
from .setting import ApproximationWarning, Setting, warn_of_weights


def laplace(
    model: BoundModel,
    *,
    draws: int = 1000,
    adtype: AbstractADType | None = None,
    init: Mapping[str, Any] | None = None,
    starts: int = 4,
    seed: int | None = None,
    method: AbstractOptimizer | None = None,
) -> Any:
    """Approximate the posterior by a normal distribution around its mode in unconstrained space.

        q = N(m, (−∇²log π(m))⁻¹),   log p(y) ≈ log π(m) + ½ d log 2π − ½ log det(−∇²log π(m))

    Args:
        model: a model with its data, `f(data)`.
        draws: from the approximation, mapped into the supports of the sites.
        adtype: how to differentiate; None means the default. The Hessian is by a `SecondOrder` as given, by a
            backend over itself, and otherwise by forward over reverse mode.
        init: initial values by site, as in `optimize`.
        starts: how many points to look for the mode from; the highest is taken.
        seed: a non-negative integer; the same seed gives the same draws. None draws one, which the result records.
        method: `LBFGS()` by default, or `TrustRegion()`; Newton's method takes its last steps.

    Returns:
        An ArviZ object with `posterior`, one chain of `draws` independent draws, and `sample_stats`: `lp`, the log
        density of the unconstrained coordinates as in `sample`, `log_q`, that of the approximation, and `log_weight`,
        their difference. Its attributes hold `log_evidence`, `log_evidence_importance` (the log of the mean weight),
        `pareto_k` of the weights, `log_density` at the mode, `converged`, `adtype`, `hessian_adtype` and the seed.

    Raises:
        TypeError, ValueError: on bad arguments or discrete sites.
        NotNegativeDefiniteError: a ValueError naming the coordinates along which the posterior does not fall.
        DifferentiationError: where the adtype cannot differentiate the model, twice.

    Example:
        `az.summary(laplace(regression(x, y), seed=1))`

    Source: Tierney and Kadane (1986), "Accurate approximations for posterior moments and marginal densities".
    """
    method = LBFGS() if method is None else method
    if not isinstance(method, AbstractOptimizer):
        raise TypeError(f"laplace: method must be LBFGS() or TrustRegion(), got {method!r}.")
    check_integer("laplace", "draws", draws, 1)
    check_integer("laplace", "starts", starts, 1)
    with jax.enable_x64(True):
        setting = Setting.of("laplace", model, init=init, starts=starts, seed=seed)
        target = setting.objective(adtype)
        box = Box.everywhere(target.dimension)
        best = best_of([method.maximize(target, start, box) for start in setting.starts(target)])
        if not best.converged:
            warnings.warn(
                f"laplace: no mode was reached from {starts} start(s) ({best.message}). The approximation is around "
                f"where the search ended. Give `init=` nearer to the mode, or raise max_steps of the method.",
                ApproximationWarning,
                stacklevel=2,
            )
        normal = laplace_at(target, best.position, best.slope)
        positions, log_q = normal.draw(setting.rng(), draws)
        lp = target.log_densities(positions)
        weights = smooth(lp - log_q)
        attrs = {
            "log_evidence": normal.log_evidence,
            "log_evidence_importance": float(np.logaddexp.reduce(lp - log_q)) - math.log(draws),
            "pareto_k": weights.k,
            "log_density": normal.log_density,
            "converged": int(best.converged),
            "message": best.message,
            "hessian_adtype": repr(target.prepared_hessian.adtype),
        }
        statistics = {"lp": lp, "log_q": log_q, "log_weight": lp - log_q}
        result = setting.result(target, method, positions, statistics, attrs)
    warn_of_weights("laplace", weights, "Use `sample`, or reparameterise so that the posterior is closer to normal.")
    return result
