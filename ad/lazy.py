"""Packages whose public names are imported when they are first used.

Importing all of this library takes several times as long as importing JAX, and a program uses a small part of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package that imports a public name from its module when the name is first asked for."""

    _homes: dict[str, str]
    _folders: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        homes, folders = self.__dict__.get("_homes", {}), self.__dict__.get("_folders", ())
        if name in homes:
            value = getattr(importlib.import_module(f".{homes[name]}", self.__name__), name)
        elif name in folders:
            value = importlib.import_module(f".{name}", self.__name__)
        else:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module `hessian` would put it in the place of the function `hessian`.
        if not (isinstance(value, ModuleType) and name in self._homes):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes, *self._folders})


def import_lazily(package: str, names: Mapping[str, Sequence[str]], folders: Sequence[str] = ()) -> None:
    """Make the public names of a package available without importing what they come from.

    Args:
        package: its `__name__`.
        names: by module of the package, written as after `from .`, what comes from it.
        folders: packages inside it that are available under their names.
    """
    module = sys.modules[package]
    homes = {name: home for home, found in names.items() for name in found}
    module.__dict__.update(_homes=homes, _folders=tuple(folders))
    module.__class__ = LazyPackage
