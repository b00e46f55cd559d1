"""The progress display: what it says, and that it is silent where nobody looks."""

import io

import pytest
from dualtape import sample
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_noncentered
from dualtape.samplers.nuts import NUTS
from dualtape.samplers.progress import Display, Silent, display
from rich.console import Console

SHORT = {"draws": 20, "warmup": 20, "chains": 2, "seed": 1}
STEADY = NUTS(target_acceptance=0.99, step_size=0.1)


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)


def lines(console):
    return [line for line in console.file.getvalue().replace("\r", "\n").split("\n") if "chain" in line]


def test_it_names_phase_chain_divergences_and_step_size(screen):
    with Display(2, 100, 200, screen) as shown:
        shown.compiling()
        shown._progress.refresh()
        assert "compiling" in lines(screen)[-1]
        shown.update(0, "warm-up", 50, 3, 0.25)
        shown.update(1, "sampling", 150, 7, 0.125)
        shown._progress.refresh()
    first, second = lines(screen)[-2:]
    assert "chain 0" in first
    for text in ("warm-up", "50/100", "3 divergences", "step size 0.25"):
        assert text in first
    for text in ("chain 1", "sampling", "150/200", "7 divergences", "step size 0.125"):
        assert text in second


def test_the_compiling_line_goes_when_sampling_starts(screen):
    with Display(1, 10, 10, screen) as shown:
        shown.compiling()
        shown.update(0, "warm-up", 5, 0, 0.1)
    assert "compiling" not in lines(screen)[-1]


def test_silence_without_a_terminal(capfd):
    assert isinstance(display(True, 2, 10, 10), Silent)
    assert isinstance(display(False, 2, 10, 10), Silent)
    sample(eight_schools_noncentered(Y, SIGMA), STEADY, **SHORT, progress=True)
    assert capfd.readouterr() == ("", "")


def test_silence_on_request_in_a_terminal(screen, monkeypatch):
    monkeypatch.setattr("rich.console.Console", lambda **_: screen)
    sample(eight_schools_noncentered(Y, SIGMA), STEADY, **SHORT, progress=False)
    assert screen.file.getvalue() == ""
    sample(eight_schools_noncentered(Y, SIGMA), STEADY, **SHORT, progress=True)
    last = lines(screen)[-2:]
    assert [f"chain {i} sampling" in line and "20/20" in line for i, line in enumerate(last)] == [True, True]


def test_the_display_does_not_change_the_draws(screen, monkeypatch):
    quiet = sample(eight_schools_noncentered(Y, SIGMA), STEADY, **SHORT, progress=False)
    monkeypatch.setattr("rich.console.Console", lambda **_: screen)
    shown = sample(eight_schools_noncentered(Y, SIGMA), STEADY, **SHORT, progress=True)
    assert (quiet["posterior"]["mu"].values == shown["posterior"]["mu"].values).all()
