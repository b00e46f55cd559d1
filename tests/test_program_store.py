"""Compiled programs on disk: found by the next process, and never taken for another.

A process that starts remembers nothing, as one does after `clear_programs`.
"""

import subprocess
import sys
import threading
import warnings

import dualtape.samplers.executables as executables
import dualtape.samplers.store as storage
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import HMC, black_box, clear_programs, model, rv, sample, set_compilation_cache
from dualtape.samplers.executables import compile_soon
from dualtape.samplers.store import Store, default_directory

# No words about short chains.
pytestmark = pytest.mark.filterwarnings("ignore")


Y = np.array([0.5, -1.0, 2.0])
SHORT = {"draws": 20, "warmup": 20, "chains": 2, "seed": 1, "progress": False}


@model
def shifted(y):
    rv("y", dist.Normal(rv("mu", dist.Normal(0.0, 2.0)), 1.0), obs=y)


def files(folder):
    return sorted(folder.glob("*.program"))


def test_a_new_process_loads_what_another_has_compiled(tmp_path, compiled):
    set_compilation_cache(tmp_path / "new")
    first = sample(shifted(Y), HMC(0.3, 2), **SHORT)
    assert len(files(tmp_path / "new")) == len(compiled) == 3
    clear_programs()
    del compiled[:]
    second = sample(shifted(Y), HMC(0.3, 2), **SHORT)
    assert compiled == []
    np.testing.assert_array_equal(first.posterior["mu"].values, second.posterior["mu"].values)
    np.testing.assert_array_equal(first.sample_stats["lp"].values, second.sample_stats["lp"].values)


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-10])


def spoil_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def replace(path):
    """Whole, but no program."""
    Store(path.parent).write(path.stem, b"something else")


@pytest.mark.parametrize("spoil", [spoil_end, spoil_middle, empty, replace])
def test_a_damaged_file_is_passed_over_and_written_anew(tmp_path, compiled, spoil):
    set_compilation_cache(tmp_path)
    compile_soon(lambda x: 2 * x, 1.0).result()
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    spoil(path)
    assert path.read_bytes() != whole
    clear_programs()
    assert compile_soon(lambda x: 2 * x, 1.0).result().call(3.0) == 6.0
    assert len(compiled) == 2
    clear_programs()
    assert compile_soon(lambda x: 2 * x, 1.0).result().call(3.0) == 6.0
    assert len(compiled) == 2


def test_another_processor_version_or_option_compiles_anew(tmp_path, compiled, monkeypatch):
    set_compilation_cache(tmp_path)
    compile_soon(jnp.sin, 1.0).result()
    described = storage.machine()
    for change in (
        lambda: monkeypatch.setattr(executables, "machine", lambda: described.replace(jax.__version__, "0.0.1")),
        lambda: monkeypatch.setattr(executables, "machine", lambda: described + "avx1024"),
        lambda: monkeypatch.setenv("XLA_FLAGS", "--another=1"),
    ):
        clear_programs()
        before = len(compiled)
        change()
        compile_soon(jnp.sin, 1.0).result()
        assert len(compiled) == before + 1
    assert len(files(tmp_path)) == 4
    if storage.sys.platform == "linux":
        assert "flags" in described or "Features" in described


def test_a_program_that_calls_back_into_python_is_never_kept(tmp_path, compiled):
    set_compilation_cache(tmp_path)
    for number in (1.0, 2.0):
        box = black_box(lambda x, number=number: x + number, result=())
        found = compile_soon(box, 1.0).result()
        assert not found.reusable
        assert found.call(1.0) == 1.0 + number
    assert files(tmp_path) == []
    assert len(compiled) == 2


def test_linear_algebra_is_kept(tmp_path, compiled):
    set_compilation_cache(tmp_path)
    for _ in range(2):
        clear_programs()
        np.testing.assert_allclose(
            compile_soon(jnp.linalg.cholesky, np.eye(3)).result().call(4 * np.eye(3)), 2 * np.eye(3)
        )
    assert len(compiled) == 1


def test_programs_of_one_of_several_devices_are_kept(tmp_path):
    program = f"""
import jax, jax.numpy as jnp
from dualtape.samplers.executables import clear_programs, compile_soon, set_compilation_cache
set_compilation_cache({str(tmp_path)!r})
for number in (0, 2, 2, 0):
    with jax.default_device(jax.devices()[number]):
        clear_programs()
        found = compile_soon(lambda x: x + 1.0, 1.0).result().call(1.0)
        assert found == 2.0 and found.devices() == {{jax.devices()[number]}}
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env={**storage.os.environ, **flags})
    assert len(files(tmp_path)) == 2


def test_a_place_that_cannot_be_written_is_passed_over_in_silence(tmp_path):
    (tmp_path / "file").write_text("")
    set_compilation_cache(tmp_path / "file" / "below")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compile_soon(lambda x: x + 1, 1.0).result().call(1.0) == 2.0


def test_files_of_other_users_are_not_read(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write("a", b"content")
    assert store.read("a") == b"content"
    monkeypatch.setattr(storage.os, "getuid", lambda: 12345, raising=False)
    assert store.read("a") is None


def test_what_was_not_used_for_longest_goes_when_there_is_too_much(tmp_path):
    store = Store(tmp_path, limit=350)
    for age, name in enumerate("abc"):
        store.write(name, bytes(68))  # 100 with its digest
        storage.os.utime(store._path(name), (age, age))
    abandoned = tmp_path / f"{storage.tempfile.gettempprefix()}dead"
    abandoned.write_bytes(b"")
    storage.os.utime(abandoned, (0, 0))
    assert store.read("a") is not None
    store.write("d", bytes(68))
    assert [store.read(name) is None for name in "abcd"] == [False, True, False, False]
    assert not abandoned.exists()


def test_readers_see_whole_files_while_several_write(tmp_path):
    store, contents = Store(tmp_path), [bytes([i]) * 50_000 for i in range(4)]
    writers = [threading.Thread(target=lambda c=c: [store.write("x", c) for _ in range(50)]) for c in contents]
    store.write("x", contents[0])
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert store.read("x") in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_jax_is_left_as_it_was_and_its_own_cache_does_the_work_where_it_is_on(tmp_path):
    before = dict(jax.config.values)
    set_compilation_cache(tmp_path / "ours")
    sample(shifted(Y), HMC(0.3, 2), **SHORT)
    assert dict(jax.config.values) == before
    assert len(files(tmp_path / "ours")) == 3
    clear_programs()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    try:
        compile_soon(lambda x: x * 7, 1.0).result()
    finally:
        jax.config.update("jax_compilation_cache_dir", before["jax_compilation_cache_dir"])
    assert len(files(tmp_path / "ours")) == 3


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DUALTAPE_CACHE": "off"}, None),
        ({"DUALTAPE_CACHE": "0"}, None),
        ({"DUALTAPE_CACHE": "/some/where"}, "/some/where"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/dualtape/programs"),
        ({"HOME": "/home/me"}, "/home/me/.cache/dualtape/programs"),
    ],
)
def test_where_programs_are_kept(monkeypatch, environment, expected):
    monkeypatch.setattr(storage.sys, "platform", "linux")
    for name in ("DUALTAPE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = default_directory()
    assert (found and found.as_posix()) == expected


def test_the_place_is_set_in_one_line_and_is_a_path(tmp_path):
    set_compilation_cache(tmp_path)
    assert set_compilation_cache(None) == tmp_path
    assert set_compilation_cache(None) is None
    with pytest.raises(ValueError, match="set_compilation_cache: directory must not be empty"):
        set_compilation_cache("")
    with pytest.raises(TypeError, match=r"set_compilation_cache: directory must be a path, or None .* got 3"):
        set_compilation_cache(3)
