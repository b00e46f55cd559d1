"""Stan programs, compiled by BridgeStan, with the gradients of Stan."""

from __future__ import annotations

import importlib
import os
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...ad.black_box import black_box
from ..language import deterministic, factor, rv
from ..model import BoundModel, Model
from .log_density import TERM

HostArray = np.ndarray[Any, Any]

# Without threads Stan keeps what it differentiates in one place, for all programs.
_taking_turns = threading.RLock()

# Where it is seen that a program can be evaluated at all: draws from Uniform(-2, 2), as Stan's own.
_TRIES, _RADIUS = 100, 2.0


def from_stan(program: Any, data: Mapping[str, Any] | str | None = None) -> BoundModel:
    """A Stan program as a model: all that works on a model works on it.

    The target is the log density of Stan's unconstrained parameters q, Jacobians and normalising constants included,

        log π(q) = log p(T(q), data) + log |det ∂T/∂q|,

    and its gradient is Stan's own, in forward and in reverse mode: an adtype has nothing to choose. Second derivatives
    are left to finite differences of that gradient. Each evaluation is a call out of the compiled program.

    The sites are the parameters of the program in unconstrained coordinates, `tau` under the name `tau_unc`, each a
    block for `Gibbs` if need be; values for `init=` are unconstrained, too. The parameters as they stand in the
    program, transformed parameters and generated quantities are deterministics of their own names and shapes. The
    random numbers in generated quantities depend on the draw alone. Where the program rejects, the density is zero.

    Args:
        program: path of a `.stan` file, or of a library that BridgeStan has compiled, or a `bridgestan.StanModel`.
            Files are compiled with STAN_THREADS, so that chains run at once; programs without it take turns.
        data: by name, or in JSON or its path; as BridgeStan takes it. A `StanModel` has its data already.

    Returns:
        A model with its data.

    Raises:
        ImportError: if BridgeStan is not installed; saying how.
        TypeError: if `program` is none of these, or a `StanModel` is given data.
        ValueError: if the program has no parameters, or rejects wherever it is tried; with Stan's message.

    Example:
        `idata = sample(from_stan("schools.stan", {"J": 8, "y": y, "sigma": sigma}), NUTS())`

    Source: Roualdes, Ward, Carpenter, Seyboldt, Axen (2023), "BridgeStan: Efficient in-memory access to the methods
    of a Stan model".
    """
    model = StanProgram(program, data)
    model.check()
    return BoundModel(model, (), {})


class StanProgram(Model):
    """The model behind `from_stan`.

    Args:
        program, data: see `from_stan`.
    """

    def __init__(self, program: Any, data: Mapping[str, Any] | str | None = None) -> None:
        self.arguments = (program, data)
        self.stan = _loaded(program, data)
        self.threads = "STAN_THREADS=true" in self.stan.model_info()
        self.unconstrained = groups(self.stan.param_unc_names())
        self.constrained = groups(self.stan.param_names(include_tp=True, include_gq=True))
        self.log_density = _differentiable(self)
        size = self.stan.param_num(include_tp=True, include_gq=True)
        self.values = black_box(self._constrain, result=(size,), concurrent=True)
        super().__init__(self._declare)

    @property
    def name(self) -> str:
        """The name of the program."""
        return str(self.stan.name())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made from."""
        return type(self), self.arguments

    def check(self) -> None:
        """Evaluate the program once.

        Raises:
            ValueError: if it has no parameters, or rejects everywhere.
        """
        dimension = self.stan.param_unc_num()
        if not dimension:
            raise ValueError(f"from_stan: program '{self.name}' has no parameters, so there is nothing to sample.")
        generator, message = np.random.default_rng(0), "the log density is not finite"
        for _ in range(_TRIES):
            try:
                value, _ = self._evaluate(generator.uniform(-_RADIUS, _RADIUS, dimension))
            except RuntimeError as error:
                message = str(error)
            else:
                if np.isfinite(value):
                    return
        raise ValueError(
            f"from_stan: program '{self.name}' rejects each of {_TRIES} points from Uniform(-2, 2), at the last with: "
            f"{message.strip()} Check the data, and the constraints of its parameters."
        )

    def _evaluate(self, position: HostArray) -> tuple[float, HostArray]:
        value, gradient = self._alone(lambda: self.stan.log_density_gradient(position, propto=False, jacobian=True))
        return value, gradient

    def value_and_gradient(self, position: HostArray) -> HostArray:
        """The log density and after it its gradient, shape (1 + dimension,); -inf where the program rejects."""
        try:
            value, gradient = self._evaluate(position)
        except RuntimeError:
            # Stan's own samplers take an exception, a matrix that is not positive definite say, for a rejection.
            return np.array([-np.inf, *np.zeros(len(position))])
        return np.array([value, *gradient])

    def _constrain(self, position: HostArray) -> HostArray:
        def constrained() -> Any:
            # The same numbers at the same draw, so that this is a function; other ones at other draws.
            generator = self.stan.new_rng(seed=zlib.crc32(position.tobytes()) & 0x7FFFFFFF)
            return self.stan.param_constrain(position, include_tp=True, include_gq=True, rng=generator)

        try:
            return np.asarray(self._alone(constrained))
        except RuntimeError:
            return np.full(self.stan.param_num(include_tp=True, include_gq=True), np.nan)

    def _alone(self, call: Callable[[], Any]) -> Any:
        if self.threads:
            return call()
        with _taking_turns:
            return call()

    def _declare(self) -> None:
        parts = []
        for group in self.unconstrained:
            value = rv(f"{group.name}_unc", dist.ImproperUniform(dist.constraints.real, group.shape, ()))
            parts.append(jnp.ravel(value.T))
        position = jnp.concatenate(parts)
        factor(TERM, self.log_density(position))
        values = self.values(jax.lax.stop_gradient(position))
        for group in self.constrained:
            part = values[group.start : group.start + group.size]
            deterministic(group.name, jnp.reshape(part, group.shape[::-1]).T)


def _differentiable(program: StanProgram) -> Callable[[Any], Any]:
    """The log density of a program with Stan's gradient, in whatever mode."""
    both = black_box(program.value_and_gradient, result=(1 + program.stan.param_unc_num(),), concurrent=True)

    @jax.custom_jvp
    def log_density(position: Any) -> Any:
        return both(position)[0]

    @log_density.defjvp
    def push(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        value_and_gradient = both(*primals)
        return value_and_gradient[0], jnp.dot(value_and_gradient[1:], tangents[0])

    return log_density


@dataclass(frozen=True)
class Group:
    """The entries of one variable among those of a program.

    Args:
        name: of the variable.
        start: place of its first entry.
        shape: of the variable; its entries come first index fastest.
    """

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many entries it has."""
        return int(np.prod(self.shape))


def groups(names: list[str]) -> list[Group]:
    """Variables from the names of their entries: `m.1.1`, `m.2.1`, `m.1.2`, `m.2.2` is a matrix `m`.

    Parts of tuples and of complex numbers are variables of their own, `pair:1` and `z.real`.
    """
    found: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for place, entry in enumerate(filter(None, names)):
        name = re.sub(r"(\.\d+)*$", "", entry)
        found.setdefault(name, []).append((place, tuple(int(i) for i in entry[len(name) :].split(".")[1:])))
    result = []
    for name, entries in found.items():
        shape = tuple(max(axis) for axis in zip(*(index for _, index in entries), strict=True))
        # Fewer entries than indices say: a triangle, which has no shape but a length.
        whole = int(np.prod(shape)) == len(entries)
        result.append(Group(name, entries[0][0], shape if whole else (len(entries),)))
    return result


def _loaded(program: Any, data: Any) -> Any:
    """The program as BridgeStan's `StanModel`."""
    if hasattr(program, "log_density_gradient"):
        if data is not None:
            raise TypeError(
                "from_stan: a StanModel has its data already; leave them out, or give the path of the file."
            )
        return program
    if not isinstance(program, (str, os.PathLike)) or "\n" in str(program):
        raise TypeError(
            f"from_stan: program must be the path of a .stan file or a compiled library, or a bridgestan.StanModel, "
            f"got {program!r}; save the text of a program to a file first."
        )
    try:
        bridgestan = importlib.import_module("bridgestan")
    except ImportError as error:
        raise ImportError(
            "from_stan: Stan programs need BridgeStan: `pip install bridgestan`, a C++ compiler and make; it fetches "
            "the sources of Stan when it first compiles a program."
        ) from error
    threads = ["STAN_THREADS=True"] if str(program).endswith(".stan") else []
    return bridgestan.StanModel(program, data, make_args=threads)
