"""What Enzyme lacks, taken from JAX: a program rewritten so that Enzyme can differentiate every step of it.

Enzyme differentiates the primitives in `NATIVE`. It does not see `custom_jvp` rules and `stop_gradient`, which are gone
from compiled code, and has no rules for special functions and LAPACK. Such a step y = g(x) is replaced by

    y = g(x°) + Jg(x°) (x − x°),        x° = stop_gradient(x),

which has the same value and derivative, and only a linear program to differentiate: that of JAX's own rule, rewritten
in its turn. It is what `Enzyme.@import_frule` does in Julia.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jax.lax import GatherScatterMode

from ..adtypes import Array
from ..equations import bind, inlined_body, scan_operands
from ..errors import DifferentiationError

# The name under which `stop_gradient` survives until Enzyme sees it.
STOP = "dualtape_stop_gradient"

# The primitives that are Enzyme's to differentiate. The others have no rule there, or one that goes wrong somewhere:
# `max`, `min` and `reduce_max` at ties, `reduce_prod` and `pow` at 0, `logistic` far out.
_NATIVE_NAMES = """
    abs add add_any atan2 broadcast_in_dim ceil concatenate conv_general_dilated convert_element_type copy copy_p cos
    cosh device_put dot_general dynamic_slice dynamic_update_slice exp exp2 expm1 floor integer_pow log log1p mul name
    neg pad reduce_sum reduce_window_sum reshape rev round rsqrt select_n sign sin sinh slice split square squeeze stack
    sub tanh tile transpose
"""
NATIVE = frozenset(_NATIVE_NAMES.split())

# The results of a step or a program, and which of them carry a derivative.
Results = tuple[list[Any], list[bool]]


@dataclass(frozen=True)
class Rewriter:
    """Evaluates a program, step by step, in the form that Enzyme can differentiate.

    Args:
        adtype: the name of the adtype, for messages.
        reverse: whether the result is for reverse mode.
        inside: the primitives whose rules are being imported; to meet one again means that it is linear in itself.
    """

    adtype: str
    reverse: bool
    inside: tuple[str, ...] = field(default=())

    def run(self, program: Any, arguments: Sequence[Any], active: Sequence[bool]) -> Results:
        """The results of a program, and which of them carry a derivative.

        Args:
            program: what to evaluate, with `jaxpr` and `consts`.
            arguments: its arguments, arrays or tracers.
            active: which of them carry a derivative.
        """
        jaxpr = program.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        carries: dict[Any, bool] = dict(zip(jaxpr.invars, active, strict=True))

        def read(atom: Any) -> tuple[Any, bool]:
            return (atom.val, False) if isinstance(atom, Literal) else (values[atom], carries.get(atom, False))

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            results, flags = self._step(equation, [value for value, _ in inputs], [flag for _, flag in inputs])
            for variable, result, flag in zip(equation.outvars, results, flags, strict=True):
                values[variable] = result
                carries[variable] = flag and _continuous(result)
        outputs = [read(atom) for atom in jaxpr.outvars]
        return [value for value, _ in outputs], [flag for _, flag in outputs]

    def _step(self, equation: Any, values: list[Any], active: list[bool]) -> Results:
        name = equation.primitive.name
        body = inlined_body(equation)
        if body is not None:
            return self.run(body, values, active)
        if not any(active):
            return bind(equation, values), [False] * len(equation.outvars)
        if name in _RULES:
            return _RULES[name](self, equation, values, active)
        if name in NATIVE or not any(_continuous(variable.aval) for variable in equation.outvars):
            return carrying(bind(equation, values))
        return self.imported(equation, values, active)

    def imported(self, equation: Any, values: list[Any], active: list[bool]) -> Results:
        """One step by JAX's own rule: y = g(x°) + Jg(x°) (x − x°)."""
        name = equation.primitive.name
        if name.startswith("custom_vjp") or name in self.inside:
            raise self.refusal(name)
        chosen = [i for i, flag in enumerate(active) if flag]
        points = [stop_gradient(values[i]) for i in chosen]
        steps = [_zero_that_moves(values[i], point) for i, point in zip(chosen, points, strict=True)]

        def pushed(points: list[Any], steps: list[Any]) -> Any:
            def of_active(*moving: Any) -> list[Any]:
                full = list(values)
                for i, value in zip(chosen, moving, strict=True):
                    full[i] = value
                return bind(equation, full)

            return jax.jvp(of_active, points, steps)

        try:
            program = jax.make_jaxpr(pushed)(points, steps)
        except (NotImplementedError, ValueError) as error:
            raise DifferentiationError(
                f"{self.adtype} cannot pass `{name}`: neither Enzyme nor JAX has a rule for it; "
                f"use adtype=AutoFiniteDiff()"
            ) from error
        flags = [False] * len(points) + [True] * len(steps)
        deeper = Rewriter(self.adtype, self.reverse, (*self.inside, name))
        results, _ = deeper.run(program, [*points, *steps], flags)
        half = len(results) // 2
        return carrying(
            [
                value + change if _continuous(value) else value
                for value, change in zip(results[:half], results[half:], strict=True)
            ]
        )

    def refusal(self, primitive: str) -> DifferentiationError:
        """The error for what this adtype cannot pass."""
        return DifferentiationError(
            f"{self.adtype} cannot pass `{primitive}`: Enzyme has no rule for it and JAX none that it can use; "
            f"use adtype=AutoReverse() or AutoForward()"
        )

    def closed(self, program: Any, active: Sequence[bool]) -> tuple[Any, list[bool]]:
        """The program of a loop or a branch rewritten, and which of its results carry a derivative."""
        flags: list[bool] = []

        def rewritten(*arguments: Any) -> list[Any]:
            results, carried = self.run(program, arguments, active)
            flags[:] = carried
            return results

        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type) for aval in program.in_avals]
        return jax.make_jaxpr(rewritten)(*shapes), flags


def stop_gradient(x: Any) -> Array:
    """`x`, marked for Enzyme as carrying no derivative; `lax.stop_gradient` leaves no trace in compiled code."""
    shape = jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))
    stopped: Array = jax.ffi.ffi_call(STOP, shape, vmap_method="broadcast_all")(x)
    return stopped


def _zero_that_moves(x: Any, stopped: Array) -> Array:
    # inf - inf would be NaN: minus infinity is an honest log density of a masked term, and does not move.
    return jnp.where(jnp.isfinite(stopped), x - stopped, jnp.zeros_like(stopped))


def _continuous(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype if hasattr(x, "dtype") else jnp.result_type(x), jnp.inexact))


def carrying(results: list[Any]) -> Results:
    """The results, all of which carry a derivative."""
    return results, [True] * len(results)


# The steps that need more than Enzyme's rule and JAX's, each a function of the rewriter, the equation, its inputs and
# which of them carry a derivative.


def _sqrt(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # Enzyme divides 0 by NaN where a `where` does not take the root of a negative number.
    inside = values[0] >= 0
    (root,) = bind(equation, [jnp.where(inside, values[0], jnp.ones_like(values[0]))])
    return carrying([jnp.where(inside, root, jnp.full_like(root, jnp.nan))])


def _stop_gradient(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    return [stop_gradient(values[0])], [False]


def _clamp(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # JAX's rule wants the bounds in the shape of what they bound.
    return rewriter.imported(equation, [jnp.broadcast_to(value, jnp.shape(values[1])) for value in values], active)


def _cumsum(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # Enzyme has no rule for the windows that XLA makes of it.
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    return carrying([jax.lax.associative_scan(jnp.add, values[0], reverse=reverse, axis=axis)])


def _div(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # In forward mode Enzyme squares the denominator, which overflows.
    if rewriter.reverse:
        return carrying(bind(equation, values))
    if active[1]:
        return rewriter.imported(equation, values, active)
    return carrying([values[0] * jax.lax.reciprocal(jnp.asarray(values[1]))])


def _gather(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # Indices are clipped as XLA clips them: in reverse mode Enzyme does not.
    operand, indices = values
    if equation.params["mode"] is GatherScatterMode.FILL_OR_DROP:
        return carrying(bind(equation, values))
    axes, sizes = equation.params["dimension_numbers"].start_index_map, equation.params["slice_sizes"]
    last = [operand.shape[axis] - sizes[axis] for axis in axes]
    return carrying(bind(equation, [operand, jnp.clip(indices, 0, jnp.asarray(last, indices.dtype))]))


def _scatter(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # JAX's rule for indices that repeat says which of the updates stays.
    repeating = equation.replace(params={**equation.params, "unique_indices": False})
    return rewriter.imported(repeating, values, active)


def _scatter_add(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    operand, indices, updates = values
    if not rewriter.reverse and operand.size and updates.size:
        # Forward mode adds into the value and its derivative in one operation of XLA, which takes the two for one array
        # where both are the constant zero, and adds twice. A zero that is computed is no constant.
        first = stop_gradient((operand if active[0] else updates).reshape(-1)[0])
        operand = operand + jnp.where(jnp.isnan(first), first, jnp.zeros_like(first))

    def added(updates: Array) -> Array:
        result: Array = bind(equation, [jnp.zeros_like(operand), indices, updates])[0]
        return result

    # Updates outside of the bounds are set to zero: in reverse mode Enzyme reads beside the bounds.
    shape = jax.ShapeDtypeStruct(updates.shape, updates.dtype)
    (inside,) = jax.linear_transpose(added, shape)(jnp.ones_like(operand))
    return carrying(bind(equation, [operand, indices, jnp.where(inside != 0, updates, jnp.zeros_like(updates))]))


def _triangular_solve(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    # X = A⁻¹ B by LAPACK, which Enzyme cannot pass, and its derivative A⁻¹ (dB − dA X) by products, which it can.
    a, b = values
    fixed, right = (stop_gradient(v) if flag else v for v, flag in zip(values, active, strict=True))
    params = equation.params
    solved = bind(equation, [fixed, right])[0]
    identity = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    inverse = bind(equation, [fixed, identity])[0]
    change = _zero_that_moves(b, right) if active[1] else jnp.zeros_like(right)
    if active[0]:
        triangle, beside = (jnp.tril, -1) if params["lower"] else (jnp.triu, 1)
        da = triangle(_zero_that_moves(a, fixed), beside * int(params["unit_diagonal"]))
        da = jnp.swapaxes(da, -1, -2) if params["transpose_a"] else da
        change = change - (da @ solved if params["left_side"] else solved @ da)
    return carrying([solved + (inverse @ change if params["left_side"] else change @ inverse)])


def _linear_solve(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    lengths = equation.params["const_lengths"]
    constants = sum(lengths)
    if any(active[:constants]):
        return rewriter.imported(equation, values, active)
    start = lengths.matvec + lengths.vecmat
    inputs = [*values[start : start + lengths.solve], *values[constants:]]
    return rewriter.run(equation.params["jaxprs"].solve, inputs, [*[False] * lengths.solve, *active[constants:]])


def _scan(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    fixed, carried = scan_operands(equation)
    body = equation.params["jaxpr"]
    # Which carried values come to carry a derivative is found by going round until nothing changes.
    flags = list(active)
    while True:
        rewritten, results = rewriter.closed(body, flags)
        after = [a or b for a, b in zip(flags[fixed : fixed + carried], results[:carried], strict=True)]
        if after == flags[fixed : fixed + carried]:
            return _rebound(equation, values, {"jaxpr": rewritten}), [*after, *results[carried:]]
        flags[fixed : fixed + carried] = after


def _while(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    if rewriter.reverse:
        raise DifferentiationError(
            f"{rewriter.adtype} cannot pass `lax.while_loop` (or a `fori_loop` with a dynamic trip count) in reverse: "
            f"use adtype=AutoEnzymeForward() or AutoForward(), or write the loop as `lax.scan`"
        )
    if rewriter.inside:  # a linear program must not stop early because its argument is zero
        raise rewriter.refusal("while")
    params = equation.params
    tested, fixed = params["cond_nconsts"], params["body_nconsts"]
    flags = active[tested:]
    while True:
        rewritten, results = rewriter.closed(params["body_jaxpr"], flags)
        after = [a or b for a, b in zip(flags[fixed:], results, strict=True)]
        if after == flags[fixed:]:
            return _rebound(equation, values, {"body_jaxpr": rewritten}), after
        flags[fixed:] = after


def _cond(rewriter: Rewriter, equation: Any, values: list[Any], active: list[bool]) -> Results:
    branches = [rewriter.closed(branch, active[1:]) for branch in equation.params["branches"]]
    flags = [any(outcome) for outcome in zip(*(flags for _, flags in branches), strict=True)]
    return _rebound(equation, values, {"branches": tuple(branch for branch, _ in branches)}), flags


_RULES = {
    "clamp": _clamp,
    "cond": _cond,
    "cumsum": _cumsum,
    "custom_linear_solve": _linear_solve,
    "div": _div,
    "gather": _gather,
    "scan": _scan,
    "scatter": _scatter,
    "scatter-add": _scatter_add,
    "sqrt": _sqrt,
    "stop_gradient": _stop_gradient,
    "triangular_solve": _triangular_solve,
    "while": _while,
}


def _rebound(equation: Any, values: list[Any], programs: dict[str, Any]) -> list[Any]:
    results: list[Any] = equation.primitive.bind(*values, **{**equation.params, **programs})
    return results
