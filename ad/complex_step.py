"""A traced program evaluated with complex numbers, for derivatives by the complex step.

What depends on the complex argument becomes complex, and everything else stays as it is. Operations that are not
analytic are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal, subjaxprs

from .equations import Body, bind, evaluate, shaped
from .errors import DifferentiationError

# What complex numbers pass through unchanged in meaning: analytic functions, and the moving about of numbers.
_ANALYTIC = frozenset([
    "neg", "add", "add_any", "sub", "mul", "div", "square", "integer_pow", "sqrt", "rsqrt", "exp", "exp2", "expm1",
    "log", "log1p", "logistic", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh",
    "atanh", "copy", "copy_p", "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev",
    "concatenate", "stack", "unstack", "tile", "split", "slice", "dynamic_slice", "dynamic_update_slice", "gather",
    "pad", "select_n", "reduce_sum", "reduce_prod", "cumsum", "cumprod", "dot_general",
])  # fmt: skip
# Programs inside a program, run once as they are.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def evaluate_complex(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The results of a program of which some arguments are complex: real again where they do not depend on those."""
    return evaluate(Body(jaxpr, consts), arguments, _apply)


def calls_out(jaxpr: Any) -> bool:
    """Whether a program calls Python, or foreign code, that takes no batches."""
    for equation in jaxpr.eqns:
        foreign = equation.primitive.name in ("pure_callback", "io_callback", "ffi_call")
        if foreign and equation.params.get("vmap_method") in (None, "sequential"):
            return True
    return any(calls_out(inner) for inner in subjaxprs(jaxpr))


def _apply(equation: Any, inputs: list[Any]) -> list[Any]:
    """One operation. Numbers that depend on the argument are complex, and no others are."""
    name, params = equation.primitive.name, equation.params
    inputs = [jnp.asarray(value, shaped(atom)[1]) if isinstance(atom, Literal) else value
              for atom, value in zip(equation.invars, inputs, strict=True)]  # fmt: skip
    if not any(map(jnp.iscomplexobj, inputs)):
        return bind(equation, inputs)
    if name in _ANALYTIC:
        typed = {"preferred_element_type": None} if name == "dot_general" else {}
        return bind(equation, [_complex(value) for value in inputs], **typed)
    if name in _CALLS:
        inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        program, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        if name != "custom_jvp_call" or not calls_out(program):
            return evaluate_complex(program, consts, inputs)
        name = "pure_callback"  # a black box
    if name == "convert_element_type" and jnp.issubdtype(params["new_dtype"], jnp.floating):
        return [inputs[0].astype(jnp.result_type(params["new_dtype"], jnp.complex64))]
    if name == "pow" and not jnp.iscomplexobj(inputs[1]):
        # Not by logarithms, which would lose a negative base to their branch cut.
        base, exponent = jnp.real(inputs[0]), inputs[1]
        return [lax.complex(base**exponent, jnp.imag(inputs[0]) * exponent * base ** (exponent - 1))]
    if name == "stop_gradient":
        return [jnp.real(inputs[0])]
    if name == "scan":
        return _scan(equation, inputs)
    raise DifferentiationError(
        f"AutoFiniteDiff(ComplexStep()) cannot pass `{name}`, which is not among the analytic operations it knows; "
        f"use AutoFiniteDiff() or AutoForward()"
    )


def _complex(number: Any) -> Any:
    """Floating-point numbers as complex ones; integers, say indices, as they are."""
    real = jnp.issubdtype(number.dtype, jnp.floating)
    return lax.complex(number, jnp.zeros_like(number)) if real else number


def _scan(equation: Any, inputs: list[Any]) -> list[Any]:
    """`lax.scan` with complex numbers: what the body makes complex of its carry is so from the start."""
    params, inner = equation.params, equation.params["jaxpr"]
    program, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
    # The equation names its parts differently in each JAX; what the body sees whole is not stacked.
    carried = sum(a.aval.shape == b.aval.shape for a, b in zip(equation.outvars, program.outvars, strict=True))
    rest = sum(a.aval.shape == b.aval.shape for a, b in zip(equation.invars, program.invars, strict=True))
    constants, carry, stacked = inputs[: rest - carried], inputs[rest - carried : rest], inputs[rest:]

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        results = evaluate_complex(program, consts, [*constants, *carry, *slices])
        new = [_complex(b) if jnp.iscomplexobj(a) else b for a, b in zip(carry, results[: len(carry)], strict=True)]
        return new, results[len(carry) :]

    slices = [jax.ShapeDtypeStruct(numbers.shape[1:], numbers.dtype) for numbers in stacked]
    before: list[Any] = []
    while before != (before := [number.dtype for number in carry]):
        after: Any = jax.eval_shape(body, carry, slices)[0]
        carry = [_complex(a) if a.dtype != b.dtype else a for a, b in zip(carry, after, strict=True)]
    carry, results = lax.scan(body, carry, stacked, params["length"], params["reverse"], params["unroll"])
    return [*carry, *results]
