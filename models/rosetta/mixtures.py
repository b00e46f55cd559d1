"""Discrete variables that are summed out: labels, topics, hidden states, a switch point, deaths that nobody saw.

The arguments have no types, as in a notebook, so that the code reads as it is shown in `docs/rosetta.md`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import logsumexp

from ...ppl import factor, model, plate, rv


@model
def gaussian_mixture(y, components):
    """Gaussian mixture: clusters of unknown place, width and share; their order tells them apart."""
    share = rv("share", dist.Dirichlet(jnp.ones(components)))
    places = dist.Normal(jnp.zeros(components), 5.0)
    mean = rv("mean", dist.TransformedDistribution(places, dist.transforms.OrderedTransform()))
    with plate("component", components):
        sd = rv("sd", dist.HalfNormal(2.0))
    rv("y", dist.MixtureSameFamily(dist.Categorical(share), dist.Normal(mean, sd)), obs=y)


def forward_algorithm(initial, transition, emission):
    """Log likelihood of a chain of hidden states, from log weights of shapes (K,), (K, K) and (times, K)."""

    def step(alpha, weight):
        return logsumexp(alpha[:, None] + transition, axis=0) + weight, None

    alpha, _ = lax.scan(step, initial + emission[0], emission[1:])
    return logsumexp(alpha)


@model
def hidden_markov_model(y, states):
    """Hidden Markov model: a noisy view of a state that jumps; the states are summed out by the forward algorithm."""
    with plate("state", states):
        mean = rv("mean", dist.Normal(jnp.arange(states), 0.5))
        transition = rv("transition", dist.Dirichlet(jnp.ones(states)))
    sigma = rv("sigma", dist.HalfNormal(1.0))
    initial = jnp.full(states, -jnp.log(states))
    emission = dist.Normal(mean, sigma).log_prob(y[:, None])
    factor("y", forward_algorithm(initial, jnp.log(transition), emission))


@model
def latent_dirichlet_allocation(word, document, topics, words, documents):
    """Latent Dirichlet allocation: documents mix topics, topics mix words; the topic of each word is summed out."""
    with plate("topic", topics):
        vocabulary = rv("vocabulary", dist.Dirichlet(jnp.full(words, 0.5)))
    with plate("document", documents):
        share = rv("share", dist.Dirichlet(jnp.ones(topics)))
    rv("word", dist.Categorical(share[document] @ vocabulary), obs=word)


@model
def change_point(disasters):
    """Change point: the rate of disasters changes once; in which year, is summed out."""
    early = rv("early", dist.Exponential(1.0))
    late = rv("late", dist.Exponential(1.0))
    year = np.arange(len(disasters))
    rate = jnp.where(year < year[:, None], early, late)  # by year of the change, and year
    switch = dist.Categorical(jnp.full(len(year), 1.0 / len(year)))
    rv("disasters", dist.MixtureSameFamily(switch, dist.Poisson(rate).to_event(1)), obs=disasters)


@model
def capture_recapture(seen):
    """Capture-recapture (Cormack-Jolly-Seber): an animal not seen again is dead or was missed; which, is summed out."""
    animals, occasions = seen.shape
    with plate("interval", occasions - 1):
        survival = rv("survival", dist.Beta(1.0, 1.0))
        capture = rv("capture", dist.Beta(1.0, 1.0))
    marked = np.cumsum(seen, axis=1)[:, :-1] > 0

    def step(weights, interval):
        alive, dead = weights
        phi, p, seen, marked = interval
        survived = phi * alive * jnp.where(seen, p, 1.0 - p)
        died = jnp.where(seen, 0.0, dead + (1.0 - phi) * alive)
        return (jnp.where(marked, survived, 1.0), jnp.where(marked, died, 0.0)), None

    start = jnp.ones(animals), jnp.zeros(animals)
    (alive, dead), _ = lax.scan(step, start, (survival, capture, seen[:, 1:].T, marked.T))
    factor("seen", jnp.log(alive + dead))
