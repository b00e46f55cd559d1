"""Enzyme: the program is differentiated as compiler code, in StableHLO, by the compiler plugin of that name.

A function is brought into a form that Enzyme differentiates (`rules`), written out as StableHLO, transformed by
Enzyme when it is prepared, and put back as one operation. What does not depend on `x` stays outside, is not
differentiated, and comes in as an argument.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal, jaxpr_as_fun, subjaxprs

from ..adtypes import (
    AbstractForwardBackend,
    AbstractReverseBackend,
    Array,
    Flat,
    FlatFunction,
    Pullback,
    check_chunk_size,
)
from ..equations import bind
from ..errors import DifferentiationError
from .rules import STOP, Rewriter

OLDEST_ENZYME = (0, 0, 16)
# Tangents carried in one pass of forward mode when the user names no chunk.
LARGEST_CHUNK = 32

# (x, direction, *constants) -> derivative. In reverse mode the direction is a cotangent, shape (*out,), and the
# derivative has shape (d,); in forward mode the direction is a tangent, shape (d,), and the derivative shape (*out,).
Derivative = Callable[..., Array]


@dataclass(frozen=True)
class AutoEnzyme(AbstractReverseBackend):
    """Reverse mode by Enzyme; `AutoEnzyme(mode=Enzyme.Reverse)` in Julia.

    Enzyme differentiates the program after it has been lowered to compiler code, one pass forward and one back. It
    needs the package `enzyme-ad` (Python 3.11). Operations that Enzyme has no rule for, and functions with a
    `custom_jvp` rule, are given JAX's. It cannot pass `lax.while_loop`, functions with a `custom_vjp` rule, and
    callbacks into Python, and JAX cannot differentiate its result again.

    Source: Moses and Churavy (2020), "Instead of rewriting foreign code for machine learning, automatically synthesize
    fast gradients"; https://github.com/EnzymeAD/Enzyme-JAX.
    """

    def pullback(self, f: FlatFunction, x: Flat) -> tuple[Array, Pullback]:
        """See `AbstractReverseBackend.pullback`; several cotangents are batched."""
        value, active, constants = _active_part(f, x, type(self).__name__, reverse=True)
        if active is None:
            return value, lambda cotangents: jnp.zeros((cotangents.shape[0], x.size), x.dtype)
        derivative = _sealed(_derivative(active, reverse=True), type(self).__name__)

        return value, lambda cotangents: _each(lambda cotangent: derivative(x, cotangent, *constants), cotangents)


@dataclass(frozen=True)
class AutoEnzymeForward(AbstractForwardBackend):
    """Forward mode by Enzyme; `AutoEnzyme(mode=Enzyme.Forward)` in Julia.

    As `AutoEnzyme`, and it passes `lax.while_loop`.

    Args:
        chunk_size: tangents carried in one pass, at least 1. None carries all of them up to 32.

    Raises:
        ValueError: if `chunk_size` is not a positive integer.

    Source: as of `AutoEnzyme`.
    """

    chunk_size: int | None = None

    def __post_init__(self) -> None:
        check_chunk_size(self.chunk_size, "AutoEnzymeForward")

    def pushforward(self, f: FlatFunction, x: Flat, tangents: Array) -> tuple[Array, Array]:
        """See `AbstractForwardBackend.pushforward`; the tangents go through in one pass."""
        value, active, constants = _active_part(f, x, type(self).__name__, reverse=False)
        if active is None:
            return value, jnp.zeros((tangents.shape[0], *value.shape), value.dtype)
        derivative = _sealed(_derivative(active, reverse=False), type(self).__name__)
        return value, _each(lambda tangent: derivative(x, tangent, *constants), tangents)

    def chunk(self, dimension: int) -> int:
        """See `AbstractForwardBackend.chunk`."""
        return min(self.chunk_size or LARGEST_CHUNK, dimension)


def _enzyme(adtype: str) -> Any:
    """The module `enzyme_ad.jax`, loaded on first use: it is half a gigabyte."""
    remedy = (
        "install it with pip install 'dualtape[enzyme]' on Python 3.11 (its wheels fit jax 0.10), or use AutoReverse()"
    )
    try:
        version = importlib.metadata.version("enzyme-ad")
    except importlib.metadata.PackageNotFoundError:
        raise DifferentiationError(f"{adtype} needs the package enzyme-ad, which is not installed; {remedy}") from None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST_ENZYME:
        oldest = ".".join(map(str, OLDEST_ENZYME))
        raise DifferentiationError(f"{adtype} needs enzyme-ad {oldest} or newer, got {version}; {remedy}")
    try:
        return importlib.import_module("enzyme_ad.jax")
    except Exception as error:  # a wheel for another JAX fails in many ways
        raise DifferentiationError(
            f"{adtype}: enzyme-ad {version} does not load with jax {jax.__version__} ({error}); {remedy}"
        ) from error


def _active_part(
    f: FlatFunction, x: Flat, adtype: str, *, reverse: bool
) -> tuple[Array, Callable[..., Array] | None, list[Any]]:
    """The value, and the part of the function that depends on `x`.

    Returns:
        `f(x)`; the function `(x, *constants) -> f(x)` in the form that Enzyme differentiates, of arrays alone, or None
        if nothing depends on `x`; and the constants, computed outside of it.
    """
    _enzyme(adtype)
    program = jax.make_jaxpr(f)(x)
    value = jnp.asarray(jaxpr_as_fun(program)(x)[0])
    flags: list[bool] = []

    def rewritten(x: Flat) -> Array:
        (result,), (active,) = Rewriter(adtype, reverse).run(program, [x], [True])
        flags.append(active)
        return jnp.asarray(result)

    normal: Any = jax.make_jaxpr(rewritten)(x)
    if not flags[0] or x.size == 0 or value.size == 0:
        return value, None, []
    known: dict[Any, Any] = dict(zip(normal.jaxpr.constvars, normal.consts, strict=True))
    steps = []
    for equation in normal.jaxpr.eqns:
        if all(isinstance(atom, Literal) or atom in known for atom in equation.invars):
            inputs = [atom.val if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
            known.update(zip(equation.outvars, bind(equation, inputs), strict=True))
        else:
            steps.append(equation)
    atoms = [*(atom for equation in steps for atom in equation.invars), *normal.jaxpr.outvars]
    used = list(dict.fromkeys(atom for atom in atoms if not isinstance(atom, Literal) and atom in known))

    def active(x: Flat, *constants: Any) -> Array:
        values = {normal.jaxpr.invars[0]: x}
        for atom, constant in zip(used, constants, strict=True):
            values[atom] = constant.astype(atom.aval.dtype)
        for equation in steps:
            inputs = [atom.val if isinstance(atom, Literal) else values[atom] for atom in equation.invars]
            values.update(zip(equation.outvars, bind(equation, inputs), strict=True))
        result: Array = values[normal.jaxpr.outvars[0]]
        return result

    # `enzyme_ad` mistakes booleans, which cross the border as bytes.
    bytewise = {np.dtype(bool): np.dtype(np.int8)}
    constants = [jnp.asarray(known[atom], bytewise.get(atom.aval.dtype)) for atom in used]
    _refuse_foreign(jax.make_jaxpr(active)(x, *constants), adtype)
    return value, active, constants


# What passes the border between JAX and Enzyme, by the name of its element type in StableHLO.
_ELEMENTS = {
    "bool": "i1",
    **{f"{sign}int{bits}": f"{'u' if sign else ''}i{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": "f32",
    "float64": "f64",
}


def _refuse_foreign(program: Any, adtype: str) -> None:
    """Raise DifferentiationError for what cannot be written out: callbacks, keys of random numbers, complex numbers."""

    def look(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if "callback" in equation.primitive.name or equation.effects:
                raise DifferentiationError(
                    f"{adtype} cannot pass `{equation.primitive.name}`, which calls back into Python; "
                    f"compute it outside of the function and pass the result as a constant"
                )
            for atom in (*equation.invars, *equation.outvars):
                if str(getattr(atom.aval, "dtype", None)) not in _ELEMENTS:
                    raise DifferentiationError(
                        f"{adtype} knows 32- and 64-bit floating-point numbers and integers, and meets "
                        f"{atom.aval.str_short()} in `{equation.primitive.name}`; "
                        f"use adtype=AutoReverse() or AutoForward()"
                    )
        for inner in subjaxprs(jaxpr):
            look(inner)

    look(program.jaxpr)


def _derivative(f: Callable[..., Array], *, reverse: bool) -> Derivative:
    """The derivative of `f(x, *constants)`, which can be batched: the batch of derivatives is that of a batched `f`."""

    @custom_vmap
    def derivative(x: Array, direction: Array, *constants: Array) -> Array:
        return _differentiated(f, x, direction, constants, reverse=reverse)

    def batch(size: int, mapped: Sequence[bool], x: Array, direction: Array, *constants: Array) -> tuple[Array, bool]:
        def whole(array: Array, is_mapped: bool) -> Array:
            return array if is_mapped else jnp.broadcast_to(array, (size, *array.shape))

        together = jax.vmap(f, in_axes=(0, *(0 if is_mapped else None for is_mapped in mapped[2:])))
        batched = _derivative(together, reverse=reverse)
        return batched(whole(x, mapped[0]), whole(direction, mapped[1]), *constants), True

    derivative.def_vmap(batch)
    applied: Derivative = derivative
    return applied


def _each(derivative: Callable[[Array], Array], directions: Array) -> Array:
    return derivative(directions[0])[None] if directions.shape[0] == 1 else jax.vmap(derivative)(directions)


def _sealed(derivative: Derivative, adtype: str) -> Derivative:
    """The derivative, which says so when JAX is asked to differentiate it again."""
    sealed = jax.custom_jvp(derivative)

    @sealed.defjvp
    def refuse(*_: Any) -> Any:
        raise DifferentiationError(
            f"JAX cannot differentiate a derivative by {adtype} again; "
            f"take AutoForward() or AutoReverse() for the inner derivative, {adtype}() may be the outer one"
        )

    applied: Derivative = sealed
    return applied


def _differentiated(
    f: Callable[..., Array], x: Array, direction: Array, constants: Sequence[Array], *, reverse: bool
) -> Array:
    """The derivative by Enzyme, put back into the program of JAX as one operation.

    Enzyme gets a module with `f` as `@primal`, and a `@main` that asks for its derivative.
    """
    enzyme = importlib.import_module("enzyme_ad.jax")
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (x, *constants)]
    inputs, output, direct = [_type(shape) for shape in shapes], _type(jax.eval_shape(f, *shapes)), _type(direction)
    names = [f"%a{i}" for i in range(len(shapes))]
    kind, operation = ("active", "autodiff") if reverse else ("dup", "fwddiff")
    passed = [*names, "%t"] if reverse else [names[0], "%t", *names[1:]]
    types = dict(zip([*names, "%t"], [*inputs, direct], strict=True))
    result = inputs[0] if reverse else output
    main = f"""
  func.func public @main({", ".join(f"{name}: {element}" for name, element in types.items())}) -> {result} {{
    %r:2 = "enzyme.{operation}"({", ".join(passed)}) <{{fn = @primal, width = 1 : i64, strong_zero = true,
      activity = {_activities(kind, *["const"] * len(constants))}, ret_activity = {_activities(kind)}}}>
      : ({", ".join(types[name] for name in passed)}) -> ({output}, {result})
    return %r#1 : {result}
  }}
}}
"""
    traced = jax.make_jaxpr(f)(*shapes)
    with jax.enable_x64(True):  # Enzyme counts iterations in 64 bits and aborts the process where a loop has 32
        lowered = jax.jit(jaxpr_as_fun(traced), keep_unused=True).lower(*shapes).as_text()
    primal = lowered.replace("func.func public @main(", "func.func private @primal(").rstrip().removesuffix("}")
    program = re.sub(_STOPPED, r'"enzyme.ignore_derivatives"(\1) : \2', primal) + main
    try:
        _, transformed = enzyme.enzyme_call.run_pass_pipeline([], program, _passes(enzyme))
    except Exception as error:
        found = re.search(r"(stablehlo|chlo)\.\w+", str(error))
        where = f"`{found[0]}`" if found else "this program"
        raise DifferentiationError(
            f"Enzyme cannot differentiate {where}; use adtype=AutoReverse() or AutoForward()"
        ) from error
    if re.search(r"enzyme(xla)?\.", transformed):
        raise DifferentiationError(
            "Enzyme left a part of this program undifferentiated; use adtype=AutoReverse() or AutoForward()"
        )
    derivative: Array = jax.jit(lambda *arrays: enzyme.hlo_call(*arrays, source=transformed)[0])(
        x, *constants, direction
    )
    return derivative


# The marks of `rules.stop_gradient` in StableHLO: a custom call, with its operand and its type.
_STOPPED = rf"stablehlo\.custom_call @{STOP}\((%[\w#]+)\) \{{.*?\}} : (\(.*?\) -> tensor<.*?>)"


def _type(array: Any) -> str:
    return f"tensor<{''.join(f'{size}x' for size in array.shape)}{_ELEMENTS[str(array.dtype)]}>"


def _activities(*kinds: str) -> str:
    return f"[{', '.join(f'#enzyme<activity<enzyme_{kind}>>' for kind in kinds)}]"


def _passes(enzyme: Any) -> str:
    """Enzyme's passes: calls inlined, loops brought into the form that reverse mode needs, differentiated, simplified.

    Its simplifications come last alone: before, they would undo a `where` that keeps a derivative from being NaN.
    """
    inline = "inline{default-pipeline=canonicalize max-iterations=4}"
    loops = "enzyme-hlo-generate-td{patterns=while_simplify<1>(1)},transform-interpreter,enzyme-hlo-remove-transform"
    clean = (
        "arith-raise{stablehlo=true},enzyme-batch-to-stablehlo,canonicalize,remove-unnecessary-enzyme-ops,"
        "enzyme-simplify-math,canonicalize,cse"
    )
    return (
        f'{inline},canonicalize,cse,{loops},enzyme{{postpasses="{clean}"}},{clean},{inline},'
        f"{enzyme.optimization_passes(inline=False)},symbol-dce,tensor-empty-raise,drop-unsupported-attributes"
    )
