"""How many chains are advanced at once: each at its own pace, or all in lock step.

Both keep the chains of an ensemble in *walks*, pytrees with a leading axis of chains and the fields `made`, `tuning`
and `state`, and give rows of draws as `compilation.Layout` lays them out.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .alone import Alone
from .base import AbstractKernel, Array, Constants
from .compilation import Layout
from .flat_nuts import Chunk, FlatNUTS, run_flat
from .hamiltonian import HamiltonianKernel, Info, State
from .metrics import UnitMetric
from .random import fold_in
from .warmup import Tuning


class AbstractPace(abc.ABC):
    """How chains that are advanced together wait for each other, as pure functions that are to be compiled.

    The walks carry no more of a tuning than every transition needs: what is left, a *memory*, is fed with the draws in
    one go, between two chunks.
    """

    @abc.abstractmethod
    def statistics(self, key: Any, state: Any, tuning: Any, constants: Constants) -> Mapping[str, Any]:
        """The shapes of what is recorded with every draw, by name."""

    def split(self, tuning: Any) -> tuple[Any, Any]:
        """What a walk carries of the tunings, and the memory; None if there is none."""
        return tuning, None

    def whole(self, carried: Any, memory: Any) -> Any:
        """The tunings again."""
        return carried

    def remember(self, memory: Any, rows: Array, counts: Array, carried: Any, layout: Layout) -> Any:
        """The memory after more draws.

        Args:
            memory: of all chains.
            rows: of all chains, shape (chains, capacity, width).
            counts: how many of these rows are draws of each chain, shape (chains,).
            carried: of the tunings.
            layout: of the rows.
        """
        return memory

    @abc.abstractmethod
    def begin(self, key: Array, state: Any, carried: Any) -> Any:
        """The walk of one chain that starts at a state; its key is used for its type alone."""

    @abc.abstractmethod
    def advance(
        self,
        walks: Any,
        constants: Constants,
        chunks: Chunk,
        rounds: Array,
        steps: Array,
        layout: Layout,
        capacity: int,
    ) -> tuple[Any, Array]:
        """Advance all chains.

        Args:
            walks: where they are.
            constants: of the kernel, the same for all.
            chunks: what each has to do.
            rounds: how much of it is to be done now, at most.
            steps: leapfrog steps in a round.
            layout: of the rows.
            capacity: how many rows each chain can fill.

        Returns:
            Where the chains are now, and their rows, shape (chains, capacity + 1, width), of which the last means
            nothing. Where there is a memory each row ends with a gradient.
        """


class March(NamedTuple):
    """Where a chain is that goes in step with the others.

    Args:
        made: transitions finished since the chunk began, shape ().
        state, tuning: of the kernel.
    """

    made: Array
    state: Any
    tuning: Any


@dataclass(frozen=True)
class LockStep(AbstractPace):
    """Every round is a transition of every chain: right where all transitions take the same time.

    Args:
        kernel: any.
    """

    kernel: AbstractKernel

    def statistics(self, key: Any, state: Any, tuning: Any, constants: Constants) -> Mapping[str, Any]:
        """See `AbstractPace.statistics`."""
        found: Mapping[str, Any] = jax.eval_shape(self._one, key, state, tuning, constants, jnp.zeros((), bool))[3]
        return found

    def begin(self, key: Array, state: Any, carried: Any) -> March:
        """See `AbstractPace.begin`."""
        return March(jnp.zeros((), jnp.int32), state, carried)

    def advance(
        self,
        walks: March,
        constants: Constants,
        chunks: Chunk,
        rounds: Array,
        steps: Array,
        layout: Layout,
        capacity: int,
    ) -> tuple[March, Array]:
        """See `AbstractPace.advance`; all chains have the same to do."""
        first, transitions, thin, warming = (field[0] for field in chunks[1:])
        begun = walks.made[0]
        last = jnp.minimum(begun + rounds, transitions)

        def unfinished(carry: tuple[Array, Any, Any, Array]) -> Array:
            return carry[0] < last

        def one(key: Array, state: Any, tuning: Any) -> tuple[Any, Any, Array]:
            state, tuning, position, statistics = self._one(key, state, tuning, constants, warming)
            return state, tuning, layout.row(position, statistics)

        def more(carry: tuple[Array, Any, Any, Array]) -> tuple[Array, Any, Any, Array]:
            made, states, tunings, rows = carry
            keys = jax.vmap(fold_in, in_axes=(0, None))(chunks.key, first + made)
            states, tunings, row = jax.vmap(one)(keys, states, tunings)
            # With thinning the last step of each group overwrites the others.
            return made + 1, states, tunings, lax.dynamic_update_index_in_dim(rows, row, made // thin, 1)

        rows = jnp.zeros((len(walks.made), capacity + 1, layout.width), layout.dtype)
        made, states, tunings, rows = lax.while_loop(unfinished, more, (begun, walks.state, walks.tuning, rows))
        return March(jnp.full_like(walks.made, made), states, tunings), rows

    def _one(
        self, key: Array, state: Any, tuning: Any, constants: Constants, warming: Array
    ) -> tuple[Any, Any, Array, dict[str, Array]]:
        state, tuning, info = self.kernel.advance(key, state, tuning, constants, warming)
        return state, tuning, self.kernel.position(state), self.kernel.statistics(info)


@dataclass(frozen=True)
class OwnPace(AbstractPace):
    """Every round is a few leapfrog steps of every chain, wherever on its trajectory it is: see `flat_nuts`.

    What the metric remembers of the draws is no part of a walk, where it would be chosen anew in every round.

    Args:
        kernel: of NUTS, without an audit.
        max_depth: limit of doublings.
    """

    kernel: HamiltonianKernel
    max_depth: int

    def statistics(self, key: Any, state: State, tuning: Tuning, constants: Constants) -> Mapping[str, Any]:
        """See `AbstractPace.statistics`."""
        found: dict[str, Any] = {}

        def record(_: State, info: Info) -> Array:
            found.update(jax.eval_shape(lambda: self.kernel.statistics(info)))
            return jnp.zeros(0)

        def begin(key: Array, state: State, carried: Tuning) -> Any:
            return self._machine(constants, record).begin(key, state, carried, 0)

        jax.eval_shape(begin, key, state, self.split(tuning)[0])
        return found

    def split(self, tuning: Tuning) -> tuple[Tuning, Any]:
        """See `AbstractPace.split`."""
        return tuning._replace(memory=None), tuning.memory

    def whole(self, carried: Tuning, memory: Any) -> Tuning:
        """See `AbstractPace.whole`."""
        return carried._replace(memory=memory)

    def remember(self, memory: Any, rows: Array, counts: Array, carried: Tuning, layout: Layout) -> Any:
        """See `AbstractPace.remember`; the gradients stand at the ends of the rows."""
        metric = self.kernel.adaptation.metric

        def one(memory: Any, row: Array, keep: Array) -> Any:
            return metric.remember(memory, row[: layout.dimension], row[layout.width :], keep)

        def step(index: Array, memory: Any) -> Any:
            return jax.vmap(one)(memory, rows[:, index], carried.learning & (index < counts))

        return lax.fori_loop(0, jnp.max(counts), step, memory)

    def begin(self, key: Array, state: State, carried: Tuning) -> Any:
        """See `AbstractPace.begin`."""
        walk: Any = self._machine((), lambda *_: jnp.zeros(0)).begin(key, state, carried, 0)
        return walk._replace(rows=())

    def advance(
        self,
        walks: Any,
        constants: Constants,
        chunks: Chunk,
        rounds: Array,
        steps: Array,
        layout: Layout,
        capacity: int,
    ) -> tuple[Any, Array]:
        """See `AbstractPace.advance`."""
        remembers = self.kernel.init_tuning().memory is not None

        def record(state: State, info: Info) -> Array:
            row = layout.row(state.position, self.kernel.statistics(info))
            return jnp.concatenate([row, state.gradient]) if remembers else row

        width = layout.width + (layout.dimension if remembers else 0)
        rows = jnp.zeros((len(walks.made), capacity + 1, width), layout.dtype)
        after: Any = run_flat(self._machine(constants, record), walks._replace(rows=rows), chunks, rounds, steps)
        return after._replace(rows=()), after.rows

    def _machine(self, constants: Constants, record: Callable[[State, Info], Array]) -> FlatNUTS:
        adaptation = dataclasses.replace(self.kernel.adaptation, metric=UnitMetric())  # which remembers nothing
        forgetful = dataclasses.replace(self.kernel, adaptation=adaptation)
        return FlatNUTS(
            self.max_depth, lambda tuning: self.kernel.flow(tuning, constants).step, forgetful.learn, record
        )


def pace_of(kernel: AbstractKernel) -> AbstractPace:
    """The pace that suits a kernel: its own for every chain where trajectories grow by doubling and nothing else."""
    own = kernel.kernel if isinstance(kernel, Alone) else kernel
    if isinstance(own, HamiltonianKernel) and own.max_depth is not None and own.audit is None:
        return OwnPace(own, own.max_depth)
    return LockStep(kernel)
