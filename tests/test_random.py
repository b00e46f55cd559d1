"""The generator: known answers, and the quality of what it makes, with 64-bit integers and without.

Seeds are fixed. Each statistical check has a false-alarm rate of at most ALPHA over all its numbers; there are about
40 such checks in this file, so a correct generator with other constants would fail one of them once in 250.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.samplers.random import _bits, _half_turn, _to_unit, bits, chain_key, fold_in, normal, uniform
from jax.extend.random import threefry_2x32
from scipy import special, stats

ALPHA = 1e-4
NUMBER = 1 << 16


@pytest.fixture(params=[True, False], ids=["64-bit", "32-bit"])
def wide(request):
    with jax.enable_x64(request.param):
        yield request.param


def dtype_of(wide):
    return np.float64 if wide else np.float32


def uniforms(key, wide, number=NUMBER):
    """The first numbers of a stream, each made as the samplers make it."""
    return np.asarray(jax.vmap(lambda i: uniform(key, i, dtype_of(wide)))(jnp.arange(number, dtype=jnp.int32)))


def streams(key, number=NUMBER):
    """The keys of the first streams below a key."""
    return jax.vmap(lambda i: fold_in(key, i))(jnp.arange(number, dtype=jnp.int32))


def as_words(keys, wide):
    """Keys as 64-bit numbers, whatever they are made of."""
    keys = np.asarray(keys)
    return keys if wide else (keys[..., 0].astype(np.uint64) << np.uint64(32)) | keys[..., 1]


def splitmix64(state):
    """The reference generator in plain integers: Vigna's splitmix64.c, one output and the next state."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31), state


def test_the_reference_gives_the_published_numbers():
    # The output of splitmix64.c from the state 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state, found = 1234567, []
    for _ in published:
        number, state = splitmix64(state)
        found.append(number)
    assert found == published


@pytest.mark.parametrize("seed", [0, 1, 1234567, (1 << 64) - 1, 0x9E3779B97F4A7C15])
def test_with_64_bits_a_stream_is_splitmix64(seed):
    state, expected = seed, []
    for _ in range(1000):
        number, state = splitmix64(state)
        expected.append(number)
    found = _bits(jnp.asarray(np.uint64(seed)), jnp.arange(1000, dtype=jnp.int32))
    assert found.tolist() == expected
    assert int(fold_in(np.asarray(np.uint64(seed)), 999)) == expected[-1]


def test_without_64_bits_a_stream_is_threefry():
    # The known-answer test of Salmon et al. for Threefry-2x32 with 20 rounds, through our counters.
    with jax.enable_x64(False):
        zero = threefry_2x32(jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.uint32))
        assert [int(word) for word in zero] == [0x6B200159, 0x99BA4EFE]
        assert _bits(jnp.zeros(2, jnp.uint32), jnp.zeros(1, jnp.int32))[0].tolist() == zero.tolist()
        key = jnp.asarray(chain_key(1, 0))
        together = _bits(key, jnp.arange(7, dtype=jnp.int32))
        alone = [threefry_2x32(key, jnp.asarray([i, 0], jnp.uint32)).tolist() for i in range(7)]
        assert together.tolist() == alone


def test_a_number_depends_on_its_key_and_index_alone(wide):
    key, dtype = chain_key(1, 0), dtype_of(wide)
    many = uniforms(key, wide, 100)
    assert [float(uniform(key, i, dtype)) for i in (0, 1, 50, 99)] == [float(many[i]) for i in (0, 1, 50, 99)]
    assert normal(key, 3, dtype).tolist() == normal(key, 10, dtype)[:3].tolist()
    assert uniform(key, 0, dtype).dtype == normal(key, 3, dtype).dtype == dtype


def test_chain_keys_depend_on_seed_and_chain_alone(wide):
    assert np.array_equal(chain_key(7, 3), chain_key(7, 3))
    keys = {chain_key(seed, chain).tobytes() for seed in range(200) for chain in range(50)}
    assert len(keys) == 200 * 50
    # Seeds of more than 32 bits are no other chain of a smaller one.
    assert len({chain_key(a + (b << 32), c).tobytes() for a in range(5) for b in range(5) for c in range(5)}) == 125
    assert len(chain_key(2**100, 0).tobytes()) == 8


def test_uniform_numbers_are_uniform(wide):
    numbers = uniforms(chain_key(1, 0), wide)
    assert stats.kstest(numbers, "uniform").pvalue > ALPHA
    # Of the first digits, in 256 equal cells, which the Kolmogorov-Smirnov test looks at only from afar.
    assert stats.chisquare(np.bincount((numbers * 256).astype(int), minlength=256)).pvalue > ALPHA
    for power, mean in ((1, 1 / 2), (2, 1 / 3), (3, 1 / 4), (4, 1 / 5)):
        error = np.sqrt((1 / (2 * power + 1) - mean**2) / NUMBER)
        assert abs(np.mean(numbers.astype(float) ** power) - mean) < stats.norm.isf(ALPHA / 8) * error


def test_the_lowest_digits_are_uniform(wide):
    digits = np.finfo(dtype_of(wide)).nmant
    low = (uniforms(chain_key(2, 0), wide).astype(np.float64) * 2.0 ** (digits - 8)) % 1.0
    counts = np.bincount((low * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > ALPHA


def test_the_interval_is_open(wide):
    dtype = dtype_of(wide)
    if wide:
        extremes = jnp.asarray(np.array([0, 2**64 - 1], np.uint64))
    else:
        extremes = jnp.asarray(np.array([[0, 0], [2**32 - 1, 2**32 - 1]], np.uint32))
    low, high = np.asarray(_to_unit(extremes, dtype))
    assert 0 < low < np.finfo(dtype).eps
    assert 1 - np.finfo(dtype).eps <= high < 1
    assert low == dtype(1) - high  # the grid is symmetric, so that the mean is exactly one half
    ends = np.asarray(jax.lax.erf_inv(2 * jnp.asarray([low, high]) - 1))
    assert np.isfinite(ends).all()
    assert ends[0] == -ends[1]


def test_normal_numbers_are_normal(wide):
    numbers = np.asarray(normal(chain_key(3, 0), NUMBER, dtype_of(wide)), float)
    assert stats.kstest(numbers, "norm").pvalue > ALPHA
    even = {2: 1.0, 4: 3.0, 6: 15.0, 8: 105.0, 10: 945.0, 12: 10395.0}
    for power in range(1, 7):
        mean = even.get(power, 0.0)
        error = np.sqrt((even[2 * power] - mean**2) / NUMBER)
        # High powers have heavy tails, so the normal limit is slow: six errors are far outside for all of them.
        assert abs(np.mean(numbers**power) - mean) < 6 * error, power
    # Ends of the tail: the largest of n is below the 1 − α/2n quantile and above the one it exceeds with probability α.
    largest = np.abs(numbers).max()
    assert -special.ndtri(-np.log1p(-ALPHA) / NUMBER / 2) > largest > -special.ndtri(-np.log(ALPHA) / NUMBER / 2)


def test_normal_numbers_are_those_of_box_and_muller(wide):
    dtype = dtype_of(wide)
    key = chain_key(4, 0)
    for size in (1, 2, 7, 4096):
        u = uniforms(key, wide, 2 * ((size + 1) // 2)).astype(float).reshape(-1, 2)
        radius, angle = np.sqrt(-2 * np.log(u[:, 0])), 2 * np.pi * (u[:, 1] - 0.5)
        exact = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1).reshape(-1)[:size]
        found = np.asarray(normal(key, size, dtype))
        assert found.shape == (size,)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, exact, rtol=0, atol=8 * np.finfo(dtype).eps * 6)


def test_the_extremes_of_normal_numbers_are_finite(wide):
    dtype = dtype_of(wide)
    tiny = 0.5 * 0.5 ** np.finfo(dtype).nmant  # the smallest uniform number
    assert np.isfinite(np.sqrt(-2 * np.log(dtype(tiny))))
    sine, cosine = _half_turn(jnp.asarray([-0.5, -0.25, 0.0, 0.25, 0.5], dtype))
    root = np.sqrt(0.5)
    np.testing.assert_allclose(sine, [-1, -root, 0, root, 1], atol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(cosine, [0, root, 1, root, 0], atol=4 * np.finfo(dtype).eps)


def test_the_two_numbers_of_a_pair_are_independent(wide):
    """Uniform in the square after the normal distribution function, and so are neighbours and squares of them."""
    numbers = np.asarray(normal(chain_key(13, 0), NUMBER, dtype_of(wide)), float)
    levels = special.ndtr(numbers)
    for a, b in ((levels[::2], levels[1::2]), (levels[1:-1:2], levels[2::2])):
        cells = (a * 16).astype(int) * 16 + (b * 16).astype(int)
        assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue > ALPHA / 2
    # The squared radius of a pair is twice an exponential number, whatever the angle.
    first, second = numbers[::2], numbers[1::2]
    squares = 0.5 * (first**2 + second**2)
    assert stats.kstest(squares, "expon").pvalue > ALPHA
    angle = np.arctan2(first, second)
    assert abs(np.corrcoef(squares, angle)[0, 1]) < stats.norm.isf(ALPHA / 2) / np.sqrt(len(first))


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 64])
def test_numbers_of_a_stream_do_not_correlate(wide, lag):
    numbers = uniforms(chain_key(5, 0), wide).astype(float) - 0.5
    correlation = np.mean(numbers[lag:] * numbers[:-lag]) * 12
    assert abs(correlation) < stats.norm.isf(ALPHA / 2) / np.sqrt(NUMBER - lag)


def test_every_bit_is_balanced_and_independent_of_the_others(wide):
    keys = as_words(streams(chain_key(6, 0)), wide)
    table = ((keys[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(float) - 0.5
    bound = stats.norm.isf(ALPHA / 2 / 64) / np.sqrt(NUMBER)
    assert (np.abs(2 * table.mean(0)) < bound).all()
    products = 4 * table.T @ table / NUMBER
    off = products[np.triu_indices(64, 1)]
    assert np.abs(off).max() < stats.norm.isf(ALPHA / 2 / off.size) / np.sqrt(NUMBER)
    # And from one stream to the next.
    following = 4 * table[1:].T @ table[:-1] / (NUMBER - 1)
    assert np.abs(following).max() < stats.norm.isf(ALPHA / 2 / following.size) / np.sqrt(NUMBER - 1)


def test_flipping_a_bit_of_a_key_flips_half_of_the_next(wide):
    base = jnp.asarray(chain_key(8, 0))
    words = np.asarray(streams(base, 2048))
    if wide:
        flipped = words[:, None] ^ (np.uint64(1) << np.arange(64, dtype=np.uint64))
    else:
        masks = np.zeros((64, 2), np.uint32)
        masks[np.arange(64), np.arange(64) // 32] = np.uint32(1) << (np.arange(64, dtype=np.uint32) % 32)
        flipped = words[:, None] ^ masks
    step = jax.jit(jax.vmap(lambda key: fold_in(key, 0)))
    before = as_words(step(jnp.asarray(words)), wide)
    after = as_words(jax.vmap(step)(jnp.asarray(flipped)), wide)
    changed = (before[:, None] ^ after)[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    share = changed.mean(0)  # by bit flipped and bit looked at
    assert np.abs(share - 0.5).max() < stats.norm.isf(ALPHA / 2 / share.size) * 0.5 / np.sqrt(2048)


def test_streams_are_independent(wide):
    """Neighbouring streams, chains and levels give numbers that are uniform in the square together."""
    key, number = jnp.asarray(chain_key(9, 0)), NUMBER
    dtype = dtype_of(wide)
    first = np.asarray(jax.vmap(lambda k: uniform(k, 0, dtype))(streams(key)))
    second = np.asarray(jax.vmap(lambda k: uniform(k, 1, dtype))(streams(key)))
    below = np.asarray(jax.vmap(lambda k: uniform(fold_in(k, 0), 0, dtype))(streams(key)))
    chain = uniforms(chain_key(9, 1), wide)
    other_seed = uniforms(chain_key(10, 0), wide)
    own = uniforms(key, wide)
    pairs = {
        "neighbours": (first[1:], first[:-1]),
        "numbers of a stream": (first, second),
        "levels": (first, below),
        "a key's own numbers and its streams": (own, first),
        "chains": (own, chain),
        "seeds": (own, other_seed),
    }
    for name, (a, b) in pairs.items():
        cells = (a * 16).astype(int) * 16 + (b * 16).astype(int)
        assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue > ALPHA / len(pairs), name
    assert number == len(first)


def test_words_of_32_bits_are_uniform(wide):
    words = np.asarray(jax.vmap(bits)(streams(chain_key(11, 0))))
    assert words.dtype == np.uint32
    for shift in (0, 8, 16, 24):
        counts = np.bincount((words >> np.uint32(shift)) & np.uint32(255), minlength=256)
        assert stats.chisquare(counts).pvalue > ALPHA / 4


def test_no_two_of_many_streams_are_the_same(wide):
    assert len(np.unique(as_words(streams(chain_key(12, 0), 1 << 18), wide))) == 1 << 18


@pytest.mark.parametrize(
    "spoil",
    [lambda u: u**1.05, lambda u: np.round(u * 1000) / 1000, lambda u: 0.02 + 0.98 * u],
    ids=["skewed", "rounded", "shifted"],
)
def test_the_checks_see_bad_numbers(spoil):
    numbers = spoil(uniforms(chain_key(1, 0), True))
    cells = np.minimum((numbers * 256).astype(int), 255)
    assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue < ALPHA
