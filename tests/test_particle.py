"""Particle Gibbs has the exact law of the states, planted bugs are found, and the steps of a loop become one function.

Statistical tests have the false-alarm rate ALPHA each, over all their comparisons; some ten run, with fixed seeds.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import NUTS, Gibbs, factor, model, rv, sample
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.views.state_space import StateSpaceDensity, state_space
from dualtape.samplers import particle
from dualtape.samplers.particle import ParticleGibbs, ParticleKernel
from dualtape.samplers.random import chain_key, fold_in, jax_key
from scipy import stats
from targets import mean_error, p_value

ALPHA = 1e-3
CERTAIN = 1e-9  # what the p-value of a planted bug must fall below
CHAINS = 4000


class View(NamedTuple):
    whole: object
    target: StateSpaceDensity
    data: tuple

    def constants(self, position, data=None):
        given = self.target.given
        return given.constants(position, given.prepare(self.data if data is None else data))


def view(bound, states="x_"):
    """The sites of a model whose names begin so, as a state space."""
    traced = trace_model(bound, discover(bound))
    parts = {site: (site, None) for site in traced.density.sites if site.startswith(states)}
    return View(traced.density, state_space(traced.density, parts), traced.data)


def walk(target, starts, constants, *, particles, steps, seed=0):
    """Vectorised chains: their paths, shape (chains, steps, dimension), and the infos; constants one row a chain."""
    kernel = ParticleGibbs(particles).build(target, np.float64)

    def chain(key, position, *constants):
        def step(state, index):
            state, info = kernel.step(fold_in(key, index), state, kernel.init_tuning(), constants)
            return state, (kernel.position(state), info)

        return jax.lax.scan(step, kernel.init(position, constants), jnp.arange(steps, dtype=jnp.int32))[1]

    keys = jax.vmap(lambda i: fold_in(chain_key(seed, 0), i))(jnp.arange(len(starts), dtype=jnp.int32))
    shared = [
        0 if np.ndim(array) > len(shape.shape) else None
        for array, shape in zip(constants, target.constants, strict=True)
    ]
    path, infos = jax.jit(jax.vmap(chain, (0, 0, *shared)))(keys, jnp.asarray(starts), *constants)
    return np.asarray(path), jax.tree.map(np.asarray, infos)


# Linear Gaussian chains, of which everything is known.


@model
def linear(a, q, r, y):
    """x_t = a x_{t-1} + q ε, y_t = x_t + r η, of scalars or vectors; what is NaN was not observed."""
    scalar = np.ndim(y[0]) == 0

    def normal(mean, scale):
        return dist.Normal(mean, scale) if scalar else dist.MultivariateNormal(mean, scale_tril=scale)

    zero = 0.0 if scalar else jnp.zeros(len(y[0]))
    for t in range(len(y)):
        mean = zero if t == 0 else a * x if scalar else a @ x  # noqa: F821
        x = rv(f"x_{t}", normal(mean, q))
        if not np.isnan(y[t]).any():
            rv(f"y_{t}", normal(x, r), obs=y[t])


def smoothing(a, q, r, y):
    """Mean and covariance of all states given all observations, by linear algebra."""
    a, q, r = (np.atleast_2d(matrix) for matrix in (a, q, r))
    length, d = len(y), len(a)
    y = np.reshape(y, (length, d))
    later = np.kron(np.eye(length, k=-1), a)
    residual = np.eye(length * d) - later
    precision = residual.T @ np.kron(np.eye(length), np.linalg.inv(q @ q.T)) @ residual
    seen = np.repeat(~np.isnan(y).any(1), d)
    noise = np.kron(np.eye(length), np.linalg.inv(r @ r.T)) * seen[:, None] * seen
    covariance = np.linalg.inv(precision + noise)
    return covariance @ noise @ np.nan_to_num(y.ravel()), covariance


RNG = np.random.default_rng(0)
Y = np.where(np.arange(12) % 5 == 3, np.nan, RNG.normal(scale=1.5, size=12))
LINEAR = {
    "scalars": (0.9, 0.6, 0.5, Y),
    "vectors": (
        np.array([[0.8, 0.3], [-0.2, 0.7]]),
        np.array([[0.6, 0.0], [0.2, 0.5]]),
        np.array([[0.7, 0.0], [0.3, 0.9]]),
        np.where(np.arange(6)[:, None] == 2, np.nan, RNG.normal(size=(6, 2))),
    ),
    "little noise in the states": (0.99, 0.1, 1.0, RNG.normal(size=6)),
    "one state": (0.0, 1.0, 1.0, np.array([2.0])),
}


# Two particles are enough to be right, not to be quick.
PARTICLES = {"scalars": 2, "vectors": 4, "little noise in the states": 4, "one state": 3}


def ends(name, steps=3):
    """Where exact draws are after some steps, as numbers that are to be standard normal, and the infos."""
    seen = view(linear(*LINEAR[name]))
    mean, covariance = smoothing(*LINEAR[name])
    root = np.linalg.cholesky(covariance)
    normals = np.random.default_rng(1).normal(size=(CHAINS, len(mean)))
    assert p_value(normals) > ALPHA
    constants = seen.constants(jnp.zeros(len(mean)))
    path, infos = walk(seen.target, mean + normals @ root.T, constants, particles=PARTICLES[name], steps=steps)
    return np.linalg.solve(root, (path[:, -1] - mean).T).T, infos


@pytest.mark.parametrize("name", LINEAR)
def test_the_smoothing_law_is_invariant(name):
    normals, infos = ends(name)
    assert p_value(normals) > ALPHA
    assert p_value(0.9 * normals) < 1e-6
    assert p_value(normals + 0.15) < 1e-6
    assert infos.update_rate.mean() > 0.2
    assert ((infos.effective_particles >= 1) & (infos.effective_particles <= PARTICLES[name])).all()


def test_few_particles_mix_over_a_long_chain():
    """Means, squares and products of neighbours over the chain: Student's t with 63 degrees, Bonferroni over 59."""
    rng = np.random.default_rng(3)
    truth = np.linalg.solve(np.eye(20) - 0.9 * np.eye(20, k=-1), rng.normal(scale=0.5, size=20))
    settings = (0.9, 0.5, 0.7, truth + rng.normal(scale=0.7, size=20))
    seen = view(linear(*settings))
    mean, covariance = smoothing(*settings)
    path, infos = walk(seen.target, np.full((64, 20), 2.0), seen.constants(jnp.zeros(20)), particles=6, steps=500)
    path, lp = path[:, 50:] - mean, infos.lp[:, 50:]
    assert infos.update_rate.mean() > 0.5
    found = [path.mean(1), (path**2).mean(1), (path[..., 1:] * path[..., :-1]).mean(1)]
    exact = [np.zeros(20), np.diag(covariance), np.diag(covariance, 1)]
    scores = np.concatenate([(f.mean(0) - e) / (f.std(0, ddof=1) / 8.0) for f, e in zip(found, exact, strict=True)])
    assert np.abs(scores).max() < stats.t.isf(ALPHA / 2 / scores.size, 63)
    quadratic = -0.5 * np.einsum("csi,ij,csj->cs", path, np.linalg.inv(covariance), path)
    assert np.std(lp - quadratic) < 1e-10
    # The errors are small enough for this to mean something: 0.05 standard deviations of a state is seen.
    assert (found[0].std(0, ddof=1) / 8.0 < 0.05 * np.sqrt(np.diag(covariance)) / 3).all()


# Planted bugs.


def ancestors_without_the_transition(monkeypatch):
    monkeypatch.setattr(ParticleKernel, "_log_ahead", lambda self, *rest: jnp.zeros(()))


def reference_has_no_descendants(monkeypatch):
    choose = particle.choose

    def without(uniforms, log_weights):
        return choose(uniforms, log_weights.at[-1].set(-jnp.inf) if uniforms.ndim else log_weights)

    monkeypatch.setattr(particle, "choose", without)


def weights_come_late(monkeypatch):
    """The observation of a time weighs the particles of the next."""
    log_weight = StateSpaceDensity.log_weight
    monkeypatch.setattr(
        StateSpaceDensity,
        "log_weight",
        lambda self, t, before, x, *c: log_weight(self, 0 if isinstance(t, int) else jnp.maximum(t - 1, 1), x, x, *c),
    )


def trajectory_of_the_first_particle(monkeypatch):
    choose = particle.choose
    monkeypatch.setattr(particle, "choose", lambda u, w: choose(u, w) if u.ndim else jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
    "plant",
    [
        ancestors_without_the_transition,
        reference_has_no_descendants,
        weights_come_late,
        trajectory_of_the_first_particle,
    ],
)
def test_planted_bugs_are_found(plant, monkeypatch):
    plant(monkeypatch)
    assert p_value(ends("little noise in the states", steps=6)[0]) < CERTAIN


# Other states than real numbers.


@model
def positive(y):
    """States on the positive half line; observations of some, and of how they compare with those before."""
    x = rv("x_0", dist.LogNormal(0.0, 1.0))
    rv("y_0", dist.Normal(x, 0.5), obs=y[0])
    for t in range(1, 5):
        before, x = x, rv(f"x_{t}", dist.LogNormal(0.8 * jnp.log(x), 0.6))
        if t != 2:
            rv(f"y_{t}", dist.Normal(x, 0.5), obs=y[t])
        rv(f"z_{t}", dist.Normal(x - before, 0.5), obs=y[4 + t])


def test_positive_states_keep_their_joint_law_with_the_data():
    """States from the prior and data from the states: the states after some steps, given the data, come from it too."""
    rng = np.random.default_rng(5)
    logs = rng.normal(size=(CHAINS, 1))
    for _ in range(4):
        logs = np.hstack([logs, 0.8 * logs[:, -1:] + 0.6 * rng.normal(size=(CHAINS, 1))])
    x = np.exp(logs)
    data = np.hstack([x, np.diff(x)]) + 0.5 * rng.normal(size=(CHAINS, 9))
    seen = view(positive(jnp.asarray(data[0])))
    assert len(seen.target.steps) == 3
    constants = jax.jit(jax.vmap(lambda y: seen.constants(jnp.zeros(5), (y,))))(data)
    path, _ = walk(seen.target, logs, constants, particles=5, steps=4)
    after = path[:, -1]
    normals = np.hstack([after[:, :1], (after[:, 1:] - 0.8 * after[:, :-1]) / 0.6])
    assert p_value(normals) > ALPHA
    # What remains of the observations are their errors: with those of other chains that would not be so.
    errors = (data - np.hstack([np.exp(after), np.diff(np.exp(after))])) / 0.5
    assert p_value(errors[:, [0, 1, 3, 4, 5, 6, 7, 8]]) > ALPHA
    assert p_value(np.roll(data, 1, axis=0)[:, :1] - np.exp(after[:, :1])) < CERTAIN


START, CHANGE, EMIT = np.array([0.6, 0.4]), np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([0.3, 0.7])


@model
def hidden(y):
    x = rv("x_0", dist.Categorical(START))
    for t in range(6):
        x = x if t == 0 else rv(f"x_{t}", dist.Categorical(jnp.asarray(CHANGE)[x]))
        rv(f"y_{t}", dist.Bernoulli(jnp.asarray(EMIT)[x]), obs=y[t])


def test_a_hidden_markov_model_has_the_enumerated_law():
    y = np.array([0, 1, 1, 0, 1, 1])
    seen = view(hidden(y))
    path, _ = walk(seen.target, np.zeros((20_000, 6)), seen.constants(jnp.zeros(6)), particles=4, steps=12)
    counts = np.bincount(path[:, -1].astype(int) @ 2 ** np.arange(6)[::-1], minlength=64)

    def p_of(change):
        states = np.array(list(itertools.product([0, 1], repeat=6)))
        exact = START[states[:, 0]] * np.prod(change[states[:, :-1], states[:, 1:]], 1)
        exact *= np.prod(np.where(y, EMIT[states], 1 - EMIT[states]), 1)
        return stats.chisquare(counts, 20_000 * exact / exact.sum()).pvalue

    assert p_of(CHANGE) > ALPHA
    assert p_of(np.array([[0.6, 0.4], [0.2, 0.8]])) < CERTAIN


# From a loop in a model to steps.


@model
def wide(y, u, form):
    """Parameters, covariates and volatilities of several kinds, by `form`."""
    phi = rv("phi", dist.Uniform(-1, 1))
    h = rv("h", dist.HalfNormal(1.0).expand([len(y)]).to_event(1)) if form == "vector volatility" else None
    for t in range(len(y)):
        scale = h[t] if h is not None else rv(f"h_{t}", dist.HalfNormal(1.0)) if form == "own volatility" else 0.5
        mean = phi * u[t] if form == "covariates" else 0.0
        x = rv(f"x_{t}", dist.Normal(mean + (phi * x if t else 0.0), scale))  # noqa: F821
        if not (form == "missing" and t % 4 == 2):
            rv(f"y_{t}", dist.StudentT(3.0, x, 0.5 + phi**2), obs=y[t])
        if form == "factors":
            factor(f"f_{t}", -jnp.abs(x - t))


FORMS = ["plain", "missing", "covariates", "own volatility", "vector volatility", "factors"]


def at_random(form, length, wrap):
    rng = np.random.default_rng(length)
    seen = view(wide(wrap(rng.normal(size=length)), wrap(rng.normal(size=length)), form))
    position = jnp.asarray(rng.normal(size=seen.whole.dimension))
    parts = {site: (site, None) for site in seen.target.sites}
    own = np.concatenate([seen.whole.coordinates.positions(part) for part in parts.values()])
    return seen, position, position[own]


@pytest.mark.parametrize(("form", "wrap"), [("plain", jnp.asarray)] + [(f, np.asarray) for f in FORMS])
def test_steps_are_those_of_the_model(form, wrap):
    """Terms against the model's own, step by step under a traced time, and draws against NumPyro's."""
    length, rng = 9, np.random.default_rng(9)
    seen, position, states = at_random(form, length, wrap)
    target = seen.target
    assert len(target.steps) == (3 if form == "missing" else 2)

    def at(time, states, constants):
        before, state = states[time - 1 : time] if isinstance(time, int) else states[time - 1][None], states[time][None]
        before = before if before.size else jnp.zeros(1)
        drawn = target.draw_state(chain_key(0, 0), time, before, *constants)
        here = time, before, state, *constants
        return target.log_transition(*here), target.log_weight(*here), drawn

    @jax.jit
    def everything(position, states):
        constants = seen.constants(position)
        later = jax.vmap(at, (0, None, None))(jnp.arange(1, length), states, constants)
        first = at(0, states, constants)
        steps = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), first, later)
        return constants, seen.whole.by_term(position, *seen.data), target.log_density(states, *constants), steps

    constants, terms, log_density, (transitions, weights, draws) = everything(position, states)
    assert [(array.shape, array.dtype) for array in constants] == [(s.shape, s.dtype) for s in target.constants]
    np.testing.assert_allclose(log_density, sum(terms[name] for name in target.terms), rtol=1e-12)
    np.testing.assert_allclose(transitions, [terms[f"x_{t}"] for t in range(length)], rtol=1e-12)
    others = [sum(terms.get(name, 0.0) for name in (f"y_{t}", f"f_{t}")) for t in range(length)]
    np.testing.assert_allclose(weights, others, rtol=1e-12)

    where, position = seen.whole.coordinates.slices, np.asarray(position)
    _, u = rng.normal(size=length), rng.normal(size=length)
    means = (2.0 / (1.0 + np.exp(-position[0])) - 1.0) * np.append(0.0, states[:-1])
    means += (2.0 / (1.0 + np.exp(-position[0])) - 1.0) * u if form == "covariates" else 0.0
    scales = {
        "own volatility": lambda: np.exp([position[where[f"h_{t}"]][0] for t in range(length)]),
        "vector volatility": lambda: np.exp(position[where["h"]]),
    }.get(form, lambda: 0.5)()
    normals = dist.Normal(0.0, 1.0).sample(jax_key(chain_key(0, 0)))
    np.testing.assert_allclose(draws[:, 0], means + scales * normals, rtol=1e-10)


@pytest.mark.parametrize(
    ("form", "wrap", "longer"),
    [("plain", jnp.asarray, 100)] + [(form, np.asarray, 30) for form in FORMS if form != "vector volatility"],
)
def test_the_program_does_not_grow_with_time(form, wrap, longer):
    """Constants and update together; a vector that the steps read at their own places grows by these readings."""

    def size(length):
        seen, position, states = at_random(form, length, wrap)
        kernel = ParticleGibbs().build(seen.target, np.float64)
        prepared = jax.eval_shape(seen.target.given.prepare, seen.data)

        def update(key, position, states, prepared):
            constants = seen.target.given.constants(position, prepared)
            return kernel.step(key, kernel.init(states, constants), (), constants)

        return str(jax.make_jaxpr(update)(chain_key(0, 0), position, states, prepared)).count(" = ")

    assert size(10) == size(longer)


def test_series_that_differ_in_their_data_alone_share_one_update():
    rng = np.random.default_rng(1)
    data = [jnp.asarray(rng.normal(size=(2, n))) for n in (7, 7, 8)]
    one, other, longer = (view(wide(y, u, "covariates")).target for y, u in data)
    assert one.signature == other.signature
    assert one.signature not in (longer.signature, view(wide(*data[0], "plain")).target.signature)


@model
def refused(case):
    x = rv("x_0", dist.Normal(0.0, 1.0))
    z = rv("x_1", dist.Normal(jnp.stack([x, x]), 1.0) if case == "sizes" else dist.Normal(x, 1.0))
    w = rv("x_2", dist.Normal(x, 1.0) if case == "order" else dist.Normal(z, 1.0), obs=None)
    v = rv("x_3", dist.ImproperUniform(dist.constraints.real, (), ()) if case == "improper" else dist.Normal(w, 1.0))
    if case == "term":
        rv("y_3", dist.Normal(v - z, 1.0), obs=0.5)
    if case == "vector":
        rv("y", dist.Normal(jnp.stack([x, z, w, v, rv("x_4", dist.Normal(v, 1.0))]), 1.0), obs=np.zeros(5))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("term", r"term 'y_3' depends on x_1 and x_3; the states must form a Markov chain in the order of the sites"),
        ("order", r"term 'x_2' depends on x_0 and x_2; .* another sampler"),
        ("vector", r"term 'y' depends on x_0, x_1, \.\.\. and x_4; .* Declare observations one by one"),
        ("sizes", r"site 'x_1' has 2 coordinates and 'x_0' 1; states must have equally many"),
        ("improper", r"site 'x_3' is ImproperUniform, which cannot be drawn from"),
    ],
)
def test_what_is_no_state_space_is_refused(case, message):
    with pytest.raises(ValueError, match=f"^ParticleGibbs: {message}"):
        view(refused(case))


def test_a_part_of_a_site_is_refused():
    bound = wide(np.zeros(3), np.zeros(3), "vector volatility")
    traced = trace_model(bound, discover(bound))
    with pytest.raises(ValueError, match=r"site 'h\[0\]' is a part of 'h', and states are whole sites"):
        state_space(traced.density, {"h[0]": ("h", np.array([0]))})


@pytest.mark.parametrize("particles", [1, 2.5, True, "20"])
def test_bad_numbers_of_particles_are_refused(particles):
    with pytest.raises(ValueError, match="ParticleGibbs: particles must be an integer >= 2, got"):
        ParticleGibbs(particles)


# Weights that are zero or no numbers.


@model
def walled(level):
    for t in range(5):
        x = rv(f"x_{t}", dist.Normal(x if t else 0.0, 1.0))  # noqa: F821
        factor(f"f_{t}", jnp.where(x > 0.0, 0.0, level))


def test_particles_without_a_weight_have_no_descendants():
    """Chains whose weights below zero are zero, no numbers, or infinite; some start where their own are so."""
    levels = jnp.repeat(jnp.array([-jnp.inf, jnp.nan, jnp.inf]), 50)
    seen = view(walled(levels[0]))
    # One of the data is the level; numbers in the model may be others.
    data = [np.isneginf(known) for known in seen.data]
    assert sum(data) == 1

    def given(level):
        return tuple(level if here else known for here, known in zip(data, seen.data, strict=True))

    constants = jax.vmap(lambda level: seen.constants(jnp.zeros(5), given(level)))(levels)
    starts = np.where(np.arange(150)[:, None] % 5 == 0, -3.0, 1.0) * np.ones(5)
    path, infos = walk(seen.target, starts, constants, particles=4, steps=40)
    assert np.isfinite(path).all()
    assert (path[:, -1] > 0.0).all()
    assert (path[starts[:, 0] > 0.0] > 0.0).all()
    # Where no particle has a weight, the present trajectory stays.
    assert (path[starts[:, 0] < 0.0][:, 0] == -3.0).any()
    assert (infos.update_rate[:, 20:].reshape(3, -1).mean(1) > 0.3).all()


def test_where_no_trajectory_is_possible_the_present_one_stays():
    @model
    def impossible():
        for t in range(3):
            rv(f"x_{t}", dist.Normal(0.0, 1.0))
        factor("f", -jnp.inf * jnp.ones(()))

    bound = impossible()
    traced = trace_model(bound, discover(bound))
    target = state_space(traced.density, {site: (site, None) for site in traced.density.sites})
    start = np.arange(3.0)
    path, infos = walk(target, start[None], target.given.at(jnp.zeros(3), traced.data), particles=4, steps=1)
    assert path[0, 0, 0] == start[0]
    assert np.isfinite(path).all()
    assert (infos.effective_particles < 4).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_choice_by_weight(dtype):
    """Shares in proportion, none of weight zero at either end, and the last where there is no weight at all."""
    log_weights = jnp.asarray([-np.inf, 0.0, np.log(3.0), -np.inf, -800.0, -np.inf], dtype)
    chosen = np.asarray(particle.choose(jnp.asarray((np.arange(400) + 0.5) / 400, dtype), log_weights))
    assert np.bincount(chosen, minlength=6).tolist() == [0, 100, 300, 0, 0, 0]
    limits = jnp.asarray([np.finfo(dtype).tiny, 1.0 - np.finfo(dtype).epsneg], dtype)
    assert particle.choose(limits, log_weights).tolist() == [1, 2]
    assert particle.choose(limits, jnp.full(6, -jnp.inf, dtype)).tolist() == [5, 5]
    assert particle.effective_size(log_weights) == pytest.approx(16 / 10)
    assert particle.effective_size(jnp.full(6, -jnp.inf)) == 0.0


# Through the language.


@model
def autoregression(y):
    phi = rv("phi", dist.Uniform(-1, 1))
    q = rv("q", dist.LogNormal(-0.5, 0.5))
    x = rv("x_0", dist.Normal(0.0, 1.0))
    rv("y_0", dist.Normal(x, 0.5), obs=y[0])
    for t in range(1, len(y)):
        x = rv(f"x_{t}", dist.Normal(phi * x, q))
        rv(f"y_{t}", dist.Normal(x, 0.5), obs=y[t])


def test_parameters_and_states_agree_with_quadrature():
    """Means of φ, q and the last state; by batches, Student's t with 49 degrees of freedom."""
    y = np.array([0.8, 1.1, 0.2, -0.4, -1.0, -0.3, 0.9, 1.5])
    sampler = Gibbs({lambda site: site.startswith("x_"): ParticleGibbs(15), ...: NUTS(target_acceptance=0.95)})
    result = sample(autoregression(y), sampler, draws=3000, warmup=300, chains=2, seed=1, progress=False)
    phi, q = np.meshgrid((np.arange(60) + 0.5) / 30 - 1, np.exp(np.linspace(-2.7, 1.7, 60)))
    weights, last = np.zeros(phi.shape), np.zeros(phi.shape)
    for i, j in np.ndindex(phi.shape):
        powers = phi[i, j] ** np.arange(8)
        start = np.tril(powers[np.abs(np.subtract.outer(range(8), range(8)))])
        prior = start @ np.diag([1.0, *[q[i, j] ** 2] * 7]) @ start.T
        full = prior + 0.25 * np.eye(8)
        # The measure is uniform in φ and in log q.
        weights[i, j] = stats.norm.logpdf(np.log(q[i, j]), -0.5, 0.5) - 0.5 * y @ np.linalg.solve(full, y)
        weights[i, j] -= 0.5 * np.linalg.slogdet(full)[1]
        last[i, j] = prior[-1] @ np.linalg.solve(full, y)
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    exact = {"phi": np.sum(weights * phi), "q": np.sum(weights * q), "x_7": np.sum(weights * last)}
    for name, expected in exact.items():
        mean, error = mean_error(np.asarray(result["posterior"][name]))
        assert abs(mean - expected) < stats.t.isf(ALPHA / 6, 49) * error
        assert error < 0.03
    rates = np.asarray(result["sample_stats"]["block_update_rate"])[..., 0]
    sizes = np.asarray(result["sample_stats"]["block_effective_particles"])[..., 0]
    assert 0.7 < rates.mean() <= 1.0
    assert 2.0 < sizes.mean() < 15.0
    assert repr(ParticleGibbs(15)) == "ParticleGibbs(particles=15)"
