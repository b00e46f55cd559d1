"""Automatic differentiation with a choice: every function, and every block of a model, picks its own mode.

An *adtype* is a frozen value that says how to differentiate::

    from dualtape.ad import AutoForward, AutoReverse, prepare_gradient, value_and_gradient

    value, gradient = value_and_gradient(f, AutoForward(), x)

    prepared = prepare_gradient(f, AutoReverse(), x)        # traces and checks once
    value, gradient = prepared.value_and_gradient(x)        # usable inside jit, vmap, scan and while_loop

A backend owes one of two primitives, a *pushforward* (Jacobian times tangents, forward mode) or a *pullback*
(cotangent times Jacobian, reverse mode); everything else is derived from them once. A rule such as
`AutoByDimension` picks a backend for the function at hand and says why.

This layer knows JAX alone, neither samplers nor models.
"""

from .adtypes import (
    AbstractADType,
    AbstractBackend,
    AbstractForwardBackend,
    AbstractReverseBackend,
    AbstractRule,
    Choice,
)
from .errors import DifferentiationError, PreparationError
from .forward import AutoForward
from .gradient import PreparedGradient, prepare_gradient, value_and_gradient
from .reverse import AutoReverse
from .routing import AutoByDimension, current_adtype, default_adtype, set_default_adtype

__all__ = [
    "AbstractADType",
    "AbstractBackend",
    "AbstractForwardBackend",
    "AbstractReverseBackend",
    "AbstractRule",
    "AutoByDimension",
    "AutoForward",
    "AutoReverse",
    "Choice",
    "DifferentiationError",
    "PreparationError",
    "PreparedGradient",
    "current_adtype",
    "default_adtype",
    "prepare_gradient",
    "set_default_adtype",
    "value_and_gradient",
]
