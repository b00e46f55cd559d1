"""The models of `dualtape.models.rosetta` as a NumPyro user writes them, in the order of the page; and data."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import logsumexp
from numpyro.contrib.control_flow import scan


def coin_flip(flips):
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    with numpyro.plate("flip", len(flips)):
        numpyro.sample("heads", dist.Bernoulli(p), obs=flips)


def linear_regression(X, y):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
    with numpyro.plate("feature", X.shape[1]):
        slope = numpyro.sample("slope", dist.Normal(0.0, 2.5))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    numpyro.sample("y", dist.Normal(intercept + X @ slope, sigma), obs=y)


def logistic_regression(X, y):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.5))
    with numpyro.plate("feature", X.shape[1]):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Bernoulli(logits=intercept + X @ slope), obs=y)


def hierarchical_radon(log_radon, floor, county, counties):
    mean_intercept = numpyro.sample("mean_intercept", dist.Normal(0.0, 2.0))
    mean_slope = numpyro.sample("mean_slope", dist.Normal(0.0, 2.0))
    sd_intercept = numpyro.sample("sd_intercept", dist.HalfNormal(1.0))
    sd_slope = numpyro.sample("sd_slope", dist.HalfNormal(1.0))
    with numpyro.plate("county", len(counties)):
        intercept = numpyro.sample("intercept", dist.Normal(mean_intercept, sd_intercept))
        slope = numpyro.sample("slope", dist.Normal(mean_slope, sd_slope))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    numpyro.sample("log_radon", dist.Normal(intercept[county] + slope[county] * floor, sigma), obs=log_radon)


def gaussian_mixture(y, components):
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(components)))
    places = dist.Normal(jnp.zeros(components), 5.0)
    mean = numpyro.sample("mean", dist.TransformedDistribution(places, dist.transforms.OrderedTransform()))
    with numpyro.plate("component", components):
        sd = numpyro.sample("sd", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(share), dist.Normal(mean, sd)), obs=y)


def forward_algorithm(initial, transition, emission):
    def step(alpha, weight):
        return logsumexp(alpha[:, None] + transition, axis=0) + weight, None

    alpha, _ = lax.scan(step, initial + emission[0], emission[1:])
    return logsumexp(alpha)


def hidden_markov_model(y, states):
    with numpyro.plate("state", states):
        mean = numpyro.sample("mean", dist.Normal(jnp.arange(states), 0.5))
        transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones(states)))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    initial = jnp.full(states, -jnp.log(states))
    emission = dist.Normal(mean, sigma).log_prob(y[:, None])
    numpyro.factor("y", forward_algorithm(initial, jnp.log(transition), emission))


def latent_dirichlet_allocation(word, document, topics, words, documents):
    with numpyro.plate("topic", topics):
        vocabulary = numpyro.sample("vocabulary", dist.Dirichlet(jnp.full(words, 0.5)))
    with numpyro.plate("document", documents):
        share = numpyro.sample("share", dist.Dirichlet(jnp.ones(topics)))
    numpyro.sample("word", dist.Categorical(share[document] @ vocabulary), obs=word)


def stochastic_volatility(returns):
    step = numpyro.sample("step", dist.Exponential(50.0))
    nu = numpyro.sample("nu", dist.Exponential(0.1))
    log_scale = numpyro.sample("log_scale", dist.GaussianRandomWalk(step, num_steps=len(returns)))
    numpyro.sample("returns", dist.StudentT(nu, 0.0, jnp.exp(log_scale)), obs=returns)


def gaussian_process(x, y):
    height = numpyro.sample("height", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    distance = (x[:, None] - x) / length
    covariance = height**2 * jnp.exp(-0.5 * distance**2) + noise**2 * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(covariance_matrix=covariance), obs=y)


def neural_network(X, y, width):
    with numpyro.plate("input", X.shape[1], dim=-2), numpyro.plate("unit", width, dim=-1):
        w1 = numpyro.sample("w1", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", width, dim=-2), numpyro.plate("unit_above", width, dim=-1):
        w2 = numpyro.sample("w2", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit_above", width, dim=-1):
        w3 = numpyro.sample("w3", dist.Normal(0.0, 1.0))
    logits = jnp.tanh(jnp.tanh(X @ w1) @ w2) @ w3
    numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def runge_kutta(slope, state, times, steps=10):
    h = 1.0 / steps

    def step(state, _):
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state, state

    _, path = lax.scan(step, state, length=times * steps)
    return path[steps - 1 :: steps]


def epidemic(in_bed, population):
    beta = numpyro.sample("beta", dist.TruncatedNormal(2.0, 1.0, low=0.0))
    gamma = numpyro.sample("gamma", dist.TruncatedNormal(0.4, 0.5, low=0.0))
    dispersion = numpyro.sample("dispersion", dist.Exponential(5.0))
    numpyro.deterministic("R0", beta / gamma)

    def slope(state):
        susceptible, infected = state
        infections = beta * susceptible * infected / population
        return jnp.stack([-infections, infections - gamma * infected])

    infected = runge_kutta(slope, jnp.array([population - 1.0, 1.0]), len(in_bed))[:, 1]
    numpyro.sample("in_bed", dist.NegativeBinomial2(infected, 1.0 / dispersion), obs=in_bed)


def missing_covariates(x, y):
    missing = np.isnan(x)
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = numpyro.sample("spread", dist.Exponential(1.0))
    with numpyro.plate("gap", int(missing.sum())):
        x_missing = numpyro.sample("x_missing", dist.Normal(mean, spread))
    numpyro.sample("x_measured", dist.Normal(mean, spread), obs=x[~missing])
    x = jnp.array(x).at[missing].set(x_missing)
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    numpyro.sample("y", dist.Normal(intercept + slope * x, sigma), obs=y)


def censored_survival(X, time, died):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.0))
    with numpyro.plate("feature", X.shape[1]):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    shape = numpyro.sample("shape", dist.Gamma(2.0, 1.0))
    scale = jnp.exp(intercept + X @ slope)
    numpyro.sample("time", dist.Weibull(scale[died], shape), obs=time[died])
    numpyro.factor("alive", -((time[~died] / scale[~died]) ** shape))


def ordered_logit(X, grade, grades):
    with numpyro.plate("feature", X.shape[1]):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    shares = dist.Dirichlet(jnp.ones(grades))
    to_cutpoints = dist.transforms.SimplexToOrderedTransform()
    cutpoints = numpyro.sample("cutpoints", dist.TransformedDistribution(shares, to_cutpoints))
    numpyro.sample("grade", dist.OrderedLogistic(X @ slope, cutpoints), obs=grade)


def varying_effects(wait, afternoon, cafe, cafes):
    with numpyro.plate("effect", 2):
        mean = numpyro.sample("mean", dist.Normal(np.array([5.0, -1.0]), np.array([2.0, 0.5])))
        sd = numpyro.sample("sd", dist.Exponential(1.0))
    L = numpyro.sample("L", dist.LKJCholesky(2, concentration=2.0))
    numpyro.deterministic("correlation", (L @ L.T)[0, 1])
    with numpyro.plate("cafe", cafes):
        effects = numpyro.sample("effects", dist.MultivariateNormal(mean, scale_tril=sd[:, None] * L))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    level, change = effects[cafe].T
    numpyro.sample("wait", dist.Normal(level + change * afternoon, sigma), obs=wait)


def change_point(disasters):
    early = numpyro.sample("early", dist.Exponential(1.0))
    late = numpyro.sample("late", dist.Exponential(1.0))
    year = np.arange(len(disasters))
    rate = jnp.where(year < year[:, None], early, late)  # by year of the change, and year
    switch = dist.Categorical(jnp.full(len(year), 1.0 / len(year)))
    numpyro.sample("disasters", dist.MixtureSameFamily(switch, dist.Poisson(rate).to_event(1)), obs=disasters)


def local_linear_trend(y):
    start = numpyro.sample("start", dist.Normal(0.0, 5.0))
    sd_level = numpyro.sample("sd_level", dist.Gamma(2.0, 4.0))
    sd_slope = numpyro.sample("sd_slope", dist.Gamma(2.0, 4.0))
    sigma = numpyro.sample("sigma", dist.Gamma(2.0, 4.0))

    def step(state, y):
        level, slope = state
        level = numpyro.sample("level", dist.Normal(level + slope, sd_level))
        slope = numpyro.sample("slope", dist.Normal(slope, sd_slope))
        numpyro.sample("y", dist.Normal(level, sigma), obs=y)
        return (level, slope), None

    scan(step, (start, 0.0), y)


def zero_inflated_counts(X, counts):
    never = numpyro.sample("never", dist.Beta(1.0, 1.0))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.0))
    with numpyro.plate("feature", X.shape[1]):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    rate = jnp.exp(intercept + X @ slope)
    numpyro.sample("counts", dist.ZeroInflatedPoisson(never, rate), obs=counts)


def item_response(correct):
    persons, items = correct.shape
    with numpyro.plate("person", persons):
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
    with numpyro.plate("item", items):
        difficulty = numpyro.sample("difficulty", dist.Normal(0.0, 2.0))
        discrimination = numpyro.sample("discrimination", dist.LogNormal(0.0, 0.5))
    logits = discrimination * (ability[:, None] - difficulty)
    numpyro.sample("correct", dist.Bernoulli(logits=logits), obs=correct)


def capture_recapture(seen):
    animals, occasions = seen.shape
    with numpyro.plate("interval", occasions - 1):
        survival = numpyro.sample("survival", dist.Beta(1.0, 1.0))
        capture = numpyro.sample("capture", dist.Beta(1.0, 1.0))
    marked = np.cumsum(seen, axis=1)[:, :-1] > 0

    def step(weights, interval):
        alive, dead = weights
        phi, p, seen, marked = interval
        survived = phi * alive * jnp.where(seen, p, 1.0 - p)
        died = jnp.where(seen, 0.0, dead + (1.0 - phi) * alive)
        return (jnp.where(marked, survived, 1.0), jnp.where(marked, died, 0.0)), None

    start = jnp.ones(animals), jnp.zeros(animals)
    (alive, dead), _ = lax.scan(step, start, (survival, capture, seen[:, 1:].T, marked.T))
    numpyro.factor("seen", jnp.log(alive + dead))


MODELS = (
    coin_flip,
    linear_regression,
    logistic_regression,
    hierarchical_radon,
    gaussian_mixture,
    hidden_markov_model,
    latent_dirichlet_allocation,
    stochastic_volatility,
    gaussian_process,
    neural_network,
    epidemic,
    missing_covariates,
    censored_survival,
    ordered_logit,
    varying_effects,
    change_point,
    local_linear_trend,
    zero_inflated_counts,
    item_response,
    capture_recapture,
)

rng = np.random.default_rng(6)
X = rng.normal(size=(20, 3))
LINE = 1.0 + X @ np.array([0.5, -1.0, 0.2])
CLASS = (LINE + rng.logistic(size=20) > 0).astype(int)
GROUP = np.arange(24) % 4
COUNTIES = ("AITKIN", "ANOKA", "BECKER", "BELTRAMI")
WITH_GAPS = np.where(np.arange(20) % 6 == 2, np.nan, X[:, 0])
DEATH = np.exp(LINE) * rng.weibull(1.5, size=20)
TREND = np.cumsum(0.2 + rng.normal(0.0, 0.3, size=15))
HISTORIES = np.array([[1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])

# By model: the data it is bound to. The days of the epidemic are those of a boarding school in England, 1978
# (British Medical Journal, 4 March 1978, p. 587); the rest is made up.
DATA = {
    "coin_flip": (rng.integers(0, 2, size=10),),
    "linear_regression": (X, LINE + rng.normal(size=20)),
    "logistic_regression": (X, CLASS),
    "hierarchical_radon": (rng.normal(1.3, 0.8, size=24), rng.integers(0, 2, size=24), GROUP, COUNTIES),
    "gaussian_mixture": (np.append(rng.normal(-2.0, 0.5, size=8), rng.normal(1.0, 1.0, size=12)), 3),
    "hidden_markov_model": (np.repeat([0.0, 1.0, 0.0, 2.0], 2) + rng.normal(0.0, 0.3, size=8), 3),
    "latent_dirichlet_allocation": (rng.integers(0, 6, size=24), GROUP, 2, 6, 4),
    "stochastic_volatility": (0.02 * rng.standard_t(4, size=15),),
    "gaussian_process": (np.linspace(0.0, 3.0, 12), np.sin(np.linspace(0.0, 3.0, 12)) + rng.normal(0.0, 0.1, size=12)),
    "neural_network": (X, CLASS, 4),
    "epidemic": (np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]), 763),
    "missing_covariates": (WITH_GAPS, LINE),
    "censored_survival": (X, np.minimum(DEATH, 3.0), DEATH < 3.0),
    "ordered_logit": (X, np.digitize(LINE + rng.logistic(size=20), [0.0, 1.0, 2.0]), 4),
    "varying_effects": (rng.normal(4.0, 1.0, size=24), rng.integers(0, 2, size=24), GROUP, 4),
    "change_point": (np.append(rng.poisson(3.0, size=8), rng.poisson(1.0, size=12)),),
    "local_linear_trend": (TREND + rng.normal(0.0, 0.2, size=15),),
    "zero_inflated_counts": (X, rng.poisson(np.exp(0.3 * LINE)) * rng.integers(0, 2, size=20)),
    "item_response": (rng.integers(0, 2, size=(8, 5)),),
    "capture_recapture": (HISTORIES,),
}
