"""NumPyro models as they are: their log densities, what handlers make of them, and what is refused."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from dualtape import NUTS, DiscreteGibbs, External, Gibbs, model, rv, sample
from dualtape.ppl.bring.numpyro import from_numpyro
from dualtape.ppl.bring.refusal import refusing_numpyro
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.reparam import LocScaleReparam, TransformReparam
from numpyro.infer.util import potential_energy
from numpyro.primitives import mutable

Y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
HOLES = np.array([1.0, np.nan, 2.0, np.nan, 0.5, 0.1, -1.0, 0.3])


def schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.deterministic("twice", 2 * theta)
        return numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def shifted(y):
    with handlers.reparam(config={"theta": TransformReparam()}):
        affine = dist.transforms.AffineTransform(2.0, 3.0)
        theta = numpyro.sample("theta", dist.TransformedDistribution(dist.Gamma(2.0, 1.0), affine))
    numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def masked(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.Gamma(2.0, 2.0))
    with numpyro.plate("n", len(y)), handlers.mask(mask=~np.isnan(y)):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)
    with handlers.mask(mask=False):
        numpyro.sample("nothing", dist.Normal(3.0, 1.0).expand([2]).to_event(1))


def imputed(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(mu, 2.0), obs=y, obs_mask=~np.isnan(y))


def scaled(y):
    with handlers.scale(scale=0.3):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", len(y)), handlers.scale(scale=np.linspace(0.5, 4.0, len(y))):
        numpyro.sample("y", dist.Normal(mu, 2.0), obs=y)
        numpyro.factor("tilt", 0.1 * mu)


def grid():
    rows, columns = numpyro.plate("row", 3, dim=-2), numpyro.plate("column", 4, dim=-1)
    with rows:
        a = numpyro.sample("a", dist.Normal(0, 1))
    with columns:
        b = numpyro.sample("b", dist.Exponential(1.0))
    with rows, columns:
        c = numpyro.sample("c", dist.Normal(a * b, 1.0))
        numpyro.sample("d", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate_stack("s", [2, 3]):
        numpyro.sample("e", dist.Normal(c.mean(), 1.0))


def scoped(y):
    with handlers.scope(prefix="left"):
        schools(SIGMA, y)
    with handlers.scope(prefix="right", divider="_"):
        schools(SIGMA, y)


def supports(y):
    top = numpyro.sample("top", dist.Gamma(3.0, 1.0))
    numpyro.sample("below", dist.Uniform(0.0, top))
    factor = numpyro.sample("factor", dist.LKJCholesky(3, 1.5))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([1.0, 2.0])))
    cut = numpyro.sample("cut", dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)))
    numpyro.factor("prior of cut", dist.Normal(0, 1).log_prob(cut))
    numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(3), scale_tril=factor), obs=y[:3])
    parts = dist.Normal(cut, 1.0)
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), parts), obs=y)


def loose(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1), sample_shape=(3,), infer={"hint": 1}, rng_key=jax.random.key(0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("one for all", dist.Normal(mu[0], 1.0), obs=0.7)
        numpyro.subsample(y, event_dim=0)
    numpyro.sample("wider", dist.Normal(mu[1], 1.0), obs=y)
    numpyro.sample("with key", dist.Normal(mu[2], jax.random.uniform(numpyro.prng_key()) + 1), obs=y)


def series(y):
    phi = numpyro.sample("phi", dist.Uniform(-1, 1))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(phi * x, 0.5))
        with numpyro.plate("sensor", 2):
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, 2 * x

    last, twice = scan(step, 0.0, np.stack([y, -y], axis=1))
    numpyro.sample("after", dist.Normal(last + twice[0], 1.0), obs=0.3)


def backwards(y):
    def step(x, y):
        x = numpyro.sample("x", dist.Normal(0.9 * x, 0.5))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, x * y

    _, product = scan(step, 0.0, y, reverse=True)
    numpyro.factor("first", product[0])


def parametrised(y):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), scale), obs=y)


CASES = {
    "schools": (schools, (SIGMA, Y)),
    "non-centred": (handlers.reparam(schools, config={"theta": LocScaleReparam(0)}), (SIGMA, Y)),
    "partly centred": (handlers.reparam(schools, config={"theta": LocScaleReparam(0.3)}), (SIGMA, Y)),
    "transformed": (shifted, (Y,)),
    "masked": (masked, (HOLES,)),
    "imputed": (imputed, (HOLES,)),
    "scaled": (scaled, (Y,)),
    "grid": (grid, ()),
    "scoped": (scoped, (Y,)),
    "supports": (supports, (Y,)),
    "loose": (handlers.seed(loose, 3), (Y,)),
    "series": (series, (Y,)),
    "backwards": (backwards, (Y,)),
    "lifted": (handlers.lift(parametrised, prior={"scale": dist.Gamma(2.0, 1.0)}), (Y,)),
    "parameter given": (handlers.substitute(parametrised, data={"scale": 2.0}), (Y,)),
    "conditioned": (handlers.condition(schools, data={"tau": 2.0}), (SIGMA, Y)),
    "do": (handlers.do(schools, data={"tau": 2.0}), (SIGMA, Y)),
    "hidden": (handlers.seed(handlers.block(schools, hide=["tau", "y"]), 1), (SIGMA, Y)),
}


def traced(model):
    return trace_model(model, discover(model))


@pytest.mark.parametrize("case", CASES)
def test_log_density_and_gradient_are_those_of_numpyro(case):
    fn, args = CASES[case]
    density = traced(from_numpyro(fn, *args)).density
    sites = {name: name.replace("left.", "left/") for name in density.sites}

    def theirs(position):
        parts = dict(zip(sites.values(), density.coordinates.split(position), strict=True))
        return -potential_energy(fn, args, {}, parts)

    position = np.random.default_rng(1).normal(0, 0.7, density.dimension)
    value, gradient = jax.jit(jax.value_and_grad(density.log_density))(position, *density.data)
    expected, slope = jax.jit(jax.value_and_grad(theirs))(position)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-10)


def test_scale_and_mask_leave_the_jacobian_whole():
    # So that the posterior does not depend on coordinates; in NumPyro's potential energy it is scaled and masked, too.
    def fn():
        with handlers.scale(scale=0.3):
            numpyro.sample("a", dist.Exponential(2.0))
        with handlers.mask(mask=False):
            numpyro.sample("b", dist.Uniform(0.0, 1.0))

    density = traced(from_numpyro(fn)).density
    q, b = 0.4, jax.nn.sigmoid(-0.7)
    expected = 0.3 * (np.log(2.0) - 2.0 * np.exp(q)) + q + np.log(b * (1 - b))
    np.testing.assert_allclose(density.log_density(jnp.array([q, -0.7]), *density.data), expected, rtol=1e-12)


def test_masked_entries_are_not_missing_data():
    def fn(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with handlers.mask(mask=~jnp.isnan(y)):
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    density = traced(from_numpyro(fn, HOLES)).density
    known = HOLES[~np.isnan(HOLES)]
    assert density.sites == ("mu",)
    expected = dist.Normal(0, 1).log_prob(0.4) + dist.Normal(0.4, 1).log_prob(known).sum()
    np.testing.assert_allclose(density.log_density(jnp.array([0.4]), *density.data), expected, rtol=1e-12)


def test_substitute_gives_a_value_as_condition_does():
    given = traced(from_numpyro(handlers.substitute(schools, data={"tau": 2.0}), SIGMA, Y)).density
    conditioned = traced(from_numpyro(schools, SIGMA, Y).condition(tau=2.0)).density
    position = jnp.linspace(-1.0, 1.0, 9)
    assert given.sites == conditioned.sites == ("mu", "theta")
    ours = given.log_density(position, *given.data)
    np.testing.assert_allclose(ours, conditioned.log_density(position, *conditioned.data), rtol=1e-14)


def test_plates_name_the_dimensions():
    dims = traced(from_numpyro(grid)).dims
    assert {name: dims[name] for name in "abcde"} == {
        "a": ("row", "a_dim_1"),
        "b": ("column",),
        "c": ("row", "column"),
        "d": ("row", "column", "d_dim_2"),
        "e": ("s_1", "s_0"),
    }
    assert traced(from_numpyro(schools, SIGMA, Y)).dims["twice"] == ("school",)


def test_conditions_and_interventions_go_by_name():
    m = from_numpyro(schools, SIGMA, Y)
    assert traced(m | {"mu": 1.0}).density.sites == ("tau", "theta")
    assert traced(m.fix(tau=1.0)).density.sites == ("mu", "theta")
    assert traced(m.decondition("y")).density.sites == ("mu", "tau", "theta", "y")
    assert pickle.loads(pickle.dumps(m)).name == "schools"


def count(y, kind=None):
    z = numpyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mu + 2.0 * z, 1.0), obs=y)


def test_posterior_is_that_of_numpyros_nuts_and_of_the_exact_sum():
    # Eight means and second moments against NumPyro's; a z beyond 4.5 happens by chance once in 9000 runs.
    y = np.array([0.4, 1.8, 1.1])
    idata = sample(
        from_numpyro(count, y),
        Gibbs({"z": DiscreteGibbs(), "mu": NUTS()}),
        draws=4000, warmup=500, chains=2, seed=1, progress=False,
    )  # fmt: skip
    grid = np.linspace(-6, 6, 4001)
    log = [p - grid**2 / 2 - sum((v - grid - 2 * z) ** 2 for v in y) / 2 for z, p in enumerate(np.log([0.7, 0.3]))]
    exact = np.exp(log[1]).sum() / np.exp(log).sum()

    def z_score(draws, expected):
        batches = draws.reshape(-1, 100).mean(axis=1)
        return (batches.mean() - expected) / (batches.std(ddof=1) / np.sqrt(len(batches)))

    draws = idata["posterior"]["z"].values
    assert abs(z_score(draws, exact)) < 4.5
    assert abs(z_score(draws, exact + 0.1)) > 4.5

    fn = handlers.reparam(schools, config={"theta": LocScaleReparam(0)})
    options = {"draws": 3000, "warmup": 700, "chains": 1, "seed": 2, "progress": False}
    ours = sample(from_numpyro(fn, SIGMA, Y), NUTS(target_acceptance=0.95), **options)["posterior"]
    kernel = numpyro.infer.NUTS(fn, target_accept_prob=0.95)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=700, num_samples=3000, progress_bar=False)
    mcmc.run(jax.random.key(0), SIGMA, Y)

    def apart(a, b):
        both = [x.reshape(-1, 100).mean(axis=1) for x in (a, b)]
        error = np.sqrt(sum(x.var(ddof=1) / len(x) for x in both))
        return (both[0].mean() - both[1].mean()) / error

    for name in ("mu", "tau", "theta"):
        a, b = (np.asarray(d).reshape(3000, -1)[:, 0] for d in (ours[name].values, mcmc.get_samples()[name]))
        assert abs(apart(a, b)) < 4.5
        assert abs(apart(np.log(a**2), np.log(b**2))) < 4.5
        assert abs(apart(a + 0.5 * a.std(), b)) > 4.5


def test_a_kernel_of_blackjax_samples_it():
    blackjax = pytest.importorskip("blackjax")
    kernel = External(lambda log_density: blackjax.nuts(log_density, step_size=0.5, inverse_mass_matrix=np.ones(2)))
    m = from_numpyro(schools, SIGMA, Y).fix(theta=Y)
    idata = sample(m, kernel, draws=50, warmup=50, chains=1, seed=1, progress=False)
    assert idata["posterior"]["tau"].values.std() > 0


def with_subsample(y):
    with numpyro.plate("n", 8, subsample_size=4):
        numpyro.sample("y", dist.Normal(0, 1))


def with_cond(y):
    numpyro.sample("x", dist.Normal(0, 1))
    cond(True, lambda _: 1.0, lambda _: 2.0, None)


def with_state(y):
    mutable("state", {"n": 1})


REFUSED = {
    "subsample": (with_subsample, "plate 'n' takes 4 of 8 rows at random"),
    "param": (parametrised, "param 'scale' .* handlers.lift"),
    "mutable": (with_state, "mutable 'state'"),
    "random numbers": (loose, "handlers.seed"),
    "cond": (with_cond, "cond has no translation"),
    "series given": (handlers.condition(series, data={"x": np.zeros(8)}), "site 'x' stands in .* from_numpyro"),
    "series masked": (lambda y: handlers.mask(series, mask=np.ones(8, bool))(y), "mask or scale that is an array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_log_density_is_refused_by_name(case):
    fn, message = REFUSED[case]
    with pytest.raises(NotImplementedError, match=message):
        discover(from_numpyro(fn, Y))


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="expected a function"):
        from_numpyro(3)
    with pytest.raises(TypeError, match="schools"):
        from_numpyro(schools, Y, Y, Y)


def test_handlers_around_the_call_do_not_see_the_model():
    with handlers.trace() as seen, handlers.seed(rng_seed=0):
        m = from_numpyro(schools, SIGMA, Y)
        assert traced(m).density.dimension == 10
    assert not seen


def test_a_primitive_of_numpyro_in_a_model_is_refused_by_name():
    @model
    def mixed(y):
        m = rv("m", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(m, 1), obs=y)

    with refusing_numpyro("mixed"), pytest.raises(RuntimeError, match=r"numpyro.sample\('y', .*write rv\('y'.*from_n"):
        discover(mixed(2.0))
    with refusing_numpyro("schools"):
        assert discover(from_numpyro(schools, SIGMA, Y)).sites.keys() == {"mu", "tau", "theta", "y"}
