"""Which elements depend on which coordinates: against what changes when each coordinate is changed."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape.ppl.programs.program import Program
from dualtape.ppl.programs.reach import Reach, colouring, reach, unsummed
from jax import lax
from jax.scipy.special import logsumexp

RNG = np.random.default_rng(1)
Y = RNG.normal(size=6)
GROUP = np.array([2, 0, 1, 2, 0, 1])
MU = np.array([-1.0, 0.5, 2.0])
LOGITS = RNG.normal(size=(6, 3))
TRANSITION = RNG.dirichlet(np.ones(3), 3)
INTEGERS = (np.array([0, 2, 1, 1, 0, 2]), 3)  # a point, and the number of values of each element
REALS = (RNG.normal(size=6), None)
FEW = (RNG.normal(size=3), None)
TABLE = (RNG.normal(size=(6, 3)), None)
GRID = (RNG.integers(0, 2, (3, 4)), 2)


def normal(mean, y=Y):
    return dist.Normal(mean, 1.3).log_prob(y)


def with_neighbours(z):
    return jnp.concatenate([(z[1:] * z[:-1]).ravel(), (z[:, 1:] * z[:, :-1]).ravel()])


# Functions whose dependences are at most two for each element, and found exactly.
EXACT = {
    "mixture": (lambda z: normal(jnp.asarray(MU)[z]), INTEGERS),
    "mixture, coordinates as floats": (lambda z: normal(jnp.asarray(MU)[z.astype(int)]), (INTEGERS[0] * 1.0, 3)),
    "rows by coordinates": (lambda z: jnp.asarray(LOGITS)[z], INTEGERS),
    "categorical": (lambda z: dist.Categorical(logits=LOGITS).log_prob(z), INTEGERS),
    "categorical probabilities": (lambda z: dist.Categorical(probs=TRANSITION[0]).log_prob(z), INTEGERS),
    "Bernoulli": (lambda z: dist.Bernoulli(logits=LOGITS[:, 0]).log_prob(z), (INTEGERS[0] % 2, 2)),
    "groups": (lambda t: normal(t[GROUP]), FEW),
    "Poisson groups": (lambda t: dist.Poisson(jnp.exp(t[GROUP])).log_prob(np.arange(6)), FEW),
    "random walk": (lambda z: normal(z[:-1], z[1:]), REALS),
    "Markov chain": (lambda z: jnp.log(jnp.asarray(TRANSITION)[z[:-1], z[1:]]), INTEGERS),
    "grid": (with_neighbours, GRID),
    "one-hot": (lambda z: jax.nn.one_hot(z, 3) @ jnp.asarray(MU), INTEGERS),
    "selection": (lambda z: jnp.where(z[:, None] == jnp.arange(3), MU, 0.0).sum(-1), INTEGERS),
    "components": (lambda z: logsumexp(normal(z[:, None], MU), -1), REALS),
    "pairs": (lambda z: logsumexp(z.reshape(3, 2), 1) + jnp.max(z.reshape(3, 2), 1), REALS),
    "rolled": (lambda z: jnp.roll(z, 1) * jnp.flip(z), REALS),
    "nothing put before": (lambda z: jnp.concatenate([z[:0] * 2, z]), REALS),
    "padded": (lambda z: jnp.pad(z, (1, 2)) + lax.pad(z[:5], 1.0, [(0, 0, 1)])[:9], REALS),
    "stacked": (lambda z: jnp.stack([z, z[::-1]], 1).T[1:], REALS),
    "unstacked": (lambda z: [a + b for a, b in zip(z.reshape(3, 2), jnp.split(z[:3], 3), strict=True)][1], REALS),
    "written": (lambda z: jnp.ones(6).at[np.array([4, 1])].set(z[:2]), REALS),
    "added": (lambda z: jnp.asarray(z).at[np.array([4, 1])].add(z[:2]), REALS),
    "written in a row": (lambda z: lax.dynamic_update_slice(z, z[:2] * 2, (3,)), REALS),
    "one chosen": (lambda z: jnp.asarray(MU)[z[2]] + jnp.zeros(2), INTEGERS),
    "prefixes": (lambda z: jnp.cumsum(z.reshape(3, 2), 1), REALS),
    "products": (lambda z: z.reshape(3, 2) @ jnp.asarray(LOGITS[:2]), REALS),
    "nothing": (lambda z: normal(MU[:, None]), REALS),
}
# Where more is said to depend than does, or than can be said.
ROUGH = {
    "row of a simplex": (lambda t: dist.Dirichlet(np.ones(3) * 2).log_prob(jax.nn.softmax(t)), TABLE),
    "loop": (lambda z: lax.fori_loop(0, 2, lambda _, x: x + 1.0, z), REALS),
    "condition": (lambda z: lax.cond(z[0] > 0, jnp.sin, jnp.cos, z), REALS),
    "matrix factors": (lambda z: jnp.linalg.cholesky(jnp.eye(6) * z**2 + 1e-3), REALS),
    "chosen of coordinates": (lambda t: t[jnp.argmax(t) + jnp.zeros(2, int)], FEW),
    "sums by group": (lambda z: jax.ops.segment_sum(z, GROUP, 3), REALS),
    "long prefixes": (jnp.cumsum, REALS),
    "sorted": (jnp.sort, REALS),
    "three": (lambda z: z[2:] + z[1:-1] * z[:-2], REALS),
}


def traced(function, point):
    program, data, _ = Program.trace(function, jax.ShapeDtypeStruct(np.shape(point), jnp.asarray(point).dtype))
    return program, data


def found(function, point):
    program, data = traced(function, point)
    numbers = np.arange(np.size(point)).reshape(np.shape(point))
    (result,) = reach(program, {len(data): numbers}, dict(enumerate(data)))
    return result


def perturbed(function, point, values):
    """For each element of the result, the coordinates that change it, tried at several points."""
    function = jax.jit(function)
    sets = None
    for _ in range(8):
        base = RNG.integers(0, values, point.shape).astype(point.dtype) if values else RNG.normal(size=point.shape)
        here = np.asarray(function(base))
        sets = sets or [set() for _ in range(here.size)]
        for i in range(base.size):
            for change in range(1, values) if values else (0.7,):
                moved = base.copy()
                moved.flat[i] = (moved.flat[i] + change) % values if values else moved.flat[i] + change
                for element in np.flatnonzero((np.asarray(function(moved)) != here).ravel()):
                    sets[element].add(i)
    return sets


def as_sets(result):
    return [
        None if many else {low, high} - {-1}
        for low, high, many in zip(result.low.ravel(), result.high.ravel(), result.many.ravel(), strict=True)
    ]


@pytest.mark.parametrize("name", EXACT)
def test_dependences_are_those_that_perturbation_finds(name):
    function, (point, values) = EXACT[name]
    result = found(function, point)
    assert result.low.shape == np.shape(function(point))
    assert as_sets(result) == perturbed(function, point, values)


@pytest.mark.parametrize("name", ROUGH)
def test_no_dependence_is_missed(name):
    function, (point, values) = ROUGH[name]
    for said, true in zip(as_sets(found(function, point)), perturbed(function, point, values), strict=True):
        assert said is None or said >= true


def test_the_check_would_see_a_missed_dependence():
    function, (point, values) = EXACT["random walk"]
    assert as_sets(Reach.of(np.arange(5))) != perturbed(function, point, values)


def test_operations_that_are_not_understood_depend_on_all_of_few():
    result = found(lambda z: lax.fori_loop(0, 2, lambda _, x: jnp.sin(x), z), np.zeros(2))
    assert as_sets(result) == [{0, 1}, {0, 1}]
    assert as_sets(found(lambda z: jnp.stack([z[0] + z[1] + z[2], z[1]]), np.zeros(3))) == [None, {1}]


def test_some_coordinates_count_and_an_unknown_index_may_lead_anywhere():
    program, data = traced(lambda t: normal(t[GROUP]), np.zeros(3))
    numbers = {len(data): np.array([-1, 0, -1])}
    (known,) = reach(program, numbers, dict(enumerate(data)))
    np.testing.assert_array_equal(known.low, np.where(GROUP == 1, 0, -1))
    (unknown,) = reach(program, numbers)
    np.testing.assert_array_equal(unknown.low, np.zeros(6))
    with pytest.raises(ValueError, match=r"coordinates of input 0 have shape \(2,\).*one number for each element"):
        reach(program, {0: np.zeros(2, int)})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixture", [[0, 1, 2, 3, 4, 5]]),
        ("Markov chain", [[0, 2, 4], [1, 3, 5]]),
        ("grid", [[0, 2, 5, 7, 8, 10], [1, 3, 4, 6, 9, 11]]),
        ("three", [[0], [1], [2], [3], [4], [5]]),
    ],
)
def test_colours(name, expected):
    function, (point, _) = (EXACT | ROUGH)[name]
    colours = colouring(np.size(point), [found(function, point)])
    assert [colour.tolist() for colour in colours] == expected


def test_a_colour_holds_no_two_neighbours_and_coordinates_without_terms_have_one():
    edges = RNG.integers(0, 40, (60, 2))
    low, high = edges.min(1), edges.max(1)
    colours = colouring(41, [Reach(low, high, np.zeros(60, bool))])
    assert sorted(np.concatenate(colours)) == list(range(41))
    of = np.empty(41, int)
    for number, colour in enumerate(colours):
        of[colour] = number
    assert np.all((of[low] != of[high]) | (low == high))
    assert of[40] == 0
    assert colouring(0, []) == ()


def test_what_a_term_is_the_sum_of():
    def terms(z):
        by_element = normal(z)
        return [by_element.sum(), by_element.sum().astype(jnp.float32), 2 * by_element.sum(), by_element, z[0]]

    program, data = traced(terms, np.zeros(6))
    atoms = tuple(unsummed(program, i) for i in range(5))
    assert [np.shape(atom.aval) for atom in atoms] == [(6,), (6,), (), (6,), ()]
    first = Program(program.inputs, program.equations, atoms[:1])(*data, Y)
    np.testing.assert_allclose(np.sum(first[0]), program(*data, Y)[0], rtol=1e-14)


def test_a_large_plate_takes_little_time():
    y, z = RNG.normal(size=10_000), np.zeros(10_000, int)

    def mixture(z):
        by_component = logsumexp(jnp.log(np.ones(3) / 3) + normal(jnp.asarray(MU), y[:, None]), -1)
        return normal(jnp.asarray(MU)[z], y) + dist.Categorical(logits=np.zeros(3)).log_prob(z) + by_component

    program, data = traced(mixture, z)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        (result,) = reach(program, {len(data): np.arange(10_000)}, dict(enumerate(data)))
        seconds.append(time.perf_counter() - start)
    np.testing.assert_array_equal(result.low, np.arange(10_000))
    np.testing.assert_array_equal(result.high, np.arange(10_000))
    assert min(seconds) < 1.0  # some 10 ms: a quadratic table would take many seconds
