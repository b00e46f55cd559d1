"""Discrete sites summed out equal the sum over all their values; what is drawn back has its exact law.

Sums are compared with brute force over every configuration, to 1e-10 with gradients in both modes. Draws are compared
with exact probabilities by Pearson's test, whose false-alarm rate is ALPHA; a planted bug must be beyond CERTAIN.
"""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    DiscreteGibbs,
    Gibbs,
    Slice,
    deterministic,
    factor,
    log_likelihood,
    model,
    plate,
    predict,
    rv,
    sample,
)
from dualtape.ppl.arviz import to_arviz
from dualtape.ppl.interpreters import discover, unconstrain
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.marginalization import marginalize, recover
from dualtape.ppl.views.forests import CircleError, Forest, logsumexp
from dualtape.ppl.views.marginal import marginal, summed_out
from dualtape.ppl.views.supports import listed_values
from scipy import stats
from targets import mean_error

ALPHA, CERTAIN = 1e-3, 1e-9
Y = np.random.default_rng(1).normal(size=6)


@model
def mixture(y, count):
    w = rv("w", dist.Dirichlet(jnp.ones(count)))
    mu = rv("mu", dist.Normal(0, 3).expand([count]).to_event(1))
    with plate("n", len(y)):
        z = rv("z", dist.Categorical(probs=w))
        rv("y", dist.Normal(mu[z], 0.7), obs=y)
    deterministic("label", z + 1)


@model
def loop(y, count):
    mu = rv("mu", dist.Normal(0, 3).expand([count]).to_event(1))
    with plate("from", count):
        moves = rv("moves", dist.Dirichlet(jnp.ones(count)))
    z = 0
    for t in range(len(y)):
        z = rv(f"z_{t}", dist.Categorical(probs=moves[z]))
        rv(f"y_{t}", dist.Normal(mu[z], 1.0), obs=y[t])


@model
def vector(y):
    mu = rv("mu", dist.Normal(0, 3).expand([2]).to_event(1))
    stay = rv("stay", dist.Beta(2, 1))
    with plate("t", len(y)):
        z = rv("z", dist.Bernoulli(0.5))
        rv("y", dist.Normal(mu[z], 1.0), obs=y)
    factor("moves", jnp.log(jnp.where(z[1:] == z[:-1], stay, 1 - stay)))


@model
def animals(y, return_from_death=0.0):
    """Chains that go one way only, one for each animal."""
    survival, seen = rv("survival", dist.Beta(2, 2)), rv("seen", dist.Beta(2, 2))
    moves = jnp.stack([jnp.array([1.0, return_from_death]), jnp.stack([1 - survival, survival])])
    alive = 1
    with plate("animal", y.shape[1]):
        for t in range(len(y)):
            alive = rv(f"alive_{t}", dist.Categorical(logits=jnp.log(moves)[alive]))
            rv(f"y_{t}", dist.Bernoulli(alive * seen), obs=y[t])


@model
def change(y):
    early, late = rv("early", dist.Exponential(1.0)), rv("late", dist.Exponential(1.0))
    tau = rv("tau", dist.DiscreteUniform(0, len(y) - 1))
    with plate("n", len(y)) as i:
        rv("y", dist.Poisson(jnp.where(i < tau, early, late)), obs=y)


@model
def inflated(y):
    p, rate = rv("p", dist.Beta(1, 1)), rv("rate", dist.Exponential(0.3))
    with plate("n", len(y)):
        absent = rv("absent", dist.Bernoulli(p))
        rv("y", dist.Poisson(jnp.where(absent == 1, 1e-300, rate)), obs=y)


@model
def missing(x, y):
    p, a, b = rv("p", dist.Beta(1, 1)), rv("a", dist.Normal(0, 1)), rv("b", dist.Normal(0, 1))
    gone = np.flatnonzero(np.isnan(x))
    with plate("gone", len(gone)):
        u = rv("u", dist.Bernoulli(p))
    with plate("n", len(x)):
        rv("y", dist.Normal(a + b * jnp.asarray(np.nan_to_num(x)).at[gone].set(u.astype(float)), 1.0), obs=y)


@model
def tree(y):
    p = rv("p", dist.Beta(1, 1))
    z = [rv("z_0", dist.Bernoulli(p))]
    for i in range(1, len(y)):
        z.append(rv(f"z_{i}", dist.Bernoulli(jnp.where(z[(i - 1) // 2] == 1, p, 0.3))))
        rv(f"y_{i}", dist.Normal(z[i], 1.0), obs=y[i])


@model
def uneven(y):
    m = rv("m", dist.Normal(0, 1))
    with plate("n", 3):
        z = rv("z", dist.DiscreteUniform(np.array([0, -1, 2]), np.array([1, 1, 11])))
    k = rv("k", dist.Binomial(2, 0.3))
    rv("y", dist.Normal(m * z + k, 1.0), obs=y)


def names(prefix, count):
    return [f"{prefix}_{t}" for t in range(count)]


SEEN = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
CASES = {
    "mixture of 2": (mixture(Y, 2), ["z"]),
    "mixture of 3": (mixture(Y, 3), ["z"]),
    "chain in a loop": (loop(Y[:4], 2), names("z", 4)),
    "chain in one site": (vector(Y), ["z"]),
    "chains in a plate": (animals(SEEN, 0.1), names("alive", 4)),
    "change point": (change(np.array([0, 1, 0, 2, 1, 3, 5, 4, 2, 6, 3, 4])), ["tau"]),
    "zero inflation": (inflated(np.array([0, 0, 3, 1, 0, 2])), ["absent"]),
    "missing covariate": (missing(np.array([0, 1, np.nan, 0, np.nan, np.nan]), Y), ["u"]),
    "tree": (tree(np.linspace(-1, 2, 5)), names("z", 5)),
    "star, uneven supports": (uneven(Y[:3]), ["k", "z"]),
}


def traced(bound):
    return trace_model(bound, discover(bound))


def every(density, sites):
    """All configurations of some sites, shape (configurations, coordinates)."""
    supports = listed_values(density, [site for site in density.sites if site in sites])
    return np.array(list(itertools.product(*(values for own in supports.values() for values in own))), float)


def joint(bound, sites):
    """The log density of each configuration, as a function of the position of the other sites."""
    density = traced(bound).density
    states = jnp.asarray(every(density, sites))

    def at(state, position):
        parts, left = {}, {True: state, False: position}
        for site, size in density.sizes.items():
            parts[site], left[site in sites] = left[site in sites][:size], left[site in sites][size:]
        return density.log_density(jnp.concatenate(list(parts.values())), *density.data)

    return lambda position: jax.vmap(at, (0, None))(states, position)


@pytest.mark.parametrize(("bound", "sites"), CASES.values(), ids=CASES.keys())
def test_sums_and_gradients_equal_brute_force(bound, sites):
    density = summed_out(traced(bound), sites).density
    q = np.random.default_rng(0).normal(size=density.dimension)

    value, slope = jax.jit(jax.value_and_grad(lambda q: logsumexp(joint(bound, sites)(q), 0)))(q)
    assert np.isfinite(slope).all()
    check(density, q, value, slope)


def check(density, q, value, slope):
    def ours(q):
        return density.log_density(q, *density.data)

    found, reverse, forward = jax.jit(lambda q: (ours(q), jax.grad(ours)(q), jax.jacfwd(ours)(q)))(q)
    np.testing.assert_allclose(found, value, rtol=1e-10)
    np.testing.assert_allclose(reverse, slope, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(forward, slope, rtol=1e-10, atol=1e-10)


def test_impossible_values_have_no_weight_and_no_slope():
    sites = names("alive", 4)
    density = summed_out(traced(animals(SEEN)), sites).density
    q = np.array([0.3, -0.4])
    almost = joint(animals(SEEN, 1e-300), sites)
    check(density, q, *jax.jit(jax.value_and_grad(lambda q: logsumexp(almost(q), 0)))(q))


def test_terms_without_the_sites_stay_and_what_depends_on_them_is_left_out():
    reduced = summed_out(traced(missing(np.array([0.0, np.nan, 1.0]), Y[:3])), ["u"])
    assert [term for term in reduced.density.terms if "log|J|" not in term] == ["p", "a", "b", "y", "marginal u"]
    assert summed_out(traced(mixture(Y, 2)), ["z"]).names == ("w", "mu")


def test_the_program_of_a_chain_does_not_grow_with_its_length():
    counts = []
    for length in (8, 16):
        found = marginal(traced(loop(np.arange(float(length)), 2)), names("z", length)).potentials
        counts.append((len(found.alone.equations), len(found.pairs.equations)))
    assert counts[0] == counts[1]


def test_forests_of_any_shape_are_summed_and_drawn_exactly():
    rng = np.random.default_rng(0)
    for _ in range(2):
        count = 8
        pairs = np.array([(rng.integers(i), i) for i in range(1, count) if rng.random() < 0.8])
        forest = Forest.of(count, pairs)
        alone, tie = rng.normal(size=(2, count)), rng.normal(size=(2, 2, len(pairs)))
        states = np.array(list(itertools.product(range(2), repeat=count)))
        weights = alone[states, np.arange(count)].sum(1)
        for k, (a, b) in enumerate(pairs):
            even, odd = (b, a) if forest.odd[a] else (a, b)
            weights += tie[states[:, even], states[:, odd], k]
        np.testing.assert_allclose(forest.log_sums(jnp.asarray(alone), jnp.asarray(tie)).sum(), logsumexp(weights, 0))
        noise = jax.random.gumbel(jax.random.key(1), (20_000, 2, count))
        drawn = jax.jit(jax.vmap(lambda n, a=alone, t=tie, f=forest: f.draw(n, jnp.asarray(a), jnp.asarray(t))))(noise)
        exact = np.exp(weights - logsumexp(weights, 0)) @ states
        error = np.sqrt(exact * (1 - exact) / len(drawn))
        assert (abs(np.asarray(drawn).mean(0) - exact) < 4.5 * error).all()
    with pytest.raises(CircleError):
        Forest.of(3, np.array([[0, 1], [1, 2], [0, 2]]))


def constant_draws(values, rows):
    arrays = {name: np.broadcast_to(value, (2, rows, *np.shape(value))) for name, value in values.items()}
    return to_arviz({"posterior": arrays}, dims={}, coords={}, attrs={"seed": 7})


def p_value(drawn, bound, sites, density, position):
    log_weights = np.asarray(joint(bound, sites)(position))
    exact = np.exp(log_weights - logsumexp(log_weights, 0))
    counts = Counter(map(tuple, drawn))
    found = np.array([counts[tuple(state)] for state in every(density, sites).astype(int)])
    assert found.sum() == len(drawn)
    expected, rare = exact * len(drawn), exact * len(drawn) < 5
    if rare.any():
        expected, found = (np.append(a[~rare], a[rare].sum()) for a in (expected, found))
    return stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue


AT = {
    "mixture": (mixture(Y[:3], 2), ["z"], {"w": [0.3, 0.7], "mu": [-0.5, 1.0]}),
    "chain": (loop(Y[:4], 2), names("z", 4), {"mu": [-0.5, 1.0], "moves": [[0.8, 0.2], [0.3, 0.7]]}),
    "uneven": (uneven(Y[:3]), ["k", "z"], {"m": 0.3}),
}


@pytest.mark.parametrize(("bound", "sites", "values"), AT.values(), ids=AT.keys())
def test_recovered_values_have_their_exact_joint_law(bound, sites, values):
    rows = 5_000
    idata = constant_draws(values, rows)
    result = recover(marginalize(bound, sites), idata, seed=1, probabilities=True)
    assert not set(sites) & set(idata["posterior"].data_vars)
    density = traced(bound).density
    posterior = result["posterior"]
    order = [site for site in density.sites if site in sites]
    drawn = np.concatenate([posterior[site].values.reshape(2 * rows, -1) for site in order], 1)
    position = at_values(bound, values)
    assert p_value(drawn, bound, sites, density, position) > ALPHA
    assert p_value(drawn, bound, sites, density, position + 0.5) < CERTAIN
    found = posterior[f"{order[0]}_probability"].values[0, 0]
    states, log_weights = every(density, sites)[:, 0], np.asarray(joint(bound, sites)(position))
    exact = np.exp(log_weights - logsumexp(log_weights, 0))
    exact = [exact[states == value].sum() for value in np.unique(states)]
    np.testing.assert_allclose(found.reshape(-1, found.shape[-1])[0, : len(exact)], exact, rtol=1e-9)


def at_values(bound, values):
    density = traced(bound).density
    found = unconstrain(bound, {name: np.asarray(value) for name, value in values.items()}, {})
    return np.concatenate([np.ravel(found[site]) for site in density.sites if site in values])


def test_nuts_on_a_summed_mixture_has_the_means_of_quadrature():
    @model
    def one(y):
        mu = rv("mu", dist.Normal(0.0, 2.0))
        with plate("n", len(y)):
            z = rv("z", dist.Bernoulli(0.3))
            rv("y", dist.Normal(mu * z, 1.0), obs=y)
        deterministic("share", jnp.mean(z))

    y = np.array([0.1, -0.4, 2.2, 3.1, 0.6, 1.9])
    grid = np.linspace(-8, 8, 4001)
    part = np.stack([0.7 * stats.norm.pdf(y), np.zeros(6)])[:, :, None] + np.zeros((2, 6, len(grid)))
    part[1] = 0.3 * stats.norm.pdf(y[:, None] - grid)
    weight = stats.norm.pdf(grid / 2) * part.sum(0).prod(0)
    weight /= weight.sum()
    summed = marginalize(one(y), "z")
    idata = sample(summed, draws=2000, warmup=300, chains=2, seed=1, progress=False)
    assert set(idata["posterior"].data_vars) == {"mu"}
    posterior = recover(summed, idata, seed=2)["posterior"]
    exact = {"mu": grid @ weight, "share": (part[1] / part.sum(0)).mean(0) @ weight}
    for name, value in exact.items():
        mean, error = mean_error(posterior[name].values)
        assert abs(mean - value) < 4.5 * error
        assert abs(mean + 0.2 - value) > 4.5 * error
    assert posterior["z"].dims == ("chain", "draw", "n")
    again = recover(summed, idata, seed=2)["posterior"]["z"]
    np.testing.assert_array_equal(again, posterior["z"])
    assert (recover(summed, idata, seed=3)["posterior"]["z"] != again).any()


def test_other_discrete_sites_are_sampled_beside():
    bound = marginalize(uneven(Y[:3]), ["z"])
    blocks = Gibbs({"k": DiscreteGibbs(), "m": Slice()})
    idata = sample(bound, blocks, draws=50, warmup=50, chains=1, seed=1, progress=False)
    assert set(recover(bound, idata, seed=1)["posterior"].data_vars) == {"m", "k", "z"}


@model
def odd():
    k = rv("k", dist.Poisson(2.0))
    j = rv("j", dist.Binomial(k, 0.5))
    rv("pair", dist.Multinomial(2, jnp.ones(2) / 2))
    z = rv("z", dist.Bernoulli(0.5))
    x = rv("x", dist.Uniform(0.0, 1.0 + z))
    rv("y", dist.Normal(x, 1.0), obs=0.3)
    with plate("n", 4):
        b = rv("b", dist.Bernoulli(0.5))
        c = rv("c", dist.Bernoulli(0.5))
    factor("all", jnp.sum(b) ** 2)
    factor("circle", c * jnp.roll(c, 1) * x + j)


REFUSED = {
    "continuous": ("x", "site 'x' is continuous"),
    "unknown": ("q", "has no site 'q'"),
    "observed": ("y", "site 'y' is observed"),
    "infinite": ("k", r"site 'k' \(Poisson\) has infinitely many values"),
    "dependent": ("j", r"the values that site 'j' \(BinomialProbs\) can take depend on other sites"),
    "together": ("pair", r"the entries of site 'pair' \(MultinomialProbs\) are not free"),
    "selects a support": ("z", "the support of site 'x' depends on 'z'"),
    "all at once": ("b", r"term 'all' depends on more than two entries of 'b'.*DiscreteGibbs"),
    "circle": ("c", r"'c\[\d\]' and 'c\[\d\]' are tied together with others in a circle.*DiscreteGibbs"),
}


@pytest.mark.parametrize(("site", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_summed_over_is_refused_by_name(site, message):
    with pytest.raises(ValueError, match=f"marginalize: .*{message}"):
        traced(marginalize(odd(), site))


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match=r"marginalize: 'mixture' has no data yet"):
        marginalize(mixture, "z")
    with pytest.raises(ValueError, match="'z' are all latent sites of the model"):
        traced(marginalize(mixture(Y, 2).fix(w=jnp.ones(2) / 2, mu=jnp.ones(2)), "z"))
    summed = marginalize(mixture(Y, 2), "z")
    with pytest.raises(ValueError, match="no values of the latent site 'mu'"):
        recover(summed, constant_draws({"w": [0.5, 0.5]}, 3))
    with pytest.raises(ValueError, match="no site of this model is summed out"):
        recover(mixture(Y, 2), constant_draws({"w": [0.5, 0.5]}, 3))
    with pytest.raises(ValueError, match="at draw 0 of chain 0, and at 6 of 6, no value"):
        recover(summed, constant_draws({"w": [0.5, 0.5], "mu": [np.nan, 0.0]}, 3))
    with pytest.raises(ValueError, match="init: 'z' is no latent site"):
        sample(summed, init={"z": np.zeros(6)}, draws=1, warmup=0, progress=False)


def test_log_likelihood_is_that_of_the_sum():
    @model
    def labelled(y, extra):
        mu = rv("mu", dist.Normal(jnp.zeros(2), 3.0))
        with plate("row", ["a", "b", "c"]):
            z = rv("z", dist.Categorical(jnp.array([0.3, 0.7])))
            rv("y", dist.Normal(mu[z], 1.0), obs=y)
        rv("extra", dist.Normal(mu[0], jnp.ones(2)), obs=extra)

    summed = labelled(np.array([0.1, 2.0, -1.0]), np.array([0.5, 0.7])).marginalize("z")
    idata = sample(summed, draws=50, warmup=100, chains=2, seed=1, progress=False)
    found = log_likelihood(summed, idata)["log_likelihood"]
    mu = idata["posterior"]["mu"].values
    y = np.array([0.1, 2.0, -1.0])
    expected = np.logaddexp(
        np.log(0.3) + stats.norm.logpdf(y, mu[..., :1]), np.log(0.7) + stats.norm.logpdf(y, mu[..., 1:])
    )
    np.testing.assert_allclose(found["y"].values, expected, rtol=1e-10)
    assert found["y"].dims == ("chain", "draw", "row")
    assert list(found["row"].values) == ["a", "b", "c"]
    np.testing.assert_allclose(found["extra"].values, stats.norm.logpdf([0.5, 0.7], mu[..., :1]), rtol=1e-10)
    # Drawn, the labels are values like others.
    recovered = recover(summed, idata, seed=1)
    z = recovered["posterior"]["z"].values
    given = log_likelihood(summed, recovered)["log_likelihood"]["y"].values
    np.testing.assert_allclose(given, stats.norm.logpdf(y, np.take_along_axis(mu, z, -1)), rtol=1e-10)
    with pytest.raises(ValueError, match="predict: site 'z' has been summed out"):
        predict(summed, idata)


def test_log_likelihood_of_a_chain_is_that_of_the_whole():
    @model
    def hidden(y):
        p = rv("p", dist.Beta(2.0, 2.0))
        z = rv("z_0", dist.Bernoulli(0.5))
        rv("y_0", dist.Normal(2.0 * z, 1.0), obs=y[0])
        for t in (1, 2):
            z = rv(f"z_{t}", dist.Bernoulli(jnp.where(z == 1, p, 1 - p)))
            rv(f"y_{t}", dist.Normal(2.0 * z, 1.0), obs=y[t])

    summed = hidden(np.array([0.1, 2.0, 1.5])).marginalize("z_0", "z_1", "z_2")
    idata = sample(summed, draws=20, warmup=50, chains=1, seed=1, progress=False)
    found = log_likelihood(summed, idata)["log_likelihood"]
    (name,) = found.data_vars
    prior = stats.beta.logpdf(idata["posterior"]["p"].values, 2.0, 2.0)
    jacobian = np.log(idata["posterior"]["p"].values * (1 - idata["posterior"]["p"].values))
    np.testing.assert_allclose(
        found[name].values.sum(-1) + prior + jacobian, idata["sample_stats"]["lp"].values, rtol=1e-10
    )
