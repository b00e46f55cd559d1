"""`summary`: kinds, distributions, supports, sizes and direct parents of everything that a model declares."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import deterministic, factor, model, plate, rv
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_centered, eight_schools_noncentered
from dualtape.models.gdemo import gdemo
from dualtape.ppl.describe.summary import Kind, summarize
from dualtape.ppl.interpreters import discover
from dualtape.ppl.language import scan, submodel
from dualtape.ppl.log_density import trace_model


@model
def everything(y, x):
    """Each kind of name, and each way in which one site can get at another."""
    high = rv("high", dist.Uniform(0.0, 5.0))
    low = rv("low", dist.Uniform(0.0, high))
    weights = rv("weights", dist.Dirichlet(jnp.ones(3)))
    covariate = rv("covariate", dist.Normal(0.0, 1.0), obs=x)
    with plate("component", 3):
        mean = rv("mean", dist.Normal(0.0, 2.0 * low))
    with plate("row", len(y)):
        z = rv("z", dist.Categorical(probs=weights))
        centre = deterministic("centre", mean[z] + 1.0)
        rv("y", dist.Normal(centre * covariate, low), obs=y)
    correlation = rv("correlation", dist.LKJCholesky(3, 2.0))
    rv("pair", dist.MultivariateNormal(jnp.zeros(3), scale_tril=correlation))
    deterministic("copy", weights)
    deterministic("constant", 1.0)
    factor("soft", prior=-(low**2), likelihood=-jnp.sum(centre))


EVERYTHING = everything(np.zeros(5), np.arange(5.0))
# By name: kind, distribution, support, shape, size, parents.
EXPECTED = {
    "high": (Kind.LATENT, "Uniform(0, 5)", "interval(0, 5)", (), 1, ()),
    "low": (Kind.LATENT, "Uniform(0, high)", "interval(0, high)", (), 1, ("high",)),
    "weights": (Kind.LATENT, "Dirichlet(1)", "simplex", (3,), 2, ()),
    "mean": (Kind.LATENT, "Normal(0, f(low))", "real", (3,), 3, ("low",)),
    "z": (Kind.LATENT, "CategoricalProbs(weights)", "integer_interval(0, 2)", (5,), 5, ("weights",)),
    "correlation": (Kind.LATENT, "LKJCholesky(3, 2)", "corr_cholesky", (3, 3), 3, ()),
    "pair": (Kind.LATENT, "MultivariateNormal(0, scale_tril=correlation)", "real", (3,), 3, ("correlation",)),
    "covariate": (Kind.OBSERVED, "Normal(0, 1)", "real", (5,), 5, ()),
    "y": (Kind.OBSERVED, "Normal(f(centre, covariate), low)", "real", (5,), 5, ("low", "covariate", "centre")),
    "centre": (Kind.DETERMINISTIC, "", "", (5,), 0, ("mean", "z")),
    "copy": (Kind.DETERMINISTIC, "", "", (3,), 0, ("weights",)),
    "constant": (Kind.DETERMINISTIC, "", "", (), 0, ()),
    "soft": (Kind.FACTOR, "", "", (), 0, ("low", "centre")),
}


def parents(bound):
    return {site.name: site.parents for site in summarize(bound).sites}


def test_everything_that_a_model_declares():
    summary = summarize(EVERYTHING)
    found = {
        site.name: (site.kind, site.distribution, site.support, site.shape, site.size, site.parents)
        for site in summary.sites
    }
    assert found == EXPECTED
    assert list(found) == list(EXPECTED)
    assert {site.name for site in summary.sites if site.discrete} == {"z"}
    assert (summary.parameters, summary.discrete, summary.observed) == (1 + 1 + 2 + 3 + 3 + 3, 5, 10)
    assert {site.name: site.plates for site in summary.sites if site.plates} == {
        **dict.fromkeys(("mean",), ("component",)),
        **dict.fromkeys(("z", "centre", "y"), ("row",)),
    }
    assert not summary.note


@pytest.mark.parametrize(
    "bound", [gdemo(1.5, 2.0), eight_schools_noncentered(Y, SIGMA), EVERYTHING], ids=lambda bound: bound.name
)
def test_the_count_of_parameters_is_that_of_the_density(bound):
    density = trace_model(bound, discover(bound)).density
    summary = summarize(bound)
    assert summary.parameters + summary.discrete == density.dimension


@model
def sees_only_what_it_uses(x):
    a = rv("a", dist.Normal(0.0, 1.0))
    b = rv("b", dist.Normal(a, 1.0))
    unused = a + b
    doubled = deterministic("doubled", 2.0 * b)
    del unused
    rv("of_doubled", dist.Normal(doubled, 1.0), obs=x)
    rv("of_b", dist.Normal(2.0 * b, 1.0), obs=x)
    rv("computed", dist.Normal(b, 1.0), obs=jnp.exp(a))


def test_dependence_is_direct():
    """Cut at sites and at deterministics: no arrow goes past one."""
    assert parents(sees_only_what_it_uses(1.0)) == {
        "a": (),
        "b": ("a",),
        "of_doubled": ("doubled",),
        "of_b": ("b",),
        "computed": ("a", "b"),
        "doubled": ("b",),
    }


SCHOOLS = eight_schools_centered(Y, SIGMA)


@pytest.mark.parametrize(
    ("bound", "kinds", "totals"),
    [
        (SCHOOLS, {"mu": Kind.LATENT, "y": Kind.OBSERVED}, (10, 8)),
        (SCHOOLS.fix(tau=2.0), {"tau": Kind.FIXED}, (9, 8)),
        (SCHOOLS | {"mu": 1.0}, {"mu": Kind.OBSERVED}, (9, 9)),
        (SCHOOLS.decondition("y"), {"y": Kind.LATENT}, (18, 0)),
        (SCHOOLS.fix(mu=0.0, tau=1.0, theta=np.zeros(8)), {"theta": Kind.FIXED}, (0, 8)),
    ],
    ids=["plain", "fixed", "conditioned", "deconditioned", "no latent site"],
)
def test_conditions_and_interventions(bound, kinds, totals):
    summary = summarize(bound)
    assert {name: summary[name].kind for name in kinds} == kinds
    assert (summary.parameters, summary.observed) == totals
    # A fixed site has no parents any more, and stays a parent.
    assert set(summary["theta"].parents) == (set() if "theta" in bound.interventions else {"mu", "tau"})
    assert summary["y"].parents == ("theta",)


@model
def looks_at_values(y):
    theta = rv("theta", dist.Normal(0.0, 1.0))
    scale = rv("scale", dist.HalfNormal(1.0))
    mean = deterministic("mean", 2.0 * theta)
    rv("y", dist.Normal(mean, scale if theta > 1.0 else 1.0), obs=y)


@model
def looks_at_data(y):
    theta = rv("theta", dist.Normal(0.0, 1.0))
    count = rv("count", dist.Poisson(3.0), obs=y)
    rv("z", dist.Normal(theta, 1.0), obs=np.zeros(int(count)))


@pytest.mark.parametrize(
    ("bound", "expected", "note"),
    [
        (
            looks_at_values(1.0),
            {"theta": (), "scale": (), "y": ("mean",), "mean": ("theta",)},
            "arrows are those of one",
        ),
        (looks_at_data(3), {"theta": (), "count": (), "z": ("theta",)}, "values of its data"),
    ],
    ids=["of random variables", "of data"],
)
def test_a_model_that_looks_at_values_says_what_is_not_seen(bound, expected, note):
    summary = summarize(bound)
    assert parents(bound) == expected
    assert note in summary.note
    assert summary.note in str(summary)


@model
def autoregression(y):
    slope = rv("slope", dist.Normal(0.0, 1.0))
    scale = rv("scale", dist.HalfNormal(1.0))
    noise = rv("noise", dist.HalfNormal(1.0))

    def centred(x, y):
        x = rv("x", dist.Normal(slope * x, scale))
        rv("y", dist.Normal(deterministic("twice", 2.0 * x), noise), obs=y)
        return x, None

    def noncentred(w, _):
        w = deterministic("w", w + scale * rv("e", dist.Normal(0.0, 1.0)))
        return w, w

    scan("time", centred, 0.0, y)
    last, _ = scan("later", noncentred, 0.0, length=3)
    rv("end", dist.Normal(last, 1.0), obs=0.0)


def test_dependence_inside_a_scan():
    """What a step gets from the step before is told apart from what it computes itself."""
    assert parents(autoregression(np.zeros(7))) == {
        "slope": (),
        "scale": (),
        "noise": (),
        "x": ("slope", "scale", "x"),
        "y": ("noise", "twice"),
        "twice": ("x",),
        "e": (),
        "w": ("scale", "e", "w"),
        "end": ("w",),
    }


@model
def groups(n):
    with plate("group", n):
        return rv("theta", dist.Normal(0.0, 1.0))


@model
def in_parts(y):
    theta = submodel("part", groups(4))
    with plate("row", 4):
        filled = rv("y", dist.Normal(theta, 1.0), obs=y)
    rv("end", dist.Normal(jnp.sum(filled), 1.0), obs=0.0)


def test_submodels_and_missing_data():
    summary = summarize(in_parts(np.array([1.0, np.nan, 2.0, np.nan])))
    assert parents(in_parts(np.array([1.0, np.nan, 2.0, np.nan]))) == {
        "part.theta": (),
        "y_missing": ("part.theta",),
        "y": ("part.theta",),
        "end": ("y_missing",),
    }
    assert (summary["y_missing"].size, summary["y"].size, summary.parameters) == (2, 2, 6)
    assert summary["part.theta"].plates == ("part.group",)


def test_the_table(capsys):
    text = str(summarize(SCHOOLS)).splitlines()
    assert text[0] == "eight_schools_centered: 10 unconstrained parameters, 8 observed numbers"
    assert text[2].split() == ["site", "kind", "distribution", "support", "shape", "dims", "parameters"]
    assert text[6].split() == ["theta", "latent", "Normal(mu,", "tau)", "real", "8", "school", "8"]
    assert text[-1] == "plates: school (8)"
    assert repr(summarize(SCHOOLS)) == f"<summary of {text[0]}>"
    page = summarize(EVERYTHING)._repr_html_()
    assert page.count("<tr>") == 1 + len(EXPECTED)
    assert "<td>Uniform(0, high)</td><td>interval(0, high)</td>" in page
    assert not capsys.readouterr().out


def test_an_unknown_name():
    with pytest.raises(KeyError, match=r"'gdemo' has no site 'q'; it has 's', 'm', 'x', 'y'"):
        summarize(gdemo(1.5, 2.0))["q"]
