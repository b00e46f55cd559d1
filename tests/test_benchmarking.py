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
from dualtape.ad import AbstractReverseBackend, AutoForward, AutoReverse, DifferentiationError
from dualtape.ad import __main__ as program
from dualtape.ad.measuring.benchmarking import benchmark_gradients, measure_gradients
from dualtape.ad.measuring.results import Cell, GradientBenchmark, Outcome, geometric_mean, memory
from dualtape.ad.measuring.timing import Timing
from dualtape.ad.measuring.usual import BASELINE, usual_backends
from dualtape.ad.naming import duration, storage, written
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
        (lambda: gradients.benchmark_gradients(coin), "has no data yet"),
        (lambda: gradients.benchmark_gradients(coin(1), 1.0), "x is a dict from site names"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


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
    assert (tmp_path / "boxes.png").read_bytes().startswith(b"\x89PNG")
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
    for text in ("jax " + jax.__version__, "2/2", "AutoReverse() refuses 1 by name: loop", "over the best backend"):
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
        (["--backends", "AutoNone()"], r"unknown backend 'AutoNone\(\)'; choose from AutoForward\(\), AutoReverse\(\)"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(program, "catalogue", lambda: (SMOOTH, LOOP))
    with pytest.raises(SystemExit):
        program.main(arguments)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_the_usual_backends_start_with_the_baseline():
    assert usual_backends()[:2] == (BASELINE, AutoReverse())
    assert len({written(backend) for backend in usual_backends()}) == len(usual_backends())


def test_figures_are_written_in_the_unit_that_suits_them():
    assert [duration(s) for s in (2.5, 1.234e-3, 5e-6, 1.5e-9)] == ["2.5 s", "1.23 ms", "5 us", "1.5 ns"]
    assert [storage(b) for b in (17, 1234, 5e6, 2e9)] == ["17 B", "1.23 kB", "5 MB", "2 GB"]
    assert written(AutoForward(chunk_size=3)) == "AutoForward(chunk_size=3)"
