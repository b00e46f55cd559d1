"""`pathfinder`: normal approximations along the paths of an optimiser; and the same as starting points of chains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ...ad.adtypes import AbstractADType, check_adtype
from ...samplers.approximations.objective import HostArray, Objective
from ...samplers.approximations.pathfinder import Path, draw_from_paths, find_path
from ...samplers.hamiltonian import check_integer
from ..initialization import AbstractStart, check_initial_values
from ..log_density import TracedModel
from ..model import BoundModel
from ..trace import Trace
from .setting import Setting, warn_of_weights

# Starts that a path may have before it is given up: one in which no approximation has a finite bound is drawn anew.
_TRIES = 10


def pathfinder(
    model: BoundModel,
    *,
    draws: int = 1000,
    paths: int = 4,
    adtype: AbstractADType | None = None,
    init: Mapping[str, Any] | None = None,
    seed: int | None = None,
    memory: int = 6,
    elbo_draws: int = 25,
    max_steps: int = 1000,
) -> Any:
    """Approximate the posterior by the best normal distributions along several paths of L-BFGS.

    At every point of a path the last steps make a normal distribution q; of these the one with the highest evidence
    lower bound  E_q[log π − log q]  is kept. With one path the draws are from it. With several they are drawn from all
    and resampled by Pareto smoothed importance weights, so that a path that ended in a minor mode counts for little.

    Args:
        model: a model with its data, `f(data)`.
        draws: in the result.
        paths: how many, each from a start of its own.
        adtype: how to differentiate; None means the default.
        init: initial values by site, of the site's shape or with a leading dimension of length `paths`. Other sites
            start at Uniform(−2, 2) in unconstrained space.
        seed: a non-negative integer; the same seed gives the same draws. None draws one, which the result records.
        memory: how many of the last steps of a path tell the covariance, whose rank is twice that.
        elbo_draws: that estimate each lower bound.
        max_steps: of each path.

    Returns:
        An ArviZ object with `posterior`, one chain of `draws` draws, and `sample_stats`: `lp`, the log density of the
        unconstrained coordinates as in `sample`, `log_q`, that of the normal distribution that a draw is from, and
        `path`, its number; with one path `log_weight`, their difference. Its attributes hold `pareto_k` of the weights,
        `elbo`, `steps` and `chosen_step` of each path, `adtype`, `adtype_reason` and the seed.

    Raises:
        TypeError, ValueError: on bad arguments, discrete sites, or where no path finds an approximation.
        DifferentiationError: where the adtype cannot differentiate the model.

    Example:
        `az.summary(pathfinder(schools(y, sigma), paths=8, seed=1))`

    Source: Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder: parallel quasi-Newton variational inference".
    """
    settings = FromPathfinder(1, memory, elbo_draws, max_steps)
    check_integer("pathfinder", "draws", draws, 1)
    check_integer("pathfinder", "paths", paths, 1)
    with jax.enable_x64(True):
        setting = Setting.of("pathfinder", model, init=init, starts=paths, seed=seed)
        target = setting.objective(adtype)
        found = [_path(setting, target, settings, i, np.random.default_rng([setting.seed, 1, i])) for i in range(paths)]
        drawn = draw_from_paths(target, found, setting.rng(), draws)
        attrs = {
            "paths": paths,
            "pareto_k": drawn.weights.k,
            "elbo": np.array([path.elbo for path in found]),
            "steps": np.array([path.steps for path in found]),
            "chosen_step": np.array([path.chosen for path in found]),
        }
        statistics = {"lp": drawn.log_density, "log_q": drawn.log_q, "path": drawn.path}
        if paths == 1:
            statistics["log_weight"] = drawn.log_density - drawn.log_q
        algorithm = f"pathfinder(paths={paths}, memory={memory})"
        result = setting.result(target, algorithm, drawn.positions, statistics, attrs)
    remedy = "Take the draws for starting points only (sample(..., init=FromPathfinder())), or reparameterise."
    warn_of_weights("pathfinder", drawn.weights, remedy)
    return result


@dataclass(frozen=True)
class FromPathfinder(AbstractStart):
    """Chains start at draws from Pathfinder's approximation: `sample(model, init=FromPathfinder())`.

    Each chain follows paths of its own, so chain i depends on the seed and i only, and starts stay as far apart as the
    paths end.

    Args:
        paths: of each chain; with several, it starts at draws resampled by their importance weights.
        memory, elbo_draws, max_steps: as in `pathfinder`.
        adtype: how to differentiate; None means that of `sample`, or the default.

    Raises:
        ValueError, TypeError: on a number that is not a positive integer, or what is no adtype.
    """

    paths: int = 1
    memory: int = 6
    elbo_draws: int = 25
    max_steps: int = 1000
    adtype: AbstractADType | None = None

    def __post_init__(self) -> None:
        for name in ("paths", "memory", "elbo_draws", "max_steps"):
            check_integer("pathfinder", name, getattr(self, name), 1)
        if self.adtype is not None:
            check_adtype(self.adtype, "FromPathfinder: adtype")

    def proposals(
        self, model: BoundModel, found: Trace, traced: TracedModel, seed: int, chain: int, count: int = 100
    ) -> Iterator[HostArray]:
        """Positions where a chain may start, shape (dimension,) each.

        Args:
            model: the model.
            found: its sites.
            traced: the same, traced.
            seed: of the run.
            chain: its number.
            count: how many positions.

        Raises:
            ValueError: naming the site where one is discrete, and where no path finds an approximation.
        """
        # A seed of the chain's own, from which its paths have theirs.
        own = int(np.random.SeedSequence([seed, chain]).generate_state(1, np.uint64)[0])
        given = check_initial_values(model, None, found, self.paths)
        setting = Setting("init=FromPathfinder()", model, found, traced, given, own)
        target = setting.objective(self.adtype)
        rng = setting.rng()
        paths = [_path(setting, target, self, number, rng) for number in range(self.paths)]
        yield from draw_from_paths(target, paths, rng, count).positions


def _path(setting: Setting, target: Objective, settings: FromPathfinder, number: int, rng: np.random.Generator) -> Path:
    """The approximation of one path, from the first start that leads to one."""
    for tries, start in enumerate(setting.points(target, number), 1):
        path = find_path(
            target,
            start,
            rng,
            memory=settings.memory,
            elbo_draws=settings.elbo_draws,
            max_steps=settings.max_steps,
        )
        if path is not None:
            return path
        if tries == _TRIES:
            break
    raise ValueError(
        f"{setting.owner}: path {number} found no normal approximation with a finite log density at all its draws. "
        f"Give `init=` values nearer to the posterior, look at the model with check_gradients, or use `sample`."
    )
