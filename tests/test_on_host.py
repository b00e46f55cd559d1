"""Operations that move elements give the same by NumPy as by JAX, and nothing is compiled for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ad.dual.on_host import on_host
from jax import lax

GRID = np.arange(24).reshape(2, 3, 4)

MOVES = {
    "reshape": lambda a: jnp.reshape(a, (4, 6)),
    "reshape in another order": lambda a: lax.reshape(a, (4, 6), (2, 0, 1)),
    "squeeze": lambda a: lax.squeeze(a[:, :1], (1,)),
    "expand": lambda a: lax.expand_dims(a, (0, 2)),
    "transpose": lambda a: jnp.transpose(a, (2, 0, 1)),
    "reverse": lambda a: lax.rev(a, (0, 2)),
    "slice": lambda a: lax.slice(a, (0, 1, 0), (2, 3, 4), (1, 1, 2)),
    "over the end": lambda a: lax.dynamic_slice(a, (1, 2, 3), (1, 2, 2)),
    "before the beginning": lambda a: lax.dynamic_slice_in_dim(a, jnp.int32(-9), 2, 1),
    "broadcast": lambda a: lax.broadcast_in_dim(a, (5, 2, 3, 4, 1), (1, 2, 3)),
    "stretch": lambda a: lax.broadcast_in_dim(a[:, :, :1], (2, 3, 6), (0, 1, 2)),
    "under jit": jax.jit(lambda a: a.T[1:]),
    "without a rule": lambda a: jnp.cumsum(a, 0),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_move_gives_what_jax_gives(move):
    found = on_host(move, GRID)
    assert isinstance(found, np.ndarray)
    assert found.dtype == GRID.dtype
    np.testing.assert_array_equal(found, move(jnp.asarray(GRID)))


def test_what_depends_on_a_placeholder_is_refused():
    def f(start):
        with pytest.raises(jax.errors.TracerArrayConversionError):
            on_host(lambda a: lax.dynamic_slice_in_dim(a, start, 2, 1), GRID)
        return start

    jax.make_jaxpr(f)(1)


def test_nothing_is_compiled(caplog):
    other = np.arange(48).reshape(4, 3, 4)  # of a shape that was not there before
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for name in ("squeeze", "expand", "transpose", "reverse", "slice", "over the end"):
            on_host(MOVES[name], other)
        assert "Compiling" not in caplog.text
        on_host(MOVES["without a rule"], other)
        assert "Compiling" in caplog.text
