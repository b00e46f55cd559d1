"""Twenty models written twice: log densities and gradients are NumPyro's, sums over states are those by enumeration."""

import functools
import importlib
import itertools
import pkgutil
import re
import runpy
from pathlib import Path

import dualtape.models.rosetta
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import rosetta_numpyro
from dualtape import AutoForward, AutoReverse
from dualtape.ad import value_and_gradient
from dualtape.models.rosetta.functions import runge_kutta
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.model import Model
from numpyro.handlers import seed, trace
from numpyro.infer.util import potential_energy
from numpyro.primitives import Messenger
from rosetta_numpyro import DATA
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import logsumexp

MODES = (AutoForward(), AutoReverse())
FILES = [
    importlib.import_module(f"dualtape.models.rosetta.{module.name}")
    for module in pkgutil.iter_modules(dualtape.models.rosetta.__path__)
]
OURS = {name: value for file in FILES for name, value in vars(file).items() if isinstance(value, Model)}
THEIRS = {function.__name__: function for function in rosetta_numpyro.MODELS}
each = pytest.mark.parametrize("name", THEIRS)


@functools.cache
def traced(name):
    with jax.enable_x64(True):
        bound = OURS[name](*DATA[name])
        return trace_model(bound, discover(bound))


def relative_error(value, expected):
    return np.max(np.abs(value - expected) / np.maximum(1.0, np.abs(expected)))


def largest_error(name, function, modes=MODES):
    """How far values and gradients are from NumPyro's of `function`, at points where chains may start."""
    model = traced(name)
    split = model.density.coordinates.split

    def log_density(q):
        parameters = dict(zip(model.density.sites, split(q), strict=True))
        return -potential_energy(function, DATA[name], {}, parameters)

    @jax.jit
    def compare(q):
        ours = [value_and_gradient(model.density.log_density, mode, q, *model.data) for mode in modes]
        return jax.value_and_grad(log_density)(q), ours

    errors = []
    for q in np.random.default_rng(1).uniform(-2.0, 2.0, (5, model.density.dimension)):
        expected, ours = compare(q)
        errors += [relative_error(got, known) for pair in ours for got, known in zip(pair, expected, strict=True)]
    return max(errors)


def test_both_sides_have_the_twenty_models():
    assert len(THEIRS) == 20
    assert OURS.keys() == THEIRS.keys() == DATA.keys()


@each
def test_log_density_and_gradient_are_numpyros(name):
    assert largest_error(name, THEIRS[name]) < 1e-9


class Replaced(Messenger):
    """A model with another distribution at one site."""

    def __init__(self, function, site, distribution):
        super().__init__(function)
        self.site, self.distribution = site, distribution

    def process_message(self, msg):
        if msg["name"] == self.site:
            msg["fn"] = self.distribution.expand(msg["fn"].batch_shape)


@pytest.mark.parametrize(
    ("name", "site", "distribution"),
    [
        ("coin_flip", "p", dist.Beta(1.0, 1.000001)),
        ("linear_regression", "slope", dist.Normal(0.0, 2.500001)),
        ("hierarchical_radon", "sd_slope", dist.HalfNormal(1.000001)),
        ("varying_effects", "L", dist.LKJCholesky(2, concentration=2.000001)),
    ],
)
def test_the_comparison_sees_a_prior_that_is_off_by_a_millionth(name, site, distribution):
    assert largest_error(name, Replaced(THEIRS[name], site, distribution), (AutoReverse(),)) > 1e-8


def labels_one_by_one(v, y, components):
    return sum(
        logsumexp([np.log(v["share"][k]) + stats.norm.logpdf(row, v["mean"][k], v["sd"][k]) for k in range(components)])
        for row in y
    )


def paths_one_by_one(v, y, states):
    emission = stats.norm.logpdf(y[:, None], v["mean"], v["sigma"])
    paths = np.array(list(itertools.product(range(states), repeat=len(y))))
    moves = np.log(v["transition"])[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    return logsumexp(-np.log(states) + moves + emission[np.arange(len(y)), paths].sum(axis=1))


def topics_one_by_one(v, word, document, topics, *_):
    return sum(
        np.log(sum(v["share"][d, k] * v["vocabulary"][k, w] for k in range(topics)))
        for w, d in zip(word, document, strict=True)
    )


def changes_one_by_one(v, disasters):
    years = len(disasters)
    by_year = [
        stats.poisson.logpmf(disasters[:change], v["early"]).sum()
        + stats.poisson.logpmf(disasters[change:], v["late"]).sum()
        for change in range(years)
    ]
    return logsumexp(by_year) - np.log(years)


def deaths_one_by_one(v, seen):
    """After `last`, its last interval survived, an animal is not seen again."""
    total = 0.0
    for history in seen:
        first, probability = history.argmax(), 0.0
        for last in range(max(np.flatnonzero(history)), len(history)):
            captures = np.where(history, np.append(1.0, v["capture"]), 1.0 - np.append(1.0, v["capture"]))
            death = 1.0 - v["survival"][last] if last < len(history) - 1 else 1.0
            probability += np.prod(v["survival"][first:last] * captures[first + 1 : last + 1]) * death
        total += np.log(probability)
    return total


@pytest.mark.parametrize(
    ("name", "term", "by_enumeration"),
    [
        ("gaussian_mixture", "y", labels_one_by_one),
        ("hidden_markov_model", "y", paths_one_by_one),
        ("latent_dirichlet_allocation", "word", topics_one_by_one),
        ("change_point", "disasters", changes_one_by_one),
        ("capture_recapture", "seen", deaths_one_by_one),
    ],
)
def test_sums_over_states_are_those_by_enumeration(name, term, by_enumeration):
    model = traced(name)
    q = np.random.default_rng(2).uniform(-1.0, 1.0, model.density.dimension)
    terms, values = jax.jit(lambda q: (model.density.by_term(q, *model.data), model.constrained(q, *model.data)))(q)
    expected = by_enumeration({site: np.asarray(value) for site, value in values.items()}, *DATA[name])
    np.testing.assert_allclose(terms[term], expected, rtol=1e-12)


def test_the_differential_equation_is_solved_to_fourth_order():
    def slope(state):
        infections = 2.0 * state[0] * state[1] / 763.0
        return jnp.stack([-infections, infections - 0.5 * state[1]])

    start, days = jnp.array([762.0, 1.0]), range(1, 15)
    known = solve_ivp(lambda _, state: slope(state), (0, 14), start, "DOP853", days, rtol=1e-12, atol=1e-12).y.T
    error, of_half_the_step = (relative_error(runge_kutta(slope, start, 14, steps), known) for steps in (10, 20))
    assert error < 2e-5
    assert error / of_half_the_step == pytest.approx(16, rel=0.1)


PAGE = Path(__file__).parent.parent / "docs" / "rosetta.md"


def test_the_page_is_that_of_the_sources():
    page = runpy.run_path(str(PAGE.with_suffix(".py")))["page"]
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python docs/rosetta.py"


def latent_sites(function, data):
    """Of a model of NumPyro, without computing anything."""
    sites = {}
    jax.eval_shape(lambda key: sites.update(trace(seed(function, key)).get_trace(*data)), jax.random.key(0))
    return {name for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}


def test_the_code_on_the_page_runs():
    imports, their_imports, *code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, ours, theirs in zip(THEIRS, code[::2], code[1::2], strict=True):
        left, right = {}, {}
        exec(imports + ours, left)
        exec(their_imports + theirs, right)
        data = DATA[name]
        assert discover(left[name](*data)).values.keys() == latent_sites(right[name], data)
