"""The check of gradients: its yardstick against closed forms, its verdicts, and what it says."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import model, plate, rv
from dualtape.ad import AbstractReverseBackend, AutoForward, AutoReverse
from dualtape.ad.measuring.checking import MOST_COORDINATES, check_gradients, examine_gradients
from dualtape.ad.measuring.verdicts import Verdict
from dualtape.ad.measuring.yardstick import agree, finite_difference, host_function
from dualtape.ppl import gradients
from jax import lax

CORRECT, FLAT, UNCERTAIN, WRONG, NOT_FINITE = Verdict


@dataclasses.dataclass(frozen=True)
class Bent(AbstractReverseBackend):
    """Reverse mode, with its gradient multiplied."""

    factor: float

    def pullback(self, f, x):
        value, pull = jax.vjp(f, x)
        return value, lambda c: self.factor * pull(c[0])[0][None]


@pytest.mark.parametrize(
    ("f", "x", "derivative"),
    [
        (np.sin, 0.7, np.cos(0.7)),
        (np.exp, 30.0, np.exp(30.0)),
        (lambda x: x**7 - 3 * x, -1.5, 7 * 1.5**6 - 3),
        (np.log, 1e-5, 1e5),  # most steps leave the domain
        (lambda x: 1e6 + np.sin(x), 0.0, 1.0),  # rounding
        (lambda x: np.sin(200 * x), 0.1, 200 * np.cos(20.0)),
        (lambda x: abs(x - 1e-4), 0.0, -1.0),  # a kink near by
        (lambda x: 2.5, 3.0, 0.0),
    ],
)
def test_finite_differences_are_right_within_the_error_they_claim(f, x, derivative):
    slope = finite_difference(lambda p: float(f(p[0])), np.array([x]), 0)
    assert abs(slope.derivative - derivative) <= 1e-15 + 10 * slope.error
    assert slope.error <= 1e-6 * (1 + abs(derivative))
    assert slope.moves == (derivative != 0)


@pytest.mark.parametrize("f", [abs, np.sign, lambda x: np.sqrt(abs(x)), lambda x: abs(x) + x], ids="|/√v")
def test_finite_differences_admit_that_a_kink_or_jump_has_no_slope(f):
    with np.errstate(all="ignore"):
        assert finite_difference(lambda p: float(f(p[0])), np.array([0.0]), 0).error > 0.1


def test_the_host_runs_what_cannot_be_traced_and_widens_single_precision():
    def branching(x, c):
        return x["a"] * c if x["a"] > 0 else -x["a"]

    with jax.enable_x64(False):
        f = host_function(branching, {"a": np.float32(1.0)}, np.float32(3.0))
        assert f(np.array([2.0 + 1e-12])) == 3 * (2.0 + 1e-12)
        assert f(np.array([-2.0])) == 2.0
        smooth = host_function(lambda x: jnp.sum(x), np.ones(2, np.float32))
        assert smooth(np.array([1e-12, 1.0])) == 1 + 1e-12


def test_gradients_agree_up_to_the_rounding_of_their_precision():
    one = np.array([1.0, 1e-9, np.nan])
    assert agree(one, one * (1 + 1e-8), np.float64)
    assert not agree(one, one * (1 + 1e-5), np.float64)
    assert agree(one, one * (1 + 1e-5), np.float32)
    assert not agree(one, np.array([1.0, 1e-9, 0.0]), np.float64)


def stopped(x):
    return x["p"] ** 2 * lax.stop_gradient(x["p"]) + jnp.sum(x["q"] * jnp.arange(3.0))


def rounded(x):
    return x[0] ** 2 + jnp.round(x[1] + 0.2) + 0 * x[2]


def double_where(x):
    return jnp.where(x[0] > 0, jnp.sqrt(jnp.where(x[0] > 0, x[0], 1.0)), 0.0) + x[1]


def cubic(x):
    return lax.fori_loop(0, 3, lambda _, product: product * x, 1.0)


def endless(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, 1.0))[1]


def modulus(x):
    return jnp.abs(x)


@jax.custom_jvp
def mistaken(x):
    return jnp.sin(x)


mistaken.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 1.1 * jnp.cos(primals[0]) * tangents[0]))


@jax.custom_jvp
def undefined(x):
    return jnp.exp(x)


undefined.defjvp(lambda primals, tangents: (jnp.exp(primals[0]), jnp.nan * tangents[0]))


@pytest.mark.parametrize(
    ("f", "x", "forward", "reverse", "note"),
    [
        (cubic, 1.5, {"x": CORRECT}, {"x": CORRECT}, None),
        (double_where, np.array([-1.0, 2.0]), {"x": FLAT}, {"x": FLAT}, None),
        (
            stopped,
            {"p": 1.2, "q": np.ones(3)},
            {"p": WRONG, "q": FLAT},
            {"p": WRONG, "q": FLAT},
            r"'p' is not the slope of the value. Look for a stop_gradient",
        ),
        (rounded, np.array([1.0, 0.0, 1.0]), {"x": FLAT}, {"x": FLAT}, r"does not depend on 'x\[[12]\]' here"),
        (undefined, 0.3, {"x": NOT_FINITE}, {"x": NOT_FINITE}, r"to 'x' is nan .* \(a double where\)"),
        (endless, 1.5, {"x": CORRECT}, {}, r"AutoReverse\(\) refuses: .* use adtype=AutoForward\(\)"),
        (modulus, 0.0, {"x": UNCERTAIN}, {"x": UNCERTAIN}, r"do not settle at 'x': a kink, a jump"),
        (mistaken, 0.3, {"x": WRONG}, {"x": WRONG}, r"custom_jvp or custom_vjp rule"),
        (
            lambda x: lax.stop_gradient(x) * 2,
            0.3,
            {"x": WRONG},
            {"x": WRONG},
            r"'x' is zero although the value changes",
        ),
    ],
)
def test_verdicts(f, x, forward, reverse, note, capsys):
    check = check_gradients(f, x)
    printed = capsys.readouterr().out
    assert printed == f"{check}\n"
    for adtype, expected in (("AutoForward()", forward), ("AutoReverse()", reverse)):
        found = {row.label: row.verdict for row in check.rows if row.adtype == adtype}
        assert found == ({"value": CORRECT} | expected if expected else {})
    verdicts = {*forward.values(), *reverse.values()}
    assert check.ok == (verdicts <= {CORRECT, FLAT})
    assert note is None or re.search(note, " ".join(printed.split()))
    assert max(map(len, printed.splitlines())) <= 100


def test_the_row_shows_the_worst_entry_and_the_numbers():
    def f(x, c):
        return jnp.sum(c * jnp.sin(x))

    x, c = np.linspace(0.0, 1.0, 6).reshape(2, 3), np.arange(1.0, 7.0).reshape(2, 3)
    check = examine_gradients(f, [x, x + 1], c, adtypes=[AutoForward(), Bent(1.01)], labels=["angle"], subject="waves")
    good, bent = (row for row in check.rows if row.label == "angle")
    assert (good.verdict, bent.verdict, bent.size, bent.adtype) == (CORRECT, WRONG, 6, "Bent(factor=1.01)")
    np.testing.assert_allclose(bent.found, 1.01 * bent.expected)
    np.testing.assert_allclose(check.values, [np.sum(c * np.sin(x)), np.sum(c * np.sin(x + 1))])
    assert not check.ok
    assert check_gradients(f, x, c, adtypes=[AutoForward()]).ok


def test_one_mode_needs_no_list():
    assert {row.adtype for row in check_gradients(cubic, 1.5, adtypes=AutoReverse()).rows} == {"AutoReverse()"}
    assert gradients.check_gradients(schools(Y), adtypes=AutoForward()).ok


def test_of_several_points_the_one_of_each_row_is_shown():
    check = examine_gradients(modulus, [1.0, 0.0, 2.0], adtypes=AutoForward())
    assert [(row.point, row.verdict) for row in check.rows if row.label == "x"] == [(2, UNCERTAIN)]
    printed = str(check).splitlines()
    assert printed[1] == "value 1, 0, 2 at points 1 to 3; each row is from the point where it is worst"
    assert printed[3].split() == ["entry", "adtype", "point", "found", "expected", "verdict"]
    assert printed[5].split()[:3] == ["x", "AutoForward()", "2"]


def test_nothing_that_works_is_not_ok():
    check = check_gradients(endless, 1.5, adtypes=[AutoReverse()])
    assert not check.ok
    assert [adtype for adtype, _ in check.refusals] == ["AutoReverse()"]


def test_single_precision_is_checked_as_such():
    with jax.enable_x64(False):
        check = check_gradients(lambda x: jnp.sum(jnp.exp(-(x**2))), jnp.linspace(-1, 1, 5))
        assert check.ok
        assert not check_gradients(lambda x: jnp.sum(x**2), jnp.ones(2), adtypes=[Bent(1.02)]).ok


def test_of_many_coordinates_some_are_looked_at_and_it_says_so():
    check = check_gradients(lambda x: jnp.sum(x**2), np.ones(2 * MOST_COORDINATES))
    assert check.ok
    assert f"at {MOST_COORDINATES} of {2 * MOST_COORDINATES} coordinates" in check.notes[-1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_gradients(jnp.log, -1.0), ValueError, r"log is nan at the point \[-1\].* Give a point inside"),
        (lambda: check_gradients(jnp.sin, 1.0, adtypes=["forward"]), TypeError, "adtypes must be an adtype such as"),
        (lambda: check_gradients(jnp.sin, 1.0, adtypes=[]), ValueError, r"at least one, got \[\]; leave it out for"),
        (
            lambda: check_gradients(jnp.sin, 1.0, adtypes="AutoReverse()"),
            TypeError,
            r"one or a list\) must be an adtype",
        ),
        (lambda: gradients.check_gradients(schools(Y), adtypes=[AutoReverse()] * 2), ValueError, "must be different"),
        (lambda: check_gradients(jnp.sin, np.ones(2)), TypeError, "one floating-point number as its result"),
        (lambda: gradients.check_gradients(jnp.sin), TypeError, r"or check_gradients\(f, x\)"),
        (lambda: gradients.check_gradients(schools), TypeError, r"has no data yet; .*check_gradients\(schools"),
        (lambda: gradients.check_gradients(schools(Y), 1.0), TypeError, "x is a dict from site names"),
        (lambda: gradients.check_gradients(schools(Y), {"q": 1.0}), ValueError, "'q' is no latent site"),
        (
            lambda: gradients.check_gradients(impossible()),
            ValueError,
            "not finite at any of 100 points .*: a .*, trap -inf",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


Y = np.array([1.0, 2.0, 4.0])


@model
def schools(y):
    mu = rv("mu", dist.Normal(0.0, 5.0))
    tau = rv("tau", dist.HalfCauchy(5.0))
    with plate("school", len(y)):
        theta = rv("theta", dist.Normal(mu, tau))
        rv("y", dist.Normal(theta, 1.0), obs=y)


@model
def impossible():
    a = rv("a", dist.Normal(0.0, 1.0))
    rv("trap", dist.Uniform(0.0, 1.0), obs=jnp.exp(a) + 1)


@model
def faulty(y):
    count = rv("count", dist.HalfNormal(10.0))
    share = rv("share", dist.Uniform(0.0, 1.0))
    z = rv("z", dist.Normal(0.0, 1.0))
    rv("y", dist.Normal(jnp.round(count) + share, undefined(z)), obs=y)


def test_a_model_is_checked_site_by_site_in_double_precision():
    with jax.enable_x64(False):
        check = gradients.check_gradients(schools(Y))
    assert check.ok
    assert [row.label for row in check.rows] == [n for n in ("value", "mu", "tau", "theta") for _ in range(2)]
    assert len(check.values) == 3
    assert check.notes == ()


def test_a_model_is_checked_where_the_user_says():
    values = {"mu": 0.5, "tau": 2.0, "theta": Y / 2}
    check = gradients.check_gradients(schools(Y), values)
    # The log density at these values, and log tau for the Jacobian of the bijection.
    expected = (
        dist.Normal(0, 5).log_prob(0.5)
        + dist.HalfCauchy(5.0).log_prob(2.0)
        + jnp.log(2.0)
        + jnp.sum(dist.Normal(0.5, 2.0).log_prob(Y / 2) + dist.Normal(Y / 2, 1.0).log_prob(Y))
    )
    np.testing.assert_allclose(check.values, [float(expected)])


def test_of_a_faulty_model_the_terms_are_named():
    check = gradients.check_gradients(faulty(Y))
    assert not check.ok
    notes = " ".join(check.notes)
    assert "AutoReverse(): what is not finite with respect to 'z' is in term 'y'." in notes
    assert "Term 'y' is computed from 'count', yet its gradient with respect to 'count' is zero" in notes
    assert "computed from 'share'" not in notes


def test_a_function_goes_through_the_same_door():
    assert gradients.check_gradients(lambda x, c: c * x**2, 1.5, 2.0).ok
