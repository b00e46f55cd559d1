import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import deterministic, factor, model, plate, rv, sample, submodel
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model


@model
def effects(size, scale=1.0):
    mu = rv("mu", dist.Normal(0.0, 1.0))
    with plate("unit", size):
        z = rv("z", dist.Normal(0.0, scale))
        return deterministic("effect", mu + z)


@model
def two(y, first=None):
    a = submodel("a", effects(3) if first is None else first)
    b = submodel("b", effects(2, 2.0))
    factor("bound", prior=-(a[0] ** 2))
    with plate("row", len(y)):
        rv("y", dist.Normal(a.sum() + b.sum(), 1.0), obs=y)


Y = np.array([0.3, -0.2])


@model
def by_hand(y):
    mu_a, mu_b = rv("a.mu", dist.Normal(0.0, 1.0)), rv("b.mu", dist.Normal(0.0, 1.0))
    z_a = rv("a.z", dist.Normal(jnp.zeros(3), 1.0))
    z_b = rv("b.z", dist.Normal(jnp.zeros(2), 2.0))
    factor("bound", prior=-((mu_a + z_a[0]) ** 2))
    rv("y", dist.Normal((mu_a + z_a).sum() + (mu_b + z_b).sum(), jnp.ones(2)), obs=y)


def traced(bound):
    return trace_model(bound, discover(bound))


def test_log_density_is_that_of_the_model_written_out():
    nested, flat = traced(two(Y)), traced(by_hand(Y))
    assert set(nested.density.sites) == set(flat.density.sites) == {"a.mu", "a.z", "b.mu", "b.z"}
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=shape) for name, shape in nested.density.coordinates.shapes.items()}

    def at(one):
        return one.density.log_density(one.density.coordinates.join([values[s] for s in one.density.sites]), *one.data)

    np.testing.assert_allclose(at(nested), at(flat), rtol=1e-13)


def test_names_dims_and_conditions_carry_the_name_of_the_submodel():
    found = discover(two(Y, effects(3) | {"mu": 0.5}))
    assert found.sites["a.mu"].obs == 0.5
    assert found.sites["b.mu"].is_latent
    assert found.sites["a.z"].dims == ("a.unit",)
    assert found.deterministics["a.effect"][1] == ("a.unit",)
    # What the outer model says counts, whatever the inner one has been told.
    assert discover(two(Y, effects(3) | {"mu": 0.5}).decondition("a.mu")).sites["a.mu"].is_latent
    assert discover(two(Y, effects(3) | {"mu": 0.5}) | {"a.mu": 2.0}).sites["a.mu"].obs == 2.0
    assert "a.mu" in discover(two(Y, effects(3) | {"mu": 0.5}).fix({"a.mu": 2.0})).fixed
    assert discover(two(Y, effects(3).fix(mu=1.0))).fixed["a.mu"][0] == 1.0


def test_a_submodel_within_a_submodel_and_a_plate():
    @model
    def inner(scale):
        return rv("x", dist.Normal(0.0, scale))

    @model
    def middle():
        return submodel("in", inner(rv("s", dist.HalfNormal(1.0))))

    @model
    def outer():
        with plate("group", 4):
            submodel("mid", middle())

    found = discover(outer())
    assert {name: (site.shape, site.dims) for name, site in found.sites.items()} == {
        "mid.s": ((4,), ("group",)),
        "mid.in.x": ((4,), ("group",)),
    }


def test_draws_are_named_in_the_result():
    idata = sample(two(Y), draws=20, warmup=20, chains=1, seed=1, progress=False)
    assert set(idata.posterior.data_vars) == {"a.mu", "a.z", "a.effect", "b.mu", "b.z", "b.effect"}
    assert idata.posterior["b.effect"].dims == ("chain", "draw", "b.unit")


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (lambda: submodel("a", effects), TypeError, "submodel 'a': 'effects' has no data yet"),
        (lambda: submodel("a", 3), TypeError, "submodel 'a': expected a model with its data, got 3"),
        (lambda: (submodel("a", effects(2)), submodel("a", effects(2))), ValueError, "submodel 'a' is used twice"),
        (lambda: submodel("a", effects(2) | {"q": 1.0}), ValueError, "condition: .* has no site 'a.q'"),
        (lambda: (rv("a.z", dist.Normal()), submodel("a", effects(2))), ValueError, "site 'a.z' is declared twice"),
    ],
    ids=["no data", "no model", "name taken", "unknown condition", "site taken"],
)
def test_refusals(part, error, message):
    @model
    def outer():
        part()

    with pytest.raises(error, match=message):
        discover(outer())


def test_outside_of_a_model():
    with pytest.raises(RuntimeError, match=r"submodel\('a', ...\) has a meaning only while a model runs"):
        submodel("a", effects(2))


@pytest.mark.parametrize(
    ("weights", "likelihood", "terms"),
    [
        (lambda x: {"log_weight": -x}, {"w"}, {"x", "w"}),
        (lambda x: {"prior": -x}, set(), {"x", "w"}),
        (lambda x: {"likelihood": -x}, {"w"}, {"x", "w"}),
        (lambda x: {"prior": -x, "likelihood": -(x**2)}, {"w"}, {"x", "w", "w (prior)"}),
    ],
)
def test_factors_count_to_the_prior_or_the_likelihood(weights, likelihood, terms):
    @model
    def weighted():
        factor("w", **weights(rv("x", dist.Normal())))

    found = traced(weighted())
    assert set(found.likelihood) == likelihood
    by_term = found.density.by_term(jnp.array([2.0]))
    assert set(by_term) == terms
    assert float(sum(value for name, value in by_term.items() if name != "x")) == sum(
        float(value) for value in weights(2.0).values()
    )


@pytest.mark.parametrize("weights", [{}, {"log_weight": 1.0, "likelihood": 1.0}])
def test_factors_without_a_weight_or_with_two_are_refused(weights):
    @model
    def weighted():
        rv("x", dist.Normal())
        factor("w", **weights)

    with pytest.raises(TypeError, match="factor\\('w'\\)"):
        discover(weighted())


def test_traces_run_without_64_bit_numbers_too():
    with jax.enable_x64(False):
        assert discover(two(Y)).sites["a.z"].shape == (3,)
