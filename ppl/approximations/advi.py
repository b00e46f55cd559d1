"""`advi`: the normal distribution next to the posterior, by stochastic gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...ad.adtypes import AbstractADType
from ...samplers.approximations.families import AbstractFamily, MeanField
from ...samplers.approximations.pareto import smooth
from ...samplers.approximations.variational import Schedule, fit
from ...samplers.hamiltonian import check_integer, is_number
from ..model import BoundModel
from .setting import ApproximationWarning, Setting, warn_of_weights

# Segments of the trace of the lower bound.
_SEGMENTS = 100


def advi(
    model: BoundModel,
    family: AbstractFamily | None = None,
    *,
    steps: int = 5000,
    draws: int = 1000,
    learning_rate: float = 0.05,
    gradient_draws: int = 8,
    adtype: AbstractADType | None = None,
    init: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Any:
    """Approximate the posterior by the normal distribution in unconstrained space with the highest lower bound.

        ELBO(q) = E_q[log π(x) − log q(x)] = log p(y) − KL(q ‖ π)

    Args:
        model: a model with its data, `f(data)`.
        family: `MeanField()` by default, independent coordinates; or `FullRank()`, any covariance.
        steps: of Adam.
        draws: from the approximation, mapped into the supports of the sites.
        learning_rate: of the first step, in unconstrained coordinates; it falls to zero along a cosine.
        gradient_draws: that each gradient is averaged over.
        adtype: how to differentiate the log density; None means the default.
        init: initial values by site, for the first mean. Other sites start at Uniform(−2, 2) in unconstrained space.
        seed: a non-negative integer; the same seed gives the same draws. None draws one, which the result records.

    Returns:
        An ArviZ object with `posterior`, one chain of `draws` independent draws, and `sample_stats`: `lp`, the log
        density of the unconstrained coordinates as in `sample`, `log_q`, that of the approximation, and `log_weight`,
        their difference. Its attributes hold `elbo` (estimated from the draws), `elbo_trace` (means over up to 100
        segments of the climb), `converged` (1 or 0), `offset` (the slope of the lower bound at the end in standard
        deviations of q, largest over coordinates), `pareto_k` of the weights, `adtype`, `adtype_reason` and the seed.

    Raises:
        TypeError, ValueError: on bad arguments, discrete sites, or where no starting point is found.
        DifferentiationError: where the adtype cannot differentiate the model.

    Example:
        `advi(gdemo(1.5, 2.0), FullRank(), seed=1)`

    Source: Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), "Automatic differentiation variational inference"; Yao,
    Vehtari, Simpson and Gelman (2018), "Yes, but did it work?", for k-hat.
    """
    family = MeanField() if family is None else family
    if not isinstance(family, AbstractFamily):
        raise TypeError(f"advi: family must be MeanField() or FullRank(), got {family!r}.")
    for name, value in (("steps", steps), ("draws", draws), ("gradient_draws", gradient_draws)):
        check_integer("advi", name, value, 1)
    if not (is_number(learning_rate) and 0 < learning_rate < math.inf):
        raise ValueError(f"advi: learning_rate must be a positive number, got {learning_rate!r}; 0.05 is usual.")
    with jax.enable_x64(True):
        setting = Setting.of("advi", model, init=init, starts=1, seed=seed)
        target = setting.objective(adtype)
        schedule = Schedule(steps, gradient_draws, float(learning_rate))
        found = fit(target, family, setting.start(target, 0), schedule, setting.seed)
        positions, log_q = found.draw(setting.rng(), draws)
        lp = target.log_densities(positions)
        weights = smooth(lp - log_q)
        segments = np.array_split(found.elbo, min(_SEGMENTS, steps))
        attrs = {
            "family": repr(family),
            "steps": steps,
            "elbo": float(np.mean(lp - log_q)),
            "elbo_trace": np.array([np.mean(segment) for segment in segments]),
            "converged": int(found.converged),
            "offset": found.offset,
            "skipped_steps": found.skipped,
            "pareto_k": weights.k,
        }
        algorithm = f"advi({family!r}, steps={steps}, learning_rate={learning_rate})"
        statistics = {"lp": lp, "log_q": log_q, "log_weight": lp - log_q}
        result = setting.result(target, algorithm, positions, statistics, attrs)
    if not found.converged:
        skipped = f", and {found.skipped} of {steps} steps had no finite gradient" if found.skipped else ""
        warnings.warn(
            f"advi: the climb of the lower bound has not ended: its slope would move q by {found.offset:.2g} standard "
            f"deviations{skipped}. Raise steps or learning_rate, or give `init=` nearer to the posterior.",
            ApproximationWarning,
            stacklevel=2,
        )
    wider = "Try FullRank() where coordinates are correlated, use" if isinstance(family, MeanField) else "Use"
    warn_of_weights("advi", weights, f"{wider} `sample`, or reparameterise so that the posterior is closer to normal.")
    return result
