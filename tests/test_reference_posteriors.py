"""Log densities, gradients and samples against the reference posteriors of posteriordb.

The reference set is read in place, from the folder that the environment variable DUALTAPE_POSTERIORDB names or else
from `shared/posteriordb` beside the repository; without it there is nothing to compare with.
"""

import json
import os
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from dualtape import AutoForward, AutoReverse, SamplingWarning, sample
from dualtape.ad import value_and_gradient
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from reference_models import CASES
from scipy.stats import norm

with warnings.catch_warnings():
    # ArviZ 0.23 announces its successor on import, once a day.
    warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
    import arviz as az

ROOT = Path(os.environ.get("DUALTAPE_POSTERIORDB") or Path(__file__).parents[2] / "shared" / "posteriordb")
if not ROOT.is_dir():
    pytest.skip(f"no reference posteriors at {ROOT}: set DUALTAPE_POSTERIORDB to them", allow_module_level=True)

CHAINS = 4
SEED = 1
MODES = (AutoForward(), AutoReverse())
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_mode = pytest.mark.parametrize("adtype", MODES, ids=lambda adtype: type(adtype).__name__)


def read(case, file):
    return json.loads((ROOT / case.name / f"{file}.json").read_text())


# How often all runs together may fail although every sampler is right, at the level of the standard normal z that
# stays within it: Bonferroni, over two moments of each component in each mode. The seed is fixed, so that the luck
# is drawn once for every version of JAX.
FALSE_ALARMS = 1e-4
COMPARISONS = sum(2 * len(read(case, "reference")["components"]) for case in CASES) * len(MODES)
LIMIT = norm.isf(FALSE_ALARMS / COMPARISONS / 2)


def scores(draws, reference):
    """Errors of the means and the mean squares, in joint Monte Carlo standard errors of both sides.

    Args:
        draws: by component, shape (chains, draws).
        reference: by component, the moments and their standard errors.
    """
    z = []
    for name, known in reference.items():
        for moment, values in (("mean", draws[name]), ("mean_sq", draws[name] ** 2)):
            error = np.hypot(az.mcse(values, method="mean"), known[f"mcse_{moment}"])
            z.append((np.mean(values) - known[moment]) / error)
    return np.array(z)


def by_component(posterior):
    """The draws under Stan's names, `theta[1]` and so on; of shape (chains, draws)."""
    found = {}
    for name, variable in posterior.data_vars.items():
        values = variable.values
        if values.ndim == 2:
            found[name] = values
        else:
            found |= {f"{name}[{i + 1}]": values[..., i] for i in range(values.shape[-1])}
    return found


def relative_error(value, expected):
    return np.max(np.abs(value - expected) / np.maximum(1.0, np.abs(expected)))


@each_case
@each_mode
def test_log_density_and_gradient_are_those_of_the_reference(case, adtype):
    points = read(case, "reference")["log_density"]["points"]
    assert points
    with jax.enable_x64(True):
        bound = case.bind(read(case, "data"))
        traced = trace_model(bound, discover(bound))
        density = traced.density
        indices = np.arange(density.dimension)
        order = np.concatenate([indices[density.coordinates.slices[name]] for name in case.parameters])
        gradient_of = jax.jit(lambda q: value_and_gradient(lambda q: density.log_density(q, *traced.data), adtype, q))
        for point in points:
            position = np.empty(density.dimension)
            position[order] = point["unconstrained"]
            value, gradient = gradient_of(position)
            terms = density.by_term(position, *traced.data)
            log_jacobian = sum(float(term) for name, term in terms.items() if name.startswith("log|J| "))
            expected = point["logp"] + case.half_priors * np.log(2.0)
            assert relative_error(log_jacobian, point["log_jacobian"]) < 1e-8
            assert relative_error(value - log_jacobian, expected) < 1e-8
            assert relative_error(gradient[order], np.array(point["grad_unconstrained"])) < 1e-8


@each_case
@each_mode
def test_draws_have_the_moments_of_the_reference(case, adtype):
    with warnings.catch_warnings():
        # Divergences are counted below, against the share that this posterior may have.
        warnings.simplefilter("ignore", SamplingWarning)
        idata = sample(case.bind(read(case, "data")), case.sampler, case.draws, chains=CHAINS, seed=SEED, adtype=adtype)
    draws = by_component(idata["posterior"])
    z = scores(draws, read(case, "reference")["components"])
    worst_rhat = max(float(az.rhat(values)) for values in draws.values())
    divergent = float(np.mean(idata["sample_stats"]["diverging"].values))
    assert np.max(np.abs(z)) < LIMIT
    assert worst_rhat < 1.01
    assert divergent <= case.divergent


def simulated(case):
    """Independent normal draws with the means and standard deviations of the reference, by component."""
    rng = np.random.default_rng(SEED)
    components = read(case, "reference")["components"]
    return components, {name: rng.normal(c["mean"], c["sd"], (CHAINS, 2000)) for name, c in components.items()}


@each_case
def test_the_score_accepts_right_draws(case):
    reference, draws = simulated(case)
    assert np.max(np.abs(scores(draws, reference))) < LIMIT


@each_case
def test_the_score_rejects_draws_that_are_shrunk(case):
    reference, draws = simulated(case)
    shrunk = {name: 0.9 * values for name, values in draws.items()}
    assert np.max(np.abs(scores(shrunk, reference))) > LIMIT


@each_case
def test_the_score_rejects_draws_that_are_shifted(case):
    reference, draws = simulated(case)
    shifted = {name: values + 0.1 * reference[name]["sd"] for name, values in draws.items()}
    assert np.max(np.abs(scores(shifted, reference))) > LIMIT
