"""Control flow: loops, branches, solvers and differential equations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.ode import odeint
from jax.scipy.sparse.linalg import cg

from .scenario import Scenario, exact

Array = jax.Array


def scan_tanh(x: Array) -> Array:
    """A recurrence over five steps with a stacked result."""

    def step(carry: Array, t: Array) -> tuple[Array, Array]:
        return 0.9 * carry + x[0] * t, jnp.tanh(carry + x[1])

    return jnp.sum(lax.scan(step, x[2], jnp.arange(5.0, dtype=x.dtype))[1])


def scan_over_x(x: Array) -> Array:
    """A scan over the differentiated array, backwards: sum of i x[i] built up from running sums."""
    total, sums = lax.scan(lambda carry, one: (carry + one, carry + one), jnp.zeros_like(x[0]), x, reverse=True)
    return jnp.sum(sums**2) + total


def fori_static(x: Array) -> Array:
    """The cosine applied ten times by a `fori_loop` with fixed bounds, which is a scan."""
    return jnp.sum(lax.fori_loop(0, 10, lambda i, carry: jnp.cos(carry) + 0.1 * i, x))


def fori_dynamic(x: Array, n: Array) -> Array:
    """x^(2^n) by squaring n times, with n known only when it runs."""
    return jnp.sum(lax.fori_loop(0, n, lambda _, carry: carry**2, x))


def newton_root(x: Array) -> Array:
    """The cube root by Newton's iteration in a `while_loop`, whose trip count depends on x."""

    def unfinished(state: tuple[Array, Array]) -> Array:
        return jnp.abs(state[0] - state[1]) > 1e-6 * jnp.abs(state[0])

    def improve(state: tuple[Array, Array]) -> tuple[Array, Array]:
        y, _ = state
        return y - (y**3 - x) / (3.0 * y**2), y

    y, _ = lax.while_loop(unfinished, improve, (x, 2.0 * x))
    return y - (y**3 - x) / (3.0 * y**2)


def while_on_constants(x: Array, n: Array) -> Array:
    """A `while_loop` that x does not enter: reverse mode passes it too."""
    factorial = lax.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, s[1] * s[0]), (n, jnp.ones_like(n)))[1]
    return factorial * jnp.sum(x**2)


def branch(x: Array) -> Any:
    """`cond` on the sign of x[0]."""
    return lax.cond(x[0] > 0, jnp.sin, jnp.cos, x[1]) * x[0]


def branch_on_index(x: Array, index: Array) -> Any:
    """`switch` with three branches, of which one does not use all of x."""
    return lax.switch(index, [lambda x: x[0] ** 2, jnp.prod, lambda _: jnp.ones_like(x[0])], x)


def branches_in_scan(x: Array) -> Array:
    """A `cond` on the counter inside a scan."""

    def step(carry: Array, i: Array) -> tuple[Array, None]:
        return lax.cond(i % 2 == 0, lambda c: jnp.sin(c) + x[0], lambda c: c * x[1], carry), None

    return lax.scan(step, x[2], jnp.arange(6))[0]


def nested_loops(x: Array) -> Any:
    """A scan within a scan within a `fori_loop`."""

    def inner(carry: Array, t: Array) -> tuple[Array, Array]:
        return 0.5 * carry + jnp.sin(x[0] * t), carry

    def middle(carry: Array, t: Array) -> tuple[Array, Array]:
        last, path = lax.scan(inner, carry + x[1], jnp.arange(3.0, dtype=x.dtype) + t)
        return last, jnp.sum(path)

    def outer(_: int, carry: Array) -> Array:
        last, sums = lax.scan(middle, carry, jnp.arange(2.0, dtype=x.dtype))
        return last * jnp.cos(jnp.sum(sums))

    return lax.fori_loop(0, 3, outer, x[2])


def mapped(x: Array) -> Array:
    """`lax.map`, `vmap` and a function compiled on its own."""
    square = jax.jit(lambda one: one**2 * x[0])
    return jnp.sum(lax.map(square, x)) + jnp.sum(jax.vmap(lambda one: jnp.sin(one) * x[1])(x))


def rematerialised(x: Array) -> Array:
    """`jax.checkpoint` around a step of a scan."""
    step = jax.checkpoint(lambda carry, t: (jnp.sin(carry * x[0]) + x[1] * t, None))
    return lax.scan(step, x[2], jnp.arange(4.0, dtype=x.dtype))[0]


def associative(x: Array) -> Array:
    """A linear recurrence by `associative_scan`: y[t] = a[t] y[t-1] + b[t]."""

    def combine(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] * right[0], left[1] * right[0] + right[1]

    return jnp.sum(lax.associative_scan(combine, (jnp.tanh(x[0]), x[1]))[1] ** 2)


def lotka_volterra(p: dict[str, Array]) -> Array:
    """Predator and prey by 40 steps of Runge-Kutta 4: four rates and two initial values."""
    a, b, c, d = jnp.exp(p["log_rates"])

    def field(y: Array) -> Array:
        return jnp.stack([y[0] * (a - b * y[1]), y[1] * (c * y[0] - d)])

    def step(y: Array, _: None) -> tuple[Array, Array]:
        h = 0.05
        k1 = field(y)
        k2 = field(y + 0.5 * h * k1)
        k3 = field(y + 0.5 * h * k2)
        k4 = field(y + h * k3)
        y = y + h * (k1 + 2.0 * k2 + 2.0 * k3 + k4) / 6.0
        return y, y

    return jnp.sum(jnp.log(lax.scan(step, p["start"], length=40)[1]) ** 2)


def decay_by_odeint(x: Array, t: Array) -> Array:
    """dy/dt = -x[0] y, y(0) = x[1], by the adaptive solver of JAX: the sum over t of x[1] exp(-x[0] t)."""
    tolerance = 1e-10 if x.dtype == np.float64 else 1e-6
    return jnp.sum(odeint(lambda y, _, rate: -rate * y, x[1], t, x[0], rtol=tolerance, atol=tolerance))


def fixed_point(x: Array) -> Any:
    """The root of y + exp(y) = x, which is 0 at x = 1, by `custom_root`: bisection inside, implicit outside."""

    def bisect(g: Any, guess: Array) -> Any:
        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            low = g(middle) < 0
            return jnp.where(low, middle, ends[0]), jnp.where(low, ends[1], middle)

        return lax.fori_loop(0, 60, halve, (guess - 10.0, guess + 10.0))[0]

    return lax.custom_root(
        lambda y: y + jnp.exp(y) - x, jnp.zeros_like(x), bisect, lambda g, y: y / g(jnp.ones_like(y))
    )


def conjugate_gradients(x: Array, b: Array) -> Any:
    """b'(A + diag x²)⁻¹b by conjugate gradients: a `while_loop` behind `custom_linear_solve`."""
    solution, _ = cg(lambda v: 2.0 * v + x**2 * v, b, tol=1e-12 if x.dtype == np.float64 else 1e-6)
    return b @ solution


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(6)

    def one(name: str, f: Any, x: Any, elsewhere: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        return Scenario(name, "control flow", f, x, elsewhere, special, constants, **expected)

    x2, x3, x6 = exact([1.25, 0.5]), exact([0.1, 0.2, 0.3]), exact(rng.normal(size=6))
    sums = np.cumsum(x6[::-1])[::-1]
    positive = exact([0.5, 1.25, 1.5])
    t, b = exact([0.0, 0.5, 1.0, 2.0]), exact(rng.normal(size=3))
    decay = np.exp(-1.25 * t)
    predators = {"log_rates": exact([0.0, -0.25, -0.5, 0.125]), "start": exact([1.5, 0.75])}
    return (
        one("scan", scan_tanh, x3, np.ones(3), "a carry and a stacked result"),
        one("scan over x", scan_over_x, x6, np.ones(6), "reverse=True", gradient=2 * np.cumsum(sums) + 1),
        one("fori_loop, static", fori_static, x3, np.ones(3), "a loop that is a scan"),
        one("fori_loop, dynamic", fori_dynamic, positive, np.ones(3), "a while_loop", 3, gradient=8 * positive**7),
        one("newton", newton_root, exact(5.0), exact(2.0), "the trip count depends on x", gradient=5 ** (-2 / 3) / 3),
        one("while on constants", while_on_constants, x3, np.ones(3), "outside the derivative", 4, gradient=48 * x3),
        one("cond, true", branch, x2, -x2, "prepared on the other branch", gradient=[np.sin(0.5), 1.25 * np.cos(0.5)]),
        one(
            "cond, false", branch, -x2, x2, "prepared on the other branch", gradient=[np.cos(0.5), -1.25 * np.sin(0.5)]
        ),
        one("switch", branch_on_index, x3, np.ones(3), "three branches", 1, gradient=np.prod(x3) / x3),
        one("switch to a constant", branch_on_index, x3, np.ones(3), "no derivative", 2, gradient=np.zeros(3)),
        one("cond in scan", branches_in_scan, x3, np.ones(3), "a branch an iteration"),
        one("nested loops", nested_loops, x3, np.ones(3), "three deep"),
        one("map, vmap and jit", mapped, x3, np.ones(3), "functions called inside"),
        one("checkpoint", rematerialised, x3, np.ones(3), "remat inside a scan"),
        one("associative scan", associative, exact(rng.normal(size=(2, 7))), np.ones((2, 7)), "slices with strides"),
        one(
            "lotka-volterra", lotka_volterra, predators, {"log_rates": np.zeros(4), "start": np.ones(2)}, "runge-kutta"
        ),
        one(
            "odeint",
            decay_by_odeint,
            exact([1.25, 2.0]),
            np.ones(2),
            "custom_vjp",
            t,
            value=2 * decay.sum(),
            gradient=np.array([-2 * t @ decay, decay.sum()]),
        ),
        one(
            "custom_root", fixed_point, exact(1.0), exact(1.5), "the implicit function theorem", value=0.0, gradient=0.5
        ),
        one(
            "conjugate gradients",
            conjugate_gradients,
            x3,
            np.ones(3),
            "custom_linear_solve",
            b,
            gradient=-2 * x3 * (b / (2 + x3**2)) ** 2,
        ),
    )
