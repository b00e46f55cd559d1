"""The modelling language: shapes, plates, dims, conditions and interventions."""

import pickle

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import deterministic, factor, model, plate, rv
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model


def sites(bound):
    """Shape and dims of each site, and whether it is observed."""
    found = discover(bound)
    return {s.name: (s.shape, s.dims, not s.is_latent) for s in found.sites.values()}


def log_density(bound, **unconstrained):
    """The log density at unconstrained values by site, and by term."""
    traced = trace_model(bound, discover(bound))
    position = traced.density.coordinates.join([jnp.asarray(unconstrained[s]) for s in traced.density.sites])
    return float(traced.density.log_density(position, *traced.data)), traced.density.by_term(position, *traced.data)


@model
def line(x, y=None):
    a = rv("a", dist.Normal(0.0, 1.0))
    b = rv("b", dist.Normal(0.0, 2.0))
    rv("y", dist.Normal(a + b * x, 0.5), obs=y)


X, Y = np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.2, 1.9])


def normal(x, mean, sd):
    return np.sum(-0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi))


def test_terms_are_those_of_the_model():
    total, terms = log_density(line(X, Y), a=0.3, b=-0.4)
    expected = {"a": normal(0.3, 0, 1), "b": normal(-0.4, 0, 2), "y": normal(Y, 0.3 - 0.4 * X, 0.5)}
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        np.testing.assert_allclose(term, expected[name], rtol=1e-12)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-12)


@pytest.mark.parametrize(
    "observe", [lambda m: m | {"y": Y}, lambda m: m.condition(y=Y), lambda m: m.condition({"y": Y})]
)
def test_conditioning_is_passing_data(observe):
    given = log_density(line(X, Y), a=0.3, b=-0.4)[0]
    np.testing.assert_allclose(log_density(observe(line(X)), a=0.3, b=-0.4)[0], given, rtol=1e-14)


def test_conditions_override_the_data_and_can_be_taken_back():
    bound = line(X, Y)
    assert not sites(bound.decondition("y"))["y"][2]
    assert sites(bound.decondition("y") | {"y": Y})["y"][2]
    zero = bound | {"y": np.zeros(3)}
    assert log_density(zero, a=0.0, b=0.0)[0] > log_density(bound, a=0.0, b=0.0)[0]
    assert not sites((line(X) | {"y": Y}).decondition())["y"][2]


def test_a_condition_keeps_the_term_and_an_intervention_drops_it():
    conditioned = log_density(line(X, Y) | {"a": 0.3}, b=-0.4)[1]
    fixed = log_density(line(X, Y).fix(a=0.3), b=-0.4)[1]
    assert conditioned.keys() - fixed.keys() == {"a"}
    np.testing.assert_allclose(conditioned["y"], fixed["y"], rtol=1e-14)


def test_plates_expand_and_name_dimensions():
    @model
    def nested():
        with plate("group", ["a", "b"]) as group:
            assert list(group) == [0, 1]
            mu = rv("mu", dist.Normal(0.0, 1.0))
            deterministic("twice", 2 * mu)
        with plate("row", 4), plate("group", ["a", "b"]):
            rv("z", dist.Normal(mu, 1.0))
            rv("w", dist.Dirichlet(jnp.ones(3)))
        rv("v", dist.Normal(jnp.zeros((5, 2)), 1.0), dims=("time", "space"))

    found = sites(nested())
    assert found["mu"][:2] == ((2,), ("group",))
    assert found["z"][:2] == ((4, 2), ("row", "group"))
    assert found["w"][:2] == ((4, 2, 3), ("row", "group", "w_dim_2"))
    assert found["v"][:2] == ((5, 2), ("time", "space"))
    assert discover(nested()).deterministics["twice"][1] == ("group",)


def test_a_scalar_distribution_takes_the_shape_of_its_data():
    @model
    def iid(y):
        rv("y", dist.Normal(rv("m", dist.Normal(0, 1)), 1.0), obs=y)

    _, terms = log_density(iid(Y), m=0.5)
    np.testing.assert_allclose(terms["y"], normal(Y, 0.5, 1.0), rtol=1e-12)


def test_factors_are_summed_and_integer_data_become_floats():
    @model
    def weighted():
        x = rv("x", dist.Normal(0.0, 1.0))
        factor("w", jnp.array([1.0, 2.0]) * x)
        rv("y", dist.Normal(x, 1.0), obs=np.array([1, 2]))

    _, terms = log_density(weighted(), x=2.0)
    np.testing.assert_allclose(terms["w"], 6.0)
    np.testing.assert_allclose(terms["y"], normal(np.array([1.0, 2.0]), 2.0, 1.0), rtol=1e-12)


def test_models_keep_the_name_and_the_documentation_of_their_function():
    assert (line.name, line.__name__) == ("line", "line")
    assert repr(line) == "Model(line(x, y=None))"
    assert repr(line(X).fix(a=1.0) | {"y": Y}) == "BoundModel(line, conditioned=['y'], fixed=['a'])"


def test_the_last_call_wins_between_condition_and_fix():
    bound = line(X, Y)
    fixed_last = log_density((bound | {"a": 0.1}).fix(a=0.3), b=-0.4)[1]
    assert "a" not in fixed_last
    conditioned_last = log_density(bound.fix(a=0.1) | {"a": 0.3}, b=-0.4)[1]
    assert "a" in conditioned_last
    assert "a" in sites(bound.fix(a=0.1).decondition("a"))


def test_dimensions_of_derived_values_are_those_of_the_plates():
    @model
    def derived():
        with plate("g", 3):
            z = rv("z", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))
            deterministic("same", z)
            deterministic("longer", jnp.zeros((3, 5)))
            deterministic("batched", jnp.zeros((5, 3)))
            deterministic("unrelated", jnp.zeros(2))

    assert sites(derived())["z"][1] == ("g", "z_dim_1")
    found = {name: dims for name, (_, dims) in discover(derived()).deterministics.items()}
    assert found == {
        "same": ("g", "same_dim_1"),
        "longer": ("g", "longer_dim_1"),
        "batched": ("batched_dim_0", "g"),
        "unrelated": None,
    }


def test_models_can_be_pickled():
    again = pickle.loads(pickle.dumps(line(X, Y).fix(a=0.3)))
    np.testing.assert_allclose(log_density(again, b=0.1)[0], log_density(line(X, Y).fix(a=0.3), b=0.1)[0])
    assert pickle.loads(pickle.dumps(line)) is line
