"""Gibbs updates by enumeration have the exact law of a sweep, value by value, and planted bugs are found.

From one fixed state a sweep leads to every state with a probability that enumeration gives; counts of the ends of
many chains are compared with it by Pearson's test. ALPHA is the false-alarm rate of each; some twelve run, with fixed
seeds.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers import discrete
from dualtape.samplers.discrete import DiscreteGibbs
from dualtape.samplers.random import chain_key, fold_in
from scipy import stats

ALPHA = 1e-3
CERTAIN = 1e-9  # what the p-value of a planted bug must fall below
CHAINS = 20_000


@dataclasses.dataclass(frozen=True)
class Finite:
    """A density over discrete coordinates; satisfies `samplers.base.FiniteTarget`."""

    supports: tuple[Any, ...]
    colours: tuple[Any, ...]
    log_density: Callable[..., Any]
    by_coordinate: Callable[..., Any]
    constants: tuple[jax.ShapeDtypeStruct, ...] = ()
    sites = discrete = ("z",)
    signature = None

    @property
    def dimension(self):
        return len(self.supports)


def interacting(coupling, field, supports, colours):
    """log π(z) = h·z + ½ zᵀJz with a zero diagonal."""
    coupling, field = np.asarray(coupling, float), np.asarray(field, float)
    return Finite(
        tuple(np.asarray(values, float) for values in supports),
        tuple(np.asarray(members) for members in colours),
        lambda z: jnp.dot(jnp.asarray(field, z.dtype), z) + 0.5 * jnp.dot(z, jnp.asarray(coupling, z.dtype) @ z),
        lambda z: z * (jnp.asarray(field, z.dtype) + jnp.asarray(coupling, z.dtype) @ z),
    )


def chain_coupling(size, strength):
    return strength * (np.eye(size, k=1) + np.eye(size, k=-1))


def dense_coupling(size):
    matrix = np.random.default_rng(0).normal(scale=0.5, size=(size, size))
    return np.triu(matrix, 1) + np.triu(matrix, 1).T


ISING = interacting(chain_coupling(6, 0.7), 0.2 * np.ones(6), [[-1, 1]] * 6, [[0, 2, 4], [1, 3, 5]])
PAIR = interacting(chain_coupling(2, 2.0), np.zeros(2), [[-1, 1]] * 2, [[0], [1]])
UNEVEN = interacting(np.zeros((3, 3)), [0.3, -0.2, 0.5], [[0, 1], [-1, 0, 2], [4]], [[0, 1, 2]])
DENSE = interacting(dense_coupling(9), np.linspace(-1, 1, 9), [[0, 1]] * 9, [[i] for i in range(9)])
LONG = interacting(chain_coupling(2, 0.05), [0.1, -0.3], [range(20), [0, 1, 2]], [[0], [1]])

CASES = {
    "Ising chain, two colours": ISING,
    "two strongly dependent coordinates": PAIR,
    "supports of different lengths": UNEVEN,
    "a loop over colours": DENSE,
    "a loop over values": LONG,
}


def ends(target, start, *, steps=1, chains=CHAINS, constants=(), dtype=np.float64, spoil=lambda kernel: kernel):
    """The path of chains from one position, shape (chains, steps, dimension), and the infos."""
    kernel = spoil(DiscreteGibbs().build(target, dtype))

    def chain(key):
        def step(state, index):
            state, info = kernel.step(fold_in(key, index), state, kernel.init_tuning(), constants)
            return state, (kernel.position(state), info)

        state = kernel.init(jnp.asarray(start, dtype), constants)
        return jax.lax.scan(step, state, jnp.arange(steps, dtype=jnp.int32))[1]

    keys = jax.vmap(lambda i: fold_in(chain_key(0, 0), i))(jnp.arange(chains, dtype=jnp.int32))
    path, infos = jax.jit(jax.vmap(chain))(keys)
    return np.asarray(path), jax.tree.map(np.asarray, infos)


def joint(target):
    """The probability of every state, with an axis for each coordinate."""
    states = np.array(list(itertools.product(*target.supports)))
    densities = np.exp(np.asarray(jax.vmap(target.log_density)(states)))
    return (densities / densities.sum()).reshape([len(values) for values in target.supports])


def swept(target, start):
    """The exact law of one sweep from a state: coordinates drawn from their conditionals, colour by colour."""
    probabilities = joint(target)
    law = np.zeros_like(probabilities)
    law[tuple(np.searchsorted(values, z) for values, z in zip(target.supports, start, strict=True))] = 1.0
    for axis in np.concatenate(target.colours):
        law = law.sum(axis, keepdims=True) * probabilities / probabilities.sum(axis, keepdims=True)
    return law


def p_value(target, draws, law):
    """Pearson's test of draws, shape (n, dimension); states of fewer than 5 expected draws count as one."""
    indices = [np.searchsorted(values, z) for values, z in zip(target.supports, draws.T, strict=True)]
    counts = np.zeros(law.shape)
    np.add.at(counts, tuple(indices), 1)
    expected, counts = law.ravel() * len(draws), counts.ravel()
    rare = expected < 5
    if rare.any():
        counts, expected = (np.append(values[~rare], values[rare].sum()) for values in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    if len(counts) == 1:
        return 1.0
    return stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def first_state(target):
    return [values[0] for values in target.supports]


@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_a_sweep_has_the_exact_law(name, x64):
    target = CASES[name]
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        path, infos = ends(target, first_state(target), dtype=dtype)
        expected = np.asarray(jax.vmap(target.log_density)(path[:, 0]))
    assert path.dtype == dtype
    assert all(np.isin(path[:, 0, i], values).all() for i, values in enumerate(target.supports))
    assert p_value(target, path[:, 0], swept(target, first_state(target))) > ALPHA
    # Another state's law, or that of the target itself, is a different one, and the test sees it.
    if len(target.colours) > 1:
        assert p_value(target, path[:, 0], joint(target)) < CERTAIN
    np.testing.assert_allclose(infos.lp[:, 0], expected, rtol=1e-12 if x64 else 1e-4, atol=1e-12 if x64 else 1e-5)
    assert (infos.undefined == 0).all()


# Planted bugs.


def same_number_for_all(monkeypatch):
    uniform = discrete.uniform
    monkeypatch.setattr(discrete, "uniform", lambda key, i, dtype: uniform(key, 0, dtype))
    return lambda kernel: kernel


def padding_counts(monkeypatch):
    return lambda kernel: dataclasses.replace(kernel, valid=np.ones_like(kernel.valid))


def all_colours_at_once(monkeypatch):
    return lambda kernel: dataclasses.replace(
        kernel,
        colour_of=np.zeros_like(kernel.colour_of),
        target=dataclasses.replace(kernel.target, colours=kernel.target.colours[:1]),
    )


def terms_of_the_coordinate_alone(monkeypatch):
    """The interactions do not arrive."""
    own = dataclasses.replace(DENSE, by_coordinate=lambda z: z * np.linspace(-1, 1, 9))
    return lambda kernel: dataclasses.replace(kernel, target=own)


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (same_number_for_all, "Ising chain, two colours"),
        (padding_counts, "supports of different lengths"),
        (all_colours_at_once, "Ising chain, two colours"),
        (terms_of_the_coordinate_alone, "a loop over colours"),
    ],
)
def test_planted_bugs_are_found(plant, name, monkeypatch):
    target = CASES[name]
    path, _ = ends(target, first_state(target), spoil=plant(monkeypatch))
    assert p_value(target, path[:, 0], swept(target, first_state(target))) < CERTAIN


@pytest.mark.parametrize("flips", [False, True], ids=["exact", "always-flip planted"])
def test_two_binary_coordinates_have_the_right_joint_law(flips, monkeypatch):
    """Flipping both at every update has the right marginals over a chain, but the wrong joint law (PyMC #2866)."""
    coins = interacting(chain_coupling(2, 0.5), np.zeros(2), [[-1, 1]] * 2, [[0], [1]])
    if flips:
        monkeypatch.setattr(discrete, "_draw", lambda u, present, _: (-present, jnp.zeros(present.shape, bool)))
    path, _ = ends(coins, first_state(coins), steps=40)
    # After 20 sweeps the start is forgotten: its influence falls by the squared correlation, 0.21, in each.
    np.testing.assert_allclose(path[:, 20:].mean((0, 1)), [0.0, 0.0], atol=0.01)
    assert (p_value(coins, path[:, -1], joint(coins)) > ALPHA) == (not flips)


# A single coordinate whose log weights are written down, or many; -7 is in no support.
@pytest.mark.parametrize("padding", [0, 20], ids=["written out", "in a loop"])
@pytest.mark.parametrize(
    ("log_weights", "possible", "undefined"),
    [
        ([0.0, -np.inf, 1.0], [0, 2], 0),
        ([-800.0, -np.inf, -801.0], [0, 2], 0),
        ([-np.inf, -5.0, -np.inf], [1], 0),
        ([-np.inf, -np.inf, -np.inf], [-7], 1),
        ([np.nan, 0.0, 0.0], [1, 2], 1),
        ([0.0, np.inf, 0.0], [0, 2], 1),
        ([np.nan, np.nan, np.nan], [-7], 1),
    ],
)
def test_only_possible_values_are_drawn(log_weights, possible, undefined, padding):
    table = jnp.asarray([*log_weights, *[-np.inf] * padding])

    def weights(z):
        return table[z.astype(int)]

    target = Finite((np.arange(len(table)),), (np.array([0]),), lambda z: weights(z)[0], weights)
    path, infos = ends(target, [-7.0], chains=500)
    assert sorted(set(path.ravel())) == possible
    assert (infos.undefined == undefined).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_at_the_ends_leads_to_no_impossible_value(dtype):
    rng = np.random.default_rng(0)
    log_weights = np.log(rng.uniform(size=(5, 3000))).astype(dtype)
    log_weights[[0, 4]] = -np.inf
    candidates = [
        discrete._Candidate(jnp.full(3000, k, dtype), w, w > 1) for k, w in enumerate(jnp.asarray(log_weights))
    ]
    # The largest and the smallest number that the generator can give.
    last = dtype(1.0) - np.finfo(dtype).epsneg
    for uniform, value in ((last, 3), (1.0 - last, 1)):
        drawn, amiss = discrete._draw(jnp.full(3000, uniform, dtype), jnp.full(3000, -7, dtype), candidates)
        assert (np.asarray(drawn) == value).all()
        assert not np.asarray(amiss).any()


def test_labels_of_a_mixture_follow_their_responsibilities():
    """z_i ~ Categorical(w), x_i ~ Normal(μ_{z_i}, 1), with x and μ as constants: all labels at once."""
    means, log_weights = np.array([-1.0, 0.5, 2.0]), np.log([0.2, 0.5, 0.3])
    data = np.random.default_rng(1).normal(0.5, 1.5, size=30)

    def by_coordinate(z, x, means):
        component = z.astype(int)
        return jnp.asarray(log_weights)[component] - 0.5 * (x - means[component]) ** 2

    shapes = tuple(jax.ShapeDtypeStruct(np.shape(a), np.float64) for a in (data, means))
    target = Finite(
        (np.arange(3),) * 30, (np.arange(30),), lambda z, *c: by_coordinate(z, *c).sum(), by_coordinate, shapes
    )
    path, _ = ends(target, np.zeros(30), constants=(jnp.asarray(data), jnp.asarray(means)))
    exact = np.exp(log_weights - 0.5 * (data[:, None] - means) ** 2)
    exact /= exact.sum(1, keepdims=True)
    shares = (path[:, 0, :, None] == np.arange(3)).mean(0)
    scores = (shares - exact) / np.sqrt(exact * (1 - exact) / CHAINS)
    assert np.abs(scores).max() < stats.norm.isf(ALPHA / 2 / scores.size)
    # The responsibilities under means that are shifted by 0.1 are other ones.
    shifted = np.exp(log_weights - 0.5 * (data[:, None] - means - [0, 0, 0.1]) ** 2)
    shifted /= shifted.sum(1, keepdims=True)
    assert np.abs((shares - shifted) / np.sqrt(exact * (1 - exact) / CHAINS)).max() > 6


def test_the_program_does_not_grow_with_colours_or_values():
    def size(coordinates, values):
        supports, colours = [range(values)] * coordinates, [[i] for i in range(coordinates)]
        target = interacting(chain_coupling(coordinates, 1.0), np.ones(coordinates), supports, colours)
        kernel = DiscreteGibbs().build(target, np.float64)
        state = kernel.init(jnp.zeros(coordinates), ())
        return str(jax.make_jaxpr(lambda key, s: kernel.step(key, s, (), ()))(chain_key(0, 0), state)).count(" = ")

    assert size(20, 3) == size(200, 3)
    assert size(20, 30) == size(20, 300) < 1.5 * size(20, 3)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (ISING, "exact: enumerates 2 values of 6 coordinates, 2 colours"),
        (UNEVEN, "exact: enumerates 1 to 3 values of 3 coordinates, 1 colour"),
    ],
)
def test_the_report_says_what_is_enumerated(target, reason):
    (report,) = DiscreteGibbs().build(target, np.float64).reports
    assert (report.block, report.sampler, report.dimension) == ("z", "DiscreteGibbs()", target.dimension)
    assert (report.adtype, report.reason) == (None, reason)


def test_it_asks_for_the_enumerated_block():
    class Block:
        def enumerated(self):
            return "enumerated"

    assert DiscreteGibbs().view(Block()) == "enumerated"
