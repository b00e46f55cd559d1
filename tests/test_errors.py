"""Bad input: each a clear error that names site, block or argument and ends with a remedy, before anything compiles."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    NUTS,
    AutoForward,
    DenseMetric,
    FisherDivergence,
    Gibbs,
    LowRankMetric,
    Until,
    deterministic,
    factor,
    model,
    plate,
    rv,
    sample,
)
from dualtape.ad import DifferentiationError
from dualtape.samplers import compilation
from jax import lax

X = np.array([1.0, 2.0, 3.0])


@model
def wide():
    rv("w", dist.Normal(jnp.zeros(4000), 1.0))


@model
def line(x, y):
    a = rv("a", dist.Normal(0.0, 1.0))
    b = rv("b", dist.Normal(0.0, 1.0))
    s = rv("s", dist.HalfNormal(1.0))
    rv("y", dist.Normal(a + b * x, s), obs=y)


@model
def repeated():
    rv("x", dist.Normal(0.0, 1.0))
    rv("x", dist.Normal(0.0, 1.0))


@model
def repeated_deterministic():
    deterministic("x", rv("x", dist.Normal(0.0, 1.0)) ** 2)


@model
def counts(k):
    rate = rv("rate", dist.Gamma(2.0, 1.0))
    with plate("day", 3):
        rv("k", dist.Poisson(rate), obs=k)


@model
def logarithms(y):
    m = rv("m", dist.Normal(0.0, 1.0))
    rv("log y", dist.Normal(m, 1.0), obs=jnp.log(y))


@model
def coin():
    z = rv("z", dist.Bernoulli(0.5))
    rv("x", dist.Normal(z, 1.0), obs=1.0)


@model
def wrong_plate(y):
    m = rv("m", dist.Normal(0.0, 1.0))
    with plate("i", 3):
        rv("y", dist.Normal(m + jnp.zeros(4), 1.0), obs=y)


@model
def no_distribution():
    rv("x", 1.0)


@model
def class_as_distribution():
    rv("x", dist.Normal)


@model
def two_plates():
    with plate("i", 3):
        rv("x", dist.Normal(0.0, 1.0))
    with plate("i", 4):
        rv("y", dist.Normal(0.0, 1.0))


@model
def named_like_its_plate():
    with plate("school", 3):
        rv("school", dist.Normal(0.0, 1.0))


@model
def two_sizes_of_a_dimension():
    rv("x", dist.Normal(np.zeros(3), 1.0), dims="r")
    rv("y", dist.Normal(np.zeros(2), 1.0), dims="r")


@model
def dimension_and_plate():
    with plate("r", 3):
        rv("x", dist.Normal(0.0, 1.0))
    rv("y", dist.Normal(np.zeros(2), 1.0), dims="r")


@model
def alike():
    rv("x", dist.Normal(np.zeros((2, 2)), 1.0), dims=("r", "r"))


@model
def path():
    rv("a/b", dist.Normal(0.0, 1.0))


@model
def reserved():
    rv("x", dist.Normal(np.zeros(2), 1.0), dims="draw")


@model
def derived():
    deterministic("q", 2 * rv("x", dist.Normal(0.0, 1.0)))


@model
def solver():
    x = rv("x", dist.Gamma(2.0, 1.0))
    root = lax.while_loop(lambda r: jnp.abs(r * r - x) > 1e-12, lambda r: 0.5 * (r + x / r), 1.0 + 0 * x)
    rv("y", dist.Normal(root, 1.0), obs=1.0)


@model
def nested_support():
    x = rv("x", dist.Uniform(0.1, 10.0))
    rv("y", dist.Uniform(0.0, x))


BOUND = line(X, X)

# What is done, the kind of error, and what its text must contain.
CASES = {
    "duplicate site": (lambda: sample(repeated()), ValueError, "site 'x' is declared twice"),
    "duplicate name": (lambda: sample(repeated_deterministic()), ValueError, "site 'x' is declared twice"),
    "unknown block": (lambda: sample(BOUND, Gibbs({"q": NUTS(), ...: NUTS()})), ValueError, "block 'q'.*'a', 'b', 's'"),
    "missing block": (lambda: sample(BOUND, Gibbs({"a": NUTS()})), ValueError, "no block has site 'b', 's'; add it"),
    "block claimed twice": (
        lambda: sample(BOUND, Gibbs({"a": NUTS(), ("a", "b"): NUTS(), ...: NUTS()})),
        ValueError,
        "site 'a' is claimed by two blocks",
    ),
    "empty rest": (lambda: sample(BOUND, Gibbs({("a", "b", "s"): NUTS(), ...: NUTS()})), ValueError, "no sites left"),
    "no blocks": (lambda: Gibbs({}), TypeError, "non-empty dict"),
    "block without sampler": (lambda: Gibbs({"a": AutoForward()}), TypeError, "block 'a' needs a sampler"),
    "block of a number": (lambda: Gibbs({1: NUTS()}), TypeError, "named by a site.*got 1"),
    "observed NaN": (
        lambda: sample(line(X, np.array([1.0, 2.0, 3.0])).fix(b=np.nan)),
        ValueError,
        "fixed site 'b' has 1 NaN.*its only entry",
    ),
    "observed NaN that the model makes": (
        lambda: sample(logarithms(np.array([1.0, 2.0, -1.0]))),
        ValueError,
        "observed site 'log y' has 1 NaN.*index 2",
    ),
    "negative count": (
        lambda: sample(counts(np.array([1, -1, 2]))),
        ValueError,
        "observed site 'k' has 1 value.*outside the support of Poisson.*-1 at index 1",
    ),
    "fractional count": (lambda: sample(counts(np.array([1, 2, 0.5]))), ValueError, "'k'.*0.5 at index 2"),
    "discrete latent": (
        lambda: sample(coin()),
        ValueError,
        r"site 'z' is discrete.*DiscreteGibbs\(\), \.\.\.: NUTS\(\)\}\); sum it out",
    ),
    "unknown adtype": (lambda: sample(BOUND, adtype="forward"), TypeError, r"adtype.*AutoForward\(\).*'forward'"),
    "unknown adtype of a sampler": (lambda: NUTS(adtype="reverse"), TypeError, "NUTS: adtype.*'reverse'"),
    "class as adtype": (lambda: HMC(0.1, 5, adtype=AutoForward), TypeError, r"write AutoForward\(\)"),
    "initial value of a wrong shape": (
        lambda: sample(BOUND, init={"a": np.zeros(5)}, chains=2),
        ValueError,
        r"init: site 'a' has shape \(\).*\(5,\); give \(\)",
    ),
    "initial value of no site": (lambda: sample(BOUND, init={"q": 0.0}), ValueError, "init: 'q' is no latent site"),
    "initial value outside the support": (
        lambda: sample(BOUND, init={"s": -1.0}),
        ValueError,
        "'s'.*outside.*HalfNormal",
    ),
    "initial value outside a support that depends on another": (
        lambda: sample(nested_support(), init={"x": 1.0, "y": 2.0}),
        ValueError,
        "'y'.*outside the support of Uniform",
    ),
    "infinite initial value": (lambda: sample(BOUND, init={"a": np.inf}), ValueError, "init: site 'a'.*not finite"),
    "column instead of a row": (
        lambda: sample(line(X, X[:, None])),
        ValueError,
        r"observed site 'y' has shape \(3, 1\).*shape \(3,\)",
    ),
    "data of another length": (lambda: sample(line(X, X[:2])), ValueError, r"'y' has shape \(2,\).*\(3,\)"),
    "parameters that do not fit a plate": (lambda: sample(wrong_plate(X)), ValueError, "'y'.*plate 'i' of size 3"),
    "plate of two sizes": (lambda: sample(two_plates()), ValueError, "plate 'i' is opened with size 4 and with size 3"),
    "site named like its plate": (lambda: sample(named_like_its_plate()), ValueError, "'school' would name both"),
    "two sizes of a dimension": (lambda: sample(two_sizes_of_a_dimension()), ValueError, "'y'.*'r' has size 2.*size 3"),
    "dimension of another size than its plate": (
        lambda: sample(dimension_and_plate()),
        ValueError,
        "'y'.*'r' has size",
    ),
    "two dimensions alike": (lambda: sample(alike()), ValueError, "'x'.*name two dimensions alike"),
    "path as a name": (lambda: sample(path()), ValueError, "'a/b'.*path"),
    "reserved dimension": (lambda: sample(reserved()), ValueError, "'draw' is the name of a dimension of every result"),
    "fix of a derived value": (lambda: sample(derived().fix(q=7.0)), ValueError, "fix.*no site 'q'; it has 'x'"),
    "fix outside the support": (lambda: sample(BOUND.fix(s=-1.0)), ValueError, "fixed site 's'.*outside the support"),
    "fix of NaN": (lambda: sample(BOUND.fix(s=np.nan)), ValueError, "fixed site 's' has 1 NaN"),
    "list of sites to decondition": (lambda: BOUND.decondition(["y"]), TypeError, "one by one"),
    "condition without data": (lambda: line | {"a": 1.0}, TypeError, r"call it first: line\(...\)"),
    "strings as data": (lambda: sample(counts(np.array(["a", "b", "c"]))), TypeError, "observed site 'k' holds"),
    "condition on no site": (lambda: sample(BOUND | {"z": 1.0}), ValueError, "condition: model 'line' has no site 'z'"),
    "decondition of no site": (lambda: sample(BOUND.decondition("z")), ValueError, "decondition.*no site 'z'"),
    "fix of no site": (lambda: sample(BOUND.fix(z=1.0)), ValueError, "fix.*no site 'z'"),
    "condition without a value": (lambda: BOUND.condition(a=None), ValueError, r"decondition\('a'\)"),
    "nothing latent": (lambda: sample(BOUND | {"a": 0.0, "b": 0.0, "s": 1.0}), ValueError, "no latent sites"),
    "no data": (lambda: sample(line), TypeError, r"call it first: sample\(line\(...\)\)"),
    "missing data": (lambda: line(X), TypeError, r"model 'line\(x, y\)': missing a required argument: 'y'"),
    "no model": (lambda: sample(lambda: None), TypeError, "decorate a function with @model"),
    "class as sampler": (lambda: sample(BOUND, NUTS), TypeError, r"write NUTS\(\)"),
    "no distribution": (lambda: sample(no_distribution()), TypeError, "site 'x': expected a numpyro distribution"),
    "class as distribution": (lambda: sample(class_as_distribution()), TypeError, "call it with its parameters"),
    "outside a model": (lambda: rv("x", dist.Normal()), RuntimeError, "only while a model runs.*@model"),
    "factor outside a model": (lambda: factor("x", 1.0), RuntimeError, "only while a model runs"),
    "audit by name": (lambda: sample(BOUND, audit="yes"), TypeError, "audit must be True or False, got 'yes'"),
    "no draws": (lambda: sample(BOUND, draws=0), ValueError, "draws must be an integer >= 1, got 0"),
    "negative warm-up": (lambda: sample(BOUND, warmup=-1), ValueError, "warmup must be an integer >= 0"),
    "no chains": (lambda: sample(BOUND, chains=0), ValueError, "chains must be"),
    "negative seed": (lambda: sample(BOUND, seed=-1), ValueError, "seed must be a non-negative integer"),
    "half precision": (lambda: sample(BOUND, precision="float16"), ValueError, "'float64' or 'float32'"),
    "step size zero": (lambda: HMC(0.0, 5), ValueError, "HMC: step_size must be a positive number"),
    "no steps": (lambda: HMC(0.1, 0), ValueError, "HMC: num_steps must be"),
    "acceptance of one": (lambda: NUTS(target_acceptance=1.0), ValueError, "NUTS: target_acceptance.*0.8 is usual"),
    "string as metric": (lambda: NUTS(metric="dense"), TypeError, r"NUTS: metric must be.*DenseMetric\(\)"),
    "string as windows": (lambda: NUTS(windows="stan"), TypeError, r"NUTS: windows must be.*StanWindows\(\)"),
    "number as until": (lambda: sample(BOUND, until=400), TypeError, r"sample: until must be Until\(ess="),
    "R-hat below one": (lambda: Until(rhat=0.99), ValueError, r"Until: rhat must be a number above 1.*1\.01 is usual"),
    "no effective draws": (lambda: Until(ess=0), ValueError, r"Until: ess must be a positive number"),
    "rank of zero": (lambda: LowRankMetric(rank=0), ValueError, r"LowRankMetric: rank must be an integer >= 1"),
    "cutoff below one": (lambda: LowRankMetric(cutoff=0.5), ValueError, r"LowRankMetric: cutoff must be at least 1"),
    "no shrinkage": (lambda: LowRankMetric(shrinkage=0), ValueError, r"LowRankMetric: shrinkage must be a positive"),
    "no Fisher shrinkage": (lambda: FisherDivergence(0), ValueError, r"FisherDivergence: shrinkage must be a positive"),
    "dense metric of a large block": (
        lambda: sample(wide(), NUTS(metric=DenseMetric())),
        ValueError,
        r"block 'w': a dense metric for 4000 coordinates would take 0\.1 GB.*LowRankMetric\(\) or DiagonalMetric\(\)",
    ),
    "tree depth of zero": (lambda: NUTS(max_tree_depth=0), ValueError, "NUTS: max_tree_depth must be"),
}


@pytest.mark.parametrize(("act", "kind", "message"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_before_anything_is_compiled(act, kind, message, monkeypatch):
    def compiled(*_):
        raise AssertionError("the error came too late")

    monkeypatch.setattr("dualtape.samplers.parallel.compile_chain", compiled)
    with pytest.raises(kind, match=message):
        act()


def test_the_table_would_notice_a_late_error(monkeypatch):
    def compiled(*_):
        raise AssertionError("the error came too late")

    monkeypatch.setattr("dualtape.samplers.parallel.compile_chain", compiled)
    with pytest.raises(AssertionError, match="too late"):
        sample(BOUND, progress=False)


def test_reverse_mode_on_a_while_loop_names_block_and_remedy():
    from dualtape import AutoReverse

    with pytest.raises(DifferentiationError, match=r"block 'x': reverse mode cannot pass.*AutoForward\(\)"):
        sample(solver(), NUTS(adtype=AutoReverse()), progress=False)


def test_branching_on_a_parameter_says_what_to_use_instead():
    @model
    def branch():
        if rv("x", dist.Normal(0.0, 1.0)) > 0:
            rv("y", dist.Normal(0.0, 1.0))

    with pytest.raises(DifferentiationError, match=r"block 'x'.*test_errors\.py.*lax\.cond.*AutoTape\(\)"):
        sample(branch(), progress=False)


def test_a_density_that_is_never_finite_lists_its_terms():
    @model
    def impossible():
        x = rv("x", dist.Normal(0.0, 1.0))
        factor("never", -jnp.inf + 0 * x)

    with pytest.raises(ValueError, match=r"100 draws from Uniform\(-2, 2\).*never -inf.*Not finite: never"):
        sample(impossible(), draws=10, warmup=10, progress=False)


def test_a_gradient_that_is_not_finite_is_told_from_a_density_that_is_not():
    from dualtape import AutoReverse

    @model
    def trap():
        x = rv("x", dist.Normal(0.0, 1.0))
        # Of a batch of factors some are taken and some are not: more than reverse mode sees through.
        v = jnp.array([x, 101.0])
        factors = jnp.linalg.cholesky((v - 100)[:, None, None] * jnp.eye(1))[:, 0, 0]
        factor("hidden", jnp.sum(jnp.where(v > 100, factors, 0.0)))

    with pytest.raises(ValueError, match=r"gradient was not.*jnp\.where"):
        sample(trap(), draws=10, warmup=10, adtype=AutoReverse(), progress=False)


def test_initial_values_too_far_out_are_blamed():
    with pytest.raises(ValueError, match=r"beside the initial values of 'a'.*Change those values"):
        sample(BOUND, init={"a": 1e200}, draws=10, warmup=10, progress=False)


def test_an_error_in_a_chain_reaches_the_caller(monkeypatch):
    def broken(*_, **__):
        raise OSError("disk on fire")

    monkeypatch.setattr(compilation.CompiledChain, "advance", broken)
    with pytest.raises(OSError, match="disk on fire"):
        sample(BOUND, draws=10, warmup=10, progress=False)
