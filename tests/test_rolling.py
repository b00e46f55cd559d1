"""Loops that a model has written out: what is alike is evaluated at once, with the same value and gradient."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, NUTS, AutoForward, AutoReverse, Gibbs, deterministic, factor, model, plate, rv, sample
from dualtape.ad import value_and_gradient
from dualtape.ppl.blocks.coordinates import as_parts
from dualtape.ppl.blocks.density import programs_of
from dualtape.ppl.checks import check_given
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.programs.cones import merged
from dualtape.ppl.programs.program import Program
from dualtape.ppl.programs.rolling import lifted, rolled
from dualtape.samplers.composition import build_kernel
from jax import lax

B = 5
RNG = np.random.default_rng(0)
Y, SIGMA, ROWS = RNG.normal(size=B), RNG.uniform(0.5, 2.0, size=B), RNG.normal(size=(B, 2))
COUNTS = RNG.poisson(3.0, size=B)
SCHOOLS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


@model
def gdemo(x, y):
    s = rv("s", dist.InverseGamma(2.0, 3.0))
    m = rv("m", dist.Normal(0.0, jnp.sqrt(s)))
    rv("x", dist.Normal(m, jnp.sqrt(s)), obs=x)
    rv("y", dist.Normal(m, jnp.sqrt(s)), obs=y)


@model
def hierarchy(y):
    mu, tau = rv("mu", dist.Normal(0.0, 5.0)), rv("tau", dist.HalfCauchy(5.0))
    for b in range(B):
        theta = rv(f"theta_{b}", dist.Normal(mu, tau))
        rv(f"y_{b}", dist.Normal(theta, 1.5).expand([2]), obs=y[b])


@model
def literals(y, sigma):
    mu, tau = rv("mu", dist.Normal(0.0, 5.0)), rv("tau", dist.LogNormal(2.0, 0.3))
    for b in range(len(y)):
        theta = rv(f"theta_{b}", dist.Normal(mu, tau))
        rv(f"y_{b}", dist.Normal(theta, sigma[b]), obs=y[b])


@model
def chain(y):
    phi, q = rv("phi", dist.Uniform(-1.0, 1.0)), rv("q", dist.HalfNormal(1.0))
    x = rv("x_0", dist.Normal(0.0, 1.0))
    for t in range(1, B):
        x = rv(f"x_{t}", dist.Normal(phi * x, q))
        rv(f"y_{t}", dist.Normal(x, 0.3), obs=y[t])


@model
def walk(y):
    scale = rv("scale", dist.LogNormal(0.0, 1.0))
    x = 0.0
    for t in range(B):
        x = x + scale * rv(f"step_{t}", dist.Normal(0.0, 1.0))
        rv(f"y_{t}", dist.StudentT(4.0, x, 0.5), obs=y[t])
    deterministic("end", x)


@model
def mixed(y, counts):
    a, b = rv("a", dist.Normal(0.0, 1.0)), rv("b", dist.Normal(0.0, 1.0))
    for t in range(B):
        rate = rv(f"rate_{t}", dist.Gamma(2.0, jnp.exp(a)))
        rv(f"count_{t}", dist.Poisson(rate), obs=counts[t])
        factor(f"pull_{t}", -0.5 * (b - jnp.log(rate)) ** 2 * float(t % 3 + 1))
        rv(f"yes_{t}", dist.Bernoulli(logits=a * y[t]), obs=int(counts[t] > 2))
        factor(f"branch_{t}", lax.cond(b > y[t], lambda x: jnp.sin(x), lambda x: x**2, a * y[t]))


@model
def vectors(y):
    mean = rv("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    corr = rv("corr", dist.LKJCholesky(2, 2.0))
    for b in range(B):
        beta = rv(f"beta_{b}", dist.MultivariateNormal(mean, scale_tril=corr))
        rv(f"y_{b}", dist.Normal(beta, 1.0).to_event(1), obs=y[b])


@model
def plated(y, sigma):
    mu, tau = rv("mu", dist.Normal(0.0, 5.0)), rv("tau", dist.LogNormal(2.0, 0.3))
    with plate("school", len(y)):
        theta = rv("theta", dist.Normal(mu, tau))
    for b in range(len(y)):
        rv(f"y_{b}", dist.Normal(theta[b], sigma[b]), obs=y[b])


MODELS = {
    "gdemo": gdemo(1.5, 2.0),
    "hierarchy": hierarchy(ROWS),
    "literals": literals(Y, SIGMA),
    "chain": chain(Y),
    "walk": walk(Y),
    "mixed": mixed(Y, COUNTS),
    "vectors": vectors(ROWS),
    "plated": plated(Y, SIGMA),
}


def density(bound):
    return trace_model(bound, discover(bound, check_given)).density


def as_traced(bound):
    """A model, traced, and a position."""
    whole = density(bound)
    return whole, np.random.default_rng(1).normal(size=whole.dimension)


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
@pytest.mark.parametrize("name", MODELS)
def test_value_and_gradient_are_those_of_the_single_terms(name, adtype):
    whole, position = as_traced(MODELS[name])
    block = whole.restrict(whole.sites)
    given = block.constants(position, block.prepare(whole.data))
    value, gradient = value_and_gradient(block.target.log_density, adtype, position, *given)
    expected, slopes = value_and_gradient(whole.log_density, adtype, position, *whole.data)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-11, atol=1e-12)
    # Not two programs against each other alone: central differences along a direction.
    direction, h = np.random.default_rng(2).normal(size=position.size), 1e-5
    ahead, behind = (whole.log_density(position + s * h * direction, *whole.data) for s in (1, -1))
    np.testing.assert_allclose(gradient @ direction, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["hierarchy", "literals", "chain", "walk", "mixed", "vectors"])
def test_globals_given_the_rest_are_rolled_and_their_stacks_are_constants(name):
    whole, position = as_traced(MODELS[name])
    parts = as_parts([site for site in whole.sites if "_" not in site])
    block = whole.restrict(parts)
    _, _, single, terms = programs_of(whole, parts, ())
    here = position[block.coordinates]
    split = block.target.coordinates.split(here)
    value = block.target.log_density(here, *block.constants(position, block.prepare(whole.data)))
    expected = sum(single.after(*split, *single.at(position, whole.data)))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    equations = block.target.given.after.equations
    assert len(terms) > B
    stacked = [equation for equation in equations if equation.outvars[0].aval.shape[:1] in ((B,), (B - 1,))]
    # The terms of a running sum stay apart: stacked, every row of it would be summed anew from the start.
    assert len(stacked) >= 5 or name == "walk"
    if name in ("hierarchy", "literals", "chain"):  # the rest determines all that is stacked
        assert not [equation for equation in equations if equation.primitive.name == "concatenate"]
        assert any(shape.shape in ((B,), (B - 1,)) for shape in block.target.constants)


def test_without_alike_terms_the_equations_stay():
    whole, _ = as_traced(MODELS["gdemo"])
    parts = as_parts(whole.sites)
    _, _, single, terms = programs_of(whole, parts, ())
    before, after = (
        Counter(equation.primitive.name for equation in program.equations)
        for program in (single.after, whole.restrict(parts).target.given.after)
    )
    assert after - before == {"add": len(terms) - 1}


def test_parts_of_sites_are_left_alone():
    whole, _ = as_traced(MODELS["plated"])
    block = whole.restrict({"theta[3]": ("theta", np.array([3]))})
    assert len(block.target.given.after.outputs) == len(block.target.terms)


def traced(function, *arguments):
    program, consts, _ = Program.trace(function, *arguments)
    assert not consts
    return program


@pytest.mark.parametrize("count", [2, 3, 4, 20])
def test_four_copies_are_worth_a_stack(count):
    program = traced(lambda *xs: [jnp.sin(x * c) for c, x in enumerate(xs, 2)], *np.ones(count))
    flat = rolled(program, count)
    sines = [equation.outvars[0].aval.shape for equation in flat.equations if equation.primitive.name == "sin"]
    assert sines == ([(count,)] if count >= 4 else [()] * count)
    xs = np.linspace(0.1, 0.9, count)
    np.testing.assert_allclose(flat(*xs)[0], np.sum(np.sin(xs * np.arange(2.0, count + 2))), rtol=1e-14)


def test_results_that_are_no_terms_follow_unchanged():
    program = traced(lambda a, *xs: [*(jnp.exp(a) * x**2 for x in xs), jnp.exp(a), xs[1] ** 2, a], *np.ones(7))
    a, xs = 0.3, np.arange(1.0, 7.0)
    total, *others = rolled(program, 6)(a, *xs)
    np.testing.assert_allclose(total, np.exp(a) * np.sum(xs**2), rtol=1e-14)
    np.testing.assert_allclose(others, [np.exp(a), 4.0, a], rtol=1e-14)
    assert [e.primitive.name for e in rolled(program, 6).equations].count("exp") == 1


def test_terms_that_are_equal_count_each_time():
    program = traced(lambda x: [jnp.sin(x) for _ in range(5)], 1.0)
    assert len(merged(program).equations) == 1
    np.testing.assert_allclose(rolled(program, 5)(0.4)[0], 5 * np.sin(0.4), rtol=1e-14)


def test_conditions_and_loops_keep_their_branches():
    def terms(*xs):
        return [lax.cond(x > 0, jnp.log, lambda x: x, x) for x in xs]

    flat = rolled(traced(terms, *np.ones(6)), 6)
    assert [equation.primitive.name for equation in flat.equations].count("cond") == 6
    slopes = jax.grad(lambda x: flat(*x)[0])(jnp.array([-1.0, 0.0, 1.0, 2.0, -2.0, 4.0]))
    np.testing.assert_allclose(slopes, [1.0, 1.0, 1.0, 0.5, 1.0, 0.25])


def test_numbers_that_differ_between_copies_become_inputs_and_no_others():
    program = traced(lambda *xs: [jnp.exp(-0.5 * (x - c) ** 2) for c, x in zip(SIGMA, xs, strict=True)], *np.ones(B))
    open_program, values = lifted(program)
    np.testing.assert_array_equal(values, SIGMA)
    xs = np.linspace(-1, 1, B)
    np.testing.assert_array_equal(open_program(*xs, *values), program(*xs))
    assert not np.array_equal(open_program(*xs, *np.roll(values, 1)), program(*xs))  # they are used
    alone = traced(lambda x, y: [jnp.exp(-x * 2.5), jnp.exp(-y * 3.5)], 1.0, 1.0)
    assert lifted(alone)[1] == ()


def test_schools_in_a_loop_share_one_update_and_agree_with_the_plate():
    y, sigma = SCHOOLS
    blocks = {f"theta_{b}": HMC(3.0, 3) for b in range(8)} | {("mu", "tau"): NUTS()}
    kernel = build_kernel(Gibbs(blocks), density(literals(y, sigma)), np.float64)
    assert [len(group) for group in kernel.groups] == [8, 1]
    settings = {"draws": 4000, "warmup": 1000, "chains": 2, "seed": 1, "progress": False}
    loop = sample(literals(y, sigma), Gibbs(blocks), **settings)
    one = sample(plated(y, sigma), NUTS(), **settings)
    stored, last = float(loop.sample_stats["lp"][0, -1]), loop.posterior.isel(chain=0, draw=-1)
    tau, mu = float(last["tau"]), float(last["mu"])
    theta = np.array([float(last[f"theta_{b}"]) for b in range(8)])
    expected = (
        dist.Normal(mu, tau).log_prob(theta).sum()
        + dist.Normal(theta, sigma).log_prob(y).sum()
        + dist.Normal(0.0, 5.0).log_prob(mu)
        + dist.LogNormal(2.0, 0.3).log_prob(tau)
        + np.log(tau)
    )
    np.testing.assert_allclose(stored, expected, rtol=1e-10)
    for b in range(8):
        difference = float(loop.posterior[f"theta_{b}"].mean() - one.posterior["theta"][..., b].mean())
        assert abs(difference) < 0.7, b
    assert abs(float(loop.posterior["mu"].mean() - one.posterior["mu"].mean())) < 0.5
