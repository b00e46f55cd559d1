"""Forward mode with structure: the same Jacobians as JAX's, with fewer numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad import AutoForward, AutoReverse, SecondOrder, hessian, value_and_gradient
from dualtape.ad.dual.jacobians import Columns, Entries, add, identity, to_dense
from dualtape.ad.dual.numbers import Dual
from dualtape.ad.dual.propagation import jacobian, propagate, pushforward
from jax import lax

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(6, 4)), RNG.normal(size=6)
GROUP = np.array([0, 2, 2, 1, 0, 3])
SQUARE = RNG.normal(size=(4, 4))

# Functions of four numbers, with results of any shape: every rule, alone and after others.
FUNCTIONS = {
    "itself": lambda x: x,
    "elementwise": lambda x: jnp.exp(x) * jnp.sin(x[::-1]) / (1 + x**2),
    "a number for an array": lambda x: (Y - x[0]) / jnp.exp(x[1] * x[2]),
    "a row for a matrix": lambda x: jnp.asarray(X) * jnp.exp(x)[None, :] + x[:, None].T,
    "slices": lambda x: jnp.concatenate([x[2:], x[:1] * 2, jnp.zeros(2)]),
    "known positions": lambda x: x[np.array([3, 3, 0, 1])] ** 2,
    "positions as data": lambda x: (jnp.exp(x) + x[0])[jnp.asarray(GROUP)] * Y,
    "matrix times vector": lambda x: jnp.asarray(X) @ x,
    "matrix times function": lambda x: jnp.tanh(jnp.asarray(X) @ jnp.exp(x[::-1])),
    "vector times matrix": lambda x: jnp.exp(x) @ jnp.asarray(SQUARE),
    "inner product": lambda x: x @ jnp.exp(x),
    "outer product": lambda x: jnp.outer(x, jnp.sin(x)).sum(0),
    "sum": lambda x: jnp.sum(jnp.exp(x)),
    "sum of a row for a matrix": lambda x: jnp.sum(jnp.asarray(X) * jnp.exp(x), 0),
    "sum over rows": lambda x: jnp.sum(jnp.asarray(X) * jnp.exp(x), 1),
    "sum over groups": lambda x: jnp.sum(x[jnp.asarray(GROUP)] ** 2 * Y),
    "sum of a permutation": lambda x: jnp.sum(x[np.array([2, 0, 3, 1])] * np.arange(4.0)),
    "reshape, transpose, reverse": lambda x: jnp.flip(jnp.exp(x).reshape(2, 2).T, 0),
    "pad": lambda x: jnp.pad(jnp.exp(x), 2),
    "stack": lambda x: jnp.stack([x[0] * x[1], x[2], 3.0 + 0 * x[0]]),
    "cumulative sum": lambda x: jnp.cumsum(jnp.exp(x)),
    "dynamic slice": lambda x: lax.dynamic_slice(jnp.exp(x), (jnp.asarray(GROUP)[1],), (2,)),
    "dynamic slice of columns": lambda x: lax.dynamic_slice(X @ x, (jnp.asarray(GROUP)[1],), (2,)),
    "fill row by row": lambda x: lax.fori_loop(
        0, 5, lambda i, a: lax.dynamic_update_slice(a, (a[i - 1] * x[:2])[None], (i, 0)), jnp.ones((5, 2)) * x[2]
    ),
    "update of a constant": lambda x: lax.dynamic_update_slice(jnp.zeros(6), x**2, (jnp.asarray(GROUP)[3],)),
    "set one": lambda x: lax.fori_loop(0, 4, lambda i, a: a.at[i].set(a[i - 1] * x[i]), jnp.ones(6) * x[2]),
    "set a row": lambda x: jnp.zeros((3, 4)).at[1].set(jnp.exp(x)).at[jnp.asarray(GROUP)[1]].multiply(2.0),
    "add a column": lambda x: (jnp.ones((4, 3)) * x[0]).at[:, 1].add(x**2),
    "set several, some twice": lambda x: jnp.zeros(5).at[jnp.asarray(GROUP)[:4]].set(x * x),
    "set out of bounds": lambda x: (jnp.ones(3) * x[0]).at[7].set(x[1]),
    "set": lambda x: jnp.zeros(5).at[jnp.asarray(GROUP)[:4]].add(x * x),
    "where": lambda x: jnp.where(x > 0, jnp.log(jnp.abs(x)), x**2),
    "several results": lambda x: jnp.hypot(x[:2], x[2:]) * jnp.remainder(x[:2], x[2:]),
    "tile": lambda x: jnp.tile(jnp.exp(x), 3) * jnp.arange(12.0),
    "set at known places": lambda x: jnp.ones((4, 4)).at[jnp.tril_indices(4, -1)].set(jnp.append(x, x[:2] ** 2)),
    "set, one place out of bounds": lambda x: jnp.exp(x).at[np.array([1, 7])].set(x[2:] ** 2),
    "set one place twice": lambda x: jnp.exp(x).at[np.array([1, 1])].add(x[2:] ** 2).at[np.array([2])].set(x[:1]),
    "sum by group": lambda x: jnp.zeros(3).at[jnp.asarray(GROUP)[:4]].add(jnp.exp(x)),
    "maximum by group": lambda x: jax.ops.segment_max(jnp.exp(x), jnp.asarray(GROUP)[:4], 3),
    "minimum by group, with what was there": lambda x: jnp.zeros(3).at[jnp.asarray(GROUP)[:4]].min(x),
    "update of one slice by another": lambda x: lax.dynamic_update_slice(
        x, 2 * lax.dynamic_slice(x, (jnp.asarray(GROUP)[1],), (2,)), (jnp.asarray(GROUP)[5],)
    ),
    "tiny factor": lambda x: jnp.linalg.cholesky(x.reshape(2, 2) @ x.reshape(2, 2).T + jnp.eye(2)),
    "cond": lambda x: lax.cond(x[0] > 0, lambda: x[1] * x, lambda: jnp.exp(x)),
    "scan": lambda x: lax.scan(lambda c, t: (c * x[0] + t * x[1:3], c.sum() * x[3]), x[:2], jnp.asarray(Y))[1],
    "scan of nothing": lambda x: lax.scan(lambda c, t: (c * x[0] * t, c), x[1:], jnp.zeros((0, 3)) * x[0])[0],
    "reverse scan over parameters": lambda x: lax.scan(lambda c, t: (c + t**2, c * t), x[0], x, reverse=True),
    "scan over matrix rows": lambda x: lax.scan(lambda c, r: (c + r @ x, c), 0.0, jnp.asarray(X))[1],
    "while": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x[:2]), (0, x[2:]))[1],
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, c: c + jnp.sin(c) * x[i], x[3]),
    "cholesky": lambda x: jnp.linalg.cholesky(jnp.eye(3) * (2 + x[0] ** 2) + jnp.outer(x[1:], x[1:])),
    "largest": lambda x: jnp.max(jnp.exp(x)) + jax.nn.logsumexp(x),
    "product": lambda x: jnp.prod(x) + jnp.sort(x)[0],
    "rounding": lambda x: jnp.round(x) + lax.stop_gradient(x) + jnp.sign(x) * x,
    "integers on the way": lambda x: x * (x > 0).astype(int) + jnp.argmax(x),
    "single precision on the way": lambda x: x.astype(jnp.float32).astype(jnp.float64) * 2,
    "inside jit": lambda x: jax.jit(lambda x: jax.nn.softplus(x) * x[0])(x),
    "custom_jvp that is no elementwise function": lambda x: jax.nn.softmax(x)[1:] * jax.nn.relu(x[0]),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)),
}
POINT = np.array([0.7, -1.2, 0.4, 2.1])


def flat(result):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(result)])


SOLVES = [
    {"left_side": left, "lower": lower, "transpose_a": transpose, "unit_diagonal": unit}
    for left in (True, False)
    for lower in (True, False)
    for transpose in (True, False)
    for unit in (True, False)
]


@pytest.mark.parametrize("options", SOLVES, ids=str)
def test_small_triangular_solves_are_written_out(options):
    def f(x):
        a = x[:9].reshape(3, 3) + 3 * jnp.eye(3)
        b = x[9:].reshape(3, 2)
        return lax.linalg.triangular_solve(a, b if options["left_side"] else b.T, **options)

    x = RNG.normal(size=15)
    expected = jax.jacrev(f)(x)
    value, columns = jacobian(f, jnp.asarray(x))
    np.testing.assert_allclose(value, f(x), rtol=1e-12)
    np.testing.assert_allclose(columns, expected, rtol=1e-10, atol=1e-12)
    assert "triangular_solve" not in str(jax.make_jaxpr(lambda x: jacobian(f, x))(jnp.asarray(x)))


def test_a_small_factor_of_a_matrix_that_is_not_positive_definite_is_nan():
    matrix = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    value, _ = jacobian(lambda x: jnp.linalg.cholesky(matrix * x[0]), jnp.ones(1))
    assert np.isnan(value[0, 0])
    np.testing.assert_array_equal(value, jnp.linalg.cholesky(matrix))


@pytest.mark.parametrize("rows", [20, 400])
def test_a_row_of_data_that_is_missing_and_not_taken_has_no_influence(rows):
    """Beyond a size the contraction is a product of matrices, which would make NaN of zero times NaN."""
    data = RNG.normal(size=(rows, 4))
    data[3] = np.nan
    seen = ~np.isnan(data[:, 0])
    x = RNG.normal(size=4)
    _, gradient = value_and_gradient(
        lambda x, data: jnp.sum(jnp.where(seen, jnp.tanh(data @ x), 0.0)), AutoForward(), x, data
    )
    np.testing.assert_allclose(gradient, (1 - np.tanh(data[seen] @ x) ** 2) @ data[seen])
    # What is taken is not hidden.
    _, gradient = value_and_gradient(lambda x, data: jnp.sum(jnp.tanh(data @ x)), AutoForward(), x, data)
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_jacobians_are_those_of_jax(f):
    expected = jax.jacfwd(lambda x: flat(f(x)))(POINT)
    value, columns = jax.jit(lambda x: jacobian(lambda x: flat(f(x)), x))(POINT)
    np.testing.assert_allclose(value, flat(f(jnp.asarray(POINT))), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(columns, expected, rtol=1e-10, atol=1e-12)
    tangents = RNG.normal(size=(3, 4))
    changes = pushforward(lambda x: flat(f(x)), jnp.asarray(POINT), jnp.asarray(tangents))[1]
    np.testing.assert_allclose(changes, expected @ tangents.T, rtol=1e-10, atol=1e-12)


def terms_of(f, *arguments):
    closed = jax.make_jaxpr(f)(POINT, *arguments)
    duals = [Dual(jnp.asarray(POINT), identity(4)), *(Dual(jnp.asarray(argument)) for argument in arguments)]
    return propagate(closed.jaxpr, closed.consts, duals)[0].jacobian


def test_structure_is_kept():
    (term,) = terms_of(lambda x: jnp.exp(x[1:3]) * 2)
    assert isinstance(term, Entries)
    assert term.rows.tolist() == [1, 2]
    (product,) = terms_of(lambda x, X: jnp.tanh(X @ x), X)
    assert isinstance(product, Columns)
    np.testing.assert_array_equal(product.columns, X)  # the Jacobian of X @ x is X itself, scaled row by row
    assert product.weights.shape == (6,)
    assert terms_of(lambda x: jnp.round(x)) == ()
    two = terms_of(lambda x, X: (X @ x[:2]) * x[3], X[:, :2])
    assert sorted(term.rows.tolist() for term in two) == [[0, 1], [3]]
    normal = terms_of(lambda x, y: jnp.sum(-0.5 * ((y - x[0]) / jnp.exp(x[1])) ** 2), Y)
    assert sum(term.rows.size for term in normal) == 2


def test_an_elementwise_chain_costs_one_product_an_operation_whatever_the_number_of_parameters():
    def chain(x, y):
        return jnp.sum(jnp.tanh(jnp.exp(jnp.sin((y - x[0]) * x[1] * x[2] * x[3]))))

    def size(f):
        return len(jax.make_jaxpr(lambda x: jacobian(lambda x: f(x, Y), x))(POINT).jaxpr.eqns)

    def fewer(x, y):
        return jnp.sum(jnp.tanh(jnp.exp(jnp.sin((y - x[0]) * x[1]))))

    assert size(chain) < 2 * size(fewer)


def test_terms_add_up():
    entries, columns = Entries(np.array([1]), np.zeros(2, int), None), Columns(np.array([0, 1]), jnp.ones((2, 2)), None)
    total = add([entries, columns, entries, columns], (2,), float)
    assert len(total) == 2
    np.testing.assert_array_equal(to_dense(total, (2,), float, 3), [[2, 4, 0], [2, 4, 0]])
    assert to_dense((), (2,), float, 3).shape == (2, 3)


TRAPS = {
    "root of a branch not taken": (lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0)), [-1.0, 4.0], [0.0, 0.25]),
    "root of what is clipped": (lambda x: jnp.sum(jnp.sqrt(jnp.maximum(x, 0.0))), [-1.0, 4.0], [0.0, 0.25]),
    "logarithm of a branch not taken": (lambda x: jnp.sum(jnp.where(x > 0, jnp.log(x), x)), [0.0, 4.0], [1.0, 0.25]),
    "square of what may be negative": (lambda x: jnp.sum(jnp.where(x > -2, x**2.0, x)), [-1.0, 4.0], [-2.0, 8.0]),
    "overflow in a branch not taken": (
        lambda x: jnp.sum(jnp.where(x < 700, jnp.exp(x) * x, 0.0)),
        [800.0, 0.0],
        [0.0, 1.0],
    ),
    "in a loop": (
        lambda x: lax.scan(lambda c, t: (c + jnp.where(t > 0, jnp.log(t) * x[0], 0.0), None), 0.0, x)[0],
        [2.0, -1.0],
        [np.log(2) + 1, 0.0],
    ),
    "data that are missing": (
        lambda x: jnp.sum(jnp.where(np.array([True, False]), (np.array([1.0, np.nan]) - x[0]) ** 2 * x[1], 0.0)),
        [0.0, 3.0],
        [-6.0, 1.0],
    ),
}


@pytest.mark.parametrize("adtype", [AutoForward(), AutoForward(chunk_size=1)], ids=repr)
@pytest.mark.parametrize(("f", "x", "expected"), TRAPS.values(), ids=TRAPS.keys())
def test_what_is_not_taken_has_no_influence(f, x, expected, adtype):
    np.testing.assert_allclose(value_and_gradient(f, adtype, np.array(x))[1], expected)


@pytest.mark.parametrize(
    "adtype", [AutoForward(), AutoForward(chunk_size=1), SecondOrder(AutoReverse(), AutoForward(1))]
)
@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sum(jnp.where(x > 1, x**3, x**2)),
        lambda x: jnp.sum(jnp.where(x < 1, jnp.cosh(jnp.sin(x)), x**2)),
        lambda x: jnp.sum(jnp.where(x < 1, jnp.cos(x[::-1]), 0.0)),
    ],
)
def test_a_first_derivative_that_happens_to_be_zero_still_moves(f, adtype):
    x = np.array([-1.0, 0.0])
    np.testing.assert_allclose(hessian(f, adtype, x), jax.hessian(f)(x), atol=1e-12)


def test_rows_that_are_missing_have_no_influence_in_forward_mode():
    rows = np.array([[1.0, 2], [np.nan, 3]])
    for adtype in (AutoForward(), AutoForward(chunk_size=1)):
        _, gradient = value_and_gradient(
            lambda x: jnp.sum(jnp.where(np.array([True, False]), jnp.log(rows @ x), 0.0)), adtype, np.array([1.0, 0.5])
        )
        np.testing.assert_allclose(gradient, [0.5, 1.0])


def test_a_real_singularity_is_not_hidden():
    assert np.isinf(value_and_gradient(lambda x: jnp.sqrt(x[0]), AutoForward(), np.zeros(1))[1])
    assert np.isnan(value_and_gradient(lambda x: jnp.sqrt(x[0]) * x[0], AutoReverse(), np.zeros(1))[1])
    assert np.isnan(value_and_gradient(lambda x: jnp.log(x[0]) + x[0], AutoForward(), -np.ones(1))[0])


def test_no_square_matrix_is_made_for_many_parameters():
    d = 3000
    derivative = jax.make_jaxpr(
        lambda x: value_and_gradient(lambda x: -jnp.sum((x - jnp.roll(x, 1)) ** 2) - jnp.sum(x[::3]), AutoForward(), x)
    )(np.ones(d))

    def largest(jaxpr):
        sizes = [np.prod(var.aval.shape) for equation in jaxpr.eqns for var in equation.outvars]
        inner = [largest(p.jaxpr) for e in jaxpr.eqns for p in e.params.values() if hasattr(p, "jaxpr")]
        return max([*sizes, *inner])

    assert largest(derivative.jaxpr) <= 2 * d


def test_a_loop_that_ends_for_some_and_not_for_others():
    def f(x):
        return jnp.sum(jax.vmap(lambda t: lax.while_loop(lambda c: c < 2.0, lambda c: c * t, t))(x))

    _, gradient = value_and_gradient(f, AutoForward(), np.array([1.5, 1.1, 3.0]))
    np.testing.assert_allclose(gradient, [2 * 1.5, 8 * 1.1**7, 1.0])


STILL = {
    "norm": lambda x: jnp.linalg.norm(jnp.where(x > 0, x, 0.0)),
    "root of a sum": lambda x: jnp.sqrt(jnp.sum(jnp.maximum(x, 0.0))),
    "root of a product": lambda x: jnp.sqrt(jax.nn.relu(x) @ jax.nn.relu(x)),
    "power of a row": lambda x: jnp.sum(jnp.sum(jnp.maximum(jnp.outer(x, jnp.ones(3)), 0.0), 1) ** 0.5),
}


@pytest.mark.parametrize("f", STILL.values(), ids=STILL.keys())
@pytest.mark.parametrize("adtype", [AutoForward(), AutoForward(chunk_size=1), AutoReverse()], ids=repr)
def test_a_root_of_what_does_not_move_does_not_move(f, adtype):
    np.testing.assert_array_equal(value_and_gradient(f, adtype, -np.ones(2))[1], 0.0)
    x = np.array([-1.0, 2.0])
    expected = [0.0, (f(x + np.array([0.0, 1e-6])) - f(x - np.array([0.0, 1e-6]))) / 2e-6]
    np.testing.assert_allclose(value_and_gradient(f, adtype, x)[1], expected, rtol=1e-6)


@pytest.mark.parametrize("adtype", [AutoForward(), AutoReverse()], ids=repr)
@pytest.mark.parametrize("index", [np.array([0, 5]), np.array([-9, 1])], ids=str)
def test_an_index_beyond_the_end_has_the_derivative_of_its_value(adtype, index):
    """JAX reads the nearest element there."""
    x = np.arange(1.0, 4.0)
    for f in (lambda x, i: jnp.sum(x[i] ** 2), lambda x, _: jnp.sum(x[index] ** 2)):
        expected = np.bincount(np.clip(np.where(index < 0, index + 3, index), 0, 2), minlength=3) * 2 * x
        np.testing.assert_allclose(value_and_gradient(f, adtype, x, index)[1], expected)


def test_second_derivatives_of_small_factors_are_not_written_out_twice():
    def f(x):
        return jnp.sum(jnp.linalg.cholesky(jnp.outer(x, x) + jnp.eye(4)))

    x = np.array([0.5, -0.3, 0.2, 0.7])
    first = len(str(jax.make_jaxpr(lambda x: value_and_gradient(f, AutoForward(), x))(x)))
    second = len(str(jax.make_jaxpr(lambda x: hessian(f, AutoForward(), x))(x)))
    assert second < 5 * first
    np.testing.assert_allclose(hessian(f, AutoForward(), x), jax.hessian(f)(x), atol=1e-12)
