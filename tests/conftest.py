"""What every test shares: 64-bit numbers, as `sample` uses them, unless a test says otherwise."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield
