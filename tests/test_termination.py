"""When trajectories end, and which of their points is chosen, against recursive definitions over lists."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers import trajectory
from dualtape.samplers.integrators import Leapfrog, Point
from dualtape.samplers.metrics import UnitMetric
from dualtape.samplers.random import bits, chain_key, fold_in
from dualtape.samplers.termination import init_checkpoints, visit
from dualtape.samplers.trajectory import grow_trajectory
from scipy import stats

DEEPEST = 6


def stretch_turns(momenta):
    total = np.sum(momenta, axis=0)
    return momenta[0] @ total <= 0 or momenta[-1] @ total <= 0


def subtree_turns(momenta):
    """Whether a complete subtree itself has turned, over the whole or across its halves; its own subtrees not asked."""
    half = len(momenta) // 2
    if stretch_turns(momenta):
        return True
    return len(momenta) > 2 and (stretch_turns(momenta[: half + 1]) or stretch_turns(momenta[half - 1 :]))


def tree_turns(momenta):
    """Whether a tree or any of its subtrees has turned, by recursion."""
    if len(momenta) == 1:
        return False
    half = len(momenta) // 2
    return tree_turns(momenta[:half]) or tree_turns(momenta[half:]) or subtree_turns(momenta)


def first_turn(momenta):
    """The number of the first leaf that completes a turned subtree; the number of leaves if there is none."""
    for leaf in range(len(momenta)):
        size = 2
        while (leaf + 1) % size == 0:
            if subtree_turns(momenta[leaf + 1 - size : leaf + 1]):
                return leaf
            size *= 2
    return len(momenta)


@jax.jit
def visited(momenta):
    """For each leaf whether `visit` reports a turn there, going on in spite of it."""

    def one(carry, leaf):
        checkpoints, total = carry
        total = total + momenta[leaf]
        checkpoints, turning = visit(checkpoints, leaf, momenta[leaf - 1], momenta[leaf], total)
        return (checkpoints, total), turning

    # A trajectory of 2^(depth + 1) leaves is doubled by subtrees of 2^depth.
    levels = len(momenta).bit_length()
    empty = (init_checkpoints(levels, momenta[0]), jnp.zeros_like(momenta[0]))
    return jax.lax.scan(one, empty, jnp.arange(len(momenta), dtype=jnp.int32))[1]


def drifting(rng, count, size, dimension):
    """Random momenta that turn after very different numbers of leaves: a drift, a rotation and noise."""
    drift = rng.normal(size=(count, 1, dimension)) * rng.exponential(1.0, (count, 1, 1))
    time = np.arange(size)[None, :, None] * rng.exponential(2.0 / size, (count, 1, 1))
    circle = np.cos(time + rng.uniform(0, 2 * np.pi, (count, 1, dimension)))
    return drift + circle + rng.normal(size=(count, size, dimension)) * rng.exponential(0.2, (count, 1, 1))


@pytest.mark.parametrize("depth", range(1, DEEPEST + 1))
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_visit_reports_the_first_leaf_that_completes_a_turned_subtree(depth, dimension):
    momenta = drifting(np.random.default_rng([depth, dimension]), 300, 2**depth, dimension)
    reports = np.asarray(jax.vmap(visited)(jnp.asarray(momenta)))
    expected = np.array([first_turn(stream) for stream in momenta])
    found = np.where(reports.any(1), reports.argmax(1), 2**depth)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found < 2**depth, [tree_turns(stream) for stream in momenta])
    # The streams are worth comparing: some turn, and some do not.
    assert (found < 2**depth).any()
    assert dimension == 1 or depth > 5 or (found == 2**depth).any()


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_the_checks_across_subtrees_are_decisive_for_some_streams(depth, monkeypatch):
    """Negative control: without the checks across the halves the reference finds other leaves."""
    momenta = drifting(np.random.default_rng(depth), 300, 2**depth, 2)
    full = [first_turn(stream) for stream in momenta]
    monkeypatch.setitem(globals(), "subtree_turns", stretch_turns)
    assert full != [first_turn(stream) for stream in momenta]


def test_visit_agrees_leaf_by_leaf_while_nothing_has_turned():
    # Turned or not, every leaf must give the answer of the subtrees that it completes.
    momenta = drifting(np.random.default_rng(0), 200, 64, 3)
    reports = np.asarray(jax.vmap(visited)(jnp.asarray(momenta)))
    for stream, report in zip(momenta, reports, strict=True):
        for leaf in range(64):
            sizes = [2**k for k in range(1, 7) if (leaf + 1) % 2**k == 0]
            assert report[leaf] == any(subtree_turns(stream[leaf + 1 - size : leaf + 1]) for size in sizes)


# Trajectories.


def harmonic(q):
    return -0.5 * jnp.dot(q, q)


def anisotropic(q):
    return -0.5 * jnp.dot(q * jnp.array([1.0, 9.0, 0.25]), q)


def bumpy(q):
    """A rough bowl, on which trajectories turn early and in many ways."""
    return -0.5 * jnp.dot(q, q) + 2.0 * jnp.cos(3.0 * q).sum()


def quartic(q):
    return -(q[0] ** 4)


def begin(log_density, position, momentum):
    position = jnp.asarray(position, float)
    return Point(position, jnp.asarray(momentum, float), *jax.value_and_grad(log_density)(position))


def grower(log_density, max_depth):
    """`grow_trajectory` compiled for a density, vectorised over keys."""

    def grow(key, point, step_size):
        return grow_trajectory(key, point, step_size, max_depth, functools.partial(leap, log_density))

    return jax.jit(jax.vmap(grow, in_axes=(0, None, None)))


@functools.partial(jax.jit, static_argnums=0)
def leap(log_density, point, step_size):
    return Leapfrog(jnp.ones(()), UnitMetric(), jax.value_and_grad(log_density)).step(point, step_size)


def keys(number, seed=0):
    return jax.vmap(lambda i: fold_in(chain_key(seed, 0), i))(jnp.arange(number, dtype=jnp.int32))


def reference(key, point, step_size, max_depth, log_density):
    """Depth, leaves and reason of the end of a trajectory, and its points in order of time, from the definition."""

    def extend(edge, step, count):
        points = []
        for _ in range(count):
            edge = leap(log_density, edge, step)
            points.append(edge)
        return points

    directions = int(bits(fold_in(key, 0)))
    points, leaves = [point], 0
    for depth in range(max_depth):
        forward = directions >> depth & 1
        new = extend(points[-1] if forward else points[0], step_size if forward else -step_size, len(points))
        momenta = [np.asarray(p.momentum) for p in new]
        end = first_turn(momenta)
        if end < len(new):
            return depth + 1, leaves + end + 1, True, points
        points = [*points, *new] if forward else [*new[::-1], *points]
        leaves += len(new)
        if subtree_turns([np.asarray(p.momentum) for p in points]):
            return depth + 1, leaves, True, points
    return max_depth, leaves, False, points


@pytest.mark.parametrize("step_size", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("log_density", [harmonic, anisotropic])
def test_a_trajectory_on_an_oscillator_stops_by_the_definition(log_density, step_size):
    point = begin(log_density, [1.0, -0.5, 0.2], [0.3, 0.8, -1.0])
    trees = grower(log_density, 8)(keys(20), point, step_size)
    trees = jax.tree.map(np.asarray, trees)
    lengths = []
    for i, key in enumerate(keys(20)):
        depth, leaves, turning, points = reference(key, point, step_size, 8, log_density)
        assert (int(trees.depth[i]), int(trees.leaves[i]), bool(trees.turning[i])) == (depth, leaves, turning)
        assert not trees.diverging[i]
        # The draw is one of the points of the trajectory before the abandoned subtree.
        distances = [np.abs(np.asarray(p.position) - trees.proposal.position[i]).max() for p in points]
        assert min(distances) < 1e-10
        lengths.append(leaves * step_size)
    if log_density is harmonic:
        # It turns after half a period, π, by symmetry for all directions, and has at most doubled since.
        assert np.pi / 2 < np.mean(lengths) < 2 * np.pi
    else:
        assert len(set(lengths)) > 1


def test_trajectories_on_a_rough_target_stop_by_the_definition(monkeypatch):
    rng = np.random.default_rng(5)
    value_and_grad = jax.vmap(jax.value_and_grad(bumpy))
    positions, momenta = rng.normal(size=(2, 150, 2))
    points = Point(jnp.asarray(positions), jnp.asarray(momenta), *value_and_grad(jnp.asarray(positions)))

    def grow(key, point):
        return grow_trajectory(key, point, jnp.asarray(0.45), 5, functools.partial(leap, bumpy))

    trees = jax.tree.map(np.asarray, jax.jit(jax.vmap(grow))(keys(150), points))
    found = list(zip(trees.depth, trees.leaves, trees.turning, strict=True))
    starts = [jax.tree.map(lambda field, i=i: field[i], points) for i in range(150)]

    def expected():
        return [reference(key, point, 0.45, 5, bumpy)[:3] for key, point in zip(keys(150), starts, strict=True)]

    assert found == expected()
    assert {1, 2, 3, 4} <= set(trees.depth.tolist())
    # Negative control: a definition without the checks across the halves of the smallest trees is another one.
    full = subtree_turns
    monkeypatch.setitem(globals(), "subtree_turns", lambda m: stretch_turns(m) if len(m) == 4 else full(m))
    assert found != expected()


@pytest.mark.parametrize("max_depth", [1, 2, 3, 5])
def test_the_depth_limit_is_honoured(max_depth):
    # A step so short that nothing can turn.
    trees = grower(harmonic, max_depth)(keys(8), begin(harmonic, [1.0], [1.0]), 1e-4)
    assert (trees.depth == max_depth).all()
    assert (trees.leaves == 2**max_depth - 1).all()
    assert not trees.turning.any()
    np.testing.assert_allclose(trees.acceptance / trees.leaves, 1.0, atol=1e-6)
    np.testing.assert_allclose(trees.proposal.weight, 2.0**max_depth, rtol=1e-6)


def test_a_divergence_ends_the_trajectory_where_it_happens():
    def cliff(q):
        return jnp.where(q[0] < 1.0, 0.0, -1e6) + 0.0 * q[0]

    # Straight flight to the right; at the fourth step from 0 it falls off the cliff.
    point = begin(cliff, [0.0], [1.0])
    trees = grower(cliff, 6)(keys(64), point, 0.3)
    # Backwards there is no cliff, so each trajectory falls, in some subtree that goes forward, or reaches the limit.
    ended = np.asarray(trees.diverging)
    assert ended.any()
    assert (np.asarray(trees.leaves)[~ended] == 63).all()
    assert (trees.proposal.position[:, 0] < 1.0).all()
    for i in np.flatnonzero(ended)[:20]:
        directions = int(bits(fold_in(keys(64)[i], 0)))
        ahead, leaves = 0, 0
        for depth in range(6):
            if directions >> depth & 1:
                if ahead + 2**depth >= 4:
                    leaves += 4 - ahead
                    break
                ahead += 2**depth
            leaves += 2**depth
        assert int(trees.leaves[i]) == leaves


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_points_outside_the_support_never_enter_the_draws(bad):
    def half_normal(q):
        return jnp.where(q[0] > 0, -0.5 * q[0] ** 2, bad)

    trees = grower(half_normal, 6)(keys(500), begin(half_normal, [0.3], [-1.0]), 0.4)
    assert (trees.proposal.position > 0).all()
    assert np.isfinite(trees.proposal.log_density).all()
    assert np.isfinite(trees.proposal.weight).all()
    assert np.isfinite(trees.acceptance).all()
    assert trees.diverging.any()


def test_a_gradient_that_is_not_a_number_never_enters_the_draws():
    # √|q| behind a where: the value is finite beyond the border, its gradient is not.
    def bad_gradient(q):
        return -0.5 * q[0] ** 2 + jnp.where(q[0] > 0, 0.0, 0.0 * jnp.sqrt(jnp.minimum(q[0], 0.0)))

    point = begin(lambda q: -0.5 * q[0] ** 2, [0.3], [-1.0])
    trees = grower(bad_gradient, 6)(keys(200), point, 0.4)
    for field in (trees.proposal.position, trees.proposal.gradient, trees.proposal.log_density):
        assert np.isfinite(field).all()


def test_the_new_half_is_taken_with_the_ratio_of_weights():
    """First doubling: the one new point is taken with probability min(1, exp(H₀ − H₁)).

    Frequencies over 10000 keys; a correct program fails one of the six comparisons once in 10⁴ seeds.
    """
    number = 10_000
    grow = grower(quartic, 1)
    for momentum, step_size in ((0.5, 1.2), (2.0, 1.5), (-1.3, 0.9)):
        point = begin(quartic, [0.8], [momentum])
        trees = grow(keys(number), point, step_size)
        for forward in (True, False):
            sign = 1.0 if forward else -1.0
            end = leap(quartic, point, sign * step_size)
            gain = float(end.log_density - 0.5 * end.momentum[0] ** 2 - point.log_density + 0.5 * momentum**2)
            went = np.asarray(trees.ends.position[:, 1, 0] != 0.8) == forward
            taken = np.asarray(trees.proposal.position[:, 0] != 0.8)[went]
            # What turned over the whole is complete all the same, and the new point may be taken.
            assert stats.binomtest(int(taken.sum()), len(taken), min(1.0, np.exp(gain))).pvalue > 1e-4 / 6
            assert abs(went.mean() - 0.5) < stats.norm.isf(1e-4 / 12) * 0.5 / np.sqrt(number)


def expected_choice(energies, start, directions):
    """Exact probability of each point of a trajectory, by the definition of biased progressive sampling.

    Args:
        energies: H at all points in order of time, of which the trajectory uses a stretch.
        start: the index of the first.
        directions: one for each doubling, True forward.
    """
    weights = np.exp(-(energies - energies[start]))
    low = high = start
    chosen = {start: 1.0}
    for depth, forward in enumerate(directions):
        new = range(high + 1, high + 1 + 2**depth) if forward else range(low - 2**depth, low)
        old_weight, new_weight = weights[low : high + 1].sum(), weights[list(new)].sum()
        swap = min(1.0, new_weight / old_weight)
        chosen = {i: p * (1 - swap) for i, p in chosen.items()}
        chosen |= {i: swap * weights[i] / new_weight for i in new}
        low, high = min(low, new[0]), max(high, new[-1])
    return chosen


def choice_chances(weighted=True, monkeypatch=None, number=20_000):
    """p-values of the frequencies of chosen points, for each of the eight directions of three doublings."""

    # A rough but gentle potential: energies differ by about one, and nothing turns in seven steps.
    def rough(q):
        return jnp.sin(40.0 * q[0]) * 0.9

    point = begin(rough, [0.05], [9.0])
    step_size = 0.031
    if not weighted:
        monkeypatch.setattr(trajectory, "energy", lambda point: jnp.zeros_like(point.log_density))
    trees = grower(rough, 3)(keys(number), point, step_size)
    assert not trees.turning.any()
    assert (trees.leaves == 7).all()
    forward = backward = point
    line = [point]
    for _ in range(7):
        forward, backward = leap(rough, forward, step_size), leap(rough, backward, -step_size)
        line = [backward, *line, forward]
    positions = np.array([float(p.position[0]) for p in line])
    energies = np.array([float(0.5 * p.momentum[0] ** 2 - p.log_density) for p in line])
    assert np.ptp(energies) > 0.5
    words = np.asarray(jax.vmap(lambda key: bits(fold_in(key, 0)))(keys(number)))
    picked = np.abs(np.asarray(trees.proposal.position) - positions).argmin(1)
    p_values = []
    for directions in itertools.product([False, True], repeat=3):
        pattern = sum(int(forward) << depth for depth, forward in enumerate(directions))
        mine = picked[(words & 7) == pattern]
        expected = expected_choice(energies, 7, directions)
        assert set(mine) <= set(expected)
        frequencies = np.array([np.sum(mine == i) for i in expected])
        probabilities = np.array(list(expected.values())) * len(mine)
        # Points that are hardly ever chosen are counted together, as χ² wants.
        rare = probabilities < 5
        f = [*frequencies[~rare], frequencies[rare].sum()] if rare.any() else frequencies
        p = [*probabilities[~rare], probabilities[rare].sum()] if rare.any() else probabilities
        positive = np.asarray(p) > 0
        p_values.append(stats.chisquare(np.asarray(f)[positive], np.asarray(p)[positive], sum_check=False).pvalue)
    return p_values


def test_points_are_chosen_with_the_probabilities_of_biased_progressive_sampling():
    """Three doublings with all directions; false-alarm rate 10⁻³ over the eight of them."""
    assert min(choice_chances()) > 1e-3 / 8


def test_the_choice_test_sees_uniform_weights(monkeypatch):
    assert min(choice_chances(weighted=False, monkeypatch=monkeypatch)) < 1e-6
