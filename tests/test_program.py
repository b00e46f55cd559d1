"""Traced programs as equations: dependencies, selection, and splitting off what can be computed beforehand."""

import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ppl.programs.program import Program
from jax import lax

DATA = np.array([1.0, 2.0, 3.0])


def function(a, b, c):
    shared = jnp.sum(jnp.outer(b, DATA))
    loop = lax.fori_loop(0, 3, lambda _, x: jnp.sin(x) * b[0], a)
    chosen = lax.cond(c > 0, jnp.cos, jnp.exp, c)
    return [a * shared, loop + jnp.where(c > 0, c, -c), chosen, b, jnp.ones(2) * 3.0]


ARGUMENTS = (0.3, np.array([0.5, -1.0]), 2.0)


def traced():
    program, data, _ = Program.trace(function, *(jnp.asarray(x) for x in ARGUMENTS))
    return program, data


def check(results, outputs=range(5)):
    expected = function(*(jnp.asarray(x) for x in ARGUMENTS))
    for result, i in zip(results, outputs, strict=True):
        np.testing.assert_allclose(result, expected[i], rtol=1e-14)


def test_a_program_computes_what_the_function_does():
    program, data = traced()
    np.testing.assert_array_equal(data[0], DATA)
    check(program(*data, *ARGUMENTS))
    assert all(equation.primitive.name not in ("jit", "pjit") for equation in program.equations)


def test_dependencies_of_each_output():
    program, data = traced()
    first = len(data)
    named = [{"abc"[i - first] if i >= first else "data" for i in inputs} for inputs in program.dependencies()]
    assert named == [{"a", "b", "data"}, {"a", "b", "c"}, {"c"}, {"b"}, set()]


@pytest.mark.parametrize("outputs", [(0,), (2, 0), (4, 3)])
def test_selection_keeps_what_is_needed_and_nothing_else(outputs):
    program, data = traced()
    selected = program.select(outputs)
    check(selected(*data, *ARGUMENTS), outputs)
    assert len(selected.equations) < len(program.equations)
    assert len(program.select(())(*data, *ARGUMENTS)) == 0


@pytest.mark.parametrize("varying", [(1,), (2,), (3,), (1, 3), (3, 2), (0, 1, 2, 3), ()], ids=str)
def test_a_split_program_computes_the_same_in_two_parts(varying):
    program, data = traced()
    arguments = [*data, *ARGUMENTS]
    before, after = program.split(varying)
    given = before(*(argument for i, argument in enumerate(arguments) if i not in varying))
    check(after(*(arguments[i] for i in varying), *given))


def test_only_what_varies_is_left_for_later():
    program, _ = traced()
    names = lambda part: {equation.primitive.name for equation in part.equations}  # noqa: E731
    before, after = program.split((1,))
    assert "cond" in names(before) - names(after)
    assert names(after) & {"scan", "while"}
    before, after = program.split((3,))
    assert {"cond"} <= names(after) - names(before)
    assert "reduce_sum" in names(before) - names(after)


def test_cheap_expansions_are_repeated_rather_than_stored():
    program, _, _ = Program.trace(lambda a, b: jnp.sum(jnp.broadcast_to(jnp.exp(b), 1000) * a), 1.0, 2.0)
    before, after = program.split((0,))
    assert [np.shape(var.aval) for var in before.outputs] == [()]
    assert "broadcast_in_dim" in {equation.primitive.name for equation in after.equations}
    np.testing.assert_allclose(after(3.0, *before(2.0))[0], 3000 * np.exp(2.0))
