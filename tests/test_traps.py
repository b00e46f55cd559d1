"""What plain Python does to a model that is traced: each either works, or is an error that says what to write."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from dualtape import MH, AutoTape, deterministic, model, plate, rv, sample, scan
from dualtape.ad import DifferentiationError
from dualtape.ppl.checking.indices import IndexWarning
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.placeholders import TracingError
from dualtape.ppl.precision import PrecisionWarning

SHORT = {"draws": 5, "warmup": 5, "chains": 1, "seed": 1, "progress": False}


def _looking(look):
    @model
    def looking(y):
        theta = rv("theta", dist.Normal(0.0, 1.0))
        twice = 2 * theta
        rv("y", dist.Normal(look(theta, twice), 1.0), obs=y)

    return looking(1.0)


def _float(theta, twice):
    return float(theta)


def _numpy(theta, twice):
    return np.sin(twice)


def _math(theta, twice):
    return math.exp(theta)


@pytest.mark.parametrize(
    ("look", "line"),
    [
        (_float, r"the value of `theta`.* at .*test_traps.py:\d+ \(`return float\(theta\)`\)"),
        (_numpy, r"the value of `twice`, which random variables determine at .*`return np.sin\(twice\)`"),
        (_math, r"the value of `theta`.* at .*`return math.exp\(theta\)`"),
    ],
)
@pytest.mark.parametrize("adtype", [None, AutoTape()], ids=["default", "tape"])
def test_values_that_python_needs_are_an_error_with_line_and_remedy(look, line, adtype):
    expected = line.replace("`theta`.*", "site 'theta'") if look is not _numpy else line
    with pytest.raises(TracingError, match=expected) as caught:
        sample(_looking(look), adtype=adtype, **SHORT)
    assert "use jnp.where or jax.lax.cond" in str(caught.value)


def test_an_if_names_the_site_the_line_and_the_ways_out():
    @model
    def branching(y):
        theta = rv("theta", dist.Normal(0.0, 1.0))
        if theta > 0:
            theta = -theta
        rv("y", dist.Normal(theta, 1.0), obs=y)

    with pytest.raises(DifferentiationError, match=r"AutoTape\(\)") as caught:
        sample(branching(1.0), **SHORT)
    (note,) = caught.value.__notes__[:1]
    assert "looks at the value of site 'theta' at " in note
    assert "(`if theta > 0:`)" in note
    assert sample(branching(1.0), adtype=AutoTape(), **SHORT).posterior["theta"].shape == (1, 5)


@model
def by_group(group, y, size=3):
    with plate("group", size):
        a = rv("a", dist.Normal(0.0, 1.0))
    rv("y", dist.Normal(a[group], 1.0), obs=y)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (np.array([0, 1, 3]), r"site 'y': index 3 \(number 2 .*an array of values of 'a' whose .*valid are -3 to 2"),
        (np.array([0, -4, 2]), r"site 'y': index -4 \(number 1"),
        ([0, 1, 7], "site 'y': index 7"),
        (jnp.array([5, 1, 0]), "site 'y': index 5"),
        (5, "site 'y': index 5"),
    ],
)  # fmt: skip
def test_indices_out_of_range_are_refused_before_sampling(group, message, compiled):
    with pytest.raises(IndexError, match=message):
        sample(by_group(group, np.zeros(3) if np.ndim(group) else 0.0), **SHORT)
    assert not compiled


@pytest.mark.parametrize("group", [np.array([0, 1, 2]), np.array([-1, -2, -3]), [2, 2, 2], np.int8([0, 1, 2])])
def test_indices_in_range_pass(group):
    bound = by_group(group, np.zeros(3))
    assert trace_model(bound, discover(bound)).density.sites == ("a",)


def test_indices_of_matrices_of_data_and_on_purpose():
    table = np.arange(6.0).reshape(2, 3)

    @model
    def rows(i, j, k):
        a = rv("a", dist.Normal(jnp.zeros((2, 3)), 1.0))
        deterministic("on purpose", a.at[k].get(mode="clip"))
        rv("y", dist.Normal(a[i, j] + jnp.asarray(table)[i, j], 1.0), obs=np.zeros(2))

    def traced(*arguments):
        return trace_model(rows(*arguments), discover(rows(*arguments)))

    traced(np.array([0, 1]), np.array([2, 1]), np.array([9]))
    with pytest.raises(IndexError, match=r"site 'y': index 2 .* size 2"):
        traced(np.array([0, 2]), np.array([2, 1]), np.array([0]))
    with pytest.raises(IndexError, match=r"site 'y': index 3 .* size 3"):
        traced(np.array([0, 1]), np.array([2, 3]), np.array([0]))


def test_an_index_that_is_a_random_variable_is_left_alone():
    @model
    def latent():
        z = rv("z", dist.Categorical(jnp.ones(3) / 3))
        rv("y", dist.Normal(jnp.arange(3.0)[z], 1.0), obs=1.0)

    assert trace_model(latent(), discover(latent())).density.sites == ("z",)


def test_closed_over_data_may_change_between_calls():
    data = np.array([1.0, 1.0])

    @model
    def closing():
        mu = rv("mu", dist.Normal(0.0, 1.0))
        rv("y", dist.Normal(mu, 0.01), obs=data)

    options = {"draws": 50, "warmup": 200, "chains": 1, "seed": 1, "progress": False}
    assert abs(float(sample(closing(), **options).posterior["mu"].mean()) - 1) < 0.1
    data[:] = 3.0
    assert abs(float(sample(closing(), **options).posterior["mu"].mean()) - 3) < 0.1


def test_single_precision_arrays_and_distributions_of_the_outside_are_told():
    with jax.enable_x64(False):
        x = jnp.array([0.1, 0.2])
        family = dist.Normal(jnp.array([0.1, 0.3]), 1.0)

    @model
    def outside(x):
        b = rv("b", dist.Normal(0.0, 1.0))
        rv("y", dist.Normal(b * x, 1.0), obs=np.zeros(2))

    @model
    def closing():
        b = rv("b", dist.Normal(0.0, 1.0))
        rv("y", dist.Normal(b * x, 1.0), obs=np.zeros(2))

    @model
    def prior():
        rv("b", family)

    # As an argument an array is converted, and everything that is computed from it is in full precision.
    assert outside(x).args[0].dtype == np.float64
    sample(outside(x), **SHORT)
    sample(closing(), precision="float32", **SHORT)
    for bound in (closing(), prior()):
        with pytest.warns(PrecisionWarning, match=r"an array of shape \(2,\) in float32"):
            sample(bound, **SHORT)


def test_integers_as_parameters_are_as_good_as_floats():
    @model
    def integers(y):
        b, g = rv("b", dist.Normal(0, 2)), rv("g", dist.Gamma(2, 3))
        rv("y", dist.Normal(b, g), obs=y)

    @model
    def floats(y):
        b, g = rv("b", dist.Normal(0.0, 2.0)), rv("g", dist.Gamma(2.0, 3.0))
        rv("y", dist.Normal(b, g), obs=y)

    at = np.array([0.3, -0.2])
    values = [
        float(one.density.log_density(at, *one.data))
        for one in (trace_model(f(1), discover(f(1))) for f in (integers, floats))
    ]
    assert values[0] == values[1]


def test_numpyros_words_are_refused_in_a_model():
    @model
    def mixed(y):
        numpyro.sample("y", dist.Normal(rv("m", dist.Normal()), 1.0), obs=y)

    with pytest.raises(RuntimeError, match=r"numpyro.sample\('y', ...\) has no meaning .*; write rv\('y', ...\)"):
        sample(mixed(1.0), **SHORT)


def test_nan_among_covariates_is_named():
    @model
    def line(x, y):
        b = rv("b", dist.Normal())
        rv("y", dist.Normal(b * x, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"The data hold NaN, in an array of shape \(2,\), that no rv observes"):
        sample(line(np.array([1.0, np.nan]), np.zeros(2)), **SHORT)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (lambda: _one(lambda: [rv("x", dist.Normal()) for _ in range(2)]), r"site 'x' is declared twice.*f'x_\{i\}'"),
        (lambda: _one(lambda: _plate(0)), "plate 'p' has size 0"),
        (lambda: _one(lambda: _plate([])), "plate 'p' has size 0"),
        (lambda: _one(lambda: rv("y", dist.Normal(jnp.zeros((3, 1)), 1.0), obs=np.zeros(3))), r"has shape \(3,\), but"),
        (lambda: _one(lambda: rv("y", dist.Normal(jnp.zeros((3, 3)), 1.0), obs=np.zeros(3))), r"has shape \(3,\), but"),
    ],
    ids=["loop", "empty plate", "no labels", "column", "matrix"],
)
def test_other_traps(bound, message):
    with pytest.raises(ValueError, match=message):
        discover(bound())


def _one(declare):
    @model
    def one():
        declare()

    return one()


def _plate(size):
    with plate("p", size):
        rv("x", dist.Normal())


def test_a_loop_over_a_random_number_runs_at_numbers():
    @model
    def counted():
        n = rv("n", dist.Binomial(3, 0.5))
        for _ in range(n):
            pass

    assert sample(counted(), MH(), **SHORT).posterior["n"].shape == (1, 5)


def test_a_step_of_a_series_that_looks_is_named_too():
    @model
    def series():
        def step(x, _):
            x = rv("x", dist.Normal(x, 1.0))
            return (x if x > 0 else -x), None

        scan("t", step, 0.0, length=3)

    with pytest.raises(TracingError, match=r"`return \(x if x > 0 else -x\), None`"):
        sample(series(), **SHORT)


def test_negative_indices_among_others_are_told():
    bound = by_group(np.array([0, -1, 2]), np.zeros(3))
    with pytest.warns(IndexWarning, match="site 'y': some of the indices into an array of values of 'a' are negative"):
        trace_model(bound, discover(bound))


@pytest.mark.parametrize(
    ("group", "error", "remedy"),
    [
        (np.array([0.0, 1.0, 2.0]), TypeError, "return_inverse"),
        (np.array(["a", "b", "c"]), TypeError, "return_inverse"),
    ],
)
def test_raw_errors_say_where_and_what_to_do(group, error, remedy):
    with pytest.raises(error) as caught:
        discover(by_group(group, np.zeros(3)))
    notes = "".join(caught.value.__notes__)
    assert remedy in notes
    assert '`rv("y", dist.Normal(a[group], 1.0), obs=y)`' in notes


def test_parameters_that_a_distribution_refuses_are_located():
    @model
    def negative():
        rv("x", dist.Normal(0.0, -1.0))

    with pytest.raises(ValueError, match="invalid scale") as caught:
        discover(negative())
    assert "test_traps.py" in "".join(caught.value.__notes__)


def test_an_index_that_a_random_variable_makes_is_checked_at_the_ends_of_its_support():
    @model
    def mixture(count):
        k = rv("k", dist.Categorical(probs=jnp.ones(count) / count))
        rv("y", dist.Normal(jnp.array([0.0, 2.0, 4.0])[k], 1.0), obs=4.0)

    trace_model(mixture(3), discover(mixture(3)))
    with pytest.raises(IndexError, match=r"site 'y': index 3 .* size 3"):
        trace_model(mixture(4), discover(mixture(4)))


def test_a_model_inside_of_a_model_is_a_submodel():
    @model
    def inner():
        return rv("x", dist.Normal())

    @model
    def outer():
        rv("y", dist.Normal(inner() + rv("b", dist.Normal()), 1.0), obs=1.0)

    with pytest.raises(TypeError) as caught:
        discover(outer())
    assert "submodel('name', other(...))" in "".join(caught.value.__notes__)
