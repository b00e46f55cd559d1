"""How adtypes and quantities are written, and how adtypes are read."""

import dataclasses

import jax
import pytest
from dualtape import ad
from dualtape.ad import (
    AbstractReverseBackend,
    AutoByDimension,
    AutoEnzymeForward,
    AutoFastest,
    AutoFiniteDiff,
    AutoForward,
    AutoReverse,
    AutoSparse,
    AutoSymbolic,
    AutoTape,
    CentralDifference,
    RecomputeLoops,
    Ridders,
    SecondOrder,
    SegmentLoops,
)
from dualtape.ad.naming import WIDTH, duration, item, ratio, read, storage

CLASSES = {name: getattr(ad, name) for name in ad.__all__}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (AutoForward(), "AutoForward()"),
        (AutoForward(1), "AutoForward(chunk_size=1)"),
        (AutoReverse(SegmentLoops(3)), "AutoReverse(remat=SegmentLoops(length=3))"),
        (AutoTape(compile=True), "AutoTape(compile=True)"),
        (AutoEnzymeForward(2), "AutoEnzymeForward(chunk_size=2)"),
        (AutoSymbolic(), "AutoSymbolic()"),
        (AutoFiniteDiff(Ridders(), 0.5), "AutoFiniteDiff(typical_size=0.5)"),
        (AutoFiniteDiff(CentralDifference(6)), "AutoFiniteDiff(scheme=CentralDifference(order=6))"),
        (AutoByDimension(above=AutoForward(8)), "AutoByDimension(above=AutoForward(chunk_size=8))"),
        (AutoFastest((AutoForward(), AutoTape())), "AutoFastest(candidates=(AutoForward(), AutoTape()))"),
        (SecondOrder(AutoForward(), AutoReverse()), "SecondOrder(outer=AutoForward(), inner=AutoReverse())"),
        (AutoSparse(AutoReverse()), "AutoSparse(adtype=AutoReverse())"),
    ],
)
def test_an_adtype_is_shown_as_it_is_written(value, shown):
    assert repr(value) == str(value) == f"{value}" == shown
    assert eval(shown, dict(CLASSES)) == value
    assert read(shown, CLASSES) == (value,)


def test_a_policy_is_shown_by_its_name():
    shown = repr(AutoReverse(RecomputeLoops(jax.checkpoint_policies.everything_saveable)))
    assert shown == "AutoReverse(remat=RecomputeLoops(policy=everything_saveable))"


@dataclasses.dataclass(frozen=True)
class AutoMine(AbstractReverseBackend):
    """A backend of a user, with a field that must be given and a default that is made anew."""

    depth: int
    names: list = dataclasses.field(default_factory=list)

    def pullback(self, f, x):
        return f(x), None


@dataclasses.dataclass(frozen=True)
class AutoNamed(AutoMine):
    """One that says itself how it is shown."""

    def __repr__(self):
        return "mine"


@dataclasses.dataclass(frozen=True)
class AutoHeir(AutoNamed):
    """One that inherits it."""


def test_backends_of_users_are_shown_alike_unless_they_say_otherwise():
    assert repr(AutoMine(3)) == "AutoMine(depth=3)"
    assert repr(AutoMine(3, ["a"])) == "AutoMine(depth=3, names=['a'])"
    assert [repr(AutoNamed(3)), repr(AutoHeir(3))] == ["mine", "mine"]


def test_several_adtypes_are_read_from_one_text():
    assert read("AutoForward, AutoReverse(None)", CLASSES) == (
        AutoForward(),
        AutoReverse(),
    )


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "expected names such as AutoForward .*, got ''"),
        ("AutoForward(", ValueError, r"got 'AutoForward\('"),
        ("AutoForward), (AutoReverse", ValueError, "expected names"),
        ("AutoForward(chunk_size=1 + 1)", ValueError, "got '1 \\+ 1'"),
        ("AutoForward().mode", ValueError, "got 'AutoForward\\(\\).mode'"),
        ("ad.AutoForward()", ValueError, "got 'ad.AutoForward\\(\\)'"),
        ("[AutoForward() for _ in 'ab']", ValueError, "expected names"),
        ("'AutoForward()'", ValueError, "expected names"),
        ("exit()", KeyError, "exit"),
        ("AutoForward(chunk_size=0)", ValueError, "AutoForward: chunk_size must be a positive integer"),
        ("AutoForward(**{'chunk_size': 1})", TypeError, "unexpected keyword"),
    ],
)
def test_nothing_else_is_read(text, error, message):
    with pytest.raises(error, match=message):
        read(text, CLASSES)


def test_figures_are_written_in_the_unit_that_suits_them():
    assert [duration(s) for s in (2.5, 1.234e-3, 5e-6, 1.5e-9)] == ["2.5 s", "1.23 ms", "5 us", "1.5 ns"]
    assert [storage(b) for b in (17, 1234, 5e6, 2e9)] == ["17 B", "1.23 kB", "5 MB", "2 GB"]
    assert [ratio(r) for r in (0.123, 12.0, 93518.4, float("nan"))] == ["0.12", "12.00", "93518", "-"]


def test_an_item_keeps_to_the_width():
    lines = item("word " * 60)
    assert max(map(len, lines)) <= WIDTH
    assert [line[:3] for line in lines] == ["- w", "  w", "  w", "  w"]
