"""Traps: kinks, branches that are not taken, rules of the user's own, and functions that hardly depend on x."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .scenario import Scenario, exact

Array = jax.Array


def double_where(x: Array) -> Array:
    """sqrt(x) where x > 0, else 0, with the argument made safe first."""
    inside = x > 0
    return jnp.sum(jnp.where(inside, jnp.sqrt(jnp.where(inside, x, 1.0)), 0.0))


def single_where(x: Array) -> Array:
    """The same without the safe argument: the branch not taken is NaN, and so is its derivative."""
    return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))


def guarded_norm(x: Array) -> Array:
    """|x|, with the derivative 0 at 0 by convention."""
    square = jnp.sum(x**2)
    inside = square > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)


def kinks(x: Array) -> Array:
    """abs, relu, leaky relu, elu, maximum and minimum, all away from their kinks."""
    pieces = (
        jnp.abs(x),
        jax.nn.relu(x),
        jax.nn.leaky_relu(x),
        jax.nn.elu(x),
        jnp.maximum(x, -0.25),
        jnp.minimum(x, 2.0),
    )
    return jnp.sum(jnp.stack(pieces) * jnp.arange(1.0, 7.0, dtype=x.dtype)[:, None])


def kinks_gradient(x: Any) -> Any:
    """The gradient of `kinks`, in NumPy."""
    up = x > 0
    return (
        np.sign(x) + 2.0 * up + np.where(up, 3.0, 0.03) + 4.0 * np.where(up, 1.0, np.exp(x)) + 5.0 * up + 6.0 * (x < 2)
    )


def tied(x: Array) -> Array:
    """The maximum of a tie: by convention the mean of the slopes on both sides."""
    return jnp.maximum(x[0], x[1]) + jnp.max(x[1:])


def clipped(x: Array) -> Array:
    """clip, inside and outside its bounds."""
    return jnp.sum(jnp.clip(x, -1.0, 1.0) ** 3)


def sorted_weights(x: Array) -> Array:
    """Order statistics, weighted by rank, and the two largest."""
    return jnp.sum(jnp.sort(x) * jnp.arange(1.0, 1.0 + x.size, dtype=x.dtype)) + jnp.sum(lax.top_k(x, 2)[0])


def selected(x: Array) -> Array:
    """max, min, median, an element at argmax, and a gather by argsort."""
    order = jnp.argsort(x)
    return jnp.max(x) ** 2 + jnp.min(x) ** 2 + jnp.median(x) + x[jnp.argmax(x)] * x[order[1]]


def stopped(x: Array) -> Array:
    """The sum of x · stop(x): a derivative of x instead of 2x."""
    return jnp.sum(x * lax.stop_gradient(x))


@jax.custom_jvp
def log1pexp(x: Array) -> Array:
    """log(1 + e^x), whose rule is written out."""
    return jnp.log1p(jnp.exp(x))


@log1pexp.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return log1pexp(primals[0]), jax.nn.sigmoid(primals[0]) * tangents[0]


@jax.custom_jvp
def damped(x: Array) -> Array:
    """The identity, whose rule halves the derivative: what is wanted is the rule, not the truth."""
    return x


@damped.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], 0.5 * tangents[0]


@jax.custom_vjp
def gradient_clipped(x: Array) -> Array:
    """The identity, whose cotangent is clipped to ±1."""
    return x


def _keep(x: Array) -> tuple[Array, None]:
    return x, None


def _clip(_: None, cotangent: Array) -> tuple[Array]:
    return (jnp.clip(cotangent, -1.0, 1.0),)


gradient_clipped.defvjp(_keep, _clip)


def by_own_jvp(x: Array) -> Array:
    """A `custom_jvp` that agrees with the function."""
    return jnp.sum(log1pexp(x) * jnp.arange(1.0, 1.0 + x.size, dtype=x.dtype))


def by_other_jvp(x: Array) -> Array:
    """A `custom_jvp` that differs from the function on purpose, inside a scan."""
    return (
        jnp.sum(damped(x) ** 2) + lax.scan(lambda carry, one: (carry + damped(one), None), jnp.zeros_like(x[0]), x)[0]
    )


def by_own_vjp(x: Array) -> Array:
    """A `custom_vjp`: forward mode has no rule to follow."""
    return jnp.sum(gradient_clipped(x) ** 2)


def integer_powers(x: Array) -> Array:
    """x**0, x**1, x**2, x**5 and x**-3, also of negative numbers and, where it can be, of zero."""
    return jnp.sum(x**0 + x**1 + x**2 + x**5) + jnp.sum(x[1:] ** -3)


def power_of_zero(x: Array) -> Array:
    """0 ** p with p = 2.0 and with p as an array, whose derivative in the base is 0."""
    return jnp.sum(x**2.0) + jnp.sum(jnp.power(x, jnp.array([3.0, 2.0], x.dtype)))


def rounded(x: Array) -> Array:
    """round, floor, sign and a cast to integers, whose derivative is 0, beside x itself."""
    whole = x.astype(jnp.int32).astype(x.dtype)
    return jnp.sum(jnp.round(x) * x + jnp.floor(x) + jnp.sign(x) + whole * x)


def product_with_zero(x: Array) -> Array:
    """A product of which one factor is 0."""
    return jnp.prod(x)


def ignoring(x: Array) -> Array:
    """A function of x[1] alone."""
    return jnp.sin(x[1])


def constant(x: Array) -> float:
    """A Python number, whatever x is."""
    return 3.0


def constant_array(x: Array, y: Array) -> Array:
    """A number computed from constants alone."""
    return jnp.sum(y**2)


def tangled_zero(x: Array) -> Array:
    """The sum of x - x + 0 exp(x): a derivative that is 0 only after cancelling."""
    return jnp.sum(x - x + 0.0 * jnp.exp(x))


def unchanged(x: Array) -> Array:
    """The number x itself."""
    return x


def nested_derivative(x: Array) -> Array:
    """|∇g(x)|² for g = sum of sin: a derivative inside the function."""
    return jnp.sum(jax.grad(lambda z: jnp.sum(jnp.sin(z)))(x) ** 2)


def perturbation_confusion(x: Array) -> Any:
    """The product x · d/dy (x + y) at y = 1, which is x. Source: Siskind and Pearlmutter (2005)."""
    return x * jax.jvp(lambda y: x + y, (jnp.ones_like(x),), (jnp.ones_like(x),))[1]


def noisy(x: Array, key: Array) -> Array:
    """Random numbers from a key: the reparameterised ELBO of a normal."""
    noise = jax.random.normal(jax.random.wrap_key_data(key), (8,), jnp.float32).astype(x.dtype)
    z = x[0] + jnp.exp(x[1]) * noise
    return x[1] - 0.5 * jnp.mean(z**2)


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""

    def one(name: str, f: Any, x: Any, special: str, *constants: Any, **expected: Any) -> Scenario:
        elsewhere = expected.pop("elsewhere", np.ones_like(x))
        return Scenario(name, "traps", f, x, elsewhere, special, constants, **expected)

    mixed = exact([-1.5, -0.75, 0.5, 1.25, 3.0])
    rank = 1.0 + np.argsort(np.argsort(mixed[::-1]))
    top = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    roots = np.where(mixed > 0, 0.5 / np.sqrt(np.abs(mixed)), 0.0)
    chosen = np.array([2 * 3.0 - 0.75, 1.0, 0.0, 3.0, 2 * -1.5])
    weights = np.arange(1.0, 6.0)
    far = np.concatenate([[0.0], mixed])
    whole = 1 + 2 * far + 5 * far**4
    whole[1:] -= 3 * mixed**-4.0
    sigmoid = 1 / (1 + np.exp(-mixed))
    kink = kinks_gradient(mixed)
    inside = np.where(np.abs(mixed) < 1, 3 * mixed**2, 0.0)
    zero = np.array([2.0, 0.0, -1.5])
    scaled = np.array([0.5, 1.25, -0.25])
    clip = np.clip(2 * mixed, -1, 1)
    moved = mixed[[4, 2, 3, 1, 0]]
    special = "the branch not taken is NaN, and reverse mode multiplies it by 0"
    return (
        one("double where", double_where, mixed, "the branch not taken is made safe", gradient=roots),
        one("single where", single_where, mixed, special, gradient=roots),
        one("norm at 0", guarded_norm, np.zeros(3), "sqrt at 0, guarded", gradient=np.zeros(3)),
        one(
            "norm near 0",
            guarded_norm,
            exact([1e-4, 0.0, 0.0]),
            "prepared at 0",
            gradient=[1.0, 0.0, 0.0],
            elsewhere=np.zeros(3),
        ),
        one("kinks", kinks, mixed, "one side of each", gradient=kink, elsewhere=-mixed),
        one("ties", tied, np.zeros(3), "the mean of both sides", gradient=[0.5, 1.0, 0.5]),
        one("clip", clipped, mixed, "inside and outside", gradient=inside),
        one("sort", sorted_weights, mixed[::-1], "a permutation that depends on x", gradient=rank + top),
        one("selection", selected, moved, "argmax and argsort", gradient=chosen, elsewhere=mixed),
        one("stop_gradient", stopped, mixed, "half the derivative is stopped", gradient=mixed, declared=True),
        one("custom_jvp", by_own_jvp, mixed, "a rule that agrees", gradient=weights * sigmoid),
        one(
            "custom_jvp of its own mind",
            by_other_jvp,
            mixed,
            "a rule that differs",
            gradient=mixed + 0.5,
            declared=True,
        ),
        one("custom_vjp", by_own_vjp, mixed, "no forward rule", gradient=clip, declared=True),
        one("integer powers", integer_powers, far, "x**0 and x**-3", gradient=whole),
        one("power of zero", power_of_zero, np.zeros(2), "log 0 in the other derivative", gradient=np.zeros(2)),
        one("rounding", rounded, mixed + 0.125, "steps", gradient=np.round(mixed + 0.125) + np.trunc(mixed + 0.125)),
        one("product with zero", product_with_zero, zero, "0 times 1/0", gradient=[0.0, -3.0, 0.0]),
        one("ignored coordinates", ignoring, scaled, "zeros", gradient=[0.0, np.cos(1.25), 0.0]),
        one("a Python number", constant, scaled, "not even an array", value=3.0, gradient=np.zeros(3)),
        one("constants alone", constant_array, scaled, "x is not used", zero, value=6.25, gradient=np.zeros(3)),
        one("tangled zero", tangled_zero, scaled, "cancels", value=0.0, gradient=np.zeros(3)),
        one("identity", unchanged, exact(0.75), "no operation", value=0.75, gradient=1.0),
        one("nested derivative", nested_derivative, scaled, "second order inside", gradient=-np.sin(2 * scaled)),
        one("perturbation confusion", perturbation_confusion, exact(0.75), "two levels", gradient=1.0),
        one("random numbers", noisy, exact([0.25, -0.5]), "integer constants", np.array([3, 14], np.uint32)),
    )
