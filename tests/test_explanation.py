"""`explain`: the plan says what the programs of the blocks do, in few lines, and as a graph."""

import json
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import (
    HMC,
    MH,
    NUTS,
    AutoReverse,
    Conjugate,
    DiscreteGibbs,
    Gibbs,
    RandomScan,
    Repeat,
    SamplingWarning,
    Slice,
    model,
    plate,
    rv,
    sample,
)
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_centered
from dualtape.models.gdemo import gdemo
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model
from dualtape.ppl.plans.block_plan import Drawn, InARow, Rounds, Work
from dualtape.ppl.plans.explanation import explain
from dualtape.ppl.programs.program import Program
from dualtape.samplers.composition import build_kernel

LEAP = HMC(0.1, 5)
SCHOOLS = eight_schools_centered(Y, SIGMA)


@model
def chain():
    a = rv("a", dist.Normal(0.0, 1.0))
    b = rv("b", dist.Normal(a, 1.0))
    c = rv("c", dist.Normal(b, 1.0))
    rv("d", dist.Normal(c, 1.0))
    rv("apart", dist.Normal(0.0, 1.0))


@model
def grouped(y):
    mu = rv("mu", dist.Normal(0.0, 1.0))
    tau = rv("tau", dist.HalfNormal(1.0))
    for i in range(y.shape[0]):
        theta = rv(f"theta_{i}", dist.Normal(mu, tau))
        rv(f"y_{i}", dist.Normal(theta, 1.0), obs=y[i])


@model
def walk():
    x = rv("x_0", dist.Normal(0.0, 1.0))
    for i in range(1, 6):
        x = rv(f"x_{i}", dist.Normal(x, 1.0))


@model
def mixture(y):
    with plate("component", 3):
        mu = rv("mu", dist.Normal(0.0, 5.0))
    with plate("row", len(y)):
        z = rv("z", dist.Categorical(probs=jnp.ones(3) / 3))
        rv("y", dist.Normal(mu[z], 1.0), obs=y)


def by_name(plan):
    return {block.name: block for block in plan.blocks}


def doubled(x):
    return jnp.sum(x * 2.0 + 1.0)


def looped(x):
    return jax.lax.scan(lambda c, _: (c * 2.0 + 1.0, None), x[0], None, length=5)[0]


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (doubled, (3,), Work(operations=3, numbers=3 + 3 + 1, arrays=1, handed=1)),
        (lambda x: (x, jnp.sin(x)), (4,), Work(1, 4, 1, 4)),
        (lambda x: (jnp.arange(3), x), (2,), Work(1, 0, 1, 3)),
    ],
    ids=["elementwise", "passed on", "integers"],
)
def test_work_counts_equations_and_the_floats_they_compute(function, shape, expected):
    program, _, _ = Program.trace(function, jax.ShapeDtypeStruct(shape, float))
    assert Work.of(program) == expected


def test_a_scan_counts_with_all_its_rounds():
    one, _, _ = Program.trace(lambda x: x[0], jax.ShapeDtypeStruct((1,), float))
    program, _, _ = Program.trace(looped, jax.ShapeDtypeStruct((1,), float))
    assert Work.of(program).numbers == Work.of(one).numbers + 5 * 2


def test_the_plan_of_gdemo():
    plan = explain(gdemo(1.5, 2.0), Gibbs({"s": LEAP, "m": HMC(0.1, 5, adtype=AutoReverse())}))
    s, m = plan.blocks
    assert plan.order == "s → m"
    assert repr(plan) == "<plan of gdemo, Gibbs: 2 blocks>"
    assert (s.terms, m.terms) == (("s", "log|J| s", "m", "x", "y"), ("m", "x", "y"))
    assert (s.given, m.given) == (("m",), ("s",))
    assert (s.stale, m.stale) == (("m",), ("s",))
    assert (s.adtype, m.adtype) == ("AutoForward()", "AutoReverse()")
    assert (s.coordinates, m.coordinates) == ({"s": (0,)}, {"m": (1,)})
    # The scale of the normal distributions and its logarithm are the other block's.
    assert m.per_update.operations > 0
    assert m.evaluation.operations < s.evaluation.operations < plan.whole.operations


@pytest.mark.parametrize(
    ("bound", "sampler"),
    [
        (chain(), Gibbs({"a": LEAP, ("b", "apart"): LEAP, "c": LEAP, "d": LEAP})),
        (SCHOOLS, Gibbs({"theta[0:4]": LEAP, "theta[4:8]": LEAP, "mu": LEAP, "tau": LEAP})),
        (walk(), Gibbs({f"x_{i}": LEAP for i in range(6)})),
    ],
    ids=["chain", "parts", "walk"],
)
def test_stale_are_the_blocks_whose_gradient_the_move_changes(bound, sampler):
    plan = explain(bound, sampler)
    density = trace_model(bound, discover(bound)).density
    position = np.random.default_rng(1).normal(size=density.dimension)
    gradient = jax.jit(jax.grad(density.log_density))
    data = density.data
    for moved in plan.blocks:
        there = position.copy()
        there[[i for own in moved.coordinates.values() for i in own]] += 0.3
        changed = np.asarray(gradient(there, *data) != gradient(position, *data))
        others = [block for block in plan.blocks if block is not moved]
        expected = {b.name for b in others if changed[[i for own in b.coordinates.values() for i in own]].any()}
        assert set(moved.stale) == expected
        # What a block reads is what makes it stale, the other way round.
        assert {b.name for b in others if set(moved.coordinates) & set(b.given)} == expected


def test_a_block_that_nothing_makes_stale_keeps_its_state():
    plan = explain(chain(), Gibbs({"apart": NUTS(), ...: NUTS()}))
    assert [block.keeps_state for block in plan.blocks] == [True, True]
    assert [block.stale for block in plan.blocks] == [(), ()]
    assert "leaves alone   a,b,c,d" in str(plan)
    assert not any(block.keeps_state for block in explain(chain(), Gibbs({"a": NUTS(), ...: NUTS()})).blocks)


TURNS = [
    (Gibbs({"mu": LEAP, ...: NUTS()}), "mu → tau,theta", {"mu": (), "tau,theta": ()}),
    (
        Gibbs({"tau": Repeat(Slice(), 3), ...: Repeat(Gibbs({"mu": LEAP, "theta": NUTS()}), 2)}),
        "3 × tau → 2 × (mu → theta)",
        {"tau": (InARow(3),), "mu": (Rounds(2),), "theta": (Rounds(2),)},
    ),
    (
        RandomScan({"mu": LEAP, "tau": Slice(), "theta": NUTS()}, weights={"mu": 1, "tau": 1, "theta": 2}, updates=2),
        "2 draws from {mu: 0.25, tau: 0.25, theta: 0.5}",
        {"mu": (Drawn(0.25, 2),), "tau": (Drawn(0.25, 2),), "theta": (Drawn(0.5, 2),)},
    ),
    (
        RandomScan({"theta[0:4]": LEAP, "theta[4:8]": LEAP, ...: Gibbs({"mu": LEAP, "tau": Repeat(MH(), 5)})}),
        "3 draws from {theta[0:4], theta[4:8] (2 blocks): 0.333 each, mu → 5 × tau: 0.333}",
        {
            "theta[0:4]": (Drawn(1 / 3, 3),),
            "theta[4:8]": (Drawn(1 / 3, 3),),
            "mu": (Drawn(1 / 3, 3),),
            "tau": (Drawn(1 / 3, 3), InARow(5)),
        },
    ),
]


@pytest.mark.parametrize(("sampler", "order", "turns"), TURNS, ids=["Gibbs", "Repeat", "RandomScan", "nested"])
def test_the_place_of_a_block_in_a_step(sampler, order, turns):
    plan = explain(SCHOOLS, sampler)
    assert plan.order == order
    for name, block in by_name(plan).items():
        assert [type(turn) for turn in block.turns] == [type(turn) for turn in turns[name]]
        assert block.rate == pytest.approx(np.prod([turn.rate for turn in turns[name]]))
    density = trace_model(SCHOOLS, discover(SCHOOLS)).density
    kernel = build_kernel(sampler, density, np.dtype(float))
    rates = {i: rate * kernel.groups[i].repeats for i, rate in kernel.move.rates().items()}
    assert {block.group: pytest.approx(block.rate) for block in plan.blocks} == rates


@pytest.mark.parametrize("y", [jnp.arange(64.0), np.sqrt(np.arange(64.0))], ids=["JAX data", "NumPy data"])
def test_alike_blocks_are_one_entry(y):
    blocks = {("mu", "tau"): NUTS(), **{f"theta_{i}": LEAP for i in range(64)}}
    plan = explain(grouped(y), Gibbs(blocks))
    text = str(plan)
    assert len({block.group for block in plan.blocks}) == 2
    assert "2  theta_0 ... theta_63 (64 blocks, 1 compiled update)" in text
    assert len(text.splitlines()) < 40
    assert plan.dot.count("->") == 2
    globals_, first = plan.blocks[:2]
    assert first.terms == ("theta_0", "y_0")
    assert first.evaluation.operations < plan.whole.operations / 20
    assert len(globals_.terms) == 3 + 64


def test_blocks_that_make_each_other_stale():
    plan = explain(walk(), Gibbs({f"x_{i}": LEAP for i in range(1, 5)} | {("x_0", "x_5"): LEAP}))
    assert "each other" in str(plan)
    assert "b0 -> b0;" in plan.dot


def test_how_blocks_without_a_gradient_go_about_it():
    plan = explain(mixture(np.linspace(-3.0, 3.0, 20)), Gibbs({"z": DiscreteGibbs(), "mu": NUTS()}))
    assert "none; exact: enumerates 3 values of 20 coordinates, 1 colour" in str(plan)
    assert not by_name(plan)["z"].exact
    plan = explain(SCHOOLS, Gibbs({"mu": Conjugate(), ...: NUTS()}))
    assert by_name(plan)["mu"].exact
    assert "per draw       at most" in str(plan)


def test_what_the_data_determine_is_hoisted_out_of_a_run():
    @model
    def regression(x, y):
        beta = rv("beta", dist.Normal(jnp.zeros(3), 1.0))
        gram = (x.T @ x) / y.shape[0]
        rv("y", dist.Normal(jnp.sum(gram @ beta), 1.0), obs=y)

    @model
    def moving(x, y):
        beta = rv("beta", dist.Normal(jnp.zeros(3), 1.0))
        gram = (x.T @ (x * beta[0])) / y.shape[0]
        rv("y", dist.Normal(jnp.sum(gram @ beta), 1.0), obs=y)

    x, y = jnp.ones((50, 3)), jnp.zeros(50)
    fixed, free = (explain(bound(x, y)).blocks[0] for bound in (regression, moving))
    # Nine products and nine quotients, for once; where the factor moves, also 150 scaled numbers every time.
    assert fixed.per_run.numbers == free.per_run.numbers + 9 + 9
    assert free.evaluation.numbers >= fixed.evaluation.numbers + 9 + 9 + 150
    assert fixed.per_update == Work(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("bound", "sampler"),
    [
        (SCHOOLS, None),
        *((SCHOOLS, sampler) for sampler, _, _ in TURNS),
        (walk(), Gibbs({("x_0", "x_3"): MH(), ...: LEAP})),
    ],
)
def test_the_text_is_printed_and_fits(bound, sampler, capsys):
    plan = explain(bound, sampler)
    assert capsys.readouterr().out == f"{plan}\n"
    assert max(len(line) for line in [*str(plan).splitlines(), *str(plan.graph()).splitlines()]) <= 100
    for block in plan.blocks:
        assert block.sampler.partition("(")[0] in str(plan)


def test_the_plan_is_what_sample_does():
    sampler = Gibbs({"m": NUTS(), "s": LEAP})
    plan = explain(gdemo(1.5, 2.0), sampler, adtype=AutoReverse())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        idata = sample(gdemo(1.5, 2.0), sampler, 5, warmup=5, chains=1, seed=1, progress=False, adtype=AutoReverse())
    assert plan.sampler == idata.attrs["sampler"]
    recorded = json.loads(idata.attrs["blocks"])
    assert list(recorded) == [block.name for block in plan.blocks] == ["m", "s"]
    for block in plan.blocks:
        for what in ("sampler", "dimension", "adtype", "reason"):
            assert recorded[block.name][what] == getattr(block, what)
    assert {block.adtype for block in plan.blocks} == {"AutoReverse()"}


def test_the_graph_in_the_language_of_graphviz(tmp_path):
    plan = explain(SCHOOLS, Gibbs({"theta": MH(), ...: LEAP}))
    expected = (
        'digraph "plan" {\n'
        "  node [shape=box];\n"
        '  b0 [label="theta\\nMH"];\n'
        '  b1 [label="mu,tau\\nHMC\\nAutoForward()"];\n'
        "  b0 -> b1;\n"
        "  b1 -> b0;\n"
        "}\n"
    )
    assert plan.dot == expected
    assert plan.graph(tmp_path / "plan.dot").path.read_text() == expected
    written = plan.graph(str(tmp_path / "plan.txt")).path.read_text()
    assert written == f"{plan.graph()}\n"
    assert "theta  [MH]\n  └─▶ mu,tau" in written
    with pytest.raises(ValueError, match=r"no suffix that says the format; write '.*plan\.svg'"):
        plan.graph(tmp_path / "plan")


def test_names_are_quoted_in_graphviz():
    @model
    def odd():
        rv('a"b\\', dist.Normal(0.0, 1.0))

    assert r'label="a\"b\\\nNUTS' in explain(odd()).dot


def test_without_graphviz_the_text_takes_the_place_of_the_picture_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = explain(gdemo(1.5, 2.0), Gibbs({"s": LEAP, "m": LEAP}))
    with pytest.warns(UserWarning, match=r"Graphviz .* is not installed.*written as text to '.*plan\.txt' instead"):
        graph = plan.graph(tmp_path / "plan.svg")
    assert graph.path == tmp_path / "plan.txt"
    assert graph.path.read_text() == f"{graph}\n"
    assert not (tmp_path / "plan.svg").exists()
    assert graph._repr_svg_() is None


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for Graphviz is a shell script")
def test_graphviz_draws_the_picture(tmp_path, monkeypatch):
    """A stand-in for the program that knows one format."""
    program = tmp_path / "dot"
    program.write_text(
        '#!/bin/sh\n[ "$1" = -Tsvg ] || { echo "unknown format" >&2; exit 1; }\necho "<svg>"; exec /bin/cat\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = explain(gdemo(1.5, 2.0), Gibbs({"s": LEAP, "m": LEAP}))
    graph = plan.graph(tmp_path / "plan.svg")
    assert graph.path.read_text() == f"<svg>\n{plan.dot}" == graph._repr_svg_()
    with pytest.raises(ValueError, match=r"Graphviz cannot write '\.tiff' \(unknown format\); use \.svg"):
        plan.graph(tmp_path / "plan.tiff")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((gdemo,), {}, TypeError, "explain: 'gdemo' has no data yet; call it first"),
        ((3,), {}, TypeError, "explain: expected a model with its data, got 3; decorate a function with @model"),
        ((gdemo(1.5, 2.0), NUTS), {}, TypeError, r"explain: sampler must be one such as .*; write NUTS\(\)\."),
        ((gdemo(1.5, 2.0), Gibbs({"q": NUTS(), ...: NUTS()})), {}, ValueError, "block 'q' is no latent site"),
        ((gdemo(1.5, 2.0),), {"adtype": "forward"}, TypeError, "explain: adtype"),
        ((gdemo(1.5, np.nan),), {}, ValueError, "NaN"),
        ((mixture(np.zeros(3)),), {}, ValueError, "site 'z' is discrete"),
    ],
    ids=["no data", "no model", "a class", "unknown site", "adtype", "bad data", "discrete"],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=message):
        explain(*arguments, **options)
