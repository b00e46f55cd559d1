"""Programs are compiled once in a process, whatever the data, and never taken for another."""

import gc
import weakref

import dualtape.ad.rules as registry
import dualtape.ppl.inference as inference
import dualtape.samplers.executables as executables
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    MH,
    NUTS,
    AutoFastest,
    AutoFiniteDiff,
    AutoForward,
    AutoReverse,
    DiscreteGibbs,
    Gibbs,
    Proposal,
    Slice,
    black_box,
    clear_programs,
    deterministic,
    factor,
    model,
    rv,
    sample,
)
from dualtape.ad import Rule, register_rule
from dualtape.ppl.constrained import batch_rows
from dualtape.ppl.identity import UnknowableError, as_value, run_identity
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.samplers.executables import Recent, compile_soon
from jax import lax

# No words about short chains.
pytestmark = pytest.mark.filterwarnings("ignore")


Y = np.array([0.5, -1.0, 2.0])
SHORT = {"draws": 20, "warmup": 20, "chains": 2, "seed": 1, "progress": False}


@model
def shifted(y, scale=1.0):
    mu = rv("mu", dist.Normal(0.0, 2.0))
    deterministic("twice", 2.0 * mu)
    rv("y", dist.Normal(mu, scale), obs=y)


def log_density(mu, y, scale=1.0, prior=2.0):
    """The closed form of `shifted`."""

    def normal(x, s):
        return -0.5 * (x / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)

    return normal(mu, prior) + normal(np.asarray(y) - mu[..., None], scale).sum(-1)


def is_right(idata, y, **numbers):
    """Whether the recorded log density is that of the model, at every draw."""
    mu = idata.posterior["mu"].values
    np.testing.assert_allclose(idata.posterior["twice"].values, 2 * mu)
    np.testing.assert_allclose(idata.sample_stats["lp"].values, log_density(mu, y, **numbers), rtol=1e-12)
    return True


SAMPLERS = {
    "nuts": NUTS(),
    "hmc": HMC(0.3, 4),
    "slice": Slice(),
    "gibbs": Gibbs({"mu": HMC(0.3, 4, adtype=AutoReverse())}),
    "fastest": NUTS(adtype=AutoFastest()),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_second_run_compiles_nothing_whatever_its_data_length_and_seed(compiled, sampler):
    first = sample(shifted(Y), sampler, **SHORT)
    assert is_right(first, Y)
    del compiled[:]
    for other, settings in (
        (Y, {"seed": 2}),
        (Y + 3.0, {}),
        (np.array([1, 0, 2]), {"draws": 19, "warmup": 300, "thin": 3}),
    ):
        idata = sample(shifted(other), sampler, **{**SHORT, **settings})
        assert is_right(idata, other)
        assert idata.attrs["blocks"] == first.attrs["blocks"]  # what was measured and chosen, too
    assert compiled == []


def test_a_second_run_gives_the_draws_that_it_would_have_given_alone():
    other = {**SHORT, "seed": 5}
    alone = sample(shifted(Y + 1.0), **other)
    clear_programs()
    sample(shifted(Y), **SHORT)
    second = sample(shifted(Y + 1.0), **other)
    np.testing.assert_array_equal(alone.posterior["mu"].values, second.posterior["mu"].values)


def test_the_function_of_the_user_runs_twice_a_run_and_a_kernel_is_built_once(monkeypatch):
    calls, kernels, build = [], [], inference.build_kernel
    monkeypatch.setattr(inference, "build_kernel", lambda *args: kernels.append(build(*args)) or kernels[-1])

    @model
    def counted(y):
        calls.append(1)
        rv("y", dist.Normal(rv("mu", dist.Normal(0.0, 2.0)), 1.0), obs=y)

    for runs, chains in ((1, 1), (2, 4)):
        sample(counted(Y), **{**SHORT, "chains": chains, "draws": 900})
        assert (len(calls), len(kernels)) == (2 * runs, 1)


def test_a_model_is_known_by_what_it_computes_and_not_by_its_function(compiled):
    scale, power = 1.0, 1

    @model
    def changing(y):
        mu = rv("mu", dist.Normal(0.0, 2.0))
        deterministic("twice", 2.0 * mu)
        rv("y", dist.Normal(mu**power, scale), obs=y)

    assert is_right(sample(changing(Y), **SHORT), Y)
    scale = 0.25
    assert is_right(sample(changing(Y), **SHORT), Y, scale=0.25)
    del compiled[:]
    power = 3
    idata = sample(changing(Y), **SHORT)
    mu = idata.posterior["mu"].values
    expected = log_density(mu, Y, 0.25) - log_density(mu, Y, 0.25, 1e9) + log_density(mu**3, Y, 0.25, 1e9)
    prior = -0.5 * (mu**3 / 1e9) ** 2 + 0.5 * (mu / 1e9) ** 2
    np.testing.assert_allclose(idata.sample_stats["lp"].values, expected - prior, rtol=1e-9)
    assert compiled


def test_what_makes_another_program_compiles_it(compiled):
    changes = {
        "nothing": ({}, {}, False),
        "more data": ({"y": np.append(Y, 1.0)}, {}, True),
        "a number in the model": ({"scale": 0.5}, {}, True),
        "a setting of the sampler": ({}, {"sampler": HMC(0.3, 3)}, True),
        "what the step size aims at": ({}, {"sampler": HMC(0.3, 2, target_acceptance=0.7)}, False),
        "the adtype": ({}, {"adtype": AutoReverse()}, True),
        "an audit": ({}, {"audit": True}, True),
        "more draws than a short run has": ({}, {"draws": 1500}, True),
    }
    usual = {"sampler": HMC(0.3, 2), "adtype": AutoForward(), **SHORT}
    sample(shifted(Y), **usual)
    for change, (data, settings, new) in changes.items():
        del compiled[:]
        arguments = {"y": Y, "scale": 1.0, **data}
        assert is_right(sample(shifted(**arguments), **{**usual, **settings}), **arguments)
        assert bool(compiled) == new, change


def test_a_lower_precision_is_another_program(compiled):
    sample(shifted(Y), **SHORT)
    del compiled[:]
    idata = sample(shifted(Y), precision="float32", **SHORT)
    assert idata.posterior["mu"].dtype == np.float32
    assert compiled


def test_functions_of_the_user_are_asked_anew():
    """A proposal and a black box that are the same objects and have changed in what they do."""
    step, offset = 0.0, 0.0
    stay = Proposal(lambda values: dist.Normal(values["mu"] + step, 1e-6))
    box = black_box(lambda mu: mu + offset, result=())

    @model
    def boxed(y):
        rv("y", dist.Normal(box(rv("mu", dist.Normal(0.0, 2.0))), 1.0), obs=y)

    def run():
        moved = sample(shifted(Y), MH(stay), init={"mu": 0.5}, **{**SHORT, "warmup": 0})
        far = sample(boxed(Y), NUTS(adtype=AutoFiniteDiff()), **SHORT)
        mu = far.posterior["mu"].values
        return moved.sample_stats["acceptance_rate"].values.mean(), far.sample_stats["lp"].values, mu

    rate, lp, mu = run()
    assert rate > 0.5
    np.testing.assert_allclose(lp, log_density(mu, Y))
    step, offset = 1e3, 5.0
    rate, lp, mu = run()
    assert rate == 0.0
    np.testing.assert_allclose(lp, log_density(mu, Y - 5.0), rtol=1e-6)


@jax.custom_vjp
def squared(x):
    return x**2


squared.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))

TERMS = {
    "logits": (lambda x: dist.Bernoulli(logits=x).log_prob(1), True),
    "loops": (lambda x: lax.scan(lambda c, y: (c * y + x, c), x, np.ones(3))[0], True),
    "more loops": (lambda x: lax.while_loop(lambda c: c < 9, lambda c: c + x**2, x), True),
    "branches": (lambda x: lax.cond(x > 0, lambda: x, lambda: -x), True),
    "linear algebra": (lambda x: jnp.linalg.slogdet(jnp.linalg.cholesky(jnp.eye(2) * (1 + x**2)))[1], True),
    "moving about": (lambda x: (np.ones(5) * x)[np.array([1, 3])].sum() + jnp.sort(np.ones(3) * x)[0], True),
    "a derivative of the user": (squared, False),
    "Python": (lambda x: jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct((), float), x), False),
    "random keys": (lambda x: x + jax.random.normal(jax.random.key(0)), False),
}


@pytest.mark.parametrize(("term", "told"), TERMS.values(), ids=TERMS)
def test_a_model_is_recognised_unless_it_holds_functions(term, told):
    @model
    def with_term():
        factor("term", term(rv("x", dist.Normal(0.0, 1.0))))

    first, second = (run_identity(trace_model(with_term(), discover(with_term()))) for _ in range(2))
    assert (first is not None, second is not None) == (told, told)
    assert first == second


def test_a_rule_of_the_user_is_asked_anew(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", list(registry._RULES))
    density = trace_model(shifted(Y), discover(shifted(Y)))
    own = run_identity(density)
    assert own is not None
    assert own == run_identity(trace_model(shifted(Y + 1.0), discover(shifted(Y + 1.0))))
    register_rule(Rule("logaddexp", (None, None), lambda x, y: jnp.logaddexp(x, y)))
    assert run_identity(density) is None
    monkeypatch.setattr(registry, "_RULES", [])
    assert run_identity(density) not in (own, None)


def test_a_support_that_is_read_off_the_data_is_that_of_these_data():
    @model
    def counts(total):
        rv("k", dist.Binomial(total, 0.5))

    for total in (1, 6):
        draws = sample(counts(np.array(total)), DiscreteGibbs(), **{**SHORT, "draws": 400}).posterior["k"].values
        assert draws.max() == total


def test_data_are_not_kept():
    y = np.random.default_rng(0).normal(size=1000)
    kept = weakref.ref(y)
    sample(shifted(y), **SHORT)
    del y
    gc.collect()
    assert kept() is None
    assert len(executables._kept) == 3


def test_a_memory_forgets_what_was_not_used_for_longest():
    memory = Recent(2)
    for key in "ab":
        memory.put(key, key)
    memory.get("a")
    memory.put("c", "c")
    assert [memory.get(key) for key in "abc"] == ["a", None, "c"]


def test_values_that_are_equal_for_python_are_told_apart():
    assert len({as_value(x) for x in (1, 1.0, True, "1", (1,), np.array(1), 0.0, -0.0)}) == 8
    assert as_value(NUTS(adtype=AutoForward(2))) == as_value(NUTS(adtype=AutoForward(2)))
    assert as_value(Gibbs({"a": NUTS(), "b": Slice()})) != as_value(Gibbs({"b": Slice(), "a": NUTS()}))
    with pytest.raises(UnknowableError):
        as_value(Gibbs({lambda site: True: NUTS()}))


def test_programs_that_differ_in_what_they_close_over_or_leave_out_are_different():
    ones, twos = (jnp.full(100, x) for x in (1.0, 2.0))
    for big in (ones, twos):
        assert compile_soon(lambda x, big=big: x + big, ones).result().call(ones)[0] == 1.0 + big[0]
    for f, expected in ((lambda x, y: 2 * x, 2.0), (lambda x, y: 2 * y, 4.0)):
        assert compile_soon(f, ones, ones).result().call(ones, twos)[0] == expected


def test_batches_are_of_few_lengths_and_waste_little():
    counts = range(1, 20_000, 7)
    rows = {count: batch_rows(count, 1024) for count in counts}
    assert len(set(rows.values())) < 70
    assert all(-(-count // row) * row <= 1.13 * count + 1 and row <= 1024 for count, row in rows.items())
