"""Are the transcriptions right? Each log density against the hand-written one, up to a constant, at random points.

The hand-written ones themselves are held against the reference log densities of posteriordb, where there are some.
Run with `python -m benchmarks.peers.check`; the PyMC models are checked where PyMC is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .densities import DENSITIES
from .problems import PROBLEMS, Posteriordb, Problem
from .systems import PYMC_LACKS
from .transforms import Density

Values = Mapping[str, Any]

POINTS = 4
# Relative to the spread of the log density over the points. The references of the ODE and of the GP with a jitter of
# 1e-10 are known to no more digits.
TOLERANCES = {"lotka_volterra": 1e-6, "gp_pois": 1e-6}
# The Jacobian of what a library's model has instead of one of Stan's parameters: share = beta1 / (1 − alpha1).
SUBSTITUTIONS: dict[str, Callable[[Values], Any]] = {"garch": lambda values: jnp.log1p(-values["alpha1"])}


def positions(density: Density) -> np.ndarray[Any, Any]:
    """Random points, near zero so that no covariance matrix is singular."""
    return np.random.default_rng(5).uniform(-0.7, 0.7, (POINTS, density.dimension))


def deviation(found: list[float], expected: list[float]) -> float:
    """The largest difference but for a constant, relative to the spread of what is expected."""
    difference = np.array(found) - np.array(expected)
    return float(np.ptp(difference) / max(np.ptp(expected), 1.0))


def against_reference(problem: Problem, density: Density) -> float | None:
    """The hand-written density against posteriordb's, Jacobians included; None where there are no points."""
    points = problem.source.points() if isinstance(problem.source, Posteriordb) else []
    if not points:
        return None
    found = [float(density.log_density(jnp.array(point["unconstrained"]))) for point in points]
    return deviation(found, [point["logp"] + point["log_jacobian"] for point in points])


def joints(problem: Problem, density: Density) -> tuple[list[dict[str, Any]], list[float]]:
    """Constrained values at random points, and the log joint density there, without Jacobians."""
    values = [density.constrain(jnp.array(q)) for q in positions(density)]
    return values, [float(density.log_joint(v)) for v in values]


def of_numpyro(problem: Problem, density: Density) -> float:
    """NumPyro's model."""
    from numpyro.infer.util import log_density

    from .numpyro_models import MODELS

    model = MODELS[problem.name](problem.data)
    values, expected = joints(problem, density)
    found = []
    for v in values:
        own = v | {"share": v["beta1"] / (1.0 - v["alpha1"])} if problem.name == "garch" else v
        joint = float(log_density(model, (), {}, own)[0])
        found.append(joint - float(SUBSTITUTIONS.get(problem.name, lambda _: 0.0)(v)))
    return deviation(found, expected)


def of_dualtape(problem: Problem, density: Density) -> float:
    """The model of dualtape, from points in its own coordinates."""
    from dualtape.ppl.interpreters import discover
    from dualtape.ppl.log_density import trace_model

    from .dualtape_models import bind

    bound = bind(problem)
    traced = trace_model(bound, discover(bound))
    found, expected = [], []
    for q in np.random.default_rng(5).uniform(-0.7, 0.7, (POINTS, traced.density.dimension)):
        terms = traced.density.by_term(jnp.array(q), *traced.data)
        found.append(sum(float(term) for name, term in terms.items() if not name.startswith("log|J|")))
        values = dict(traced.constrained(jnp.array(q), *traced.data))
        # The library's own eight schools call Stan's theta_trans z.
        values |= {"theta_trans": values["z"]} if "z" in values else {}
        expected.append(float(density.log_joint(values)))
    return deviation(found, expected)


def of_pymc(problem: Problem, density: Density) -> float:
    """PyMC's model, from points in its own coordinates."""
    import pymc as pm

    from .pymc_models import MODELS

    with pm.Model() as model:
        MODELS[problem.name](problem.data)
    names = [variable.name for variable in model.unobserved_value_vars]
    evaluate = model.compile_fn([model.logp(jacobian=False), *model.unobserved_value_vars], inputs=model.value_vars)
    rng = np.random.default_rng(5)
    found, expected = [], []
    for _ in range(POINTS):
        point = {name: rng.uniform(-0.7, 0.7, np.shape(value)) for name, value in model.initial_point().items()}
        joint, *arrays = evaluate(point)
        values = {name: jnp.asarray(array) for name, array in zip(names, arrays, strict=True)}
        found.append(float(joint) - float(SUBSTITUTIONS.get(problem.name, lambda _: 0.0)(values)))
        expected.append(float(density.log_joint(values)))
    return deviation(found, expected)


def deviations(problem: Problem) -> Iterator[tuple[str, float]]:
    """By transcription, how far it is off."""
    density = DENSITIES[problem.name](problem.data)
    reference = against_reference(problem, density)
    if reference is not None:
        yield "reference", reference
    yield "dualtape", of_dualtape(problem, density)
    yield "numpyro", of_numpyro(problem, density)
    if importlib.util.find_spec("pymc") and problem.name not in PYMC_LACKS:
        yield "pymc", of_pymc(problem, density)


def main() -> None:
    """Print every deviation; fail where one is too large."""
    jax.config.update("jax_enable_x64", True)
    bad = []
    for name in sys.argv[1:] or PROBLEMS:
        found = dict(deviations(PROBLEMS[name]))
        print(f"{name:>16}  " + "  ".join(f"{what} {value:.1e}" for what, value in found.items()), flush=True)
        bad += [f"{name}: {what}" for what, value in found.items() if not value < TOLERANCES.get(name, 1e-9)]
    if bad:
        raise SystemExit(f"these are not the same model: {', '.join(bad)}")


if __name__ == "__main__":
    main()
