"""How adtypes and quantities are written for people."""

from __future__ import annotations

import dataclasses

from .adtypes import AbstractADType


def written(adtype: AbstractADType) -> str:
    """The adtype as a user would write it: `AutoForward()`, without the fields that have their default values."""
    if not dataclasses.is_dataclass(adtype):
        return repr(adtype)
    given = []
    for field in dataclasses.fields(adtype):
        value = getattr(adtype, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default:
            given.append(f"{field.name}={written(value) if isinstance(value, AbstractADType) else repr(value)}")
    return f"{type(adtype).__name__}({', '.join(given)})"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, with three digits: `1.23 us`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def storage(count: float) -> str:
    """Bytes in the unit that suits them, with three digits: `1.23 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
