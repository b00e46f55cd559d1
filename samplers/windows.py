"""How a warm-up is cut into windows, at the ends of which a kernel digests what it has seen."""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass

# More doublings than any sampler makes.
NO_LIMIT = 30


class AbstractWindows(abc.ABC):
    """A rule that cuts a warm-up of any length."""

    @property
    @abc.abstractmethod
    def overlap(self) -> bool:
        """Whether a metric is learned from a window and the one before it, or from each window alone."""

    @abc.abstractmethod
    def borders(self, warmup: int) -> tuple[int, ...]:
        """The ends of the windows of a warm-up of `warmup` steps, ascending; the last is `warmup` itself."""

    @abc.abstractmethod
    def learns(self, done: int, warmup: int) -> bool:
        """Whether a metric is learned from the window that begins after `done` steps."""

    def doublings(self, done: int, warmup: int) -> int:
        """The limit of doublings of a trajectory in the window that begins after `done` steps."""
        return NO_LIMIT

    def trial(self, warmup: int) -> int:
        """How many of the first steps are to be made from several points, to go on from the best of their ends."""
        return 0


@dataclass(frozen=True)
class GrowingWindows(AbstractWindows):
    """A first window of 20 steps, windows that grow by half, and a last one, a tenth, for the step size alone.

    The first steps are made from several points, with the identity for a metric, and the chain goes on from the best. A
    metric is learned after that, each time from the last two windows, so that what came before the typical set is
    forgotten soon.

    Source: in the spirit of Seyboldt, Carlson and Carpenter (2026), "Preconditioning Hamiltonian Monte Carlo by
    minimizing Fisher divergence", whose windows overlap likewise.
    """

    @property
    def overlap(self) -> bool:
        """See `AbstractWindows.overlap`."""
        return True

    def borders(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractWindows.borders`; 20, 38, 65, 105, ..."""
        return _growing(warmup)

    def learns(self, done: int, warmup: int) -> bool:
        """See `AbstractWindows.learns`: from all windows but the last."""
        borders = self.borders(warmup)
        return len(borders) > 1 and done < borders[-2]

    def doublings(self, done: int, warmup: int) -> int:
        """See `AbstractWindows.doublings`: five in the first window, and one more in each.

        A metric that was learned on the way to the typical set may be far off, and a long trajectory costs most then.
        """
        windows = sum(border <= done for border in self.borders(warmup))
        return 5 + windows if self.learns(done, warmup) else NO_LIMIT

    def trial(self, warmup: int) -> int:
        """See `AbstractWindows.trial`: the first window, where there are others."""
        borders = self.borders(warmup)
        return borders[0] if len(borders) > 3 else 0


@dataclass(frozen=True)
class StanWindows(AbstractWindows):
    """Stan's: 75 steps in which the chain finds the typical set, windows of 25·2ᵏ steps, and a last one of 50.

    Warm-ups of fewer than 150 steps keep the proportions, and those of fewer than 20 are one window.

    Source: Stan Reference Manual, "MCMC sampling", section "Automatic parameter tuning".
    """

    @property
    def overlap(self) -> bool:
        """See `AbstractWindows.overlap`."""
        return False

    def borders(self, warmup: int) -> tuple[int, ...]:
        """See `AbstractWindows.borders`."""
        if warmup < 20:
            return (warmup,) if warmup else ()
        first, last = (75, 50) if warmup >= 150 else (round(0.15 * warmup), round(0.1 * warmup))
        slow_end = warmup - last
        borders, window = [first], 25
        while borders[-1] < slow_end:
            end = borders[-1] + window
            # A window that would leave less than twice its length to the next one takes all that is left.
            borders.append(end if end + 2 * window <= slow_end else slow_end)
            window *= 2
        return (*borders, warmup)

    def learns(self, done: int, warmup: int) -> bool:
        """See `AbstractWindows.learns`: not from the first window, nor from the last."""
        borders = self.borders(warmup)
        return len(borders) > 2 and borders[0] <= done < borders[-2]


@functools.lru_cache
def _growing(warmup: int) -> tuple[int, ...]:
    """The borders of `GrowingWindows`, which are asked for at each of them."""
    if warmup < 2:
        return (warmup,) if warmup else ()
    last = warmup - max(round(0.1 * warmup), 1)
    borders = [min(20, max(warmup // 5, 1))]
    window = 0.6 * borders[0]
    while borders[-1] + max(1.5 * window, 1.0) < last:
        window = max(1.5 * window, 1.0)
        borders.append(borders[-1] + int(window))
    # What is left over joins the last of these windows, unless it is as long as half of it.
    if last - borders[-1] < window / 2 and len(borders) > 1:
        borders.pop()
    if borders[-1] < last:
        borders.append(last)
    return (*borders, warmup)
