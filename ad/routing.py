"""The default adtype, and the rule it is: forward mode for few parameters, reverse mode for many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .adtypes import AbstractADType, AbstractBackend, AbstractRule, Backend, Choice, Problem, check_adtype
from .forward import AutoForward
from .reverse import AutoReverse


@dataclass(frozen=True)
class AutoByDimension(AbstractRule):
    """Forward mode below `threshold` parameters of the block, reverse mode from there.

    Where the preferred mode cannot differentiate the function (reverse meets a `while_loop`, forward a
    `custom_vjp`), the other is taken, and the recorded reason says so.

    Args:
        threshold: the number of unconstrained parameters from which `above` is used.
        below: the backend for fewer parameters than that.
        above: the backend for so many or more.

    Raises:
        ValueError, TypeError: on a negative threshold, or a `below` or `above` that is not a backend.

    Source: the rule of thumb of the Turing documentation, "Automatic Differentiation".
    """

    threshold: int = 20
    below: Backend = AutoForward()
    above: Backend = AutoReverse()

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int) or self.threshold < 0:
            raise ValueError(
                f"AutoByDimension: threshold must be a number of parameters >= 0, got {self.threshold!r}; "
                f"the default is AutoByDimension(20)."
            )
        for name, backend in (("below", self.below), ("above", self.above)):
            if not isinstance(backend, AbstractBackend):
                raise TypeError(
                    f"AutoByDimension: {name} must be a backend such as AutoForward() or AutoReverse(), "
                    f"got {backend!r}."
                )

    def choose(self, problem: Problem) -> Choice:
        """See `AbstractRule.choose`."""
        few = problem.dimension < self.threshold
        first, second = (self.below, self.above) if few else (self.above, self.below)
        size = f"{problem.dimension} parameter{'' if problem.dimension == 1 else 's'}"
        rule = f"{size}, {'below' if few else 'not below'} the threshold of {self.threshold}"
        if problem.supported(first) or not problem.supported(second):
            # If neither works the first one's error is the one to show: it is raised when it is prepared.
            return Choice(first, rule)
        return Choice(second, f"{rule}, but {_title(first)} cannot differentiate this function")


def _title(backend: Backend) -> str:
    plain = backend in (AutoForward(), AutoReverse())
    return f"{backend.mode} mode" if plain else repr(backend)


# A process-wide default that threads share, and an override for the current context: with the override alone
# a worker thread would not see what `set_default_adtype` said in the main one.
_lock = threading.Lock()
_global: list[Backend | AbstractRule] = [AutoByDimension()]
_override: ContextVar[Backend | AbstractRule | None] = ContextVar("dualtape_default_adtype", default=None)


def current_adtype() -> Backend | AbstractRule:
    """The adtype used where none is named: the innermost `default_adtype`, else the global default."""
    return _override.get() or _global[0]


def set_default_adtype(adtype: AbstractADType) -> None:
    """Set the adtype used wherever none is named, for the whole process.

    Args:
        adtype: any adtype. The initial default is `AutoByDimension(20)`.

    Raises:
        TypeError: if `adtype` is not an adtype.
    """
    with _lock:
        _global[0] = check_adtype(adtype, "set_default_adtype: adtype")


@contextmanager
def default_adtype(adtype: AbstractADType) -> Iterator[None]:
    """Use `adtype` wherever none is named, inside a `with` block.

    Args:
        adtype: any adtype.

    Raises:
        TypeError: if `adtype` is not an adtype.
    """
    token = _override.set(check_adtype(adtype, "default_adtype: adtype"))
    try:
        yield
    finally:
        _override.reset(token)
