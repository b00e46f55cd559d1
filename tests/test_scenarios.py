"""The catalogue of gradient scenarios: every cell of scenario, backend and precision is correct or a named error."""

import dataclasses
import functools
import os
from collections import Counter

import jax
import numpy as np
import pytest
from dualtape.ad import AutoForward, AutoReverse
from dualtape.ad.errors import DifferentiationError
from dualtape.ad.gradient import prepare_gradient
from dualtape.ad.measuring.verdicts import Verdict
from dualtape.ad.scenarios import catalogue
from dualtape.ad.scenarios.reference import Refusal, judge, reference_gradient, try_adtype
from dualtape.ad.scenarios.scenario import cast, exact

BACKENDS = (AutoForward(), AutoForward(chunk_size=1), AutoReverse())
FORWARD, REVERSE = BACKENDS[:2], BACKENDS[2:]
DTYPES = (np.float64, np.float32)

# Which backends refuse which scenario, and a word of the message. Whatever else is refused is a step back.
REFUSALS = {
    "fori_loop, dynamic": (REVERSE, "while_loop"),
    "newton": (REVERSE, "while_loop"),
    "odeint": (FORWARD, "custom_vjp"),
    "custom_vjp": (FORWARD, "custom_vjp"),
    "betainc in its shapes": (BACKENDS, "betainc"),
}
# Where JAX's own rules give NaN or infinity though the function has a derivative: backends and precisions.
NOT_FINITE = {
    "quotient of small numbers": (BACKENDS, (np.float32,)),
}

# Compiling every cell takes minutes. Without DUALTAPE_ALL_SCENARIOS these are the traps, those of the tables above, and
# every fourth of the others (of the censored delays, which take longest, every tenth).
ALL = catalogue()
NAMES = [
    s.name
    for i, s in enumerate(ALL)
    if i % (10 if s.family == "censored delays" else 4) == 0
    or s.family == "traps"
    or s.name in (*REFUSALS, *NOT_FINITE, "missing values", "maximum of nothing", "single precision result")
    or "DUALTAPE_ALL_SCENARIOS" in os.environ
]
SCENARIOS = {s.name: s for s in ALL}
CELLS = [(name, dtype) for name in NAMES for dtype in SCENARIOS[name].dtypes]
# The numbers need no optimised code, and it takes longest.
FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def reference(name):
    return reference_gradient(SCENARIOS[name])


@pytest.mark.parametrize(("name", "dtype"), CELLS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_every_cell_is_correct_or_a_named_error(name, dtype):
    scenario = cast(SCENARIOS[name], dtype)
    prepared, refused = {}, {}
    with jax.enable_x64(dtype is np.float64):
        for adtype in BACKENDS:
            try:
                prepared[adtype] = prepare_gradient(scenario.f, adtype, scenario.elsewhere, *scenario.constants)
            except DifferentiationError as error:
                refused[adtype] = str(error)

        def all_of_them(x, *constants):  # one compilation for all backends
            return [one.value_and_gradient(x, *constants) for one in prepared.values()]

        results = jax.jit(all_of_them, compiler_options=FAST_COMPILATION)(scenario.x, *scenario.constants)

    expected_refusals, word = REFUSALS.get(name, ((), ""))
    assert tuple(refused) == expected_refusals, refused
    assert all(word in message for message in refused.values())
    for adtype, (value, gradient) in zip(prepared, results, strict=True):
        assert jax.tree.structure(gradient) == jax.tree.structure(scenario.x)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} <= {np.dtype(dtype)}
        judgement = judge(reference(name), value, gradient, dtype)
        modes, precisions = NOT_FINITE.get(name, ((), ()))
        expected = Verdict.NOT_FINITE if adtype in modes and dtype in precisions else Verdict.CORRECT
        assert judgement.verdict is expected, f"{adtype!r}: {judgement}"


@pytest.mark.parametrize("name", NAMES)
def test_the_yardstick_is_sharp(name):
    """Its own error is far below what it lets pass, so that no cell is decided by a blunt yardstick."""
    found = reference(name)
    assert np.isfinite(found.value)
    assert np.isfinite(found.gradient).all()
    assert (found.error <= 1e-8 * np.max(np.abs(found.gradient), initial=0.0)).all()


@pytest.mark.parametrize("name", ["logit likelihood 500 x 3", "funnel", "log determinant", "random walk", "bessel"])
def test_closed_forms_agree_with_finite_differences(name):
    by_differences = reference_gradient(dataclasses.replace(SCENARIOS[name], value=None, gradient=None))
    closed = SCENARIOS[name].gradient
    assert judge(by_differences, by_differences.value, closed, np.float64).verdict is Verdict.CORRECT


@pytest.mark.parametrize("delay", ["gamma", "lognormal", "weibull"])
@pytest.mark.parametrize("kind", ["primary, uniform, {}", "double interval, uniform, {}", "primary, {}, 32"])
def test_closed_forms_of_censoring_agree_with_quadrature(delay, kind):
    analytic, numeric = (SCENARIOS[f"{delay}, {kind.format(form)}"] for form in ("analytic", "quadrature"))
    values = [float(jax.jit(s.f, compiler_options=FAST_COMPILATION)(s.x, *s.constants)) for s in (analytic, numeric)]
    np.testing.assert_allclose(*values, rtol=1e-5)


def test_the_catalogue_is_what_it_should_be():
    assert max(Counter(s.name for s in ALL).values()) == 1
    assert len(ALL) >= 75
    assert len(NAMES) >= 60
    assert sum(s.gradient is not None for s in ALL) >= 20
    assert sum(s.family == "censored delays" for s in ALL) == 28
    assert all(s.special for s in ALL)


@pytest.mark.parametrize("scenario", ALL, ids=lambda s: s.name)
def test_a_scenario_is_posed_alike_in_both_precisions(scenario):
    posed = jax.tree.structure(scenario.x)
    assert jax.tree.structure(scenario.elsewhere) == posed
    if scenario.gradient is not None:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(scenario.x)]
        assert sum(np.prod(shape, dtype=int) for shape in shapes) == sum(
            np.size(leaf) for leaf in jax.tree.leaves(scenario.gradient)
        )
    for leaf in map(np.asarray, jax.tree.leaves((scenario.x, scenario.elsewhere, scenario.constants))):
        if leaf.dtype == np.float64 and np.float32 in scenario.dtypes:
            np.testing.assert_array_equal(leaf, exact(leaf))
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(scenario.x), jax.tree.leaves(scenario.elsewhere), strict=True)
    ) or all(np.size(leaf) == 0 for leaf in jax.tree.leaves(scenario.x))


def test_a_scenario_that_single_precision_cannot_hold_says_so():
    with pytest.raises(ValueError, match=r"'tiny numbers' cannot be posed in float32.*float64"):
        cast(SCENARIOS["tiny numbers"], np.float32)


@pytest.mark.parametrize(
    ("spoil", "dtype", "verdict"),
    [
        (lambda g: g, np.float64, Verdict.CORRECT),
        (lambda g: g * (1.0 + 1e-4), np.float64, Verdict.WRONG),
        (lambda g: g * (1.0 + 1e-4), np.float32, Verdict.CORRECT),  # what single precision may be off by
        (lambda g: g * (1.0 + 1e-2), np.float32, Verdict.WRONG),
        (lambda g: np.append(g[:-1], 0.0), np.float64, Verdict.WRONG),
        (lambda g: np.append(g[:-1], np.nan), np.float32, Verdict.NOT_FINITE),
        (lambda g: np.append(g[:-1], np.inf), np.float64, Verdict.NOT_FINITE),
        (lambda g: g[:-1], np.float64, Verdict.WRONG),
    ],
)
@pytest.mark.parametrize("name", ["poisson 100 x 5", "radon"])
def test_a_wrong_gradient_is_found(name, spoil, dtype, verdict):
    expected = reference(name)
    assert judge(expected, expected.value, spoil(expected.gradient), dtype).verdict is verdict
    assert judge(expected, 1.01 * expected.value, expected.gradient, dtype).verdict is Verdict.WRONG


def test_one_cell_by_itself():
    scenario = SCENARIOS["newton"]
    assert try_adtype(scenario, AutoForward(), np.float32).verdict is Verdict.CORRECT
    refusal = try_adtype(scenario, AutoReverse(), np.float64)
    assert isinstance(refusal, Refusal)
    assert "AutoForward()" in refusal.reason
