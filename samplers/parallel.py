"""How the chains of a run share the machine."""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from .base import AbstractKernel, Block
from .chains import Draws, Progress, Settings, run_chains
from .compilation import CompiledChain, Start, buffer_rows, compile_chain
from .ensemble import run_ensemble
from .ensemble_compilation import CompiledEnsemble, Flock, compile_ensemble

HostArray = np.ndarray[Any, Any]


class NoStartError(Exception):
    """A chain cannot start at any of the positions that were proposed.

    Args:
        chain: its number.
        position: the last of them.
    """

    def __init__(self, chain: int, position: HostArray) -> None:
        super().__init__(f"chain {chain} cannot start")
        self.chain, self.position = chain, position


class Compiled(Protocol):
    """A kernel, compiled for one way of running chains."""

    @property
    def kernel(self) -> AbstractKernel:
        """What was compiled."""

    @property
    def reusable(self) -> bool:
        """Whether other data of the same shapes may take the place of these."""

    def with_data(self, data: Sequence[Any]) -> Any:
        """The same executables for other data of the same shapes."""


class AbstractParallel(abc.ABC):
    """A way to run chains side by side. Chain i depends on the seed and i only, whatever the way."""

    @abc.abstractmethod
    def lines(self, chains: int) -> tuple[str, ...]:
        """What is told of while chains run, a line each."""

    @abc.abstractmethod
    def signature(self, chains: int, longest: int) -> Hashable:
        """Equal for two runs of a kernel only if one can use the other's programs.

        Args:
            chains: how many.
            longest: steps in the longer phase.
        """

    @abc.abstractmethod
    def compile(
        self,
        kernel: AbstractKernel,
        whole: Block,
        data: Sequence[Any],
        dtype: Any,
        chains: int,
        longest: int,
        meanwhile: Callable[[], None],
    ) -> Compiled:
        """Compile a kernel; arguments as in `compilation.compile_chain` and `ensemble_compilation.compile_ensemble`."""

    @abc.abstractmethod
    def start(self, compiled: Any, proposals: Sequence[Iterator[HostArray]], tries: int) -> Any:
        """Where the chains start: each at the first of its proposals that it can start at.

        Args:
            compiled: the kernel.
            proposals: of each chain.
            tries: of how many points a chain is to have the choice, if there are so many; see `AbstractKernel.trial`.

        Raises:
            NoStartError: where there is none.
        """

    @abc.abstractmethod
    def run(
        self, compiled: Any, starts: Any, keys: Sequence[HostArray], settings: Settings, progress: Progress, x64: bool
    ) -> Draws:
        """Run the chains; arguments as in `chains.run_chains`."""


@dataclass(frozen=True)
class Threads(AbstractParallel):
    """A thread a chain, all over one compiled program of one chain: the best that a CPU can do.

    Args:
        workers: how many chains at a time; None for as many as there are cores. With `until`, all at a time.

    Raises:
        ValueError: if `workers` is not a positive integer.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.workers, int) and not isinstance(self.workers, bool)
        if self.workers is not None and (not whole or self.workers < 1):
            raise ValueError(f"Threads: workers must be an integer >= 1 or None for all cores, got {self.workers!r}.")

    def lines(self, chains: int) -> tuple[str, ...]:
        """See `AbstractParallel.lines`."""
        return tuple(f"chain {chain}" for chain in range(chains))

    def signature(self, chains: int, longest: int) -> Hashable:
        """See `AbstractParallel.signature`; the same for any number of chains."""
        return "threads", buffer_rows(longest, 1)

    def compile(
        self,
        kernel: AbstractKernel,
        whole: Block,
        data: Sequence[Any],
        dtype: Any,
        chains: int,
        longest: int,
        meanwhile: Callable[[], None],
    ) -> CompiledChain:
        """See `AbstractParallel.compile`."""
        return compile_chain(kernel, whole, data, dtype, longest, meanwhile)

    def start(self, compiled: CompiledChain, proposals: Sequence[Iterator[HostArray]], tries: int) -> list[list[Start]]:
        """See `AbstractParallel.start`."""
        starts = []
        for chain, proposed in enumerate(proposals):
            own: list[Start] = []
            for position in proposed:
                start, _, sound = compiled.init(position)
                own += [start] if sound else []
                if len(own) == tries:
                    break
            if not own:
                raise NoStartError(chain, position)
            starts.append(own)
        return starts

    def run(
        self,
        compiled: CompiledChain,
        starts: Sequence[Sequence[Start]],
        keys: Sequence[HostArray],
        settings: Settings,
        progress: Progress,
        x64: bool,
    ) -> Draws:
        """See `AbstractParallel.run`."""
        return run_chains(compiled, starts, keys, settings, progress, x64, self.workers)


@dataclass(frozen=True)
class Vectorized(AbstractParallel):
    """All chains in one compiled program: for accelerators, and for hundreds of short chains.

    Under `NUTS` no chain waits for another's trajectory. Under any other sampler all make a transition at a time, which
    is right where transitions take the same time, and makes chains wait in a `Gibbs` with blocks of NUTS or `Slice`.
    """

    def lines(self, chains: int) -> tuple[str, ...]:
        """See `AbstractParallel.lines`: one for all chains."""
        return (f"{chains} chains" if chains > 1 else "chain 0",)

    def signature(self, chains: int, longest: int) -> Hashable:
        """See `AbstractParallel.signature`."""
        return "vectorized", chains

    def compile(
        self,
        kernel: AbstractKernel,
        whole: Block,
        data: Sequence[Any],
        dtype: Any,
        chains: int,
        longest: int,
        meanwhile: Callable[[], None],
    ) -> CompiledEnsemble:
        """See `AbstractParallel.compile`."""
        return compile_ensemble(kernel, whole, data, dtype, chains, meanwhile)

    def start(self, compiled: CompiledEnsemble, proposals: Sequence[Iterator[HostArray]], tries: int) -> list[Flock]:
        """See `AbstractParallel.start`; a chain that has fewer points than others tries its first again."""
        flocks: list[Flock] = []
        first: list[HostArray] = []
        while len(flocks) < tries:
            drawn = [next(proposed, None) for proposed in proposals]
            if flocks and all(position is None for position in drawn):
                break
            positions = [first[i] if position is None else position for i, position in enumerate(drawn)]
            flock, sound = compiled.init(np.stack(positions))
            while not sound.all():
                for chain in np.flatnonzero(~sound).tolist():
                    position = next(proposals[chain], None)
                    if position is None and not flocks:
                        raise NoStartError(chain, positions[chain])
                    positions[chain] = first[chain] if position is None else position
                flock, sound = compiled.init(np.stack(positions))
            flocks.append(flock)
            first = first or positions
        return flocks

    def run(
        self,
        compiled: CompiledEnsemble,
        starts: Sequence[Flock],
        keys: Sequence[HostArray],
        settings: Settings,
        progress: Progress,
        x64: bool,
    ) -> Draws:
        """See `AbstractParallel.run`."""
        return run_ensemble(compiled, starts, keys, settings, progress, x64)


def usual_parallel() -> AbstractParallel:
    """What suits the device that JAX computes on here: threads on a CPU, else one program for all chains."""
    wanted = jax.config.jax_default_device
    device = wanted if isinstance(wanted, jax.Device) else jax.local_devices(backend=wanted)[0]
    return Threads() if device.platform == "cpu" else Vectorized()
