"""Log densities, gradients and samples against the reference posteriors of posteriordb and the Inference Gym.

The reference set is read in place, from the folder that the environment variable DUALTAPE_POSTERIORDB names or else
from `shared/posteriordb` beside the repository; without it there is nothing to compare with.
"""

import functools
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape import NUTS, AutoFiniteDiff, AutoForward, AutoReverse, DenseMetric, SamplingWarning, UnitMetric, sample
from dualtape.ad import value_and_gradient
from dualtape.models.reference.case import REFERENCE_SET, components
from dualtape.models.reference.cases import CASES
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from scipy import stats

with warnings.catch_warnings():
    # ArviZ 0.23 announces its successor on import, once a day.
    warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
    import arviz as az

if not REFERENCE_SET.is_dir():
    pytest.skip(f"no reference posteriors at {REFERENCE_SET}: set DUALTAPE_POSTERIORDB", allow_module_level=True)

CHAINS = 4
SEED = 1
MODES = (AutoForward(), AutoReverse())
BY_NAME = {case.name: case for case in CASES}
WITH_POINTS = tuple(case for case in CASES if "log_density" in case.read("reference"))
each_mode = pytest.mark.parametrize("adtype", MODES, ids=lambda adtype: type(adtype).__name__)


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@functools.cache
def traced(case):
    with jax.enable_x64(True):
        bound = case.bind()
        return trace_model(bound, discover(bound))


def relative_error(value, expected):
    return np.max(np.abs(value - expected) / np.maximum(1.0, np.abs(expected)))


def rounding(gradient_of, u, gradient):
    """How far the last bit of a coordinate moves the gradient: what no program in 64-bit numbers is better than.

    It is 2e-7 where a nearly singular covariance is taken apart (GP Poisson regression), below 1e-12 elsewhere.
    """
    nudged = (np.where(np.arange(len(u)) == k, np.nextafter(u, np.inf), u) for k in range(len(u)))
    return min(max(relative_error(gradient_of(other)[1], gradient) for other in nudged), 1e-6)


@each(WITH_POINTS)
@each_mode
def test_log_density_and_gradient_are_those_of_the_reference(case, adtype):
    model = traced(case)
    slices = model.density.coordinates.slices
    indices = np.arange(model.density.dimension)
    order = np.concatenate([indices[slices[name]] for name in case.parameters])

    # In the coordinates of Stan, u: the density there has the Jacobian of ours from those as a factor.
    def position(u):
        return jnp.zeros(len(order)).at[order].set(case.coordinates(u))

    def log_jacobian(u):
        terms = model.density.by_term(position(u), *model.data)
        between = jnp.linalg.slogdet(jax.jacfwd(case.coordinates)(u))[1]
        return between + sum(term for name, term in terms.items() if name.startswith("log|J| "))

    def log_density(u):
        between = jnp.linalg.slogdet(jax.jacfwd(case.coordinates)(u))[1]
        return between + model.density.log_density(position(u), *model.data)

    gradient_of = jax.jit(lambda u: value_and_gradient(log_density, adtype, u))
    for point in case.read("reference")["log_density"]["points"]:
        u = np.array(point["unconstrained"])
        value, gradient = gradient_of(u)
        expected = point["logp"] + point["log_jacobian"] + case.constant
        assert relative_error(log_jacobian(u), point["log_jacobian"]) < 1e-8
        assert relative_error(value, expected) < 1e-8
        assert relative_error(gradient, np.array(point["grad_unconstrained"])) < 1e-8 + 4 * rounding(
            gradient_of, u, gradient
        )


def radon(data, values):
    mean = (
        values["county_effect"][data["county"]]
        + np.stack([data["log_uranium"], data["which_floor"], data["floor_by_county"]], 1) @ values["weight"]
    )
    return (
        stats.norm.logpdf(values["county_effect_mean"])
        + stats.norm.logpdf(values["county_effect"], values["county_effect_mean"], values["county_effect_scale"]).sum()
        + stats.norm.logpdf(values["weight"]).sum()
        + stats.norm.logpdf(data["log_radon"], mean, values["log_radon_scale"]).sum()
    )


def brownian_motion(data, values):
    path, at = values["loc"], np.array(data["observation_indices"]) - 1
    innovation, noise = values["innovation_noise_scale"], values["observation_noise_scale"]
    return (
        stats.lognorm.logpdf([innovation, noise], 2.0).sum()
        + stats.norm.logpdf(np.diff(path, prepend=0.0), scale=innovation).sum()
        + stats.norm.logpdf(data["observations"], path[at], noise).sum()
    )


def log_gaussian_cox(data, values):
    points, counts, extents = (np.array(data[name]) for name in ("locations", "counts", "extents"))
    scaled = np.sqrt(3) * np.linalg.norm(points[:, None] - points, axis=-1) / (values["length_scale"] + 0.001)
    covariance = (values["amplitude"] + 0.001) ** 2 * (1 + scaled) * np.exp(-scaled) + 1e-6 * np.eye(len(points))
    mean = np.full(len(points), np.mean(np.log(counts / extents)))
    return (
        stats.lognorm.logpdf(values["amplitude"], 0.5, scale=np.exp(-1))
        + stats.lognorm.logpdf(values["length_scale"], 1.0, scale=np.exp(-1))
        + stats.multivariate_normal.logpdf(values["log_intensity"], mean, covariance)
        + stats.poisson.logpmf(counts, extents * np.exp(values["log_intensity"])).sum()
    )


# The reference has no points for these; what stands in the Stan program is written down anew, for NumPy and SciPy.
WRITTEN_DOWN = {
    "ig_radon_contextual_effects_minnesota": radon,
    "ig_brownian_motion_unknown_scales_missing_middle_observations": brownian_motion,
    "ig_synthetic_log_gaussian_cox_process": log_gaussian_cox,
}


@pytest.mark.parametrize("name", WRITTEN_DOWN)
def test_log_density_is_what_the_stan_program_says(name):
    case, model = BY_NAME[name], traced(BY_NAME[name])
    by_term = jax.jit(lambda q: model.density.by_term(q, *model.data))
    differences, *gradients = (
        jax.jit(lambda q, mode=mode: value_and_gradient(model.density.log_density, mode, q, *model.data)[1])
        for mode in (AutoFiniteDiff(), *MODES)
    )
    for q in np.random.default_rng(SEED).uniform(-1, 1, (3, model.density.dimension)):
        ours = sum(term for label, term in by_term(q).items() if not label.startswith("log|J| "))
        expected = WRITTEN_DOWN[name](case.read("data"), model.constrained(q, *model.data)) + case.constant
        np.testing.assert_allclose(ours, expected, rtol=1e-11)
        known = differences(q)
        for gradient in gradients:
            np.testing.assert_allclose(gradient(q), known, atol=1e-7 * np.max(np.abs(known)))


@dataclass(frozen=True)
class Run:
    """NUTS, as one would set it for a posterior.

    Args:
        sampler: without the adtype.
        draws: from each of four chains.
        divergent: the largest share of draws that may end in a divergence.
        long: whether it is left to `make verify`.
    """

    sampler: NUTS = NUTS()
    draws: int = 2000
    divergent: float = 0.001
    long: bool = False


RUNS = {case.name: Run() for case in CASES} | {
    # Centred, the effects are confined to a funnel that narrows without end as tau goes to 0. The mean acceptance rate
    # hardly feels its neck: a step size adapted even to 0.99 leaves some of it out, or leaves a chain in it for
    # thousands of draws. A fixed step that is short enough for the neck goes in and out; what is left of divergences
    # are a few draws in its last end.
    "eight_schools-eight_schools_centered": Run(
        NUTS(step_size=0.012, metric=UnitMetric(), max_tree_depth=11), draws=10_000, divergent=0.005
    ),
    "eight_schools-eight_schools_noncentered": Run(NUTS(target_acceptance=0.95)),
    # Predictors far from zero and an interaction: coefficients correlated beyond 0.99.
    "kidiq-kidscore_interaction": Run(NUTS(metric=DenseMetric())),
    # Coefficients with standard deviations of 0.001 and a correlated design: chains that mix slowly.
    "sblrc-blr": Run(draws=8000),
    # Centred: the scale of the counties mixes slowly, and short of 0 now and then a trajectory diverges.
    "ig_radon_contextual_effects_minnesota": Run(NUTS(target_acceptance=0.95), draws=5000, divergent=0.005),
    # Ten states without an observation between them: a funnel in the scale of the innovations.
    "ig_brownian_motion_unknown_scales_missing_middle_observations": Run(NUTS(target_acceptance=0.95)),
    "gp_pois_regr-gp_pois_regr": Run(NUTS(target_acceptance=0.95), divergent=0.005),
    "ig_synthetic_log_gaussian_cox_process": Run(long=True),
}


runs = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.long] * RUNS[case.name].long) for case in CASES]
)

# How often all runs together may fail although every sampler is right, at the level of the standard normal z that
# stays within it: Bonferroni, over two moments of each component. The seed is fixed, so that the luck
# is drawn once for every version of JAX.
FALSE_ALARMS = 1e-4
COMPARISONS = sum(2 * len(case.read("reference")["components"]) for case in CASES)
LIMIT = stats.norm.isf(FALSE_ALARMS / COMPARISONS / 2)


def error_of_mean_square(known):
    """The standard error of a mean square of the reference; where it is not given, that of as many normal draws as the
    standard error of the mean tells of."""
    if "mcse_mean_sq" in known:
        return known["mcse_mean_sq"]
    draws = (known["sd"] / known["mcse_mean"]) ** 2
    return np.sqrt((4 * known["mean"] ** 2 * known["sd"] ** 2 + 2 * known["sd"] ** 4) / draws)


def scores(draws, reference):
    """Errors of the means and the mean squares, in joint Monte Carlo standard errors of both sides.

    Args:
        draws: by component, shape (chains, draws).
        reference: by component, the moments and their standard errors.
    """
    z = []
    for name, known in reference.items():
        own = draws[name]
        for values, mean, error in (
            (own, known["mean"], known["mcse_mean"]),
            (own**2, known["mean_sq"], error_of_mean_square(known)),
        ):
            z.append((np.mean(values) - mean) / np.hypot(az.mcse(values, method="mean"), error))
    return np.array(z)


@runs
def test_draws_have_the_moments_of_the_reference(case):
    run = RUNS[case.name]
    with warnings.catch_warnings():
        # Divergences are counted below, against the share that this posterior may have.
        warnings.simplefilter("ignore", SamplingWarning)
        idata = sample(case.bind(), run.sampler, run.draws, chains=CHAINS, seed=SEED)
    draws = components(idata["posterior"])
    z = scores(draws, case.read("reference")["components"])
    worst_rhat = max(float(az.rhat(values)) for values in draws.values())
    divergent = float(np.mean(idata["sample_stats"]["diverging"].values))
    assert np.max(np.abs(z)) < LIMIT
    assert worst_rhat < 1.01
    assert divergent <= run.divergent


def simulated(case):
    """Independent normal draws with the means and standard deviations of the reference, by component."""
    rng = np.random.default_rng(SEED)
    known = case.read("reference")["components"]
    return known, {name: rng.normal(c["mean"], c["sd"], (CHAINS, 2000)) for name, c in known.items()}


@each(CASES)
def test_the_score_accepts_right_draws(case):
    reference, draws = simulated(case)
    assert np.max(np.abs(scores(draws, reference))) < LIMIT


@each(CASES)
def test_the_score_rejects_draws_that_are_shrunk(case):
    reference, draws = simulated(case)
    shrunk = {name: 0.9 * values for name, values in draws.items()}
    assert np.max(np.abs(scores(shrunk, reference))) > LIMIT


@each(CASES)
def test_the_score_rejects_draws_that_are_shifted(case):
    reference, draws = simulated(case)
    shifted = {name: values + 0.1 * reference[name]["sd"] for name, values in draws.items()}
    assert np.max(np.abs(scores(shifted, reference))) > LIMIT
