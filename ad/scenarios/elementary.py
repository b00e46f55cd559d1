"""Elementary functions: one number, vectors, many scalar operations, pytrees, empty arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .scenario import Scenario, exact

Array = jax.Array


def damped_wave(x: Array) -> Array:
    """The product x sin x, of one number."""
    return x * jnp.sin(x)


def rosenbrock(x: Array) -> Array:
    """Sum over i of 100 (x[i+1] - x[i]²)² + (1 - x[i])²."""
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_gradient(x: Any) -> Any:
    """The gradient of `rosenbrock`, in NumPy."""
    gradient = np.zeros_like(x)
    inner = x[1:] - x[:-1] ** 2
    gradient[:-1] += -400.0 * x[:-1] * inner - 2.0 * (1.0 - x[:-1])
    gradient[1:] += 200.0 * inner
    return gradient


def scalar_heavy(x: Array) -> Array:
    """Arithmetic on six numbers taken out of an array one by one: the Lotka-Volterra equilibrium and friends."""
    a, b, c, d, e, g = x
    prey, predator = c / d, a / b
    slope = jnp.exp(-a * e) * jnp.cos(g) + b * jnp.sin(c + d)
    ratio = (prey - predator) / (1.0 + prey * predator)
    root = jnp.sqrt(a * a + b * b + 1.0) - jnp.log1p(c * d)
    return slope * ratio + root / (e + g) - a * b * c * d * e * g


def scalar_loop(x: Array) -> Array:
    """A Python loop over the elements, unrolled by tracing: x[i] tanh(previous) summed up."""
    carry, total = jnp.ones_like(x[0]), jnp.zeros_like(x[0])
    for one in x:
        carry = one * jnp.tanh(carry) + 0.5
        total += carry
    return total


def half_square_sum(x: Array) -> Array:
    """-|x|²/2: the log density of independent standard normals, up to a constant."""
    return -0.5 * jnp.sum(x**2)


def one_plus_square_sum(x: Array) -> Array:
    """1 + |x|²."""
    return 1.0 + jnp.sum(x**2)


def empty_slice(x: Array) -> Array:
    """x[0]² + sum(exp(x[:0])) + prod(x[:0]): empty intermediate results."""
    return x[0] ** 2 + jnp.sum(jnp.exp(x[:0])) + jnp.prod(x[:0])


def maximum_of_nothing(x: Array) -> Array:
    """|x|² + max(x[:0], initial 0), of which JAX's forward mode makes 0/0."""
    return jnp.sum(x**2) + jnp.max(x[:0], initial=0.0)


def no_parameters(x: dict[str, Array], y: Array) -> Array:
    """A pytree without leaves: a model whose sites are all observed."""
    return jnp.sum(y) + len(x)


def tree(p: Any) -> Any:
    """sum(a²) b0 + b1 exp(c): dictionaries, tuples, a matrix and numbers."""
    return jnp.sum(p["a"] ** 2) * p["b"][0] + p["b"][1] * jnp.exp(p["c"]["d"])


def outer(x: Array) -> Array:
    """The sum of sin(u v') over the outer product of the two halves."""
    return jnp.sum(jnp.sin(x[:4, None] * x[None, 4:]))


def quadratic_form(x: Array, A: Array) -> Array:
    """x'Ax/2 with a matrix that is not symmetric."""
    return 0.5 * x @ A @ x


def powers(x: Array) -> Array:
    """The sum of base ** exponent, both differentiated."""
    return jnp.sum(x[0] ** x[1])


# Every elementary function beside its derivative, which NumPy evaluates.
UNARY: tuple[tuple[Any, Any], ...] = (
    (jnp.sin, np.cos),
    (jnp.cos, lambda x: -np.sin(x)),
    (jnp.tan, lambda x: 1 / np.cos(x) ** 2),
    (jnp.arcsin, lambda x: 1 / np.sqrt(1 - x**2)),
    (jnp.arccos, lambda x: -1 / np.sqrt(1 - x**2)),
    (jnp.arctan, lambda x: 1 / (1 + x**2)),
    (jnp.sinh, np.cosh),
    (jnp.cosh, np.sinh),
    (jnp.tanh, lambda x: 1 / np.cosh(x) ** 2),
    (jnp.arcsinh, lambda x: 1 / np.sqrt(1 + x**2)),
    (lambda x: jnp.arccosh(1.5 + x), lambda x: 1 / np.sqrt((1.5 + x) ** 2 - 1)),
    (jnp.arctanh, lambda x: 1 / (1 - x**2)),
    (jnp.exp, np.exp),
    (jnp.exp2, lambda x: np.log(2) * 2**x),
    (jnp.expm1, np.exp),
    (jnp.log, lambda x: 1 / x),
    (jnp.log2, lambda x: 1 / (x * np.log(2))),
    (jnp.log10, lambda x: 1 / (x * np.log(10))),
    (jnp.log1p, lambda x: 1 / (1 + x)),
    (jnp.sqrt, lambda x: 0.5 / np.sqrt(x)),
    (jax.lax.rsqrt, lambda x: -0.5 * x**-1.5),
    (jnp.cbrt, lambda x: x ** (-2 / 3) / 3),
    (jnp.square, lambda x: 2 * x),
    (jnp.reciprocal, lambda x: -(x**-2)),
    (jnp.negative, lambda x: -np.ones_like(x)),
    (jax.nn.sigmoid, lambda x: 1 / (4 * np.cosh(x / 2) ** 2)),
    (jax.nn.softplus, lambda x: 1 / (1 + np.exp(-x))),
    (jnp.sinc, lambda x: (np.cos(np.pi * x) - np.sinc(x)) / x),
)


def elementwise(x: Array) -> Array:
    """The sum of every elementary function of every element, the k-th weighted by k+1."""
    total = jnp.zeros_like(x)
    for k, (function, _) in enumerate(UNARY):
        total += (k + 1) * function(x)
    return jnp.sum(total)


def two_arguments(x: Array) -> Array:
    """arctan2, hypot, remainder, division and logaddexp of two vectors."""
    a, b = x
    return jnp.sum(jnp.arctan2(a, b) + jnp.hypot(a, b) + jnp.remainder(a, b) + a / b + jnp.logaddexp(a, b))


def two_arguments_gradient(x: Any) -> Any:
    """The gradient of `two_arguments`, in NumPy."""
    a, b = x
    square, root = a**2 + b**2, np.hypot(a, b)
    share = 1 / (1 + np.exp(b - a))
    return np.stack(
        [b / square + a / root + 1 + 1 / b + share, -a / square + b / root - np.floor(a / b) - a / b**2 + 1 - share]
    )


def reductions(x: Array) -> Array:
    """Mean, variance, product, cumulative sum and product, Euclidean norm, and a weighted average."""
    parts = (x.mean(), x.var(), x.std(), jnp.prod(x), jnp.cumsum(x)[2], jnp.cumprod(x)[-2], jnp.linalg.norm(x))
    return sum(parts, jnp.average(x, weights=jnp.arange(1.0, 6.0, dtype=x.dtype)))


def rearranged(x: Array) -> Array:
    """Reshape, transpose, flip, roll, tile, repeat, pad, concatenate and stack, then a nonlinear sum."""
    square = x.reshape(2, 3).T[::-1]
    pieces = (square.ravel(), jnp.roll(x, 2), jnp.tile(x[:2], 3), jnp.repeat(x[2:4], 3), jnp.pad(x[1:4], (1, 2)))
    table = jnp.stack([jnp.concatenate([piece[3:], piece[:3]]) for piece in pieces])
    return jnp.sum(jnp.sin(table) * jnp.arange(6.0, dtype=x.dtype))


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(1)

    def one(name: str, f: Any, x: Any, elsewhere: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        return Scenario(name, "elementary", f, x, elsewhere, special, constants, **expected)

    chain, wide, halves = exact(rng.normal(size=10)), exact(rng.normal(size=100)), exact(rng.uniform(0.5, 2, (2, 4)))
    inside, pair = exact(rng.uniform(0.2, 0.8, 6)), exact(rng.uniform(0.3, 3.0, (2, 5)))
    A, x5 = exact(rng.normal(size=(5, 5))), exact(rng.normal(size=5))
    point = {"a": exact(rng.normal(size=(2, 2))), "b": (exact(1.5), exact(-0.5)), "c": {"d": exact([0.25])[0]}}
    origin = {"a": np.ones((2, 2)), "b": (exact(1.0), exact(1.0)), "c": {"d": np.float64(0.0)}}
    c = np.exp(0.25)
    tree_gradient = {"a": 3.0 * point["a"], "b": ((point["a"] ** 2).sum(), c), "c": {"d": -0.5 * c}}
    wave = 0.75 * np.cos(0.75) + np.sin(0.75)
    return (
        one("one number", damped_wave, exact(0.75), exact(-2.0), "x has no dimension", gradient=wave),
        one("rosenbrock", rosenbrock, chain, np.zeros(10), "slices", gradient=rosenbrock_gradient(chain)),
        one("scalar-heavy", scalar_heavy, exact([0.75, 1.25, 0.5, 1.5, 0.25, 0.625]), np.ones(6), "scalars unpacked"),
        one("unrolled loop", scalar_loop, exact(rng.normal(size=15)), np.ones(15), "many scalar operations"),
        one("standard normal, 2", half_square_sum, wide[:2], np.ones(2), "the smallest density", gradient=-wide[:2]),
        one("standard normal, 100", half_square_sum, wide, np.ones(100), "more than three chunks", gradient=-wide),
        one("empty", one_plus_square_sum, np.zeros(0), np.zeros(0), "no inputs", value=1.0, gradient=np.zeros(0)),
        one("empty slice", empty_slice, x5[:1], np.ones(1), "empty intermediates", gradient=2 * x5[:1]),
        one("maximum of nothing", maximum_of_nothing, x5, np.ones(5), "a slope 0/0", gradient=2 * x5),
        one("no leaves", no_parameters, {}, {}, "a pytree without leaves", wide[:3], value=wide[:3].sum(), gradient={}),
        one("tree", tree, point, origin, "dictionaries, tuples, numbers and a matrix", gradient=tree_gradient),
        one("outer product", outer, exact(rng.normal(size=9)), np.ones(9), "broadcasting"),
        one("quadratic form", quadratic_form, x5, np.ones(5), "a matrix", A, gradient=0.5 * (A + A.T) @ x5),
        one(
            "powers",
            powers,
            halves,
            np.ones((2, 4)),
            "base and exponent differentiated",
            gradient=np.stack([halves[1] * halves[0] ** (halves[1] - 1), np.log(halves[0]) * halves[0] ** halves[1]]),
        ),
        one(
            "elementwise",
            elementwise,
            inside,
            np.full(6, 0.5),
            "28 elementary functions",
            gradient=sum((k + 1) * derivative(inside) for k, (_, derivative) in enumerate(UNARY)),
        ),
        one("two arguments", two_arguments, pair, np.ones((2, 5)), "arctan2", gradient=two_arguments_gradient(pair)),
        one("reductions", reductions, exact(rng.uniform(0.5, 2, 5)), np.arange(1.0, 6.0), "along an axis"),
        one("rearranged", rearranged, exact(rng.normal(size=6)), np.ones(6), "no arithmetic, only moves"),
    )
