"""Sparse Jacobians and Hessians: columns that share no row are computed together (colouring), by any backend.

The pattern of non-zeros is found in the traced program and holds at every point; `asdex` finds and colours it, the
backends of this layer differentiate.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from jax.flatten_util import ravel_pytree

from .adtypes import AbstractADType, AbstractForwardBackend, AbstractRule, Array, Backend, Choice, Problem, check_adtype
from .errors import DifferentiationError, explain
from .flattening import Flattened, flat, flat_scalar, nested
from .forward import AutoForward
from .preparation import scalar, shapes_of
from .problem import DerivativeProblem, P
from .reverse import AutoReverse
from .routing import AutoByDimension
from .second_order import SecondOrder, choose_second_order


@dataclass(frozen=True)
class AutoSparse(AbstractRule):
    """Jacobians and Hessians as sparse matrices (`jax.experimental.sparse.BCOO`), in as many passes as colours.

    A function whose Jacobian is banded needs a few pushforwards however many inputs it has. The pattern is that of the
    program, for all values of argument and constants: entries that can be zero at some point are stored. Where no
    sparse matrix is asked for, as in a gradient or in `sample`, `adtype` differentiates.

    Args:
        adtype: what differentiates: a backend, forward (by columns) or reverse (by rows), or a rule, for which it is
            the one with fewer colours. For Hessians a `SecondOrder`, or as for a dense one.

    Raises:
        TypeError: if `adtype` is not an adtype, or is itself sparse.

    Source: Gebremedhin, Manne and Pothen (2005), "What Color Is Your Jacobian?"; Hill and Dalle (2025), "Sparser,
    Better, Faster, Stronger: Sparsity Detection for Efficient Automatic Differentiation".
    """

    adtype: AbstractADType = AutoByDimension()

    def __post_init__(self) -> None:
        check_adtype(self.adtype, "AutoSparse: adtype")
        if isinstance(self.adtype, AutoSparse):
            raise TypeError(f"AutoSparse: adtype must be dense, got {self.adtype!r}; name the backend inside it.")

    @property
    def traced(self) -> bool:
        """See `AbstractBackend`; of an `adtype` that is no rule."""
        return bool(getattr(self.adtype, "traced", True))

    def choose(self, problem: Problem) -> Choice:
        """See `AbstractRule.choose`; for a derivative that is no matrix."""
        dense = check_adtype(self.adtype)
        choice = dense.choose(problem) if isinstance(dense, AbstractRule) else Choice(dense, "requested")
        return replace(choice, reason=f"{choice.reason}; {self!r} is dense where no matrix is asked for")


@dataclass(frozen=True)
class Coloring:
    """A pattern of non-zeros and its colours.

    Args:
        rows: of the entries, shape (entries,), in row-major order.
        columns: of the entries, shape (entries,).
        seeds: 0 or 1, shape (colours, inputs or outputs): what is differentiated together.
        decompress: from the products of seeds and matrix, shape (colours, ...), to the entries, shape (entries,).
    """

    rows: np.ndarray[Any, Any]
    columns: np.ndarray[Any, Any]
    seeds: np.ndarray[Any, Any]
    decompress: Callable[[Array], Array]

    @classmethod
    def of(cls, color: Callable[..., Any], pattern: Any, **options: Any) -> Coloring:
        """What matters of the `asdex.ColoredPattern` that `color` makes of a pattern."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are as many colours as columns: the recorded reason says it
            colored = color(pattern, **options)
        seeds = np.asarray(colored.colors) == np.arange(colored.num_colors)[:, None]
        decompress = functools.partial(_asdex().decompress_data, coloring=colored)
        return cls(np.asarray(pattern.rows), np.asarray(pattern.cols), seeds, decompress)

    def __str__(self) -> str:
        count, dense = self.seeds.shape
        return f"{count} colours for {len(self.rows)} entries, where a dense matrix takes {dense}"

    def matrix(self, compressed: Array, value: Any, x: Any) -> Any:
        """The sparse matrix, nested as by `jax.jacobian` for the structures of result and argument."""
        entries = self.decompress(compressed)

        def block(rows: slice, outer: tuple[int, ...], columns: slice, inner: tuple[int, ...]) -> BCOO:
            (inside,) = np.nonzero(
                (rows.start <= self.rows) & (self.rows < rows.stop)
                & (columns.start <= self.columns) & (self.columns < columns.stop)
            )  # fmt: skip
            indices = (
                *np.unravel_index(self.rows[inside] - rows.start, outer or (1,))[: len(outer)],
                *np.unravel_index(self.columns[inside] - columns.start, inner or (1,))[: len(inner)],
            )
            where = jnp.asarray(np.stack(indices, -1) if indices else np.zeros((len(inside), 0)), jnp.int32)
            return BCOO((entries[inside], where), shape=(*outer, *inner), indices_sorted=True, unique_indices=True)

        return nested(block, value, x)


def prepare_sparse(kind: type[P], f: Callable[..., Any], subject: str, rule: AutoSparse, x: Any, *constants: Any) -> P:
    """A sparse Jacobian, prepared."""
    pattern = _detected("jacobian", lambda x, *constants: flat(f(x, *constants)).ravel(), subject, x, *constants)
    colorings = {
        mode: Coloring.of(_asdex().jacobian_coloring_from_sparsity, pattern, mode=name)
        for mode, name in (("forward", "fwd"), ("reverse", "rev"))
    }

    def derive(method: AutoSparse) -> Callable[..., Any]:
        backend: Any = method.adtype
        coloring = colorings[backend.mode]

        def value_and_jacobian(x: Any, *constants: Any) -> tuple[Any, Any]:
            of_flat = Flattened(f, subject, x, constants)
            seeds = jnp.asarray(coloring.seeds, of_flat.point.dtype)
            if isinstance(backend, AbstractForwardBackend):
                value, compressed = backend.pushforward(of_flat, of_flat.point, seeds)
            else:
                value, pull = backend.pullback(of_flat, of_flat.point)
                compressed = pull(seeds.astype(value.dtype).reshape(len(seeds), *value.shape))
            value = of_flat.restore(value)
            length = pattern.shape[0 if backend.mode == "forward" else 1]
            return value, coloring.matrix(compressed.reshape(len(seeds), length), value, x)

        return value_and_jacobian

    def colours(backend: Backend) -> int:
        return len(colorings[backend.mode].seeds)

    problem = DerivativeProblem(derive, subject, (x, *constants))
    asked = check_adtype(rule.adtype)
    backend: Backend
    if isinstance(asked, SecondOrder):
        backend, reason = asked.inner, "the inner adtype"
    elif isinstance(asked, AbstractRule):
        modes: list[Backend] = [AutoForward(), AutoReverse()]
        backend, other = sorted(modes, key=colours)
        reason = "fewer colours"
        if not problem.supported(AutoSparse(backend)) and problem.supported(AutoSparse(other)):
            backend, reason = other, f"{backend!r} cannot differentiate this function"
    else:
        backend, reason = asked, "requested"
    choice = Choice(backend, f"{reason}: {colorings[backend.mode]}")
    return problem.prepared(kind, AutoSparse(backend), choice)


def prepare_sparse_hessian(
    kind: type[P], f: Callable[..., Any], subject: str, rule: AutoSparse, x: Any, *constants: Any
) -> P:
    """A sparse Hessian, prepared; its pattern is found by reverse mode whatever differentiates."""
    pattern = _detected("hessian", lambda x, *constants: scalar(f(x, *constants), subject), subject, x, *constants)
    coloring = Coloring.of(_asdex().hessian_coloring_from_sparsity, pattern, symmetric=True)

    def derive(method: AutoSparse) -> Callable[..., Any]:
        pair: Any = method.adtype

        def value_gradient_and_hessian(x: Any, *constants: Any) -> tuple[Any, Any, Any]:
            of_flat, point, unravel = flat_scalar(f, subject, x, constants)
            seeds = jnp.asarray(coloring.seeds, point.dtype)
            gradient, products = pair.gradient_and_hvps(of_flat, point, seeds)
            return of_flat(point), unravel(gradient), coloring.matrix(products, x, x)

        return value_gradient_and_hessian

    problem = DerivativeProblem(derive, subject, (x, *constants))

    def derive_dense(pair: SecondOrder) -> Callable[..., Any]:
        return derive(AutoSparse(pair))

    dense = DerivativeProblem(derive_dense, subject, (x, *constants))
    pair, choice = choose_second_order(check_adtype(rule.adtype), dense)
    return problem.prepared(kind, AutoSparse(pair), replace(choice, reason=f"{choice.reason}: {coloring}"))


def _detected(kind: str, f: Callable[..., Array], subject: str, x: Any, *constants: Any) -> Any:
    """The pattern of the "jacobian" or "hessian" of `f` with respect to x made flat, an `asdex.SparsityPattern`."""
    detect = getattr(_asdex(), f"{kind}_sparsity")
    # Values do not matter, but must be there; those of constants are not looked at either.
    zero, *zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of((x, *constants)))
    with jax.ensure_compile_time_eval():
        point, unravel = ravel_pytree(zero)
    try:
        return detect(lambda point, *constants: f(unravel(point), *constants), np.asarray(point), *zeros)
    except jax.errors.TracerArrayConversionError as error:
        raise DifferentiationError(
            f"{subject}: AutoSparse looks for zeros in the function alone, which uses values of a program around it "
            f"that is being traced; pass them as constants, as in jacobian(f, adtype, x, constant)."
        ) from error
    except Exception as error:
        named = explain(error, subject)
        if named is None:
            raise
        raise named from error


def _asdex() -> Any:
    """The module `asdex`; DifferentiationError saying what to install where it is missing."""
    core: Any = importlib.import_module("jax._src.core")
    # asdex 0.5 imports a name for annotations from where JAX 0.12 no longer has it; lent while it is imported.
    lent = not hasattr(core, "ClosedJaxpr")
    if lent:
        core.ClosedJaxpr = importlib.import_module("jax.extend.core").ClosedJaxpr
    try:
        return importlib.import_module("asdex")
    except ImportError as error:
        raise DifferentiationError(
            f"AutoSparse needs the package asdex, which cannot be imported ({error}); pip install 'dualtape[sparse]', "
            f"or use a dense adtype such as AutoForward()."
        ) from error
    finally:
        if lent:
            del core.ClosedJaxpr
