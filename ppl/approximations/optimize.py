"""`optimize`: the mode of the posterior, or the maximum of the likelihood, inside bounds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...ad.adtypes import AbstractADType
from ...samplers.approximations.objective import Objective
from ...samplers.approximations.optimization import LBFGS, AbstractOptimizer, best_of
from ...samplers.hamiltonian import check_integer
from ..initialization import proposals
from ..model import BoundModel
from .bounds import Bounds, box_of
from .objectives import MAP, AbstractObjective
from .setting import ApproximationWarning, Setting

# A derivative can be zero at one point by chance; hardly at three drawn ones.
_POINTS = 3


def optimize(
    model: BoundModel,
    objective: AbstractObjective | None = None,
    *,
    adtype: AbstractADType | None = None,
    init: Mapping[str, Any] | None = None,
    bounds: Bounds | None = None,
    starts: int = 4,
    seed: int | None = None,
    method: AbstractOptimizer | None = None,
) -> Any:
    """Find the most probable, or the most likely, values of the latent sites.

        MAP: argmax_θ log p(y | θ) + log p(θ),      MLE: argmax_θ log p(y | θ)

    Args:
        model: a model with its data, `f(data)`.
        objective: `MAP()` by default, the mode of the density of the parameters as the model declares them;
            `MAP(jacobian=True)`, the mode in unconstrained space; or `MLE()`.
        adtype: how to differentiate; None means the default, as in `sample`.
        init: initial values by site, in the support of the site: of its shape, or with a leading dimension of length
            `starts`. Other sites start at Uniform(−2, 2) in unconstrained space.
        bounds: by site, `(lower, upper)` on its values: numbers, arrays that broadcast to its shape, or None.
        starts: how many points to climb from; the highest maximum is returned.
        seed: a non-negative integer; the same seed gives the same result. None draws one, which the result records.
        method: `LBFGS()` by default, or `TrustRegion()`, without bounds.

    Returns:
        An ArviZ object whose `posterior` has one chain with one draw: latent sites and deterministics at the maximum.
        Its attributes hold `log_density` there (what was maximised), `converged` (1 or 0), `message`, `evaluations` of
        the gradient over all starts, `gradient_norm` (its largest component inside the bounds), `start_log_densities`
        (where each start ended; starts at one point count once), `objective`, `adtype`, `adtype_reason` and the seed.

    Raises:
        TypeError, ValueError: on bad arguments, discrete sites, bounds that are no box, or a likelihood that does not
            depend on a site (`MLE`); naming it.
        DifferentiationError: where the adtype cannot differentiate the model.

    Example:
        `optimize(gdemo(1.5, 2.0), MLE(), bounds={"s": (0.1, 5.0)})`

    Source: Nocedal and Wright (2006), "Numerical Optimization", chapters 4, 7 and 9.
    """
    objective = MAP() if objective is None else objective
    method = LBFGS() if method is None else method
    if not isinstance(objective, AbstractObjective):
        raise TypeError(f"optimize: objective must be MAP() or MLE(), got {objective!r}.")
    if not isinstance(method, AbstractOptimizer):
        raise TypeError(f"optimize: method must be LBFGS() or TrustRegion(), got {method!r}.")
    if bounds and not method.bounds:
        raise ValueError(f"optimize: {method!r} has no bounds; leave out method= for LBFGS(), which has.")
    check_integer("optimize", "starts", starts, 1)
    with jax.enable_x64(True):
        setting = Setting.of("optimize", model, init=init, starts=starts, seed=seed)
        target = setting.objective(adtype, objective.terms(setting.traced))
        box = box_of(setting, bounds)
        flat = _flat_sites(setting, target)
        optima = [method.maximize(target, start, box) for start in setting.starts(target)]
        best = best_of(optima)
        attrs = {
            "objective": repr(objective),
            "log_density": best.log_density,
            "converged": int(best.converged),
            "message": best.message,
            "evaluations": sum(optimum.evaluations for optimum in optima),
            "gradient_norm": best.slope,
            "start_log_densities": np.array([optimum.log_density for optimum in optima]),
        }
        result = setting.result(target, method, best.position[None], {}, attrs)
    if flat:
        warnings.warn(
            f"optimize: what is maximised does not change with {', '.join(flat)}, whose "
            f" values in the result are those of a start. Give them priors that are not flat, or values: fix(...).",
            ApproximationWarning,
            stacklevel=2,
        )
    if not best.converged:
        warnings.warn(
            f"optimize: no maximum was reached from {len(optima)} start(s) ({best.message}). At the end the largest "
            f"component of the gradient is {best.slope:.2g} and the log density {best.log_density:.6g}. Give `init=` "
            f"nearer to the maximum or `bounds=`, raise max_steps of the method, or look whether the density has a "
            f"maximum at all: that of a hierarchical model often rises without end as a scale goes to zero.",
            ApproximationWarning,
            stacklevel=2,
        )
    return result


def _flat_sites(setting: Setting, target: Objective) -> list[str]:
    """Sites, in quotes, that the gradient does not see at some points drawn for it."""
    seen, points = np.zeros(target.dimension, bool), 0
    rng = np.random.default_rng([setting.seed, 1 << 33])
    for position in proposals(setting.model, setting.traced, {}, rng, setting.dtype):
        value, gradient = target.value_and_gradient(position)
        if np.isfinite(value) and np.isfinite(gradient).all():
            seen |= gradient != 0
            points += 1
        if points == _POINTS or seen.all():
            break
    slices = setting.traced.density.coordinates.slices
    return [f"'{site}'" for site, stretch in slices.items() if points == _POINTS and not seen[stretch].any()]
