"""Programs for some elements of their outputs: the same numbers and derivatives, and work only for these."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape.ppl.programs.program import Program
from dualtape.ppl.programs.reach import reach
from dualtape.ppl.programs.slicing import slice_rows
from jax import lax
from jax.scipy.special import logsumexp, xlogy

RNG = np.random.default_rng(2)
Y = RNG.normal(size=12)
COUNTS = RNG.poisson(3.0, 12)
GROUP = RNG.integers(0, 4, 12)
MATRIX = RNG.normal(size=(12, 3))
VECTOR = RNG.normal(size=12)
SHORT = RNG.normal(size=3)
TABLE = RNG.normal(size=(12, 3))
Z = RNG.integers(0, 3, 12)


def normal(mean, y=Y):
    return dist.Normal(mean, 1.3).log_prob(y)


def rows_of_a_simplex(t):
    simplex = dist.transforms.StickBreakingTransform()(t)
    return dist.Dirichlet(np.ones(4) * 2).log_prob(simplex)


# A function of arrays, and these.
CASES = {
    "normal": (normal, (VECTOR,)),
    "shared mean": (normal, (0.3,)),
    "groups": (lambda t: normal(jnp.exp(t)[GROUP], jnp.exp(Y)), (VECTOR[:4],)),
    "mixture": (lambda z, mu: normal(mu[z]), (Z, SHORT)),
    "rows by coordinates": (lambda z, t: t[z], (Z, TABLE[:3])),
    "pairs of indices": (lambda z, t: t[z[1:], z[:-1]], (Z, TABLE[:3])),
    "out of bounds is not a number": (lambda z, mu: mu.at[z].get(mode="fill"), (Z + 1, SHORT)),
    "out of bounds is filled": (lambda z, mu: mu.at[z].get(mode="fill", fill_value=7.0), (Z - 4, SHORT)),
    "out of bounds is moved": (lambda z, mu: mu.at[z].get(mode="clip"), (Z + 2, SHORT)),
    "known index out of bounds": (lambda mu: mu.at[GROUP + 1].get(mode="fill"), (SHORT,)),
    "components": (lambda w, mu: logsumexp(w + normal(mu, Y[:, None]), -1), (SHORT, SHORT[::-1])),
    "mixture distribution": (
        lambda w, mu: dist.MixtureSameFamily(dist.Categorical(logits=w), dist.Normal(mu, 1.0)).log_prob(Y),
        (SHORT, SHORT[::-1]),
    ),
    "random walk": (lambda z: normal(z[:-1], z[1:]), (VECTOR,)),
    "categorical": (lambda z, t: dist.Categorical(logits=t).log_prob(z), (Z, TABLE)),
    "categorical probabilities": (lambda z, t: dist.Categorical(probs=jax.nn.softmax(t)).log_prob(z), (Z, TABLE)),
    "Bernoulli": (lambda t: dist.Bernoulli(logits=t).log_prob(COUNTS > 2), (VECTOR,)),
    "Poisson": (lambda t: dist.Poisson(jnp.exp(t)).log_prob(COUNTS), (VECTOR,)),
    "binomial": (lambda t: dist.Binomial(20, logits=t).log_prob(COUNTS), (VECTOR,)),
    "logarithm with its own derivative": (lambda t, x: xlogy(t**2, jnp.exp(x)), (VECTOR, 0.2)),
    "logarithm of a sum": (lambda t: jnp.logaddexp(t, 0.3) * jax.nn.relu(t), (VECTOR,)),
    "Dirichlet rows": (rows_of_a_simplex, (TABLE,)),
    "one-hot": (lambda z, mu: jax.nn.one_hot(z, 3) @ mu, (Z, SHORT)),
    "selection": (lambda z, mu: jnp.where(z[:, None] == jnp.arange(3), mu, 0.0).sum(-1), (Z, SHORT)),
    "matrix times vector": (lambda b: normal(MATRIX @ b), (SHORT,)),
    "vector times matrix": (lambda b: normal(b @ MATRIX.T), (SHORT,)),
    "matrix times matrix": (lambda b: MATRIX @ b.reshape(3, 4), (VECTOR,)),
    "batch of products": (lambda t: jnp.einsum("ij,ij->i", t, MATRIX), (TABLE,)),
    "sums along the first axis": (lambda t: jnp.exp(t).sum(0) * jnp.argmax(t, 0), (TABLE,)),
    "prefixes along the first axis": (lambda t: jnp.cumsum(jnp.exp(t), 0), (TABLE,)),
    "transposed": (lambda t: t.T[::-1, 2:] * jnp.arange(10.0), (TABLE,)),
    "side by side": (lambda t: jnp.concatenate([t[:, 2:], jnp.sin(t)], 1), (TABLE,)),
    "nothing put before": (lambda t: jnp.concatenate([t[:0], jnp.exp(t), t[3:3] * 2]), (VECTOR,)),
    "padded": (lambda t: jnp.exp(lax.pad(t, 0.5, [(1, 0, 0), (0, 1, 1)])), (TABLE,)),
    "stacked": (lambda t: jnp.stack([t, 2 * t], 1), (VECTOR,)),
    "written": (lambda t: (t**2).at[GROUP[:1]].set(jnp.sin(t[:1])), (VECTOR,)),
    "written in a row": (lambda t: lax.dynamic_update_slice(t, jnp.sin(t[:4]), (7,)), (VECTOR,)),
    "added": (lambda t: t.at[np.array([3, 1])].add(t[:2]), (VECTOR,)),
    "loop": (lambda t: lax.fori_loop(0, 2, lambda _, x: jnp.sin(x), t)[GROUP], (VECTOR,)),
    "single precision": (lambda t: jnp.where(t > 0, t, 0.5)[GROUP] * 2.5, (VECTOR.astype(np.float32),)),
    "small integers": (
        lambda z: lax.dot(z.reshape(3, 4), z.reshape(4, 3), preferred_element_type=jnp.int32),
        ((40 * Z).astype(np.int8),),
    ),
    "positions": (lambda t: t * jnp.arange(12.0), (VECTOR,)),
}


def traced(function, arguments):
    program, data, _ = Program.trace(
        function, *(jax.ShapeDtypeStruct(np.shape(a), jnp.asarray(a).dtype) for a in arguments)
    )
    return program, data


def elements(program):
    """How many elements all intermediate results have together, without other shapes of what is there anyway."""
    computing = [equation for equation in program.equations if equation.primitive.name != "reshape"]
    return sum(int(np.prod(var.aval.shape)) for equation in computing for var in equation.outvars)


def shape_of(program):
    """The program as text, which is equal for programs that differ in nothing."""
    return str(
        jax.make_jaxpr(program.__call__)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in program.inputs))
    )


@pytest.mark.parametrize("name", CASES)
def test_wanted_elements_have_the_values_of_the_whole(name):
    function, arguments = CASES[name]
    program, data = traced(function, arguments)
    whole = np.asarray(program(*data, *arguments)[0]).ravel()
    for some, known in (([2], data), ([9, 2, 5, 2], data), ([1, 2], ()), (range(12), ()), ([], data)):
        wanted = np.array([i for i in some if i < whole.size], int)
        part, indices = slice_rows(program, {0: wanted}, dict(enumerate(known)))
        (values,) = part(*data, *arguments, *indices)
        np.testing.assert_allclose(values, whole[wanted], rtol=1e-12, atol=1e-12)
        assert all(np.asarray(index).dtype == np.int32 for index in indices)


@pytest.mark.parametrize(
    "name", ["groups", "mixture", "components", "Poisson", "logarithm with its own derivative", "logarithm of a sum",
             "Dirichlet rows", "matrix times vector", "categorical", "written"]
)  # fmt: skip
def test_wanted_elements_have_the_derivatives_of_the_whole(name):
    function, arguments = CASES[name]
    program, data = traced(function, arguments)
    part, indices = slice_rows(program, {0: np.array([9, 2, 5])}, dict(enumerate(data)))
    moving = [i for i, a in enumerate(arguments) if np.asarray(a).dtype.kind == "f"]

    @jax.jit
    def gradients(*arguments):
        whole = lambda *a: jnp.asarray([2.0, 3.0, 5.0]) @ program(*data, *a)[0][jnp.array([9, 2, 5])]  # noqa: E731
        some = lambda *a: jnp.asarray([2.0, 3.0, 5.0]) @ part(*data, *a, *indices)[0]  # noqa: E731
        return [jax.grad(each, moving)(*arguments) for each in (whole, some)]

    expected, found = gradients(*arguments)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)
        assert np.any(other != 0)


def test_outputs_that_are_not_wanted_are_not_computed():
    program, data = traced(lambda t: [normal(t), jnp.exp(t), t[3], jnp.sin(t)], (VECTOR,))
    part, indices = slice_rows(program, {3: np.array([5, 1]), 2: np.array([0])}, dict(enumerate(data)))
    values = part(*data, VECTOR, *indices)
    np.testing.assert_allclose(values[0], np.sin(VECTOR[[5, 1]]), rtol=1e-14)
    np.testing.assert_allclose(values[1], VECTOR[3:4], rtol=1e-14)
    assert {equation.primitive.name for equation in part.equations} <= {"sin", "gather", "reshape", "squeeze"}


def test_forward_derivatives_of_derivatives_pass_a_rule_of_its_own():
    program, data = traced(lambda t: jnp.logaddexp(t, 0.3), (VECTOR,))
    part, indices = slice_rows(program, {0: np.array([2, 3])})
    second = jax.jacfwd(jax.jacrev(lambda t: part(*data, t, *indices)[0].sum()))(VECTOR)
    p = 1 / (1 + np.exp(0.3 - VECTOR))
    np.testing.assert_allclose(np.diag(second), np.where(np.isin(np.arange(12), [2, 3]), p * (1 - p), 0), atol=1e-14)


def of_group(size, count, shuffled, distribution):
    """The program of a plate of `size` groups, sliced to the rows of each."""
    group = np.repeat(np.arange(size), count)
    group = np.random.default_rng(3).permutation(group) if shuffled else group
    y = np.arange(size * count) % 7
    program, data = traced(lambda t, mu: distribution(mu + jnp.exp(t)[group]).log_prob(y), (np.zeros(size), 0.0))
    known = dict(enumerate(data))
    (by_row,) = reach(program, {len(data): np.arange(size)}, known)
    np.testing.assert_array_equal(by_row.low, group)
    return [slice_rows(program, {0: np.flatnonzero(by_row.low == i)}, known) for i in (0, 1, size // 2, size - 1)]


@pytest.mark.parametrize("shuffled", [False, True], ids=["sorted", "shuffled"])
@pytest.mark.parametrize("distribution", [lambda m: dist.Normal(m, 1.0), dist.Poisson], ids=["normal", "Poisson"])
def test_work_is_linear_in_the_wanted_rows_and_blocks_share_a_program(shuffled, distribution):
    small, large = (of_group(size, 5, shuffled, distribution) for size in (8, 64))
    assert elements(small[0][0]) == elements(large[0][0]) < 5 * 40
    assert len({shape_of(program) for program, _ in large}) == 1
    assert len({tuple(np.concatenate([np.ravel(index) for index in indices])) for _, indices in large}) == 4


def test_what_is_wanted_whole_stays_as_it_was():
    program, data = traced(*CASES["components"])
    part, indices = slice_rows(program, {0: np.arange(12)}, dict(enumerate(data)))
    assert indices == ()
    assert [e.primitive.name for e in part.equations] == [e.primitive.name for e in program.select([0]).equations]


def test_rows_of_a_simplex_do_not_grow_with_their_number():
    sizes = []
    for rows in (5, 50):
        program, data = traced(rows_of_a_simplex, (RNG.normal(size=(rows, 3)),))
        part, _ = slice_rows(program, {0: np.array([3])}, dict(enumerate(data)))
        sizes.append(elements(part))
    assert sizes[0] == sizes[1]
