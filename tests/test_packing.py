"""Trees of arrays as a few vectors: nothing is lost on the way there and back, on the host and inside a program."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from dualtape.samplers.packing import Packing


class Leaves(NamedTuple):
    scalar: object
    matrix: object
    flag: object
    count: object
    bits: object
    key: object
    nothing: object
    large: object


def leaves(dtype):
    rng = np.random.default_rng(0)
    return Leaves(
        np.asarray(-0.0, dtype),
        rng.normal(size=(3, 4)).astype(dtype),
        np.array([True, False]),
        np.asarray(-(2**31), np.int32),
        np.asarray([2**32 - 1, 0], np.uint32),
        np.asarray(2**64 - 1, np.uint64),
        np.empty((0, 2), dtype),
        rng.normal(size=(80, 60)).astype(dtype),
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nothing_is_lost(dtype):
    tree = leaves(dtype)
    packing = Packing.of(tree)
    vectors = packing.pack(tree)
    inside = jax.jit(lambda vectors: packing.pack_traced(packing.unpack(vectors)))(vectors)
    for found in (packing.unpack(vectors), packing.fetch(inside)):
        for one, other in zip(tree, found, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert np.signbit(packing.fetch(inside).scalar)


def test_small_leaves_share_a_vector_that_holds_them_and_large_ones_stay_where_they_are():
    tree = leaves(np.float64)
    packing = Packing.of(tree)
    # float64 with all that fits into it, the 64-bit key, the large leaf
    assert packing.large == (False, False, True)
    assert packing.pack(tree)[2] is tree.large
    # float32 holds no integers of 32 bits
    assert len(Packing.of(leaves(np.float32)).large) == 6
