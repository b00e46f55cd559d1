"""Compiled programs on disk, so that a process need not compile what an earlier one has compiled.

A directory with a file for each program. Files are written beside their place and moved there, so that processes which
share the directory see whole files only; a file that is damaged all the same is one that is not there.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jax
from jaxlib import version as jaxlib

# When the files are more than this, those that were not used for longest go.
LIMIT_BYTES = 256 << 20

# A file that is being written is younger than this; an older one was left by a process that died.
_ABANDONED_SECONDS = 3600.0

_SUFFIX = ".program"
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Store:
    """A directory of compiled programs. Where it cannot be read or written, it holds nothing, and nobody is told.

    Args:
        directory: made when the first program is written.
        limit: on the size of all files, in bytes.
    """

    directory: Path
    limit: int = LIMIT_BYTES

    def read(self, name: str) -> bytes | None:
        """What was written under a name; None where nothing was, or where it was damaged or written by someone else."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                if not _is_own(os.fstat(file.fileno())):
                    return None  # loading a program runs code
                content = file.read()
        except OSError:
            return None
        check, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != check:
            return None
        with suppress(OSError):
            os.utime(path)
        return payload

    def write(self, name: str, payload: bytes) -> None:
        """Keep something under a name, in place of what was there."""
        with suppress(OSError):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                Path(temporary).replace(self._path(name))
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._shrink()

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{_SUFFIX}"

    def _shrink(self) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        found = []
        for path in self.directory.iterdir():
            with suppress(OSError):  # another process has removed it
                status = path.stat()
                if path.suffix == _SUFFIX:
                    found.append((status.st_mtime, status.st_size, path))
                elif path.name.startswith(tempfile.gettempprefix()) and _age(status) > _ABANDONED_SECONDS:
                    path.unlink()
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            with suppress(OSError):
                path.unlink()
            total -= size


def default_directory() -> Path | None:
    """Where programs are kept unless somebody says otherwise; None where there is no such place.

    The environment variable DUALTAPE_CACHE names a directory, or is "off"; else it is the user's directory for caches.
    """
    wanted = os.environ.get("DUALTAPE_CACHE")
    if wanted is not None and wanted.strip().lower() in ("", "0", "off", "no", "false"):
        return None
    try:
        if wanted is not None:
            return Path(wanted).expanduser()
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = home / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return root / "dualtape" / "programs"


@functools.cache
def machine() -> str:
    """What a program was compiled by and for: versions, operating system, and the processor with all its features."""
    cpu = [sys.platform, platform.machine(), os.environ.get("PROCESSOR_IDENTIFIER", "")]
    with suppress(OSError):
        if sys.platform == "darwin":
            cpu.append(subprocess.check_output(("sysctl", "-n", "machdep.cpu.brand_string"), text=True))
        else:
            described = ("model", "cpu family", "stepping", "flags", "Features", "CPU ")
            first = Path("/proc/cpuinfo").read_text().split("\n\n", maxsplit=1)[0]
            cpu += [line for line in first.splitlines() if line.startswith(described)]
    return "\n".join((sys.version, jax.__version__, jaxlib.__version__, *cpu))


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()


def _age(status: os.stat_result) -> float:
    return time.time() - status.st_mtime
