"""Log densities written by hand, as models."""

import functools
import pickle
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape import NUTS, AutoForward, AutoTape, External, Gibbs, Slice, check_gradients, explain, sample
from dualtape.ppl.bring.log_density import LogDensity
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from numpyro.distributions import constraints

OPTIONS = {"draws": 2000, "warmup": 500, "chains": 2, "seed": 3, "progress": False}


def beta_and_normal(values):
    """Beta(3, 2) for `s`, Normal(s, 1) for each entry of `x`; not normalised."""
    s, x = values["s"], values["x"]
    return 2 * jnp.log(s) + jnp.log1p(-s) - 0.5 * jnp.sum((x - s) ** 2)


INIT = {"s": 0.5, "x": np.zeros(2, np.float32)}
SUPPORTS = {"s": constraints.unit_interval}


def traced(m):
    return trace_model(m, discover(m))


def z_score(draws, expected):
    batches = draws.reshape(-1, 50).mean(axis=1)
    return (batches.mean() - expected) / (batches.std(ddof=1) / np.sqrt(len(batches)))


@pytest.mark.parametrize(
    "sampler",
    [
        NUTS(),
        Gibbs({"s": Slice(), ...: NUTS(adtype=AutoForward())}),
        Gibbs({"s": Slice(), "x[0:1]": Slice(), "x[1:2]": Slice()}),
    ],
    ids=["NUTS", "Gibbs", "parts"],
)
def test_the_posterior_has_the_moments_of_the_density(sampler):
    # E s = E x = 0.6 and E s² = 0.4; a z beyond 4.5 happens by chance once in 70 000 runs.
    posterior = sample(LogDensity(beta_and_normal, INIT, supports=SUPPORTS), sampler, **OPTIONS)["posterior"]
    s, x = posterior["s"].values, posterior["x"].values
    assert s.dtype == np.float64
    assert s.min() > 0
    for draws, expected in ((s, 0.6), (s**2, 0.4), (x[..., 0], 0.6), (x[..., 1], 0.6)):
        assert abs(z_score(draws, expected)) < 4.5
    assert abs(z_score(s + 0.1, 0.6)) > 4.5


def test_a_kernel_of_blackjax_samples_it():
    blackjax = pytest.importorskip("blackjax")
    kernel = External(
        lambda log_density: blackjax.nuts(log_density, step_size=0.4, inverse_mass_matrix=np.ones(3)),
        adtype=AutoForward(),
    )
    s = sample(LogDensity(beta_and_normal, INIT, supports=SUPPORTS), kernel, **OPTIONS)["posterior"]["s"].values
    assert abs(z_score(s, 0.6)) < 4.5
    assert abs(z_score(s + 0.1, 0.6)) > 4.5


def test_the_log_density_is_that_of_the_function_and_the_jacobian():
    density = traced(LogDensity(beta_and_normal, INIT, supports=SUPPORTS)).density
    q = jnp.array([0.3, 1.0, -2.0])
    s = jax.nn.sigmoid(0.3)
    expected = beta_and_normal({"s": s, "x": q[1:]}) + jnp.log(s * (1 - s))
    np.testing.assert_allclose(density.log_density(q, *density.data), expected, rtol=1e-14)


Point = namedtuple("Point", "a b")


@pytest.mark.parametrize(
    ("init", "names", "sites"),
    [
        (np.zeros(3), None, {"x": (3,)}),
        (jnp.zeros((2, 2)), "beta", {"beta": (2, 2)}),
        ([1, 2], ["a", "b"], {"a": (), "b": ()}),
        (np.zeros(2), ["a", "b"], {"a": (), "b": ()}),
        (np.zeros(2), ["only"], None),
        (0.5, "t", {"t": ()}),
        ({"b": 1.0, "a": {"c": np.zeros(2)}}, None, {"a.c": (2,), "b": ()}),
        (Point(1.0, [0.0, np.ones(2)]), None, {"a": (), "b.0": (), "b.1": (2,)}),
        (Point(1.0, np.ones(2)), ["p", "q"], {"p": (), "q": (2,)}),
    ],
)
def test_sites_are_named_after_the_structure(init, names, sites):
    def fn(values):
        assert jax.tree.structure(values) == jax.tree.structure(init)
        assert all(jnp.shape(a) == jnp.shape(b) for a, b in zip(*map(jax.tree.leaves, (values, init)), strict=True))
        return -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(values))

    if sites is None:
        with pytest.raises(ValueError, match="1 name"):
            LogDensity(fn, init, names)
        return
    found = discover(LogDensity(fn, init, names)).sites
    assert {name: site.shape for name, site in found.items()} == sites


def test_supports_of_several_dimensions():
    def fn(v):
        return jnp.sum(jnp.log(v["w"])) - 0.5 * jnp.sum(v["c"] ** 2)

    init = {"w": np.full((2, 3), 1 / 3), "c": np.array([[0.0, 1.0], [2.0, 3.0]])}
    m = LogDensity(fn, init, supports={"w": constraints.simplex, "c": constraints.ordered_vector})
    assert traced(m).density.dimension == 2 * 2 + 4
    posterior = sample(m, draws=20, warmup=200, chains=1, seed=1, progress=False)["posterior"]
    np.testing.assert_allclose(posterior["w"].values.sum(axis=-1), 1.0)
    assert (np.diff(posterior["c"].values) > 0).all()


def test_conditions_interventions_plans_and_checks_work_on_it(capsys):
    m = LogDensity(beta_and_normal, INIT, supports=SUPPORTS)
    assert traced(m | {"s": 0.2}).density.sites == ("x",)
    assert traced(m.fix(x=np.ones(2))).density.sites == ("s",)
    explain(m)
    check_gradients(m)
    out = capsys.readouterr().out
    assert "beta_and_normal" in out
    assert "log density" in out
    assert "WRONG" not in out.upper().replace("NOT WRONG", "")
    again = pickle.loads(pickle.dumps(m.fix(s=0.1)))
    assert again.name == "beta_and_normal"
    assert traced(again).density.sites == ("x",)


def test_chains_start_at_init():
    # Far from where unconstrained draws would start, and flat elsewhere.
    m = LogDensity(lambda x: -0.5 * jnp.sum((x - 1000.0) ** 2), np.full(2, 1000.0))
    assert m.initial.keys() == {"x"}
    x = sample(m, draws=1, warmup=0, chains=1, seed=1, progress=False, init={"x": np.full(2, 990.0)})
    assert abs(x["posterior"]["x"].values - 990).max() < 10
    x = sample(m, draws=1, warmup=0, chains=1, seed=1, progress=False)["posterior"]["x"].values
    assert abs(x - 1000).max() < 10


def test_a_function_that_looks_at_values():
    m = LogDensity(lambda x: -0.5 * x**2 if x > 0 else -2.0 * x**2, 1.0)
    x = sample(m, NUTS(adtype=AutoTape()), draws=3, warmup=3, chains=1, seed=1, progress=False)["posterior"]["x"]
    assert np.isfinite(x.values).all()


def power(x, n):
    return -(x**n)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LogDensity(3.0, 1.0), TypeError, "expected a function"),
        (lambda: LogDensity(power, 1.0), TypeError, "one argument.*lambda"),
        (lambda: LogDensity(lambda x: -(x**2), np.zeros(3)), ValueError, r"shape \(3,\).*jnp.sum"),
        (lambda: LogDensity(lambda x: None, 1.0), TypeError, "returned NoneType"),
        (lambda: LogDensity(lambda x: x * 1j, 1.0), TypeError, "complex"),
        (lambda: LogDensity(jnp.log, 0.0, "s"), ValueError, "-inf at init.*supports="),
        (lambda: LogDensity(lambda x: jnp.log(x["s"]), {"s": -1.0}), ValueError, "nan at init"),
        (lambda: LogDensity(jnp.sum, [1.0, "a"]), TypeError, "init: '1' holds"),
        (lambda: LogDensity(jnp.sum, {"a": np.nan}), ValueError, "'a' has a value that is not finite"),
        (lambda: LogDensity(jnp.sum, {"a": True}), TypeError, "'a' holds bool"),
        (lambda: LogDensity(jnp.sum, {}), ValueError, "no arrays"),
        (lambda: LogDensity(jnp.sum, np.zeros(2), ["a", "a"]), ValueError, "'a' is given twice"),
        (lambda: LogDensity(jnp.sum, np.zeros(2), ["a", 1]), TypeError, "names are non-empty strings"),
        (lambda: LogDensity(jnp.sum, 1.0, "s", {"t": constraints.real}), ValueError, "'t', which is no site.*'s'"),
        (lambda: LogDensity(jnp.sum, 1.0, "s", {"s": 1}), TypeError, "support of 's' must be"),
        (lambda: LogDensity(jnp.sum, 1.0, "s", {"s": constraints.boolean}), TypeError, "'s' is discrete"),
        (lambda: LogDensity(jnp.sum, 1.0, "s", {"s": constraints.simplex}), ValueError, "shape ()"),
        (lambda: LogDensity(jnp.sum, -1.0, "s", {"s": constraints.positive}), ValueError, "'s' lies outside"),
    ],
)
def test_errors_name_the_site_and_the_remedy(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_argument_can_be_bound():
    m = LogDensity(functools.partial(power, n=2), 1.0)
    assert traced(m).density.dimension == 1
