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

from typing import TYPE_CHECKING

from .lazy import import_lazily

if TYPE_CHECKING:
    from .adtypes import (
        AbstractADType,
        AbstractBackend,
        AbstractForwardBackend,
        AbstractReverseBackend,
        AbstractRule,
        Choice,
        Measurement,
    )
    from .black_box import black_box
    from .enzyme.backend import AutoEnzyme, AutoEnzymeForward
    from .errors import DifferentiationError, PreparationError
    from .fastest import AutoFastest
    from .finite_difference import (
        AbstractScheme,
        AutoFiniteDiff,
        CentralDifference,
        ComplexStep,
        ForwardDifference,
        Ridders,
    )
    from .forward import AutoForward
    from .gradient import PreparedGradient, prepare_gradient, value_and_gradient
    from .hessian import (
        PreparedHessian,
        PreparedHVP,
        gradient_and_hvp,
        hessian,
        hvp,
        prepare_hessian,
        prepare_hvp,
        value_gradient_and_hessian,
    )
    from .measuring.benchmarking import benchmark_gradients
    from .measuring.checking import check_gradients
    from .mixed import as_jax_function, differentiate_with
    from .operators import (
        PreparedDerivative,
        PreparedJacobian,
        PreparedPullback,
        PreparedPushforward,
        derivative,
        gradient,
        jacobian,
        prepare_derivative,
        prepare_jacobian,
        prepare_pullback,
        prepare_pushforward,
        pullback,
        pushforward,
        value_and_derivative,
        value_and_jacobian,
        value_and_pullback,
        value_and_pushforward,
    )
    from .reverse import AutoReverse, RecomputeLoops, SegmentLoops
    from .routing import AutoByDimension, current_adtype, default_adtype, set_default_adtype
    from .rules import Rule, elementwise_rule, register_rule
    from .second_order import SecondOrder
    from .sparse import AutoSparse
    from .symbolic.backend import AutoSymbolic
    from .tape import AutoTape
    from .taylor import taylor

__all__ = [
    "AbstractADType",
    "AbstractBackend",
    "AbstractForwardBackend",
    "AbstractReverseBackend",
    "AbstractRule",
    "AbstractScheme",
    "AutoByDimension",
    "AutoEnzyme",
    "AutoEnzymeForward",
    "AutoFastest",
    "AutoFiniteDiff",
    "AutoForward",
    "AutoReverse",
    "AutoSparse",
    "AutoSymbolic",
    "AutoTape",
    "CentralDifference",
    "Choice",
    "ComplexStep",
    "DifferentiationError",
    "ForwardDifference",
    "Measurement",
    "PreparationError",
    "PreparedDerivative",
    "PreparedGradient",
    "PreparedHVP",
    "PreparedHessian",
    "PreparedJacobian",
    "PreparedPullback",
    "PreparedPushforward",
    "RecomputeLoops",
    "Ridders",
    "Rule",
    "SecondOrder",
    "SegmentLoops",
    "as_jax_function",
    "benchmark_gradients",
    "black_box",
    "check_gradients",
    "current_adtype",
    "default_adtype",
    "derivative",
    "differentiate_with",
    "elementwise_rule",
    "gradient",
    "gradient_and_hvp",
    "hessian",
    "hvp",
    "jacobian",
    "prepare_derivative",
    "prepare_gradient",
    "prepare_hessian",
    "prepare_hvp",
    "prepare_jacobian",
    "prepare_pullback",
    "prepare_pushforward",
    "pullback",
    "pushforward",
    "register_rule",
    "set_default_adtype",
    "taylor",
    "value_and_derivative",
    "value_and_gradient",
    "value_and_jacobian",
    "value_and_pullback",
    "value_and_pushforward",
    "value_gradient_and_hessian",
]

import_lazily(
    __name__,
    {
        "adtypes": (
            "AbstractADType",
            "AbstractBackend",
            "AbstractForwardBackend",
            "AbstractReverseBackend",
            "AbstractRule",
            "Choice",
            "Measurement",
        ),
        "black_box": ("black_box",),
        "enzyme.backend": (
            "AutoEnzyme",
            "AutoEnzymeForward",
        ),
        "errors": (
            "DifferentiationError",
            "PreparationError",
        ),
        "fastest": ("AutoFastest",),
        "finite_difference": (
            "AbstractScheme",
            "AutoFiniteDiff",
            "CentralDifference",
            "ComplexStep",
            "ForwardDifference",
            "Ridders",
        ),
        "forward": ("AutoForward",),
        "gradient": (
            "PreparedGradient",
            "prepare_gradient",
            "value_and_gradient",
        ),
        "hessian": (
            "PreparedHessian",
            "PreparedHVP",
            "gradient_and_hvp",
            "hessian",
            "hvp",
            "prepare_hessian",
            "prepare_hvp",
            "value_gradient_and_hessian",
        ),
        "measuring.benchmarking": ("benchmark_gradients",),
        "measuring.checking": ("check_gradients",),
        "mixed": (
            "as_jax_function",
            "differentiate_with",
        ),
        "operators": (
            "PreparedDerivative",
            "PreparedJacobian",
            "PreparedPullback",
            "PreparedPushforward",
            "derivative",
            "gradient",
            "jacobian",
            "prepare_derivative",
            "prepare_jacobian",
            "prepare_pullback",
            "prepare_pushforward",
            "pullback",
            "pushforward",
            "value_and_derivative",
            "value_and_jacobian",
            "value_and_pullback",
            "value_and_pushforward",
        ),
        "reverse": (
            "AutoReverse",
            "RecomputeLoops",
            "SegmentLoops",
        ),
        "routing": (
            "AutoByDimension",
            "current_adtype",
            "default_adtype",
            "set_default_adtype",
        ),
        "rules": (
            "Rule",
            "elementwise_rule",
            "register_rule",
        ),
        "second_order": ("SecondOrder",),
        "sparse": ("AutoSparse",),
        "symbolic.backend": ("AutoSymbolic",),
        "tape": ("AutoTape",),
        "taylor": ("taylor",),
    },
)
