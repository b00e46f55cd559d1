"""Random numbers for the inner loop: counters put through a hash, a few operations each.

A key is a number; the i-th stream below it is `fold_in(key, i)`, and the j-th number of a stream depends on the
key and j alone. JAX's own generator splits keys through some twenty rounds of Threefry at every use, which costs
more than a leapfrog step of a small model; here, with 64-bit integers, one application of the finaliser of
SplitMix64 makes 64 bits. Without them (`precision="float32"`) the same functions use Threefry.

Source: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators", with the mixing constants
of Stafford's variant 13; Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry_2x32

from .base import Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio: consecutive counters land far apart
# The coefficients of sin πv / v and of cos πv in powers of v².
_SINE = tuple((-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(12))
_COSINE = tuple((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k) for k in range(12))


def chain_key(seed: int, chain: int) -> np.ndarray[Any, Any]:
    """The key of one chain: it depends on `seed` and `chain` and on nothing else.

    Args:
        seed: any non-negative integer.
        chain: the number of the chain, from 0.

    Returns:
        A uint64 scalar where 64-bit integers are enabled, else two uint32.
    """
    words = np.random.SeedSequence(seed, spawn_key=(chain,)).generate_state(2, np.uint32)
    if jax.dtypes.canonicalize_dtype(np.uint64) == np.uint64:
        return np.asarray((np.uint64(words[0]) << np.uint64(32)) | np.uint64(words[1]))
    return words


def fold_in(key: Array | np.ndarray[Any, Any], index: Array | int) -> Array:
    """The key of stream `index` below `key`."""
    stream: Array = _bits(key, jnp.asarray(index).reshape(1))[0]
    return stream


def jax_key(key: Array) -> Array:
    """A key as the samplers of JAX and of distributions take it."""
    words = jnp.stack([key >> np.uint64(32), key]).astype(jnp.uint32) if key.ndim == 0 else key
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def uniform(key: Array, index: Array | int, dtype: Any) -> Array:
    """The number `index` of a stream, uniform on the open interval (0, 1), shape ()."""
    return _to_unit(_bits(key, jnp.asarray(index).reshape(1))[0], dtype)


def bits(key: Array) -> Array:
    """A word of 32 random bits, shape ()."""
    word: Array = _bits(key, jnp.zeros(1, jnp.int32))[0]
    return word[0] if word.ndim else (word >> np.uint64(32)).astype(jnp.uint32)


def normal(key: Array, size: int, dtype: Any) -> Array:
    """Independent standard normal numbers, shape (size,), by the transform of Box and Muller.

        z₁ = √(−2 log u) sin 2πv,   z₂ = √(−2 log u) cos 2πv,   v + ½ uniform like u

    Two uniform numbers make two, with one logarithm, in an eighth of the time of inversion.

    Source: Box and Muller (1958), "A note on the generation of random normal deviates".
    """
    pairs = (size + 1) // 2
    # Without the barriers XLA computes the numbers anew wherever they are used.
    uniforms = lax.optimization_barrier(_to_unit(_bits(key, lax.iota(jnp.int32, 2 * pairs)), dtype)).reshape(pairs, 2)
    radius = jnp.sqrt(-2.0 * jnp.log(uniforms[:, 0]))
    sine, cosine = _half_turn(uniforms[:, 1] - 0.5)
    radius, sine, cosine = lax.optimization_barrier((radius, sine, cosine))
    # By the formulas for the double angle.
    numbers = jnp.stack([radius * (2.0 * sine * cosine), radius * (1.0 - 2.0 * sine * sine)], axis=1)
    return numbers.reshape(-1)[:size]


def _half_turn(turns: Array) -> tuple[Array, Array]:
    """The sine and cosine of πv, |v| ≤ ½, by their series, whose next terms are below 10⁻¹⁶."""
    square = turns * turns
    sine, cosine = jnp.full_like(turns, _SINE[-1]), jnp.full_like(turns, _COSINE[-1])
    for a, b in zip(_SINE[-2::-1], _COSINE[-2::-1], strict=True):
        sine, cosine = sine * square + a, cosine * square + b
    return sine * turns, cosine


def _bits(key: Array | np.ndarray[Any, Any], counters: Array) -> Array:
    """64 random bits for each counter: shape (n,) of uint64, or (n, 2) of uint32."""
    if key.ndim == 0:
        word = jnp.asarray(key) + (counters.astype(jnp.uint64) + np.uint64(1)) * _GOLDEN
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))
    count = jnp.stack([counters.astype(jnp.uint32), jnp.zeros_like(counters, jnp.uint32)])
    pairs: Array = threefry_2x32(key, count.reshape(-1)).reshape(2, -1).T
    return pairs


def _to_unit(words: Array, dtype: Any) -> Array:
    # The middle of one of 2^m equal cells, with m such that every middle is exactly representable: neither 0
    # nor 1 can come out, so a normal number is finite.
    if words.dtype == jnp.uint64:
        digits = np.finfo(dtype).nmant
        return ((words >> np.uint64(64 - digits)).astype(dtype) + 0.5) * (0.5**digits)
    digits = np.finfo(np.float32).nmant
    high = words[..., 0] >> np.uint32(32 - digits)
    return ((high.astype(jnp.float32) + 0.5) * (0.5**digits)).astype(dtype)
