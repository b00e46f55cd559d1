"""Kernels of other libraries, anything with `init` and `step`, as samplers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..ad.adtypes import AbstractADType, check_adtype
from ..ad.mixed import as_jax_function
from ..ad.naming import Written
from .base import AbstractKernel, AbstractSampler, Array, BlockReport, Constants, Target, block_name
from .random import jax_key
from .untuned import AbstractUntunedKernel

LogDensity = Callable[[Array], Array]

# What other libraries call the statistics that have a name here.
_NAMES = {
    "is_divergent": "diverging",
    "num_integration_steps": "n_steps",
    "num_trajectory_expansions": "tree_depth",
}


def position_of(state: Any) -> Any:
    """The field `position` of a state, as BlackJAX has it."""
    return state.position


@dataclass(frozen=True)
class External(AbstractSampler, Written):
    """An algorithm of another library: an object with `init(position)` and `step(key, state)`.

    The convention is BlackJAX's: `init` gives a state, `step` the next state and an info. The scalars of the info are
    recorded with every draw, those that HMC and NUTS have too under the names they have there. The algorithm is made
    anew at each step, from the log density as it is given the other blocks, and adapts nothing: its parameters are
    those that `make` gives it. It differentiates the log density with JAX, or with `adtype` if one is given.

    Args:
        make: from a log density, a function of a position of shape (dimension,) in unconstrained coordinates, to the
            algorithm. It is called while JAX traces.
        position: from the algorithm's state to its position; by default the field `position`.
        adtype: what `jax.grad` of the log density computes with inside the algorithm; None leaves it to JAX.

    Raises:
        TypeError: if `make` or `position` cannot be called, or `adtype` is not an adtype.

    Example:
        `External(lambda logdensity: blackjax.nuts(logdensity, step_size=0.1, inverse_mass_matrix=np.ones(2)))`

    Source: Cabezas et al. (2024), "BlackJAX: Composable Bayesian inference in JAX".
    """

    make: Callable[[LogDensity], Any]
    position: Callable[[Any], Any] = position_of
    adtype: AbstractADType | None = None

    def __post_init__(self) -> None:
        if callable(self.make) and not isinstance(self.make, Hashable):
            raise TypeError(
                f"External: make must be a function from a log density to an algorithm, got {self.make!r}; write "
                f"External(lambda log_density: blackjax.nuts(log_density, ...))."
            )
        if not callable(self.make):
            hint = "; wrap it as `lambda logdensity: ...`" if hasattr(self.make, "step") else ""
            raise TypeError(
                f"External: make must be a function from a log density to an algorithm, got {self.make!r}{hint}."
            )
        if not callable(self.position):
            raise TypeError(
                f"External: position must be a function of the algorithm's state, got {self.position!r}; "
                f"for example `lambda state: state.position`."
            )
        if self.adtype is not None:
            check_adtype(self.adtype, "External: adtype")

    def build(self, target: Target, dtype: Any) -> AbstractKernel:
        """See `AbstractSampler.build`; the algorithm is traced once.

        Raises:
            TypeError, ValueError: where a site is discrete, the algorithm lacks `init` or `step`, or its state is not
                as it must be.
        """
        if target.discrete:
            raise ValueError(
                f"External: site '{target.discrete[0]}' is discrete, and an external algorithm moves real numbers; "
                f"give the site a block of its own with DiscreteGibbs() or MH()."
            )
        log_density = target.log_density if self.adtype is None else as_jax_function(target.log_density, self.adtype)
        kernel = ExternalKernel(repr(self), target, self.make, self.position, self.adtype, log_density)
        kernel.check(jax.ShapeDtypeStruct((target.dimension,), dtype))
        return kernel


@dataclass(frozen=True)
class ExternalKernel(AbstractUntunedKernel):
    """The kernel of `External`; its state is the algorithm's, its info what is recorded.

    Args:
        name: the sampler as the user wrote it, for reports.
        target: what is sampled.
        make: from a log density to the algorithm.
        read: from the algorithm's state to the position.
        adtype: what differentiates; None for JAX.
        log_density: of the target, as the algorithm gets it, with the constants as further arguments.
    """

    name: str
    target: Target
    make: Callable[[LogDensity], Any]
    read: Callable[[Any], Any]
    adtype: AbstractADType | None
    log_density: Callable[..., Array]

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        """See `AbstractKernel.reports`."""
        adtype = None if self.adtype is None else repr(self.adtype)
        return (
            BlockReport(
                block_name(self.target.sites), self.name, self.target.dimension, adtype, "its parameters are fixed"
            ),
        )

    def init(self, position: Array, constants: Constants) -> Any:
        """See `AbstractKernel.init`."""
        return self._algorithm(constants).init(position)

    def position(self, state: Any) -> Array:
        """See `AbstractKernel.position`."""
        return jnp.asarray(self.read(state))

    def step(self, key: Array, state: Any, tuning: Any, constants: Constants) -> tuple[Any, dict[str, Array]]:
        """See `AbstractKernel.step`; the log density is evaluated once more, whatever the algorithm keeps of it."""
        after, info = self._algorithm(constants).step(jax_key(key), state)
        lp = self.target.log_density(self.position(after), *constants)
        return after, {**_scalars(info), "lp": lp}

    def statistics(self, info: dict[str, Array]) -> dict[str, Array]:
        """See `AbstractKernel.statistics`."""
        return info

    def check(self, position: jax.ShapeDtypeStruct) -> None:
        """Refuse an algorithm whose state is not as it must be, by tracing one step.

        Raises:
            TypeError, ValueError: saying what it is and what it must be.
        """
        key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
        state = jax.eval_shape(lambda q, *constants: self.init(q, constants), position, *self.target.constants)
        self._check_position(state, position)

        def advance(key: Array, state: Any, *constants: Any) -> Any:
            returned = self._algorithm(constants).step(key, state)
            if not (isinstance(returned, tuple) and len(returned) == 2):
                raise TypeError(
                    f"External: step(key, state) must return the next state and an info, got {_shown(returned)}; "
                    f"return `state, None` if there is nothing to record."
                )
            return returned[0]

        after = jax.eval_shape(advance, key, state, *self.target.constants)
        before: Any = jax.tree.structure(state)
        if before != jax.tree.structure(after) or _shown(state) != _shown(after):
            raise TypeError(
                f"External: step must return a state like that of init, {_shown(state)}, got {_shown(after)}; "
                f"give its arrays the same shapes and dtypes in both."
            )

    def _check_position(self, state: Any, wanted: jax.ShapeDtypeStruct) -> None:
        remedy = "pass position=lambda state: ... that gives the flat array which init was given"
        try:
            found = self.read(state)
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise TypeError(
                f"External: no position in the algorithm's state, {_shown(state)} ({error}); {remedy}."
            ) from error
        if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"External: the position in the algorithm's state is {_shown(found)}, "
                f"block '{block_name(self.target.sites)}' has {_shown(wanted)}; {remedy}."
            )

    def _algorithm(self, constants: Constants) -> Any:
        algorithm = self.make(lambda position: self.log_density(position, *constants))
        for name in ("init", "step"):
            if not callable(getattr(algorithm, name, None)):
                raise TypeError(
                    f"External: make must return an algorithm with init(position) and step(key, state), "
                    f"got {algorithm!r} without {name}."
                )
        return algorithm


def _scalars(info: Any) -> dict[str, Array]:
    """The numbers and truth values among the entries of an info, by name."""
    if isinstance(info, Mapping):
        entries = dict(info)
    elif dataclasses.is_dataclass(info):
        entries = {entry.name: getattr(info, entry.name) for entry in dataclasses.fields(info)}
    else:
        entries = info._asdict() if hasattr(info, "_asdict") else {}
    arrays = {str(name): jnp.asarray(entry) for name, entry in entries.items() if _is_scalar(entry)}
    return {_NAMES.get(name, name): array for name, array in arrays.items()}


def _is_scalar(entry: Any) -> bool:
    """Whether something is a real number or a truth value, traced or not."""
    if not isinstance(entry, (bool, int, float)) and getattr(entry, "shape", None) != ():
        return False
    dtype = jnp.result_type(entry)
    return bool(dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating))


def _shown(tree: Any) -> str:
    """The shapes and dtypes of a pytree, for messages."""
    leaves = [
        f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "shape") else repr(leaf) for leaf in jax.tree.leaves(tree)
    ]
    return ", ".join(leaves) or "nothing"
