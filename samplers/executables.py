"""Programs are compiled once: not again in this process, and not in a later one on this machine.

A program is known by what JAX hands to the compiler: its text in StableHLO, in which every shape, every constant and
every operation stands. So a program that was found is the program that was asked for, whatever has changed in the
functions that it was traced from. One that calls back into Python, or calls code that is not JAX's, is compiled anew
each time: its text does not say what is called.

Compiling releases the interpreter lock, so it goes on in a thread while the next program is traced.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from jax.stages import Compiled, Lowered

from .store import Store, default_directory, machine

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Calls out of a program that mean the same in every process: the linear algebra that JAX ships, and what is no call.
_KNOWN_CALLS = ("lapack_", "cusolver_", "cublas_", "cu_", "Sharding", "mhlo.", "chlo.", "xla.", "annotate_")

# Three programs a run, for as many runs as are remembered.
_LIMIT = 96


class Recent(Generic[K, V]):
    """The values that were used last, by key; usable from several threads.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember a value, and forget the one that was not used for longest where there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._limit:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


@dataclass(frozen=True)
class Executable:
    """A compiled program.

    Args:
        call: it.
        reusable: whether it is wholly described by its text, so that it may serve again.
    """

    call: Compiled
    reusable: bool


_kept: Recent[Hashable, Compiled] = Recent(_LIMIT)

# Where programs are kept: not known before it is asked for, so that the environment can still be set.
_store: list[Store | None] = []


def set_compilation_cache(directory: str | os.PathLike[str] | None) -> Path | None:
    """Where compiled programs are kept from one process to the next.

    By default in `dualtape/programs` in the user's directory for caches (`~/.cache` on Linux, `$XDG_CACHE_HOME` if
    set, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows), or where the environment variable `DUALTAPE_CACHE`
    says. A program is found by its text, the options of the compiler, the versions of jax and jaxlib and the features
    of the processor, so a change in any of these compiles anew. At most 256 MB are kept. A directory that cannot be
    written is passed over. Where JAX's own compilation cache is on, it does this work, and nothing is kept here.

    Loading a program runs it: let the directory be yours alone. Files of other users are not read.

    Args:
        directory: made if it does not exist; None keeps nothing from now on.

    Returns:
        The directory until now, or None.

    Raises:
        TypeError, ValueError: if `directory` is neither a path nor None, or empty.
    """
    if not isinstance(directory, (str, os.PathLike, type(None))):
        raise TypeError(f"set_compilation_cache: directory must be a path, or None to keep nothing, got {directory!r}.")
    if directory == "":
        raise ValueError("set_compilation_cache: directory must not be empty; None keeps nothing.")
    before = _current_store()
    _store[:] = [None if directory is None else Store(Path(directory).expanduser())]
    return None if before is None else before.directory


def clear_programs() -> None:
    """Forget the compiled programs that this process holds; those on disk stay.

    To be called where memory matters, and where a function of this library has been replaced by another.
    """
    for forget in (_kept.clear, *_forgetting):
        forget()


# What else is to be forgotten by `clear_programs`.
_forgetting: list[Callable[[], None]] = []


def remembering(limit: int) -> Recent[Any, Any]:
    """An empty memory that `clear_programs` clears too."""
    memory: Recent[Any, Any] = Recent(limit)
    _forgetting.append(memory.clear)
    return memory


def compile_soon(function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()) -> Future[Executable]:
    """Trace a function and have it compiled, unless that has been done before.

    Args:
        function: of pytrees of arrays.
        arguments: arrays or their shapes.
        donate: numbers of the arguments that the result may take the place of; nobody can read them after the call.

    Returns:
        The executable, as a future: it is compiled in a thread.
    """
    # An argument that is dropped would not stand in the text.
    lowered = jax.jit(function, keep_unused=True, donate_argnums=donate).lower(*arguments)
    text = lowered.as_text()
    if not _is_pure(text):
        return _in_thread(lambda: Executable(lowered.compile(), reusable=False))
    device = _device()
    name = hashlib.sha256("\0".join((text, _surroundings(device))).encode()).hexdigest()
    key = name, lowered.in_tree, lowered.out_tree
    known = _kept.get(key)
    if known is not None:
        found: Future[Executable] = Future()
        found.set_result(Executable(known, reusable=True))
        return found

    def compiled() -> Executable:
        program = _from_disk_or_compiled(lowered, name, device)
        _kept.put(key, program)
        return Executable(program, reusable=True)

    return _in_thread(compiled)


def _in_thread(task: Callable[[], Executable]) -> Future[Executable]:
    with_one_thread = ThreadPoolExecutor(1)
    try:
        return with_one_thread.submit(task)
    finally:
        with_one_thread.shutdown(wait=False)


def _from_disk_or_compiled(lowered: Lowered, name: str, device: jax.Device) -> Compiled:
    store = _usable_store(device)
    if store is None:
        return lowered.compile()
    payload = store.read(name)
    if payload is not None:
        try:
            loaded: Compiled = deserialize_and_load(payload, lowered.in_tree, lowered.out_tree, device.client, [device])
            return loaded
        except Exception:  # whatever is wrong with it: it is compiled and written anew
            pass
    program = lowered.compile()
    try:
        payload = serialize(program)[0]
    except Exception:  # a program that has no such form
        return program
    store.write(name, payload)
    return program


def _current_store() -> Store | None:
    if not _store:
        directory = default_directory()
        _store.append(None if directory is None else Store(directory))
    return _store[0]


def _usable_store(device: jax.Device) -> Store | None:
    """The store, for programs of a processor; those of accelerators are not portable."""
    of_jax = jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir
    alone = device.platform == "cpu" and jax.process_count() == 1
    return _current_store() if alone and not of_jax else None


def _device() -> jax.Device:
    """Where programs run."""
    wanted = jax.config.jax_default_device
    return wanted if isinstance(wanted, jax.Device) else jax.local_devices(backend=wanted)[0]


def _surroundings(device: jax.Device) -> str:
    """What the compiler goes by beside the text."""
    options = sorted({**jax.config.values, "jax_default_device": None}.items())
    flags = sorted((name, value) for name, value in os.environ.items() if name.startswith("XLA_"))
    return "\n".join((machine(), device.client.platform_version, repr(device), repr(options), repr(flags)))


def _is_pure(text: str) -> bool:
    """Whether a program computes the same from the same arguments, as far as its text can tell."""
    called = re.findall(r"custom_call\s+@([\w.$]+)|call_target_name\s*=\s*\"([^\"]+)\"", text)
    return all((bare or quoted).startswith(_KNOWN_CALLS) for bare, quoted in called)
