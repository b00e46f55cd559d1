"""`graph`: the plate diagram says what depends on what, nests its plates, and is drawn so that it can be read."""

import itertools
import warnings

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape import deterministic, factor, model, plate, rv
from dualtape.models.eight_schools import SIGMA, Y, eight_schools_noncentered
from dualtape.ppl.describe.diagram import Diagram, draw_diagram
from dualtape.ppl.describe.layout import Box, Cluster, arrange, layers
from dualtape.ppl.describe.picture import _curve, _size
from dualtape.ppl.describe.summary import Kind, summarize

NONCENTERED = eight_schools_noncentered(Y, SIGMA)


@model
def schools_in_districts(y):
    mu = rv("mu", dist.Normal(0.0, 1.0))
    with plate("district", 2):
        d = rv("d", dist.Normal(mu, 1.0))
        with plate("school", 3):
            s = rv("s", dist.Normal(d[:, None], 1.0))
            with plate("pupil", 4):
                rv("y", dist.Normal(s[..., None], 1.0), obs=y)


@model
def item_response(y):
    with plate("student", 6):
        ability = rv("ability", dist.Normal(0.0, 1.0))
    with plate("item", 5):
        difficulty = rv("difficulty", dist.Normal(0.0, 1.0))
    with plate("student", 6), plate("item", 5):
        rv("answer", dist.Bernoulli(logits=ability[:, None] - difficulty), obs=y)
    factor("centred", -(jnp.sum(ability) ** 2))


@model
def hidden_markov(y):
    with plate("state", 2):
        level = rv("level", dist.Normal(0.0, 1.0))
        row = rv("row", dist.Dirichlet(jnp.ones(2)))
    z = rv("z_0", dist.Categorical(jnp.ones(2) / 2))
    for t in range(1, len(y)):
        z = rv(f"z_{t}", dist.Categorical(row[z]))
        rv(f"y_{t}", dist.Normal(level[z], 1.0), obs=y[t])


@model
def poll(y):
    """Of the size of models in practice, with arrows over several layers."""
    scales = [rv(f"sigma_{word}", dist.HalfNormal(1.0)) for word in ("age", "state", "both")]
    level = rv("level", dist.Normal(0.0, 1.0))
    with plate("age", 4):
        age = rv("alpha_age", dist.Normal(0.0, scales[0]))
    with plate("state", 5):
        mean = rv("mean_state", dist.Normal(level, 1.0))
        state = rv("alpha_state", dist.Normal(mean, scales[1]))
    with plate("age", 4), plate("state", 5):
        both = rv("alpha_both", dist.Normal(age[:, None] + state, scales[2]))
    with plate("voter", len(y)):
        logit = deterministic("logit", level + age[y] + state[y] + both[y, y])
        rv("vote", dist.Bernoulli(logits=logit), obs=y)


CASES = {
    "schools": NONCENTERED,
    "nested": schools_in_districts(np.zeros((2, 3, 4))),
    "crossed": item_response(np.zeros((6, 5), int)),
    "short chain": hidden_markov(np.zeros(5)),
    "long chain": hidden_markov(np.zeros(9)),
    "poll": poll(np.zeros(10, int)),
    "fixed": NONCENTERED.fix(tau=1.0),
}


def diagram(name):
    return Diagram.of(summarize(CASES[name]))


def nesting(cluster):
    """Labels of plates with what is in them."""
    return {(inner.label, inner.nodes): nesting(inner) for inner in cluster.inside}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("schools", {("school 8", ("z", "y", "theta")): {}}),
        (
            "nested",
            {("district 2", ("d",)): {("school 3", ("s",)): {("pupil 4", ("y",)): {}}}},
        ),
        (
            "crossed",
            {
                ("student 6", ("ability",)): {},
                ("item 5", ("difficulty",)): {},
                ("student 6 × item 5", ("answer",)): {},
            },
        ),
    ],
)
def test_plates_are_boxes_inside_each_other(name, expected):
    assert nesting(diagram(name).whole) == expected


def test_plates_of_which_only_the_inner_has_sites_are_one_box():
    @model
    def table():
        with plate("row", 2), plate("column", 3):
            rv("x", dist.Normal(0.0, 1.0))

    assert nesting(Diagram.of(summarize(table())).whole) == {("row 2 × column 3", ("x",)): {}}


def test_arrows_and_kinds():
    found = diagram("schools")
    assert set(found.arrows) == {("mu", "theta"), ("tau", "theta"), ("z", "theta"), ("theta", "y")}
    assert {node.name: node.kind for node in found.nodes} == {
        **dict.fromkeys(("mu", "tau", "z"), Kind.LATENT),
        "y": Kind.OBSERVED,
        "theta": Kind.DETERMINISTIC,
    }
    assert {node.name: node.family for node in diagram("long chain").nodes}["row"] == "Dirichlet [2]"


def test_many_names_that_differ_by_numbers_are_one_node():
    short, long = diagram("short chain"), diagram("long chain")
    assert ("z_0", "z_1") in short.arrows
    assert len(short.nodes) == 2 + 5 + 4
    assert {node.name for node in long.nodes} == {"level", "row", "z_0 … z_8", "y_1 … y_8"}
    assert ("z_0 … z_8", "z_0 … z_8") in long.arrows


def test_the_language_of_graphviz(tmp_path):
    graph = draw_diagram(NONCENTERED, tmp_path / "schools.dot")
    assert graph.path.read_text() == graph.dot
    assert graph.dot.splitlines() == [
        'digraph "eight_schools_noncentered" {',
        '  n0 [label="mu\\nNormal", shape=ellipse];',
        '  n1 [label="tau\\nHalfCauchy", shape=ellipse];',
        "  subgraph cluster_0 {",
        '    label="school 8"; labelloc=b; labeljust=r; style=rounded;',
        '    n2 [label="z\\nNormal", shape=ellipse];',
        '    n3 [label="y\\nNormal", shape=ellipse, style=filled, fillcolor="gray85"];',
        '    n4 [label="theta", shape=box];',
        "  }",
        "  n4 -> n3;",
        "  n0 -> n4;",
        "  n1 -> n4;",
        "  n2 -> n4;",
        "}",
    ]
    assert 'n3 [label="tau", shape=ellipse, style=dashed];' in draw_diagram(CASES["fixed"]).dot
    assert 'xlabel="centred", shape=square' in draw_diagram(CASES["crossed"]).dot


def test_the_text(tmp_path):
    graph = draw_diagram(NONCENTERED, tmp_path / "schools.txt")
    assert graph.path.read_text() == f"{graph}\n"
    assert "tau  [latent, HalfCauchy]\n  └─▶ theta\n" in str(graph)
    assert "theta  [deterministic, in school]\n  └─▶ y" in str(graph)


def placed(name):
    found = diagram(name)
    sizes = {node.name: _size(node) for node in found.nodes}
    arrows = [arrow for arrow in found.arrows if arrow[0] != arrow[1]]
    return found, arrange(found.whole, sizes, arrows, found.sideways)


def holds(outer, inner):
    return (
        abs(outer.x - inner.x) + inner.width / 2 <= outer.width / 2
        and abs(outer.y - inner.y) + inner.height / 2 <= outer.height / 2
    )


def apart(one, other):
    return (
        abs(one.x - other.x) > (one.width + other.width) / 2 or abs(one.y - other.y) > (one.height + other.height) / 2
    )


@pytest.mark.parametrize("name", CASES)
def test_nothing_overlaps(name):
    """A plate holds its own nodes and no others, nodes and plates are apart, and arrows run past nodes."""
    found, layout = placed(name)
    clusters = list(found.whole.inside)
    for cluster in clusters:
        clusters += cluster.inside
    boxes = {cluster.label: box for cluster in clusters for label, box in layout.plates if label == cluster.label}
    for cluster in clusters:
        for node, box in layout.nodes.items():
            assert (holds if node in cluster.members() else apart)(boxes[cluster.label], box)
    for one, other in itertools.combinations(layout.nodes.values(), 2):
        assert apart(one, other)
    for one, other in itertools.combinations(boxes.values(), 2):
        assert apart(one, other) or holds(one, other) or holds(other, one)
    for start, end in found.arrows:
        if start == end:
            continue
        x, y = _curve(layout, start, end).T
        for node, box in layout.nodes.items():
            inside = ((x - box.x) / (box.width / 2)) ** 2 + ((y - box.y) / (box.height / 2)) ** 2 < 1
            assert inside.any() == (node in (start, end))


@pytest.mark.parametrize("name", ["schools", "nested", "short chain", "poll"])
def test_arrows_go_down(name):
    found, layout = placed(name)
    assert not found.sideways
    for start, end in found.arrows:
        assert layout.nodes[start].y < layout.nodes[end].y


def test_a_deep_diagram_goes_from_left_to_right():
    @model
    def walk():
        x = rv("x_0", dist.Normal(0.0, 1.0))
        for t in range(1, 9):
            x = rv(f"x_{t}", dist.Normal(x, 1.0))

    found = Diagram.of(summarize(walk()))
    layout = arrange(found.whole, {node.name: _size(node) for node in found.nodes}, found.arrows, found.sideways)
    assert found.sideways
    assert layout.width > 5 * layout.height
    assert "rankdir=LR" in found.dot


@pytest.mark.parametrize(
    ("count", "pairs", "expected"),
    [
        (0, [], []),
        (3, [(0, 1), (1, 2), (0, 2)], [0, 1, 2]),
        (4, [(0, 1), (1, 2), (3, 2)], [0, 1, 2, 1]),
        (3, [(0, 1), (1, 0), (1, 2)], [0, 1, 2]),
    ],
    ids=["empty", "longest path", "a cause late in the day", "a cycle"],
)
def test_layers(count, pairs, expected):
    assert layers(count, pairs) == expected


def test_a_plate_between_whose_sites_something_outside_stands():
    """The plates are then on a cycle, which must not tear their boxes apart."""
    whole = Cluster("", ("between",), (Cluster("plate 2", ("first", "last"), ()),))
    sizes = dict.fromkeys(("between", "first", "last"), (1.0, 0.5))
    layout = arrange(whole, sizes, [("first", "between"), ("between", "last")], sideways=False)
    assert apart(layout.plates[0][1], layout.nodes["between"])
    assert isinstance(layout.nodes["first"], Box)


@pytest.mark.parametrize("name", CASES)
def test_without_graphviz_matplotlib_draws_the_picture(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = draw_diagram(CASES[name], tmp_path / "model.png")
    picture = matplotlib.image.imread(graph.path)[..., :3].mean(-1)
    ink = picture < 0.5
    assert 0.005 < ink.mean() < 0.3
    # Nothing is cut off.
    assert not any(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))


def test_formats(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    beginnings = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for suffix, beginning in beginnings.items():
        assert draw_diagram(NONCENTERED, tmp_path / f"m{suffix}").path.read_bytes().startswith(beginning)
    assert draw_diagram(NONCENTERED)._repr_svg_() == (tmp_path / "m.svg").read_text()
    with pytest.raises(ValueError, match=r"Matplotlib cannot write '\.bmp'; use \.svg"):
        draw_diagram(NONCENTERED, tmp_path / "m.bmp")
    with pytest.raises(ValueError, match=r"no suffix that says the format; write '.*m\.svg'"):
        draw_diagram(NONCENTERED, tmp_path / "m")


def test_with_neither_the_text_takes_the_place_of_the_picture_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"not installed.*written as text to '.*m\.txt' instead"):
        graph = draw_diagram(NONCENTERED, tmp_path / "m.png")
    assert graph.path.read_text() == f"{graph}\n"
    assert graph._repr_svg_() is None


def test_a_model_without_anything(tmp_path, monkeypatch):
    @model
    def nothing():
        pass

    monkeypatch.setenv("PATH", str(tmp_path))
    assert draw_diagram(nothing(), tmp_path / "m.png").path.exists()
    assert summarize(nothing()).parameters == 0
