"""Pathfinder: of the normal approximations along the path of L-BFGS, the one next to the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .factored_normal import FactoredNormal, normals_along
from .objective import HostArray, Objective
from .optimization import LBFGS, Box
from .pareto import Smoothed, smooth


@dataclass(frozen=True)
class Path:
    """What one path has found.

    Args:
        normal: the best approximation along it.
        elbo: the evidence lower bound of that, E_q[log π − log q], as estimated.
        steps: how many points the path has.
        chosen: the number of the point that the approximation belongs to.
    """

    normal: FactoredNormal
    elbo: float
    steps: int
    chosen: int


def find_path(
    objective: Objective, start: HostArray, rng: np.random.Generator, *, memory: int, elbo_draws: int, max_steps: int
) -> Path | None:
    """Follow L-BFGS from a point and keep the approximation with the highest evidence lower bound.

    Args:
        objective: the log density.
        start: where it is finite, shape (dimension,).
        rng: for the draws that estimate the bound.
        memory: how many of the last steps tell the curvature.
        elbo_draws: from each approximation.
        max_steps: of L-BFGS.

    Returns:
        None where no approximation has a finite bound.

    Source: Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder: parallel quasi-Newton variational inference".
    """
    points: list[tuple[HostArray, HostArray]] = []
    LBFGS(max_steps=max_steps, memory=memory).maximize(
        objective,
        start,
        Box.everywhere(objective.dimension),
        watch=lambda position, _, gradient: points.append((position, gradient)),
    )
    best: Path | None = None
    for number, (_, normal) in enumerate(normals_along(points, memory), 1):
        if normal is None:
            continue
        positions, log_q = normal.draw(rng, elbo_draws)
        elbo = float(np.mean(objective.log_densities(positions) - log_q))
        if math.isfinite(elbo) and (best is None or elbo > best.elbo):
            best = Path(normal, elbo, len(points) - 1, number)
    return best


@dataclass(frozen=True)
class PathfinderDraws:
    """Draws from one approximation, or resampled from those of several.

    Args:
        positions: shape (draws, dimension).
        log_density: of the target at each, shape (draws,).
        log_q: of the approximation that each comes from, shape (draws,).
        path: its number, shape (draws,).
        weights: of all that were drawn before resampling.
    """

    positions: HostArray
    log_density: HostArray
    log_q: HostArray
    path: HostArray
    weights: Smoothed


def draw_from_paths(
    objective: Objective, paths: Sequence[Path], rng: np.random.Generator, draws: int
) -> PathfinderDraws:
    """Draws from the approximations of paths.

    From one path they are draws from its normal distribution. From several, each gives `draws` draws, of which as many
    are chosen with probabilities in proportion to their Pareto smoothed importance weights, with replacement.

    Args:
        objective: the log density.
        paths: one or several.
        rng: of this run.
        draws: how many.
    """
    drawn = [path.normal.draw(rng, draws) for path in paths]
    positions = np.concatenate([own for own, _ in drawn])
    log_q = np.concatenate([own for _, own in drawn])
    number = np.repeat(np.arange(len(paths)), draws)
    log_density = objective.log_densities(positions)
    weights = smooth(log_density - log_q)
    chosen = np.arange(draws)
    if len(paths) > 1:
        probabilities = np.exp(weights.log_weights)
        chosen = rng.choice(len(positions), draws, p=probabilities / probabilities.sum())
    return PathfinderDraws(positions[chosen], log_density[chosen], log_q[chosen], number[chosen], weights)
