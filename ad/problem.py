"""A derivative of any kind as a problem to choose an adtype for, and prepared: traced and checked once.

Every operator (`operators`, `hessian`, `sparse`) is one function *derive*, from the adtype that differentiates to the
function that evaluates value and derivative. What is common to them stands here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp

from .adtypes import (
    AbstractADType,
    AbstractRule,
    Backend,
    Choice,
    check_adtype,
)
from .errors import NEEDS_NUMBERS, DifferentiationError, explain
from .host import at_numbers
from .preparation import Signature, check_arrays, check_differentiable, described, shapes_of, traced
from .routing import current_adtype


class Differentiator(Protocol):
    """A backend, or a `SecondOrder` or `AutoSparse` of backends."""

    @property
    def traced(self) -> bool:
        """See `AbstractBackend`."""

    def __hash__(self) -> int: ...


Method = TypeVar("Method", bound=Differentiator)
P = TypeVar("P", bound="Prepared")


@dataclass(frozen=True)
class Prepared:
    """A derivative traced and checked for arguments of one structure, shape and dtype.

    It can be called inside `jit`, `vmap`, `scan` and `while_loop`.

    Args:
        adtype: what differentiates: a backend, or a `SecondOrder` or `AutoSparse` of backends; never another rule.
        choice: the backend that evaluates the function, and the reason for it.
        signature: what it was prepared for.
    """

    # What stands between `x` and the constants in a call, for messages.
    directions: ClassVar[tuple[str, ...]] = ()

    adtype: Differentiator
    choice: Choice
    signature: Signature
    _call: Callable[..., Any]

    def _evaluate(self, x: Any, *rest: Any) -> Any:
        self.signature.check(signature_of(self.directions, x, *rest))
        return self._call(x, *rest)


@dataclass(frozen=True)
class DerivativeProblem(Generic[Method]):
    """A derivative to choose an adtype for; with backends for adtypes it implements `Problem`.

    Args:
        derive: from an adtype that differentiates to the derivative, a function of `arguments`.
        subject: what to call the function in messages.
        arguments: `(x, *directions, *constants)`, arrays or shapes.
        runs_itself: whether the function can be traced even where a backend would run it anew on every call.
    """

    derive: Callable[[Method], Callable[..., Any]]
    subject: str
    arguments: tuple[Any, ...]
    runs_itself: bool = False
    _attempts: dict[Method, Callable[..., Any] | DifferentiationError] = field(default_factory=dict)

    @property
    def dimension(self) -> int:
        """See `Problem.dimension`."""
        return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(self.arguments[0])))

    def supported(self, backend: Method) -> bool:
        """See `Problem.supported`."""
        return not isinstance(self._attempt(backend), DifferentiationError)

    def evaluator(self, backend: Method) -> Callable[..., Any]:
        """See `Problem.evaluator`.

        Raises:
            DifferentiationError: if `backend` is not supported; where others were tried too, with their reasons.
        """
        attempt = self._attempt(backend)
        if not isinstance(attempt, DifferentiationError):
            return attempt
        refusals = [str(each) for each in self._attempts.values() if isinstance(each, DifferentiationError)]
        reasons = list(dict.fromkeys(refusals))
        if len(reasons) > 1:
            raise DifferentiationError("neither mode can differentiate it. " + " And: ".join(reasons))
        raise attempt

    def _attempt(self, method: Method) -> Callable[..., Any] | DifferentiationError:
        if method not in self._attempts:
            try:
                derivative = self.derive(method)
                if not (method.traced or self.runs_itself):
                    derivative = run_at_numbers(self._named(derivative), self.arguments)
                self._attempts[method] = traced(derivative, self.arguments)
            except Exception as error:
                named = explain(error, self.subject)
                if named is None:
                    raise
                self._attempts[method] = named
        return self._attempts[method]

    def _named(self, derivative: Callable[..., Any]) -> Callable[..., Any]:
        """The derivative with the subject in the errors that it raises when it is called."""

        def call(*arguments: Any) -> Any:
            try:
                return derivative(*arguments)
            except DifferentiationError as error:
                raise DifferentiationError(f"{self.subject}: {error}") from error

        return call

    def prepared(self, kind: type[P], method: Method, choice: Choice) -> P:
        """The derivative by `method`, checked and ready to be called.

        Raises:
            DifferentiationError: as `evaluator`.
        """
        call = jax.jit(self.evaluator(method), inline=True)
        return kind(method, choice, signature_of(kind.directions, *self.arguments), call)


def run_at_numbers(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
    """The function as one operation of a traced program that runs it anew, at numbers, on every call.

    Args:
        function: of arrays or pytrees of them; what it returns for other numbers has the same shapes.
        arguments: arrays or shapes.
    """
    shapes = shapes_of(tuple(arguments))
    try:
        result = jax.eval_shape(function, *shapes)
    except (*NEEDS_NUMBERS, DifferentiationError):  # the shapes of its result show when it runs, at whatever numbers
        with jax.ensure_compile_time_eval():
            result = shapes_of(function(*jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)))
    return functools.partial(at_numbers, function, result)


def resolve(adtype: AbstractADType | None) -> Backend | AbstractRule:
    """The adtype itself, or the default where it is None; TypeError on anything else."""
    return current_adtype() if adtype is None else check_adtype(adtype)


def prepare(kind: type[P], problem: DerivativeProblem[Backend], adtype: AbstractADType | None) -> P:
    """A first derivative by the backend that was asked for, or that a rule picks for the problem."""
    rule = resolve(adtype)
    choice = rule.choose(problem) if isinstance(rule, AbstractRule) else Choice(rule, "requested")
    return problem.prepared(kind, choice.backend, choice)


def check_callable(f: object, order: str) -> None:
    """Raise TypeError unless `f` can be called; `order` is how the arguments of the operator go."""
    if not callable(f):
        raise TypeError(
            f"what is differentiated must be a function f(x, *constants), got {f!r}; "
            f"the order of the arguments is {order}."
        )


def name_of(f: Callable[..., Any], x: Any, constants: tuple[Any, ...] = (), subject: str | None = None) -> str:
    """What to call `f` in messages, after a check that it is a function, of an `x` that can be differentiated.

    Args:
        f: the function, `f(x, *constants)`.
        x: its differentiated argument.
        constants: further arguments.
        subject: what the user calls it; None means the function's own name.

    Raises:
        TypeError: if `f` cannot be called, `x` is not floating point, or a constant is no array.
    """
    check_callable(f, "f, adtype, x, *constants")
    name = subject or str(getattr(f, "__name__", "the function"))
    check_differentiable(x, name)
    for place, constant in enumerate(constants, 1):
        check_arrays(constant, f"constant {place}", name)
    return name


def signature_of(directions: tuple[str, ...], x: Any, *rest: Any) -> Signature:
    """The signature of a call `f(x, *directions, *constants)`."""
    leaves = [*Signature.of(x, rest[len(directions) :]).leaves]
    for label, value in zip(directions, rest, strict=False):
        leaves += [(label + path.removeprefix("x"), found) for path, found in Signature.of(value, ()).leaves]
    return Signature(jax.tree.structure((x, *rest)), tuple(leaves))


def check_like(direction: Any, model: Any, label: str, subject: str) -> None:
    """Raise ValueError unless a tangent or cotangent has the structure, shapes and dtypes of its model.

    Args:
        direction: the tangent or cotangent.
        model: `x` or the function's result, arrays or shapes.
        label: what to call them, such as "tangent of x".
        subject: what to call the function.
    """
    expected, got = (str(jax.tree.map(lambda leaf: _Plain(described(leaf)), tree)) for tree in (model, direction))
    if expected != got:
        raise ValueError(
            f"{subject}: the {label} has its structure, shapes and dtypes: expected {expected}, got {got}; "
            f"reshape or convert it to that."
        )


class _Plain(str):
    """Written without quotation marks in lists and dictionaries too."""

    def __repr__(self) -> str:
        return str(self)
