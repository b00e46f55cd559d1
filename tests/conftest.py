"""What every test shares: 64-bit numbers, as `sample` uses them, unless a test says otherwise, and no programs of
earlier tests or runs.
"""

import jax
import pytest
from dualtape import clear_programs, set_compilation_cache

set_compilation_cache(None)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _no_programs():
    # Tests put functions of their own in the place of the library's, which the programs of earlier ones do not have.
    clear_programs()
    # Nor do they find anything on disk, unless they say where.
    set_compilation_cache(None)


@pytest.fixture
def compiled(monkeypatch):
    """A list that grows by one with every program that is compiled."""
    programs, compile_it = [], jax.stages.Lowered.compile

    def counted(self, *args, **kwargs):
        programs.append(self)
        return compile_it(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counted)
    return programs
