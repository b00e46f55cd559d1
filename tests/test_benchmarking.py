"""The benchmark of gradients: what gets a figure, what does not, the arithmetic of the table, the files."""

import csv
import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import model, rv
from dualtape.ad import (
    AbstractReverseBackend,
    AutoFastest,
    AutoFiniteDiff,
    AutoForward,
    AutoReverse,
    AutoTape,
    CentralDifference,
    DifferentiationError,
    SegmentLoops,
)
from dualtape.ad import __main__ as program
from dualtape.ad.measuring.benchmarking import benchmark_gradients, measure_gradients
from dualtape.ad.measuring.results import Cell, GradientBenchmark, Outcome, geometric_mean, memory
from dualtape.ad.measuring.timing import Timing
from dualtape.ad.measuring.usual import BASELINE, usual_backends
from dualtape.ad.scenarios.scenario import Scenario
from dualtape.ppl import gradients
from jax import lax

BOTH = (AutoForward(), AutoReverse())


@dataclasses.dataclass(frozen=True)
class Bent(AbstractReverseBackend):
    """Reverse mode, with its gradient multiplied; or broken."""

    factor: float = 1.0
    error: Exception | None = None

    def pullback(self, f, x):
        if self.error is not None:
            raise self.error
        value, pull = jax.vjp(f, x)
        return value, lambda c: self.factor * pull(c[0])[0][None]


def endless(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, 1.0))[1]


@dataclasses.dataclass(frozen=True)
class Missing(AbstractReverseBackend):
    """A backend whose package is not installed."""

    def pullback(self, f, x):
        raise DifferentiationError("AutoMissing needs a package; install it")


SMOOTH = Scenario("smooth", "plain", lambda x, c: jnp.sum(jnp.sin(x) * c), np.ones(3), np.zeros(3), "", (np.ones(3),))
LOOP = Scenario("loop", "control flow", endless, 1.5, 1.0, "", (), 1.5**3, 3 * 1.5**2)


def test_a_cell_that_is_not_correct_has_no_figures_and_stops_nothing():
    bad = [Bent(1.01), Bent(np.nan), Bent(error=RuntimeError("no")), Bent(error=DifferentiationError("cannot"))]
    benchmark = measure_gradients([SMOOTH, LOOP], [*BOTH, *bad], repetitions=1, target=0.001)
    cells = {(c.scenario, c.adtype): c for c in benchmark.cells}
    assert len(cells) == 12
    outcomes = [cells["smooth", name].outcome for name in benchmark.adtypes]
    expected = [Outcome.CORRECT, Outcome.CORRECT, Outcome.WRONG, Outcome.WRONG, Outcome.FAILED, Outcome.REFUSED]
    assert outcomes == expected
    detail = cells["smooth", "Bent(factor=1.01)"].detail
    assert detail.startswith("derivative in coordinate 0 is 0.545705329, expected 0.540302306 ± ")
    assert cells["smooth", benchmark.adtypes[4]].detail == "RuntimeError: no"
    assert cells["smooth", benchmark.adtypes[5]].detail == "cannot"
    assert cells["loop", "AutoReverse()"].detail.startswith("reverse mode cannot pass `lax.while_loop`")
    for cell in benchmark.cells:
        assert (cell.timing is not None) == (cell.outcome is Outcome.CORRECT)
        assert cell.timing is None or min(dataclasses.astuple(cell.timing)) > 0
    assert "AutoForward()" in str(benchmark)
    assert "2/2" in str(benchmark)
    assert "Bent(factor=1.01) WRONG on smooth: derivative" in str(benchmark)


def test_a_closed_form_is_the_yardstick_where_there_is_one():
    liar = dataclasses.replace(LOOP, gradient=7.0)
    (cell,) = measure_gradients([liar], [AutoForward()], repetitions=1, target=0.001).cells
    assert cell.outcome is Outcome.WRONG
    assert cell.detail.startswith("derivative in coordinate 0 is 6.75, expected 7 ")
    liar = dataclasses.replace(LOOP, value=7.0)
    (cell,) = measure_gradients([liar], [AutoForward()], repetitions=1, target=0.001).cells
    assert cell.outcome is Outcome.WRONG
    assert cell.detail.startswith("value is 3.375, expected 7 ")


def synthetic(times):
    """A benchmark of two scenarios from microseconds by backend, None for a refusal; memory is twice the time."""
    cells = [
        Cell(name, "family", 2, adtype, Outcome.REFUSED, "why")
        if time is None
        else Cell(name, "family", 2, adtype, Outcome.CORRECT, "", Timing(time * 1e-6, time * 1e-6, 0.5, 2 * time))
        for adtype, row in times.items()
        for name, time in zip(("one", "two"), row, strict=True)
    ]
    return GradientBenchmark(tuple(cells), tuple(times), "AutoForward()")


def test_the_arithmetic_of_the_table():
    benchmark = synthetic(
        {"AutoForward()": (2, 8), "AutoReverse()": (1, 16), "AutoTape()": (None, 80), "None()": (None, None)}
    )
    rows = {row.adtype: row for row in benchmark.summary()}
    assert [row.adtype for row in benchmark.summary()] == ["AutoForward()", "AutoReverse()", "AutoTape()", "None()"]
    np.testing.assert_allclose([rows["AutoReverse()"].time, rows["AutoReverse()"].memory], np.sqrt(0.5 * 2.0))
    assert benchmark.ratios("AutoTape()") == pytest.approx({"two": 10.0})
    assert benchmark.ratios("AutoForward()", memory, over="AutoReverse()") == {"one": 2.0, "two": 0.5}
    assert [rows[name].covered for name in benchmark.adtypes] == [2, 2, 1, 0]
    assert np.isnan(rows["None()"].time)
    lines = str(benchmark).splitlines()
    assert lines[2].split() == ["adtype", "relative", "time", "relative", "memory", "compile", "scenarios"]
    assert lines[5].split() == ["AutoTape()", "10.00", "10.00", "500", "ms", "1/2"]
    assert lines[6].split() == ["None()", "-", "-", "-", "0/2"]
    assert np.isnan(geometric_mean([]))


def test_of_one_function_absolute_figures_are_shown(capsys):
    benchmark = benchmark_gradients(endless, 1.5, adtypes=BOTH)
    printed = capsys.readouterr().out
    assert printed == f"{benchmark}\n"
    assert printed.startswith("Gradients of endless, 1 parameter, relative to AutoForward()")
    assert "AutoReverse() refused on endless: reverse mode cannot pass" in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert (
        benchmark_gradients(endless, 1.5, adtypes=[AutoForward(chunk_size=1)]).baseline == "AutoForward(chunk_size=1)"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: benchmark_gradients(jnp.sin), r"needs a point; write benchmark_gradients\(f, x\)"),
        (lambda: benchmark_gradients(3), "expected a function or scenarios, got 3"),
        (lambda: benchmark_gradients([]), r"expected a function or scenarios, got \[\]"),
        (lambda: benchmark_gradients(jnp.sin, 1.0, adtypes=["forward"]), "adtypes must be an adtype such as"),
        (lambda: benchmark_gradients(jnp.sin, 1.0, adtypes={AutoReverse()}), r"adtypes \(one or a list\) must be an"),
        (lambda: benchmark_gradients(jnp.sin, 1.0, adtypes=AutoReverse), r"write AutoReverse\(\) for a value"),
        (lambda: benchmark_gradients(jnp.sin, np.ones(2)), "^sin: a gradient needs .* got float64.2.; return a scalar"),
        (lambda: benchmark_gradients(jnp.sum, np.arange(2)), "^sum: .* must hold floating-point numbers"),
        (lambda: gradients.benchmark_gradients(coin), "has no data yet"),
        (lambda: gradients.benchmark_gradients(coin(1), 1.0), "x is a dict from site names"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: benchmark_gradients(jnp.log, -1.0), "log is nan at its point; .* Give a point inside the domain"),
        (
            lambda: benchmark_gradients(jnp.sin, 1.0, adtypes=[]),
            r"at least one, got \[\]; leave it out for AutoForward",
        ),
        (
            lambda: benchmark_gradients(jnp.sin, 1.0, adtypes=[AutoTape(), AutoTape(compile=False)]),
            r"adtypes must be different adtypes, at least one, got \[AutoTape\(\), AutoTape\(\)\]",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_adtype_needs_no_list():
    assert benchmark_gradients(jnp.sin, 1.0, adtypes=AutoReverse()).adtypes == ("AutoReverse()",)


def test_figures_are_relative_to_a_backend_that_has_some():
    benchmark = measure_gradients([SMOOTH], [Bent(1.01), *BOTH, Bent(1.02)], repetitions=1, target=0.001)
    assert benchmark.baseline == "AutoForward()"
    benchmark = measure_gradients([LOOP], [AutoReverse(), AutoForward(1)], repetitions=1, target=0.001)
    assert benchmark.baseline == "AutoForward(chunk_size=1)"
    assert benchmark.summary()[0].time == 1


def test_what_several_backends_say_is_said_once():
    cells = [Cell("one", "family", 2, name, Outcome.WRONG, "off by a lot") for name in ("AutoA()", "AutoB()")]
    printed = str(GradientBenchmark(tuple(cells), ("AutoA()", "AutoB()"), "AutoA()"))
    assert "- AutoA(), AutoB() WRONG on one: off by a lot\n- check_gradients shows where" in printed


@model
def coin(flips):
    p = rv("p", dist.Beta(2.0, 2.0))
    rv("flips", dist.Bernoulli(p), obs=flips)


def test_a_model_is_measured_in_double_precision():
    with jax.enable_x64(False):
        benchmark = gradients.benchmark_gradients(coin(np.array([1, 0, 1])), {"p": 0.3}, adtypes=BOTH)
    assert [(c.scenario, c.dimension, c.outcome) for c in benchmark.cells] == [("coin", 1, Outcome.CORRECT)] * 2


def test_the_picture(tmp_path, monkeypatch):
    benchmark = synthetic({"AutoForward()": (2, 8), "AutoReverse()": (1, 16), "AutoTape()": (None, 80)})
    benchmark.plot(tmp_path / "boxes.png")
    one = GradientBenchmark(benchmark.cells[:1], benchmark.adtypes, benchmark.baseline)
    one.plot(tmp_path / "points.png")
    for name in ("boxes", "points"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="needs matplotlib, which is not installed: pip install"):
        benchmark.plot(tmp_path / "none.png")


def test_the_program_prints_tables_and_writes_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "catalogue", lambda: (SMOOTH, LOOP))
    status = program.main(
        ["--quick", "--backends", "AutoForward()", "AutoReverse()", "--output", str(tmp_path / "results")]
    )
    printed = capsys.readouterr().out
    assert status == 0
    for text in (
        "jax " + jax.__version__,
        "2/2",
        "AutoReverse() refuses 1 by name: loop",
        "over that of the best backend",
    ):
        assert text in printed
    with (tmp_path / "results" / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = json.loads((tmp_path / "results" / "cells.json").read_text())["cells"]
    assert [r["outcome"] for r in rows] == [r["outcome"] for r in records] == ["correct"] * 3 + ["refused"]
    assert float(rows[0]["seconds"]) == records[0]["seconds"] > 0
    assert "| `AutoForward()` | 1.00 | 1.00 |" in (tmp_path / "results" / "table.md").read_text()
    assert max(len(line) for line in printed.splitlines() if not line.startswith("wrote")) <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "none"], "unknown family 'none'; choose from control flow, plain"),
        (["--scenarios", "none"], "unknown scenario 'none'; choose from loop, smooth"),
        (["--scenarios", "smooth", "--family", "control flow"], "no scenario is both in a family of --family and"),
        (["--backends", "AutoForwrad()"], "unknown adtype 'AutoForwrad'; did you mean 'AutoForward' or"),
        (["--family", "plane"], r"unknown family 'plane'; did you mean 'plain'\? choose from control flow, plain"),
        (["--backends", "AutoForward,AutoForward()"], r"must be different adtypes, .*, got \[AutoForward\(\), "),
        (["--backends", "AutoForward(chunk_size=0)"], "AutoForward: chunk_size must be a positive integer or None"),
        (["--backends", "AutoForward(size=1)"], "unexpected keyword argument 'size'"),
        (["--backends", "Ridders"], r"must be an adtype such as .*, got Ridders\(\)"),
        (["--backends", "3"], r"expected names such as AutoForward or AutoForward\(chunk_size=1\), got '3'"),
        (["--backends", "AutoMissing"], "AutoMissing needs a package; install it"),
        (["--limit", "-1"], "--limit: must be a positive number of seconds, got -1; the default is 60"),
        (["--limit", "0"], "--limit: must be a positive number of seconds, got 0"),
        (["--limit", "soon"], "--limit: must be a positive number of seconds, got soon"),
        (["--output", __file__], "--output: .* cannot be a folder: File exists; name another one"),
    ],
)
def test_the_command_line_is_refused_before_anything_is_measured(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(program.ad, "AutoMissing", Missing, raising=False)
    monkeypatch.setattr(program.ad, "__all__", [*program.ad.__all__, "AutoMissing"])
    monkeypatch.setattr(program, "catalogue", lambda: (SMOOTH, LOOP))
    monkeypatch.setattr(program, "measure_gradients", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(SystemExit):
        program.main(arguments)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["AutoForward", "AutoReverse()"], BOTH),
        (["AutoForward,AutoReverse()"], BOTH),
        (["AutoForward(),", "AutoReverse"], BOTH),
        (["AutoForward(chunk_size=1), AutoForward(2)"], (AutoForward(1), AutoForward(2))),
        (["AutoFiniteDiff(scheme=CentralDifference(4))"], (AutoFiniteDiff(CentralDifference(4)),)),
        (["AutoReverse(remat=SegmentLoops)"], (AutoReverse(SegmentLoops()),)),
        (["AutoFastest((AutoForward(), AutoReverse))"], (AutoFastest(BOTH),)),
    ],
)
def test_backends_on_the_command_line(words, expected, monkeypatch):
    asked = []

    def ask(scenarios, adtypes, **options):
        asked.append(adtypes)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "measure_gradients", ask)
    monkeypatch.setattr(program, "catalogue", lambda: (SMOOTH, LOOP))
    program.main(["--backends", *words])
    assert asked == [expected]


def test_the_program_lists_scenarios_and_families(monkeypatch, capsys):
    monkeypatch.setattr(program, "catalogue", lambda: (dataclasses.replace(SMOOTH, special="no corners"), LOOP))
    assert program.main(["--list", "--family", "plain"]) == 0
    assert capsys.readouterr().out == "plain\n  smooth (3 parameters): no corners\n"
    with pytest.raises(SystemExit):
        program.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "families: plain (1), control flow (1). backends: AutoForward(), AutoReverse()" in printed
    assert "eleven minutes" in " ".join(printed.split())


def test_an_interrupted_program_says_so(monkeypatch, capsys):
    def interrupt(scenario):
        if scenario is LOOP:
            raise KeyboardInterrupt

    monkeypatch.setattr(program, "catalogue", lambda: (SMOOTH, LOOP))
    monkeypatch.setattr(program._Progress, "show", lambda self, scenario: interrupt(scenario))
    assert program.main(["--quick", "--backends", "AutoReverse"]) == 0
    assert "s in all, interrupted after 1 of 2 scenarios" in capsys.readouterr().out
    assert program.main(["--quick", "--scenarios", "loop"]) == 130
    assert "interrupted before the first scenario" in capsys.readouterr().err


def test_progress_is_a_line_a_family_where_there_is_no_terminal(capsys):
    progress = program._Progress((SMOOTH, SMOOTH, LOOP))
    for scenario in (SMOOTH, SMOOTH, LOOP):
        progress.show(scenario)
    progress.clear()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["plain: 2 scenarios (0 of 3 done in 0 s)", "control flow: 1 scenario (2 of 3 done in 0 s)"]


def test_the_usual_backends_start_with_the_baseline():
    assert usual_backends()[:2] == (BASELINE, AutoReverse())
    assert len({repr(backend) for backend in usual_backends()}) == len(usual_backends())
